//! The logger's rate to Kafka beside that of librdkafka alone with the same
//! bytes, in turns, to one broker. By hand:
//!
//! ```sh
//! cargo test --release --test process rate:: -- --ignored --nocapture
//! ```

use std::fs;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use splitd::exposure::record::{Exposure, encode};
use splitd::exposure::ring::{self, Account, Identity, Writer};
use splitd::logger;
use splitd::metrics::{self, Table};
use splitd::sys::channel::Channel;
use splitd::sys::region::Region;

use crate::broker::{MockBroker, TOPIC};
use crate::support::wait_until;

const RING_SIZE: usize = 128 << 20;
const BYTES: usize = 100 << 20;
const MESSAGE_SIZE: usize = 64 << 10;
const ROUND_COUNT: usize = 7;

/// Fills a ring with records of the typical size; gives their bytes.
fn fill(region: &Region) -> Vec<u8> {
    let mut writer = Writer::attach(region.words()).unwrap();
    let (mut all, mut record) = (Vec::with_capacity(BYTES), Vec::new());
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
    }
    all
}

/// From the first byte to the last confirmation.
fn alone(broker: &str, bytes: &[u8]) -> Duration {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", broker);
    for (name, value) in logger::kafka::PROPERTIES {
        config.set(*name, *value);
    }
    let producer: BaseProducer = config.create().unwrap();
    let begin = Instant::now();
    for message in bytes.chunks(MESSAGE_SIZE) {
        while producer.send(BaseRecord::<(), [u8]>::to(TOPIC).payload(message)).is_err() {
            producer.poll(Duration::from_millis(1));
        }
        producer.poll(Duration::ZERO);
    }
    producer.flush(Duration::from_secs(60)).unwrap();
    begin.elapsed()
}

fn by_the_logger(broker: &str, instance: u64) -> Duration {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(format!("rings/{instance:016x}/00000"));
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let region = Region::create_file(&path, ring::region_size(RING_SIZE)).unwrap();
    ring::format(region.words(), Identity { instance, ring: 0, slot: 0 });
    fill(&region);
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
    let begin = Instant::now();
    let thread = std::thread::spawn(move || logger::run(options, ours, block));
    wait_until("an empty ring", || Account::read(region.words()).unwrap().in_ring == 0);
    let time = begin.elapsed();
    master.send(logger::Order::Stop.encode(), None).unwrap();
    assert_eq!(thread.join().unwrap(), 0);
    time
}

#[test]
#[ignore = "a measurement, by hand"]
fn the_logger_beside_librdkafka_alone() {
    let bytes = {
        let directory = tempfile::tempdir().unwrap();
        let region =
            Region::create_file(&directory.path().join("ring"), ring::region_size(RING_SIZE)).unwrap();
        ring::format(region.words(), Identity { instance: 1, ring: 0, slot: 0 });
        fill(&region)
    };
    let mut ratios = Vec::new();
    for round in 0..ROUND_COUNT {
        // A broker for each: the mock keeps all it was given.
        let by_logger = by_the_logger(&MockBroker::start().address, 2 + round as u64);
        let by_librdkafka = alone(&MockBroker::start().address, &bytes);
        let rate = |time: Duration| bytes.len() as f64 / time.as_secs_f64() / 1e6;
        ratios.push(rate(by_logger) / rate(by_librdkafka));
        println!(
            "logger {:6.1} MB/s   librdkafka alone {:6.1} MB/s   ratio {:.3}",
            rate(by_logger),
            rate(by_librdkafka),
            ratios[round]
        );
    }
    ratios.sort_by(f64::total_cmp);
    println!(
        "ratio: median {:.3}, quartiles {:.3} to {:.3}",
        ratios[ROUND_COUNT / 2],
        ratios[ROUND_COUNT / 4],
        ratios[ROUND_COUNT * 3 / 4]
    );
}
