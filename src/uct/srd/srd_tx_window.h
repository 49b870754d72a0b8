/* The sending side of one peer's sequence space: which psn may be sent now, and what is not yet acknowledged.
 *
 * Owns: the next psn, the FIFO of records that carry one, and the two bounds on the next one: the span from the oldest
 * unacknowledged psn, and the peer's credits. A completion of the device is the acknowledgement. Completions come in any
 * order; a record leaves the FIFO only at its head, so the head is the watermark: a marker pushed behind the records of
 * a flush reaches the head when all of them are complete, however they were reordered.
 * Refuses to know: what a record is beyond {next, done, sequenced}, who sends it, time, UCX.
 *
 * Algorithm: `stop` is the first psn that may not be sent, computed when it is reached and not at every completion or
 * grant, so the common post compares next with stop and the common completion adds one to oldest.
 *
 * Rejected: bounding the number in flight instead of the span: with one lost psn and all later ones acknowledged the count
 * stays small while the 16-bit psn runs around. A bitmap of acknowledged psns: the records are kept for reposting anyway.
 *
 * Invariants
 *   TXW-1  next - oldest <= window: the receiver's ring always has a place (RXW: no beyond_window from a correct sender).
 *   TXW-2  next - credits.limit <= 0.
 *   TXW-3  oldest never passes a sequenced record that is not done; after freeze() nothing is sent any more.
 *   TXW-4  records leave in the order in which they were pushed, each once.
 */
#pragma once

#include "base/seq.h"
#include "uct/srd/srd_limits.h"

#include <cassert>
#include <cstdint>

