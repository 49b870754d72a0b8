/* See memory_that_runs_out.h. */
#include "memory_that_runs_out.h"

#include <cstdlib>

namespace {

thread_local bool runs_out;
thread_local std::size_t left, refusals;

bool may_have() noexcept
{
    if (!runs_out) {
        return true;
    }
    if (left == 0) {
        ++refusals;
        return false;
    }
    --left;
    return true;
}

} // namespace

extern "C" {

void *__real_malloc(std::size_t size);
void *__real_calloc(std::size_t count, std::size_t size);
void *__real_aligned_alloc(std::size_t alignment, std::size_t size);

void *__wrap_malloc(std::size_t size) { return may_have() ? __real_malloc(size) : nullptr; }
void *__wrap_calloc(std::size_t count, std::size_t size) { return may_have() ? __real_calloc(count, size) : nullptr; }
void *__wrap_aligned_alloc(std::size_t alignment, std::size_t size)
{
    return may_have() ? __real_aligned_alloc(alignment, size) : nullptr;
}

}

namespace srd::test {

memory_that_runs_out::memory_that_runs_out(std::size_t calls_before) noexcept
{
    left     = calls_before;
    refusals = 0;
    runs_out = true;
}

memory_that_runs_out::~memory_that_runs_out() { runs_out = false; }

std::size_t memory_that_runs_out::refused() const noexcept { return refusals; }

} // namespace srd::test
