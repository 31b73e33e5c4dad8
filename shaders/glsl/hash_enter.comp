#version 460
// SPDX-License-Identifier: MIT OR Apache-2.0
// Enters records into an open-addressing hash table, and chains those of equal keys. One invocation a record.
#extension GL_GOOGLE_include_directive : require
#include "limosa.glsl"
layout(local_size_x = 256) in;

LIMOSA_ARGUMENTS(
    uint64_t records;
    uint64_t count;
    uint64_t first;
    uint64_t slots;
    uint64_t mask;
    uint64_t homeless;
    uint parts;
    uint part;
)

// As in src/hash_enter.rs, in words.
const uint64_t RECORD = 32ul;
const uint64_t SLOT = 6ul;
const uint64_t HEAD = 4ul;
const uint64_t COUNT = 5ul;

// Makes the word `value`, unless it is another's. What is there once stays, so all who bring a key end at one slot.
bool claims(uint64_t word, uint value) {
    uint before = atomicCompSwap(limosa_u32(args.slots, word).value, 0u, value);
    return before == 0u || before == value;
}

void main() {
    uint64_t i = limosa_index();
    if (i >= args.count) {
        return;
    }
    uint64_t record = args.records + RECORD * i;
    uvec4 words = limosa_u32x4(record, 0ul).value;
    // A word of a slot that nobody has claimed is zero.
    uvec4 key = max(words, uvec4(1u));
    if (words == uvec4(0u) || (key.w & args.parts) != args.part) {
        return;
    }
    uint64_t at = pack64(key.xy) & args.mask;
    for (uint64_t probes = 0ul; probes <= args.mask; probes++) {
        uint64_t slot = SLOT * at;
        if (claims(slot, key.x) && claims(slot + 1ul, key.y) && claims(slot + 2ul, key.z) && claims(slot + 3ul, key.w)) {
            uint number = uint((record - args.first) / RECORD) + 1u;
            uint before = atomicExchange(limosa_u32(args.slots, slot + HEAD).value, number);
            atomicAdd(limosa_u32(args.slots, slot + COUNT).value, 1u);
            uint64_t next = before == 0u ? 0ul : args.first + RECORD * uint64_t(before - 1u);
            limosa_u64(record, 2ul).value = next;
            return;
        }
        at = (at + 1ul) & args.mask;
    }
    atomicAdd(limosa_u32(args.homeless, 0ul).value, 1u);
}
