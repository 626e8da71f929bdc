//! The tracer over a ring in memory, its spans read by a decoder derived from
//! OTLP's field numbers (`tests/process/traces.rs` has one that is not ours).

use std::sync::atomic::AtomicU64;

use prost::Message;

use super::*;
use crate::clock::{self, Now};
use crate::exposure::ring::{self, Identity, Reader, Step, Writer};
use crate::metrics::pace::Pace;
use crate::metrics::{Family, Table, block_count, region_size};

#[derive(Clone, PartialEq, Message)]
struct Spans {
    #[prost(message, repeated, tag = "2")]
    spans: Vec<Span>,
}

#[derive(Clone, PartialEq, Message)]
struct Span {
    #[prost(bytes = "vec", tag = "1")]
    trace: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    id: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    parent: Vec<u8>,
    #[prost(string, tag = "5")]
    name: String,
    #[prost(fixed64, tag = "7")]
    start: u64,
    #[prost(fixed64, tag = "8")]
    end: u64,
    #[prost(message, repeated, tag = "9")]
    attributes: Vec<KeyValue>,
    #[prost(message, repeated, tag = "11")]
    events: Vec<Event>,
}

#[derive(Clone, PartialEq, Message)]
struct Event {
    #[prost(string, tag = "2")]
    name: String,
    #[prost(message, repeated, tag = "3")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct KeyValue {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<AnyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct AnyValue {
    #[prost(string, optional, tag = "1")]
    text: Option<String>,
    #[prost(int64, optional, tag = "3")]
    number: Option<i64>,
}

fn value(attributes: &[KeyValue], key: &str) -> Option<AnyValue> {
    attributes.iter().find(|pair| pair.key == key).and_then(|pair| pair.value.clone())
}

fn text(attributes: &[KeyValue], key: &str) -> Option<String> {
    value(attributes, key)?.text
}

fn number(attributes: &[KeyValue], key: &str) -> Option<u64> {
    u64::try_from(value(attributes, key)?.number?).ok()
}

/// A worker's loop, as far as the tracer hears of it.
struct Loop<'r> {
    pace: Pace<'r>,
    tracer: Tracer<'r>,
    reader: Reader<&'r [AtomicU64]>,
}

const NONE: Options = Options { rate: 0.0, header: true, slowest: None };
const ALL: Options = Options { rate: 1.0, ..NONE };
const ROUTE: &str = "/v1/assign";
const SAMPLED: &[u8] = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn with_loop(options: Options, test: impl FnOnce(&mut Loop<'_>)) {
    let zeroed = |size: usize| -> Vec<AtomicU64> { (0..size / 8).map(|_| AtomicU64::new(0)).collect() };
    let (ring, metrics) = (zeroed(ring::region_size(1 << 16)), zeroed(region_size(block_count(1))));
    ring::format(&ring, Identity { instance: 1, ring: 0, slot: 0 });
    let block = Table::format(&metrics, block_count(1)).block(0);
    let mut tracer = Tracer::new(&options, Writer::attach(&ring).unwrap(), block, ("assign", 3), 7);
    tracer.take_plan("v1");
    test(&mut Loop { pace: Pace::new(block), tracer, reader: Reader::attach(&ring[..]).unwrap() });
    let recorded = block.get(Family::TraceSpansRecorded, 0);
    let mut left = Vec::new();
    Reader::attach(&ring[..]).unwrap().next(&mut left, 1 << 16).unwrap();
    assert_eq!(recorded > 0, !left.is_empty(), "what is counted is there");
}

impl Loop<'_> {
    fn begin_turn(&mut self) {
        let now = clock::now();
        self.pace.begin_turn(now.mono_ns);
        self.tracer.begin_turn(now);
    }

    /// What was ready when the wait returned, or the connection before was done with.
    fn ready_ns(&self) -> u64 {
        self.pace.read_ns()
    }

    fn end_turn(&mut self) {
        let now_ns = clock::mono_ns();
        self.pace.end_turn(now_ns);
        self.tracer.end_turn(now_ns);
    }

    /// A connection is moved on, whose input has been ready since then.
    fn look(&mut self, ready_ns: u64, serve: impl FnOnce(&Pace<'_>, &mut Tracer<'_>)) {
        self.pace.look(ready_ns);
        serve(&self.pace, &mut self.tracer);
        let now_ns = clock::mono_ns();
        self.pace.handed_over(now_ns);
        self.tracer.handed_over(now_ns);
    }

    /// The requests kept since the last time: their spans, the server's first.
    fn kept(&mut self) -> Vec<Vec<Span>> {
        let mut kept = Vec::new();
        loop {
            let mut record = Vec::new();
            match self.reader.next(&mut record, 1 << 16).unwrap() {
                Step::Record { .. } => {
                    let spans = Spans::decode(&record[..]).unwrap().spans;
                    assert_eq!(span_count(&record), Some(spans.len() as u64));
                    assert!(record.len() < 1600, "{} bytes are far from what is said of it", record.len());
                    kept.push(spans);
                }
                Step::Empty => return kept,
                other => panic!("{other:?}"),
            }
        }
    }
}

