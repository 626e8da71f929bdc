//! Deciding, pure: no sockets, no time, no names, no allocation while deciding.
//!
//! ```text
//! experiments file ─ config/check ─► catalog ─ compile ─► plan image (flat bytes, one memfd for all workers)
//!                                       │                    │
//!                                   reference            Plan<'_> (typed views)
//!                                (plain twin, explain)       │
//! request ─ http scanner ─► Units + Facts ────────────► Plan::decide ─► Decision
//! ```

pub mod assignment;
pub mod attributes;
pub mod bucket;
pub mod catalog;
pub mod compile;
pub mod layer;
pub mod operator;
pub mod plan;
pub mod reference;
pub mod segment;

#[cfg(test)]
pub(crate) mod arbitrary;
