//! Loom's atomics, each with its place in the ring, so that one ordering at one
//! place can be weakened.

use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;

pub use loom::sync::atomic::Ordering;

/// An ordering that is left out: the store, the load or the fence is relaxed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weak {
    /// None is.
    Nothing,
    /// Stores to that word.
    Store(usize),
    /// Loads of that word.
    Load(usize),
    /// Fences of that kind.
    AcquireFence,
    /// Fences of that kind.
    ReleaseFence,
}

/// [`Weak`] as a number: loom runs every thread of a model on one thread, but
/// not all models.
static WEAK: AtomicUsize = AtomicUsize::new(0);

impl Weak {
    fn number(self) -> usize {
        match self {
            Weak::Nothing => 0,
            Weak::AcquireFence => 1,
            Weak::ReleaseFence => 2,
            Weak::Store(index) => 4 + index * 2,
            Weak::Load(index) => 5 + index * 2,
        }
    }

    /// From now on.
    pub fn set(self) {
        WEAK.store(self.number(), SeqCst);
    }

    fn is_set(self) -> bool {
        WEAK.load(SeqCst) == self.number()
    }
}

/// One word of a ring.
#[derive(Debug)]
pub struct AtomicU64 {
    word: loom::sync::atomic::AtomicU64,
    index: usize,
}

impl AtomicU64 {
    /// The word at that place.
    pub fn at(index: usize) -> AtomicU64 {
        AtomicU64 { word: loom::sync::atomic::AtomicU64::new(0), index }
    }

    pub fn load(&self, ordering: Ordering) -> u64 {
        let is_weak = Weak::Load(self.index).is_set();
        self.word.load(if is_weak { Ordering::Relaxed } else { ordering })
    }

    pub fn store(&self, value: u64, ordering: Ordering) {
        let is_weak = Weak::Store(self.index).is_set();
        self.word.store(value, if is_weak { Ordering::Relaxed } else { ordering });
    }
}

pub fn fence(ordering: Ordering) {
    let weak = if ordering == Ordering::Acquire { Weak::AcquireFence } else { Weak::ReleaseFence };
    if !weak.is_set() {
        loom::sync::atomic::fence(ordering);
    }
}

pub(super) fn stored(_index: usize, _value: u64) {}
