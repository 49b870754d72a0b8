// Registration and its cache over a stand-in for ibv_reg_mr: what is registered, how often, with which rights, and when
// it is undone. Only domains of this file reach the stand-in; everything else goes to libibverbs.
#include "uct/srd/srd_reg.h"

extern "C" {
#include <ucs/async/async_fwd.h>
#include <ucs/config/global_opts.h>
}

#include <gtest/gtest.h>

#include <cerrno>
#include <climits>
#include <cstring>
#include <dlfcn.h>
#include <map>
#include <sys/mman.h>
#include <unistd.h>

namespace {

struct fake_device {
    struct ibv_pd pd = {};
    bool          knows_dmabuf  = true;
    uint64_t      dmabuf_offset = 0; ///< of the last such registration
    std::map<struct ibv_mr *, int> live; ///< registration -> access rights
    unsigned limit          = 1000;      ///< registrations that fit
    unsigned attempts       = 0;
    bool     read_only      = false;     ///< memory refuses to be registered for writing
    int      fail_with      = 0;         ///< errno of every attempt
    uint32_t next_key       = 0x1000;
    size_t   last_size      = 0;
    void    *last_address   = nullptr;
};

fake_device *device; ///< of the test that runs

struct ibv_mr *fake_reg_mr(struct ibv_pd *pd, void *address, size_t size, int access)
{
    ++device->attempts;
    if (device->fail_with != 0) {
        errno = device->fail_with;
        return nullptr;
    }
    if (device->live.size() >= device->limit) {
        errno = ENOMEM;
        return nullptr;
    }
    if (device->read_only && (access & (IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE))) {
        errno = EFAULT;
        return nullptr;
    }
    auto *mr   = new ibv_mr();
    mr->pd     = pd;
    mr->addr   = address;
    mr->length = size;
    mr->lkey   = device->next_key++;
    mr->rkey   = mr->lkey | 0x80000000u;
    device->live[mr]     = access;
    device->last_size    = size;
    device->last_address = address;
    return mr;
}

} // namespace

#undef ibv_reg_mr
extern "C" struct ibv_mr *ibv_reg_mr(struct ibv_pd *pd, void *address, size_t size, int access)
{
    if (device != nullptr && pd == &device->pd) {
        return fake_reg_mr(pd, address, size, access);
    }
    using real_t = struct ibv_mr *(*)(struct ibv_pd *, void *, size_t, int);
    return reinterpret_cast<real_t>(dlsym(RTLD_NEXT, "ibv_reg_mr"))(pd, address, size, access);
}

extern "C" struct ibv_mr *ibv_reg_mr_iova2(struct ibv_pd *pd, void *address, size_t size, uint64_t iova,
                                           unsigned access)
{
    if (device != nullptr && pd == &device->pd) {
        return fake_reg_mr(pd, address, size, static_cast<int>(access));
    }
    using real_t = struct ibv_mr *(*)(struct ibv_pd *, void *, size_t, uint64_t, unsigned);
    return reinterpret_cast<real_t>(dlsym(RTLD_NEXT, "ibv_reg_mr_iova2"))(pd, address, size, iova, access);
}

extern "C" struct ibv_mr *ibv_reg_dmabuf_mr(struct ibv_pd *pd, uint64_t offset, size_t size, uint64_t iova, int fd, int access)
{
    if (device != nullptr && pd == &device->pd) {
        if (fd < 0) {
            errno = device->knows_dmabuf ? EBADF : EOPNOTSUPP;
            return nullptr;
        }
        device->dmabuf_offset = offset;
        return fake_reg_mr(pd, reinterpret_cast<void *>(iova), size, access);
    }
    using real_t = struct ibv_mr *(*)(struct ibv_pd *, uint64_t, size_t, uint64_t, int, int);
    return reinterpret_cast<real_t>(dlsym(RTLD_NEXT, "ibv_reg_dmabuf_mr"))(pd, offset, size, iova, fd, access);
}

extern "C" int ibv_dereg_mr(struct ibv_mr *mr)
{
    if (device != nullptr && mr->pd == &device->pd) {
        EXPECT_EQ(1u, device->live.erase(mr));
        delete mr;
        return 0;
    }
    using real_t = int (*)(struct ibv_mr *);
    return reinterpret_cast<real_t>(dlsym(RTLD_NEXT, "ibv_dereg_mr"))(mr);
}

