#version 460
// SPDX-License-Identifier: MIT OR Apache-2.0
// Writes one value to every word. Any number of invocations shares them.
#extension GL_GOOGLE_include_directive : require
#include "limosa.glsl"
layout(local_size_x = 256) in;
LIMOSA_ARGUMENTS(
    uint64_t dst;
    uint64_t count;
    uint value;
)

void main() {
    uint64_t in_fours = limosa_in_fours(args.dst, args.count);
    uint64_t dst = limosa_array(args.dst);
    for (uint64_t at = 16ul * limosa_index(); at < 4ul * in_fours; at += 16ul * limosa_invocations()) {
        LimosaU32x4(limosa_at(dst, at)).value = uvec4(args.value);
    }
    for (uint64_t i = in_fours + limosa_index(); i < args.count; i += limosa_invocations()) {
        limosa_u32(args.dst, i).value = args.value;
    }
}
