//! The words of OTLP (opentelemetry-proto v1: `trace_service.proto`, `trace.proto`,
//! `resource.proto`, `common.proto`) and how they are written, by hand as exposures
//! are: the only place where its field numbers stand.
//!
//! Every length has two bytes, also where one would do (protobuf takes it), so
//! that it can be written behind what it counts without moving that.

use crate::exposure::record::{push_field, push_varint};

const fn bytes(field: u8) -> u8 {
    (field << 3) | 2
}
const fn fixed64(field: u8) -> u8 {
    (field << 3) | 1
}
const fn number(field: u8) -> u8 {
    field << 3
}

// ExportTraceServiceRequest, ResourceSpans, ScopeSpans.
pub(super) const RESOURCE_SPANS: u8 = bytes(1);
pub(super) const RESOURCE: u8 = bytes(1);
pub(super) const SCOPE_SPANS: u8 = bytes(2);
pub(super) const SCOPE: u8 = bytes(1);
pub(super) const SPANS: u8 = bytes(2);
// Resource, InstrumentationScope.
pub(super) const RESOURCE_ATTRIBUTES: u8 = bytes(1);
pub(super) const SCOPE_NAME: u8 = bytes(1);
pub(super) const SCOPE_VERSION: u8 = bytes(2);
// Span.
pub(super) const TRACE_ID: u8 = bytes(1);
pub(super) const SPAN_ID: u8 = bytes(2);
pub(super) const PARENT_SPAN_ID: u8 = bytes(4);
pub(super) const NAME: u8 = bytes(5);
pub(super) const KIND: u8 = number(6);
pub(super) const START: u8 = fixed64(7);
pub(super) const END: u8 = fixed64(8);
pub(super) const ATTRIBUTES: u8 = bytes(9);
pub(super) const EVENTS: u8 = bytes(11);
pub(super) const STATUS: u8 = bytes(15);
/// Field 16, fixed32, whose tag takes two bytes.
pub(super) const FLAGS: [u8; 2] = [0x85, 0x01];
pub(super) const KIND_INTERNAL: u8 = 1;
pub(super) const KIND_SERVER: u8 = 2;
/// `SpanFlags`: whether the parent is of another process is known, and that it is.
pub(super) const FLAG_HAS_IS_REMOTE: u32 = 0x100;
pub(super) const FLAG_IS_REMOTE: u32 = 0x200;
// Event.
pub(super) const EVENT_TIME: u8 = fixed64(1);
pub(super) const EVENT_NAME: u8 = bytes(2);
pub(super) const EVENT_ATTRIBUTES: u8 = bytes(3);
/// `Status.code = STATUS_CODE_ERROR`.
pub(super) const STATUS_ERROR: [u8; 2] = [number(3), 2];
// KeyValue, AnyValue.
const KEY: u8 = bytes(1);
const VALUE: u8 = bytes(2);
const STRING_VALUE: u8 = bytes(1);
const INT_VALUE: u8 = number(3);

/// What two bytes of length say.
const MESSAGE_SIZE_MAX: usize = 1 << 14;

/// An attribute: its key and a text.
pub(super) fn text(out: &mut Vec<u8>, tag: u8, key: &str, value: &str) {
    message(out, tag, |out| {
        push_field(out, KEY, key.as_bytes());
        message(out, VALUE, |out| push_field(out, STRING_VALUE, value.as_bytes()));
    });
}

/// The same with a number.
pub(super) fn integer(out: &mut Vec<u8>, tag: u8, key: &str, value: u64) {
    message(out, tag, |out| {
        push_field(out, KEY, key.as_bytes());
        message(out, VALUE, |out| {
            out.push(INT_VALUE);
            push_varint(out, value);
        });
    });
}

/// A string field of several parts, one behind the other.
pub(super) fn push_parts(out: &mut Vec<u8>, tag: u8, parts: &[&str]) {
    message(out, tag, |out| parts.iter().for_each(|part| out.extend_from_slice(part.as_bytes())));
}

/// A message field with what `write` puts into it: below 16 KiB.
pub(super) fn message(out: &mut Vec<u8>, tag: u8, write: impl FnOnce(&mut Vec<u8>)) {
    out.extend_from_slice(&[tag, 0, 0]);
    let begin = out.len();
    write(out);
    let size = out.len() - begin;
    assert!(size < MESSAGE_SIZE_MAX, "names and numbers are bounded");
    out[begin - 2] = size as u8 | 0x80;
    out[begin - 1] = (size >> 7) as u8;
}
