//! What the master hears: signals, the words of its children, and their ends.

use std::collections::VecDeque;

use super::process::Running;
use super::signals::Told;
use super::supervisor::{Event, Process, Role};
use super::upgrade::{self, Target};
use super::{Master, Stage, plans};
use crate::clock;
use crate::metrics::{self, Family};
use crate::sys::fork::Exit;
use crate::worker::Report;

/// Names of the causes, as `metrics::EXIT_CAUSES` has them.
const CAUSES: [&str; 4] = ["exit", "signal", "panic", "watchdog"];

impl Master {
    pub(super) fn hear_signals(&mut self, events: &mut VecDeque<Event>) {
        loop {
            let (signal, told, sender) = match self.signals.read() {
                Ok(Some(found)) => found,
                Ok(None) => return,
                Err(error) => {
                    log::error!("event=signals_failed error={:?}", error.to_string());
                    return;
                }
            };
            log::info!("event=signal signal={signal} sender_pid={sender}");
            match told {
                Told::Stop => events.push_back(Event::Stop),
                Told::Drain => events.push_back(Event::Drain),
                Told::Reload if self.supervisor.is_stopping() => {}
                Told::Reload => self.wish_reload(events),
                // There are none but standard error.
                Told::ReopenLogs => {}
                Told::Upgrade => {
                    if !self.supervisor.is_checking() {
                        self.target = Target::Path;
                    }
                    events.push_back(Event::Upgrade);
                }
            }
        }
    }

    /// Somebody wants the experiments read again; the wish's number is the ticket.
    pub(super) fn wish_reload(&mut self, events: &mut VecDeque<Event>) {
        self.plans.ticket += 1;
        self.tell_reloading();
        events.push_back(Event::Reload);
        self.settings_wished = self.origin.path.is_some();
    }

    /// Has the settings looked at, if somebody wished for it and nothing else is under way.
    pub(super) fn look_at_settings(&mut self, events: &mut VecDeque<Event>) {
        let busy =
            self.supervisor.is_checking() || self.supervisor.is_rolling() || self.rolls.stage != Stage::None;
        if self.settings_wished && !busy {
            self.settings_wished = false;
            self.target = Target::Itself;
            self.settings_faults.clear();
            events.push_back(Event::Upgrade);
        }
    }

    /// Whether no new plan may come into force now.
    pub(super) fn holds_plans(&self) -> bool {
        self.supervisor.is_checking()
            || matches!(self.rolls.stage, Stage::AwaitsLogger | Stage::AwaitsWorkers)
    }

    pub(super) fn hear_channel(&mut self, process: Process, events: &mut VecDeque<Event>) {
        let Some(running) = self.running.get_mut(&process) else { return };
        running.flush();
        let packets = running.receive();
        let (role, name) = (running.role, running.name.clone());
        for (packet, memory) in packets {
            match role {
                Role::Loader => self.hear_loader(&packet, memory, events),
                Role::Worker { .. } => self.hear_worker(process, &name, &packet, events),
                Role::Check => {
                    self.settings_faults =
                        String::from_utf8_lossy(&packet).lines().map(str::to_owned).collect();
                }
                Role::Logger => {
                    log::warn!("event=packet_dropped process={name} size={}", packet.len());
                }
            }
        }
    }

    fn hear_worker(&mut self, process: Process, name: &str, packet: &[u8], events: &mut VecDeque<Event>) {
        match Report::decode(packet) {
            Ok(Report::Ready) => {
                log::info!("event=worker_ready worker={name} after_ms={}", self.age_ms(process));
                events.push_back(Event::Ready(process));
                self.follow_left_behind(process);
            }
            Ok(Report::PlanInForce) => self.plan_answered(process, None),
            Ok(Report::PlanRefused { reason }) => self.plan_answered(process, Some(reason)),
            Err(fault) => log::warn!("event=packet_dropped process={name} reason={:?}", fault.to_string()),
        }
    }

    /// A worker is ready: those of a killed instance may leave up to the first
    /// slot that has none yet.
    fn follow_left_behind(&mut self, process: Process) {
        if let Some(running) = self.running.get_mut(&process) {
            running.ready = true;
        }
        let ready = |slot: usize| {
            let of_slot = |running: &&Running| running.role == Role::Worker { slot } && running.ready;
            self.running.values().any(|running| of_slot(&running))
        };
        let count = (0..self.heritage.places.len()).take_while(|slot| ready(*slot)).count();
        self.heritage.retire_left_behind(count);
    }

    pub(super) fn hear_end(&mut self, process: Process, events: &mut VecDeque<Event>) {
        // What it had said is heard before its end.
        self.hear_channel(process, events);
        let exit = match self.running.get(&process).map(Running::try_wait) {
            Some(Ok(Some(exit))) => exit,
            Some(Ok(None)) | None => return,
            Some(Err(error)) => panic!("a child of the master's own can't be reaped: {error}"),
        };
        self.say_end(process, exit);
        let Some(running) = self.running.remove(&process) else { return };
        if let Role::Worker { slot } = running.role {
            self.heritage.clear_gauges(&[0, 1].map(|which| metrics::worker_block(slot, which)));
        }
        self.heritage.say_ended(running.pid().unsigned_abs());
        self.say_plan_in_force();
        let code = match exit {
            Exit::Code(code) => Some(code),
            Exit::Signal(_) => None,
        };
        events.push_back(Event::Ended { process, code });
    }

    fn say_end(&mut self, process: Process, exit: Exit) {
        let running = &self.running[&process];
        let last_words = running.last_words();
        let cause = match (exit, &last_words) {
            _ if running.stood_still => 3,
            (_, Some(_)) => 2,
            (Exit::Signal(_), None) => 1,
            (Exit::Code(_), None) => 0,
        };
        let block = self.heritage.block();
        let expected = match running.role {
            Role::Loader if running.told_to_leave || self.supervisor.is_stopping() => true,
            // At a first start it leaves when there is nothing to serve, and has said why.
            Role::Loader if self.plans.in_force.is_none() && self.plans.loader_spoke => true,
            Role::Loader => {
                block.add_at(Family::Reloads, 2, 1);
                let faults = vec![format!("the loader ended: {exit}")];
                self.plans.outcome = Some(plans::Outcome { ticket: self.plans.ticket, faults });
                false
            }
            Role::Check => {
                matches!(exit, Exit::Code(code) if code == 0 || code == i32::from(upgrade::EXIT_SAME))
            }
            Role::Logger | Role::Worker { .. } if running.told_to_leave || self.supervisor.is_stopping() => {
                exit == Exit::Code(0)
            }
            Role::Logger => {
                block.add_at(Family::LoggerRestarts, cause, 1);
                false
            }
            Role::Worker { .. } => {
                block.add_at(Family::Restarts, cause, 1);
                false
            }
        };
        let level = if expected { log::Level::Info } else { log::Level::Error };
        let words = last_words.map(|words| format!(" last_words={words:?}")).unwrap_or_default();
        log::log!(
            level,
            "event=ended process={} child_pid={} cause={} {exit} after_ms={}{words}",
            running.name,
            running.pid(),
            CAUSES[cause],
            self.age_ms(process),
        );
    }

    pub(super) fn age_ms(&self, process: Process) -> u64 {
        let started_ns = self.running.get(&process).map_or(u64::MAX, |running| running.started_ns);
        clock::now().mono_ns.saturating_sub(started_ns) / 1_000_000
    }
}
