//! What makes a hole in a span: the worker did not run, a page was not there, or
//! somebody stood before it.
//!
//! Where the worker did not run is read off two clocks of the thread: what passed
//! and the worker was not on a CPU for. They are read at the begin of every turn
//! (two system calls), and again at the end of a request that is kept and
//! took [`HOLE_NS`] or more; in a shorter one there is no room for a hole. Of a batch
//! that comes in pieces, the turns in which they were looked at are added up.
//! (The times of getrusage move with the timer's tick, and `/proc/self/schedstat`
//! costs a read of a file.)

use nix::sys::resource::{UsageWho, getrusage};

use crate::clock;

/// What is called a hole: from here on something takes longer than the whole of a
/// request should.
pub const HOLE_NS: u64 = 100_000;
/// A wait that returns within this was none: what it brought was there before.
const AT_ONCE_NS: u64 = 20_000;

/// What a thread has used so far, or between two readings.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Usage {
    pub(super) mono_ns: u64,
    pub(super) cpu_ns: u64,
    pub(super) minor_faults: u64,
    pub(super) major_faults: u64,
    /// It gave its CPU away: waited for something, or was stopped.
    pub(super) switches_voluntary: u64,
    /// It was taken away.
    pub(super) switches_involuntary: u64,
}

impl Usage {
    /// Of this thread, now.
    pub(super) fn now() -> Usage {
        let count = |number: i64| u64::try_from(number).unwrap_or(0);
        // It is refused to nobody; a zero shows as no hole.
        let usage = getrusage(UsageWho::RUSAGE_THREAD).ok();
        let of = |field: fn(&nix::sys::resource::Usage) -> i64| usage.as_ref().map_or(0, |u| count(field(u)));
        Usage {
            mono_ns: clock::mono_ns(),
            cpu_ns: clock::thread_cpu_ns(),
            minor_faults: of(|usage| usage.minor_page_faults()),
            major_faults: of(|usage| usage.major_page_faults()),
            switches_voluntary: of(|usage| usage.voluntary_context_switches()),
            switches_involuntary: of(|usage| usage.involuntary_context_switches()),
        }
    }

    pub(super) fn since(self, earlier: Usage) -> Usage {
        Usage {
            mono_ns: self.mono_ns.saturating_sub(earlier.mono_ns),
            cpu_ns: self.cpu_ns.saturating_sub(earlier.cpu_ns),
            minor_faults: self.minor_faults.saturating_sub(earlier.minor_faults),
            major_faults: self.major_faults.saturating_sub(earlier.major_faults),
            switches_voluntary: self.switches_voluntary.saturating_sub(earlier.switches_voluntary),
            switches_involuntary: self.switches_involuntary.saturating_sub(earlier.switches_involuntary),
        }
    }

    pub(super) fn plus(self, more: Usage) -> Usage {
        Usage {
            mono_ns: self.mono_ns + more.mono_ns,
            cpu_ns: self.cpu_ns + more.cpu_ns,
            minor_faults: self.minor_faults + more.minor_faults,
            major_faults: self.major_faults + more.major_faults,
            switches_voluntary: self.switches_voluntary + more.switches_voluntary,
            switches_involuntary: self.switches_involuntary + more.switches_involuntary,
        }
    }

    /// Of a difference: how long the thread did not run.
    pub(super) fn off_cpu_ns(&self) -> u64 {
        self.mono_ns.saturating_sub(self.cpu_ns)
    }
}

/// One request, or a piece of one, that kept the worker.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Busy {
    pub(super) route: &'static str,
    pub(super) took_ns: u64,
}

impl Busy {
    pub(super) fn longer(self, other: Busy) -> Busy {
        if other.took_ns > self.took_ns { other } else { self }
    }
}

/// A worker's turns, as far as they explain who waited for what.
#[derive(Debug, Default)]
pub(super) struct Turns {
    begin: Usage,
    end_ns: u64,
    /// The longest so far in this turn.
    longest: Busy,
    /// How long the turn before took, if nothing was waited for between the two, and its longest.
    before: Option<(u64, Busy)>,
}

impl Turns {
    pub(super) fn begin(&mut self) {
        let now = Usage::now();
        let at_once = now.mono_ns.saturating_sub(self.end_ns) < AT_ONCE_NS;
        let took_ns = self.end_ns.saturating_sub(self.begin.mono_ns);
        self.before = (at_once && took_ns >= HOLE_NS).then_some((took_ns, self.longest));
        (self.begin, self.longest) = (now, Busy::default());
    }

    pub(super) fn end(&mut self, now_ns: u64) {
        self.end_ns = now_ns;
    }

    pub(super) fn was_busy(&mut self, busy: Busy) {
        self.longest = self.longest.longer(busy);
    }

    pub(super) fn begin_ns(&self) -> u64 {
        self.begin.mono_ns
    }

    pub(super) fn longest(&self) -> Busy {
        self.longest
    }

    /// What somebody who was ready then may have waited for unseen: bytes that come
    /// while the worker is busy are found by the next wait.
    pub(super) fn before(&self, ready_ns: u64) -> Option<(u64, Busy)> {
        self.before.filter(|_| ready_ns >= self.end_ns)
    }

    /// What the turn has used so far.
    pub(super) fn usage(&self) -> Usage {
        Usage::now().since(self.begin)
    }
}
