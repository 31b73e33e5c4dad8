#version 460
// SPDX-License-Identifier: MIT OR Apache-2.0
// Looks keys up in an open-addressing hash table that the CPU filled. One invocation a key.
#extension GL_GOOGLE_include_directive : require
#include "limosa.glsl"
#include "hash.glsl"
layout(local_size_x = 256) in;
layout(buffer_reference, scalar, buffer_reference_align = 16) readonly buffer HashTable {
    uint64_t slots;
    uint64_t mask;
};
layout(buffer_reference, scalar, buffer_reference_align = 16) readonly buffer HashSlot {
    uint64_t key;
    uint64_t value;
};
const uint64_t EMPTY = 0xfffffffffffffffful;

LIMOSA_ARGUMENTS(
    uint64_t table;
    uint64_t keys;
    uint64_t values;
    uint64_t count;
    uint64_t missing;
)

void main() {
    uint64_t i = limosa_index();
    if (i >= args.count) {
        return;
    }
    HashTable table = HashTable(limosa_gpu(args.table));
    uint64_t slots = table.slots, mask = table.mask;
    uint64_t key = limosa_u64(args.keys, i).value;
    uint64_t found = args.missing;
    for (uint64_t at = hash_mix(key) & mask;; at = (at + 1ul) & mask) {
        HashSlot slot = HashSlot(limosa_gpu(slots + 16ul * at));
        uint64_t here = slot.key;
        if (here == EMPTY) {
            break;
        }
        if (here == key) {
            found = slot.value;
            break;
        }
    }
    limosa_u64(args.values, i).value = found;
}
