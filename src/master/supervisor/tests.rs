use super::*;
use crate::worker::Order;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MS;
const DRAIN: Duration = Duration::from_secs(30);
const TIMES: Times = Times { drain: DRAIN, watchdog: Duration::from_secs(5) };

/// A supervisor with the processes it believes to have, kept by what it says alone.
struct House {
    supervisor: Supervisor,
    now_ns: u64,
    /// Everything that lives: its role, and which ring it was given.
    alive: BTreeMap<Process, (Role, usize)>,
    ready: Vec<Process>,
    /// Predecessors that were told to drain.
    handed_over: BTreeSet<Process>,
    /// Loaders that are ended as soon as they are killed, and their kills not told.
    loaders: BTreeSet<Process>,
    /// Who serves whose socket besides its own.
    adopted: BTreeMap<usize, Process>,
    said: Vec<Action>,
    exit: Option<u8>,
    pools: Vec<usize>,
}

impl House {
    fn new(pools: &[usize]) -> House {
        let mut house = House {
            supervisor: Supervisor::new(pools, TIMES, 7),
            now_ns: SECOND,
            alive: BTreeMap::new(),
            ready: Vec::new(),
            handed_over: BTreeSet::new(),
            loaders: BTreeSet::new(),
            adopted: BTreeMap::new(),
            said: Vec::new(),
            exit: None,
            pools: pools.to_vec(),
        };
        let mut actions = Vec::new();
        house.supervisor.start(house.now_ns, &mut actions);
        house.perform(actions);
        house
    }

    /// One whose workers are all ready.
    fn serving(pools: &[usize]) -> House {
        let mut house = House::new(pools);
        house.handle(Event::LoadEnded);
        house.handle(Event::Plan);
        house.loaders.extend(house.loader());
        for slot in 0..pools.len() {
            house.make_ready(slot);
        }
        assert!(house.said.contains(&Action::Ready));
        house.said.clear();
        house
    }

    fn handle(&mut self, event: Event) {
        let mut actions = Vec::new();
        self.supervisor.handle(event, self.now_ns, &mut actions);
        self.perform(actions);
        self.check();
        let killed: Vec<Process> = self.said.iter().filter_map(kill_of).collect();
        if let Some(loader) = self.loaders.iter().find(|loader| killed.contains(loader)).copied()
            && self.alive.contains_key(&loader)
        {
            self.end(loader, None);
        }
    }

    fn perform(&mut self, actions: Vec<Action>) {
        for action in actions {
            assert_eq!(self.exit, None, "nothing is said after Exit: {action:?}");
            match action.clone() {
                Action::Spawn { process, role, which } => {
                    let holders: Vec<usize> = (self.alive.values())
                        .filter(|(other, _)| *other == role)
                        .map(|(_, which)| *which)
                        .collect();
                    match role {
                        Role::Worker { .. } => {
                            assert!(!holders.contains(&which), "{role:?}: ring {which} is another's");
                        }
                        _ => assert_eq!(holders, [] as [usize; 0], "{role:?} lives already"),
                    }
                    assert!(which < 2);
                    self.alive.insert(process, (role, which));
                }
                Action::Order { process, order } => {
                    assert!(self.alive.contains_key(&process), "{order:?} to the dead");
                    match order {
                        Order::Adopt { slot } => {
                            assert!(self.ready.contains(&process), "adopted by one that is not ready");
                            assert_eq!(self.adopted.insert(slot, process), None, "adopted twice");
                            let (Role::Worker { slot: own }, _) = self.alive[&process] else { panic!() };
                            assert_ne!(own, slot);
                            assert_eq!(self.pools[own], self.pools[slot], "a neighbour of the pool");
                        }
                        Order::Release { slot } => {
                            assert_eq!(self.adopted.remove(&slot), Some(process), "released as adopted");
                        }
                        Order::HandOver { deadline_ms } => {
                            let (Role::Worker { slot }, _) = self.alive[&process] else { panic!() };
                            let first = self.handed_over.insert(process);
                            assert!(first || deadline_ms == 0, "told twice");
                            self.ready.retain(|other| *other != process);
                            self.adopted.retain(|_, adopter| *adopter != process);
                            let follower = self.worker(slot).expect("somebody follows");
                            assert!(self.ready.contains(&follower), "and accepts already");
                        }
                        Order::Drain { .. } => self.adopted.clear(),
                        Order::Plan => {}
                    }
                }
                Action::StopLogger(process) => {
                    assert!(matches!(self.alive[&process], (Role::Logger, _)));
                    if self.supervisor.is_stopping() {
                        assert_eq!(self.alive.len(), 1, "the logger is stopped last");
                    }
                }
                Action::Kill { process, .. } => assert!(self.alive.contains_key(&process)),
                Action::Exit(code) => {
                    assert!(self.alive.is_empty(), "exit with living children: {:?}", self.alive);
                    self.exit = Some(code);
                }
                Action::Reload(process) => {
                    assert!(matches!(self.alive[&process], (Role::Loader, _)));
                }
                Action::Waits { .. }
                | Action::Ready
                | Action::Stopping { .. }
                | Action::Replaced
                | Action::ReplacementFailed { .. }
                | Action::Upgrade
                | Action::UpgradeRefused(_) => {}
            }
            self.said.push(action);
        }
    }

