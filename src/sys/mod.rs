//! Everything `unsafe`, and nothing else: memory shared between processes,
//! fork, and the few system calls that nix does not wrap. Each block says the
//! fact that makes it sound and who keeps that fact true.
#![allow(unsafe_code, reason = "this is the room for it; the lint denies it everywhere else")]

pub mod cache;
pub mod channel;
pub mod fork;
pub mod inherit;
pub mod region;
pub mod socket;
pub mod uring;

/// Held by unit tests that fork or that look for a descriptor's being closed: a
/// child forked by one test keeps copies of the other's descriptors for a moment.
#[cfg(test)]
pub(crate) fn alone() -> std::sync::MutexGuard<'static, ()> {
    static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());
    ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
