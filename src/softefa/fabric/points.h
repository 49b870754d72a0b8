/* Marked points of what is written to shared memory, for tests that kill a process at each of them.
 *
 * The marks are compiled into a test's own copy of these sources (SOFTEFA_FAULT_POINTS); in the library that is installed they are nothing.
 * A test arms one point; the process sends itself a signal, SIGKILL or SIGSTOP, when it has passed it often enough.
 *
 * Without a mark are single words that stand for themselves and that a peer reads whole: epochs, the park word, positions, the word of a cut. A kill
 * before such a store is one at the mark before it, and a kill behind it one at the next.
 */
#pragma once

#include <cstdint>

namespace softefa::fabric {

enum class point : std::uint8_t {
    payload_written,  ///< in the ring, not committed
    next_cleared,     ///< the commit word behind the record is cleared
    header_written,   ///< all but the commit word
    committed,
    pad_committed,    ///< the end of the ring was filled, the record itself is not begun
    record_claimed,   ///< a record was seen and will be served
    payload_placed,   ///< in the application's memory, no completion yet
    receive_completed, ///< receive CQE written, not acknowledged
    acknowledged,
    positions_half,   ///< consumed records given back, acknowledgements not yet
    positions_given_back,
    write_chunk_placed, ///< in the middle of an RDMA write
    read_chunk_copied,  ///< read data in the ring, not committed
    window_lent,      ///< a write by address was announced
    grant_given,      ///< a read was granted
    copied_once,      ///< the other process's memory was copied, nothing was checked yet
    send_completed,   ///< CQE of the acknowledged work request written, the acknowledgement not given back
    before_wake,      ///< records published, the sleeper not woken
    woken,
    hello_sent,
    welcome_sent,
    link_up,
    count
};

#ifdef SOFTEFA_FAULT_POINTS
void point_arm(point p, std::uint32_t passes, int signal) noexcept; ///< the process gets the signal when it passes `p` that often from now
void point_call(point p, void (*then)()) noexcept; ///< once, by whoever passes `p` next
std::uint32_t point_passes(point p) noexcept;
void point_passed(point p) noexcept;
#define SOFTEFA_POINT(name) ::softefa::fabric::point_passed(::softefa::fabric::point::name)
#else
#define SOFTEFA_POINT(name) static_cast<void>(0)
#endif

} // namespace softefa::fabric
