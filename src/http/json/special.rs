//! Where a JSON string's plain text ends: at `"`, `\`, or a control character.
//!
//! Strings are short: most end within the first sixteen bytes, so one vector
//! of the size that every x86-64 and aarch64 has decides, inlined, where a call
//! of a longer search would cost more than it finds. Where fewer than sixteen
//! bytes are left, a plain `u64` holds eight.

use wide::u8x16;

/// The first byte that does not stand for itself inside a JSON string.
#[inline(always)]
pub(super) fn first_special(bytes: &[u8]) -> Option<usize> {
    match bytes.first_chunk().map(specials) {
        None => first_special_by_words(bytes),
        Some(0) => first_special_behind_16(bytes),
        Some(specials) => Some(specials.trailing_zeros() as usize),
    }
}

/// A bit for each of the bytes that is special.
#[inline(always)]
pub(in crate::http) fn specials(chunk: &[u8; 16]) -> u32 {
    let chunk = u8x16::new(*chunk);
    let controls = chunk.min(u8x16::splat(0x1F)).simd_eq(chunk);
    let quotes = chunk.simd_eq(u8x16::splat(b'"'));
    let slashes = chunk.simd_eq(u8x16::splat(b'\\'));
    (controls | quotes | slashes).to_bitmask()
}

#[inline(never)]
fn first_special_behind_16(bytes: &[u8]) -> Option<usize> {
    let mut at = 16;
    while let Some(chunk) = bytes[at..].first_chunk() {
        let specials = specials(chunk);
        if specials != 0 {
            return Some(at + specials.trailing_zeros() as usize);
        }
        at += 16;
    }
    first_special_by_words(&bytes[at..]).map(|found| at + found)
}

/// [`first_special`] without vectors.
#[inline(never)]
fn first_special_by_words(bytes: &[u8]) -> Option<usize> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const TOPS: u64 = 0x8080_8080_8080_8080;
    let mut at = 0;
    // In each term the lowest flagged byte is a true one: a borrow only ever
    // comes from a flagged byte below.
    while let Some(chunk) = bytes[at..].first_chunk::<8>() {
        let word = u64::from_le_bytes(*chunk);
        let quotes = word ^ (ONES * b'"' as u64);
        let slashes = word ^ (ONES * b'\\' as u64);
        let special = (word.wrapping_sub(ONES * 0x20) & !word)
            | (quotes.wrapping_sub(ONES) & !quotes)
            | (slashes.wrapping_sub(ONES) & !slashes);
        let special = special & TOPS;
        if special != 0 {
            return Some(at + (special.trailing_zeros() / 8) as usize);
        }
        at += 8;
    }
    bytes[at..].iter().position(|&byte| is_special(byte)).map(|found| at + found)
}

/// Whether a byte does not stand for itself inside a JSON string.
#[inline]
pub(in crate::http) fn is_special(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// [`first_special`], plainly.
    fn plain_first_special(bytes: &[u8]) -> Option<usize> {
        bytes.iter().position(|&byte| byte < 0x20 || byte == b'"' || byte == b'\\')
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]
        #[test]
        fn the_searches_by_vectors_and_words_find_what_the_search_by_bytes_finds(
            bytes in proptest::collection::vec(prop_oneof![
                8 => any::<u8>(),
                16 => 0x20..0x7Fu8,
                1 => prop::sample::select(vec![b'"', b'\\', 0, 0x1F, 0x20, 0x21, 0x5B, 0x5D, 0x80, 0xA2, 0xDC, 0xFF]),
            ], 0..70)
        ) {
            prop_assert_eq!(first_special(&bytes), plain_first_special(&bytes));
            prop_assert_eq!(first_special_by_words(&bytes), plain_first_special(&bytes));
        }
    }
}
