/* See probe.h. */
#include "tools/probe.h"

#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

#include <cerrno>
#include <climits>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <fcntl.h>
#include <infiniband/efadv.h>
#include <infiniband/verbs.h>
#include <link.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

namespace tools {

namespace {

/// Longest time a question may take: opening 32 devices takes well under a second.
constexpr int child_timeout_ms = 20000;

/// Answers are one character of verdict, then text.
constexpr char verdict_ok    = '+';
constexpr char verdict_error = '-';

/// Reads until end of file or until the time is up.
bool read_answer(int fd, std::string *text_p)
{
    char chunk[512];
    for (;;) {
        struct pollfd poll_fd = {fd, POLLIN, 0};
        const int ready = poll(&poll_fd, 1, child_timeout_ms);
        if (ready < 0 && errno == EINTR) {
            continue;
        }
        if (ready <= 0) {
            return false;
        }
        const ssize_t size = read(fd, chunk, sizeof(chunk));
        if (size <= 0) {
            return size == 0;
        }
        text_p->append(chunk, static_cast<size_t>(size));
    }
}

[[noreturn]] void run_child(const std::function<std::string()> &question, int fd)
{
    // What the libraries print is not ours to show: the answer says what is wrong.
    const int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null_fd >= 0) {
        dup2(null_fd, STDERR_FILENO);
        dup2(null_fd, STDOUT_FILENO);
    }
    const std::string answer = question();
    size_t at = 0;
    while (at < answer.size()) {
        const ssize_t size = write(fd, answer.data() + at, answer.size() - at);
        if (size <= 0) {
            break;
        }
        at += static_cast<size_t>(size);
    }
    _exit(0);
}

/// Asks, and splits the verdict off. "" on failure, with the reason.
std::string ask(const std::function<std::string()> &question, std::string *error_p)
{
    std::string text;
    if (!ask_child(question, &text) || text.empty()) {
        *error_p = text;
        return "";
    }
    const std::string rest = text.substr(1);
    if (text[0] == verdict_ok) {
        return rest;
    }
    *error_p = rest;
    return "";
}

std::string fail(const std::string &text)
{
    return verdict_error + text;
}

template <class F> F *symbol(void *library, const char *name)
{
    return reinterpret_cast<F *>(dlsym(library, name));
}

/// File name a library was loaded from, links resolved.
std::string library_file(void *library)
{
    struct link_map *map = nullptr;
    char text[PATH_MAX];
    if (dlinfo(library, RTLD_DI_LINKMAP, &map) != 0 || map == nullptr || realpath(map->l_name, text) == nullptr) {
        return "";
    }
    return text;
}

std::string ask_ucx_version()
{
    void *libucp = dlopen("libucp.so.0", RTLD_LAZY | RTLD_LOCAL);
    if (libucp == nullptr) {
        return fail("libucp.so.0 is not installed: install libucx0");
    }
    auto *get_version = symbol<void(unsigned *, unsigned *, unsigned *)>(libucp, "ucp_get_version");
    if (get_version == nullptr) {
        return fail("libucp.so.0 has no ucp_get_version: this is no UCX");
    }
    unsigned major = 0, minor = 0, release = 0;
    get_version(&major, &minor, &release);
    return verdict_ok + std::to_string(major) + "." + std::to_string(minor) + "." + std::to_string(release);
}

std::string ask_rdma_core_version()
{
    void *verbs = dlopen("libibverbs.so.1", RTLD_LAZY | RTLD_LOCAL);
    if (verbs == nullptr) {
        return fail("libibverbs.so.1 is not installed: install libibverbs1");
    }
    // libibverbs.so.1.14.44.0 is of rdma-core 44.0.
    const std::string file = library_file(verbs);
    const auto so = file.find(".so.1.");
    const auto dot = so == std::string::npos ? so : file.find('.', so + 6);
    return dot == std::string::npos ? verdict_ok + std::string("unknown") : verdict_ok + file.substr(dot + 1);
}

std::string ask_efa_device_count()
{
    void *verbs = dlopen("libibverbs.so.1", RTLD_LAZY | RTLD_LOCAL);
    void *efa   = dlopen("libefa.so.1", RTLD_LAZY | RTLD_LOCAL);
    if (verbs == nullptr || efa == nullptr) {
        return fail(std::string(verbs == nullptr ? "libibverbs.so.1" : "libefa.so.1") +
                    " is not installed: install libibverbs1 and ibverbs-providers");
    }
    auto *get_list = symbol<struct ibv_device **(int *)>(verbs, "ibv_get_device_list");
    auto *open_dev = symbol<struct ibv_context *(struct ibv_device *)>(verbs, "ibv_open_device");
    auto *query    = symbol<int(struct ibv_context *, struct efadv_device_attr *, uint32_t)>(efa, "efadv_query_device");
    if (get_list == nullptr || open_dev == nullptr || query == nullptr) {
        return fail("this rdma-core has no efadv_query_device: rdma-core 44 or later is needed");
    }
    int count = 0, efa_count = 0, unopened = 0;
    struct ibv_device **list = get_list(&count);
    for (int i = 0; list != nullptr && i < count; ++i) {
        struct efadv_device_attr attr = {};
        struct ibv_context *context = open_dev(list[i]);
        unopened  += context == nullptr;
        efa_count += context != nullptr && query(context, &attr, sizeof(attr)) == 0;
    }
    if (efa_count == 0) {
        return fail(unopened > 0 ? "verbs devices exist but cannot be opened: is /dev/infiniband readable and writable?" :
                                   "no EFA device on this machine");
    }
    return verdict_ok + std::to_string(efa_count);
}

} // namespace

