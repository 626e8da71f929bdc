//! exposure
pub mod proto;
pub mod record;
pub mod ring;
