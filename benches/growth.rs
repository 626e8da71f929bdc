//! What a decision costs as a plan grows in each direction, as a table: the plan's
//! size, what checking and compiling its file takes, a request's facts, and the
//! decision alone, on the users of the `typical` vectors.
//!
//! `cargo bench --bench growth [-- WORDS]`: the rows whose heading has the words.
//! Times are the least of many rounds: what it costs when nothing else wants the core.

mod plans;
mod typical;

use std::hint::black_box;
use std::time::{Duration, Instant};

use plans::{Shape, experiments_file};
use splitd::engine::assignment::{Decision, Units};
use splitd::engine::attributes::Facts;
use splitd::engine::plan::Plan;
use typical::{Parsed, bodies, compile};

/// How long a row is measured at least, and in how many rounds.
const ROW_TIME: Duration = Duration::from_millis(300);
const ROUND_COUNT_MIN: usize = 5;

fn main() {
    let asked: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    for (heading, shapes) in rows() {
        if !asked.iter().all(|word| heading.contains(&**word)) {
            continue;
        }
        println!(
            "\n{:<44}{:>10}{:>12}{:>12}{:>14}",
            heading, "plan KiB", "compile ms", "facts us", "decision us"
        );
        for (what, shape) in shapes {
            let row = measure(&shape);
            println!(
                "{what:>42}  {:>10.0}{:>12.1}{:>12.2}{:>14.2}",
                row.plan_kib, row.compile_ms, row.facts_us, row.decision_us
            );
        }
    }
}

/// Every direction, and its sizes.
fn rows() -> Vec<(&'static str, Vec<(String, Shape)>)> {
    fn row<const N: usize>(
        heading: &'static str,
        sizes: [usize; N],
        shape: impl Fn(usize) -> Shape,
    ) -> (&'static str, Vec<(String, Shape)>) {
        (heading, sizes.map(|size| (size.to_string(), shape(size))).into())
    }
    let usual = Shape::default;
    let mut rows = vec![
        row("experiments (8 layers for 10)", [100, 1000, 10_000], Shape::of),
        row("layers, 1,000 experiments", [1, 10, 80, 1000], |layer_count| Shape {
            layer_count,
            experiment_count: 1000,
            ..usual()
        }),
        row("experiments a layer, 80 layers", [1, 4, 16, 64], |sharers| Shape {
            experiment_count: 80 * sharers,
            ..usual()
        }),
        row("blocks a group", [1, 4, 32, 256, 1000], |block_count| Shape { block_count, ..usual() }),
        row("conditions a segment", [0, 1, 4, 16, 64], |leaf_count| Shape { leaf_count, ..usual() }),
        row("units in each experiment's overrides", [0, 1, 100, 10_000], |override_count| Shape {
            override_count,
            ..usual()
        }),
    ];
    for (heading, attribute) in [
        ("texts in each of 10 lists", "city"),
        ("numbers in each of 10 lists", "age"),
        ("versions in each of 10 lists", "app_version"),
    ] {
        rows.push(row(heading, [10, 1000, 100_000], |list_size| Shape {
            operator: Some((attribute, "in")),
            list_size,
            leaf_count: 1,
            ..Shape::of(10)
        }));
    }
    for (heading, operator) in [
        ("different starts_with of one attribute", "starts_with"),
        ("different contains of one attribute", "contains"),
    ] {
        rows.push(row(heading, [10, 100, 1000], |count| Shape {
            operator: Some(("signup_source", operator)),
            leaf_count: count / 10,
            ..Shape::of(10)
        }));
    }
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
        let shape = Shape { operator: Some(operator), ..Shape::of(experiment_count) };
        (format!("{} {}", operator.0, operator.1), shape)
    });
    rows.push(("one operator, 4 conditions a segment", operators.into()));
    rows
}

struct Row {
    plan_kib: f64,
    compile_ms: f64,
    facts_us: f64,
    decision_us: f64,
}

fn measure(shape: &Shape) -> Row {
    let file = experiments_file(shape);
    let start = Instant::now();
    let image = compile(&file);
    let compile_ms = start.elapsed().as_secs_f64() * 1e3;
    let plan = Plan::attach(image.bytes()).expect("a plan just compiled");
    let parsed: Vec<Parsed> = bodies().iter().map(|body| Parsed::new(&plan, body)).collect();
    let units: Vec<Units<'_>> = parsed.iter().map(|parsed| parsed.units(&plan)).collect();
    let mut facts: Vec<Facts> = parsed.iter().map(|_| Facts::new(&plan)).collect();
    let mut decision = Decision::new(&plan);
    let facts_us = least_us(parsed.len(), |at| parsed[at].tell(&plan, &mut facts[at]));
    let decision_us = least_us(parsed.len(), |at| {
        plan.decide(&units[at], &facts[at], &mut decision);
        black_box(decision.chosen().len());
    });
    Row { plan_kib: image.bytes().len() as f64 / 1024.0, compile_ms, facts_us, decision_us }
}

/// Microseconds of one, in the best round over all.
fn least_us(count: usize, mut one: impl FnMut(usize)) -> f64 {
    let start = Instant::now();
    let mut least = f64::MAX;
    let mut round_count = 0;
    while round_count < ROUND_COUNT_MIN || start.elapsed() < ROW_TIME {
        let round = Instant::now();
        (0..count).for_each(&mut one);
        least = least.min(round.elapsed().as_secs_f64() * 1e6 / count as f64);
        round_count += 1;
    }
    least
}
