// Registration by a descriptor (SOFTEFA_DMABUF=1, which verbs_main sets): a memfd stands in for a GPU's dmabuf, and the device
// reads and writes it through a mapping of its own, named by addresses at which nothing is.
#include "verbs_endpoint.h"

#include <cerrno>
#include <sys/mman.h>
#include <unistd.h>

using namespace verbs;

namespace {

constexpr std::size_t   page      = 4096;
constexpr std::size_t   size      = 16 * page;
constexpr std::uint64_t gpu_space = 0x5a0000000000; ///< mapped by nobody

class verbs_dmabuf : public testing::Test {
protected:
    void SetUp() override
    {
        context_ = open_device();
        ASSERT_NE(nullptr, context_);
        a_ = std::make_unique<endpoint>(context_.get(), endpoint::options{});
        b_ = std::make_unique<endpoint>(context_.get(), endpoint::options{});
        ASSERT_TRUE(a_->ok() && b_->ok());
        fd_ = memfd_create("dmabuf", MFD_CLOEXEC);
        ASSERT_LE(0, fd_);
        ASSERT_EQ(0, ftruncate(fd_, size));
        bytes_ = static_cast<unsigned char *>(mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd_, 0));
        ASSERT_NE(MAP_FAILED, static_cast<void *>(bytes_));
        for (std::size_t i = 0; i < size; ++i) {
            bytes_[i] = static_cast<unsigned char>(i * 13 + i / page);
        }
    }
    void TearDown() override
    {
        munmap(bytes_, size);
        close(fd_);
    }
    ibv_mr *reg(const endpoint &owner, std::uint64_t offset, std::size_t length,
                int access = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ)
    {
        return ibv_reg_dmabuf_mr(owner.pd(), offset, length, gpu_space + offset, fd_, access);
    }

    context_ptr               context_;
    std::unique_ptr<endpoint> a_, b_;
    int                       fd_    = -1;
    unsigned char            *bytes_ = nullptr;
};

} // namespace

TEST_F(verbs_dmabuf, send_from_it_and_receive_into_it)
{
    ibv_mr *mr = reg(*a_, page, 4 * page);
    ASSERT_NE(nullptr, mr) << strerror(errno);
    ibv_ah *ah = a_->ah_to(*b_);
    ASSERT_EQ(0, b_->recv(1, 0, 9000));
    ASSERT_EQ(0, a_->send(2, *b_, ah, {{gpu_space + page + 100, 8000, mr->lkey}}));
    ASSERT_EQ(IBV_WC_SUCCESS, a_->poll()->status);
    ASSERT_EQ(IBV_WC_SUCCESS, b_->poll()->status);
    EXPECT_EQ(0, memcmp(bytes_ + page + 100, b_->buffer(), 8000));

    ibv_sge     to{gpu_space + 2 * page, 3000, mr->lkey};
    ibv_recv_wr wr{}, *bad = nullptr;
    wr.sg_list = &to;
    wr.num_sge = 1;
    ASSERT_EQ(0, ibv_post_recv(a_->qp(), &wr, &bad));
    memset(b_->buffer(), 0xee, 3000);
    ASSERT_EQ(0, b_->send(3, *a_, b_->ah_to(*a_), {b_->sge(0, 3000)}));
    ASSERT_EQ(IBV_WC_SUCCESS, b_->poll()->status);
    ASSERT_EQ(IBV_WC_SUCCESS, a_->poll()->status);
    EXPECT_EQ(0, memcmp(b_->buffer(), bytes_ + 2 * page, 3000));
    EXPECT_EQ(static_cast<unsigned char>((2 * page + 3000) * 13 + 2), bytes_[2 * page + 3000]) << "no byte behind";
    EXPECT_EQ(0, ibv_dereg_mr(mr));
}

TEST_F(verbs_dmabuf, rdma_read_from_it_after_the_application_let_go_of_it)
{
    ibv_mr *mr = reg(*b_, 0, size);
    ASSERT_NE(nullptr, mr) << strerror(errno);
    const std::vector<unsigned char> expected(bytes_, bytes_ + 50000);
    munmap(bytes_, size);
    bytes_ = static_cast<unsigned char *>(mmap(nullptr, size, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    close(fd_);
    fd_ = -1;
    ASSERT_NE(nullptr, b_->ah_to(*a_));
    ASSERT_EQ(0, a_->read_ex(5, b_->qp()->qp_num, a_->ah_to(*b_), a_->sge(0, 50000), gpu_space, mr->rkey));
    ASSERT_EQ(IBV_WC_SUCCESS, a_->poll()->status);
    EXPECT_EQ(0, memcmp(a_->buffer(), expected.data(), expected.size()));
    EXPECT_EQ(0, ibv_dereg_mr(mr));
}

TEST_F(verbs_dmabuf, what_cannot_be_mapped_is_refused)
{
    const auto refused = [&](ibv_mr *mr) { return mr == nullptr ? errno : (ibv_dereg_mr(mr), 0); };
    EXPECT_EQ(EBADF, refused(ibv_reg_dmabuf_mr(a_->pd(), 0, page, 0, -1, IBV_ACCESS_LOCAL_WRITE))) << "how support is asked for";
    EXPECT_EQ(EINVAL, refused(reg(*a_, size - page, 2 * page))) << "behind its end";
    EXPECT_EQ(EINVAL, refused(reg(*a_, UINT64_MAX - page, 2 * page)));
    EXPECT_EQ(EINVAL, refused(reg(*a_, 0, 0)));
    EXPECT_EQ(EINVAL, refused(ibv_reg_dmabuf_mr(a_->pd(), 8, page, gpu_space, fd_, IBV_ACCESS_LOCAL_WRITE))) << "other place in its page";
    int pipe_ends[2];
    ASSERT_EQ(0, pipe(pipe_ends));
    EXPECT_NE(0, refused(ibv_reg_dmabuf_mr(a_->pd(), 0, page, 0, pipe_ends[0], IBV_ACCESS_LOCAL_WRITE)));
    close(pipe_ends[0]);
    close(pipe_ends[1]);
}

TEST_F(verbs_dmabuf, registrations_leave_no_mapping_behind)
{
    const auto mapped = [] {
        unsigned count = 0;
        FILE    *maps  = fopen("/proc/self/maps", "r");
        for (char line[512]; maps != nullptr && fgets(line, sizeof(line), maps) != nullptr;) {
            count += strstr(line, "memfd:dmabuf") != nullptr;
        }
        fclose(maps);
        return count;
    };
    ASSERT_EQ(1u, mapped()) << "the application's own";
    for (int i = 0; i < 100; ++i) {
        ibv_mr *mr = reg(*a_, (i % 8) * page, 2 * page);
        ASSERT_NE(nullptr, mr);
        ASSERT_EQ(0, ibv_dereg_mr(mr));
    }
    EXPECT_EQ(1u, mapped());
    ibv_mr *kept = reg(*a_, 0, size); // the device file is closed with it
    ASSERT_NE(nullptr, kept);
    EXPECT_EQ(2u, mapped());
    EXPECT_EQ(0, ibv_dereg_mr(kept));
}
