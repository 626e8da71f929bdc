//! Layers, their runs of buckets, and overrides.

use std::collections::BTreeMap;

use super::fragments::{Text, Variants};
use super::running;
use crate::engine::bucket::{self, PREFIX_INLINE_SIZE, SEPARATOR};
use crate::engine::catalog::{Catalog, Layer};
use crate::engine::layer::{Batch, LayerRecord, RUNS_A_LINE, Run, level_count, push_ends};
use crate::engine::plan::{OverrideKeyRecord, OverrideRecord, TablesBuilder, UnitKindRecord, override_hash};

/// Every assignment that can come out, in the order in which they count: by
/// experiment, of each the forced ones by their kind, then the drawn.
pub(super) fn number_variants(
    catalog: &Catalog,
    variants: &mut Variants<'_>,
    tables: &mut TablesBuilder,
    text: &mut Text,
) {
    for (index, experiment) in running(catalog) {
        let forced = experiment
            .overrides
            .iter()
            .flat_map(|kind| kind.units.iter().map(|(_, group)| (*group, Some(kind.unit_kind))));
        let owning = experiment.groups.iter().enumerate().filter(|(_, group)| !group.blocks.is_empty());
        for (group, forced_by) in forced.chain(owning.map(|(group, _)| (group, None))) {
            variants.number((index, group), forced_by, &mut tables.variants, text);
        }
    }
}

/// Unit kinds, and the layers in which a running experiment owns a bucket, those
/// of one kind together.
pub(super) fn write_layers(
    catalog: &Catalog,
    entries: &[u32],
    variants: &mut Variants<'_>,
    tables: &mut TablesBuilder,
    text: &mut Text,
) {
    let mut experiments = vec![Vec::new(); catalog.layers.len()]; // by layer
    for (index, experiment) in running(catalog) {
        experiments[experiment.layer].push(index);
    }
    let mut layers = vec![Vec::new(); catalog.unit_kinds.len()]; // by unit kind
    for (layer, experiments) in catalog.layers.iter().zip(&experiments) {
        let runs = runs(catalog, layer, experiments);
        if runs.iter().any(|(_, owner)| owner.is_some()) {
            layers[layer.unit_kind].push((layer, runs));
        }
    }
    let mut has_overrides = vec![0; catalog.unit_kinds.len()];
    for kind in running(catalog).flat_map(|(_, experiment)| &experiment.overrides) {
        has_overrides[kind.unit_kind] |= u32::from(!kind.units.is_empty());
    }
    for (unit_kind, mut layers) in layers.into_iter().enumerate() {
        let alike =
            |(layer, runs): &(&Layer, Runs)| (layer.salt.len(), layer.bucket_count, level_count(runs.len()));
        layers.sort_by_key(alike);
        let batch_first = tables.batches.len() as u32;
        for batch in layers.chunk_by(|a, b| alike(a) == alike(b)) {
            let (salt_size, bucket_count, level_count) = alike(&batch[0]);
            tables.batches.push(Batch {
                reciprocal: bucket::reciprocal(bucket_count),
                bucket_count,
                prefix_size: salt_size as u16 + 1,
                level_count,
                layer_first: tables.layers.len() as u32,
                layer_count: batch.len() as u32,
            });
            for (layer, runs) in batch {
                write_layer(layer, runs, entries, variants, tables, text);
            }
        }
        tables.kinds.push(UnitKindRecord {
            name: text.push(catalog.unit_kinds[unit_kind].as_bytes()),
            batch_first,
            batch_count: tables.batches.len() as u32 - batch_first,
            has_overrides: has_overrides[unit_kind],
        });
    }
}

/// Runs of a layer's buckets, all of them: the bucket behind each one's last, and
/// the experiment and group that own it.
type Runs = Vec<(u32, Option<(usize, usize)>)>;

