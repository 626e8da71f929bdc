//! Fuzz targets as plain functions: stable Rust runs them on generated input
//! in the tests, cargo-fuzz for longer. A broken invariant panics.
//!
//! - [`fuzz_request_head`]: any bytes are a connection's input. In one piece
//!   and in many they get the same answers, and every slot is given back; so
//!   it is where sockets block, peers leave, and drains and timeouts come in
//!   any order, on connections that share too few slots.
//! - [`fuzz_body_scanner`]: any bytes are a body. It is taken exactly where
//!   serde_json and a plain reading of assignment.md take it, with the same
//!   units and attributes.

use std::collections::BTreeMap;

use serde_json::Value;
use serde_json::value::RawValue;

use crate::clock::Now;
use crate::limits;

use super::connection::{Connection, Output};
use super::fields::{FieldFault, Fields, QueryName, Scalar, ScanFault, Shape};
use super::json::scan_request;
use super::order::MemberOrder;
use super::query::scan_query;
use super::request::{Head, Method};
use super::response::{Answer, ContentType, Out, Status};
use super::service::{Admission, BodyMode, Media, Refusal, Request, Service};
use super::workspace::{Limits, Workspace};

/// Answers with what it was asked.
struct Mirror;

const ADMISSION: Admission =
    Admission { route: 0, options: 0, body_size_max: 600, body: BodyMode::Whole, media: Media::Json };

impl Service for Mirror {
    fn admit(&mut self, head: &Head<'_>) -> Result<Admission, Refusal> {
        assert!(head.path.starts_with('/') || head.path == "*");
        assert!(head.path.bytes().all(|byte| (0x21..=0x7E).contains(&byte) && byte != b'?' && byte != b'#'));
        match (head.method, head.path) {
            (_, "/missing") => Err(Refusal::not_found("no such path")),
            (Method::Post, "/lines") => {
                Ok(Admission { body: BodyMode::Lines, media: Media::JsonLines, ..ADMISSION })
            }
            (Method::Get | Method::Head | Method::Post, _) => Ok(ADMISSION),
            _ => Err(Refusal::method_not_allowed("GET, HEAD, POST")),
        }
    }

    fn answer(
        &mut self,
        _: Admission,
        request: &Request<'_>,
        scratch: &mut [u8],
        _: Now,
        answer: Answer<'_>,
    ) {
        assert!(request.body.len() <= 600);
        let mut fields = Recorder::default();
        let mut order = MemberOrder::new(limits::ATTRIBUTE_COUNT_MAX);
        let query = request.head.query.unwrap_or_default();
        let fault = scan_query(query, scratch, &mut order, &mut fields).err();
        let mut body = answer.start(Status::Ok).body(ContentType::Json);
        body.push_json_str(request.head.path);
        body.push_json_str(request.head.query.unwrap_or_default());
        body.push_json_str(&fault.map(|fault| fault.to_string()).unwrap_or_default());
        body.push_json_str(&String::from_utf8_lossy(request.body));
        body.finish();
    }

    fn answer_line(&mut self, _: Admission, line: &[u8], _: &mut [u8], _: Now, out: &mut Out<'_>) {
        assert!(!line.contains(&b'\n'));
        out.push_json_str(&String::from_utf8_lossy(line));
        out.push(b"\n");
    }

    fn refused(&mut self, status: Status, reason: &'static str) {
        assert!(status.code() >= 400 && !reason.is_empty());
    }
}

/// What a connection answers to `pieces`, and whether it closed before their end.
fn converse<'d>(pieces: impl Iterator<Item = &'d [u8]>, workspace: &mut Workspace) -> (Vec<u8>, bool) {
    let now = Now { mono_ns: 0, unix_us: 0 };
    let mut connection = Connection::new();
    let mut output = Vec::new();
    let mut closed = false;
    for piece in pieces {
        connection.handle_input(piece, now, workspace, &mut Mirror);
        closed = drain(&mut connection, workspace, &mut output);
        if closed {
            break;
        }
        assert!(connection.wants_input());
    }
    connection.handle_eof(now, workspace, &mut Mirror);
    drain(&mut connection, workspace, &mut output);
    assert_eq!(connection.poll_output(workspace), Output::Close, "nothing follows the input's end");
    connection.release(workspace);
    assert!(!connection.holds_carry() && !connection.holds_pending());
    (output, closed)
}

