//! `counted POST|GET COUNT EXPERIMENTS BODIES`: so many requests, read and
//! answered as a worker does, without a socket; or with `DECIDE`, so many
//! decisions alone. `tests/counts.rs` counts its instructions by callgrind.

#[path = "../../benches/rig.rs"]
mod rig;
#[path = "../../benches/typical.rs"]
mod typical;

use std::hint::black_box;

use rig::{DRAIN_EVERY, post, with_rig};
use splitd::engine::assignment::{Decision, Units};
use splitd::engine::attributes::Facts;
use splitd::engine::plan::Plan;
use typical::{Parsed, compile};

/// Six attributes, a type each.
const GET: &str = "GET /v1/assign?user_id=3443880&platform=ios&country=RS&app_version=28.5.4&age=34&is_subscriber=true\
     &days_since_signup=1277 HTTP/1.1\r\nHost: splitd\r\n\r\n";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [kind, count, experiments, bodies] = &arguments[..] else {
        panic!("usage: counted POST|GET|DECIDE COUNT EXPERIMENTS BODIES");
    };
    let count: usize = count.parse().expect("a count of requests");
    if kind == "DECIDE" {
        return decide(count, &read(experiments), &read(bodies));
    }
    let requests: Vec<String> = match kind.as_str() {
        "GET" => vec![GET.to_owned()],
        "POST" => read(bodies).lines().map(post).collect(),
        other => panic!("`{other}` is neither POST nor GET nor DECIDE"),
    };
    with_rig(&read(experiments), |rig| {
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

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|fault| panic!("{path}: {fault}"))
}
