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

use std::cell::Cell;

use bytemuck::{Pod, Zeroable};

use super::layer::{CHUNK, Run};

/// The leaf that means: does not hold.
pub(super) const FALSE: u32 = 0;
/// The leaf that means: holds.
pub(super) const TRUE: u32 = 1;

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

/// The variants of those of the first `run_count` runs whose segments hold, in some
/// order. Takes `runs` for the work; says how many hold.
///
/// A walk alone is a chain of dependent loads, and where it ends no processor
/// foresees. So every run makes one step, and those that go on make the next:
/// steps of one round do not wait for one another, and nothing branches but a
/// round's end.
#[inline(always)]
pub(super) fn hold(
    leaves: &[Leaf],
    facts: &[u32],
    runs: &mut [Run; CHUNK],
    run_count: usize,
    out: &mut [u32; CHUNK],
) -> usize {
    // Those that go on move to the front while the others are still read.
    let runs = Cell::from_mut(&mut runs[..]).as_slice_of_cells();
    let runs: &[Cell<Run>; CHUNK] = runs.first_chunk().expect("as many as there were");
    let (mut out_count, mut left_count) = (0, run_count);
    while left_count > 0 {
        let mut kept_count = 0;
        for run in &runs[..left_count] {
            let Run { entry, variant } = run.get();
            // From one of the two ends a step leads nowhere else.
            let entry = leaves[entry as usize].lead(facts);
            // No more are kept or put out than there are runs: the remainders tell the compiler.
            runs[kept_count % CHUNK].set(Run { entry, variant });
            kept_count += usize::from(entry > TRUE);
            out[out_count % CHUNK] = variant;
            out_count += usize::from(entry == TRUE);
        }
        left_count = kept_count;
    }
    out_count
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
            let entries = [FALSE, TRUE, 2, 3, 2];
            let alone: Vec<u32> = (0..5).filter(|&n| holds(&leaves, &[word], entries[n as usize])).collect();
            let (mut runs, mut out) = ([Run::NOBODYS; CHUNK], [0; CHUNK]);
            for (variant, entry) in (0..).zip(entries) {
                runs[variant as usize] = Run { entry, variant };
            }
            let count = hold(&leaves, &[word], &mut runs, entries.len(), &mut out);
            out[..count].sort_unstable();
            assert_eq!(out[..count], alone);
            assert_eq!(alone.len(), [1, 3, 4, 4][word as usize]);
        }
    }
}
