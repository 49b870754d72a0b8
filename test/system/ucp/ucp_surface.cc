/* What a user sees of the transport beside its traffic: the interface's files in UCX's VFS, and several devices as lanes.
 *
 *   ucp_surface vfs            counters/ and state/ of every srd interface are there, and move with traffic
 *   ucp_surface devices COUNT  messages of all sizes to a second process over COUNT devices, every byte checked; each device
 *                              has carried at least a tenth of the bytes
 *   ucp_surface rendezvous HOW large messages, with and without error handling: by the device's reads (HOW: read), or in messages
 *   ucp_surface listen         a client connects to a listener's IP address (UCX_TLS=srd,tcp: UCP wants the network device of the
 *                              address among its own); srd carries the bytes
 *   ucp_surface wakeup ANSWER  whether a context that asks for messages and wake-up can connect over srd (yes or no)
 *   ucp_surface info           opens a worker and closes it, for the lines it logs
 *
 * Run it under `ucx-srd run --soft=COUNT` with UCX_TLS=srd. No fuse daemon is needed: libucs reads its own tree.
 * The last line counts: "N passed, N failed".
 */
#include "pair.h"

#include <arpa/inet.h>
#include <map>
#include <netinet/in.h>

extern "C" {
#include <ucs/datastruct/string_buffer.h>
#include <ucs/vfs/base/vfs_obj.h>
}

