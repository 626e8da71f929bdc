//! JSON with places: values as written, each with the way to it, and the reading
//! of one value of a wanted shape, which reports what is there instead.
//!
//! serde_json judges the grammar once over the whole file; after that a value is
//! looked into level by level, so doubled keys, the digits of numbers and the
//! text of payloads are still what was written.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::ops::RangeInclusive;

use serde::de::{Deserializer, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::keys::NOTES;
use super::report::{Report, listed, short};
use crate::engine::reference::{Members, members};
use crate::limits::{JSON_DEPTH_MAX, NAME_SIZE_MAX};

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
    pub fn root(raw: &'s RawValue) -> Self {
        Node { raw: raw.get(), path: Path::Root, depth: 0 }
    }

    pub fn member<'c>(&'c self, key: &'c str, raw: &'s RawValue) -> Node<'s, 'c> {
        Node { raw: raw.get(), path: Path::Key(&self.path, key), depth: self.depth + 1 }
    }

    pub fn item<'c>(&'c self, index: usize, raw: &'s RawValue) -> Node<'s, 'c> {
        Node { raw: raw.get(), path: Path::Index(&self.path, index), depth: self.depth + 1 }
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

/// Calls for each item of an array without collecting them.
fn for_each_item<'s>(json: &'s str, mut f: impl FnMut(usize, &'s RawValue)) {
    struct Items<F>(F);
    impl<'de, F: FnMut(usize, &'de RawValue)> Visitor<'de> for Items<F> {
        type Value = ();
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list")
        }
        fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<(), A::Error> {
            let mut index = 0;
            while let Some(item) = items.next_element()? {
                (self.0)(index, item);
                index += 1;
            }
            Ok(())
        }
    }
    let mut json = serde_json::Deserializer::from_str(json);
    let read = json.deserialize_seq(Items(&mut f));
    // The grammar of the whole file was judged before, and items stay as written.
    assert!(read.is_ok(), "an array that was one a moment ago");
}

/// What the grammar does not judge and every JSON reader sees differently, over
/// the whole file: repeated keys, lone surrogates, nesting without end.
pub(super) fn well_formed<'s>(report: &Report<'s>, node: &Node<'s, '_>) {
    if node.is_too_deep() {
        report.fault(node, || {
            format!(
                "nested deeper than {JSON_DEPTH_MAX} lists and objects; at most {JSON_DEPTH_MAX} are read"
            )
        });
        return;
    }
    match node.kind() {
        Kind::Null | Kind::Bool | Kind::Number => {}
        Kind::Text => {
            if node.raw.contains('\\')
                && let Err(fault) = serde_json::from_str::<String>(node.raw)
            {
                unreadable(report, node, &fault);
            }
        }
        Kind::Array => for_each_item(node.raw, |index, item| well_formed(report, &node.item(index, item))),
        Kind::Object => match members(node.raw) {
            Err(fault) => unreadable(report, node, &fault),
            Ok(members) => {
                let mut seen = HashSet::with_capacity(members.len());
                for (key, value) in &members {
                    let value = node.member(key, value);
                    if !seen.insert(key.as_ref()) {
                        report.fault(&value, || {
                            format!(
                                "key `{}` is repeated (line {}); a key stands once in an object",
                                short(key),
                                report.line(&value)
                            )
                        });
                    }
                    well_formed(report, &value);
                }
            }
        },
    }
}

/// A text, or a key of an object, whose escapes name no character.
fn unreadable<'s>(report: &Report<'s>, node: &Node<'s, '_>, _: &serde_json::Error) {
    report.fault(node, || {
        let what = if node.kind() == Kind::Text { "a text" } else { "a key in here" };
        format!(
            "malformed JSON (line {}): {what} has a \\u escape that is half of a surrogate pair; \
             write both halves, or the character itself",
            report.line(node)
        )
    });
}

/// The members of an object with fixed keys.
pub(super) struct Fields<'s> {
    members: Members<'s>,
    /// Whether a key was there that does not belong: a missing one may be it, misspelt.
    pub unknown_seen: bool,
}

impl<'s> Fields<'s> {
    /// Of a repeated key, which is a fault of its own, the last.
    pub fn get<'c>(&self, of: &'c Node<'s, '_>, key: &'static str) -> Option<Node<'s, 'c>> {
        let (_, value) = self.members.iter().rev().find(|(name, _)| name == key)?;
        Some(of.member(key, value))
    }

    pub fn has(&self, key: &str) -> bool {
        self.members.iter().any(|(name, _)| name == key)
    }
}

