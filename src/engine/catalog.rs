//! The experiments as written, checked: what `config::check` makes of a file,
//! what `compile` turns into a plan, and what `reference` answers from directly.
//!
//! A `Catalog` exists only after every rule of the file was held against it, so
//! its users index without asking: names are resolved to indexes, values fit
//! their operators, blocks overlap nowhere.

use std::sync::OnceLock;

use regex_automata::meta::Regex;

/// A whole checked file. Vectors keep the file's order.
#[derive(Debug, Clone, PartialEq)]
pub struct Catalog {
    /// Chosen by whoever publishes the file; every answer and exposure carries it.
    pub version: String,
    /// Declared attributes.
    pub attributes: Vec<Attribute>,
    /// Unit kinds that a layer or an override names, each once, in order of first use.
    pub unit_kinds: Vec<String>,
    /// Named segments. One refers to another by index, never in a circle.
    pub segments: Vec<Segment>,
    /// Layers.
    pub layers: Vec<Layer>,
    /// Experiments of all states.
    pub experiments: Vec<Experiment>,
}

/// A declared attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attribute {
    /// Its name in requests.
    pub name: String,
    /// Its declared type.
    pub kind: AttributeKind,
}

/// The types an attribute can be declared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum AttributeKind {
    /// A JSON string, compared byte for byte.
    String,
    /// A JSON number, as the nearest f64.
    Number,
    /// `true`, `false`.
    Bool,
    /// One to four decimal integers with dots.
    Version,
    /// A JSON array of strings.
    StringList,
}

/// A named condition.
#[derive(Debug, Clone, PartialEq)]
pub struct Segment {
    /// Its name in the file.
    pub name: String,
    /// What must hold.
    pub condition: Condition,
}

/// A condition on attributes: always true or false, never unknown.
#[derive(Debug, Clone, PartialEq)]
pub enum Condition {
    /// Every one holds; of nothing, holds.
    All(Vec<Condition>),
    /// At least one holds; of nothing, does not.
    Any(Vec<Condition>),
    /// It does not hold.
    Not(Box<Condition>),
    /// The named segment holds (index into `Catalog::segments`).
    Segment(usize),
    /// A test of one attribute (index into `Catalog::attributes`).
    Test {
        /// Whose value is tested.
        attribute: usize,
        /// The operator with its operand.
        test: Test,
    },
}

/// An operator with an operand of the attribute's own type.
#[derive(Debug, Clone, PartialEq)]
pub enum Test {
    /// The attribute is there with the declared type; `false` turns it round.
    Exists(bool),
    /// `string`: `eq` `ne` `in` `not_in` `starts_with` `ends_with` `contains` `matches`.
    String(StringTest),
    /// `number`: `eq` `ne` `in` `not_in` `lt` `lte` `gt` `gte`. Operands are finite.
    Number(OrderedTest<f64>),
    /// `bool`: `eq`.
    BoolEq(bool),
    /// `bool`: `ne`.
    BoolNe(bool),
    /// `version`, as its four parts.
    Version(OrderedTest<[u32; 4]>),
    /// `string_list`: `contains` (a list of one), `contains_any`.
    ListAny(Vec<String>),
    /// `string_list`: `contains_all`.
    ListAll(Vec<String>),
}

/// Operators of `string`.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "the rules' own names")]
pub enum StringTest {
    Eq(String),
    Ne(String),
    In(Vec<String>),
    NotIn(Vec<String>),
    StartsWith(String),
    EndsWith(String),
    Contains(String),
    Matches(Pattern),
}

/// A regular expression, as written; compiled when a text is first held against it.
#[derive(Debug, Clone)]
pub struct Pattern {
    text: String,
    regex: OnceLock<Option<Regex>>,
}

impl Pattern {
    /// As the file has it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Unanchored. A pattern too large for this engine is too large for the plan as
    /// well, which refuses the file; here it matches nothing.
    pub(super) fn is_match(&self, text: &str) -> bool {
        let regex = self.regex.get_or_init(|| Regex::new(&self.text).ok());
        regex.as_ref().is_some_and(|regex| regex.is_match(text))
    }
}

impl From<String> for Pattern {
    fn from(text: String) -> Pattern {
        Pattern { text, regex: OnceLock::new() }
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Pattern) -> bool {
        self.text == other.text
    }
}

/// Operators of `number` and `version`.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "the rules' own names")]
pub enum OrderedTest<T> {
    Eq(T),
    Ne(T),
    In(Vec<T>),
    NotIn(Vec<T>),
    Lt(T),
    Lte(T),
    Gt(T),
    Gte(T),
}

/// A salt, a unit and a number of buckets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// Its name in the file.
    pub name: String,
    /// Goes before the unit into the hash.
    pub salt: String,
    /// Index into `Catalog::unit_kinds`.
    pub unit_kind: usize,
    /// 1 to 65,536.
    pub bucket_count: u32,
}

/// Whether an experiment assigns, and whether its blocks are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Assigns.
    Running,
    /// Assigns nobody; its blocks are taken.
    Draft,
    /// Assigns nobody; its blocks are taken.
    Killed,
    /// Assigns nobody; its blocks are free.
    Finished,
}

/// An experiment.
#[derive(Debug, Clone, PartialEq)]
pub struct Experiment {
    /// Unique over all states.
    pub id: i64,
    /// The run of this experiment.
    pub run_id: i32,
    /// Unique over all states.
    pub name: String,
    /// Only `Running` assigns.
    pub state: State,
    /// Index into `Catalog::layers`.
    pub layer: usize,
    /// None means everybody.
    pub segment: Option<Condition>,
    /// Its arms.
    pub groups: Vec<Group>,
    /// In the file's order of unit kinds, and of units within one.
    pub overrides: Vec<OverrideKind>,
}

/// One arm of an experiment.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    /// Unique within the experiment.
    pub name: String,
    /// As written: may touch, never overlap.
    pub blocks: Vec<Block>,
    /// The payload's JSON as written, less insignificant white space.
    pub payload: Option<String>,
}

/// A run of buckets of one group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block {
    /// The first bucket.
    pub first: u32,
    /// At least 1.
    pub count: u32,
}

/// The overrides of an experiment for one kind of unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OverrideKind {
    /// Index into `Catalog::unit_kinds`.
    pub unit_kind: usize,
    /// (unit's value, index into the experiment's groups).
    pub units: Vec<(String, usize)>,
}