/// Sends until nothing is left; did the connection close?
fn drain(connection: &mut Connection, workspace: &mut Workspace, output: &mut Vec<u8>) -> bool {
    let now = Now { mono_ns: 0, unix_us: 0 };
    loop {
        match connection.poll_output(workspace) {
            Output::Send(bytes) => {
                assert!(!bytes.is_empty());
                // An uneven socket: takes a bit, or all.
                let size = if output.len().is_multiple_of(3) { bytes.len().div_ceil(2) } else { bytes.len() };
                output.extend_from_slice(&bytes[..size]);
                connection.handle_sent(size, now, workspace, &mut Mirror);
            }
            Output::Receive => return false,
            Output::Close => return true,
        }
    }
}

/// A `100 Continue` is sent only while no body has come: the one thing that
/// may depend on how the input was cut.
fn without_continue(output: &[u8]) -> Vec<u8> {
    const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
    let mut kept = Vec::new();
    let mut rest = output;
    while let Some(at) = memchr::memmem::find(rest, CONTINUE) {
        kept.extend_from_slice(&rest[..at]);
        rest = &rest[at + CONTINUE.len()..];
    }
    kept.extend_from_slice(rest);
    kept
}

/// Any bytes as a connection's input.
///
/// # Panics
/// Where an invariant is broken.
pub fn fuzz_request_head(data: &[u8]) {
    let data = &data[..data.len().min(limits::READ_BUFFER_SIZE)];
    let limits = Limits {
        head_size_max: 512,
        body_size_max: 700,
        carry_count: 1,
        pending_output_count: 1,
        output_batch_size: 2048,
        ..Limits::default()
    };
    let mut workspace = Workspace::new(limits, 8192);
    let (whole, closed) = converse(std::iter::once(data), &mut workspace);
    let expected = without_continue(&whole);
    assert!(expected.is_empty() || expected.starts_with(b"HTTP/1.1 "));
    // Whether the body was already there decides also whether a refused
    // request that waits for 100 keeps its connection.
    let waits = memchr::memmem::find(&data.to_ascii_lowercase(), b"100-continue").is_some();
    let cut = usize::from(data.first().copied().unwrap_or(0)) % 61 + 1;
    for size in [1, 2, cut] {
        let (pieced, pieced_closed) = converse(data.chunks(size), &mut workspace);
        if !waits {
            assert_eq!(
                String::from_utf8_lossy(&without_continue(&pieced)),
                String::from_utf8_lossy(&expected),
                "in pieces of {size}"
            );
            assert_eq!(pieced_closed, closed, "in pieces of {size}");
        }
    }
    assert_eq!(workspace.carry_refused(), 0);
    churn(data, &mut workspace);
    assert_eq!(workspace.carry_free(), 1);
    assert_eq!(workspace.pending_free(), 1);
}

/// Three connections on one worker with a slot of each kind; `data` is both
/// what they send and what happens to them.
fn churn(data: &[u8], workspace: &mut Workspace) {
    let now = Now { mono_ns: 0, unix_us: 0 };
    let mut connections = [(); 3].map(|()| Connection::new());
    let refused_before = workspace.carry_refused();
    for (number, piece) in data.chunks(23).enumerate() {
        let happening = piece.iter().fold(number, |sum, &byte| sum.wrapping_mul(31) + usize::from(byte));
        let connection = &mut connections[happening % 3];
        match happening / 3 % 12 {
            0 => connection.handle_eof(now, workspace, &mut Mirror),
            1 => connection.handle_timeout(now, workspace, &mut Mirror),
            2 => connection.handle_drain(),
            3 => connection.release(workspace),
            // Though it may not want any.
            _ => connection.handle_input(piece, now, workspace, &mut Mirror),
        }
        // The socket takes a few times some of it, then nothing.
        let mut rounds = happening / 36 % 4;
        let closed = loop {
            match connection.poll_output(workspace) {
                Output::Send(bytes) if rounds > 0 => {
                    rounds -= 1;
                    let size = bytes.len().div_ceil(1 + happening % 2);
                    connection.handle_sent(size, now, workspace, &mut Mirror);
                }
                Output::Send(_) => break connection.handle_blocked(workspace).is_err(),
                Output::Receive => break false,
                Output::Close => break true,
            }
        };
        if closed {
            connection.release(workspace);
            assert_eq!(connection.poll_output(workspace), Output::Close);
            *connection = Connection::new();
        }
    }
    for mut connection in connections {
        connection.release(workspace);
    }
    assert!(workspace.carry_refused() - refused_before <= data.len() as u64);
}