namespace {

class srd_reg : public ::testing::TestWithParam<bool> {
protected:
    void SetUp() override
    {
        device = &device_;
        strcpy(component_.name, "srd");
        md_.super.ops       = &uct_srd_md_ops;
        md_.super.component = &component_;
        md_.pd          = &device_.pd;
        md_.attr.caps   = UCT_SRD_CAP_RDMA_READ;
        md_.attr.max_mr = 0;
        strcpy(md_.attr.ibdev_name, "fake_0");
        config_.reg_cache             = GetParam() ? UCS_YES : UCS_NO;
        config_.rcache_max_regions    = ULONG_MAX;
        config_.rcache_max_size       = SIZE_MAX;
        config_.rcache_max_unreleased = SIZE_MAX;
        ASSERT_EQ(UCS_OK, srd::reg_cache_init(&md_, &config_));
        ASSERT_EQ(GetParam(), md_.rcache != nullptr);
        saved_log_level_ = ucs_global_opts.log_component.log_level;
        ucs_global_opts.log_component.log_level = UCS_LOG_LEVEL_FATAL;
    }

    void TearDown() override
    {
        ucs_global_opts.log_component.log_level = saved_log_level_;
        srd::reg_cache_fini(&md_);
        EXPECT_TRUE(device_.live.empty());
        EXPECT_EQ(md_.counters.reg_count, md_.counters.dereg_count);
        device = nullptr;
    }

    static void *map(size_t size)
    {
        void *memory = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        EXPECT_NE(MAP_FAILED, memory);
        return memory;
    }

    uct_srd_mem_t *get(void *address, size_t size, unsigned flags = UCT_MD_MEM_ACCESS_ALL)
    {
        uct_srd_mem_t *mem = nullptr;
        EXPECT_EQ(UCS_OK, srd::reg_get(&md_, address, size, flags, &mem));
        return mem;
    }

    fake_device         device_;
    uct_component       component_ = {}; // libuct's own entry points ask it its name
    uct_srd_md_t        md_     = {};
    uct_srd_md_config_t config_ = {};
    ucs_log_level_t     saved_log_level_;
};

constexpr size_t page = 4096;

} // namespace

TEST_P(srd_reg, get_covers_the_range_and_gives_both_keys)
{
    auto *memory = static_cast<char *>(map(page));
    uct_srd_mem_t *mem = get(memory + 100, 1000);
    EXPECT_LE(device_.last_address, memory + 100);
    EXPECT_GE(static_cast<char *>(device_.last_address) + device_.last_size, memory + 1100);
    EXPECT_EQ(mem->mr->lkey, uct_srd_memh_lkey(mem));
    EXPECT_EQ(mem->mr->rkey, mem->rkey);
    EXPECT_EQ(GetParam(), mem->cached);
    srd::reg_put(&md_, mem);
    munmap(memory, page);
}

TEST_P(srd_reg, get_asks_for_what_the_device_can_do_only)
{
    void *memory = map(2 * page);
    uct_srd_mem_t *mem = get(memory, page);
    EXPECT_EQ(IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ, device_.live.at(mem->mr));
    srd::reg_put(&md_, mem);

    md_.attr.caps |= UCT_SRD_CAP_RDMA_WRITE;
    mem = get(static_cast<char *>(memory) + page, page);
    EXPECT_EQ(IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_WRITE, device_.live.at(mem->mr));
    srd::reg_put(&md_, mem);
    munmap(memory, 2 * page);
}

TEST_P(srd_reg, get_again_registers_once_with_the_cache_and_twice_without)
{
    void *memory = map(page);
    for (int i = 0; i < 10; ++i) {
        srd::reg_put(&md_, get(memory, page));
    }
    EXPECT_EQ(GetParam() ? 1u : 10u, md_.counters.reg_count);
    munmap(memory, page);
}

TEST_P(srd_reg, unmap_ends_a_cached_registration)
{
    void *memory = map(page);
    srd::reg_put(&md_, get(memory, page));
    EXPECT_EQ(GetParam() ? 1u : 0u, device_.live.size());
    munmap(memory, page);
    // The cache works its queue of unmapped ranges off when it is next used.
    void *other = map(page);
    srd::reg_put(&md_, get(other, page));
    EXPECT_EQ(GetParam() ? 1u : 0u, device_.live.size());
    munmap(other, page);
}

