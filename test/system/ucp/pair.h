/* The least of UCP that a system test needs: a worker, endpoints with an error handler, blocking pipes for addresses.
 *
 * Owns: context, worker and endpoints of one process, and the bounded waits. Refuses to know what is tested.
 * Every wait has a deadline; a test that hangs ends with a message and exit code 1.
 */
#pragma once

#include <ucp/api/ucp.h>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <functional>
#include <sched.h>
#include <string>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <csignal>
#include <unistd.h>
#include <vector>

namespace sys {

using clock = std::chrono::steady_clock;

inline double seconds_since(clock::time_point t) { return std::chrono::duration<double>(clock::now() - t).count(); }

[[noreturn]] inline void die(const std::string &what)
{
    std::fprintf(stderr, "%d: %s\n", getpid(), what.c_str());
    std::_Exit(1);
}

inline void check(ucs_status_t status, const char *what)
{
    if (status != UCS_OK) {
        die(std::string(what) + ": " + ucs_status_string(status));
    }
}

inline void write_all(int fd, const void *data, size_t size)
{
    for (auto p = static_cast<const char *>(data); size > 0;) {
        const ssize_t n = write(fd, p, size);
        if (n <= 0) {
            die("pipe write failed");
        }
        p += n;
        size -= size_t(n);
    }
}

/// False at end of file: the other side is gone.
inline bool read_all(int fd, void *data, size_t size)
{
    for (auto p = static_cast<char *>(data); size > 0;) {
        const ssize_t n = read(fd, p, size);
        if (n <= 0) {
            return false;
        }
        p += n;
        size -= size_t(n);
    }
    return true;
}

inline void write_blob(int fd, const std::string &blob)
{
    const uint32_t size = uint32_t(blob.size());
    write_all(fd, &size, sizeof size);
    write_all(fd, blob.data(), size);
}

inline std::string read_blob(int fd)
{
    uint32_t size = 0;
    if (!read_all(fd, &size, sizeof size) || size > (1u << 20)) {
        die("the other side ended before it sent its address");
    }
    std::string blob(size, '\0');
    if (!read_all(fd, blob.data(), size)) {
        die("the other side ended in the middle of its address");
    }
    return blob;
}

class worker;

/// One connection; what its error handler saw.
struct endpoint {
    ucp_ep_h          ep         = nullptr;
    ucs_status_t      failure    = UCS_OK; ///< UCS_OK: no error reported
    clock::time_point failed_at;
    unsigned          reports    = 0; ///< how often the handler was called: must be at most once
};

class worker {
public:
    explicit worker(uint64_t features = UCP_FEATURE_TAG)
    {
        ucp_params_t params = {};
        params.field_mask   = UCP_PARAM_FIELD_FEATURES;
        params.features     = features;
        check(ucp_init(&params, nullptr, &context_), "ucp_init");
        ucp_worker_params_t worker_params = {};
        worker_params.field_mask          = UCP_WORKER_PARAM_FIELD_THREAD_MODE;
        worker_params.thread_mode         = UCS_THREAD_MODE_SINGLE;
        check(ucp_worker_create(context_, &worker_params, &worker_), "ucp_worker_create");
    }
    worker(const worker &) = delete;
    ~worker()
    {
        ucp_worker_destroy(worker_);
        ucp_cleanup(context_);
    }

    ucp_worker_h handle() const { return worker_; }
    ucp_context_h context() const { return context_; }

    std::string address() const
    {
        ucp_address_t *address;
        size_t         length;
        check(ucp_worker_get_address(worker_, &address, &length), "ucp_worker_get_address");
        std::string blob(reinterpret_cast<const char *>(address), length);
        ucp_worker_release_address(worker_, address);
        return blob;
    }

