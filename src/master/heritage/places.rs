//! The slots, pool after pool, and whether this machine has what they ask for.

use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;

use super::estate::{route_groups, worker_io};
use super::{Heritage, HeritageFault};
use crate::config::settings::{Fault, Pool, Route, Settings};
use crate::endpoint::RouteGroup;
use crate::limits;
use crate::worker;

/// One worker's place in the instance.
#[derive(Debug, Clone)]
pub struct Place {
    /// Its pool, by the settings' order.
    pub pool: usize,
    /// Its number in the pool.
    pub index: usize,
    /// The CPU it is pinned to.
    pub cpu: Option<usize>,
    /// `assign/0`.
    pub name: String,
    /// Whether its routes record exposures.
    pub(super) records: bool,
    /// Whether its requests are traced, if any are: those that ask for a decision.
    pub(super) traced: bool,
}

impl Heritage {
    /// Where the workers of these settings would be, if they could serve here.
    ///
    /// # Errors
    /// A setting that the machine contradicts.
    pub fn check(settings: &Settings) -> Result<Vec<Place>, HeritageFault> {
        let places = places(settings, &available_cpus()?)?;
        can_serve(settings)?;
        Ok(places)
    }
}

/// Whose first worker answers HAProxy's agent: the last pool that speaks of the
/// instance's health, `admin` unless the file says otherwise. A worker takes a
/// connection, writes its line and closes, in one turn of its loop; a process
/// for that alone would be one more to watch, and the master does no I/O.
pub(super) fn agent_pool(pools: &[Pool]) -> usize {
    pools.iter().rposition(|pool| pool.routes.contains(&Route::Health)).unwrap_or(pools.len() - 1)
}

fn places(settings: &Settings, cpus: &[usize]) -> Result<Vec<Place>, HeritageFault> {
    settings.worker_counts(cpus).map_err(HeritageFault::Setting)?;
    let mut places = Vec::new();
    for (number, pool) in settings.pools.iter().enumerate() {
        let cpus = pool.worker_cpus(cpus).map_err(HeritageFault::Setting)?;
        let records = route_groups(pool).into_iter().any(RouteGroup::records);
        let traced = records || pool.routes.contains(&Route::Explain);
        places.extend(cpus.into_iter().enumerate().map(|(index, cpu)| Place {
            pool: number,
            index,
            cpu,
            name: format!("{}/{index}", pool.name),
            records,
            traced,
        }));
    }
    if places.len() > limits::SLOT_COUNT_MAX {
        return Err(HeritageFault::TooManyWorkers { count: places.len() });
    }
    Ok(places)
}

/// A backend that was asked for by name and can't be had is a fault of the
/// settings, found before a worker dies of it.
fn can_serve(settings: &Settings) -> Result<(), HeritageFault> {
    for pool in &settings.pools {
        if let Some(refusal) = worker::refusal(worker_io(pool.io)) {
            let message = format!("{refusal}; `auto` or `epoll` would be right here");
            return Err(HeritageFault::Setting(Fault { pointer: format!("pool.{}.io", pool.name), message }));
        }
    }
    Ok(())
}

/// The CPUs that this process may run on.
///
/// # Errors
/// If the system does not tell.
pub fn available_cpus() -> Result<Vec<usize>, HeritageFault> {
    let set = sched_getaffinity(Pid::from_raw(0))
        .map_err(|error| HeritageFault::System { what: "its list of CPUs", reason: error.to_string() })?;
    Ok((0..CpuSet::count()).filter(|cpu| set.is_set(*cpu).unwrap_or(false)).collect())
}