namespace srd {

/// More than this past the consumed psn is not a grant: no ring is larger (docs/transport-protocol.md, 6.4).
inline constexpr std::int32_t max_grant = 2 * static_cast<std::int32_t>(limits::window_size);

/// Record: members `Record *next`, `bool done`, `bool sequenced`.
template <class Record> class tx_window {
public:
    tx_window(std::uint32_t window, std::uint32_t initial_grant, base::seq32 first = base::seq32(0)) noexcept
        : next_(first), stop_(first), oldest_(first), limit_(first + initial_grant), consumed_(first),
          window_(static_cast<std::uint16_t>(window))
    {
        refresh();
    }
    tx_window(const tx_window &)            = delete; // tail_ may point into it
    tx_window &operator=(const tx_window &) = delete;

    /// False: call refresh() before giving up.
    bool can_send() const noexcept { return next_ != stop_; }
    base::seq32 next() const noexcept { return next_; }
    base::seq32 oldest() const noexcept { return oldest_; }
    base::seq32 limit() const noexcept { return limit_; }
    base::seq32 consumed() const noexcept { return consumed_; }
    bool frozen() const noexcept { return window_ == 0; }
    bool empty() const noexcept { return head_ == nullptr; }
    Record *head() const noexcept { return head_; }

    /// The record with psn next() was posted.
    void push(Record *record) noexcept
    {
        record->sequenced = true;
        push_ready(record);
    }

    /// As push(), of a record that is marked as sequenced already.
    void push_ready(Record *record) noexcept
    {
        check(can_send());
        ++next_;
        append(record);
    }

    /// As push(), while the window is held: it stays held.
    void push_held(Record *record) noexcept
    {
        check(may_send());
        record->sequenced = true;
        ++next_;
        stop_ = next_;
        append(record);
    }

    /// A record without a psn: the marker of a flush, done as soon as everything before it is, or a one-sided operation.
    void push_marker(Record *record) noexcept
    {
        record->sequenced = false;
        append(record);
    }

    /// Takes completed records out from behind those without a psn that are not complete: such a head keeps nothing in the
    /// FIFO that the window counts, so one long one-sided operation neither stops messages nor collects their records.
    /// Stops at the first psn that is not acknowledged, so it walks over at most a window of them. TXW-3
    template <class Take> void compact(Take take) noexcept
    {
        Record *before = nullptr;
        for (Record *record = head_; record != nullptr && (!record->sequenced || record->done);) {
            Record *behind = record->next;
            if (!record->sequenced) {
                before = record;
            } else {
                (before == nullptr ? head_ : before->next) = behind;
                if (behind == nullptr) {
                    tail_ = before == nullptr ? &head_ : &before->next;
                }
                ++oldest_;
                take(record);
            }
            record = behind;
        }
    }

    /// `record`, which has a psn, is complete. True if it was the head, and is off the FIFO; ask head_is_done() then. False:
    /// it is marked done, and leaves when what precedes it has.
    bool complete(Record *record) noexcept
    {
        if (record != head_) [[unlikely]] {
            record->done = true;
            return false;
        }
        ++oldest_;
        head_ = record->next;
        if (head_ == nullptr) {
            tail_ = &head_;
        }
        return true;
    }

    /// More can leave by pop().
    bool head_is_done() const noexcept { return head_ != nullptr && head_->done; }

    /// Takes the head if it is done; null otherwise. TXW-3, TXW-4.
    Record *pop() noexcept
    {
        Record *record = head_;
        if (record == nullptr || !record->done) {
            return nullptr;
        }
        head_ = record->next;
        if (head_ == nullptr) {
            tail_ = &head_;
        }
        if (record->sequenced) {
            ++oldest_;
        }
        return record;
    }

    /// Whether both bounds allow one more, held or not.
    bool may_send() const noexcept { return is_before(next_, earlier_of(oldest_ + window_, limit_)); }

    /// Computes `stop` again from what is known now. True if something may be sent.
    bool refresh() noexcept
    {
        stop_ = earlier_of(oldest_ + window_, limit_);
        if (is_before(stop_, next_)) {
            stop_ = next_; // frozen: a window of 0 ends before what was already sent
        }
        return can_send();
    }

    /// Forces sends through the caller's slow path until refresh(); they use push_held().
    void hold() noexcept { stop_ = next_; }

    /// Lets one push() through and is held again after it. Only when may_send().
    void admit_one() noexcept { stop_ = next_ + 1; }

    /// The receiver's absolute numbers. Old news and nonsense change nothing; false if they are nonsense.
    bool credit(base::seq32 consumed, base::seq32 limit) noexcept
    {
        if (is_before(next_, consumed)) {
            return false; // consumed what was never sent
        }
        if (distance(consumed, limit) < 0 || distance(consumed, limit) > max_grant) {
            return false; // no receiver grants more than it can hold
        }
        consumed_ = later_of(consumed_, consumed);
        limit_    = later_of(limit_, limit);
        return true;
    }

    /// A send ended in an error that may or may not have delivered it: nothing can follow it.
    void freeze() noexcept
    {
        window_ = 0;
        stop_   = next_;
    }

private:
    /// TXW-1 and TXW-2 where SRD_DEBUG_ORACLE is defined: callers have just tested it, and the data path is not slowed by it.
    static void check([[maybe_unused]] bool holds) noexcept
    {
#ifdef SRD_DEBUG_ORACLE
        assert(holds);
#endif
    }

    void append(Record *record) noexcept
    {
        record->next = nullptr;
        *tail_       = record;
        tail_        = &record->next;
    }

    Record *head_  = nullptr; ///< oldest record
    Record **tail_ = &head_;  ///< where the next record is linked: `next` of the newest one, or head_
    base::seq32 next_;        ///< psn of the next sequenced record
    base::seq32 stop_;        ///< first psn that may not be sent as far as was computed; == next_ sends the poster to refresh()
    base::seq32 oldest_;      ///< psn of the oldest sequenced record in the FIFO; next_ when there is none
    base::seq32 limit_;       ///< first psn not covered by the peer's credits
    base::seq32 consumed_;    ///< every psn before this one was handled by the peer's program, as far as it told us
    std::uint16_t window_;    ///< largest allowed next_ - oldest_; 0 after freeze(), which is never left
};

} // namespace srd
