//! From bytes to bytes: the scanner, and a whole request through connection,
//! endpoint, engine and ring, without sockets. `scripts/bench decision` sets the
//! scanner beside other crates.
#![allow(missing_docs, reason = "criterion's macros make public items")]

mod rig;
mod typical;

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rig::{DRAIN_EVERY, post, with_rig};
use splitd::engine::plan::Plan;
use splitd::http::{MemberOrder, scan_request};
use typical::{EXPERIMENTS, Slots, bodies, by_serde, compile};

fn scan(criterion: &mut Criterion) {
    let image = compile(EXPERIMENTS);
    let plan = Plan::attach(image.bytes()).unwrap();
    let bodies = bodies();
    let mut at = bodies.iter().cycle();
    let mut values = vec![(0, 0); plan.attribute_count()];
    let mut order = MemberOrder::new(values.len());
    let mut scratch = vec![0; bodies.iter().map(|body| body.len()).max().unwrap()];
    let total: usize = bodies.iter().map(|body| body.len()).sum();
    let mut group = criterion.benchmark_group("scan a body into slots");
    group.throughput(Throughput::Bytes((total / bodies.len()) as u64));
    group.bench_function("splitd", |bencher| {
        bencher.iter(|| {
            let mut slots = Slots::new(&plan, &mut values);
            scan_request(at.next().unwrap().as_bytes(), &mut scratch, &mut order, &mut slots).unwrap();
            black_box(&slots);
        });
    });
    group.bench_function("serde_json", |bencher| {
        bencher.iter(|| {
            let mut slots = Slots::new(&plan, &mut values);
            let body = at.next().unwrap().as_bytes();
            by_serde::scan(&mut slots, &mut serde_json::Deserializer::from_slice(body)).unwrap();
            black_box(&slots);
        });
    });
    group.finish();
}

fn whole_request(criterion: &mut Criterion) {
    let posts: Vec<String> = bodies().iter().map(|body| post(body)).collect();
    let gets = vec![
        "GET /v1/assign?user_id=3443880&platform=ios&country=RS&app_version=28.5.4&age=34&is_subscriber=true&days_since_signup=1277 HTTP/1.1\r\nHost: splitd\r\n\r\n"
            .to_owned(),
    ];
    let sixteen: Vec<String> = posts.chunks(16).map(<[String]>::concat).collect();
    let kinds = [
        ("POST", &posts, 1),
        ("POST, 16 in one piece (time of all)", &sixteen, 16),
        ("GET with 6 attributes", &gets, 1),
    ];
    let mut group = criterion.benchmark_group("whole request");
    for (name, requests, depth) in kinds {
        with_rig(EXPERIMENTS, |rig| {
            group.bench_function(name, |bencher| {
                bencher.iter_custom(|count| {
                    let mut time = Duration::ZERO;
                    let mut at = requests.iter().cycle();
                    let mut left = count as usize;
                    while left > 0 {
                        let turn = left.min(DRAIN_EVERY / depth);
                        let begin = Instant::now();
                        for _ in 0..turn {
                            black_box(rig.exchange(at.next().unwrap().as_bytes()));
                        }
                        time += begin.elapsed();
                        left -= turn;
                        // The logger's work, not the worker's. None was refused.
                        assert!(rig.drain() >= turn);
                    }
                    time
                });
            });
        });
    }
    group.finish();
}

criterion_group!(benches, scan, whole_request);
criterion_main!(benches);
