/* The table of device status codes: see srd_error.h. */
#include "uct/srd/srd_error.h"

namespace srd {
namespace {

constexpr error_meaning unknown_code = {fault::peer, UCS_ERR_IO_ERROR, "unknown device status",
                                        "a newer device or driver than this transport knows"};

// A peer that is gone is UCS_ERR_ENDPOINT_TIMEOUT whatever the device's reason: it is the status that UCP gives to every
// later operation on the endpoint, and its tests compare the two. The reason is in the message.
error_meaning of_device_status(std::uint32_t code) noexcept
{
    switch (code) {
    case 1:
        // Never UCS_ERR_CANCELED: UCX asserts that an endpoint's failure is not that.
        return {fault::interface_, UCS_ERR_IO_ERROR, "flushed", "our queue pair is in error or was closed"};
    case 2:
        return {fault::peer, UCS_ERR_IO_ERROR, "queue pair internal error", "a device or driver fault"};
    case 3:
        return {fault::operation, UCS_ERR_UNSUPPORTED, "operation not supported by the queue pair", "a transport fault"};
    case 4:
        return {fault::peer, UCS_ERR_IO_ERROR, "invalid address handle", "the address handle was destroyed"};
    case 5:
        return {fault::operation, UCS_ERR_IO_ERROR, "invalid local key or range",
                "a buffer was released or deregistered before its operation completed"};
    case 6:
        return {fault::operation, UCS_ERR_INVALID_PARAM, "message too long", "a transport fault"};
    case 7:
        return {fault::operation, UCS_ERR_IO_ERROR, "bad remote address or key",
                "the remote memory was deregistered, or the range is wrong"};
    case 8:
        return {fault::peer, UCS_ERR_ENDPOINT_TIMEOUT, "aborted by the peer", "the peer's queue pair was reset"};
    case 9:
        return {fault::peer, UCS_ERR_ENDPOINT_TIMEOUT, "no such queue pair", "the peer process ended or closed its interface"};
    case 10:
        return {fault::not_ready, UCS_ERR_NO_RESOURCE, "receiver not ready", "the peer is busy and posts no receives"};
    case 11:
        return {fault::peer, UCS_ERR_IO_ERROR, "receive buffer too short", "the peer's device has a smaller message size"};
    case 12:
        return {fault::peer, UCS_ERR_IO_ERROR, "bad response", "a device or network fault"};
    case 13:
        return {fault::peer, UCS_ERR_ENDPOINT_TIMEOUT, "peer unresponsive", "the peer's host went down or the network is cut"};
    case 14:
        return {fault::peer, UCS_ERR_ENDPOINT_TIMEOUT, "peer does not know us", "the peer forgot our address handle"};
    case 15:
        return {fault::peer, UCS_ERR_ENDPOINT_TIMEOUT, "unreachable",
                "the peer's host is down, or a security group forbids the traffic"};
    case 18:
        return {fault::peer, UCS_ERR_UNSUPPORTED, "feature mismatch", "the peer's device lacks a feature"};
    default:
        return unknown_code;
    }
}

error_meaning of_wc_status(enum ibv_wc_status status) noexcept
{
    switch (status) {
    case IBV_WC_WR_FLUSH_ERR:
        return of_device_status(1);
    case IBV_WC_LOC_PROT_ERR:
        return of_device_status(5);
    case IBV_WC_LOC_LEN_ERR:
        return of_device_status(6);
    case IBV_WC_REM_ABORT_ERR:
        return of_device_status(8);
    case IBV_WC_REM_INV_RD_REQ_ERR:
        return of_device_status(9);
    case IBV_WC_RNR_RETRY_EXC_ERR:
        return of_device_status(10);
    case IBV_WC_REM_INV_REQ_ERR:
        return of_device_status(11);
    case IBV_WC_BAD_RESP_ERR:
        return of_device_status(12);
    case IBV_WC_RESP_TIMEOUT_ERR:
        return of_device_status(13);
    default:
        return unknown_code;
    }
}

} // namespace

error_meaning error_of_completion(enum ibv_wc_status wc_status, std::uint32_t device_status) noexcept
{
    if (wc_status == IBV_WC_SUCCESS) {
        return {fault::none, UCS_OK, "success", ""};
    }
    return device_status != 0 ? of_device_status(device_status) : of_wc_status(wc_status);
}

} // namespace srd
