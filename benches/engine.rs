//! Deciding: facts and decision on `typical`. How they grow: `benches/growth.rs`.
#![allow(missing_docs, reason = "criterion's macros make public items")]

mod typical;

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use splitd::engine::assignment::{Decision, Units};
use splitd::engine::attributes::Facts;
use splitd::engine::plan::Plan;
use typical::{EXPERIMENTS, Parsed, bodies, compile};

fn on_typical(criterion: &mut Criterion) {
    let image = compile(EXPERIMENTS);
    let plan = Plan::attach(image.bytes()).unwrap();
    let parsed: Vec<Parsed> = bodies().iter().map(|body| Parsed::new(&plan, body)).collect();
    let units: Vec<Units<'_>> = parsed.iter().map(|parsed| parsed.units(&plan)).collect();
    let told: Vec<Facts> = parsed
        .iter()
        .map(|parsed| {
            let mut facts = Facts::new(&plan);
            parsed.tell(&plan, &mut facts);
            facts
        })
        .collect();
    let (mut facts, mut decision) = (Facts::new(&plan), Decision::new(&plan));
    let mut group = criterion.benchmark_group("typical");
    let mut at = (0..parsed.len()).cycle();
    group.bench_function("facts", |bencher| {
        bencher.iter(|| parsed[at.next().unwrap()].tell(&plan, black_box(&mut facts)));
    });
    group.bench_function("decide", |bencher| {
        bencher.iter(|| {
            let at = at.next().unwrap();
            plan.decide(&units[at], &told[at], &mut decision);
            black_box(decision.chosen().len())
        });
    });
    group.bench_function("facts and decide", |bencher| {
        bencher.iter(|| {
            let at = at.next().unwrap();
            parsed[at].tell(&plan, &mut facts);
            plan.decide(&units[at], &facts, &mut decision);
            black_box(decision.chosen().len())
        });
    });
    group.finish();
}

criterion_group!(benches, on_typical);
criterion_main!(benches);
