//! A GET's query string, in one pass into the same [`Fields`] as a body.
//!
//! - Pairs are separated by `&`, a name ends at the first `=`; a name without
//!   one has the empty value. Empty pairs are passed over.
//! - Names and values are percent-decoded once; `+` is a plus. A `%` without
//!   two hexadecimal digits, and bytes that are no UTF-8, are refused wherever
//!   they are.
//! - `payloads` and `exposure` are the request's own; what else a name stands
//!   for, [`Fields::query_name`] says.
//! - Of a name given twice the last counts.
//! - The declared attributes are written as a JSON object, the context of the
//!   exposure. Where a name was given twice, it is written anew from the end,
//!   so that its members are distinct; their order has no meaning.

use crate::limits;

use super::fields::{Fields, QueryName, Scalar, ScanFault, Scanned, Shape};
use super::json;
use super::scratch::{Scratch, Text};
use super::units::UnitList;

/// A request's own options.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueryOptions {
    /// `payloads=true`.
    pub payloads: bool,
    /// Not `exposure=false`.
    pub exposure: bool,
}

impl Default for QueryOptions {
    fn default() -> Self {
        Self { payloads: false, exposure: true }
    }
}

/// What a query string needs of scratch: its texts, and its context as JSON.
/// A byte becomes six at most (`%01` is `\u0001`), `a&` becomes `"a":"",`.
#[must_use]
pub const fn scratch_size(query_size: usize) -> usize {
    8 * query_size + 64
}

/// Scans a GET's query string (without its `?`) into `fields`. `scratch` holds
/// decoded texts and the context.
///
/// # Errors
/// Bad percent escapes, bytes that are no UTF-8, refused units and options.
///
/// # Panics
/// Where `scratch` is shorter than [`scratch_size`] of the query string.
pub fn scan_query<'a, F: Fields<'a>>(
    query: &'a str,
    scratch: &'a mut [u8],
    fields: &mut F,
) -> Result<Scanned<'a>, ScanFault<'a>> {
    assert!(scratch.len() >= scratch_size(query.len()), "the scratch is too short for the query string");
    let (texts, context) = scratch.split_at_mut(query.len());
    let mut scan = QueryScan {
        query,
        texts: Scratch(texts),
        context: Context { bytes: context, size: 0 },
        seen: Slots::default(),
        repeated: false,
        units: UnitList::default(),
        options: QueryOptions::default(),
    };
    fields.attributes_begin();
    let mut rest = Some(query);
    while let Some(pairs) = rest {
        let (pair, behind) = cut(pairs, b'&');
        scan.pair(pair, false, fields)?;
        rest = behind;
    }
    if scan.repeated {
        fields.attributes_begin();
        scan.context.size = 0;
        scan.seen = Slots::default();
        for pair in query.rsplit('&') {
            scan.pair(pair, true, fields)?;
        }
    }
    let QueryScan { context, units, options, .. } = scan;
    units.tell(fields)?;
    let QueryOptions { payloads, exposure } = options;
    Ok(Scanned { context: context.close(), payloads, exposure })
}

/// The request's own options from a query string; other names are passed
/// over, once their percent escapes are checked.
///
/// # Errors
/// Bad percent escapes; `payloads` or `exposure` neither `true` nor `false`.
pub fn query_options(query: Option<&str>) -> Result<QueryOptions, ScanFault<'static>> {
    let mut options = QueryOptions::default();
    let query = query.unwrap_or_default();
    for pair in query.split('&') {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        for text in [name, value] {
            if let Some(fault) = Decoder(text.as_bytes()).find_map(Result::err) {
                let offset = offset_in(query, text) + text.len() - fault.left;
                return Err(ScanFault::Query { offset, reason: BAD_ESCAPE });
            }
        }
        for (option, place) in [(PAYLOADS, &mut options.payloads), (EXPOSURE, &mut options.exposure)] {
            if decodes_to(name, option) {
                *place = truth(|word| decodes_to(value, word)).ok_or(ScanFault::Option { name: option })?;
            }
        }
    }
    Ok(options)
}

