//! What the master does, as the supervisor says.

use std::io;

use nix::sys::signal::Signal;
use sd_notify::NotifyState;

use super::process::{Birth, Running};
use super::supervisor::{Action, Event, Process, Role};
use super::{Master, Stage};
use crate::clock;
use crate::loader;
use crate::logger;
use crate::metrics::{self, Family, instance_state};
use crate::worker::Order;

impl Master {
    /// Does it; gives what happened by that.
    pub(super) fn perform(&mut self, actions: Vec<Action>) -> Vec<Event> {
        let mut events = Vec::new();
        for action in actions {
            match action {
                Action::Spawn { process, role, which } => events.extend(self.spawn(process, role, which)),
                Action::Order { process, order } => self.order(process, &order),
                Action::Reload(process) => {
                    let order = loader::Order::Reload { ticket: self.plans.ticket };
                    if let Some(running) = self.running.get_mut(&process) {
                        running.send(order.encode(), None);
                    }
                }
                Action::Replaced => {
                    self.end_upgrade();
                    self.rolls.ended += 1;
                    self.rolls.fault = None;
                    log::info!("event=workers_replaced");
                }
                Action::ReplacementFailed { slot } => {
                    self.end_upgrade();
                    let name = self.name(Role::Worker { slot }).to_owned();
                    log::error!("event=replacement_failed worker={name}");
                    self.rolls.ended += 1;
                    self.rolls.fault = Some(format!("worker {name}: its successor did not get to work"));
                }
                Action::Upgrade => {
                    self.tell_begun();
                    let error = self.upgrade();
                    self.heritage.block().add(Family::UpgradesFailed, 1);
                    log::error!("event=upgrade_failed error={:?}", error.to_string());
                    self.notify(&[NotifyState::Ready]);
                    events.push(Event::UpgradeFailed);
                }
                Action::UpgradeRefused(why) => {
                    self.heritage.block().add(Family::UpgradesFailed, 1);
                    if self.settings_faults.is_empty() {
                        self.settings_faults.push(format!("settings not taken: {why}"));
                    }
                    log::error!("event=upgrade_refused reason={why:?}");
                }
                Action::StopLogger(process) => {
                    if let Some(running) = self.running.get_mut(&process) {
                        running.told_to_leave = true;
                        running.send(logger::Order::Stop.encode().to_vec(), None);
                    }
                }
                Action::Kill { process, signal, why } => {
                    if let Some(running) = self.running.get_mut(&process) {
                        // Whoever has nothing to finish is not asked.
                        let usual = matches!(running.role, Role::Loader) && self.supervisor.is_stopping();
                        log::log!(
                            if usual { log::Level::Info } else { log::Level::Warn },
                            "event=kill process={} child_pid={} signal={signal} why={why:?}",
                            running.name,
                            running.pid()
                        );
                        // It may have ended in this moment; its pidfd says so next.
                        let _ = running.kill(signal);
                        running.stood_still |= signal == Signal::SIGABRT;
                    }
                }
                Action::Waits { role, delay, failures } => {
                    let name = self.name(role);
                    let delay_ms = delay.as_millis();
                    log::warn!(
                        "event=restart_waits process={name} deaths_in_a_row={failures} delay_ms={delay_ms}"
                    );
                }
                Action::Ready => self.say_ready(),
                Action::Stopping { why, deadline } => {
                    self.heritage.block().set(Family::InstanceState, instance_state::DRAINING);
                    let text =
                        deadline.map_or("none".to_owned(), |deadline| deadline.as_millis().to_string());
                    log::info!("event=stopping why={why:?} deadline_ms={text}");
                    self.notify(&[NotifyState::Stopping]);
                    if deadline.is_none() {
                        self.forget_sockets();
                    }
                }
                Action::Exit(code) => self.exit = Some(code),
            }
        }
        events
    }

    fn say_ready(&mut self) {
        self.heritage.block().set(Family::InstanceState, instance_state::READY);
        let start_ms = (clock::now().mono_ns - self.started_ns) / 1_000_000;
        log::info!("event=ready workers={} start_ms={start_ms}", self.supervisor.ready_count());
        self.notify(&[NotifyState::Ready]);
    }

