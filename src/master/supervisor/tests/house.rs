//! A supervisor among processes that live and die as the test says, held to its
//! promises after every step.

use super::*;

/// A supervisor with the processes it believes to have, kept by what it says alone.
pub(super) struct House {
    pub(super) supervisor: Supervisor,
    pub(super) now_ns: u64,
    /// Everything that lives: its role, and which ring it was given.
    pub(super) alive: BTreeMap<Process, (Role, usize)>,
    pub(super) ready: Vec<Process>,
    /// Predecessors that were told to drain.
    pub(super) handed_over: BTreeSet<Process>,
    /// Loaders that are ended as soon as they are killed, and their kills not told.
    pub(super) loaders: BTreeSet<Process>,
    /// Who serves whose socket besides its own.
    pub(super) adopted: BTreeMap<usize, Process>,
    pub(super) said: Vec<Action>,
    pub(super) exit: Option<u8>,
    pub(super) pools: Vec<usize>,
}

impl House {
    pub(super) fn new(pools: &[usize]) -> House {
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
    pub(super) fn serving(pools: &[usize]) -> House {
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

    pub(super) fn handle(&mut self, event: Event) {
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

    pub(super) fn perform(&mut self, actions: Vec<Action>) {
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
    pub(super) fn check(&self) {
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
    pub(super) fn workers(&self, slot: usize) -> Vec<Process> {
        let of_slot = |(other, _): &(Role, usize)| *other == Role::Worker { slot };
        self.alive.iter().filter(|(_, lives)| of_slot(lives)).map(|(process, _)| *process).collect()
    }

    pub(super) fn find(&self, role: Role) -> Option<Process> {
        self.alive.iter().find(|(_, (other, _))| *other == role).map(|(process, _)| *process)
    }

    pub(super) fn worker(&self, slot: usize) -> Option<Process> {
        self.workers(slot).into_iter().find(|process| !self.handed_over.contains(process))
    }

    /// The one that is to follow it.
    pub(super) fn successor(&self, slot: usize) -> Option<Process> {
        self.workers(slot)
            .into_iter()
            .rfind(|process| Some(*process) != self.worker(slot))
            .filter(|process| !self.handed_over.contains(process))
    }

    pub(super) fn logger(&self) -> Option<Process> {
        self.find(Role::Logger)
    }

    pub(super) fn loader(&self) -> Option<Process> {
        self.find(Role::Loader)
    }

    pub(super) fn make_ready(&mut self, slot: usize) {
        self.be_ready(self.worker(slot).expect("a worker to be ready"));
    }

    pub(super) fn be_ready(&mut self, process: Process) {
        self.ready.push(process);
        self.handle(Event::Ready(process));
    }

    pub(super) fn end(&mut self, process: Process, code: Option<i32>) {
        self.alive.remove(&process).expect("only the living die");
        self.ready.retain(|other| *other != process);
        self.adopted.retain(|_, adopter| *adopter != process);
        self.handle(Event::Ended { process, code });
    }

    pub(super) fn kill_worker(&mut self, slot: usize) {
        let process = self.worker(slot).expect("a worker to kill");
        self.end(process, None);
    }

    pub(super) fn pass(&mut self, duration_ns: u64) {
        self.now_ns += duration_ns;
        self.handle(Event::Time);
    }

    /// Lets the next timer be due, if there is one.
    pub(super) fn pass_to_timer(&mut self) -> bool {
        let Some(due_ns) = self.supervisor.poll_timeout() else { return false };
        assert!(due_ns > self.now_ns, "a timer in the past would be a busy loop");
        self.now_ns = due_ns;
        self.handle(Event::Time);
        true
    }

    pub(super) fn last_wait(&self) -> Option<(Duration, u32)> {
        self.said.iter().rev().find_map(|action| match action {
            Action::Waits { delay, failures, .. } => Some((*delay, *failures)),
            _ => None,
        })
    }

    pub(super) fn orders(&self) -> Vec<(Process, Order)> {
        let order = |action: &Action| match action {
            Action::Order { process, order } => Some((*process, order.clone())),
            _ => None,
        };
        self.said.iter().filter_map(order).collect()
    }

    pub(super) fn killed(&self) -> Vec<Process> {
        self.said.iter().filter_map(kill_of).filter(|process| !self.loaders.contains(process)).collect()
    }
}

pub(super) fn kill_of(action: &Action) -> Option<Process> {
    match action {
        Action::Kill { process, .. } => Some(*process),
        _ => None,
    }
}
