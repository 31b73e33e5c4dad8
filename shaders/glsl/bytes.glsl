// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Bytes as kernels read them: 16 at a time, from addresses that are multiples of 16.

// The 16 bytes from byte `at` on of an array made by `limosa_array`; those beyond `count` are zeros.
uvec4 bytes_at(uint64_t array, uint64_t at, uint64_t count) {
    uvec4 words = LimosaU32x4(limosa_at(array, at)).value;
    if (count - at < 16ul) {
        // How many bytes of each word count: none of those behind the end, all of those before.
        ivec4 left = clamp(ivec4(int(count - at)) - ivec4(0, 4, 8, 12), 0, 4);
        words &= mix(uvec4(0xffffffffu), (uvec4(1u) << uvec4(8 * left)) - 1u, lessThan(left, ivec4(4)));
    }
    return words;
}
