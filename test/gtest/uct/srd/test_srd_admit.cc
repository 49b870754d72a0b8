// The load-time decision: which UCX is accepted, what a refusal says, and what the override may and may not do.
#include "uct/srd/srd_component.h"

extern "C" {
#include <ucs/async/async_fwd.h>
#include <ucs/config/global_opts.h>
}

#include <gtest/gtest.h>

#include <cstring>
#include <string>

namespace {

srd::ucx_facts facts_built_for(bool with_libucp)
{
    srd::ucx_facts facts   = {};
    facts.iface_size       = sizeof(uct_iface_t);
    facts.ep_size          = sizeof(uct_ep_t);
    facts.base_iface_size  = sizeof(uct_base_iface_t);
    facts.base_ep_size     = sizeof(uct_base_ep_t);
    facts.has_libucp       = with_libucp;
    facts.ucp_major        = UCT_VERNO_MAJOR;
    facts.ucp_minor        = UCT_VERNO_MINOR;
    facts.ucp_release      = 1;
    facts.has_own_symbol   = true;
    return facts;
}

std::string reason_of(const srd::ucx_facts &facts, srd::ucx_verdict expected)
{
    char reason[256] = "";
    EXPECT_EQ(expected, srd::ucx_facts_judge(facts, reason, sizeof(reason)));
    return reason;
}

} // namespace

TEST(srd_admit, judge_installed_ucx_is_the_one_built_for)
{
    EXPECT_EQ("", reason_of(srd::ucx_facts_of_process(), srd::ucx_verdict::same));
}

TEST(srd_admit, judge_version_of_libucp_decides)
{
    EXPECT_EQ("", reason_of(facts_built_for(true), srd::ucx_verdict::same));

    srd::ucx_facts newer  = facts_built_for(true);
    newer.ucp_minor        = 99;
    newer.has_later_symbol = true;
    const std::string reason = reason_of(newer, srd::ucx_verdict::other);
    EXPECT_NE(std::string::npos, reason.find("built for UCX " + std::to_string(UCT_VERNO_MAJOR) + "." + std::to_string(UCT_VERNO_MINOR))) << reason;
    EXPECT_NE(std::string::npos, reason.find("UCX 1.99.1 is loaded")) << reason;
    EXPECT_EQ(std::string::npos, reason.find('\n'));

    srd::ucx_facts other_major = facts_built_for(true);
    other_major.ucp_major      = 2;
    reason_of(other_major, srd::ucx_verdict::other);
}

TEST(srd_admit, judge_without_libucp_symbols_decide)
{
    reason_of(facts_built_for(false), srd::ucx_verdict::same);

    srd::ucx_facts newer  = facts_built_for(false);
    newer.has_later_symbol = true;
    EXPECT_NE(std::string::npos, reason_of(newer, srd::ucx_verdict::other).find("newer"));

    srd::ucx_facts older   = facts_built_for(false);
    older.has_own_symbol = false;
    EXPECT_NE(std::string::npos, reason_of(older, srd::ucx_verdict::other).find("older"));
}

TEST(srd_admit, judge_other_size_is_unusable_even_in_the_right_version)
{
    for (size_t srd::ucx_facts::*size : {&srd::ucx_facts::iface_size, &srd::ucx_facts::ep_size,
                                         &srd::ucx_facts::base_iface_size, &srd::ucx_facts::base_ep_size}) {
        srd::ucx_facts with_stats = facts_built_for(true);
        with_stats.*size += 8;
        EXPECT_NE("", reason_of(with_stats, srd::ucx_verdict::unusable));
    }
}

