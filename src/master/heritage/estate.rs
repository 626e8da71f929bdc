//! What each child is given of it, its own settings among it.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::PathBuf;

use super::Heritage;
use crate::config::settings::{Io, Pool, Route};
use crate::endpoint::{AppOptions, RouteGroup, Shed};
use crate::http;
use crate::limits;
use crate::logger;
use crate::master::sink;
use crate::sys::channel::Channel;
use crate::sys::region::Region;
use crate::worker::{self, Listener, PoolOptions, Rings, Setup, Traces};

impl Heritage {
    /// What a worker is given: copies of its descriptors, which are all that it keeps.
    ///
    /// # Errors
    /// If there are no descriptors left.
    pub fn worker(&self, slot: usize, which: usize, plan: &OwnedFd) -> io::Result<WorkerEstate> {
        let place = &self.places[slot];
        let first = slot - place.index;
        let listeners = self.bound[place.pool]
            .iter()
            .map(|bound| {
                Ok(Listener {
                    fd: bound.fd.try_clone()?,
                    slot: first + bound.index,
                    address: bound.address.clone(),
                    speaks: bound.speaks,
                    keeper: bound.keeper,
                })
            })
            .collect::<io::Result<Vec<Listener>>>()?;
        let plan = plan.try_clone()?;
        let keep =
            (listeners.iter().map(|listener| listener.fd.as_raw_fd())).chain([plan.as_raw_fd()]).collect();
        Ok(WorkerEstate {
            options: self.pool_options(slot),
            listeners,
            plan,
            rings: place.records.then(|| Rings {
                paths: self.ring_paths(slot),
                identities: [0, 1].map(|which| self.ring_identity(slot, which)),
            }),
            traces: self.worker_traces(slot),
            shown_rings: self.shown_rings(slot),
            metrics: Region::of_file(&self.metrics_file)?,
            which,
            keep,
        })
    }

    /// Slot, which of its two, and file of every ring, for a pool that shows them.
    fn shown_rings(&self, slot: usize) -> Vec<(usize, usize, PathBuf)> {
        if !self.pool(slot).routes.contains(&Route::Status) {
            return Vec::new();
        }
        let recording = self.places.iter().enumerate().filter(|(_, place)| place.records);
        recording
            .flat_map(|(slot, _)| {
                let [first, second] = self.ring_paths(slot);
                [(slot, 0, first), (slot, 1, second)]
            })
            .collect()
    }

    fn pool_options(&self, slot: usize) -> PoolOptions {
        let (place, pool) = (&self.places[slot], self.pool(slot));
        PoolOptions {
            name: pool.name.clone(),
            slot,
            index: place.index,
            io: worker_io(pool.io),
            cpu: place.cpu,
            routes: route_groups(pool),
            app: AppOptions {
                validation_strict: pool.validation_strict,
                record_empty: pool.record_empty,
                record_context: pool.record_context,
                shed: Shed::after(pool.shed_after, pool.shed_empty),
                batch_body_size_max: pool.batch_body_size_max,
            },
            limits: http::Limits {
                head_size_max: pool.head_size_max,
                body_size_max: pool.body_size_max,
                idle_timeout: pool.idle_timeout,
                head_timeout: pool.head_timeout,
                body_timeout: pool.body_timeout,
                write_timeout: pool.write_timeout,
                linger_timeout: pool.linger_timeout,
                pending_output_count: pending_output_count(pool),
                ..http::Limits::default()
            },
            connection_count_max: pool.connection_count_max,
            drain_idle: self.settings.drain_idle,
            drain_timeout: self.settings.drain_timeout,
            orphan_timeout: self.settings.orphan_timeout,
        }
    }

    /// What the logger is given, and its mapping of the metrics.
    ///
    /// # Errors
    /// If there is no memory left.
    pub fn logger(&self, nice: i32) -> io::Result<(logger::Options, Region)> {
        let sink = sink::options(&self.settings, &self.directories.state_dir);
        let runtime_dir = self.directories.runtime_dir.clone();
        let master = i32::try_from(std::process::id()).ok();
        let traces = self.logger_traces();
        let options = logger::Options { runtime_dir, instance: self.instance, master, nice, sink, traces };
        Ok((options, Region::of_file(&self.metrics_file)?))
    }
}

/// What one worker is given, before its channel is made.
pub struct WorkerEstate {
    options: PoolOptions,
    pub(super) listeners: Vec<Listener>,
    plan: OwnedFd,
    rings: Option<Rings>,
    traces: Option<Traces>,
    shown_rings: Vec<(usize, usize, PathBuf)>,
    metrics: Region,
    which: usize,
    /// The descriptors among it.
    pub keep: Vec<RawFd>,
}

impl WorkerEstate {
    /// The worker's whole life, in the child.
    #[must_use]
    pub fn run(self, channel: Channel) -> i32 {
        worker::run(Setup {
            options: self.options,
            listeners: self.listeners,
            plan: self.plan,
            rings: self.rings,
            traces: self.traces,
            shown_rings: self.shown_rings,
            metrics: self.metrics,
            which: self.which,
            channel,
        })
    }
}

/// The routes of a pool, as the endpoints call them.
pub(super) fn route_groups(pool: &Pool) -> Vec<RouteGroup> {
    pool.routes.iter().map(|route| route_group(*route)).collect()
}

/// Slots for untaken output, which are as large as the pool's largest answer.
fn pending_output_count(pool: &Pool) -> usize {
    match pool.routes.iter().any(|route| matches!(route, Route::Explain | Route::Status)) {
        true => limits::PENDING_REPORT_COUNT,
        false => limits::PENDING_OUTPUT_COUNT,
    }
}

fn route_group(route: Route) -> RouteGroup {
    match route {
        Route::Assign => RouteGroup::Assign,
        Route::Batch => RouteGroup::Batch,
        Route::Explain => RouteGroup::Explain,
        Route::Health => RouteGroup::Health,
        Route::Metrics => RouteGroup::Metrics,
        Route::Status => RouteGroup::Status,
    }
}

pub(super) fn worker_io(io: Io) -> worker::Io {
    match io {
        Io::Auto => worker::Io::Auto,
        Io::IoUring => worker::Io::IoUring,
        Io::Epoll => worker::Io::Epoll,
    }
}
