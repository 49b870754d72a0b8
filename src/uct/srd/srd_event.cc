/* Wakeup: see srd_event.h. Slow path: a program calls in here before it sleeps, never in a loop that polls. */
#include "uct/srd/srd_iface.h"

#include <cerrno>
#include <climits>
#include <cstdio>
#include <cstring>
#include <cstdlib>
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

namespace srd {

namespace {

/// What is due this soon is waited for by polling: setting a timer and sleeping takes longer.
constexpr base::time_ns sleep_min = base::us(20);

void timer_set(event_source &e, base::time_ns at) noexcept
{
    itimerspec when{};
    when.it_value.tv_sec  = static_cast<time_t>(at / base::sec(1));
    when.it_value.tv_nsec = static_cast<long>(at % base::sec(1));
    timerfd_settime(e.timer_fd, TFD_TIMER_ABSTIME, &when, nullptr); // also forgets that it fired
    e.timer_at = at;
}

bool watch(int epoll_fd, int fd) noexcept
{
    epoll_event interest{};
    interest.events  = EPOLLIN;
    interest.data.fd = fd;
    return epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &interest) == 0;
}

/// Opens all descriptors, or none.
bool open_all(event_source &e, ibv_context *verbs) noexcept
{
    e.channel  = ibv_create_comp_channel(verbs);
    e.fd       = epoll_create1(EPOLL_CLOEXEC);
    e.timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    const int flags = e.channel != nullptr ? fcntl(e.channel->fd, F_GETFL) : -1;
    return e.fd >= 0 && e.timer_fd >= 0 && flags >= 0 && fcntl(e.channel->fd, F_SETFL, flags | O_NONBLOCK) == 0 &&
           watch(e.fd, e.channel->fd) && watch(e.fd, e.timer_fd);
}

/// Takes the events that fired; what they told of is polled, not believed. False: the channel is broken.
bool drain_channel(event_source &e) noexcept
{
    ibv_cq *cq;
    void *context;

    while (ibv_get_cq_event(e.channel, &cq, &context) == 0) {
        ibv_ack_cq_events(cq, 1);
    }
    return errno == EAGAIN || errno == EWOULDBLOCK;
}

/// Whether a queued request could be sent now. All others wait for a completion, a message or a timer. All endpoints are
/// asked, however many: a program that must not sleep while a hundred of them wait could as well poll.
bool pending_can_go_on(iface *f) noexcept
{
    for (ep *e = f->pending_ring; e != nullptr; e = e->slow->pending_next) {
        if (ep_reasons_gone(f, e)) {
            return true;
        }
        if (e->slow->pending_next == f->pending_ring) {
            return false;
        }
    }
    return false;
}

} // namespace

bool event_try_is_safe(const char *bdf, const char *pci_devices) noexcept
{
    char path[PATH_MAX], driver[PATH_MAX];

    if (bdf[0] == '\0' || std::snprintf(path, sizeof(path), "%s/%s/driver", pci_devices, bdf) >= static_cast<int>(sizeof(path))) {
        return false; // not known: the cautious answer
    }
    const ssize_t size = readlink(path, driver, sizeof(driver) - 1);
    if (size < 0) {
        return errno == ENOENT; // no device of the kernel's, or one that no driver serves
    }
    driver[size]     = '\0';
    const char *name = std::strrchr(driver, '/');
    return std::strcmp(name != nullptr ? name + 1 : driver, "efa") != 0;
}

ucs_status_t event_init(iface *f, int setting) noexcept
{
    if (setting == UCS_NO || (setting != UCS_YES && !event_try_is_safe(f->md->attr.bdf))) {
        return UCS_OK;
    }
    if (open_all(f->event, f->md->verbs)) {
        return UCS_OK;
    }
    const int why = errno;
    event_fini(f);
    if (setting == UCS_YES) {
        ucs_error("srd: no completion channel on %s: errno %d (UCX_SRD_EVENTS=y)", f->md->attr.ibdev_name, why);
        return UCS_ERR_IO_ERROR;
    }
    ucs_diag("srd: no completion channel on %s: errno %d; wakeup is not offered", f->md->attr.ibdev_name, why);
    return UCS_OK;
}

