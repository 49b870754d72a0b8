/* Every kind of rudeness exposes a bug that stays hidden without it, and does no harm to a program that is right (canary.cc, canary_short.cc).
 * Every setting has such a canary, or it is listed below why it needs none.
 */
#include "softefa/settings_table.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <string>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

namespace {

struct canary {
    const char *name;
    const char *bug;
    const char *right; ///< the program without it, with the same transport options
    std::vector<const char *> knobs;
    bool by_chance = false; ///< a race shows the bug without the knob too, now and then
    bool counted   = false; ///< the program says by itself that the bug showed, however long it takes
    const char *past = nullptr; ///< value of the last knob that aims past the program: the others then do nothing
};

void PrintTo(const canary &c, std::ostream *to) { *to << c.name; }

/// Exit code of the program, -1 where a signal ended it (the watchdog's, after a hang).
int run(const char *bug, const std::vector<const char *> &knobs, const char *seconds)
{
    const pid_t pid = fork();
    if (pid == 0) {
        setenv("SOFTEFA_REORDER", "0", 1);
        setenv("CANARY_SECONDS", seconds, 1);
        for (std::size_t i = 0; i + 1 < knobs.size(); i += 2)
            setenv(knobs[i], knobs[i + 1], 1);
        execl("/proc/self/exe", "gtest_softefa_verbs", "--canary", bug, static_cast<char *>(nullptr));
        _exit(127);
    }
    int state = 0;
    while (waitpid(pid, &state, 0) == -1 && errno == EINTR) {
    }
    return WIFEXITED(state) ? WEXITSTATUS(state) : -1;
}

class canaries : public testing::TestWithParam<canary> {};

/// With the knob the bug shows; one that is a race is given several seeds to show in.
bool caught(const canary &c)
{
    for (const char *seed : {"1", "2", "3", "4", "5", "6", "7", "8"}) {
        std::vector<const char *> knobs = c.knobs;
        knobs.insert(knobs.end(), {"SOFTEFA_SEED", seed});
        if (run(c.bug, knobs, "5") != 0) // it may hang
            return true;
        if (!c.by_chance)
            break;
    }
    return false;
}

TEST_P(canaries, bug_is_hidden_without_the_knob_and_caught_with_it)
{
    const canary &c = GetParam();
    bool          hidden = c.by_chance;
    for (int tries = 0; tries < 8 && !hidden; ++tries) // a processor that others use for long looks like a slow or silent peer, to a bug that takes it so
        hidden = run(c.bug, {}, "100") == 0;
    EXPECT_TRUE(hidden) << "the planted bug must not show by itself";
    if (c.past != nullptr) {
        std::vector<const char *> elsewhere = c.knobs;
        elsewhere.back() = c.past;
        EXPECT_EQ(run(c.bug, elsewhere, "100"), 0) << "the knob does not aim";
    }
    if (c.counted)
        EXPECT_EQ(run(c.bug, c.knobs, "100"), 10) << "decoration: this knob catches too little";
    else
        EXPECT_TRUE(caught(c)) << "decoration: this knob catches nothing";
    EXPECT_EQ(run(c.right, c.knobs, "100"), 0) << "a program that is right survives it";
}

const canary all[] = {
    {"reorder_messages", "messages_in_order", "none", {"SOFTEFA_REORDER", "50"}},
    {"reorder_completions", "completions_in_order", "none", {"SOFTEFA_REORDER", "50"}},
    {"reorder_queues", "answer_after_completion", "none", {"SOFTEFA_REORDER", "50"}, true},
    // A post that finds the engine held by the helper thread is fetched by that one, later: some are spoiled without the knob, too.
    {"delay", "reuse_before_completion", "none", {"SOFTEFA_DELAY", "2ms", "SOFTEFA_DELAY_RATE", "60"}, false, true},
    {"delay_overtakes", "messages_in_order", "none", {"SOFTEFA_DELAY", "2ms", "SOFTEFA_DELAY_RATE", "20"}},
    {"rnr_every", "rnr_is_success", "none_without_rnr_retry", {"SOFTEFA_RNR_EVERY", "7"}},
    {"rnr_for", "rnr_is_success", "none_without_rnr_retry", {"SOFTEFA_RNR_FOR", "20ms"}},
    {"fail_at", "status_is_ignored", "none", {"SOFTEFA_FAIL_STATUS", "13", "SOFTEFA_FAIL_AT", "50"}},
    {"fail_rate", "status_is_ignored", "none", {"SOFTEFA_FAIL_STATUS", "8", "SOFTEFA_FAIL_RATE", "2"}},
    {"rude_devices", "status_is_ignored", "none", {"SOFTEFA_FAIL_STATUS", "13", "SOFTEFA_FAIL_AT", "50", "SOFTEFA_RUDE_DEVICES", "1"}, false, false, "0xfffffffe"},
    {"rude_peers", "status_is_ignored", "none", {"SOFTEFA_FAIL_STATUS", "13", "SOFTEFA_FAIL_AT", "50", "SOFTEFA_RUDE_PEERS", "100"}, false, false, "0"},
    {"stop", "silence_is_the_end", "none", {"CANARY_SENDER_STOP_AT", "50"}},
    {"kill", "waits_for_the_dead", "none", {"CANARY_SENDER_KILL_AT", "50"}},
    {"latency", "short_timeout", "none_slow", {"SOFTEFA_LATENCY", "800ms"}},
    {"bandwidth", "short_timeout", "none_slow", {"SOFTEFA_BANDWIDTH", "1k"}},
    {"rude_qpn", "one_failure_is_everyones", "failures_apart", {"SOFTEFA_FAIL_STATUS", "13", "SOFTEFA_FAIL_RATE", "100", "CANARY_SENDER_RUDE_QPN", "first"}, false, true, "none"},
    {"unresponsive_timeout", "pause_is_waited_out", "pause_has_an_end", {"CANARY_PAUSE", "60", "SOFTEFA_UNRESPONSIVE_TIMEOUT", "100ms"}, false, true},
    {"cq_overrun", "queue_for_a_batch", "queue_for_all", {"SOFTEFA_CQ_OVERRUN", "error"}, false, true},
    {"reuse_qpn", "number_is_a_life", "qkey_is_a_life", {"SOFTEFA_REUSE_QPN", "1"}, false, true},
};

INSTANTIATE_TEST_SUITE_P(each, canaries, testing::ValuesIn(all), [](const auto &p) { return p.param.name; });

/// Settings without a canary, and why: none of them is trouble for a program that is right by the book of an EFA.
const struct {
    const char              *why;
    std::vector<const char *> names;
} quiet[] = {
    {"what the device is, not what goes wrong with it", {"PROFILE", "DEVICES", "VENDOR_PART_ID", "DEVICE_CAPS"}},
    {"who is in the network", {"DOMAIN", "REGISTRY_DIR"}},
    {"narrows what another setting does", {"SEED", "DELAY_MIN"}},
    {"is for who looks on", {"LOG_LEVEL", "RECORD", "RECORD_COUNT"}},
    {"lets a program do more", {"DMABUF", "DIRECT"}},
    {"the same for the program, at another speed", {"RNR_TIMER", "DIRECT_NAP", "SINGLE_COPY"}},
    {"a limit: the call that goes beyond it says so", {"MAX_QP", "MAX_CQ", "MAX_CQE", "MAX_MR", "MAX_PD", "MAX_AH", "MAX_SQ_WR", "MAX_RQ_WR", "MAX_SQ_SGE", "MAX_RQ_SGE",
                                                       "MAX_RDMA_SGE", "INLINE_SIZE", "INLINE_SIZE_EX", "MAX_LLQ_SIZE", "MTU", "MAX_RDMA_SIZE"}},
};

TEST(all_settings, each_has_a_canary_or_a_reason)
{
    for (const softefa::setting &s : softefa::settings_table()) {
        const std::string name   = s.name;
        const auto        is_set = [&](const canary &c) {
            return std::any_of(c.knobs.begin(), c.knobs.end(), [&](const std::string &knob) { return knob == "SOFTEFA_" + name || knob == "CANARY_SENDER_" + name; });
        };
        const auto is_quiet = [&](const auto &group) { return std::find(group.names.begin(), group.names.end(), name) != group.names.end(); };
        const auto ways     = (std::any_of(std::begin(all), std::end(all), is_set) ? 1 : 0) + std::count_if(std::begin(quiet), std::end(quiet), is_quiet);
        EXPECT_EQ(1, ways) << name << ": a row in one of the two tables, please";
    }
}

} // namespace
