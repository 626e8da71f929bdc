//! A request's spans as a record of a ring: what there is to say of it, by the names
//! of OpenTelemetry's semantic conventions for HTTP where it has them.
//!
//! ```text
//! 0x12 | length | Span     of ScopeSpans.spans; the server span, then its children
//! ```

use crate::clock::Now;
use crate::exposure::record::push_field;

use super::hole::{Busy, HOLE_NS};
use super::otlp::{
    ATTRIBUTES, END, EVENT_ATTRIBUTES, EVENT_NAME, EVENT_TIME, EVENTS, FLAG_HAS_IS_REMOTE, FLAG_IS_REMOTE,
    FLAGS, KIND, KIND_INTERNAL, KIND_SERVER, NAME, PARENT_SPAN_ID, SPAN_ID, SPANS, START, STATUS,
    STATUS_ERROR, TRACE_ID, integer, message, push_parts, text,
};
use super::random::Random;
use super::tracer::{Reason, STAGES, Timed};

/// Bytes of a request's spans, at most: names are bounded (`limits`), all else is
/// of a fixed number and size.
pub const SIZE_MAX: usize = 8 * 1024;

/// What all spans of a worker and plan have in common.
#[derive(Debug)]
pub(super) struct Origin {
    pub(super) pool: String,
    pub(super) worker: u64,
    pub(super) pid: u64,
    /// Of the experiments.
    pub(super) version: String,
    /// Unix time less that of the monotonic clock.
    unix_ns: u64,
}

impl Origin {
    pub(super) fn new(pool: &str, worker: usize, pid: u32) -> Origin {
        let (worker, pid) = (worker as u64, u64::from(pid));
        Origin { pool: pool.to_owned(), worker, pid, version: String::new(), unix_ns: 0 }
    }

    pub(super) fn set_time(&mut self, now: Now) {
        self.unix_ns = now.unix_us.unsigned_abs().wrapping_mul(1000).wrapping_sub(now.mono_ns);
    }

    fn time(&self, mono_ns: u64) -> [u8; 8] {
        mono_ns.wrapping_add(self.unix_ns).to_le_bytes()
    }
}

/// Writes a request's spans; how many there are.
pub(super) fn write(
    out: &mut Vec<u8>,
    request: &Timed,
    trace: u128,
    why: Reason,
    origin: &Origin,
    random: &mut Random,
) -> u64 {
    out.clear();
    let server = random.id();
    let (parent, flags) = match request.parent {
        Some(parent) => (Some(parent.span), u32::from(parent.flags) | FLAG_IS_REMOTE),
        // Sampled, and by an id that is random.
        None => (None, 0x03),
    };
    let flags = flags | FLAG_HAS_IS_REMOTE;
    message(out, SPANS, |out| {
        ids(out, trace, server, parent, flags);
        let separator = if request.route.is_empty() { "" } else { " " };
        push_parts(out, NAME, &[request.method, separator, request.route]);
        out.extend_from_slice(&[KIND, KIND_SERVER]);
        times(out, origin, request.ready_ns, request.end_ns);
        attributes(out, request, why, origin);
        holes(out, request, origin);
        if request.status >= 500 {
            message(out, STATUS, |out| out.extend_from_slice(&STATUS_ERROR));
        }
    });
    let mut count = 1;
    let mut child = |name: &str, from_ns: u64, to_ns: u64| {
        if to_ns > from_ns {
            count += 1;
            message(out, SPANS, |out| {
                ids(out, trace, random.id(), Some(server), flags & !FLAG_IS_REMOTE);
                push_field(out, NAME, name.as_bytes());
                out.extend_from_slice(&[KIND, KIND_INTERNAL]);
                times(out, origin, from_ns, to_ns);
            });
        }
    };
    child("queue", request.ready_ns, request.begin_ns);
    // Of a batch the stages come again with every line: they are attributes.
    if request.line_count == 0 && request.spent_ns != [0; STAGES.len()] {
        let mut at_ns = request.begin_ns;
        for (name, spent_ns) in STAGES.iter().zip(request.spent_ns) {
            child(name, at_ns, at_ns + spent_ns);
            at_ns += spent_ns;
        }
        child("write", at_ns, request.end_ns);
    }
    count
}

fn ids(out: &mut Vec<u8>, trace: u128, span: u64, parent: Option<u64>, flags: u32) {
    push_field(out, TRACE_ID, &trace.to_be_bytes());
    push_field(out, SPAN_ID, &span.to_be_bytes());
    if let Some(parent) = parent {
        push_field(out, PARENT_SPAN_ID, &parent.to_be_bytes());
    }
    out.extend_from_slice(&FLAGS);
    out.extend_from_slice(&flags.to_le_bytes());
}

