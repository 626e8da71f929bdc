//! Layers: from a unit's bucket to the group that owns it.
//!
//! The buckets of a layer are cut into runs, each owned by one group of one
//! running experiment or by nobody; neighbours with one owner are one run, so
//! how a group's buckets were cut into blocks never matters. The last buckets of up
//! to eight runs are in the layer's record; among more, the run of a bucket is found
//! in a search tree of cache lines:
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
//!
//! Most layers have few runs: a decision takes 0.97 of the time that it takes with a
//! line for each layer's.

use bytemuck::{Pod, Zeroable};

use super::bucket::{self, PREFIX_INLINE_SIZE, Salted, Shape};
use super::segment::FALSE;

/// Entries of one line.
pub(super) const LINE_WIDTH: usize = 32;
/// Levels that are enough for a run per bucket: 32^4 > 65,536.
pub(super) const LEVEL_COUNT_MAX: usize = 4;
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
        EndLine(line(entries))
    }

    /// How many entries lie below the bucket.
    #[inline(always)]
    pub fn count_below(&self, bucket: u16) -> usize {
        count_below(&self.0, bucket)
    }
}

/// Last buckets, each by [`order`]; the rest are above every bucket.
fn line<const WIDTH: usize>(entries: &[u16]) -> [i16; WIDTH] {
    let mut line = [order(u16::MAX); WIDTH];
    line.iter_mut().zip(entries).for_each(|(place, &end)| *place = order(end));
    line
}

/// How many entries of a line lie below the bucket.
#[inline(always)]
fn count_below<const WIDTH: usize>(line: &[i16; WIDTH], bucket: u16) -> usize {
    // Becomes a mask of bits and a population count: of 32 entries 3 instructions
    // with AVX-512, 7 with AVX2, 33 on x86-64 without extensions.
    let bucket = order(bucket);
    line.iter().map(|&end| u32::from(end < bucket)).sum::<u32>() as usize
}

/// The owner of a run of buckets, and what it asks of the unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Run {
    /// The first leaf of the experiment's segment; [`FALSE`] where nobody owns the run.
    pub entry: u32,
    /// Which of the plan's variants, if somebody does.
    pub variant: u32,
}

impl Run {
    /// Of buckets that are nobody's.
    pub const NOBODYS: Run = Run { entry: FALSE, variant: 0 };
}

/// Runs of a cache line: a layer that has no more keeps them in one.
pub(super) const RUNS_A_LINE: usize = 8;

/// Layers of one unit kind that lie together because the same is done for each:
/// their prefixes have one size, their trees one height, and they have equally
/// many buckets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Batch {
    /// Of `bucket_count`.
    pub reciprocal: u64,
    /// 1 to 65,536.
    pub bucket_count: u32,
    /// The size of `salt:`.
    pub prefix_size: u16,
    /// Levels of the layers' trees; 0 where their records have the ends.
    pub level_count: u16,
    pub layer_first: u32,
    pub layer_count: u32,
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
    /// The layer's first run.
    pub run_first: u32,
    /// The last run, counted from `run_first`.
    pub run_last: u16,
    /// Zero.
    pub reserved: u16,
    /// The last bucket of each run as an [`EndLine`] has them; in a batch with levels,
    /// the layer's [`Tree`].
    pub ends: [i16; INLINE_WIDTH],
}

/// Runs whose last buckets are in the layer's record.
pub(super) const INLINE_WIDTH: usize = 8;

/// A layer's search tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Tree {
    /// The root: its levels follow one another.
    pub first: u32,
    /// Where each level begins, counted from the root. No tree has more than 2,115
    /// lines; behind the last level, 0.
    pub levels: [u16; LEVEL_COUNT_MAX],
    /// Zero.
    pub reserved: u32,
}

/// One unit in the layers of its kind.
pub(super) struct Draw<'d, 'p> {
    pub salted: &'d mut Salted,
    pub ends: &'p [EndLine],
    pub runs: &'p [Run],
    pub text: &'p [u8],
}

/// Layers looked at before their owners' segments are: what is found stays in
/// the nearest cache.
pub(super) const CHUNK: usize = 128;

impl Draw<'_, '_> {
    /// The runs that the unit's buckets lie in, of up to [`CHUNK`] layers of a batch;
    /// nobody's are left out. Says how many there are.
    #[inline(always)]
    pub fn owners(
        &mut self,
        batch: &Batch,
        layers: &[LayerRecord],
        shape: &Shape,
        out: &mut [Run; CHUNK],
    ) -> usize {
        // What is usual is straight code: few runs, and one lane of salt and unit, or
        // two, as units of up to 16 bytes or of 17 to 32 have them.
        let levels = usize::from(batch.level_count);
        match (shape.lane_count(), levels) {
            (Some(1), 0) => self.owners_by(batch, layers, out, 0, |_, layer| layer.shaped(shape, 1)),
            (Some(2), 0) => self.owners_by(batch, layers, out, 0, |_, layer| layer.shaped(shape, 2)),
            (Some(lanes), _) => {
                self.owners_by(batch, layers, out, levels, |_, layer| layer.shaped(shape, lanes))
            }
            (None, _) => self.owners_by(batch, layers, out, levels, |draw, layer| {
                draw.salted.hash(layer.prefix(batch.prefix_size, draw.text))
            }),
        }
    }

    #[inline(always)]
    fn owners_by(
        &mut self,
        batch: &Batch,
        layers: &[LayerRecord],
        out: &mut [Run; CHUNK],
        level_count: usize,
        hash: impl Fn(&mut Self, &LayerRecord) -> u64,
    ) -> usize {
        let mut count = 0;
        for layer in layers {
            let bucket = bucket::reduce_by(hash(self, layer), batch.bucket_count, batch.reciprocal);
            let run = self.runs[layer.run(self.ends, level_count, bucket)];
            out[count % CHUNK] = run; // below `CHUNK`: the remainder tells the compiler
            count += usize::from(run.entry != FALSE);
        }
        count
    }

