//! Descriptors that cross an exec: those of the image before, known to this one
//! by their numbers alone.
//!
//! Promises
//! - A number is taken only while an inherited descriptor has it: one that is open
//!   and not close-on-exec. Whatever this image opens itself is close-on-exec, so
//!   a number that was misread can never be somebody else's descriptor.
//! - What is taken is a copy; the inherited one stays open until it is let go, so
//!   that another exec, the way back, finds it as it was.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};

fn inherited<'a>(raw: RawFd) -> io::Result<BorrowedFd<'a>> {
    if raw <= 2 {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("descriptor {raw} is nobody's to take"),
        ));
    }
    // SAFETY: fcntl(2) with F_GETFD takes a number, open or not, and touches no memory of ours.
    let flags = unsafe { libc::fcntl(raw, libc::F_GETFD) };
    if flags == -1 {
        return Err(io::Error::last_os_error());
    }
    if flags & libc::FD_CLOEXEC != 0 {
        let text = format!("descriptor {raw} was not inherited: it is close-on-exec");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    // SAFETY: it is open, and inherited, as checked above; the only ones that close
    // an inherited descriptor are `release`, whose caller no longer uses the
    // number, and this module's callers, who hold what is given here no longer
    // than the call that took it.
    Ok(unsafe { BorrowedFd::borrow_raw(raw) })
}

/// A copy of an inherited descriptor, close-on-exec like all our own.
///
/// # Errors
/// If no inherited descriptor has this number, or there are no descriptors left.
pub fn take(raw: RawFd) -> io::Result<OwnedFd> {
    inherited(raw)?.try_clone_to_owned()
}

/// Closes an inherited descriptor; one that is gone already stays so.
pub fn release(raw: RawFd) {
    if inherited(raw).is_ok() {
        // SAFETY: it is an inherited descriptor (checked just now), which nobody
        // owns: `take` gives copies away.
        drop(unsafe { OwnedFd::from_raw_fd(raw) });
    }
}

/// Whether a descriptor is to cross the next exec.
///
/// # Errors
/// If the system refuses, which it doesn't.
pub fn cross_exec(descriptor: impl AsFd, crosses: bool) -> io::Result<()> {
    let flags = if crosses { FdFlag::empty() } else { FdFlag::FD_CLOEXEC };
    fcntl(descriptor.as_fd(), FcntlArg::F_SETFD(flags))?;
    Ok(())
}

/// Becomes another program: the same process, with its children and with the
/// descriptors that cross. Gives why not; else it does not return.
#[must_use]
pub fn exec(program: &CString, arguments: &[CString]) -> io::Error {
    match nix::unistd::execv(program, arguments) {
        Ok(never) => match never {},
        Err(errno) => errno.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;

    #[test]
    fn only_what_was_inherited_is_taken_and_as_often_as_needed() {
        let _alone = crate::sys::alone();
        let file: OwnedFd = tempfile::tempfile().unwrap().into();
        let raw = file.as_raw_fd();
        assert!(take(raw).unwrap_err().to_string().contains("was not inherited"));
        for number in [-1, 0, 2, 1_000_000] {
            assert!(take(number).is_err(), "{number}");
        }
        cross_exec(&file, true).unwrap();
        std::mem::forget(file);
        let (one, other) = (take(raw).unwrap(), take(raw).unwrap());
        assert!(one.as_raw_fd() != raw && other.as_raw_fd() != raw);
        assert!(take(one.as_raw_fd()).is_err(), "a copy is our own");
        release(raw);
        assert!(take(raw).is_err());
        release(raw);
    }

    #[test]
    fn an_exec_that_fails_says_why() {
        let error = exec(&c"/nonexistent".to_owned(), &[c"x".to_owned()]);
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