    /// What holds after every event.
    fn check(&self) {
        if self.supervisor.is_stopping() {
            return;
        }
        for slot in 0..self.pools.len() {
            let lives = self.worker(slot).is_some();
            let pool_ready = self.ready.iter().any(|process| match self.alive[process].0 {
                Role::Worker { slot: other } => self.pools[other] == self.pools[slot],
                _ => false,
            });
            let adopted = self.adopted.contains_key(&slot);
            if !lives && pool_ready && !self.supervisor.slots.is_empty() && self.exit.is_none() {
                let started = self.supervisor.phase == Phase::Serving;
                assert!(adopted || !started, "slot {slot} waits and nobody serves its socket");
            }
            if let Some(process) = self.worker(slot)
                && self.ready.contains(&process)
            {
                assert!(!adopted, "slot {slot} is ready and a neighbour still serves its socket");
            }
        }
    }

    /// All that live in a slot, oldest first.
    fn workers(&self, slot: usize) -> Vec<Process> {
        let of_slot = |(other, _): &(Role, usize)| *other == Role::Worker { slot };
        self.alive.iter().filter(|(_, lives)| of_slot(lives)).map(|(process, _)| *process).collect()
    }

    fn find(&self, role: Role) -> Option<Process> {
        self.alive.iter().find(|(_, (other, _))| *other == role).map(|(process, _)| *process)
    }

    fn worker(&self, slot: usize) -> Option<Process> {
        self.workers(slot).into_iter().find(|process| !self.handed_over.contains(process))
    }

    /// The one that is to follow it.
    fn successor(&self, slot: usize) -> Option<Process> {
        self.workers(slot)
            .into_iter()
            .rfind(|process| Some(*process) != self.worker(slot))
            .filter(|process| !self.handed_over.contains(process))
    }

    fn logger(&self) -> Option<Process> {
        self.find(Role::Logger)
    }

    fn loader(&self) -> Option<Process> {
        self.find(Role::Loader)
    }

    fn make_ready(&mut self, slot: usize) {
        self.be_ready(self.worker(slot).expect("a worker to be ready"));
    }

    fn be_ready(&mut self, process: Process) {
        self.ready.push(process);
        self.handle(Event::Ready(process));
    }

    fn end(&mut self, process: Process, code: Option<i32>) {
        self.alive.remove(&process).expect("only the living die");
        self.ready.retain(|other| *other != process);
        self.adopted.retain(|_, adopter| *adopter != process);
        self.handle(Event::Ended { process, code });
    }

    fn kill_worker(&mut self, slot: usize) {
        let process = self.worker(slot).expect("a worker to kill");
        self.end(process, None);
    }

    fn pass(&mut self, duration_ns: u64) {
        self.now_ns += duration_ns;
        self.handle(Event::Time);
    }

    /// Lets the next timer be due, if there is one.
    fn pass_to_timer(&mut self) -> bool {
        let Some(due_ns) = self.supervisor.poll_timeout() else { return false };
        assert!(due_ns > self.now_ns, "a timer in the past would be a busy loop");
        self.now_ns = due_ns;
        self.handle(Event::Time);
        true
    }

    fn last_wait(&self) -> Option<(Duration, u32)> {
        self.said.iter().rev().find_map(|action| match action {
            Action::Waits { delay, failures, .. } => Some((*delay, *failures)),
            _ => None,
        })
    }

    fn orders(&self) -> Vec<(Process, Order)> {
        let order = |action: &Action| match action {
            Action::Order { process, order } => Some((*process, order.clone())),
            _ => None,
        };
        self.said.iter().filter_map(order).collect()
    }

    fn killed(&self) -> Vec<Process> {
        self.said.iter().filter_map(kill_of).filter(|process| !self.loaders.contains(process)).collect()
    }
}

