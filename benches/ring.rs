//! An exposure of `typical` (26 assignments and the context, about 1.25 KB) into
//! the ring: putting its bytes together, committing them, and both. The ring is
//! cycled through, so its lines are as cold as a worker finds them. And the way
//! out: from the ring through the logger into files.
#![allow(missing_docs, reason = "criterion's macros make public items")]

mod typical;

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::{TimeVal, TimeValLike};
use splitd::clock;
use splitd::engine::assignment::{Chosen, Decision};
use splitd::engine::attributes::Facts;
use splitd::engine::plan::Plan;
use splitd::exposure::record::{self, Exposure};
use splitd::exposure::ring::{self, ExposureId, Writer};
use splitd::limits::{EXPOSURE_SIZE_MAX, RING_SIZE_DEFAULT};
use splitd::logger::drain::{Drain, Turn};
use splitd::logger::sources::Sources;
use splitd::logger::{FileOptions, Layout, SinkOptions};
use splitd::metrics::{self, Table};
use splitd::sys::region::Region;
use typical::{EXPERIMENTS, Parsed, bodies, compile};

/// What the endpoint has when it records.
struct Answered<'a> {
    chosen: Vec<Chosen>,
    units: Vec<(String, String)>,
    context: &'a [u8],
}

impl Answered<'_> {
    fn encode(&self, plan: &Plan<'_>, id: ExposureId, out: &mut Vec<u8>) {
        let exposure = Exposure {
            id,
            time_us: 1_795_000_000_000_000,
            version: plan.version(),
            units: self.units.iter().map(|(name, value)| (name.as_str(), value.as_str())),
            assignments: self.chosen.iter().map(|chosen| plan.exposure_fragment(chosen)),
            context: self.context,
        };
        record::encode(out, exposure);
    }
}

fn push(criterion: &mut Criterion) {
    let image = compile(EXPERIMENTS);
    let plan = Plan::attach(image.bytes()).unwrap();
    let (mut facts, mut decision) = (Facts::new(&plan), Decision::new(&plan));
    let answered: Vec<Answered<'_>> = bodies()
        .into_iter()
        .map(|body| {
            let parsed = Parsed::new(&plan, body);
            parsed.tell(&plan, &mut facts);
            plan.decide(&parsed.units(&plan), &facts, &mut decision);
            let attributes = body.find("\"attributes\": ").unwrap() + 14;
            let context = &body.as_bytes()[attributes..body.len() - 1];
            let units = parsed.units(&plan);
            let units = units.iter().map(|unit| (unit.name.to_owned(), unit.value.to_owned())).collect();
            Answered { chosen: decision.chosen().to_vec(), units, context }
        })
        .collect();
    let region = Region::anonymous(ring::region_size(RING_SIZE_DEFAULT)).unwrap();
    region.prefault();
    let identity = ring::Identity { instance: 1, ring: 0, slot: 0 };
    let mut record = Vec::with_capacity(EXPOSURE_SIZE_MAX);
    let mut size_sum = 0;
    for one in &answered {
        one.encode(&plan, ExposureId { instance: 1, ring: 0, seq: 0 }, &mut record);
        size_sum += record.len();
    }
    let mean_size = size_sum / answered.len();
    // As many as surely fit.
    let lap = RING_SIZE_DEFAULT / (2 * mean_size);

    let mut group = criterion.benchmark_group("exposure");
    group.throughput(Throughput::Bytes(mean_size as u64));
    group.bench_function("encode", |bencher| {
        let mut at = answered.iter().cycle();
        bencher.iter(|| {
            at.next().unwrap().encode(&plan, ExposureId { instance: 1, ring: 0, seq: 7 }, &mut record);
            black_box(record.len())
        });
    });
    for (name, encodes) in [("commit", false), ("encode and commit", true)] {
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|count| {
                let (mut time, mut left) = (Duration::ZERO, count as usize);
                let mut at = answered.iter().cycle();
                while left > 0 {
                    // An empty ring over the same pages.
                    ring::format(region.words(), identity);
                    let mut writer = Writer::attach(region.words()).unwrap();
                    let turn = left.min(lap);
                    let begin = Instant::now();
                    for _ in 0..turn {
                        let id = writer.claim();
                        if encodes {
                            at.next().unwrap().encode(&plan, id, &mut record);
                        }
                        writer.commit(black_box(&record)).unwrap();
                    }
                    time += begin.elapsed();
                    left -= turn;
                }
                time
            });
        });
    }
    group.finish();
}

/// CPU time that this process has taken, all threads of it.
fn cpu_time() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    let micros = |time: TimeVal| time.num_microseconds().unsigned_abs();
    Duration::from_micros(micros(usage.user_time()) + micros(usage.system_time()))
}

/// Exposures of 1.25 KB from a ring into the file sink, by the logger's own loop:
/// CPU time, of the drain's thread and the sink's, not the clock's.
fn drain(criterion: &mut Criterion) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(format!("rings/{:016x}/00000", 1));
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let region = Region::create_file(&path, ring::region_size(RING_SIZE_DEFAULT)).unwrap();
    region.prefault();
    ring::format(region.words(), ring::Identity { instance: 1, ring: 0, slot: 0 });
    let mut writer = Writer::attach(region.words()).unwrap();
    let metrics = Region::anonymous(metrics::region_size(1)).unwrap();
    let table = Table::format(metrics.words(), 1);
    let files = FileOptions {
        directory: directory.path().join("exposures"),
        file_size_max: 64 << 20,
        file_age_max: Duration::from_secs(60),
        size_max: 256 << 20,
        age_max: Duration::from_secs(3600),
        sync_interval: Duration::from_millis(200),
    };
    let sink = SinkOptions::File(files, Layout::Request);
    let mut drain = Drain::start(Sources::new(directory.path(), 1), &sink, table.block(0)).unwrap();
    let mut record = Vec::new();
    let mut push = || {
        let id = writer.claim();
        let assignment: &[u8] = &[&[0x2a, 28], [b'x'; 28].as_slice()].concat();
        let exposure = Exposure {
            id,
            time_us: 1_795_000_000_000_000,
            version: "2026-11-22.3",
            units: [("user_id", "3443880")],
            assignments: std::iter::repeat_n(assignment, 26),
            context: &[b'x'; 380],
        };
        record::encode(&mut record, exposure);
        writer.commit(&record).map(|()| record.len())
    };
    let size = push().unwrap();
    let lap = RING_SIZE_DEFAULT / (size + 64);
    let mut group = criterion.benchmark_group("logger");
    group.sampling_mode(SamplingMode::Flat).sample_size(10);
    group.throughput(Throughput::Elements(1));
    group.bench_function(format!("ring to file, {size} bytes, CPU time"), |bencher| {
        bencher.iter_custom(|count| {
            let (mut time, mut left) = (Duration::ZERO, count as usize);
            while left > 0 {
                let turn = left.min(lap);
                for _ in 0..turn {
                    push().unwrap();
                }
                let begin = cpu_time();
                loop {
                    match drain.turn(clock::now()).unwrap() {
                        Turn::Busy => {}
                        Turn::Idle if drain.is_empty() => break,
                        Turn::Idle | Turn::Blocked => std::thread::sleep(Duration::from_millis(1)),
                    }
                }
                time += cpu_time() - begin;
                left -= turn;
            }
            time
        });
    });
    group.finish();
    assert!(drain.finish(Duration::from_secs(10), false));
}

criterion_group!(benches, push, drain);
criterion_main!(benches);