/// An attribute's value as the scanner told it, or as it should.
#[derive(Debug, Clone, PartialEq)]
enum Told {
    Null,
    Bool(bool),
    Number(f64),
    Text(String),
    Other,
    List(Vec<String>),
    /// A list with an element that is no string.
    MixedList,
}

/// Writes down what a scanner tells. Names of an odd length are not declared.
#[derive(Default)]
struct Recorder {
    names: Vec<String>,
    attributes: BTreeMap<u16, Told>,
    units: BTreeMap<String, String>,
}

fn is_declared(name: &str) -> bool {
    name.len().is_multiple_of(2)
}

impl<'a> Fields<'a> for Recorder {
    fn unit(&mut self, name: &'a str, value: &'a str) -> Result<(), FieldFault> {
        assert!(self.units.insert(name.to_owned(), value.to_owned()).is_none(), "a unit is told once");
        Ok(())
    }

    fn attributes_begin(&mut self) {
        self.attributes.clear();
    }

    fn attribute(&mut self, name: &str) -> Option<u16> {
        if !is_declared(name) {
            return None;
        }
        let slot = self.names.iter().position(|known| known == name).unwrap_or_else(|| {
            self.names.push(name.to_owned());
            self.names.len() - 1
        });
        // More names than attributes can be declared: the rest is not.
        (slot < limits::ATTRIBUTE_COUNT_MAX).then_some(slot as u16)
    }

    fn value(&mut self, slot: u16, value: Scalar<'_>) {
        let told = match value {
            Scalar::Null => Told::Null,
            Scalar::Bool(value) => Told::Bool(value),
            Scalar::Number(value) => Told::Number(value),
            Scalar::Text(text) => Told::Text(text.to_owned()),
            Scalar::Other => Told::Other,
        };
        self.attributes.insert(slot, told);
    }

    fn list_begin(&mut self, slot: u16) {
        self.attributes.insert(slot, Told::List(Vec::new()));
    }

    fn list_item(&mut self, slot: u16, item: &str) {
        let Some(Told::List(items)) = self.attributes.get_mut(&slot) else {
            panic!("an item belongs to the list that began");
        };
        items.push(item.to_owned());
    }

    fn list_end(&mut self, slot: u16, all_strings: bool) {
        if !all_strings {
            self.attributes.insert(slot, Told::MixedList);
        }
    }

    fn query_name(&mut self, name: &str) -> QueryName {
        match name.as_bytes().first() {
            Some(b'u') => QueryName::Unit,
            Some(_) => match self.attribute(name) {
                Some(slot) => QueryName::Attribute(slot),
                None => QueryName::Ignored,
            },
            None => QueryName::Ignored,
        }
    }

    fn shape(&self, slot: u16) -> Shape {
        let shapes = [Shape::Text, Shape::Number, Shape::Bool, Shape::List];
        shapes[usize::from(self.names[usize::from(slot)].as_bytes()[0] % 4)]
    }
}

/// Any bytes as a body.
///
/// # Panics
/// Where an invariant is broken.
pub fn fuzz_body_scanner(data: &[u8]) {
    let mut order = MemberOrder::new(limits::ATTRIBUTE_COUNT_MAX);
    let mut names = Vec::new();
    judge_body(data, &mut order, &mut names);
    // Its order is known by now: the same again, and some that are nearly the same.
    judge_body(data, &mut order, &mut names);
    for part in 1..=3 {
        let at = data.len() * part / 4;
        let nearly = [&data[..at], data.get(at + 1..).unwrap_or_default()].concat();
        judge_body(&nearly, &mut order, &mut names);
    }
}