/// Decodes `%XX` once; `+` is a plus. Borrows where nothing is encoded, else
/// writes to `scratch`, which has to be as long as `raw`.
///
/// # Errors
/// A `%` without two hexadecimal digits; bytes that are no UTF-8.
pub fn percent_decode<'a>(raw: &'a str, scratch: &'a mut [u8]) -> Result<&'a str, PercentFault> {
    let mut scratch = Scratch(scratch);
    let text = decode(raw, &mut scratch)?;
    Ok(scratch.hold(text))
}

/// A text is not soundly percent-encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("byte {offset}: {reason}")]
pub struct PercentFault {
    /// Byte of the encoded text, counted from zero.
    pub offset: usize,
    /// What is wrong there.
    pub reason: &'static str,
}

const PAYLOADS: &str = "payloads";
const EXPOSURE: &str = "exposure";
const BAD_ESCAPE: &str = "`%` is not followed by two hexadecimal digits";

struct QueryScan<'a> {
    query: &'a str,
    texts: Scratch<'a>,
    context: Context<'a>,
    seen: Slots,
    /// An attribute was given twice.
    repeated: bool,
    units: UnitList<'a>,
    options: QueryOptions,
}

impl<'a> QueryScan<'a> {
    /// One `name=value`. Again, from the end, only attributes are told, and
    /// only those not seen yet: each one's last value.
    fn pair<F: Fields<'a>>(
        &mut self,
        pair: &'a str,
        again: bool,
        fields: &mut F,
    ) -> Result<(), ScanFault<'a>> {
        if pair.is_empty() {
            return Ok(());
        }
        let (raw_name, raw_value) = cut(pair, b'=');
        let raw_value = raw_value.unwrap_or_default();
        let name_text = self.decode(raw_name)?;
        let name = self.texts.borrow(name_text);
        let option = [PAYLOADS, EXPOSURE].into_iter().find(|&option| option == name);
        if let Some(option) = option {
            return if again { Ok(()) } else { self.option(option, raw_value) };
        }
        match fields.query_name(name) {
            QueryName::Unit if again => {}
            QueryName::Unit => {
                let name = self.texts.hold(name_text);
                let value = self.decode(raw_value)?;
                let value = self.texts.hold(value);
                self.units.set_text(name, value);
            }
            QueryName::Attribute(slot, shape) => {
                let seen = !self.seen.insert(slot);
                self.repeated |= seen;
                if !(again && seen) {
                    self.context.member(name);
                    self.attribute(slot, shape, raw_value, fields)?;
                }
            }
            QueryName::Ignored => {
                self.decode(raw_value)?;
            }
        }
        Ok(())
    }

    fn attribute<F: Fields<'a>>(
        &mut self,
        slot: u16,
        shape: Shape,
        raw: &'a str,
        fields: &mut F,
    ) -> Result<(), ScanFault<'a>> {
        if shape == Shape::List {
            fields.list_begin(slot);
            self.context.push(b"[");
            // Commas split before decoding: an encoded one belongs to its text.
            let mut rest = if raw.is_empty() { None } else { Some(raw) };
            let mut first = true;
            while let Some(items) = rest {
                let (item, behind) = cut(items, b',');
                rest = behind;
                let item = self.decode(item)?;
                let item = self.texts.borrow(item);
                if !first {
                    self.context.push(b",");
                }
                first = false;
                self.context.text(item);
                fields.list_item(slot, item);
            }
            self.context.push(b"]");
            fields.list_end(slot, true);
            return Ok(());
        }
        let value = self.decode(raw)?;
        let value = self.texts.borrow(value);
        let scalar = match shape {
            Shape::Number => match json::number_end(value.as_bytes()) {
                Ok((end, _)) if end == value.len() => Some(json::number_value(value)),
                _ => None,
            },
            Shape::Bool => truth(|word| value == word).map(Scalar::Bool),
            Shape::Text | Shape::List => None,
        };
        match scalar {
            // Numbers and truths stand in JSON as they stand here.
            Some(_) => self.context.push(value.as_bytes()),
            None => self.context.text(value),
        }
        fields.value(slot, scalar.unwrap_or(Scalar::Text(value)));
        Ok(())
    }

    fn option(&mut self, name: &'static str, raw: &'a str) -> Result<(), ScanFault<'a>> {
        let value = self.decode(raw)?;
        let value = self.texts.borrow(value);
        let value = truth(|word| value == word).ok_or(ScanFault::Option { name })?;
        match name {
            PAYLOADS => self.options.payloads = value,
            _ => self.options.exposure = value,
        }
        Ok(())
    }

    fn decode(&mut self, raw: &'a str) -> Result<Text<'a>, ScanFault<'a>> {
        decode(raw, &mut self.texts).map_err(|fault| ScanFault::Query {
            offset: offset_in(self.query, raw) + fault.offset,
            reason: fault.reason,
        })
    }
}

