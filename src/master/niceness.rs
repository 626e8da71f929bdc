//! Who goes first: workers, then the logger, then the loader. What the system
//! allows is found out once, by trying, and said once in the log.
//!
//! The master keeps the niceness it was started with. It sleeps; when it wakes,
//! somebody is missing, and a child begins with its parent's niceness: behind
//! CPUs kept busy by others, a successor that began last of all has waited for
//! its first turn for many seconds.

use crate::config::settings::Settings;
use crate::sys::fork::{niceness, set_niceness};

/// The loader's.
const LAST: i32 = 10;

/// What children may have.
#[derive(Debug, Clone, Copy)]
pub(super) struct Niceness {
    /// The lowest that is allowed.
    floor: i32,
    /// The master's before it began.
    own: i32,
}

impl Niceness {
    /// Tries for the lowest that the settings want.
    pub(super) fn find(settings: &Settings) -> Niceness {
        let own = niceness();
        let wanted = settings.pools.iter().map(|pool| pool.nice).chain([settings.logger.nice]);
        let lowest = wanted.min().unwrap_or(0).min(own);
        let floor = (lowest..own).find(|nice| set_niceness(*nice).is_ok()).unwrap_or(own);
        if floor > lowest {
            log::info!("event=nice_limited wanted={lowest} nice={floor} hint=\"raise LimitNICE\"");
        }
        // Down is allowed to everybody, and back to where it began.
        let _ = set_niceness(own);
        Niceness { floor, own }
    }

    /// The niceness of a child that wants this one.
    pub(super) fn allowed(&self, wanted: i32) -> i32 {
        wanted.max(self.floor)
    }

    /// The loader's.
    pub(super) fn loader(&self) -> i32 {
        LAST.max(self.own)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::settings::{Sources, load};
    use crate::sys::fork::{Exit, fork};

    #[test]
    fn a_child_is_never_refused_what_it_was_promised() {
        let _alone = crate::sys::alone();
        let settings = load(&Sources::default()).unwrap();
        // In a child, because a niceness stays with its process.
        let child = fork(|| {
            let found = Niceness::find(&settings);
            let kept = |nice: i32| set_niceness(found.allowed(nice)).is_ok();
            i32::from(!(kept(10) || found.floor == found.own) | !kept(found.own.min(-5)))
        })
        .unwrap();
        assert_eq!(child.wait().unwrap(), Exit::Code(0));
    }
}
