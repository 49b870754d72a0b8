/* Kernel commands with anything in them: raw ones, typed sequences with handles that exist, existed or never did, two threads at once.
 *
 * Must hold: an errno and nothing else; when the device file is closed, nothing of it is left.
 */
#include "script.h"

#include "softefa/dev/configure.h"
#include "softefa/dev/objects.h"
#include "softefa/uverbs/dispatch.h"
#include "softefa/uverbs/file.h"
#include "softefa/uverbs/kernel_abi.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <fcntl.h>
#include <mutex>
#include <string>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <thread>
#include <unistd.h>
#include <vector>

namespace {

using namespace softefa;
using namespace softefa::uverbs;

constexpr std::size_t page = 4096;
char                  folder[] = "/tmp/softefa-fuzz-XXXXXX";
std::uint8_t         *arena; ///< read-write | read-only zeros | no access
int                   fd = -1;
int                   keeper = -1; ///< another open device: without one each input would start and end the whole fabric
unsigned              age;
constexpr unsigned    keeper_life = 64; ///< inputs
std::uint64_t         pairs; ///< inputs that ran as two threads, printed at the end

/// What the commands of all threads have returned so far.
struct {
    std::mutex                    lock;
    std::array<std::uint32_t, 32> handles{};
    std::vector<int>              fds;
    unsigned                      next = 0;
} seen;

std::uint64_t any_address(fuzz::script &s)
{
    const auto at = reinterpret_cast<std::uint64_t>(arena);
    switch (s.u8() & 7) {
    case 0: return 0;
    case 1: return at + page - (s.u8() & 63);      // runs into what cannot be written
    case 2: return at + 2 * page - (s.u8() & 63);  // runs into what cannot be read
    case 3: return at + 2 * page;
    case 4: return 0xffff800000000000u + s.u8();
    case 5: return ~std::uint64_t{0} - s.u8();
    default: return at + (s.u16() & 0xff8);
    }
}

std::uint64_t any_handle(fuzz::script &s)
{
    const std::lock_guard guard(seen.lock);
    const std::uint8_t    how = s.u8();
    return (how & 0xc0) != 0xc0 ? seen.handles[how % seen.handles.size()] : s.edge();
}

struct command {
    alignas(8) std::uint8_t bytes[24 + 24 * 16] = {};
    unsigned count = 0;

    command(std::uint16_t object, std::uint16_t method)
    {
        auto *h      = reinterpret_cast<ib_uverbs_ioctl_hdr *>(bytes);
        h->object_id = object;
        h->method_id = method;
        h->driver_id = RDMA_DRIVER_EFA;
    }
    ib_uverbs_attr *attr(unsigned i) { return reinterpret_cast<ib_uverbs_attr *>(bytes + sizeof(ib_uverbs_ioctl_hdr)) + i; }
    command &add(std::uint16_t id, std::uint64_t size, std::uint64_t data)
    {
        if (count < 20) {
            ib_uverbs_attr *a = attr(count++);
            a->attr_id        = id;
            a->len            = static_cast<std::uint16_t>(size);
            a->flags          = UVERBS_ATTR_F_MANDATORY;
            a->data           = data;
        }
        return *this;
    }
    template <class T> command &in(std::uint16_t id, const T &value)
    {
        std::uint64_t data = reinterpret_cast<std::uint64_t>(&value);
        if (sizeof(T) <= 8) {
            data = 0;
            std::memcpy(&data, &value, sizeof(T));
        }
        return add(id, sizeof(T), data);
    }
    command &out(std::uint16_t id, std::uint16_t size) { return add(id, size, reinterpret_cast<std::uint64_t>(arena) + 64); }