namespace {

using namespace sys;

unsigned passed = 0, failed = 0;

void expect(bool good, const std::string &what)
{
    std::printf("%s %s\n", good ? "ok     " : "FAILED ", what.c_str());
    (good ? passed : failed)++;
}

int end()
{
    std::printf("%u passed, %u failed\n", passed, failed);
    return failed == 0 ? 0 : 1;
}

/// Every file of UCX's tree below `path` whose path ends with `suffix`.
void find(const std::string &path, const std::string &suffix, std::vector<std::string> *found, unsigned depth = 0)
{
    std::vector<std::string> names;
    const auto append = [](const char *name, void *arg) { static_cast<std::vector<std::string> *>(arg)->push_back(name); };
    if (depth > 12 || ucs_vfs_path_list_dir(path.c_str(), append, &names) != UCS_OK) {
        if (path.size() >= suffix.size() && path.compare(path.size() - suffix.size(), suffix.size(), suffix) == 0) {
            found->push_back(path);
        }
        return;
    }
    for (const std::string &name : names) {
        find(path == "/" ? path + name : path + "/" + name, suffix, found, depth + 1);
    }
}

std::string read_file(const std::string &path)
{
    ucs_string_buffer_t text;
    ucs_string_buffer_init(&text);
    std::string content;
    if (ucs_vfs_path_read_file(path.c_str(), &text) == UCS_OK) {
        content = ucs_string_buffer_cstr(&text);
    }
    ucs_string_buffer_cleanup(&text);
    while (!content.empty() && content.back() == '\n') {
        content.pop_back();
    }
    return content;
}

/// Folders of the srd interfaces of this process.
std::vector<std::string> interfaces()
{
    std::vector<std::string> files;
    const std::string        suffix = "/counters/tx_am";
    find("/", suffix, &files);
    for (std::string &file : files) {
        file.resize(file.size() - suffix.size());
    }
    return files;
}

unsigned long long number(const std::string &interface, const std::string &file)
{
    const std::string text = read_file(interface + "/" + file);
    return text.empty() ? ~0ull : std::strtoull(text.c_str(), nullptr, 10);
}

void send_and_receive(worker &w, endpoint &e, size_t size)
{
    std::vector<char> out(size), in(size);
    for (size_t i = 0; i < size; ++i) {
        out[i] = char(i * 131 + size);
    }
    void *receive = w.receive(1, in.data(), in.size());
    void *send    = w.send(e, 1, out.data(), out.size());
    check(w.wait(send, 20, "send"), "send");
    check(w.wait(receive, 20, "receive"), "receive");
    if (in != out) {
        die("wrong bytes");
    }
}

int vfs()
{
    worker w;
    auto   found = interfaces();
    expect(found.size() == 1, "one interface of srd in the tree: " + std::to_string(found.size()));
    if (found.size() != 1) {
        return end();
    }
    const std::string f = found[0];
    expect(number(f, "counters/tx_am") == 0, "no message sent yet");
    expect(number(f, "state/rx_posted") == number(f, "state/rx_queue_len"), "the receive queue is full");
    expect(number(f, "state/peers") == 0, "no peer known yet");
    expect(number(f, "state/qpn") > 0 && number(f, "state/qpn") < 65536, "a queue pair number");
    expect(number(f, "state/rx_memory") >= number(f, "state/rx_queue_len") * 8928, "memory of the receive buffers");
    expect(read_file(f + "/state/numa").find_first_of("0123456789") == 0, "a NUMA node: " + read_file(f + "/state/numa"));
    expect(read_file(f + "/state/gid").rfind("fe80:", 0) == 0, "a GID: " + read_file(f + "/state/gid"));

    endpoint e;
    w.connect(w.address(), &e, false);
    for (size_t size : {size_t(8), size_t(1000), size_t(8000), size_t(100000)}) {
        send_and_receive(w, e, size);
    }
    // What docs/uct-semantics.md lists, "What can be watched".
    for (const char *file : {"qpn", "peers", "address_handles", "window", "tx_slots_free", "tx_outstanding", "control_slots_free",
                             "tx_buffers", "tx_memory", "rx_posted", "rx_target", "rx_queue_len", "rx_active_senders", "rx_granted",
                             "rx_held", "rx_buffers", "rx_memory"}) {
        const std::string text = read_file(f + "/state/" + file);
        expect(!text.empty() && text.find_first_not_of("0123456789") == std::string::npos, std::string("state/") + file + ": " + text);
    }
    // The last words between the two ends (credits) may still be on their way.
    expect(w.until(60, [&] { return number(f, "state/tx_outstanding") == 0 && number(f, "counters/rx_am") == number(f, "counters/tx_am"); }),
           "nothing outstanding");
    for (const std::string suffix : {"/registrations", "/deregistrations", "/registrations_failed"}) {
        std::vector<std::string> files;
        find("/", suffix, &files);
        expect(files.size() == 1 && !read_file(files[0]).empty(), "the memory domain's" + suffix);
    }
    expect(number(f, "counters/tx_am") >= 4 && number(f, "counters/tx_am") != ~0ull, "messages were counted");
    expect(number(f, "counters/rx_am") == number(f, "counters/tx_am"), "all of them arrived");
    expect(number(f, "counters/tx_bytes") >= 8 + 1000, "bytes were counted");
    expect(number(f, "state/peers") == 1, "one peer: ourselves");
    expect(number(f, "state/address_handles") == 1, "one address handle");
    expect(number(f, "state/tx_buffers") > 0, "bounce buffers were made");
    expect(number(f, "state/window") >= 4 && number(f, "state/window") <= 256, "the window");
    (void)w.close(e, false, 20, "close");
    return end();
}

int rendezvous(bool by_reads)
{
    constexpr size_t size = 1 << 20;
    for (const bool peer_errors : {false, true}) {
        worker      w;
        endpoint    e;
        const auto  found = interfaces();
        const std::string how = peer_errors ? ", with error handling" : "";
        w.connect(w.address(), &e, peer_errors);
        send_and_receive(w, e, 8);
        if (found.size() != 1) {
            die("interfaces of srd: " + std::to_string(found.size()));
        }
        const auto before = number(found[0], "counters/tx_bytes");
        send_and_receive(w, e, size);
        const auto messages = number(found[0], "counters/tx_bytes") - before;
        const auto read     = number(found[0], "counters/rma_bytes");
        expect(by_reads ? read >= size : read == 0, "bytes read from the sender's memory" + how + ": " + std::to_string(read));
        expect(by_reads ? messages < 4096 : messages >= size, "bytes in messages" + how + ": " + std::to_string(messages));
        (void)w.close(e, false, 20, "close");
    }
    return end();
}

constexpr size_t listen_sizes[] = {1, 8, 300, 8880, 20000, 300000, 1 << 20};

/// Accepts one connection and echoes what it is sent.
int listener()
{
    worker             w;
    endpoint           e;
    ucp_conn_request_h request = nullptr;
    sockaddr_in        address = {};
    address.sin_family         = AF_INET;
    address.sin_addr.s_addr    = htonl(INADDR_LOOPBACK);
    ucp_listener_params_t params = {};
    params.field_mask            = UCP_LISTENER_PARAM_FIELD_SOCK_ADDR | UCP_LISTENER_PARAM_FIELD_CONN_HANDLER;
    params.sockaddr.addr         = reinterpret_cast<const sockaddr *>(&address);
    params.sockaddr.addrlen      = sizeof(address);
    params.conn_handler.cb       = [](ucp_conn_request_h r, void *arg) { *static_cast<ucp_conn_request_h *>(arg) = r; };
    params.conn_handler.arg      = &request;
    ucp_listener_h listens;
    check(ucp_listener_create(w.handle(), &params, &listens), "ucp_listener_create");
    ucp_listener_attr_t attributes = {};
    attributes.field_mask          = UCP_LISTENER_ATTR_FIELD_SOCKADDR;
    check(ucp_listener_query(listens, &attributes), "ucp_listener_query");
    sockaddr_in bound;
    std::memcpy(&bound, &attributes.sockaddr, sizeof(bound));
    write_all(STDOUT_FILENO, &bound.sin_port, sizeof(bound.sin_port));
    if (!w.until(60, [&] { return request != nullptr; })) {
        die("nobody connects");
    }
    ucp_ep_params_t accept = {};
    accept.field_mask      = UCP_EP_PARAM_FIELD_CONN_REQUEST;
    accept.conn_request    = request;
    check(ucp_ep_create(w.handle(), &accept, &e.ep), "ucp_ep_create of a request");
    for (size_t size : listen_sizes) {
        std::vector<char> bytes(size);
        check(w.wait(w.receive(2, bytes.data(), size), 60, "receive of the listener"), "receive of the listener");
        check(w.wait(w.send(e, 3, bytes.data(), size), 60, "echo"), "echo");
    }
    (void)w.close(e, false, 20, "close of the listener");
    ucp_listener_destroy(listens);
    return 0;
}

int listen()
{
    child peer;
    peer.start({"ucp_surface", "listener"});
    sockaddr_in address     = {};
    address.sin_family      = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (!read_all(peer.in, &address.sin_port, sizeof(address.sin_port))) {
        die("the listener ended");
    }
    worker          w;
    endpoint        e;
    ucp_ep_params_t params  = {};
    params.field_mask       = UCP_EP_PARAM_FIELD_SOCK_ADDR | UCP_EP_PARAM_FIELD_FLAGS;
    params.flags            = UCP_EP_PARAMS_FLAGS_CLIENT_SERVER;
    params.sockaddr.addr    = reinterpret_cast<const sockaddr *>(&address);
    params.sockaddr.addrlen = sizeof(address);
    check(ucp_ep_create(w.handle(), &params, &e.ep), "ucp_ep_create to an address");
    size_t total = 0;
    bool   right = true;
    for (size_t size : listen_sizes) {
        std::vector<char> out(size), in(size, 0x55);
        for (size_t i = 0; i < size; ++i) {
            out[i] = char((i * 2654435761u) >> 13);
        }
        void *receive = w.receive(3, in.data(), size);
        check(w.wait(w.send(e, 2, out.data(), size), 60, "send"), "send");
        check(w.wait(receive, 60, "receive"), "receive");
        right = right && in == out;
        total += size;
    }
    expect(right, "every byte is right, " + std::to_string(total) + " of them each way");
    unsigned long long carried = 0;
    for (const std::string &f : interfaces()) {
        carried += number(f, "counters/tx_bytes") + number(f, "counters/rx_bytes") + number(f, "counters/rma_bytes");
    }
    expect(carried >= total, "srd carried " + std::to_string(carried) + " bytes");
    (void)w.close(e, false, 20, "close");
    expect(peer.reap() == 0, "the listener ended well");
    return end();
}

int wakeup(bool wanted)
{
    ucp_params_t params = {};
    params.field_mask   = UCP_PARAM_FIELD_FEATURES;
    params.features     = UCP_FEATURE_TAG | UCP_FEATURE_WAKEUP;
    ucp_context_h context;
    check(ucp_init(&params, nullptr, &context), "ucp_init");
    ucp_worker_params_t worker_params = {};
    ucp_worker_h        w;
    check(ucp_worker_create(context, &worker_params, &w), "ucp_worker_create");
    ucp_address_t *address;
    size_t         length;
    check(ucp_worker_get_address(w, &address, &length), "ucp_worker_get_address");
    ucp_ep_params_t ep_params = {};
    ep_params.field_mask      = UCP_EP_PARAM_FIELD_REMOTE_ADDRESS;
    ep_params.address         = address;
    ucp_ep_h           ep     = nullptr;
    const ucs_status_t status = ucp_ep_create(w, &ep_params, &ep);
    expect((status == UCS_OK) == wanted, std::string("an endpoint with wake-up: ") + ucs_status_string(status));
    if (status == UCS_OK) {
        ucp_request_param_t param = {};
        void               *r     = ucp_ep_close_nbx(ep, &param);
        const auto          begin = clock::now();
        while (UCS_PTR_IS_PTR(r) && ucp_request_check_status(r) == UCS_INPROGRESS && seconds_since(begin) < 20) {
            ucp_worker_progress(w);
        }
        if (UCS_PTR_IS_PTR(r)) {
            ucp_request_free(r);
        }
    }
    ucp_worker_release_address(w, address);
    ucp_worker_destroy(w);
    ucp_cleanup(context);
    return end();
}

int info()
{
    worker w;
    expect(interfaces().size() >= 1, "an interface is open");
    return end();
}

constexpr size_t device_sizes[] = {1, 8, 300, 4096, 8880, 8881, 20000, 65536, 300001, 1 << 20, 4 << 20};

int device_peer()
{
    worker w;
    write_blob(STDOUT_FILENO, w.address());
    endpoint e;
    w.connect(read_blob(STDIN_FILENO), &e, false);
    for (size_t size : device_sizes) {
        std::vector<char> bytes(size);
        check(w.wait(w.receive(2, bytes.data(), size), 60, "receive of the peer"), "receive of the peer");
        check(w.wait(w.send(e, 3, bytes.data(), size), 60, "echo"), "echo");
    }
    char c;
    fcntl(STDIN_FILENO, F_SETFL, O_NONBLOCK);
    const auto begin = clock::now();
    while (read(STDIN_FILENO, &c, 1) < 0 && seconds_since(begin) < 60) {
        ucp_worker_progress(w.handle());
    }
    (void)w.close(e, false, 20, "close");
    return 0;
}

int devices(unsigned count)
{
    child peer;
    peer.start({"ucp_surface", "device-peer"});
    worker w;
    endpoint e;
    write_blob(peer.out, w.address());
    w.connect(read_blob(peer.in), &e, false);
    const auto found = interfaces();
    expect(found.size() == count, "interfaces of srd: " + std::to_string(found.size()));

    size_t total = 0;
    bool   right = true;
    for (size_t size : device_sizes) {
        std::vector<char> out(size), in(size, 0x55);
        for (size_t i = 0; i < size; ++i) {
            out[i] = char((i * 2654435761u) >> 13);
        }
        void *receive = w.receive(3, in.data(), size);
        check(w.wait(w.send(e, 2, out.data(), size), 60, "send"), "send");
        check(w.wait(receive, 60, "receive"), "receive");
        right = right && in == out;
        total += size;
    }
    expect(right, "every byte is right, " + std::to_string(total) + " of them each way");
    std::map<std::string, unsigned long long> qpns;
    for (const std::string &f : found) {
        // With RDMA the bytes are the reader's; without it both sides send them as messages.
        const auto carried = number(f, "counters/tx_bytes") + number(f, "counters/rx_bytes") + number(f, "counters/rma_bytes");
        expect(carried != ~0ull && carried >= total / 10, "device " + read_file(f + "/state/gid") + " carried " + std::to_string(carried));
        qpns[read_file(f + "/state/gid")]++;
    }
    expect(qpns.size() == count, "each interface is on a device of its own");
    write_all(peer.out, "e", 1);
    (void)w.close(e, false, 20, "close");
    expect(peer.reap() == 0, "the peer ended well");
    return end();
}

} // namespace

int main(int argc, char **argv)
{
    const std::string what = argc > 1 ? argv[1] : "";
    if (what == "vfs" && argc == 2) {
        return vfs();
    }
    if (what == "info" && argc == 2) {
        return info();
    }
    if (what == "rendezvous" && argc == 3) {
        return rendezvous(std::strcmp(argv[2], "read") == 0);
    }
    if (what == "listen" && argc == 2) {
        return listen();
    }
    if (what == "listener") {
        return listener();
    }
    if (what == "wakeup" && argc == 3) {
        return wakeup(std::strcmp(argv[2], "yes") == 0);
    }
    if (what == "device-peer") {
        return device_peer();
    }
    if (what == "devices" && argc == 3) {
        return devices(unsigned(std::atoi(argv[2])));
    }
    std::fprintf(stderr, "usage: ucp_surface vfs | devices COUNT | rendezvous read|messages | listen | wakeup yes|no | info\n");
    return 2;
}
