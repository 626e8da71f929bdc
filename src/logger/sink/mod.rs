//! Where exposures go: the table of sinks, and the thread that drives the one
//! in use. To add a sink: one file, one variant of [`SinkOptions`], one arm in
//! [`SinkOptions::open`].
//!
//! The thread takes batches in order and gives each back with its fate. A sink
//! that fails is tried again with the same batch, for as long as it takes or
//! until the logger gives up at its stop: the rings hold what waits, and nothing
//! behind a batch is confirmed before it.

pub mod file;
pub mod none;

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use super::batch::Batch;
use crate::clock::{self, Now};

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
    File(file::Options),
    /// Counted and dropped, for benchmarks.
    None,
}

impl SinkOptions {
    fn open(&self, counts: Arc<Counts>) -> Box<dyn Sink> {
        match self {
            SinkOptions::File(options) => Box::new(file::FileSink::new(options.clone(), counts)),
            SinkOptions::None => Box::new(none::NoSink),
        }
    }
}

/// One place where exposures go.
pub trait Sink {
    /// Takes `bytes`, whole exposures, `count` of them: after `Ok` they are safe.
    /// After an error it is called with the same bytes again, and what it had
    /// taken of them must not come out twice.
    ///
    /// # Errors
    /// Whatever keeps it from it.
    fn write(&mut self, bytes: &[u8], count: u64, now: Now) -> io::Result<()>;

    /// Does what is due (syncs, rotations); gives how long until it wants to be
    /// asked again.
    fn tick(&mut self, now: Now) -> Duration;

    /// Makes everything durable; nothing follows.
    fn finish(&mut self, now: Now);
}

/// What sinks count; the drain carries it into the metrics.
#[derive(Debug, Default)]
pub struct Counts {
    /// Bytes written.
    pub bytes: AtomicU64,
    /// Writes, syncs and the like that were refused.
    pub errors: AtomicU64,
    /// Complete files kept.
    pub files: AtomicU64,
    /// Exposures that went with the oldest files.
    pub evicted: AtomicU64,
}

/// A batch's fate.
#[derive(Debug)]
pub struct Done {
    /// To be filled again.
    pub batch: Batch,
    /// Whether the sink has it.
    pub delivered: bool,
}

/// The drain's end of the sink's thread.
#[derive(Debug)]
pub struct Handle {
    batches: Option<Sender<Batch>>,
    /// Batches that come back, in order.
    pub done: Receiver<Done>,
    /// What the sink has counted.
    pub counts: Arc<Counts>,
    give_up: Arc<AtomicBool>,
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
        let give_up = Arc::new(AtomicBool::new(false));
        let (options, thread_counts, thread_give_up) =
            (options.clone(), Arc::clone(&counts), Arc::clone(&give_up));
        // The thread is never joined: one that hangs in the kernel must not keep
        // the process from leaving. It says that it is done by hanging up.
        std::thread::Builder::new().name("sink".into()).spawn(move || {
            let sink = options.open(Arc::clone(&thread_counts));
            drive(sink, &thread_counts, &to_write, &to_confirm, &thread_give_up);
        })?;
        Ok(Handle { batches: Some(batches), done, counts, give_up })
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

    /// From now on what fails is not tried again.
    pub fn give_up(&self) {
        self.give_up.store(true, Relaxed);
    }
}

fn drive(
    mut sink: Box<dyn Sink>,
    counts: &Counts,
    batches: &Receiver<Batch>,
    done: &Sender<Done>,
    give_up: &AtomicBool,
) {
    let mut undelivered = false;
    loop {
        let wait = sink.tick(clock::now());
        match batches.recv_timeout(wait) {
            Ok(batch) => {
                // Behind a batch that was given up, none is delivered: the rings
                // will give them all again, in order.
                let delivered = !undelivered && deliver(sink.as_mut(), &batch, counts, give_up);
                undelivered |= !delivered;
                if done.send(Done { batch, delivered }).is_err() {
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
fn deliver(sink: &mut dyn Sink, batch: &Batch, counts: &Counts, give_up: &AtomicBool) -> bool {
    if batch.bytes.is_empty() {
        return true;
    }
    let mut retry_wait = RETRY_FIRST;
    let mut failing_since: Option<Now> = None;
    let mut reported: Option<Now> = None;
    loop {
        let now = clock::now();
        match sink.write(&batch.bytes, batch.count, now) {
            Ok(()) => {
                counts.bytes.fetch_add(batch.bytes.len() as u64, Relaxed);
                if let Some(since) = failing_since {
                    log::info!("event=sink_recovered after_s={:.1}", now.since(since).as_secs_f64());
                }
                return true;
            }
            Err(fault) => {
                counts.errors.fetch_add(1, Relaxed);
                failing_since = failing_since.or(Some(now));
                if reported.is_none_or(|at| now.since(at) >= REPORT_INTERVAL) {
                    log::error!("event=sink_refused error=\"{fault}\" exposures wait in the rings");
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
