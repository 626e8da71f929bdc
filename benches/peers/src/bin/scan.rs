//! A `typical` body into slots: splitd's scanner beside general JSON crates, each
//! without a tree, in turns within one process. Nanoseconds of CPU time a
//! body, one line of JSON for each.

use std::hint::black_box;

use anyhow::Result;
use peers::typical::{EXPERIMENTS, Slots, bodies, by_serde, compile};
use peers::{Options, pin, thread_ns};
use serde_json::Deserializer;
use splitd::engine::plan::Plan;
use splitd::http::{MemberOrder, scan_request};

type Scan<'p> = Box<dyn FnMut(&[&'static str]) -> u64 + 'p>;

fn main() -> Result<()> {
    let options = Options::read(&["cpu", "rounds"])?;
    pin(options.text("cpu"))?;
    let image = compile(EXPERIMENTS);
    let plan = Plan::attach(image.bytes())?;
    let bodies = bodies();
    let size = bodies.iter().map(|body| body.len()).max().unwrap_or(0);
    let mut peers: Vec<(&str, Scan<'_>)> = vec![
        ("splitd", by_splitd(&plan, size)),
        ("serde_json", by_serde_json(&plan)),
        ("simd-json", by_simd_json(&plan, size)),
        ("sonic-rs", by_sonic(&plan)),
        ("splitd again", by_splitd(&plan, size)),
    ];
    // All found the same, so all did the same work.
    let sums: Vec<u64> = peers.iter_mut().map(|(_, scan)| scan(&bodies)).collect();
    assert!(sums.iter().all(|sum| *sum == sums[0]), "{sums:?}");
    let mut times = vec![Vec::new(); peers.len()];
    for round in 0..options.get("rounds", 200)? {
        for turn in 0..peers.len() {
            // There and back, as A B B A.
            let which = if round % 2 == 0 { turn } else { peers.len() - 1 - turn };
            let begin = thread_ns();
            for _ in 0..5 {
                black_box(peers[which].1(black_box(&bodies)));
            }
            times[which].push((thread_ns() - begin) as f64 / (5 * bodies.len()) as f64);
        }
    }
    for ((name, _), times) in peers.iter().zip(&times) {
        println!("{{\"name\":\"{name}\",\"ns\":{times:?}}}");
    }
    Ok(())
}

fn sum(slots: &Slots<'_, '_>) -> u64 {
    let units: usize = slots.units.iter().map(|(name, value)| name.len() * value.len()).sum();
    slots.values.iter().fold(units as u64, |sum, &(kind, value)| {
        sum.rotate_left(5).wrapping_add(value).wrapping_add(u64::from(kind))
    })
}

/// One body after the other into the same slots.
fn each(bodies: &[&'static str], mut scan: impl FnMut(&'static str) -> u64) -> u64 {
    bodies.iter().fold(0, |total: u64, body| total.wrapping_mul(31).wrapping_add(scan(body)))
}

fn slots(plan: &Plan<'_>) -> Vec<(u8, u64)> {
    vec![(0, 0); plan.attribute_count()]
}

fn by_splitd<'p>(plan: &'p Plan<'p>, size: usize) -> Scan<'p> {
    let (mut values, mut scratch) = (slots(plan), vec![0; size]);
    let mut order = MemberOrder::new(values.len());
    Box::new(move |bodies| {
        each(bodies, |body| {
            let mut slots = Slots::new(plan, &mut values);
            scan_request(body.as_bytes(), &mut scratch, &mut order, &mut slots).expect("sound bodies");
            sum(&slots)
        })
    })
}

fn by_serde_json<'p>(plan: &'p Plan<'p>) -> Scan<'p> {
    let mut values = slots(plan);
    Box::new(move |bodies| {
        each(bodies, |body| {
            let mut slots = Slots::new(plan, &mut values);
            by_serde::scan(&mut slots, &mut Deserializer::from_slice(body.as_bytes())).expect("sound bodies");
            sum(&slots)
        })
    })
}

fn by_simd_json<'p>(plan: &'p Plan<'p>, size: usize) -> Scan<'p> {
    let mut values = slots(plan);
    let mut buffers = simd_json::Buffers::new(size);
    let mut copy = vec![0; size];
    Box::new(move |bodies| {
        each(bodies, |body| {
            // It unescapes in place; a worker's read buffer would allow that too,
            // but here each body is read again, so it works on a copy.
            let copy = &mut copy[..body.len()];
            copy.copy_from_slice(body.as_bytes());
            let mut deserializer =
                simd_json::Deserializer::from_slice_with_buffers(copy, &mut buffers).expect("sound bodies");
            let mut slots = Slots::new(plan, &mut values);
            by_serde::scan(&mut slots, &mut deserializer).expect("sound bodies");
            sum(&slots)
        })
    })
}

fn by_sonic<'p>(plan: &'p Plan<'p>) -> Scan<'p> {
    let mut values = slots(plan);
    Box::new(move |bodies| {
        each(bodies, |body| {
            let mut slots = Slots::new(plan, &mut values);
            by_serde::scan(&mut slots, &mut sonic_rs::Deserializer::from_slice(body.as_bytes()))
                .expect("sound bodies");
            sum(&slots)
        })
    })
}