fn subject(route: &'static str, traceparent: Option<&'static [u8]>) -> Subject<'static> {
    Subject { method: "POST", route, traceparent }
}

fn serve(traceparent: Option<&'static [u8]>) -> impl FnOnce(&Pace<'_>, &mut Tracer<'_>) {
    move |pace, tracer| {
        tracer.head(pace, &subject(ROUTE, traceparent));
        tracer.mark(Stage::Parse);
        tracer.mark(Stage::Decide);
        tracer.assigned(2);
        tracer.mark(Stage::Record);
        tracer.answered(pace, 200);
    }
}

/// Keeps the CPU for so long.
fn spin(ns: u64) {
    let begin_ns = clock::mono_ns();
    while clock::mono_ns() - begin_ns < ns {
        std::hint::spin_loop();
    }
}

fn hole<'s>(spans: &'s [Span], cause: &str) -> Option<&'s [KeyValue]> {
    let named = |event: &&Event| text(&event.attributes, "splitd.hole.cause").as_deref() == Some(cause);
    spans[0].events.iter().find(named).map(|event| event.attributes.as_slice())
}

#[test]
fn what_is_not_sampled_writes_nothing_whatever_it_is() {
    with_loop(NONE, |turning| {
        for traceparent in [
            None,
            Some(&b"00-nonsense"[..]),
            Some(&b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"[..]),
        ] {
            turning.begin_turn();
            turning.look(turning.ready_ns(), serve(traceparent));
            turning.end_turn();
        }
        assert!(turning.kept().is_empty());
        turning.begin_turn();
        turning.look(turning.ready_ns(), serve(Some(SAMPLED)));
        let kept = turning.kept();
        assert_eq!(kept.len(), 1);
        let server = &kept[0][0];
        assert_eq!(server.trace, 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736u128.to_be_bytes());
        assert_eq!(server.parent, 0x00f0_67aa_0ba9_02b7u64.to_be_bytes());
    });
}

#[test]
fn more_answers_than_may_wait_are_all_kept() {
    with_loop(ALL, |turning| {
        turning.begin_turn();
        let ready_ns = turning.ready_ns();
        turning.look(ready_ns, |pace, tracer| (0..40).for_each(|_| serve(None)(pace, tracer)));
        let kept = turning.kept();
        assert_eq!(kept.len(), 40);
        let starts: Vec<u64> = kept.iter().map(|spans| spans[0].start).collect();
        assert!(starts.iter().all(|start| *start == starts[0]), "they came together");
        let parse = |spans: &[Span]| spans.iter().find(|span| span.name == "parse").unwrap().start;
        assert!(kept.windows(2).all(|pair| parse(&pair[0]) < parse(&pair[1])), "one after the other");
    });
}

#[test]
fn a_batch_in_pieces_is_one_span_from_its_first_to_its_last() {
    with_loop(NONE, |turning| {
        let batch = subject("/v1/batch", None);
        let mut ticket = 0;
        turning.begin_turn();
        let ready_ns = turning.ready_ns();
        turning.look(ready_ns, |pace, tracer| {
            tracer.head(pace, &subject("/v1/batch", Some(SAMPLED)));
            ticket = tracer.ticket();
            tracer.line(pace, ticket, &batch);
            tracer.mark(Stage::Parse);
        });
        // Others come in between.
        turning.look(turning.ready_ns(), serve(None));
        turning.end_turn();
        for _ in 0..2 {
            turning.begin_turn();
            turning.look(turning.ready_ns(), |pace, tracer| {
                tracer.line(pace, ticket, &batch);
                tracer.mark(Stage::Parse);
            });
            turning.end_turn();
        }
        turning.begin_turn();
        turning.look(turning.ready_ns(), |pace, tracer| {
            tracer.line(pace, ticket, &batch);
            tracer.answered(pace, 200);
        });
        let kept = turning.kept();
        assert_eq!(kept.len(), 1);
        let server = &kept[0][0];
        assert_eq!(number(&server.attributes, "splitd.lines"), Some(4));
        assert_eq!(server.parent, 0x00f0_67aa_0ba9_02b7u64.to_be_bytes());
        assert!(server.end - server.start >= number(&server.attributes, "splitd.parse_ns").unwrap());
        // Another's ticket finds nothing of it.
        turning.look(turning.ready_ns(), |pace, tracer| {
            tracer.line(pace, ticket, &batch);
            tracer.answered(pace, 200);
        });
        assert!(turning.kept().is_empty());
    });
}

#[test]
fn the_slowest_of_an_interval_is_kept_once_and_not_the_others() {
    let options = Options { slowest: Some(Duration::from_secs(3600)), ..NONE };
    with_loop(options, |turning| {
        turning.begin_turn();
        for back_ns in [1_000_000, 9_000_000, 2_000_000] {
            turning.look(turning.ready_ns() - back_ns, serve(None));
        }
        turning.end_turn();
        assert!(turning.kept().is_empty(), "until the interval is over");
        turning.tracer.take_plan("v2");
        let kept = turning.kept();
        assert_eq!(kept.len(), 1);
        let server = &kept[0][0];
        assert_eq!(text(&server.attributes, "splitd.kept_by").as_deref(), Some("slowest"));
        assert_eq!(
            text(&server.attributes, "splitd.version").as_deref(),
            Some("v1"),
            "by which it was answered"
        );
        assert!(server.end - server.start >= 9_000_000);
        // One that is kept anyway is not kept twice.
        turning.begin_turn();
        turning.look(turning.ready_ns() - 1_000_000, serve(Some(SAMPLED)));
        turning.tracer.take_plan("v3");
        assert_eq!(turning.kept().len(), 1);
    });
}

#[test]
fn every_hole_has_its_cause() {
    with_loop(ALL, |turning| {
        turning.begin_turn();
        let ready_ns = turning.ready_ns();
        turning.look(ready_ns, |pace, tracer| {
            tracer.head(pace, &subject("/v1/batch", None));
            spin(3 * hole::HOLE_NS);
            tracer.answered(pace, 200);
        });
        turning.look(ready_ns, serve(None));
        let kept = turning.kept();
        let queued = hole(&kept[1], "queued").unwrap();
        assert_eq!(text(queued, "splitd.hole.behind.route").as_deref(), Some("/v1/batch"));
        assert!(number(queued, "splitd.hole.behind.duration_ns").unwrap() >= 3 * hole::HOLE_NS);
        assert_eq!(kept[1][1].name, "queue");
        turning.end_turn();

        // It did not run.
        turning.begin_turn();
        turning.look(turning.ready_ns(), |pace, tracer| {
            tracer.head(pace, &subject(ROUTE, None));
            std::thread::sleep(Duration::from_millis(2));
            tracer.answered(pace, 200);
        });
        let kept = turning.kept();
        let descheduled = hole(&kept[0], "descheduled").unwrap();
        assert!(number(descheduled, "splitd.hole.duration_ns").unwrap() >= 1_500_000, "{descheduled:?}");
        assert!(number(descheduled, "splitd.hole.switches.voluntary").unwrap() >= 1);
        turning.end_turn();

        // Pages that nobody has touched.
        turning.begin_turn();
        turning.look(turning.ready_ns(), |pace, tracer| {
            tracer.head(pace, &subject(ROUTE, None));
            let region = crate::sys::region::Region::anonymous(64 * 4096).unwrap();
            region
                .words()
                .iter()
                .step_by(512)
                .for_each(|word| word.store(1, std::sync::atomic::Ordering::Relaxed));
            spin(2 * hole::HOLE_NS);
            tracer.answered(pace, 200);
        });
        let kept = turning.kept();
        assert!(number(hole(&kept[0], "page_fault").unwrap(), "splitd.hole.faults.minor").unwrap() >= 1);
    });
}

#[test]
fn who_came_during_a_long_turn_is_told_of_it() {
    with_loop(ALL, |turning| {
        turning.begin_turn();
        turning.look(turning.ready_ns(), |pace, tracer| {
            tracer.head(pace, &subject("/v1/batch", None));
            spin(3 * hole::HOLE_NS);
            tracer.answered(pace, 200);
        });
        // The next wait returns at once; on a busy machine it may seem not to.
        let told = (0..1000).any(|_| {
            turning.end_turn();
            turning.begin_turn();
            let ready_ns = turning.ready_ns();
            turning.look(ready_ns, |pace, tracer| {
                serve(None)(pace, tracer);
                spin(2 * hole::HOLE_NS);
            });
            turning.kept().iter().any(|spans| {
                hole(spans, "turn_before").is_some_and(|before| {
                    number(before, "splitd.hole.duration_ns").unwrap() >= 2 * hole::HOLE_NS
                        && text(before, "splitd.hole.behind.route").is_some()
                })
            })
        });
        assert!(told);
    });
}

#[test]
fn a_full_ring_refuses_and_counts_and_nothing_else_happens() {
    with_loop(ALL, |turning| {
        turning.begin_turn();
        for _ in 0..200 {
            turning.look(turning.ready_ns(), serve(None));
        }
        let kept = turning.kept().len();
        assert!((40..150).contains(&kept), "{kept} in 64 KiB");
    });
}

#[test]
fn what_is_no_record_of_spans_is_not_taken_for_one() {
    assert_eq!(span_count(&[]), Some(0));
    assert_eq!(span_count(&[0x12, 0x80, 0x00]), Some(1));
    for bad in
        [&[0x12][..], &[0x12, 0x81, 0x00], &[0x12, 0x01, 0x00], &[0x12, 0x80, 0x80], &[0x0a, 0x80, 0x00]]
    {
        assert_eq!(span_count(bad), None, "{bad:?}");
    }
}

#[test]
fn times_are_of_the_wall_clock() {
    with_loop(ALL, |turning| {
        turning.begin_turn();
        let Now { mono_ns, unix_us } = clock::now();
        turning.look(mono_ns, serve(None));
        let start = turning.kept()[0][0].start;
        assert!(start.abs_diff(unix_us.unsigned_abs() * 1000) < 1_000_000_000, "{start}");
    });
}
