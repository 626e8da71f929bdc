//! Which bucket a unit falls in: `xxh3_64(salt + ":" + unit) % buckets`, over
//! the UTF-8 bytes, seed 0.
//!
//! This arithmetic is for ever: a change would move every user of every running
//! experiment. The values in the tests come from another implementation and may
//! never be edited.

use xxhash_rust::xxh3::{Xxh3Default, xxh3_64};

use crate::limits::{NAME_SIZE_MAX, UNIT_VALUE_SIZE_MAX};

/// Between salt and unit.
pub const SEPARATOR: u8 = b':';
/// Where the unit begins in [`Salted`]'s buffer: behind the longest salt and the separator.
const UNIT_START: usize = NAME_SIZE_MAX + 1 + (64 - (NAME_SIZE_MAX + 1) % 64);
/// Prefixes up to this size are hashed without being put before the unit.
pub const PREFIX_INLINE_SIZE: usize = 32;

/// The hash of a unit under a salt.
pub fn hash(salt: &str, unit: &str) -> u64 {
    let mut state = Xxh3Default::new();
    state.update(salt.as_bytes());
    state.update(&[SEPARATOR]);
    state.update(unit.as_bytes());
    state.digest()
}

/// The bucket of a unit under a salt; `bucket_count` is at least 1.
pub fn bucket(salt: &str, unit: &str, bucket_count: u32) -> u32 {
    reduce(hash(salt, unit), bucket_count)
}

/// A hash brought into `0..bucket_count`.
#[inline(always)]
pub fn reduce(hash: u64, bucket_count: u32) -> u32 {
    (hash % u64::from(bucket_count)) as u32
}

/// What [`reduce_by`] takes in place of dividing.
pub(super) fn reciprocal(bucket_count: u32) -> u64 {
    u64::MAX / u64::from(bucket_count)
}

/// [`reduce`] by a multiplication: the quotient comes out right or one too small.
#[inline(always)]
pub(super) fn reduce_by(hash: u64, bucket_count: u32, reciprocal: u64) -> u32 {
    let bucket_count = u64::from(bucket_count);
    let quotient = ((u128::from(hash) * u128::from(reciprocal)) >> 64) as u64;
    let rest = hash - quotient * bucket_count;
    (if rest >= bucket_count { rest - bucket_count } else { rest }) as u32
}

/// One unit to be hashed under many salts.
///
/// Prefixes (`salt:`) of one size make texts of one [`Shape`], which is worked
/// out once and then serves every such prefix. A text too short or too long for
/// that is put together: the unit is written once, and each prefix before it.
///
/// ```text
///            UNIT_START
/// ...... salt : │ unit ..........
///        ^ hashed from here to the unit's end
/// ```
#[derive(Clone)]
pub struct Salted {
    buffer: [u8; UNIT_START + UNIT_VALUE_SIZE_MAX],
    end: usize,
}

impl Salted {
    /// With an empty unit.
    pub fn new() -> Salted {
        Salted { buffer: [0; UNIT_START + UNIT_VALUE_SIZE_MAX], end: UNIT_START }
    }

    /// Takes the next unit. No request carries one longer than `UNIT_VALUE_SIZE_MAX`.
    #[inline]
    pub fn set_unit(&mut self, unit: &str) {
        assert!(unit.len() <= UNIT_VALUE_SIZE_MAX, "a unit longer than {UNIT_VALUE_SIZE_MAX} bytes");
        self.end = UNIT_START + unit.len();
        self.buffer[UNIT_START..self.end].copy_from_slice(unit.as_bytes());
    }

    /// The hash under a prefix of any size up to the longest salt's.
    pub fn hash(&mut self, prefix: &[u8]) -> u64 {
        let start = UNIT_START - prefix.len();
        self.buffer[start..UNIT_START].copy_from_slice(prefix);
        xxh3_64(&self.buffer[start..self.end])
    }

