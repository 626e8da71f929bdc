//! The sink that drops: every exposure is counted as delivered, for benchmarks.

use std::io;
use std::time::Duration;

use super::kinds::Sink;
use crate::clock::Now;

/// Drops what it is given.
#[derive(Debug)]
pub struct NoSink;

impl Sink for NoSink {
    fn write(&mut self, _bytes: &[u8], _count: u64, _now: Now) -> io::Result<()> {
        Ok(())
    }

    fn tick(&mut self, _now: Now) -> Duration {
        Duration::from_secs(1)
    }

    fn finish(&mut self, _now: Now) {}
}
