//! What share of an experiment's assignments each of its groups should have, in
//! two words beside the place of each [name](super::names).
//!
//! ```text
//! expected   buckets of the group (32) | of its experiment (32); 0: nothing is known
//! since      what had been counted there, over all blocks, when that came into force
//! ```
//! The master alone writes. What a new plan changes is withdrawn before any worker
//! has the plan, and what holds from then on is said when all of them use it: no
//! assignment by one plan is held against the shares of another. What a plan leaves
//! as it was counts on.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU64, fence};

use super::names::{PLACE_COUNT, Place};

/// Words of all shares.
pub(super) const WORD_COUNT: usize = 2 * PLACE_COUNT;

/// A group's part of its experiment. Which units ask, and whose segment holds,
/// does not depend on their buckets: so many of the assigned are in the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Buckets of the group, at least 1.
    pub group: u32,
    /// Buckets of all the experiment's groups.
    pub experiment: u32,
}

/// The shares of the names with a place.
#[derive(Debug, Clone, Copy)]
pub struct Shares<'r> {
    words: &'r [AtomicU64],
}

impl<'r> Shares<'r> {
    /// Over zeroed words, or those of shares.
    pub(super) fn new(words: &'r [AtomicU64]) -> Shares<'r> {
        assert_eq!(words.len(), WORD_COUNT, "the shares' own words");
        Shares { words }
    }

    fn of(&self, place: Place) -> Option<(&'r AtomicU64, &'r AtomicU64)> {
        let [expected, since] = self.words.as_chunks::<2>().0.get(usize::from(place.0))?;
        Some((expected, since))
    }

    /// What is expected of a place, and from which count on.
    #[must_use]
    pub fn get(&self, place: Place) -> Option<(Share, u64)> {
        let (expected, since) = self.of(place)?;
        let word = expected.load(Acquire);
        let since = since.load(Relaxed);
        fence(Acquire);
        // Between two shares it is withdrawn.
        if word == 0 || expected.load(Relaxed) != word {
            return None;
        }
        Some((Share { group: (word >> 32) as u32, experiment: word as u32 }, since))
    }

    /// Says what is expected. Only the master may, of a place of which nothing is.
    pub fn expect(&self, place: Place, share: Share, count: u64) {
        if let Some((expected, since)) = self.of(place) {
            since.store(count, Relaxed);
            expected.store(u64::from(share.group) << 32 | u64::from(share.experiment), Release);
        }
    }

    /// Takes it back. Only the master may.
    pub fn withdraw(&self, place: Place) {
        if let Some((expected, _)) = self.of(place) {
            expected.store(0, Relaxed);
            fence(Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_known_from_its_count_on_until_it_is_withdrawn() {
        let words: Vec<AtomicU64> = (0..WORD_COUNT).map(|_| AtomicU64::new(0)).collect();
        let shares = Shares::new(&words);
        let (place, share) = (Place(PLACE_COUNT as u16 - 1), Share { group: 3, experiment: 65_536 });
        assert_eq!(shares.get(place), None);
        shares.expect(place, share, 7);
        assert_eq!(shares.get(place), Some((share, 7)));
        assert_eq!(shares.get(Place(0)), None);
        shares.withdraw(place);
        assert_eq!(shares.get(place), None);
        // `other` has none.
        shares.expect(Place(PLACE_COUNT as u16), share, 7);
        assert_eq!(shares.get(Place(PLACE_COUNT as u16)), None);
    }
}
