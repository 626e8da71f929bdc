//! The body of an assign request, in one pass: no tree, no allocation, strings
//! borrowed from the body and unescaped into scratch only where they have
//! escapes. What is declared goes to [`Fields`] the moment it is met; all the
//! rest is checked as JSON (RFC 8259) just as strictly, and dropped.
//!
//! Beyond RFC 8259's grammar
//! - nesting over [`limits::JSON_DEPTH_MAX`] (the body's object is the first),
//!   lone surrogates, and bytes that are no UTF-8 are refused wherever they are;
//! - of a member given twice the last counts, its kind included: a first
//!   `units` that is no object, or a first value that is refused, does no
//!   harm if a good one follows. Hence units are gathered and told at the end.
//!
//! Strings are searched eight bytes at a time in a plain `u64`: most are
//! shorter than what makes a vector search worth its call.

use crate::limits;

use super::fields::{Fields, Scalar, ScanFault, Scanned};
use super::scratch::{Scratch, Text};
use super::units::UnitList;

/// Scans the body of an assign request into `fields`. `scratch` holds what
/// has escapes, unescaped.
///
/// # Errors
/// Where the body is not what assignment.md says it is.
///
/// # Panics
/// Where `scratch` is shorter than the body.
pub fn scan_request<'a, F: Fields<'a>>(
    body: &'a [u8],
    scratch: &'a mut [u8],
    fields: &mut F,
) -> Result<Scanned<'a>, ScanFault<'a>> {
    assert!(scratch.len() >= body.len(), "the scratch is shorter than the body");
    let text = std::str::from_utf8(body)
        .map_err(|error| ScanFault::Body { offset: error.valid_up_to(), reason: "not UTF-8" })?;
    let mut scanner = Scanner { bytes: body, text, at: 0, scratch: Scratch(scratch) };
    let mut units = UnitList::default();
    let mut units_seen = false;
    let mut units_fault = None;
    let mut attributes_fault = None;
    let mut context: &[u8] = b"";
    scanner.skip_space();
    if scanner.peek() != b'{' {
        return Err(scanner.fault("a JSON object is expected").into());
    }
    scanner.at += 1;
    let mut first = true;
    while let Some(name) = scanner.next_name(&mut first)? {
        let value_at = scanner.at;
        let is_object = scanner.peek() == b'{';
        match name {
            "units" => {
                units.clear();
                units_seen = true;
                units_fault = None;
                if is_object {
                    scanner.units(&mut units)?;
                } else {
                    units_fault = Some(SyntaxFault { offset: value_at, reason: "`units` must be an object" });
                    scanner.skip_value(1)?;
                }
            }
            "attributes" => {
                fields.attributes_begin();
                attributes_fault = None;
                context = b"";
                if is_object {
                    scanner.attributes(fields)?;
                    context = &body[value_at..scanner.at];
                } else {
                    attributes_fault =
                        Some(SyntaxFault { offset: value_at, reason: "`attributes` must be an object" });
                    scanner.skip_value(1)?;
                }
            }
            _ => scanner.skip_value(1)?,
        }
    }
    scanner.skip_space();
    if scanner.at < body.len() {
        return Err(scanner.fault("text behind the object").into());
    }
    if !units_seen {
        return Err(scanner.fault("`units` is missing").into());
    }
    if let Some(fault) = units_fault {
        return Err(fault.into());
    }
    if let Some(fault) = attributes_fault {
        return Err(fault.into());
    }
    units.tell(fields)?;
    Ok(Scanned { context, payloads: false, exposure: true })
}

/// Hands `text`, escaped for the inside of a JSON string, to `push` in pieces.
pub fn escape(text: &str, mut push: impl FnMut(&[u8])) {
    let bytes = text.as_bytes();
    let mut from = 0;
    while let Some(found) = first_special(&bytes[from..]) {
        let at = from + found;
        push(&bytes[from..at]);
        match bytes[at] {
            b'"' => push(b"\\\""),
            b'\\' => push(b"\\\\"),
            b'\n' => push(b"\\n"),
            b'\r' => push(b"\\r"),
            b'\t' => push(b"\\t"),
            control => push(&[
                b'\\',
                b'u',
                b'0',
                b'0',
                b"0123456789abcdef"[usize::from(control >> 4)],
                b"0123456789abcdef"[usize::from(control & 0xF)],
            ]),
        }
        from = at + 1;
    }
    push(&bytes[from..]);
}

