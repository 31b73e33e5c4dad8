#version 460
// SPDX-License-Identifier: MIT OR Apache-2.0
// BabelStream's five kernels, one by specialization. Any number of invocations shares the elements; of dot, each
// workgroup writes its part of the sum.
#extension GL_GOOGLE_include_directive : require
#include "limosa.glsl"
layout(local_size_x = 256) in;
LIMOSA_ARGUMENTS(
    uint64_t result;
    uint64_t first;
    uint64_t second;
    uint64_t count;
    float scale;
)
layout(constant_id = 1) const uint OPERATION = 0u;
const uint COPY = 0u;
const uint MUL = 1u;
const uint ADD = 2u;
const uint TRIAD = 3u;
const uint DOT = 4u;

shared float terms[gl_WorkGroupSize.x];

// precise: a fused multiply-add would round once, the twin rounds twice. Not taken branches read nothing.
vec4 value(vec4 first, uint64_t second, uint64_t at) {
    precise vec4 value = first;
    if (OPERATION == MUL) {
        value = args.scale * first;
    } else if (OPERATION == ADD) {
        value = first + LimosaF32x4(limosa_at(second, at)).value;
    } else if (OPERATION == TRIAD) {
        value = first + args.scale * LimosaF32x4(limosa_at(second, at)).value;
    } else if (OPERATION == DOT) {
        value = first * LimosaF32x4(limosa_at(second, at)).value;
    }
    return value;
}

void main() {
    uint64_t result = limosa_array(args.result);
    uint64_t first = limosa_array(args.first), second = limosa_array(args.second);
    vec4 sums = vec4(0.0);
    for (uint64_t at = 16ul * limosa_index(); at < 4ul * args.count; at += 16ul * limosa_invocations()) {
        vec4 each = value(LimosaF32x4(limosa_at(first, at)).value, second, at);
        if (OPERATION == DOT) {
            sums += each;
        } else {
            LimosaF32x4(limosa_at(result, at)).value = each;
        }
    }
    if (OPERATION != DOT) {
        return;
    }
    uint lane = gl_LocalInvocationID.x;
    terms[lane] = (sums.x + sums.y) + (sums.z + sums.w);
    barrier();
    for (uint half_size = gl_WorkGroupSize.x / 2u; half_size > 0u; half_size /= 2u) {
        if (lane < half_size) {
            terms[lane] += terms[lane + half_size];
        }
        barrier();
    }
    if (lane == 0u) {
        limosa_f32(args.result, limosa_index() / gl_WorkGroupSize.x).value = terms[0];
    }
}