    void connect(const std::string &address, endpoint *e, bool peer_errors = true)
    {
        ucp_ep_params_t params = {};
        params.field_mask      = UCP_EP_PARAM_FIELD_REMOTE_ADDRESS;
        params.address         = reinterpret_cast<const ucp_address_t *>(address.data());
        if (peer_errors) {
            params.field_mask |= UCP_EP_PARAM_FIELD_ERR_HANDLER | UCP_EP_PARAM_FIELD_ERR_HANDLING_MODE;
            params.err_mode       = UCP_ERR_HANDLING_MODE_PEER;
            params.err_handler.cb = [](void *arg, ucp_ep_h, ucs_status_t status) {
                auto self = static_cast<endpoint *>(arg);
                self->reports++;
                self->failure   = status;
                self->failed_at = clock::now();
            };
            params.err_handler.arg = e;
        }
        check(ucp_ep_create(worker_, &params, &e->ep), "ucp_ep_create");
    }

    /// Progresses until the condition holds; false when `seconds` passed first.
    bool until(double seconds, const std::function<bool()> &condition)
    {
        const auto begin = clock::now();
        while (!condition()) {
            unsigned events = 0;
            for (int i = 0; i < 64; ++i) {
                events += ucp_worker_progress(worker_);
            }
            if (events == 0) {
                sched_yield(); // tests have more processes than processors
            }
            if (seconds_since(begin) > seconds) {
                return condition();
            }
        }
        return true;
    }

    /// Frees the request and returns its status; dies when it does not complete in time.
    ucs_status_t wait(void *request, double seconds, const char *what)
    {
        if (request == nullptr) {
            return UCS_OK;
        }
        if (UCS_PTR_IS_ERR(request)) {
            return UCS_PTR_STATUS(request);
        }
        if (!until(seconds, [&] { return ucp_request_check_status(request) != UCS_INPROGRESS; })) {
            die(std::string(what) + " did not complete within " + std::to_string(seconds) + " s");
        }
        const ucs_status_t status = ucp_request_check_status(request);
        ucp_request_free(request);
        return status;
    }

    void *send(endpoint &e, uint64_t tag, const void *data, size_t size)
    {
        ucp_request_param_t param = {};
        return ucp_tag_send_nbx(e.ep, data, size, tag, &param);
    }
    void *receive(uint64_t tag, void *data, size_t size)
    {
        ucp_request_param_t param = {};
        return ucp_tag_recv_nbx(worker_, data, size, tag, ~uint64_t(0), &param);
    }

    /// Returns how long the close took, seconds.
    double close(endpoint &e, bool force, double limit, const char *what)
    {
        ucp_request_param_t param = {};
        param.op_attr_mask        = UCP_OP_ATTR_FIELD_FLAGS;
        param.flags               = force ? UCP_EP_CLOSE_FLAG_FORCE : 0;
        const auto begin          = clock::now();
        (void)wait(ucp_ep_close_nbx(e.ep, &param), limit, what);
        e.ep = nullptr;
        return seconds_since(begin);
    }

private:
    ucp_context_h context_ = nullptr;
    ucp_worker_h  worker_  = nullptr;
};

/// A child process that runs this same program with other arguments, joined by two pipes; killed with us.
struct child {
    pid_t pid = -1;
    int   in  = -1; ///< what the child writes
    int   out = -1; ///< what the child reads on its standard input

    void start(const std::vector<std::string> &arguments)
    {
        int up[2], down[2];
        if (pipe2(up, O_CLOEXEC) != 0 || pipe2(down, O_CLOEXEC) != 0) {
            die("pipe failed");
        }
        pid = fork();
        if (pid < 0) {
            die("fork failed");
        }
        if (pid == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            dup2(down[0], STDIN_FILENO);
            dup2(up[1], STDOUT_FILENO);
            std::vector<char *> argv;
            for (auto &a : arguments) {
                argv.push_back(const_cast<char *>(a.c_str()));
            }
            argv.push_back(nullptr);
            execv("/proc/self/exe", argv.data());
            _exit(127);
        }
        ::close(up[1]);
        ::close(down[0]);
        in  = up[0];
        out = down[1];
    }
    void kill_and_reap(int signal)
    {
        kill(pid, signal);
        reap();
    }
    int reap()
    {
        int status = 0;
        waitpid(pid, &status, 0);
        ::close(in);
        ::close(out);
        pid = -1;
        return status;
    }
};

} // namespace sys
