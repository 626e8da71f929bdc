//! The bytes of one exposure: the protobuf message of `exposure.proto` behind
//! its length, put together from borrowed parts. A worker copies; it serialises
//! a few fixed fields alone, and the assignments come ready from the plan.
//!
//! ```text
//! varint length | 0a 10 id | 10 time | 1a version | 22 unit … | 2a assignment … | 32 context
//! ```
//! Nothing is allocated while `out` is as large as the plan's largest exposure.

use super::ring::ExposureId;

const ID: u8 = (1 << 3) | 2;
const TIME: u8 = 2 << 3;
const VERSION: u8 = (3 << 3) | 2;
const UNIT: u8 = (4 << 3) | 2;
const UNIT_NAME: u8 = (1 << 3) | 2;
const UNIT_VALUE: u8 = (2 << 3) | 2;
const CONTEXT: u8 = (6 << 3) | 2;

/// The length of all but the smallest and the largest exposures takes two bytes.
const LENGTH_SIZE_GUESS: usize = 2;
/// A varint of up to 268 MB.
const LENGTH_SIZE_MAX: usize = 4;
/// A varint of 64 bits.
const VARINT_SIZE_MAX: usize = 10;

/// The parts of an exposure, borrowed from wherever they are.
#[derive(Debug, Clone)]
pub struct Exposure<'e, U, A> {
    /// As the ring's writer claimed it.
    pub id: ExposureId,
    /// Unix microseconds.
    pub time_us: i64,
    /// Of the experiments file.
    pub version: &'e str,
    /// Kind and value of the request's units, missing ones left out.
    pub units: U,
    /// Whole fields of the message (tag, length, `Assignment`), as the plan holds them.
    pub assignments: A,
    /// JSON, or empty.
    pub context: &'e [u8],
}

/// Puts an exposure together in `out`, whose content goes: the bytes for
/// [`super::ring::Writer::commit`], the message behind its length.
#[inline]
pub fn encode<'p, U, A>(out: &mut Vec<u8>, exposure: Exposure<'_, U, A>)
where
    U: IntoIterator<Item = (&'p str, &'p str)>,
    A: IntoIterator<Item = &'p [u8]>,
{
    out.clear();
    out.extend_from_slice(&[0; LENGTH_SIZE_GUESS]);
    out.extend_from_slice(&[ID, 16]);
    out.extend_from_slice(&exposure.id.to_bytes());
    out.push(TIME);
    push_varint(out, exposure.time_us as u64);
    push_field(out, VERSION, exposure.version.as_bytes());
    for (name, value) in exposure.units {
        out.push(UNIT);
        let fields_size = 2 + varint_size(name.len()) + name.len() + varint_size(value.len()) + value.len();
        push_varint(out, fields_size as u64);
        push_field(out, UNIT_NAME, name.as_bytes());
        push_field(out, UNIT_VALUE, value.as_bytes());
    }
    for assignment in exposure.assignments {
        out.extend_from_slice(assignment);
    }
    if !exposure.context.is_empty() {
        push_field(out, CONTEXT, exposure.context);
    }
    put_length(out);
}

/// Writes the length of what follows in front of it; where the guess of its own
/// size was wrong, the message moves by a byte or two.
#[inline]
fn put_length(out: &mut Vec<u8>) {
    let (length, size) = varint((out.len() - LENGTH_SIZE_GUESS) as u64);
    if size == LENGTH_SIZE_GUESS {
        out[..size].copy_from_slice(&length[..size]);
    } else {
        out.splice(..LENGTH_SIZE_GUESS, length[..size].iter().copied());
    }
}

