/* The grammar of uverbs commands: see request.h.
 *
 * Error numbers are those of the kernel's parser: EPROTONOSUPPORT tells libibverbs that a method or a mandatory attribute is
 * unknown, so it must not be used for anything else; ENOTTY would make it give up ioctl altogether.
 */
#include "softefa/uverbs/request.h"

#include "softefa/uverbs/object_table.h"
#include "softefa/uverbs/user_memory.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace softefa::uverbs {
namespace {

constexpr std::size_t command_size_max = 4096; ///< bytes, as in the kernel: one page
constexpr std::size_t batch_count      = 32;   ///< attributes copied at once

bool is_user_zero(std::uint64_t address, std::size_t size)
{
    std::uint8_t bytes[256];
    while (size > 0) {
        const std::size_t part = std::min(size, sizeof(bytes));
        if (!copy_from_user(bytes, address, part) || std::any_of(bytes, bytes + part, [](auto b) { return b != 0; })) {
            return false;
        }
        address += part;
        size -= part;
    }
    return true;
}

object_use use_of(const attr_spec &spec) { return spec.kind == attr_kind::destroyed ? object_use::exclusive : object_use::shared; }

} // namespace

int request::load(std::uint64_t address, const method_spec *(*find)(std::uint16_t, std::uint16_t)) noexcept
{
    ib_uverbs_ioctl_hdr header;
    if (!copy_from_user(&header, address, sizeof(header))) {
        return EFAULT;
    }
    if (header.length > command_size_max ||
        header.length != sizeof(header) + std::size_t{header.num_attrs} * sizeof(ib_uverbs_attr)) {
        return EINVAL;
    }
    if (header.reserved1 != 0 || header.reserved2 != 0) {
        return EPROTONOSUPPORT;
    }
    if (header.driver_id != RDMA_DRIVER_EFA) {
        return EINVAL;
    }
    method_ = find(header.object_id, header.method_id);
    if (method_ == nullptr) {
        return EPROTONOSUPPORT;
    }

    ib_uverbs_attr batch[batch_count];
    std::uint64_t  next = address + sizeof(header);
    for (std::size_t left = header.num_attrs; left > 0;) {
        const std::size_t count = std::min(left, batch_count);
        if (!copy_from_user(batch, next, count * sizeof(ib_uverbs_attr))) {
            return EFAULT;
        }
        for (std::size_t i = 0; i < count; ++i, next += sizeof(ib_uverbs_attr)) {
            if (int error = accept(batch[i], next); error != 0) {
                return error;
            }
        }
        left -= count;
    }
    for (std::size_t i = 0; i < method_->attrs.size(); ++i) {
        if (method_->attrs[i].mandatory && given_[i].address == 0) {
            return EINVAL;
        }
    }
    return 0;
}

int request::accept(const ib_uverbs_attr &attr, std::uint64_t address) noexcept
{
    if ((attr.flags & ~(UVERBS_ATTR_F_MANDATORY | UVERBS_ATTR_F_VALID_OUTPUT)) != 0) {
        return EINVAL;
    }
    for (std::size_t i = 0; i < method_->attrs.size(); ++i) {
        const attr_spec &spec = method_->attrs[i];
        if (spec.id != attr.attr_id) {
            continue;
        }
        if (given_[i].address != 0) {
            return EINVAL; // twice
        }
        if (int error = check_size(spec, attr); error != 0) {
            return error;
        }
        given_[i].attr    = attr;
        given_[i].address = address;
        return 0;
    }
    return (attr.flags & UVERBS_ATTR_F_MANDATORY) != 0 ? EPROTONOSUPPORT : 0;
}

int request::check_size(const attr_spec &spec, const ib_uverbs_attr &attr) const noexcept
{
    switch (spec.kind) {
    case attr_kind::handle:
    case attr_kind::destroyed:
    case attr_kind::new_handle:
    case attr_kind::fd:
    case attr_kind::new_fd: return attr.len == 0 ? 0 : EINVAL;
    case attr_kind::out: return attr.len >= spec.size_min ? 0 : EINVAL;
    case attr_kind::in: break;
    }
    if (attr.len < spec.size_min) {
        return EINVAL;
    }
    if (attr.len > spec.size_max && attr.len > sizeof(attr.data)) {
        // A newer library sends a longer struct: fine while what we do not know is zero.
        return is_user_zero(attr.data + spec.size_max, std::size_t{attr.len} - spec.size_max) ? 0 : EOPNOTSUPP;
    }
    return 0;
}

