//! The largest answer and the largest exposure that a catalog can lead to.
//!
//! A request takes part in at most one experiment of a layer, but for those
//! that an override forces, which may come in any number.

use super::fragments::{answer, exposure, json_string, payload};
use super::running;
use crate::engine::catalog::{Catalog, Experiment};
use crate::limits::{CONTEXT_SIZE_MAX, UNIT_COUNT_MAX, UNIT_NAME_SIZE_MAX, UNIT_VALUE_SIZE_MAX};

/// Room for the head of an answer.
const HEAD_SIZE: usize = 512;
/// What stands around version, assignments and payloads, and the newline of a batch's line.
const ANSWER_FRAME: &[u8] = br#"{"version":,"experiment":,"group":,"assignments":{},"payloads":{}}
"#;
/// The longest varint, as the length of a 256-byte text takes at most, and that of one more than 128 of them.
const LENGTH_SIZE: usize = 3;
/// Tag and length or value of an exposure's id, its time, its version and its
/// context, the length before the record, and what frames it in a ring.
const EXPOSURE_FRAME_SIZE: usize = (1 + 1 + 16) + (1 + 10) + (1 + LENGTH_SIZE) + (1 + LENGTH_SIZE) + 5 + 24;
/// One entry of an exposure's `units`.
const EXPOSURE_UNIT_SIZE: usize =
    (1 + LENGTH_SIZE) + (1 + LENGTH_SIZE + UNIT_NAME_SIZE_MAX) + (1 + LENGTH_SIZE + UNIT_VALUE_SIZE_MAX);

/// Sizes of what one request may lead to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sizes {
    pub answer: usize,
    pub exposure: usize,
}

impl Sizes {
    fn plus(self, other: Sizes) -> Sizes {
        Sizes { answer: self.answer + other.answer, exposure: self.exposure + other.exposure }
    }

    fn max(self, other: Sizes) -> Sizes {
        Sizes { answer: self.answer.max(other.answer), exposure: self.exposure.max(other.exposure) }
    }
}

/// The largest answer and exposure.
pub(super) fn sizes_max(catalog: &Catalog) -> Sizes {
    let mut forced = Sizes::default(); // every experiment with overrides at once
    let mut drawn = vec![Sizes::default(); catalog.layers.len()]; // of each layer's others, the largest
    for (_, experiment) in running(catalog) {
        let largest = largest_assignment(catalog, experiment);
        if experiment.overrides.iter().any(|kind| !kind.units.is_empty()) {
            forced = forced.plus(largest);
        } else {
            drawn[experiment.layer] = drawn[experiment.layer].max(largest);
        }
    }
    let frame = Sizes {
        answer: HEAD_SIZE + ANSWER_FRAME.len() + json_string(&catalog.version).len(),
        exposure: EXPOSURE_FRAME_SIZE
            + catalog.version.len()
            + CONTEXT_SIZE_MAX
            + UNIT_COUNT_MAX * EXPOSURE_UNIT_SIZE,
    };
    drawn.into_iter().fold(frame.plus(forced), Sizes::plus)
}

/// The most that taking part in an experiment adds, commas counted.
fn largest_assignment(catalog: &Catalog, experiment: &Experiment) -> Sizes {
    let drawn_by = catalog.layers[experiment.layer].unit_kind;
    let kinds = experiment.overrides.iter().map(|kind| kind.unit_kind).chain([drawn_by]);
    let unit_kind = kinds.map(|kind| &*catalog.unit_kinds[kind]).max_by_key(|kind| kind.len()).unwrap_or("");
    let groups = (0..experiment.groups.len()).map(|group| Sizes {
        answer: answer(experiment, group).len()
            + payload(experiment, group).map_or(0, |payload| payload.len()),
        exposure: exposure(experiment, group, unit_kind, true).len(),
    });
    groups.fold(Sizes::default(), Sizes::max)
}
