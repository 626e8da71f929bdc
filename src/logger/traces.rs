//! The export of spans: a thread beside the drain, so that a collector that is
//! slow or away holds up no exposure.
//!
//! ```text
//! rings for spans ═ this thread ─ POST ─→ collector
//!        ↑ heads move when it has answered
//! ```
//! The rings are the only queue. What a collector can't take now is sent again,
//! less and less often; meanwhile the rings fill, and workers drop and count.
//! What it refuses for good goes, counted. A logger killed between a POST and its
//! answer leaves its successor to send the same spans again, with the same ids.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use prost::Message;

use crate::exposure::ring::{Position, Reader, Step};
use crate::metrics::{Block, Family, SPAN_DROP_REASONS};
use crate::sys::region::Region;
use crate::trace;

/// Records of one POST, in bytes.
const BATCH_SIZE_MAX: usize = 512 * 1024;
/// Looks into a ring for one POST, at most: damage adds nothing to a batch.
const STEP_COUNT_MAX: usize = BATCH_SIZE_MAX / 64;
/// How long a collector may take.
const POST_TIME_MAX: Duration = Duration::from_secs(5);
/// Between two tries with a collector that can't take any; doubled up to here.
const RETRY_WAIT_MAX: Duration = Duration::from_secs(30);
/// Of its answer, what is looked at.
const ANSWER_SIZE_MAX: u64 = 64 * 1024;

/// Where spans come from and go to.
#[derive(Debug, Clone)]
pub struct Options {
    /// `http://host:port/v1/traces`.
    pub endpoint: String,
    /// How often what waits is sent.
    pub interval: Duration,
    /// Of the instance's rings for spans.
    pub directory: PathBuf,
    /// The instance, whose number says to the collector which it is.
    pub instance: u64,
}

/// What the thread counts.
#[derive(Debug, Default)]
struct Counts {
    exported: AtomicU64,
    /// By the index of `SPAN_DROP_REASONS`.
    dropped: [AtomicU64; SPAN_DROP_REASONS.len()],
}

const REJECTED: usize = 0;
const DAMAGED: usize = 1;

/// The thread, as the logger has it.
pub(super) struct Exporter<'m> {
    metrics: Block<'m>,
    counts: Arc<Counts>,
    shown: [u64; 1 + SPAN_DROP_REASONS.len()],
    stop: Sender<()>,
    ended: Receiver<()>,
}

impl<'m> Exporter<'m> {
    /// Starts the thread. Without one there are no spans, and that is all.
    pub(super) fn start(options: &Options, metrics: Block<'m>) -> Option<Exporter<'m>> {
        let counts = Arc::new(Counts::default());
        let (stop, stopped) = crossbeam_channel::bounded(1);
        let (ending, ended) = crossbeam_channel::bounded::<()>(0);
        let mut export = Export::new(options.clone(), counts.clone());
        let started = std::thread::Builder::new().name("spans".to_owned()).spawn(move || {
            export.run(&stopped);
            drop(ending);
        });
        match started {
            Ok(_) => Some(Exporter { metrics, counts, shown: [0; 3], stop, ended }),
            Err(fault) => {
                log::error!("event=spans_not_exported error={:?}", fault.to_string());
                None
            }
        }
    }

    /// Carries the counts into the metrics.
    pub(super) fn show(&mut self) {
        let [rejected, damaged] = &self.counts.dropped;
        let cells = [
            (Family::TraceSpansExported, 0, &self.counts.exported),
            (Family::TraceSpansDropped, REJECTED, rejected),
            (Family::TraceSpansDropped, DAMAGED, damaged),
        ];
        for ((family, cell, count), shown) in cells.into_iter().zip(&mut self.shown) {
            let now = count.load(Relaxed);
            if now != *shown {
                self.metrics.add_at(family, cell, now - *shown);
                *shown = now;
            }
        }
    }

    /// No worker writes any more: what waits is sent once.
    pub(super) fn stop(&self) {
        // It is bounded, and asked for once.
        let _ = self.stop.try_send(());
    }

    /// Waits for that, no longer than this.
    pub(super) fn finish(mut self, wait: Duration) {
        let _ = self.ended.recv_timeout(wait);
        self.show();
    }
}

/// What became of a POST.
enum Posted {
    /// So many of its spans were refused, the others taken.
    Taken(u64),
    /// For good.
    Refused(String),
    /// To be tried again, not before this long if the collector says so.
    Later(String, Option<Duration>),
}

/// One POST's records, and up to where they came from.
#[derive(Default)]
struct Batch {
    records: Vec<u8>,
    span_count: u64,
    reached: Vec<(u16, Position)>,
}

struct Export {
    options: Options,
    counts: Arc<Counts>,
    agent: ureq::Agent,
    rings: BTreeMap<u16, Reader<Region>>,
    /// Held while the rings are ours: at an upgrade there may be two loggers.
    lock: Option<File>,
    batch: Batch,
    /// The collector took nothing last time, which was said.
    failing: bool,
}

impl Export {
    fn new(options: Options, counts: Arc<Counts>) -> Export {
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(POST_TIME_MAX))
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .user_agent(concat!("splitd/", env!("CARGO_PKG_VERSION")))
            .build();
        let (agent, rings, batch) = (config.into(), BTreeMap::new(), Batch::default());
        Export { options, counts, agent, rings, lock: None, batch, failing: false }
    }

