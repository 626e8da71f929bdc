//! Every fault of an experiments file, in one run: where it is (a JSON pointer),
//! what is wrong, and what would be right. What has none becomes a `Catalog`.
//!
//! ```text
//! bytes ─ UTF-8, grammar ─► json (values as written, with their places)
//!           └ fault: alone     ├ well_formed      repeated keys, half surrogates, depth: the whole file
//!                              ├ attributes ─ segments ─ layers ─ experiments, each part where it stands
//!                              └ circles, sizes written out, overlaps: the parts against each other
//! ```
//! Promises
//! - A part that is faulty hides no fault of another; nothing is reported twice
//!   for one cause where that can be told.
//! - Faults come in the file's order, at most `FAULT_COUNT_MAX` of them.
//! - No input panics or recurses without bound; none takes more than a few times
//!   its own size, nor is it read more than a few times, however it is nested.

mod blocks;
mod conditions;
mod experiments;
mod json;
mod keys;
mod layers;
mod operators;
mod read;
mod report;
mod values;
mod well_formed;
mod words;

use std::collections::HashMap;
use std::fmt;

use serde::de::IgnoredAny;

use conditions::Names;
use experiments::Experiments;
use json::Node;
use layers::UnitKinds;
use read::Fields;
use report::{Place, Report, line_column};
use values::containers;

use crate::engine::catalog::{
    Attribute, AttributeKind, Catalog, Condition, Experiment, Segment, StringTest, Test,
};
use crate::engine::compile::{self, CompileFault, PlanImage, compile};
use crate::engine::plan::Plan;
use crate::engine::reference::{Request, assign, explain};
use crate::limits::{EXPERIMENTS_FILE_SIZE_MAX, FAULT_COUNT_MAX, UNIT_COUNT_MAX};

/// One fault of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// RFC 6901, `/experiments/3/groups/1/blocks/0`; empty for the whole file.
    pub pointer: String,
    /// What is wrong, and what would be right.
    pub message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.pointer.is_empty() {
            write!(f, "the file: {}", self.message)
        } else {
            write!(f, "{}: {}", self.pointer, self.message)
        }
    }
}

/// The JSON Schema of the experiments file, for editors. Looser than `check`: a
/// schema can't follow names, nor add up blocks.
pub const SCHEMA: &str = include_str!("experiments.schema.json");

/// Holds every rule of the experiments file against its text.
pub fn check(source: &[u8]) -> Result<Catalog, Vec<Fault>> {
    let text = text_of(source)?;
    read(text).map_err(Report::into_faults)
}

/// `check`, and then the plan: what can be told only of compiled experiments
/// (regular expressions too large, answers and exposures past their limits) are
/// faults of the file like the others.
pub fn load(source: &[u8]) -> Result<(Catalog, PlanImage), Vec<Fault>> {
    let text = text_of(source)?;
    let catalog = read(text).map_err(|report| {
        judge_patterns(&report);
        report.into_faults()
    })?;
    match compile(&catalog, source) {
        Ok(plan) => Ok((catalog, plan)),
        Err(faults) => {
            let fault = |fault: CompileFault| Fault {
                pointer: fault.place.pointer(&catalog),
                message: fault.message,
            };
            let more = faults.len().saturating_sub(FAULT_COUNT_MAX);
            let mut faults: Vec<Fault> = faults.into_iter().take(FAULT_COUNT_MAX).map(fault).collect();
            faults.extend((more > 0).then(|| report::more_fault(more)));
            Err(faults)
        }
    }
}

/// A file with faults makes no plan, but its regular expressions that are too
/// large can be told all the same: compiled by themselves, as segments of a
/// catalog that holds nothing else.
fn judge_patterns(report: &Report<'_>) {
    let patterns = report.take_patterns();
    let segment = |(index, (pattern, _)): (usize, &(String, Place))| Segment {
        name: index.to_string(),
        condition: Condition::Test {
            attribute: 0,
            test: Test::String(StringTest::Matches(pattern.clone().into())),
        },
    };
    let catalog = Catalog {
        version: "patterns".into(),
        attributes: vec![Attribute { name: "text".into(), kind: AttributeKind::String }],
        unit_kinds: Vec::new(),
        segments: patterns.iter().enumerate().map(segment).collect(),
        layers: Vec::new(),
        experiments: Vec::new(),
    };
    for fault in compile(&catalog, b"").err().into_iter().flatten() {
        if let compile::Place::Segment(index, _) = fault.place {
            report.fault_at(&patterns[index].1, || fault.message.clone());
        }
    }
}

/// The file as a catalog, or everything that is wrong with it.
fn read(text: &str) -> Result<Catalog, Report<'_>> {
    let report = Report::new(text);
    if let Err(fault) = serde_json::from_str::<IgnoredAny>(text) {
        report.fault_of_file(grammar_fault(text.as_bytes(), &fault));
        return Err(report);
    }
    match catalog(&report, &Node::root(text, &containers(text))) {
        Some(catalog) if report.is_empty() => Ok(catalog),
        _ => Err(report),
    }
}

/// The file's text: UTF-8, without a byte order mark, of a bounded size.
fn text_of(source: &[u8]) -> Result<&str, Vec<Fault>> {
    encoding(source).map_err(|message| vec![Fault { pointer: String::new(), message }])
}

