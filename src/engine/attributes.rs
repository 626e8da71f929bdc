//! What a request says of its unit, as the plan needs it: for every attribute a
//! few words of facts, overwritten where an attribute comes twice. No value is
//! kept: each is turned into facts the moment the scanner meets it.

use std::ops::Range;

use xxhash_rust::xxh3::xxh3_64;

use super::catalog::AttributeKind;
use super::operator::{Operator, contains, parse_version, rank, version_number};
use super::plan::{AttributeRecord, NONE, PatternRecord, Plan, kind_of};

/// A declared attribute of the plan in force (index into the plan's table).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AttributeIndex(pub u16);

/// An attribute's value as the scanner met it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    /// `null`: as good as missing, and no fault.
    Null,
    /// `true`, `false`.
    Bool(bool),
    /// A finite number.
    Number(f64),
    /// A string, unescaped.
    Text(&'a str),
    /// An object, a number beyond f64, or anything else of no declared type.
    Other,
}

/// The facts of one request. One a worker, sized for a plan: made anew when the
/// plan changes.
///
/// ```text
/// an attribute's words
/// word 0     number, version   rank among the thresholds (operator.rs)
///            bool              1 false, 2 true
///            string            1, or 2 + i where it is literal i
///            string_list       1
/// words 1..  number, version, string   a bit for each set (`in`) it is in
///            string                    a bit for each pattern that fits
///            string_list               a bit for each literal it contains
/// ```
/// A missing attribute's words are all 0, so that no test of them passes.
#[derive(Debug, Clone)]
pub struct Facts {
    words: Vec<u32>,
    /// One bit an attribute: its last value was of another type than declared.
    mistyped: Vec<u64>,
}

impl Facts {
    /// Room for the facts of this plan; every attribute is missing.
    pub fn new(plan: &Plan<'_>) -> Facts {
        Facts { words: vec![0; plan.fact_count()], mistyped: vec![0; plan.attribute_count().div_ceil(64)] }
    }

    /// Every attribute is missing again: before every request.
    pub fn clear(&mut self, plan: &Plan<'_>) {
        assert_eq!(self.words.len(), plan.fact_count(), "facts made for another plan");
        self.words.fill(0);
        self.mistyped.fill(0);
    }

    /// Takes a value; what an earlier value of the attribute said is forgotten.
    pub fn set(&mut self, plan: &Plan<'_>, attribute: AttributeIndex, value: Value<'_>) {
        let record = plan.attribute_record(attribute);
        let words = self.begin(record);
        let fits = match (kind_of(record), value) {
            (_, Value::Null) => true,
            (AttributeKind::String, Value::Text(text)) => set_text(words, plan, record, text),
            (AttributeKind::Number, Value::Number(number)) if number.is_finite() => {
                set_ordered(words, plan, record, &plan.tables().numbers[comparands(record)], number)
            }
            (AttributeKind::Version, Value::Text(text)) => parse_version(text).is_some_and(|parts| {
                let thresholds = &plan.tables().versions[comparands(record)];
                set_ordered(words, plan, record, thresholds, version_number(parts))
            }),
            (AttributeKind::Bool, Value::Bool(truth)) => {
                words[0] = 1 + u32::from(truth);
                true
            }
            _ => false,
        };
        self.note(attribute, fits);
    }

    /// A list begins; what an earlier value of the attribute said is forgotten.
    pub fn list_begin(&mut self, plan: &Plan<'_>, attribute: AttributeIndex) {
        self.words_of(plan.attribute_record(attribute)).fill(0);
    }

    /// A string of the list that was begun.
    pub fn list_item(&mut self, plan: &Plan<'_>, attribute: AttributeIndex, item: &str) {
        let record = plan.attribute_record(attribute);
        if kind_of(record) != AttributeKind::StringList {
            return; // `list_end` notes it
        }
        if let Some(literal) = literal(plan, record, item) {
            let words = self.words_of(record);
            words[1 + literal as usize / 32] |= 1 << (literal % 32);
        }
    }

    /// The list is over; `all_strings` says that nothing else was in it.
    pub fn list_end(&mut self, plan: &Plan<'_>, attribute: AttributeIndex, all_strings: bool) {
        let record = plan.attribute_record(attribute);
        let fits = all_strings && kind_of(record) == AttributeKind::StringList;
        if fits {
            self.words_of(record)[0] = 1;
        } else {
            self.words_of(record).fill(0);
        }
        self.note(attribute, fits);
    }

