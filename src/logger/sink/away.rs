//! The thread of a sink that may be away: turns of [`Delivery`], and what it
//! counts carried to where the drain reads it.

use std::io;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use crossbeam_channel::RecvTimeoutError;

use super::kafka::{self, Kafka};
use super::kinds::Courier as _;
use super::{Signs, SpoolOptions, Thread};
use crate::clock::{self, Now};
use crate::logger::delivery::{self, Delivery};
use crate::logger::spool::Spool;
use crate::logger::spool::disk::Directory;

/// Between two tries to open a spool.
const OPEN_INTERVAL: Duration = Duration::from_secs(1);
/// At the end, for what is under way to be confirmed.
const LAST_WAIT: Duration = Duration::from_millis(300);

/// Opens the spool.
pub(super) fn open_spool(options: &SpoolOptions) -> io::Result<Spool<Directory>> {
    Spool::open(Directory::take(&options.directory)?, options.bounds.clone())
}

/// The thread's whole life.
pub(super) fn drive(
    options: kafka::Options,
    spool_options: &SpoolOptions,
    spool: io::Result<Spool<Directory>>,
    thread: &Thread,
    signs: &Signs,
) {
    let now = clock::now();
    let delivery_options =
        delivery::Options { chunk_size: options.message_size, replay_rate: spool_options.replay_rate };
    let courier = Kafka::new(options, std::sync::Arc::clone(&thread.counts), now);
    let mut opening = Opening { next: now, said: false };
    let spool = opening.judge(spool, now);
    let mut delivery = Delivery::new(courier, spool, delivery_options, now);
    loop {
        match thread.batches.recv_timeout(delivery.wait()) {
            Ok(batch) => {
                let now = clock::now();
                delivery.take(batch, now);
                while let Ok(batch) = thread.batches.try_recv() {
                    delivery.take(batch, now);
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        if signs.hurry.load(Relaxed) {
            delivery.hurry();
        }
        let now = clock::now();
        if delivery.spool.is_none() && now.mono_ns >= opening.next.mono_ns {
            delivery.spool = opening.judge(open_spool(spool_options), now);
        }
        delivery.turn(now, |done| {
            let _ = thread.done.send(done);
        });
        show(&delivery, thread);
    }
    // Nothing follows. What can be confirmed in a moment is not sent twice.
    let deadline = clock::now().plus(LAST_WAIT);
    while !(delivery.holds_nothing() && delivery.is_settled())
        && clock::now().mono_ns < deadline.mono_ns
        && !signs.give_up.load(Relaxed)
    {
        delivery.turn(clock::now(), |done| {
            let _ = thread.done.send(done);
        });
        std::thread::sleep(Duration::from_millis(1));
    }
    delivery.finish(clock::now(), |done| {
        let _ = thread.done.send(done);
    });
    show(&delivery, thread);
    delivery.courier.finish();
}

fn show(delivery: &Delivery<Kafka, Directory>, thread: &Thread) {
    let tally = delivery.tally();
    let counts = &thread.counts;
    counts.under_way.store(tally.under_way, Relaxed);
    counts.doubtful.store(tally.doubtful, Relaxed);
    counts.bytes.store(tally.bytes, Relaxed);
    counts.stalled.store(delivery.is_stalled(), Relaxed);
    counts.delivery_errors.store(tally.errors, Relaxed);
    if let Some(spool) = &delivery.spool {
        counts.read_off(spool);
    }
}

/// Tries to open the spool, and says once what keeps it from that.
struct Opening {
    next: Now,
    said: bool,
}

impl Opening {
    fn judge(&mut self, opened: io::Result<Spool<Directory>>, now: Now) -> Option<Spool<Directory>> {
        self.next = now.plus(OPEN_INTERVAL);
        match opened {
            Ok(spool) => {
                if spool.count() > 0 {
                    log::info!("event=spool_found exposures={} bytes={}", spool.count(), spool.size());
                }
                Some(spool)
            }
            Err(fault) => {
                if !self.said {
                    log::warn!(
                        "event=spool_not_opened retry_s={} error={:?}",
                        OPEN_INTERVAL.as_secs(),
                        fault.to_string()
                    );
                }
                self.said = true;
                None
            }
        }
    }
}
