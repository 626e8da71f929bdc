//! The plain twin of `plan`: the rules of assignment straight from the catalog,
//! one sentence of the rules after another, with no thought of speed. It is the
//! property tests' oracle, and what `explain` answers from.
//!
//! It shares no code with the plan, so that a mistake in one is not a mistake in
//! both; even the bucket is computed here from its definition.

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use xxhash_rust::xxh3::xxh3_64;

use super::catalog::{
    Attribute, AttributeKind, Catalog, Condition, Experiment, Layer, OrderedTest, State, StringTest, Test,
};
use crate::limits;

mod explain;
mod members;
pub use explain::{Explained, Explanation, Leaf, Outcome, Override, Owner, Trace, Unit, explain};
#[cfg(test)]
pub(super) use explain::{state_name, written};
pub use members::{Members, members};

/// What a request says: units and attributes by name, as they came. Of a name
/// given twice, the last counts.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Request {
    /// Unit kind and value; an empty value is as good as none.
    pub units: Vec<(String, String)>,
    /// Attribute and value. Numbers are the nearest f64; what no `Value` can
    /// hold (a number beyond f64) stands here as an empty object: of no type.
    pub attributes: Vec<(String, Value)>,
}

impl Request {
    /// Reads the body of `POST /v1/assign`, plainly: for tests and tools. The
    /// error is a sentence.
    pub fn from_json(body: &str) -> Result<Request, String> {
        let mut request = Request::default();
        let mut units_seen = false;
        for (name, value) in members(body).map_err(|fault| fault.to_string())? {
            match &*name {
                "units" => {
                    units_seen = true;
                    request.units.clear();
                    for (kind, value) in members(value.get()).map_err(|fault| fault.to_string())? {
                        let text =
                            unit_text(value.get()).map_err(|wrong| format!("unit `{kind}`: {wrong}"))?;
                        request.units.push((kind.into_owned(), text));
                    }
                }
                "attributes" => {
                    request.attributes.clear();
                    for (name, value) in members(value.get()).map_err(|fault| fault.to_string())? {
                        request.attributes.push((name.into_owned(), attribute_value(value.get())?));
                    }
                }
                _ => {}
            }
        }
        let mut kinds: Vec<&str> = request.units.iter().map(|(kind, _)| kind.as_str()).collect();
        kinds.sort_unstable();
        kinds.dedup();
        if kinds.len() > limits::UNIT_COUNT_MAX {
            return Err(format!("{} units; at most {} are taken", kinds.len(), limits::UNIT_COUNT_MAX));
        }
        if units_seen { Ok(request) } else { Err("`units` is missing".into()) }
    }

    /// The value of a unit kind; none where it is missing or empty.
    pub fn unit(&self, kind: &str) -> Option<&str> {
        let (_, value) = self.units.iter().rev().find(|(name, _)| name == kind)?;
        (!value.is_empty()).then_some(value.as_str())
    }

    /// An attribute's value as it came.
    pub fn attribute(&self, name: &str) -> Option<&Value> {
        self.attributes.iter().rev().find(|(given, _)| given == name).map(|(_, value)| value)
    }
}

/// One experiment that a request is in. Indexes are the catalog's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Assigned {
    /// Index into `Catalog::experiments`.
    pub experiment: usize,
    /// Index into the experiment's groups.
    pub group: usize,
    /// The kind of the unit whose override forced it (index into `Catalog::unit_kinds`).
    pub forced_by: Option<usize>,
}

/// Every experiment that the request is in, in the file's order.
pub fn assign(catalog: &Catalog, request: &Request) -> Vec<Assigned> {
    (0..catalog.experiments.len())
        .filter_map(|experiment| match decide(catalog, request, experiment) {
            Verdict::Forced { unit_kind, group } => {
                Some(Assigned { experiment, group, forced_by: Some(unit_kind) })
            }
            Verdict::Assigned { group } => Some(Assigned { experiment, group, forced_by: None }),
            Verdict::NotRunning | Verdict::NoUnit | Verdict::NotInBlocks | Verdict::NotInSegment => None,
        })
        .collect()
}

/// What the rules say of one experiment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    NotRunning,
    Forced { unit_kind: usize, group: usize },
    NoUnit,
    NotInBlocks,
    NotInSegment,
    Assigned { group: usize },
}

/// The rules for one request and one experiment, in their order.
fn decide(catalog: &Catalog, request: &Request, experiment: usize) -> Verdict {
    let experiment = &catalog.experiments[experiment];
    let layer = &catalog.layers[experiment.layer];
    if experiment.state != State::Running {
        return Verdict::NotRunning;
    }
    if let Some((unit_kind, group)) = forced(catalog, request, experiment) {
        return Verdict::Forced { unit_kind, group };
    }
    let Some(unit) = request.unit(&catalog.unit_kinds[layer.unit_kind]) else {
        return Verdict::NoUnit;
    };
    let Some(group) = group_at(experiment, layer_bucket(layer, unit)) else {
        return Verdict::NotInBlocks;
    };
    let holds = experiment.segment.as_ref().is_none_or(|segment| holds(catalog, segment, request));
    if holds { Verdict::Assigned { group } } else { Verdict::NotInSegment }
}

