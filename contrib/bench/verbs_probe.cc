/* What Soft EFA costs a program that uses verbs directly, where no stock program measures it.
 *
 * Owns: its devices, one parent that measures and for some modes one child that is the target. Knows verbs and efadv only, so it runs on a real
 * EFA as well.
 *
 *   read, write    one RDMA operation after another; the target's program sleeps, its device alone answers
 *   sleeping_read  RDMA reads of a target of which everything sleeps, 200 us apart; in between the initiator polls, as programs do. Median.
 *   poll           empty polls of one completion queue that -q queue pairs complete to
 *   turn           a message to oneself and both its completions, on each of -q queue pairs in turn
 *   idle           processor time that this process's other threads use while it sleeps for -n milliseconds, after it has sent to its peer:
 *                  microseconds for each second
 *
 *   VP-1  Operations that were measured moved the right bytes, or there is no figure.
 *   VP-2  Both processes end by themselves: SIGALRM's default action ends each, and the child dies with its parent.
 */
#include "program.h"

#include <cstring>
#include <dirent.h>
#include <infiniband/efadv.h>
#include <infiniband/verbs.h>
#include <string>
#include <sys/syscall.h>
#include <sys/wait.h>

namespace {

constexpr std::size_t   max_size    = 16u << 20;
constexpr std::uint64_t max_count   = 1'000'000'000u;
constexpr unsigned      max_seconds = 600, max_qps = 256;
constexpr double        gap_s       = 200e-6;
constexpr std::uint32_t qkey        = 0x11111111;
constexpr std::size_t   footprint   = 64 * 1024; // of a buffer, at least

struct settings {
    std::string   mode, device;
    int           core[2] = {-1, -1};
    std::size_t   size    = 8;
    std::uint64_t count   = 10'000;
    unsigned      qps     = 1, seconds = 60;
};

[[noreturn]] void give_up(const char *what)
{
    std::fprintf(stderr, "verbs_probe: %s: %s\n", what, std::strerror(errno));
    std::exit(1);
}

template <class T> T *needed(T *object, const char *what)
{
    if (object == nullptr)
        give_up(what);
    return object;
}

void needed_zero(int error, const char *what)
{
    if (error != 0) {
        errno = error > 0 ? error : errno;
        give_up(what);
    }
}

/// What one side must know of the other.
struct address {
    ibv_gid       gid;
    std::uint32_t qpn, rkey;
    std::uint64_t place;
};

/// Everything of one process. Never torn down: the process ends.
class user {
public:
    user(const settings &wish, unsigned qps) : bytes_(std::max(wish.size, footprint))
    {
        int          count = 0;
        ibv_device **list  = needed(ibv_get_device_list(&count), "ibv_get_device_list");
        for (int i = 0; i < count && context_ == nullptr; ++i)
            if (wish.device.empty() || wish.device == ibv_get_device_name(list[i]))
                context_ = ibv_open_device(list[i]);
        needed(context_, "no device");
        pd_ = needed(ibv_alloc_pd(context_), "ibv_alloc_pd");
        cq_ = needed(ibv_create_cq(context_, 1024, nullptr, nullptr, 0), "ibv_create_cq");
        const bool writes = wish.mode == "write";
        mr_ = needed(ibv_reg_mr(pd_, bytes_.data(), bytes_.size(),
                                IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ | (writes ? IBV_ACCESS_REMOTE_WRITE : 0)), "ibv_reg_mr");
        for (unsigned i = 0; i < qps; ++i)
            qps_.push_back(create_qp(writes));
        needed_zero(ibv_query_gid(context_, 1, 0, &gid_), "ibv_query_gid");
    }

    address where(unsigned qp = 0) const { return {gid_, qps_[qp]->qp_num, mr_->rkey, reinterpret_cast<std::uint64_t>(bytes_.data())}; }
    unsigned char *bytes() { return bytes_.data(); }
    ibv_cq        *cq() { return cq_; }

    ibv_ah *reach(const ibv_gid &gid)
    {
        ibv_ah_attr attr{};
        attr.grh.dgid  = gid;
        attr.is_global = 1;
        attr.port_num  = 1;
        return needed(ibv_create_ah(pd_, &attr), "ibv_create_ah");
    }

