/* Unit tests of srd_error.h: whose fault each device status is. What may be sent again is decided here, so it is spelt out. */
#include "uct/srd/srd_error.h"

#include <gtest/gtest.h>

using srd::error_of_completion;
using srd::fault;

TEST(srd_error, success_is_nobodys_fault)
{
    EXPECT_EQ(error_of_completion(IBV_WC_SUCCESS, 0).whose, fault::none);
}

TEST(srd_error, only_receiver_not_ready_may_be_sent_again)
{
    for (std::uint32_t code = 1; code < 256; ++code) {
        EXPECT_EQ(error_of_completion(IBV_WC_GENERAL_ERR, code).whose == fault::not_ready, code == 10) << code;
    }
}

TEST(srd_error, local_mistakes_fail_the_operation_alone)
{
    for (const std::uint32_t code : {3u, 5u, 6u, 7u}) {
        EXPECT_EQ(error_of_completion(IBV_WC_GENERAL_ERR, code).whose, fault::operation) << code;
    }
}

TEST(srd_error, a_peer_that_is_gone_is_an_endpoint_timeout)
{
    for (const std::uint32_t code : {8u, 9u, 13u, 14u, 15u}) {
        const auto e = error_of_completion(IBV_WC_GENERAL_ERR, code);
        EXPECT_EQ(e.whose, fault::peer) << code;
        EXPECT_EQ(e.status, UCS_ERR_ENDPOINT_TIMEOUT) << code;
        EXPECT_NE(e.cause[0], '\0');
    }
}

TEST(srd_error, no_failure_has_a_status_that_ucx_takes_for_a_cancellation)
{
    for (std::uint32_t code = 1; code < 256; ++code) {
        const auto e = error_of_completion(IBV_WC_GENERAL_ERR, code);
        EXPECT_NE(e.status, UCS_ERR_CANCELED) << code;
        EXPECT_NE(e.status, UCS_OK) << code;
    }
    EXPECT_EQ(error_of_completion(IBV_WC_WR_FLUSH_ERR, 0).status, UCS_ERR_IO_ERROR);
}

TEST(srd_error, an_unknown_code_fails_the_peer)
{
    const auto e = error_of_completion(IBV_WC_GENERAL_ERR, 77);
    EXPECT_EQ(e.whose, fault::peer);
    EXPECT_EQ(e.status, UCS_ERR_IO_ERROR);
}

TEST(srd_error, without_a_device_code_the_wc_status_decides)
{
    EXPECT_EQ(error_of_completion(IBV_WC_RNR_RETRY_EXC_ERR, 0).whose, fault::not_ready);
    EXPECT_EQ(error_of_completion(IBV_WC_LOC_PROT_ERR, 0).whose, fault::operation);
    EXPECT_EQ(error_of_completion(IBV_WC_WR_FLUSH_ERR, 0).whose, fault::interface_);
    EXPECT_EQ(error_of_completion(IBV_WC_RESP_TIMEOUT_ERR, 0).whose, fault::peer);
    EXPECT_EQ(error_of_completion(IBV_WC_GENERAL_ERR, 0).whose, fault::peer);
}