    /// The run in one layer.
    pub fn owner(&mut self, batch: &Batch, layer: &LayerRecord) -> Run {
        let hash = self.salted.hash(layer.prefix(batch.prefix_size, self.text));
        let bucket = bucket::reduce_by(hash, batch.bucket_count, batch.reciprocal);
        self.runs[layer.run(self.ends, usize::from(batch.level_count), bucket)]
    }
}

impl LayerRecord {
    #[inline(always)]
    fn shaped(&self, shape: &Shape, lane_count: usize) -> u64 {
        let block = bytemuck::bytes_of(self).first_chunk().expect("a record is longer");
        shape.hash(lane_count, block, self.head)
    }

    fn prefix<'a>(&'a self, size: u16, text: &'a [u8]) -> &'a [u8] {
        match usize::from(size) {
            size @ ..=PREFIX_INLINE_SIZE => &self.prefix[..size],
            size => &text[self.head as usize..][..size],
        }
    }

    /// How many runs there are.
    #[inline(always)]
    pub fn run_count(&self) -> usize {
        usize::from(self.run_last) + 1
    }

    /// The run (index into all runs) that a bucket lies in. A caller that knows
    /// `level_count` as 0 gets straight code.
    #[inline(always)]
    pub fn run(&self, ends: &[EndLine], level_count: usize, bucket: u32) -> usize {
        let bucket = bucket as u16; // below 65,536
        let place = match level_count {
            0 => count_below(&self.ends, bucket),
            _ => self.tree().place(ends, level_count, bucket),
        };
        self.run_first as usize + place
    }

    /// The search tree, in a batch with levels.
    #[inline(always)]
    pub fn tree(&self) -> Tree {
        bytemuck::cast(self.ends)
    }
}

impl Tree {
    #[inline(always)]
    fn place(&self, ends: &[EndLine], level_count: usize, bucket: u16) -> usize {
        let root = self.first as usize;
        let mut place = ends[root].count_below(bucket);
        for &level in self.levels.iter().take(level_count).skip(1) {
            place = place * LINE_WIDTH + ends[root + usize::from(level) + place].count_below(bucket);
        }
        place
    }
}

/// How many levels the tree over some runs has; none where a record has their ends.
pub(super) fn level_count(run_count: usize) -> u16 {
    match run_count {
        ..=INLINE_WIDTH => 0,
        _ => level_sizes(run_count).iter().filter(|&&size| size > 0).count() as u16,
    }
}

/// Where each level of the tree over some runs begins, counted from the root.
pub(super) fn level_starts(run_count: usize) -> [u16; LEVEL_COUNT_MAX] {
    let sizes = level_sizes(run_count);
    let mut starts = [0; LEVEL_COUNT_MAX];
    for level in 1..sizes.iter().filter(|&&size| size > 0).count() {
        starts[level] = starts[level - 1] + sizes[level - 1] as u16;
    }
    starts
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

/// The ends of a record for these last buckets; appends the tree where it needs one.
pub(super) fn push_ends(ends: &mut Vec<EndLine>, run_ends: &[u16]) -> [i16; INLINE_WIDTH] {
    if level_count(run_ends.len()) == 0 {
        return line(run_ends);
    }
    let first = ends.len() as u32;
    let mut levels = vec![run_ends.to_vec()]; // from the leaves up
    while levels[levels.len() - 1].len() > LINE_WIDTH {
        let below = &levels[levels.len() - 1];
        levels.push(below.chunks(LINE_WIDTH).map(|line| line[line.len() - 1]).collect());
    }
    for level in levels.iter().rev() {
        ends.extend(level.chunks(LINE_WIDTH).map(EndLine::new));
    }
    bytemuck::cast(Tree { first, levels: level_starts(run_ends.len()), reserved: 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(run_ends: &[u16]) -> (LayerRecord, usize, Vec<EndLine>) {
        let mut ends = vec![EndLine::new(&[7; LINE_WIDTH])]; // another layer's
        let record_ends = push_ends(&mut ends, run_ends);
        let run_last = (run_ends.len() - 1) as u16;
        let level_count = usize::from(level_count(run_ends.len()));
        let sizes = level_sizes(run_ends.len());
        assert_eq!(ends.len(), 1 + sizes[..level_count].iter().sum::<usize>());
        assert!(level_count == 0 || sizes[level_count..].iter().all(|&size| size == 0));
        (LayerRecord { ends: record_ends, run_last, ..LayerRecord::zeroed() }, level_count, ends)
    }

    #[test]
    fn every_bucket_finds_its_run_in_trees_of_every_height() {
        for run_count in
            [1, 2, 8, 9, 31, 32, 33, 64, 1000, 1023, 1024, 1025, 10_000, 32_768, 32_769, 65_536_usize]
        {
            for bucket_count in [run_count, run_count * 3 / 2 + 1, 65_536] {
                let bucket_count = bucket_count.clamp(run_count, 65_536);
                // runs of uneven sizes that cover all
                let run_ends: Vec<u16> =
                    (1..=run_count).map(|n| (n * bucket_count / run_count - 1) as u16).collect();
                let (record, level_count, ends) = layer(&run_ends);
                for bucket in 0..bucket_count {
                    let expected = run_ends.partition_point(|&end| usize::from(end) < bucket);
                    assert_eq!(
                        record.run(&ends, level_count, bucket as u32),
                        expected,
                        "{run_count} runs, {bucket_count} buckets, bucket {bucket}"
                    );
                }
            }
        }
    }
}