fn kill_of(action: &Action) -> Option<Process> {
    match action {
        Action::Kill { process, .. } => Some(*process),
        _ => None,
    }
}

#[test]
fn the_plan_comes_first_then_the_logger_then_the_workers() {
    let mut house = House::new(&[0, 0, 1]);
    assert_eq!(house.alive.len(), 1);
    assert!(house.loader().is_some());
    house.handle(Event::Plan);
    let roles: Vec<_> = (house.said.iter())
        .filter_map(|action| match action {
            Action::Spawn { role, .. } => Some(*role),
            _ => None,
        })
        .collect();
    let worker = |slot| Role::Worker { slot };
    assert_eq!(roles, [Role::Loader, Role::Logger, worker(0), worker(1), worker(2)]);
    house.make_ready(0);
    house.make_ready(2);
    assert!(!house.said.contains(&Action::Ready));
    house.make_ready(1);
    assert!(house.said.contains(&Action::Ready));
}

#[test]
fn without_a_first_plan_nothing_is_started() {
    for (code, exit) in [(Some(1), EXIT_FAULTY), (Some(3), EXIT_REFUSED), (None, EXIT_REFUSED)] {
        let mut house = House::new(&[0, 0]);
        if code.is_none() {
            // It may have been an accident.
            house.end(house.loader().unwrap(), None);
            house.end(house.loader().unwrap(), None);
            house.pass_to_timer();
        }
        house.end(house.loader().unwrap(), code);
        assert_eq!(house.exit, Some(exit));
        assert!(house.logger().is_none());
    }
}

#[test]
fn a_stop_while_loading_ends_the_loader_and_leaves() {
    let mut house = House::new(&[0]);
    house.handle(Event::Stop);
    let loader = house.loader().unwrap();
    assert_eq!(house.killed(), [loader]);
    assert_eq!(house.exit, None, "the loader still lives");
    house.end(loader, None);
    assert_eq!(house.exit, Some(EXIT_DONE));
}

#[test]
fn a_dead_worker_is_replaced_at_once_on_its_ring() {
    let mut house = House::serving(&[0, 0]);
    house.kill_worker(1);
    let process = house.worker(1).expect("at once");
    assert_eq!(house.alive[&process].1, 0, "the dead hold no ring");
    assert_eq!(house.orders(), [], "no neighbour for so short a time");
}

#[test]
fn a_worker_that_never_got_ready_is_followed_by_one_on_the_other_ring() {
    let mut house = House::serving(&[0, 0]);
    house.kill_worker(1);
    house.kill_worker(1);
    house.pass_to_timer();
    assert_eq!(house.alive[&house.worker(1).unwrap()].1, 1);
}

#[test]
fn further_deaths_wait_longer_each_time_up_to_ten_seconds() {
    let mut house = House::serving(&[0, 0]);
    house.kill_worker(1);
    let mut expected_ms = 100;
    for failures in 2..12 {
        house.kill_worker(1);
        let (delay, counted) = house.last_wait().unwrap();
        assert_eq!(counted, failures);
        assert!(delay <= Duration::from_millis(expected_ms), "{delay:?}");
        assert!(delay * 5 >= Duration::from_millis(expected_ms) * 4, "{delay:?}");
        assert!(house.worker(1).is_none());
        house.pass_to_timer();
        assert!(house.worker(1).is_some());
        expected_ms = (expected_ms * 2).min(10_000);
    }
    assert_eq!(expected_ms, 10_000);
}

#[test]
fn sixty_healthy_seconds_forget_earlier_deaths() {
    let mut house = House::serving(&[0, 0]);
    house.kill_worker(1);
    house.kill_worker(1);
    house.pass_to_timer();
    house.make_ready(1);
    house.pass(59 * SECOND);
    house.kill_worker(1);
    assert!(house.worker(1).is_none(), "59 are not enough");
    house.pass_to_timer();
    house.make_ready(1);
    house.pass(60 * SECOND);
    house.kill_worker(1);
    assert!(house.worker(1).is_some(), "60 are");
}

#[test]
fn a_waiting_socket_is_served_by_a_neighbour_until_its_own_worker_is_ready() {
    let mut house = House::serving(&[0, 0, 1]);
    house.kill_worker(1);
    house.kill_worker(1);
    let neighbour = house.worker(0).unwrap();
    assert_eq!(house.orders(), [(neighbour, Order::Adopt { slot: 1 })], "of the same pool");
    house.pass_to_timer();
    assert_eq!(house.orders().len(), 1, "started is not ready");
    house.make_ready(1);
    assert_eq!(house.orders()[1..], [(neighbour, Order::Release { slot: 1 })]);
}

