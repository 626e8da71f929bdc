//! The table of a worker's open connections: a fixed number of slots, touched
//! only as far as they were ever needed, found again by index and generation.
//!
//! An event may still be on its way for the connection that had a slot before.
//! The generation tells the two apart.

/// A slot's generation comes round after so many connections, so that a key
/// leaves the four highest bits of its word to the backend.
const GENERATION_MASK: u32 = (1 << 28) - 1;

/// Names one connection: its slot, and which of the slot's connections it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    /// The slot.
    pub index: u32,
    /// How many connections had the slot before.
    pub generation: u32,
}

impl Key {
    /// As one word of 60 bits, for a backend's token or user data.
    #[must_use]
    pub fn to_word(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    /// From such a word.
    #[must_use]
    pub fn from_word(word: u64) -> Key {
        Key { index: word as u32, generation: (word >> 32) as u32 }
    }
}

struct Slot<O> {
    generation: u32,
    open: Option<O>,
}

/// All slots of a worker; what is kept of an open connection is the backend's own.
pub struct Connections<O> {
    slots: Vec<Slot<O>>,
    free: Vec<u32>,
}

impl<O> Connections<O> {
    /// A table for at most `count_max` connections at once.
    #[must_use]
    pub fn new(count_max: usize) -> Connections<O> {
        Connections { slots: Vec::with_capacity(count_max), free: Vec::with_capacity(count_max) }
    }

    /// How many it was made for.
    #[must_use]
    pub fn count_max(&self) -> usize {
        self.slots.capacity()
    }

    /// Connections open now.
    #[must_use]
    pub fn count(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Whether another one would fit.
    #[must_use]
    pub fn has_room(&self) -> bool {
        !self.free.is_empty() || self.slots.len() < self.slots.capacity()
    }

    /// Takes a slot for `open`.
    ///
    /// # Panics
    /// If there is no room.
    pub fn insert(&mut self, open: O) -> Key {
        let index = self.free.pop().unwrap_or_else(|| {
            assert!(self.slots.len() < self.slots.capacity(), "the caller asked for room");
            self.slots.push(Slot { generation: 0, open: None });
            self.slots.len() as u32 - 1
        });
        let slot = &mut self.slots[index as usize];
        slot.open = Some(open);
        Key { index, generation: slot.generation }
    }

    /// The connection of `key`, unless it is gone.
    pub fn get(&mut self, key: Key) -> Option<&mut O> {
        let slot = self.slots.get_mut(key.index as usize)?;
        if slot.generation == key.generation { slot.open.as_mut() } else { None }
    }

    /// The key of whoever has slot `index` now.
    #[must_use]
    pub fn key(&self, index: u32) -> Option<Key> {
        let slot = self.slots.get(index as usize)?;
        slot.open.as_ref().map(|_| Key { index, generation: slot.generation })
    }

    /// Frees the slot of `key`.
    pub fn remove(&mut self, key: Key) -> Option<O> {
        let slot = self.slots.get_mut(key.index as usize)?;
        if slot.generation != key.generation {
            return None;
        }
        let open = slot.open.take()?;
        slot.generation = (slot.generation + 1) & GENERATION_MASK;
        self.free.push(key.index);
        Some(open)
    }

    /// The keys of all open connections, as they are now.
    pub fn keys(&self) -> impl Iterator<Item = Key> + use<'_, O> {
        (0..self.slots.len() as u32).filter_map(|index| self.key(index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_a_closed_connection_finds_nobody_else() {
        let mut connections = Connections::new(1);
        let first = connections.insert("open");
        assert!(!connections.has_room());
        assert!(connections.remove(first).is_some());
        let second = connections.insert("open");
        assert_eq!(second.index, first.index);
        assert!(connections.get(first).is_none());
        assert!(connections.remove(first).is_none());
        assert!(connections.get(second).is_some());
        assert_eq!(connections.count(), 1);
        assert_eq!(connections.keys().collect::<Vec<_>>(), [second]);
        assert_eq!(Key::from_word(second.to_word()), second);
    }
}
