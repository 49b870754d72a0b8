/* Every number that bounds something in flight or in a table. Device limits that a user may change are in settings.h. */
#pragma once

#include <cstddef>
#include <cstdint>

namespace softefa::dev::limits {

inline constexpr unsigned      devices         = 32;
inline constexpr unsigned      contexts        = 256;
inline constexpr unsigned      pds             = 4096;
inline constexpr unsigned      cqs             = 8192;
inline constexpr unsigned      qps             = 4096;  ///< of one process: 12 bits in an op_id
inline constexpr unsigned      ahs             = 65535; ///< of one context: 16-bit numbers, 0xffff means unknown
inline constexpr unsigned      mrs             = 1u << 18;
inline constexpr unsigned      sq_entries      = 32768; ///< of one QP: 15 bits in an op_id
inline constexpr unsigned      rq_entries      = 32768; ///< descriptors: 16-bit counters
inline constexpr unsigned      wqe_size_min    = 64;    ///< bytes; a WQE is of this size or the largest
inline constexpr unsigned      wqe_size_max    = 128;
inline constexpr unsigned      inline_max      = 80;    ///< bytes of payload in a WQE
inline constexpr unsigned      recv_sge        = 8;
inline constexpr unsigned      links           = 512;   ///< slots: the process itself, its peers, and who is being told that there is no room
inline constexpr unsigned      peers           = 500;   ///< other processes that one process is connected to
inline constexpr unsigned      reads_per_link  = 64;    ///< requests that a responder queues for one requester
inline constexpr std::uint32_t chunk_size      = 32 * 1024; ///< bytes of one RDMA record; the unit of rkey checks
inline constexpr std::uint32_t single_copy_min = 32 * 1024;  ///< bytes of the smallest RDMA that is worth a system call on another process
inline constexpr std::uint32_t single_copy_max = 512 * 1024; ///< bytes of one such call: how long the engine is held
inline constexpr unsigned      kept_grants     = 32;   ///< of one link; a power of two
inline constexpr unsigned      records_per_run = 16;    ///< served for one link in one pass: as many as programs take from a CQ at once, so that
                                                         ///< datagrams do not outrun the receives that are posted in between
inline constexpr unsigned      acks_per_run    = 512;
inline constexpr unsigned      ack_rounds      = 9;    ///< runs that take every acknowledgement of a full ring
inline constexpr std::uint32_t bytes_per_run   = 256 * 1024;
inline constexpr unsigned      wqes_per_run    = 256;   ///< fetched from one SQ before others have their turn
inline constexpr unsigned      polls_per_pass  = 16;    ///< while a command waits for the lock: one of so many polls takes it all the same
inline constexpr unsigned      combine_rounds  = 4;     ///< times a lock holder looks again for work that others left

} // namespace softefa::dev::limits
