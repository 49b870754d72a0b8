/* Litmus of fences: one process writes and reads the memory of another through UCP, and what a fence orders is checked byte by
 * byte, round after round. Completions and arrivals are reordered by the device below; the fence alone keeps the order.
 *
 *   ucp_litmus atomic-fence-put ROUNDS   an atomic, a fence, a put to the same word: the put is last
 *   ucp_litmus get-fence-put ROUNDS      a get, a fence, a put to the same bytes: the get sees none of the put
 *   ucp_litmus put-fence-am ROUNDS       a put, a fence, an active message: its handler sees all of the put
 *   ... unfenced                         the same without the fence; exit code 0 if that was seen at least once. It shows that
 *                                        the program can see what it looks for, where puts and gets are the device's own
 *
 * LITMUS_SEED chooses another sequence of sizes. Without delays (SOFTEFA_DELAY, SOFTEFA_DELAY_RATE) hardly any message overtakes
 * the put before it, so `put-fence-am unfenced` needs them.
 *
 * A round is one fence. Rounds run in batches over separate words or blocks, so that many are in flight, then a flush.
 * Run it under `ucx-srd run --soft` with UCX_TLS=srd. Last line: rounds done and violations; exit code 1 if there were any.
 */
#include "pair.h"

#include <algorithm>
#include <random>

namespace {

using namespace sys;

constexpr unsigned batch       = 16;
constexpr size_t   block_words = 4096; ///< 32 KiB, sent and read in one piece or several
constexpr double   limit_s     = 60;   ///< of one wait
constexpr unsigned id_check = 1, id_checked = 2;

/// The memory that is written and read, at the target.
struct arena {
    uint64_t words[batch];
    uint64_t blocks[batch][block_words];
};

struct check_message {
    uint64_t value;  ///< what every word of the block must hold
    uint32_t block;
    uint32_t words;  ///< how many were put
};
struct checked_message {
    uint64_t messages, violations;
};

/// A worker with active messages, and the one kind of handler that the program needs.
class party : public worker {
public:
    party() : worker(UCP_FEATURE_RMA | UCP_FEATURE_AMO64 | UCP_FEATURE_AM) {}

    template <class Message> void on(unsigned id, std::function<void(const Message &)> handler)
    {
        auto *kept = new std::function<void(const Message &)>(std::move(handler)); // as long as the process
        ucp_am_handler_param_t param = {};
        param.field_mask = UCP_AM_HANDLER_PARAM_FIELD_ID | UCP_AM_HANDLER_PARAM_FIELD_CB | UCP_AM_HANDLER_PARAM_FIELD_ARG;
        param.id         = id;
        param.arg        = kept;
        param.cb         = [](void *arg, const void *header, size_t size, void *, size_t, const ucp_am_recv_param_t *) {
            Message m;
            if (size != sizeof m) {
                die("a message of another size");
            }
            std::memcpy(&m, header, sizeof m);
            (*static_cast<std::function<void(const Message &)> *>(arg))(m);
            return UCS_OK;
        };
        check(ucp_worker_set_am_recv_handler(handle(), &param), "ucp_worker_set_am_recv_handler");
    }

