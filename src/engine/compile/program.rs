//! Conditions → jump code.
//!
//! Code is written backwards: what a leaf leads to is known before the leaf, so
//! `all`, `any` and `not` cost nothing but the choice of where to lead. Named
//! segments are written out in every condition that names them, which is why
//! their leaves are counted first; nothing here recurses over named segments.

use std::collections::HashMap;

use super::facts::{Shape, Tests};
use super::{CompileFault, conditions, running};
use crate::engine::catalog::{Catalog, Condition, Test};
use crate::engine::segment::{FALSE, Leaf, TRUE};
use crate::limits::SEGMENT_LEAF_COUNT_MAX;

/// Whether the leaves of all conditions, named segments written out, keep to
/// their limit. Takes as long as the file is large, however often it doubles.
pub(super) fn check_leaf_counts(catalog: &Catalog, faults: &mut Vec<CompileFault>) -> bool {
    let mut counts = vec![0; catalog.segments.len()];
    for index in dependencies_first(catalog) {
        counts[index] = leaf_count(&catalog.segments[index].condition, &counts);
    }
    let mut total = 0_u64;
    for (place, condition) in conditions(catalog) {
        total = total.saturating_add(leaf_count(condition, &counts));
        if total > SEGMENT_LEAF_COUNT_MAX as u64 {
            let message = format!(
                "up to here, segments with the segments they name written out have more than \
                 {SEGMENT_LEAF_COUNT_MAX} tests: name fewer segments in segments"
            );
            faults.push(CompileFault::new(place, message));
            return false;
        }
    }
    true
}

/// Tests under a condition; one without any counts as one, so that this bounds
/// the work of writing it out. A list operator may take a leaf for each element.
fn leaf_count(condition: &Condition, counts: &[u64]) -> u64 {
    match condition {
        Condition::All(conditions) | Condition::Any(conditions) => {
            let sum = conditions.iter().fold(0_u64, |sum, c| sum.saturating_add(leaf_count(c, counts)));
            sum.max(1)
        }
        Condition::Not(condition) => leaf_count(condition, counts),
        Condition::Segment(index) => counts[*index],
        Condition::Test { test: Test::ListAny(texts) | Test::ListAll(texts), .. } => {
            texts.len().max(1) as u64
        }
        Condition::Test { .. } => 1,
    }
}

/// Segments in an order in which those that one names come before it.
fn dependencies_first(catalog: &Catalog) -> Vec<usize> {
    fn named(condition: &Condition, names: &mut Vec<usize>) {
        match condition {
            Condition::All(all) | Condition::Any(all) => all.iter().for_each(|c| named(c, names)),
            Condition::Not(condition) => named(condition, names),
            Condition::Segment(index) => names.push(*index),
            Condition::Test { .. } => {}
        }
    }
    let mut order = Vec::with_capacity(catalog.segments.len());
    let mut seen = vec![false; catalog.segments.len()];
    let mut open: Vec<(usize, Vec<usize>)> = Vec::new();
    let names_of = |index: usize| {
        let mut names = Vec::new();
        named(&catalog.segments[index].condition, &mut names);
        names
    };
    for root in 0..catalog.segments.len() {
        if !std::mem::replace(&mut seen[root], true) {
            open.push((root, names_of(root)));
        }
        while let Some((index, names)) = open.last_mut() {
            match names.pop() {
                Some(name) if !std::mem::replace(&mut seen[name], true) => open.push((name, names_of(name))),
                Some(_) => {}
                None => {
                    order.push(*index);
                    open.pop();
                }
            }
        }
    }
    order
}

/// A condition under those that are nothing but one other (`not`, `all` or `any`
/// of one, a named segment), and whether they turn it round.
#[derive(Clone, Copy)]
struct Peeled<'c> {
    condition: &'c Condition,
    negated: bool,
}

