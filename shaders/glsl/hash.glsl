// SPDX-License-Identifier: MIT OR Apache-2.0
//
// The hash that kernels and their CPU twins (src/hash.rs) share. Not for cryptography.

uint64_t hash_mix(uint64_t x) {
    x += 0x9e3779b97f4a7c15ul;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ul;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebul;
    return x ^ (x >> 31);
}

uint64_t hash_three(uint64_t a, uint64_t b, uint64_t c) {
    return hash_mix(a ^ hash_mix(b ^ hash_mix(c)));
}
