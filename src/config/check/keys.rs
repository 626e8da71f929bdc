//! The words of the experiments file: its keys, types and states. The JSON
//! Schema is tested against these tables.

use crate::engine::catalog::{AttributeKind, State};

/// Allowed in every object and ignored.
pub(super) const NOTES: &[&str] = &["description", "meta"];
/// Keys of the file.
pub(super) const FILE: &[&str] = &["version", "attributes", "segments", "layers", "experiments"];
/// Keys of a layer.
pub(super) const LAYER: &[&str] = &["salt", "unit", "buckets"];
/// Keys of an experiment.
pub(super) const EXPERIMENT: &[&str] =
    &["id", "run_id", "name", "state", "layer", "segment", "groups", "overrides"];
/// Keys of a group.
pub(super) const GROUP: &[&str] = &["name", "blocks", "payload"];
/// Keys of a condition: one of the first five, and with `attr` the last two.
pub(super) const CONDITION: &[&str] = &["all", "any", "not", "segment", "attr", "op", "value"];

/// Names that are the request's own: never a unit, never an attribute.
pub(super) const RESERVED: &[&str] = &["payloads", "exposure"];

/// The types of attributes.
pub(super) const TYPES: &[(&str, AttributeKind)] = &[
    ("string", AttributeKind::String),
    ("number", AttributeKind::Number),
    ("bool", AttributeKind::Bool),
    ("version", AttributeKind::Version),
    ("string_list", AttributeKind::StringList),
];

/// The states of experiments.
pub(super) const STATES: &[(&str, State)] = &[
    ("running", State::Running),
    ("draft", State::Draft),
    ("killed", State::Killed),
    ("finished", State::Finished),
];

/// A type's name.
pub(super) fn type_name(kind: AttributeKind) -> &'static str {
    TYPES.iter().find(|(_, row)| *row == kind).map_or("", |(name, _)| name)
}