    /// Spoils some of it, sends it, and keeps what came back.
    int send(fuzz::script &s)
    {
        auto *h      = reinterpret_cast<ib_uverbs_ioctl_hdr *>(bytes);
        h->num_attrs = static_cast<std::uint16_t>(count);
        h->length    = static_cast<std::uint16_t>(24 + 16 * count);
        for (unsigned spoil = s.u8() & 15; spoil > 11; --spoil) {
            ib_uverbs_attr *a = attr(s.u8() % (count + 1));
            switch (s.u8() & 7) {
            case 0: a->attr_id = static_cast<std::uint16_t>(s.edge()); break;
            case 1: a->len = static_cast<std::uint16_t>(s.edge()); break;
            case 2: a->flags = s.u16(); break;
            case 3: a->data = any_address(s); break;
            case 4: a->data = s.edge(); break;
            case 5: a->data = any_handle(s); break;
            case 6: h->num_attrs = static_cast<std::uint16_t>(s.u8() & 31); break;
            default: bytes[s.u8() % 24] = s.u8();
            }
        }
        int error = 0;
        __atomic_fetch_add(&fuzz::commands, 1, __ATOMIC_RELAXED);
        fuzz::must(file_ioctl(fd, bytes, &error), "the file is ours");
        if (error == 0)
            keep();
        return error;
    }
    void keep()
    {
        const std::lock_guard guard(seen.lock);
        for (unsigned i = 0; i < count; ++i)
            if (attr(i)->len == 0 && (attr(i)->flags & UVERBS_ATTR_F_VALID_OUTPUT) != 0)
                note(static_cast<std::uint32_t>(attr(i)->data));
        std::uint32_t first = 0; // handle of a write command
        std::memcpy(&first, arena + 64, 4);
        note(first);
    }
    static void note(std::uint32_t value)
    {
        if (value > 2 && value < 4096 && fcntl(static_cast<int>(value), F_GETFD) != -1 && value != static_cast<std::uint32_t>(fd) &&
            value != static_cast<std::uint32_t>(keeper))
            seen.fds.push_back(static_cast<int>(value));
        seen.handles[seen.next++ % seen.handles.size()] = value;
    }
};

template <class T> void write_command(fuzz::script &s, std::uint32_t number, T body, std::uint16_t out_size)
{
    for (unsigned n = s.u8() & 3; n == 3; n = 0) // some bytes of it spoiled
        reinterpret_cast<std::uint8_t *>(&body)[s.u8() % sizeof(T)] = s.u8();
    command c(UVERBS_OBJECT_DEVICE, UVERBS_METHOD_INVOKE_WRITE);
    c.in(UVERBS_ATTR_WRITE_CMD, std::uint64_t{number}).in(UVERBS_ATTR_CORE_IN, body).out(UVERBS_ATTR_CORE_OUT, out_size);
    if ((s.u8() & 3) != 0)
        c.out(UVERBS_ATTR_UHW_OUT, 24);
    (void)c.send(s);
}

void get_context(fuzz::script &s)
{
    const std::uint64_t ask = 3;
    (void)command(UVERBS_OBJECT_DEVICE, UVERBS_METHOD_GET_CONTEXT).out(0, 4).out(1, 8).in(UVERBS_ATTR_UHW_IN, ask).out(UVERBS_ATTR_UHW_OUT, 24).send(s);
}

void create_cq(fuzz::script &s)
{
    const std::uint32_t     cqe = (s.u8() & 3) != 0 ? 16 : static_cast<std::uint32_t>(s.edge()), vector = 0;
    const std::uint64_t     user = (s.u8() & 1) != 0 ? reinterpret_cast<std::uint64_t>(arena + page) : any_address(s) | page;
    const efa_ibv_create_cq efa{0, 32, 1, static_cast<std::uint8_t>(s.u8() & 3), {}};
    command                 c(UVERBS_OBJECT_CQ, UVERBS_METHOD_CQ_CREATE);
    c.add(UVERBS_ATTR_CREATE_CQ_HANDLE, 0, 0).in(UVERBS_ATTR_CREATE_CQ_CQE, cqe).in(UVERBS_ATTR_CREATE_CQ_USER_HANDLE, user)
        .in(UVERBS_ATTR_CREATE_CQ_COMP_VECTOR, vector).out(UVERBS_ATTR_CREATE_CQ_RESP_CQE, 4).in(UVERBS_ATTR_UHW_IN, efa).out(UVERBS_ATTR_UHW_OUT, 40);
    if ((s.u8() & 3) == 0)
        c.add(UVERBS_ATTR_CREATE_CQ_COMP_CHANNEL, 0, any_handle(s));
    (void)c.send(s);
}

void create_qp(fuzz::script &s)
{
    const std::uint64_t      type = (s.u8() & 1) != 0 ? 255 : 4, user = reinterpret_cast<std::uint64_t>(arena + page);
    const ib_uverbs_qp_cap   cap{16, 16, 1, 1, 0};
    const abi::create_qp_cmd efa{0, 16 * 16, 16 * 64, 0, static_cast<std::uint16_t>(s.u8() & 1), 0, {}};
    command                  c(UVERBS_OBJECT_QP, UVERBS_METHOD_QP_CREATE);
    const std::uint64_t      cq = any_handle(s);
    c.add(UVERBS_ATTR_CREATE_QP_HANDLE, 0, 0).add(UVERBS_ATTR_CREATE_QP_PD_HANDLE, 0, any_handle(s)).add(UVERBS_ATTR_CREATE_QP_SEND_CQ_HANDLE, 0, cq)
        .add(UVERBS_ATTR_CREATE_QP_RECV_CQ_HANDLE, 0, (s.u8() & 3) != 0 ? cq : any_handle(s)).in(UVERBS_ATTR_CREATE_QP_USER_HANDLE, user)
        .in(UVERBS_ATTR_CREATE_QP_CAP, cap).in(UVERBS_ATTR_CREATE_QP_TYPE, type).out(UVERBS_ATTR_CREATE_QP_RESP_CAP, 20)
        .out(UVERBS_ATTR_CREATE_QP_RESP_QP_NUM, 4).in(UVERBS_ATTR_UHW_IN, efa).out(UVERBS_ATTR_UHW_OUT, 64);
    (void)c.send(s);
}

void destroy(fuzz::script &s)
{
    static constexpr std::uint16_t what[][2] = {{UVERBS_OBJECT_PD, UVERBS_METHOD_PD_DESTROY}, {UVERBS_OBJECT_MR, UVERBS_METHOD_MR_DESTROY},
                                                {UVERBS_OBJECT_AH, 0}, {UVERBS_OBJECT_CQ, UVERBS_METHOD_CQ_DESTROY}, {UVERBS_OBJECT_QP, UVERBS_METHOD_QP_DESTROY}};
    const auto &row = what[s.u8() % 5];
    command     c(row[0], row[1]);
    c.add(0, 0, any_handle(s));
    if (row[0] == UVERBS_OBJECT_CQ || row[0] == UVERBS_OBJECT_QP)
        c.out(1, 8);
    (void)c.send(s);
}

void modify_qp(fuzz::script &s)
{
    ib_uverbs_modify_qp m{};
    static constexpr std::uint32_t masks[] = {0x71, 0x1, 0x10001, 0x1, 0x10801, 0x41};
    const unsigned k = s.u8() % 6;
    m.qp_handle = static_cast<std::uint32_t>(any_handle(s));
    m.attr_mask = masks[k];
    m.qp_state  = static_cast<std::uint8_t>((s.u8() & 3) != 0 ? k + 1 : s.u8() & 7);
    m.port_num  = 1;
    m.rnr_retry = s.u8() & 7;
    write_command(s, IB_USER_VERBS_CMD_MODIFY_QP, m, 0);
}

void reg_mr(fuzz::script &s)
{
    ib_uverbs_reg_mr r{};
    r.start        = (s.u8() & 1) != 0 ? reinterpret_cast<std::uint64_t>(arena) : any_address(s);
    r.hca_va       = (s.u8() & 3) != 0 ? r.start : s.edge();
    r.length       = (s.u8() & 1) != 0 ? page : s.edge();
    r.pd_handle    = static_cast<std::uint32_t>(any_handle(s));
    r.access_flags = s.u8() & 15;
    write_command(s, IB_USER_VERBS_CMD_REG_MR, r, 12);
}

void create_ah(fuzz::script &s)
{
    ib_uverbs_create_ah a{};
    a.pd_handle      = static_cast<std::uint32_t>(any_handle(s));
    a.attr.is_global = 1;
    a.attr.port_num  = 1;
    const dev::gid own = dev::device_gid(0);
    std::memcpy(a.attr.grh.dgid, own.data(), own.size());
    a.attr.grh.dgid[15] = s.u8();
    write_command(s, IB_USER_VERBS_CMD_CREATE_AH, a, 4);
}

void raw(fuzz::script &s)
{
    static constexpr std::uint16_t objects[] = {0, 1, 2, 3, 4, 6, 7, 16};
    command c(objects[s.u8() & 7], (s.u8() & 7) != 0 ? s.u8() & 7 : static_cast<std::uint16_t>(0x1000 | s.u8()));
    for (unsigned n = s.u8() & 15; n != 0; --n)
        c.add((s.u8() & 3) != 0 ? s.u8() & 15 : static_cast<std::uint16_t>(0x1000 | (s.u8() & 3)), (s.u8() & 1) != 0 ? 0 : s.u8(),
              (s.u8() & 1) != 0 ? any_handle(s) : any_address(s));
    (void)c.send(s);
}

void old_command(fuzz::script &s)
{
    struct {
        std::uint8_t bytes[136];
    } body{};
    for (unsigned n = s.u8() & 31; n != 0; --n)
        body.bytes[s.u8() % sizeof(body)] = s.u8();
    const std::uint32_t number = (s.u8() & 7) != 0 ? s.u8() & 63 : static_cast<std::uint32_t>(s.edge());
    write_command(s, (s.u8() & 7) != 0 ? number : number | 0x80000000u, body, static_cast<std::uint16_t>(s.u8() * 2));
}

void step(fuzz::script &s)
{
    switch (s.u8() & 15) {
    case 0: raw(s); break;
    case 1: old_command(s); break;
    case 2: create_cq(s); break;
    case 3: case 4: create_qp(s); break;
    case 5: case 6: case 7: destroy(s); break;
    case 8: case 9: modify_qp(s); break;
    case 10: reg_mr(s); break;
    case 11: create_ah(s); break;
    case 12: write_command(s, IB_USER_VERBS_CMD_ALLOC_PD, std::uint64_t{0}, 4); break;
    case 13: write_command(s, IB_USER_VERBS_CMD_CREATE_COMP_CHANNEL, std::uint64_t{0}, 4); break;
    case 14: { // the application closes a descriptor, ours or not any more
        const std::lock_guard guard(seen.lock);
        if (!seen.fds.empty()) {
            const int gone = seen.fds.back();
            seen.fds.pop_back();
            if (file_closing(gone) == close_verdict::pass)
                syscall(SYS_close, gone);
        }
        break;
    }
    default: get_context(s);
    }
}

void open_device()
{
    if (age % keeper_life == 1) {
        keeper = file_open(0, O_CLOEXEC);
        fuzz::must(keeper >= 0, "the keeper opens");
        std::uint8_t nothing = 0;
        fuzz::script s(&nothing, 0);
        fd = keeper;
        get_context(s);
    }
    fd = file_open(0, O_CLOEXEC);
    fuzz::must(fd >= 0, "the device opens");
    seen.handles = {};
    std::uint8_t nothing = 0;
    fuzz::script s(&nothing, 0);
    get_context(s);
}

void close_device()
{
    std::sort(seen.fds.begin(), seen.fds.end());
    seen.fds.erase(std::unique(seen.fds.begin(), seen.fds.end()), seen.fds.end());
    for (int one : seen.fds)
        if (file_closing(one) == close_verdict::pass)
            syscall(SYS_close, one);
    seen.fds.clear();
    fuzz::must(file_closing(fd) == close_verdict::pass, "the device closes");
    syscall(SYS_close, fd);
    fd = -1;
    const dev::process_objects &left = dev::objects();
    if (++age % keeper_life == 0) {
        fuzz::must(left.contexts.count() == 1 && file_closing(keeper) == close_verdict::pass, "the keeper closes");
        syscall(SYS_close, keeper);
        keeper = -1;
    }
    fuzz::must(left.contexts.count() == (keeper != -1 ? 1 : 0), "nothing is left of a closed device: contexts");
    fuzz::must(left.pds.count() + left.mrs.count() + left.ahs.count() + left.cqs.count() + left.qps.count() == 0,
               "nothing is left of a closed device");
}

} // namespace

