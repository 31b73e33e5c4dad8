// SPDX-License-Identifier: MIT OR Apache-2.0
//
// limosa.glsl: what a compute kernel includes to follow the CPU's pointers. It declares the kernel's
// arguments, translates pointers and names typed references. It does not check bounds, alignment or null.
//
//     #version 460
//     #extension GL_GOOGLE_include_directive : require
//     #include "limosa.glsl"
//     layout(local_size_x = 256) in;
//     LIMOSA_ARGUMENTS(
//         uint64_t dst;
//         uint64_t count;
//         uint value;
//     )
//     void main() {
//         uint64_t i = limosa_index();
//         if (i < args.count) limosa_u32(args.dst, i).value = args.value;
//     }
//
// Rules for a kernel:
// - A pointer, in memory or in `args`, is a CPU address. Translate it where it is dereferenced, and store it
//   as it was: never write a translated address to memory.
// - Test for null BEFORE translating: null does not stay null.
// - Translate the address of each element (`limosa_u32(p, i)` does; in a loop, `limosa_array` and `limosa_at`
//   cost less), not of an array's start alone: neighbouring parts of an array may lie at different distances
//   from their CPU addresses. An object no larger than its
//   alignment, or that the application keeps within one block, may be translated as a whole.
// - A launch covers at least as many invocations as asked for: compare `limosa_index()` with a count.

#ifndef LIMOSA_GLSL
#define LIMOSA_GLSL

#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference2 : require
#extension GL_EXT_scalar_block_layout : require
#extension GL_EXT_shader_explicit_arithmetic_types : require
#extension GL_EXT_shader_atomic_int64 : require

// Set by the runtime when it builds the pipeline, so that the driver removes the branches not taken.
// 0: CPU and GPU addresses are equal. 1: they differ by one number, `limosa_view`.
// 2: they differ by a number per block, in the table at the GPU address `limosa_view`.
layout(constant_id = 0) const uint LIMOSA_TRANSLATION = 0u;

// Declares the kernel's arguments, `args`, as push constants: 8 bytes that the runtime fills, then the
// fields given here (at most 120 bytes, scalar layout, so as a #[repr(C)] struct has them). One field a
// declaration: a comma would end the macro's argument. It stands after `layout(local_size_x = …) in;`.
#define LIMOSA_ARGUMENTS(fields)                                                     \
    layout(push_constant, scalar) uniform LimosaArguments {                          \
        uint64_t limosa_view;                                                        \
        fields                                                                       \
    } args;                                                                          \
    uint64_t limosa_gpu(uint64_t p) { return limosa_translate(args.limosa_view, p); } \
    uint64_t limosa_invocations() {                                                  \
        return uint64_t(gl_NumWorkGroups.x) * gl_NumWorkGroups.y * gl_WorkGroupSize.x; \
    }                                                                                \
    uint64_t limosa_index() {                                                        \
        return gl_GlobalInvocationID.x + gl_GlobalInvocationID.y                     \
            * (uint64_t(gl_NumWorkGroups.x) * gl_WorkGroupSize.x);                   \
    }

// The GPU address of what the CPU knows as `p`.
uint64_t limosa_gpu(uint64_t p);
// This invocation's number in the launch. A launch wider than the device's limit in x goes on in y.
uint64_t limosa_index();
// How many invocations the launch has: the step of a loop that shares any number of items among them.
uint64_t limosa_invocations();

layout(buffer_reference, scalar, buffer_reference_align = 1) buffer LimosaU8 { uint8_t value; };
layout(buffer_reference, scalar, buffer_reference_align = 4) buffer LimosaU32 { uint value; };
layout(buffer_reference, scalar, buffer_reference_align = 4) buffer LimosaI32 { int value; };
layout(buffer_reference, scalar, buffer_reference_align = 4) buffer LimosaF32 { float value; };
layout(buffer_reference, scalar, buffer_reference_align = 8) buffer LimosaU64 { uint64_t value; };
layout(buffer_reference, scalar, buffer_reference_align = 16) buffer LimosaU32x4 { uvec4 value; };
layout(buffer_reference, scalar, buffer_reference_align = 16) buffer LimosaF32x4 { vec4 value; };

// The header of the table, followed by one delta (wrapping) per block of 1 << shift bytes from base on.
layout(buffer_reference, scalar, buffer_reference_align = 8) readonly buffer LimosaTable {
    uint64_t base;
    uint64_t shift;
};
layout(buffer_reference, scalar, buffer_reference_align = 8) readonly buffer LimosaDelta { uint64_t value; };

uint64_t limosa_translate(uint64_t view, uint64_t p) {
    if (LIMOSA_TRANSLATION == 0u) {
        return p;
    }
    if (LIMOSA_TRANSLATION == 1u) {
        return p + view;
    }
    LimosaTable table = LimosaTable(view);
    uint64_t block = (p - table.base) >> table.shift;
    return p + LimosaDelta(view + 16ul + 8ul * block).value;
}

// Element i of the array at the CPU address p: read or write its `.value`.
LimosaU8 limosa_u8(uint64_t p, uint64_t i) { return LimosaU8(limosa_gpu(p + i)); }
LimosaU32 limosa_u32(uint64_t p, uint64_t i) { return LimosaU32(limosa_gpu(p + 4ul * i)); }
LimosaI32 limosa_i32(uint64_t p, uint64_t i) { return LimosaI32(limosa_gpu(p + 4ul * i)); }
LimosaF32 limosa_f32(uint64_t p, uint64_t i) { return LimosaF32(limosa_gpu(p + 4ul * i)); }
LimosaU64 limosa_u64(uint64_t p, uint64_t i) { return LimosaU64(limosa_gpu(p + 8ul * i)); }
LimosaU32x4 limosa_u32x4(uint64_t p, uint64_t i) { return LimosaU32x4(limosa_gpu(p + 16ul * i)); }
LimosaF32x4 limosa_f32x4(uint64_t p, uint64_t i) { return LimosaF32x4(limosa_gpu(p + 16ul * i)); }

// An array for many accesses by `limosa_at`: translated here, once, where one number serves all of it.
uint64_t limosa_array(uint64_t p) { return LIMOSA_TRANSLATION == 2u ? p : limosa_gpu(p); }
// The GPU address of byte `offset` of an array made by `limosa_array`.
uint64_t limosa_at(uint64_t array, uint64_t offset) {
    return LIMOSA_TRANSLATION == 2u ? limosa_gpu(array + offset) : array + offset;
}

// How many elements of 4 bytes may be handled four at a time: all but a tail of up to 3 where `pointers`,
// the bitwise or of the arrays' addresses, is a multiple of 16, else none.
uint64_t limosa_in_fours(uint64_t pointers, uint64_t count) {
    return (pointers & 15ul) == 0ul ? count & ~3ul : 0ul;
}

#endif