    void recv(unsigned qp)
    {
        ibv_sge     sge{reinterpret_cast<std::uint64_t>(bytes_.data()), 64, mr_->lkey};
        ibv_recv_wr wr{}, *bad = nullptr;
        wr.sg_list = &sge;
        wr.num_sge = 1;
        needed_zero(ibv_post_recv(qps_[qp], &wr, &bad), "ibv_post_recv");
    }

    enum class verb { send, read, write };
    void post(verb what, ibv_ah *ah, const address &to, std::size_t size, unsigned qp = 0)
    {
        ibv_qp_ex *q = ibv_qp_to_qp_ex(qps_[qp]);
        ibv_wr_start(q);
        q->wr_id    = 1;
        q->wr_flags = IBV_SEND_SIGNALED;
        if (what == verb::send)
            ibv_wr_send(q);
        else if (what == verb::read)
            ibv_wr_rdma_read(q, to.rkey, to.place);
        else
            ibv_wr_rdma_write(q, to.rkey, to.place);
        ibv_wr_set_sge(q, mr_->lkey, reinterpret_cast<std::uint64_t>(bytes_.data()), static_cast<std::uint32_t>(size));
        ibv_wr_set_ud_addr(q, ah, to.qpn, qkey);
        needed_zero(ibv_wr_complete(q), "ibv_wr_complete");
    }

    /// Waits for so many good completions.
    void complete(unsigned count)
    {
        for (ibv_wc wc[16]; count != 0;) {
            const int seen = ibv_poll_cq(cq_, 16, wc);
            if (seen < 0)
                give_up("ibv_poll_cq");
            for (int i = 0; i < seen; ++i)
                if (wc[i].status != IBV_WC_SUCCESS) {
                    std::fprintf(stderr, "verbs_probe: completion with status %d, vendor error %u\n", wc[i].status, wc[i].vendor_err);
                    std::exit(1);
                }
            count -= static_cast<unsigned>(seen);
        }
    }

private:
    ibv_qp *create_qp(bool writes)
    {
        ibv_qp_init_attr_ex attr{};
        attr.send_cq        = cq_;
        attr.recv_cq        = cq_;
        attr.cap            = {64, 64, 1, 1, 0};
        attr.qp_type        = IBV_QPT_DRIVER;
        attr.pd             = pd_;
        attr.comp_mask      = IBV_QP_INIT_ATTR_PD | IBV_QP_INIT_ATTR_SEND_OPS_FLAGS;
        attr.send_ops_flags = IBV_QP_EX_WITH_SEND | IBV_QP_EX_WITH_RDMA_READ | (writes ? IBV_QP_EX_WITH_RDMA_WRITE : 0);
        efadv_qp_init_attr efa{};
        efa.driver_qp_type = EFADV_QP_DRIVER_TYPE_SRD;
        ibv_qp *qp         = efadv_create_qp_ex(context_, &attr, &efa, sizeof(efa));
        if (qp == nullptr && writes) {
            std::fprintf(stderr, "verbs_probe: not possible: this rdma-core, or the device, has no RDMA write\n");
            std::exit(1);
        }
        needed(qp, "efadv_create_qp_ex");
        ibv_qp_attr state{};
        state.qp_state = IBV_QPS_INIT;
        state.port_num = 1;
        state.qkey     = qkey;
        needed_zero(ibv_modify_qp(qp, &state, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_QKEY), "to INIT");
        state.qp_state = IBV_QPS_RTR;
        needed_zero(ibv_modify_qp(qp, &state, IBV_QP_STATE), "to RTR");
        state.qp_state = IBV_QPS_RTS;
        needed_zero(ibv_modify_qp(qp, &state, IBV_QP_STATE | IBV_QP_SQ_PSN), "to RTS");
        return qp;
    }

    ibv_context               *context_ = nullptr;
    ibv_pd                    *pd_      = nullptr;
    ibv_cq                    *cq_      = nullptr;
    ibv_mr                    *mr_      = nullptr;
    std::vector<ibv_qp *>      qps_;
    std::vector<unsigned char> bytes_;
    ibv_gid                    gid_{};
};

/// Both directions between parent and child.
struct line {
    int in = -1, out = -1;

