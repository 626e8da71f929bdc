//! The plan as bytes.
//!
//! ```text
//! ┌ Header: magic, layout version, size, checksums, maxima, where each table lies
//! ├ tables, each beginning at a cache line, each of rows of one plain type
//! └ (padding to a cache line)
//! ```
//! Rows refer to one another by index, and to texts by [`Span`]; there are no
//! pointers, so the same bytes serve every process that maps them.
//!
//! Adding a table is one row in `tables!` below, and its checks in `verify`.
//! Whatever changes the meaning of the bytes raises [`LAYOUT_VERSION`].

use std::ops::Range;

use bytemuck::{Pod, Zeroable};
use xxhash_rust::xxh3::xxh3_64;

use super::PlanFault;
use crate::engine::layer::{Batch, EndLine, LayerRecord, Run};
use crate::engine::operator::DfaRecord;
use crate::engine::segment::Leaf;

/// The first bytes of every plan.
pub(in crate::engine) const MAGIC: [u8; 8] = *b"splitd\0P";
/// How the bytes behind the magic are to be read.
pub(in crate::engine) const LAYOUT_VERSION: u32 = 6;
/// In place of an index: there is none.
pub(in crate::engine) const NONE: u32 = u32::MAX;

/// A piece of the plan's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Pod, Zeroable)]
#[repr(C)]
pub(in crate::engine) struct Span {
    pub start: u32,
    pub size: u32,
}

impl Span {
    /// The same as a range.
    #[inline(always)]
    pub fn range(self) -> Range<usize> {
        let start = self.start as usize;
        start..start + self.size as usize
    }
}

/// A hash table within `slots`: a power of two of them, less than half taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Pod, Zeroable)]
#[repr(C)]
pub(in crate::engine) struct Index {
    pub first: u32,
    pub mask: u32,
}

/// A place of a hash table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub(in crate::engine) struct Slot {
    /// The upper half of the key's hash.
    pub tag: u32,
    /// What the key stands for, or [`NONE`].
    pub index: u32,
}

/// A kind of unit, and the layers it decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub(in crate::engine) struct UnitKindRecord {
    pub name: Span,
    pub batch_first: u32,
    pub batch_count: u32,
    /// 1 if an override lists a unit of it.
    pub has_overrides: u32,
}

/// An experiment of any state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub(in crate::engine) struct ExperimentRecord {
    pub name: Span,
    pub json: Span,
    /// Its layer, if it runs and owns a bucket.
    pub layer: u32,
    /// Its layer's unit kind.
    pub unit_kind: u32,
}

/// What one assignment adds to an answer and to an exposure, ready to be copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub(in crate::engine) struct VariantRecord {
    pub answer: Span,
    /// Directly behind the answer in the text.
    pub exposure_size: u32,
    pub experiment: u32,
    pub group: u32,
    /// Buckets it is drawn for; 0 if an override chose.
    pub bucket_count: u32,
    /// Size 0: no payload.
    pub payload: Span,
}

/// A declared attribute and how its values become facts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub(in crate::engine) struct AttributeRecord {
    pub name: Span,
    /// An `AttributeKind`.
    pub kind: u32,
    /// Its first word of facts, and how many are its own (at least one).
    pub slot: u32,
    pub word_count: u32,
    /// Its thresholds (`numbers`, `versions`) or literals (`literals`).
    pub first: u32,
    pub count: u32,
    /// One row of truth bits for each of those, from here in `rows`; or [`NONE`].
    pub row_first: u32,
    pub pattern_first: u32,
    pub pattern_count: u32,
    /// Literals by their text.
    pub index: Index,
}

/// Truth bits of one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub(in crate::engine) struct RowBits {
    /// Which of the attribute's words.
    pub word: u32,
    pub bits: u32,
}

/// A text operator, evaluated on every value of its attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub(in crate::engine) struct PatternRecord {
    /// An `Operator`.
    pub operator: u32,
    /// Which of the attribute's words, and which of its bits, tell whether it holds.
    pub word: u32,
    pub bits: u32,
    /// The operand's text; for `Matches`, `start` is the index of the DFA.
    pub operand: Span,
}

/// A unit that overrides list, and its entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub(in crate::engine) struct OverrideKeyRecord {
    pub unit_kind: u32,
    pub value: Span,
    pub entry_first: u32,
    pub entry_count: u32,
}

/// One experiment that lists the unit; a key's entries ascend by experiment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub(in crate::engine) struct OverrideRecord {
    pub experiment: u32,
    /// Where it lists the unit under several kinds, the first variant counts.
    pub variant: u32,
}

