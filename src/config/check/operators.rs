//! Operators: which type takes which, with what operand, and the test it makes.
//! A new operator is one row here (and one arm where it is evaluated).

use super::json::{Kind, Node};
use super::report::Report;
use super::words::{listed, short};
use crate::engine::catalog::{AttributeKind, OrderedTest, StringTest, Test};
use crate::engine::reference::parse_version;

/// How an operator's operand is read, and what becomes of it.
enum Make<T> {
    One(fn(T) -> Test),
    Many(fn(Vec<T>) -> Test),
    /// A regular expression.
    Pattern(fn(T) -> Test),
}
use Make::{Many, One, Pattern};

type Rows<T> = &'static [(&'static str, Make<T>)];

const STRING: Rows<String> = &[
    ("eq", One(|text| Test::String(StringTest::Eq(text)))),
    ("ne", One(|text| Test::String(StringTest::Ne(text)))),
    ("in", Many(|texts| Test::String(StringTest::In(texts)))),
    ("not_in", Many(|texts| Test::String(StringTest::NotIn(texts)))),
    ("starts_with", One(|text| Test::String(StringTest::StartsWith(text)))),
    ("ends_with", One(|text| Test::String(StringTest::EndsWith(text)))),
    ("contains", One(|text| Test::String(StringTest::Contains(text)))),
    ("matches", Pattern(|text: String| Test::String(StringTest::Matches(text.into())))),
];
const NUMBER: Rows<f64> = &[
    ("eq", One(|number| Test::Number(OrderedTest::Eq(number)))),
    ("ne", One(|number| Test::Number(OrderedTest::Ne(number)))),
    ("in", Many(|numbers| Test::Number(OrderedTest::In(numbers)))),
    ("not_in", Many(|numbers| Test::Number(OrderedTest::NotIn(numbers)))),
    ("lt", One(|number| Test::Number(OrderedTest::Lt(number)))),
    ("lte", One(|number| Test::Number(OrderedTest::Lte(number)))),
    ("gt", One(|number| Test::Number(OrderedTest::Gt(number)))),
    ("gte", One(|number| Test::Number(OrderedTest::Gte(number)))),
];
const BOOL: Rows<bool> = &[("eq", One(Test::BoolEq)), ("ne", One(Test::BoolNe))];
const VERSION: Rows<[u32; 4]> = &[
    ("eq", One(|version| Test::Version(OrderedTest::Eq(version)))),
    ("ne", One(|version| Test::Version(OrderedTest::Ne(version)))),
    ("in", Many(|versions| Test::Version(OrderedTest::In(versions)))),
    ("not_in", Many(|versions| Test::Version(OrderedTest::NotIn(versions)))),
    ("lt", One(|version| Test::Version(OrderedTest::Lt(version)))),
    ("lte", One(|version| Test::Version(OrderedTest::Lte(version)))),
    ("gt", One(|version| Test::Version(OrderedTest::Gt(version)))),
    ("gte", One(|version| Test::Version(OrderedTest::Gte(version)))),
];
const STRING_LIST: Rows<String> = &[
    ("contains", One(|text| Test::ListAny(vec![text]))),
    ("contains_any", Many(Test::ListAny)),
    ("contains_all", Many(Test::ListAll)),
];
/// Taken by every type.
const EXISTS: &str = "exists";

/// The operators of a type.
pub(super) fn operators(kind: AttributeKind) -> Vec<&'static str> {
    fn names<T>(rows: Rows<T>) -> Vec<&'static str> {
        rows.iter().map(|(name, _)| *name).collect()
    }
    let mut operators = match kind {
        AttributeKind::String => names(STRING),
        AttributeKind::Number => names(NUMBER),
        AttributeKind::Bool => names(BOOL),
        AttributeKind::Version => names(VERSION),
        AttributeKind::StringList => names(STRING_LIST),
    };
    operators.push(EXISTS);
    operators
}

/// The operators of all types, each once.
pub(super) fn all_operators() -> Vec<&'static str> {
    let mut all = Vec::new();
    for (_, kind) in super::keys::TYPES {
        for operator in operators(*kind) {
            if !all.contains(&operator) {
                all.push(operator);
            }
        }
    }
    all
}

/// A test as written: operator and operand for an attribute of a type. The
/// operator's place is `op`, the operand's `value`, the whole test's `node`.
pub(super) fn read_test<'s>(
    report: &Report<'s>,
    kind: AttributeKind,
    node: &Node<'s, '_>,
    op: &str,
    value: Option<&Node<'s, '_>>,
) -> Option<Test> {
    if op == EXISTS {
        return match value {
            None => Some(Test::Exists(true)),
            Some(value) => {
                read_bool(report, value, "`exists`", "true, false, or no `value`").map(Test::Exists)
            }
        };
    }
    let asked = Asked { report, node, op, value };
    match kind {
        AttributeKind::String => asked.operand(STRING, "text", read_text),
        AttributeKind::Number => asked.operand(NUMBER, "number", read_number),
        AttributeKind::Bool => {
            asked.operand(BOOL, "bool", |report, node, what| read_bool(report, node, what, "true or false"))
        }
        AttributeKind::Version => asked.operand(VERSION, "version", read_version),
        AttributeKind::StringList => asked.operand(STRING_LIST, "text", read_text),
    }
}