void event_fini(iface *f) noexcept
{
    event_source &e = f->event;

    if (e.channel != nullptr && ibv_destroy_comp_channel(e.channel) != 0) {
        ucs_warn("srd: destroying a completion channel failed: errno %d", errno);
    }
    if (e.fd >= 0) {
        close(e.fd);
    }
    if (e.timer_fd >= 0) {
        close(e.timer_fd);
    }
    e = event_source{};
}

base::time_ns event_deadline(const iface *f) noexcept
{
    base::time_ns due = f->timers != nullptr ? f->timer_min : 0;

    // Housekeeping asks the peers that are silent; half the interval keeps the promise of twice the interval.
    if (f->keepalive_interval != 0 && f->ep_count != 0) {
        const base::time_ns round = f->ticked_at + f->keepalive_interval / 2;
        due                       = due == 0 || round < due ? round : due;
    }
    return due;
}

bool event_work_is_due(iface *f, base::time_ns now) noexcept
{
    if (f->polling || f->stash_count != 0) {
        return true;
    }
    // In this order: to ask whether a request could go on may make a debt, a hello for one-sided operations.
    if (((f->attention & attend_pending) && pending_can_go_on(f)) || ((f->attention & attend_work) && control_can_go_on(f))) {
        return true;
    }
    const base::time_ns due = event_deadline(f);
    if (due != 0 && due <= now + sleep_min) {
        f->tick = 1; // EVT-3
        return true;
    }
    return false;
}

void event_reschedule(iface *f, base::time_ns due) noexcept
{
    event_source &e = f->event;

    if (due == 0) {
        due = 1; // in the past: fires at once
    }
    if (e.armed && (e.timer_at == 0 || due < e.timer_at)) {
        timer_set(e, due);
    }
}

} // namespace srd

using namespace srd;

extern "C" ucs_status_t uct_srd_iface_event_fd_get(uct_iface_h tl_iface, int *fd_p) noexcept
{
    const iface *f = iface_of(tl_iface);

    if (f->event.channel == nullptr) {
        return UCS_ERR_UNSUPPORTED;
    }
    *fd_p = f->event.fd;
    return UCS_OK;
}

/// `events` says what the program waits for; one completion queue tells of all of it, so it is not looked at.
extern "C" ucs_status_t uct_srd_iface_event_arm(uct_iface_h tl_iface, unsigned) noexcept
{
    iface *f        = iface_of(tl_iface);
    event_source &e = f->event;

    if (e.channel == nullptr) {
        return UCS_ERR_UNSUPPORTED;
    }
    e.armed = false;
    if (event_work_is_due(f, base::clock_now_ns())) {
        count(f, counter::event_busy);
        return UCS_ERR_BUSY;
    }
    if (f->rx.posted < f->rx.refill_at) {
        rx_refill(f); // the program may have given descriptors back since the last progress call
    }
    // EVT-1. In this order: an event of the past is taken away, the next one is requested, and what completed before the
    // request, for which no event need come, is found by looking.
    if (!rx_stash_ready(f)) {
        return UCS_ERR_NO_MEMORY;
    }
    if (!drain_channel(e) || ibv_req_notify_cq(f->rx.cq, 0) != 0) {
        ucs_error("srd: arming the completion queue failed: errno %d", errno);
        return UCS_ERR_IO_ERROR;
    }
    if (rx_look(f)) {
        count(f, counter::event_busy);
        return UCS_ERR_BUSY;
    }
    const base::time_ns due = event_deadline(f);
    if (due != e.timer_at) { // else it is set, and has not fired: `due` is in the future
        timer_set(e, due);
        count(f, counter::event_timer, due != 0);
    }
    e.armed = true;
    f->tick = 1; // EVT-3
    count(f, counter::event_armed);
    return UCS_OK;
}
