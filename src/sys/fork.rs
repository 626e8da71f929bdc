//! Children: born by fork, watched and signalled through a pidfd (which can
//! never mean another process), reaped by it too.
//!
//! Promises
//! - `fork` refuses in a process of more than one thread: the child would get a
//!   copy of locks that nobody is left to release.
//! - A child never returns into its parent's code: it leaves by `_exit` with what
//!   its closure returned, without running the parent's exit handlers, or by
//!   ABRT when the closure panicked, in every build profile.
//! - A child of `fork_keeping` has no descriptor but those it was given: it keeps
//!   no lock, no listener and no channel of its parent or its siblings open.
//! - Nothing signals a child when its parent dies: workers outlive a killed master.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::{ForkResult, Pid};

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It left with this code.
    Code(i32),
    /// This signal ended it.
    Signal(Signal),
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Exit::Code(code) => write!(f, "exit={code}"),
            Exit::Signal(signal) => write!(f, "signal={}", signal.as_str()),
        }
    }
}

/// A child of this process. Dropping it neither ends nor reaps the process.
#[derive(Debug)]
pub struct Child {
    pid: Pid,
    pidfd: OwnedFd,
}

impl Child {
    /// A child of this process from before an exec, by the pidfd that crossed it.
    #[must_use]
    pub fn kept(pid: i32, pidfd: OwnedFd) -> Child {
        Child { pid: Pid::from_raw(pid), pidfd }
    }

    /// Its process id, for people; signals go through the pidfd.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid.as_raw()
    }

    /// Reaps it if it has ended; `None` while it runs. Never waits.
    ///
    /// # Errors
    /// If it was reaped before.
    pub fn try_wait(&self) -> io::Result<Option<Exit>> {
        self.wait_by(WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG)
    }

    /// Waits until it has ended, and reaps it.
    ///
    /// # Errors
    /// If it was reaped before.
    pub fn wait(&self) -> io::Result<Exit> {
        match self.wait_by(WaitPidFlag::WEXITED)? {
            Some(exit) => Ok(exit),
            None => Err(io::Error::other("a wait without WNOHANG found nothing")),
        }
    }

    fn wait_by(&self, flags: WaitPidFlag) -> io::Result<Option<Exit>> {
        loop {
            match waitid(Id::PIDFd(self.pidfd.as_fd()), flags) {
                Ok(WaitStatus::Exited(_, code)) => return Ok(Some(Exit::Code(code))),
                Ok(WaitStatus::Signaled(_, signal, _)) => return Ok(Some(Exit::Signal(signal))),
                Ok(_) => return Ok(None),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Sends it a signal. One that has ended but is not reaped takes it silently.
    ///
    /// # Errors
    /// If it was reaped before.
    pub fn kill(&self, signal: Signal) -> io::Result<()> {
        // SAFETY: pidfd_send_signal(2) takes a descriptor that `self` keeps open, a
        // signal's number, no siginfo and no flags; it touches no memory of ours.
        let result = unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                self.pidfd.as_raw_fd(),
                signal as libc::c_int,
                std::ptr::null::<libc::siginfo_t>(),
                0 as libc::c_uint,
            )
        };
        Errno::result(result).map(drop).map_err(io::Error::from)
    }
}

/// The pidfd: readable once the child has ended.
impl AsFd for Child {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

/// Threads of this process.
///
/// # Errors
/// If /proc is not mounted.
pub fn thread_count() -> io::Result<usize> {
    Ok(std::fs::read_dir("/proc/self/task")?.count())
}

/// Forks; the child runs `body` and leaves with the code it returns. The caller
/// is the parent alone.
///
/// # Errors
/// `ResourceBusy` where this process has more than one thread; the kernel's
/// word where it refuses a process or a descriptor (then there is no child).
pub fn fork(body: impl FnOnce() -> i32) -> io::Result<Child> {
    fork_with(None, body)
}

/// The same, and the child first closes every descriptor but standard input,
/// output and error and those in `keep`, by their numbers. The closure may own or
/// use no other.
///
/// # Errors
/// As [`fork`].
pub fn fork_keeping(keep: &[RawFd], body: impl FnOnce() -> i32) -> io::Result<Child> {
    let mut keep: Vec<u32> = keep.iter().map(|kept| *kept as u32).collect();
    keep.extend([0, 1, 2]);
    keep.sort_unstable();
    keep.dedup();
    fork_with(Some(&keep), body)
}

fn fork_with(keep: Option<&[u32]>, body: impl FnOnce() -> i32) -> io::Result<Child> {
    // The unit tests run on threads, and their children touch no lock.
    if !cfg!(test) {
        let count = thread_count()?;
        if count != 1 {
            return Err(io::Error::new(
                io::ErrorKind::ResourceBusy,
                format!("a process of {count} threads must not fork; 1 would be right"),
            ));
        }
    }
    // SAFETY: there is one thread (checked above), so no lock is held by a thread
    // that the child will not have, and the child may do whatever its parent could.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Child => leave_with(|| {
            // A lock that another of the test's threads held at the fork stays
            // taken in the child: it ends with its thread, whatever it waits for.
            if cfg!(test) {
                let _ = nix::sys::prctl::set_pdeathsig(Signal::SIGKILL);
            }
            keep.into_iter().for_each(close_all_but);
            body()
        }),
        ForkResult::Parent { child } => match pidfd_open(child) {
            Ok(pidfd) => Ok(Child { pid: child, pidfd }),
            Err(error) => {
                // Without a pidfd nobody would watch it. It is not reaped yet, so
                // its number is still its own.
                let _ = nix::sys::signal::kill(child, Signal::SIGKILL);
                let _ = nix::sys::wait::waitpid(child, None);
                Err(error)
            }
        },
    }
}

