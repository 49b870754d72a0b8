// Lane classes: UCP's criteria, and the words for what is missing. LAN-1, LAN-2.
#include "uct/srd/srd_lanes.h"

#include <cstring>
#include <gtest/gtest.h>
#include <string>

using namespace srd;

namespace {

const lane_class &lane(const char *name)
{
    for (const lane_class &candidate : lane_classes) {
        if (std::strcmp(candidate.name, name) == 0) {
            return candidate;
        }
    }
    ADD_FAILURE() << name;
    return lane_classes[0];
}

std::string missing(const lane_class &l, const lane_facts &facts)
{
    char text[128];
    lane_missing(l, facts, text, sizeof(text));
    return text;
}

constexpr std::uint64_t everything = ~std::uint64_t{0};

} // namespace

TEST(srd_lanes, usable_with_everything_is_every_class)
{
    const lane_facts facts = {everything, everything, everything, true, true};
    for (const lane_class &l : lane_classes) {
        EXPECT_TRUE(lane_usable(l, facts)) << l.name;
        EXPECT_EQ("", missing(l, facts)) << l.name;
        EXPECT_EQ(nullptr, lane_advice(l, facts)) << l.name;
    }
}

TEST(srd_lanes, usable_with_nothing_is_no_class_and_each_says_what_lacks)
{
    const lane_facts facts = {};
    for (const lane_class &l : lane_classes) {
        EXPECT_FALSE(lane_usable(l, facts)) << l.name;
        EXPECT_NE("", missing(l, facts)) << l.name;
        EXPECT_NE('\0', l.without[0]) << l.name;
    }
}

TEST(srd_lanes, usable_needs_each_flag_of_rma)
{
    const lane_class &rma = lane("RMA");
    for (std::uint64_t flag : {UCT_IFACE_FLAG_PUT_SHORT, UCT_IFACE_FLAG_PUT_BCOPY, UCT_IFACE_FLAG_GET_BCOPY, UCT_IFACE_FLAG_PENDING}) {
        const lane_facts facts = {everything & ~flag, 0, UCT_MD_FLAG_REG, true, true};
        EXPECT_FALSE(lane_usable(rma, facts));
        EXPECT_EQ(std::string::npos, missing(rma, facts).find(',')) << missing(rma, facts);
    }
    EXPECT_TRUE(lane_usable(rma, {rma.all_of, 0, UCT_MD_FLAG_REG, true, true}));
    EXPECT_FALSE(lane_usable(rma, {rma.all_of, 0, 0, true, true}));
}

TEST(srd_lanes, usable_bulk_rma_takes_read_or_write_and_invalidation_only_under_error_handling)
{
    const std::uint64_t pending = UCT_IFACE_FLAG_PENDING;
    for (std::uint64_t one : {UCT_IFACE_FLAG_GET_ZCOPY, UCT_IFACE_FLAG_PUT_ZCOPY}) {
        const lane_facts facts = {pending | one, 0, UCT_MD_FLAG_REG, true, true};
        EXPECT_TRUE(lane_usable(lane("bulk RMA"), facts));
        EXPECT_FALSE(lane_usable(lane("bulk RMA, err"), facts));
        EXPECT_EQ("invalidation of keys", missing(lane("bulk RMA, err"), facts));
        EXPECT_TRUE(lane_usable(lane("bulk RMA, err"), {facts.iface_flags, 0, UCT_MD_FLAG_REG | lane_md_invalidate, true, true}));
    }
    EXPECT_EQ("get_zcopy or put_zcopy", missing(lane("bulk RMA"), {pending, 0, UCT_MD_FLAG_REG, true, true}));
}

TEST(srd_lanes, usable_wakeup_takes_events_of_both_directions)
{
    const lane_class &wakeup = lane("wakeup");
    EXPECT_TRUE(lane_usable(wakeup, {0, UCT_IFACE_FLAG_EVENT_SEND_COMP | UCT_IFACE_FLAG_EVENT_RECV, 0, false, false}));
    EXPECT_FALSE(lane_usable(wakeup, {0, UCT_IFACE_FLAG_EVENT_SEND_COMP, 0, false, false}));
    EXPECT_FALSE(lane_usable(wakeup, {0, UCT_IFACE_FLAG_EVENT_RECV, 0, false, false}));
}

TEST(srd_lanes, advice_names_the_rdma_that_the_device_lacks)
{
    const lane_facts facts = {};
    EXPECT_NE(nullptr, std::strstr(lane_advice(lane("RMA"), facts), "RDMA write"));
    EXPECT_NE(nullptr, std::strstr(lane_advice(lane("bulk RMA"), facts), "RDMA read"));
    EXPECT_EQ(nullptr, lane_advice(lane("RMA"), {0, 0, 0, true, true}));
    EXPECT_EQ(nullptr, lane_advice(lane("messages"), facts));
}

TEST(srd_lanes, summary_names_every_class_once_and_respects_its_buffer)
{
    const lane_facts facts = {};
    char whole[1024];
    const std::size_t size = lane_summary(facts, whole, sizeof(whole));
    ASSERT_LT(size, sizeof(whole));
    EXPECT_EQ(size, std::strlen(whole));
    for (const lane_class &l : lane_classes) {
        EXPECT_NE(nullptr, std::strstr(whole, (std::string(l.name) + " no (missing: ").c_str())) << whole;
    }
    char part[40];
    std::memset(part, 'x', sizeof(part));
    EXPECT_EQ(size, lane_summary(facts, part, 32));
    EXPECT_EQ(31u, std::strlen(part));
    EXPECT_EQ('x', part[32]);
}
