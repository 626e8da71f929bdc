//! The processes of an instance, out of the headers of their blocks.

use std::time::Duration;

use crate::clock::Now;
use crate::metrics::{FAMILIES, Family, Process, State, Table, cell_count};

/// A process that turns at least twice a second and has not for so long is
/// stuck, or waits for a CPU: as long as the default of the watchdog.
pub const STUCK_AFTER: Duration = Duration::from_secs(5);

/// How a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// It turns.
    Running,
    /// It finishes what it has.
    Draining,
    /// It is there, and has not turned for [`STUCK_AFTER`].
    Stuck,
    /// There is no such process, and nobody has said that it ended.
    Dead,
    /// It has ended, and its place is empty.
    Ended,
}

/// One process of the instance.
#[derive(Debug, Clone, PartialEq)]
pub struct ProcessView {
    /// `master`, `logger`, `assign/0`.
    pub name: String,
    /// Which of the three.
    pub process: Process,
    /// A worker's slot.
    pub slot: Option<usize>,
    /// Its process id.
    pub pid: u32,
    /// How it is.
    pub health: Health,
    /// Since it began.
    pub age: Duration,
    /// Since it last turned.
    pub turn_age: Duration,
    /// Processes that have had its place before it.
    pub restarts: u64,
    /// Connections open now.
    pub connections: u64,
    /// Requests answered, by all who had its place.
    pub requests: u64,
}

/// Master, logger, workers by slot; one that drains beside its successor.
pub(super) fn processes(table: Table<'_>, now: Now, lives: impl Fn(u32) -> bool) -> Vec<ProcessView> {
    let mut found: Vec<ProcessView> = Vec::new();
    // Pools in the order of their slots, and each one's first slot.
    let mut first_slots: Vec<(String, usize)> = Vec::new();
    for block in table.blocks() {
        let (Some(process), Some(life)) = (block.process(), block.life()) else { continue };
        let name = match (process, block.slot()) {
            (Process::Master, _) => "master".to_owned(),
            (Process::Logger, _) => "logger".to_owned(),
            (Process::Worker, None) => continue,
            (Process::Worker, Some(slot)) => {
                let pool = block.name();
                if !first_slots.iter().any(|(known, _)| *known == pool) {
                    first_slots.push((pool.clone(), slot));
                }
                let first =
                    first_slots.iter().find(|(known, _)| *known == pool).map_or(slot, |(_, first)| *first);
                format!("{pool}/{}", slot - first)
            }
        };
        let turn_age = Duration::from_nanos(now.mono_ns.saturating_sub(life.turn_mono_ns));
        let health = match life.state {
            State::Ended => Health::Ended,
            _ if !lives(life.pid) => Health::Dead,
            // The master waits for as long as nothing happens.
            _ if turn_age > STUCK_AFTER && process != Process::Master => Health::Stuck,
            State::Draining => Health::Draining,
            State::Running => Health::Running,
        };
        let birth_us = u64::try_from(now.unix_us - life.birth_unix_us).unwrap_or(0);
        let requests = (0..cell_count(FAMILIES[Family::Requests as usize].labels))
            .fold(0, |sum: u64, cell| sum.wrapping_add(block.get(Family::Requests, cell)));
        found.push(ProcessView {
            name,
            process,
            slot: block.slot(),
            pid: life.pid,
            health,
            age: Duration::from_micros(birth_us),
            turn_age,
            restarts: life.births,
            connections: block.get(Family::Connections, 0),
            requests,
        });
    }
    join_slots(found)
}

/// A slot's two blocks are one place: who had it before is told only while it
/// still drains, and what it counted goes to whoever has the place now.
fn join_slots(found: Vec<ProcessView>) -> Vec<ProcessView> {
    let mut joined: Vec<ProcessView> = Vec::new();
    for view in found {
        let same = joined.iter_mut().rev().find(|known| view.slot.is_some() && known.slot == view.slot);
        let Some(known) = same else {
            joined.push(view);
            continue;
        };
        let (births, requests) = (known.restarts + view.restarts, known.requests.wrapping_add(view.requests));
        // The younger one has the place.
        let (mut now, before) =
            if view.age <= known.age { (view, known.clone()) } else { (known.clone(), view) };
        (now.restarts, now.requests) = (births, requests);
        *known = now;
        if !matches!(before.health, Health::Ended | Health::Dead) {
            joined.push(ProcessView { restarts: 1, requests: 0, slot: None, ..before });
        }
    }
    for view in &mut joined {
        view.restarts = view.restarts.saturating_sub(1);
    }
    joined
}

/// Whether there is a process of this id, as /proc has it.
#[must_use]
pub fn lives(pid: u32) -> bool {
    std::path::Path::new(&format!("/proc/{pid}")).exists()
}
