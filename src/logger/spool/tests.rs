//! The spool against a plain model, over a disk that fails, cuts writes short,
//! and loses its power or its process between any two calls; and by hand.

mod bad_disk;
mod model;

use super::cursor::Reason;
use super::disk::Directory;
use super::segment::*;
use super::*;
pub(in crate::logger) use bad_disk::{BadDisk, Trouble};
use model::{House, Move, chunk, ids, mark, options, play};

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
