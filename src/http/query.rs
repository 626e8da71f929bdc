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

use wide::u8x16;

use crate::limits;

use super::fields::{Fields, QueryName, Scalar, ScanFault, Scanned, Shape};
use super::json;
use super::order::{MemberOrder, Order, Place};
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
/// decoded texts and the context. `order` learns how clients write their attributes;
/// it is of use only with the same `fields`' slots.
///
/// # Errors
/// Bad percent escapes, bytes that are no UTF-8, refused units and options.
///
/// # Panics
/// Where `scratch` is shorter than [`scratch_size`] of the query string.
pub fn scan_query<'a, F: Fields<'a>>(
    query: &'a str,
    scratch: &'a mut [u8],
    order: &mut MemberOrder,
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
        unit_slot: order.query.unit_slot(),
        options: QueryOptions::default(),
    };
    fields.attributes_begin();
    scan.pairs(&mut order.query, fields)?;
    if scan.repeated {
        fields.attributes_begin();
        scan.context.size = 0;
        scan.seen = Slots::default();
        for pair in query.rsplit('&') {
            let (name, value) = Raw::pair(pair, 0);
            scan.pair(name, value, true, fields)?;
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
    /// The first unit's slot: [`Order::unit_slot`].
    unit_slot: u16,
    options: QueryOptions,
}

impl<'a> QueryScan<'a> {
    /// All pairs, in their order.
    fn pairs<F: Fields<'a>>(&mut self, order: &mut Order, fields: &mut F) -> Result<(), ScanFault<'a>> {
        let (query, mut at, mut place) = (self.query, 0, Place::FIRST);
        // A pair begins at the `&` before it; the first may have none.
        while at < query.len() {
            let bytes = &query.as_bytes()[at..];
            let name_at = at + usize::from(bytes[0] == b'&');
            if let Some((slot, size)) = order.guess(bytes, place) {
                let name = &query[name_at..at + size - 1];
                let value = Raw::value(query, at + size);
                (at, place) = (value.end, Place::behind(slot));
                if slot >= self.unit_slot {
                    self.unit(name, value)?;
                } else {
                    self.is_repeated(slot);
                    self.context.plain_member(name);
                    self.attribute(slot, value, fields)?;
                }
                continue;
            }
            let (name, value) = Raw::pair(query, name_at);
            if let Some(slot) = self.pair(name, value, false, fields)? {
                if name.is_plain && name.end < value.end {
                    order.learn(place, &bytes[..name.end + 1 - at], slot);
                }
                place = Place::behind(slot);
            }
            at = value.end;
        }
        Ok(())
    }

    /// One `name=value`; its slot, where it is an attribute's or a unit's. Again, from the end, only
    /// attributes are told, and only those not seen yet: each one's last value.
    fn pair<F: Fields<'a>>(
        &mut self,
        name: Raw<'a>,
        value: Raw<'a>,
        again: bool,
        fields: &mut F,
    ) -> Result<Option<u16>, ScanFault<'a>> {
        if name.text.is_empty() && name.end == value.end {
            return Ok(None);
        }
        let name_text = self.decode(name)?;
        let name = self.texts.borrow(name_text);
        let option = [PAYLOADS, EXPOSURE].into_iter().find(|&option| option == name);
        if let Some(option) = option {
            return if again { Ok(None) } else { self.option(option, value).map(|()| None) };
        }
        match fields.query_name(name) {
            QueryName::Unit if again => {}
            QueryName::Unit => {
                let slot = self.unit_slot + self.units.count() as u16;
                let name = self.texts.hold(name_text);
                self.unit(name, value)?;
                return Ok(Some(slot));
            }
            QueryName::Attribute(slot) => {
                if !(self.is_repeated(slot) && again) {
                    self.context.member(self.texts.borrow(name_text));
                    self.attribute(slot, value, fields)?;
                }
                return Ok(Some(slot));
            }
            QueryName::Ignored => {
                self.decode(value)?;
            }
        }
        Ok(None)
    }

    fn unit(&mut self, name: &'a str, value: Raw<'a>) -> Result<(), ScanFault<'a>> {
        let value = self.decode(value)?;
        self.units.set_text(name, self.texts.hold(value));
        Ok(())
    }

    /// Whether this attribute came before.
    fn is_repeated(&mut self, slot: u16) -> bool {
        let seen = !self.seen.insert(slot);
        self.repeated |= seen;
        seen
    }

    /// An attribute's value.
    fn attribute<F: Fields<'a>>(
        &mut self,
        slot: u16,
        raw: Raw<'a>,
        fields: &mut F,
    ) -> Result<(), ScanFault<'a>> {
        let shape = fields.shape(slot);
        if shape == Shape::List {
            fields.list_begin(slot);
            self.context.push(b"[");
            // Commas split before decoding: an encoded one belongs to its text.
            let items = (!raw.text.is_empty()).then(|| raw.text.split(','));
            for (number, item) in items.into_iter().flatten().enumerate() {
                let item = self.decode(Raw { text: item, ..raw })?;
                let item = self.texts.borrow(item);
                if number > 0 {
                    self.context.push(b",");
                }
                match raw.is_plain {
                    true => self.context.plain_text(item),
                    false => self.context.text(item),
                }
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
            None if raw.is_plain => self.context.plain_text(value),
            None => self.context.text(value),
        }
        fields.value(slot, scalar.unwrap_or(Scalar::Text(value)));
        Ok(())
    }

    fn option(&mut self, name: &'static str, raw: Raw<'a>) -> Result<(), ScanFault<'a>> {
        let value = self.decode(raw)?;
        let value = self.texts.borrow(value);
        let value = truth(|word| value == word).ok_or(ScanFault::Option { name })?;
        match name {
            PAYLOADS => self.options.payloads = value,
            _ => self.options.exposure = value,
        }
        Ok(())
    }

    #[inline]
    fn decode(&mut self, raw: Raw<'a>) -> Result<Text<'a>, ScanFault<'a>> {
        if raw.is_plain {
            return Ok(Text::Plain(raw.text));
        }
        decode(raw.text, &mut self.texts).map_err(|fault| ScanFault::Query {
            offset: offset_in(self.query, raw.text) + fault.offset,
            reason: fault.reason,
        })
    }
}

