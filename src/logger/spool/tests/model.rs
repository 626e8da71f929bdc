//! The ring before the spool and the sink behind it, as plain lists, and moves of
//! all three in any order.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::exposure::ring::Position;

pub(super) const RING: u16 = 3;

pub(super) fn options(size_max: u64, when_full: WhenFull) -> Options {
    Options {
        size_max,
        free_min: 0,
        age_max: Duration::from_secs(3600),
        when_full,
        sync_interval: Duration::from_millis(200),
        segment_size: 700,
    }
}

pub(super) fn mark(read: u64) -> Mark {
    Mark { instance: 9, ring: RING, position: Position::from_words([read * 8, read, 0, read, 0]) }
}

/// An exposure is its id and some bytes, as far as the spool knows.
pub(super) fn chunk(ids: &[u64]) -> Vec<u8> {
    ids.iter().flat_map(|id| id.to_le_bytes().into_iter().chain([b'x'; 24])).collect()
}

pub(super) fn ids(chunk: &[u8]) -> Vec<u64> {
    chunk.chunks(32).map(|one| u64::from_le_bytes(one[..8].try_into().unwrap())).collect()
}

/// The ring before the spool and the sink behind it.
pub(super) struct House {
    pub(super) disk: BadDisk,
    pub(super) options: Options,
    pub(super) spool: Option<Spool<BadDisk>>,
    pub(super) now: Now,
    /// The ring's next exposure that is not in the spool, and what was written
    /// of it and is not safe: where each batch ends, in numbers of the spool.
    pub(super) read: u64,
    pub(super) written: Vec<(u64, u64, Vec<Place>)>,
    /// What becomes safe is under way already, as what a silent sink took is.
    pub(super) under_way: bool,
    pub(super) confirmed: u64,
    /// The id of every number that is safe.
    pub(super) safe: Vec<u64>,
    /// Where any batch that was ever written ends, as the ring counts.
    pub(super) ends: BTreeSet<u64>,
    pub(super) out: Vec<Place>,
    pub(super) handed: BTreeMap<u64, Vec<u64>>,
    /// How often, and in which life.
    pub(super) delivered: BTreeMap<u64, Vec<u32>>,
    pub(super) life: u32,
}

impl House {
    pub(super) fn new(options: Options) -> House {
        let disk = BadDisk::default();
        let spool = Spool::open(disk.clone(), options.clone()).unwrap();
        House {
            disk,
            options,
            spool: Some(spool),
            now: Now { mono_ns: 0, unix_us: 1_000_000 },
            read: 0,
            written: Vec::new(),
            under_way: false,
            confirmed: 0,
            safe: Vec::new(),
            ends: BTreeSet::new(),
            out: Vec::new(),
            handed: BTreeMap::new(),
            delivered: BTreeMap::new(),
            life: 0,
        }
    }

    pub(super) fn spool(&mut self) -> &mut Spool<BadDisk> {
        self.spool.as_mut().unwrap()
    }

    pub(super) fn append(&mut self, counts: &[u64]) {
        let mut next = self.read;
        let chunks: Vec<(Vec<u8>, u32)> = counts
            .iter()
            .map(|count| {
                let ids: Vec<u64> = (next..next + count).collect();
                next += count;
                (chunk(&ids), *count as u32)
            })
            .collect();
        let now = self.now;
        // Even where the call fails, the bytes may be there after a kill.
        self.ends.insert(next);
        let taken = self.spool().append(
            chunks.iter().map(|(bytes, count)| (bytes.as_slice(), *count)),
            &[mark(next)],
            now,
        );
        if let Ok(places) = taken {
            let end = places.last().map(|place| place.number + u64::from(place.count)).unwrap();
            self.written.push((end, next, places));
            self.read = next;
        }
        self.look();
    }

    /// What the spool says is safe is confirmed; what it has forgotten is read again.
    pub(super) fn look(&mut self) {
        let taken = self.spool().taken();
        let is_clean = self.spool().is_clean();
        for (end, read, places) in std::mem::take(&mut self.written) {
            if end <= taken {
                self.safe.extend(self.confirmed..read);
                self.confirmed = read;
                for place in places.into_iter().filter(|_| self.under_way) {
                    self.spool.as_mut().unwrap().hand_out(place);
                    let numbers = place.number..place.number + u64::from(place.count);
                    let ids = numbers.map(|number| self.safe[number as usize]).collect();
                    self.handed.insert(place.number, ids);
                    self.out.push(place);
                }
            } else if !is_clean {
                self.written.push((end, read, places));
            }
        }
        if is_clean {
            self.read = self.confirmed;
        }
        assert_eq!(self.safe.len() as u64, taken, "as many are safe as were confirmed");
        let spool = self.spool();
        assert_eq!(spool.books().number() + spool.count(), taken, "the books");
    }

    pub(super) fn next(&mut self) {
        let mut bytes = Vec::new();
        if let Ok(Some(place)) = self.spool().next(&mut bytes) {
            let ids = ids(&bytes);
            assert_eq!(ids.len(), place.count as usize);
            let expected: Vec<u64> = (place.number..place.number + ids.len() as u64)
                .map(|number| self.safe[number as usize])
                .collect();
            assert_eq!(ids, expected, "what lies at a number is what was put there");
            assert!(
                !self.out.iter().any(|out| out.number == place.number),
                "nothing is handed out twice at once"
            );
            self.handed.insert(place.number, ids);
            self.out.push(place);
        }
    }

    pub(super) fn settle(&mut self, index: usize, delivered: bool) {
        if self.out.is_empty() {
            return;
        }
        let place = self.out.remove(index % self.out.len());
        if delivered {
            for id in &self.handed[&place.number] {
                self.delivered.entry(*id).or_default().push(self.life);
            }
        }
        let fate = if delivered { Fate::Settled { rejected: 0 } } else { Fate::Again };
        self.spool().settle(place.number, fate);
    }

