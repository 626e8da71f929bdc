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
//! A body is mostly strings shorter than sixteen bytes, `", "` and `": "`
//! between them: those forms are taken in one step each, and every other one
//! by the plain way behind it. Values are looked at where they stand; a fault
//! waits in the scanner, so that what its routines return fits in registers.

mod number;
mod special;

use crate::limits;

use self::number::short_decimal;
pub(super) use self::number::{number_end, number_value};
use self::special::first_special;
pub(super) use self::special::{is_special, specials};
use super::order::{MemberOrder, Order, Place};

use super::fields::{Fields, Scalar, ScanFault, Scanned};
use super::scratch::{Scratch, Text};
use super::units::UnitList;

/// Scans the body of an assign request into `fields`. `scratch` holds what
/// has escapes, unescaped. `order` learns how clients write their attributes;
/// whatever it holds, what is told is the same.
///
/// # Errors
/// Where the body is not what assignment.md says it is.
///
/// # Panics
/// Where `scratch` is shorter than the body.
pub fn scan_request<'a, F: Fields<'a>>(
    body: &'a [u8],
    scratch: &'a mut [u8],
    order: &mut MemberOrder,
    fields: &mut F,
) -> Result<Scanned<'a>, ScanFault<'a>> {
    assert!(scratch.len() >= body.len(), "the scratch is shorter than the body");
    let text = utf8(body)?;
    let fault = SyntaxFault { offset: 0, reason: "" };
    let mut scanner = Scanner { text, scratch: Scratch(scratch), fault };
    let mut units = UnitList::default();
    match scanner.body(&mut units, &mut order.body, fields) {
        Ok(context) => {
            units.tell(fields)?;
            Ok(Scanned { context, payloads: false, exposure: true })
        }
        Err(Stop) => Err(scanner.fault.into()),
    }
}

/// The body as text. All of it is checked here, at once, so strings need not be.
fn utf8(body: &[u8]) -> Result<&str, ScanFault<'static>> {
    simdutf8::basic::from_utf8(body).or_else(|_| {
        std::str::from_utf8(body)
            .map_err(|error| ScanFault::Body { offset: error.valid_up_to(), reason: "not UTF-8" })
    })
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

/// The scanner is at a fault, which it keeps.
#[derive(Debug, Clone, Copy)]
struct Stop;

/// A fault of the body; becomes [`ScanFault::Body`].
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

/// What is still to be looked at. It travels by value, so that it stays in
/// registers where it is looked at most.
#[derive(Clone, Copy)]
struct Rest<'a>(&'a str);

impl<'a> Rest<'a> {
    #[inline(always)]
    fn bytes(self) -> &'a [u8] {
        self.0.as_bytes()
    }

    /// The first byte, or NUL (which begins nothing) at the end.
    #[inline(always)]
    fn peek(self) -> u8 {
        self.bytes().first().copied().unwrap_or(0)
    }

    /// Passes over `text`, if that comes next. Unlike [`Rest::pass`] it need not
    /// ask whether a character ends there.
    #[inline(always)]
    fn pass_over(&mut self, text: &'static str) -> bool {
        match self.0.strip_prefix(text) {
            Some(rest) => {
                self.0 = rest;
                true
            }
            None => false,
        }
    }

    /// Passes over so many bytes, which have to end where a character does.
    #[inline(always)]
    fn pass(&mut self, size: usize) {
        self.0 = &self.0[size..];
    }

    #[inline(always)]
    fn skip_space(&mut self) {
        while matches!(self.peek(), b' ' | b'\n' | b'\r' | b'\t') {
            self.pass(1);
        }
    }
}

struct Scanner<'a> {
    /// The body.
    text: &'a str,
    scratch: Scratch<'a>,
    /// Where it stopped, once it did.
    fault: SyntaxFault,
}

impl<'a> Scanner<'a> {
    /// The offset of what is to be looked at.
    #[inline(always)]
    fn offset(&self, rest: Rest<'a>) -> usize {
        self.text.len() - rest.0.len()
    }

    #[cold]
    fn stop(&mut self, rest: Rest<'a>, reason: &'static str) -> Stop {
        self.stop_at(self.offset(rest), reason)
    }

    #[cold]
    fn stop_at(&mut self, offset: usize, reason: &'static str) -> Stop {
        self.fault = SyntaxFault { offset, reason };
        Stop
    }