    template <class Message> void *tell(endpoint &e, unsigned id, const Message &m)
    {
        ucp_request_param_t param = {};
        return ucp_am_send_nbx(e.ep, id, &m, sizeof m, nullptr, 0, &param);
    }
};

/// Serves its memory until its standard input ends.
int play_target()
{
    party  w;
    auto  *memory = static_cast<arena *>(std::calloc(1, sizeof(arena)));
    ucp_mem_map_params_t map = {};
    map.field_mask = UCP_MEM_MAP_PARAM_FIELD_ADDRESS | UCP_MEM_MAP_PARAM_FIELD_LENGTH;
    map.address    = memory;
    map.length     = sizeof *memory;
    ucp_mem_h memh;
    check(ucp_mem_map(w.context(), &map, &memh), "ucp_mem_map");
    void  *key;
    size_t key_size;
    check(ucp_rkey_pack(w.context(), memh, &key, &key_size), "ucp_rkey_pack");

    endpoint          origin;
    checked_message   checked = {};
    std::vector<void *> replies;
    w.on<check_message>(id_check, [&](const check_message &m) {
        if (m.block >= batch || m.words > block_words) {
            die("a message that nobody sent");
        }
        const auto *block = static_cast<const volatile uint64_t *>(memory->blocks[m.block]);
        bool        good  = true;
        for (uint32_t i = 0; i < m.words; ++i) {
            good &= block[i] == m.value;
        }
        checked.violations += !good;
        if (++checked.messages % batch == 0) {
            replies.push_back(w.tell(origin, id_checked, checked));
        }
    });
    const uint64_t where = reinterpret_cast<uintptr_t>(memory);
    write_blob(STDOUT_FILENO, w.address());
    write_blob(STDOUT_FILENO, std::string(static_cast<char *>(key), key_size));
    write_all(STDOUT_FILENO, &where, sizeof where);
    ucp_rkey_buffer_release(key);
    w.connect(read_blob(STDIN_FILENO), &origin, false);
    fcntl(STDIN_FILENO, F_SETFL, O_NONBLOCK);
    for (char c = 0; read(STDIN_FILENO, &c, 1) != 0;) {
        for (int i = 0; i < 1024; ++i) {
            ucp_worker_progress(w.handle());
        }
        for (void *r : replies) {
            check(w.wait(r, limit_s, "a reply"), "a reply");
        }
        replies.clear();
    }
    w.close(origin, true, limit_s, "close");
    ucp_mem_unmap(w.context(), memh);
    std::free(memory);
    return 0;
}

/// The side that posts.
class litmus {
public:
    litmus(const char *self, bool fenced) : fenced_(fenced)
    {
        target_.start({self, "target"});
        const std::string address = read_blob(target_.in);
        const std::string key     = read_blob(target_.in);
        if (!read_all(target_.in, &where_, sizeof where_)) {
            die("the target ended");
        }
        write_blob(target_.out, w_.address());
        w_.connect(address, &e_, false);
        check(ucp_ep_rkey_unpack(e_.ep, key.data(), &rkey_), "ucp_ep_rkey_unpack");
        w_.on<checked_message>(id_checked, [this](const checked_message &m) { checked_ = m; });
        connect();
    }

    ~litmus()
    {
        ucp_rkey_destroy(rkey_);
        w_.close(e_, false, limit_s, "close");
        ::close(target_.out);
        target_.out = open("/dev/null", O_WRONLY | O_CLOEXEC);
        target_.reap();
    }

    uint64_t atomic_fence_put()
    {
        uint64_t       puts[batch], seen[batch], violations = 0;
        const uint64_t one = 1;
        for (unsigned i = 0; i < batch; ++i) {
            ucp_request_param_t param = {};
            param.op_attr_mask        = UCP_OP_ATTR_FIELD_DATATYPE;
            param.datatype            = ucp_dt_make_contig(sizeof one);
            puts[i]                   = random_() << 8;
            keep(ucp_atomic_op_nbx(e_.ep, UCP_ATOMIC_OP_ADD, &one, 1, where_ + offsetof(arena, words) + i * 8, rkey_, &param));
            fence();
            put(&puts[i], 8, offsetof(arena, words) + i * 8);
        }
        flush();
        get(seen, sizeof seen, offsetof(arena, words));
        flush();
        for (unsigned i = 0; i < batch; ++i) {
            violations += seen[i] != puts[i];
        }
        return violations;
    }

    uint64_t get_fence_put()
    {
        uint64_t violations = 0;
        for (unsigned i = 0; i < batch; ++i) {
            const unsigned words = some_words();
            std::fill_n(mine_[i].begin(), words, written_ + 1);
            words_[i] = words;
            get(seen_[i].data(), words * 8, offsetof(arena, blocks) + i * block_words * 8);
            fence();
            put(mine_[i].data(), words * 8, offsetof(arena, blocks) + i * block_words * 8);
        }
        flush();
        for (unsigned i = 0; i < batch; ++i) {
            violations += !std::equal(seen_[i].begin(), seen_[i].begin() + words_[i], model_[i].begin());
            std::copy_n(mine_[i].begin(), words_[i], model_[i].begin());
        }
        ++written_;
        return violations;
    }

    uint64_t put_fence_am()
    {
        ++written_;
        for (unsigned i = 0; i < batch; ++i) {
            const unsigned words = i % 4 != 0 ? some_words() : 1 + unsigned(random_() % block_words);
            std::fill_n(mine_[i].begin(), words, written_);
            put(mine_[i].data(), words * 8, offsetof(arena, blocks) + i * block_words * 8);
            fence();
            messages_[i] = {written_, i, words};
            keep(w_.tell(e_, id_check, messages_[i]));
        }
        sent_ += batch;
        flush();
        const uint64_t before = known_;
        if (!w_.until(limit_s, [this] { return checked_.messages == sent_; })) {
            die("the target does not answer");
        }
        known_ = checked_.violations;
        return known_ - before;
    }

private:
    static uint64_t seed()
    {
        const char *text = std::getenv("LITMUS_SEED");
        return text != nullptr ? std::strtoull(text, nullptr, 10) : 1;
    }