/// One test whose operand is to be read.
struct Asked<'r, 's, 'p> {
    report: &'r Report<'s>,
    node: &'r Node<'s, 'p>,
    op: &'r str,
    value: Option<&'r Node<'s, 'p>>,
}

impl<'s> Asked<'_, 's, '_> {
    /// The operator was found to fit the type before.
    fn operand<T>(
        &self,
        rows: Rows<T>,
        noun: &str,
        read: fn(&Report<'s>, &Node<'s, '_>, &str) -> Option<T>,
    ) -> Option<Test> {
        let (report, op) = (self.report, self.op);
        let (_, make) = rows.iter().find(|(name, _)| *name == op)?;
        let Some(value) = self.value else {
            let plural =
                if matches!(make, Many(_)) { format!("a list of {noun}s") } else { format!("a {noun}") };
            report.fault(self.node, || format!("`{op}` has no `value`; {plural} is wanted"));
            return None;
        };
        let what = format!("the operand of `{op}`");
        match make {
            One(make) => {
                if value.kind() == Kind::Array {
                    report.fault(value, || format!("{what} is a list; one {noun} is wanted"));
                    return None;
                }
                read(report, value, &what).map(make)
            }
            Many(make) => {
                if value.kind() != Kind::Array {
                    report
                        .fault(value, || format!("{what} is {}; a list of {noun}s is wanted", value.shown()));
                    return None;
                }
                let items = report.list(value, &what)?;
                let what = format!("an item of the operand of `{op}`");
                let mut operands = Vec::with_capacity(items.len());
                let mut whole = true;
                for (index, item) in items.into_iter().enumerate() {
                    match read(report, &value.item(index, item), &what) {
                        Some(operand) => operands.push(operand),
                        None => whole = false,
                    }
                }
                whole.then(|| make(operands))
            }
            Pattern(make) => {
                let pattern = read(report, value, &what)?;
                let text: String = serde_json::from_str(value.raw).ok()?;
                if let Some(fault) = pattern_fault(&text) {
                    report.fault(value, || format!("the regular expression `{}` {fault}", short(&text)));
                    return None;
                }
                report.keep_pattern(value, &text);
                Some(make(pattern))
            }
        }
    }
}

fn read_text<'s>(report: &Report<'s>, node: &Node<'s, '_>, what: &str) -> Option<String> {
    report.text(node, what)
}

fn read_bool<'s>(report: &Report<'s>, node: &Node<'s, '_>, what: &str, wanted: &str) -> Option<bool> {
    match node.raw {
        "true" => Some(true),
        "false" => Some(false),
        _ => {
            report.fault(node, || format!("{what} is {}; {wanted} is wanted", node.shown()));
            None
        }
    }
}

/// The nearest f64. serde_json's own reading can be off by one in the last place.
fn read_number<'s>(report: &Report<'s>, node: &Node<'s, '_>, what: &str) -> Option<f64> {
    if node.kind() != Kind::Number {
        report.fault(node, || format!("{what} is {}; a number is wanted", node.shown()));
        return None;
    }
    let number: f64 = node.raw.parse().ok()?;
    if !number.is_finite() {
        report.fault(node, || {
            format!(
                "{what} is {}, beyond f64; at most {:e} either side of 0 is allowed",
                short(node.raw),
                f64::MAX
            )
        });
        return None;
    }
    Some(number + 0.0) // -0 is 0, which it equals anyway
}

fn read_version<'s>(report: &Report<'s>, node: &Node<'s, '_>, what: &str) -> Option<[u32; 4]> {
    let wanted = "a version is a text of 1 to 4 whole numbers below 2^32 with dots between, \"42.24\"";
    if node.kind() != Kind::Text {
        report.fault(node, || format!("{what} is {}; {wanted}", node.shown()));
        return None;
    }
    let text: String = serde_json::from_str(node.raw).ok()?;
    let version = parse_version(&text);
    if version.is_none() {
        report.fault(node, || format!("{what} is `{}`, no version; {wanted}", short(&text)));
    }
    version
}

/// What is wrong with a regular expression, and what would be right. Its size is
/// judged where it is compiled.
fn pattern_fault(pattern: &str) -> Option<String> {
    match regex_automata::util::syntax::parse(pattern) {
        Err(fault) => {
            // The message is a drawing of several lines; its last says what is wrong.
            let drawing = fault.to_string();
            let last = drawing.lines().last().unwrap_or_default();
            let wrong = last.strip_prefix("error: ").unwrap_or(last);
            Some(format!("is faulty: {wrong}; the syntax is that of the `regex` crate"))
        }
        Ok(hir) if hir.properties().look_set().contains_word_unicode() => Some(
            "has a Unicode word boundary (`\\b`, `\\B`, `\\<` …), which no table can hold; \
             `(?-u:\\b)` is the one of ASCII words"
                .into(),
        ),
        Ok(_) => None,
    }
}

/// An operator that an attribute's type does not take.
pub(super) fn operator_fault(report: &Report<'_>, op: &str, attribute: &str, kind: AttributeKind) -> String {
    let type_name = super::keys::type_name(kind);
    let takes = listed(operators(kind));
    let all = all_operators();
    if all.contains(&op) {
        format!(
            "operator `{op}` does not fit attribute `{}`, a {type_name}; a {type_name} takes {takes}",
            short(attribute)
        )
    } else {
        let suggestion = report.suggestion(op, operators(kind));
        format!("unknown operator `{}`{suggestion}; a {type_name} takes {takes}", short(op))
    }
}
