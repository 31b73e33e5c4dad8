#version 460
// SPDX-License-Identifier: MIT OR Apache-2.0
// The runtime's start-up self-test: words at a stride, changed on the way so that a write that went
// nowhere, or a read that came from nowhere, shows. One invocation a word.
#extension GL_GOOGLE_include_directive : require
#include "limosa.glsl"
layout(local_size_x = 256) in;
LIMOSA_ARGUMENTS(
    uint64_t dst;
    uint64_t src;
    uint64_t stride_bytes;
    uint64_t count;
    uint mask;
)

void main() {
    uint64_t i = limosa_index();
    if (i < args.count) {
        uint64_t offset = i * args.stride_bytes;
        limosa_u32(args.dst + offset, 0ul).value = limosa_u32(args.src + offset, 0ul).value ^ args.mask;
    }
}
