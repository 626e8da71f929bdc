//! The plan in force, and what became of every wish for another.
//!
//! The loader hands plans over; each is given to every worker, and is in force
//! everywhere once all have answered. While an upgrade is under way nothing new
//! comes into force: what the loader has is kept for after.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use super::process::Running;
use super::supervisor::{Event, Process, Role};
use super::{Master, Stage};
use crate::clock;
use crate::loader::{self, Origin, Report};
use crate::metrics::Family;
use crate::worker::Order;

/// Faults of one file that are logged; `splitd check` shows them all.
const FAULT_LOG_COUNT_MAX: usize = 100;

/// The plan that is handed to every worker.
#[derive(Debug)]
pub(super) struct InForce {
    pub(super) image: Rc<OwnedFd>,
    pub(super) version: String,
    /// Of the text it was compiled from.
    pub(super) fingerprint: u64,
    pub(super) taken_ns: u64,
    /// Not every worker has said yet that it uses it, or why not.
    pub(super) awaited: bool,
    /// Who does not use it, and why.
    pub(super) refusals: Vec<String>,
}

/// What came of the wishes up to a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) ticket: u64,
    /// What was wrong with the source; empty: nothing.
    pub(super) faults: Vec<String>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Plans {
    pub(super) in_force: Option<InForce>,
    /// The last wish's number.
    pub(super) ticket: u64,
    pub(super) outcome: Option<Outcome>,
    /// What the loader said while nothing may come into force.
    held: Option<(Report, Option<OwnedFd>)>,
    /// Whether the loader that runs has said anything of use.
    pub(super) loader_spoke: bool,
}

impl Plans {
    /// Whether it is known what came of this wish, and everybody has what came.
    pub(super) fn is_settled(&self, ticket: u64) -> bool {
        let known = self.outcome.as_ref().is_some_and(|outcome| outcome.ticket >= ticket);
        known && self.in_force.as_ref().is_none_or(|plan| !plan.awaited)
    }
}

impl Master {
    pub(super) fn hear_loader(
        &mut self,
        packet: &[u8],
        memory: Option<OwnedFd>,
        events: &mut VecDeque<Event>,
    ) {
        self.plans.loader_spoke = true;
        let Some(report) = Report::decode(packet) else {
            self.plans.loader_spoke = false;
            log::error!("event=packet_dropped process=loader size={}", packet.len());
            return;
        };
        events.push_back(match report {
            Report::Begun => Event::LoadBegun,
            _ => Event::LoadEnded,
        });
        if self.holds_plans() && report != Report::Begun {
            // The newest is the one that counts.
            self.plans.held = Some((report, memory));
        } else {
            self.take_report(report, memory, events);
        }
    }

    /// What was kept for after is taken now, if it is after.
    pub(super) fn take_held(&mut self, events: &mut VecDeque<Event>) {
        if !self.holds_plans()
            && let Some((report, memory)) = self.plans.held.take()
        {
            self.take_report(report, memory, events);
        }
    }

    fn take_report(&mut self, report: Report, memory: Option<OwnedFd>, events: &mut VecDeque<Event>) {
        match (report, memory) {
            (Report::Begun, _) => {}
            (Report::Unchanged { ticket }, _) => {
                self.source_is_good();
                self.plans.outcome = Some(Outcome { ticket, faults: Vec::new() });
            }
            (
                Report::Plan { ticket, experiment_count, version, fingerprint, origin, since_s },
                Some(image),
            ) => {
                if let Err(error) = self.heritage.learn(&image) {
                    log::error!("event=plan_refused version={version:?} reason={error:?}");
                    self.plans.loader_spoke = false;
                    return;
                }
                let block = self.heritage.block();
                block.set(Family::ExperimentsSince, since_s);
                match origin {
                    Origin::Source => {
                        self.source_is_good();
                        self.plans.outcome = Some(Outcome { ticket, faults: Vec::new() });
                        log::info!(
                            "event=experiments_taken version={version:?} experiments={experiment_count}"
                        );
                    }
                    Origin::LastGood => {
                        block.set(Family::PlanLastGood, 1);
                        let age_s = (clock::now().unix_us.unsigned_abs() / 1_000_000).saturating_sub(since_s);
                        log::warn!(
                            "event=last_good_taken version={version:?} experiments={experiment_count} age_s={age_s}"
                        );
                    }
                }
                self.take_plan(Rc::new(image), version, fingerprint, events);
                events.push_back(Event::Plan);
            }
            (Report::Refused { ticket, path }, Some(faults)) => {
                let faults = loader::read_faults(&faults).unwrap_or_else(|error| vec![error.to_string()]);
                self.say_faults(&path.display().to_string(), &faults);
                self.plans.outcome = Some(Outcome { ticket, faults });
            }
            (report, None) => {
                log::error!("event=packet_dropped process=loader report={:?}", format!("{report:?}"));
                self.plans.loader_spoke = false;
            }
        }
    }