TEST_P(srd_reg, read_only_memory_is_registered_for_reading)
{
    void *memory = map(page);
    device_.read_only  = true;
    uct_srd_mem_t *mem = get(memory, page);
    EXPECT_EQ(IBV_ACCESS_REMOTE_READ, device_.live.at(mem->mr));
    srd::reg_put(&md_, mem);

    // Once it is writable, the narrow registration must not serve it. REG-1
    device_.read_only = false;
    mem = get(memory, page);
    EXPECT_EQ(IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ, device_.live.at(mem->mr));
    srd::reg_put(&md_, mem);
    munmap(memory, page);
}

TEST_P(srd_reg, merged_range_is_never_narrowed_to_reading)
{
    auto *memory = static_cast<char *>(map(2 * page));
    uct_srd_mem_t *first = get(memory, page);
    const int first_access = device_.live.at(first->mr);
    device_.read_only = true; // as if the second page were mapped read-only
    uct_srd_mem_t *both = get(memory + page / 2, page);
    EXPECT_EQ(IBV_ACCESS_REMOTE_READ, device_.live.at(both->mr));
    EXPECT_EQ(first_access, device_.live.at(first->mr));
    device_.read_only = false;
    uct_srd_mem_t *again = get(memory, page);
    EXPECT_EQ(first_access, device_.live.at(again->mr));
    srd::reg_put(&md_, again);
    srd::reg_put(&md_, both);
    srd::reg_put(&md_, first);
    munmap(memory, 2 * page);
}

TEST_P(srd_reg, get_bad_memory_fails_and_leaves_nothing)
{
    void *memory = map(page);
    device_.fail_with = EINVAL;
    uct_srd_mem_t *mem = nullptr;
    EXPECT_EQ(UCS_ERR_INVALID_ADDR, srd::reg_get(&md_, memory, page, UCT_MD_MEM_ACCESS_ALL, &mem));
    device_.fail_with = EIO;
    EXPECT_NE(UCS_OK, srd::reg_get(&md_, memory, page, UCT_MD_MEM_FLAG_HIDE_ERRORS, &mem));
    EXPECT_TRUE(device_.live.empty());
    EXPECT_LT(0u, md_.counters.reg_failed_count);
    munmap(memory, page);
}

TEST_P(srd_reg, dmabuf_is_registered_once_each_time_and_named_by_its_address)
{
    EXPECT_TRUE(srd::reg_dmabuf_supported(&md_));
    void *const address = reinterpret_cast<void *>(0x7f0000003000); // never touched: it may be a GPU's
    uct_srd_mem_t *first = nullptr, *second = nullptr;
    ASSERT_EQ(UCS_OK, srd::reg_get_dmabuf(&md_, address, page, 5, 3 * page, 0, &first));
    EXPECT_EQ(3u * page, device_.dmabuf_offset);
    EXPECT_EQ(address, device_.last_address);
    EXPECT_EQ(IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ, device_.live.begin()->second);
    EXPECT_FALSE(first->cached);
    ASSERT_EQ(UCS_OK, srd::reg_get_dmabuf(&md_, address, page, 5, 3 * page, 0, &second));
    EXPECT_NE(first->rkey, second->rkey);
    srd::reg_put(&md_, first);
    srd::reg_put(&md_, second);
    EXPECT_TRUE(device_.live.empty());
    EXPECT_EQ(2u, md_.counters.dereg_count);
}

TEST_P(srd_reg, dmabuf_that_cannot_be_registered_leaves_nothing)
{
    device_.knows_dmabuf = false;
    EXPECT_FALSE(srd::reg_dmabuf_supported(&md_));
    uct_srd_mem_t *mem = nullptr;
    device_.fail_with = EOPNOTSUPP;
    EXPECT_EQ(UCS_ERR_UNSUPPORTED, srd::reg_get_dmabuf(&md_, nullptr, page, 5, 0, UCT_MD_MEM_FLAG_HIDE_ERRORS, &mem));
    device_.fail_with = ENOMEM;
    EXPECT_EQ(UCS_ERR_NO_MEMORY, srd::reg_get_dmabuf(&md_, nullptr, page, 5, 0, UCT_MD_MEM_FLAG_HIDE_ERRORS, &mem));
    EXPECT_EQ(nullptr, mem);
    EXPECT_TRUE(device_.live.empty());
    EXPECT_EQ(2u, md_.counters.reg_failed_count);
}