/// Where the JSON number at the start of `bytes` ends, and whether it is an
/// integer; `Err` is where the grammar (RFC 8259 6) is broken.
pub(super) fn number_end(bytes: &[u8]) -> Result<(usize, bool), usize> {
    let digits = |mut at: usize| {
        while bytes.get(at).is_some_and(u8::is_ascii_digit) {
            at += 1;
        }
        at
    };
    let mut at = usize::from(bytes.first() == Some(&b'-'));
    at = match bytes.get(at) {
        Some(b'0') => at + 1,
        Some(b'1'..=b'9') => digits(at + 1),
        _ => return Err(at),
    };
    let mut integer = true;
    if bytes.get(at) == Some(&b'.') {
        integer = false;
        let end = digits(at + 1);
        if end == at + 1 {
            return Err(end);
        }
        at = end;
    }
    if matches!(bytes.get(at), Some(b'e' | b'E')) {
        integer = false;
        let from = at + 1 + usize::from(matches!(bytes.get(at + 1), Some(b'+' | b'-')));
        let end = digits(from);
        if end == from {
            return Err(end);
        }
        at = end;
    }
    Ok((at, integer))
}

/// The nearest f64 of a JSON number, or `Other` where it is beyond f64.
pub(super) fn number_value(token: &str, integer: bool) -> Scalar<'static> {
    // Up to 15 digits an integer is exact in an f64.
    if integer && token.len() <= 15 {
        let (negative, digits) = match token.as_bytes() {
            [b'-', digits @ ..] => (true, digits),
            digits => (false, digits),
        };
        let sum = digits.iter().fold(0u64, |sum, digit| sum * 10 + u64::from(digit - b'0'));
        let value = sum as f64;
        return Scalar::Number(if negative { -value } else { value });
    }
    match token.parse::<f64>() {
        Ok(value) if value.is_finite() => Scalar::Number(value),
        _ => Scalar::Other,
    }
}

/// A fault of the body; becomes [`ScanFault::Body`]. Kept small, because it is
/// what every routine of the scanner returns.
#[derive(Debug, Clone, Copy)]
struct SyntaxFault {
    offset: usize,
    reason: &'static str,
}

impl From<SyntaxFault> for ScanFault<'_> {
    fn from(fault: SyntaxFault) -> Self {
        Self::Body { offset: fault.offset, reason: fault.reason }
    }
}

/// The containers a value lies in, innermost last: a bit each, set for objects.
struct Nesting {
    objects: u64,
    depth: usize,
}

const _: () = assert!(limits::JSON_DEPTH_MAX <= u64::BITS as usize);

struct Scanner<'a> {
    bytes: &'a [u8],
    /// The same bytes.
    text: &'a str,
    at: usize,
    scratch: Scratch<'a>,
}

impl<'a> Scanner<'a> {
    fn fault(&self, reason: &'static str) -> SyntaxFault {
        SyntaxFault { offset: self.at, reason }
    }

    /// The byte to be looked at, or NUL (which begins nothing) at the end.
    #[inline]
    fn peek(&self) -> u8 {
        self.bytes.get(self.at).copied().unwrap_or(0)
    }

    #[inline]
    fn skip_space(&mut self) {
        while matches!(self.peek(), b' ' | b'\n' | b'\r' | b'\t') {
            self.at += 1;
        }
    }

