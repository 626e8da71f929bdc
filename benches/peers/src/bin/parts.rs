//! A worker's own work, without sockets: a whole request from bytes to bytes with
//! its exposure in the ring, and the exposure alone. Nanoseconds of CPU time
//! each, one line of JSON for each.

use std::hint::black_box;

use anyhow::{Context, Result};
use peers::typical::{EXPERIMENTS, Parsed, bodies, compile};
use peers::{Options, pin, thread_ns};
use rig::{DRAIN_EVERY, post, with_rig};
use splitd::engine::assignment::Decision;
use splitd::engine::attributes::Facts;
use splitd::engine::plan::Plan;
use splitd::exposure::record::{self, Exposure};
use splitd::exposure::ring::{self, Writer};
use splitd::limits::{EXPOSURE_SIZE_MAX, RING_SIZE_DEFAULT};
use splitd::sys::region::Region;

#[path = "../../../rig.rs"]
mod rig;

const GET: &str = "GET /v1/assign?user_id=3443880&platform=ios&country=RS&app_version=28.5.4&age=34&is_subscriber=true\
     &days_since_signup=1277 HTTP/1.1\r\nHost: splitd\r\n\r\n";

fn main() -> Result<()> {
    let options = Options::read(&["cpu", "rounds"])?;
    pin(options.text("cpu"))?;
    let posts: Vec<String> = bodies().iter().map(|body| post(body)).collect();
    let gets = vec![GET.to_owned()];
    let rounds = options.get("rounds", 100)?;
    let mut times = vec![Vec::new(); 3];
    with_rig(EXPERIMENTS, |rig| -> Result<()> {
        for _ in 0..rounds {
            for (times, requests) in times.iter_mut().zip([&posts, &gets]) {
                let begin = thread_ns();
                for request in requests.iter().cycle().take(DRAIN_EVERY) {
                    black_box(rig.exchange(request.as_bytes()));
                }
                times.push((thread_ns() - begin) as f64 / DRAIN_EVERY as f64);
                // The logger's work, not the worker's.
                anyhow::ensure!(rig.drain() == DRAIN_EVERY, "the ring refused");
            }
        }
        Ok(())
    })?;
    // Not in turns with the others, whose ring is large enough to push this one out of the caches.
    let mut push = pushes()?;
    times[2] = (0..rounds).map(|_| push()).collect();
    for (name, times) in ["POST", "GET", "exposure"].iter().zip(&times) {
        println!("{{\"name\":\"{name}\",\"ns\":{times:?}}}");
    }
    Ok(())
}

/// Puts `typical` exposures together and commits them to a ring; nanoseconds each.
fn pushes() -> Result<impl FnMut() -> f64> {
    // They live as long as the program.
    let image = Box::leak(Box::new(compile(EXPERIMENTS)));
    let plan: &'static Plan<'static> = Box::leak(Box::new(Plan::attach(image.bytes())?));
    let region: &'static Region =
        Box::leak(Box::new(Region::anonymous(ring::region_size(RING_SIZE_DEFAULT)).context("memory")?));
    region.prefault();
    let (mut facts, mut decision) = (Facts::new(plan), Decision::new(plan));
    let answered: Vec<_> = bodies()
        .into_iter()
        .map(|body| {
            let parsed = Parsed::new(plan, body);
            parsed.tell(plan, &mut facts);
            plan.decide(&parsed.units(plan), &facts, &mut decision);
            let attributes = body.find("\"attributes\": ").expect("every body has them") + 14;
            let units: Vec<(String, String)> =
                parsed.units(plan).iter().map(|unit| (unit.name.to_owned(), unit.value.to_owned())).collect();
            (decision.chosen().to_vec(), units, &body.as_bytes()[attributes..body.len() - 1])
        })
        .collect();
    let mut bytes = Vec::with_capacity(EXPOSURE_SIZE_MAX);
    let identity = ring::Identity { instance: 1, ring: 0, slot: 0 };
    Ok(move || {
        // An empty ring over the same pages; half of it is cycled through, so that
        // its lines are as cold as a worker finds them.
        ring::format(region.words(), identity);
        let mut writer = Writer::attach(region.words()).expect("a ring made just now");
        let count = RING_SIZE_DEFAULT / 2 / 1500;
        let begin = thread_ns();
        for (chosen, units, context) in answered.iter().cycle().take(count) {
            let exposure = Exposure {
                id: writer.claim(),
                time_us: 1_795_000_000_000_000,
                version: plan.version(),
                units: units.iter().map(|(name, value)| (name.as_str(), value.as_str())),
                assignments: chosen.iter().map(|chosen| plan.exposure_fragment(chosen)),
                context,
            };
            record::encode(&mut bytes, exposure);
            writer.commit(&bytes).expect("room");
        }
        (thread_ns() - begin) as f64 / count as f64
    })
}
