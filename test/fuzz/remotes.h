/* The remote interfaces of fuzz_receive: they speak the protocol well enough to be believed, then lie.
 *
 * Owns: what each remote knows, as a real one would from what it hears: epochs, indices, what it consumed and granted; messages
 * that are right, or wrong in one thing for each bit of a byte; bytes at random.
 * Refuses to know: what comes of them (receive_oracle.h).
 */
#pragma once

#include "receive_oracle.h"

#include <set>

namespace fuzz {

inline constexpr unsigned remote_count = 4;
inline constexpr unsigned long_size = 48, credit_size = 8, index_size = 4; // of the document, not of the code

struct remote {
    fake::gid_bytes gid{};
    std::uint16_t qpn      = 0;
    std::uint32_t qkey     = 0;
    std::uint32_t epoch    = 0;
    std::uint32_t known    = 0;          ///< the interface's epoch, as heard
    std::uint32_t index    = 0xffffffff; ///< assigned to us, as heard
    std::uint16_t nonce    = 1;
    std::uint32_t next     = 0; ///< lowest psn not sent
    std::set<std::uint32_t> ahead;
    std::uint32_t heard = 0, limit = 16; ///< sequenced messages that reached us; what we granted
    std::uint32_t told = 0; ///< most that any header of ours has said is consumed
    bool lied = false; ///< ... or may have said
};

struct remotes {
    node &n;
    input &in;
    receive_oracle &oracle;
    remote all[remote_count] = {};
    std::uint64_t arrived = 0, starved = 0; ///< messages that met a receive; that did not

    void draw()
    {
        for (unsigned r = 0; r < remote_count; ++r) {
            remote &m = all[r];
            m.gid     = fake::gid_bytes{0xfe, 0x80, 0, 0, 0, 0, 0, 0, 2, static_cast<std::uint8_t>(r / 2)}; // pairs share a device
            m.qpn     = static_cast<std::uint16_t>(100 + r);
            m.qkey    = 0x1000 + r;
            m.epoch   = 0x5000 + r;
        }
    }

    void put_le(std::uint8_t *to, std::uint32_t value, unsigned bytes)
    {
        for (unsigned i = 0; i < bytes; ++i) {
            to[i] = static_cast<std::uint8_t>(value >> (8 * i));
        }
    }

    /// What a correct remote would put into a long header.
    void write_long(std::uint8_t *h, remote &m)
    {
        put_le(h, m.index, 4);
        h[4] = h[5] = 1;
        put_le(h + 6, m.nonce, 2);
        put_le(h + 8, m.qkey, 4);
        put_le(h + 12, m.epoch, 4);
        put_le(h + 16, m.known, 4);
        put_le(h + 20, 0x00100000u | static_cast<std::uint32_t>(&m - all), 4);
        std::memcpy(h + 24, m.gid.data(), 16);
        put_le(h + 40, m.heard, 4);
        m.told = std::max(m.told, m.heard);
        put_le(h + 44, m.limit, 4);
    }

    std::uint32_t take_psn(remote &m, unsigned choice)
    {
        while (m.ahead.erase(m.next) != 0) {
            ++m.next;
        }
        switch (choice % 32) {
        case 0: case 1: case 2: case 3: { // early
            const std::uint32_t psn = m.next + 1 + in.below(20);
            m.ahead.insert(psn);
            return psn;
        }
        case 4: // anything
            return m.next + static_cast<std::uint32_t>(static_cast<std::int16_t>(in.u16()));
        default:
            return m.next++;
        }
    }

