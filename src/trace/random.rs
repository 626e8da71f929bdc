//! Ids and dice: nothing that an attacker may not guess, so a generator of a few
//! instructions does (SplitMix64; Steele, Lea and Flood, 2014).

#[derive(Debug)]
pub(super) struct Random(u64);

impl Random {
    /// Seeded from the kernel's random bytes, so that no two workers make the same ids.
    pub(super) fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// An id of OTLP: zero is none.
    pub(super) fn id(&mut self) -> u64 {
        self.next().max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_numbers_are_those_of_the_reference() {
        // Of `splitmix64.c` (Vigna), seeded with 1234567.
        let mut random = Random::new(1_234_567);
        assert_eq!(
            [0; 3].map(|_| random.next()),
            [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]
        );
    }
}