    /// Attributes whose last value was of another type than declared.
    pub fn mistyped(&self) -> impl Iterator<Item = AttributeIndex> + '_ {
        bits(&self.mistyped).map(|index| AttributeIndex(index as u16))
    }

    /// Whether there is any such attribute.
    pub fn mistyped_any(&self) -> bool {
        self.mistyped.iter().any(|&word| word != 0)
    }

    #[inline]
    pub(super) fn words(&self) -> &[u32] {
        &self.words
    }

    #[inline]
    fn words_of(&mut self, record: &AttributeRecord) -> &mut [u32] {
        &mut self.words[record.slot as usize..][..record.word_count as usize]
    }

    /// The attribute's words, as if it were missing. No list of it is open.
    #[inline]
    fn begin(&mut self, record: &AttributeRecord) -> &mut [u32] {
        let words = self.words_of(record);
        // Of one that is missing all are 0, and of one that is there the first is not.
        if words[0] != 0 {
            words.fill(0);
        }
        words
    }

    #[inline]
    fn note(&mut self, attribute: AttributeIndex, fits: bool) {
        let (word, bit) = (&mut self.mistyped[usize::from(attribute.0 / 64)], attribute.0 % 64);
        if !fits || *word != 0 {
            *word = *word & !(1 << bit) | u64::from(!fits) << bit;
        }
    }
}

#[inline]
fn comparands(record: &AttributeRecord) -> Range<usize> {
    record.first as usize..record.first as usize + record.count as usize
}

/// Which of the attribute's literals a text is.
#[inline]
fn literal(plan: &Plan<'_>, record: &AttributeRecord, text: &str) -> Option<u32> {
    if record.count == 0 {
        return None;
    }
    let literals = &plan.tables().literals[comparands(record)];
    plan.find(record.index, xxh3_64(text.as_bytes()), |index| {
        plan.bytes(literals[index as usize]) == text.as_bytes()
    })
}

#[inline]
fn set_text(words: &mut [u32], plan: &Plan<'_>, record: &AttributeRecord, text: &str) -> bool {
    words[0] = 1;
    if let Some(literal) = literal(plan, record, text) {
        words[0] = 2 + literal;
        set_row(words, plan, record, literal);
    }
    let patterns = &plan.tables().patterns[record.pattern_first as usize..][..record.pattern_count as usize];
    for pattern in patterns {
        let fits = pattern_fits(plan, pattern, text.as_bytes());
        words[pattern.word as usize] |= pattern.bits * u32::from(fits);
    }
    true
}

#[inline]
fn set_ordered<T: Copy + PartialOrd>(
    words: &mut [u32],
    plan: &Plan<'_>,
    record: &AttributeRecord,
    thresholds: &[T],
    value: T,
) -> bool {
    let rank = rank(thresholds, value);
    words[0] = rank;
    if rank.is_multiple_of(2) {
        set_row(words, plan, record, rank / 2 - 1);
    }
    true
}

/// Adds the truth bits of a literal or threshold.
#[inline]
fn set_row(words: &mut [u32], plan: &Plan<'_>, record: &AttributeRecord, index: u32) {
    if record.row_first == NONE {
        return;
    }
    let tables = plan.tables();
    let starts = &tables.rows[(record.row_first + index) as usize..][..2];
    for row in &tables.row_bits[starts[0] as usize..starts[1] as usize] {
        words[row.word as usize] |= row.bits;
    }
}

#[inline]
fn pattern_fits(plan: &Plan<'_>, pattern: &PatternRecord, text: &[u8]) -> bool {
    let tables = plan.tables();
    match Operator::from_number(pattern.operator) {
        Some(Operator::StartsWith) => text.starts_with(plan.bytes(pattern.operand)),
        Some(Operator::EndsWith) => text.ends_with(plan.bytes(pattern.operand)),
        Some(Operator::Contains) => contains(text, plan.bytes(pattern.operand)),
        Some(Operator::Matches) => {
            let dfa = &tables.dfas[pattern.operand.start as usize];
            dfa.matches(tables.dfa_classes, tables.dfa_transitions, text)
        }
        None => false,
    }
}

