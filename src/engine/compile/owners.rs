//! Layers, their runs of buckets, and overrides.

use std::collections::BTreeMap;

use super::fragments::{Text, Variants};
use super::running;
use crate::engine::bucket::{self, PREFIX_INLINE_SIZE, SEPARATOR};
use crate::engine::catalog::Catalog;
use crate::engine::layer::{LayerRecord, NOBODY, Run, push_tree};
use crate::engine::plan::{OverrideKeyRecord, OverrideRecord, TablesBuilder, UnitKindRecord, override_hash};
use crate::engine::segment::FALSE;

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
    for (index, layer) in catalog.layers.iter().enumerate() {
        layers[layer.unit_kind].push(index);
    }
    // Those whose salts have one size together: their hashes share a `Shape`.
    layers.iter_mut().for_each(|layers| layers.sort_by_key(|&layer| catalog.layers[layer].salt.len()));
    for (name, layers) in catalog.unit_kinds.iter().zip(layers) {
        let layer_first = tables.layers.len() as u32;
        for layer in layers {
            write_layer(catalog, (layer, &experiments[layer]), entries, variants, tables, text);
        }
        let name = text.push(name.as_bytes());
        let layer_count = tables.layers.len() as u32 - layer_first;
        tables.kinds.push(UnitKindRecord { name, layer_first, layer_count });
    }
}

fn write_layer(
    catalog: &Catalog,
    (layer_index, experiments): (usize, &[usize]),
    entries: &[u32],
    variants: &mut Variants<'_>,
    tables: &mut TablesBuilder,
    text: &mut Text,
) {
    let layer = &catalog.layers[layer_index];
    let mut blocks = Vec::new(); // (first bucket, bucket behind the last, owner)
    for &experiment in experiments {
        for (group, blocks_of_group) in catalog.experiments[experiment].groups.iter().enumerate() {
            let owned = blocks_of_group.blocks.iter();
            blocks.extend(owned.map(|block| (block.first, block.first + block.count, (experiment, group))));
        }
    }
    if blocks.is_empty() {
        return;
    }
    blocks.sort_unstable();
    let mut runs: Vec<(u32, Option<(usize, usize)>)> = Vec::new(); // (bucket behind the last, owner)
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

    let run_ends: Vec<u16> = runs.iter().map(|&(end, _)| (end - 1) as u16).collect();
    let tree_first = push_tree(&mut tables.ends, &run_ends);
    let run_first = tables.runs.len() as u32;
    for (_, owner) in runs {
        let run = owner.map_or(Run { experiment: NOBODY, variant: 0, entry: FALSE, reserved: 0 }, |owner| {
            let variant = variants.number(owner, None, &mut tables.variants, text);
            Run { experiment: owner.0 as u32, variant, entry: entries[owner.0], reserved: 0 }
        });
        if let Some((experiment, _)) = owner {
            tables.experiments[experiment].layer = tables.layers.len() as u32;
        }
        tables.runs.push(run);
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
        reciprocal: bucket::reciprocal(layer.bucket_count),
        bucket_count: layer.bucket_count,
        tree_first,
        run_first,
        run_last: (run_ends.len() - 1) as u16,
        prefix_size: prefix.len() as u16,
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
        for (rank, kind) in experiment.overrides.iter().enumerate() {
            for (value, group) in &kind.units {
                let owner = (index, *group);
                let variant = variants.number(owner, Some(kind.unit_kind), &mut tables.variants, text);
                let entry = OverrideRecord { experiment: index as u32, rank: rank as u32, variant };
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
