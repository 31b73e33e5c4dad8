#version 460
// SPDX-License-Identifier: MIT OR Apache-2.0
// Adds the sum of 32-bit words to a 64-bit total. Any number of invocations shares the words.
#extension GL_GOOGLE_include_directive : require
#include "limosa.glsl"
layout(local_size_x = 256) in;
#include "workgroup_sum.glsl"
LIMOSA_ARGUMENTS(
    uint64_t src;
    uint64_t total;
    uint64_t count;
)

void main() {
    uint64_t sum = 0ul;
    uint64_t src = limosa_array(args.src);
    for (uint64_t at = 4ul * limosa_index(); at < 4ul * args.count; at += 4ul * limosa_invocations()) {
        sum += LimosaU32(limosa_at(src, at)).value;
    }
    sum = workgroup_sum(sum);
    if (gl_LocalInvocationID.x == 0u) {
        atomicAdd(limosa_u64(args.total, 0ul).value, sum);
    }
}
