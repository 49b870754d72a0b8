/* Memory that is registered by a descriptor, as that of a GPU is by its dmabuf, seen through UCT by two processes.
 *
 *   uct_dmabuf   puts, gets and messages to, from and between such memory; what lies beside it; a registration that ended
 *
 * A memfd stands in for the dmabuf: run it under `ucx-srd run --soft` with SOFTEFA_DMABUF=1. The addresses by which memory is
 * registered are ones at which neither process has anything, as with a GPU that the processor cannot see, so a byte that moves
 * was moved by the device. The test itself looks through a mapping of its own.
 * Prints what it saw and a line of counts; where UCX or the device cannot register a dmabuf it is one skip, with the reason.
 */
#include "uct/srd/ucx/uct_abi.h"

#include <cstdio>

#if UCX_SRD_ABI < 1181

int main()
{
    std::printf("SKIP: dmabuf: UCX %d.%d registers no dmabuf, which came with 1.14\n0 passed, 0 failed, 1 skipped\n", UCT_VERNO_MAJOR,
                UCT_VERNO_MINOR);
}

#else

#include "node.h"

#include <cerrno>
#include <poll.h>
#include <sys/mman.h>

// Exported by libuct, in no header that a distribution installs.
extern "C" ucs_status_t uct_md_mem_reg_v2(uct_md_h md, void *address, size_t length, const uct_md_mem_reg_params_t *params,
                                          uct_mem_h *memh_p);

namespace {

using namespace sys;

constexpr size_t    page         = 4096; ///< of x86-64; a multiple of it elsewhere would do
constexpr size_t    guard        = 16 * page; ///< not registered, before and behind the part that is
constexpr size_t    size         = 64 * page;
constexpr size_t    file_size    = size + 2 * guard;
constexpr uintptr_t target_space = 0x5a0000000000; ///< where the target's memory says it is: nothing is there
constexpr uintptr_t local_space  = 0x5b0000000000;
constexpr double    patience     = 60; ///< seconds; generous, as a wait ends with its condition

unsigned passed = 0, failed = 0;

void expect(bool good, const std::string &what)
{
    std::printf("%s %s\n", good ? "ok     " : "FAILED ", what.c_str());
    (good ? passed : failed)++;
}

/// A memfd with a mapping to look through.
struct stand_in {
    int            fd    = -1;
    unsigned char *bytes = nullptr;

