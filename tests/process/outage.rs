//! Kafka is away for long, at a steady rate of requests: the spool grows to its
//! bound and no further, what goes from it is counted, the logger's memory is
//! flat, answers do not move, and what was kept is delivered when Kafka is back.
//!
//! By hand, at the rate that is promised, with figures:
//!
//! ```sh
//! SPLITD_OUTAGE_SECONDS=120 cargo test --release --test process outage:: -- --nocapture
//! ```

use std::fs;
use std::time::{Duration, Instant};

use crate::arrived::Arrived;
use crate::broker::{Listener, MockBroker};
use crate::generator::{Generator, Outcome, Work};
use crate::support::{Daemon, PATIENCE, Plan, wait_until};

const CONNECTIONS: usize = 64;
/// The smallest that may be set.
const SPOOL_SIZE_MAX: u64 = 64 << 20;
/// What may grow while the spool is full: a segment that is read, and the client's queue.
const MEMORY_GROWTH_KIB_MAX: u64 = 32 << 10;

/// As many a second as were promised, or fewer, and larger ones, where the build is slow.
const RATE: u64 = if cfg!(debug_assertions) { 2_000 } else { 5_000 };
const CONTEXT_SIZE: usize = if cfg!(debug_assertions) { 3_900 } else { 1_100 };

/// Memory of the logger that is its own, in KiB.
fn memory(daemon: &Daemon) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.child("logger").unwrap())).unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).expect("RssAnon");
    line.split_whitespace().nth(1).and_then(|text| text.parse().ok()).expect("a number")
}

/// How long it goes on by hand; without being told, until the spool is full.
fn seconds() -> u64 {
    std::env::var("SPLITD_OUTAGE_SECONDS").map_or(0, |text| text.parse().expect("a number"))
}

/// Requests at the rate until `is_over`; says how they fared.
fn at_rate(daemon: &Daemon, what: &str, mut is_over: impl FnMut() -> bool) -> Outcome {
    let work = Work { port: daemon.assign(), connections: CONNECTIONS, rate: RATE as f64, network: None };
    // About as compressible as attributes are.
    let mut random = 1_u64;
    let filler: String = (0..CONTEXT_SIZE)
        .map(|_| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            char::from(b"abcdefghijklmnop"[(random >> 60) as usize])
        })
        .collect();
    let generator = Generator::start_with(work, &format!("{{\"filler\":\"{filler}\"}}"));
    let begin = Instant::now();
    while !is_over() {
        assert!(begin.elapsed() < PATIENCE + Duration::from_secs(2 * seconds()), "{what} for ever");
        std::thread::sleep(Duration::from_millis(5));
    }
    let outcome = generator.stop();
    println!("{what}: {outcome}");
    assert_eq!(outcome.failed(), 0, "answers do not move");
    outcome
}

#[test]
fn an_outage_fills_the_spool_to_its_bound_and_what_was_kept_is_delivered() {
    let seconds = seconds();
    let mut broker = MockBroker::start();
    let listener = Listener::start(&broker.address);
    let mut daemon = Plan::new("auto", "edge.experiments.json")
        .set("sink.type=kafka")
        .set(&format!("sink.brokers={}", broker.address))
        .set(&format!("logger.spool_size_max={SPOOL_SIZE_MAX}"))
        .set("logger.spool_free_min=0")
        // No faster than the broker's log, which forgets, is read.
        .set("logger.spool_replay_rate=8MiB")
        .set("logger.ring_size=32MiB")
        .start();
    for text in ["event=kafka_client", "event=sink_stalled", "event=spool_evicted"] {
        daemon.expect(text);
    }
    let (spool_size, evicted) = ("splitd_spool_bytes", "splitd_spool_evicted_total");
    let begin = Instant::now();
    let before =
        at_rate(&daemon, "Kafka is well", || begin.elapsed() >= Duration::from_secs(1 + seconds / 8));

    broker.down();
    let begin = Instant::now();
    let (mut size_max, mut full) = (0, None);
    let (mut early, mut memory_max) = (0, 0);
    let mut looked = Instant::now();
    let during = at_rate(&daemon, "Kafka is away", || {
        // Now and then: what is measured should not be what measures.
        if looked.elapsed() >= Duration::from_millis(500) {
            looked = Instant::now();
            size_max = size_max.max(daemon.metric(spool_size));
            memory_max = memory_max.max(memory(&daemon));
            if early == 0 && daemon.metric("splitd_exposures_in_spool") > 0 {
                early = memory(&daemon);
            }
            if full.is_none() && daemon.metric(evicted) > 0 {
                full = Some(begin.elapsed());
            }
        }
        full.is_some() && begin.elapsed() >= Duration::from_secs(seconds)
    });
    assert!(size_max <= SPOOL_SIZE_MAX, "{size_max} bytes are beyond the bound");
    assert_eq!(daemon.metric("splitd_spool_size_max_bytes"), SPOOL_SIZE_MAX);
    assert!(memory_max <= early + MEMORY_GROWTH_KIB_MAX, "from {early} KiB to {memory_max} KiB");
    println!("the spool was full after {:.1} s", full.unwrap_or_default().as_secs_f64());
    println!("the spool's bytes at most {size_max}, of {SPOOL_SIZE_MAX}");
    println!("the logger's own memory {early} KiB at the outage's begin, {memory_max} KiB at most");

    broker.up();
    let begin = Instant::now();
    let after = at_rate(&daemon, "Kafka is back", || {
        std::thread::sleep(Duration::from_millis(200));
        daemon.metric("splitd_exposures_in_spool") == 0
    });
    println!("the spool was empty after {:.1} s", begin.elapsed().as_secs_f64());
    wait_until("everything to be delivered", || {
        daemon.metric("splitd_exposures_in_rings") + daemon.metric("splitd_exposures_in_flight") == 0
            && daemon.metric("splitd_exposures_in_spool") == 0
            && daemon.metric("splitd_exposures_unaccounted") == 0
    });
    let sent = (before.sent + during.sent + after.sent) as usize;
    let evicted = daemon.metric(evicted) as usize;
    assert_eq!(daemon.metric("splitd_exposures_attempted_total") as usize, sent);
    assert_eq!(daemon.stop(), Some(0));
    // What a ring refused while the logger got no CPU.
    let lost = daemon.lost() as usize;
    let mut arrived = Arrived::default();
    listener.finish().iter().for_each(|message| arrived.take(&message.value));
    let (count, doubled) = (arrived.count(), arrived.doubled());
    println!("{sent} sent, {count} arrived, {doubled} of them twice, {evicted} evicted, {lost} refused");
    // What was under way when its segment went may have arrived all the same.
    let known = count + evicted + lost;
    assert!(known >= sent, "{} are neither delivered nor counted", sent - known);
    assert!(known <= sent + 2_000, "{} of the evicted have arrived", known - sent);
    assert!(evicted > 0);
}
