//! Deciding: facts and decision on `typical`, and what the decision costs as a
//! plan grows in each direction.
#![allow(missing_docs, reason = "criterion's macros make public items")]

mod plans;
mod typical;

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use plans::{Shape, experiments_file};
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

/// One line of growth: facts and decision over a plan of each shape.
fn grow<N: std::fmt::Display>(
    criterion: &mut Criterion,
    what: &str,
    shapes: impl IntoIterator<Item = (N, Shape)>,
) {
    let mut group = criterion.benchmark_group(what);
    group.sample_size(20).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    for (name, shape) in shapes {
        let image = compile(&experiments_file(&shape));
        let plan = Plan::attach(image.bytes()).unwrap();
        let parsed: Vec<Parsed> = bodies().iter().map(|body| Parsed::new(&plan, body)).collect();
        let units: Vec<Units<'_>> = parsed.iter().map(|parsed| parsed.units(&plan)).collect();
        let (mut facts, mut decision) = (Facts::new(&plan), Decision::new(&plan));
        let mut at = (0..parsed.len()).cycle();
        group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
            bencher.iter(|| {
                let at = at.next().unwrap();
                parsed[at].tell(&plan, &mut facts);
                plan.decide(&units[at], &facts, &mut decision);
                black_box(decision.chosen().len())
            });
        });
    }
    group.finish();
}

fn growth(criterion: &mut Criterion) {
    let usual = Shape::default;
    grow(criterion, "experiments", [100, 1000, 10_000].map(|count| (count, Shape::of(count))));
    let layers = [1, 10, 80, 1000]
        .map(|count| (count, Shape { layer_count: count, experiment_count: 1000, ..usual() }));
    grow(criterion, "layers of 1,000 experiments", layers);
    let sharing = [1, 4, 16, 64].map(|count| (count, Shape { experiment_count: 80 * count, ..usual() }));
    grow(criterion, "experiments a layer, 80 layers", sharing);
    let blocks = [1, 4, 32, 256, 1000].map(|count| (count, Shape { block_count: count, ..usual() }));
    grow(criterion, "blocks a group", blocks);
    let leaves = [0, 1, 4, 16, 64].map(|count| (count, Shape { leaf_count: count, ..usual() }));
    grow(criterion, "conditions a segment", leaves);
    let operators = [
        ("app_version", "gte"),
        ("age", "lt"),
        ("country", "eq"),
        ("country", "in"),
        ("platform", "not_in"),
        ("device_model", "starts_with"),
        ("device_model", "contains"),
        ("city", "matches"),
        ("is_subscriber", "eq"),
        ("subscriptions", "contains_any"),
        ("subscriptions", "contains_all"),
    ];
    let operators = operators.map(|operator| {
        // Regular expressions are bounded by their tables' size, not their number.
        let experiment_count = if operator.1 == "matches" { 50 } else { 100 };
        (
            format!("{} {}", operator.0, operator.1),
            Shape { operator: Some(operator), ..Shape::of(experiment_count) },
        )
    });
    grow(criterion, "one operator", operators);
    let lists = [10, 1000, 10_000].map(|count| {
        (count, Shape { operator: Some(("city", "in")), list_size: count, leaf_count: 1, ..usual() })
    });
    grow(criterion, "ids in each of 100 lists", lists);
}

criterion_group!(benches, on_typical, growth);
criterion_main!(benches);