    pub(super) fn restart(&mut self, power_lost: bool, kept: usize) {
        self.spool = None;
        self.disk.revive(power_lost, kept);
        self.life += 1;
        self.out.clear();
        let mut spool = Spool::open(self.disk.clone(), self.options.clone()).unwrap();
        let marks = spool.take_marks();
        let taken = spool.taken();
        assert!(taken >= self.safe.len() as u64 || power_lost, "{taken} of {}", self.safe.len());
        assert!(taken >= self.safe.len() as u64, "what was synced outlasts the power");
        self.spool = Some(spool);
        // The ring is told by the mark what it had not confirmed yet.
        let marked = marks.iter().map(|mark| mark.position.consumed()).max().unwrap_or(0);
        let resumed = marked.max(self.confirmed);
        assert!(resumed == self.confirmed || self.ends.contains(&resumed), "batches are there whole");
        self.safe.extend(self.confirmed..resumed);
        assert_eq!(self.safe.len() as u64, taken, "what is in the spool is not in the ring");
        (self.confirmed, self.read) = (resumed, resumed);
        self.written.clear();
        self.look();
    }

    pub(super) fn empty(&mut self) {
        for _ in 0..10_000 {
            if self.spool().count() == 0 {
                break;
            }
            self.next();
            self.settle(0, true);
            self.spool().advance().unwrap();
        }
    }

    /// Everything is delivered, and everything accounted for.
    pub(super) fn end(&mut self, loses: bool) {
        if self.disk.state().is_dead {
            self.restart(false, 0);
        }
        self.disk.state().troubles.clear();
        self.spool().sync().unwrap();
        self.look();
        self.empty();
        // What a failing disk did not let go is gone after the next start, or is
        // there again: the ring knows nothing of it.
        self.restart(false, 0);
        self.empty();
        let taken = self.safe.len() as u64;
        let books = self.spool().books();
        assert_eq!(self.spool().count(), 0, "it becomes empty");
        assert_eq!(books.number(), taken);
        let missing = self.safe.iter().filter(|id| !self.delivered.contains_key(id)).count() as u64;
        let lost = books.corrupt + books.evicted.iter().sum::<u64>();
        assert!(missing <= lost, "{missing} are missing, {lost} are counted");
        if !loses {
            assert_eq!(lost, 0);
        }
        for (id, lives) in &self.delivered {
            let distinct: BTreeSet<u32> = lives.iter().copied().collect();
            assert_eq!(distinct.len(), lives.len(), "{id} was doubled without a crash");
        }
        let distinct: BTreeSet<u64> = self.safe.iter().copied().collect();
        assert_eq!(distinct.len(), self.safe.len(), "nothing is in the spool twice");
        let names = self.disk.names();
        assert!(
            names.iter().all(|name| name == cursor::CURSOR_NAME),
            "emptied segments are removed: {names:?}"
        );
    }
}

#[derive(Debug, Clone)]
pub(super) enum Move {
    Append(Vec<u64>),
    Sync,
    Next,
    Settle(usize, bool),
    Advance,
    Trouble(usize, Trouble),
    Restart(bool, usize),
    Kill,
    UnderWay(bool),
}

pub(super) fn moves() -> impl Strategy<Value = Vec<Move>> {
    let trouble =
        prop_oneof![Just(Trouble::Broken), Just(Trouble::Full), Just(Trouble::Short), Just(Trouble::Killed),];
    let one = prop_oneof![
        6 => proptest::collection::vec(1..5u64, 1..4).prop_map(Move::Append),
        5 => Just(Move::Sync),
        6 => Just(Move::Next),
        6 => (any::<usize>(), prop::bool::weighted(0.8)).prop_map(|(index, ok)| Move::Settle(index, ok)),
        4 => Just(Move::Advance),
        2 => (1..6usize, trouble).prop_map(|(calls, trouble)| Move::Trouble(calls, trouble)),
        1 => (any::<bool>(), any::<usize>()).prop_map(|(power, kept)| Move::Restart(power, kept)),
        1 => Just(Move::Kill),
        2 => any::<bool>().prop_map(Move::UnderWay),
    ];
    proptest::collection::vec(one, 1..120)
}

pub(super) fn play(options: Options, moves: Vec<Move>, loses: bool) {
    let mut house = House::new(options);
    for one in moves {
        house.now = house.now.plus(Duration::from_millis(50));
        match one {
            Move::Append(counts) => house.append(&counts),
            Move::Sync => {
                let _ = house.spool().sync();
                house.look();
            }
            Move::Next => house.next(),
            Move::Settle(index, delivered) => house.settle(index, delivered),
            Move::Advance => {
                let _ = house.spool().advance();
                house.look();
            }
            Move::Trouble(calls, trouble) => house.disk.state().troubles.push((calls, trouble)),
            Move::Restart(power_lost, kept) => house.restart(power_lost, kept),
            Move::Kill => house.restart(false, 0),
            Move::UnderWay(under_way) => house.under_way = under_way,
        }
        if house.disk.state().is_dead {
            house.restart(false, 0);
        }
    }
    house.end(loses);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn nothing_confirmed_is_lost_or_doubled_on_a_disk_that_fails_at_any_call(moves in moves()) {
        play(options(1 << 30, WhenFull::Oldest), moves, false);
    }

    #[test]
    fn a_bound_evicts_the_oldest_and_counts_them(moves in moves()) {
        play(options(3000, WhenFull::Oldest), moves, true);
    }

    #[test]
    fn where_the_newest_is_refused_nothing_is_lost(moves in moves()) {
        play(options(3000, WhenFull::Newest), moves, false);
    }
}