    /// The source holds the text whose plan is in force, or is about to be.
    fn source_is_good(&self) {
        let block = self.heritage.block();
        block.set(Family::SourceFaults, 0);
        block.set(Family::PlanLastGood, 0);
    }

    fn take_plan(
        &mut self,
        image: Rc<OwnedFd>,
        version: String,
        fingerprint: u64,
        events: &mut VecDeque<Event>,
    ) {
        self.heritage.block().add_at(Family::Reloads, 0, 1);
        let mut awaited = false;
        for running in self.running.values_mut() {
            if matches!(running.role, Role::Worker { .. }) {
                running.send(Order::Plan.encode(), Some(Rc::clone(&image)));
                awaited = true;
            }
        }
        self.heritage.board().set_version(&version);
        let taken_ns = clock::now().mono_ns;
        self.plans.in_force =
            Some(InForce { image, version, fingerprint, taken_ns, awaited, refusals: Vec::new() });
        if !awaited {
            self.expect_shares();
        }
        self.notify(&[]);
        if self.rolls.stage == Stage::AwaitsPlan {
            self.rolls.stage = Stage::AwaitsLogger;
            events.push_back(Event::ReplaceLogger);
        }
    }

    /// A worker has answered; `refusal` says why it does not use the plan.
    pub(super) fn plan_answered(&mut self, process: Process, refusal: Option<String>) {
        let Some(running) = self.running.get_mut(&process) else { return };
        running.plan_answered();
        if let Some(reason) = refusal {
            let name = &running.name;
            log::error!("event=plan_refused worker={name} reason={reason:?}");
            if let Some(plan) = &mut self.plans.in_force {
                plan.refusals.push(format!("worker {name}: {reason}"));
            }
        }
        self.say_plan_in_force();
    }

    pub(super) fn say_plan_in_force(&mut self) {
        let owed = self.running.values().any(Running::owes_plan);
        if let Some(plan) = &mut self.plans.in_force
            && plan.awaited
            && !owed
        {
            plan.awaited = false;
            let after_ms = (clock::now().mono_ns - plan.taken_ns) / 1_000_000;
            log::info!("event=plan_in_force version={:?} everywhere_after_ms={after_ms}", plan.version);
            self.expect_shares();
        }
    }

    /// Every worker uses the plan in force, unless one refused: what is assigned from
    /// here on is held against its shares.
    pub(super) fn expect_shares(&self) {
        let Some(plan) = self.plans.in_force.as_ref().filter(|plan| plan.refusals.is_empty()) else { return };
        if let Err(error) = self.heritage.expect(&plan.image) {
            log::error!("event=shares_unknown version={:?} reason={error:?}", plan.version);
        }
    }

    fn say_faults(&self, path: &str, faults: &[String]) {
        let block = self.heritage.block();
        block.add_at(Family::Reloads, 1, 1);
        block.set(Family::SourceFaults, faults.len() as u64);
        let in_force = self.plans.in_force.as_ref().map_or("none", |plan| plan.version.as_str());
        log::error!("event=experiments_refused file={path:?} faults={} in_force={in_force:?}", faults.len());
        for fault in faults.iter().take(FAULT_LOG_COUNT_MAX) {
            log::error!("event=experiments_fault fault={fault:?}");
        }
        if faults.len() > FAULT_LOG_COUNT_MAX {
            let more = faults.len() - FAULT_LOG_COUNT_MAX;
            log::error!("event=experiments_fault more={more}");
        }
    }
}