#[test]
fn when_the_neighbour_dies_too_another_takes_both_sockets() {
    let mut house = House::serving(&[0, 0, 0]);
    house.kill_worker(0);
    house.kill_worker(0);
    assert_eq!(house.adopted[&0], house.worker(1).unwrap());
    house.kill_worker(1);
    house.kill_worker(1);
    let last = house.worker(2).unwrap();
    assert_eq!(house.adopted, BTreeMap::from([(0, last), (1, last)]));
}

#[test]
fn a_socket_without_any_neighbour_is_adopted_by_the_first_to_be_ready() {
    let mut house = House::serving(&[0, 0]);
    for slot in [0, 1] {
        house.kill_worker(slot);
        house.kill_worker(slot);
    }
    assert_eq!(house.adopted, BTreeMap::new());
    while house.worker(0).is_none() {
        house.pass_to_timer();
    }
    house.make_ready(0);
    if house.worker(1).is_none() {
        assert_eq!(house.adopted[&1], house.worker(0).unwrap());
    }
}

#[test]
fn a_worker_slow_to_start_is_helped_after_a_second_and_killed_after_ten() {
    let mut house = House::serving(&[0, 0]);
    house.kill_worker(1);
    let slow = house.worker(1).unwrap();
    house.pass_to_timer();
    assert_eq!(house.now_ns, 2 * SECOND);
    assert_eq!(house.adopted[&1], house.worker(0).unwrap());
    house.pass_to_timer();
    assert_eq!(house.killed(), [slow]);
    assert_eq!(house.supervisor.poll_timeout(), None, "KILL needs no second");
    house.end(slow, None);
    assert!(house.worker(1).is_none(), "the second failure waits");
}

#[test]
fn all_workers_crashing_leaves_with_four_after_the_logger() {
    let mut house = House::serving(&[0, 0, 1]);
    for _ in 0..100 {
        for slot in 0..3 {
            if house.worker(slot).is_some() {
                house.kill_worker(slot);
            }
        }
        if house.supervisor.is_stopping() {
            break;
        }
        house.pass_to_timer();
    }
    let logger = house.logger().expect("it is not the logger's fault");
    assert!(house.said.contains(&Action::StopLogger(logger)));
    house.end(logger, Some(0));
    assert_eq!(house.exit, Some(EXIT_CRASHING));
}

#[test]
fn one_crashing_worker_or_pool_does_not_end_the_instance() {
    let mut house = House::serving(&[0, 0, 1]);
    for _ in 0..50 {
        for slot in 0..2 {
            if house.worker(slot).is_some() {
                house.kill_worker(slot);
            }
        }
        house.pass_to_timer();
    }
    assert!(!house.supervisor.is_stopping());
    assert!(house.worker(2).is_some());
}

#[test]
fn a_dead_logger_is_replaced_at_once_and_then_with_delay() {
    let mut house = House::serving(&[0]);
    house.end(house.logger().unwrap(), None);
    house.end(house.logger().expect("at once"), None);
    assert!(house.logger().is_none());
    house.pass_to_timer();
    assert!(house.logger().is_some());
    house.pass(61 * SECOND);
    house.end(house.logger().unwrap(), None);
    assert!(house.logger().is_some(), "healthy for a minute");
}

#[test]
fn a_reload_is_told_to_the_loader_and_one_that_waits_is_started_for_it() {
    let mut house = House::serving(&[0]);
    let loader = house.loader().unwrap();
    house.handle(Event::Reload);
    assert_eq!(house.said, [Action::Reload(loader)]);
    house.loaders.clear();
    house.end(loader, Some(1));
    house.end(house.loader().expect("at once"), None);
    assert_eq!(house.loader(), None, "the second death waits");
    assert_eq!(house.exit, None, "and nobody else notices");
    house.handle(Event::Reload);
    assert!(house.loader().is_some(), "it begins by reading");
}

#[test]
fn a_loader_that_hangs_is_killed_and_another_loads_while_the_instance_serves_on() {
    let mut house = House::serving(&[0]);
    house.loaders.clear();
    let loader = house.loader().unwrap();
    house.pass(1000 * SECOND);
    assert_eq!(house.killed(), [], "one that waits for a change takes its time");
    house.handle(Event::LoadBegun);
    house.pass(119 * SECOND);
    assert_eq!(house.killed(), []);
    house.pass_to_timer();
    assert_eq!(house.killed(), [loader]);
    house.handle(Event::LoadEnded);
    assert_eq!(house.supervisor.poll_timeout(), None);
    house.end(loader, None);
    assert!(house.loader().is_some());
    assert!(!house.supervisor.is_stopping());
}