TEST_P(srd_reg, shortage_is_no_property_of_the_memory)
{
    void *memory = map(page);
    device_.limit = 0;
    uct_srd_mem_t *mem = nullptr;
    EXPECT_EQ(UCS_ERR_NO_MEMORY, srd::reg_get(&md_, memory, page, UCT_MD_MEM_FLAG_HIDE_ERRORS, &mem));
    device_.limit = 10; // somebody else gave one back
    srd::reg_put(&md_, get(memory, page)); // REG-2
    munmap(memory, page);
}

TEST_P(srd_reg, invalidate_completes_at_the_last_user)
{
    void *memory = map(page);
    uct_srd_mem_t *first  = get(memory, page);
    uct_srd_mem_t *second = get(memory, page);
    int done = 0;
    srd::reg_invalidate(&md_, first, [](void *arg) { ++*static_cast<int *>(arg); }, &done);
    EXPECT_EQ(GetParam() ? 0 : 1, done);
    // A later user gets a registration of its own.
    uct_srd_mem_t *third = get(memory, page);
    EXPECT_NE(second->rkey, third->rkey);
    srd::reg_put(&md_, second);
    EXPECT_EQ(1, done);
    srd::reg_put(&md_, third);
    munmap(memory, page);
}

TEST_P(srd_reg, cache_never_fills_the_device)
{
    srd::reg_cache_fini(&md_);
    md_.attr.max_mr = 8;
    ASSERT_EQ(UCS_OK, srd::reg_cache_init(&md_, &config_));
    void *memory = map(64 * page);
    for (int i = 0; i < 32; ++i) {
        srd::reg_put(&md_, get(static_cast<char *>(memory) + 2 * i * page, page));
        EXPECT_LE(device_.live.size(), 7u); // three quarters, and the one in use
    }
    munmap(memory, 64 * page);
}

TEST_P(srd_reg, internal_registration_has_the_rights_asked_for)
{
    char buffer[64];
    uct_srd_mem_t mem = {};
    ASSERT_EQ(UCS_OK, uct_srd_md_reg_internal(&md_, buffer, sizeof(buffer), IBV_ACCESS_LOCAL_WRITE, &mem));
    EXPECT_EQ(IBV_ACCESS_LOCAL_WRITE, device_.live.at(mem.mr));
    uct_srd_md_dereg_internal(&md_, &mem);
    uct_srd_md_dereg_internal(&md_, &mem); // a second time does nothing
    EXPECT_TRUE(device_.live.empty());

    device_.fail_with = ENOMEM;
    EXPECT_EQ(UCS_ERR_NO_MEMORY,
              uct_srd_md_reg_internal(&md_, buffer, sizeof(buffer), IBV_ACCESS_LOCAL_WRITE, &mem));
    device_.fail_with = EIO;
    EXPECT_EQ(UCS_ERR_IO_ERROR,
              uct_srd_md_reg_internal(&md_, buffer, sizeof(buffer), IBV_ACCESS_LOCAL_WRITE, &mem));
}