impl<'s> Report<'s> {
    /// An object's members; none where it is no object.
    pub fn object(&self, node: &Node<'s, '_>, what: &str) -> Option<Members<'s>> {
        if node.kind() != Kind::Object {
            self.fault(node, || format!("{what} is {}; an object is wanted", node.shown()));
            return None;
        }
        if node.is_too_deep() {
            return None;
        }
        members(node.raw).ok()
    }

    /// An object with fixed keys; unknown ones are reported, notes are checked and otherwise ignored.
    pub fn fields(&self, node: &Node<'s, '_>, what: &str, keys: &[&str]) -> Option<Fields<'s>> {
        let members = self.object(node, what)?;
        let mut unknown_seen = false;
        for (key, value) in &members {
            let value = node.member(key, value);
            if !self.is_note(&value, key) && !keys.contains(&key.as_ref()) {
                unknown_seen = true;
                self.fault(&value, || {
                    let suggestion = self.suggestion(key, keys.iter().chain(NOTES).copied());
                    let keys = listed(keys.iter().copied());
                    format!("unknown key `{}`{suggestion}; {what} has the keys {keys}", short(key))
                });
            }
        }
        Some(Fields { members, unknown_seen })
    }

    /// An object whose keys are names; each once, the last where one is repeated. Notes are ignored.
    pub fn named<'k>(
        &self,
        node: &Node<'s, '_>,
        what: &str,
        members: &'k Members<'s>,
    ) -> Vec<(&'k Cow<'s, str>, &'s RawValue)> {
        let mut place_of = std::collections::HashMap::with_capacity(members.len());
        let mut named: Vec<(&Cow<'s, str>, &'s RawValue)> = Vec::with_capacity(members.len());
        for (key, raw) in members {
            let value = node.member(key, raw);
            if self.is_note(&value, key) {
                continue;
            }
            if let Some(size) = name_size_fault(key) {
                self.fault(&value, || format!("{what} `{}` {size}", short(key)));
            }
            match place_of.insert(key.as_ref(), named.len()) {
                None => named.push((key, raw)),
                Some(before) => {
                    place_of.insert(key.as_ref(), before);
                    named[before] = (key, raw);
                }
            }
        }
        named
    }

    /// `description` and `meta` are allowed everywhere and ignored.
    fn is_note(&self, value: &Node<'s, '_>, key: &str) -> bool {
        if key == "description" && value.kind() != Kind::Text {
            self.fault(value, || {
                format!(
                    "`description` is {}; it is a note for people: a text (any JSON goes into `meta`)",
                    value.shown()
                )
            });
        }
        NOTES.contains(&key)
    }

    /// A list's items; none where it is no list.
    pub fn list(&self, node: &Node<'s, '_>, what: &str) -> Option<Vec<&'s RawValue>> {
        if node.kind() != Kind::Array {
            self.fault(node, || format!("{what} is {}; a list is wanted", node.shown()));
            return None;
        }
        if node.is_too_deep() {
            return None;
        }
        let mut items = Vec::new();
        for_each_item(node.raw, |_, item| items.push(item));
        Some(items)
    }

    /// A text, unescaped.
    pub fn text(&self, node: &Node<'s, '_>, what: &str) -> Option<String> {
        if node.kind() != Kind::Text {
            self.fault(node, || format!("{what} is {}; a text is wanted", node.shown()));
            return None;
        }
        serde_json::from_str(node.raw).ok()
    }

    /// A text of 1 to `NAME_SIZE_MAX` bytes.
    pub fn name(&self, node: &Node<'s, '_>, what: &str) -> Option<String> {
        let text = self.text(node, what)?;
        if let Some(fault) = name_size_fault(&text) {
            self.fault(node, || format!("{what} {fault}"));
        }
        Some(text)
    }

    /// A whole number in a range.
    pub fn integer(&self, node: &Node<'s, '_>, what: &str, range: RangeInclusive<i64>) -> Option<i64> {
        let (least, most) = (*range.start(), *range.end());
        let integer = if node.kind() == Kind::Number { integer(node.raw) } else { None };
        match integer {
            Some(Some(number)) if range.contains(&number) => Some(number),
            Some(_) => {
                self.fault(node, || format!("{what} is {}; {least} to {most} is allowed", short(node.raw)));
                None
            }
            None => {
                self.fault(node, || {
                    format!("{what} is {}; a whole number is wanted, {least} to {most}, without point or exponent", node.shown())
                });
                None
            }
        }
    }

    /// A member that must be there.
    pub fn required<'c>(
        &self,
        node: &'c Node<'s, '_>,
        fields: &Fields<'s>,
        key: &'static str,
        what: &str,
        wanted: &str,
    ) -> Option<Node<'s, 'c>> {
        let member = fields.get(node, key);
        if member.is_none() {
            self.fault(node, || format!("{what} has no `{key}`; {wanted}"));
        }
        member
    }
}

/// A number written without point or exponent; within, none where it passes 64 bits.
fn integer(raw: &str) -> Option<Option<i64>> {
    let digits = raw.strip_prefix('-').unwrap_or(raw);
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| raw.parse().ok())
}

fn name_size_fault(name: &str) -> Option<String> {
    match name.len() {
        0 => Some(format!("is empty; 1 to {NAME_SIZE_MAX} bytes are wanted")),
        size if size > NAME_SIZE_MAX => {
            Some(format!("is {size} bytes long; at most {NAME_SIZE_MAX} are allowed"))
        }
        _ => None,
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
