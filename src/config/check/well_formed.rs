//! What the grammar does not judge and every JSON reader sees differently, over
//! the whole file: repeated keys, lone surrogates, nesting without end.

use std::collections::HashSet;

use super::json::{Kind, Node, unescaped};
use super::report::Report;
use super::words::short;
use crate::limits::JSON_DEPTH_MAX;

/// Reports all of it in a value.
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
            if unescaped(node.raw).is_none() {
                unreadable(report, node);
            }
        }
        Kind::Array => {
            for (index, item) in node.values().enumerate() {
                well_formed(report, &node.item(index, item));
            }
        }
        Kind::Object => match node.members() {
            None => unreadable(report, node),
            Some(members) => {
                let mut seen = HashSet::with_capacity(members.len());
                for (key, value) in &members {
                    let value = node.member(key, *value);
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
fn unreadable<'s>(report: &Report<'s>, node: &Node<'s, '_>) {
    report.fault(node, || {
        let what = if node.kind() == Kind::Text { "a text" } else { "a key in here" };
        format!(
            "malformed JSON (line {}): {what} has a \\u escape that is half of a surrogate pair; \
             write both halves, or the character itself",
            report.line(node)
        )
    });
}
