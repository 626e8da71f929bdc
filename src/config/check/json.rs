//! JSON with places: values as written, each with the way to it.
//!
//! serde_json judges the grammar once over the whole file; after that a value is
//! looked into level by level ([`values`](super::values)), so doubled keys, the
//! digits of numbers and the text of payloads are still what was written.

use std::borrow::Cow;

use super::values::{Container, Inner, Value};
use super::words::short;
use crate::limits::JSON_DEPTH_MAX;

/// The way from the file's root to a value. Lives on the stack.
#[derive(Clone, Copy)]
pub(super) enum Path<'p> {
    Root,
    Key(&'p Path<'p>, &'p str),
    Index(&'p Path<'p>, usize),
}

impl Path<'_> {
    fn write(&self, pointer: &mut String) {
        match self {
            Path::Root => {}
            Path::Key(parent, key) => {
                parent.write(pointer);
                pointer.push('/');
                // RFC 6901, section 3.
                pointer.push_str(&key.replace('~', "~0").replace('/', "~1"));
            }
            Path::Index(parent, index) => {
                parent.write(pointer);
                pointer.push('/');
                pointer.push_str(&index.to_string());
            }
        }
    }
}

/// A value of the file: its text and the way to it.
#[derive(Clone, Copy)]
pub(super) struct Node<'s, 'p> {
    pub raw: &'s str,
    value: Value<'s>,
    containers: &'p [Container],
    pub path: Path<'p>,
    /// Arrays and objects it lies in.
    pub depth: usize,
}

/// What kind of JSON value a text is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Null,
    Bool,
    Number,
    Text,
    Array,
    Object,
}

impl<'s, 'p> Node<'s, 'p> {
    /// The file's text, and the lists and objects in it.
    pub fn root(text: &'s str, containers: &'p [Container]) -> Self {
        let value = Value::whole(text);
        Node { raw: value.text, value, containers, path: Path::Root, depth: 0 }
    }

    pub fn member<'c>(&'c self, key: &'c str, value: Value<'s>) -> Node<'s, 'c> {
        self.inner(Path::Key(&self.path, key), value)
    }

    pub fn item<'c>(&'c self, index: usize, value: Value<'s>) -> Node<'s, 'c> {
        self.inner(Path::Index(&self.path, index), value)
    }

    fn inner<'c>(&'c self, path: Path<'c>, value: Value<'s>) -> Node<'s, 'c> {
        Node { raw: value.text, value, containers: self.containers, path, depth: self.depth + 1 }
    }

    /// The items of a list; keys and values of an object by turns.
    pub fn values(&self) -> Inner<'s, 'p> {
        self.value.inner(self.containers)
    }

    /// An object's members; none if a key's escapes name no character.
    pub fn members(&self) -> Option<Members<'s>> {
        let (mut values, mut members) = (self.values(), Vec::new());
        while let (Some(key), Some(value)) = (values.next(), values.next()) {
            members.push((unescaped(key.text)?, value));
        }
        Some(members)
    }

    /// Bytes from the file's start.
    pub fn offset(&self) -> usize {
        self.value.offset
    }

    pub fn pointer(&self) -> String {
        let mut pointer = String::new();
        self.path.write(&mut pointer);
        pointer
    }

    pub fn kind(&self) -> Kind {
        match self.raw.as_bytes().first() {
            Some(b'n') => Kind::Null,
            Some(b't' | b'f') => Kind::Bool,
            Some(b'"') => Kind::Text,
            Some(b'[') => Kind::Array,
            Some(b'{') => Kind::Object,
            _ => Kind::Number,
        }
    }

    /// An array or object nested too deep to be looked into; reported by `well_formed`.
    pub fn is_too_deep(&self) -> bool {
        matches!(self.kind(), Kind::Array | Kind::Object) && self.depth >= JSON_DEPTH_MAX
    }

    /// "a number (5)": for messages about what is there.
    pub fn shown(&self) -> String {
        match self.kind() {
            Kind::Null => "null".into(),
            Kind::Bool => self.raw.into(),
            Kind::Number => format!("a number ({})", short(self.raw)),
            Kind::Text => format!("a text ({})", short(self.raw)),
            Kind::Array => "a list".into(),
            Kind::Object => "an object".into(),
        }
    }
}

/// Keys, unescaped, and values, as written: in order, doubled keys kept.
pub(super) type Members<'s> = Vec<(Cow<'s, str>, Value<'s>)>;

/// What a text says; none if an escape of it is half of a surrogate pair.
pub(super) fn unescaped(raw: &str) -> Option<Cow<'_, str>> {
    if raw.contains('\\') {
        serde_json::from_str(raw).ok().map(Cow::Owned)
    } else {
        Some(Cow::Borrowed(&raw[1..raw.len() - 1]))
    }
}

/// A JSON text less its insignificant white space.
pub(super) fn minified(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    let (mut in_string, mut escaped) = (false, false);
    for character in json.chars() {
        if in_string {
            in_string = escaped || character != '"';
            escaped = !escaped && character == '\\';
            text.push(character);
        } else if !matches!(character, ' ' | '\t' | '\n' | '\r') {
            in_string = character == '"';
            text.push(character);
        }
    }
    text
}