#[test]
fn a_worker_is_told_to_drain_once_its_successor_accepts_on_the_other_ring() {
    let mut house = House::serving(&[0, 0]);
    let old = house.worker(0).unwrap();
    house.handle(Event::Replace { slot: 0 });
    let new = house.successor(0).expect("started beside it");
    assert_ne!(house.alive[&old].1, house.alive[&new].1);
    assert_eq!(house.orders(), []);
    house.be_ready(new);
    assert_eq!(house.orders(), [(old, Order::HandOver { deadline_ms: 30_000 })]);
    assert!(house.said.contains(&Action::Replaced));
    house.end(old, Some(0));
    assert_eq!(house.workers(0), [new], "nobody follows one that was followed");
    assert_eq!(house.supervisor.poll_timeout(), None);
}

#[test]
fn workers_are_replaced_one_at_a_time_and_drain_beside_each_other() {
    let mut house = House::serving(&[0, 0, 1]);
    for slot in 0..3 {
        house.handle(Event::Replace { slot });
    }
    for slot in 0..3 {
        assert_eq!(
            house.alive.values().filter(|(role, _)| matches!(role, Role::Worker { .. })).count(),
            4 + slot
        );
        assert!(!house.said.contains(&Action::Replaced));
        house.be_ready(house.successor(slot).unwrap());
    }
    assert!(house.said.contains(&Action::Replaced));
    house.pass(30 * SECOND);
    assert_eq!(house.killed(), []);
    house.pass_to_timer();
    assert_eq!(house.killed().len(), 3, "what overstays the deadline is killed");
}

#[test]
fn a_successor_that_does_not_get_to_work_ends_the_roll_and_the_old_one_serves_on() {
    let mut house = House::serving(&[0, 0]);
    let old = house.worker(0).unwrap();
    house.handle(Event::Replace { slot: 0 });
    house.handle(Event::Replace { slot: 1 });
    house.pass(10 * SECOND);
    let new = house.successor(0).unwrap();
    assert_eq!(house.killed(), [new], "not ready in 10 s");
    house.end(new, None);
    assert!(house.said.contains(&Action::ReplacementFailed { slot: 0 }));
    assert_eq!((house.workers(0), house.workers(1).len()), (vec![old], 1));
    assert!(!house.supervisor.is_rolling());
}

#[test]
fn when_a_worker_dies_whose_successor_starts_that_is_its_replacement() {
    let mut house = House::serving(&[0, 0]);
    house.handle(Event::Replace { slot: 0 });
    let new = house.successor(0).unwrap();
    house.kill_worker(0);
    assert_eq!(house.workers(0), [new]);
    house.be_ready(new);
    assert!(house.said.contains(&Action::Replaced));
    assert_eq!(house.supervisor.ready_count(), 2);
}

#[test]
fn a_slot_that_is_to_be_replaced_again_ends_the_one_that_drains_first() {
    let mut house = House::serving(&[0]);
    let first = house.worker(0).unwrap();
    house.handle(Event::Replace { slot: 0 });
    house.be_ready(house.successor(0).unwrap());
    house.handle(Event::Replace { slot: 0 });
    house.pass(4 * SECOND);
    assert_eq!(house.orders().len(), 1, "it has five seconds");
    house.pass_to_timer();
    assert_eq!(house.orders()[1..], [(first, Order::HandOver { deadline_ms: 0 })]);
    assert_eq!(house.workers(0).len(), 2, "two rings, two workers");
    house.pass_to_timer();
    assert_eq!(house.killed(), [first], "a second later");
    house.end(first, None);
    assert_eq!(house.workers(0).len(), 2);
    house.be_ready(house.successor(0).unwrap());
}

#[test]
fn a_logger_that_is_replaced_empties_the_rings_first() {
    let mut house = House::serving(&[0]);
    let old = house.logger().unwrap();
    house.handle(Event::ReplaceLogger);
    house.handle(Event::ReplaceLogger);
    assert_eq!(house.said, [Action::StopLogger(old)]);
    house.pass_to_timer();
    assert_eq!(house.killed(), [old], "after 7 s");
    house.end(old, None);
    house.end(house.logger().expect("at once"), None);
    assert!(house.logger().is_some(), "which was no failure of the logger's");
}

