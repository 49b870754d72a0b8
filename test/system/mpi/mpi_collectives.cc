// Collective operations with checked results, 0 B to 4 MiB a rank, roots
// rotating.
//
// Knows MPI only. Ends with "OK ..." on rank 0 and exit code 0, or with code 1.
#include <mpi.h>

#include <vector>

#include "pattern.h"

using pattern::guarded;
using pattern::stamp;

namespace
{

int rank, ranks;
pattern::tally tally;

void bcast(size_t size, int root, int round)
{
    std::vector<uint8_t> storage(guarded::storage_size(size));
    guarded in(storage.data(), size);
    if (rank == root)
        pattern::fill(in.data(), size, stamp{root, -1, round});
    MPI_Bcast(in.data(), int(size), MPI_BYTE, root, MPI_COMM_WORLD);
    in.check(size, stamp{root, -1, round}, rank, "bcast", tally);
}

void gather_scatter(size_t size, int root, int round)
{
    std::vector<uint8_t> out(size + 1), all(size * ranks + 1), storage(guarded::storage_size(size));
    guarded in(storage.data(), size);
    pattern::fill(out.data(), size, stamp{rank, root, round});
    MPI_Gather(out.data(), int(size), MPI_BYTE, all.data(), int(size), MPI_BYTE, root, MPI_COMM_WORLD);
    for (int peer = 0; rank == root && peer < ranks; peer++)
        tally.expect(pattern::mismatch(&all[size * peer], size, stamp{peer, root, round}) == size, rank, "gather", peer,
                     long(size));
    for (int peer = 0; rank == root && peer < ranks; peer++)
        pattern::fill(&all[size * peer], size, stamp{root, peer, -round});
    MPI_Scatter(all.data(), int(size), MPI_BYTE, in.data(), int(size), MPI_BYTE, root, MPI_COMM_WORLD);
    in.check(size, stamp{root, rank, -round}, rank, "scatter", tally);
}

void allgather_alltoall(size_t size, int round)
{
    std::vector<uint8_t> out(size * ranks + 1), in(size * ranks + 1);
    pattern::fill(out.data(), size, stamp{rank, 0, round});
    MPI_Allgather(out.data(), int(size), MPI_BYTE, in.data(), int(size), MPI_BYTE, MPI_COMM_WORLD);
    for (int peer = 0; peer < ranks; peer++)
        tally.expect(pattern::mismatch(&in[size * peer], size, stamp{peer, 0, round}) == size, rank, "allgather", peer,
                     long(size));
    for (int peer = 0; peer < ranks; peer++)
        pattern::fill(&out[size * peer], size, stamp{rank, peer, round});
    MPI_Alltoall(out.data(), int(size), MPI_BYTE, in.data(), int(size), MPI_BYTE, MPI_COMM_WORLD);
    for (int peer = 0; peer < ranks; peer++)
        tally.expect(pattern::mismatch(&in[size * peer], size, stamp{peer, rank, round}) == size, rank, "alltoall", peer,
                     long(size));
}

// Rank r gets r * unit + 1 bytes from everybody: uneven counts and
// displacements.
void alltoallv(size_t unit, int round)
{
    std::vector<int> out_counts(ranks), out_at(ranks), in_counts(ranks), in_at(ranks);
    int out_size = 0, in_size = 0;
    for (int peer = 0; peer < ranks; peer++) {
        out_counts[peer] = int(unit) * peer + 1;
        in_counts[peer]  = int(unit) * rank + 1;
        out_at[peer]     = out_size;
        in_at[peer]      = in_size;
        out_size += out_counts[peer];
        in_size += in_counts[peer];
    }
    std::vector<uint8_t> out(out_size), in(in_size);
    for (int peer = 0; peer < ranks; peer++)
        pattern::fill(&out[out_at[peer]], size_t(out_counts[peer]), stamp{rank, peer, round});
    MPI_Alltoallv(out.data(), out_counts.data(), out_at.data(), MPI_BYTE, in.data(), in_counts.data(), in_at.data(), MPI_BYTE,
                  MPI_COMM_WORLD);
    for (int peer = 0; peer < ranks; peer++)
        tally.expect(pattern::mismatch(&in[in_at[peer]], size_t(in_counts[peer]), stamp{peer, rank, round}) ==
                         size_t(in_counts[peer]),
                     rank, "alltoallv", peer, in_counts[peer]);
}

void reductions(size_t count, int root)
{
    std::vector<long> mine(count + 1), sum(count + 1, -1), max(count + 1, -1), prefix(count + 1, -1);
    for (size_t i = 0; i < count; i++)
        mine[i] = long(i) * (rank + 1);
    long triangle = long(ranks) * (ranks + 1) / 2, upto = long(rank + 1) * (rank + 2) / 2;
    MPI_Allreduce(mine.data(), sum.data(), int(count), MPI_LONG, MPI_SUM, MPI_COMM_WORLD);
    MPI_Reduce(mine.data(), max.data(), int(count), MPI_LONG, MPI_MAX, root, MPI_COMM_WORLD);
    MPI_Scan(mine.data(), prefix.data(), int(count), MPI_LONG, MPI_SUM, MPI_COMM_WORLD);
    bool sum_good = true, max_good = true, scan_good = true;
    for (size_t i = 0; i < count; i++) {
        sum_good &= sum[i] == long(i) * triangle;
        max_good &= rank != root || max[i] == long(i) * ranks;
        scan_good &= prefix[i] == long(i) * upto;
    }
    tally.expect(sum_good && sum[count] == -1, rank, "allreduce", long(count));
    tally.expect(max_good && max[count] == -1, rank, "reduce", long(count));
    tally.expect(scan_good && prefix[count] == -1, rank, "scan", long(count));
}

// Nobody leaves a barrier before the last one has entered it: rank 0 counts
// arrivals that were sent before the barrier.
void barrier(int round)
{
    int arrived = 0;
    if (rank != 0) {
        MPI_Request request;
        MPI_Isend(&rank, 1, MPI_INT, 0, 11, MPI_COMM_WORLD, &request);
        MPI_Barrier(MPI_COMM_WORLD);
        MPI_Wait(&request, MPI_STATUS_IGNORE);
    } else {
        MPI_Barrier(MPI_COMM_WORLD);
        for (int peer = 1; peer < ranks; peer++) {
            int from = -1;
            MPI_Recv(&from, 1, MPI_INT, peer, 11, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
            arrived += from == peer;
        }
        tally.expect(arrived == ranks - 1, rank, "barrier", arrived, round);
    }
}

} // namespace

int main(int argc, char **argv)
{
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &ranks);
    int round = 1;
    for (size_t size : {size_t(0), size_t(1), size_t(8), size_t(100), size_t(1024), size_t(8192), size_t(8193), size_t(65536),
                        size_t(1000003), pattern::size_max}) {
        int root = round % ranks;
        bcast(size, root, round);
        gather_scatter(size, root, round);
        allgather_alltoall(size, round);
        alltoallv(size / 8, round);
        reductions(size / sizeof(long), root);
        barrier(round);
        round++;
    }
    MPI_Comm half;
    MPI_Comm_split(MPI_COMM_WORLD, rank % 2, rank, &half);
    int members = 0, one = 1;
    MPI_Allreduce(&one, &members, 1, MPI_INT, MPI_SUM, half);
    tally.expect(members == (rank % 2 ? ranks / 2 : (ranks + 1) / 2), rank, "split", members);
    MPI_Comm_free(&half);
    long mine[2] = {tally.checked, tally.failed}, all[2] = {0, 0};
    MPI_Allreduce(mine, all, 2, MPI_LONG, MPI_SUM, MPI_COMM_WORLD);
    if (rank == 0 && all[1] == 0)
        printf("OK mpi_collectives: %d ranks, %ld checks\n", ranks, all[0]);
    if (rank == 0 && all[1] != 0)
        printf("WRONG mpi_collectives: %ld of %ld checks\n", all[1], all[0]);
    MPI_Finalize();
    return all[1] == 0 ? 0 : 1;
}
