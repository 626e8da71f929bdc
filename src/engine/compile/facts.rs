//! Tests of attributes → words of facts, and the leaves that look at them.
//!
//! First every test that a running experiment may come to is gathered: its
//! thresholds, literals, sets and patterns, equal ones once. Then each
//! attribute's words are laid out (`Facts` draws them), and each test gets the
//! shape that asks them.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::fragments::Text;
use super::index::push_index;
use super::regex::Dfa;
use super::running;
use crate::engine::catalog::{Attribute, AttributeKind, Catalog, Condition, OrderedTest, StringTest, Test};
use crate::engine::operator::{DfaRecord, Operator, version_number};
use crate::engine::plan::{AttributeRecord, NONE, PatternRecord, RowBits, Span, TablesBuilder};
use crate::engine::segment::Leaf;
use xxhash_rust::xxh3::xxh3_64;

/// How a test asks the facts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Shape {
    /// Always the same.
    Constant(bool),
    /// The leaf does not pass.
    Not(Leaf),
    /// One of the leaves passes.
    Any(Vec<Leaf>),
    /// All the leaves pass.
    All(Vec<Leaf>),
}

/// The shapes of the tests that were gathered, by the test's place in the catalog's memory.
#[derive(Debug, Default)]
pub(super) struct Tests {
    shapes: HashMap<usize, Shape>,
}

impl Tests {
    /// The shape of a test that a running experiment may come to.
    pub fn shape(&self, condition: &Condition) -> &Shape {
        &self.shapes[&key(condition)]
    }
}

fn key(condition: &Condition) -> usize {
    std::ptr::from_ref(condition).addr()
}

/// Lays out the facts: fills the tables of attributes and all they refer to.
/// Says how many words there are, and how each test asks them.
pub(super) fn lay_out(
    catalog: &Catalog,
    regexes: &HashMap<&str, Dfa>,
    tables: &mut TablesBuilder,
    text: &mut Text,
) -> (u32, Tests) {
    let mut attributes: Vec<Gathered<'_>> = catalog.attributes.iter().map(|_| Gathered::default()).collect();
    let conditions = reachable(catalog);
    for condition in &conditions {
        for_each_test(condition, &mut |_, attribute, test| attributes[attribute].gather(test));
    }
    let mut fact_count = 0;
    let mut dfa_numbers = HashMap::new();
    for (attribute, gathered) in catalog.attributes.iter().zip(&mut attributes) {
        gathered.sort();
        gathered.slot = fact_count;
        fact_count += gathered.word_count(attribute.kind);
        gathered.write(attribute, regexes, &mut dfa_numbers, tables, text);
    }
    let mut tests = Tests::default();
    for condition in &conditions {
        for_each_test(condition, &mut |condition, attribute, test| {
            tests.shapes.insert(key(condition), attributes[attribute].shape(test));
        });
    }
    (fact_count.max(1), tests)
}

/// The conditions that running experiments may come to, each once, named
/// segments not written out.
fn reachable(catalog: &Catalog) -> Vec<&Condition> {
    fn name(condition: &Condition, open: &mut Vec<usize>) {
        match condition {
            Condition::All(all) | Condition::Any(all) => all.iter().for_each(|c| name(c, open)),
            Condition::Not(condition) => name(condition, open),
            Condition::Segment(index) => open.push(*index),
            Condition::Test { .. } => {}
        }
    }
    let mut conditions: Vec<&Condition> = running(catalog).filter_map(|(_, e)| e.segment.as_ref()).collect();
    let mut open = Vec::new();
    conditions.iter().for_each(|condition| name(condition, &mut open));
    let mut seen = HashSet::new();
    while let Some(index) = open.pop() {
        if seen.insert(index) {
            let condition = &catalog.segments[index].condition;
            name(condition, &mut open);
            conditions.push(condition);
        }
    }
    conditions
}

fn for_each_test<'c>(condition: &'c Condition, see: &mut dyn FnMut(&'c Condition, usize, &'c Test)) {
    match condition {
        Condition::All(all) | Condition::Any(all) => all.iter().for_each(|c| for_each_test(c, see)),
        Condition::Not(condition) => for_each_test(condition, see),
        Condition::Segment(_) => {}
        Condition::Test { attribute, test } => see(condition, *attribute, test),
    }
}

