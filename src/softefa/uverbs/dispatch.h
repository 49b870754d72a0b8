/* The table of commands: who serves which object and method. */
#pragma once

#include "softefa/dev/device.h"
#include "softefa/uverbs/request.h"

namespace softefa::uverbs {

/// Reads, checks and serves one command for `file`. 0 or an errno.
int dispatch(open_file &file, std::uint64_t argument) noexcept;

/// Each object's part of the table, defined in its file.
extern const std::span<const method_spec> device_methods;
extern const std::span<const method_spec> pd_methods;
extern const std::span<const method_spec> mr_methods;
extern const std::span<const method_spec> ah_methods;
extern const std::span<const method_spec> cq_methods;
extern const std::span<const method_spec> qp_methods;
extern const std::span<const method_spec> channel_methods;

/// A command of the older write() interface, carried by INVOKE_WRITE.
struct write_spec {
    std::uint32_t command;  ///< with IB_USER_VERBS_CMD_FLAG_EXTENDED where it has it
    std::uint16_t in_min;   ///< bytes of CORE_IN
    std::uint16_t out_min;  ///< bytes of CORE_OUT
    bool          needs_context;
    int (*handler)(open_file &, request &);
};

extern const std::span<const write_spec> device_writes;
extern const std::span<const write_spec> pd_writes;
extern const std::span<const write_spec> mr_writes;
extern const std::span<const write_spec> ah_writes;
extern const std::span<const write_spec> qp_writes;
extern const std::span<const write_spec> channel_writes;

/// Serves INVOKE_WRITE; in device_methods.
int invoke_write(open_file &file, request &command) noexcept;

/// The device context, or 0.
dev::handle context_of(const open_file &file) noexcept;

/// Shorthand for the handlers of destroy methods, for an object that the command got to destroy: retires the handle, calls `destroy`, restores the
/// handle if that fails.
int destroy_object(object *slot, base::status (*destroy)(dev::handle)) noexcept;

/// The end of a create method whose answer is written, or (`error`) could not be: publishes the object, or takes it down. Returns `error`.
int publish_created(object *slot, std::uint32_t handle, int error, base::status (*destroy)(dev::handle)) noexcept;

/// request::hold() for the older interface, which says EINVAL for every bad handle.
int write_lookup(const open_file &file, request &command, std::uint32_t handle, object_kind kind, object **object_p) noexcept;

} // namespace softefa::uverbs