    stand_in()
    {
        fd = memfd_create("dmabuf", 0); // without CLOEXEC: the target inherits it
        if (fd < 0 || ftruncate(fd, file_size) != 0) {
            die("no memfd");
        }
        void *mapping = mmap(nullptr, file_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (mapping == MAP_FAILED) {
            die("cannot map the memfd");
        }
        bytes = static_cast<unsigned char *>(mapping);
    }
    stand_in(const stand_in &) = delete;
    ~stand_in()
    {
        munmap(bytes, file_size);
        close(fd);
    }
    unsigned char *part() { return bytes + guard; } ///< the registered one

    void fill(unsigned seed)
    {
        for (size_t i = 0; i < file_size; ++i) {
            bytes[i] = pattern(seed, i);
        }
    }
    static unsigned char pattern(unsigned seed, size_t i) { return static_cast<unsigned char>(i * 13 + i / page + seed * 101); }

    /// Whether all bytes but [begin, begin + count) of the part are as fill(seed) left them.
    bool rest_is(unsigned seed, size_t begin, size_t count) const
    {
        for (size_t i = 0; i < file_size; ++i) {
            if ((i < guard + begin || i >= guard + begin + count) && bytes[i] != pattern(seed, i)) {
                return false;
            }
        }
        return true;
    }
};

ucs_status_t register_part(uct_md_h md, int fd, uintptr_t address, size_t offset, size_t length, uct_mem_h *memh_p)
{
    uct_md_mem_reg_params_t params = {};
    params.field_mask    = UCT_MD_MEM_REG_FIELD_FLAGS | UCT_MD_MEM_REG_FIELD_DMABUF_FD | UCT_MD_MEM_REG_FIELD_DMABUF_OFFSET;
    params.flags         = UCT_MD_MEM_ACCESS_RMA | UCT_MD_MEM_FLAG_HIDE_ERRORS;
    params.dmabuf_fd     = fd;
    params.dmabuf_offset = offset;
    return uct_md_mem_reg_v2(md, reinterpret_cast<void *>(address), length, &params, memh_p);
}

bool offers_dmabuf(const uct_node &n)
{
    uct_md_attr_t attr;
    check(uct_md_query(n.md(), &attr), "uct_md_query");
    return (attr.cap.flags & UCT_MD_FLAG_REG_DMABUF) != 0;
}

/// What the initiator must know of the target.
struct invitation {
    uct_address                   address;
    std::array<unsigned char, 64> rkey{};
};

/// Registers the inherited memory and serves until its input ends. 'd': ends the registration, and answers 'd'. A message of
/// the peer is written to the output, with its size before it.
int play_target(int fd)
{
    uct_node   n;
    uct_mem_h  memh;
    invitation i;
    if (!offers_dmabuf(n)) {
        return 0; // the initiator says so
    }
    check(register_part(n.md(), fd, target_space, guard, size, &memh), "the target's registration");
    close(fd); // the registration keeps the memory
    check(uct_md_mkey_pack(n.md(), memh, i.rkey.data()), "uct_md_mkey_pack");
    i.address    = n.address();
    n.on_message = [](const void *data, size_t length) {
        write_blob(STDOUT_FILENO, std::string(static_cast<const char *>(data), length));
    };
    write_all(STDOUT_FILENO, &i, sizeof i);
    for (;;) {
        pollfd input{STDIN_FILENO, POLLIN, 0};
        if (n.progress() == 0) {
            sched_yield();
        }
        if (poll(&input, 1, 0) <= 0) {
            continue;
        }
        char command;
        if (!read_all(STDIN_FILENO, &command, 1)) {
            break;
        }
        if (command == 'd') {
            check(uct_md_mem_dereg(n.md(), memh), "uct_md_mem_dereg");
            memh = nullptr;
            write_all(STDOUT_FILENO, &command, 1);
        }
    }
    if (memh != nullptr) {
        check(uct_md_mem_dereg(n.md(), memh), "uct_md_mem_dereg");
    }
    return 0;
}

struct told : uct_completion_t {
    bool done = false;
    told()
    {
        count  = 1;
        status = UCS_OK;
        func   = [](uct_completion_t *self) { static_cast<told *>(self)->done = true; };
    }
};

class initiator {
public:
    initiator(uct_node &n, child &target, const invitation &i) : n_(n), target_(target)
    {
        ep_ = n.connect(i.address);
        check(uct_rkey_unpack(n.component(), i.rkey.data(), &key_), "uct_rkey_unpack");
        check(register_part(n.md(), local_.fd, local_space, guard, size, &local_memh_), "the initiator's registration");
        host_.resize(size);
        check(uct_md_mem_reg(n.md(), host_.data(), size, UCT_MD_MEM_ACCESS_RMA | UCT_MD_MEM_FLAG_HIDE_ERRORS, &host_memh_),
              "registration of host memory");
    }
    ~initiator()
    {
        check(uct_md_mem_dereg(n_.md(), local_memh_), "uct_md_mem_dereg");
        check(uct_md_mem_dereg(n_.md(), host_memh_), "uct_md_mem_dereg");
        check(uct_rkey_release(n_.component(), &key_), "uct_rkey_release");
        uct_ep_destroy(ep_);
    }

    void puts(stand_in &there)
    {
        const auto remote = [&](size_t offset) { return target_space + offset; };
        there.fill(1);
        fill_host(2);
        run("put short", [&](told *) { return uct_ep_put_short(ep_, host_.data(), 8, remote(100), key_.rkey); });
        expect(std::memcmp(there.part() + 100, host_.data(), 8) == 0 && there.rest_is(1, 100, 8), "put of 8 bytes");

        there.fill(3);
        run("put bcopy", [&](told *) {
            const ssize_t sent = uct_ep_put_bcopy(ep_, [](void *to, void *from) -> size_t {
                    std::memcpy(to, from, 3000);
                    return 3000;
                }, host_.data() + 50, remote(page - 7), key_.rkey);
            return sent < 0 ? static_cast<ucs_status_t>(sent) : UCS_OK;
        });
        expect(std::memcmp(there.part() + page - 7, host_.data() + 50, 3000) == 0 && there.rest_is(3, page - 7, 3000),
               "buffered put of 3000 bytes");

        there.fill(4);
        zcopy(uct_ep_put_zcopy, "put zcopy", host_.data() + 11, 100001, host_memh_, remote(5));
        expect(std::memcmp(there.part() + 5, host_.data() + 11, 100001) == 0 && there.rest_is(4, 5, 100001),
               "put of 100,001 bytes from the host's memory");

        there.fill(5);
        local_.fill(6);
        zcopy(uct_ep_put_zcopy, "put zcopy", reinterpret_cast<void *>(local_space), size, local_memh_, remote(0));
        expect(std::memcmp(there.part(), local_.part(), size) == 0 && there.rest_is(5, 0, size), "put of all of it from a dmabuf");
        expect(local_.rest_is(6, 0, 0), "and the source is as it was");
    }

