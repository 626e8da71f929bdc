//! `counted POST|GET COUNT EXPERIMENTS BODIES`: so many requests, read and
//! answered as a worker does, without a socket; with `TRACED` POSTs while tracing
//! is on, with `KEPT` every one with its spans; or with `DECIDE`, so many
//! decisions alone; or with `METER`, what is counted of so many requests alone.
//! `tests/counts.rs` counts its instructions by callgrind.

#[path = "../../benches/metering.rs"]
mod metering;
#[path = "../../benches/rig.rs"]
mod rig;
#[path = "../../benches/typical.rs"]
mod typical;

use std::hint::black_box;
use std::time::Duration;

use metering::{Meter, decisions};
use rig::{DRAIN_EVERY, post, with_traced_rig};
use splitd::endpoint;
use splitd::engine::assignment::{Decision, Units};
use splitd::engine::attributes::Facts;
use splitd::engine::plan::Plan;
use splitd::metrics::{self, Table};
use splitd::sys::region::Region;
use splitd::trace;
use typical::{Parsed, compile};

/// Six attributes, a type each.
const GET: &str = "GET /v1/assign?user_id=3443880&platform=ios&country=RS&app_version=28.5.4&age=34&is_subscriber=true\
     &days_since_signup=1277 HTTP/1.1\r\nHost: splitd\r\n\r\n";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [kind, count, experiments, bodies] = &arguments[..] else {
        panic!("usage: counted POST|GET|TRACED|KEPT|DECIDE|METER COUNT EXPERIMENTS BODIES");
    };
    let count: usize = count.parse().expect("a count of requests");
    if kind == "DECIDE" {
        return decide(count, &read(experiments), &read(bodies));
    }
    if kind == "METER" {
        return meter(count, &read(experiments), &read(bodies));
    }
    let requests: Vec<String> = match kind.as_str() {
        "GET" => vec![GET.to_owned()],
        "POST" | "TRACED" | "KEPT" => read(bodies).lines().map(post).collect(),
        other => panic!("`{other}` is none of POST, GET, TRACED, KEPT, DECIDE, METER"),
    };
    // As the settings have it.
    let usual = trace::Options { rate: 0.001, header: true, slowest: Some(Duration::from_secs(1)) };
    let tracing = match kind.as_str() {
        "TRACED" => Some(usual),
        "KEPT" => Some(trace::Options { rate: 1.0, ..usual }),
        _ => None,
    };
    with_traced_rig(&read(experiments), tracing, |rig| {
        // The ring takes them all: a full one would be quicker.
        assert!(count < 20 * DRAIN_EVERY);
        for request in requests.iter().cycle().take(count) {
            assert!(rig.exchange(request.as_bytes()) > 0);
        }
    });
}

fn decide(count: usize, experiments: &str, bodies: &str) {
    let image = compile(experiments);
    let plan = Plan::open(image.bytes()).expect("a plan made just now");
    let parsed: Vec<Parsed> = bodies.lines().map(|body| Parsed::new(&plan, body)).collect();
    let units: Vec<Units<'_>> = parsed.iter().map(|parsed| parsed.units(&plan)).collect();
    let mut facts: Vec<Facts> = parsed.iter().map(|_| Facts::new(&plan)).collect();
    parsed.iter().zip(&mut facts).for_each(|(parsed, facts)| parsed.tell(&plan, facts));
    let mut decision = Decision::new(&plan);
    for (units, facts) in units.iter().zip(&facts).cycle().take(count) {
        plan.decide(units, facts, black_box(&mut decision));
        assert!(decision.chosen().len() <= plan.experiment_count());
    }
}

fn meter(count: usize, experiments: &str, bodies: &str) {
    let image = compile(experiments);
    let plan = Plan::open(image.bytes()).expect("a plan made just now");
    let region = Region::anonymous(metrics::region_size(1)).expect("memory");
    let table = Table::format(region.words(), 1);
    endpoint::learn(image.bytes(), table).expect("a plan made just now");
    let chosen = decisions(&plan, &bodies.lines().collect::<Vec<_>>());
    let mut meter = Meter::new(&plan, table);
    for (index, chosen) in chosen.iter().cycle().take(count).enumerate() {
        let begin_ns = 1 + index as u64 * 20_000;
        meter.time([begin_ns, begin_ns + 10_000], || black_box(begin_ns + 8_000));
        meter.tally(black_box(chosen));
    }
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|fault| panic!("{path}: {fault}"))
}