fn times(out: &mut Vec<u8>, origin: &Origin, from_ns: u64, to_ns: u64) {
    out.push(START);
    out.extend_from_slice(&origin.time(from_ns));
    out.push(END);
    out.extend_from_slice(&origin.time(to_ns));
}

fn attributes(out: &mut Vec<u8>, request: &Timed, why: Reason, origin: &Origin) {
    text(out, ATTRIBUTES, "http.request.method", request.method);
    if !request.route.is_empty() {
        text(out, ATTRIBUTES, "http.route", request.route);
    }
    integer(out, ATTRIBUTES, "http.response.status_code", u64::from(request.status));
    text(out, ATTRIBUTES, "splitd.pool", &origin.pool);
    integer(out, ATTRIBUTES, "splitd.worker", origin.worker);
    integer(out, ATTRIBUTES, "process.pid", origin.pid);
    text(out, ATTRIBUTES, "splitd.version", &origin.version);
    integer(out, ATTRIBUTES, "splitd.assignments", u64::from(request.assignment_count));
    text(out, ATTRIBUTES, "splitd.kept_by", why.name());
    if request.line_count > 0 {
        integer(out, ATTRIBUTES, "splitd.lines", u64::from(request.line_count));
        let names = ["splitd.parse_ns", "splitd.decide_ns", "splitd.record_ns"];
        for (name, spent_ns) in names.iter().zip(request.spent_ns) {
            integer(out, ATTRIBUTES, name, spent_ns);
        }
    }
}

/// An event for every cause that made a hole, or may have.
fn holes(out: &mut Vec<u8>, request: &Timed, origin: &Origin) {
    let mut hole = |cause: &str, more: &dyn Fn(&mut Vec<u8>)| {
        message(out, EVENTS, |out| {
            out.push(EVENT_TIME);
            out.extend_from_slice(&origin.time(request.ready_ns));
            push_field(out, EVENT_NAME, b"hole");
            text(out, EVENT_ATTRIBUTES, "splitd.hole.cause", cause);
            more(out);
        });
    };
    let took = |out: &mut Vec<u8>, ns: u64| integer(out, EVENT_ATTRIBUTES, "splitd.hole.duration_ns", ns);
    let behind = |out: &mut Vec<u8>, Busy { route, took_ns }: Busy| {
        if took_ns > 0 {
            text(out, EVENT_ATTRIBUTES, "splitd.hole.behind.route", route);
            integer(out, EVENT_ATTRIBUTES, "splitd.hole.behind.duration_ns", took_ns);
        }
    };
    if let Some((turn_ns, busy)) = request.before {
        hole("turn_before", &|out| {
            took(out, turn_ns);
            behind(out, busy);
        });
    }
    let queue_ns = request.begin_ns.saturating_sub(request.ready_ns);
    if queue_ns >= HOLE_NS {
        hole("queued", &|out| {
            took(out, queue_ns);
            behind(out, request.behind);
        });
    }
    let usage = request.usage;
    if usage.off_cpu_ns() >= HOLE_NS {
        hole("descheduled", &|out| {
            took(out, usage.off_cpu_ns());
            integer(out, EVENT_ATTRIBUTES, "splitd.hole.switches.voluntary", usage.switches_voluntary);
            integer(out, EVENT_ATTRIBUTES, "splitd.hole.switches.involuntary", usage.switches_involuntary);
        });
    }
    if usage.minor_faults + usage.major_faults > 0 {
        hole("page_fault", &|out| {
            integer(out, EVENT_ATTRIBUTES, "splitd.hole.faults.minor", usage.minor_faults);
            integer(out, EVENT_ATTRIBUTES, "splitd.hole.faults.major", usage.major_faults);
        });
    }
}

/// How many spans lie in a record of a ring; none if it is none of ours. It comes
/// from another process, and a collector would refuse what it is sent with.
#[must_use]
pub fn count(mut record: &[u8]) -> Option<u64> {
    let mut count = 0;
    while !record.is_empty() {
        let [SPANS, low, high, rest @ ..] = record else { return None };
        let size = usize::from(low & 0x7f) | usize::from(*high) << 7;
        if low & 0x80 == 0 || high & 0x80 != 0 {
            return None;
        }
        record = rest.get(size..)?;
        count += 1;
    }
    Some(count)
}
