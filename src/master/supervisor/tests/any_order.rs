//! Any events in any order.

use proptest::prelude::*;

use super::*;

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
    #![proptest_config(ProptestConfig::with_cases(2000))]
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
