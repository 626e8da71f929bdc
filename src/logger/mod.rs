//! logger
pub mod drain;
pub mod sink;
