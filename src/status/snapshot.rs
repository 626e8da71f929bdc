//! Plain structs out of shared words.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use super::assignments::Assignments;
use crate::clock::Now;
use crate::exposure::ring::{Account, RingFault};
use crate::metrics::audit::Audit;
use crate::metrics::board::Line;
use crate::metrics::histogram::Histogram;
use crate::metrics::{
    FAMILIES, Family, Kind, MASTER_BLOCK, Process, State, Table, cell_count, instance_state,
};

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

/// One ring.
#[derive(Debug, Clone, PartialEq)]
pub struct RingView {
    /// The worker's slot.
    pub slot: usize,
    /// Which of the slot's two.
    pub which: usize,
    /// Its books, or why it can't be read.
    pub account: Result<Account, RingFault>,
}

/// The spool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpoolView {
    /// Bytes of its segments.
    pub size: u64,
    /// The most they may be.
    pub size_max: u64,
    /// Exposures that wait in it.
    pub waiting: u64,
    /// How long the oldest of them has been there, about.
    pub oldest_age: Option<Duration>,
    /// Exposures that went from it undelivered, at a bound, since it was made.
    pub evicted: u64,
}

/// The cells of one pool's workers, or of master and logger, summed as
/// `/metrics` does.
#[derive(Debug, Clone, PartialEq)]
pub struct Pool {
    /// Empty for master and logger.
    pub name: String,
    /// Its workers' slots.
    pub slots: Vec<usize>,
    /// Connections of its busiest worker.
    pub connections_max: u64,
    /// Family after family, cell after cell.
    values: Vec<Vec<u64>>,
    histograms: Vec<Vec<Histogram>>,
}

impl Pool {
    /// One cell; 0 of a histogram.
    #[must_use]
    pub fn value(&self, family: Family, cell: usize) -> u64 {
        self.values[family as usize].get(cell).copied().unwrap_or(0)
    }

    /// All cells of a family together.
    #[must_use]
    pub fn total(&self, family: Family) -> u64 {
        self.sum(family, |_| true)
    }

    /// The cells that `wanted` picks by their number, together.
    #[must_use]
    pub fn sum(&self, family: Family, wanted: impl Fn(usize) -> bool) -> u64 {
        let cells = self.values[family as usize].iter().enumerate().filter(|(cell, _)| wanted(*cell));
        cells.fold(0, |sum, (_, value)| sum.wrapping_add(*value))
    }

    /// One cell of a histogram.
    #[must_use]
    pub fn histogram(&self, family: Family, cell: usize) -> Option<&Histogram> {
        self.histograms[family as usize].get(cell)
    }

    /// All cells of a histogram together.
    #[must_use]
    pub fn histogram_total(&self, family: Family) -> Histogram {
        let mut sum = Histogram::default();
        for histogram in &self.histograms[family as usize] {
            sum.add(histogram);
        }
        sum
    }

    /// Connections of the busiest worker over an even share; 1 where there are none.
    #[must_use]
    pub fn spread(&self) -> f64 {
        let sum = self.value(Family::Connections, 0);
        if sum == 0 { 1.0 } else { (self.connections_max as usize * self.slots.len()) as f64 / sum as f64 }
    }
}

/// One instance at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    /// When it was taken.
    pub taken: Now,
    /// `starting`, `ready`, `draining`, or `gone`: its master lives no more.
    pub state: &'static str,
    /// The experiments in force; empty before the first, none while they change.
    pub version: Option<String>,
    /// Its processes: master, logger, workers by slot; one that drains beside its successor.
    pub processes: Vec<ProcessView>,
    /// Its pools, in the settings' order.
    pub pools: Vec<Pool>,
    /// What master and logger count.
    pub instance: Pool,
    /// What was assigned, by experiment and group.
    pub assignments: Assignments,
    /// Its rings.
    pub rings: Vec<RingView>,
    /// What became of its exposures.
    pub audit: Audit,
    /// The last lines of its log, oldest first.
    pub log: Vec<Line>,
}

/// A ring to be read: its slot, which of the two, and its words.
pub type RingWords<'r> = (usize, usize, &'r [AtomicU64]);

