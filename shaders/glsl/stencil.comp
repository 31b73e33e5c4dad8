#version 460
// SPDX-License-Identifier: MIT OR Apache-2.0
// One step of heat on a plate: each inner cell becomes the mean of its four neighbours, the rim stays as it is.
// One invocation a cell.
#extension GL_GOOGLE_include_directive : require
#include "limosa.glsl"
layout(local_size_x = 256) in;
LIMOSA_ARGUMENTS(
    uint64_t next;
    uint64_t now;
    uint width;
    uint height;
)

void main() {
    uint64_t i = limosa_index();
    uint64_t width = uint64_t(args.width);
    if (i >= width * args.height) {
        return;
    }
    uint x = uint(i % width), y = uint(i / width);
    uint64_t now = limosa_array(args.now);
    float value;
    if (x == 0u || y == 0u || x == args.width - 1u || y == args.height - 1u) {
        value = LimosaF32(limosa_at(now, 4ul * i)).value;
    } else {
        // In the order of the twin.
        precise float sum = LimosaF32(limosa_at(now, 4ul * (i - width))).value
            + LimosaF32(limosa_at(now, 4ul * (i + width))).value;
        sum = sum + LimosaF32(limosa_at(now, 4ul * (i - 1ul))).value;
        sum = sum + LimosaF32(limosa_at(now, 4ul * (i + 1ul))).value;
        value = 0.25 * sum;
    }
    limosa_f32(args.next, i).value = value;
}
