//! master
pub mod heritage;
pub mod listen;
pub mod process;
pub mod signals;
pub mod supervisor;
