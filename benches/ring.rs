//! An exposure of `typical` (26 assignments and the context, about 1.25 KB) into
//! the ring: putting its bytes together, committing them, and both. The ring is
//! cycled through, so its lines are as cold as a worker finds them.
#![allow(missing_docs, reason = "criterion's macros make public items")]

mod typical;

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use splitd::engine::assignment::{Chosen, Decision};
use splitd::engine::attributes::Facts;
use splitd::engine::plan::Plan;
use splitd::exposure::record::{self, Exposure};
use splitd::exposure::ring::{self, ExposureId, Writer};
use splitd::limits::{EXPOSURE_SIZE_MAX, RING_SIZE_DEFAULT};
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

criterion_group!(benches, push);
criterion_main!(benches);
