//! Where the scanners put what they find. The endpoint implements [`Fields`]
//! over the plan in force, so `http` needs to know no plan.
//!
//! What the scanners promise
//! - Of a name given twice the last counts, at every level: units are told
//!   once, at the end, each with its last value; an attribute's later value is
//!   told again under the same slot and overwrites; a doubled `attributes`
//!   member begins with [`Fields::attributes_begin`], which forgets the first.
//! - Every value, counted or not, has been checked as JSON when the scan
//!   returns `Ok`. After an `Err` whatever was told is void.

use std::fmt;

/// An attribute's value as the scanner met it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scalar<'a> {
    /// `null`.
    Null,
    /// `true`, `false`.
    Bool(bool),
    /// A number, as the nearest f64; always finite.
    Number(f64),
    /// A string, unescaped.
    Text(&'a str),
    /// An object, or a number beyond f64.
    Other,
}

/// How a query string's text is to be read for an attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// As it stands (strings and versions).
    Text,
    /// As a JSON number, where it is one; else as text.
    Number,
    /// As `true` or `false`, where it is one; else as text.
    Bool,
    /// As texts between commas.
    List,
}

/// What a name in a query string stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueryName {
    /// A unit.
    Unit,
    /// The attribute in this slot.
    Attribute(u16),
    /// Nothing we know.
    Ignored,
}

/// Why a unit was not taken; the scanner adds the unit's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FieldFault(pub &'static str);

/// Receives what a scanner finds. `'a` is the life of the request's bytes and
/// of the scratch they were unescaped into.
pub trait Fields<'a> {
    /// A unit and its value; `""` where it was `null` or empty. Told once a
    /// name, after all attributes, in the order in which the names first came.
    ///
    /// # Errors
    /// Where the receiver has its own reason to refuse the request for it.
    fn unit(&mut self, name: &'a str, value: &'a str) -> Result<(), FieldFault>;

    /// The attributes begin (again): forget those told so far.
    fn attributes_begin(&mut self);

    /// The slot of a declared attribute; `None` and its value is only checked.
    fn attribute(&mut self, name: &str) -> Option<u16>;

    /// A value that is no list. Overwrites what the slot held.
    fn value(&mut self, slot: u16, value: Scalar<'_>);

    /// A list begins. Overwrites what the slot held.
    fn list_begin(&mut self, slot: u16);

    /// A string of the list that began last.
    fn list_item(&mut self, slot: u16, item: &str);

    /// The list is over; `all_strings` is false where an element was no string.
    fn list_end(&mut self, slot: u16, all_strings: bool);

    /// What a query string's name stands for; the same for the same name.
    fn query_name(&mut self, name: &str) -> QueryName;

    /// How a query string's text is to be read for the attribute in this slot.
    fn shape(&self, slot: u16) -> Shape;
}

/// What a scan found beside the fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scanned<'a> {
    /// The attributes object as it came (a query's declared ones as JSON);
    /// empty where there was none.
    pub context: &'a [u8],
    /// `payloads=true` in a query string; false from a body.
    pub payloads: bool,
    /// False after `exposure=false` in a query string; true from a body.
    pub exposure: bool,
}

/// Why a scan refused: all are status 400, and the text says where or which.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScanFault<'a> {
    /// The body is not what it should be at this byte (counted from zero).
    Body {
        /// Byte of the body.
        offset: usize,
        /// What is wrong there.
        reason: &'static str,
    },
    /// A unit's name or value is not allowed.
    Unit {
        /// The unit.
        name: &'a str,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The query string (or a path) is wrong at this byte (counted from zero).
    Query {
        /// Byte of the query string.
        offset: usize,
        /// What is wrong there.
        reason: &'static str,
    },
    /// `payloads` or `exposure` is neither `true` nor `false`.
    Option {
        /// Which of the two.
        name: &'static str,
    },
}

impl fmt::Display for ScanFault<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Body { offset, reason } => write!(f, "body, byte {offset}: {reason}"),
            Self::Unit { name, reason } => write!(f, "unit `{name}`: {reason}"),
            Self::Query { offset, reason } => write!(f, "query string, byte {offset}: {reason}"),
            Self::Option { name } => write!(f, "`{name}` in the query string must be `true` or `false`"),
        }
    }
}

impl std::error::Error for ScanFault<'_> {}
