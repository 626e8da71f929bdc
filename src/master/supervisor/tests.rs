use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MS;
const DRAIN: Duration = Duration::from_secs(30);

/// A supervisor with the processes it believes to have, kept by what it says alone.
struct House {
    supervisor: Supervisor,
    now_ns: u64,
    /// Everything that lives: its role, and which ring it was given.
    alive: BTreeMap<Process, (Role, usize)>,
    ready: Vec<Process>,
    /// Who serves whose socket besides its own.
    adopted: BTreeMap<usize, Process>,
    said: Vec<Action>,
    exit: Option<u8>,
    pools: Vec<usize>,
}

impl House {
    fn new(pools: &[usize]) -> House {
        let mut house = House {
            supervisor: Supervisor::new(pools, DRAIN, 7),
            now_ns: SECOND,
            alive: BTreeMap::new(),
            ready: Vec::new(),
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
        house.handle(Event::Plan);
        house.end(house.loader().unwrap(), Some(0));
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
    }

    fn perform(&mut self, actions: Vec<Action>) {
        for action in actions {
            assert_eq!(self.exit, None, "nothing is said after Exit: {action:?}");
            match action.clone() {
                Action::Spawn { process, role, which } => {
                    let holder = self.alive.values().find(|(other, _)| *other == role);
                    assert_eq!(holder, None, "{role:?} lives already");
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
                        Order::Drain { .. } => self.adopted.clear(),
                        Order::Plan => {}
                    }
                }
                Action::StopLogger(process) => {
                    assert!(matches!(self.alive[&process], (Role::Logger, _)));
                    let others = self.alive.len();
                    assert_eq!(others, 1, "the logger is stopped last");
                }
                Action::Kill { process, .. } => assert!(self.alive.contains_key(&process)),
                Action::Exit(code) => {
                    assert!(self.alive.is_empty(), "exit with living children: {:?}", self.alive);
                    self.exit = Some(code);
                }
                Action::Waits { .. } | Action::Ready | Action::Stopping { .. } => {}
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

    fn find(&self, role: Role) -> Option<Process> {
        self.alive.iter().find(|(_, (other, _))| *other == role).map(|(process, _)| *process)
    }

    fn worker(&self, slot: usize) -> Option<Process> {
        self.find(Role::Worker { slot })
    }

    fn logger(&self) -> Option<Process> {
        self.find(Role::Logger)
    }

    fn loader(&self) -> Option<Process> {
        self.find(Role::Loader)
    }

    fn make_ready(&mut self, slot: usize) {
        let process = self.worker(slot).expect("a worker to be ready");
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
        let kill = |action: &Action| match action {
            Action::Kill { process, .. } => Some(*process),
            _ => None,
        };
        self.said.iter().filter_map(kill).collect()
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
fn a_reload_loads_again_and_one_during_a_load_loads_once_more() {
    let mut house = House::serving(&[0]);
    house.handle(Event::Reload);
    let first = house.loader().unwrap();
    house.handle(Event::Reload);
    house.handle(Event::Reload);
    house.handle(Event::Plan);
    house.end(first, Some(0));
    let second = house.loader().expect("what was read may have been older");
    house.end(second, Some(1));
    assert!(house.loader().is_none());
    assert_eq!(house.exit, None, "a bad file changes nothing");
}

#[test]
fn a_loader_that_hangs_is_killed_and_the_instance_serves_on() {
    let mut house = House::serving(&[0]);
    house.handle(Event::Reload);
    let loader = house.loader().unwrap();
    house.pass(119 * SECOND);
    assert_eq!(house.killed(), []);
    house.pass_to_timer();
    assert_eq!(house.killed(), [loader]);
    assert_eq!(house.supervisor.poll_timeout(), None);
    house.end(loader, None);
    assert!(!house.supervisor.is_stopping());
}

#[test]
fn a_stop_drains_workers_then_stops_the_logger_then_leaves() {
    let mut house = House::serving(&[0, 1]);
    house.handle(Event::Stop);
    let workers = [house.worker(0).unwrap(), house.worker(1).unwrap()];
    let drain = Order::Drain { deadline_ms: 30_000 };
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
    assert_eq!(house.orders(), [(worker, Order::Drain { deadline_ms: 0 })]);
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
    house.pass(3600 * SECOND);
    assert_eq!(house.killed(), []);
    house.handle(Event::Drain);
    house.said.clear();
    house.handle(Event::Stop);
    let worker = house.worker(0).unwrap();
    assert_eq!(house.orders(), [(worker, Order::Drain { deadline_ms: 30_000 })]);
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
    Reload,
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
        1 => Just(Step::Reload),
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
            let starting: Vec<usize> = (0..house.pools.len())
                .filter(|slot| house.worker(*slot).is_some_and(|process| !house.ready.contains(&process)))
                .collect();
            if !starting.is_empty() {
                house.make_ready(starting[nth % starting.len()]);
            }
        }
        Step::Pass(duration_ns) => house.pass(*duration_ns),
        Step::Timer => {
            house.pass_to_timer();
        }
        // Only a living loader hands over a plan.
        Step::Plan if house.loader().is_some() => house.handle(Event::Plan),
        Step::Reload => house.handle(Event::Reload),
        Step::Drain => house.handle(Event::Drain),
        Step::Stop => house.handle(Event::Stop),
        Step::Kill(_) | Step::Plan => {}
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