fn encoding(source: &[u8]) -> Result<&str, String> {
    if source.len() > EXPERIMENTS_FILE_SIZE_MAX {
        return Err(format!("{} bytes; at most {EXPERIMENTS_FILE_SIZE_MAX} are read", source.len()));
    }
    if source.starts_with(b"\xEF\xBB\xBF") {
        return Err("begins with a byte order mark; JSON is UTF-8 without one: take the first three bytes (EF BB BF) out".into());
    }
    if source.starts_with(b"\xFF\xFE") || source.starts_with(b"\xFE\xFF") {
        return Err("is UTF-16 by its byte order mark; UTF-8 is wanted".into());
    }
    std::str::from_utf8(source).map_err(|fault| {
        let offset = fault.valid_up_to();
        let (line, column) = line_column(source, offset);
        let byte = source[offset];
        format!(
            "not UTF-8 at line {line}, column {column} (offset {offset}): byte {byte:02X}; UTF-8 is wanted"
        )
    })
}

fn grammar_fault(source: &[u8], fault: &serde_json::Error) -> String {
    if source.trim_ascii().is_empty() {
        return "is empty; a JSON object is wanted".into();
    }
    let message = fault.to_string();
    let suffix = format!(" at line {} column {}", fault.line(), fault.column());
    let what = match message.strip_suffix(suffix.as_str()).unwrap_or(&message) {
        "expected ident" => "a word that is not true, false or null",
        "key must be a string" => {
            "a key in double quotes is wanted, or there is a comma too many before this"
        }
        what => what,
    };
    // serde_json counts bytes, and a line's end as column 0 of the next.
    let lines = source.split_inclusive(|byte| *byte == b'\n');
    let line_start: usize = lines.take(fault.line().saturating_sub(1)).map(<[u8]>::len).sum();
    let offset = if fault.is_eof() { source.len() } else { (line_start + fault.column()).saturating_sub(1) };
    let (line, column) = line_column(source, offset);
    format!("malformed JSON at line {line}, column {column}: {what}")
}

/// The whole file. Where this gives a catalog though faults were reported, the
/// catalog holds stand-ins and must not be used.
fn catalog<'s>(report: &Report<'s>, root: &Node<'s, '_>) -> Option<Catalog> {
    well_formed::well_formed(report, root);
    let fields = report.fields(root, "the file", keys::FILE)?;

    let version = report
        .required(root, &fields, "version", "the file", "a text of its publisher's choice is wanted")
        .and_then(|at| {
            let version = report.name(&at, "`version`")?;
            if version.chars().any(char::is_control) {
                report.fault(&at, || {
                    "`version` has a control character; answers carry it in a header, which takes none".into()
                });
            }
            Some(version)
        });
    let (attributes, attribute_names) = match fields.get(root, "attributes") {
        None => Default::default(),
        Some(at) => conditions::attributes(report, &at),
    };
    let names = Names { report, attributes: attribute_names, segments: segment_names(report, root, &fields) };
    let (segments, measures) = match fields.get(root, "segments") {
        None => Default::default(),
        Some(at) => conditions::segments(&names, &at),
    };
    let mut unit_kinds = UnitKinds::default();
    let layers = match fields.get(root, "layers") {
        None => Vec::new(),
        Some(at) => layers::layers(report, &at, &mut unit_kinds),
    };
    let mut experiments = Experiments::new(&names, &layers, &mut unit_kinds);
    let read: Option<Vec<Experiment>> = report
        .required(root, &fields, "experiments", "the file", "a list is wanted, [] for none")
        .map(|at| experiments.read(&at));
    let in_place = experiments.in_place;
    conditions::judge_segments(report, &segments, &measures, &in_place);

    Some(Catalog {
        version: version?,
        attributes,
        unit_kinds: unit_kinds.names,
        segments,
        layers: layers.into_iter().map(|(layer, _)| layer).collect(),
        experiments: read?,
    })
}

/// The names of segments are known before any is read: one may name a later one.
fn segment_names<'s>(
    report: &Report<'s>,
    root: &Node<'s, '_>,
    fields: &Fields<'s>,
) -> HashMap<String, usize> {
    let Some(node) = fields.get(root, "segments") else {
        return HashMap::new();
    };
    let Some(members) = report.object(&node, "`segments`") else {
        return HashMap::new();
    };
    let named = report.named(&node, "segment", &members);
    named.into_iter().enumerate().map(|(index, (name, _))| (name.clone().into_owned(), index)).collect()
}

/// Whatever the bytes: no panic, no hang; and a file that is taken makes a plan
/// or says why not, and answers. For fuzzing.
#[doc(hidden)]
pub fn fuzz_experiments_file(data: &[u8]) {
    let catalog = match check(data) {
        Ok(catalog) => catalog,
        Err(faults) => {
            assert!(!faults.is_empty(), "refused without a reason");
            return;
        }
    };
    match load(data) {
        Ok((again, image)) => {
            assert!(catalog == again, "one file, two readings");
            assert!(Plan::open(image.bytes()).is_ok(), "a plan that does not open");
        }
        Err(faults) => assert!(!faults.is_empty(), "refused without a reason"),
    }
    let units =
        catalog.unit_kinds.iter().take(UNIT_COUNT_MAX).map(|kind| (kind.clone(), "42".into())).collect();
    let request = Request { units, attributes: Vec::new() };
    let assigned = assign(&catalog, &request);
    let explained = explain(&catalog, &request);
    assert_eq!(explained.iter().filter(|explanation| explanation.group.is_some()).count(), assigned.len());
}

#[cfg(test)]
mod schema_tests;
#[cfg(test)]
mod tests;
