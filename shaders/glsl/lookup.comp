#version 460
// SPDX-License-Identifier: MIT OR Apache-2.0
// Looks keys up in a binary search tree that the CPU linked by pointers. One invocation a key.
#extension GL_GOOGLE_include_directive : require
#include "limosa.glsl"
layout(local_size_x = 256) in;
layout(buffer_reference, scalar, buffer_reference_align = 8) readonly buffer TreeNode {
    uint64_t key;
    uint64_t value;
    uint64_t left;
    uint64_t right;
};

LIMOSA_ARGUMENTS(
    uint64_t root;
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
    uint64_t key = limosa_u64(args.keys, i).value;
    uint64_t found = args.missing;
    uint64_t pointer = args.root;
    while (pointer != 0ul) {
        TreeNode node = TreeNode(limosa_gpu(pointer));
        uint64_t here = node.key;
        if (here == key) {
            found = node.value;
            break;
        }
        pointer = key < here ? node.left : node.right;
    }
    limosa_u64(args.values, i).value = found;
}
