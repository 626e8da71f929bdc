//! Regular expressions → transition tables.
//!
//! The table is smaller than what the regex library would serialise: states that
//! match are one, transitions take 16 bits, rows are as wide as there are
//! classes of bytes. Its size is what the limits mean.

use std::collections::HashMap;

use regex_automata::Anchored;
use regex_automata::dfa::{Automaton, StartKind, dense};
use regex_automata::nfa::thompson;
use regex_automata::util::primitives::StateID;
use regex_automata::util::start;

use super::{CompileFault, Place, Step, conditions};
use crate::engine::catalog::{Catalog, Condition, StringTest, Test};
use crate::engine::operator::{DEAD, MATCHED};
use crate::limits::{REGEX_SIZE_MAX, REGEX_TOTAL_SIZE_MAX};

/// Room to work an expression out in. A table within its limit may need more
/// than that on the way: 32-bit transitions, rows of a power of two, all the
/// states that match.
const WORK_SIZE_MAX: usize = 16 * REGEX_SIZE_MAX;

/// A regular expression's table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Dfa {
    pub classes: [u8; 256],
    /// With the one for the text's end.
    pub class_count: u32,
    /// `class_count` for each state.
    pub transitions: Vec<u16>,
    pub start: u16,
}

impl Dfa {
    fn size(&self) -> usize {
        self.classes.len() + self.transitions.len() * 2
    }
}

/// The table of every expression of the file, by its text. All are held against
/// the limits, those of segments that nobody uses too.
pub(super) fn compile_all<'c>(catalog: &'c Catalog, faults: &mut Vec<CompileFault>) -> HashMap<&'c str, Dfa> {
    let mut compiler = Compiler { dfas: HashMap::new(), messages: HashMap::new(), total_size: 0, faults };
    for (place, condition) in conditions(catalog) {
        compiler.walk(&place, condition, &mut Vec::new());
    }
    compiler.dfas
}

struct Compiler<'c, 'f> {
    dfas: HashMap<&'c str, Dfa>,
    /// Why others have none.
    messages: HashMap<&'c str, String>,
    total_size: usize,
    faults: &'f mut Vec<CompileFault>,
}

impl<'c> Compiler<'c, '_> {
    /// Conditions nest no deeper than the file's JSON.
    fn walk(&mut self, root: &Place, condition: &'c Condition, steps: &mut Vec<Step>) {
        let mut walk_at = |step, condition| {
            steps.push(step);
            self.walk(root, condition, steps);
            steps.pop();
        };
        match condition {
            Condition::All(all) => all.iter().enumerate().for_each(|(i, c)| walk_at(Step::All(i), c)),
            Condition::Any(any) => any.iter().enumerate().for_each(|(i, c)| walk_at(Step::Any(i), c)),
            Condition::Not(condition) => walk_at(Step::Not, condition),
            Condition::Test { test: Test::String(StringTest::Matches(pattern)), .. } => {
                steps.push(Step::Value);
                self.add(root, pattern.as_str(), steps);
                steps.pop();
            }
            Condition::Segment(_) | Condition::Test { .. } => {}
        }
    }

    fn add(&mut self, root: &Place, pattern: &'c str, steps: &[Step]) {
        if self.dfas.contains_key(pattern) || self.total_size > REGEX_TOTAL_SIZE_MAX {
            return;
        }
        let place = match root {
            Place::Segment(index, _) => Place::Segment(*index, steps.to_vec()),
            Place::Experiment(index, _) => Place::Experiment(*index, steps.to_vec()),
            Place::File | Place::Experiments => unreachable!("conditions lie in segments and experiments"),
        };
        if let Some(message) = self.messages.get(pattern) {
            self.faults.push(CompileFault::new(place, message.clone()));
            return;
        }
        match compile(pattern) {
            Ok(dfa) => {
                self.total_size += dfa.size();
                if self.total_size > REGEX_TOTAL_SIZE_MAX {
                    let message = format!(
                        "with this regular expression those of the file compile to more than \
                         {REGEX_TOTAL_SIZE_MAX} bytes in all: fewer or simpler ones"
                    );
                    self.faults.push(CompileFault::new(place, message));
                }
                self.dfas.insert(pattern, dfa);
            }
            Err(message) => {
                self.messages.insert(pattern, message.clone());
                self.faults.push(CompileFault::new(place, message));
            }
        }
    }
}

fn too_large() -> String {
    format!(
        "the regular expression compiles to more than {REGEX_SIZE_MAX} bytes: use fewer repetitions, \
         or `(?-u)` and ASCII classes in place of Unicode's"
    )
}

/// The table of one expression, or what is wrong with it.
pub(super) fn compile(pattern: &str) -> Result<Dfa, String> {
    let config = dense::Config::new()
        .start_kind(StartKind::Unanchored)
        .accelerate(false)
        .dfa_size_limit(Some(WORK_SIZE_MAX))
        .determinize_size_limit(Some(WORK_SIZE_MAX));
    let refused =
        |error: &dyn std::error::Error| format!("no regular expression for splitd: {}", sentence(error));
    let nfa = thompson::Compiler::new()
        .configure(thompson::Config::new().nfa_size_limit(Some(WORK_SIZE_MAX)))
        .build(pattern)
        .map_err(|error| if error.size_limit().is_some() { too_large() } else { refused(&error) })?;
    let dfa = dense::Builder::new()
        .configure(config)
        .build_from_nfa(&nfa)
        .map_err(|error| if error.is_size_limit_exceeded() { too_large() } else { refused(&error) })?;
    let dfa = flatten(&dfa).ok_or_else(too_large)?;
    match dfa.size() > REGEX_SIZE_MAX {
        true => Err(too_large()),
        false => Ok(dfa),
    }
}