int request::resolve(open_file &file) noexcept
{
    for (std::size_t i = 0; i < method_->attrs.size(); ++i) {
        const attr_spec &spec = method_->attrs[i];
        given           &g    = given_[i];
        if ((spec.kind != attr_kind::handle && spec.kind != attr_kind::destroyed) || g.address == 0) {
            continue;
        }
        const int error = object_get(file, g.attr.data, spec.type, use_of(spec), &g.target);
        if (error != 0) {
            return error;
        }
    }
    return 0;
}

int request::hold(const open_file &file, std::uint32_t handle, object_kind kind, object **object_p) noexcept
{
    if (held_ != nullptr) {
        return EINVAL;
    }
    const int error = object_get(file, handle, kind, object_use::shared, &held_);
    held_handle_    = handle;
    *object_p       = held_;
    return error;
}

void request::release() noexcept
{
    for (std::size_t i = 0; method_ != nullptr && i < method_->attrs.size(); ++i) {
        given &g = given_[i];
        if (g.target != nullptr) {
            object_put(g.target, static_cast<std::uint32_t>(g.attr.data), use_of(method_->attrs[i]));
        }
        g.target = nullptr;
    }
    if (held_ != nullptr) {
        object_put(held_, held_handle_, object_use::shared);
    }
    held_ = nullptr;
}

const request::given *request::slot(std::uint16_t id) const noexcept
{
    for (std::size_t i = 0; i < method_->attrs.size(); ++i) {
        if (method_->attrs[i].id == id) {
            return given_[i].address != 0 ? &given_[i] : nullptr;
        }
    }
    return nullptr;
}

std::size_t request::size(std::uint16_t id) const noexcept
{
    const given *g = slot(id);
    return g != nullptr ? g->attr.len : 0;
}

int request::read(std::uint16_t id, void *value_p, std::size_t size) const noexcept
{
    const given *g = slot(id);
    if (g == nullptr) {
        return EINVAL;
    }
    const std::size_t used = std::min<std::size_t>(size, g->attr.len);
    memset(value_p, 0, size);
    if (g->attr.len <= sizeof(g->attr.data)) {
        memcpy(value_p, &g->attr.data, used);
        return 0;
    }
    return copy_from_user(value_p, g->attr.data, used) ? 0 : EFAULT;
}

std::uint32_t request::u32(std::uint16_t id, std::uint32_t otherwise) const noexcept
{
    const given *g = slot(id);
    return g != nullptr ? static_cast<std::uint32_t>(g->attr.data) : otherwise;
}

std::uint64_t request::u64(std::uint16_t id, std::uint64_t otherwise) const noexcept
{
    const given *g = slot(id);
    return g != nullptr ? g->attr.data : otherwise;
}

int request::fd(std::uint16_t id) const noexcept
{
    const given *g = slot(id);
    return g != nullptr ? static_cast<int>(g->attr.data_s64) : -1;
}

object *request::resolved(std::uint16_t id) const noexcept
{
    const given *g = slot(id);
    return g != nullptr ? g->target : nullptr;
}

int request::write(std::uint16_t id, const void *value, std::size_t size) const noexcept
{
    static constexpr std::uint8_t zeros[256] = {};

    const given *g = slot(id);
    if (g == nullptr) {
        return 0;
    }
    std::size_t used = std::min<std::size_t>(size, g->attr.len);
    if (!copy_to_user(g->attr.data, value, used)) {
        return EFAULT;
    }
    while (used < g->attr.len) {
        const std::size_t part = std::min(sizeof(zeros), g->attr.len - used);
        if (!copy_to_user(g->attr.data + used, zeros, part)) {
            return EFAULT;
        }
        used += part;
    }
    return mark_valid(*g);
}

int request::write_handle(std::uint16_t id, std::uint32_t value) const noexcept
{
    const given *g = slot(id);
    if (g == nullptr) {
        return EINVAL;
    }
    const std::uint64_t data = value;
    return copy_to_user(g->address + offsetof(ib_uverbs_attr, data), &data, sizeof(data)) ? mark_valid(*g) : EFAULT;
}

int request::mark_valid(const given &slot) const noexcept
{
    const std::uint16_t flags = static_cast<std::uint16_t>(slot.attr.flags | UVERBS_ATTR_F_VALID_OUTPUT);
    return copy_to_user(slot.address + offsetof(ib_uverbs_attr, flags), &flags, sizeof(flags)) ? 0 : EFAULT;
}

} // namespace softefa::uverbs
