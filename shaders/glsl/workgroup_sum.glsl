// SPDX-License-Identifier: MIT OR Apache-2.0
//
// The sum of one number per invocation over a workgroup whose size is a power of two. It stands after
// `layout(local_size_x = …) in;` and is called by all invocations of the workgroup, or none.

shared uint64_t workgroup_terms[gl_WorkGroupSize.x];

uint64_t workgroup_sum(uint64_t term) {
    uint lane = gl_LocalInvocationID.x;
    // The terms of a former call may still be read by others.
    barrier();
    workgroup_terms[lane] = term;
    barrier();
    for (uint half_size = gl_WorkGroupSize.x / 2u; half_size > 0u; half_size /= 2u) {
        if (lane < half_size) {
            workgroup_terms[lane] += workgroup_terms[lane + half_size];
        }
        barrier();
    }
    return workgroup_terms[0];
}