/// The override for one of the request's units: of the first unit kind in the file's order.
fn forced(catalog: &Catalog, request: &Request, experiment: &Experiment) -> Option<(usize, usize)> {
    experiment.overrides.iter().find_map(|kind| {
        let unit = request.unit(&catalog.unit_kinds[kind.unit_kind])?;
        let (_, group) = kind.units.iter().find(|(value, _)| value == unit)?;
        Some((kind.unit_kind, *group))
    })
}

/// `xxh3_64(salt + ":" + unit) % buckets`, over the UTF-8 bytes, seed 0.
pub fn bucket(salt: &str, unit: &str, bucket_count: u32) -> u32 {
    let hash = xxh3_64(format!("{salt}:{unit}").as_bytes());
    u32::try_from(hash % u64::from(bucket_count)).expect("a remainder is below its divisor")
}

/// A unit's bucket in a layer.
fn layer_bucket(layer: &Layer, unit: &str) -> u32 {
    bucket(&layer.salt, unit, layer.bucket_count)
}

/// The group of the experiment that owns the bucket.
fn group_at(experiment: &Experiment, bucket: u32) -> Option<usize> {
    experiment.groups.iter().position(|group| {
        group.blocks.iter().any(|block| (block.first..block.first + block.count).contains(&bucket))
    })
}

/// Whether a condition holds for a request: always true or false.
fn holds(catalog: &Catalog, condition: &Condition, request: &Request) -> bool {
    match condition {
        Condition::All(parts) => parts.iter().all(|part| holds(catalog, part, request)),
        Condition::Any(parts) => parts.iter().any(|part| holds(catalog, part, request)),
        Condition::Not(part) => !holds(catalog, part, request),
        Condition::Segment(segment) => holds(catalog, &catalog.segments[*segment].condition, request),
        Condition::Test { attribute, test } => {
            test_holds(test, typed_value(&catalog.attributes[*attribute], request).as_ref())
        }
    }
}

/// An attribute's value, of the type it is declared with.
#[derive(Debug, Clone, PartialEq)]
enum Typed<'a> {
    Text(&'a str),
    Number(f64),
    Bool(bool),
    Version([u32; 4]),
    List(Vec<&'a str>),
}

/// The attribute's value in the request; none where it is missing, `null`, or of another type.
fn typed_value<'a>(attribute: &Attribute, request: &'a Request) -> Option<Typed<'a>> {
    let value = request.attribute(&attribute.name)?;
    match attribute.kind {
        AttributeKind::String => value.as_str().map(Typed::Text),
        AttributeKind::Number => value.as_f64().filter(|number| number.is_finite()).map(Typed::Number),
        AttributeKind::Bool => value.as_bool().map(Typed::Bool),
        AttributeKind::Version => value.as_str().and_then(parse_version).map(Typed::Version),
        AttributeKind::StringList => {
            let items: Option<Vec<&str>> = value.as_array()?.iter().map(Value::as_str).collect();
            items.map(Typed::List)
        }
    }
}

/// One test of one attribute. Without a value every operator is false but
/// `exists: false`, and `ne` and `not_in`, which are exactly "not `eq`" and "not `in`".
fn test_holds(test: &Test, value: Option<&Typed<'_>>) -> bool {
    match test {
        Test::Exists(wanted) => value.is_some() == *wanted,
        Test::String(test) => string_test_holds(test, text_of(value)),
        Test::Number(test) => ordered_test_holds(test, number_of(value)),
        Test::Version(test) => ordered_test_holds(test, version_of(value)),
        Test::BoolEq(operand) => bool_of(value) == Some(*operand),
        Test::BoolNe(operand) => bool_of(value) != Some(*operand),
        Test::ListAny(operands) => {
            list_of(value).is_some_and(|list| operands.iter().any(|operand| list.contains(&operand.as_str())))
        }
        Test::ListAll(operands) => {
            list_of(value).is_some_and(|list| operands.iter().all(|operand| list.contains(&operand.as_str())))
        }
    }
}

fn text_of<'a>(value: Option<&Typed<'a>>) -> Option<&'a str> {
    if let Some(Typed::Text(text)) = value { Some(text) } else { None }
}

fn number_of(value: Option<&Typed<'_>>) -> Option<f64> {
    if let Some(Typed::Number(number)) = value { Some(*number) } else { None }
}