    fn run(&mut self, stopped: &Receiver<()>) {
        let mut wait = self.options.interval;
        loop {
            let stopping = !matches!(stopped.recv_timeout(wait), Err(RecvTimeoutError::Timeout));
            // Rings that are not there yet, or another's still, are for the next time.
            let _ = self.find_rings();
            wait = match self.send_all() {
                Ok(()) => self.options.interval,
                Err(asked) => asked.unwrap_or(wait * 2).clamp(self.options.interval, RETRY_WAIT_MAX),
            };
            if stopping {
                return;
            }
        }
    }

    fn find_rings(&mut self) -> io::Result<()> {
        if self.lock.is_none() {
            let directory = File::open(&self.options.directory)?;
            directory.try_lock()?;
            self.lock = Some(directory);
        }
        for entry in fs::read_dir(&self.options.directory)? {
            let entry = entry?;
            let Some(number) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            if !self.rings.contains_key(&number)
                && let Ok(reader) = Reader::attach(Region::open_file(&entry.path())?)
            {
                self.rings.insert(number, reader);
            }
        }
        Ok(())
    }

    /// Sends what waits. If the collector can't take it, how long it asks to be left
    /// alone, if it does.
    fn send_all(&mut self) -> Result<(), Option<Duration>> {
        loop {
            if self.batch.reached.is_empty() {
                self.fill();
            }
            if self.batch.reached.is_empty() {
                return Ok(());
            }
            let posted = match self.batch.span_count {
                0 => Posted::Taken(0),
                _ => self.post(),
            };
            let endpoint = &self.options.endpoint;
            let count = self.batch.span_count;
            let (failed, later) = match posted {
                Posted::Taken(refused) => {
                    let refused = refused.min(count);
                    self.counts.exported.fetch_add(count - refused, Relaxed);
                    self.counts.dropped[REJECTED].fetch_add(refused, Relaxed);
                    (None, None)
                }
                Posted::Refused(reason) => {
                    self.counts.dropped[REJECTED].fetch_add(count, Relaxed);
                    (Some(reason), None)
                }
                Posted::Later(reason, asked) => (Some(reason), Some(asked)),
            };
            match (&failed, self.failing) {
                (Some(reason), false) => {
                    log::warn!("event=spans_not_taken endpoint={endpoint:?} reason={:?}", reason.to_string());
                }
                (None, true) => log::info!("event=spans_taken_again endpoint={endpoint:?}"),
                _ => {}
            }
            self.failing = failed.is_some();
            if let Some(asked) = later {
                return Err(asked);
            }
            let Batch { reached, .. } = std::mem::take(&mut self.batch);
            for (number, position) in reached {
                if let Some(reader) = self.rings.get_mut(&number) {
                    reader.confirm(position);
                }
            }
        }
    }

    fn fill(&mut self) {
        let Batch { records, span_count, reached } = &mut self.batch;
        // Each ring has its part, so that none waits for another's flood.
        let share = (BATCH_SIZE_MAX / self.rings.len().max(1)).max(trace::RECORD_SIZE_MAX);
        for (number, reader) in &mut self.rings {
            let begin = records.len();
            let damaged = |count: u64| self.counts.dropped[DAMAGED].fetch_add(count, Relaxed);
            for _ in 0..STEP_COUNT_MAX {
                let room = share.saturating_sub(records.len() - begin).min(BATCH_SIZE_MAX - records.len());
                match reader.next(records, room) {
                    Ok(Step::Record { size, .. }) => {
                        match trace::span_count(&records[records.len() - size..]) {
                            Some(count) => *span_count += count,
                            None => {
                                reader.reject(records);
                                damaged(1);
                            }
                        }
                    }
                    Ok(Step::Damaged { .. }) => {
                        damaged(1);
                    }
                    // A header that does not hold: its worker's spans are lost until it is replaced.
                    Ok(Step::Empty | Step::NoRoom) | Err(_) => break,
                }
            }
            if reader.position() != reader.confirmed() {
                reached.push((*number, reader.position()));
            }
        }
    }

    fn post(&self) -> Posted {
        let body = trace::request(self.options.instance, &self.batch.records);
        let post = self.agent.post(&self.options.endpoint).content_type("application/x-protobuf");
        let mut response = match post.send(&body[..]) {
            Ok(response) => response,
            Err(fault) => return Posted::Later(fault.to_string(), None),
        };
        let status = response.status().as_u16();
        let retry_after = response.headers().get("Retry-After").and_then(|value| value.to_str().ok());
        let retry_after = retry_after.and_then(|value| value.parse().ok()).map(Duration::from_secs);
        let said = response.body_mut().with_config().limit(ANSWER_SIZE_MAX).read_to_vec().unwrap_or_default();
        match status {
            200..=299 => {
                let taken = Taken::decode(&said[..]).unwrap_or_default();
                let refused = taken.partial_success.map_or(0, |part| part.rejected_spans);
                Posted::Taken(u64::try_from(refused).unwrap_or(0))
            }
            // OTLP/HTTP, "Retryable Response Codes".
            429 | 502..=504 => Posted::Later(format!("status {status}"), retry_after),
            _ => Posted::Refused(format!("status {status}")),
        }
    }
}

/// `ExportTraceServiceResponse`, as far as it matters.
#[derive(Clone, PartialEq, Message)]
struct Taken {
    #[prost(message, optional, tag = "1")]
    partial_success: Option<PartialSuccess>,
}

/// `ExportTracePartialSuccess`.
#[derive(Clone, PartialEq, Message)]
struct PartialSuccess {
    #[prost(int64, tag = "1")]
    rejected_spans: i64,
}