    /// Everybody is of this program now, or stays of the one before.
    fn end_upgrade(&mut self) {
        if std::mem::take(&mut self.rolls.stage) != Stage::None {
            self.notify(&[NotifyState::Ready]);
        }
    }

    fn order(&mut self, process: Process, order: &Order) {
        let Some(running) = self.running.get_mut(&process) else { return };
        running.send(order.encode(), None);
        let name = running.name.clone();
        match order {
            Order::Adopt { slot } => {
                log::info!("event=socket_adopted worker={} by={name}", self.heritage.places[*slot].name);
            }
            Order::Release { slot } => {
                log::info!("event=socket_released worker={} by={name}", self.heritage.places[*slot].name);
            }
            Order::HandOver { deadline_ms } => {
                running.told_to_leave = true;
                log::info!(
                    "event=handed_over worker={name} child_pid={} deadline_ms={deadline_ms}",
                    running.pid()
                );
            }
            Order::Plan | Order::Drain { .. } => {}
        }
    }

    fn name(&self, role: Role) -> &str {
        match role {
            Role::Loader => "loader",
            Role::Check => "check",
            Role::Logger => "logger",
            Role::Worker { slot } => &self.heritage.places[slot].name,
        }
    }

    /// Starts a process; what happened is its end, if it could not be, or what
    /// its start was waited for.
    fn spawn(&mut self, process: Process, role: Role, which: usize) -> Vec<Event> {
        match self.try_spawn(role, which) {
            Ok(running) => {
                log::info!("event=started process={} child_pid={}", running.name, running.pid());
                self.running.insert(process, running);
                if role == Role::Logger && self.rolls.stage == Stage::AwaitsLogger {
                    self.rolls.stage = Stage::AwaitsWorkers;
                    return (0..self.heritage.places.len()).map(|slot| Event::Replace { slot }).collect();
                }
                Vec::new()
            }
            Err(error) => {
                log::error!("event=not_started process={} error={:?}", self.name(role), error.to_string());
                vec![Event::Ended { process, code: None }]
            }
        }
    }

    fn try_spawn(&mut self, role: Role, which: usize) -> io::Result<Running> {
        let birth = Birth {
            role,
            name: self.name(role).to_owned(),
            which,
            nice: 0,
            leads_session: self.niceness.by_session(),
            now_ns: clock::now().mono_ns,
            keep: Vec::new(),
        };
        match role {
            Role::Loader => {
                self.plans.loader_spoke = false;
                let options = loader::Options {
                    path: self.heritage.experiments().to_owned(),
                    state_dir: self.heritage.directories.state_dir.clone(),
                    in_force: self.plans.in_force.as_ref().map(|plan| plan.fingerprint),
                    ticket: self.plans.ticket,
                };
                let birth = Birth { nice: self.niceness.loader(), ..birth };
                Running::start(birth, move |channel| loader::run(&options, &channel))
            }
            Role::Check => self.start_check(birth),
            Role::Logger => {
                let nice = self.niceness.allowed(self.heritage.settings().logger.nice);
                let (options, region) = self.heritage.logger(nice)?;
                Running::start(Birth { nice, ..birth }, move |channel| {
                    let table = metrics::Table::attach(region.words()).expect("laid out by the master");
                    let block = table.block(metrics::LOGGER_BLOCK);
                    block.claim(metrics::Process::Logger, "");
                    let now = clock::now();
                    block.born(std::process::id(), now.unix_us, now.mono_ns);
                    logger::run(options, channel, block)
                })
            }
            Role::Worker { slot } => {
                let plan =
                    self.plans.in_force.as_ref().ok_or_else(|| io::Error::other("no plan to serve"))?;
                let mut estate = self.heritage.worker(slot, which, &plan.image)?;
                let nice = self.niceness.allowed(self.heritage.pool(slot).nice);
                let keep = std::mem::take(&mut estate.keep);
                Running::start(Birth { nice, keep, ..birth }, move |channel| estate.run(channel))
            }
        }
    }
}