bool ask_child(const std::function<std::string()> &question, std::string *text_p)
{
    text_p->clear();
    int fds[2];
    if (pipe2(fds, O_CLOEXEC) != 0) {
        *text_p = std::string("pipe: ") + strerror(errno);
        return false;
    }
    const pid_t pid = fork();
    if (pid == 0) {
        close(fds[0]);
        run_child(question, fds[1]);
    }
    close(fds[1]);
    if (pid < 0) {
        close(fds[0]);
        *text_p = std::string("fork: ") + strerror(errno);
        return false;
    }
    const bool complete = read_answer(fds[0], text_p);
    close(fds[0]);
    if (!complete) {
        kill(pid, SIGKILL);
    }
    int status = 0;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    if (!complete) {
        *text_p = "asking took longer than " + std::to_string(child_timeout_ms / 1000) + " s";
        return false;
    }
    if (WIFSIGNALED(status)) {
        *text_p = std::string("asking ended with ") + strsignal(WTERMSIG(status));
        return false;
    }
    return true;
}

std::string ucx_version(std::string *error_p)
{
    return ask(ask_ucx_version, error_p);
}

const char *ucx_built_for() noexcept
{
#ifdef UCX_SRD_BUILT_FOR
    return UCX_SRD_BUILT_FOR;
#else
    return "";
#endif
}

bool ucx_supported(const std::string &version)
{
    // Minor versions differ in layout, releases of one minor do not.
    const std::string built_for = ucx_built_for();
    const auto minor_of = [](const std::string &text) { return text.substr(0, text.find('.', text.find('.') + 1)); };
    return !built_for.empty() && minor_of(version) == minor_of(built_for);
}

std::string rdma_core_version(std::string *error_p)
{
    return ask(ask_rdma_core_version, error_p);
}

unsigned efa_device_count(std::string *error_p)
{
    const std::string text = ask(ask_efa_device_count, error_p);
    return text.empty() ? 0 : static_cast<unsigned>(strtoul(text.c_str(), nullptr, 10));
}

bool soft_efa_settings_ok(const install_paths &paths, std::string *error_p)
{
    const auto question = [&]() -> std::string {
        void *soft_efa = dlopen(paths.soft_efa.c_str(), RTLD_LAZY | RTLD_LOCAL);
        if (soft_efa == nullptr) {
            return fail(std::string("Soft EFA cannot be loaded: ") + dlerror());
        }
        auto *check = symbol<int(const char **)>(soft_efa, "softefa_settings_check");
        const char *line = "";
        if (check == nullptr) {
            return fail(paths.soft_efa + " has no softefa_settings_check: it is of another version");
        }
        if (check(&line) != 0) {
            return fail(line != nullptr && *line != '\0' ? line : "Soft EFA refuses its SOFTEFA_ settings");
        }
        return verdict_ok + std::string("yes");
    };
    return !ask(question, error_p).empty();
}

} // namespace tools
