//! Layers: from a unit's bucket to the group that owns it.
//!
//! The buckets of a layer are cut into runs, each owned by one group of one
//! running experiment or by nobody; neighbours with one owner are one run, so
//! how a group's buckets were cut into blocks never matters. The run of a bucket
//! is found in a search tree of cache lines:
//!
//! ```text
//! level 0   one line of 32 u16: the last bucket under each line of level 1
//! level 1   up to 32 lines …                                (only where needed)
//! leaf      32 u16 a line: the last bucket of each run; padded with 0xFFFF
//! ```
//!
//! In every line the place to go is the number of entries below the bucket,
//! which needs no branch and vectorises. A line keeps its entries less 32,768, as
//! i16: x86-64 without extensions compares lanes of 16 bits as signed only. Runs
//! cover all buckets of the layer, so the search ends at a run, and one line is
//! enough for 32 runs.

use bytemuck::{Pod, Zeroable};

use super::bucket::{self, PREFIX_INLINE_SIZE, Salted, Shape};

/// Entries of one line.
pub(super) const LINE_WIDTH: usize = 32;
/// Levels that are enough for a run per bucket: 32^4 > 65,536.
pub(super) const LEVEL_COUNT_MAX: usize = 4;
/// In place of an experiment: these buckets are nobody's.
pub(super) const NOBODY: u32 = u32::MAX;

/// Last buckets, ascending, each by [`order`]: one cache line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C, align(64))]
pub(super) struct EndLine([i16; LINE_WIDTH]);

/// A bucket as an i16 that compares like it.
#[inline(always)]
fn order(bucket: u16) -> i16 {
    (bucket ^ 0x8000) as i16
}

impl EndLine {
    /// Up to a line of last buckets.
    fn new(entries: &[u16]) -> EndLine {
        let mut line = [order(u16::MAX); LINE_WIDTH];
        line.iter_mut().zip(entries).for_each(|(place, &end)| *place = order(end));
        EndLine(line)
    }

    /// How many entries lie below the bucket.
    #[inline(always)]
    pub fn count_below(&self, bucket: u16) -> usize {
        // Becomes a mask of bits and a population count: 33 instructions on x86-64
        // without extensions, and fewer with them.
        let bucket = order(bucket);
        self.0.iter().map(|&end| u32::from(end < bucket)).sum::<u32>() as usize
    }
}

/// The owner of a run of buckets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C, align(16))]
pub(super) struct Run {
    /// Or [`NOBODY`].
    pub experiment: u32,
    /// Which of the plan's variants.
    pub variant: u32,
    /// The first leaf of the experiment's segment.
    pub entry: u32,
    /// Zero.
    pub reserved: u32,
}

/// A layer in which a running experiment owns a bucket: one cache line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C, align(64))]
pub(super) struct LayerRecord {
    /// `salt:` and zeros where it fits; else zeros. The record is the block that
    /// [`Shape::hash`] reads, so this comes first.
    pub prefix: [u8; PREFIX_INLINE_SIZE],
    /// Of the prefix; of one that does not fit, where it begins in the plan's text.
    pub head: u64,
    /// Of `bucket_count`.
    pub reciprocal: u64,
    /// 1 to 65,536.
    pub bucket_count: u32,
    /// The root of the tree: its levels follow one another.
    pub tree_first: u32,
    /// The layer's first run.
    pub run_first: u32,
    /// The last, counted from there.
    pub run_last: u16,
    /// The size of `salt:`.
    pub prefix_size: u16,
}

impl LayerRecord {
    /// The bucket of the unit that `salted` holds. `shape` is one of that unit's,
    /// and becomes the one for this layer; neighbours mostly share it.
    #[inline(always)]
    pub fn bucket(&self, salted: &mut Salted, shape: &mut Shape, text: &[u8]) -> u32 {
        let prefix_size = usize::from(self.prefix_size);
        if shape.prefix_size() != prefix_size {
            *shape = salted.shape(prefix_size);
        }
        let block = bytemuck::bytes_of(self).first_chunk().expect("a record is longer");
        let hash = match shape.hash(block, self.head) {
            Some(hash) => hash,
            None => salted.hash(self.prefix(text)),
        };
        bucket::reduce_by(hash, self.bucket_count, self.reciprocal)
    }

