//! Follows every index of an image once, so that deciding need not ask.
//!
//! The checksum tells damage; this tells a plan that was made wrong, and keeps
//! bytes from anywhere from making a process panic or walk for ever.

use super::image::{Header, Index, NONE, Span, Tables};
use super::{PlanFault, Slot};
use crate::engine::bucket;
use crate::engine::catalog::AttributeKind;
use crate::engine::layer::{Batch, LINE_WIDTH, LayerRecord, level_count, level_sizes, level_starts};
use crate::engine::operator::{MATCHED, Operator};
use crate::engine::segment::{FALSE, Leaf, TRUE};
use crate::limits::{ATTRIBUTE_COUNT_MAX, BUCKET_COUNT_MAX, NAME_SIZE_MAX, UNIT_KIND_COUNT_MAX};

/// Whether every row refers to what is there.
pub(super) fn verify(header: &Header, tables: &Tables<'_>) -> Result<(), PlanFault> {
    let verifier = Verifier { header, tables };
    verifier.header()?;
    verifier.units()?;
    verifier.layers()?;
    verifier.segments()?;
    verifier.experiments()?;
    verifier.attributes()?;
    verifier.patterns()?;
    verifier.overrides()
}

struct Verifier<'v, 'p> {
    header: &'v Header,
    tables: &'v Tables<'p>,
}

/// Holds every row of a table against a condition.
fn rows<T>(
    table: &'static str,
    rows: &[T],
    mut holds: impl FnMut(usize, &T) -> bool,
) -> Result<(), PlanFault> {
    match rows.iter().enumerate().find(|&(row, record)| !holds(row, record)) {
        Some((row, _)) => Err(PlanFault::Row { table, row }),
        None => Ok(()),
    }
}

/// Whether `count` rows from `first` lie among `len`.
fn within(first: u32, count: u32, len: usize) -> bool {
    u64::from(first) + u64::from(count) <= len as u64
}

impl Verifier<'_, '_> {
    fn is_text(&self, span: Span) -> bool {
        within(span.start, span.size, self.tables.text.len())
    }

    fn is_name(&self, span: Span) -> bool {
        self.tables.text.get(span.range()).is_some_and(|bytes| std::str::from_utf8(bytes).is_ok())
    }

    /// A power of two of slots, at least one of them empty, each naming one of `count`.
    fn is_index(&self, index: Index, count: usize) -> bool {
        let size = u64::from(index.mask) + 1;
        let end = u64::from(index.first) + size;
        if !size.is_power_of_two() || end > self.tables.slots.len() as u64 {
            return false;
        }
        let slots: &[Slot] = &self.tables.slots[index.first as usize..end as usize];
        slots.iter().any(|slot| slot.index == NONE)
            && slots.iter().all(|slot| slot.index == NONE || (slot.index as usize) < count)
    }

    fn header(&self) -> Result<(), PlanFault> {
        let Header { version, version_json, .. } = *self.header;
        let tables = self.tables;
        let holds = self.is_name(version)
            && self.is_name(version_json)
            && self.is_index(self.header.attribute_index, tables.attributes.len())
            && self.is_index(self.header.kind_index, tables.kinds.len())
            && self.is_index(self.header.experiment_index, tables.experiments.len())
            && self.is_index(self.header.override_index, tables.override_keys.len())
            && tables.attributes.len() <= ATTRIBUTE_COUNT_MAX
            && tables.kinds.len() <= UNIT_KIND_COUNT_MAX;
        rows("header", &[()], |_, ()| holds)
    }

    fn units(&self) -> Result<(), PlanFault> {
        // Every layer belongs to one batch and every batch to one kind: else a
        // short plan could make a long decision.
        let Tables { kinds, batches, layers, .. } = *self.tables;
        let (mut batch_next, mut layer_next) = (0, 0);
        rows("kinds", kinds, |_, kind| {
            let in_turn = kind.batch_first == batch_next;
            batch_next = kind.batch_first.saturating_add(kind.batch_count);
            in_turn && self.is_name(kind.name) && within(kind.batch_first, kind.batch_count, batches.len())
        })?;
        rows("batches", batches, |_, batch| {
            let in_turn = batch.layer_first == layer_next;
            layer_next = batch.layer_first.saturating_add(batch.layer_count);
            in_turn
                && within(batch.layer_first, batch.layer_count, layers.len())
                && (1..=BUCKET_COUNT_MAX).contains(&batch.bucket_count)
                && batch.reciprocal == bucket::reciprocal(batch.bucket_count)
                && (1..=NAME_SIZE_MAX + 1).contains(&usize::from(batch.prefix_size))
        })
    }

