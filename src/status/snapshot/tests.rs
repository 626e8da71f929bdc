use super::*;
use crate::exposure::ring;
use crate::metrics::{FAMILIES, LOGGER_BLOCK, State, block_count, region_size, request_cell, worker_block};

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
    let running = ["master", "logger", "assign/0", "assign/1", "admin/0"].map(|name| (name, Health::Running));
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