    template <class T> void say(const T &value) const
    {
        if (write(out, &value, sizeof(value)) != static_cast<ssize_t>(sizeof(value)))
            give_up("write to the other process");
    }
    template <class T> bool hear(T *value_p) const { return read(in, value_p, sizeof(*value_p)) == static_cast<ssize_t>(sizeof(*value_p)); }
};

/// The target: says where it is, then sleeps until it is asked for the sum of its bytes.
int serve(const settings &wish, const line &to_parent)
{
    user    me(wish, 1);
    address theirs{};
    for (std::size_t i = 0; i < wish.size; ++i)
        me.bytes()[i] = static_cast<unsigned char>(i * 7 + 1);
    to_parent.say(me.where());
    if (!to_parent.hear(&theirs))
        return 1;
    (void)me.reach(theirs.gid);
    if (wish.mode == "idle") { // one message each way, so that both are connected
        me.recv(0);
        to_parent.say(1);
        me.complete(1);
    } else {
        to_parent.say(1);
    }
    for (int asked; to_parent.hear(&asked);) {
        std::uint64_t sum = 0;
        for (std::size_t i = 0; i < wish.size; ++i)
            sum = sum * 31 + me.bytes()[i];
        to_parent.say(sum);
    }
    return 0;
}

/// Processor time of all threads but the caller, in microseconds.
double others_us()
{
    double total = 0;
    DIR   *tasks = needed(opendir("/proc/self/task"), "/proc/self/task");
    while (const dirent *entry = readdir(tasks)) {
        if (entry->d_name[0] == '.' || std::atol(entry->d_name) == syscall(SYS_gettid))
            continue;
        const std::string  path = std::string("/proc/self/task/") + entry->d_name + "/schedstat";
        unsigned long long ran  = 0;
        if (FILE *file = std::fopen(path.c_str(), "r")) {
            if (std::fscanf(file, "%llu", &ran) == 1)
                total += static_cast<double>(ran) * 1e-3;
            std::fclose(file);
        }
    }
    closedir(tasks);
    return total;
}

void pause_s(double seconds)
{
    timespec left{static_cast<time_t>(seconds), static_cast<long>((seconds - static_cast<double>(static_cast<time_t>(seconds))) * 1e9)};
    while (nanosleep(&left, &left) == -1 && errno == EINTR) {
    }
}

double idle(const settings &wish)
{
    constexpr double settle_s = 1.5; // longer than anything that follows traffic: counters are written up to a second later
    pause_s(settle_s);
    const double before = others_us(), seconds = static_cast<double>(wish.count) * 1e-3;
    pause_s(seconds);
    return (others_us() - before) / seconds * 1e-6;
}

double operations(const settings &wish, user &me, const address &peer)
{
    const bool         writes = wish.mode == "write";
    const bool         sleeps = wish.mode == "sleeping_read";
    ibv_ah            *ah     = me.reach(peer.gid);
    const auto         verb   = writes ? user::verb::write : user::verb::read;
    std::vector<double> times;
    double             started = program::now_s();
    const std::uint64_t warmup = wish.count / 10 + 5;
    for (std::uint64_t n = 0; n < warmup + wish.count; ++n) {
        if (n == warmup)
            started = program::now_s();
        if (sleeps) {
            ibv_wc wc;
            for (const double until = program::now_s() + gap_s; program::now_s() < until;)
                (void)ibv_poll_cq(me.cq(), 1, &wc);
        }
        const double from = program::now_s();
        me.post(verb, ah, peer, wish.size);
        me.complete(1);
        if (n >= warmup)
            times.push_back(program::now_s() - from);
    }
    return sleeps ? program::median(times) : (program::now_s() - started) / static_cast<double>(wish.count);
}

/// Modes with a target: its process is there before any verbs call, so that both open the device themselves.
double with_target(const settings &wish)
{
    int there[2], back[2];
    if (pipe(there) != 0 || pipe(back) != 0)
        give_up("pipe");
    const pid_t parent = getpid(), child = fork();
    if (child < 0)
        give_up("fork");
    alarm(wish.seconds); // VP-2
    if (child == 0) {
        close(there[1]);
        close(back[0]);
        std::exit(program::child_of(parent) && program::pin(wish.core[0]) ? serve(wish, {there[0], back[1]}) : 4);
    }
    close(there[0]);
    close(back[1]);
    const line to_child{back[0], there[1]};
    address    peer{};
    int        ready = 0;
    if (!program::pin(wish.core[1]))
        give_up("sched_setaffinity");
    user me(wish, 1);
    if (wish.mode == "write")
        for (std::size_t i = 0; i < wish.size; ++i)
            me.bytes()[i] = static_cast<unsigned char>(i * 5 + 3);
    if (!to_child.hear(&peer))
        give_up("the target ended");
    to_child.say(me.where());
    if (!to_child.hear(&ready))
        give_up("the target ended");
    double seconds = 0;
    if (wish.mode == "idle") {
        me.post(user::verb::send, me.reach(peer.gid), peer, 8);
        me.complete(1);
        seconds = idle(wish);
    } else {
        seconds = operations(wish, me, peer);
        std::uint64_t theirs = 0, mine = 0;
        to_child.say(1);
        for (std::size_t i = 0; i < wish.size; ++i)
            mine = mine * 31 + me.bytes()[i];
        if (!to_child.hear(&theirs) || theirs != mine) {
            std::fprintf(stderr, "verbs_probe: wrong bytes\n");
            std::exit(1);
        }
    }
    close(to_child.out);
    int status = 0;
    if (waitpid(child, &status, 0) != child || status != 0)
        give_up("the target failed");
    return seconds;
}

void message_to_self(user &me, ibv_ah *ah, unsigned qp)
{
    me.recv(qp);
    me.post(user::verb::send, ah, me.where(qp), 8, qp);
    me.complete(2);
}

double alone(const settings &wish)
{
    if (!program::pin(wish.core[1]))
        give_up("sched_setaffinity");
    alarm(wish.seconds);
    user    me(wish, wish.qps);
    ibv_ah *ah = me.reach(me.where().gid);
    for (unsigned i = 0; i < wish.qps; ++i)
        message_to_self(me, ah, i);
    const bool   turns   = wish.mode == "turn";
    const double started = program::now_s();
    for (std::uint64_t n = 0; n < wish.count; ++n) {
        ibv_wc wc[16];
        if (turns)
            message_to_self(me, ah, static_cast<unsigned>(n % wish.qps));
        else if (ibv_poll_cq(me.cq(), 16, wc) != 0)
            give_up("a completion that nobody asked for");
    }
    return (program::now_s() - started) / static_cast<double>(wish.count);
}

int usage(const char *wrong)
{
    if (wrong != nullptr)
        std::fprintf(stderr, "verbs_probe: bad value for %s\n", wrong);
    std::fprintf(stderr, "usage: verbs_probe -m read|write|sleeping_read|poll|turn|idle [-d DEVICE] [-c CORE,CORE] [-s BYTES, 8..%zu] [-n COUNT]\n"
                 "                   [-q QPS, 1..%u] [-t SECONDS, 1..%u]\nPrints one line of JSON.\n", max_size, max_qps, max_seconds);
    return 2;
}

bool option_parse(settings *wish, int option, const char *text)
{
    std::uint64_t value = 0;
    switch (option) {
    case 'm':
        wish->mode = text;
        for (const char *known : {"read", "write", "sleeping_read", "poll", "turn", "idle"})
            if (wish->mode == known)
                return true;
        return false;
    case 'd': wish->device = text; return true;
    case 'c': return program::cores_parse(text, wish->core);
    case 's': return program::number_parse(text, 8, max_size, &value) && ((wish->size = value), true);
    case 'n': return program::number_parse(text, 1, max_count, &value) && ((wish->count = value), true);
    case 'q': return program::number_parse(text, 1, max_qps, &value) && ((wish->qps = static_cast<unsigned>(value)), true);
    case 't': return program::number_parse(text, 1, max_seconds, &value) && ((wish->seconds = static_cast<unsigned>(value)), true);
    default: return false;
    }
}

} // namespace

int main(int argc, char **argv)
{
    settings wish;
    for (int option; (option = getopt(argc, argv, "m:d:c:s:n:q:t:h")) != -1;) {
        if (option == 'h' || option == '?')
            return usage(nullptr);
        const char name[] = {'-', static_cast<char>(option), '\0'};
        if (!option_parse(&wish, option, optarg))
            return usage(name);
    }
    if (optind != argc || wish.mode.empty())
        return usage(wish.mode.empty() ? "-m" : argv[optind]);
    const double seconds = wish.mode == "poll" || wish.mode == "turn" ? alone(wish) : with_target(wish);
    std::printf("{\"test\": \"%s\", \"size\": %zu, \"iterations\": %llu, \"us\": %.6f}\n", wish.mode.c_str(), wish.size,
                static_cast<unsigned long long>(wish.count), seconds * 1e6);
    return 0;
}
