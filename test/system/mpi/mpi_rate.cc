// The rate of an all-to-all among the ranks, for a comparison of transports;
// contents of the last one are checked.
//
// usage: mpi_rate [SECONDS_PER_SIZE]. Prints "rate SIZE MESSAGES_PER_SECOND
// MICROSECONDS_PER_ALLTOALL" a size.
#include <mpi.h>

#include <vector>

#include "pattern.h"

namespace
{

int rank, ranks;

void exchange(const uint8_t *out, uint8_t *in, size_t size)
{
    std::vector<MPI_Request> requests;
    requests.reserve(2 * size_t(ranks));
    for (int i = 1; i < ranks; i++) {
        int peer = (rank + ranks - i) % ranks;
        MPI_Irecv(in + size * peer, int(size), MPI_BYTE, peer, 1, MPI_COMM_WORLD, &requests.emplace_back());
    }
    for (int i = 1; i < ranks; i++) {
        int peer = (rank + i) % ranks;
        MPI_Isend(out + size * peer, int(size), MPI_BYTE, peer, 1, MPI_COMM_WORLD, &requests.emplace_back());
    }
    MPI_Waitall(int(requests.size()), requests.data(), MPI_STATUSES_IGNORE);
}

bool measure(size_t size, double seconds)
{
    std::vector<uint8_t> out(size * ranks), in(size * ranks);
    for (int peer = 0; peer < ranks; peer++)
        pattern::fill(&out[size * peer], size, pattern::stamp{rank, peer, int(size)});
    for (int i = 0; i < 3; i++)
        exchange(out.data(), in.data(), size);
    MPI_Barrier(MPI_COMM_WORLD);
    double start = MPI_Wtime(), elapsed = 0;
    long rounds = 0;
    // Rank 0 decides, once in a batch, so that all ranks do the same number of
    // rounds.
    for (int more = 1; more;) {
        for (int i = 0; i < 10; i++, rounds++)
            exchange(out.data(), in.data(), size);
        elapsed = MPI_Wtime() - start;
        more    = elapsed < seconds;
        MPI_Bcast(&more, 1, MPI_INT, 0, MPI_COMM_WORLD);
    }
    if (rank == 0)
        printf("rate %zu %.0f %.3f\n", size, double(rounds) * ranks * (ranks - 1) / elapsed, elapsed / double(rounds) * 1e6);
    bool good = true;
    for (int peer = 0; peer < ranks; peer++)
        good &= peer == rank || pattern::mismatch(&in[size * peer], size, pattern::stamp{peer, rank, int(size)}) == size;
    return good;
}

} // namespace

int main(int argc, char **argv)
{
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &ranks);
    double seconds = argc > 1 ? atof(argv[1]) : 0.3;
    int good = 1, all_good = 0;
    for (size_t size : {size_t(8), size_t(1024), size_t(8192), size_t(65536), size_t(1048576)})
        good &= measure(size, seconds);
    MPI_Allreduce(&good, &all_good, 1, MPI_INT, MPI_MIN, MPI_COMM_WORLD);
    if (rank == 0)
        printf("%s mpi_rate: %d ranks\n", all_good ? "OK" : "WRONG", ranks);
    MPI_Finalize();
    return all_good ? 0 : 1;
}
