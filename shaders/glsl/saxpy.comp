#version 460
// SPDX-License-Identifier: MIT OR Apache-2.0
// y = a * x + y. Any number of invocations shares the elements.
#extension GL_GOOGLE_include_directive : require
#include "limosa.glsl"
layout(local_size_x = 256) in;
LIMOSA_ARGUMENTS(
    uint64_t y;
    uint64_t x;
    uint64_t count;
    float a;
)

// precise: a fused multiply-add would round once, the twin rounds twice.
void main() {
    uint64_t in_fours = limosa_in_fours(args.y | args.x, args.count);
    uint64_t y = limosa_array(args.y), x = limosa_array(args.x);
    for (uint64_t at = 16ul * limosa_index(); at < 4ul * in_fours; at += 16ul * limosa_invocations()) {
        LimosaF32x4 four = LimosaF32x4(limosa_at(y, at));
        precise vec4 value = args.a * LimosaF32x4(limosa_at(x, at)).value + four.value;
        four.value = value;
    }
    for (uint64_t i = in_fours + limosa_index(); i < args.count; i += limosa_invocations()) {
        precise float value = args.a * limosa_f32(args.x, i).value + limosa_f32(args.y, i).value;
        limosa_f32(args.y, i).value = value;
    }
}