    void gets(stand_in &there)
    {
        there.fill(7);
        fill_host(8);
        run("get bcopy", [&](told *t) {
            return uct_ep_get_bcopy(ep_, [](void *to, const void *from, size_t length) { std::memcpy(to, from, length); },
                                    host_.data(), 2000, target_space + 3 * page + 9, key_.rkey, t);
        });
        expect(std::memcmp(there.part() + 3 * page + 9, host_.data(), 2000) == 0 && host_[2000] == stand_in::pattern(8, 2000),
               "buffered get of 2000 bytes");

        zcopy(uct_ep_get_zcopy, "get zcopy", host_.data(), 100001, host_memh_, target_space + 77);
        expect(std::memcmp(there.part() + 77, host_.data(), 100001) == 0 && host_[100001] == stand_in::pattern(8, 100001),
               "get of 100,001 bytes into the host's memory");

        local_.fill(9);
        zcopy(uct_ep_get_zcopy, "get zcopy", reinterpret_cast<void *>(local_space + page + 1), 50000, local_memh_, target_space + 33);
        expect(std::memcmp(there.part() + 33, local_.part() + page + 1, 50000) == 0 && local_.rest_is(9, page + 1, 50000),
               "get of 50,000 bytes into a dmabuf");
        expect(there.rest_is(7, 0, 0), "and the source is as it was");
    }

    void message()
    {
        local_.fill(10);
        told      t;
        uct_iov_t iov = {reinterpret_cast<void *>(local_space + 123), 4000, local_memh_, 0, 1};
        post("am zcopy", &t, [&](told *tp) { return uct_ep_am_zcopy(ep_, 1, nullptr, 0, &iov, 1, 0, tp); });
        wait_for_target();
        const std::string got = read_blob(target_.in);
        expect(got.size() == 4000 && std::memcmp(got.data(), local_.part() + 123, 4000) == 0, "message of 4000 bytes from a dmabuf");
    }

    void ends(stand_in &there)
    {
        write_all(target_.out, "d", 1);
        wait_for_target();
        char answer = 0;
        expect(read_all(target_.in, &answer, 1) && answer == 'd', "the target ends its registration");
        there.fill(11);
        fill_host(12);
        const ucs_status_t status = zcopy_status(uct_ep_get_zcopy, "get zcopy", host_.data(), 5000, host_memh_, target_space);
        expect(status != UCS_OK && host_[0] == stand_in::pattern(12, 0) && host_[4999] == stand_in::pattern(12, 4999),
               std::string("a get from it fails (") + ucs_status_string(status) + ") and brings nothing");
        expect(there.rest_is(11, 0, 0), "and the memory is as it was");
        message(); // the endpoint lives: only the operation was wrong
    }

    void refusals()
    {
        uct_mem_h memh;
        int       ends[2];
        expect(register_part(n_.md(), local_.fd, local_space, guard, file_size, &memh) != UCS_OK, "more than there is, is refused");
        expect(register_part(n_.md(), local_.fd, local_space, guard + 8, page, &memh) != UCS_OK,
               "an address at another place in its page is refused");
        expect(pipe(ends) == 0 && register_part(n_.md(), ends[0], local_space, 0, page, &memh) != UCS_OK, "a pipe is refused");
        close(ends[0]);
        close(ends[1]);
    }

private:
    void fill_host(unsigned seed)
    {
        for (size_t i = 0; i < size; ++i) {
            host_[i] = stand_in::pattern(seed, i);
        }
    }

