#version 460
// SPDX-License-Identifier: MIT OR Apache-2.0
// Adds how often each byte occurs to 64-bit counts. Any number of invocations shares the bytes.
#extension GL_GOOGLE_include_directive : require
#include "limosa.glsl"
layout(local_size_x = 256) in;
#include "bytes.glsl"
LIMOSA_ARGUMENTS(
    uint64_t src;
    uint64_t bytes;
    uint64_t counts;
)

// Copies of the counts: neighbours, whose bytes are often equal, add to different ones.
const uint COPIES = 8u;
shared uint counted[COPIES * 256u];

void count_word(uint copy, uint word) {
    uint first = word & 0xffu;
    // Runs of a byte are frequent.
    if (word == first * 0x01010101u) {
        atomicAdd(counted[copy + first], 4u);
    } else {
        atomicAdd(counted[copy + first], 1u);
        atomicAdd(counted[copy + (word >> 8 & 0xffu)], 1u);
        atomicAdd(counted[copy + (word >> 16 & 0xffu)], 1u);
        atomicAdd(counted[copy + (word >> 24)], 1u);
    }
}

void main() {
    uint lane = gl_LocalInvocationID.x;
    for (uint copy = 0u; copy < COPIES; copy++) {
        counted[256u * copy + lane] = 0u;
    }
    barrier();
    uint copy = 256u * (lane % COPIES);
    uint64_t src = limosa_array(args.src);
    for (uint64_t at = 16ul * limosa_index(); at < args.bytes; at += 16ul * limosa_invocations()) {
        uvec4 words = bytes_at(src, at, args.bytes);
        count_word(copy, words.x);
        count_word(copy, words.y);
        count_word(copy, words.z);
        count_word(copy, words.w);
        if (args.bytes - at < 16ul) {
            // Zeros that stand for no byte were counted, too.
            atomicAdd(counted[copy], uint(args.bytes - at) - 16u);
        }
    }
    barrier();
    uint sum = 0u;
    for (uint copy = 0u; copy < COPIES; copy++) {
        sum += counted[256u * copy + lane];
    }
    if (sum != 0u) {
        atomicAdd(limosa_u64(args.counts, uint64_t(lane)).value, uint64_t(sum));
    }
}