    /// What the texts of all prefixes of this size have in common.
    pub(super) fn shape(&mut self, prefix_size: usize) -> Shape {
        let size = prefix_size + self.end - UNIT_START;
        let mut shape = Shape { prefix_size, ..Shape::default() };
        if prefix_size > PREFIX_INLINE_SIZE || !(17..=SHAPED_SIZE_MAX).contains(&size) {
            return shape;
        }
        shape.is_used = true;
        shape.base = (size as u64).wrapping_mul(PRIME_1);
        // Zeros where the prefix will be, so that it can be put in by `xor`.
        let text_start = UNIT_START - prefix_size;
        self.buffer[text_start..UNIT_START].fill(0);
        for pair in 0..size.div_ceil(32) {
            for (start, secret) in
                [(16 * pair, SECRET[2 * pair]), (size - 16 * (pair + 1), SECRET[2 * pair + 1])]
            {
                let unit = read_128(&self.buffer, text_start + start) ^ secret;
                if start >= prefix_size {
                    shape.base = shape.base.wrapping_add(mix(unit));
                } else if start > 0 || prefix_size < HEAD_SIZE {
                    let shared = 8 * (prefix_size - start).min(16) as u32;
                    let prefix_mask = u128::MAX >> (128 - shared);
                    shape.lanes[shape.lane_count] = Lane { start, prefix_mask, unit };
                    shape.lane_count += 1;
                }
            }
        }
        shape
    }
}

/// The longest text that [`Shape`] hashes: up to here XXH3 is a sum over lanes.
const SHAPED_SIZE_MAX: usize = 128;
/// The first 128 bytes of XXH3's secret, as it is laid over the lanes of a text:
/// the first 16 bytes, the last 16, the second 16, the last but one …
const SECRET: [u128; 8] = [
    0x1CAD_21F7_2C81_017C_BE4B_A423_396C_FEB8,
    0x1F67_B3B7_A4A4_4072_DB97_9083_E96D_D4DE,
    0x2172_FFCC_7DD0_5A82_78E5_C0CC_4EE6_79CB,
    0x4C26_3A81_E690_35E0_8E24_43F7_7446_08B8,
    0xA32E_531B_8B65_D088_CB00_C391_BB52_283C,
    0xD8AC_DEA9_46EF_1938_4EF9_0DA2_9748_6471,
    0x1D4F_0BC7_C7BB_DCF9_3F34_9CE3_3F76_FAA8,
    0x6473_78D9_C97E_9FC8_3159_B4CD_4BE0_518A,
];
const PRIME_1: u64 = 0x9E37_79B1_85EB_CA87;
const PRIME_MIX: u64 = 0x1656_6791_9E37_79F9;
/// Of a prefix that has as many bytes, the first make a lane that no unit changes.
const HEAD_SIZE: usize = 16;
/// Lanes of a text that hold bytes of a prefix, the head's apart: two from the
/// front and two from the back.
const LANE_COUNT_MAX: usize = 4;

/// 16 bytes of a text as XXH3 takes them in.
#[derive(Debug, Clone, Copy, Default)]
struct Lane {
    /// Where they begin, in the text and so in the prefix.
    start: usize,
    /// Which bits are the prefix's.
    prefix_mask: u128,
    /// The unit's bytes, if any, and the secret.
    unit: u128,
}

/// How one unit is hashed under every prefix of one size.
///
/// Of a text of 17 to 128 bytes XXH3 adds up a product for each of some lanes, 16
/// bytes each, counted from the text's both ends; for one of 29 bytes:
///
/// ```text
/// h o m e - 7 f 3 a - 0 1 2 3 4 5 6 7 8 9 : 3 4 4 3 8 8 0 1
/// └──────────── head ───────────┘     the prefix alone: made with the plan
///                           └──────────── lane ───────────┘     prefix and unit
/// ```
/// Lanes of the unit alone are summed up in `base`; in the others the unit's part
/// waits for the prefix's.
#[derive(Debug, Clone, Default)]
pub(super) struct Shape {
    prefix_size: usize,
    /// Whether texts of this size are hashed so.
    is_used: bool,
    base: u64,
    lane_count: usize,
    lanes: [Lane; LANE_COUNT_MAX],
}

impl Shape {
    /// The size of the prefixes it is for.
    #[inline(always)]
    pub fn prefix_size(&self) -> usize {
        self.prefix_size
    }

    /// How many lanes hold bytes of a prefix and of the unit; none where the text
    /// must be put together.
    #[inline(always)]
    pub fn lane_count(&self) -> Option<usize> {
        self.is_used.then_some(self.lane_count)
    }

