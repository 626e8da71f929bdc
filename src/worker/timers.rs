//! Timeouts of all connections of a worker, each in O(1) and without allocation.
//!
//! A class (idle, head …) has one duration for all, so the order in which its
//! timers are armed is the order in which they expire: a class is a doubly
//! linked list through the slots, and only its front is ever looked at. The
//! front is also the connection that has waited longest, which is the one to
//! close when something runs out.

use std::time::Duration;

use crate::clock::Now;
use crate::http::Wait;

const NONE: u32 = u32::MAX;

/// Which timeout runs for a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Between two requests.
    Idle,
    /// A head has begun and is not complete.
    Head,
    /// A body has begun and is not complete.
    Body,
    /// Output waits for the socket.
    Write,
    /// The write side is shut; what still comes in is thrown away.
    Linger,
}

impl Class {
    /// The one that runs while a connection waits for this.
    #[must_use]
    pub fn of(wait: Wait) -> Class {
        match wait {
            Wait::Idle => Class::Idle,
            Wait::Head => Class::Head,
            Wait::Body => Class::Body,
            Wait::Write => Class::Write,
        }
    }
}

/// How many classes there are.
pub const CLASS_COUNT: usize = 5;

#[derive(Debug, Clone, Copy)]
struct Link {
    previous: u32,
    next: u32,
    class: Option<Class>,
    deadline_ns: u64,
}

#[derive(Debug, Clone, Copy)]
struct List {
    front: u32,
    back: u32,
    duration_ns: u64,
}

/// At most one timer for each slot index.
#[derive(Debug)]
pub struct Timers {
    lists: [List; CLASS_COUNT],
    links: Vec<Link>,
}

impl Timers {
    /// Timers for slots `0..slot_count_max`; `durations` in the order of [`Class`].
    #[must_use]
    pub fn new(slot_count_max: usize, durations: [Duration; CLASS_COUNT]) -> Timers {
        let list = |duration: Duration| List {
            front: NONE,
            back: NONE,
            duration_ns: u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX),
        };
        // Grown by `arm` as slots are first used: memory that was never needed
        // is never touched.
        Timers { lists: durations.map(list), links: Vec::with_capacity(slot_count_max) }
    }

    /// Starts the timer of `slot` anew, in `class`.
    ///
    /// # Panics
    /// If `slot` is beyond the count given at the start.
    pub fn arm(&mut self, slot: u32, class: Class, now: Now) {
        while self.links.len() <= slot as usize {
            assert!(self.links.len() < self.links.capacity(), "slot {slot} is beyond the table");
            self.links.push(Link { previous: NONE, next: NONE, class: None, deadline_ns: 0 });
        }
        self.disarm(slot);
        let list = &mut self.lists[class as usize];
        let back = list.back;
        list.back = slot;
        if back == NONE {
            list.front = slot;
        } else {
            self.links[back as usize].next = slot;
        }
        self.links[slot as usize] = Link {
            previous: back,
            next: NONE,
            class: Some(class),
            deadline_ns: now.mono_ns.saturating_add(list.duration_ns),
        };
    }

    /// Stops the timer of `slot`, if one runs.
    pub fn disarm(&mut self, slot: u32) {
        let Some(&Link { previous, next, class: Some(class), .. }) = self.links.get(slot as usize) else {
            return;
        };
        let list = &mut self.lists[class as usize];
        if previous == NONE {
            list.front = next;
        } else {
            self.links[previous as usize].next = next;
        }
        if next == NONE {
            list.back = previous;
        } else {
            self.links[next as usize].previous = previous;
        }
        self.links[slot as usize].class = None;
    }

    /// The class in which the timer of `slot` runs, if one does.
    #[must_use]
    pub fn class(&self, slot: u32) -> Option<Class> {
        self.links.get(slot as usize).and_then(|link| link.class)
    }

    /// The slot that has waited longest in `class`.
    #[must_use]
    pub fn oldest(&self, class: Class) -> Option<u32> {
        let front = self.lists[class as usize].front;
        (front != NONE).then_some(front)
    }

    /// For how long the timer of `slot` has run, in nanoseconds.
    #[must_use]
    pub fn age_ns(&self, slot: u32, now: Now) -> u64 {
        let Some(&Link { class: Some(class), deadline_ns, .. }) = self.links.get(slot as usize) else {
            return 0;
        };
        let armed_ns = deadline_ns.saturating_sub(self.lists[class as usize].duration_ns);
        now.mono_ns.saturating_sub(armed_ns)
    }

    /// A slot whose time is over, and its class; its timer is stopped.
    pub fn expire(&mut self, now: Now) -> Option<(u32, Class)> {
        let due = self
            .lists
            .iter()
            .map(|list| list.front)
            .find(|&front| front != NONE && self.links[front as usize].deadline_ns <= now.mono_ns)?;
        let class = self.links[due as usize].class.expect("a listed slot has a class");
        self.disarm(due);
        Some((due, class))
    }

    /// How long until the next timer expires; none if none runs.
    #[must_use]
    pub fn next(&self, now_ns: u64) -> Option<Duration> {
        let fronts = self.lists.iter().filter(|list| list.front != NONE);
        let deadline_ns = fronts.map(|list| self.links[list.front as usize].deadline_ns).min()?;
        Some(Duration::from_nanos(deadline_ns.saturating_sub(now_ns)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CLASSES: [Class; CLASS_COUNT] =
        [Class::Idle, Class::Head, Class::Body, Class::Write, Class::Linger];
    const START: Now = Now { mono_ns: 1_000, unix_us: 0 };

    fn after(ns: u64) -> Now {
        START.plus(Duration::from_nanos(ns))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        /// Against the plain twin: a list of (slot, class, deadline, order of arming).
        #[test]
        fn timers_expire_like_a_sorted_list(
            steps in prop::collection::vec((0u32..12, 0usize..7, 0u64..40), 1..200),
        ) {
            let durations = [75, 5, 10, 12, 1].map(Duration::from_nanos);
            let mut timers = Timers::new(12, durations);
            let mut plain: Vec<(u32, Class, u64)> = Vec::new();
            let mut time = 0;
            for (slot, action, wait) in steps {
                time += wait;
                let now = after(time);
                while let Some((slot, class)) = timers.expire(now) {
                    let at = plain.iter().position(|entry| entry.0 == slot && entry.1 == class);
                    let (_, _, deadline) = plain.remove(at.expect("armed"));
                    prop_assert!(deadline <= now.mono_ns);
                }
                prop_assert!(plain.iter().all(|entry| entry.2 > now.mono_ns));
                plain.retain(|entry| action == 6 || entry.0 != slot);
                if action < CLASS_COUNT {
                    let class = CLASSES[action];
                    timers.arm(slot, class, now);
                    plain.push((slot, class, now.mono_ns + durations[action].as_nanos() as u64));
                } else if action == CLASS_COUNT {
                    timers.disarm(slot);
                }
                let next = plain.iter().map(|entry| entry.2).min();
                prop_assert_eq!(timers.next(now.mono_ns), next.map(|at| Duration::from_nanos(at - now.mono_ns)));
                for class in CLASSES {
                    let oldest = plain.iter().find(|entry| entry.1 == class).map(|entry| entry.0);
                    prop_assert_eq!(timers.oldest(class), oldest);
                }
            }
        }
    }
}
