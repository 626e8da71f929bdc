//! Why a request is in each experiment, or is not: everything the rules looked
//! at, and what they would have looked at had an earlier rule not decided.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::Value;

use super::{Request, Verdict, decide, forced, group_at, layer_bucket, test_holds, typed_value};
use crate::engine::catalog::{
    AttributeKind, Catalog, Condition, Layer, OrderedTest, State, StringTest, Test,
};

/// All that is said of one request, for programs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Explained<'a> {
    /// The experiments file's.
    pub version: &'a str,
    /// Names given that the file neither uses as a unit nor declares as an attribute.
    pub ignored: &'a [String],
    /// Of all states, in the file's order; or the one that was asked for.
    pub experiments: Vec<Explanation<'a>>,
}

impl<'a> Explained<'a> {
    /// Explains every experiment, or one by its index in the catalog.
    pub fn new(
        catalog: &'a Catalog,
        request: &'a Request,
        ignored: &'a [String],
        one: Option<usize>,
    ) -> Explained<'a> {
        let experiments = match one {
            Some(experiment) => {
                let drawn = drawn(catalog, request);
                vec![explain_one(catalog, request, experiment, &drawn)]
            }
            None => explain(catalog, request),
        };
        Explained { version: &catalog.version, ignored, experiments }
    }
}

/// One experiment for one request.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Explanation<'a> {
    /// The experiment's name.
    pub experiment: &'a str,
    /// Its id.
    pub id: i64,
    /// Its run.
    pub run_id: i32,
    /// `running`, `draft`, `killed`, `finished`.
    pub state: &'static str,
    /// The group the request is in; none where it is not in the experiment.
    pub group: Option<&'a str>,
    /// Which rule decided.
    pub outcome: Outcome,
    /// The same as a sentence.
    pub reason: String,
    /// The layer's name.
    pub layer: &'a str,
    /// The layer's salt.
    pub salt: &'a str,
    /// The layer's number of buckets.
    pub buckets: u32,
    /// The unit that the layer asks for.
    pub unit: Unit<'a>,
    /// The override that one of the request's units is listed in, whether or not the experiment runs.
    #[serde(rename = "override", skip_serializing_if = "Option::is_none")]
    pub forced: Option<Override<'a>>,
    /// The unit's bucket in the layer.
    pub bucket: Option<u32>,
    /// Who owns that bucket: this experiment, another, or nobody.
    pub owner: Option<Owner<'a>>,
    /// The segment with every verdict; none means everybody.
    pub segment: Option<Trace<'a>>,
}

/// A kind of unit, with the request's value where there is one.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[allow(missing_docs, reason = "two plain names")]
pub struct Unit<'a> {
    pub kind: &'a str,
    pub value: Option<&'a str>,
}

/// The override that counts.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[allow(missing_docs, reason = "three plain names")]
pub struct Override<'a> {
    pub kind: &'a str,
    pub value: &'a str,
    pub group: &'a str,
}

/// The owner of a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[allow(missing_docs, reason = "two plain names")]
pub struct Owner<'a> {
    pub experiment: &'a str,
    pub group: &'a str,
}

/// The rule that decided, in the rules' order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// A draft, killed or finished experiment assigns nobody.
    NotRunning,
    /// An override decided.
    Forced,
    /// The layer's unit is missing or empty.
    NoUnit,
    /// The bucket lies in no block of the experiment.
    NotInBlocks,
    /// The segment does not hold.
    NotInSegment,
    /// The owner of the bucket.
    Assigned,
}

/// A condition with its verdict, and those of its parts.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "is")]
#[allow(missing_docs, reason = "the conditions' own names")]
pub enum Trace<'a> {
    All { holds: bool, parts: Vec<Trace<'a>> },
    Any { holds: bool, parts: Vec<Trace<'a>> },
    Not { holds: bool, part: Box<Trace<'a>> },
    Segment { holds: bool, name: &'a str, part: Box<Trace<'a>> },
    Test(Leaf<'a>),
}

impl Trace<'_> {
    /// The verdict.
    pub fn holds(&self) -> bool {
        match self {
            Trace::All { holds, .. }
            | Trace::Any { holds, .. }
            | Trace::Not { holds, .. }
            | Trace::Segment { holds, .. } => *holds,
            Trace::Test(leaf) => leaf.holds,
        }
    }
}

/// One test of one attribute.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Leaf<'a> {
    /// The verdict.
    pub holds: bool,
    /// The attribute's name.
    pub attr: &'a str,
    /// The operator.
    pub op: &'static str,
    /// The operand, as in the file.
    pub operand: Value,
    /// The request's value; `null` where there is none.
    pub value: Option<Cow<'a, Value>>,
    /// Where the value counts as missing though something came: why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mistyped: Option<&'static str>,
}

/// Explains every experiment, of all states, in the file's order.
pub fn explain<'a>(catalog: &'a Catalog, request: &'a Request) -> Vec<Explanation<'a>> {
    let drawn = drawn(catalog, request);
    (0..catalog.experiments.len())
        .map(|experiment| explain_one(catalog, request, experiment, &drawn))
        .collect()
}

/// Where the request's unit falls in a layer.
#[derive(Clone, Copy)]
struct Drawn<'a> {
    bucket: Option<u32>,
    /// Whose block that is.
    owner: Option<Owner<'a>>,
}

