//! Counters whose labels come with the experiments: a directory of names in the
//! instance's memory, each with a place that it keeps as long as the instance
//! lives, whatever is reloaded; and in every worker's block columns of one word a place.
//!
//! ```text
//! directory: count, text size | index: a hash table of places | entries | texts
//! entry:     kind (2 bits) | size of the text (30) | where it begins, in words (32)
//! slot:      upper half of the hash (32) | place + 1 (32); 0 is free
//! ```
//! The master alone writes it, before a plan goes out to the workers; an entry is
//! complete before its slot names it, and never changes. What finds no place any
//! more is counted as `other`.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Places there are.
pub const PLACE_COUNT: usize = 16_384;
/// Cells of a column: one a place, and an `other` for each kind.
const COLUMN_SIZE: usize = PLACE_COUNT + NameKind::ALL.len();
/// Cells of a block.
pub const CELL_COUNT: usize = 2 * COLUMN_SIZE;
const _: () = assert!(CELL_COUNT < u16::MAX as usize, "a place names a cell");

const SLOT_COUNT: usize = 2 * PLACE_COUNT;
const HEADER_WORDS: usize = 8;
const INDEX: usize = HEADER_WORDS;
const ENTRIES: usize = INDEX + SLOT_COUNT;
const TEXTS: usize = ENTRIES + PLACE_COUNT;
/// 64 bytes a name, on average.
const TEXT_WORDS: usize = PLACE_COUNT * 8;
/// Words of the directory.
pub const WORD_COUNT: usize = TEXTS + TEXT_WORDS;

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub enum NameKind {
    /// An experiment and one of its groups, as they stand in an answer: `"new_home":"test"`.
    Assignment = 0,
    /// A declared attribute.
    Attribute = 1,
    /// As [`NameKind::Assignment`], where an override chose.
    Forced = 2,
}

impl NameKind {
    /// All of them; an entry has two bits for its kind.
    pub const ALL: [NameKind; 3] = [NameKind::Assignment, NameKind::Attribute, NameKind::Forced];
}

/// What is counted of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Column {
    /// How often it came up.
    Met = 0,
    /// How often in an exposure that the ring refused.
    Lost = 1,
}

/// The cell of a name in every worker's block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place(pub u16);

impl Place {
    /// Where names without a place are counted.
    #[must_use]
    pub const fn other(kind: NameKind) -> Place {
        Place((PLACE_COUNT + kind as usize) as u16)
    }

    /// Its cell in a column; where nothing else is said, that is the first.
    #[must_use]
    pub const fn of(self, column: Column) -> Place {
        Place(self.0 + (column as usize * COLUMN_SIZE) as u16)
    }
}

/// A name as the values of its labels: an experiment and its group, or an attribute.
#[must_use]
pub fn label_values(kind: NameKind, text: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(text);
    if kind == NameKind::Attribute {
        return vec![text.into_owned()];
    }
    match serde_json::from_str::<BTreeMap<String, String>>(&format!("{{{text}}}")) {
        Ok(pair) if pair.len() == 1 => pair.into_iter().flat_map(|(name, group)| [name, group]).collect(),
        _ => vec![text.into_owned(), String::new()],
    }
}

/// The directory, to read or (for the master) to write.
#[derive(Debug, Clone, Copy)]
pub struct Names<'r> {
    words: &'r [AtomicU64],
}

impl<'r> Names<'r> {
    /// Over zeroed words, or those of a directory.
    pub(super) fn new(words: &'r [AtomicU64]) -> Names<'r> {
        assert_eq!(words.len(), WORD_COUNT, "the directory's own words");
        Names { words }
    }

    /// How many names have a place.
    #[must_use]
    pub fn count(&self) -> usize {
        (self.words[0].load(Acquire) as usize).min(PLACE_COUNT)
    }

    /// The place of a name, if it has one. Allocates nothing.
    #[must_use]
    pub fn find(&self, kind: NameKind, text: &[u8]) -> Option<Place> {
        self.search(kind, text).ok()
    }

    /// Gives a name a place, unless it has one or there is none left. Only the master may.
    pub fn learn(&self, kind: NameKind, text: &[u8]) {
        let Err(Some((slot, tag))) = self.search(kind, text) else { return };
        let (place, begin) = (self.count(), self.words[1].load(Relaxed) as usize);
        let word_count = text.len().div_ceil(8);
        if place == PLACE_COUNT || word_count > TEXT_WORDS - begin {
            return;
        }
        for (word, bytes) in self.words[TEXTS + begin..].iter().zip(text.chunks(8)) {
            let mut eight = [0; 8];
            eight[..bytes.len()].copy_from_slice(bytes);
            word.store(u64::from_le_bytes(eight), Relaxed);
        }
        let entry = (kind as u64) << 62 | (text.len() as u64) << 32 | begin as u64;
        self.words[ENTRIES + place].store(entry, Relaxed);
        self.words[1].store((begin + word_count) as u64, Relaxed);
        self.words[0].store(place as u64 + 1, Release);
        self.words[INDEX + slot].store(tag | (place as u64 + 1), Release);
    }

    /// The name of a place.
    #[must_use]
    pub fn name(&self, place: Place) -> Option<(NameKind, Vec<u8>)> {
        let (kind, size, words) = self.entry(usize::from(place.0))?;
        let mut text: Vec<u8> = words.iter().flat_map(|word| word.load(Relaxed).to_le_bytes()).collect();
        text.truncate(size);
        Some((kind, text))
    }

    /// All names of a kind, with their places.
    pub fn of(&self, wanted: NameKind) -> impl Iterator<Item = (Place, Vec<u8>)> + use<'r> {
        let names = *self;
        (0..names.count()).filter_map(move |place| {
            let place = Place(place as u16);
            names.name(place).filter(|(kind, _)| *kind == wanted).map(|(_, text)| (place, text))
        })
    }