fn peel<'c>(condition: &'c Condition, segments: &[Option<Peeled<'c>>]) -> Peeled<'c> {
    let mut peeled = Peeled { condition, negated: false };
    loop {
        match peeled.condition {
            Condition::Not(inner) => peeled = Peeled { condition: inner, negated: !peeled.negated },
            Condition::All(one) | Condition::Any(one) if one.len() == 1 => peeled.condition = &one[0],
            Condition::Segment(index) => {
                let named = segments[*index].expect("segments do not name each other in a circle");
                return Peeled { negated: peeled.negated != named.negated, ..named };
            }
            _ => return peeled,
        }
    }
}

/// Writes the segments of running experiments. By experiment: its first leaf.
pub(super) fn write(catalog: &Catalog, tests: &Tests, leaves: &mut Vec<Leaf>) -> Vec<u32> {
    let mut segments = vec![None; catalog.segments.len()];
    for index in dependencies_first(catalog) {
        segments[index] = Some(peel(&catalog.segments[index].condition, &segments));
    }
    leaves.extend([Leaf::terminal(FALSE), Leaf::terminal(TRUE)]);
    let mut entries = vec![TRUE; catalog.experiments.len()];
    let mut written: HashMap<(usize, bool), u32> = HashMap::new();
    for (index, experiment) in running(catalog) {
        let Some(condition) = &experiment.segment else {
            continue;
        };
        if experiment.groups.iter().all(|group| group.blocks.is_empty()) {
            continue; // only overrides choose it
        }
        let root = peel(condition, &segments);
        entries[index] =
            *written.entry((std::ptr::from_ref(root.condition).addr(), root.negated)).or_insert_with(|| {
                Writer { segments: &segments, tests, emitted: Vec::new() }.write(root, leaves)
            });
    }
    entries
}

/// One condition's code in the making. A *label* is a terminal, or 2 + the
/// number of an emitted leaf; leaves are emitted last first.
struct Writer<'w, 'c> {
    segments: &'w [Option<Peeled<'c>>],
    tests: &'w Tests,
    emitted: Vec<Leaf>,
}

/// An `all` or `any` of which the last conditions are written already.
struct Frame<'c> {
    conditions: &'c [Condition],
    negated: bool,
    /// All must hold (`any` turned round, too).
    conjunction: bool,
    /// Where to go on if what is left to write passes or fails.
    pass: u32,
    fail: u32,
}

impl<'c> Writer<'_, 'c> {
    fn write(mut self, root: Peeled<'c>, leaves: &mut Vec<Leaf>) -> u32 {
        let mut frames: Vec<Frame<'c>> = Vec::new();
        let mut next = Some((root, TRUE, FALSE)); // what to write, and where it leads
        let mut label = FALSE; // of what was written last
        loop {
            if let Some((peeled, pass, fail)) = next.take() {
                let negated = peeled.negated;
                match peeled.condition {
                    Condition::All(conditions) | Condition::Any(conditions) => {
                        let conjunction = matches!(peeled.condition, Condition::All(_)) != negated;
                        label = if conjunction { pass } else { fail };
                        frames.push(Frame { conditions, negated, conjunction, pass, fail });
                    }
                    test => label = self.write_test(test, negated, pass, fail),
                }
            }
            let Some(frame) = frames.last_mut() else { break };
            // `label` is now that of everything written of this frame.
            match frame.conjunction {
                true => frame.pass = label,
                false => frame.fail = label,
            }
            match frame.conditions.split_last() {
                Some((last, before)) => {
                    frame.conditions = before;
                    let mut peeled = peel(last, self.segments);
                    peeled.negated ^= frame.negated;
                    next = Some((peeled, frame.pass, frame.fail));
                }
                None => {
                    frames.pop();
                }
            }
        }
        self.place(label, leaves)
    }

    fn write_test(&mut self, condition: &Condition, negated: bool, pass: u32, fail: u32) -> u32 {
        let shape = self.tests.shape(condition);
        let (pass, fail) = if negated { (fail, pass) } else { (pass, fail) };
        match shape {
            Shape::Constant(true) => pass,
            Shape::Constant(false) => fail,
            Shape::Not(leaf) => self.emit(*leaf, fail, pass),
            Shape::Any(any) => any.iter().rev().fold(fail, |fail, leaf| self.emit(*leaf, pass, fail)),
            Shape::All(all) => all.iter().rev().fold(pass, |pass, leaf| self.emit(*leaf, pass, fail)),
        }
    }

    fn emit(&mut self, leaf: Leaf, pass: u32, fail: u32) -> u32 {
        if pass == fail {
            return pass;
        }
        self.emitted.push(Leaf { next: [fail, pass], ..leaf });
        self.emitted.len() as u32 + 1
    }

    /// Moves the leaves that `entry` leads to behind those there are, first
    /// first, and says where the entry is now.
    fn place(self, entry: u32, leaves: &mut Vec<Leaf>) -> u32 {
        if entry <= TRUE {
            return entry;
        }
        let number = |label: u32| (label - 2) as usize;
        let mut reached = vec![false; self.emitted.len()];
        reached[number(entry)] = true;
        for index in (0..self.emitted.len()).rev() {
            if reached[index] {
                for next in self.emitted[index].next.into_iter().filter(|&next| next > TRUE) {
                    reached[number(next)] = true;
                }
            }
        }
        let mut places = vec![0; self.emitted.len()];
        let kept = (0..self.emitted.len()).rev().filter(|&index| reached[index]);
        for (place, index) in (leaves.len() as u32..).zip(kept.clone()) {
            places[index] = place;
        }
        let placed = |label: u32| {
            if label <= TRUE { label } else { places[number(label)] }
        };
        for index in kept {
            let leaf = self.emitted[index];
            leaves.push(Leaf { next: leaf.next.map(placed), ..leaf });
        }
        placed(entry)
    }
}