    /// A message of remote `r`: correct, or with one thing wrong for each bit of `lies`.
    void inject(unsigned r)
    {
        remote &m              = all[r];
        const unsigned kind    = in.u8();
        const unsigned lies    = (in.u8() & 15) == 0 ? in.u8() : 0;
        const bool knows_index = m.index != 0xffffffff;
        const unsigned form    = knows_index ? kind & 3 : 3; // 0, 1 short; 2 with credits; 3 long
        const bool control     = (kind & 0x0c) == 0x0c;
        const bool sequenced   = !control || (kind & 0x70) >= 0x60;
        static constexpr unsigned control_types[] = {1, 2, 4, 5, 3, 4, 16, 17};
        unsigned id = control ? control_types[(kind >> 4) & 7] : (kind >> 4) & 7;
        std::uint32_t psn = sequenced ? take_psn(m, in.u8()) : 0;
        std::uint32_t flags = (form == 2 ? 1u << 21 : form == 3 ? 1u << 22 : 0) | (control ? 1u << 23 : 0) |
                              ((kind & 0x80) ? 1u << 24 : 0);
        m.lied |= lies != 0;
        std::uint8_t bytes[2048];
        const unsigned header = form == 3 ? long_size : form == 2 ? index_size + credit_size : index_size;
        if (form == 3) {
            write_long(bytes, m);
        } else {
            put_le(bytes, m.index, 4);
            if (form == 2) {
                put_le(bytes + 4, m.heard, 4);
                m.told  = std::max(m.told, m.heard);
                m.limit = m.heard + 16 + in.below(64);
                put_le(bytes + 8, m.limit, 4);
            }
        }
        static constexpr unsigned sizes[] = {8, 0, 1, 3, 4, 64, 200, 0xffff};
        const unsigned room = static_cast<unsigned>(n.opts.message_size) - header;
        unsigned length     = control ? (id == 3 ? 1 : 0) : std::min(sizes[in.below(8)], room);
        std::uint32_t src   = m.qpn;
        std::uint16_t slid  = n.device.number_of(m.gid);
        bool with_imm       = true;
        if (control && id == 3) {
            bytes[header] = static_cast<std::uint8_t>(in.u8() % 5);
        }
        if (lies & 0x01) {
            flags ^= 1u << (21 + in.below(11));
        }
        if (lies & 0x02) {
            id = in.u8() & 31;
        }
        if (lies & 0x04) {
            const unsigned at = in.u8() % header;
            bytes[at] = in.u8();
        }
        if (lies & 0x08) {
            src = (in.u8() & 1) ? all[in.below(remote_count)].qpn : in.u32();
        }
        if (lies & 0x10) {
            slid = (in.u8() & 1) ? n.device.number_of(all[in.below(remote_count)].gid) : in.u16();
        }
        if (lies & 0x20) {
            with_imm = false;
        }
        if (lies & 0x80) {
            length = std::min<unsigned>(in.u8(), room);
        }
        unsigned size = header + length;
        if (lies & 0x40) {
            size = in.u8() % (header + 1);
        }
        deliver(r, bytes, size, id << 16 | flags | (psn & 0xffff), with_imm, slid, src, control && id == 3 && lies == 0);
    }

    /// Any bytes at all.
    void inject_noise()
    {
        std::uint8_t bytes[2048];
        for (remote &m : all) {
            m.lied = true; // for all we know
        }
        const unsigned size = in.u8() % 3 == 0 ? static_cast<unsigned>(n.opts.message_size) : in.u8();
        for (unsigned i = 0; i < 64; ++i) {
            bytes[i] = in.u8();
        }
        std::memset(bytes + 64, 0x5a, sizeof(bytes) - 64);
        deliver(0, bytes, std::min<unsigned>(size, static_cast<unsigned>(n.opts.message_size)), in.u32(), in.u8() % 8 != 0,
                in.u16(), in.u32(), false);
    }

    void deliver(unsigned r, std::uint8_t *bytes, unsigned size, std::uint32_t imm, bool with_imm, std::uint16_t slid,
                 std::uint32_t src, bool keep_payload)
    {
        const unsigned header = (imm & (1u << 22)) ? long_size : (imm & (1u << 21)) ? index_size + credit_size : index_size;
        injection i{};
        i.source  = r;
        i.imm     = imm;
        i.src_qp  = src;
        i.is_long = imm & (1u << 22);
        i.length  = size > header ? size - header : 0;
        if (size >= 4) {
            std::memcpy(&i.index, bytes, 4);
        }
        if (i.is_long && size >= long_size) {
            std::memcpy(&i.epoch, bytes + 12, 4);
            std::memcpy(&i.qkey, bytes + 8, 4);
            std::memcpy(i.gid.data(), bytes + 24, 16);
        }
        if (slid == 0xffff && (src & 0xffff) == 0xffff) {
            i.src_qp = src = 0xfffe; // the one pair that a device does not report: peer::accept_none
        }
        const auto number = static_cast<std::uint32_t>(oracle.injections.size());
        if (!keep_payload && i.length >= 4) {
            i.numbered = !(imm & (1u << 23));
            receive_oracle::fill(bytes + header, i.length, number);
        }
        if (!n.device.arrive(bytes, size, imm, with_imm, slid, src)) {
            ++starved;
            return;
        }
        ++arrived;
        oracle.injections.push_back(i);
    }

    /// What a send that reached its target tells the remote there.
    void hear(const fake::send &s, const std::vector<std::uint8_t> &bytes)
    {
        for (remote &m : all) {
            if (m.gid != s.gid || m.qpn != s.qpn || m.qkey != s.qkey) {
                continue;
            }
            const bool control = s.imm & (1u << 23);
            if (!control || ((s.imm >> 16) & 31) >= 16) {
                ++m.heard;
            }
            if ((s.imm & (1u << 22)) && bytes.size() >= long_size) {
                std::uint32_t epoch, known, yours;
                std::memcpy(&epoch, bytes.data() + 12, 4);
                std::memcpy(&known, bytes.data() + 16, 4);
                std::memcpy(&yours, bytes.data() + 20, 4);
                m.known = epoch;
                if (known == m.epoch) {
                    m.index = yours;
                }
                if (control && ((s.imm >> 16) & 31) == 3) { // NAK: this life is over
                    restart(m, m.epoch + 0x100);
                }
            }
            return;
        }
    }

    void restart(remote &m, std::uint32_t epoch)
    {
        m.epoch = epoch;
        m.next  = 0;
        m.heard = 0;
        m.limit = 16;
        m.ahead.clear();
        m.known = 0;
        m.index = 0xffffffff;
    }
};

} // namespace fuzz
