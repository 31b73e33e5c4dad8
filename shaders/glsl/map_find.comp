#version 460
// SPDX-License-Identifier: MIT OR Apache-2.0
// Looks keys up in a hashbrown map that the CPU filled, by its control bytes. One invocation a key.
#extension GL_GOOGLE_include_directive : require
#include "limosa.glsl"
#include "hash.glsl"
layout(local_size_x = 256) in;

LIMOSA_ARGUMENTS(
    uint64_t control;
    uint64_t mask;
    uint64_t width;
    uint64_t keys;
    uint64_t values;
    uint64_t count;
    uint64_t missing;
)

const uint EMPTY = 0xffu;
const uint64_t PAIR = 16ul;

// The control byte at `at`. By words, since not every device reads bytes.
uint control_byte(uint64_t at) {
    return limosa_u32(args.control, at >> 2).value >> 8u * (uint(at) & 3u) & 0xffu;
}

// Pairs are stored downwards from the control bytes.
uint64_t pair(uint64_t bucket) {
    return args.control - PAIR * (bucket + 1ul);
}

void main() {
    uint64_t i = limosa_index();
    if (i >= args.count) {
        return;
    }
    uint64_t key = limosa_u64(args.keys, i).value;
    uint64_t hash = hash_mix(key);
    uint tag = uint(hash >> 57);
    uint64_t found = args.missing;
    bool done = args.control == 0ul;
    uint64_t at = hash & args.mask;
    // Groups at triangular distances meet every bucket before the stride exceeds the mask.
    for (uint64_t stride = args.width; !done; stride += args.width) {
        bool has_empty = false;
        for (uint64_t byte = 0ul; byte < args.width && !done; byte++) {
            uint here = control_byte(at + byte);
            has_empty = has_empty || here == EMPTY;
            if (here == tag) {
                uint64_t bucket = pair((at + byte) & args.mask);
                if (limosa_u64(bucket, 0ul).value == key) {
                    found = limosa_u64(bucket, 1ul).value;
                    done = true;
                }
            }
        }
        done = done || has_empty || stride > args.mask + args.width;
        at = (at + stride) & args.mask;
    }
    limosa_u64(args.values, i).value = found;
}
