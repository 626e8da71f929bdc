//! Catalog → plan image.
//!
//! 1. What the rules of the file could not say of themselves is held against
//!    its limits: written-out segments, regular expressions (all of the file's,
//!    used or not), the largest answer and exposure. Every fault is reported.
//! 2. Tables are filled: facts (`facts`), segments (`program`), layers and
//!    overrides (`owners`), fragments (`fragments`), hash tables (`index`).
//!    Only running experiments leave anything in the plan but their name.
//!
//! A short file must not make a long compilation, so nothing is written out
//! before its size is known.

mod facts;
mod fragments;
mod index;
mod owners;
mod program;
mod regex;
mod sizes;

use bytemuck::Zeroable;

use self::fragments::{Text, json_string};
use self::index::push_index;
use super::catalog::{Catalog, Condition, State};
pub use super::plan::PlanImage;
use super::plan::{ExperimentRecord, Header, NONE, TablesBuilder, name_hash};
use crate::limits::{
    ANSWER_SIZE_MAX, ATTRIBUTE_COUNT_MAX, EXPOSURE_SIZE_MAX, NAME_SIZE_MAX, PLAN_SIZE_MAX,
    UNIT_KIND_COUNT_MAX,
};

/// Where in the experiments file a fault lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// The file as a whole.
    File,
    /// All experiments together.
    Experiments,
    /// A named segment, by its index, and the way into its condition.
    Segment(usize, Vec<Step>),
    /// The condition of an experiment, by the experiment's index, and the way into it.
    Experiment(usize, Vec<Step>),
}

/// One step into a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The n-th of `all`.
    All(usize),
    /// The n-th of `any`.
    Any(usize),
    /// Under `not`.
    Not,
    /// The `value` of a test.
    Value,
}

impl Place {
    /// The JSON pointer (RFC 6901) of the place in the file that `catalog` was made from.
    pub fn pointer(&self, catalog: &Catalog) -> String {
        let (mut pointer, steps) = match self {
            Place::File => (String::new(), &[][..]),
            Place::Experiments => ("/experiments".to_owned(), &[][..]),
            Place::Segment(index, steps) => {
                let name = catalog.segments[*index].name.replace('~', "~0").replace('/', "~1");
                (format!("/segments/{name}"), &steps[..])
            }
            Place::Experiment(index, steps) => (format!("/experiments/{index}/segment"), &steps[..]),
        };
        for step in steps {
            pointer += &match step {
                Step::All(index) => format!("/all/{index}"),
                Step::Any(index) => format!("/any/{index}"),
                Step::Not => "/not".to_owned(),
                Step::Value => "/value".to_owned(),
            };
        }
        pointer
    }
}

/// Why a catalog makes no plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct CompileFault {
    /// Where.
    pub place: Place,
    /// What is wrong, and what would be right.
    pub message: String,
}

impl CompileFault {
    fn new(place: Place, message: String) -> CompileFault {
        CompileFault { place, message }
    }
}

/// Makes the plan of a catalog; `source`, the file's text, travels in it.
pub fn compile(catalog: &Catalog, source: &[u8]) -> Result<PlanImage, Vec<CompileFault>> {
    let mut faults = Vec::new();
    if catalog.unit_kinds.len() > UNIT_KIND_COUNT_MAX {
        let count = catalog.unit_kinds.len();
        let message =
            format!("layers and overrides name {count} kinds of units, at most {UNIT_KIND_COUNT_MAX} may be");
        faults.push(CompileFault::new(Place::File, message));
    }
    let segments_fit = program::check_leaf_counts(catalog, &mut faults);
    let regexes = regex::compile_all(catalog, &mut faults);
    let sizes = sizes::sizes_max(catalog);
    for (size, size_max, what) in [
        (sizes.answer, ANSWER_SIZE_MAX, "answer, payloads and head included,"),
        (sizes.exposure, EXPOSURE_SIZE_MAX, "exposure"),
    ] {
        if size > size_max {
            let message = format!(
                "the largest possible {what} would be {size} bytes, at most {size_max} may be: \
                 shorter names, smaller payloads, or fewer experiments at once"
            );
            faults.push(CompileFault::new(Place::Experiments, message));
        }
    }
    if !segments_fit || !faults.is_empty() {
        return Err(faults);
    }
    assert!(catalog.attributes.len() <= ATTRIBUTE_COUNT_MAX, "a checked catalog");
    assert!(catalog.layers.iter().all(|layer| layer.salt.len() <= NAME_SIZE_MAX), "a checked catalog");

    let mut tables = TablesBuilder::default();
    let mut text = Text::default();
    let mut header = Header {
        answer_size_max: sizes.answer as u64,
        exposure_size_max: sizes.exposure as u64,
        layer_count: catalog.layers.len() as u32,
        version: text.push(catalog.version.as_bytes()),
        version_json: text.push(json_string(&catalog.version).as_bytes()),
        ..Header::zeroed()
    };

    tables.experiments.extend(catalog.experiments.iter().map(|experiment| ExperimentRecord {
        name: text.push(experiment.name.as_bytes()),
        json: text.push(json_string(&experiment.name).as_bytes()),
        layer: NONE,
        unit_kind: catalog.layers[experiment.layer].unit_kind as u32,
    }));
    let (fact_count, tests) = facts::lay_out(catalog, &regexes, &mut tables, &mut text);
    header.fact_count = fact_count;
    let entries = program::write(catalog, &tests, &mut tables.leaves);
    let mut variants = fragments::Variants::new(catalog);
    owners::number_variants(catalog, &mut variants, &mut tables, &mut text);
    owners::write_layers(catalog, &entries, &mut variants, &mut tables, &mut text);
    let override_hashes = owners::write_overrides(catalog, &mut variants, &mut tables, &mut text);

    let names = |names: &mut dyn Iterator<Item = &str>| -> Vec<u64> {
        names.map(|name| name_hash(name.as_bytes())).collect()
    };
    header.attribute_index =
        push_index(&mut tables.slots, &names(&mut catalog.attributes.iter().map(|a| &*a.name)));
    header.kind_index = push_index(&mut tables.slots, &names(&mut catalog.unit_kinds.iter().map(|k| &**k)));
    header.experiment_index =
        push_index(&mut tables.slots, &names(&mut catalog.experiments.iter().map(|e| &*e.name)));
    header.override_index = push_index(&mut tables.slots, &override_hashes);

    let whole = text.take(&mut tables.text);
    let size = PlanImage::size_of(&tables) + source.len();
    if !whole || size > PLAN_SIZE_MAX {
        let message = format!(
            "the plan made from the file would pass {PLAN_SIZE_MAX} bytes: shorter names, or fewer groups"
        );
        return Err(vec![CompileFault::new(Place::File, message)]);
    }
    tables.source.extend_from_slice(source);
    Ok(PlanImage::lay_out(header, &tables))
}

/// The experiments that assign, with their places in the file.
fn running(catalog: &Catalog) -> impl Iterator<Item = (usize, &super::catalog::Experiment)> {
    catalog.experiments.iter().enumerate().filter(|(_, experiment)| experiment.state == State::Running)
}

/// All conditions of the file, named segments and those written in place, with where they are.
fn conditions(catalog: &Catalog) -> impl Iterator<Item = (Place, &Condition)> {
    let named =
        catalog.segments.iter().enumerate().map(|(i, s)| (Place::Segment(i, Vec::new()), &s.condition));
    let in_place = catalog.experiments.iter().enumerate();
    named.chain(in_place.filter_map(|(i, e)| Some((Place::Experiment(i, Vec::new()), e.segment.as_ref()?))))
}

#[cfg(test)]
mod tests;
