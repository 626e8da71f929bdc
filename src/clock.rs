//! The only reader of time. Everything else is given a [`Now`], read once a
//! loop turn, so that a test can replay any hour.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};

/// One reading of both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// CLOCK_MONOTONIC in nanoseconds: for deadlines and durations. It is the
    /// same clock in every process of the machine.
    pub mono_ns: u64,
    /// Unix time in microseconds: for exposures and the Date header.
    pub unix_us: i64,
}

impl Now {
    /// How long after `earlier` this reading is; zero if it is before.
    #[must_use]
    pub fn since(self, earlier: Now) -> Duration {
        Duration::from_nanos(self.mono_ns.saturating_sub(earlier.mono_ns))
    }

    /// This reading moved on by `duration`, in both clocks.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Now {
        Now {
            mono_ns: self.mono_ns + duration.as_nanos() as u64,
            unix_us: self.unix_us + duration.as_micros() as i64,
        }
    }
}

/// Reads both clocks: two vDSO calls, no system call.
#[must_use]
pub fn now() -> Now {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Now { mono_ns: mono_ns(), unix_us: unix.as_micros() as i64 }
}

/// Reads CLOCK_MONOTONIC alone, in nanoseconds: one vDSO call.
#[must_use]
pub fn mono_ns() -> u64 {
    // It exists on every Linux; a failure here is a broken kernel.
    let mono = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("CLOCK_MONOTONIC is always there");
    mono.tv_sec() as u64 * 1_000_000_000 + mono.tv_nsec() as u64
}

/// Reads how long the calling thread has been on a CPU, in nanoseconds: one
/// system call.
#[must_use]
pub fn thread_cpu_ns() -> u64 {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("every thread has its clock");
    time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64
}

/// How long the machine has slept since it was booted: CLOCK_BOOTTIME goes on
/// meanwhile and CLOCK_MONOTONIC does not.
#[must_use]
pub fn suspended_ns() -> u64 {
    let read = |id| {
        let time = clock_gettime(id).expect("both clocks are always there");
        time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64
    };
    // In this order the difference is never below zero.
    let mono_ns = read(ClockId::CLOCK_MONOTONIC);
    read(ClockId::CLOCK_BOOTTIME).saturating_sub(mono_ns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_never_go_below_zero() {
        let early = Now { mono_ns: 10, unix_us: 0 };
        let late = early.plus(Duration::from_nanos(5));
        assert_eq!(late.since(early), Duration::from_nanos(5));
        assert_eq!(early.since(late), Duration::ZERO);
    }
}
