#version 460
// SPDX-License-Identifier: MIT OR Apache-2.0
// One iteration of PageRank over structs that the CPU linked by pointers. One invocation a node, which
// pulls along the list of its in-edges. The totals are integers, so their order of addition is no matter.
#extension GL_GOOGLE_include_directive : require
#include "limosa.glsl"
layout(local_size_x = 256) in;
#include "workgroup_sum.glsl"

layout(buffer_reference, scalar, buffer_reference_align = 8) buffer Node {
    uint64_t first_in;
    float rank;
    float weight;
    float share[2];
    float change;
    uint out_degree;
};
layout(buffer_reference, scalar, buffer_reference_align = 8) readonly buffer Edge {
    uint64_t source;
    uint64_t next;
};
// Three slots in turn: one is read, one is added to, one is cleared for the next iteration.
layout(buffer_reference, scalar, buffer_reference_align = 8) buffer Totals {
    uint64_t dangling[3];
    uint64_t residual[3];
};

LIMOSA_ARGUMENTS(
    uint64_t nodes;
    uint64_t node_stride;
    uint64_t count;
    uint64_t totals;
    float inverse_count;
    float damping;
    uint iteration;
)

const float SCALE = 72057594037927936.0; // 2^56, as in src/pagerank.rs

void main() {
    Totals totals = Totals(limosa_gpu(args.totals));
    uint parity = args.iteration & 1u;
    uint from = args.iteration % 3u;
    uint to = (args.iteration + 1u) % 3u;
    uint64_t i = limosa_index();
    uint64_t dangling = 0ul;
    uint64_t residual = 0ul;
    if (i < args.count) {
        Node node = Node(limosa_gpu(args.nodes + i * args.node_stride));
        // precise, and no division: the twin computes the same bits.
        precise float pulled = 0.0;
        uint64_t edge_pointer = node.first_in;
        while (edge_pointer != 0ul) {
            Edge edge = Edge(limosa_gpu(edge_pointer));
            pulled += Node(limosa_gpu(edge.source)).share[parity];
            edge_pointer = edge.next;
        }
        float lost = float(totals.dangling[from]) * (1.0 / SCALE);
        precise float spread = lost * args.inverse_count;
        precise float base = (1.0 - args.damping) * args.inverse_count;
        precise float rank = base + args.damping * (pulled + spread);
        precise float change = abs(rank - node.rank);
        precise float share = rank * node.weight;
        node.rank = rank;
        node.change = change;
        node.share[1u - parity] = share;
        residual = uint64_t(change * SCALE);
        if (node.out_degree == 0u) {
            dangling = uint64_t(rank * SCALE);
        }
    }
    dangling = workgroup_sum(dangling);
    residual = workgroup_sum(residual);
    if (gl_LocalInvocationID.x == 0u) {
        atomicAdd(totals.dangling[to], dangling);
        atomicAdd(totals.residual[to], residual);
    }
    if (i == 0ul) {
        uint next = (args.iteration + 2u) % 3u;
        totals.dangling[next] = 0ul;
        totals.residual[next] = 0ul;
    }
}