/// The set bits, ascending.
fn bits(words: &[u64]) -> impl Iterator<Item = usize> + '_ {
    words.iter().enumerate().flat_map(|(index, &word)| {
        std::iter::successors((word != 0).then_some(word), |&rest| {
            let rest = rest & (rest - 1);
            (rest != 0).then_some(rest)
        })
        .map(move |rest| index * 64 + rest.trailing_zeros() as usize)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::catalog::{Attribute, Catalog};
    use crate::engine::compile::compile;

    fn with_facts(see: impl Fn(&Plan<'_>, &mut Facts, &dyn Fn(&str) -> AttributeIndex)) {
        let kinds = [
            ("s", AttributeKind::String),
            ("n", AttributeKind::Number),
            ("b", AttributeKind::Bool),
            ("v", AttributeKind::Version),
            ("l", AttributeKind::StringList),
        ];
        let catalog = Catalog {
            version: "1".to_owned(),
            attributes: kinds.map(|(name, kind)| Attribute { name: name.to_owned(), kind }).to_vec(),
            unit_kinds: Vec::new(),
            segments: Vec::new(),
            layers: Vec::new(),
            experiments: Vec::new(),
        };
        let image = compile(&catalog, b"").unwrap();
        let plan = Plan::open(image.bytes()).unwrap();
        see(&plan, &mut Facts::new(&plan), &|name| plan.attribute(name).unwrap().0);
    }

    #[test]
    fn a_value_of_another_type_is_missing_and_noted_until_a_better_one_comes() {
        with_facts(|plan, facts, attribute| {
            let wrong = [
                ("s", Value::Number(1.0)),
                ("s", Value::Other),
                ("n", Value::Text("18")),
                ("n", Value::Number(f64::INFINITY)),
                ("n", Value::Number(f64::NAN)),
                ("b", Value::Text("true")),
                ("b", Value::Number(1.0)),
                ("v", Value::Number(42.24)),
                ("v", Value::Text("1.2.3.4.5")),
                ("l", Value::Text("kids")),
                ("l", Value::Bool(true)),
            ];
            for (name, value) in wrong {
                facts.clear(plan);
                facts.set(plan, attribute(name), value);
                assert!(facts.words().iter().all(|&word| word == 0), "{name} {value:?}");
                assert_eq!(facts.mistyped().collect::<Vec<_>>(), [attribute(name)], "{name} {value:?}");
                assert!(facts.mistyped_any());
                facts.set(plan, attribute(name), Value::Null);
                assert!(!facts.mistyped_any(), "{name} {value:?}, then null");
            }
        });
    }

    #[test]
    fn the_last_value_alone_counts() {
        with_facts(|plan, facts, attribute| {
            for (name, value) in [
                ("s", Value::Text("")),
                ("n", Value::Number(-0.0)),
                ("b", Value::Bool(false)),
                ("v", Value::Text("0")),
            ] {
                facts.set(plan, attribute(name), Value::Other);
                facts.set(plan, attribute(name), value);
                assert!(facts.words().iter().any(|&word| word != 0), "{name} is there");
                assert!(!facts.mistyped_any());
                facts.set(plan, attribute(name), Value::Null);
                assert!(facts.words().iter().all(|&word| word == 0), "{name} is missing");
            }
        });
    }

    #[test]
    fn a_list_is_there_only_once_it_ended_well() {
        with_facts(|plan, facts, attribute| {
            let is_there = |facts: &Facts| facts.words().iter().any(|&word| word != 0);
            let list = attribute("l");
            facts.list_begin(plan, list);
            facts.list_item(plan, list, "kids");
            facts.list_end(plan, list, true);
            assert!(is_there(facts) && !facts.mistyped_any());
            facts.list_begin(plan, list);
            facts.list_end(plan, list, false);
            assert!(!is_there(facts) && facts.mistyped_any());
            facts.list_begin(plan, list);
            facts.list_end(plan, list, true);
            assert!(is_there(facts) && !facts.mistyped_any(), "an empty list is a list");
            let text = attribute("s");
            facts.clear(plan);
            facts.list_begin(plan, text);
            facts.list_item(plan, text, "a");
            facts.list_end(plan, text, true);
            assert!(!is_there(facts));
            assert_eq!(facts.mistyped().collect::<Vec<_>>(), [text]);
        });
    }
}
