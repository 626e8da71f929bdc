//! A worker without sockets: connection, endpoints, plan and ring as a worker has
//! them, fed from memory. Shared by the benches and `tests/counts.rs`.
#![allow(dead_code, missing_docs, reason = "each of its users needs a part")]

use std::sync::atomic::AtomicU64;

use splitd::clock::{self, Now};
use splitd::config::check;
use splitd::endpoint::{self, App, AppOptions, Desk, RouteGroup, Shed};
use splitd::engine::plan::Plan;
use splitd::exposure::ring::{self, Reader, Step, Writer};
use splitd::http::{Connection, Limits, Output, Workspace};
use splitd::limits::EXPOSURE_SIZE_MAX;
use splitd::metrics::{self, Process, Table};
use splitd::sys::cache::will_write;
use splitd::sys::region::Region;
use splitd::trace::{self, Tracer};

/// Requests that may pass between two [`Rig::drain`]: far fewer than fill the ring.
pub const DRAIN_EVERY: usize = 1000;
const RING_SIZE: usize = 64 << 20;

pub struct Rig<'a, 'r> {
    app: App<'a, 'r>,
    connection: Connection,
    workspace: Workspace,
    reader: Reader<&'r [AtomicU64]>,
    drained: Vec<u8>,
    now: Now,
    traced: bool,
}

/// Makes a rig over an experiments file and hands it to `body`.
///
/// # Panics
/// If there is a fault in the file.
pub fn with_rig<R>(experiments: &str, body: impl FnOnce(&mut Rig<'_, '_>) -> R) -> R {
    with_traced_rig(experiments, None, body)
}

/// The same, with tracing on where there are options for it.
///
/// # Panics
/// If there is a fault in the file.
pub fn with_traced_rig<R>(
    experiments: &str,
    tracing: Option<trace::Options>,
    body: impl FnOnce(&mut Rig<'_, '_>) -> R,
) -> R {
    let (_, image) = check::load(experiments.as_bytes()).expect("a sound file");
    let plan = Plan::open(image.bytes()).expect("a plan made just now");
    let ring = Region::anonymous(ring::region_size(RING_SIZE)).expect("memory");
    ring::format(ring.words(), ring::Identity { instance: 1, ring: 0, slot: 0 });
    ring.prefault();
    let spans = Region::anonymous(ring::region_size(RING_SIZE)).expect("memory");
    ring::format(spans.words(), ring::Identity { instance: 1, ring: 1, slot: 0 });
    spans.prefault();
    let counters = Region::anonymous(metrics::region_size(1)).expect("memory");
    let table = Table::format(counters.words(), 1);
    table.block(0).claim(Process::Worker, "assign");
    endpoint::learn(image.bytes(), table).expect("a plan made just now");
    let options = AppOptions {
        validation_strict: false,
        record_empty: false,
        record_context: true,
        shed: Shed::NEVER,
        batch_body_size_max: 1 << 20,
    };
    let writer = Writer::attach(ring.words()).expect("a ring made just now").hinting(will_write);
    let mut desk = Desk::new(options, vec![RouteGroup::Assign], Some(writer), table, table.block(0));
    if let Some(tracing) = &tracing {
        let writer = Writer::attach(spans.words()).expect("a ring made just now");
        desk.trace(Tracer::new(tracing, writer, table.block(0), ("assign", 0), 1));
    }
    body(&mut Rig {
        app: App::new(&plan, &mut desk),
        connection: Connection::new(),
        workspace: Workspace::new(Limits::default(), plan.answer_size_max()),
        reader: Reader::attach(ring.words()).expect("a ring made just now"),
        drained: Vec::with_capacity(EXPOSURE_SIZE_MAX),
        now: clock::now(),
        traced: tracing.is_some(),
    })
}

impl Rig<'_, '_> {
    /// Input as a backend would hand it over; the bytes that would be sent.
    #[inline]
    pub fn exchange(&mut self, input: &[u8]) -> usize {
        let Rig { app, connection, workspace, now, .. } = self;
        // A turn for each: the most that tracing can cost.
        if self.traced {
            app.end_turn(now.mono_ns);
            *now = clock::now();
            app.begin_turn(*now);
        }
        app.pace().look(now.mono_ns);
        connection.handle_input(input, *now, workspace, app);
        let mut total = 0;
        while let Output::Send(bytes) = connection.poll_output(workspace) {
            let size = bytes.len();
            total += size;
            connection.handle_sent(size, *now, workspace, app);
        }
        app.handed_over(clock::mono_ns());
        total
    }

    /// Takes the exposures out, as the logger does; how many there were.
    ///
    /// # Panics
    /// If the ring is damaged.
    pub fn drain(&mut self) -> usize {
        let mut count = 0;
        loop {
            self.drained.clear();
            match self.reader.next(&mut self.drained, EXPOSURE_SIZE_MAX).expect("a sound ring") {
                Step::Record { .. } => count += 1,
                Step::Empty => break,
                other => panic!("{other:?} in a ring that nobody damages"),
            }
        }
        self.reader.confirm(self.reader.position());
        count
    }
}

/// A body as a request.
#[must_use]
pub fn post(body: &str) -> String {
    format!(
        "POST /v1/assign HTTP/1.1\r\nHost: splitd\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}