    /// Posts until it is taken, and waits for its completion where it has one.
    template <class Post> ucs_status_t post(const char *what, told *t, Post &&operation)
    {
        ucs_status_t status = UCS_ERR_NO_RESOURCE;
        if (!n_.until(patience, [&] { return (status = operation(t)) != UCS_ERR_NO_RESOURCE; })) {
            die(std::string(what) + " was never taken");
        }
        if (status != UCS_INPROGRESS) {
            return status;
        }
        if (!n_.until(patience, [&] { return t->done; })) {
            die(std::string(what) + " did not complete");
        }
        return t->status;
    }
    template <class Post> void run(const char *what, Post &&operation)
    {
        told t;
        check(post(what, &t, operation), what);
        check(n_.flush(ep_, patience), "flush");
    }
    template <class Verb> ucs_status_t zcopy_status(Verb verb, const char *what, void *local, size_t length, uct_mem_h memh,
                                                    uint64_t remote)
    {
        told      t;
        uct_iov_t iov = {local, length, memh, 0, 1};
        return post(what, &t, [&](told *tp) { return verb(ep_, &iov, 1, remote, key_.rkey, tp); });
    }
    template <class Verb> void zcopy(Verb verb, const char *what, void *local, size_t length, uct_mem_h memh, uint64_t remote)
    {
        check(zcopy_status(verb, what, local, length, memh, remote), what);
    }
    void wait_for_target()
    {
        if (!n_.until(patience, [&] {
                pollfd from{target_.in, POLLIN, 0};
                return poll(&from, 1, 0) != 0;
            })) {
            die("the target does not answer");
        }
    }

    uct_node                  &n_;
    child                     &target_;
    uct_ep_h                   ep_ = nullptr;
    uct_rkey_bundle_t          key_{};
    stand_in                   local_;
    uct_mem_h                  local_memh_ = nullptr, host_memh_ = nullptr;
    std::vector<unsigned char> host_;
};

int play_initiator(const char *program)
{
    stand_in there;
    child    target;
    target.start({program, "target", std::to_string(there.fd)}); // before this process has an open device
    {
        uct_node n;
        if (!offers_dmabuf(n)) {
            std::printf("SKIP: dmabuf: the device registers none (Soft EFA does with SOFTEFA_DMABUF=1)\n"
                        "0 passed, 0 failed, 1 skipped\n");
            target.kill_and_reap(SIGKILL);
            return 0;
        }
        constexpr uint64_t puts = UCT_IFACE_FLAG_PUT_SHORT | UCT_IFACE_FLAG_PUT_BCOPY | UCT_IFACE_FLAG_PUT_ZCOPY;
        constexpr uint64_t gets = UCT_IFACE_FLAG_GET_BCOPY | UCT_IFACE_FLAG_GET_ZCOPY;
        unsigned           skipped = 0;
        invitation         i;
        if (!read_all(target.in, &i, sizeof i)) {
            die("the target ended before it sent its key");
        }
        {
            initiator here(n, target, i);
            const auto offered = [&](uint64_t flags, const char *what) {
                if ((n.interface_flags() & flags) == flags) {
                    return true;
                }
                std::printf("SKIP: dmabuf: the device has no %s\n", what);
                ++skipped;
                return false;
            };
            here.refusals();
            if (offered(puts, "puts")) {
                here.puts(there);
            }
            const bool reads = offered(gets, "gets");
            if (reads) {
                here.gets(there);
            }
            here.message();
            if (reads) {
                here.ends(there);
            }
        }
        ::close(target.out);
        target.out        = -1;
        const int status  = target.reap();
        expect(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the target ends well");
        std::printf("%u passed, %u failed, %u skipped\n", passed, failed, skipped);
    }
    return failed != 0;
}

} // namespace

int main(int argc, char **argv)
{
    signal(SIGPIPE, SIG_IGN);
    if (argc == 3 && std::strcmp(argv[1], "target") == 0) {
        return play_target(std::atoi(argv[2]));
    }
    if (argc == 1) {
        return play_initiator(argv[0]);
    }
    std::fprintf(stderr, "usage: uct_dmabuf\n");
    return 2;
}

#endif