/// Scans a body by what others have taught, and compares.
fn judge_body(data: &[u8], order: &mut MemberOrder, names: &mut Vec<String>) {
    let mut scratch = vec![0; data.len()];
    let mut recorder = Recorder { names: std::mem::take(names), ..Recorder::default() };
    let scanned = scan_request(data, &mut scratch, order, &mut recorder);
    names.clone_from(&recorder.names);
    if let Err(ScanFault::Body { offset, .. }) = scanned {
        assert!(offset <= data.len());
    }
    let plain = match plain_scan(data) {
        Plain::Unknown => return,
        Plain::Refused => None,
        Plain::Taken(plain) => Some(plain),
    };
    let shown = String::from_utf8_lossy(data);
    match (scanned, plain) {
        (Err(_), None) => {}
        (Err(fault), Some(_)) => panic!("refused ({fault}) what should be taken: {shown}"),
        (Ok(_), None) => panic!("taken what should be refused: {shown}"),
        (Ok(scanned), Some(plain)) => {
            assert_eq!(scanned.context, plain.context.as_bytes(), "{shown}");
            assert_eq!(recorder.units, plain.units, "{shown}");
            let names = &recorder.names;
            let attributes: BTreeMap<String, Told> = recorder
                .attributes
                .iter()
                .map(|(&slot, told)| (names[usize::from(slot)].clone(), told.clone()))
                .collect();
            assert_eq!(attributes, plain.attributes, "{shown}");
        }
    }
}

enum Plain {
    /// Where serde_json and assignment.md differ: nothing to compare with.
    Unknown,
    Refused,
    Taken(PlainScan),
}

struct PlainScan {
    context: String,
    units: BTreeMap<String, String>,
    attributes: BTreeMap<String, Told>,
}

/// assignment.md's "The body" and "Units", plainly, on serde_json's trees.
fn plain_scan(data: &[u8]) -> Plain {
    match serde_json::from_slice::<Value>(data) {
        // Its bound of nesting is 127, and it refuses numbers beyond f64.
        Err(error) if error.to_string().contains("recursion") => return Plain::Refused,
        Err(error) if error.to_string().contains("out of range") => return Plain::Unknown,
        Err(_) => return Plain::Refused,
        Ok(_) => {}
    }
    let text = std::str::from_utf8(data).expect("serde_json refuses what is no UTF-8");
    if nesting(text) > limits::JSON_DEPTH_MAX {
        return Plain::Refused;
    }
    plain_object(text).and_then(plain_members).map_or(Plain::Refused, Plain::Taken)
}

/// An object's members, of doubled names the last.
fn plain_object(text: &str) -> Option<BTreeMap<String, Box<RawValue>>> {
    text.trim_start().starts_with('{').then(|| serde_json::from_str(text).expect("it was read before"))
}

fn plain_members(body: BTreeMap<String, Box<RawValue>>) -> Option<PlainScan> {
    let units = plain_object(body.get("units")?.get())?;
    if units.len() > limits::UNIT_COUNT_MAX {
        return None;
    }
    let units = units
        .iter()
        .map(|(name, raw)| {
            let value = match serde_json::from_str(raw.get()).expect("it was read before") {
                Value::String(text) => text,
                Value::Null => String::new(),
                Value::Number(_) if raw.get().bytes().all(|byte| byte == b'-' || byte.is_ascii_digit()) => {
                    raw.get().to_owned()
                }
                _ => return None,
            };
            let fits = value.len() <= limits::UNIT_VALUE_SIZE_MAX && name.len() <= limits::UNIT_NAME_SIZE_MAX;
            fits.then(|| (name.clone(), value))
        })
        .collect::<Option<_>>()?;
    let (context, attributes) = match body.get("attributes") {
        None => (String::new(), BTreeMap::new()),
        Some(raw) => {
            let attributes = plain_object(raw.get())?;
            let told = attributes
                .iter()
                .filter(|(name, _)| is_declared(name))
                .map(|(name, raw)| (name.clone(), plain_value(raw.get())))
                .collect();
            (raw.get().to_owned(), told)
        }
    };
    Some(PlainScan { context, units, attributes })
}

fn plain_value(raw: &str) -> Told {
    match serde_json::from_str(raw).expect("it was read before") {
        Value::Null => Told::Null,
        Value::Bool(value) => Told::Bool(value),
        // serde_json's own f64 is not always the nearest.
        Value::Number(_) => Told::Number(raw.parse().expect("a JSON number is a Rust number")),
        Value::String(text) => Told::Text(text),
        Value::Object(_) => Told::Other,
        Value::Array(elements) => {
            let texts = elements.iter().map(|element| element.as_str().map(str::to_owned)).collect();
            match texts {
                Some(texts) => Told::List(texts),
                None => Told::MixedList,
            }
        }
    }
}

/// How deep containers lie in each other, in text that is JSON.
fn nesting(text: &str) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0usize, 0, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' if !in_string => depth -= 1,
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests;
