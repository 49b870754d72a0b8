/* One record of a neighbour, given to the device by itself, and what the device made of it: it is delivered, answered, kept for later, refused for
 * one reason or the end of the link, and exactly one of these. Nothing else may run meanwhile: the caller holds the engine lock.
 *
 * Knows what the protocol allows (wire/pdu.h) and the counters (counters.h); how the responder finds out is nothing to it.
 */
#pragma once

#include "script.h"

#include "softefa/dev/engine_state.h"
#include "softefa/dev/responder.h"

#include <cstdio>
#include <cstring>

namespace fuzz {

/// Records so judged, by what became of them.
struct fates {
    std::uint64_t delivered, refused, answered, kept, fatal;

    std::uint64_t all() const { return delivered + refused + answered + kept + fatal; }
};
inline fates records;

namespace dev  = softefa::dev;
namespace wire = softefa::wire;

/// What a record can change. All devices together: a record names its device.
struct standing {
    std::uint64_t drops = 0, delivered = 0, packets = 0, completions = 0, unowned = 0;
    std::uint64_t answers   = 0; ///< ever given to the neighbour
    std::uint64_t in_reads  = 0; ///< changes whenever an RDMA read of ours gets on
    unsigned      reads     = 0; ///< of the neighbour, waiting to be served

    explicit standing(const dev::link &l)
    {
        dev::engine_state &e = dev::engine();
        for (unsigned d = 0; d < dev::limits::devices; ++d) {
            const dev::device_counters &n = e.counters[d];
            std::uint64_t values[dev::device_counter_count];
            std::memcpy(values, &n, sizeof(values));
            for (unsigned i = 0; i < dev::device_counter_count; ++i)
                drops += std::strncmp(dev::device_counter_texts[i].name, "drop_", 5) == 0 ? values[i] : 0;
            delivered += n.rx_messages + n.served_write_ops;
            packets += n.rx_packets;
            completions += n.completions;
            unowned += n.drop_no_qp;
        }
        answers = l.channel->acks_out.head();
        reads   = l.read_count;
        dev::objects().qps.for_each([&](dev::qp &q) {
            for (unsigned i = 0; i < q.sq_entries && q.ops != nullptr; ++i)
                in_reads += q.ops[i].kind == dev::op_kind::read ? q.ops[i].progress * 64 + static_cast<unsigned>(q.ops[i].state) : 0;
        });
    }
};

/// The last answer to the neighbour.
inline wire::ack last_answer(const dev::link &l)
{
    namespace fabric  = softefa::fabric;
    const auto *words = reinterpret_cast<const std::atomic<std::uint64_t> *>(l.channel->own.base + fabric::ack_ring_offset);
    return wire::ack::unpack(words[(l.channel->acks_out.head() - 1) % fabric::ack_count].load());
}

/// Where the link goes on. True: exactly one thing became of the record.
inline bool judge(const dev::link &l, const wire::header &h, const standing &before, const standing &after)
{
    const std::uint64_t drops = after.drops - before.drops, delivered = after.delivered - before.delivered, answers = after.answers - before.answers;
    const bool          ud = (h.flags & wire::flag_ud) != 0;
    const wire::efa_status said = answers != 0 ? last_answer(l).status : wire::efa_status::ok;
    if (answers > 1 || drops > 1 || delivered > 1 || drops + delivered > 1)
        return false;
    const bool counted_packet = after.packets - before.packets == 1 || (h.flags & wire::flag_by_address) != 0;
    const bool stale_route    = ud && answers == 1 && said == wire::efa_status::stale_route && after.unowned - before.unowned == 1;
    if (!counted_packet || (ud && answers == 1 && !stale_route))
        return false;
    if (drops == 1) { // nobody is told of a datagram or of data, nor again of the rest of a refused write; who is told is not told "ok"
        ++records.refused;
        return h.kind != wire::pdu_kind::send || (answers == 1) == (!ud || stale_route) ? answers == 0 || said != wire::efa_status::ok : false;
    }
    if (delivered == 1) {
        ++records.delivered;
        return answers == 1 && said == wire::efa_status::ok;
    }
    const bool asks_again = answers == 1 && (said == wire::efa_status::rnr || (said == wire::efa_status::by_ring && h.kind == wire::pdu_kind::write));
    switch (h.kind) {
    case wire::pdu_kind::send:
        ++records.answered;
        return asks_again;
    case wire::pdu_kind::write:
        ++(answers == 1 ? records.answered : records.kept);
        return answers == 1 ? asks_again : l.write_in.op == h.op && (h.flags & wire::flag_last) == 0;
    case wire::pdu_kind::read_req:
        ++(answers == 1 ? records.answered : records.kept);
        return answers == 1 ? said == wire::efa_status::ok && h.length == 0 && after.reads == before.reads : after.reads == before.reads + 1;
    default: // data or a grant for a read of ours
        ++records.kept;
        return answers == 0 && (after.in_reads != before.in_reads || after.completions != before.completions);
    }
}

/// Takes the record at the head of the ring, if the device would. False: there is none, or it would not.
inline bool take_one(dev::link &l)
{
    softefa::fabric::data_rx &in = l.channel->rx;
    wire::header              h;
    if (in.peek(h) != softefa::fabric::data_rx::outcome::record || !l.channel->acks_out.has_room(2) || !in.claim(h))
        return false;
    const standing before(l);
    dev::responder_record(l, h, in.payload());
    const standing after(l);
    bool           once;
    if (l.failed) {
        ++records.fatal;
        once = after.drops - before.drops == 1 && after.delivered == before.delivered && after.answers == before.answers;
    } else {
        once = judge(l, h, before, after);
    }
    if (!once)
        std::fprintf(stderr, "kind %u flags %x size %u length %u: drops %llu delivered %llu answers %llu (%u) reads %u %u packets %llu failed %d\n",
                     static_cast<unsigned>(h.kind), h.flags, h.payload_size, h.length, static_cast<unsigned long long>(after.drops - before.drops),
                     static_cast<unsigned long long>(after.delivered - before.delivered),
                     static_cast<unsigned long long>(after.answers - before.answers), static_cast<unsigned>(last_answer(l).status), before.reads,
                     after.reads, static_cast<unsigned long long>(after.packets - before.packets), l.failed);
    must(once, "each record is delivered, answered, kept or refused, and counted once");
    in.advance(h);
    l.rx_touched = true;
    return true;
}

} // namespace fuzz
