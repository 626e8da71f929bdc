//! Where faults are collected: in the file's order at the end, a bounded number
//! of them, and nothing spent on those beyond it.

use std::cell::{Cell, RefCell};

use super::Fault;
use super::json::Node;
use super::words::short;
use crate::limits::{FAULT_COUNT_MAX, NAME_SIZE_MAX, SUGGESTION_WORK_MAX};

/// Where in the file something is: what a fault is reported at, kept for later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub pointer: String,
    /// Bytes from the file's start: the order of the faults.
    pub offset: usize,
}

/// The faults found so far.
pub(super) struct Report<'s> {
    text: &'s str,
    faults: RefCell<Vec<(usize, Fault)>>,
    count: Cell<usize>,
    suggestion_work: Cell<usize>,
    /// Regular expressions that are right, and where they stand; their sizes are judged by `load`.
    patterns: RefCell<Vec<(String, Place)>>,
    /// A byte and the newlines before it: lines are mostly asked for in the file's order.
    line_at: Cell<(usize, usize)>,
}

impl<'s> Report<'s> {
    pub fn new(text: &'s str) -> Self {
        Report {
            text,
            faults: RefCell::new(Vec::new()),
            count: Cell::new(0),
            suggestion_work: Cell::new(SUGGESTION_WORK_MAX),
            patterns: RefCell::new(Vec::new()),
            line_at: Cell::new((0, 0)),
        }
    }

    /// A fault at a value. The message is made only where it will be read.
    pub fn fault(&self, node: &Node<'s, '_>, message: impl FnOnce() -> String) {
        self.add(|| (self.place(node), message()));
    }

    /// A fault at a place kept from before.
    pub fn fault_at(&self, place: &Place, message: impl FnOnce() -> String) {
        self.add(|| (place.clone(), message()));
    }

    /// A fault of the file as a whole.
    pub fn fault_of_file(&self, message: String) {
        self.fault_at(&Place { pointer: String::new(), offset: 0 }, || message);
    }

    /// A value's place.
    pub fn place(&self, node: &Node<'s, '_>) -> Place {
        Place { pointer: node.pointer(), offset: node.offset() }
    }

    /// The line a value begins in, from 1.
    pub fn line(&self, node: &Node<'s, '_>) -> usize {
        let offset = node.offset();
        let (from, before) = if self.line_at.get().0 <= offset { self.line_at.get() } else { (0, 0) };
        let newline_count = before + memchr::memchr_iter(b'\n', &self.text.as_bytes()[from..offset]).count();
        self.line_at.set((offset, newline_count));
        newline_count + 1
    }

    fn add(&self, fault: impl FnOnce() -> (Place, String)) {
        self.count.set(self.count.get() + 1);
        if self.count.get() <= FAULT_COUNT_MAX {
            let (Place { pointer, offset }, message) = fault();
            self.faults.borrow_mut().push((offset, Fault { pointer, message }));
        }
    }

    /// Keeps a regular expression for the judgement of its size.
    pub fn keep_pattern(&self, node: &Node<'s, '_>, pattern: &str) {
        self.patterns.borrow_mut().push((pattern.to_owned(), self.place(node)));
    }

    /// The regular expressions kept.
    pub fn take_patterns(&self) -> Vec<(String, Place)> {
        self.patterns.take()
    }

    /// Whether anything was found.
    pub fn is_empty(&self) -> bool {
        self.count.get() == 0
    }

    /// Whether more were found than are reported.
    pub fn is_full(&self) -> bool {
        self.count.get() > FAULT_COUNT_MAX
    }

    /// All that is reported, in the file's order.
    pub fn into_faults(self) -> Vec<Fault> {
        let mut faults = self.faults.into_inner();
        faults.sort_by_key(|(offset, _)| *offset);
        let mut faults: Vec<Fault> = faults.into_iter().map(|(_, fault)| fault).collect();
        if let Some(more) = self.count.get().checked_sub(FAULT_COUNT_MAX).filter(|more| *more > 0) {
            faults.push(more_fault(more));
        }
        faults
    }

    /// `; did you mean …?` with the nearest of the names, or nothing where none is near.
    pub fn suggestion<'n>(&self, given: &str, names: impl IntoIterator<Item = &'n str>) -> String {
        if given.len() > NAME_SIZE_MAX {
            return String::new();
        }
        // One slip in three letters is a slip; of one letter nothing is near but the other case.
        let length = given.chars().count();
        let far = if length < 2 { 1 } else { (length / 3).clamp(1, 4) + 1 };
        let mut nearest: Option<(usize, &str)> = None;
        for name in names {
            if name.len().abs_diff(given.len()) > 4 * far {
                continue;
            }
            let work = name.len() * given.len() + 16;
            let Some(left) = self.suggestion_work.get().checked_sub(work) else {
                break;
            };
            self.suggestion_work.set(left);
            let distance = strsim::osa_distance(&name.to_lowercase(), &given.to_lowercase());
            // Of equally near ones the first by the alphabet, whatever order they come in.
            if distance < far && nearest.is_none_or(|nearest| (distance, name) < nearest) {
                nearest = Some((distance, name));
            }
        }
        nearest.map_or_else(String::new, |(_, name)| format!("; did you mean `{}`?", short(name)))
    }
}

/// The last line of a report that was cut short.
pub(super) fn more_fault(more: usize) -> Fault {
    let message = format!("and at least {more} more; mend these first");
    Fault { pointer: String::new(), message }
}

/// Line and column of a byte, both from 1; columns are counted in characters.
pub(super) fn line_column(text: &[u8], offset: usize) -> (usize, usize) {
    let before = &text[..offset.min(text.len())];
    let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
    let line_start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
    let column = before[line_start..].iter().filter(|byte| **byte & 0xC0 != 0x80).count() + 1;
    (line, column)
}
