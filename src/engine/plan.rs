//! The compiled experiments: typed views over one flat image, and the decision.
//!
//! Invariants
//! - A `Plan` is only views. Making one allocates nothing and, by [`Plan::attach`],
//!   takes constant time, so whoever holds the bytes may do it as often as it likes.
//! - After [`Plan::open`] every index within the image has been followed: nothing
//!   in it can make a decision panic or walk for ever.
//! - Deciding costs a hash and a search of a few lines for each layer whose unit
//!   the request brings, and a walk over the segment of each owner found: flat in
//!   blocks and in experiments of a layer. Overrides that list none of the
//!   request's units cost a look-up for each unit of a kind they name.
//! - It is the same code, and the same answer, for every level of vector
//!   instructions; which one is chosen when a `Decision` is made.

mod image;
mod name;
mod verify;

use fearless_simd::dispatch;
use xxhash_rust::xxh3::xxh3_64_with_seed;

pub use self::image::PlanImage;
use self::image::Tables;
pub(super) use self::image::{
    AttributeRecord, ExperimentRecord, Header, Index, NONE, OverrideKeyRecord, OverrideRecord, PatternRecord,
    RowBits, Slot, Span, TablesBuilder, UnitKindRecord, VariantRecord,
};
use self::name::name_equals;
pub(super) use self::name::name_hash;
use super::assignment::{Chosen, Decision, ExperimentIndex, UnitKind, Units};
use super::attributes::{AttributeIndex, Facts};
use super::bucket::Shape;
use super::catalog::AttributeKind;
use super::layer::{CHUNK, Draw};
use super::segment;

/// Why bytes are no plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PlanFault {
    /// Fewer bytes than a header has.
    #[error("plan: {size} bytes are fewer than a header has")]
    Short {
        /// The bytes there are.
        size: usize,
    },
    /// Not begun like a plan.
    #[error("plan: does not begin with the magic of a plan")]
    Magic,
    /// Bytes that do not begin at a cache line.
    #[error("plan: the bytes are not aligned to 64")]
    Misaligned,
    /// Written by another splitd.
    #[error("plan: layout version {version}, but this splitd reads {}", image::LAYOUT_VERSION)]
    Layout {
        /// What the header says.
        version: u32,
    },
    /// Cut, or with something behind it.
    #[error("plan: {size} bytes, but the header says {expected}")]
    Size {
        /// The bytes there are.
        size: usize,
        /// What the header says.
        expected: u64,
    },
    /// Damaged.
    #[error("plan: the checksum of the {part} does not fit its bytes")]
    Checksum {
        /// Header or tables.
        part: &'static str,
    },
    /// A table outside the image.
    #[error("plan: table `{table}` does not lie within the image")]
    Table {
        /// Which one.
        table: &'static str,
    },
    /// A row that refers to what is not there.
    #[error("plan: row {row} of table `{table}` is impossible")]
    Row {
        /// Which table.
        table: &'static str,
        /// Which of its rows.
        row: usize,
    },
}

/// The experiments in force. The bytes are someone else's.
#[derive(Debug, Clone, Copy)]
pub struct Plan<'p> {
    header: &'p Header,
    tables: Tables<'p>,
    version: &'p str,
}

impl<'p> Plan<'p> {
    /// Views of an image, after checking all of it.
    pub fn open(bytes: &'p [u8]) -> Result<Plan<'p>, PlanFault> {
        let plan = Plan::attach(bytes)?;
        if plan.header.body_checksum != image::body_checksum(bytes) {
            return Err(PlanFault::Checksum { part: "tables" });
        }
        verify::verify(plan.header, &plan.tables)?;
        Ok(plan)
    }

    /// Views of an image that [`Plan::open`] has accepted, here or in another
    /// process, and that nobody could change since: looks at the header alone.
    pub fn attach(bytes: &'p [u8]) -> Result<Plan<'p>, PlanFault> {
        let (header, tables) = image::attach(bytes)?;
        let version = tables.text.get(header.version.range()).and_then(|text| std::str::from_utf8(text).ok());
        let version = version.ok_or(PlanFault::Row { table: "text", row: header.version.start as usize })?;
        Ok(Plan { header, tables, version })
    }

    // ── What the experiments file said ─────────────────────────────────────

    /// The experiments file's `version`.
    pub fn version(&self) -> &'p str {
        self.version
    }

    /// The version as JSON, with its quotes.
    pub fn version_json(&self) -> &'p [u8] {
        self.bytes(self.header.version_json)
    }