    /// The place, or the free slot where it belongs and the slot's tag; nothing where none is free.
    fn search(&self, kind: NameKind, text: &[u8]) -> Result<Place, Option<(usize, u64)>> {
        let hash = xxh3_64_with_seed(text, kind as u64);
        let tag = hash & !0xFFFF_FFFF;
        for step in 0..SLOT_COUNT {
            let slot = (hash as usize).wrapping_add(step) % SLOT_COUNT;
            let word = self.words[INDEX + slot].load(Acquire);
            if word == 0 {
                return Err(Some((slot, tag)));
            }
            let place = (word as u32).wrapping_sub(1) as usize;
            if word & !0xFFFF_FFFF == tag && self.is(place, kind, text) {
                return Ok(Place(place as u16));
            }
        }
        Err(None)
    }

    fn is(&self, place: usize, kind: NameKind, text: &[u8]) -> bool {
        let Some((found, size, words)) = self.entry(place) else { return false };
        let same = |(word, bytes): (&AtomicU64, &[u8])| word.load(Relaxed).to_le_bytes().starts_with(bytes);
        found == kind && size == text.len() && words.iter().zip(text.chunks(8)).all(same)
    }

    /// Kind, size and words of a name. Another process wrote them: nothing is taken on trust.
    fn entry(&self, place: usize) -> Option<(NameKind, usize, &'r [AtomicU64])> {
        if place >= self.count() {
            return None;
        }
        let entry = self.words[ENTRIES + place].load(Relaxed);
        let kind = *NameKind::ALL.get((entry >> 62) as usize)?;
        let (size, begin) = ((entry >> 32 & 0x3FFF_FFFF) as usize, (entry & 0xFFFF_FFFF) as usize);
        let words = self.words[TEXTS..].get(begin..begin.checked_add(size.div_ceil(8))?)?;
        Some((kind, size, words))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words() -> Vec<AtomicU64> {
        (0..WORD_COUNT).map(|_| AtomicU64::new(0)).collect()
    }

    #[test]
    fn a_name_keeps_its_place_whatever_else_is_learned() {
        let words = words();
        let names = Names::new(&words);
        names.learn(NameKind::Assignment, b"\"a\":\"b\"");
        names.learn(NameKind::Attribute, b"age");
        let place = names.find(NameKind::Attribute, b"age");
        assert_eq!(place, Some(Place(1)));
        for index in 0..1000 {
            names.learn(NameKind::Assignment, format!("\"experiment {index}\":\"x\"").as_bytes());
            names.learn(NameKind::Attribute, b"age");
        }
        assert_eq!(names.find(NameKind::Attribute, b"age"), place);
        assert_eq!(names.count(), 1002);
        assert_eq!(names.find(NameKind::Assignment, b"age"), None);
        assert_eq!(names.find(NameKind::Attribute, b"ag"), None);
        assert_eq!(names.of(NameKind::Attribute).collect::<Vec<_>>(), [(Place(1), b"age".to_vec())]);
    }

    #[test]
    fn names_beyond_the_last_place_have_none() {
        let words = words();
        let names = Names::new(&words);
        for index in 0..PLACE_COUNT + 100 {
            names.learn(NameKind::Assignment, &index.to_le_bytes());
        }
        assert_eq!(names.count(), PLACE_COUNT);
        for index in 0..PLACE_COUNT {
            let place = names.find(NameKind::Assignment, &index.to_le_bytes());
            assert_eq!(place, Some(Place(index as u16)));
        }
        assert_eq!(names.find(NameKind::Assignment, &PLACE_COUNT.to_le_bytes()), None);
        // Nor do names that are too long for what is left.
        let words = self::words();
        let names = Names::new(&words);
        names.learn(NameKind::Attribute, &vec![b'x'; TEXT_WORDS * 8 - 8]);
        names.learn(NameKind::Attribute, &[b'y'; 9]);
        names.learn(NameKind::Attribute, &[b'z'; 8]);
        assert_eq!(names.find(NameKind::Attribute, &[b'y'; 9]), None);
        assert_eq!(names.find(NameKind::Attribute, &[b'z'; 8]), Some(Place(1)));
    }

    #[test]
    fn an_assignment_is_an_experiment_and_a_group() {
        assert_eq!(label_values(NameKind::Assignment, br#""a \"b\"":"c""#), ["a \"b\"", "c"]);
        assert_eq!(label_values(NameKind::Attribute, b"\"age"), ["\"age"]);
        assert_eq!(label_values(NameKind::Assignment, b"}"), ["}", ""]);
    }

    #[test]
    fn a_damaged_directory_is_read_without_harm() {
        let words = words();
        let names = Names::new(&words);
        names.learn(NameKind::Attribute, b"age");
        for word in &words[..ENTRIES + 1] {
            let before = word.load(Relaxed);
            if before != 0 {
                word.store(u64::MAX, Relaxed);
                let _ = (names.find(NameKind::Attribute, b"age"), names.name(Place(0)), names.count());
                word.store(before, Relaxed);
            }
        }
        assert_eq!(names.find(NameKind::Attribute, b"age"), Some(Place(0)));
    }
}
