//! The logger's rate to Kafka beside that of librdkafka alone with the same bytes
//! and settings, and the CPU time that each takes (the broker is another process),
//! in turns and in alternating order. By hand:
//!
//! ```sh
//! cargo test --release --test process rate:: -- --ignored --nocapture
//! ```

use std::fs;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;
use rdkafka::config::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use splitd::exposure::record::{Exposure, encode};
use splitd::exposure::ring::{self, Identity, Writer};
use splitd::logger;
use splitd::metrics::{self, Family, Table};
use splitd::sys::channel::Channel;
use splitd::sys::region::Region;

use crate::broker::{MockBroker, TOPIC};
use crate::support::wait_until;

const RING_SIZE: usize = 128 << 20;
const BYTES: usize = 100 << 20;
const MESSAGE_SIZE: usize = 64 << 10;
const ROUND_COUNT: usize = 7;

/// How long something took, and how much of this process's CPU time.
#[derive(Clone, Copy)]
struct Cost {
    time: Duration,
    cpu: Duration,
}

impl Cost {
    fn of(work: impl FnOnce()) -> Cost {
        let cpu = || {
            let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
            let spent = |time: nix::sys::time::TimeVal| Duration::from_micros(time.num_microseconds() as u64);
            spent(usage.user_time()) + spent(usage.system_time())
        };
        let (begin, before) = (Instant::now(), cpu());
        work();
        Cost { time: begin.elapsed(), cpu: cpu() - before }
    }
}

/// Fills a ring with records of the typical size; gives their bytes and how many they are.
fn fill(region: &Region) -> (Vec<u8>, u64) {
    let mut writer = Writer::attach(region.words()).unwrap();
    let (mut all, mut record, mut count) = (Vec::with_capacity(BYTES), Vec::new(), 0);
    let mut context = vec![0; 1_200];
    let mut random = 1_u64;
    while all.len() < BYTES {
        // About as compressible as attributes are.
        for byte in &mut context {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            *byte = b"abcdefgh\":,{ }12"[(random >> 60) as usize];
        }
        let id = writer.claim();
        encode(
            &mut record,
            Exposure { id, time_us: 1, version: "v", units: [], assignments: [], context: &context },
        );
        writer.commit(&record).unwrap();
        all.extend_from_slice(&record);
        count += 1;
    }
    (all, count)
}

/// From the first byte to the last confirmation.
fn alone(broker: &str, bytes: &[u8]) -> Cost {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", broker);
    for (name, value) in logger::kafka::PROPERTIES {
        config.set(*name, *value);
    }
    Cost::of(|| {
        let producer: BaseProducer = config.create().unwrap();
        for message in bytes.chunks(MESSAGE_SIZE) {
            while producer.send(BaseRecord::<(), [u8]>::to(TOPIC).payload(message)).is_err() {
                producer.poll(Duration::from_millis(1));
            }
            producer.poll(Duration::ZERO);
        }
        producer.flush(Duration::from_secs(60)).unwrap();
    })
}

fn by_the_logger(broker: &str, instance: u64) -> Cost {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(format!("rings/{instance:016x}/00000"));
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let region = Region::create_file(&path, ring::region_size(RING_SIZE)).unwrap();
    ring::format(region.words(), Identity { instance, ring: 0, slot: 0 });
    let (_, count) = fill(&region);
    let words: Vec<AtomicU64> = (0..metrics::region_size(1) / 8).map(|_| AtomicU64::new(0)).collect();
    let words: &'static [AtomicU64] = words.leak();
    let block = Table::format(words, 1).block(0);
    let options = logger::Options {
        runtime_dir: directory.path().to_owned(),
        instance,
        master: None,
        nice: 0,
        sink: logger::SinkOptions::Kafka(
            Box::new(logger::kafka::Options {
                brokers: broker.to_owned(),
                topic: TOPIC.to_owned(),
                batch: true,
                message_size: MESSAGE_SIZE,
                ..Default::default()
            }),
            Box::new(logger::SpoolOptions {
                directory: directory.path().join("spool"),
                bounds: logger::spool::Options {
                    size_max: 1 << 30,
                    free_min: 0,
                    age_max: Duration::from_secs(3600),
                    when_full: logger::spool::WhenFull::Oldest,
                    sync_interval: Duration::from_millis(200),
                    segment_size: logger::spool::SEGMENT_SIZE,
                },
                replay_rate: 1 << 30,
            }),
        ),
        traces: None,
    };
    let (master, ours) = Channel::pair().unwrap();
    let mut thread = None;
    let cost = Cost::of(|| {
        thread = Some(std::thread::spawn(move || logger::run(options, ours, block)));
        wait_until("all to be confirmed", || block.get(Family::ExposuresDelivered, 0) == count);
    });
    master.send(logger::Order::Stop.encode(), None).unwrap();
    assert_eq!(thread.expect("started").join().unwrap(), 0);
    cost
}

/// Its quartiles.
fn quartiles(mut values: Vec<f64>) -> String {
    values.sort_by(f64::total_cmp);
    let at = |quarter: usize| values[values.len() * quarter / 4];
    format!("median {:.3}, quartiles {:.3} to {:.3}", at(2), at(1), at(3))
}

#[test]
#[ignore = "a measurement, by hand"]
fn the_logger_beside_librdkafka_alone() {
    let (bytes, _) = {
        let directory = tempfile::tempdir().unwrap();
        let region =
            Region::create_file(&directory.path().join("ring"), ring::region_size(RING_SIZE)).unwrap();
        ring::format(region.words(), Identity { instance: 1, ring: 0, slot: 0 });
        fill(&region)
    };
    let (mut rates, mut cpus) = (Vec::new(), Vec::new());
    for round in 0..ROUND_COUNT {
        // A broker for each: the mock keeps what it was given.
        let logger = || by_the_logger(&MockBroker::start().address, 2 + round as u64);
        let client = || alone(&MockBroker::start().address, &bytes);
        let (logger, client) = match round % 2 {
            0 => (logger(), client()),
            _ => {
                let client = client();
                (logger(), client)
            }
        };
        let rate = |cost: Cost| bytes.len() as f64 / cost.time.as_secs_f64() / 1e6;
        let cpu = |cost: Cost| cost.cpu.as_secs_f64() * 1e9 / bytes.len() as f64;
        println!(
            "logger {:6.1} MB/s, {:.2} ns of CPU a byte   librdkafka alone {:6.1} MB/s, {:.2} ns",
            rate(logger),
            cpu(logger),
            rate(client),
            cpu(client)
        );
        rates.push(rate(logger) / rate(client));
        cpus.push(cpu(logger) / cpu(client));
    }
    println!("rate, logger / librdkafka alone: {}", quartiles(rates));
    println!("CPU time, the same: {}", quartiles(cpus));
}