    /// The experiments file itself.
    pub fn source(&self) -> &'p [u8] {
        self.tables.source
    }

    /// Bytes from the image's begin that deciding may look at; behind them lies
    /// the experiments file.
    pub fn working_size(&self) -> usize {
        self.header.tables[image::TABLE_COUNT - 1].start as usize
    }

    /// A declared attribute by its name.
    #[inline]
    pub fn attribute(&self, name: &str) -> Option<(AttributeIndex, AttributeKind)> {
        let attributes = self.tables.attributes;
        let index = self.find(self.header.attribute_index, name_hash(name.as_bytes()), |index| {
            name_equals(self.bytes(attributes[index as usize].name), name.as_bytes())
        })?;
        Some((AttributeIndex(index as u16), kind_of(&attributes[index as usize])))
    }

    /// An attribute's name.
    pub fn attribute_name(&self, attribute: AttributeIndex) -> &'p str {
        self.str(self.attribute_record(attribute).name)
    }

    /// An attribute's declared type.
    pub fn attribute_kind(&self, attribute: AttributeIndex) -> AttributeKind {
        kind_of(self.attribute_record(attribute))
    }

    /// Declared attributes.
    pub fn attribute_count(&self) -> usize {
        self.tables.attributes.len()
    }

    /// A name that a layer or an override uses for units, of experiments of any state.
    pub fn unit_kind(&self, name: &str) -> Option<UnitKind> {
        let kinds = self.tables.kinds;
        let index = self.find(self.header.kind_index, name_hash(name.as_bytes()), |index| {
            name_equals(self.bytes(kinds[index as usize].name), name.as_bytes())
        })?;
        Some(UnitKind(index as u16))
    }

    /// An experiment of any state by its name.
    pub fn experiment(&self, name: &str) -> Option<ExperimentIndex> {
        let experiments = self.tables.experiments;
        self.find(self.header.experiment_index, name_hash(name.as_bytes()), |index| {
            name_equals(self.bytes(experiments[index as usize].name), name.as_bytes())
        })
        .map(ExperimentIndex)
    }

    /// An experiment's name.
    pub fn experiment_name(&self, experiment: ExperimentIndex) -> &'p str {
        self.str(self.tables.experiments[experiment.0 as usize].name)
    }

    /// Experiments of all states.
    pub fn experiment_count(&self) -> usize {
        self.tables.experiments.len()
    }

    /// Layers of the file.
    pub fn layer_count(&self) -> usize {
        self.header.layer_count as usize
    }

    /// Assignments that can come out.
    pub(super) fn variant_count(&self) -> usize {
        self.tables.variants.len()
    }

    /// No answer of this plan is larger, payloads and head included.
    pub fn answer_size_max(&self) -> usize {
        self.header.answer_size_max as usize
    }

    /// No exposure of this plan is larger.
    pub fn exposure_size_max(&self) -> usize {
        self.header.exposure_size_max as usize
    }

    /// Words that the facts of a request take.
    pub(super) fn fact_count(&self) -> usize {
        self.header.fact_count as usize
    }

    // ── Deciding ───────────────────────────────────────────────────────────

    /// Which experiments a request takes part in, and as what.
    pub fn decide(&self, units: &Units<'_>, facts: &Facts, decision: &mut Decision) {
        // The same code for each of the instruction sets that processors have.
        dispatch!(decision.level, _ => {
            self.force(units, decision);
            self.draw(units, facts.words(), decision);
            self.collect(decision);
        });
    }

    /// The same for one experiment: none or one is chosen.
    pub fn decide_one(
        &self,
        experiment: ExperimentIndex,
        units: &Units<'_>,
        facts: &Facts,
        decision: &mut Decision,
    ) {
        decision.chosen.clear();
        let variant = match self.forced_variant(experiment, units) {
            Some(variant) => Some(variant),
            None => self.drawn_variant(experiment, units, facts, decision),
        };
        if let Some(variant) = variant {
            decision.chosen.push(self.chosen(variant));
        }
    }

    /// Marks every variant that an override lists one of the units for.
    #[inline(always)]
    fn force(&self, units: &Units<'_>, decision: &mut Decision) {
        for (kind, value) in units.present() {
            if self.tables.kinds[usize::from(kind.0)].has_overrides != 0 {
                for entry in self.overrides(kind, value) {
                    mark(&mut decision.variant_bits, entry.variant);
                }
            }
        }
    }

    /// Marks the variant of every owner whose segment holds.
    #[inline(always)]
    fn draw(&self, units: &Units<'_>, facts: &[u32], decision: &mut Decision) {
        let Tables { kinds, batches, layers, ends, runs, leaves, text, .. } = self.tables;
        let Decision { variant_bits, owners, passed, salted, .. } = decision;
        for (kind, value) in units.present() {
            let kind = &kinds[usize::from(kind.0)];
            if kind.batch_count == 0 {
                continue;
            }
            salted.set_unit(value);
            let mut shape = Shape::default();
            for batch in &batches[kind.batch_first as usize..][..kind.batch_count as usize] {
                if shape.prefix_size() != usize::from(batch.prefix_size) {
                    shape = salted.shape(usize::from(batch.prefix_size));
                }
                let layers = &layers[batch.layer_first as usize..][..batch.layer_count as usize];
                for layers in layers.chunks(CHUNK) {
                    let owner_count = Draw { salted, ends, runs, text }.owners(batch, layers, &shape, owners);
                    let passed_count = segment::hold(leaves, facts, owners, owner_count, passed);
                    passed[..passed_count].iter().for_each(|&variant| mark(variant_bits, variant));
                }
            }
        }
    }

    /// Of every experiment with marks the first one's variant, in the file's
    /// order; takes the marks away.
    ///
    /// Variants lie in the order of their experiments, and an experiment's in the
    /// order in which they count: forced by the first unit kind, by the second …,
    /// drawn.
    #[inline(always)]
    fn collect(&self, decision: &mut Decision) {
        let Decision { chosen, variant_bits, .. } = decision;
        chosen.clear();
        let mut last = NONE;
        for (index, word) in variant_bits.iter_mut().enumerate() {
            let mut rest = *word;
            if rest == 0 {
                continue;
            }
            *word = 0;
            while rest != 0 {
                let next = self.chosen(index as u32 * 64 + rest.trailing_zeros());
                rest &= rest - 1;
                if next.experiment.0 != last {
                    chosen.push(next);
                }
                last = next.experiment.0;
            }
        }
    }

    fn forced_variant(&self, experiment: ExperimentIndex, units: &Units<'_>) -> Option<u32> {
        let entries = units.present().filter_map(|(kind, value)| {
            let entries = self.overrides(kind, value);
            let place = entries.binary_search_by_key(&experiment.0, |entry| entry.experiment).ok()?;
            Some(entries[place].variant)
        });
        entries.min()
    }

    fn drawn_variant(
        &self,
        experiment: ExperimentIndex,
        units: &Units<'_>,
        facts: &Facts,
        decision: &mut Decision,
    ) -> Option<u32> {
        let Tables { layers, ends, runs, leaves, variants, text, .. } = self.tables;
        let record = self.tables.experiments[experiment.0 as usize];
        let layer = layers.get(record.layer as usize)?;
        let salted = &mut decision.salted;
        salted.set_unit(units.value(UnitKind(record.unit_kind as u16))?);
        let run =
            Draw { salted, ends, runs, text }.owner(self.tables.batch_of(record.layer as usize)?, layer);
        let takes_part = segment::holds(leaves, facts.words(), run.entry)
            && variants[run.variant as usize].experiment == experiment.0;
        takes_part.then_some(run.variant)
    }

    /// Where overrides force a unit.
    fn overrides(&self, kind: UnitKind, value: &str) -> &'p [OverrideRecord] {
        let Tables { override_keys, overrides, .. } = self.tables;
        let hash = override_hash(u32::from(kind.0), value);
        let key = self.find(self.header.override_index, hash, |index| {
            let key = &override_keys[index as usize];
            key.unit_kind == u32::from(kind.0) && self.bytes(key.value) == value.as_bytes()
        });
        key.map_or(&[], |index| {
            let key = &override_keys[index as usize];
            &overrides[key.entry_first as usize..][..key.entry_count as usize]
        })
    }

    #[inline]
    fn chosen(&self, variant: u32) -> Chosen {
        let record = &self.tables.variants[variant as usize];
        Chosen { experiment: ExperimentIndex(record.experiment), group: record.group, variant }
    }

    /// Every assignment that can come out, by its index.
    pub fn assignments(&self) -> impl ExactSizeIterator<Item = Chosen> + '_ {
        (0..self.tables.variants.len() as u32).map(|variant| self.chosen(variant))
    }

    // ── Bytes made when the plan was compiled ──────────────────────────────

    /// `,"new_home":"test"`
    #[inline]
    pub fn answer_fragment(&self, chosen: &Chosen) -> &'p [u8] {
        self.bytes(self.variant(chosen).answer)
    }

    /// `,"new_home":{"rows":5}`, if the group has a payload.
    pub fn payload_fragment(&self, chosen: &Chosen) -> Option<&'p [u8]> {
        let payload = self.variant(chosen).payload;
        (payload.size != 0).then(|| self.bytes(payload))
    }

    /// `"new_home":"test"`
    #[inline]
    pub fn assignment_json(&self, chosen: &Chosen) -> &'p [u8] {
        &self.answer_fragment(chosen)[1..]
    }

    /// `"test"`
    pub fn group_json(&self, chosen: &Chosen) -> &'p [u8] {
        &self.answer_fragment(chosen)[self.experiment_json(chosen.experiment).len() + 2..]
    }

    /// `{"rows":5}`, if the group has a payload.
    pub fn payload_json(&self, chosen: &Chosen) -> Option<&'p [u8]> {
        let fragment = self.payload_fragment(chosen)?;
        Some(&fragment[self.experiment_json(chosen.experiment).len() + 2..])
    }

    /// `"new_home"`
    pub fn experiment_json(&self, experiment: ExperimentIndex) -> &'p [u8] {
        self.bytes(self.tables.experiments[experiment.0 as usize].json)
    }

    /// Field 5 of an `Exposure`: tag, length and the `Assignment`.
    #[inline]
    pub fn exposure_fragment(&self, chosen: &Chosen) -> &'p [u8] {
        let variant = self.variant(chosen);
        let start = variant.answer.range().end;
        &self.tables.text[start..start + variant.exposure_size as usize]
    }

    /// Whether an override, and not the unit's bucket, chose.
    pub fn is_forced(&self, chosen: &Chosen) -> bool {
        self.bucket_count(chosen) == 0
    }

    /// Buckets of the group; 0 if an override chose.
    pub fn bucket_count(&self, chosen: &Chosen) -> u32 {
        self.variant(chosen).bucket_count
    }

    #[inline]
    fn variant(&self, chosen: &Chosen) -> &'p VariantRecord {
        &self.tables.variants[chosen.variant as usize]
    }

    // ── Tables ─────────────────────────────────────────────────────────────

    pub(super) fn tables(&self) -> &Tables<'p> {
        &self.tables
    }

    #[inline]
    pub(super) fn attribute_record(&self, attribute: AttributeIndex) -> &'p AttributeRecord {
        &self.tables.attributes[usize::from(attribute.0)]
    }

    #[inline]
    pub(super) fn bytes(&self, span: Span) -> &'p [u8] {
        &self.tables.text[span.range()]
    }

    fn str(&self, span: Span) -> &'p str {
        std::str::from_utf8(self.bytes(span)).expect("names are UTF-8: checked when the plan was opened")
    }

    /// What a key stands for in one of the hash tables.
    #[inline]
    pub(super) fn find(&self, index: Index, hash: u64, equals: impl Fn(u32) -> bool) -> Option<u32> {
        let slots = &self.tables.slots[index.first as usize..][..=index.mask as usize];
        let (mut place, tag) = (hash as u32 & index.mask, (hash >> 32) as u32);
        loop {
            let slot = slots[place as usize];
            if slot.index == NONE {
                return None;
            }
            if slot.tag == tag && equals(slot.index) {
                return Some(slot.index);
            }
            place = (place + 1) & index.mask;
        }
    }
}

/// Sets a variant's bit.
#[inline(always)]
fn mark(variant_bits: &mut [u64], variant: u32) {
    variant_bits[variant as usize / 64] |= 1 << (variant % 64);
}

/// The hash of an override's key.
pub(super) fn override_hash(unit_kind: u32, value: &str) -> u64 {
    xxh3_64_with_seed(value.as_bytes(), u64::from(unit_kind))
}

/// The declared type; a number that stands for none was refused at opening.
#[inline]
pub(super) fn kind_of(record: &AttributeRecord) -> AttributeKind {
    match record.kind {
        0 => AttributeKind::String,
        1 => AttributeKind::Number,
        2 => AttributeKind::Bool,
        3 => AttributeKind::Version,
        _ => AttributeKind::StringList,
    }
}

#[cfg(test)]
mod tests;
