//! Names of attributes, units and experiments as the plan's indexes know them.
//!
//! A request brings some twenty names, most of 3 to 20 bytes. Two words that
//! overlap in the middle are a name of up to 16 bytes whole, and two such pairs
//! one of up to 32: so names are hashed by a multiplication or two, and compared
//! word by word, without a call. Names of other sizes are hashed by XXH3. Only
//! the experiments file puts names into an index, so nobody can fill it with
//! names that collide.

use xxhash_rust::xxh3::xxh3_64;

/// All bytes of a name of 1 to 16 bytes; together with the size, no other name.
#[inline(always)]
fn words(name: &[u8]) -> Option<(u64, u64)> {
    if name.len() > 16 {
        return None;
    }
    if let (Some(first), Some(last)) = (name.first_chunk(), name.last_chunk()) {
        return Some((u64::from_le_bytes(*first), u64::from_le_bytes(*last)));
    }
    if let (Some(first), Some(last)) = (name.first_chunk(), name.last_chunk()) {
        return Some((u32::from_le_bytes(*first).into(), u32::from_le_bytes(*last).into()));
    }
    let (first, last) = (*name.first()?, *name.last()?);
    Some((u64::from(first) << 8 | u64::from(name[name.len() / 2]), last.into()))
}

/// The two halves, which overlap, of a name of 17 to 32 bytes.
#[inline(always)]
fn halves(name: &[u8]) -> Option<(u128, u128)> {
    match (name.first_chunk(), name.last_chunk()) {
        (Some(first), Some(last)) if name.len() <= 32 => {
            Some((u128::from_le_bytes(*first), u128::from_le_bytes(*last)))
        }
        _ => None,
    }
}

#[inline(always)]
fn mix(first: u64, last: u64) -> u64 {
    // Digits of pi, as good as any.
    let product = u128::from(first ^ 0x243F_6A88_85A3_08D3) * u128::from(last ^ 0x1319_8A2E_0370_7344);
    (product >> 64) as u64 ^ product as u64
}

/// A name's hash in the indexes of names. It is part of the plan's layout.
#[inline(always)]
pub(in crate::engine) fn name_hash(name: &[u8]) -> u64 {
    let size = name.len() as u64;
    if let Some((first, last)) = words(name) {
        mix(first, last.wrapping_add(size))
    } else if let Some((first, last)) = halves(name) {
        let first = mix(first as u64, (first >> 64) as u64);
        mix(first ^ last as u64, ((last >> 64) as u64).wrapping_add(size))
    } else {
        other_hash(name)
    }
}

/// Are the two names the same?
#[inline(always)]
pub(in crate::engine) fn name_equals(name: &[u8], other: &[u8]) -> bool {
    if name.len() != other.len() {
        false
    } else if let (Some(words), Some(others)) = (words(name), words(other)) {
        words == others
    } else if let (Some(halves), Some(others)) = (halves(name), halves(other)) {
        halves == others
    } else {
        other_equals(name, other)
    }
}

// Out of the way, with the registers they take.

#[cold]
#[inline(never)]
fn other_hash(name: &[u8]) -> u64 {
    xxh3_64(name)
}

#[cold]
#[inline(never)]
fn other_equals(name: &[u8], other: &[u8]) -> bool {
    name == other
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn names_are_equal_where_their_bytes_are(
            name in proptest::collection::vec(0..3u8, 0..40),
            other in proptest::collection::vec(0..3u8, 0..40),
            at in 0..40usize,
        ) {
            prop_assert_eq!(name_equals(&name, &other), name == other);
            prop_assert!(name_equals(&name, &name.clone()));
            prop_assert_eq!(name_hash(&name), name_hash(&name.clone()));
            let mut near = name.clone();
            if let Some(byte) = near.get_mut(at) {
                *byte ^= 1;
                prop_assert!(!name_equals(&name, &near));
            }
        }
    }

    #[test]
    fn names_that_are_alike_hash_far_apart() {
        for stem in ["a", "attribute_", "an_attribute_of_", "a_very_long_attribute_with_a_"] {
            far_apart(stem);
        }
    }

    fn far_apart(stem: &str) {
        // Both halves: one is the place in the index, the other the tag.
        let hashes: Vec<u64> =
            (0..4096).map(|number| name_hash(format!("{stem}{number}").as_bytes())).collect();
        let tags: BTreeSet<u32> = hashes.iter().map(|hash| (hash >> 32) as u32).collect();
        assert!(tags.len() > 4050, "{stem}: {}", tags.len());
        // Of 8192 places 4096 random names take 39 in 100.
        let places: BTreeSet<u64> = hashes.iter().map(|hash| hash & 8191).collect();
        assert!(places.len() > 8192 * 35 / 100, "{stem}: {}", places.len());
    }
}