/// The same of every layer, in one pass over the experiments: whoever explains
/// each of them would else look through all others. Finished ones own nothing.
fn drawn<'a>(catalog: &'a Catalog, request: &Request) -> Vec<Drawn<'a>> {
    let in_layer = |layer: &Layer| {
        let unit = request.unit(&catalog.unit_kinds[layer.unit_kind]);
        Drawn { bucket: unit.map(|unit| layer_bucket(layer, unit)), owner: None }
    };
    let mut drawn: Vec<Drawn<'a>> = catalog.layers.iter().map(in_layer).collect();
    for experiment in catalog.experiments.iter().filter(|experiment| experiment.state != State::Finished) {
        let Drawn { bucket, owner } = &mut drawn[experiment.layer];
        if let (Some(bucket), None) = (*bucket, &owner) {
            *owner = group_at(experiment, bucket)
                .map(|group| Owner { experiment: &experiment.name, group: &experiment.groups[group].name });
        }
    }
    drawn
}

fn explain_one<'a>(
    catalog: &'a Catalog,
    request: &'a Request,
    index: usize,
    drawn: &[Drawn<'a>],
) -> Explanation<'a> {
    let experiment = &catalog.experiments[index];
    let layer = &catalog.layers[experiment.layer];
    let kind = catalog.unit_kinds[layer.unit_kind].as_str();
    let value = request.unit(kind);
    let Drawn { bucket, owner } = drawn[experiment.layer];
    let segment = experiment.segment.as_ref().map(|segment| trace(catalog, segment, request));
    let forced = forced(catalog, request, experiment).map(|(unit_kind, group)| {
        let kind = catalog.unit_kinds[unit_kind].as_str();
        let value = request.unit(kind).expect("an override is found by a unit of the request");
        Override { kind, value, group: &experiment.groups[group].name }
    });

    let verdict = decide(catalog, request, index);
    let group_name = |group: usize| experiment.groups[group].name.as_str();
    let (group, outcome, reason) = match verdict {
        Verdict::NotRunning => (
            None,
            Outcome::NotRunning,
            format!("its state is {}: it assigns nobody", state_name(experiment.state)),
        ),
        Verdict::Forced { unit_kind, group } => {
            let kind = &catalog.unit_kinds[unit_kind];
            (
                Some(group_name(group)),
                Outcome::Forced,
                format!("an override puts this {kind} into `{}`", group_name(group)),
            )
        }
        Verdict::NoUnit => {
            (None, Outcome::NoUnit, format!("layer `{}` asks for {kind}, and there is none", layer.name))
        }
        Verdict::NotInBlocks => {
            let bucket = bucket.expect("a unit was there");
            let owner = match &owner {
                Some(owner) => format!("group `{}` of experiment `{}`", owner.group, owner.experiment),
                None => "nobody".to_owned(),
            };
            (
                None,
                Outcome::NotInBlocks,
                format!("bucket {bucket} of layer `{}` belongs to {owner}", layer.name),
            )
        }
        Verdict::NotInSegment => (None, Outcome::NotInSegment, "the segment does not hold".to_owned()),
        Verdict::Assigned { group } => {
            let bucket = bucket.expect("a unit was there");
            let segment = if segment.is_some() { ", and the segment holds" } else { "" };
            let name = group_name(group);
            (
                Some(name),
                Outcome::Assigned,
                format!("bucket {bucket} of layer `{}` belongs to `{name}`{segment}", layer.name),
            )
        }
    };
    Explanation {
        experiment: &experiment.name,
        id: experiment.id,
        run_id: experiment.run_id,
        state: state_name(experiment.state),
        group,
        outcome,
        reason,
        layer: &layer.name,
        salt: &layer.salt,
        buckets: layer.bucket_count,
        unit: Unit { kind, value },
        forced,
        bucket,
        owner,
        segment,
    }
}