    /// Every kind of operation once, with a flush after each. While UCP connects an endpoint it queues requests in a place
    /// of its own and starts them later, all at once: no transport can see the fences that were called between them.
    void connect()
    {
        uint64_t word = 0;
        const uint64_t nothing = 0;
        ucp_request_param_t param = {};
        param.op_attr_mask        = UCP_OP_ATTR_FIELD_DATATYPE;
        param.datatype            = ucp_dt_make_contig(sizeof nothing);
        keep(ucp_atomic_op_nbx(e_.ep, UCP_ATOMIC_OP_ADD, &nothing, 1, where_ + offsetof(arena, words), rkey_, &param));
        flush();
        put(&word, sizeof word, offsetof(arena, words));
        flush();
        get(&word, sizeof word, offsetof(arena, words));
        flush();
    }

    /// Small ones mostly; up to a block, which takes a rendezvous or several messages where it is not the device's own.
    unsigned some_words() { return 1 + unsigned(random_() % (1u << random_() % 13)); }
    static_assert(block_words == 1u << 12);

    void fence()
    {
        if (fenced_) {
            check(ucp_worker_fence(w_.handle()), "ucp_worker_fence");
        }
    }
    void put(const void *from, size_t size, size_t offset)
    {
        ucp_request_param_t param = {};
        keep(ucp_put_nbx(e_.ep, from, size, where_ + offset, rkey_, &param));
    }
    void get(void *to, size_t size, size_t offset)
    {
        ucp_request_param_t param = {};
        keep(ucp_get_nbx(e_.ep, to, size, where_ + offset, rkey_, &param));
    }
    void keep(void *request)
    {
        if (UCS_PTR_IS_ERR(request)) {
            check(UCS_PTR_STATUS(request), "an operation");
        }
        if (request != nullptr) {
            requests_.push_back(request);
        }
    }
    void flush()
    {
        ucp_request_param_t param = {};
        check(w_.wait(ucp_worker_flush_nbx(w_.handle(), &param), limit_s, "flush"), "flush");
        for (void *r : requests_) {
            check(w_.wait(r, limit_s, "an operation"), "an operation");
        }
        requests_.clear();
    }

    const bool          fenced_;
    child               target_;
    party               w_;
    endpoint            e_;
    ucp_rkey_h          rkey_  = nullptr;
    uint64_t            where_ = 0; ///< the arena's address at the target
    std::mt19937_64     random_{seed()};
    std::vector<void *> requests_;
    uint64_t            written_ = 0, sent_ = 0, known_ = 0;
    checked_message     checked_ = {};
    check_message       messages_[batch];
    unsigned            words_[batch];
    using block = std::vector<uint64_t>;
    std::vector<block>  mine_{batch, block(block_words)}, seen_{batch, block(block_words)},
        model_{batch, block(block_words)}; ///< what was put, what a get saw, what the target must hold
};

} // namespace

int main(int argc, char **argv)
{
    const std::string what = argc > 1 ? argv[1] : "";
    if (what == "target") {
        return play_target();
    }
    uint64_t (litmus::*run)() = what == "atomic-fence-put" ? &litmus::atomic_fence_put :
                                what == "get-fence-put"    ? &litmus::get_fence_put :
                                what == "put-fence-am"     ? &litmus::put_fence_am :
                                                             nullptr;
    const uint64_t rounds = argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 0;
    const bool     fenced = argc < 4;
    if (run == nullptr || rounds == 0 || argc > 4 || (!fenced && std::strcmp(argv[3], "unfenced") != 0)) {
        std::fprintf(stderr, "usage: ucp_litmus atomic-fence-put|get-fence-put|put-fence-am ROUNDS [unfenced]\n");
        return 2;
    }
    uint64_t   done = 0, violations = 0;
    const auto begin = clock::now();
    {
        litmus l(argv[0], fenced);
        for (; done < rounds; done += batch) {
            violations += (l.*run)();
        }
    }
    std::printf("%s%s: %llu rounds in %.1f s, %llu violations\n", what.c_str(), fenced ? "" : " without the fence",
                static_cast<unsigned long long>(done), seconds_since(begin), static_cast<unsigned long long>(violations));
    const bool good = fenced ? violations == 0 : violations != 0;
    std::printf("%d passed, %d failed, 0 skipped\n", good ? 1 : 0, good ? 0 : 1);
    return good ? 0 : 1;
}
