//! Durations in log-linear buckets: the same ones everywhere, so that what any
//! process counted adds up with what any other did.
//!
//! ```text
//! bucket    0 … 7     8 … 15     16 … 23    …  216 … 223                224
//! up to     128 ns    256 ns     512 ns     …  17.2 s (2^34 ns)         any
//! width     16 ns     16 ns      32 ns      …  1/8 of the octave
//! ```
//! A bucket holds the durations above its lower edge up to and including its
//! upper one, as Prometheus' `le` has it. A quantile is off by at most an eighth.
//!
//! In a block of metrics a histogram is [`WORD_COUNT`] words: the sum of all
//! durations in nanoseconds, then a count a bucket. Its one writer adds to two
//! words; a reader may find the two a moment apart.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Buckets of an octave, as a power of two.
const STEP_BITS: u32 = 3;
const STEP_COUNT: usize = 1 << STEP_BITS;
/// Durations below 2 to this many nanoseconds have buckets of one width.
const FIRST_OCTAVE: u32 = 7;
/// Durations above 2 to this many nanoseconds (17.2 s) share the last bucket.
const END_OCTAVE: u32 = 34;

/// How many buckets there are.
pub const BUCKET_COUNT: usize = ((END_OCTAVE - FIRST_OCTAVE) as usize + 1) * STEP_COUNT + 1;
/// Words of a histogram in a block.
pub const WORD_COUNT: usize = 1 + BUCKET_COUNT;

/// The bucket of a duration.
#[must_use]
#[inline]
pub fn bucket(ns: u64) -> usize {
    // Upper edges are inclusive.
    let below = ns.saturating_sub(1);
    let octave = 63 - (below | 1 << FIRST_OCTAVE).leading_zeros();
    let step = (below >> (octave - STEP_BITS)) as usize;
    ((octave - FIRST_OCTAVE) as usize * STEP_COUNT + step).min(BUCKET_COUNT - 1)
}

/// The longest duration of a bucket, in nanoseconds; none of the last one.
#[must_use]
pub fn upper_edge_ns(bucket: usize) -> Option<u64> {
    if bucket + 1 >= BUCKET_COUNT {
        return None;
    }
    let octave = (bucket / STEP_COUNT).max(1) - 1;
    let step = bucket - octave * STEP_COUNT;
    Some((step as u64 + 1) << (octave as u32 + FIRST_OCTAVE - STEP_BITS))
}

/// Counts `count` durations of `ns` each. Only the block's own process may.
#[inline]
pub(super) fn record(words: &[AtomicU64], ns: u64, count: u64) {
    let add = |word: &AtomicU64, more: u64| word.store(word.load(Relaxed).wrapping_add(more), Relaxed);
    add(&words[0], ns.wrapping_mul(count));
    add(&words[1 + bucket(ns)], count);
}

/// A histogram as it was read; several add up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Histogram {
    /// All durations together, in nanoseconds.
    pub sum_ns: u64,
    /// How many there are in each bucket.
    pub counts: [u64; BUCKET_COUNT],
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram { sum_ns: 0, counts: [0; BUCKET_COUNT] }
    }
}

impl Histogram {
    /// Adds the words of another.
    pub(super) fn add_words(&mut self, words: &[AtomicU64]) {
        self.sum_ns = self.sum_ns.wrapping_add(words[0].load(Relaxed));
        for (count, word) in self.counts.iter_mut().zip(&words[1..]) {
            *count = count.wrapping_add(word.load(Relaxed));
        }
    }

    /// Adds another.
    pub fn add(&mut self, other: &Histogram) {
        self.sum_ns = self.sum_ns.wrapping_add(other.sum_ns);
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count = count.wrapping_add(*more);
        }
    }

    /// What has come since an earlier reading of the same.
    #[must_use]
    pub fn since(&self, earlier: &Histogram) -> Histogram {
        let mut rest = self.clone();
        rest.sum_ns = rest.sum_ns.wrapping_sub(earlier.sum_ns);
        for (count, less) in rest.counts.iter_mut().zip(&earlier.counts) {
            *count = count.saturating_sub(*less);
        }
        rest
    }

    /// How many durations there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The duration that a share of `quantile` (0 to 1) does not exceed, in
    /// nanoseconds: within its bucket as if all lay evenly. None if there are
    /// none; the last edge, if it lies beyond.
    #[must_use]
    pub fn quantile_ns(&self, quantile: f64) -> Option<u64> {
        let count = self.count();
        // The rank, from 1: at least so many are as short.
        let rank = ((quantile * count as f64).ceil() as u64).clamp(1, count.max(1));
        let mut before = 0;
        let mut lower_ns = 0;
        for (bucket, &here) in self.counts.iter().enumerate() {
            let Some(upper_ns) = upper_edge_ns(bucket) else { break };
            if before + here >= rank {
                let width = (upper_ns - lower_ns) as f64;
                return Some(lower_ns + (width * (rank - before) as f64 / here as f64) as u64);
            }
            (before, lower_ns) = (before + here, upper_ns);
        }
        (count > 0).then_some(lower_ns)
    }

    /// Edges of whole and half octaves, in nanoseconds, and how many durations
    /// do not exceed each: what is exported. Counts only grow along the way.
    pub fn cumulative(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let mut sum = 0;
        self.counts.iter().enumerate().filter_map(move |(bucket, count)| {
            sum += count;
            let edge_ns = upper_edge_ns(bucket)?;
            let round = bucket % (STEP_COUNT / 2) == STEP_COUNT / 2 - 1;
            (round && edge_ns >= EXPORTED_EDGE_MIN_NS).then_some((edge_ns, sum))
        })
    }
}

