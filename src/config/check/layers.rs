//! Layers, and the kinds of units that layers and overrides name.

use std::collections::HashMap;

use super::json::Node;
use super::keys;
use super::report::Report;
use super::words::short;
use crate::engine::catalog::Layer;
use crate::limits::{BUCKET_COUNT_DEFAULT, BUCKET_COUNT_MAX, NAME_SIZE_MAX, UNIT_KIND_COUNT_MAX};

/// Kinds of units, each once, in order of first use.
#[derive(Default)]
pub(super) struct UnitKinds {
    pub names: Vec<String>,
    index: HashMap<String, usize>,
}

impl UnitKinds {
    /// A kind's index; `node` is where it is named.
    pub fn index<'s>(&mut self, report: &Report<'s>, node: &Node<'s, '_>, name: &str) -> usize {
        if keys::RESERVED.contains(&name) {
            report.fault(node, || {
                format!(
                    "`{name}` is an option of the request's own and can't be a unit; another name is wanted"
                )
            });
        }
        if let Some(&index) = self.index.get(name) {
            return index;
        }
        let index = self.names.len();
        if index == UNIT_KIND_COUNT_MAX {
            report.fault(node, || {
                format!(
                    "unit `{}` is one kind too many; at most {UNIT_KIND_COUNT_MAX} are allowed",
                    short(name)
                )
            });
        }
        self.names.push(name.to_owned());
        self.index.insert(name.to_owned(), index);
        index
    }
}

/// Reads `layers`. A layer's number of buckets is none where it is faulty.
pub(super) fn layers<'s>(
    report: &Report<'s>,
    node: &Node<'s, '_>,
    unit_kinds: &mut UnitKinds,
) -> Vec<(Layer, Option<u32>)> {
    let mut layers = Vec::new();
    let Some(members) = report.object(node, "`layers`") else {
        return layers;
    };
    for (name, raw) in report.named(node, "layer", &members) {
        let value = node.member(name, raw);
        let (layer, bucket_count) = layer(report, &value, name, unit_kinds);
        layers.push((layer, bucket_count));
    }
    layers
}

fn layer<'s>(
    report: &Report<'s>,
    node: &Node<'s, '_>,
    name: &str,
    unit_kinds: &mut UnitKinds,
) -> (Layer, Option<u32>) {
    let what = format!("layer `{}`", short(name));
    let mut layer = Layer {
        name: name.to_owned(),
        salt: String::new(),
        unit_kind: 0,
        bucket_count: BUCKET_COUNT_DEFAULT,
    };
    let Some(fields) = report.fields(node, "a layer", keys::LAYER) else {
        return (layer, None);
    };
    if let Some(salt) = report.required(node, &fields, "salt", &what, "a text of this layer's own is wanted")
        && let Some(text) = report.text(&salt, "`salt`")
    {
        if text.len() > NAME_SIZE_MAX {
            report.fault(&salt, || {
                format!("`salt` is {} bytes long; at most {NAME_SIZE_MAX} are allowed", text.len())
            });
        }
        layer.salt = text;
    }
    if let Some(unit) =
        report.required(node, &fields, "unit", &what, "the name of a unit, `user_id` say, is wanted")
        && let Some(text) = report.name(&unit, "`unit`")
    {
        layer.unit_kind = unit_kinds.index(report, &unit, &text);
    }
    let bucket_count = match fields.get(node, "buckets") {
        None => Some(BUCKET_COUNT_DEFAULT),
        Some(buckets) => report
            .integer(&buckets, "`buckets`", 1..=i64::from(BUCKET_COUNT_MAX))
            .and_then(|count| u32::try_from(count).ok()),
    };
    layer.bucket_count = bucket_count.unwrap_or(BUCKET_COUNT_DEFAULT);
    (layer, bucket_count)
}
