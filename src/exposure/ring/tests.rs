//! The ring held against a model, a killer and a vandal.

use std::cell::RefCell;

thread_local! {
    static STORES: RefCell<Option<Vec<(usize, u64)>>> = const { RefCell::new(None) };
}

/// Every store of a writer or a reader, while [`record_stores`] listens.
pub(super) fn note_store(index: usize, value: u64) {
    STORES.with_borrow_mut(|stores| {
        if let Some(stores) = stores {
            stores.push((index, value));
        }
    });
}
