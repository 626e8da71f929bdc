//! Everything `unsafe`, and nothing else: memory shared between processes,
//! fork, and the few system calls that nix does not wrap. Each block says the
//! fact that makes it sound and who keeps that fact true.
#![allow(
    unsafe_code,
    reason = "this is the room for it; the lint denies it everywhere else"
)]

pub mod channel;
pub mod fork;
pub mod region;
pub mod socket;
