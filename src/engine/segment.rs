//! Segments as jump code over facts.
//!
//! A leaf tests one word of facts without branching and says where to go on:
//!
//! ```text
//! next[ (facts[slot] & mask) - low < span ]        (unsigned, wrapping)
//! ```
//!
//! One form serves them all: an interval of ranks (`low`, `span`), one bit
//! (`mask`), any of some bits (`low` 1, `span` u32::MAX) or all of some bits
//! (`low` = `mask`, `span` 1). `all`, `any` and `not` are no code at all, only
//! where the leaves lead.
//!
//! Invariants (held by `compile`, checked by `Plan::open`)
//! - Leaf 0 is *false* and leaf 1 is *true*; both lead to themselves.
//! - Every other leaf leads forward or to one of the two, so every walk ends.

use bytemuck::{Pod, Zeroable};

/// The leaf that means: does not hold.
pub(super) const FALSE: u32 = 0;
/// The leaf that means: holds.
pub(super) const TRUE: u32 = 1;
/// Walks made at once. A walk is a chain of dependent loads, so several beside
/// each other cost little more than one.
pub(super) const LANE_COUNT: usize = 4;

/// One test and where it leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Leaf {
    /// Which word of facts.
    pub slot: u32,
    /// Which of its bits.
    pub mask: u32,
    /// The least value that passes.
    pub low: u32,
    /// How many values from there pass.
    pub span: u32,
    /// The next leaf where the test fails and where it passes.
    pub next: [u32; 2],
}

impl Leaf {
    /// A leaf that only leads to itself.
    pub const fn terminal(index: u32) -> Leaf {
        Leaf { slot: 0, mask: 0, low: 0, span: 0, next: [index; 2] }
    }

    #[inline(always)]
    fn lead(&self, facts: &[u32]) -> u32 {
        let passes = (facts[self.slot as usize] & self.mask).wrapping_sub(self.low) < self.span;
        self.next[usize::from(passes)]
    }
}

/// Whether the segment that begins at `entry` holds.
#[inline]
pub(super) fn holds(leaves: &[Leaf], facts: &[u32], entry: u32) -> bool {
    let mut at = entry;
    while at > TRUE {
        at = leaves[at as usize].lead(facts);
    }
    at == TRUE
}

/// The same for several segments at once.
#[inline(always)]
pub(super) fn hold(leaves: &[Leaf], facts: &[u32], entries: [u32; LANE_COUNT]) -> [bool; LANE_COUNT] {
    let mut at = entries;
    while at.iter().any(|&at| at > TRUE) {
        for lane in &mut at {
            *lane = leaves[*lane as usize].lead(facts);
        }
    }
    at.map(|at| at == TRUE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leaf_expresses_intervals_bits_any_and_all() {
        let leaf = |mask, low, span| Leaf { slot: 0, mask, low, span, next: [FALSE, TRUE] };
        let passes = |leaf: Leaf, word: u32| leaf.lead(&[word]) == TRUE;
        let interval = leaf(u32::MAX, 3, 2);
        assert_eq!([0, 2, 3, 4, 5].map(|word| passes(interval, word)), [false, false, true, true, false]);
        let any = leaf(0b110, 1, u32::MAX);
        assert_eq!([0, 1, 2, 4, 7].map(|word| passes(any, word)), [false, false, true, true, true]);
        let all = leaf(0b110, 0b110, 1);
        assert_eq!([0, 2, 4, 6, 7].map(|word| passes(all, word)), [false, false, false, true, true]);
        let top = leaf(1 << 31, 1, u32::MAX);
        assert_eq!([0, 1 << 31, u32::MAX].map(|word| passes(top, word)), [false, true, true]);
    }

    #[test]
    fn walks_beside_each_other_end_like_walks_alone() {
        // leaf 2: bit 0, else leaf 3; leaf 3: bit 1
        let leaf = |mask, next| Leaf { slot: 0, mask, low: 1, span: u32::MAX, next };
        let leaves =
            [Leaf::terminal(FALSE), Leaf::terminal(TRUE), leaf(1, [3, TRUE]), leaf(2, [FALSE, TRUE])];
        for word in 0..4 {
            let entries = [FALSE, TRUE, 2, 3];
            let alone = entries.map(|entry| holds(&leaves, &[word], entry));
            assert_eq!(hold(&leaves, &[word], entries), alone);
            assert_eq!(alone, [false, true, word != 0, word & 2 != 0]);
        }
    }
}
