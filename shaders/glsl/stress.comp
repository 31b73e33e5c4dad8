#version 460
// SPDX-License-Identifier: MIT OR Apache-2.0
// The GPU's side of the coherence oracle. Each lane owns a word whose every value follows from the seed:
// it checks the word, writes the next value and counts atomically, while it watches words that the CPU
// only ever increases. One invocation a lane.
#extension GL_GOOGLE_include_directive : require
#include "limosa.glsl"
layout(local_size_x = 256) in;
#include "hash.glsl"

// volatile: each load and store below is to happen, none is to be merged or kept in a register.
layout(buffer_reference, scalar, buffer_reference_align = 8) coherent volatile buffer Word { uint64_t value; };
layout(buffer_reference, scalar, buffer_reference_align = 8) coherent buffer Report {
    uint64_t mismatches;
    uint64_t claimed;
    uint64_t kind;
    uint64_t lane;
    uint64_t step;
    uint64_t observed;
    uint64_t expected;
};

LIMOSA_ARGUMENTS(
    uint64_t words;
    uint64_t lanes;
    uint64_t lane_stride;
    uint64_t counters;
    uint64_t counter_count;
    uint64_t watched;
    uint64_t watched_stride;
    uint64_t watched_count;
    uint64_t report;
    uint64_t seed;
    uint64_t launch;
    uint rounds;
)

// As in src/stress.rs.
const uint64_t COUNTER_SALT = 0x636f756e746572ul;
const uint64_t WATCH_SALT = 0x77617463686564ul;
const uint64_t KIND_WORD = 1ul;
const uint64_t KIND_WATCHED = 2ul;

void mismatch(uint64_t kind, uint64_t lane, uint64_t step, uint64_t observed, uint64_t expected) {
    Report report = Report(limosa_gpu(args.report));
    atomicAdd(report.mismatches, 1ul);
    if (atomicCompSwap(report.claimed, 0ul, 1ul) == 0ul) {
        report.kind = kind;
        report.lane = lane;
        report.step = step;
        report.observed = observed;
        report.expected = expected;
    }
}

void watch(uint64_t lane, uint64_t step) {
    uint64_t pick = hash_three(args.seed ^ WATCH_SALT, lane, step) % args.watched_count;
    Word word = Word(limosa_gpu(args.watched + pick * args.watched_stride));
    uint64_t before = word.value;
    memoryBarrierBuffer();
    uint64_t after = word.value;
    if (after < before) {
        mismatch(KIND_WATCHED, lane, step, after, before);
    }
}

void main() {
    uint64_t lane = limosa_index();
    if (lane >= args.lanes) {
        return;
    }
    Word word = Word(limosa_gpu(args.words + lane * args.lane_stride));
    for (uint round = 0u; round < args.rounds; round++) {
        uint64_t step = args.launch * args.rounds + round;
        uint64_t expected = hash_three(args.seed, lane, step);
        uint64_t observed = word.value;
        if (observed != expected) {
            mismatch(KIND_WORD, lane, step, observed, expected);
        }
        word.value = hash_three(args.seed, lane, step + 1ul);
        if (args.counter_count != 0ul) {
            uint64_t pick = hash_three(args.seed ^ COUNTER_SALT, lane, step) % args.counter_count;
            atomicAdd(limosa_u64(args.counters, pick).value, 1ul);
        }
        if (args.watched_count != 0ul) {
            watch(lane, step);
        }
    }
}