TEST_P(srd_reg, md_ops_register_pack_and_unpack_a_key)
{
    void     *memory = map(page);
    uct_mem_h memh   = nullptr;
    uct_md_h  md     = &md_.super;
    EXPECT_EQ(UCS_ERR_INVALID_PARAM, uct_md_mem_reg(md, memory, 0, 0, &memh));
    ASSERT_EQ(UCS_OK, uct_md_mem_reg(md, memory, page, UCT_MD_MEM_ACCESS_ALL, &memh));

    uint8_t packed[UCT_SRD_RKEY_PACKED_SIZE + 1];
    memset(packed, 0x77, sizeof(packed));
    ASSERT_EQ(UCS_OK, uct_md_mkey_pack(md, memh, packed));
    EXPECT_EQ(0x77, packed[UCT_SRD_RKEY_PACKED_SIZE]);

    uct_rkey_t rkey   = 0;
    void      *handle = &rkey;
    ASSERT_EQ(UCS_OK, uct_srd_rkey_unpack(packed, &rkey, &handle));
    EXPECT_EQ(static_cast<uct_srd_mem_t *>(memh)->rkey, uct_srd_rkey_key(rkey));
    EXPECT_NE(UCT_INVALID_RKEY, rkey);
    EXPECT_EQ(nullptr, handle);
    EXPECT_EQ(UCS_OK, uct_srd_rkey_release(rkey, handle));

    packed[0] ^= 1; // bytes of another version, or of another transport
    EXPECT_EQ(UCS_ERR_INVALID_PARAM, uct_srd_rkey_unpack(packed, &rkey, &handle));

    uct_md_mem_dereg_params_t params = {};
    EXPECT_EQ(UCS_ERR_INVALID_PARAM, uct_srd_md_ops.mem_dereg(md, &params));
    params.field_mask = UCT_MD_MEM_DEREG_FIELD_MEMH | UCT_MD_MEM_DEREG_FIELD_FLAGS;
    params.memh       = memh;
    params.flags      = UCT_MD_MEM_DEREG_FLAG_INVALIDATE;
    EXPECT_EQ(UCS_ERR_UNSUPPORTED, uct_srd_md_ops.mem_dereg(md, &params)); // not offered, and nothing happened
    md_.offers_invalidate = true;
    EXPECT_EQ(UCS_ERR_INVALID_PARAM, uct_srd_md_ops.mem_dereg(md, &params)); // nobody to tell

    uct_completion_t comp = {};
    comp.count      = 1;
    comp.func       = [](uct_completion_t *self) { self->status = UCS_ERR_BUSY; };
    params.field_mask |= UCT_MD_MEM_DEREG_FIELD_COMPLETION;
    params.comp       = &comp;
    EXPECT_EQ(UCS_OK, uct_srd_md_ops.mem_dereg(md, &params));
    EXPECT_EQ(0, comp.count);
    EXPECT_EQ(UCS_ERR_BUSY, comp.status); // the callback ran
    munmap(memory, page);
}

TEST_P(srd_reg, md_query_tells_what_the_domain_offers)
{
    md_.attr.max_mr_size = 1ul << 40;
    uct_md_attr_t attr;
    memset(&attr, 0xff, sizeof(attr));
    ASSERT_EQ(UCS_OK, uct_md_query(&md_.super, &attr));
    EXPECT_EQ(uint64_t(UCT_MD_FLAG_REG | UCT_MD_FLAG_NEED_MEMH | UCT_MD_FLAG_NEED_RKEY), attr.cap.flags);
    EXPECT_EQ(size_t(UCT_SRD_RKEY_PACKED_SIZE), attr.rkey_packed_size);
    md_.offers_invalidate = true;
    ASSERT_EQ(UCS_OK, uct_md_query(&md_.super, &attr));
    EXPECT_TRUE(attr.cap.flags & UCT_MD_FLAG_INVALIDATE);
    EXPECT_EQ(1ul << 40, attr.cap.max_reg);
    EXPECT_EQ(UCS_BIT(UCS_MEMORY_TYPE_HOST), attr.cap.reg_mem_types);
    EXPECT_EQ(0u, attr.cap.detect_mem_types);
}

TEST_P(srd_reg, md_ops_are_all_set_and_refuse_what_a_nic_cannot_do)
{
    const auto *slots = reinterpret_cast<void *const *>(&uct_srd_md_ops);
    for (size_t i = 0; i < sizeof(uct_srd_md_ops) / sizeof(void *); ++i) {
        EXPECT_NE(nullptr, slots[i]) << i;
    }
    uct_md_h md = &md_.super;
    EXPECT_EQ(UCS_ERR_UNSUPPORTED, uct_srd_md_ops.mem_free(md, nullptr));
    EXPECT_EQ(UCS_ERR_UNSUPPORTED, uct_srd_md_ops.mem_advise(md, nullptr, nullptr, 0, 0));
    EXPECT_EQ(UCS_ERR_UNSUPPORTED, uct_srd_md_ops.detect_memory_type(md, nullptr, 0, nullptr));
}

INSTANTIATE_TEST_SUITE_P(cache, srd_reg, ::testing::Values(false, true),
                         [](const auto &info) { return info.param ? "on" : "off"; });
