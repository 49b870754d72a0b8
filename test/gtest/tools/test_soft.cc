// The command softefa without a device: its grammar, what it sets, and what it makes of folders and memory that others have spoilt.
#include "tools/soft_clean.h"
#include "tools/soft_domain.h"
#include "tools/soft_dump.h"
#include "tools/soft_lock.h"
#include "tools/soft_options.h"
#include "tools/soft_run.h"
#include "tools/soft_status.h"

#include "base/rng.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

namespace tools {
namespace {

namespace fs      = std::filesystem;
namespace observe = softefa::observe;

soft_options parsed(const std::vector<std::string> &words)
{
    soft_options options;
    std::string  error;
    EXPECT_TRUE(soft_options_parse(words, &options, &error)) << error;
    return options;
}

std::string refused(const std::vector<std::string> &words)
{
    soft_options options;
    std::string  error;
    EXPECT_FALSE(soft_options_parse(words, &options, &error)) << words[0];
    EXPECT_EQ(std::string::npos, error.find('\n'));
    return error;
}

TEST(soft_options, run_takes_settings_and_a_command)
{
    const auto o = parsed({"run", "--profile", "efa3", "--devices=4", "--domain", "d", "--set", "MTU=4096", "--set=SOFTEFA_SEED=7", "--", "-x", "y"});
    EXPECT_EQ(soft_verb::run, o.verb);
    const changes wanted = {{"SOFTEFA_PROFILE", "efa3"}, {"SOFTEFA_DEVICES", "4"}, {"SOFTEFA_DOMAIN", "d"}, {"SOFTEFA_MTU", "4096"}, {"SOFTEFA_SEED", "7"}};
    EXPECT_EQ(wanted, o.settings);
    EXPECT_EQ((std::vector<std::string>{"-x", "y"}), o.command);
    EXPECT_EQ(parsed({"run", "ls", "--watch"}).command, (std::vector<std::string>{"ls", "--watch"})) << "options behind the command are its own";
}

TEST(soft_options, every_setting_is_an_option_too)
{
    const changes wanted = {{"SOFTEFA_LATENCY", "15us"}, {"SOFTEFA_MAX_SQ_WR", "64"}};
    const auto    o      = parsed({"run", "--latency", "15us", "--max-sq-wr=64", "ls"});
    EXPECT_EQ(wanted, o.settings);
    EXPECT_EQ(std::vector<std::string>{"ls"}, o.command);
    EXPECT_NE(std::string::npos, refused({"run", "--latensy", "15us", "ls"}).find("--latensy"));
    EXPECT_NE(std::string::npos, refused({"run", "--latency"}).find("--latency needs a value"));
}

TEST(soft_options, other_verbs)
{
    EXPECT_EQ(1000u, parsed({"status", "--watch", "--json"}).watch_ms);
    EXPECT_EQ(5000u, parsed({"status", "--watch=5", "--all"}).watch_ms);
    EXPECT_EQ(500u, parsed({"status", "--watch=0.5"}).watch_ms);
    EXPECT_EQ(3600'000u, parsed({"status", "--watch=3600.0"}).watch_ms);
    EXPECT_EQ(123, parsed({"dump", "123"}).pid);
    EXPECT_EQ("./failure.7", parsed({"dump", "./failure.7"}).file);
    EXPECT_TRUE(parsed({"clean", "--all", "--dry-run"}).dry_run);
    EXPECT_EQ(soft_verb::limits, parsed({"limits", "--profile=efa0"}).verb);
    EXPECT_EQ(soft_verb::help, parsed({"status", "--help"}).verb);
}

TEST(soft_options, faults_are_one_line_that_names_the_thing)
{
    EXPECT_NE(std::string::npos, refused({"walk"}).find("walk"));
    EXPECT_NE(std::string::npos, refused({"run"}).find("run what"));
    EXPECT_NE(std::string::npos, refused({"run", ""}).find("empty"));
    EXPECT_NE(std::string::npos, refused({"run", "--profile"}).find("--profile"));
    EXPECT_NE(std::string::npos, refused({"run", "--set", "MTU", "ls"}).find("NAME=VALUE"));
    EXPECT_NE(std::string::npos, refused({"run", "--json", "ls"}).find("--json"));
    for (const char *seconds : {"0", "0.05", "3600.1", "1e3", "nan", "1,5", "-1", "1s", ""}) {
        EXPECT_NE(std::string::npos, refused({"status", std::string("--watch=") + seconds}).find("0.1..3600")) << seconds;
    }
    EXPECT_NE(std::string::npos, refused({"status", "x"}).find("x"));
    EXPECT_NE(std::string::npos, refused({"dump"}).find("PID"));
    EXPECT_NE(std::string::npos, refused({"dump", "-5"}).find("-5"));
    EXPECT_NE(std::string::npos, refused({"dump", "0"}).find("PID"));
    EXPECT_NE(std::string::npos, refused({"clean", "--watch"}).find("--watch"));
}

install_paths paths()
{
    install_paths p;
    p.soft_efa = "/opt/lib/libsoftefa.so.0";
    return p;
}

std::string value_in(const changes &c, const std::string &name)
{
    for (const auto &[n, v] : c) {
        if (n == name) {
            return v;
        }
    }
    return "(unset)";
}

TEST(soft_env, command_line_wins_and_preload_keeps_the_words_of_the_user)
{
    changes     c;
    std::string error;
    ASSERT_TRUE(soft_env(parsed({"run", "--set", "MTU=4096", "--set", "MTU=8192", "ls"}), paths(), {{"SOFTEFA_MTU", "1024"}, {"LD_PRELOAD", "a.so b.so"}},
                         &c, &error))
        << error;
    EXPECT_EQ("8192", value_in(c, "SOFTEFA_MTU"));
    EXPECT_EQ("a.so:b.so:/opt/lib/libsoftefa.so.0", value_in(c, "LD_PRELOAD"));
    // Once more inside: nothing left to change.
    environment inner{{"SOFTEFA_MTU", "8192"}, {"LD_PRELOAD", value_in(c, "LD_PRELOAD")}, {"SYSFS_PATH", "/run/user/1/softefa-x/softefa-sysfs"}};
    ASSERT_TRUE(soft_env(parsed({"run", "--set", "MTU=8192", "ls"}), paths(), inner, &c, &error)) << error;
    EXPECT_TRUE(c.empty());
}

TEST(soft_env, what_cannot_work_is_refused_before_anything_runs)
{
    changes     c;
    std::string error;
    EXPECT_FALSE(soft_env(parsed({"run", "--set", "MTU=1", "ls"}), paths(), {}, &c, &error));
    EXPECT_NE(std::string::npos, error.find("256..9216")) << error;
    EXPECT_FALSE(soft_env(parsed({"run", "--set", "NO_SUCH=1", "ls"}), paths(), {}, &c, &error));
    EXPECT_NE(std::string::npos, error.find("SOFTEFA_NO_SUCH")) << error;
    EXPECT_FALSE(soft_env(parsed({"run", "ls"}), paths(), {{"SYSFS_PATH", "/sys"}}, &c, &error));
    EXPECT_NE(std::string::npos, error.find("SYSFS_PATH=/sys")) << error;
}

TEST(soft_env, settings_of_a_profile)
{
    softefa::settings values;
    std::string       error;
    ASSERT_TRUE(soft_settings(parsed({"limits", "--profile", "efa3"}), {{"SOFTEFA_PROFILE", "efa0"}}, &values, &error)) << error;
    EXPECT_EQ(80u, values.limits.inline_size_ex);
    EXPECT_NE(0u, values.limits.max_rdma_size);
}

TEST(soft_options, settings_may_follow_what_is_dumped)
{
    for (const std::vector<std::string> &words : {std::vector<std::string>{"dump", "15", "--domain", "a"}, {"dump", "--domain", "a", "15"}}) {
        const soft_options o = parsed(words);
        EXPECT_EQ(15, o.pid);
        ASSERT_EQ(1u, o.settings.size());
        EXPECT_EQ("a", o.settings[0].second);
    }
    EXPECT_EQ((std::vector<std::string>{"ls", "--domain", "a"}), parsed({"run", "ls", "--domain", "a"}).command) << "those are the command's";
}

/// A folder like a domain's.
class soft_folder : public testing::Test {
protected:
    std::string folder = testing::TempDir() + "/soft." + std::to_string(getpid());
    soft_domain domain{"test", folder, {}};

    void SetUp() override
    {
        fs::remove_all(folder);
        ASSERT_EQ(0, mkdir(folder.c_str(), 0700));
    }
    void TearDown() override { fs::remove_all(folder); }
    void file(const std::string &name, const std::string &content = "") { std::ofstream(folder + "/" + name) << content; }
    void link(const std::string &name, const std::string &target) { ASSERT_EQ(0, symlink(target.c_str(), (folder + "/" + name).c_str())); }
    /// What `status --all` says of domains with these names below the folder; the last one has kept a failure.
    std::string status_of_all(const std::vector<std::string> &names, const std::vector<std::string> &not_private, std::string *said_p)
    {
        for (const std::string &name : names) {
            EXPECT_EQ(0, mkdir((folder + "/softefa-" + name).c_str(), 0700));
            file("softefa-" + name + "/domain");
        }
        file("softefa-" + names.back() + "/failure.4000000");
        for (const std::string &name : not_private) {
            EXPECT_EQ(0, chmod((folder + "/softefa-" + name).c_str(), 0755));
        }
        const char       *runtime = getenv("XDG_RUNTIME_DIR");
        const std::string before  = runtime != nullptr ? runtime : "";
        setenv("XDG_RUNTIME_DIR", folder.c_str(), 1);
        testing::internal::CaptureStdout();
        testing::internal::CaptureStderr();
        (void)soft_status(parsed({"status", "--all"}));
        *said_p = testing::internal::GetCapturedStderr();
        runtime != nullptr ? setenv("XDG_RUNTIME_DIR", before.c_str(), 1) : unsetenv("XDG_RUNTIME_DIR");
        return testing::internal::GetCapturedStdout();
    }
    bool there(const std::string &name) { return fs::symlink_status(folder + "/" + name).type() != fs::file_type::not_found; }
    std::string space()
    {
        struct stat st;
        char        text[32];
        EXPECT_EQ(0, stat("/proc/self/ns/pid", &st));
        snprintf(text, sizeof(text), "%lx", static_cast<unsigned long>(st.st_ino));
        return text;
    }
};

TEST_F(soft_folder, links_that_name_anything_else_are_not_opened)
{
    file("fifo.guard");
    ASSERT_EQ(0, mkfifo((folder + "/fifo").c_str(), 0600));
    link("0000000000000001." + space() + ".proc", "/etc/passwd");
    link("0000000000000002." + space() + ".proc", "/proc/self/fd/0");
    link("0000000000000003." + space() + ".proc", "/proc/" + std::to_string(getpid()) + "/fd/0 x");
    link("0000000000000004." + space() + ".proc", "/proc/" + std::to_string(getpid()) + "/fd/99999");
    link("0000000000000005." + space() + ".proc", folder + "/fifo");
    link("nonsense.proc", "/proc/1/fd/1");
    link("0000000000000006.1.proc", "/proc/" + std::to_string(getpid()) + "/fd/0"); // another PID namespace
    const int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    link("0000000000000007." + space() + ".proc", "/proc/" + std::to_string(getpid()) + "/fd/" + std::to_string(null));
    std::string error;
    ASSERT_TRUE(domain_read(&domain, &error)) << error;
    EXPECT_EQ(8u, domain.processes.size());
    for (const auto &p : domain.processes) {
        EXPECT_EQ(nullptr, p.page);
        EXPECT_EQ(p.instance == 6 ? process_state::elsewhere : process_state::dead, p.state) << p.link;
    }
    close(null);
    (void)status_text(domain, nullptr, 0);
    EXPECT_NE(std::string::npos, status_json(domain).find("\"elsewhere\""));
}

/// A page as this process would publish it.
class soft_page : public soft_folder {
protected:
    int                 fd    = -1;
    std::size_t         size  = observe::published_size(64);
    std::string         name;
    observe::published *page = nullptr;

    void SetUp() override
    {
        soft_folder::SetUp();
        fd   = memfd_create(observe::memfd_name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
        page = new observe::published();
        memset(static_cast<void *>(page), 0, sizeof(*page));
        page->magic        = observe::magic;
        page->version      = observe::version;
        page->size         = static_cast<std::uint32_t>(size);
        page->instance     = 0x77;
        page->pid          = getpid();
        page->record_count = 64;
        page->device_count = 1;
        page->record_mode  = 2;
        page->start_real_ns = 1'795'353'255'000'678'900u;
        strcpy(page->program, "a \"test\"\n");
        strcpy(page->profile, "efa2");
        page->counters[0].tx_messages = 5;
        page->counters[0].drop_qkey   = 3;
        page->qps[2]                  = {77, 1, 0, 0, 3, 0, 10, 4, 20, 6};
        page->links[1]                = {0x88, 0, 0, 1, 2, 3};
        page->record_head.store(70);
        for (unsigned i = 0; i < 64; ++i) {
            page->records[i].kind = static_cast<std::uint16_t>(i % 40);
            page->records[i].a    = i;
        }
        write_out();
        name = "0000000000000077." + space() + ".proc";
        link(name, "/proc/" + std::to_string(getpid()) + "/fd/" + std::to_string(fd));
    }
    void TearDown() override
    {
        delete page;
        close(fd);
        soft_folder::TearDown();
    }
    void write_out() { ASSERT_EQ(static_cast<ssize_t>(size), pwrite(fd, page, size, 0)); }
    soft_process &look()
    {
        std::string error;
        EXPECT_TRUE(domain_read(&domain, &error)) << error;
        EXPECT_EQ(1u, domain.processes.size());
        return domain.processes.at(0);
    }
};

TEST_F(soft_page, a_good_page_is_shown)
{
    const soft_process &p = look();
    ASSERT_EQ(process_state::alive, p.state) << p.trouble;
    EXPECT_FALSE(p.torn);
    EXPECT_EQ(64u, p.records().size());
    EXPECT_EQ(6u, p.records().front().a) << "the oldest entry that is left";
    const std::string text = status_text(domain, &domain, 1.0), json = status_json(domain);
    EXPECT_NE(std::string::npos, text.find("QPN 77")) << text;
    EXPECT_NE(std::string::npos, text.find("drop_qkey")) << text;
    EXPECT_EQ(std::string::npos, text.find("drop_rkey")) << "zeros are left out";
    EXPECT_NE(std::string::npos, json.find("\"program\":\"a \\\"test\\\"?\"")) << json;
    EXPECT_NE(std::string::npos, json.find("\"qpn\":77"));
    EXPECT_EQ(std::string::npos, json.find('\n'));
    EXPECT_NE(std::string::npos, dump_text(p).find("record out"));
    EXPECT_NE(std::string::npos, dump_text(p).find("its start, 2026-11-22T13:14:15.000678Z\n")) << "dumps of two processes can be laid side by side";
}

TEST_F(soft_page, a_page_that_is_being_written_for_ever_is_shown_as_such)
{
    page->sequence.store(7);
    write_out();
    const soft_process &p = look();
    ASSERT_EQ(process_state::alive, p.state);
    EXPECT_TRUE(p.torn);
}

TEST_F(soft_page, scribbled_pages_are_refused_or_shown_but_never_followed)
{
    base::rng  random(11);
    const auto good = std::make_unique<unsigned char[]>(sizeof(*page));
    memcpy(good.get(), static_cast<void *>(page), sizeof(*page));
    unsigned alive = 0;
    for (int round = 0; round < 400; ++round) {
        memcpy(static_cast<void *>(page), good.get(), sizeof(*page));
        auto          *bytes = reinterpret_cast<unsigned char *>(page);
        const unsigned where = round % 2 == 0 ? 320 : static_cast<unsigned>(size); // the header, or anywhere
        for (unsigned i = 0; i < 1 + random.next() % 40; ++i) {
            bytes[random.next() % where] = static_cast<unsigned char>(random.next());
        }
        page->sequence.store(0); // or each look would take its whole patience
        write_out();
        const soft_process &p = look();
        if (p.page != nullptr) {
            ++alive;
            (void)status_text(domain, &domain, 1.0);
            (void)status_json(domain);
            (void)dump_text(p);
        }
    }
    EXPECT_GT(alive, 10u);
    EXPECT_LT(alive, 400u);
}

TEST_F(soft_page, a_page_of_another_size_or_owner_is_refused)
{
    ASSERT_EQ(0, ftruncate(fd, 4096));
    EXPECT_EQ(process_state::unreadable, look().state);
    ASSERT_EQ(0, ftruncate(fd, 0));
    EXPECT_EQ(process_state::unreadable, look().state);
    page->pid = 1;
    write_out();
    EXPECT_EQ(process_state::unreadable, look().state);
    page->pid          = getpid();
    page->record_count = 65536; // more than the file has
    write_out();
    EXPECT_EQ(process_state::unreadable, look().state);
    page->record_count = 48; // no power of two
    write_out();
    EXPECT_EQ(process_state::unreadable, look().state);
    EXPECT_FALSE(look().trouble.empty());
}

TEST_F(soft_page, clean_keeps_what_lives_and_takes_what_is_dead)
{
    file("domain", "SOFTEFA_PROFILE=efa2\n");
    file("qpn.0", "x");
    file("mine.txt", "of the user");
    link("0000000000000099." + space() + ".proc", "/proc/4194303/fd/7"); // no such process
    const int lock = open((folder + "/domain").c_str(), O_RDWR | O_CLOEXEC);
    ASSERT_EQ(0, flock(lock, LOCK_SH | LOCK_NB)); // a member
    std::vector<std::string> removed;
    std::string              report;
    ASSERT_TRUE(domain_clean(domain, true, &removed, &report)) << report;
    EXPECT_EQ(1u, removed.size());
    EXPECT_TRUE(there("0000000000000099." + space() + ".proc")) << "a dry run removes nothing";
    ASSERT_TRUE(domain_clean(domain, false, &removed, &report)) << report;
    EXPECT_EQ((std::vector<std::string>{"0000000000000099." + space() + ".proc"}), removed);
    EXPECT_TRUE(there(name) && there("domain") && there("qpn.0"));
    close(lock); // the last member is gone: everything of ours goes, nothing else
    ASSERT_TRUE(domain_clean(domain, false, &removed, &report)) << report;
    EXPECT_FALSE(there(name) || there("domain") || there("qpn.0"));
    EXPECT_TRUE(there("mine.txt"));
}

TEST_F(soft_folder, lock_says_whether_the_domain_is_lived_in)
{
    std::string error;
    const auto  state = [&](const std::string &of) { return domain_lock(of, &error).state(); };
    EXPECT_EQ(lock_state::nothing, state(folder + "/none"));
    EXPECT_EQ(lock_state::nothing, state(folder)) << "somebody else's";
    file("domain", "a list of mine");
    EXPECT_EQ(lock_state::nothing, state(folder)) << "somebody else's file";
    file("domain", "SOFTEFA_WHAT=they agreed upon");
    {
        const domain_lock ours(folder, &error);
        EXPECT_EQ(lock_state::taken, ours.state());
        EXPECT_EQ("SOFTEFA_WHAT=they agreed upon", ours.choice());
        EXPECT_EQ(lock_state::held, state(folder));
    }
    EXPECT_EQ(lock_state::taken, state(folder)) << "it was let go";
    chmod((folder + "/domain").c_str(), 0400);
    EXPECT_EQ(lock_state::taken, state(folder));
    chmod(folder.c_str(), 0755);
    EXPECT_EQ(lock_state::unusable, state(folder));
    EXPECT_NE(std::string::npos, error.find("mode 0700")) << error;
    chmod(folder.c_str(), 0700);
}

TEST_F(soft_folder, clean_leaves_a_file_that_only_has_the_name_of_the_lock)
{
    file("domain", "a list of mine");
    file("qpn.0", "x");
    std::vector<std::string> removed;
    std::string              report;
    ASSERT_TRUE(domain_clean(domain, false, &removed, &report)) << report;
    EXPECT_TRUE(removed.empty());
    EXPECT_TRUE(there("domain") && there("qpn.0"));
}

/// What status tells one to type must mean the domain that it speaks of.
TEST_F(soft_folder, hints_of_status_name_their_domain)
{
    std::string error;
    file("domain", "SOFTEFA_PROFILE=efa2\n");
    link("0000000000000099." + space() + ".proc", "/proc/4194303/fd/7"); // no such process
    ASSERT_TRUE(domain_read(&domain, &error)) << error;
    EXPECT_NE(std::string::npos, status_text(domain, nullptr, 0).find("'softefa clean --registry-dir " + folder + "'"));
    domain.name   = "other";
    domain.folder = "/tmp/softefa-" + std::to_string(geteuid()) + "-other";
    EXPECT_NE(std::string::npos, status_text(domain, nullptr, 0).find("'softefa clean --domain other'"));
}

TEST_F(soft_folder, run_says_who_is_in_the_way)
{
    softefa::settings wish;
    wish.domain       = "test";
    wish.registry_dir = folder;
    char text[2048];
    softefa::settings_signature(wish, text, sizeof(text));
    const std::string whole = text, without = whole.substr(0, whole.rfind('\n', whole.size() - 2) + 1);
    const auto        refusal = [&](const std::string &theirs) {
        file("domain", theirs);
        const int lock = open((folder + "/domain").c_str(), O_RDWR | O_CLOEXEC);
        EXPECT_EQ(0, flock(lock, LOCK_SH | LOCK_NB)); // a member
        const std::string answer = domain_refusal(wish);
        close(lock);
        return answer;
    };
    EXPECT_EQ("", refusal(whole));
    EXPECT_NE(std::string::npos, refusal("SOFTEFA_PROFILE=efa0\n").find("SOFTEFA_PROFILE=efa2 refused"));
    for (const std::string &other : {without, without + "protocol=1\n", whole + "more\n", "SOFTEFA_UNHEARD_OF=1\n" + whole}) {
        EXPECT_NE(std::string::npos, refusal(other).find("made by another version")) << other;
    }
}

TEST_F(soft_folder, forked_child_that_keeps_the_domain_is_named)
{
    file("domain", "SOFTEFA_PROFILE=efa2\n");
    int       ends[2];
    const int lock = open((folder + "/domain").c_str(), O_RDWR | O_CLOEXEC);
    ASSERT_EQ(0, flock(lock, LOCK_SH | LOCK_NB));
    ASSERT_EQ(0, pipe2(ends, O_CLOEXEC));
    const pid_t child = fork();
    if (child == 0) {
        close(ends[1]);
        char      byte;
        _exit(read(ends[0], &byte, 1) == 0 ? 0 : 1); // until the test lets go
    }
    ASSERT_GT(child, 0);
    close(lock);
    std::vector<std::string> removed;
    std::string              report, error;
    ASSERT_TRUE(domain_read(&domain, &error)) << error;
    const std::string name = std::to_string(child) + " ";
    EXPECT_NE(std::string::npos, status_text(domain, nullptr, 0).find("process " + name)) << status_text(domain, nullptr, 0);
    ASSERT_TRUE(domain_clean(domain, false, &removed, &report)) << report;
    EXPECT_NE(std::string::npos, report.find("(" + name)) << report;
    EXPECT_TRUE(there("domain"));
    close(ends[0]);
    close(ends[1]);
    int status = -1;
    ASSERT_EQ(child, waitpid(child, &status, 0));
    EXPECT_EQ(0, status);
    EXPECT_EQ(std::string::npos, status_text(domain, nullptr, 0).find("process " + name));
    ASSERT_TRUE(domain_clean(domain, false, &removed, &report)) << report;
    EXPECT_NE(std::string::npos, report.find("nobody lives in it"));
    EXPECT_FALSE(there("domain"));
}

TEST_F(soft_folder, status_of_all_counts_empty_domains_in_one_line)
{
    std::string       said;
    const std::string text = status_of_all({"left-one", "left-two", "failed"}, {}, &said);
    EXPECT_EQ(std::string::npos, text.find("left-")) << text;
    EXPECT_NE(std::string::npos, text.find("domain failed")) << "what was kept is worth a look: " << text;
    EXPECT_NE(std::string::npos, text.find("of this user without a process; 'softefa clean --all' removes")) << text;
}

/// A backup, a folder of something else: anything may have such a name.
TEST_F(soft_folder, status_of_all_goes_on_behind_a_folder_that_is_not_private)
{
    std::string       said;
    const std::string text = status_of_all({"a-open", "b-open", "failed"}, {"a-open", "b-open"}, &said);
    EXPECT_NE(std::string::npos, text.find("domain failed")) << text;
    EXPECT_NE(std::string::npos, said.find("softefa-a-open: must belong to uid")) << said;
    EXPECT_NE(std::string::npos, said.find("softefa-b-open: must belong to uid")) << said;
}

TEST_F(soft_folder, clean_takes_whole_names_only)
{
    file("domain", "SOFTEFA_PROFILE=efa2\n");
    for (const char *folder_of_user : {"tree-notes", "tree-1-xyz", "building-plans", "building-link-7", "qpn.7"}) { // the last two are no folders of ours
        ASSERT_EQ(0, mkdir((folder + "/" + folder_of_user).c_str(), 0700));
    }
    for (const char *file_of_user : {"failure.txt", "failure.", "failure.17.", "failure.17.F", "qpn.old", "tree-1-f", "x.proc", "0000000000000001.2.proc", "0000000000000001.sock", "softefa-sysfs"}) {
        file(file_of_user);
    }
    for (const char *ours : {"tree-17-18c0ffee", "building-17-tree-17-18c0ffee"}) {
        ASSERT_EQ(0, mkdir((folder + "/" + ours).c_str(), 0700));
    }
    link("building-link-17", "tree-17-18c0ffee");
    link("0000000000000001.f0000001.proc", "/proc/4194303/fd/7");
    file("failure.17");
    file("failure.17.f0000001");
    std::vector<std::string> removed;
    std::string              report;
    ASSERT_TRUE(domain_clean(domain, false, &removed, &report)) << report;
    std::sort(removed.begin(), removed.end());
    EXPECT_EQ((std::vector<std::string>{"0000000000000001.f0000001.proc", "building-17-tree-17-18c0ffee", "building-link-17", "domain", "failure.17", "failure.17.f0000001",
                                        "tree-17-18c0ffee"}),
              removed);
    EXPECT_EQ(15, std::distance(fs::directory_iterator(folder), fs::directory_iterator())) << "what is not ours stays";
}

TEST_F(soft_folder, clean_leaves_a_folder_alone_that_was_never_a_domain)
{
    file("qpn.0");
    ASSERT_EQ(0, mkdir((folder + "/tree-1").c_str(), 0700));
    std::vector<std::string> removed;
    std::string              report;
    ASSERT_TRUE(domain_clean(domain, false, &removed, &report)) << report;
    EXPECT_TRUE(removed.empty());
    EXPECT_TRUE(there("qpn.0") && there("tree-1"));
    ASSERT_EQ(0, chmod(folder.c_str(), 0755));
    EXPECT_FALSE(domain_clean(domain, false, &removed, &report)) << "others can enter it";
    EXPECT_NE(std::string::npos, report.find("0700"));
}

} // namespace
} // namespace tools
