//! Where exposures go: the table of sinks, and the thread that drives the one
//! in use. To add a sink: one file, one variant of [`SinkOptions`], one arm in
//! [`Handle::start`].
//!
//! The thread takes batches in order and gives each back with its fate. There
//! are two kinds of sinks:
//! - A [`Sink`] has what it was given when its call returns. One that fails is
//!   tried again with the same batch, for as long as it takes or until the logger
//!   gives up at its stop: the rings hold what waits, and nothing behind a batch
//!   is confirmed before it.
//! - A [`kinds::Courier`] confirms later and may be away for hours: behind it is the
//!   spool, and [`super::delivery`] decides between the two.

#[cfg(feature = "kafka")]
mod away;
pub mod file;
#[cfg(feature = "kafka")]
pub mod kafka;
pub mod kinds;
pub mod none;

use std::io;
use std::path::PathBuf;
#[cfg(feature = "kafka")]
use std::sync::PoisonError;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use super::batch::{Batch, Mark};
use super::layout::{self, Layout};
use super::spool;
use crate::clock::{self, Now};
use kinds::{Done, Sink};

/// Wait before the first retry; doubles up to the last.
const RETRY_FIRST: Duration = Duration::from_millis(10);
const RETRY_LAST: Duration = Duration::from_secs(1);
/// How often a waiting retry looks whether the logger gives up.
const GIVE_UP_POLL: Duration = Duration::from_millis(20);
/// A sink that goes on failing is reported this often.
const REPORT_INTERVAL: Duration = Duration::from_secs(10);

/// Which sink, and what it needs.
#[derive(Debug, Clone)]
pub enum SinkOptions {
    /// Length-delimited files; see [`mod@file`].
    File(file::Options, Layout),
    /// Kafka, with a spool for when it is away; see [`mod@kafka`].
    #[cfg(feature = "kafka")]
    Kafka(Box<kafka::Options>, Box<SpoolOptions>),
    /// Counted and dropped, for benchmarks.
    None,
}

/// The spool of a sink that may be away.
#[derive(Debug, Clone)]
pub struct SpoolOptions {
    /// Made if it is not there.
    pub directory: PathBuf,
    /// Its bounds.
    pub bounds: spool::Options,
    /// Bytes a second that are replayed.
    pub replay_rate: u64,
}

impl SinkOptions {
    /// How long a batch may wait to become larger; none where it is taken at once.
    #[must_use]
    pub fn linger(&self) -> Option<Duration> {
        match self {
            SinkOptions::File(..) | SinkOptions::None => None,
            #[cfg(feature = "kafka")]
            SinkOptions::Kafka(..) => Some(Duration::from_millis(20)),
        }
    }
}

/// What sinks count; the drain carries it into the metrics.
#[derive(Debug, Default)]
pub struct Counts {
    /// Bytes written.
    pub bytes: AtomicU64,
    /// Writes, syncs and the like that were refused.
    pub errors: AtomicU64,
    /// Sendings that failed, and refusals of the spool's disk.
    pub delivery_errors: AtomicU64,
    /// Complete files kept.
    pub files: AtomicU64,
    /// Exposures that went with the oldest files.
    pub evicted: AtomicU64,
    /// Exposures under way now.
    pub under_way: AtomicU64,
    /// Exposures sent again that may have arrived before.
    pub doubtful: AtomicU64,
    /// Chunks that were confirmed later, and how long that took in all.
    pub confirmations: AtomicU64,
    /// In microseconds.
    pub confirmation_us: AtomicU64,
    /// The sink is away.
    pub stalled: AtomicBool,
    /// The spool, if there is one: all of one moment, or its books would not hold.
    pub spool: Mutex<Option<SpoolState>>,
}

impl Counts {
    /// A chunk was confirmed (or came back) after so long.
    pub fn note_latency(&self, latency: Duration) {
        self.confirmations.fetch_add(1, Relaxed);
        self.confirmation_us.fetch_add(latency.as_micros() as u64, Relaxed);
    }
}

/// What the spool's books say, since it was made, and what is in it now.
#[derive(Debug, Clone, Copy)]
pub struct SpoolState {
    /// Exposures it ever took.
    pub taken: u64,
    /// What became of those that are no longer in it.
    pub books: spool::cursor::Books,
    /// Exposures in it.
    pub count: u64,
    /// Bytes of its segments.
    pub size: u64,
    /// The most they may be.
    pub size_max: u64,
    /// When the oldest was written, in Unix microseconds; 0 if it is empty.
    pub oldest_us: u64,
}

#[cfg(feature = "kafka")]
impl Counts {
    fn read_off<D: spool::disk::Disk>(&self, spool: &spool::Spool<D>) {
        let state = SpoolState {
            taken: spool.taken(),
            books: spool.books(),
            count: spool.count(),
            size: spool.size(),
            size_max: spool.size_max(),
            oldest_us: spool.oldest_us().unwrap_or(0).max(0) as u64,
        };
        *self.spool.lock().unwrap_or_else(PoisonError::into_inner) = Some(state);
    }
}

/// The drain's end of the sink's thread.
#[derive(Debug)]
pub struct Handle {
    batches: Option<Sender<Batch>>,
    /// Batches that come back, in order.
    pub done: Receiver<Done>,
    /// What the sink has counted.
    pub counts: Arc<Counts>,
    /// How far rings were read for what the spool holds.
    pub marks: Vec<Mark>,
    signs: Arc<Signs>,
}

