#version 460
// SPDX-License-Identifier: MIT OR Apache-2.0
// Adds the fingerprint of each block that the CPU lists to the block's record. Workgroup (x, y) does piece x of block y.
#extension GL_GOOGLE_include_directive : require
#include "limosa.glsl"
layout(local_size_x = 256) in;
#include "bytes.glsl"
#include "hash.glsl"
layout(buffer_reference, scalar, buffer_reference_align = 32) readonly buffer DigestBlock {
    uint64_t source;
    uint64_t record;
    uint bytes;
    uint file;
    uint number;
};
layout(buffer_reference, scalar, buffer_reference_align = 32) buffer DigestRecord {
    uint key[4];
    uint64_t next;
    uint file;
    uint number;
};

LIMOSA_ARGUMENTS(
    uint64_t blocks;
)

// As in src/digest.rs.
const uint PIECE = 65536u;
const uint SUMS = 16u;
shared uvec4 terms[gl_WorkGroupSize.x];

uint rotated(uint word, uint bits) {
    return word << bits | word >> (32u - bits);
}

// ChaCha's quarter round.
uvec4 absorb(uvec4 state, uvec4 words) {
    state ^= words;
    state.x += state.y;
    state.w = rotated(state.w ^ state.x, 16u);
    state.z += state.w;
    state.y = rotated(state.y ^ state.z, 12u);
    state.x += state.y;
    state.w = rotated(state.w ^ state.x, 8u);
    state.z += state.w;
    state.y = rotated(state.y ^ state.z, 7u);
    return state;
}

// What a lane adds to the fingerprint of a block of `of_bytes` bytes, for its share of the `bytes` bytes of a piece.
uvec4 term(uint64_t src, uint64_t bytes, uint64_t lane, uint64_t of_bytes) {
    uint64_t low = hash_mix(lane ^ hash_mix(of_bytes));
    uvec4 state = uvec4(unpack32(low), unpack32(hash_mix(low)));
    for (uint64_t at = 16ul * gl_LocalInvocationID.x; at < bytes; at += 16ul * gl_WorkGroupSize.x) {
        state = absorb(state, bytes_at(src, at, bytes));
    }
    uint64_t high = pack64(state.zw);
    low = hash_mix(pack64(state.xy) ^ hash_mix(high));
    return uvec4(unpack32(low), unpack32(hash_mix(high ^ low)));
}

void main() {
    DigestBlock block = DigestBlock(limosa_gpu(args.blocks + 32ul * gl_WorkGroupID.y));
    uint bytes = block.bytes;
    uint start = PIECE * gl_WorkGroupID.x;
    if (start >= bytes) {
        return;
    }
    uint lane = gl_LocalInvocationID.x;
    uint64_t src = limosa_array(block.source + start);
    uint64_t lane_of_block = uint64_t(gl_WorkGroupID.x) * gl_WorkGroupSize.x + lane;
    terms[lane] = term(src, uint64_t(min(PIECE, bytes - start)), lane_of_block, uint64_t(bytes));
    // In two steps: fewer barriers than a tree has.
    barrier();
    if (lane < SUMS) {
        for (uint other = lane + SUMS; other < gl_WorkGroupSize.x; other += SUMS) {
            terms[lane] += terms[other];
        }
    }
    barrier();
    if (lane == 0u) {
        uvec4 sum = terms[0];
        for (uint other = 1u; other < SUMS; other++) {
            sum += terms[other];
        }
        DigestRecord record = DigestRecord(limosa_gpu(block.record));
        for (uint word = 0u; word < 4u; word++) {
            atomicAdd(record.key[word], sum[word]);
        }
        if (start == 0u) {
            record.file = block.file;
            record.number = block.number;
        }
    }
}
