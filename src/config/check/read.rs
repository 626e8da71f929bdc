//! The reading of one value of a wanted shape, which reports what is there instead.

use std::borrow::Cow;
use std::ops::RangeInclusive;

use super::json::{Kind, Members, Node, unescaped};
use super::keys::NOTES;
use super::report::Report;
use super::values::Value;
use super::words::{listed, short};
use crate::limits::NAME_SIZE_MAX;

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
        Some(of.member(key, *value))
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
        node.members()
    }

    /// An object with fixed keys; unknown ones are reported, notes are checked and otherwise ignored.
    pub fn fields(&self, node: &Node<'s, '_>, what: &str, keys: &[&str]) -> Option<Fields<'s>> {
        let members = self.object(node, what)?;
        let mut unknown_seen = false;
        for (key, value) in &members {
            let value = node.member(key, *value);
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
    ) -> Vec<(&'k Cow<'s, str>, Value<'s>)> {
        let mut place_of = std::collections::HashMap::with_capacity(members.len());
        let mut named: Vec<(&Cow<'s, str>, Value<'s>)> = Vec::with_capacity(members.len());
        for (key, raw) in members {
            let value = node.member(key, *raw);
            if self.is_note(&value, key) {
                continue;
            }
            if let Some(size) = name_size_fault(key) {
                self.fault(&value, || format!("{what} `{}` {size}", short(key)));
            }
            match place_of.insert(key.as_ref(), named.len()) {
                None => named.push((key, *raw)),
                Some(before) => {
                    place_of.insert(key.as_ref(), before);
                    named[before] = (key, *raw);
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
    pub fn list(&self, node: &Node<'s, '_>, what: &str) -> Option<Vec<Value<'s>>> {
        if node.kind() != Kind::Array {
            self.fault(node, || format!("{what} is {}; a list is wanted", node.shown()));
            return None;
        }
        if node.is_too_deep() {
            return None;
        }
        Some(node.values().collect())
    }

    /// A text, unescaped.
    pub fn text(&self, node: &Node<'s, '_>, what: &str) -> Option<String> {
        if node.kind() != Kind::Text {
            self.fault(node, || format!("{what} is {}; a text is wanted", node.shown()));
            return None;
        }
        unescaped(node.raw).map(Cow::into_owned)
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
