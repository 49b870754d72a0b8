/* Rings that the application reads and writes without verbs calls: see direct.cc. */
#pragma once

#include "base/clock.h"
#include "softefa/dev/device.h"

namespace softefa::dev {

struct qp;
struct cq;

constexpr base::time_ns direct_busy     = base::ms(100); ///< without anything that moved, until naps are longer
constexpr base::time_ns direct_nap_idle = base::ms(1);   ///< the longer nap

/// The application knows the addresses of this queue's rings from now on. Slow path; an unknown handle is ignored.
void direct_qp(handle qp) noexcept;
void direct_cq(handle cq) noexcept;

// --- engine lock held
void direct_forget(qp &q) noexcept;
void direct_forget(cq &c) noexcept;
/// An event of the CQ was written.
void direct_fired(cq &c) noexcept;
/// Acts upon doorbells that changed; true if anything moved.
bool direct_look() noexcept;
/// A queue exists whose doorbell must be looked at again by itself.
bool direct_watched() noexcept;

/// How long the helper may nap when nothing moved for `idle`.
base::time_ns direct_pause(base::time_ns idle) noexcept;

} // namespace softefa::dev