/// Where a table lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Pod, Zeroable)]
#[repr(C)]
pub(in crate::engine) struct Extent {
    /// Offset within the image.
    pub start: u64,
    /// Rows.
    pub count: u64,
}

macro_rules! tables {
    ($($(#[$doc:meta])* $name:ident: $row:ty,)*) => {
        /// How many tables there are.
        pub(in crate::engine) const TABLE_COUNT: usize = [$(stringify!($name)),*].len();

        /// Every table of an image.
        #[derive(Debug, Clone, Copy)]
        pub(in crate::engine) struct Tables<'p> {
            $($(#[$doc])* pub $name: &'p [$row],)*
        }

        impl<'p> Tables<'p> {
            /// Views of the tables where the header says they lie.
            fn view(bytes: &'p [u8], extents: &[Extent; TABLE_COUNT]) -> Result<Tables<'p>, PlanFault> {
                let mut extents = extents.iter();
                Ok(Tables { $($name: view(bytes, *extents.next().unwrap_or(&OUTSIDE), stringify!($name))?,)* })
            }
        }

        /// Every table in the making.
        #[derive(Debug, Default)]
        pub(in crate::engine) struct TablesBuilder {
            $($(#[$doc])* pub $name: Vec<$row>,)*
        }

        impl TablesBuilder {
            fn contents(&self) -> [(&[u8], usize); TABLE_COUNT] {
                [$((bytemuck::cast_slice(&self.$name), self.$name.len()),)*]
            }
        }
    };
}

tables! {
    /// Unit kinds that a layer or an override names.
    kinds: UnitKindRecord,
    /// Layers that are treated alike, those of one unit kind together.
    batches: Batch,
    /// Layers in which a running experiment owns a bucket, those of one batch together.
    layers: LayerRecord,
    /// Search trees of the layers.
    ends: EndLine,
    /// Owners of runs of buckets.
    runs: Run,
    /// Segments of running experiments.
    leaves: Leaf,
    /// Assignments that can come out, in the order of experiments; an experiment's
    /// forced ones first, by unit kind as its overrides name them.
    variants: VariantRecord,
    /// Experiments of all states, in the file's order.
    experiments: ExperimentRecord,
    /// Declared attributes, in the file's order.
    attributes: AttributeRecord,
    /// Thresholds of `number` attributes, ascending within each.
    numbers: f64,
    /// Thresholds of `version` attributes, ascending within each.
    versions: u128,
    /// Texts that `string` and `string_list` attributes are compared with.
    literals: Span,
    /// Where the truth bits of each threshold or literal begin; one more at the end of an attribute's.
    rows: u32,
    /// Truth bits of sets.
    row_bits: RowBits,
    /// Text operators.
    patterns: PatternRecord,
    /// Regular expressions.
    dfas: DfaRecord,
    /// Their maps from bytes to classes.
    dfa_classes: [u8; 256],
    /// Their transitions.
    dfa_transitions: u16,
    /// All hash tables.
    slots: Slot,
    /// Units that overrides list.
    override_keys: OverrideKeyRecord,
    /// Where they force them.
    overrides: OverrideRecord,
    /// Names, salts, operands and the fragments of answers and exposures.
    text: u8,
    /// The experiments file ([`super::Plan::source`]). The last table, so that a
    /// worker, which never looks at it, need not touch it (`Plan::working_size`).
    source: u8,
}

impl<'p> Tables<'p> {
    /// The batch that a layer is in.
    pub fn batch_of(&self, layer: usize) -> Option<&'p Batch> {
        // They lie in the order of their layers.
        let behind = self.batches.partition_point(|batch| batch.layer_first as usize <= layer);
        let batch = self.batches[..behind].last()?;
        (layer - (batch.layer_first as usize) < batch.layer_count as usize).then_some(batch)
    }
}

/// A place that no image has.
const OUTSIDE: Extent = Extent { start: u64::MAX, count: 0 };

/// What an image begins with.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(in crate::engine) struct Header {
    pub magic: [u8; 8],
    pub layout_version: u32,
    pub table_count: u32,
    /// Of the whole image.
    pub size: u64,
    /// Of the header, with this field 0.
    pub header_checksum: u64,
    /// Of all that follows the header.
    pub body_checksum: u64,
    pub answer_size_max: u64,
    pub exposure_size_max: u64,
    /// Words of facts.
    pub fact_count: u32,
    /// Layers of the file.
    pub layer_count: u32,
    pub version: Span,
    pub version_json: Span,
    /// Attributes, unit kinds, experiments by name; override keys by kind and value.
    pub attribute_index: Index,
    pub kind_index: Index,
    pub experiment_index: Index,
    pub override_index: Index,
    pub tables: [Extent; TABLE_COUNT],
}

/// One cache line: what an image's memory is made of, and aligned to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C, align(64))]
pub(in crate::engine) struct Line([u8; LINE_SIZE]);

const LINE_SIZE: usize = 64;
/// Where the first table begins.
pub(in crate::engine) const BODY_START: usize = size_of::<Header>().next_multiple_of(LINE_SIZE);

/// A compiled plan: flat bytes, aligned to cache lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanImage {
    lines: Vec<Line>,
}

impl PlanImage {
    /// The image, for a memfd or for [`super::Plan::open`].
    pub fn bytes(&self) -> &[u8] {
        bytemuck::cast_slice(&self.lines)
    }

    /// Lays the tables out behind the header, of which everything that is known
    /// only now is filled in.
    pub(in crate::engine) fn lay_out(mut header: Header, tables: &TablesBuilder) -> PlanImage {
        let contents = tables.contents();
        let mut size = BODY_START;
        for (extent, (bytes, count)) in header.tables.iter_mut().zip(contents) {
            *extent = Extent { start: size as u64, count: count as u64 };
            size += bytes.len().next_multiple_of(LINE_SIZE);
        }
        let mut lines = vec![Line::zeroed(); size / LINE_SIZE];
        let image: &mut [u8] = bytemuck::cast_slice_mut(&mut lines);
        for (extent, (bytes, _)) in header.tables.iter().zip(contents) {
            image[extent.start as usize..][..bytes.len()].copy_from_slice(bytes);
        }
        header.magic = MAGIC;
        header.layout_version = LAYOUT_VERSION;
        header.table_count = TABLE_COUNT as u32;
        header.size = size as u64;
        header.body_checksum = body_checksum(image);
        header.header_checksum = header_checksum(header);
        image[..size_of::<Header>()].copy_from_slice(bytemuck::bytes_of(&header));
        PlanImage { lines }
    }

    /// How large the image of these tables would be.
    pub(in crate::engine) fn size_of(tables: &TablesBuilder) -> usize {
        BODY_START + tables.contents().iter().map(|(bytes, _)| bytes.len() + LINE_SIZE).sum::<usize>()
    }
}

/// The checksum that a header should carry.
pub(in crate::engine) fn header_checksum(mut header: Header) -> u64 {
    header.header_checksum = 0;
    xxh3_64(bytemuck::bytes_of(&header))
}

/// The checksum of everything behind the header.
pub(in crate::engine) fn body_checksum(image: &[u8]) -> u64 {
    xxh3_64(&image[size_of::<Header>()..])
}

/// Header and tables of an image, if the header is whole and every table lies within the bytes.
pub(super) fn attach(bytes: &[u8]) -> Result<(&Header, Tables<'_>), PlanFault> {
    let head = bytes.get(..size_of::<Header>()).ok_or(PlanFault::Short { size: bytes.len() })?;
    if head[..MAGIC.len()] != MAGIC {
        return Err(PlanFault::Magic);
    }
    if bytes.as_ptr().align_offset(LINE_SIZE) != 0 {
        return Err(PlanFault::Misaligned);
    }
    let header: &Header = bytemuck::try_from_bytes(head).map_err(|_| PlanFault::Misaligned)?;
    if header.layout_version != LAYOUT_VERSION || header.table_count != TABLE_COUNT as u32 {
        return Err(PlanFault::Layout { version: header.layout_version });
    }
    if header.size != bytes.len() as u64 {
        return Err(PlanFault::Size { size: bytes.len(), expected: header.size });
    }
    if header.header_checksum != header_checksum(*header) {
        return Err(PlanFault::Checksum { part: "header" });
    }
    Ok((header, Tables::view(bytes, &header.tables)?))
}

fn view<'p, T: Pod>(bytes: &'p [u8], extent: Extent, table: &'static str) -> Result<&'p [T], PlanFault> {
    let fault = PlanFault::Table { table };
    let start = usize::try_from(extent.start).map_err(|_| fault)?;
    let size = usize::try_from(extent.count).ok().and_then(|count| count.checked_mul(size_of::<T>()));
    let end = size.and_then(|size| start.checked_add(size)).ok_or(fault)?;
    let rows = bytes.get(start..end).ok_or(fault)?;
    if start < BODY_START {
        return Err(fault);
    }
    bytemuck::try_cast_slice(rows).map_err(|_| fault)
}
