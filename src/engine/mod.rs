//! Deciding, pure: no sockets, no time, no names, no allocation while deciding.
//!
//! ```text
//! experiments file ─ config/check ─► catalog ─ compile ─► plan image (flat bytes, one memfd for all workers)
//!                                       │                    │
//!                                   reference            Plan<'_> (typed views)
//!                                (plain twin, explain)       │
//! request ─ http scanner ─► Units + Facts ────────────► Plan::decide ─► Decision
//! ```
//!
//! # What grows with what
//! `cargo bench --bench growth` prints the table with the sizes of plans and the
//! time that checking and compiling a file takes. Microseconds a decision on the
//! users of `typical` (Zen 4, one core of a shared machine), facts beside it:
//! ```text
//! experiments, 8 layers for 10      100   1,000  10,000      0.92    9.4    120
//! layers, 1,000 experiments           1      10      80      0.11   0.34   1.30
//! experiments a layer, 80 layers      1      16      64      0.93   1.33   1.66
//! blocks a group                      1      32   1,000      0.92   1.27   1.81
//! conditions a segment                1       4      64      0.77   0.97   1.17
//! units in each override              0     100  10,000      0.97   0.97   0.97
//! ids in each of 10 lists            10   1,000 100,000      0.17   0.17   0.17
//! facts: starts_with of an attribute 10     100   1,000      0.20   0.39   2.20
//! ```
//! Linear in layers, because each is hashed and its owner looked up, 10 to 15 ns
//! each (the more, the less of the plan stays in the nearer caches). Nearly flat in
//! blocks and in experiments a layer: only the height of the layer's search tree
//! grows, a line for 32 runs, two for 1,024, and the caches hold less of it; marks
//! are two bits an experiment. Conditions cost as far as a segment is walked: the
//! longer an `all`, the sooner one fails. Lists cost nothing here: a value's sets
//! are looked up once, by its hash or its rank, when the scanner meets it. Patterns
//! are tried one after another, 2 to 4 ns each: the only facts that are not flat.

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