/// A name or a value as it stands in the query string.
#[derive(Debug, Clone, Copy)]
struct Raw<'a> {
    text: &'a str,
    /// It stands for itself, here and within a JSON string.
    is_plain: bool,
    /// The byte of the query string that it ends before.
    end: usize,
}

impl<'a> Raw<'a> {
    /// The name from there on and its value, up to the next `&`. Without a `=` the
    /// value is empty and ends where the name does.
    #[inline]
    fn pair(query: &'a str, from: usize) -> (Raw<'a>, Raw<'a>) {
        let name = Raw::until(query, from, b'=');
        let value = match query.as_bytes().get(name.end) {
            Some(b'=') => Raw::value(query, name.end + 1),
            _ => Raw { text: "", is_plain: true, end: name.end },
        };
        (name, value)
    }

    #[inline]
    fn value(query: &'a str, from: usize) -> Raw<'a> {
        Raw::until(query, from, b'&')
    }

    /// Up to the first `&` or `mark`, sixteen bytes at a time while there are as many.
    #[inline]
    fn until(query: &'a str, from: usize, mark: u8) -> Raw<'a> {
        let bytes = query.as_bytes();
        let (mut end, mut is_plain) = (from, true);
        while let Some(chunk) = bytes[end..].first_chunk::<16>() {
            let special = json::specials(chunk);
            let chunk = u8x16::new(*chunk);
            let is = |byte| chunk.simd_eq(u8x16::splat(byte)).to_bitmask();
            let ends = is(b'&') | is(mark);
            // Those before the end.
            is_plain &= (is(b'%') | special) & (ends.wrapping_sub(1) & !ends) == 0;
            if ends != 0 {
                end += ends.trailing_zeros() as usize;
                return Raw { text: &query[from..end], is_plain, end };
            }
            end += 16;
        }
        while let Some(&byte) = bytes.get(end).filter(|&&byte| byte != b'&' && byte != mark) {
            is_plain &= byte != b'%' && !json::is_special(byte);
            end += 1;
        }
        Raw { text: &query[from..end], is_plain, end }
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
        self.push(if self.size == 0 { b"{\"" } else { b",\"" });
        json::escape(name, |bytes| self.push(bytes));
        self.push(b"\":");
    }

    /// A member whose name needs no escapes.
    fn plain_member(&mut self, name: &str) {
        self.push(if self.size == 0 { b"{\"" } else { b",\"" });
        self.push(name.as_bytes());
        self.push(b"\":");
    }

    /// A text that needs no escapes.
    fn plain_text(&mut self, text: &str) {
        self.push(b"\"");
        self.push(text.as_bytes());
        self.push(b"\"");
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
