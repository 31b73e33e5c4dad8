#version 460
// SPDX-License-Identifier: MIT OR Apache-2.0
// One level of a breadth-first search over a part of the nodes: those on the level give the next one to what they
// point to, if it has none. One invocation a node.
#extension GL_GOOGLE_include_directive : require
#include "limosa.glsl"
layout(local_size_x = 256) in;
const uint UNREACHED = 0xffffffffu;

LIMOSA_ARGUMENTS(
    uint64_t offsets;
    uint64_t targets;
    uint64_t levels;
    uint64_t parts;
    uint64_t first;
    uint64_t count;
    uint level;
    uint part_shift;
)

void main() {
    if (limosa_index() >= args.count) {
        return;
    }
    uint64_t node = args.first + limosa_index();
    if (limosa_u32(args.levels, node).value != args.level) {
        return;
    }
    uint64_t end = uint64_t(limosa_u32(args.offsets, node + 1ul).value);
    uint64_t targets = limosa_array(args.targets), levels = limosa_array(args.levels);
    for (uint64_t edge = uint64_t(limosa_u32(args.offsets, node).value); edge < end; edge++) {
        uint64_t target = uint64_t(LimosaU32(limosa_at(targets, 4ul * edge)).value);
        LimosaU32 level = LimosaU32(limosa_at(levels, 4ul * target));
        // Others may reach it at the same time: one of them does.
        if (level.value == UNREACHED && atomicCompSwap(level.value, UNREACHED, args.level + 1u) == UNREACHED) {
            // All who write it now write the same.
            limosa_u32(args.parts, target >> args.part_shift).value = args.level + 1u;
        }
    }
}