    /// The body: tells attributes, gathers units, and returns the context.
    fn body<F: Fields<'a>>(
        &mut self,
        units: &mut UnitList<'a>,
        order: &mut Order,
        fields: &mut F,
    ) -> Result<&'a [u8], Stop> {
        // The offset of a member that is no object.
        let mut units_fault = None;
        let mut attributes_fault = None;
        let mut units_seen = false;
        let mut context: &[u8] = b"";
        let mut rest = Rest(self.text);
        rest.skip_space();
        if rest.peek() != b'{' {
            return Err(self.stop(rest, "a JSON object is expected"));
        }
        rest.pass(1);
        let mut first = true;
        while let Some(name) = self.next_member(&mut rest, &mut first)? {
            let value_at = self.offset(rest);
            let is_object = rest.peek() == b'{';
            match self.scratch.borrow(name) {
                "units" => {
                    units.clear();
                    units_seen = true;
                    units_fault = (!is_object).then_some(value_at);
                    if is_object {
                        rest = self.units(rest, units)?;
                    } else {
                        rest = self.skip_value(rest, 1)?;
                    }
                }
                "attributes" => {
                    fields.attributes_begin();
                    attributes_fault = (!is_object).then_some(value_at);
                    context = b"";
                    if is_object {
                        rest = self.attributes(rest, order, fields)?;
                        context = &self.text.as_bytes()[value_at..self.offset(rest)];
                    } else {
                        rest = self.skip_value(rest, 1)?;
                    }
                }
                _ => rest = self.skip_value(rest, 1)?,
            }
        }
        rest.skip_space();
        if !rest.0.is_empty() {
            return Err(self.stop(rest, "text behind the object"));
        }
        if !units_seen {
            return Err(self.stop(rest, "`units` is missing"));
        }
        if let Some(offset) = units_fault {
            return Err(self.stop_at(offset, "`units` must be an object"));
        }
        if let Some(offset) = attributes_fault {
            return Err(self.stop_at(offset, "`attributes` must be an object"));
        }
        Ok(context)
    }

    /// In an object, behind its `{` or a value: the next member's name, then
    /// at its value; `None` behind its `}`. The name lasts until the
    /// scratch is used again.
    #[inline(always)]
    fn next_member(&mut self, rest: &mut Rest<'a>, first: &mut bool) -> Result<Option<Text<'a>>, Stop> {
        if !*first && rest.pass_over(", \"") {
            // As most come.
        } else if !self.next_part(rest, b'}', "`,` or `}` is expected", first)? {
            return Ok(None);
        } else if !rest.pass_over("\"") {
            return Err(self.stop(*rest, "a member's name is expected"));
        }
        let name = self.inside_of_string(rest)?;
        if !rest.pass_over(": ") {
            rest.skip_space();
            if !rest.pass_over(":") {
                return Err(self.stop(*rest, "`:` is expected"));
            }
        }
        rest.skip_space();
        Ok(Some(name))
    }

    /// In an array, behind its `[` or an element: is there another, then at it?
    #[inline(always)]
    fn next_element(&mut self, rest: &mut Rest<'a>, first: &mut bool) -> Result<bool, Stop> {
        self.next_part(rest, b']', "`,` or `]` is expected", first)
    }

    /// In a container that `close` ends, behind its opening or a part: is there
    /// another, then at it?
    #[inline(always)]
    fn next_part(
        &mut self,
        rest: &mut Rest<'a>,
        close: u8,
        expected: &'static str,
        first: &mut bool,
    ) -> Result<bool, Stop> {
        rest.skip_space();
        let next = rest.peek();
        if next == close {
            rest.pass(1);
            return Ok(false);
        }
        if !std::mem::take(first) {
            if !rest.pass_over(",") {
                return Err(self.stop(*rest, expected));
            }
            rest.skip_space();
        }
        Ok(true)
    }

    fn units(&mut self, mut rest: Rest<'a>, units: &mut UnitList<'a>) -> Result<Rest<'a>, Stop> {
        rest.pass(1);
        let mut first = true;
        while let Some(name) = self.next_member(&mut rest, &mut first)? {
            let name = self.scratch.hold(name);
            match rest.peek() {
                b'"' => {
                    let value = self.string(&mut rest)?;
                    let value = self.scratch.hold(value);
                    units.set_text(name, value);
                }
                b'-' | b'0'..=b'9' => {
                    let (token, integer) = self.number(&mut rest)?;
                    if integer {
                        units.set_text(name, token);
                    } else {
                        units.set_refused(name);
                    }
                }
                b'n' => {
                    rest = self.skip_value(rest, 2)?;
                    units.set_text(name, "");
                }
                _ => {
                    rest = self.skip_value(rest, 2)?;
                    units.set_refused(name);
                }
            }
        }
        Ok(rest)
    }

    fn attributes<F: Fields<'a>>(
        &mut self,
        mut rest: Rest<'a>,
        order: &mut Order,
        fields: &mut F,
    ) -> Result<Rest<'a>, Stop> {
        rest.pass(1);
        let mut first = true;
        let mut place = Place::FIRST;
        loop {
            let slot = if let Some((slot, size)) = order.guess(rest.bytes(), place) {
                rest.pass(size);
                rest.skip_space();
                first = false;
                slot
            } else {
                let member = rest.bytes();
                let Some(name) = self.next_member(&mut rest, &mut first)? else { return Ok(rest) };
                let Some(slot) = fields.attribute(self.scratch.borrow(name)) else {
                    rest = self.skip_value(rest, 2)?;
                    // Behind this `{` there is a comma from now on.
                    place = if place == Place::FIRST { Place::NOWHERE } else { place };
                    continue;
                };
                order.learn(place, &member[..member.len() - rest.bytes().len()], slot);
                slot
            };
            place = Place::behind(slot);
            match rest.peek() {
                b'"' => {
                    let value = self.string(&mut rest)?;
                    fields.value(slot, Scalar::Text(self.scratch.borrow(value)));
                }
                b'-' | b'0'..=b'9' => {
                    let value = match short_decimal(rest.bytes()) {
                        Some((value, size)) => {
                            rest.pass(size);
                            Scalar::Number(value)
                        }
                        None => number_value(self.number(&mut rest)?.0),
                    };
                    fields.value(slot, value);
                }
                b'[' => {
                    fields.list_begin(slot);
                    let all_strings = self.list(&mut rest, slot, fields)?;
                    fields.list_end(slot, all_strings);
                }
                b't' => {
                    self.word(&mut rest, "true")?;
                    fields.value(slot, Scalar::Bool(true));
                }
                b'f' => {
                    self.word(&mut rest, "false")?;
                    fields.value(slot, Scalar::Bool(false));
                }
                b'n' => {
                    self.word(&mut rest, "null")?;
                    fields.value(slot, Scalar::Null);
                }
                _ => {
                    rest = self.skip_value(rest, 2)?;
                    fields.value(slot, Scalar::Other);
                }
            }
        }
    }

    /// A list's elements; is every one a string?
    #[inline(always)]
    fn list<F: Fields<'a>>(&mut self, rest: &mut Rest<'a>, slot: u16, fields: &mut F) -> Result<bool, Stop> {
        rest.pass(1);
        let mut first = true;
        let mut all_strings = true;
        while self.next_element(rest, &mut first)? {
            if rest.peek() == b'"' {
                let item = self.string(rest)?;
                fields.list_item(slot, self.scratch.borrow(item));
            } else {
                all_strings = false;
                *rest = self.skip_value(*rest, 3)?;
            }
        }
        Ok(all_strings)
    }

    /// Checks a value that lies in `depth` containers, and passes over it.
    #[inline(never)]
    fn skip_value(&mut self, mut rest: Rest<'a>, depth: usize) -> Result<Rest<'a>, Stop> {
        let mut nesting = Nesting { objects: 0, depth: 0 };
        loop {
            // At a value.
            let mut opened = false;
            match rest.peek() {
                b'"' => {
                    self.string(&mut rest)?;
                }
                b'-' | b'0'..=b'9' => {
                    self.number(&mut rest)?;
                }
                open @ (b'{' | b'[') => {
                    if depth + nesting.depth >= limits::JSON_DEPTH_MAX {
                        return Err(self.stop(rest, "nested too deep"));
                    }
                    nesting.objects = nesting.objects << 1 | u64::from(open == b'{');
                    nesting.depth += 1;
                    rest.pass(1);
                    opened = true;
                }
                b't' => self.word(&mut rest, "true")?,
                b'f' => self.word(&mut rest, "false")?,
                b'n' => self.word(&mut rest, "null")?,
                _ => return Err(self.stop(rest, "a value is expected")),
            }
            // Behind a value, or in a container just opened: out of all that
            // end here, to the next value.
            loop {
                if nesting.depth == 0 {
                    return Ok(rest);
                }
                let more = if nesting.objects & 1 == 1 {
                    self.next_member(&mut rest, &mut opened)?.is_some()
                } else {
                    self.next_element(&mut rest, &mut opened)?
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

    #[inline(always)]
    fn word(&mut self, rest: &mut Rest<'a>, word: &'static str) -> Result<(), Stop> {
        if rest.pass_over(word) { Ok(()) } else { Err(self.stop(*rest, "a value is expected")) }
    }

    #[inline(always)]
    fn number(&mut self, rest: &mut Rest<'a>) -> Result<(&'a str, bool), Stop> {
        match number_end(rest.bytes()) {
            Ok((size, integer)) => {
                let (token, behind) = rest.0.split_at(size);
                rest.0 = behind;
                Ok((token, integer))
            }
            Err(size) => {
                rest.pass(size);
                Err(self.stop(*rest, "a number is malformed"))
            }
        }
    }

    /// A string, at its opening quote; behind its closing one after.
    #[inline(always)]
    fn string(&mut self, rest: &mut Rest<'a>) -> Result<Text<'a>, Stop> {
        rest.pass(1);
        self.inside_of_string(rest)
    }

    /// The same, behind its opening quote.
    #[inline(always)]
    fn inside_of_string(&mut self, rest: &mut Rest<'a>) -> Result<Text<'a>, Stop> {
        let found = first_special(rest.bytes());
        if let Some(size) = found {
            let (text, behind) = rest.0.split_at(size);
            let mut behind = Rest(behind);
            if behind.pass_over("\"") {
                *rest = behind;
                return Ok(Text::Plain(text));
            }
        }
        let (text, behind) = self.unplain_string(*rest, found)?;
        *rest = behind;
        Ok(text)
    }

    /// The rest of a string that does not end where its plain text does, of
    /// which so many bytes follow. Unescaped is never longer than escaped, so
    /// the scratch suffices: of the body's length, no byte is needed twice.
    #[cold]
    fn unplain_string(
        &mut self,
        mut rest: Rest<'a>,
        mut plain_size: Option<usize>,
    ) -> Result<(Text<'a>, Rest<'a>), Stop> {
        let mut written = 0;
        while let Some(size) = plain_size {
            let plain = &rest.bytes()[..size];
            self.scratch.0[written..written + size].copy_from_slice(plain);
            written += size;
            rest.pass(size);
            match rest.peek() {
                b'"' => {
                    rest.pass(1);
                    return Ok((Text::Written(written), rest));
                }
                b'\\' => {
                    let character = self.escape_sequence(&mut rest)?;
                    written += character.encode_utf8(&mut self.scratch.0[written..]).len();
                }
                _ => return Err(self.stop(rest, "a control character in a string")),
            }
            plain_size = first_special(rest.bytes());
        }
        Err(self.stop_at(self.text.len(), "a string has no end"))
    }

    /// At a backslash; behind the sequence after.
    fn escape_sequence(&mut self, rest: &mut Rest<'a>) -> Result<char, Stop> {
        let sequence_at = self.offset(*rest);
        rest.pass(1);
        let character = match rest.peek() {
            b'"' => '"',
            b'\\' => '\\',
            b'/' => '/',
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => return self.escaped_code_point(rest, sequence_at),
            _ => return Err(self.stop_at(sequence_at, "an escape that JSON does not have")),
        };
        rest.pass(1);
        Ok(character)
    }

    /// At the `u` of a sequence that begins at `sequence_at`.
    fn escaped_code_point(&mut self, rest: &mut Rest<'a>, sequence_at: usize) -> Result<char, Stop> {
        let mut code_point = self.four_digits(rest)?;
        // RFC 8259 7: a high surrogate and at once its low one.
        if (0xD800..0xDC00).contains(&code_point) && rest.0.starts_with("\\u") {
            rest.pass(1);
            let low = self.four_digits(rest)?;
            if (0xDC00..0xE000).contains(&low) {
                code_point = 0x10000 + ((code_point - 0xD800) << 10) + (low - 0xDC00);
            }
        }
        char::from_u32(code_point).ok_or_else(|| self.stop_at(sequence_at, "a lone surrogate"))
    }

    /// At the `u` of `\uXXXX`; behind it after.
    fn four_digits(&mut self, rest: &mut Rest<'a>) -> Result<u32, Stop> {
        rest.pass(1);
        let mut unit = 0;
        for _ in 0..4 {
            let Some(digit) = char::from(rest.peek()).to_digit(16) else {
                return Err(self.stop(*rest, "four hexadecimal digits are expected"));
            };
            unit = unit << 4 | digit;
            rest.pass(1);
        }
        Ok(unit)
    }
}

#[cfg(test)]
mod tests;