#[test]
fn an_upgrade_is_checked_first_and_refused_where_it_is_not_the_time() {
    let mut house = House::new(&[0]);
    let refused = |house: &House| house.said.iter().any(|action| matches!(action, Action::UpgradeRefused(_)));
    house.handle(Event::Upgrade);
    assert!(refused(&house), "nothing is served yet");
    for (code, upgraded) in [(Some(0), true), (Some(1), false), (None, false)] {
        let mut house = House::serving(&[0]);
        house.handle(Event::Upgrade);
        let check = house.find(Role::Check).unwrap();
        house.end(check, code);
        assert_eq!((house.said.contains(&Action::Upgrade), refused(&house)), (upgraded, !upgraded));
    }
    let mut house = House::serving(&[0]);
    house.handle(Event::Upgrade);
    house.pass_to_timer();
    assert_eq!(house.killed().len(), 1, "one that hangs");
    let mut house = House::serving(&[0]);
    house.handle(Event::Replace { slot: 0 });
    house.handle(Event::Upgrade);
    assert!(refused(&house), "workers are being replaced");
}

#[test]
fn who_crosses_an_upgrade_is_the_same_after_it() {
    let mut house = House::serving(&[0, 0, 1]);
    house.handle(Event::Replace { slot: 1 });
    let old = house.worker(1).unwrap();
    house.be_ready(house.successor(1).unwrap());
    let standing = house.supervisor.standing();
    let text = serde_json::to_string(&standing).unwrap();
    assert_eq!(serde_json::from_str::<standing::Standing>(&text).unwrap(), standing);
    house.supervisor = Supervisor::resume(&standing, &[0, 0, 1], TIMES, 8, house.now_ns);
    assert_eq!(house.supervisor.standing(), standing);
    house.said.clear();
    house.handle(Event::Time);
    assert_eq!(house.said, [], "nobody is missing");
    house.kill_worker(0);
    assert!(house.worker(0).is_some(), "and deaths are answered as before");
    house.pass(31 * SECOND);
    assert!(house.killed().contains(&old), "who drained has its deadline");
}

/// Feeds a worker's pulse once a half second for a while.
fn beat(house: &mut House, half_seconds: u64, mut pulse: impl FnMut(u64) -> watchdog::Pulse) {
    let process = house.worker(0).unwrap();
    for n in 0..half_seconds {
        house.now_ns += SECOND / 2;
        house.handle(Event::Pulse(process, pulse(n)));
    }
}

#[test]
fn a_worker_that_spins_hangs_or_was_stopped_is_aborted_then_killed() {
    type Still = fn(u64) -> watchdog::Pulse;
    let spins: Still = |n| watchdog::Pulse { turns: 7, run_ns: n * SECOND / 2, delay_ns: 0, runnable: true };
    let hangs: Still = |_| watchdog::Pulse { turns: 7, run_ns: 0, delay_ns: 0, runnable: false };
    for still in [spins, hangs] {
        let mut house = House::serving(&[0]);
        let worker = house.worker(0).unwrap();
        beat(&mut house, 10, still);
        assert_eq!(house.killed(), []);
        beat(&mut house, 1, |_| still(10));
        let abort = Action::Kill { process: worker, signal: Signal::SIGABRT, why: "it stands still" };
        assert_eq!(house.said, [abort]);
        house.pass_to_timer();
        assert_eq!(house.killed(), [worker, worker], "a second later");
        assert_eq!(house.supervisor.poll_timeout(), None, "once");
    }
}

#[test]
fn a_worker_that_turns_is_starved_or_slept_with_the_machine_is_left_alone() {
    type Alive = fn(u64) -> watchdog::Pulse;
    let turns: Alive = |n| watchdog::Pulse { turns: n, run_ns: 0, delay_ns: 0, runnable: false };
    // Never had a CPU: the kernel adds the delay once the wait is over.
    let starved: Alive = |_| watchdog::Pulse { turns: 7, run_ns: 0, delay_ns: 0, runnable: true };
    // Had one now and then, between two looks.
    let squeezed: Alive =
        |n| watchdog::Pulse { turns: 7, run_ns: n * 1000, delay_ns: n * SECOND / 2, runnable: n % 2 == 0 };
    for alive in [turns, starved, squeezed] {
        let mut house = House::serving(&[0]);
        beat(&mut house, 100, alive);
        assert_eq!(house.killed(), []);
    }
    let mut house = House::serving(&[0]);
    let still = |_| watchdog::Pulse { turns: 7, run_ns: 0, delay_ns: 0, runnable: false };
    for _ in 0..10 {
        beat(&mut house, 8, still);
        house.handle(Event::TimeSkipped);
    }
    assert_eq!(house.killed(), []);
}

