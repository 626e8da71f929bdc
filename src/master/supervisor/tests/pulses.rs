//! Workers that stand still.

use super::*;

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
