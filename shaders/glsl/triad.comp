#version 460
// SPDX-License-Identifier: MIT OR Apache-2.0
// a = b + scale * c, the bandwidth measure. Any number of invocations shares the elements.
#extension GL_GOOGLE_include_directive : require
#include "limosa.glsl"
layout(local_size_x = 256) in;
LIMOSA_ARGUMENTS(
    uint64_t a;
    uint64_t b;
    uint64_t c;
    uint64_t count;
    float scale;
)

// precise: a fused multiply-add would round once, the twin rounds twice.
void main() {
    uint64_t in_fours = limosa_in_fours(args.a | args.b | args.c, args.count);
    uint64_t a = limosa_array(args.a), b = limosa_array(args.b), c = limosa_array(args.c);
    for (uint64_t at = 16ul * limosa_index(); at < 4ul * in_fours; at += 16ul * limosa_invocations()) {
        precise vec4 value =
            LimosaF32x4(limosa_at(b, at)).value + args.scale * LimosaF32x4(limosa_at(c, at)).value;
        LimosaF32x4(limosa_at(a, at)).value = value;
    }
    for (uint64_t i = in_fours + limosa_index(); i < args.count; i += limosa_invocations()) {
        precise float value = limosa_f32(args.b, i).value + args.scale * limosa_f32(args.c, i).value;
        limosa_f32(args.a, i).value = value;
    }
}