/// A field of bytes or text.
#[inline]
pub(crate) fn push_field(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    out.push(tag);
    push_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// A number as protobuf has it.
#[inline]
pub(crate) fn push_varint(out: &mut Vec<u8>, value: u64) {
    if value < 0x80 {
        out.push(value as u8);
    } else {
        let (bytes, size) = varint(value);
        out.extend_from_slice(&bytes[..size]);
    }
}

#[inline]
fn varint(mut value: u64) -> ([u8; VARINT_SIZE_MAX], usize) {
    let mut bytes = [0; VARINT_SIZE_MAX];
    let mut size = 0;
    while value >= 0x80 {
        bytes[size] = (value as u8) | 0x80;
        value >>= 7;
        size += 1;
    }
    bytes[size] = value as u8;
    (bytes, size + 1)
}

#[inline]
fn varint_size(value: usize) -> usize {
    let bits = (usize::BITS - (value | 1).leading_zeros()) as usize;
    bits.div_ceil(7)
}

/// What stands at the begin of a run of length-delimited messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framed<'b> {
    /// A whole message, and all the bytes it takes with its length.
    Whole {
        /// The message.
        message: &'b [u8],
        /// Bytes of length and message.
        size: usize,
    },
    /// The bytes end before the message does.
    Cut,
    /// No length, or not the length of an exposure.
    Broken,
}

/// Reads the framing of a message: as far as it goes, the bytes are input. An
/// exposure or participation begins with its id, so what does not is none.
#[must_use]
pub fn unframe(bytes: &[u8]) -> Framed<'_> {
    let mut length = 0;
    for (index, &byte) in bytes.iter().take(LENGTH_SIZE_MAX).enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * index);
        if byte < 0x80 {
            return unframe_message(bytes, index + 1, length);
        }
    }
    if bytes.len() < LENGTH_SIZE_MAX { Framed::Cut } else { Framed::Broken }
}

fn unframe_message(bytes: &[u8], begin: usize, length: usize) -> Framed<'_> {
    // A participation's id has the assignment's number behind the exposure's.
    let starts_well = match bytes[begin..] {
        [] | [ID] => true,
        [first, second, ..] => first == ID && (second == 16 || second == 18),
        [_] => false,
    };
    if !(18..=crate::limits::EXPOSURE_SIZE_MAX).contains(&length) || !starts_well {
        return Framed::Broken;
    }
    match bytes.get(begin..begin + length) {
        None => Framed::Cut,
        Some(message) => Framed::Whole { message, size: begin + length },
    }
}