fn runs(catalog: &Catalog, layer: &Layer, experiments: &[usize]) -> Runs {
    let mut blocks = Vec::new(); // (first bucket, bucket behind the last, owner)
    for &experiment in experiments {
        for (group, blocks_of_group) in catalog.experiments[experiment].groups.iter().enumerate() {
            let owned = blocks_of_group.blocks.iter();
            blocks.extend(owned.map(|block| (block.first, block.first + block.count, (experiment, group))));
        }
    }
    blocks.sort_unstable();
    let mut runs = Runs::new();
    let mut add = |end: u32, owner| match runs.last_mut() {
        Some(last) if last.1 == owner => last.0 = end,
        _ => runs.push((end, owner)),
    };
    let mut next = 0;
    for (first, end, owner) in blocks {
        assert!(next <= first && first < end && end <= layer.bucket_count, "blocks of a checked catalog");
        if next < first {
            add(first, None);
        }
        add(end, Some(owner));
        next = end;
    }
    if next < layer.bucket_count {
        add(layer.bucket_count, None);
    }
    runs
}

fn write_layer(
    layer: &Layer,
    runs: &Runs,
    entries: &[u32],
    variants: &mut Variants<'_>,
    tables: &mut TablesBuilder,
    text: &mut Text,
) {
    let run_ends: Vec<u16> = runs.iter().map(|&(end, _)| (end - 1) as u16).collect();
    let ends = push_ends(&mut tables.ends, &run_ends);
    if runs.len() <= RUNS_A_LINE && tables.runs.len() % RUNS_A_LINE + runs.len() > RUNS_A_LINE {
        tables.runs.resize(tables.runs.len().next_multiple_of(RUNS_A_LINE), Run::NOBODYS);
    }
    let run_first = tables.runs.len() as u32;
    for &(_, owner) in runs {
        let Some((experiment, group)) = owner else {
            tables.runs.push(Run::NOBODYS);
            continue;
        };
        let variant = variants.number((experiment, group), None, &mut tables.variants, text);
        tables.runs.push(Run { entry: entries[experiment], variant });
        tables.experiments[experiment].layer = tables.layers.len() as u32;
    }

    let prefix = [layer.salt.as_bytes(), &[SEPARATOR]].concat();
    let mut inline = [0; PREFIX_INLINE_SIZE];
    let head = match inline.get_mut(..prefix.len()) {
        Some(inline) => {
            inline.copy_from_slice(&prefix);
            bucket::head(&prefix)
        }
        None => text.push(&prefix).start.into(),
    };
    tables.layers.push(LayerRecord {
        prefix: inline,
        head,
        run_first,
        run_last: (run_ends.len() - 1) as u16,
        reserved: 0,
        ends,
    });
}

/// Overrides by unit kind and value. Says the hashes of the keys, in their order.
pub(super) fn write_overrides(
    catalog: &Catalog,
    variants: &mut Variants<'_>,
    tables: &mut TablesBuilder,
    text: &mut Text,
) -> Vec<u64> {
    let mut keys: BTreeMap<(usize, &str), Vec<OverrideRecord>> = BTreeMap::new();
    for (index, experiment) in running(catalog) {
        for kind in &experiment.overrides {
            for (value, group) in &kind.units {
                let owner = (index, *group);
                let variant = variants.number(owner, Some(kind.unit_kind), &mut tables.variants, text);
                let entry = OverrideRecord { experiment: index as u32, variant };
                keys.entry((kind.unit_kind, value)).or_default().push(entry);
            }
        }
    }
    let mut hashes = Vec::with_capacity(keys.len());
    for ((unit_kind, value), entries) in keys {
        hashes.push(override_hash(unit_kind as u32, value));
        tables.override_keys.push(OverrideKeyRecord {
            unit_kind: unit_kind as u32,
            value: text.push(value.as_bytes()),
            entry_first: tables.overrides.len() as u32,
            entry_count: entries.len() as u32,
        });
        tables.overrides.extend(entries);
    }
    hashes
}
