//! What a request says of its unit, as the plan needs it: for every attribute a
//! few words of facts, overwritten where an attribute comes twice. No value is
//! kept: each is turned into facts the moment the scanner meets it.

use super::plan::Plan;

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
#[derive(Debug, Clone)]
pub struct Facts {
    words: Vec<u32>,
    /// One bit an attribute: its last value was of another type than declared.
    mistyped: Vec<u64>,
}

impl Facts {
    /// Room for the facts of this plan; every attribute is missing.
    pub fn new(_plan: &Plan<'_>) -> Facts {
        Facts {
            words: Vec::new(),
            mistyped: Vec::new(),
        }
    }

    /// Every attribute is missing again: before every request.
    pub fn clear(&mut self, _plan: &Plan<'_>) {
        self.words.fill(0);
        self.mistyped.fill(0);
    }

    /// Takes a value; what an earlier value of the attribute said is forgotten.
    pub fn set(&mut self, _plan: &Plan<'_>, _attribute: AttributeIndex, _value: Value<'_>) {}

    /// A list begins; what an earlier value of the attribute said is forgotten.
    pub fn list_begin(&mut self, _plan: &Plan<'_>, _attribute: AttributeIndex) {}

    /// A string of the list that was begun.
    pub fn list_item(&mut self, _plan: &Plan<'_>, _attribute: AttributeIndex, _item: &str) {}

    /// The list is over; `all_strings` says that nothing else was in it.
    pub fn list_end(&mut self, _plan: &Plan<'_>, _attribute: AttributeIndex, _all_strings: bool) {}

    /// Attributes whose last value was of another type than declared.
    pub fn mistyped(&self) -> impl Iterator<Item = AttributeIndex> + '_ {
        bits(&self.mistyped).map(|index| AttributeIndex(index as u16))
    }

    /// Whether there is any such attribute.
    pub fn mistyped_any(&self) -> bool {
        self.mistyped.iter().any(|&word| word != 0)
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
