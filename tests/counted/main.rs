//! `counted POST|GET COUNT EXPERIMENTS BODIES`: so many requests, read and
//! answered as a worker does, without a socket. `tests/counts.rs` counts its
//! instructions by callgrind.

#[path = "../../benches/rig.rs"]
mod rig;

use rig::{DRAIN_EVERY, post, with_rig};

/// Six attributes, a type each.
const GET: &str = "GET /v1/assign?user_id=3443880&platform=ios&country=RS&app_version=28.5.4&age=34&is_subscriber=true\
     &days_since_signup=1277 HTTP/1.1\r\nHost: splitd\r\n\r\n";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [kind, count, experiments, bodies] = &arguments[..] else {
        panic!("usage: counted POST|GET COUNT EXPERIMENTS BODIES");
    };
    let count: usize = count.parse().expect("a count of requests");
    let requests: Vec<String> = match kind.as_str() {
        "GET" => vec![GET.to_owned()],
        "POST" => read(bodies).lines().map(post).collect(),
        other => panic!("`{other}` is neither POST nor GET"),
    };
    with_rig(&read(experiments), |rig| {
        // The ring takes them all: a full one would be quicker.
        assert!(count < 20 * DRAIN_EVERY);
        for request in requests.iter().cycle().take(count) {
            assert!(rig.exchange(request.as_bytes()) > 0);
        }
    });
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|fault| panic!("{path}: {fault}"))
}
