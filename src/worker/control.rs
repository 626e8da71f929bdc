//! The worker's end of the master's channel, the same for every backend: orders
//! as they come, a new plan mapped and checked before anybody relies on it, and
//! what is to be done when the master is gone.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;
use std::time::Duration;

use crate::clock::Now;
use crate::engine::plan::Plan;
use crate::limits::PLAN_STEP_SIZE;
use crate::metrics::Table;
use crate::sys::channel::Channel;
use crate::sys::region::Region;

use super::{Order, PoolOptions, Report};

/// What a backend is to do.
pub enum Task {
    /// End this reign: the next plan is sound.
    Plan(Region),
    /// Finish.
    Drain {
        /// How long the rest may take.
        deadline: Duration,
        /// See [`Order::Drain`].
        last: bool,
    },
    /// The same, and leave the sockets, which are served by a successor, as they are.
    HandOver(Duration),
    /// Serve the sockets of this slot too.
    Adopt(usize),
    /// That slot is served by its own worker again.
    Release(usize),
}

/// A plan's memory that is being touched before it is used, or given back after,
/// in steps between requests: a page at a time would be waited for by requests,
/// all at once by one of them.
struct Steps {
    region: Region,
    done: usize,
    /// Where it ends: behind this lies what a worker doesn't look at.
    size: usize,
}

impl Steps {
    /// One step; true once all is done.
    fn step(&mut self, work: impl FnOnce(&Region, usize, usize)) -> bool {
        let size = PLAN_STEP_SIZE.min(self.size - self.done);
        work(&self.region, self.done, size);
        self.done += size;
        self.done == self.size
    }
}

/// Orders from the master, while there is one.
pub struct Control {
    channel: Option<Channel>,
    orphan_timeout: Duration,
    drain_timeout: Duration,
    /// When to leave for want of a master.
    orphan_deadline_ns: Option<u64>,
    greeted: bool,
    own_slot: usize,
    /// Where the next instance's master says who is followed.
    metrics: Option<Rc<Region>>,
    /// The next plan.
    incoming: Option<Steps>,
    /// The last one.
    outgoing: Option<Steps>,
    /// Plans that came and are answered for when a newer one is in force.
    superseded: usize,
}

impl Control {
    /// Over this channel.
    #[must_use]
    pub fn new(channel: Channel, options: &PoolOptions) -> Control {
        Control {
            channel: Some(channel),
            orphan_timeout: options.orphan_timeout,
            drain_timeout: options.drain_timeout,
            orphan_deadline_ns: None,
            greeted: false,
            own_slot: options.slot,
            metrics: None,
            incoming: None,
            outgoing: None,
            superseded: 0,
        }
    }

    /// Looks here for the next instance's word, once the master is gone.
    #[must_use]
    pub fn followed_in(self, metrics: Rc<Region>) -> Control {
        Control { metrics: Some(metrics), ..self }
    }

    /// What becomes readable when there is an order, or the master is gone.
    #[must_use]
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.channel.as_ref().map(AsFd::as_fd)
    }

    /// A plan is in force and the sockets are served: says so, each time.
    pub fn in_force(&mut self) {
        let report = if self.greeted { Report::PlanInForce } else { Report::Ready };
        self.greeted = true;
        for _ in 0..=std::mem::take(&mut self.superseded) {
            self.report(&report);
        }
    }

    /// The plan before is used no more: its memory is given back in steps.
    pub fn retire(&mut self, region: Region) {
        // One that is not given back yet goes at once.
        self.outgoing = Some(Steps { done: 0, size: region.size(), region });
    }

    /// Whether there is something to do in every turn.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.incoming.is_some() || self.outgoing.is_some()
    }

    /// A step of what goes in steps; once the next plan is all there, it.
    pub fn step(&mut self) -> Option<Task> {
        if let Some(outgoing) = &mut self.outgoing
            && outgoing.step(Region::release_part)
        {
            self.outgoing = None;
        }
        let arrived = self.incoming.as_mut()?.step(Region::prefault_part);
        if !arrived {
            return None;
        }
        self.incoming.take().map(|incoming| Task::Plan(incoming.region))
    }

    fn report(&mut self, report: &Report) {
        if let Some(channel) = &self.channel {
            // A master that does not read is told by its next look at us; one
            // that is gone is noticed by `next`.
            let _ = channel.send(&report.encode(), None);
        }
    }

    /// The next order, if one has come. Never waits.
    pub fn next(&mut self, now: Now) -> Option<Task> {
        let mut packet = [0; 256];
        loop {
            let received = match self.channel.as_ref()?.recv(&mut packet) {
                Err(fault) if fault.kind() == io::ErrorKind::WouldBlock => return None,
                other => other,
            };
            let (size, descriptor) = match received {
                Ok(Some(received)) => received,
                Ok(None) | Err(_) => {
                    self.orphaned(now);
                    return None;
                }
            };
            match (Order::decode(&packet[..size]), descriptor) {
                (Ok(Order::Plan), Some(memfd)) => match arriving(&memfd) {
                    Ok(steps) => {
                        self.superseded += usize::from(self.incoming.replace(steps).is_some());
                    }
                    Err(reason) => self.report(&Report::PlanRefused { reason }),
                },
                (Ok(Order::Plan), None) => {
                    self.report(&Report::PlanRefused { reason: "the packet brought no memfd".to_owned() });
                }
                (Ok(Order::Drain { deadline_ms, last }), _) => {
                    return Some(Task::Drain { deadline: Duration::from_millis(deadline_ms), last });
                }
                (Ok(Order::HandOver { deadline_ms }), _) => {
                    return Some(Task::HandOver(Duration::from_millis(deadline_ms)));
                }
                (Ok(Order::Adopt { slot }), _) => return Some(Task::Adopt(slot)),
                (Ok(Order::Release { slot }), _) => return Some(Task::Release(slot)),
                (Err(fault), _) => {
                    log::warn!("event=order_not_understood reason={:?}", fault.to_string())
                }
            }
        }
    }

    fn orphaned(&mut self, now: Now) {
        self.channel = None;
        self.orphan_deadline_ns = Some(now.plus(self.orphan_timeout).mono_ns);
        log::warn!("event=master_gone orphan_timeout_s={}", self.orphan_timeout.as_secs());
    }

    /// Whether it is time to leave, because another instance's worker accepts in
    /// our place or because nobody came.
    #[must_use]
    pub fn abandoned(&mut self, now: Now) -> Option<Task> {
        let deadline_ns = self.orphan_deadline_ns?;
        let table = self.metrics.as_ref().and_then(|metrics| Table::attach(metrics.words()).ok());
        if let Some(shared) = table.and_then(|table| table.retired(self.own_slot)) {
            self.orphan_deadline_ns = None;
            log::info!("event=followed sockets_shared={shared}");
            let deadline = self.drain_timeout;
            // Whatever kept ours has not passed them on.
            return Some(if shared {
                Task::HandOver(deadline)
            } else {
                Task::Drain { deadline, last: true }
            });
        }
        if now.mono_ns < deadline_ns {
            return None;
        }
        self.orphan_deadline_ns = None;
        Some(Task::Drain { deadline: self.drain_timeout, last: false })
    }
}

/// The loader has checked all of it once it was sealed; what could stop a
/// worker for long is not done again.
fn arriving(memfd: &std::os::fd::OwnedFd) -> Result<Steps, String> {
    let region = Region::map_sealed(memfd).map_err(|fault| fault.to_string())?;
    let size = Plan::attach(region.bytes()).map_err(|fault| fault.to_string())?.working_size();
    Ok(Steps { region, done: 0, size })
}