    fn layers(&self) -> Result<(), PlanFault> {
        let Tables { layers, runs, leaves, variants, .. } = *self.tables;
        rows("layers", layers, |row, layer| self.is_layer(row, layer))?;
        rows("runs", runs, |_, run| {
            let owner_known = (run.variant as usize) < variants.len() && (run.entry as usize) < leaves.len();
            run.entry == FALSE || owner_known
        })
    }

    fn is_layer(&self, row: usize, layer: &LayerRecord) -> bool {
        // `units` has held that the batches lie in order, one behind the other.
        let Some(batch) = self.tables.batch_of(row) else {
            return false;
        };
        let prefix_size = usize::from(batch.prefix_size);
        let run_count = layer.run_count() as u32;
        if run_count > batch.bucket_count
            || batch.level_count != level_count(layer.run_count())
            || !within(layer.run_first, run_count, self.tables.runs.len())
        {
            return false;
        }
        let prefix_fits = match layer.prefix.split_at_checked(prefix_size) {
            Some((prefix, padding)) => {
                layer.head == bucket::head(prefix) && padding.iter().all(|&byte| byte == 0)
            }
            None => {
                let start = u32::try_from(layer.head);
                start.is_ok_and(|start| within(start, prefix_size as u32, self.tables.text.len()))
            }
        };
        prefix_fits && self.leads_to_runs(layer, batch)
    }

    /// Line by line, no bucket leads to a place that is not there.
    fn leads_to_runs(&self, layer: &LayerRecord, batch: &Batch) -> bool {
        let last_bucket = (batch.bucket_count - 1) as u16;
        let (run_count, tree) = (layer.run_count(), layer.tree());
        if batch.level_count == 0 {
            return layer.run(&[], 0, u32::from(last_bucket)) < layer.run_first as usize + run_count;
        }
        let sizes = level_sizes(run_count);
        let below = sizes[1..].iter().copied().filter(|&size| size > 0).chain([run_count]);
        let mut lines = self.tables.ends.get(tree.first as usize..).unwrap_or(&[]);
        let lines_fit = sizes.into_iter().filter(|&size| size > 0).zip(below).all(|(size, below)| {
            let Some((level, rest)) = lines.split_at_checked(size) else { return false };
            lines = rest;
            level
                .iter()
                .enumerate()
                .all(|(line, ends)| line * LINE_WIDTH + ends.count_below(last_bucket) < below)
        });
        tree.levels == level_starts(run_count) && lines_fit
    }

    fn segments(&self) -> Result<(), PlanFault> {
        let leaves = self.tables.leaves;
        let terminals = [Leaf::terminal(FALSE), Leaf::terminal(TRUE)];
        rows("leaves", &[()], |_, ()| leaves.starts_with(&terminals) && self.header.fact_count > 0)?;
        rows("leaves", leaves, |row, leaf| {
            let forward = leaf
                .next
                .iter()
                .all(|&next| next <= TRUE || (next as usize > row && (next as usize) < leaves.len()));
            leaf.slot < self.header.fact_count && forward
        })
    }

    fn experiments(&self) -> Result<(), PlanFault> {
        let Tables { experiments, variants, layers, kinds, .. } = *self.tables;
        rows("experiments", experiments, |_, experiment| {
            self.is_name(experiment.name)
                && self.is_name(experiment.json)
                && (experiment.layer == NONE || (experiment.layer as usize) < layers.len())
                && (experiment.unit_kind as usize) < kinds.len()
        })?;
        let mut experiment_last = 0;
        rows("variants", variants, |_, variant| {
            // In the order of experiments: else a decision could choose one twice.
            let in_turn = variant.experiment >= std::mem::replace(&mut experiment_last, variant.experiment);
            let Some(experiment) = experiments.get(variant.experiment as usize) else {
                return false;
            };
            // A comma, the name, a colon.
            let behind_name = |span: Span| self.is_name(span) && span.size > experiment.json.size + 1;
            let end = variant.answer.range().end as u64 + u64::from(variant.exposure_size);
            in_turn
                && behind_name(variant.answer)
                && end <= self.tables.text.len() as u64
                && variant.bucket_count <= BUCKET_COUNT_MAX
                && (variant.payload.size == 0 || behind_name(variant.payload))
        })
    }

