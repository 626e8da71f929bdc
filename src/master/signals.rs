//! Signals as messages: blocked in the master (and so in every child, which are
//! told by the master and not by a terminal or a service manager) and read from
//! a descriptor in its loop.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// What a signal means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// TERM, INT.
    Stop,
    /// QUIT.
    Drain,
    /// HUP.
    Reload,
    /// USR1.
    ReopenLogs,
    /// USR2.
    Upgrade,
}

const MEANINGS: &[(Signal, Told)] = &[
    (Signal::SIGTERM, Told::Stop),
    (Signal::SIGINT, Told::Stop),
    (Signal::SIGQUIT, Told::Drain),
    (Signal::SIGHUP, Told::Reload),
    (Signal::SIGUSR1, Told::ReopenLogs),
    (Signal::SIGUSR2, Told::Upgrade),
];

/// The signals of this process, from now on.
#[derive(Debug)]
pub struct Signals {
    descriptor: SignalFd,
}

impl Signals {
    /// Blocks them and opens the descriptor.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn block() -> io::Result<Signals> {
        let mut set = SigSet::empty();
        for (signal, _) in MEANINGS {
            set.add(*signal);
        }
        set.thread_block()?;
        let descriptor = SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        Ok(Signals { descriptor })
    }

    /// The next one that came: which, what it means, and the process that sent
    /// it (0: the kernel, a terminal).
    ///
    /// # Errors
    /// If the descriptor fails, which it doesn't.
    pub fn read(&self) -> io::Result<Option<(Signal, Told, u32)>> {
        while let Some(found) = self.descriptor.read_signal()? {
            let known = MEANINGS.iter().find(|(signal, _)| *signal as u32 == found.ssi_signo);
            if let Some((signal, told)) = known {
                return Ok(Some((*signal, *told, found.ssi_pid)));
            }
        }
        Ok(None)
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::fork::{Exit, fork};

    #[test]
    fn signals_are_read_in_the_loop_and_end_nobody() {
        let _alone = crate::sys::alone();
        // In a child, because a blocked signal is blocked for a thread's tests to come.
        let child = fork(|| {
            let Ok(signals) = Signals::block() else { return 1 };
            for signal in [Signal::SIGTERM, Signal::SIGHUP] {
                let _ = nix::sys::signal::raise(signal);
            }
            let mut found = Vec::new();
            while let Ok(Some((_, told, _))) = signals.read() {
                found.push(told);
            }
            i32::from(!(found.len() == 2 && found.contains(&Told::Stop) && found.contains(&Told::Reload)))
        })
        .unwrap();
        assert_eq!(child.wait().unwrap(), Exit::Code(0));
    }
}
