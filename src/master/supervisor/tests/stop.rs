//! Stops and drains.

use super::*;

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
