//! An exposure is the record of one answer: in which experiments a user was,
//! and in which group of each.
//!
//! # The life of an exposure
//! ```text
//! worker   claim ─ encode (record) ─ commit (ring) ─ the answer leaves
//!                                       ║ shared memory, outlives both
//! logger                             read ─ batch ─ sink: written ─ confirm: the ring's head moves
//! ```
//! The worker's part makes no system call, takes no lock and allocates nothing.
//! A committed exposure is delivered whoever dies; one that could not be
//! committed leaves a gap in its ring's numbers, which is the record of the loss.
//!
//! # What happens to exposures
//! | what happens | exposures | why |
//! | --- | --- | --- |
//! | a worker is killed | none lost of the requests it answered | committed before the answer leaves; the ring is a file |
//! | a worker is killed in the middle of a push | that one, which was not answered: counted as torn | its number is used, its bytes lie beyond the tail |
//! | the logger is killed | none lost; what was under way comes twice with the same ids | the head moves only after the write |
//! | the master is killed | none lost | logger and workers serve on |
//! | the disk is full | they wait in the rings, then are refused and counted | the sink tries again; nothing is confirmed |
//! | the logger is slower than the workers for long | refused at the ring, counted | a full ring never waits and never overwrites |
//! | a record is damaged | that one is skipped and counted, no other | checksums that know their position |
//! | a ring's header is damaged | none lost | mended from the file's name and size, the state before, the records |
//! | the sink's bound is reached | those of the oldest files, counted | see the sink |
//! | the machine loses power | those in the rings, and what was written since the last sync | rings are memory |
//!
//! This module knows neither files nor mappings: it is given words.

mod atomic;
pub mod checksum;
#[doc(hidden)]
pub mod fuzz;
pub mod proto;
pub mod record;
pub mod ring;
pub mod stream;
