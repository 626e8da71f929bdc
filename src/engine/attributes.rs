//! What a request says of its unit, as the plan needs it: for every attribute a
//! few words of facts, overwritten where an attribute comes twice. No value is
//! kept: each is turned into facts the moment the scanner meets it.

/// A declared attribute of the plan in force (index into the plan's table).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