/// The first edge that is exported: nothing a worker does takes less.
const EXPORTED_EDGE_MIN_NS: u64 = 1 << 10;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The plain twin: looks through all edges.
    fn plain_bucket(ns: u64) -> usize {
        (0..BUCKET_COUNT)
            .find(|&bucket| upper_edge_ns(bucket).is_none_or(|edge| ns <= edge))
            .expect("the last has no edge")
    }

    fn of(durations: &[u64]) -> (Histogram, Vec<AtomicU64>) {
        let words: Vec<AtomicU64> = (0..WORD_COUNT).map(|_| AtomicU64::new(0)).collect();
        for &ns in durations {
            record(&words, ns, 1);
        }
        let mut histogram = Histogram::default();
        histogram.add_words(&words);
        (histogram, words)
    }

    /// Durations of every magnitude.
    fn duration() -> impl Strategy<Value = u64> {
        (0u32..64, any::<u64>()).prop_map(|(shift, bits)| bits >> shift)
    }

    #[test]
    fn edges_grow_by_an_eighth_at_most() {
        let edges: Vec<u64> = (0..BUCKET_COUNT).map_while(upper_edge_ns).collect();
        assert_eq!(edges.len(), BUCKET_COUNT - 1);
        assert_eq!(edges[..3], [16, 32, 48]);
        assert_eq!(edges.last(), Some(&(1 << END_OCTAVE)));
        for pair in edges.windows(2) {
            assert!(pair[0] < pair[1]);
            assert!(pair[1] - pair[0] <= (pair[0] / 8).max(16), "{pair:?}");
        }
        for (bucket, &edge) in edges.iter().enumerate() {
            assert_eq!(self::bucket(edge), bucket);
            assert_eq!(self::bucket(edge + 1), bucket + 1);
        }
    }

    #[test]
    fn exported_edges_are_whole_and_half_octaves() {
        let edges: Vec<u64> = of(&[]).0.cumulative().map(|(edge, _)| edge).collect();
        assert_eq!(edges[..4], [1024, 1536, 2048, 3072]);
        assert_eq!(edges.last(), Some(&(1 << END_OCTAVE)));
        assert_eq!(edges.len(), 49);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn a_duration_falls_where_the_plain_search_finds_it(ns in duration()) {
            prop_assert_eq!(bucket(ns), plain_bucket(ns));
        }

        #[test]
        fn a_quantile_is_an_eighth_off_at_most(
            mut durations in prop::collection::vec(duration(), 1..200),
            quantile in 0.0f64..=1.0,
        ) {
            let (histogram, _) = of(&durations);
            durations.sort_unstable();
            let rank = ((quantile * durations.len() as f64).ceil() as usize).max(1);
            let exact = durations[rank - 1];
            let found = histogram.quantile_ns(quantile).unwrap();
            if exact > 1 << END_OCTAVE {
                prop_assert_eq!(found, 1 << END_OCTAVE);
            } else {
                prop_assert!(found.abs_diff(exact) <= (exact / 8).max(16), "{} for {}", found, exact);
            }
        }

        #[test]
        fn histograms_add_up_and_differences_come_back(
            first in prop::collection::vec(duration(), 0..50),
            second in prop::collection::vec(duration(), 0..50),
        ) {
            let ((mut sum, _), (other, words)) = (of(&first), of(&second));
            let before = sum.clone();
            sum.add(&other);
            let both: Vec<u64> = first.iter().chain(&second).copied().collect();
            prop_assert_eq!(&sum, &of(&both).0);
            prop_assert_eq!(&sum.since(&before), &other);
            prop_assert_eq!(sum.count(), both.len() as u64);
            let mut again = before.clone();
            again.add_words(&words);
            prop_assert_eq!(again, sum.clone());
            for (edge, count) in sum.cumulative() {
                prop_assert_eq!(count, both.iter().filter(|&&ns| ns <= edge).count() as u64);
            }
        }

        #[test]
        fn many_of_one_duration_are_as_many_records(ns in 0u64..1 << 40, count in 0u64..1000) {
            let words: Vec<AtomicU64> = (0..WORD_COUNT).map(|_| AtomicU64::new(0)).collect();
            record(&words, ns, count);
            let mut once = Histogram::default();
            once.add_words(&words);
            prop_assert_eq!(once, of(&vec![ns; count as usize]).0);
        }
    }
}
