/* What arrives at the interface under fuzz_receive, and whether it was delivered as the protocol document says.
 *
 * Owns: a record of each message that was put into a receive; the streams that were delivered.
 *   - each message is delivered at most once, whole, to the handler of its id, unchanged;
 *   - in one life of one peer psns are delivered in order, and only those are missing that belonged to messages without a
 *     number (NOP, BYE, and payloads too short to carry one);
 *   - lives do not mix: one stream carries one epoch.
 * Every message carries the number of its injection in its payload, so that the handler can say which one it got.
 * Refuses to know: who sends what and why (remotes.h).
 */
#pragma once

#include "node.h"

#include <algorithm>
#include <cstring>

namespace fuzz {

struct injection {
    unsigned source;
    std::uint32_t imm, index, epoch, qkey;
    fake::gid_bytes gid;
    std::uint32_t src_qp;
    bool is_long;
    unsigned length; ///< of the payload
    bool numbered;   ///< the payload carries the number of this injection
    bool delivered = false;
    std::uint16_t psn() const { return static_cast<std::uint16_t>(imm); }
};

struct stream {
    std::uint32_t epoch = 0; ///< of the long headers delivered in it
    std::uint16_t next  = 0;
};

struct receive_oracle {
    node &n;
    std::vector<injection> injections;
    std::map<std::uint32_t, stream> streams; ///< by the index of the life

    static std::uint8_t pattern(std::uint32_t number, unsigned at) { return static_cast<std::uint8_t>(number * 7 + at); }

    static void fill(std::uint8_t *payload, unsigned length, std::uint32_t number)
    {
        std::memcpy(payload, &number, 4);
        for (unsigned i = 4; i < length; ++i) {
            payload[i] = pattern(number, i);
        }
    }

    void check_contents(const std::uint8_t *payload, unsigned length, std::uint32_t number) const
    {
        std::uint32_t found;
        std::memcpy(&found, payload, 4);
        FUZZ_CHECK(found == number, "a kept message changed");
        for (unsigned i = 4; i < length; ++i) {
            FUZZ_CHECK(payload[i] == pattern(number, i), "byte %u of message %u changed", i, number);
        }
    }

    /// The handler of `id` was given this. Returns the number of the injection, UINT32_MAX if it carries none.
    std::uint32_t delivered(unsigned id, const std::uint8_t *payload, unsigned length)
    {
        std::uint32_t number = UINT32_MAX;
        if (length >= 4) {
            std::memcpy(&number, payload, 4);
            FUZZ_CHECK(number < injections.size(), "a message that was never sent");
            injection &i = injections[number];
            FUZZ_CHECK(i.numbered && i.length == length, "message %u: %u bytes instead of %u", number, length, i.length);
            FUZZ_CHECK(!i.delivered, "message %u is delivered twice", number);
            FUZZ_CHECK(((i.imm >> 16) & 31) == id, "message %u goes to handler %u", number, id);
            check_contents(payload, length, number);
            i.delivered = true;
            check_order(i);
        }
        return number;
    }

    void check_order(const injection &i)
    {
        std::uint32_t index = i.index;
        if (i.is_long) {
            srd::gid_type gid;
            std::memcpy(gid.data(), i.gid.data(), gid.size());
            const srd::peer *p = n.f->peers.find(gid, static_cast<std::uint16_t>(i.src_qp), i.qkey);
            FUZZ_CHECK(p != nullptr, "a message of nobody is delivered");
            index = p->index_local();
        }
        stream &s = streams[index];
        if (i.is_long) {
            FUZZ_CHECK(s.epoch == 0 || s.epoch == i.epoch, "two lives in one stream");
            s.epoch = i.epoch;
        }
        const int ahead = static_cast<std::int16_t>(i.psn() - s.next);
        FUZZ_CHECK(ahead >= 0, "psn %u is delivered after %u", i.psn(), static_cast<unsigned>(s.next) - 1);
        for (std::uint16_t psn = s.next; psn != i.psn(); ++psn) {
            const bool explained = std::any_of(injections.begin(), injections.end(), [&](const injection &other) {
                return !other.numbered && other.psn() == psn && (other.src_qp & 0xffff) == (i.src_qp & 0xffff) &&
                       (other.is_long ? s.epoch == 0 || other.epoch == s.epoch : other.index == index);
            });
            FUZZ_CHECK(explained, "psn %u is missing before %u", psn, i.psn());
        }
        s.next = static_cast<std::uint16_t>(i.psn() + 1);
    }
};

} // namespace fuzz
