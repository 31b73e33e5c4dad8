#version 460
// SPDX-License-Identifier: MIT OR Apache-2.0
// Copies words between ranges that do not overlap. Any number of invocations shares them.
#extension GL_GOOGLE_include_directive : require
#include "limosa.glsl"
layout(local_size_x = 256) in;
LIMOSA_ARGUMENTS(
    uint64_t dst;
    uint64_t src;
    uint64_t count;
)

void main() {
    uint64_t in_fours = limosa_in_fours(args.dst | args.src, args.count);
    uint64_t dst = limosa_array(args.dst), src = limosa_array(args.src);
    for (uint64_t at = 16ul * limosa_index(); at < 4ul * in_fours; at += 16ul * limosa_invocations()) {
        LimosaU32x4(limosa_at(dst, at)).value = LimosaU32x4(limosa_at(src, at)).value;
    }
    for (uint64_t i = in_fours + limosa_index(); i < args.count; i += limosa_invocations()) {
        limosa_u32(args.dst, i).value = limosa_u32(args.src, i).value;
    }
}