/// An error with its causes, on one line.
fn sentence(error: &dyn std::error::Error) -> String {
    // The innermost one says what is wrong; those around it only where it was found.
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The library's automaton with all states that match as one; none if it has
/// too many states.
fn flatten(dfa: &dense::DFA<Vec<u32>>) -> Option<Dfa> {
    let byte_classes = dfa.byte_classes();
    let mut classes = [0; 256];
    let mut representatives = vec![0; byte_classes.alphabet_len() - 1]; // the end of text is no byte
    for byte in 0..=u8::MAX {
        classes[usize::from(byte)] = byte_classes.get(byte);
        representatives[usize::from(byte_classes.get(byte))] = byte;
    }
    let class_count = representatives.len() + 1;
    let start = dfa.start_state(&start::Config::new().anchored(Anchored::No)).ok()?;

    let mut numbers: HashMap<StateID, u16> = HashMap::new();
    let mut states: Vec<StateID> = Vec::new();
    let mut number = |state: StateID, states: &mut Vec<StateID>| -> Option<u16> {
        if dfa.is_match_state(state) {
            return Some(MATCHED);
        }
        if dfa.is_dead_state(state) || dfa.is_quit_state(state) {
            return Some(DEAD);
        }
        if let Some(&number) = numbers.get(&state) {
            return Some(number);
        }
        let number = u16::try_from(states.len() + 2).ok()?;
        numbers.insert(state, number);
        states.push(state);
        Some(number)
    };
    let start = number(start, &mut states)?;
    let mut transitions = vec![DEAD; class_count];
    transitions.resize(2 * class_count, MATCHED);
    let mut done = 0;
    while let Some(&state) = states.get(done) {
        done += 1;
        for &byte in &representatives {
            transitions.push(number(dfa.next_state(state, byte), &mut states)?);
        }
        transitions.push(number(dfa.next_eoi_state(state), &mut states)?);
        if transitions.len() * 2 > REGEX_SIZE_MAX {
            return None;
        }
    }
    Some(Dfa { classes, class_count: class_count as u32, transitions, start })
}

#[cfg(test)]
mod tests {
    use regex_automata::meta;

    use super::*;
    use crate::engine::operator::DfaRecord;

    fn matches(dfa: &Dfa, text: &str) -> bool {
        let record = DfaRecord {
            classes: 0,
            transition_first: 0,
            class_count: dfa.class_count,
            state_count: dfa.transitions.len() as u32 / dfa.class_count,
            start: u32::from(dfa.start),
        };
        record.matches(&[dfa.classes], &dfa.transitions, text.as_bytes())
    }

    #[test]
    fn tables_match_what_the_library_matches() {
        let patterns = [
            "",
            "a",
            "^a",
            "a$",
            "^a$",
            "^$",
            "a|b",
            "(a|b)*c",
            "^М.с",
            "(?i)москва",
            "[а-я]+$",
            "\\d{2,3}",
            "^v?\\d+(\\.\\d+){0,3}$",
            "(?-u:\\b)a(?-u:\\b)",
            "(?m)^b$",
            "a.c",
            "(?s)a.c",
            "\\x00",
            "\\w",
            "x*",
            "[^a]",
            "(?:SM-|iPhone)\\w*",
            "a\\z",
            "\\Aa",
            "(?m)$",
            "[a&&b]",
        ];
        let texts = [
            "",
            "a",
            "b",
            "ab",
            "ba",
            "c",
            "abababc",
            "Москва",
            "МОСКВА",
            "москва1",
            "12",
            "1",
            "v1.2.3",
            "1.2.3.4.5",
            "x\na\nb\ny",
            "a\nc",
            "abc",
            "\0",
            " ",
            "SM-G991",
            "iPhone14,5",
            "é",
            "🦀",
            "a b",
            "\n",
            "b\n",
        ];
        for pattern in patterns {
            let dfa = compile(pattern).unwrap_or_else(|message| panic!("{pattern}: {message}"));
            let library = meta::Regex::new(pattern).unwrap();
            for text in texts {
                assert_eq!(matches(&dfa, text), library.is_match(text), "{pattern:?} in {text:?}");
            }
        }
    }

    #[test]
    fn one_that_grows_too_large_is_refused_and_does_not_take_long() {
        for pattern in ["[01]*1[01]{20}", "(\\w{1000}){1000}", "\\pL{500}", "((a{100}){100}){100}"] {
            let message = compile(pattern).unwrap_err();
            assert!(message.contains("262144"), "{pattern}: {message}");
        }
    }

    #[test]
    fn unicode_word_boundaries_and_bad_syntax_are_refused_in_a_sentence() {
        for (pattern, expected) in
            [("\\bfoo\\b", "word boundar"), ("(", "unclosed group"), ("a{2", "repetition")]
        {
            let message = compile(pattern).unwrap_err();
            assert!(message.contains(expected), "{pattern}: {message}");
        }
    }

    #[test]
    fn common_unicode_expressions_are_small_enough() {
        for pattern in ["\\w+", "^\\w+@\\w+\\.ru$", "(?i)казань|минск", "\\d{1,3}", "[\\w-]+\\s*$"]
        {
            let dfa = compile(pattern).unwrap_or_else(|message| panic!("{pattern}: {message}"));
            println!("{pattern}: {} bytes", dfa.size());
        }
    }
}