    /// In an object, behind its `{` or a value: the next member's name, with
    /// `at` at its value; `None` behind its `}`. The name lasts until the
    /// scratch is used again.
    #[inline]
    fn next_member(&mut self, first: &mut bool) -> Result<Option<Text<'a>>, SyntaxFault> {
        self.skip_space();
        match self.peek() {
            b'}' => {
                self.at += 1;
                return Ok(None);
            }
            b',' if !*first => {
                self.at += 1;
                self.skip_space();
            }
            _ if *first => {}
            _ => return Err(self.fault("`,` or `}` is expected")),
        }
        *first = false;
        if self.peek() != b'"' {
            return Err(self.fault("a member's name is expected"));
        }
        let name = self.string()?;
        self.skip_space();
        if self.peek() != b':' {
            return Err(self.fault("`:` is expected"));
        }
        self.at += 1;
        self.skip_space();
        Ok(Some(name))
    }

    /// The same, of a member of the body itself: only the names that count.
    fn next_name(&mut self, first: &mut bool) -> Result<Option<&'static str>, SyntaxFault> {
        let Some(name) = self.next_member(first)? else {
            return Ok(None);
        };
        Ok(Some(match self.scratch.borrow(name) {
            "units" => "units",
            "attributes" => "attributes",
            _ => "",
        }))
    }

    /// In an array, behind its `[` or an element: is there another, with `at` at it?
    #[inline]
    fn next_element(&mut self, first: &mut bool) -> Result<bool, SyntaxFault> {
        self.skip_space();
        match self.peek() {
            b']' => {
                self.at += 1;
                return Ok(false);
            }
            b',' if !*first => {
                self.at += 1;
                self.skip_space();
            }
            _ if *first => {}
            _ => return Err(self.fault("`,` or `]` is expected")),
        }
        *first = false;
        Ok(true)
    }

    fn units(&mut self, units: &mut UnitList<'a>) -> Result<(), SyntaxFault> {
        self.at += 1;
        let mut first = true;
        while let Some(name) = self.next_member(&mut first)? {
            let name = self.scratch.hold(name);
            match self.peek() {
                b'"' => {
                    let value = self.string()?;
                    let value = self.scratch.hold(value);
                    units.set_text(name, value);
                }
                b'-' | b'0'..=b'9' => {
                    let (token, integer) = self.number()?;
                    if integer {
                        units.set_text(name, token);
                    } else {
                        units.set_refused(name);
                    }
                }
                b'n' => {
                    self.skip_value(2)?;
                    units.set_text(name, "");
                }
                _ => {
                    self.skip_value(2)?;
                    units.set_refused(name);
                }
            }
        }
        Ok(())
    }

    fn attributes<F: Fields<'a>>(&mut self, fields: &mut F) -> Result<(), SyntaxFault> {
        self.at += 1;
        let mut first = true;
        while let Some(name) = self.next_member(&mut first)? {
            let Some(slot) = fields.attribute(self.scratch.borrow(name)) else {
                self.skip_value(2)?;
                continue;
            };
            match self.peek() {
                b'"' => {
                    let value = self.string()?;
                    fields.value(slot, Scalar::Text(self.scratch.borrow(value)));
                }
                b'-' | b'0'..=b'9' => {
                    let (token, integer) = self.number()?;
                    fields.value(slot, number_value(token, integer));
                }
                b'[' => {
                    fields.list_begin(slot);
                    let all_strings = self.list(slot, fields)?;
                    fields.list_end(slot, all_strings);
                }
                b't' => {
                    self.word(b"true")?;
                    fields.value(slot, Scalar::Bool(true));
                }
                b'f' => {
                    self.word(b"false")?;
                    fields.value(slot, Scalar::Bool(false));
                }
                b'n' => {
                    self.word(b"null")?;
                    fields.value(slot, Scalar::Null);
                }
                _ => {
                    self.skip_value(2)?;
                    fields.value(slot, Scalar::Other);
                }
            }
        }
        Ok(())
    }

    /// A list's elements; is every one a string?
    fn list<F: Fields<'a>>(&mut self, slot: u16, fields: &mut F) -> Result<bool, SyntaxFault> {
        self.at += 1;
        let mut first = true;
        let mut all_strings = true;
        while self.next_element(&mut first)? {
            if self.peek() == b'"' {
                let item = self.string()?;
                fields.list_item(slot, self.scratch.borrow(item));
            } else {
                all_strings = false;
                self.skip_value(3)?;
            }
        }
        Ok(all_strings)
    }

    /// Checks a value that lies in `depth` containers, and passes over it.
    fn skip_value(&mut self, depth: usize) -> Result<(), SyntaxFault> {
        let mut nesting = Nesting { objects: 0, depth: 0 };
        loop {
            // At a value.
            let mut opened = false;
            match self.peek() {
                b'"' => {
                    self.string()?;
                }
                b'-' | b'0'..=b'9' => {
                    self.number()?;
                }
                open @ (b'{' | b'[') => {
                    if depth + nesting.depth >= limits::JSON_DEPTH_MAX {
                        return Err(self.fault("nested too deep"));
                    }
                    nesting.objects = nesting.objects << 1 | u64::from(open == b'{');
                    nesting.depth += 1;
                    self.at += 1;
                    opened = true;
                }
                b't' => self.word(b"true")?,
                b'f' => self.word(b"false")?,
                b'n' => self.word(b"null")?,
                _ => return Err(self.fault("a value is expected")),
            }
            // Behind a value, or in a container just opened: out of all that
            // end here, to the next value.
            loop {
                if nesting.depth == 0 {
                    return Ok(());
                }
                let more = if nesting.objects & 1 == 1 {
                    self.next_member(&mut opened)?.is_some()
                } else {
                    self.next_element(&mut opened)?
                };
                if more {
                    break;
                }
                nesting.objects >>= 1;
                nesting.depth -= 1;
                opened = false;
            }
        }
    }

    fn word(&mut self, word: &'static [u8]) -> Result<(), SyntaxFault> {
        if !self.bytes[self.at..].starts_with(word) {
            return Err(self.fault("a value is expected"));
        }
        self.at += word.len();
        Ok(())
    }

    fn number(&mut self) -> Result<(&'a str, bool), SyntaxFault> {
        let from = self.at;
        match number_end(&self.bytes[from..]) {
            Ok((size, integer)) => {
                self.at += size;
                Ok((&self.text[from..self.at], integer))
            }
            Err(at) => {
                self.at += at;
                Err(self.fault("a number is malformed"))
            }
        }
    }

    /// A string, `at` at its opening quote; behind its closing one after.
    #[inline]
    fn string(&mut self) -> Result<Text<'a>, SyntaxFault> {
        let from = self.at + 1;
        match first_special(&self.bytes[from..]) {
            Some(size) if self.bytes[from + size] == b'"' => {
                self.at = from + size + 1;
                Ok(Text::Plain(&self.text[from..from + size]))
            }
            Some(size) => self.escaped_string(from, size),
            None => {
                self.at = self.bytes.len();
                Err(self.fault("a string has no end"))
            }
        }
    }

    /// A string that begins at `from` and is plain for `plain_size` bytes.
    /// Unescaped is never longer than escaped, so the scratch suffices: of
    /// the body's length, no byte is needed twice.
    #[cold]
    fn escaped_string(&mut self, from: usize, plain_size: usize) -> Result<Text<'a>, SyntaxFault> {
        let mut written = 0;
        let mut plain = from..from + plain_size;
        loop {
            let piece = &self.bytes[plain.clone()];
            self.scratch.0[written..written + piece.len()].copy_from_slice(piece);
            written += piece.len();
            self.at = plain.end;
            match self.bytes[self.at] {
                b'"' => {
                    self.at += 1;
                    return Ok(Text::Written(written));
                }
                b'\\' => {
                    let character = self.escape_sequence()?;
                    written += character.encode_utf8(&mut self.scratch.0[written..]).len();
                }
                _ => return Err(self.fault("a control character in a string")),
            }
            let rest = &self.bytes[self.at..];
            let Some(size) = first_special(rest) else {
                self.at = self.bytes.len();
                return Err(self.fault("a string has no end"));
            };
            plain = self.at..self.at + size;
        }
    }

    /// `at` at a backslash; behind the sequence after.
    fn escape_sequence(&mut self) -> Result<char, SyntaxFault> {
        let sequence_at = self.at;
        let lone = SyntaxFault { offset: sequence_at, reason: "a lone surrogate" };
        self.at += 1;
        let character = match self.peek() {
            b'"' => '"',
            b'\\' => '\\',
            b'/' => '/',
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let unit = self.four_digits()?;
                if !(0xD800..0xE000).contains(&unit) {
                    return char::from_u32(unit).ok_or(lone);
                }
                // RFC 8259 7: a high surrogate and at once its low one.
                if unit >= 0xDC00 || !self.bytes[self.at..].starts_with(b"\\u") {
                    return Err(lone);
                }
                self.at += 1;
                let low = self.four_digits()?;
                if !(0xDC00..0xE000).contains(&low) {
                    return Err(lone);
                }
                return char::from_u32(0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00)).ok_or(lone);
            }
            _ => {
                self.at = sequence_at;
                return Err(self.fault("an escape that JSON does not have"));
            }
        };
        self.at += 1;
        Ok(character)
    }

    /// `at` at the `u` of `\uXXXX`; behind it after.
    fn four_digits(&mut self) -> Result<u32, SyntaxFault> {
        self.at += 1;
        let mut unit = 0;
        for _ in 0..4 {
            let Some(digit) = char::from(self.peek()).to_digit(16) else {
                return Err(self.fault("four hexadecimal digits are expected"));
            };
            unit = unit << 4 | digit;
            self.at += 1;
        }
        Ok(unit)
    }
}

/// The first byte that does not stand for itself inside a JSON string: `"`,
/// `\`, or a control character.
#[inline]
fn first_special(bytes: &[u8]) -> Option<usize> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const TOPS: u64 = 0x8080_8080_8080_8080;
    let mut at = 0;
    // In each term the lowest flagged byte is a true one: a borrow only ever
    // comes from a flagged byte below.
    while let Some(chunk) = bytes[at..].first_chunk::<8>() {
        let word = u64::from_le_bytes(*chunk);
        let quotes = word ^ (ONES * b'"' as u64);
        let slashes = word ^ (ONES * b'\\' as u64);
        let special = (word.wrapping_sub(ONES * 0x20) & !word)
            | (quotes.wrapping_sub(ONES) & !quotes)
            | (slashes.wrapping_sub(ONES) & !slashes);
        let special = special & TOPS;
        if special != 0 {
            return Some(at + (special.trailing_zeros() / 8) as usize);
        }
        at += 8;
    }
    bytes[at..].iter().position(|&byte| byte < 0x20 || byte == b'"' || byte == b'\\').map(|found| at + found)
}

#[cfg(test)]
mod tests;
