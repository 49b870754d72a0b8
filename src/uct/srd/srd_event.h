/* Wakeup: the file descriptor that a program sleeps on, and when it may. Contract: docs/uct-semantics.md, "Wakeup".
 *
 * Owns: the completion channel, a timer, the epoll descriptor that joins the two, and the decision of event_arm.
 * Refuses to know: what completions mean (they are stashed for the next progress call), what timers are for (srd_control).
 *
 * One descriptor for two sources. The channel tells of completions in both directions, because there is one completion
 * queue. The timer tells of what this side has to do on its own while nothing arrives: repeat a hello or a message that the
 * peer had no receive for, ask a silent peer whether it lives. Without the timer each of these would depend on a progress
 * call that a sleeping program does not make. Rejected: answering BUSY as long as a timer runs (a program that waits for a
 * slow receiver would spin instead of sleeping); leaving it to UCP's keepalive (only with error handling, every 20 s).
 *
 * Invariants
 *   EVT-1  event_arm says OK only if, after the notification was requested, the queue was seen empty and nothing is owed
 *          that the next progress call would do.
 *   EVT-2  while `armed`, whatever becomes due, also by a call of the program that is not progress, sets the timer or makes
 *          it fire at once.
 *   EVT-3  a progress call after event_arm looks at the clock: what the timer announced is done in it.
 */
#pragma once

#include "base/clock.h"
#include "uct/srd/ucx/uct_abi.h"

#include <cstdint>
#include <infiniband/verbs.h>

namespace srd {

struct iface;

/// What an interface has for wakeup. All empty: the interface offers no events.
struct event_source {
    ibv_comp_channel *channel = nullptr; ///< of the one completion queue; null = no events
    int fd                    = -1;      ///< epoll of the channel and the timer: what the program sleeps on
    int timer_fd              = -1;
    base::time_ns timer_at    = 0;       ///< when the timer fires; 0 = it does not
    bool armed                = false;   ///< the last event_arm said OK and no progress call came since
};

/// Whether UCX_SRD_EVENTS=try opens a completion channel on this device: not where the kernel's driver `efa` serves it
/// (docs/hardware-assumptions.md, HA-20). `pci_devices`: the kernel's folder of PCI devices.
bool event_try_is_safe(const char *bdf, const char *pci_devices = "/sys/bus/pci/devices") noexcept;

/// `setting`: a ucs_ternary_auto_value_t. UCS_OK without a channel if the setting allows that.
ucs_status_t event_init(iface *f, int setting) noexcept;
/// After the completion queue is gone.
void event_fini(iface *f) noexcept;

/// When the timer must fire: 0 = never, in the past = at once. Pure.
base::time_ns event_deadline(const iface *f) noexcept;
/// Whether the next progress call would do something although nothing has completed. Clears reasons of waiting endpoints that are gone.
bool event_work_is_due(iface *f, base::time_ns now) noexcept;

/// EVT-2: something is due at `due` (0 = now) that was not when the program armed.
void event_reschedule(iface *f, base::time_ns due) noexcept;

} // namespace srd

extern "C" {
ucs_status_t uct_srd_iface_event_fd_get(uct_iface_h iface, int *fd_p) noexcept;
ucs_status_t uct_srd_iface_event_arm(uct_iface_h iface, unsigned events) noexcept;
}
