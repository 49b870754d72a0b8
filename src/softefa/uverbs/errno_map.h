/* The one place where a status of the device becomes an errno of the kernel's interface. */
#pragma once

#include "base/status.h"

#include <cerrno>

namespace softefa::uverbs {

/// 0 for ok. Resource limits are ENOMEM as with the real driver (libfabric evicts address handles on ENOMEM).
constexpr int errno_of(base::status s) noexcept
{
    using base::status;
    switch (s) {
    case status::ok: return 0;
    case status::in_progress: return EINPROGRESS;
    case status::invalid_argument: return EINVAL;
    case status::unsupported: return EOPNOTSUPP;
    case status::not_found: return EINVAL;
    case status::permission: return EPERM;
    case status::bad_address: return EFAULT;
    case status::busy: return EBUSY;
    case status::no_resource: return EAGAIN;
    case status::no_memory: return ENOMEM;
    case status::limit: return ENOMEM;
    case status::peer_gone: return ECONNRESET;
    case status::unreachable: return EHOSTUNREACH;
    case status::protocol: return EPROTO;
    case status::io_error: return EIO;
    }
    return EIO;
}

} // namespace softefa::uverbs