#[test]
fn nobody_is_watched_who_starts_or_drains_or_where_it_is_turned_off() {
    let still = |_| watchdog::Pulse { turns: 7, run_ns: 0, delay_ns: 0, runnable: false };
    let mut house = House::serving(&[0]);
    house.kill_worker(0);
    beat(&mut house, 15, still);
    assert_eq!(house.killed(), []);
    let mut house = House::serving(&[0]);
    house.supervisor.set_times(Times { watchdog: Duration::ZERO, ..TIMES });
    beat(&mut house, 100, still);
    assert_eq!(house.killed(), []);
}

#[test]
fn a_stop_drains_workers_then_stops_the_logger_then_leaves() {
    let mut house = House::serving(&[0, 1]);
    house.handle(Event::Stop);
    let workers = [house.worker(0).unwrap(), house.worker(1).unwrap()];
    let drain = Order::Drain { deadline_ms: 30_000, last: false };
    assert_eq!(house.orders(), workers.map(|worker| (worker, drain.clone())));
    house.end(workers[0], Some(0));
    assert!(house.worker(0).is_none(), "nobody is replaced any more");
    let logger = house.logger().unwrap();
    assert!(!house.said.contains(&Action::StopLogger(logger)));
    house.end(workers[1], Some(0));
    assert!(house.said.contains(&Action::StopLogger(logger)));
    assert_eq!(house.exit, None);
    house.end(logger, Some(0));
    assert_eq!(house.exit, Some(EXIT_DONE));
}

#[test]
fn workers_that_overstay_the_deadline_are_killed() {
    let mut house = House::serving(&[0, 0]);
    house.handle(Event::Stop);
    house.pass(30 * SECOND);
    assert_eq!(house.killed(), [], "a second to leave by themselves");
    house.pass_to_timer();
    assert_eq!(house.killed().len(), 2);
    house.kill_worker(0);
    house.kill_worker(1);
    let logger = house.logger().unwrap();
    house.pass_to_timer();
    assert_eq!(house.killed()[2..], [logger], "so is the logger after 7 s");
    house.end(logger, None);
    assert_eq!(house.exit, Some(EXIT_DONE));
}

#[test]
fn a_second_stop_hurries() {
    let mut house = House::serving(&[0]);
    house.handle(Event::Stop);
    house.said.clear();
    house.handle(Event::Stop);
    let worker = house.worker(0).unwrap();
    assert_eq!(house.orders(), [(worker, Order::Drain { deadline_ms: 0, last: false })]);
    house.pass_to_timer();
    assert_eq!(house.killed(), [worker]);
    house.handle(Event::Stop);
    house.kill_worker(0);
    house.handle(Event::Stop);
    house.end(house.logger().unwrap(), Some(0));
    assert_eq!(house.exit, Some(EXIT_DONE));
}

#[test]
fn a_drain_has_no_deadline_until_a_stop_gives_it_one() {
    let mut house = House::serving(&[0]);
    house.handle(Event::Drain);
    assert!(matches!(house.orders()[..], [(_, Order::Drain { last: true, .. })]), "nobody is to follow");
    house.pass(3600 * SECOND);
    assert_eq!(house.killed(), []);
    house.handle(Event::Drain);
    house.said.clear();
    house.handle(Event::Stop);
    let worker = house.worker(0).unwrap();
    assert_eq!(house.orders(), [(worker, Order::Drain { deadline_ms: 30_000, last: false })]);
    house.pass_to_timer();
    assert_eq!(house.killed(), [worker]);
}

#[test]
fn a_logger_that_dies_during_a_drain_is_replaced_to_empty_the_rings() {
    let mut house = House::serving(&[0]);
    house.handle(Event::Stop);
    house.end(house.logger().unwrap(), None);
    let successor = house.logger().expect("rings are still to be emptied");
    house.kill_worker(0);
    assert!(house.said.contains(&Action::StopLogger(successor)));
}

#[test]
fn a_logger_that_keeps_dying_is_not_waited_for() {
    let mut house = House::serving(&[0]);
    house.handle(Event::Stop);
    house.end(house.logger().unwrap(), None);
    house.end(house.logger().unwrap(), None);
    house.kill_worker(0);
    assert_eq!(house.exit, Some(EXIT_DONE));
}