/// What the drain tells the sink's thread, besides batches.
#[derive(Debug, Default)]
struct Signs {
    /// The end is near.
    hurry: AtomicBool,
    /// What fails is not tried again.
    give_up: AtomicBool,
}

impl Handle {
    /// Starts the sink's thread.
    ///
    /// # Errors
    /// If the system refuses a thread.
    pub fn start(options: &SinkOptions, batch_count: usize) -> io::Result<Handle> {
        let (batches, to_write) = crossbeam_channel::bounded(batch_count);
        let (to_confirm, done) = crossbeam_channel::bounded(batch_count);
        let counts = Arc::new(Counts::default());
        let signs = Arc::new(Signs::default());
        #[cfg_attr(not(feature = "kafka"), expect(unused_mut, reason = "a spool alone has marks"))]
        let mut marks = Vec::new();
        let thread = Thread { counts: Arc::clone(&counts), batches: to_write, done: to_confirm };
        let thread_signs = Arc::clone(&signs);
        let work: Box<dyn FnOnce() + Send> = match options.clone() {
            SinkOptions::File(options, layout) => {
                let sink = file::FileSink::new(options, Arc::clone(&counts));
                Box::new(move || drive(sink, layout, &thread, &thread_signs.give_up))
            }
            SinkOptions::None => {
                Box::new(move || drive(none::NoSink, Layout::Request, &thread, &thread_signs.give_up))
            }
            #[cfg(feature = "kafka")]
            SinkOptions::Kafka(options, spool) => {
                // Here, before any ring is read: the marks in it come first.
                let opened = away::open_spool(&spool);
                let opened = opened.map(|mut spool| {
                    marks = spool.take_marks();
                    counts.read_off(&spool);
                    spool
                });
                Box::new(move || away::drive(*options, &spool, opened, &thread, &thread_signs))
            }
        };
        // The thread is never joined: one that hangs in the kernel must not keep
        // the process from leaving. It says that it is done by hanging up.
        std::thread::Builder::new().name("sink".into()).spawn(work)?;
        Ok(Handle { batches: Some(batches), done, counts, marks, signs })
    }

    /// Hands a batch to the sink; gives it back if the thread is gone.
    ///
    /// # Errors
    /// The batch, if nobody takes it any more.
    pub fn send(&self, batch: Batch) -> Result<(), Batch> {
        match &self.batches {
            Some(batches) => batches.send(batch).map_err(|refused| refused.0),
            None => Err(batch),
        }
    }

    /// No batch follows: the sink makes everything durable and hangs up `done`.
    pub fn finish(&mut self) {
        self.batches = None;
    }

    /// The end is near: a sink that does not answer is not waited for.
    pub fn hurry(&self) {
        self.signs.hurry.store(true, Relaxed);
    }

    /// From now on what fails is not tried again.
    pub fn give_up(&self) {
        self.signs.give_up.store(true, Relaxed);
    }
}

/// The sink's thread's end.
struct Thread {
    counts: Arc<Counts>,
    batches: Receiver<Batch>,
    done: Sender<Done>,
}

fn drive(mut sink: impl Sink, layout: Layout, thread: &Thread, give_up: &AtomicBool) {
    let Thread { counts, batches, done } = thread;
    let mut undelivered = false;
    let mut rendered = Vec::new();
    loop {
        let wait = sink.tick(clock::now());
        match batches.recv_timeout(wait) {
            Ok(batch) => {
                let (bytes, count) = match layout {
                    Layout::Request => (&batch.bytes, batch.count),
                    Layout::Assignment { .. } => {
                        rendered.clear();
                        let mut count = 0;
                        layout::render(&batch.bytes, layout, &mut rendered, |_| count += 1);
                        (&rendered, count)
                    }
                };
                // Behind a batch that was given up, none is delivered: the rings
                // will give them all again, in order.
                let delivered = !undelivered && deliver(&mut sink, bytes, count, counts, give_up);
                undelivered |= !delivered;
                if done.send(Done { batch, delivered, spooled: 0, rejected: 0 }).is_err() {
                    break;
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    sink.finish(clock::now());
}

/// Tries until it is written, or the logger gives up.
fn deliver(sink: &mut impl Sink, bytes: &[u8], count: u64, counts: &Counts, give_up: &AtomicBool) -> bool {
    if bytes.is_empty() {
        return true;
    }
    let mut retry_wait = RETRY_FIRST;
    let mut failing_since: Option<Now> = None;
    let mut reported: Option<Now> = None;
    loop {
        let now = clock::now();
        match sink.write(bytes, count, now) {
            Ok(()) => {
                counts.bytes.fetch_add(bytes.len() as u64, Relaxed);
                if let Some(since) = failing_since {
                    log::info!("event=sink_recovered after_s={:.1}", now.since(since).as_secs_f64());
                }
                return true;
            }
            Err(fault) => {
                counts.errors.fetch_add(1, Relaxed);
                failing_since = failing_since.or(Some(now));
                if reported.is_none_or(|at| now.since(at) >= REPORT_INTERVAL) {
                    log::error!("event=sink_refused waiting_in=rings error={:?}", fault.to_string());
                    reported = Some(now);
                }
            }
        }
        let deadline = clock::now().plus(retry_wait);
        loop {
            if give_up.load(Relaxed) {
                return false;
            }
            let left = deadline.since(clock::now());
            if left.is_zero() {
                break;
            }
            std::thread::sleep(left.min(GIVE_UP_POLL));
        }
        retry_wait = (retry_wait * 2).min(RETRY_LAST);
        sink.tick(clock::now());
    }
}
