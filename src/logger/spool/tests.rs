//! The spool against a plain model, over a disk that fails, cuts writes short,
//! and loses its power or its process between any two calls.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use proptest::prelude::*;

use super::cursor::Reason;
use super::disk::Directory;
use super::segment::*;
use super::*;

// ── A disk that fails ──────────────────────────────────────────────────────

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::logger) enum Trouble {
    /// EIO.
    Broken,
    /// ENOSPC.
    Full,
    /// Half of a write, and then ENOSPC.
    Short,
    /// The process is killed before the call.
    Killed,
}

#[derive(Debug, Clone, Default)]
struct Inode {
    now: Vec<u8>,
    synced: Vec<u8>,
    /// What a failed sync could not write and the kernel has forgotten: a later
    /// one says nothing of it.
    forgotten: std::ops::Range<usize>,
}

#[derive(Debug, Default)]
pub(in crate::logger) struct State {
    inodes: Vec<Inode>,
    names: BTreeMap<String, usize>,
    synced_names: BTreeMap<String, usize>,
    /// Calls until the trouble.
    pub(in crate::logger) troubles: Vec<(usize, Trouble)>,
    is_dead: bool,
    free: u64,
}

impl State {
    fn call(&mut self) -> io::Result<Option<Trouble>> {
        if self.is_dead {
            return Err(io::Error::other("killed"));
        }
        for trouble in &mut self.troubles {
            trouble.0 = trouble.0.saturating_sub(1);
        }
        let Some(index) = self.troubles.iter().position(|trouble| trouble.0 == 0) else {
            return Ok(None);
        };
        match self.troubles.remove(index).1 {
            Trouble::Killed => {
                self.is_dead = true;
                Err(io::Error::other("killed"))
            }
            Trouble::Broken => Err(io::Error::other("EIO")),
            trouble => Ok(Some(trouble)),
        }
    }

    fn call_that_needs_no_space(&mut self) -> io::Result<()> {
        self.call().map(|_| ())
    }
}

#[derive(Debug, Clone, Default)]
pub(in crate::logger) struct BadDisk(Rc<RefCell<State>>);

impl BadDisk {
    pub(in crate::logger) fn state(&self) -> std::cell::RefMut<'_, State> {
        self.0.borrow_mut()
    }

    /// Every call is refused from now on, or no longer.
    pub(in crate::logger) fn set_dead(&self, is_dead: bool) {
        self.state().is_dead = is_dead;
    }

    /// A new process finds it: after a kill with all that was written, after a loss
    /// of power with what was synced, and of the rest some.
    fn revive(&self, power_lost: bool, kept: usize) {
        let mut state = self.state();
        state.is_dead = false;
        state.troubles.clear();
        if !power_lost {
            return;
        }
        state.names = state.synced_names.clone();
        for inode in &mut state.inodes {
            let more = inode.now.len().saturating_sub(inode.synced.len());
            let end = inode.synced.len() + if more == 0 { 0 } else { kept % (more + 1) };
            let rest = inode.now.get(inode.synced.len()..end).unwrap_or_default().to_vec();
            inode.synced.extend(rest);
            inode.now = inode.synced.clone();
        }
    }

    fn names(&self) -> Vec<String> {
        self.state().names.keys().cloned().collect()
    }
}