#[derive(Debug, Clone)]
enum Step {
    Kill(usize),
    Ready(usize),
    Pass(u64),
    Timer,
    Plan,
    Load(bool),
    Reload,
    Replace(usize),
    ReplaceLogger,
    Upgrade,
    Pulse(usize, bool),
    Drain,
    Stop,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0usize..8).prop_map(Step::Kill),
        8 => (0usize..8).prop_map(Step::Ready),
        4 => (1u64..20 * SECOND).prop_map(Step::Pass),
        8 => Just(Step::Timer),
        1 => Just(Step::Plan),
        1 => any::<bool>().prop_map(Step::Load),
        1 => Just(Step::Reload),
        3 => (0usize..8).prop_map(Step::Replace),
        1 => Just(Step::ReplaceLogger),
        1 => Just(Step::Upgrade),
        4 => (0usize..8, any::<bool>()).prop_map(|(nth, still)| Step::Pulse(nth, still)),
        // Rare, or every run would be over soon.
        1 => (0u8..8).prop_map(|n| match n { 0 => Step::Drain, 1 => Step::Stop, _ => Step::Timer }),
    ]
}

fn take(house: &mut House, step: &Step) {
    match step {
        Step::Kill(nth) if !house.alive.is_empty() => {
            let process = *house.alive.keys().nth(nth % house.alive.len()).unwrap();
            // A loader has a code of its own, the others don't matter.
            house.end(process, Some(1));
        }
        Step::Ready(nth) => {
            let starting: Vec<Process> = (0..house.pools.len())
                .flat_map(|slot| house.workers(slot))
                .filter(|process| !house.ready.contains(process) && !house.handed_over.contains(process))
                .collect();
            if !starting.is_empty() {
                house.be_ready(starting[nth % starting.len()]);
            }
        }
        Step::Pass(duration_ns) => house.pass(*duration_ns),
        Step::Timer => {
            house.pass_to_timer();
        }
        // Only a living loader hands over a plan.
        Step::Plan if house.loader().is_some() => house.handle(Event::Plan),
        Step::Load(begun) if house.loader().is_some() => {
            house.handle(if *begun { Event::LoadBegun } else { Event::LoadEnded });
        }
        Step::Reload => house.handle(Event::Reload),
        Step::Replace(nth) => house.handle(Event::Replace { slot: nth % house.pools.len() }),
        Step::ReplaceLogger => house.handle(Event::ReplaceLogger),
        Step::Upgrade => house.handle(Event::Upgrade),
        Step::Pulse(nth, still) => {
            let process = *house.alive.keys().nth(nth % house.alive.len().max(1)).unwrap_or(&Process(0));
            let turns = if *still { 7 } else { house.now_ns };
            let pulse = watchdog::Pulse { turns, run_ns: 0, delay_ns: 0, runnable: false };
            house.handle(Event::Pulse(process, pulse));
        }
        Step::Drain => house.handle(Event::Drain),
        Step::Stop => house.handle(Event::Stop),
        Step::Kill(_) | Step::Plan | Step::Load(_) => {}
    }
}

proptest! {
    /// `House` asserts after every step: one process a slot and so one writer a
    /// ring, every waiting socket served where a neighbour is ready, no orders to
    /// the dead, no timer in the past, the logger last, Exit with nobody alive.
    #[test]
    fn whatever_dies_and_whenever_the_promises_hold_and_a_stop_ends(
        pools in prop::collection::vec(0usize..3, 1..6),
        steps in prop::collection::vec(step(), 0..200),
        stubborn in any::<bool>(),
    ) {
        let mut house = House::new(&pools);
        house.handle(Event::Plan);
        for step in &steps {
            if house.exit.is_some() {
                return Ok(());
            }
            take(&mut house, step);
        }
        if house.exit.is_some() {
            return Ok(());
        }
        house.handle(Event::Stop);
        let mut killed = 0;
        for _ in 0..100 {
            if house.exit.is_some() {
                break;
            }
            // The killed die; the others leave when told to, or only when killed.
            let victims: Vec<Process> = house.killed().into_iter()
                .filter(|process| house.alive.contains_key(process))
                .collect();
            let leaving = if stubborn { None } else { house.alive.keys().next().copied() };
            if let Some(process) = victims.first().copied().or(leaving) {
                killed += 1;
                house.end(process, None);
            } else if !house.pass_to_timer() {
                break;
            }
        }
        prop_assert!(house.exit.is_some(), "no exit after {killed} ends; alive {:?}", house.alive);
    }
}
