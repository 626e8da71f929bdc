//! Hash tables that are searched where they lie.

use crate::engine::plan::{Index, NONE, Slot};

/// Appends a table in which the n-th hash leads to n; of equal keys, to the first.
///
/// At most half of the slots are taken, so a search ends soon and always.
pub(super) fn push_index(slots: &mut Vec<Slot>, hashes: &[u64]) -> Index {
    let size = (hashes.len() * 2).next_power_of_two().max(2);
    let index = Index { first: slots.len() as u32, mask: size as u32 - 1 };
    slots.resize(slots.len() + size, Slot { tag: 0, index: NONE });
    let table = &mut slots[index.first as usize..];
    for (number, &hash) in hashes.iter().enumerate() {
        let mut place = (hash as u32 & index.mask) as usize;
        while table[place].index != NONE {
            place = (place + 1) & index.mask as usize;
        }
        table[place] = Slot { tag: (hash >> 32) as u32, index: number as u32 };
    }
    index
}