    fn attributes(&self) -> Result<(), PlanFault> {
        let Tables { attributes, numbers, versions, literals, rows: row_starts, row_bits, patterns, .. } =
            *self.tables;
        rows("literals", literals, |_, literal| self.is_text(*literal))?;
        rows("attributes", attributes, |_, attribute| {
            let comparands = match attribute.kind {
                kind if kind == AttributeKind::Number as u32 => numbers.len(),
                kind if kind == AttributeKind::Version as u32 => versions.len(),
                kind if kind == AttributeKind::Bool as u32 => 0,
                kind if kind == AttributeKind::String as u32 => literals.len(),
                kind if kind == AttributeKind::StringList as u32 => literals.len(),
                _ => return false,
            };
            let is_list = attribute.kind == AttributeKind::StringList as u32;
            let bit_words = if is_list { attribute.count.div_ceil(32) } else { 0 };
            let rows_hold = attribute.row_first == NONE || {
                let first = attribute.row_first as usize;
                let starts = row_starts.get(first..).and_then(|rows| rows.get(..=attribute.count as usize));
                starts.is_some_and(|starts| {
                    starts.windows(2).all(|pair| {
                        let bits = row_bits.get(pair[0] as usize..pair[1] as usize);
                        bits.is_some_and(|bits| bits.iter().all(|bits| bits.word < attribute.word_count))
                    })
                })
            };
            let own_patterns = patterns
                .get(attribute.pattern_first as usize..)
                .and_then(|patterns| patterns.get(..attribute.pattern_count as usize));
            self.is_name(attribute.name)
                && attribute.word_count > bit_words
                && within(attribute.slot, attribute.word_count, self.header.fact_count as usize)
                && within(attribute.first, attribute.count, comparands)
                && rows_hold
                && own_patterns
                    .is_some_and(|own| own.iter().all(|pattern| pattern.word < attribute.word_count))
                && self.is_index(attribute.index, attribute.count as usize)
        })
    }

    fn patterns(&self) -> Result<(), PlanFault> {
        let Tables { patterns, dfas, dfa_classes, dfa_transitions, .. } = *self.tables;
        rows("patterns", patterns, |_, pattern| match Operator::from_number(pattern.operator) {
            None => false,
            Some(Operator::Matches) => (pattern.operand.start as usize) < dfas.len(),
            Some(_) => self.is_text(pattern.operand),
        })?;
        rows("dfas", dfas, |_, dfa| {
            let Some(classes) = dfa_classes.get(dfa.classes as usize) else {
                return false;
            };
            let size = dfa.class_count.checked_mul(dfa.state_count);
            let transitions = size
                .filter(|&size| within(dfa.transition_first, size, dfa_transitions.len()))
                .map(|size| &dfa_transitions[dfa.transition_first as usize..][..size as usize]);
            dfa.state_count > u32::from(MATCHED)
                && dfa.state_count <= 1 << 16
                && dfa.start < dfa.state_count
                && classes.iter().all(|&class| u32::from(class) < dfa.class_count)
                && transitions.is_some_and(|all| all.iter().all(|&next| u32::from(next) < dfa.state_count))
        })
    }

    fn overrides(&self) -> Result<(), PlanFault> {
        let Tables { override_keys, overrides, variants, experiments, .. } = *self.tables;
        rows("override_keys", override_keys, |_, key| {
            self.is_text(key.value) && within(key.entry_first, key.entry_count, overrides.len())
        })?;
        rows("overrides", overrides, |_, entry| {
            (entry.experiment as usize) < experiments.len()
                && variants
                    .get(entry.variant as usize)
                    .is_some_and(|variant| variant.experiment == entry.experiment)
        })
    }
}
