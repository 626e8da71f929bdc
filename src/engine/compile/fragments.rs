//! The bytes that answers and exposures are put together from.

use std::collections::HashMap;

use crate::engine::catalog::{Catalog, Experiment};
use crate::engine::plan::{Span, VariantRecord};
use crate::limits::PLAN_SIZE_MAX;

/// The plan's text in the making.
#[derive(Debug, Default)]
pub(super) struct Text {
    bytes: Vec<u8>,
    full: bool,
}

impl Text {
    /// Appends a piece; of one that no plan has room for, only the fact is kept.
    pub fn push(&mut self, piece: &[u8]) -> Span {
        if self.bytes.len() + piece.len() > PLAN_SIZE_MAX {
            self.full = true;
            return Span::default();
        }
        let span = Span { start: self.bytes.len() as u32, size: piece.len() as u32 };
        self.bytes.extend_from_slice(piece);
        span
    }

    /// Moves the text into its table; false if there was no room for all of it.
    pub fn take(self, table: &mut Vec<u8>) -> bool {
        *table = self.bytes;
        !self.full
    }
}

/// A text as JSON, quoted; only `"`, `\` and control characters are escaped.
pub(super) fn json_string(text: &str) -> String {
    serde_json::to_string(text).expect("a text is always JSON")
}

/// `,"new_home":"test"`
pub(super) fn answer(experiment: &Experiment, group: usize) -> Vec<u8> {
    format!(",{}:{}", json_string(&experiment.name), json_string(&experiment.groups[group].name)).into_bytes()
}

/// `,"new_home":{"rows":5}`, if the group has a payload.
pub(super) fn payload(experiment: &Experiment, group: usize) -> Option<Vec<u8>> {
    let payload = experiment.groups[group].payload.as_ref()?;
    Some(format!(",{}:{payload}", json_string(&experiment.name)).into_bytes())
}

/// Field 5 of an `Exposure` with its `Assignment` (exposures.md has the
/// messages). Like every proto3 writer it leaves out what equals its default.
pub(super) fn exposure(experiment: &Experiment, group: usize, unit_kind: &str, forced: bool) -> Vec<u8> {
    let mut assignment = Vec::new();
    push_number(&mut assignment, 1, experiment.id as u64);
    push_number(&mut assignment, 2, i64::from(experiment.run_id) as u64);
    push_bytes(&mut assignment, 3, experiment.name.as_bytes());
    push_bytes(&mut assignment, 4, experiment.groups[group].name.as_bytes());
    push_number(&mut assignment, 5, u64::from(forced));
    push_bytes(&mut assignment, 6, unit_kind.as_bytes());
    let mut field = vec![5 << 3 | 2];
    push_varint(&mut field, assignment.len() as u64);
    field.extend_from_slice(&assignment);
    field
}

fn push_number(message: &mut Vec<u8>, field: u8, value: u64) {
    if value != 0 {
        message.push(field << 3);
        push_varint(message, value);
    }
}

fn push_bytes(message: &mut Vec<u8>, field: u8, value: &[u8]) {
    if !value.is_empty() {
        message.push(field << 3 | 2);
        push_varint(message, value.len() as u64);
        message.extend_from_slice(value);
    }
}

fn push_varint(message: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        message.push(value as u8 | 0x80);
        value >>= 7;
    }
    message.push(value as u8);
}

/// The assignments that can come out, each written once.
pub(super) struct Variants<'c> {
    catalog: &'c Catalog,
    /// By experiment, group and, for forced ones, unit kind.
    known: HashMap<(usize, usize, Option<usize>), u32>,
    /// By experiment and group: forced or not, the payload is the same.
    payloads: HashMap<(usize, usize), Span>,
}

impl<'c> Variants<'c> {
    /// None yet.
    pub fn new(catalog: &'c Catalog) -> Variants<'c> {
        Variants { catalog, known: HashMap::new(), payloads: HashMap::new() }
    }

    /// The number of an assignment, which is written if it is new.
    pub fn number(
        &mut self,
        (experiment_index, group): (usize, usize),
        forced_by: Option<usize>,
        records: &mut Vec<VariantRecord>,
        text: &mut Text,
    ) -> u32 {
        let Variants { catalog, known, payloads } = self;
        *known.entry((experiment_index, group, forced_by)).or_insert_with(|| {
            let experiment = &catalog.experiments[experiment_index];
            let unit_kind = forced_by.unwrap_or(catalog.layers[experiment.layer].unit_kind);
            let answer = answer(experiment, group);
            let exposure = exposure(experiment, group, &catalog.unit_kinds[unit_kind], forced_by.is_some());
            let both = text.push(&[&answer[..], &exposure].concat());
            let bucket_count: u32 = experiment.groups[group].blocks.iter().map(|block| block.count).sum();
            let payload = *payloads.entry((experiment_index, group)).or_insert_with(|| {
                payload(experiment, group).map_or(Span::default(), |bytes| text.push(&bytes))
            });
            records.push(VariantRecord {
                answer: Span { start: both.start, size: answer.len() as u32 },
                exposure_size: exposure.len() as u32,
                experiment: experiment_index as u32,
                group: group as u32,
                bucket_count: if forced_by.is_some() { 0 } else { bucket_count },
                payload,
            });
            records.len() as u32 - 1
        })
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::engine::catalog::{Group, State};

    #[derive(Clone, PartialEq, Message)]
    struct Assignment {
        #[prost(int64, tag = "1")]
        experiment_id: i64,
        #[prost(int32, tag = "2")]
        run_id: i32,
        #[prost(string, tag = "3")]
        experiment: String,
        #[prost(string, tag = "4")]
        group: String,
        #[prost(bool, tag = "5")]
        forced: bool,
        #[prost(string, tag = "6")]
        unit: String,
    }

    #[derive(Clone, PartialEq, Message)]
    struct Exposure {
        #[prost(message, repeated, tag = "5")]
        assignments: Vec<Assignment>,
    }

    #[test]
    fn exposure_fragments_are_what_a_protobuf_library_writes() {
        for (id, run_id) in [(0, 0), (1, 1), (-1, -1), (127, 128), (i64::MAX, i32::MAX), (i64::MIN, i32::MIN)]
        {
            for (name, forced) in [("новый дом", true), ("n", false), (&*"x".repeat(256), true)] {
                let group = Group { name: "g".repeat(200), blocks: Vec::new(), payload: None };
                let experiment = Experiment {
                    id,
                    run_id,
                    name: name.to_owned(),
                    state: State::Running,
                    layer: 0,
                    segment: None,
                    groups: vec![group],
                    overrides: Vec::new(),
                };
                let assignment = Assignment {
                    experiment_id: id,
                    run_id,
                    experiment: name.to_owned(),
                    group: "g".repeat(200),
                    forced,
                    unit: "user_id".to_owned(),
                };
                let expected = Exposure { assignments: vec![assignment] }.encode_to_vec();
                assert_eq!(exposure(&experiment, 0, "user_id", forced), expected);
            }
        }
    }

    #[test]
    fn json_escapes_no_more_than_it_must() {
        assert_eq!(
            json_string("a\"b\\c\n\u{1}/é☃🦀\u{7f}\u{2028}"),
            "\"a\\\"b\\\\c\\n\\u0001/é☃🦀\u{7f}\u{2028}\""
        );
    }
}