extern "C" int LLVMFuzzerInitialize(int *, char ***)
{
    settings wanted;
    fuzz::must(mkdtemp(folder) != nullptr, "a folder");
    wanted.registry_dir = folder;
    fuzz::must(dev::configure(wanted), "configured");
    arena = static_cast<std::uint8_t *>(mmap(nullptr, 3 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    fuzz::must(mprotect(arena + page, page, PROT_READ) == 0 && mprotect(arena + 2 * page, page, PROT_NONE) == 0, "an arena");
    fuzz::count_at_exit("commands");
    std::atexit([] { std::fprintf(stderr, "fuzz: %llu inputs by two threads\n", static_cast<unsigned long long>(pairs)); });
    std::atexit([] { fuzz::must(std::system((std::string("rm -rf ") + folder).c_str()) == 0, "clean"); });
    return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t *data, std::size_t size)
{
    open_device();
    if (size > 8 && (data[0] & 3) == 1) { // two threads, one file
        ++pairs;
        std::thread other([&] {
            for (fuzz::script s(data + size / 2, size - size / 2); s.more();)
                step(s);
        });
        for (fuzz::script s(data + 1, size / 2 - 1); s.more();)
            step(s);
        other.join();
    } else {
        for (fuzz::script s(data, size); s.more();)
            step(s);
    }
    close_device();
    return 0;
}
