// Point-to-point traffic between all ranks with checked contents: ring,
// all-to-all, order, wildcards, unexpected messages.
//
// Knows MPI only; the judge chooses transport and ranks. Ends with "OK ..." on
// rank 0 and exit code 0, or with code 1.
#include <mpi.h>

#include <algorithm>
#include <vector>

#include "pattern.h"

using pattern::guarded;
using pattern::stamp;

namespace
{

int rank, ranks;
pattern::tally tally;
constexpr size_t spare = 97; // a receive is posted for this much more than comes

size_t received_size(const MPI_Status &status)
{
    int count = -1;
    MPI_Get_count(&status, MPI_BYTE, &count);
    return size_t(count);
}

// Everybody sends to the right and receives from the left; `late` posts the
// receive when the message has had to wait.
void ring(size_t size, int round, bool late)
{
    int right = (rank + 1) % ranks, left = (rank + ranks - 1) % ranks;
    std::vector<uint8_t> out(size + 1), storage(guarded::storage_size(size + spare));
    guarded in(storage.data(), size + spare);
    pattern::fill(out.data(), size, stamp{rank, right, round});
    MPI_Request request[2];
    MPI_Status status[2];
    MPI_Isend(out.data(), int(size), MPI_BYTE, right, round, MPI_COMM_WORLD, &request[0]);
    if (late)
        MPI_Barrier(MPI_COMM_WORLD);
    MPI_Irecv(in.data(), int(size + spare), MPI_BYTE, left, round, MPI_COMM_WORLD, &request[1]);
    MPI_Waitall(2, request, status);
    tally.expect(received_size(status[1]) == size, rank, "ring: received size", long(received_size(status[1])), long(size));
    in.check(size, stamp{left, rank, round}, rank, "ring: contents", tally);
}

// A message from everybody to everybody at once, receives posted first.
void exchange(size_t size, int round)
{
    size_t stride = guarded::storage_size(size + spare);
    std::vector<uint8_t> out(size * ranks + 1), storage(stride * ranks);
    std::vector<guarded> in;
    std::vector<MPI_Request> requests(2 * ranks);
    std::vector<MPI_Status> statuses(2 * ranks);
    for (int peer = 0; peer < ranks; peer++) {
        in.emplace_back(storage.data() + stride * peer, size + spare);
        MPI_Irecv(in[peer].data(), int(size + spare), MPI_BYTE, peer, round, MPI_COMM_WORLD, &requests[peer]);
    }
    for (int i = 0; i < ranks; i++) {
        int peer = (rank + i) % ranks;
        pattern::fill(out.data() + size * peer, size, stamp{rank, peer, round});
        MPI_Isend(out.data() + size * peer, int(size), MPI_BYTE, peer, round, MPI_COMM_WORLD, &requests[ranks + peer]);
    }
    MPI_Waitall(2 * ranks, requests.data(), statuses.data());
    for (int peer = 0; peer < ranks; peer++) {
        tally.expect(received_size(statuses[peer]) == size, rank, "exchange: received size", peer, long(size));
        in[peer].check(size, stamp{peer, rank, round}, rank, "exchange: contents", tally);
        tally.expect(pattern::mismatch(out.data() + size * peer, size, stamp{rank, peer, round}) == size, rank,
                     "exchange: the sender's buffer was changed", peer, long(size));
    }
}

// Many messages of mixed protocols with one tag must match receives in the
// order in which they were sent.
void order(int round)
{
    constexpr int messages = 120;
    const size_t lengths[] = {8, 70000, 0, 9000, 300, 2000};
    int right = (rank + 1) % ranks, left = (rank + ranks - 1) % ranks;
    std::vector<std::vector<uint8_t>> out(messages);
    std::vector<MPI_Request> requests(messages);
    for (int i = 0; i < messages; i++) {
        size_t size = lengths[i % 6] + size_t(i);
        out[i].resize(size);
        pattern::fill(out[i].data(), size, stamp{rank, right, round + i});
        MPI_Isend(out[i].data(), int(size), MPI_BYTE, right, 7, MPI_COMM_WORLD, &requests[i]);
    }
    size_t capacity = 70000 + messages;
    std::vector<uint8_t> storage(guarded::storage_size(capacity));
    for (int i = 0; i < messages; i++) {
        size_t size = lengths[i % 6] + size_t(i);
        guarded in(storage.data(), capacity);
        MPI_Status status;
        MPI_Recv(in.data(), int(capacity), MPI_BYTE, left, 7, MPI_COMM_WORLD, &status);
        tally.expect(received_size(status) == size, rank, "order: received size", i, long(received_size(status)));
        in.check(size, stamp{left, rank, round + i}, rank, "order: contents", tally);
    }
    MPI_Waitall(messages, requests.data(), MPI_STATUSES_IGNORE);
}

// Everybody floods rank 0, which receives from anybody: each sender's messages
// stay in order, and none is lost or doubled.
void many_to_one(int round)
{
    constexpr int messages = 200;
    constexpr size_t size  = 512;
    std::vector<uint8_t> bytes(guarded::storage_size(size));
    if (rank != 0) {
        std::vector<uint8_t> out(size * messages);
        std::vector<MPI_Request> requests(messages);
        for (int i = 0; i < messages; i++) {
            pattern::fill(&out[size * i], size, stamp{rank, 0, round + i});
            MPI_Isend(&out[size * i], size, MPI_BYTE, 0, 9, MPI_COMM_WORLD, &requests[i]);
        }
        MPI_Waitall(messages, requests.data(), MPI_STATUSES_IGNORE);
        return;
    }
    std::vector<int> next(ranks, 0);
    for (int i = 0; i < messages * (ranks - 1); i++) {
        guarded in(bytes.data(), size);
        MPI_Status status;
        MPI_Recv(in.data(), size, MPI_BYTE, MPI_ANY_SOURCE, 9, MPI_COMM_WORLD, &status);
        int from = status.MPI_SOURCE;
        in.check(size, stamp{from, 0, round + next[from]++}, rank, "many to one: contents", tally);
    }
    for (int peer = 1; peer < ranks; peer++)
        tally.expect(next[peer] == messages, rank, "many to one: messages", peer, next[peer]);
}

// A token that every rank adds to: one message in flight, so a lost wake-up or
// a stuck send shows as a hang.
void token(int laps)
{
    long value = 0;
    int right = (rank + 1) % ranks, left = (rank + ranks - 1) % ranks;
    for (int lap = 0; lap < laps; lap++) {
        if (rank == 0) {
            value++;
            MPI_Send(&value, 1, MPI_LONG, right, 3, MPI_COMM_WORLD);
            MPI_Recv(&value, 1, MPI_LONG, left, 3, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
            tally.expect(value == long(ranks) * (lap + 1), rank, "token", value, lap);
        } else {
            MPI_Recv(&value, 1, MPI_LONG, left, 3, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
            value++;
            MPI_Send(&value, 1, MPI_LONG, right, 3, MPI_COMM_WORLD);
        }
    }
}

} // namespace

int main(int argc, char **argv)
{
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &ranks);
    if (ranks < 2) {
        fprintf(stderr, "needs at least 2 ranks\n");
        MPI_Abort(MPI_COMM_WORLD, 2);
    }
    int round = 1;
    for (size_t size : pattern::sizes) {
        ring(size, round++, false);
        ring(size, round++, true);
        exchange(size, round++);
    }
    token(50);
    order(100000);
    many_to_one(200000);
    long mine[2] = {tally.checked, tally.failed}, all[2] = {0, 0};
    MPI_Allreduce(mine, all, 2, MPI_LONG, MPI_SUM, MPI_COMM_WORLD);
    if (rank == 0 && all[1] == 0)
        printf("OK mpi_traffic: %d ranks, %ld checks\n", ranks, all[0]);
    if (rank == 0 && all[1] != 0)
        printf("WRONG mpi_traffic: %ld of %ld checks\n", all[1], all[0]);
    MPI_Finalize();
    return all[1] == 0 ? 0 : 1;
}