/// Whether these bytes are one length-delimited exposure, no more and no less.
#[must_use]
#[inline]
pub fn is_framed(bytes: &[u8]) -> bool {
    matches!(unframe(bytes), Framed::Whole { message, size } if size == bytes.len() && message[1] == 16)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use prost::Message;

    use super::super::proto::{self, Assignment, ExperimentParticipation};
    use super::*;

    fn fragment(assignment: &Assignment) -> Vec<u8> {
        let mut bytes = vec![(5 << 3) | 2];
        bytes.extend(assignment.encode_length_delimited_to_vec());
        bytes
    }

    fn assignment() -> impl Strategy<Value = Assignment> {
        (any::<i64>(), any::<i32>(), ".{0,40}", "[a-z]{1,9}", any::<bool>(), "[a-z_]{1,9}").prop_map(
            |(experiment_id, run_id, experiment, group, forced, unit)| Assignment {
                experiment_id,
                run_id,
                experiment,
                group,
                forced,
                unit,
            },
        )
    }

    fn one(assignments: &[u8], context: &[u8], mut out: Vec<u8>) -> Vec<u8> {
        let id = ExposureId { instance: 1, ring: 2, seq: 3 };
        let (units, assignments) = ([("user_id", "42")], [assignments]);
        encode(&mut out, Exposure { id, time_us: 5, version: "v", units, assignments, context });
        out
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn what_is_encoded_is_what_any_protobuf_library_decodes(
            (instance, ring, seq) in (any::<u64>(), any::<u16>(), 0..1u64 << 48),
            time_us in any::<i64>(),
            version in ".{0,300}",
            units in proptest::collection::btree_map(".{1,200}", ".{1,256}", 0..8),
            assignments in proptest::collection::vec(assignment(), 0..30),
            context in proptest::collection::vec(any::<u8>(), 0..5000),
        ) {
            let id = ExposureId { instance, ring, seq };
            let fragments: Vec<Vec<u8>> = assignments.iter().map(fragment).collect();
            let mut out = b"of the request before".to_vec();
            encode(&mut out, Exposure {
                id,
                time_us,
                version: &version,
                units: units.iter().map(|(name, value)| (name.as_str(), value.as_str())),
                assignments: fragments.iter().map(Vec::as_slice),
                context: &context,
            });
            prop_assert!(is_framed(&out));
            let decoded = proto::Exposure::decode_length_delimited(out.as_slice()).unwrap();
            let expected = proto::Exposure { id: id.to_bytes().to_vec(), time_us, version, units, assignments, context };
            prop_assert_eq!(decoded, expected);
        }

        #[test]
        fn framing_of_any_bytes_is_judged_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Framed::Whole { message, size } = unframe(&bytes) {
                prop_assert!(size <= bytes.len() && message.len() < size);
            }
        }
    }

    #[test]
    fn an_id_is_instance_ring_and_number_in_big_endian() {
        let id = ExposureId { instance: 0x0102_0304_0506_0708, ring: 0x090a, seq: 0x0b0c_0d0e_0f10 };
        assert_eq!(id.to_bytes(), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]);
        assert_eq!(id.to_string(), "0102030405060708090a0b0c0d0e0f10");
    }

    #[test]
    fn a_cut_message_is_told_from_a_broken_one() {
        let bytes = one(&[], &[b'x'; 200], Vec::new());
        for size in 0..bytes.len() {
            assert_eq!(unframe(&bytes[..size]), Framed::Cut, "{size} bytes");
        }
        assert!(is_framed(&bytes));
        assert_eq!(unframe(&[0; 64]), Framed::Broken);
        assert_eq!(unframe(&[0xff; 64]), Framed::Broken);
        assert_eq!(unframe(b"\x20not an id, but long enough to be one"), Framed::Broken);
    }

    #[test]
    fn nothing_is_allocated_once_the_buffer_is_large_enough() {
        for context_size in [0, 200, 20_000] {
            let out = Vec::with_capacity(21_000);
            let before = (out.as_ptr(), out.capacity());
            let out = one(&[0x2a; 100], &vec![b'x'; context_size], out);
            assert_eq!((out.as_ptr(), out.capacity()), before);
        }
    }

    /// `message → field → number` of the `.proto`.
    fn declared() -> BTreeMap<String, BTreeMap<String, u32>> {
        let mut messages = BTreeMap::new();
        let mut message = String::new();
        for line in include_str!("exposure.proto").lines() {
            let line = line.split("//").next().unwrap_or_default().trim();
            if let Some(name) = line.strip_prefix("message ") {
                message = name.trim_end_matches('{').trim().to_owned();
                messages.insert(message.clone(), BTreeMap::new());
            } else if let Some((left, number)) = line.trim_end_matches(';').split_once(" = ")
                && !message.is_empty()
            {
                let field = left.rsplit(' ').next().unwrap_or_default().to_owned();
                messages.get_mut(&message).unwrap().insert(field, number.parse().unwrap());
            }
        }
        messages
    }

    /// The number of the only field that a message has set.
    fn number_of(message: &impl Message) -> u32 {
        let bytes = message.encode_to_vec();
        u32::from(bytes[0]) >> 3
    }

    macro_rules! numbers {
        ($message:path: $($field:ident = $value:expr),* $(,)?) => {{
            let numbers = [$((
                stringify!($field).to_owned(),
                number_of(&{
                    type M = $message;
                    M { $field: $value, ..Default::default() }
                }),
            )),*];
            (stringify!($message).rsplit("::").next().unwrap_or_default().trim().to_owned(), BTreeMap::from(numbers))
        }};
    }

    #[test]
    fn structs_and_proto_file_agree_in_every_field_number() {
        let text = || "x".to_owned();
        let derived = BTreeMap::from([
            numbers!(proto::Exposure: id = vec![1], time_us = 1, version = text(),
                units = BTreeMap::from([(text(), text())]), assignments = vec![Assignment::default()],
                context = vec![1]),
            numbers!(Assignment: experiment_id = 1, run_id = 1, experiment = text(), group = text(),
                forced = true, unit = text()),
            numbers!(ExperimentParticipation: id = vec![1], time_us = 1, version = text(),
                event_name = text(), user_id = text(), profile_id = text(), device_id = text(),
                experiment_id = 1, run_id = 1, experiment = text(), group = text(), forced = true,
                context = vec![1], unit = text(), unit_value = text()),
        ]);
        assert_eq!(derived, declared());
    }
}
