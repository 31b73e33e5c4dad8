#version 460
// SPDX-License-Identifier: MIT OR Apache-2.0
// Hashes each block of 64 KiB. Any number of workgroups shares the blocks; all of a block is one's business.
#extension GL_GOOGLE_include_directive : require
#include "limosa.glsl"
layout(local_size_x = 256) in;
#include "bytes.glsl"
#include "hash.glsl"
#include "workgroup_sum.glsl"
LIMOSA_ARGUMENTS(
    uint64_t src;
    uint64_t bytes;
    uint64_t hashes;
    uint64_t seed;
)

// As in src/fingerprint.rs.
const uint64_t BLOCK = 65536ul;
const uint64_t FACTOR = 0x9fb21c651e98df25ul;

uint64_t step(uint64_t state, uint low, uint high) {
    state = (state ^ (uint64_t(high) << 32 | low)) * FACTOR;
    return state ^ state >> 32;
}

// The hash of `bytes` bytes, at most a block.
uint64_t hash_of(uint64_t src, uint64_t bytes) {
    uint64_t lane = gl_LocalInvocationID.x;
    uint64_t state = hash_three(args.seed, lane, bytes);
    for (uint64_t at = 16ul * lane; at < bytes; at += 16ul * gl_WorkGroupSize.x) {
        uvec4 words = bytes_at(src, at, bytes);
        state = step(step(state, words.x, words.y), words.z, words.w);
    }
    return hash_mix(workgroup_sum(hash_mix(state)));
}

void main() {
    uint64_t groups = uint64_t(gl_NumWorkGroups.x) * gl_NumWorkGroups.y;
    uint64_t first = gl_WorkGroupID.x + uint64_t(gl_WorkGroupID.y) * gl_NumWorkGroups.x;
    for (uint64_t block = first; block * BLOCK < args.bytes; block += groups) {
        uint64_t hash = hash_of(limosa_array(args.src + block * BLOCK), min(BLOCK, args.bytes - block * BLOCK));
        if (gl_LocalInvocationID.x == 0u) {
            limosa_u64(args.hashes, block).value = hash;
        }
    }
}