    fn prefix<'a>(&'a self, text: &'a [u8]) -> &'a [u8] {
        match usize::from(self.prefix_size) {
            size @ ..=PREFIX_INLINE_SIZE => &self.prefix[..size],
            size => &text[self.head as usize..][..size],
        }
    }

    /// How many runs there are.
    #[inline(always)]
    pub fn run_count(&self) -> usize {
        usize::from(self.run_last) + 1
    }

    /// The run (index into all runs) that a bucket lies in.
    #[inline(always)]
    pub fn run(&self, ends: &[EndLine], bucket: u32) -> u32 {
        let tree = &ends[self.tree_first as usize..];
        let place = match self.run_count() <= LINE_WIDTH {
            true => tree[0].count_below(bucket as u16), // below 65,536
            false => descend(tree, self.run_count(), bucket as u16),
        };
        self.run_first + place as u32
    }
}

/// Lines of each level of a tree over some runs, from the root; 0 where there is no level.
pub(super) fn level_sizes(run_count: usize) -> [usize; LEVEL_COUNT_MAX] {
    let mut sizes = [0; LEVEL_COUNT_MAX];
    let mut size = run_count.div_ceil(LINE_WIDTH);
    let mut height = 1;
    while size > 1 {
        size = size.div_ceil(LINE_WIDTH);
        height += 1;
    }
    size = run_count;
    for level in sizes[..height].iter_mut().rev() {
        size = size.div_ceil(LINE_WIDTH);
        *level = size;
    }
    sizes
}

fn descend(tree: &[EndLine], run_count: usize, bucket: u16) -> usize {
    let (mut level, mut place) = (0, 0);
    for size in level_sizes(run_count) {
        if size == 0 {
            break;
        }
        place = place * LINE_WIDTH + tree[level + place].count_below(bucket);
        level += size;
    }
    place
}

/// Appends the tree over the runs' last buckets, and says where its root is.
pub(super) fn push_tree(ends: &mut Vec<EndLine>, run_ends: &[u16]) -> u32 {
    let first = ends.len() as u32;
    let mut levels = vec![run_ends.to_vec()]; // from the leaves up
    while levels[levels.len() - 1].len() > LINE_WIDTH {
        let below = &levels[levels.len() - 1];
        levels.push(below.chunks(LINE_WIDTH).map(|line| line[line.len() - 1]).collect());
    }
    for level in levels.iter().rev() {
        ends.extend(level.chunks(LINE_WIDTH).map(EndLine::new));
    }
    first
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(run_ends: &[u16], bucket_count: u32) -> (LayerRecord, Vec<EndLine>) {
        let mut ends = vec![EndLine::new(&[7; LINE_WIDTH])]; // another layer's
        let tree_first = push_tree(&mut ends, run_ends);
        let run_last = (run_ends.len() - 1) as u16;
        assert_eq!(ends.len(), 1 + level_sizes(run_ends.len()).iter().sum::<usize>());
        let record = LayerRecord { tree_first, run_last, bucket_count, ..LayerRecord::zeroed() };
        (record, ends)
    }

    #[test]
    fn every_bucket_finds_its_run_in_trees_of_every_height() {
        for run_count in [1, 2, 31, 32, 33, 64, 1000, 1023, 1024, 1025, 10_000, 32_768, 32_769, 65_536_usize]
        {
            for bucket_count in [run_count, run_count * 3 / 2 + 1, 65_536] {
                let bucket_count = bucket_count.clamp(run_count, 65_536);
                // runs of uneven sizes that cover all
                let run_ends: Vec<u16> =
                    (1..=run_count).map(|n| (n * bucket_count / run_count - 1) as u16).collect();
                let (record, ends) = layer(&run_ends, bucket_count as u32);
                for bucket in 0..bucket_count {
                    let expected = run_ends.partition_point(|&end| usize::from(end) < bucket);
                    assert_eq!(
                        record.run(&ends, bucket as u32),
                        expected as u32,
                        "{run_count} runs, {bucket_count} buckets, bucket {bucket}"
                    );
                }
            }
        }
    }
}