/// Every part is looked at, also where an earlier one has decided.
fn trace<'a>(catalog: &'a Catalog, condition: &'a Condition, request: &'a Request) -> Trace<'a> {
    let traces = |parts: &'a [Condition]| -> Vec<Trace<'a>> {
        parts.iter().map(|part| trace(catalog, part, request)).collect()
    };
    match condition {
        Condition::All(parts) => {
            let parts = traces(parts);
            Trace::All { holds: parts.iter().all(Trace::holds), parts }
        }
        Condition::Any(parts) => {
            let parts = traces(parts);
            Trace::Any { holds: parts.iter().any(Trace::holds), parts }
        }
        Condition::Not(part) => {
            let part = trace(catalog, part, request);
            Trace::Not { holds: !part.holds(), part: Box::new(part) }
        }
        Condition::Segment(segment) => {
            let segment = &catalog.segments[*segment];
            let part = trace(catalog, &segment.condition, request);
            Trace::Segment { holds: part.holds(), name: &segment.name, part: Box::new(part) }
        }
        Condition::Test { attribute, test } => {
            let attribute = &catalog.attributes[*attribute];
            let value = request.attribute(&attribute.name);
            let typed = typed_value(attribute, request);
            let mistyped = match value {
                Some(value) if typed.is_none() && !value.is_null() => Some(mistyped(attribute.kind)),
                _ => None,
            };
            let (op, operand) = written(test);
            Trace::Test(Leaf {
                holds: test_holds(test, typed.as_ref()),
                attr: &attribute.name,
                op,
                operand,
                value: value.map(plain),
                mistyped,
            })
        }
    }
}

fn mistyped(kind: AttributeKind) -> &'static str {
    match kind {
        AttributeKind::String => "no string: counts as missing",
        AttributeKind::Number => "no number of f64: counts as missing",
        AttributeKind::Bool => "no bool: counts as missing",
        AttributeKind::Version => "no version: counts as missing",
        AttributeKind::StringList => "no list of strings: counts as missing",
    }
}

/// A state as the file writes it.
pub(in crate::engine) fn state_name(state: State) -> &'static str {
    match state {
        State::Running => "running",
        State::Draft => "draft",
        State::Killed => "killed",
        State::Finished => "finished",
    }
}

/// A test as the file writes it: operator and operand. `contains` of a list is kept as `contains_any` of one.
pub(in crate::engine) fn written(test: &Test) -> (&'static str, Value) {
    match test {
        Test::Exists(wanted) => ("exists", Value::Bool(*wanted)),
        Test::String(test) => match test {
            StringTest::Eq(text) => ("eq", text.as_str().into()),
            StringTest::Ne(text) => ("ne", text.as_str().into()),
            StringTest::In(texts) => ("in", texts.as_slice().into()),
            StringTest::NotIn(texts) => ("not_in", texts.as_slice().into()),
            StringTest::StartsWith(text) => ("starts_with", text.as_str().into()),
            StringTest::EndsWith(text) => ("ends_with", text.as_str().into()),
            StringTest::Contains(text) => ("contains", text.as_str().into()),
            StringTest::Matches(pattern) => ("matches", pattern.as_str().into()),
        },
        Test::Number(test) => ordered_written(test, |number| plain_number(*number)),
        Test::Version(test) => ordered_written(test, |[a, b, c, d]| Value::from(format!("{a}.{b}.{c}.{d}"))),
        Test::BoolEq(truth) => ("eq", Value::Bool(*truth)),
        Test::BoolNe(truth) => ("ne", Value::Bool(*truth)),
        Test::ListAny(texts) => ("contains_any", texts.as_slice().into()),
        Test::ListAll(texts) => ("contains_all", texts.as_slice().into()),
    }
}

/// A number as one would write it: 18, not 18.0.
fn plain_number(number: f64) -> Value {
    const EXACT: f64 = 9_007_199_254_740_992.0; // 2^53: whole numbers to here are exact
    if number.fract() == 0.0 && number.abs() <= EXACT {
        #[allow(clippy::cast_possible_truncation, reason = "whole, and within 2^53")]
        return Value::from(number as i64);
    }
    Value::from(number)
}

/// A request's value as one would write it.
fn plain(value: &Value) -> Cow<'_, Value> {
    match value {
        Value::Number(number) => {
            number.as_f64().map_or(Cow::Borrowed(value), |number| Cow::Owned(plain_number(number)))
        }
        _ => Cow::Borrowed(value),
    }
}

fn ordered_written<T>(test: &OrderedTest<T>, json: impl Fn(&T) -> Value) -> (&'static str, Value) {
    match test {
        OrderedTest::Eq(operand) => ("eq", json(operand)),
        OrderedTest::Ne(operand) => ("ne", json(operand)),
        OrderedTest::In(operands) => ("in", operands.iter().map(&json).collect()),
        OrderedTest::NotIn(operands) => ("not_in", operands.iter().map(&json).collect()),
        OrderedTest::Lt(operand) => ("lt", json(operand)),
        OrderedTest::Lte(operand) => ("lte", json(operand)),
        OrderedTest::Gt(operand) => ("gt", json(operand)),
        OrderedTest::Gte(operand) => ("gte", json(operand)),
    }
}