    /// The hash under a prefix that `block` begins with, and its [`head`].
    /// `lane_count` is what [`Shape::lane_count`] says; a caller that knows it as a
    /// constant gets straight code.
    #[inline(always)]
    pub fn hash(&self, lane_count: usize, block: &[u8; BLOCK_SIZE], head: u64) -> u64 {
        let mut sum = self.base.wrapping_add(head);
        for lane in self.lanes.iter().take(lane_count) {
            // `start` is below `PREFIX_INLINE_SIZE`: the remainder tells the compiler.
            let prefix = read_128(block, lane.start % PREFIX_INLINE_SIZE);
            sum = sum.wrapping_add(mix(prefix & lane.prefix_mask ^ lane.unit));
        }
        let mixed = (sum ^ sum >> 37).wrapping_mul(PRIME_MIX);
        mixed ^ mixed >> 32
    }
}

/// What follows a prefix in its block does not matter, but must be there.
pub(super) const BLOCK_SIZE: usize = PREFIX_INLINE_SIZE + 16;

/// What a prefix's first lane adds to every hash under it; 0 if it has none of its own.
pub(super) fn head(prefix: &[u8]) -> u64 {
    if prefix.len() >= HEAD_SIZE { mix(read_128(prefix, 0) ^ SECRET[0]) } else { 0 }
}

#[inline(always)]
fn mix(lane: u128) -> u64 {
    let product = u128::from(lane as u64) * (lane >> 64);
    product as u64 ^ (product >> 64) as u64
}

#[inline(always)]
fn read_128(bytes: &[u8], start: usize) -> u128 {
    let mut block = [0; 16];
    block.copy_from_slice(&bytes[start..start + 16]);
    u128::from_le_bytes(block)
}