fn bool_of(value: Option<&Typed<'_>>) -> Option<bool> {
    if let Some(Typed::Bool(truth)) = value { Some(*truth) } else { None }
}

fn version_of(value: Option<&Typed<'_>>) -> Option<[u32; 4]> {
    if let Some(Typed::Version(parts)) = value { Some(*parts) } else { None }
}

fn list_of<'a, 'v>(value: Option<&'v Typed<'a>>) -> Option<&'v [&'a str]> {
    if let Some(Typed::List(items)) = value { Some(items) } else { None }
}

fn string_test_holds(test: &StringTest, text: Option<&str>) -> bool {
    match test {
        StringTest::Eq(operand) => text == Some(operand),
        StringTest::Ne(operand) => text != Some(operand),
        StringTest::In(operands) => operands.iter().any(|operand| text == Some(operand)),
        StringTest::NotIn(operands) => !operands.iter().any(|operand| text == Some(operand)),
        StringTest::StartsWith(operand) => text.is_some_and(|text| text.starts_with(operand)),
        StringTest::EndsWith(operand) => text.is_some_and(|text| text.ends_with(operand)),
        StringTest::Contains(operand) => text.is_some_and(|text| text.contains(operand)),
        StringTest::Matches(pattern) => text.is_some_and(|text| pattern.is_match(text)),
    }
}

fn ordered_test_holds<T: PartialOrd + Copy>(test: &OrderedTest<T>, value: Option<T>) -> bool {
    match test {
        OrderedTest::Eq(operand) => value == Some(*operand),
        OrderedTest::Ne(operand) => value != Some(*operand),
        OrderedTest::In(operands) => operands.iter().any(|operand| value == Some(*operand)),
        OrderedTest::NotIn(operands) => !operands.iter().any(|operand| value == Some(*operand)),
        OrderedTest::Lt(operand) => value.is_some_and(|value| value < *operand),
        OrderedTest::Lte(operand) => value.is_some_and(|value| value <= *operand),
        OrderedTest::Gt(operand) => value.is_some_and(|value| value > *operand),
        OrderedTest::Gte(operand) => value.is_some_and(|value| value >= *operand),
    }
}

/// A version: 1 to 4 decimal integers separated by dots, each below 2^32, with an
/// optional leading `v` or `V`. Missing parts count as 0.
pub fn parse_version(text: &str) -> Option<[u32; 4]> {
    let numbers = text.strip_prefix(['v', 'V']).unwrap_or(text);
    let mut parts = [0; 4];
    for (index, part) in numbers.split('.').enumerate() {
        if part.is_empty() || !part.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        *parts.get_mut(index)? = part.parse().ok()?;
    }
    Some(parts)
}

/// A unit's value: a string of at most 256 bytes, an integer's own text, or nothing.
fn unit_text(json: &str) -> Result<String, String> {
    let integer = json.strip_prefix('-').unwrap_or(json);
    let text = if json == "null" {
        String::new()
    } else if json.starts_with('"') {
        serde_json::from_str(json).map_err(|fault| fault.to_string())?
    } else if !integer.is_empty() && integer.bytes().all(|byte| byte.is_ascii_digit()) {
        json.to_owned()
    } else {
        return Err(format!("{json} is neither a string nor an integer"));
    };
    if text.len() > limits::UNIT_VALUE_SIZE_MAX {
        return Err(format!("{} bytes; at most {} are taken", text.len(), limits::UNIT_VALUE_SIZE_MAX));
    }
    Ok(text)
}

/// An attribute's value. serde_json's own numbers can be off by one in the last
/// place; `str::parse` gives the nearest f64, which is the rule.
fn attribute_value(json: &str) -> Result<Value, String> {
    Ok(match json.as_bytes()[0] {
        b'-' | b'0'..=b'9' => number_value(json),
        b'[' => {
            let items: Vec<&RawValue> = serde_json::from_str(json).map_err(|fault| fault.to_string())?;
            let items: Result<Vec<Value>, String> = items
                .iter()
                .map(|item| match item.get().as_bytes()[0] {
                    b'"' => serde_json::from_str(item.get()).map_err(|fault| fault.to_string()),
                    _ => Ok(Value::Null), // no string: what else it is does not matter
                })
                .collect();
            Value::Array(items?)
        }
        b'{' => Value::Object(serde_json::Map::new()),
        _ => Value::deserialize(&mut serde_json::Deserializer::from_str(json))
            .map_err(|fault| fault.to_string())?,
    })
}

/// A JSON number's text as the nearest f64; beyond f64, a value of no type.
pub fn number_value(json: &str) -> Value {
    let number: Option<f64> = json.parse().ok();
    number
        .and_then(serde_json::Number::from_f64)
        .map_or_else(|| Value::Object(serde_json::Map::new()), Value::Number)
}

#[cfg(test)]
mod tests;
