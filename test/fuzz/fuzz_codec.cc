/* Decoders of docs/transport-protocol.md over any bytes: never outside them, and what they accept means the same when it is
 * encoded again. The layout is read a second time here, by hand from the document's tables, and compared. */
#include "node.h"

#include <cstring>

namespace {

fuzz::tally inputs{"inputs"}, accepted{"decoded"};

/// Little-endian number at a place of the document's table.
std::uint32_t le(const std::uint8_t *from, unsigned bytes)
{
    std::uint32_t value = 0;
    for (unsigned i = 0; i < bytes; ++i) {
        value |= static_cast<std::uint32_t>(from[i]) << (8 * i);
    }
    return value;
}

void check_long(const std::uint8_t *data, std::size_t size)
{
    srd::wire::long_header h;
    const bool taken = srd::wire::get_long(data, size, h);
    FUZZ_CHECK(taken == (size >= 48 && le(data + 12, 4) != 0 && data[5] <= data[4]), "size %zu", size);
    if (!taken) {
        return;
    }
    ++accepted.value;
    FUZZ_CHECK(h.index == le(data, 4) && h.version == data[4] && h.version_min == data[5] && h.nonce == le(data + 6, 2) &&
                   h.qkey == le(data + 8, 4) && h.epoch == le(data + 12, 4) && h.known_epoch == le(data + 16, 4) &&
                   h.your_index == le(data + 20, 4) && std::memcmp(h.gid.data(), data + 24, 16) == 0 &&
                   h.grant.consumed.raw() == le(data + 40, 4) && h.grant.limit.raw() == le(data + 44, 4),
               "a field is read elsewhere");
    std::uint8_t again[48];
    srd::wire::put_long(again, h);
    FUZZ_CHECK(std::memcmp(again, data, 48) == 0, "not the same when it is written again");
}

void check_device(const std::uint8_t *data, std::size_t size)
{
    srd::gid_type gid;
    const bool wants_local = size > 0 && (data[0] & 4);
    const bool expected    = size > 0 && (data[0] & 0xfb) == 0xb8 && size >= (wants_local ? 9u : 17u);
    FUZZ_CHECK(srd::wire::get_device(data, size, gid) == expected, "size %zu", size);
    if (!expected) {
        return;
    }
    ++accepted.value;
    FUZZ_CHECK(std::memcmp(gid.data() + (wants_local ? 8 : 0), data + 1, wants_local ? 8 : 16) == 0, "the GID differs");
    std::uint8_t again[srd::wire::device_size_full];
    srd::gid_type second;
    srd::wire::put_device(again, gid);
    FUZZ_CHECK(srd::wire::get_device(again, srd::wire::device_size(gid), second) && second == gid, "not the same again");
}

void check_iface(const std::uint8_t *data, std::size_t size)
{
    srd::wire::iface_address a;
    const bool expected = size >= 8 && data[1] <= data[0] && data[0] != 0;
    FUZZ_CHECK(srd::wire::get_iface(data, size, a) == expected, "size %zu", size);
    if (!expected) {
        return;
    }
    ++accepted.value;
    std::uint8_t again[8];
    srd::wire::put_iface(again, a);
    FUZZ_CHECK(std::memcmp(again, data, 8) == 0 && a.qpn == le(data + 2, 2) && a.qkey == le(data + 4, 4), "not the same again");
}

void check_small(const std::uint8_t *data, std::size_t size)
{
    if (size < 8) {
        return;
    }
    const std::uint32_t index = le(data, 4), imm = le(data + 4, 4);
    FUZZ_CHECK(srd::wire::index_make(srd::wire::index_slot(index), srd::wire::index_generation(index)) == index, "index");
    FUZZ_CHECK(srd::wire::imm_make(srd::wire::imm_id(imm), base::seq32(srd::wire::imm_psn(imm)),
                                   imm & srd::wire::imm_flags_mask) == imm, "immediate");
    std::uint8_t again[8];
    srd::wire::put_credit(again, srd::wire::get_credit(data));
    FUZZ_CHECK(std::memcmp(again, data, 8) == 0, "credit");
    FUZZ_CHECK(srd::wire::versions_overlap(data[0], data[1]) == (data[1] <= 1 && data[0] >= 1), "versions");
}

} // namespace

extern "C" int LLVMFuzzerInitialize(int *, char ***)
{
    std::atexit([] {
        std::fprintf(stderr, "fuzz_codec: %llu inputs, each through 4 decoders; %llu decoded\n",
                     static_cast<unsigned long long>(inputs.value), static_cast<unsigned long long>(accepted.value));
    });
    return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t *data, std::size_t size)
{
    // A copy of exactly the size, so that a sanitizer sees one byte too many.
    const std::unique_ptr<std::uint8_t[]> exact(new std::uint8_t[size]);
    if (size != 0) {
        std::memcpy(exact.get(), data, size);
    }
    ++inputs.value;
    check_long(exact.get(), size);
    check_device(exact.get(), size);
    check_iface(exact.get(), size);
    check_small(exact.get(), size);
    return 0;
}