impl Default for Salted {
    fn default() -> Salted {
        Salted::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The n-th text of the golden lengths: letters that differ with place and length.
    fn letters(size: usize) -> String {
        (0..size).map(|i| char::from(b'a' + ((i * 7 + size * 3) % 26) as u8)).collect()
    }

    #[test]
    fn hashes_of_salts_and_units_never_change() {
        for (salt, unit, expected, expected_bucket) in golden() {
            let (salt, unit): (&str, &str) = (&salt, &unit);
            assert_eq!(hash(salt, unit), expected, "{salt:?} {unit:?}");
            assert_eq!(bucket(salt, unit, 10_000), expected_bucket, "{salt:?} {unit:?}");
        }
    }

    #[test]
    fn hashes_of_every_length_never_change() {
        for (index, &expected) in GOLDEN_LENGTHS.iter().enumerate() {
            let size = index; // of salt and unit together; the separator is one more
            let (salt, unit) = (letters(size / 2), letters(size - size / 2));
            assert_eq!(bucket(&salt, &unit, 65_521), expected, "length {}", index + 1);
        }
    }

    #[test]
    fn a_unit_written_once_hashes_like_salt_and_unit_joined() {
        let mut salted = Salted::new();
        for salt_size in 0..=NAME_SIZE_MAX {
            for unit_size in (1..40).chain([100, 255, UNIT_VALUE_SIZE_MAX]) {
                let (salt, unit) = (letters(salt_size), letters(unit_size));
                let prefix = [salt.as_bytes(), &[SEPARATOR]].concat();
                salted.set_unit(&unit);
                assert_eq!(salted.hash(&prefix), hash(&salt, &unit));
            }
        }
    }

    #[test]
    fn a_shape_hashes_like_salt_and_unit_joined() {
        let mut salted = Salted::new();
        let mut shaped_count = 0;
        for salt_size in 0..PREFIX_INLINE_SIZE + 3 {
            for unit_size in 1..=SHAPED_SIZE_MAX + 2 {
                let unit = letters(unit_size);
                salted.set_unit(&unit);
                let shape = salted.shape(salt_size + 1);
                assert_eq!(shape.prefix_size(), salt_size + 1);
                // More than one salt for a shape; behind the prefix lies anything.
                for salt in [letters(salt_size), letters(salt_size).to_uppercase()] {
                    let prefix = [salt.as_bytes(), &[SEPARATOR]].concat();
                    let mut block = [0xA5; BLOCK_SIZE];
                    block[..prefix.len()].copy_from_slice(&prefix);
                    let expected = (prefix.len() <= PREFIX_INLINE_SIZE
                        && (17..=SHAPED_SIZE_MAX).contains(&(prefix.len() + unit_size)))
                    .then(|| hash(&salt, &unit));
                    let hashed = shape.lane_count().map(|count| shape.hash(count, &block, head(&prefix)));
                    assert_eq!(hashed, expected, "{salt_size} {unit_size}");
                    shaped_count += usize::from(expected.is_some());
                }
            }
        }
        assert!(shaped_count > 5000);
    }

    #[test]
    fn one_bucket_takes_everybody() {
        assert_eq!(bucket("☃", "42", 1), 0);
    }

    #[test]
    fn multiplying_reduces_like_dividing() {
        let counts = (1..2000).chain([9_999, 10_000, 32_767, 32_768, 65_520, 65_521, 65_535, 65_536]);
        for bucket_count in counts {
            let by = reciprocal(bucket_count);
            let hashes = (0..64).flat_map(|shift| {
                let near = u64::MAX >> shift;
                [
                    near,
                    near - 1,
                    (near / u64::from(bucket_count)) * u64::from(bucket_count),
                    near ^ 0x5555_5555,
                ]
            });
            for hash in hashes {
                assert_eq!(
                    reduce_by(hash, bucket_count, by),
                    reduce(hash, bucket_count),
                    "{hash} {bucket_count}"
                );
            }
        }
    }

    // Both tables were computed with the C library of xxHash (through Python's
    // `xxhash` 4.1), not with the crate used above.

    #[rustfmt::skip]
    fn golden() -> Vec<(String, String, u64, u32)> {
        let (x, y, x40) = ("x".repeat(256), "y".repeat(256), "x".repeat(40));
        let rows: Vec<(&str, &str, u64, u32)> = vec![
            ("", "42", 0x27923b71d77e169f, 3279),
            ("", "u0", 0x9cbb0ccf059620b5, 9125),
            ("", "Москва", 0x5db32c046822b237, 1111),
            ("", "d-1", 0xf59e9cecc7f73600, 80),
            ("", "🦀 rust", 0xee2e29fa1a768f2a, 9274),
            ("", "-7", 0x2669af7b89daac80, 8256),
            ("", "0", 0xd9371d14a0a138b6, 9990),
            ("", "a\"b\\c", 0xd6b7735dd463df69, 6169),
            ("", &x, 0xb36c7462de3539a0, 8528),
            ("s1", "42", 0x7c276629b9ffad5e, 2958),
            ("s1", "u0", 0x6ebae5cd09b06da9, 8713),
            ("s1", "Москва", 0xc5ac35ab5921b528, 7256),
            ("s1", "d-1", 0x9c560d2c2a96ef3a, 1258),
            ("s1", "🦀 rust", 0xf99af8ca241ebc8e, 3454),
            ("s1", "-7", 0x120039a61296e4d5, 6085),
            ("s1", "0", 0x370ea51dbc050d93, 8051),
            ("s1", "a\"b\\c", 0xf644ff6a702ef672, 9058),
            ("s1", &x, 0x90a9e917ee62f6b4, 6356),
            ("a:b", "42", 0xcd7cc2c5237aa3f4, 4004),
            ("a:b", "u0", 0x2b5ffde297a1e665, 9685),
            ("a:b", "Москва", 0xd6aab603a33840ef, 9791),
            ("a:b", "d-1", 0xeaefc621bf3f317f, 3919),
            ("a:b", "🦀 rust", 0xd78222aaa61f842e, 9534),
            ("a:b", "-7", 0xe2fc55898bdad294, 3140),
            ("a:b", "0", 0x9514c261d5dea482, 9954),
            ("a:b", "a\"b\\c", 0x864fff5ad88bfd41, 7761),
            ("a:b", &x, 0xe210b6726f94dd2b, 7931),
            ("☃", "42", 0x38c403137dc6f0a7, 4679),
            ("☃", "u0", 0xafdaaaf6fed417bd, 1117),
            ("☃", "Москва", 0x867be1cf149b7f35, 8949),
            ("☃", "d-1", 0xff7d7edddd19462e, 8974),
            ("☃", "🦀 rust", 0x96f287cfb531945d, 4525),
            ("☃", "-7", 0x504027685ae83953, 7379),
            ("☃", "0", 0xb284292a38693521, 3425),
            ("☃", "a\"b\\c", 0xfcfd828d9d9a7598, 1016),
            ("☃", &x, 0x7f0455b8ff311b8c, 2316),
            ("home-7f3a", "42", 0x39e98e5ed93c028e, 3902),
            ("home-7f3a", "u0", 0x3a8bd105799abc6d, 7053),
            ("home-7f3a", "Москва", 0x4c2bde6e1ab4fcb0, 8960),
            ("home-7f3a", "d-1", 0x6d836b0bab0cf94f, 7439),
            ("home-7f3a", "🦀 rust", 0xf998d42d6d4edec2, 7986),
            ("home-7f3a", "-7", 0x6090c73941b0853f, 7103),
            ("home-7f3a", "0", 0xfe27ce747899ee8a, 3514),
            ("home-7f3a", "a\"b\\c", 0xba53f1d8c13a2d2c, 5836),
            ("home-7f3a", &x, 0xd3c51e260ce7b8fa, 7018),
            ("соль", "42", 0x939fe3af8d90c208, 7160),
            ("соль", "u0", 0x0e3a0680298066c3, 467),
            ("соль", "Москва", 0x5136c3babfa22f42, 8802),
            ("соль", "d-1", 0xb035f8afbebc13e4, 3652),
            ("соль", "🦀 rust", 0xd1d12ae43ed4f029, 8313),
            ("соль", "-7", 0xe1c2df7715b53344, 1812),
            ("соль", "0", 0x5fb2731b35db3ffd, 3133),
            ("соль", "a\"b\\c", 0x159dcf6fd34e31bc, 6252),
            ("соль", &x, 0xaa2b9095ac4db79a, 8602),
            (&x40, "42", 0xfcfc8361f4016409, 3401),
            (&x40, "u0", 0x7ec896f797abfd77, 807),
            (&x40, "Москва", 0x39ef1a2a0832241c, 1516),
            (&x40, "d-1", 0x546d0f7b8a211613, 6323),
            (&x40, "🦀 rust", 0x1fdbc935eacf11f6, 8438),
            (&x40, "-7", 0x100e58b93147389e, 1342),
            (&x40, "0", 0x7d28fddffa3d23f2, 3474),
            (&x40, "a\"b\\c", 0x85b78d64f79cc34b, 7515),
            (&x40, &x, 0x08f2645015b5ba45, 4757),
            (&y, "42", 0xfc001cf314dc648f, 8511),
            (&y, "u0", 0xc29d3e033b06ba05, 3157),
            (&y, "Москва", 0xed80291c03d75374, 1156),
            (&y, "d-1", 0x817d0ca67831ad77, 1783),
            (&y, "🦀 rust", 0x81b2123755245180, 5280),
            (&y, "-7", 0x192c93ad0e68a313, 1059),
            (&y, "0", 0x2ebdba84b21168d7, 3847),
            (&y, "a\"b\\c", 0x2d7651854ae620bf, 399),
            (&y, &x, 0x1082427d7f486cfd, 397),
        ];
        rows.into_iter().map(|(s, u, h, b)| (s.to_owned(), u.to_owned(), h, b)).collect()
    }

    /// Buckets of 65,521 for hashed texts of 1 to 600 bytes.
    #[rustfmt::skip]
    const GOLDEN_LENGTHS: [u32; 600] = [
        2356, 49527, 11159, 979, 7779, 30566, 21094, 3876, 64474, 36425, 23957, 35465, 36172, 2885, 45657,
        13012, 35885, 50714, 4232, 25916, 5211, 13083, 61718, 58204, 38148, 13281, 44339, 21265, 22993, 8453,
        14366, 20969, 30131, 39433, 16002, 8382, 53478, 45613, 7192, 23115, 1546, 53254, 6083, 30191, 14308,
        54257, 17591, 45345, 22375, 12168, 41974, 34112, 37022, 30417, 13459, 27501, 37909, 9281, 10275, 26527,
        5225, 46606, 31836, 22875, 16468, 36257, 51284, 60766, 15780, 32284, 20077, 4826, 23225, 7755, 8732,
        52411, 10481, 27366, 21317, 16068, 21047, 37384, 24494, 52399, 18650, 18725, 18871, 606, 13733, 33382,
        37099, 55532, 21729, 183, 44172, 56977, 29389, 49161, 35387, 52870, 38080, 51567, 31145, 34971, 21070,
        5299, 20, 38990, 61287, 35157, 59838, 41999, 55966, 50400, 3463, 49877, 48720, 19469, 17167, 45310,
        20933, 53015, 30864, 17023, 3578, 9541, 15756, 398, 20253, 651, 38695, 58476, 23317, 50853, 14021,
        14994, 46954, 8758, 40868, 59564, 64282, 59710, 58759, 451, 30946, 16112, 45900, 54478, 62309, 10580,
        36702, 20608, 9312, 29842, 7378, 65434, 37421, 39952, 31334, 61920, 14092, 58871, 15129, 32142, 5469,
        49967, 34751, 23623, 27336, 36692, 9794, 7488, 38028, 3814, 29609, 32341, 41827, 14624, 56778, 39870,
        9811, 61297, 33573, 6896, 54065, 35783, 64739, 62030, 25912, 51211, 26652, 56637, 54713, 53292, 57105,
        41082, 16803, 28765, 25945, 52499, 10876, 58289, 51847, 58550, 24542, 10813, 35312, 32090, 10864, 52229,
        12017, 30241, 7445, 28468, 24819, 29898, 46260, 20569, 58026, 8702, 6925, 30794, 13483, 25190, 28203,
        30780, 37602, 29905, 60058, 57517, 31738, 26141, 47349, 25947, 9326, 33590, 21253, 57317, 57138, 47503,
        37847, 32629, 31534, 8728, 63996, 56523, 35203, 52400, 52434, 24615, 29537, 35844, 35305, 64318, 88,
        11881, 10843, 67, 48394, 30262, 21472, 37621, 46209, 36281, 23651, 22714, 3985, 50020, 49967, 11644,
        18568, 18255, 34696, 33266, 59075, 42107, 14947, 22774, 27258, 48296, 62298, 48089, 25863, 54149, 51637,
        24229, 43278, 15632, 37230, 21229, 6133, 52551, 53224, 45208, 3650, 47459, 15131, 3516, 9766, 21604,
        14169, 58638, 24766, 62750, 44933, 43382, 47873, 29009, 10053, 23293, 16000, 50438, 61431, 19803, 64525,
        39481, 8789, 64258, 35554, 28162, 27086, 40391, 41718, 48408, 10443, 42846, 42311, 54121, 55644, 2362,
        63790, 22566, 64190, 64918, 19728, 40323, 63520, 9184, 9765, 61957, 363, 30850, 19515, 14463, 48893,
        5004, 22935, 5762, 3228, 22099, 17933, 24550, 32125, 47745, 35888, 20036, 24548, 19109, 36633, 22629,
        17983, 41359, 63600, 18736, 48735, 43596, 62257, 9299, 13617, 44854, 492, 3827, 14562, 22785, 29831,
        23174, 54565, 17368, 31118, 59964, 11707, 29938, 64743, 41623, 63213, 60504, 65220, 57994, 52457, 35142,
        28725, 61750, 53213, 63117, 884, 46583, 64653, 47261, 63853, 47801, 7615, 31577, 12724, 3572, 710,
        955, 24511, 12620, 10087, 10681, 26826, 2022, 14981, 877, 33784, 53540, 23928, 39539, 51456, 61847,
        50576, 2872, 38938, 43594, 28747, 52398, 40599, 25601, 27044, 53555, 32502, 51205, 61921, 2164, 12017,
        5339, 42933, 29718, 45243, 64722, 5767, 39607, 42351, 51785, 29949, 49618, 28777, 45937, 32229, 13292,
        29179, 42937, 8019, 50173, 13284, 16445, 44681, 43842, 21809, 8399, 10600, 4784, 11992, 45002, 64942,
        37499, 38338, 39347, 31017, 45895, 23303, 4399, 55991, 14898, 20614, 6319, 28837, 17285, 57691, 26387,
        11856, 53702, 50170, 29906, 48348, 53451, 60441, 24580, 63446, 27597, 38371, 4808, 58475, 1186, 8252,
        47359, 55507, 52306, 26878, 54865, 43742, 64276, 33659, 64920, 55342, 24092, 20914, 21516, 27828, 34833,
        8582, 36437, 19415, 19303, 1986, 55890, 30264, 29336, 19564, 24952, 482, 7687, 28670, 63819, 36373,
        36684, 64219, 50281, 50519, 30432, 16198, 25264, 4221, 29481, 12796, 11390, 50003, 29598, 42189, 47407,
        41612, 12688, 52724, 59258, 30616, 50514, 63945, 59087, 43564, 64362, 14100, 57407, 43509, 13313, 39699,
        48719, 51028, 49921, 43191, 12661, 37431, 13218, 35778, 49244, 25066, 49143, 64734, 15202, 50647, 23392,
        46108, 52659, 19156, 41730, 30108, 19889, 48335, 30144, 58234, 62684, 60816, 23591, 2964, 13331, 1339,
        50774, 18375, 65236, 1301, 8301, 57377, 17794, 19966, 37269, 45005, 37977, 15031, 40872, 41469, 14547,
    ];
}
