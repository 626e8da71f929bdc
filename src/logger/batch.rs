//! What goes from the drain to the sink and comes back: length-delimited
//! exposures of one or many rings, and how far each ring was read for them.
//! There is a fixed set of batches; nothing is allocated once they have grown.

use crate::exposure::ring::Position;
use crate::limits::BATCH_SIZE;

/// Names a ring inside of one logger.
pub type SourceKey = u64;

/// Up to where one ring is safe, in words that outlive the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// The ring's instance.
    pub instance: u64,
    /// Its number there.
    pub ring: u16,
    /// How far it was read.
    pub position: Position,
}

/// One of the fixed set.
#[derive(Debug)]
pub struct Batch {
    /// Length-delimited exposures, ready to be written.
    pub bytes: Vec<u8>,
    /// How many they are.
    pub count: u64,
    /// Of this instance's rings, not of earlier ones'.
    pub is_own: bool,
    /// Up to where each ring is safe once this batch is.
    pub reached: Vec<(SourceKey, Mark)>,
}

impl Batch {
    /// An empty batch with all the room it will ever need for bytes.
    #[must_use]
    pub fn new() -> Batch {
        Batch { bytes: Vec::with_capacity(BATCH_SIZE), count: 0, is_own: true, reached: Vec::new() }
    }

    /// Room left for exposures.
    #[must_use]
    pub fn room(&self) -> usize {
        BATCH_SIZE.saturating_sub(self.bytes.len())
    }

    /// Empties it for its next use.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.count = 0;
        self.reached.clear();
    }
}

impl Default for Batch {
    fn default() -> Batch {
        Batch::new()
    }
}