TEST(srd_admit, admit_override_accepts_another_version_but_never_another_size)
{
    ucs_log_level_t saved = ucs_global_opts.log_component.log_level;
    ucs_global_opts.log_component.log_level = UCS_LOG_LEVEL_ERROR; // the refusals are expected here

    srd::ucx_facts newer = facts_built_for(true);
    newer.ucp_minor      = 99;
    EXPECT_EQ(UCS_ERR_UNSUPPORTED, srd::component_admit(newer, false, nullptr));
    EXPECT_EQ(UCS_ERR_UNSUPPORTED, srd::component_admit(newer, false, "y"));
    EXPECT_EQ(UCS_OK, srd::component_admit(newer, false, "n"));

    srd::ucx_facts with_stats = facts_built_for(true);
    with_stats.base_iface_size += 8;
    EXPECT_EQ(UCS_ERR_UNSUPPORTED, srd::component_admit(with_stats, false, "n"));

    ucs_global_opts.log_component.log_level = saved;
}

TEST(srd_admit, admit_steps_back_when_ucx_has_its_own_srd)
{
    EXPECT_EQ(UCS_OK, srd::component_admit(facts_built_for(true), false, nullptr));
    EXPECT_EQ(UCS_ERR_ALREADY_EXISTS, srd::component_admit(facts_built_for(true), true, nullptr));
}

TEST(srd_admit, other_srd_present_sees_components_and_transports)
{
    EXPECT_FALSE(srd::component_other_srd_present());

    static uct_component component;
    static uct_tl_t      tl;
    component = {};
    tl        = {};
    strcpy(component.name, "srd");
    ucs_list_head_init(&component.tl_list);
    uct_component_register(&component);
    EXPECT_TRUE(srd::component_other_srd_present());

    strcpy(component.name, "ib");
    EXPECT_FALSE(srd::component_other_srd_present());
    strcpy(tl.name, "srd");
    uct_tl_register(&component, &tl);
    EXPECT_TRUE(srd::component_other_srd_present());

    uct_tl_unregister(&tl);
    uct_abi_component_unregister(&component);
    EXPECT_FALSE(srd::component_other_srd_present());
}

namespace {

/// A component that has, or has not, a transport named srd, registered for the life of the object.
class registered_component {
public:
    registered_component(const char *name, bool with_srd) : with_srd_(with_srd)
    {
        strcpy(component_.name, name);
        strcpy(tl_.name, "srd");
        ucs_list_head_init(&component_.tl_list);
        uct_component_register(&component_);
        if (with_srd_) {
            uct_tl_register(&component_, &tl_);
        }
    }
    ~registered_component()
    {
        if (with_srd_) {
            uct_tl_unregister(&tl_);
        }
        uct_abi_component_unregister(&component_);
    }
    const char *yields_to() const { return srd::component_yields_to(&component_); }

private:
    uct_component component_ = {};
    uct_tl_t      tl_        = {};
    bool          with_srd_;
};

} // namespace

TEST(srd_admit, yields_to_ucx_own_srd_whoever_came_first)
{
    const registered_component before("self", false);
    const registered_component ours("srd", true);
    EXPECT_EQ(nullptr, ours.yields_to()); // other components do not matter
    {
        const registered_component ib("ib", true); // overtakes a plugin that was preloaded
        EXPECT_STREQ("ib", ours.yields_to());
    }
    EXPECT_EQ(nullptr, ours.yields_to());

    const registered_component late("srd", true);
    EXPECT_STREQ("srd", late.yields_to());
}

TEST(srd_admit, yields_of_two_copies_exactly_one)
{
    const registered_component first("srd", true), second("srd", true);
    EXPECT_EQ(nullptr, first.yields_to());
    EXPECT_STREQ("srd", second.yields_to());

    const registered_component ib("ib", true);
    EXPECT_STREQ("ib", first.yields_to());
    EXPECT_NE(nullptr, second.yields_to());
}

TEST(srd_admit, check_enabled_only_plain_negatives_turn_it_off)
{
    EXPECT_TRUE(srd::ucx_check_enabled(nullptr));
    EXPECT_TRUE(srd::ucx_check_enabled(""));
    EXPECT_TRUE(srd::ucx_check_enabled("y"));
    EXPECT_TRUE(srd::ucx_check_enabled("nonsense"));
    for (const char *off : {"n", "N", "no", "off", "0"}) {
        EXPECT_FALSE(srd::ucx_check_enabled(off)) << off;
    }
}