/// What all tests of one attribute compare it with.
#[derive(Debug, Default)]
struct Gathered<'c> {
    slot: u32,
    /// Of `number` and `version`, as keys; ascending once sorted.
    thresholds: Vec<Key>,
    /// Of `string` and `string_list`.
    literals: Vec<&'c str>,
    literal_numbers: HashMap<&'c str, u32>,
    /// Sets of two elements and more.
    sets: Vec<Vec<Key>>,
    set_numbers: HashMap<Vec<Key>, u32>,
    patterns: Vec<(Operator, &'c str)>,
    pattern_numbers: HashMap<(Operator, &'c str), u32>,
}

/// A threshold as a number that orders like it, or a literal's number.
type Key = u128;

/// A finite number's bits, made to order like the number; -0 is 0.
fn number_key(number: f64) -> Key {
    let bits = (number + 0.0).to_bits();
    Key::from(if bits >> 63 == 1 { !bits } else { bits | 1 << 63 })
}

/// The number of a key.
fn key_number(key: Key) -> f64 {
    let bits = key as u64;
    f64::from_bits(if bits >> 63 == 1 { bits & !(1 << 63) } else { !bits })
}

/// An operator that compares, over keys.
enum Comparison {
    Equal(Key),
    Within(Vec<Key>),
    Below(Key),
    NotAbove(Key),
    Above(Key),
    NotBelow(Key),
}

impl Comparison {
    /// Of a set with its elements once; one element alone is compared with.
    fn within(keys: impl Iterator<Item = Key>) -> Comparison {
        let set: Vec<Key> = keys.collect::<BTreeSet<_>>().into_iter().collect();
        match set[..] {
            [one] => Comparison::Equal(one),
            _ => Comparison::Within(set),
        }
    }
}

/// The comparison of a test, and whether the test is that it fails.
fn ordered<T>(test: &OrderedTest<T>, key: impl Fn(&T) -> Key) -> (Comparison, bool) {
    match test {
        OrderedTest::Eq(one) => (Comparison::Equal(key(one)), false),
        OrderedTest::Ne(one) => (Comparison::Equal(key(one)), true),
        OrderedTest::In(set) => (Comparison::within(set.iter().map(key)), false),
        OrderedTest::NotIn(set) => (Comparison::within(set.iter().map(key)), true),
        OrderedTest::Lt(one) => (Comparison::Below(key(one)), false),
        OrderedTest::Lte(one) => (Comparison::NotAbove(key(one)), false),
        OrderedTest::Gt(one) => (Comparison::Above(key(one)), false),
        OrderedTest::Gte(one) => (Comparison::NotBelow(key(one)), false),
    }
}

/// What a test of a string, number or version is.
enum Asked<'t> {
    Compared(Comparison, bool),
    Pattern(Operator, &'t str),
}

impl<'c> Gathered<'c> {
    /// A test as a comparison or a pattern; `literal` numbers the literals.
    fn asked<'t>(test: &'t Test, mut literal: impl FnMut(&'t str) -> u32) -> Option<Asked<'t>> {
        let mut literal = |text: &'t str| Key::from(literal(text));
        let (comparison, negated) = match test {
            Test::Number(test) => ordered(test, |&number| number_key(number)),
            Test::Version(test) => ordered(test, |&parts| version_number(parts)),
            Test::String(test) => match test {
                StringTest::Eq(one) => (Comparison::Equal(literal(one)), false),
                StringTest::Ne(one) => (Comparison::Equal(literal(one)), true),
                StringTest::In(set) => (Comparison::within(set.iter().map(|text| literal(text))), false),
                StringTest::NotIn(set) => (Comparison::within(set.iter().map(|text| literal(text))), true),
                StringTest::StartsWith(text) => return Some(Asked::Pattern(Operator::StartsWith, text)),
                StringTest::EndsWith(text) => return Some(Asked::Pattern(Operator::EndsWith, text)),
                StringTest::Contains(text) => return Some(Asked::Pattern(Operator::Contains, text)),
                StringTest::Matches(pattern) => {
                    return Some(Asked::Pattern(Operator::Matches, pattern.as_str()));
                }
            },
            Test::Exists(_) | Test::BoolEq(_) | Test::BoolNe(_) | Test::ListAny(_) | Test::ListAll(_) => {
                return None;
            }
        };
        Some(Asked::Compared(comparison, negated))
    }

    fn literal(&mut self, text: &'c str) -> u32 {
        *self.literal_numbers.entry(text).or_insert_with(|| {
            self.literals.push(text);
            self.literals.len() as u32 - 1
        })
    }

    fn gather(&mut self, test: &'c Test) {
        if let Test::ListAny(texts) | Test::ListAll(texts) = test {
            texts.iter().for_each(|text| _ = self.literal(text));
        }
        match Self::asked(test, |text| self.literal(text)) {
            None => {}
            Some(Asked::Pattern(operator, operand)) => {
                self.pattern_numbers.entry((operator, operand)).or_insert_with(|| {
                    self.patterns.push((operator, operand));
                    self.patterns.len() as u32 - 1
                });
            }
            Some(Asked::Compared(comparison, _)) => {
                let is_ordered = matches!(test, Test::Number(_) | Test::Version(_));
                match comparison {
                    Comparison::Within(set) => {
                        if is_ordered {
                            self.thresholds.extend_from_slice(&set);
                        }
                        if !set.is_empty() && !self.set_numbers.contains_key(&set) {
                            self.set_numbers.insert(set.clone(), self.sets.len() as u32);
                            self.sets.push(set);
                        }
                    }
                    Comparison::Equal(one)
                    | Comparison::Below(one)
                    | Comparison::NotAbove(one)
                    | Comparison::Above(one)
                    | Comparison::NotBelow(one) => {
                        if is_ordered {
                            self.thresholds.push(one);
                        }
                    }
                }
            }
        }
    }

    fn sort(&mut self) {
        self.thresholds.sort_unstable();
        self.thresholds.dedup();
    }

    fn word_count(&self, kind: AttributeKind) -> u32 {
        let bit_count = match kind {
            AttributeKind::StringList => self.literals.len(),
            _ => self.sets.len() + self.patterns.len(),
        };
        1 + bit_count.div_ceil(32) as u32
    }

    /// The place of a threshold, or a literal's number.
    fn place(&self, test: &Test, key: Key) -> u32 {
        match test {
            Test::Number(_) | Test::Version(_) => self.thresholds.partition_point(|&t| t < key) as u32,
            _ => key as u32,
        }
    }

    fn shape(&self, test: &Test) -> Shape {
        let leaf = |word, mask, low, span| Leaf { slot: self.slot + word, mask, low, span, next: [0; 2] };
        let rank = |low, span| leaf(0, u32::MAX, low, span);
        let bit = |bit: u32| leaf(1 + bit / 32, 1 << (bit % 32), 1, u32::MAX);
        let present = rank(1, u32::MAX);
        let turned = |leaf, negated| {
            if negated { Shape::Not(leaf) } else { Shape::Any(vec![leaf]) }
        };
        match test {
            Test::Exists(there) => return turned(present, !there),
            Test::BoolEq(truth) => return turned(rank(1 + u32::from(*truth), 1), false),
            Test::BoolNe(truth) => return turned(rank(1 + u32::from(*truth), 1), true),
            Test::ListAny(texts) => {
                let words = self.masks(texts);
                return Shape::Any(
                    words.into_iter().map(|(word, mask)| leaf(word, mask, 1, u32::MAX)).collect(),
                );
            }
            Test::ListAll(texts) if texts.is_empty() => return turned(present, false),
            Test::ListAll(texts) => {
                let words = self.masks(texts);
                return Shape::All(words.into_iter().map(|(word, mask)| leaf(word, mask, mask, 1)).collect());
            }
            Test::String(_) | Test::Number(_) | Test::Version(_) => {}
        }
        let asked = Self::asked(test, |text| self.literal_numbers[text]);
        let (comparison, negated) = match asked.expect("strings, numbers and versions are compared") {
            Asked::Compared(comparison, negated) => (comparison, negated),
            Asked::Pattern(operator, operand) => {
                let number = self.sets.len() as u32 + self.pattern_numbers[&(operator, operand)];
                return turned(bit(number), false);
            }
        };
        let is_string = matches!(test, Test::String(_));
        let threshold_count = self.thresholds.len() as u32;
        // Of threshold i: below it lie ranks 1..=2i+1, equal is 2i+2, the last rank is 2n+1.
        match comparison {
            Comparison::Within(set) if set.is_empty() => Shape::Constant(negated),
            Comparison::Within(set) => turned(bit(self.set_numbers[&set]), negated),
            Comparison::Equal(key) if is_string => turned(rank(2 + self.place(test, key), 1), negated),
            Comparison::Equal(key) => turned(rank(2 * self.place(test, key) + 2, 1), negated),
            Comparison::Below(key) => turned(rank(1, 2 * self.place(test, key) + 1), false),
            Comparison::NotAbove(key) => turned(rank(1, 2 * self.place(test, key) + 2), false),
            Comparison::Above(key) => {
                let place = self.place(test, key);
                turned(rank(2 * place + 3, 2 * (threshold_count - place) - 1), false)
            }
            Comparison::NotBelow(key) => {
                let place = self.place(test, key);
                turned(rank(2 * place + 2, 2 * (threshold_count - place)), false)
            }
        }
    }

    /// The bits of a list's literals, word by word.
    fn masks(&self, texts: &[String]) -> BTreeMap<u32, u32> {
        let mut masks = BTreeMap::new();
        for text in texts {
            let literal = self.literal_numbers[&**text];
            *masks.entry(1 + literal / 32).or_default() |= 1 << (literal % 32);
        }
        masks
    }

    fn write(
        &self,
        attribute: &'c Attribute,
        regexes: &HashMap<&str, Dfa>,
        dfa_numbers: &mut HashMap<&'c str, u32>,
        tables: &mut TablesBuilder,
        text: &mut Text,
    ) {
        let first = match attribute.kind {
            AttributeKind::Number => {
                tables.numbers.extend(self.thresholds.iter().map(|&key| key_number(key)));
                tables.numbers.len() - self.thresholds.len()
            }
            AttributeKind::Version => {
                tables.versions.extend_from_slice(&self.thresholds);
                tables.versions.len() - self.thresholds.len()
            }
            AttributeKind::String | AttributeKind::StringList => {
                tables.literals.extend(self.literals.iter().map(|literal| text.push(literal.as_bytes())));
                tables.literals.len() - self.literals.len()
            }
            AttributeKind::Bool => 0,
        };
        let count = self.thresholds.len().max(self.literals.len());
        let pattern_first = tables.patterns.len() as u32;
        for (number, &(operator, operand)) in self.patterns.iter().enumerate() {
            let bit = (self.sets.len() + number) as u32;
            let operand = match operator {
                Operator::Matches => {
                    let dfa =
                        *dfa_numbers.entry(operand).or_insert_with(|| push_dfa(&regexes[operand], tables));
                    Span { start: dfa, size: 0 }
                }
                Operator::StartsWith | Operator::EndsWith | Operator::Contains => {
                    text.push(operand.as_bytes())
                }
            };
            tables.patterns.push(PatternRecord {
                operator: operator as u32,
                word: 1 + bit / 32,
                bits: 1 << (bit % 32),
                operand,
            });
        }
        let hashes: Vec<u64> = self.literals.iter().map(|literal| xxh3_64(literal.as_bytes())).collect();
        let record = AttributeRecord {
            name: text.push(attribute.name.as_bytes()),
            kind: attribute.kind as u32,
            slot: self.slot,
            word_count: self.word_count(attribute.kind),
            first: first as u32,
            count: count as u32,
            row_first: self.write_rows(attribute.kind, count, tables),
            pattern_first,
            pattern_count: self.patterns.len() as u32,
            index: push_index(&mut tables.slots, &hashes),
        };
        tables.attributes.push(record);
    }

    /// For each threshold or literal the sets it is in, as bits; only those
    /// words that have any, so that many small sets do not multiply.
    fn write_rows(&self, kind: AttributeKind, count: usize, tables: &mut TablesBuilder) -> u32 {
        if self.sets.is_empty() {
            return NONE;
        }
        let mut members: Vec<(usize, u32)> = Vec::new(); // (threshold or literal, set)
        for (set, keys) in self.sets.iter().enumerate() {
            members.extend(keys.iter().map(|&key| match kind {
                AttributeKind::Number | AttributeKind::Version => {
                    (self.thresholds.partition_point(|&t| t < key), set as u32)
                }
                _ => (key as usize, set as u32),
            }));
        }
        members.sort_unstable();
        let first = tables.rows.len() as u32;
        let mut members = members.into_iter().peekable();
        for place in 0..count {
            let start = tables.row_bits.len();
            tables.rows.push(start as u32);
            while let Some((_, set)) = members.next_if(|&(member, _)| member == place) {
                let (word, bits) = (1 + set / 32, 1 << (set % 32));
                match tables.row_bits[start..].last_mut() {
                    Some(last) if last.word == word => last.bits |= bits,
                    _ => tables.row_bits.push(RowBits { word, bits }),
                }
            }
        }
        tables.rows.push(tables.row_bits.len() as u32);
        first
    }
}

fn push_dfa(dfa: &Dfa, tables: &mut TablesBuilder) -> u32 {
    tables.dfas.push(DfaRecord {
        classes: tables.dfa_classes.len() as u32,
        transition_first: tables.dfa_transitions.len() as u32,
        class_count: dfa.class_count,
        state_count: dfa.transitions.len() as u32 / dfa.class_count,
        start: u32::from(dfa.start),
    });
    tables.dfa_classes.push(dfa.classes);
    tables.dfa_transitions.extend_from_slice(&dfa.transitions);
    tables.dfas.len() as u32 - 1
}
