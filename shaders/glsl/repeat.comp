#version 460
// SPDX-License-Identifier: MIT OR Apache-2.0
// Repeats some bytes along a range, which they do not overlap: a fill by elements of any size, or, as long as the range,
// a copy. Any alignment, any number of invocations. Of a word that the range has in part, the other bytes are written as
// they were.
#extension GL_GOOGLE_include_directive : require
#include "limosa.glsl"
layout(local_size_x = 256) in;
LIMOSA_ARGUMENTS(
    uint64_t dst;
    uint64_t src;
    uint64_t len;
    uint64_t period;
    uint64_t pattern;
)

// Byte i of the range.
uint byte_of(uint64_t i) {
    if (args.src == 0ul) {
        return uint(args.pattern >> (8u * (uint(i) & 7u))) & 0xffu;
    }
    uint64_t at = args.src + i % args.period;
    return limosa_u32(at & ~3ul, 0ul).value >> (8u * (uint(at) & 3u)) & 0xffu;
}

// Four bytes of the range, from byte i on.
uint word_of(uint64_t i) {
    if (args.src == 0ul) {
        uint turn = 8u * (uint(i) & 7u);
        return uint(turn == 0u ? args.pattern : args.pattern >> turn | args.pattern << (64u - turn));
    }
    if (args.period < args.len) {
        return byte_of(i) | byte_of(i + 1ul) << 8 | byte_of(i + 2ul) << 16 | byte_of(i + 3ul) << 24;
    }
    uint64_t at = args.src + i;
    uint turn = 8u * (uint(at) & 3u);
    uint low = limosa_u32(at & ~3ul, 0ul).value;
    // The last of the four bytes lies in the next word, which is there, then.
    return turn == 0u ? low : low >> turn | limosa_u32(at & ~3ul, 1ul).value << (32u - turn);
}

// Writes what the range has of the word at `at`, a multiple of 4.
void write_word(uint64_t at) {
    uint64_t end = args.dst + args.len;
    if (args.dst <= at && at + 4ul <= end) {
        limosa_u32(at, 0ul).value = word_of(at - args.dst);
        return;
    }
    uint word = limosa_u32(at, 0ul).value;
    for (uint i = 0u; i < 4u; i++) {
        if (args.dst <= at + i && at + i < end) {
            word = bitfieldInsert(word, byte_of(at + i - args.dst), int(8u * i), 8);
        }
    }
    limosa_u32(at, 0ul).value = word;
}

void main() {
    uint64_t end = args.dst + args.len;
    // Where words lie alike on both sides, 16 bytes can be moved as they are.
    bool whole = args.src == 0ul || args.period >= args.len && ((args.dst ^ args.src) & 15ul) == 0ul;
    uint64_t first = (args.dst & ~15ul) + 16ul * limosa_index();
    for (uint64_t at = first; at < end; at += 16ul * limosa_invocations()) {
        if (whole && args.dst <= at && at + 16ul <= end) {
            uint64_t i = at - args.dst;
            if (args.src == 0ul) {
                uint even = word_of(i);
                uint odd = word_of(i + 4ul);
                limosa_u32x4(at, 0ul).value = uvec4(even, odd, even, odd);
            } else {
                limosa_u32x4(at, 0ul).value = limosa_u32x4(args.src + i, 0ul).value;
            }
            continue;
        }
        for (uint64_t word = at; word < min(at + 16ul, end); word += 4ul) {
            if (args.dst < word + 4ul) {
                write_word(word);
            }
        }
    }
}
