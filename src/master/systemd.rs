//! What systemd is told (sd_notify(3)): states, a line of status, the watchdog's
//! sign of life, and the listening sockets, for its fd store to keep.

use std::os::fd::AsFd;
use std::time::Duration;

use sd_notify::NotifyState;

use super::Master;
use super::listen::Bound;
use super::passed::{self, stored_name};
use crate::clock;
use crate::worker::Keeper;

/// Between two lines of status.
const STATUS_INTERVAL: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Debug)]
pub(super) struct Systemd {
    /// Somebody listens.
    listens: bool,
    /// Half of what WatchdogSec allows.
    watchdog: Option<Duration>,
    watchdog_ns: u64,
    status_ns: u64,
    /// Requests at the last line of status.
    request_count: u64,
    requests_per_s: u64,
    /// A reload was said to have begun, by this wish.
    reloading: Option<u64>,
}

impl Systemd {
    pub(super) fn find() -> Systemd {
        let listens = std::env::var_os("NOTIFY_SOCKET").is_some();
        let watchdog = sd_notify::watchdog_enabled().map(|most| most / 2);
        Systemd {
            listens,
            watchdog,
            watchdog_ns: 0,
            status_ns: 0,
            request_count: 0,
            requests_per_s: 0,
            reloading: None,
        }
    }

    /// When there is something to tell.
    pub(super) fn due_ns(&self) -> Option<u64> {
        let status_ns = self.listens.then_some(self.status_ns);
        let watchdog_ns = self.watchdog.map(|_| self.watchdog_ns);
        [status_ns, watchdog_ns].into_iter().flatten().min()
    }
}

impl Master {
    /// Tells what is due.
    pub(super) fn tell_systemd(&mut self, now_ns: u64) {
        let in_order = self.supervisor.is_in_order();
        if let Some(every) = self.systemd.watchdog
            && now_ns >= self.systemd.watchdog_ns
        {
            self.systemd.watchdog_ns = now_ns + every.as_nanos() as u64;
            // Else its patience ends, and it starts another master.
            if in_order {
                self.tell(&[NotifyState::Watchdog]);
            }
        }
        if self.systemd.listens && now_ns >= self.systemd.status_ns {
            let count = self.heritage.request_count();
            let news = count.saturating_sub(self.systemd.request_count);
            self.systemd.requests_per_s = news / STATUS_INTERVAL.as_secs();
            self.systemd.request_count = count;
            self.systemd.status_ns = now_ns + STATUS_INTERVAL.as_nanos() as u64;
            self.notify(&[]);
        }
        if let Some(ticket) = self.systemd.reloading
            && self.plans.is_settled(ticket)
        {
            self.systemd.reloading = None;
            self.notify(&[NotifyState::Ready]);
        }
    }

    /// A reload begins; [`Master::tell_systemd`] says when it is over.
    pub(super) fn tell_reloading(&mut self) {
        self.systemd.reloading = Some(self.plans.ticket);
        self.tell_begun();
    }

    /// Something begins that READY ends.
    pub(super) fn tell_begun(&self) {
        let now_us = i128::from(clock::now().mono_ns / 1_000);
        self.notify(&[NotifyState::Reloading, NotifyState::MonotonicUsec(now_us)]);
    }

    /// Gives every socket to the fd store that no socket unit keeps; one that it
    /// has already stays as it is.
    pub(super) fn store_sockets(&self) {
        for (name, bound) in self.stored_sockets() {
            let states = [
                NotifyState::FdStore,
                NotifyState::FdName(&name),
                // It would throw out one that is shut for a moment.
                NotifyState::Custom("FDPOLL=0"),
            ];
            if let Err(error) = sd_notify::notify_with_fds(&states, &[bound.fd.as_fd()]) {
                log::warn!("event=socket_not_stored name={name} error={:?}", error.to_string());
            }
        }
    }

    /// At a stop that no start is to follow.
    pub(super) fn forget_sockets(&mut self) {
        self.stored_sockets().for_each(|(name, _)| passed::forget(&name));
        self.heritage.keep_sockets_no_more();
    }

    fn stored_sockets(&self) -> impl Iterator<Item = (String, &Bound)> {
        let pools = self.heritage.settings().pools.iter().zip(self.heritage.bound());
        let all = pools.flat_map(|(pool, bound)| bound.iter().map(move |bound| (pool, bound)));
        let stored = all.filter(|(_, bound)| bound.keeper == Keeper::Store);
        stored.map(|(pool, bound)| (stored_name(&pool.name, bound.index), bound))
    }

    /// Tells systemd, if it listens, with a text for `systemctl status`.
    pub(super) fn notify(&self, states: &[NotifyState<'_>]) {
        let version = self.plans.in_force.as_ref().map_or("none", |plan| plan.version.as_str());
        let status = format!(
            "experiments {version}; {} of {} workers ready; {} requests/s",
            self.supervisor.ready_count(),
            self.heritage.places.len(),
            self.systemd.requests_per_s,
        );
        let mut all = vec![NotifyState::Status(&status)];
        all.extend_from_slice(states);
        self.tell(&all);
    }

    fn tell(&self, states: &[NotifyState<'_>]) {
        if let Err(error) = sd_notify::notify(states) {
            log::warn!("event=systemd_not_told error={:?}", error.to_string());
        }
    }
}
