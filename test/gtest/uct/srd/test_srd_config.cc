// The tables of settings: both share the prefix UCX_SRD_, so their names must be disjoint; every default must be readable.
#include "uct/srd/srd_config.h"
#include "uct/srd/srd_md.h"

#include <cctype>
#include <gtest/gtest.h>
#include <set>
#include <string>

namespace {

/// Names of a table and of the tables it includes.
void collect(const ucs_config_field_t *table, std::multiset<std::string> *names)
{
    for (; table->name != nullptr; ++table) {
        if (table->name[0] == '\0') {
            collect(static_cast<const ucs_config_field_t *>(table->parser.arg), names);
        } else {
            names->insert(table->name);
        }
    }
}

} // namespace

TEST(srd_config, names_are_disjoint_between_domain_and_interface)
{
    std::multiset<std::string> names;
    collect(uct_srd_md_config_table, &names);
    const std::size_t of_domain = names.size();
    collect(uct_srd_iface_config_table, &names);
    EXPECT_GT(of_domain, 5u);
    EXPECT_GT(names.size(), of_domain + 5);
    for (const std::string &name : names) {
        EXPECT_EQ(1u, names.count(name)) << "UCX_SRD_" << name;
    }
}

TEST(srd_config, rows_have_upper_case_names_and_help)
{
    for (const ucs_config_field_t *table : {uct_srd_md_config_table, uct_srd_iface_config_table}) {
        for (const ucs_config_field_t *row = table; row->name != nullptr; ++row) {
            for (const char *c = row->name; *c != '\0'; ++c) {
                EXPECT_TRUE(std::isupper(*c) || std::isdigit(*c) || *c == '_') << row->name;
            }
            if (row->name[0] != '\0') {
                ASSERT_NE(nullptr, row->doc) << row->name;
                EXPECT_GT(std::string(row->doc).size(), 20u) << row->name;
            }
        }
    }
}

TEST(srd_config, defaults_are_read_into_their_fields)
{
    uct_srd_iface_config_t of_iface = {};
    ASSERT_EQ(UCS_OK, ucs_config_parser_set_default_values(&of_iface, uct_srd_iface_config_table));
    EXPECT_EQ(240u, of_iface.tx_queue_len);
    EXPECT_EQ(128u, of_iface.rx_queue_len);
    EXPECT_EQ(256u, of_iface.short_size);
    EXPECT_EQ(0, of_iface.stats);
    EXPECT_DOUBLE_EQ(2.0, of_iface.keepalive_interval);
    EXPECT_DOUBLE_EQ(0.1, of_iface.close_timeout);
    ucs_config_parser_release_opts(&of_iface, uct_srd_iface_config_table);

    uct_srd_md_config_t of_md = {};
    ASSERT_EQ(UCS_OK, ucs_config_parser_set_default_values(&of_md, uct_srd_md_config_table));
    EXPECT_EQ(UCS_TRY, of_md.reg_cache);
    EXPECT_EQ(512u << 20, of_md.rcache_max_unreleased);
    EXPECT_STREQ("", of_md.require_dir);
    ucs_config_parser_release_opts(&of_md, uct_srd_md_config_table);
}
