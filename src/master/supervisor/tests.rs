//! The supervisor without a process: what it says to what happens. Here starts,
//! deaths and reloads; the rest in files of their own.

mod any_order;
mod house;
mod pulses;
mod replacement;
mod stop;

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::worker::Order;
use house::House;

const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MS;
const DRAIN: Duration = Duration::from_secs(30);
const TIMES: Times = Times { drain: DRAIN, watchdog: Duration::from_secs(5) };

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
