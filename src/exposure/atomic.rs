//! What rings are made of: the standard library's atomics. `tests/orderings`
//! compiles the ring over a model of them instead.

#[cfg(test)]
use std::cell::RefCell;
pub use std::sync::atomic::{AtomicU64, Ordering, fence};

/// Is told the place and the value of a store.
#[cfg(test)]
pub(super) type Listener = Box<dyn FnMut(usize, u64)>;

#[cfg(test)]
thread_local! {
    /// Who listens to this thread's stores.
    static LISTENER: RefCell<Option<Listener>> = const { RefCell::new(None) };
}

/// Every store of either side of a ring is said here once it is made, so that a
/// test can kill the process that makes them after any one of them.
#[inline(always)]
#[cfg_attr(not(test), allow(unused_variables, reason = "nobody listens"))]
pub(super) fn stored(index: usize, value: u64) {
    #[cfg(test)]
    LISTENER.with_borrow_mut(|listener| {
        if let Some(listener) = listener {
            listener(index, value);
        }
    });
}

/// From now on `listener` is told of every store that this thread makes.
#[cfg(test)]
pub(super) fn listen(listener: Option<Listener>) {
    LISTENER.set(listener);
}
