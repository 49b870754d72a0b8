/* The pingpong mode of verbs_probe: what main and the two processes call. See verbs_pingpong.cc. */
#pragma once

#include "raw_pingpong.h"
#include "verbs_user.h"

namespace probe {

inline constexpr std::size_t pingpong_size_max = 64; // a line of its own for every message

/// What a mode found. `more`: further members of the line of JSON, each with a comma before it.
struct outcome {
    double      seconds = 0;
    std::string more;
};

/// What both processes have of raw shared memory.
struct pingpong_turns {
    raw::slots slots;
};

/// Posts the receives. Both do it before either sends.
void pingpong_prepare(user &me);

/// The child's part; returns when all blocks are over. Wrong bytes end the process.
void pingpong_echo(const pingpong_turns &turns, const settings &wish, user &me, ibv_ah *ah, const address &peer);

/// The parent's part: the median one-way time of verbs, with raw time and ratio.
outcome pingpong_drive(const pingpong_turns &turns, const settings &wish, user &me, ibv_ah *ah, const address &peer);

} // namespace probe