/// The context being written; there is room for it, see [`scratch_size`].
struct Context<'a> {
    bytes: &'a mut [u8],
    size: usize,
}

impl<'a> Context<'a> {
    fn push(&mut self, bytes: &[u8]) {
        self.bytes[self.size..self.size + bytes.len()].copy_from_slice(bytes);
        self.size += bytes.len();
    }

    fn text(&mut self, text: &str) {
        self.push(b"\"");
        json::escape(text, |bytes| self.push(bytes));
        self.push(b"\"");
    }

    fn member(&mut self, name: &str) {
        self.push(if self.size == 0 { b"{" } else { b"," });
        self.text(name);
        self.push(b":");
    }

    fn close(mut self) -> &'a [u8] {
        if self.size > 0 {
            self.push(b"}");
        }
        let Self { bytes, size } = self;
        &bytes[..size]
    }
}

/// A set of slots.
#[derive(Default)]
struct Slots([u64; limits::ATTRIBUTE_COUNT_MAX.div_ceil(64)]);

impl Slots {
    /// Was it not in the set before?
    fn insert(&mut self, slot: u16) -> bool {
        let (word, bit) = (usize::from(slot / 64), 1u64 << (slot % 64));
        let new = self.0[word] & bit == 0;
        self.0[word] |= bit;
        new
    }
}

/// Up to the first `mark`, and what is behind it. (`str::split` searches by
/// characters, which short texts feel.)
#[inline]
fn cut(text: &str, mark: u8) -> (&str, Option<&str>) {
    match text.bytes().position(|byte| byte == mark) {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    }
}

/// `true` or `false`, as `is` finds.
fn truth(is: impl Fn(&str) -> bool) -> Option<bool> {
    match (is("true"), is("false")) {
        (true, _) => Some(true),
        (_, true) => Some(false),
        _ => None,
    }
}

fn decode<'a>(raw: &'a str, scratch: &mut Scratch<'a>) -> Result<Text<'a>, PercentFault> {
    let Some(plain_size) = memchr::memchr(b'%', raw.as_bytes()) else {
        return Ok(Text::Plain(raw));
    };
    let (plain, encoded) = raw.as_bytes().split_at(plain_size);
    scratch.0[..plain_size].copy_from_slice(plain);
    let mut size = plain_size;
    for byte in Decoder(encoded) {
        scratch.0[size] =
            byte.map_err(|bad| PercentFault { offset: raw.len() - bad.left, reason: BAD_ESCAPE })?;
        size += 1;
    }
    match std::str::from_utf8(&scratch.0[..size]) {
        Ok(_) => Ok(Text::Written(size)),
        Err(_) => Err(PercentFault { offset: 0, reason: "not UTF-8 once decoded" }),
    }
}

fn decodes_to(raw: &str, text: &str) -> bool {
    Decoder(raw.as_bytes()).eq(text.bytes().map(Ok))
}

/// Where `part`, a slice of `whole`, begins in it.
fn offset_in(whole: &str, part: &str) -> usize {
    part.as_ptr() as usize - whole.as_ptr() as usize
}

/// So many bytes were left from the bad `%` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct BadEscape {
    left: usize,
}

/// The decoded bytes.
struct Decoder<'a>(&'a [u8]);

impl Iterator for Decoder<'_> {
    type Item = Result<u8, BadEscape>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let left = self.0.len();
        match *self.0 {
            [] => None,
            [b'%', high, low, ref rest @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                self.0 = rest;
                Some(Ok(super::chunked::hex_value(high) << 4 | super::chunked::hex_value(low)))
            }
            [b'%', ..] => {
                self.0 = &[];
                Some(Err(BadEscape { left }))
            }
            [byte, ref rest @ ..] => {
                self.0 = rest;
                Some(Ok(byte))
            }
        }
    }
}

#[cfg(test)]
mod tests;