fn leave_with(body: impl FnOnce() -> i32) -> ! {
    // The parent's frames lie below, with its guards: they are not the child's to drop.
    let Ok(code) = catch_unwind(AssertUnwindSafe(body)) else {
        std::process::abort();
    };
    // SAFETY: _exit(2) takes a number, runs no handler and does not return.
    unsafe { libc::_exit(code) }
}

/// Closes every descriptor of this process that is not in `keep`, which is sorted.
fn close_all_but(keep: &[u32]) {
    let firsts = std::iter::once(0).chain(keep.iter().map(|kept| kept + 1));
    let lasts = keep.iter().map(|kept| kept.checked_sub(1)).chain([Some(u32::MAX)]);
    for (first, last) in firsts.zip(lasts) {
        let Some(last) = last.filter(|last| first <= *last) else { continue };
        // SAFETY: close_range(2) takes three numbers. This is a child that has just
        // been forked: those who own these descriptors are in frames it never
        // returns to, and its closure uses those in `keep` alone, by contract of
        // `fork_keeping`.
        let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0 as libc::c_uint) };
        assert_eq!(result, 0, "close_range, of Linux 5.9: {}", io::Error::last_os_error());
    }
}

fn pidfd_open(pid: Pid) -> io::Result<OwnedFd> {
    // SAFETY: pidfd_open(2) takes two numbers and touches no memory of ours.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0 as libc::c_uint) };
    let raw = Errno::result(result)?;
    // SAFETY: the kernel has just made this descriptor (close-on-exec by itself),
    // and nobody else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(raw as libc::c_int) })
}

/// This process's niceness.
#[must_use]
pub fn niceness() -> i32 {
    // SAFETY: getpriority(2) takes two numbers; 0 means this process, for which it
    // can't fail, so -1 is a niceness and no error.
    unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) }
}

/// Sets this process's niceness, -20 (first) to 19 (last).
///
/// # Errors
/// `PermissionDenied` where it would be lowered beyond RLIMIT_NICE.
pub fn set_niceness(nice: i32) -> io::Result<()> {
    // SAFETY: setpriority(2) takes three numbers; 0 means this process.
    let result = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) };
    match Errno::result(result) {
        // A limit, whichever of the two words the kernel has for it.
        Err(Errno::EACCES | Errno::EPERM) => Err(Errno::EACCES.into()),
        other => other.map(drop).map_err(io::Error::from),
    }
}

/// Sets the name that `ps` and `top` show for this thread, cut at 15 bytes.
pub fn set_name(name: &str) {
    let name: Vec<u8> = name.bytes().filter(|byte| *byte != 0).take(15).collect();
    if let Ok(name) = std::ffi::CString::new(name) {
        // A name is a courtesy: nothing depends on it.
        let _ = nix::sys::prctl::set_name(&name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::channel::Channel;
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    fn ended(child: &Child) -> Exit {
        let mut set = [PollFd::new(child.as_fd(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut set, PollTimeout::from(10_000u16)), Ok(1), "its pidfd becomes readable");
        child.try_wait().unwrap().expect("readable means ended")
    }

    #[test]
    fn a_child_leaves_with_the_code_of_its_closure() {
        let _alone = crate::sys::alone();
        let child = fork(|| 42).unwrap();
        assert_eq!(ended(&child), Exit::Code(42));
        assert!(child.try_wait().is_err(), "reaped once");
        assert!(child.kill(Signal::SIGKILL).is_err(), "and never signalled after");
    }

    #[test]
    fn a_panicking_child_aborts_and_never_returns_into_its_parent() {
        let _alone = crate::sys::alone();
        let child = fork(|| {
            std::panic::set_hook(Box::new(|_| {}));
            panic!("a broken belief");
        })
        .unwrap();
        assert_eq!(ended(&child), Exit::Signal(Signal::SIGABRT));
    }

    #[test]
    fn a_killed_child_is_told_from_one_that_left() {
        let _alone = crate::sys::alone();
        let child = fork(|| {
            loop {
                nix::unistd::pause();
            }
        })
        .unwrap();
        assert_eq!(child.try_wait().unwrap(), None);
        child.kill(Signal::SIGKILL).unwrap();
        assert_eq!(ended(&child), Exit::Signal(Signal::SIGKILL));
    }

    #[test]
    fn a_child_keeps_the_descriptors_it_was_given_and_no_other() {
        let _alone = crate::sys::alone();
        let (kept, kept_other) = Channel::pair().unwrap();
        let (lost, lost_other) = Channel::pair().unwrap();
        let child = fork_keeping(&[kept.as_fd().as_raw_fd()], || {
            let sent = kept.send(b"mine", None).is_ok();
            let closed = lost.send(b"not mine", None).is_err();
            i32::from(!(sent && closed))
        })
        .unwrap();
        assert_eq!(ended(&child), Exit::Code(0));
        let mut buffer = [0; 16];
        assert!(kept_other.recv(&mut buffer).unwrap().is_some());
        assert_eq!(lost_other.recv(&mut buffer).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn a_childs_name_and_niceness_are_its_own() {
        let _alone = crate::sys::alone();
        let child = fork(|| {
            set_name("assign/0 is too long");
            let named =
                std::fs::read_to_string("/proc/self/comm").is_ok_and(|name| name == "assign/0 is too\n");
            let niced = set_niceness(7).is_ok() && niceness() == 7;
            i32::from(!(named && niced))
        })
        .unwrap();
        assert_eq!(ended(&child), Exit::Code(0));
    }
}