impl Disk for BadDisk {
    type File = usize;

    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        let mut state = self.state();
        state.call_that_needs_no_space()?;
        let size = |inode: &usize| state.inodes[*inode].now.len() as u64;
        Ok(state.names.iter().map(|(name, inode)| (name.clone(), size(inode))).collect())
    }

    fn create(&self, name: &str) -> io::Result<usize> {
        let mut state = self.state();
        if state.call()?.is_some() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let inode = match state.names.get(name) {
            Some(inode) => *inode,
            None => {
                state.inodes.push(Inode::default());
                state.inodes.len() - 1
            }
        };
        state.inodes[inode].now.clear();
        state.inodes[inode].forgotten = 0..0;
        state.names.insert(name.to_owned(), inode);
        Ok(inode)
    }

    fn open(&self, name: &str) -> io::Result<usize> {
        let mut state = self.state();
        state.call_that_needs_no_space()?;
        state.names.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn write_at(&self, file: &usize, bytes: &[u8], at: u64) -> io::Result<usize> {
        let mut state = self.state();
        let size = match state.call()? {
            None => bytes.len(),
            Some(Trouble::Short) if bytes.len() > 1 => {
                state.troubles.push((1, Trouble::Full));
                bytes.len() / 2
            }
            Some(_) => return Err(io::ErrorKind::StorageFull.into()),
        };
        let content = &mut state.inodes[*file].now;
        let end = at as usize + size;
        content.resize(content.len().max(end), 0);
        content[at as usize..end].copy_from_slice(&bytes[..size]);
        let forgotten = &mut state.inodes[*file].forgotten;
        if at as usize <= forgotten.start && forgotten.end <= end {
            *forgotten = 0..0;
        }
        Ok(size)
    }

    fn read_at(&self, file: &usize, bytes: &mut [u8], at: u64) -> io::Result<usize> {
        let mut state = self.state();
        state.call_that_needs_no_space()?;
        let rest = state.inodes[*file].now.get(at as usize..).unwrap_or_default();
        let size = rest.len().min(bytes.len());
        bytes[..size].copy_from_slice(&rest[..size]);
        Ok(size)
    }

    fn sync(&self, file: &usize) -> io::Result<()> {
        let mut state = self.state();
        let called = state.call();
        let is_killed = state.is_dead;
        let inode = &mut state.inodes[*file];
        match called {
            Ok(None) => {
                inode.synced = inode.now.clone();
                let forgotten = inode.forgotten.start..inode.forgotten.end.min(inode.synced.len());
                inode.synced[forgotten].fill(0);
                Ok(())
            }
            refused => {
                if !is_killed {
                    inode.forgotten = inode.synced.len().min(inode.now.len())..inode.now.len();
                }
                refused.and_then(|_| Err(io::ErrorKind::StorageFull.into()))
            }
        }
    }

    fn sync_names(&self) -> io::Result<()> {
        let mut state = self.state();
        if state.call()?.is_some() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        state.synced_names = state.names.clone();
        Ok(())
    }

    fn cut(&self, file: &usize, size: u64) -> io::Result<()> {
        let mut state = self.state();
        state.call_that_needs_no_space()?;
        let inode = &mut state.inodes[*file];
        inode.now.truncate(size as usize);
        inode.forgotten = inode.forgotten.start.min(size as usize)..inode.forgotten.end.min(size as usize);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        state.call_that_needs_no_space()?;
        // It may be durable at once, or not before the names are synced: the worse is the former.
        state.synced_names.remove(name);
        state.names.remove(name).map(|_| ()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn free_size(&self) -> io::Result<u64> {
        Ok(self.state().free)
    }
}

// ── The model ──────────────────────────────────────────────────────────────

const RING: u16 = 3;

fn options(size_max: u64, when_full: WhenFull) -> Options {
    Options {
        size_max,
        free_min: 0,
        age_max: Duration::from_secs(3600),
        when_full,
        sync_interval: Duration::from_millis(200),
        segment_size: 700,
    }
}

fn mark(read: u64) -> Mark {
    Mark { instance: 9, ring: RING, position: Position::from_words([read * 8, read, 0, read, 0]) }
}

use crate::exposure::ring::Position;

/// An exposure is its id and some bytes, as far as the spool knows.
fn chunk(ids: &[u64]) -> Vec<u8> {
    ids.iter().flat_map(|id| id.to_le_bytes().into_iter().chain([b'x'; 24])).collect()
}

fn ids(chunk: &[u8]) -> Vec<u64> {
    chunk.chunks(32).map(|one| u64::from_le_bytes(one[..8].try_into().unwrap())).collect()
}

/// The ring before the spool and the sink behind it.
struct House {
    disk: BadDisk,
    options: Options,
    spool: Option<Spool<BadDisk>>,
    now: Now,
    /// The ring's next exposure that is not in the spool, and what was written
    /// of it and is not safe: where each batch ends, in numbers of the spool.
    read: u64,
    written: Vec<(u64, u64, Vec<Place>)>,
    /// What becomes safe is under way already, as what a silent sink took is.
    under_way: bool,
    confirmed: u64,
    /// The id of every number that is safe.
    safe: Vec<u64>,
    /// Where any batch that was ever written ends, as the ring counts.
    ends: BTreeSet<u64>,
    out: Vec<Place>,
    handed: BTreeMap<u64, Vec<u64>>,
    /// How often, and in which life.
    delivered: BTreeMap<u64, Vec<u32>>,
    life: u32,
}

impl House {
    fn new(options: Options) -> House {
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

    fn spool(&mut self) -> &mut Spool<BadDisk> {
        self.spool.as_mut().unwrap()
    }

    fn append(&mut self, counts: &[u64]) {
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
    fn look(&mut self) {
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

    fn next(&mut self) {
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

    fn settle(&mut self, index: usize, delivered: bool) {
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

    fn restart(&mut self, power_lost: bool, kept: usize) {
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

    fn empty(&mut self) {
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
    fn end(&mut self, loses: bool) {
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
enum Move {
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

fn moves() -> impl Strategy<Value = Vec<Move>> {
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

fn play(options: Options, moves: Vec<Move>, loses: bool) {
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
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

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

// ── By hand ────────────────────────────────────────────────────────────────

fn filled(batches: u64) -> House {
    let mut house = House::new(options(1 << 30, WhenFull::Oldest));
    for _ in 0..batches {
        house.append(&[2, 3]);
        house.spool().sync().unwrap();
        house.look();
    }
    house
}

fn segment_content(disk: &BadDisk, name: &str) -> Vec<u8> {
    let state = disk.state();
    state.inodes[state.names[name]].now.clone()
}

#[test]
fn a_segment_that_could_not_go_when_it_was_emptied_goes_at_the_bound_uncounted() {
    use Move::{Advance, Append, Kill, Next, Settle};
    let broken = |calls| Move::Trouble(calls, Trouble::Broken);
    let append = |counts: &[u64]| Append(counts.to_vec());
    let before = [broken(4), append(&[1]), append(&[1]), append(&[1]), Kill, append(&[2, 2, 3])];
    let between = [append(&[4, 2]), Next, append(&[3, 3]), Next, append(&[3]), append(&[3])];
    let emptied = [Settle(0, true), broken(2), Settle(0, true), Advance];
    let after = [append(&[1, 4, 2]), append(&[1, 2]), append(&[4]), append(&[1, 1, 2])];
    let moves = before.into_iter().chain(between).chain(emptied).chain(after).collect();
    play(options(3000, WhenFull::Oldest), moves, true);
}

#[test]
fn a_cursor_whose_sync_failed_is_written_again_before_what_it_says_is_empty_goes() {
    use Move::{Advance, Append, Next, Restart, Settle, Sync};
    let broken = Move::Trouble(2, Trouble::Broken);
    let moves =
        vec![Append(vec![1]), Sync, Next, Settle(0, true), broken, Advance, Advance, Restart(true, 0)];
    play(options(3000, WhenFull::Newest), moves, false);
}

#[test]
fn a_tail_torn_anywhere_is_cut_behind_its_last_whole_batch() {
    let house = filled(2);
    let name = segment_name(0);
    let whole = segment_content(&house.disk, &name);
    let one_batch = {
        let house = filled(1);
        segment_content(&house.disk, &name).len()
    };
    for size in SEGMENT_HEADER_SIZE..whole.len() {
        let disk = house.disk.clone();
        {
            let mut state = disk.state();
            let inode = state.names[&name];
            state.inodes[inode].now = whole[..size].to_vec();
        }
        let spool = Spool::open(disk.clone(), house.options.clone()).unwrap();
        assert_eq!(spool.count(), if size < one_batch { 0 } else { 5 }, "{size} bytes");
        assert!(spool.size() <= size as u64);
        if size < one_batch {
            // Nothing in it: removed. Put it back for the next size.
            let mut state = disk.state();
            let inode = state.inodes.len() - 1;
            state.names.insert(name.clone(), inode);
        }
    }
}

#[test]
fn damage_costs_what_it_covers_and_is_counted() {
    let whole = segment_content(&filled(8).disk, &segment_name(0));
    for at in (SEGMENT_HEADER_SIZE..whole.len()).step_by(13) {
        let mut house = filled(8);
        // One spot of the first segment; the last is another.
        assert!(house.disk.names().len() > 3);
        {
            let mut state = house.disk.state();
            let inode = state.names[&segment_name(0)];
            state.inodes[inode].now[at] ^= 0x40;
        }
        house.restart(false, 0);
        for _ in 0..100 {
            house.next();
            house.settle(0, true);
            house.spool().advance().unwrap();
        }
        let books = house.spool().books();
        assert_eq!(house.spool().count(), 0);
        assert!(books.corrupt <= 3, "byte {at}: {books:?}");
        assert_eq!(books.delivered + books.corrupt, 40);
        assert_eq!(house.delivered.len() as u64, books.delivered);
    }
}

#[test]
fn a_disk_with_too_little_left_lets_the_oldest_go_and_an_empty_spool_refuses() {
    let mut house = House::new(Options { free_min: 1000, ..options(1 << 30, WhenFull::Oldest) });
    house.disk.state().free = 100_000;
    for _ in 0..8 {
        house.append(&[2, 3]);
        house.spool().sync().unwrap();
        house.look();
    }
    let before = house.spool().count();
    house.disk.state().free = 500;
    let now = house.now;
    let refused = house.spool().append([(&[1u8; 32][..], 1)].into_iter(), &[], now);
    assert!(matches!(refused, Err(Refusal::Full(_))), "the segment that grows can't go");
    assert!(house.spool().count() < before);
    assert_eq!(house.spool().books().evicted[Reason::Disk as usize], before - house.spool().count());
}

#[test]
fn what_is_too_old_goes_and_is_counted() {
    let mut house = filled(8);
    let (now, later) = (house.now, house.now.plus(Duration::from_secs(3601)));
    house.spool().check_age(now).unwrap();
    assert_eq!(house.spool().count(), 40);
    house.now = later;
    house.append(&[1]);
    house.spool().sync().unwrap();
    house.look();
    house.spool().check_age(later).unwrap();
    let (kept, evicted) = (house.spool().count(), house.spool().books().evicted);
    assert_eq!(evicted[..2], [0, 0]);
    assert!((1..=16).contains(&kept), "the last segment has something young: {kept}");
    assert_eq!(evicted[Reason::Age as usize] + kept, 41);
}

#[test]
fn what_was_under_way_is_not_handed_out_until_it_comes_back() {
    let mut house = House::new(options(1 << 30, WhenFull::Oldest));
    let now = house.now;
    let first = chunk(&[0, 1]);
    let second = chunk(&[2]);
    let spool = house.spool();
    let places = spool.append([(first.as_slice(), 2), (second.as_slice(), 1)].into_iter(), &[], now).unwrap();
    spool.sync().unwrap();
    spool.hand_out(places[0]);
    let mut bytes = Vec::new();
    assert_eq!(spool.next(&mut bytes).unwrap(), Some(places[1]));
    assert_eq!(spool.next(&mut bytes).unwrap(), None);
    spool.settle(places[1].number, Fate::Settled { rejected: 1 });
    spool.advance().unwrap();
    assert_eq!(spool.count(), 3, "the cursor waits for what is before");
    spool.settle(places[0].number, Fate::Again);
    assert_eq!(spool.next(&mut bytes).unwrap(), Some(places[0]));
    assert_eq!(ids(&bytes), [0, 1]);
    spool.settle(places[0].number, Fate::Settled { rejected: 0 });
    spool.advance().unwrap();
    assert_eq!(spool.books(), Books { delivered: 2, rejected: 1, ..Books::default() });
    assert_eq!(spool.count(), 0);
}

#[test]
fn a_directory_is_one_loggers_at_a_time_and_keeps_what_was_synced() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("spool");
    let now = Now { mono_ns: 0, unix_us: 1 };
    let mut spool = Spool::open(Directory::take(&path).unwrap(), options(1 << 30, WhenFull::Oldest)).unwrap();
    assert_eq!(Directory::take(&path).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    let bytes = chunk(&[7, 8]);
    spool.append([(bytes.as_slice(), 2)].into_iter(), &[mark(2)], now).unwrap();
    spool.sync().unwrap();
    drop(spool);
    let mut spool = Spool::open(Directory::take(&path).unwrap(), options(1 << 30, WhenFull::Oldest)).unwrap();
    assert_eq!((spool.count(), spool.take_marks()), (2, vec![mark(2)]));
    let mut out = Vec::new();
    let place = spool.next(&mut out).unwrap().unwrap();
    assert_eq!(out, bytes);
    spool.settle(place.number, Fate::Settled { rejected: 0 });
    spool.advance().unwrap();
    drop(spool);
    let spool = Spool::open(Directory::take(&path).unwrap(), options(1 << 30, WhenFull::Oldest)).unwrap();
    assert_eq!((spool.count(), spool.books().delivered), (0, 2));
}