impl Snapshot {
    /// Reads an instance. `lives` says whether there is a process of this id.
    #[must_use]
    pub fn take(
        table: Table<'_>,
        rings: &[RingWords<'_>],
        now: Now,
        lives: impl Fn(u32) -> bool,
    ) -> Snapshot {
        let processes = processes(table, now, lives);
        let master_gone = processes
            .iter()
            .any(|p| p.process == Process::Master && matches!(p.health, Health::Dead | Health::Ended));
        let state = match table.block(MASTER_BLOCK).get(Family::InstanceState, 0) {
            _ if master_gone => "gone",
            instance_state::READY => "ready",
            instance_state::DRAINING => "draining",
            _ => "starting",
        };
        let (instance, pools) = pools(table);
        let ring =
            |&(slot, which, words): &RingWords<'_>| RingView { slot, which, account: Account::read(words) };
        Snapshot {
            taken: now,
            state,
            version: table.board().version(),
            processes,
            pools,
            instance,
            assignments: Assignments::read(table),
            rings: rings.iter().map(ring).collect(),
            audit: Audit::read(table),
            log: table.board().lines(),
        }
    }

    /// When the experiments in force were taken by whoever took them last, in Unix seconds.
    #[must_use]
    pub fn plan_taken_s(&self) -> u64 {
        self.pools.iter().map(|pool| pool.value(Family::PlanTakenAt, 0)).max().unwrap_or(0)
    }

    /// How long they have been in force.
    #[must_use]
    pub fn plan_age(&self) -> Option<Duration> {
        let taken_us = i64::try_from(self.plan_taken_s()).ok().filter(|taken| *taken > 0)? * 1_000_000;
        Some(Duration::from_micros(u64::try_from(self.taken.unix_us - taken_us).unwrap_or(0)))
    }

    /// Experiments in force, of all states.
    #[must_use]
    pub fn experiment_count(&self) -> u64 {
        self.pools.iter().map(|pool| pool.value(Family::PlanExperiments, 0)).max().unwrap_or(0)
    }

    /// The spool, where there is one.
    #[must_use]
    pub fn spool(&self) -> Option<SpoolView> {
        let of = |family| self.instance.total(family);
        let oldest_us = i64::try_from(of(Family::SpoolOldest)).unwrap_or(0) * 1_000_000;
        let age_us = u64::try_from(self.taken.unix_us - oldest_us).unwrap_or(0);
        (of(Family::SpoolSizeMax) > 0).then(|| SpoolView {
            size: of(Family::SpoolBytes),
            size_max: of(Family::SpoolSizeMax),
            waiting: of(Family::ExposuresInSpool),
            oldest_age: (oldest_us > 0).then(|| Duration::from_micros(age_us)),
            evicted: of(Family::SpoolEvicted),
        })
    }

    /// Whether the sink is away, as far as one sees.
    #[must_use]
    pub fn sink_is_away(&self) -> bool {
        self.instance.total(Family::SinkStalled) > 0
    }

    /// How long the sink took to answer for what it was sent, on average since
    /// `earlier` (or ever); none where it has not, or needs not.
    #[must_use]
    pub fn sink_delay(&self, earlier: Option<&Snapshot>) -> Option<Duration> {
        let since = |family| {
            let before = earlier.map_or(0, |earlier| earlier.instance.total(family));
            self.instance.total(family).saturating_sub(before)
        };
        let average_us = since(Family::SinkConfirmationTime).checked_div(since(Family::SinkConfirmations));
        average_us.map(Duration::from_micros)
    }

    /// What is not as it should be, as sentences; none where all is in order.
    #[must_use]
    pub fn complaints(&self) -> Vec<String> {
        let mut complaints = Vec::new();
        if self.state != "ready" {
            complaints.push(match self.state {
                "gone" => "the master is gone".to_owned(),
                other => format!("the instance is {other}"),
            });
        }
        for process in &self.processes {
            let ProcessView { name, pid, turn_age, .. } = process;
            match process.health {
                Health::Running | Health::Draining => {}
                // Said already.
                Health::Dead | Health::Ended if process.process == Process::Master => {}
                Health::Stuck => complaints
                    .push(format!("{name} (pid {pid}) has not turned for {:.1} s", turn_age.as_secs_f64())),
                Health::Dead => complaints.push(format!("{name} (pid {pid}) is dead and nobody has noticed")),
                Health::Ended => complaints.push(format!("{name} has ended and has no successor")),
            }
        }
        for ring in &self.rings {
            if let Err(fault) = &ring.account {
                complaints.push(format!("ring {} of slot {}: {fault}", ring.which, ring.slot));
            }
        }
        complaints
    }
}

fn processes(table: Table<'_>, now: Now, lives: impl Fn(u32) -> bool) -> Vec<ProcessView> {
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

fn pools(table: Table<'_>) -> (Pool, Vec<Pool>) {
    let mut all: Vec<(Pool, Vec<(usize, u64)>)> = vec![(empty(String::new()), Vec::new())];
    for block in table.blocks() {
        let (at, slot) = match (block.process(), block.slot()) {
            (None, _) => continue,
            (Some(Process::Worker), slot) => {
                let name = block.name();
                let at = all.iter().position(|(pool, _)| pool.name == name).unwrap_or(all.len());
                if at == all.len() {
                    all.push((empty(name), Vec::new()));
                }
                (at, slot)
            }
            (Some(_), _) => (0, None),
        };
        let (pool, connections) = &mut all[at];
        for row in FAMILIES {
            let family = row.family as usize;
            for cell in 0..cell_count(row.labels) {
                match row.kind {
                    Kind::Histogram => {
                        pool.histograms[family][cell].add(&block.histogram(row.family, cell));
                    }
                    Kind::GaugeMax => {
                        let value = &mut pool.values[family][cell];
                        *value = (*value).max(block.get(row.family, cell));
                    }
                    Kind::Counter | Kind::Time | Kind::Gauge => {
                        let value = &mut pool.values[family][cell];
                        *value = value.wrapping_add(block.get(row.family, cell));
                    }
                    Kind::Spread(_) | Kind::Named(..) | Kind::Info => {}
                }
            }
        }
        if let Some(slot) = slot {
            let count = block.get(Family::Connections, 0);
            match connections.iter_mut().find(|(known, _)| *known == slot) {
                Some((_, sum)) => *sum += count,
                None => connections.push((slot, count)),
            }
        }
    }
    let mut pools = all.into_iter().map(|(mut pool, connections)| {
        pool.connections_max = connections.iter().map(|(_, count)| *count).max().unwrap_or(0);
        pool.slots = connections.into_iter().map(|(slot, _)| slot).collect();
        pool
    });
    let instance = pools.next().expect("the first is the instance's");
    (instance, pools.collect())
}

fn empty(name: String) -> Pool {
    let cells = |row: &crate::metrics::Row, wanted: bool| if wanted { cell_count(row.labels) } else { 0 };
    let is_histogram = |row: &crate::metrics::Row| matches!(row.kind, Kind::Histogram);
    Pool {
        name,
        slots: Vec::new(),
        connections_max: 0,
        values: FAMILIES.iter().map(|row| vec![0; cells(row, !is_histogram(row))]).collect(),
        histograms: FAMILIES
            .iter()
            .map(|row| vec![Histogram::default(); cells(row, is_histogram(row))])
            .collect(),
    }
}

/// Whether there is a process of this id, as /proc has it.
#[must_use]
pub fn lives(pid: u32) -> bool {
    std::path::Path::new(&format!("/proc/{pid}")).exists()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::exposure::ring;
    use crate::metrics::{LOGGER_BLOCK, block_count, region_size, request_cell, worker_block};

    /// Ten seconds after the machine's start, at midday.
    pub(crate) const NOW: Now = Now { mono_ns: 10_000_000_000, unix_us: 1_795_348_800_000_000 };
    const DEAD: u32 = 66;

    fn words(size: usize) -> Vec<AtomicU64> {
        (0..size / 8).map(|_| AtomicU64::new(0)).collect()
    }

    /// Master, logger, two workers of `assign` and one of `admin`.
    pub(crate) struct Fixture {
        metrics: Vec<AtomicU64>,
        ring: Vec<AtomicU64>,
    }

    impl Fixture {
        pub(crate) fn new() -> Fixture {
            let fixture =
                Fixture { metrics: words(region_size(block_count(3))), ring: words(ring::region_size(4096)) };
            let table = Table::format(&fixture.metrics, block_count(3));
            ring::format(&fixture.ring, ring::Identity { instance: 7, ring: 0, slot: 0 });
            let mut writer = ring::Writer::attach(&fixture.ring).unwrap();
            writer.claim();
            writer.commit(b"\x03abc").unwrap();
            let born = |index: usize, process, name: &str, pid| {
                table.block(index).claim(process, name);
                table.block(index).born(pid, NOW.unix_us - 9_000_000, NOW.mono_ns - 100_000_000);
            };
            born(MASTER_BLOCK, Process::Master, "", 1);
            table.block(MASTER_BLOCK).set(Family::InstanceState, instance_state::READY);
            born(LOGGER_BLOCK, Process::Logger, "", 2);
            born(worker_block(0, 0), Process::Worker, "assign", 10);
            born(worker_block(1, 0), Process::Worker, "assign", 11);
            born(worker_block(2, 0), Process::Worker, "admin", 12);
            table.board().set_version("2026-11-22.3");
            fixture
        }

        pub(crate) fn table(&self) -> Table<'_> {
            Table::attach(&self.metrics).unwrap()
        }

        pub(crate) fn look(&self, now: Now) -> Snapshot {
            Snapshot::take(self.table(), &[(0, 0, self.ring.as_slice())], now, |pid| pid != DEAD)
        }
    }

    fn names(snapshot: &Snapshot) -> Vec<(&str, Health)> {
        snapshot.processes.iter().map(|process| (process.name.as_str(), process.health)).collect()
    }

    #[test]
    fn an_instance_in_order_is_told_whole_and_has_no_complaints() {
        let fixture = Fixture::new();
        for (slot, count) in [(0, 3), (1, 1)] {
            let block = fixture.table().block(worker_block(slot, 0));
            block.set(Family::Connections, count);
            block.add_at(Family::Requests, request_cell(0, 200), 10);
            block.set(Family::PlanTakenAt, 1_795_348_800 - 60);
            block.set(Family::PlanExperiments, 19);
        }
        let snapshot = fixture.look(NOW);
        let running =
            ["master", "logger", "assign/0", "assign/1", "admin/0"].map(|name| (name, Health::Running));
        assert_eq!(names(&snapshot), running);
        assert_eq!((snapshot.state, snapshot.version.as_deref()), ("ready", Some("2026-11-22.3")));
        assert_eq!((snapshot.plan_age(), snapshot.experiment_count()), (Some(Duration::from_secs(60)), 19));
        let worker = &snapshot.processes[2];
        assert_eq!((worker.age, worker.turn_age), (Duration::from_secs(9), Duration::from_millis(100)));
        assert_eq!((worker.restarts, worker.connections, worker.requests), (0, 3, 10));
        let [assign, admin] = &snapshot.pools[..] else { panic!("{:?}", snapshot.pools) };
        assert_eq!((assign.name.as_str(), &assign.slots[..]), ("assign", &[0, 1][..]));
        assert_eq!((assign.total(Family::Requests), assign.spread()), (20, 1.5));
        assert_eq!((admin.total(Family::Requests), admin.spread()), (0, 1.0));
        assert_eq!(snapshot.rings[0].account.map(|account| account.in_ring), Ok(1));
        assert!(snapshot.complaints().is_empty(), "{:?}", snapshot.complaints());
    }

    #[test]
    fn who_stands_still_is_stuck_and_who_is_gone_is_dead() {
        let fixture = Fixture::new();
        let table = fixture.table();
        table.block(worker_block(0, 0)).turns(NOW.mono_ns - 6_000_000_000);
        table.block(worker_block(1, 0)).born(DEAD, NOW.unix_us, NOW.mono_ns);
        table.block(LOGGER_BLOCK).is(State::Ended);
        // The master may wait for long: nothing happens.
        table.block(MASTER_BLOCK).turns(1);
        let snapshot = fixture.look(NOW);
        let healths: Vec<Health> = snapshot.processes.iter().map(|process| process.health).collect();
        use Health::{Dead, Ended, Running, Stuck};
        assert_eq!(healths, [Running, Ended, Stuck, Dead, Running]);
        assert_eq!(
            snapshot.complaints(),
            [
                "logger has ended and has no successor",
                "assign/0 (pid 10) has not turned for 6.0 s",
                "assign/1 (pid 66) is dead and nobody has noticed",
            ]
        );
        table.block(MASTER_BLOCK).born(DEAD, NOW.unix_us, NOW.mono_ns);
        let snapshot = fixture.look(NOW);
        assert_eq!((snapshot.state, snapshot.complaints()[0].as_str()), ("gone", "the master is gone"));
    }

    #[test]
    fn a_predecessor_is_told_while_it_drains_and_its_counts_are_its_places() {
        let fixture = Fixture::new();
        let [first, second] = [0, 1].map(|which| fixture.table().block(worker_block(0, which)));
        first.add_at(Family::Requests, request_cell(0, 200), 10);
        first.is(State::Draining);
        second.claim(Process::Worker, "assign");
        second.born(20, NOW.unix_us - 1, NOW.mono_ns);
        second.add_at(Family::Requests, request_cell(0, 404), 5);
        let snapshot = fixture.look(NOW);
        assert_eq!(names(&snapshot)[2..4], [("assign/0", Health::Running), ("assign/0", Health::Draining)]);
        let place = &snapshot.processes[2];
        assert_eq!((place.pid, place.requests, place.restarts), (20, 15, 1));
        first.is(State::Ended);
        assert_eq!(names(&fixture.look(NOW)).len(), 5);
        // And the next one takes the first block again.
        second.is(State::Draining);
        first.born(30, NOW.unix_us, NOW.mono_ns);
        let snapshot = fixture.look(NOW);
        assert_eq!((snapshot.processes[2].pid, snapshot.processes[2].restarts), (30, 2));
        assert_eq!((snapshot.processes[3].pid, snapshot.processes[3].health), (20, Health::Draining));
    }

    #[test]
    fn rates_are_of_the_time_between_and_no_restart_makes_them_negative() {
        let fixture = Fixture::new();
        let block = fixture.table().block(worker_block(0, 0));
        block.add_at(Family::Requests, request_cell(0, 200), 1000);
        let before = fixture.look(NOW);
        block.add_at(Family::Requests, request_cell(0, 200), 100);
        block.add_at(Family::Requests, request_cell(0, 404), 20);
        let after = fixture.look(NOW.plus(Duration::from_secs(2)));
        let rates = super::super::Rates::between(&before, &after);
        assert_eq!(rates.pool(&after.pools[0], Family::Requests), 60.0);
        assert_eq!(rates.cells(&after.pools[0], Family::Requests, |cell| cell > 0), 10.0);
        assert_eq!((rates.requests("assign/0"), rates.requests("assign/1")), (60.0, 0.0));
        let backwards = super::super::Rates::between(&after, &before);
        assert!(backwards.pool(&before.pools[0], Family::Requests) >= 0.0);
    }

    #[test]
    fn json_has_every_figure_by_its_exported_name() {
        let fixture = Fixture::new();
        fixture.table().block(worker_block(0, 0)).add_at(Family::Requests, request_cell(0, 404), 3);
        let json = super::super::json::json(&fixture.look(NOW));
        for row in FAMILIES {
            assert!(json["metrics"][row.name].is_array(), "{} is not there", row.name);
        }
        let requests = &json["metrics"]["splitd_requests_total"];
        let wanted = serde_json::json!([{"pool": "assign", "route": "assign", "status": "404", "value": 3}]);
        assert_eq!(requests, &wanted);
        assert_eq!(json["metrics"]["splitd_instance_state"], serde_json::json!([{"value": 1}]));
        assert_eq!(json["processes"][2]["name"], "assign/0");
        assert_eq!(json["rings"][0]["committed"], 1);
    }

    #[test]
    fn the_spool_and_the_sink_are_told_where_there_are_any() {
        let fixture = Fixture::new();
        let logger = fixture.table().block(LOGGER_BLOCK);
        logger.set_at(Family::ExposuresDelivered, 0, 7);
        let before = fixture.look(NOW);
        assert_eq!((before.spool(), before.sink_delay(None), before.sink_is_away()), (None, None, false));
        logger.set(Family::SpoolSizeMax, 8_000_000_000);
        logger.set(Family::SpoolBytes, 2_000_000_000);
        logger.set(Family::ExposuresInSpool, 1_234);
        logger.set(Family::SpoolOldest, NOW.unix_us as u64 / 1_000_000 - 180);
        logger.set_at(Family::SpoolEvicted, 1, 9);
        logger.set(Family::SinkStalled, 1);
        logger.set(Family::SinkConfirmations, 10);
        logger.set(Family::SinkConfirmationTime, 200_000);
        let snapshot = fixture.look(NOW);
        let mut text = String::new();
        super::super::text::write(&snapshot, &mut text).unwrap();
        for line in [
            "sink            7 delivered, 0 B, 0 errors, 0 rejected, 0 evicted, answers after 20 ms, AWAY\n",
            "spool           2.0 GB of 8.0 GB, 1,234 exposures, the oldest for 3 min, 9 evicted\n",
        ] {
            assert!(text.contains(line), "`{line}` is not in\n{text}");
        }
        // Since a look, of what came since.
        logger.add(Family::SinkConfirmations, 2);
        logger.add(Family::SinkConfirmationTime, 8_000);
        let delay = fixture.look(NOW).sink_delay(Some(&snapshot));
        assert_eq!(delay, Some(Duration::from_millis(4)));
    }

    #[test]
    fn the_text_has_what_an_operator_looks_for() {
        let fixture = Fixture::new();
        fixture.table().block(worker_block(0, 0)).turns(NOW.mono_ns - 6_000_000_000);
        let mut text = String::new();
        super::super::text::write(&fixture.look(NOW), &mut text).unwrap();
        for part in [
            ": ready, up 9.0 s\n",
            "experiments 2026-11-22.3",
            "! assign/0 (pid 10) has not turned for 6.0 s\n",
            "assign/0              10  STUCK         9.0 s   6.0 s ago         0",
            "slot 0 / 0",
        ] {
            assert!(text.contains(part), "`{part}` is not in\n{text}");
        }
    }
}
