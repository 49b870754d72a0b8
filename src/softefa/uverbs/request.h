/* One command of the uverbs interface, taken out of the application's memory and checked against its method's table.
 *
 * Owns: the grammar that all commands share: header, attributes, inline and pointed-to values, outputs that are filled up to
 * the size the caller has room for and zeroed behind it. What is left to a handler is the meaning.
 *
 * Invariants
 *   REQ-1  nothing is dereferenced in the application's memory: every access is a fault-safe copy.
 *   REQ-2  attributes are read once; a caller that changes them meanwhile changes nothing.
 *   REQ-3  the objects that a command names stay as long as the command (OBJ-3).
 */
#pragma once

#include "softefa/uverbs/kernel_abi.h"

#include <cstddef>
#include <cstdint>
#include <span>

namespace softefa::uverbs {

struct open_file;
struct object;
enum class object_kind : std::uint8_t;

enum class attr_kind : std::uint8_t {
    in,         ///< a value: inline up to 8 bytes, else pointed to
    out,        ///< room for an answer: always pointed to
    handle,     ///< of an existing object
    destroyed,  ///< of an existing object, which the command destroys
    new_handle, ///< where the handle of the new object goes
    fd,         ///< an existing completion channel or async fd
    new_fd,     ///< where the new fd goes
};

constexpr std::uint16_t any_size = 0xffff;

struct attr_spec {
    std::uint16_t id;
    attr_kind     kind;
    bool          mandatory;
    std::uint16_t size_min = 0; ///< bytes, of in and out
    std::uint16_t size_max = any_size; ///< bytes, of in: what lies behind must be zero
    object_kind   type     = {};       ///< of handle and destroyed
};

class request;

struct method_spec {
    std::uint16_t              object;
    std::uint16_t              method;
    bool                       needs_context; ///< EINVAL before GET_CONTEXT
    std::span<const attr_spec> attrs;         ///< at most request::attr_count_max
    int (*handler)(open_file &, request &);   ///< 0 or an errno
};

class request {
public:
    static constexpr std::size_t attr_count_max = 20;

    request() noexcept = default;
    ~request() { release(); }
    request(const request &)            = delete;
    request &operator=(const request &) = delete;

    /// Reads the command at `address` and sorts its attributes by `find`'s specification. 0 or an errno.
    int load(std::uint64_t address, const method_spec *(*find)(std::uint16_t object, std::uint16_t method)) noexcept;
    const method_spec &method() const noexcept { return *method_; }

    /// Resolves the handles of the command. 0 or an errno. The objects stay until release().
    int resolve(open_file &file) noexcept;
    /// The same for the one handle within a command of the older interface.
    int hold(const open_file &file, std::uint32_t handle, object_kind kind, object **object_p) noexcept;
    void release() noexcept;

    bool has(std::uint16_t id) const noexcept { return slot(id) != nullptr; }
    std::size_t size(std::uint16_t id) const noexcept;

    /// Copies an input, zero-filled to `size`; EINVAL if absent, EFAULT.
    int read(std::uint16_t id, void *value_p, std::size_t size) const noexcept;
    template <class T> int read(std::uint16_t id, T *value_p) const noexcept { return read(id, value_p, sizeof(T)); }
    std::uint32_t u32(std::uint16_t id, std::uint32_t otherwise = 0) const noexcept;
    std::uint64_t u64(std::uint16_t id, std::uint64_t otherwise = 0) const noexcept;
    int           fd(std::uint16_t id) const noexcept; ///< -1: not given

    object *resolved(std::uint16_t id) const noexcept;

    /// Fills an output: min(room, size) bytes, zeros behind. An absent output is no error. 0 or EFAULT.
    int write(std::uint16_t id, const void *value, std::size_t size) const noexcept;
    template <class T> int write(std::uint16_t id, const T &value) const noexcept { return write(id, &value, sizeof(T)); }
    /// Stores a new handle or fd in the attribute itself.
    int write_handle(std::uint16_t id, std::uint32_t value) const noexcept;

private:
    struct given {
        ib_uverbs_attr attr;
        std::uint64_t  address = 0; ///< of the attribute; 0 = not given
        object        *target  = nullptr;
    };

    const given *slot(std::uint16_t id) const noexcept;
    int          accept(const ib_uverbs_attr &attr, std::uint64_t address) noexcept;
    int          check_size(const attr_spec &spec, const ib_uverbs_attr &attr) const noexcept;
    int          mark_valid(const given &slot) const noexcept;

    const method_spec *method_ = nullptr;
    given              given_[attr_count_max];
    object            *held_        = nullptr;
    std::uint32_t      held_handle_ = 0;
};

} // namespace softefa::uverbs
