//! The hash that kernels (`glsl/hash.glsl`) and their twins share. Not for cryptography, and not for
//! hash maps that an adversary fills.

pub(crate) fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

pub(crate) fn three(a: u64, b: u64, c: u64) -> u64 {
    mix(a ^ mix(b ^ mix(c)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mix_gives_the_published_sequence() {
        // The first outputs of splitmix64 for the seed 1234567.
        assert_eq!(mix(1_234_567), 6_457_827_717_110_365_317);
        assert_eq!(mix(1_234_567u64.wrapping_add(0x9e37_79b9_7f4a_7c15)), 3_203_168_211_198_807_973);
    }

    #[test]
    fn three_tells_its_arguments_apart() {
        let mut seen = std::collections::BTreeSet::new();
        for a in 0..8 {
            for b in 0..8 {
                for c in 0..8 {
                    assert!(seen.insert(three(a, b, c)));
                }
            }
        }
    }
}
