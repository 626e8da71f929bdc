//! Replacing what runs: workers one at a time, the logger, the program itself.

use super::*;

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
