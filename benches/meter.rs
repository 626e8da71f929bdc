//! What counting costs a request of the `typical` vectors: rounds with and without
//! each part in turns, and the difference of neighbours.
//!
//! `cargo bench --bench meter`

mod metering;
mod rig;
mod typical;

use std::hint::black_box;
use std::time::Instant;

use metering::{Meter, decisions};
use rig::{post, with_rig};
use splitd::clock;
use splitd::endpoint;
use splitd::engine::assignment::Chosen;
use splitd::engine::plan::Plan;
use splitd::metrics::{self, Process, Table};
use splitd::sys::region::Region;
use typical::{EXPERIMENTS, bodies, compile};

/// Pairs of rounds, and requests of each: all 300 vectors.
const PAIR_COUNT: usize = 401;
/// The part is done so many times more, so that it stands out of the noise.
const TIMES: u32 = 8;

fn main() {
    let image = compile(EXPERIMENTS);
    let plan = Plan::attach(image.bytes()).expect("a plan made just now");
    let region = Region::anonymous(metrics::region_size(1)).expect("memory");
    let table = Table::format(region.words(), 1);
    table.block(0).claim(Process::Worker, "assign");
    endpoint::learn(image.bytes(), table).expect("a plan made just now");
    let bodies = bodies();
    let chosen = decisions(&plan, &bodies);
    let requests: Vec<String> = bodies.iter().map(|body| post(body)).collect();
    let assigned = chosen.iter().map(Vec::len).sum::<usize>() as f64 / chosen.len() as f64;
    println!("added to a request, ns: median of {PAIR_COUNT} pairs (quartiles)");

    let mut meter = Meter::new(&plan, table);
    let mut turn_ns = 1;
    let mut turn = move || {
        turn_ns += 20_000;
        [turn_ns, turn_ns + 10_000]
    };
    let mut add = |name: &str, part: &mut dyn FnMut(&mut Meter<'_, '_>, &[Chosen])| {
        let mut differences = with_rig(EXPERIMENTS, |rig| {
            let mut round = |times: u32| {
                let begin = Instant::now();
                for (request, chosen) in requests.iter().zip(&chosen) {
                    black_box(rig.exchange(request.as_bytes()));
                    for _ in 0..times {
                        part(&mut meter, black_box(chosen));
                    }
                }
                let took_ns = begin.elapsed().as_nanos() as f64;
                assert_eq!(rig.drain(), requests.len());
                took_ns / requests.len() as f64
            };
            let pair = |index: usize| match index % 2 {
                0 => -(round(0) - round(TIMES)),
                _ => round(TIMES) - round(0),
            };
            (0..PAIR_COUNT).map(pair).map(|ns| ns / f64::from(TIMES)).collect::<Vec<f64>>()
        });
        differences.sort_by(f64::total_cmp);
        let [low, median, high] = [1, 2, 3].map(|quarter| differences[PAIR_COUNT * quarter / 4]);
        println!("{name:<52}{median:7.1} ({low:.1} to {high:.1})");
    };
    add("stopwatch, three histograms, requests by status", &mut |meter, _| meter.time(turn(), || 0));
    add("the same with its reading of the clock", &mut |meter, _| meter.time(turn(), clock::mono_ns));
    add(&format!("counters of {assigned:.1} assignments"), &mut |meter, chosen| meter.tally(chosen));
}
