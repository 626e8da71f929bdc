//! Workers and loggers killed at any point.

use std::path::Path;

use nix::sys::signal::{Signal, raise};

use super::*;
use crate::sys::fork::{Exit, fork};
use crate::sys::region::Region;

/// Rings in many states: at every word of a lap, so that pads come in too.
fn states(capacity: usize) -> impl Iterator<Item = Vec<AtomicU64>> {
    (0..capacity / 8).map(move |steps| {
        let words = ring(capacity);
        let mut writer = Writer::attach(&words).unwrap();
        let mut reader = Reader::attach(words.as_slice()).unwrap();
        for step in 0..steps {
            push(&mut writer, 8 + step % 16).unwrap();
            if step % 5 != 4 || step + 3 < steps {
                read_all(&mut reader);
                reader.confirm(reader.position());
            }
        }
        words
    })
}

#[test]
fn worker_killed_after_any_store_of_a_push_leaves_the_ring_to_its_successor() {
    for before in states(512) {
        let books = account(&before);
        let after = copy(&before);
        let stores = stores_of(|| {
            let mut writer = Writer::attach(&after).unwrap();
            push(&mut writer, 45).unwrap();
        });
        let next_seq = books.attempted;
        for killed_after in 0..=stores.len() {
            let words = copy(&before);
            for (index, value) in &stores[..killed_after] {
                words[*index].store(*value, Relaxed);
            }
            let committed = killed_after == stores.len();
            let claimed = words[AT_NEXT_SEQ].load(Relaxed) > next_seq;
            let found = account(&words);
            assert_eq!(found.in_ring, books.in_ring + u64::from(committed));
            assert_eq!(found.torn, u64::from(claimed && !committed));
            // The successor goes on with the next number, and costs nobody anything.
            let mut reader = Reader::attach(words.as_slice()).unwrap();
            let mut successor = Writer::attach(&words).unwrap();
            let seq = push(&mut successor, 90).unwrap();
            assert_eq!(seq, next_seq + u64::from(claimed));
            let (seqs, damage_count) = read_all(&mut reader);
            assert_eq!(damage_count, 0);
            assert_eq!(seqs.len() as u64, books.in_ring + u64::from(committed) + 1);
            assert_eq!(seqs.contains(&next_seq), committed || !claimed);
            reader.confirm(reader.position());
            assert_eq!(account(&words).torn, u64::from(claimed && !committed));
        }
    }
}

/// In a process of its own: takes the ring's lock, attaches, and pushes; killed
/// after so many of its stores, if it makes more.
fn push_and_die(path: &Path, stores: usize, size: usize) -> Exit {
    let child = fork(|| {
        let region = Region::open_locked(path).unwrap();
        let mut left = stores;
        listen(Some(Box::new(move |_, _| {
            left = left.saturating_sub(1);
            if left == 0 {
                // Nothing runs after it, not even an exit handler.
                let _ = raise(Signal::SIGKILL);
            }
        })));
        let mut writer = Writer::attach(region.words()).unwrap();
        i32::from(push(&mut writer, size).is_err())
    });
    child.unwrap().wait().unwrap()
}

#[test]
fn worker_process_killed_after_any_store_of_a_push_costs_at_most_that_push() {
    const CAPACITY: usize = 4096;
    const SIZE: usize = 1250;
    let directory = tempfile::tempdir().unwrap();
    let (before, path) = (directory.path().join("before"), directory.path().join("ring"));
    // In the middle of a lap; and at its end, so that the push begins with a pad.
    for confirmed in [1, 2] {
        let _ = std::fs::remove_file(&before);
        let region = Region::create_file(&before, region_size(CAPACITY)).unwrap();
        format(region.words(), IDENTITY);
        let mut writer = Writer::attach(region.words()).unwrap();
        let mut reader = Reader::attach(region.words()).unwrap();
        for _ in 0..confirmed {
            push(&mut writer, SIZE).unwrap();
        }
        read_all(&mut reader);
        reader.confirm(reader.position());
        let waiting = push(&mut writer, 100).unwrap();
        let next_seq = account(region.words()).attempted;
        for stores in 1.. {
            std::fs::copy(&before, &path).unwrap();
            let exit = push_and_die(&path, stores, SIZE);
            // The kernel has let go of the dead one's lock.
            let region = Region::open_locked(&path).unwrap();
            let words = region.words();
            let found = account(words);
            let claimed = found.attempted > next_seq;
            let committed = found.in_ring == 2;
            assert_eq!(found.torn, u64::from(claimed && !committed), "{stores} stores: {found:?}");
            let mut successor = Writer::attach(words).unwrap();
            let seq = push(&mut successor, 90).unwrap();
            assert_eq!(seq, next_seq + u64::from(claimed));
            let mut reader = Reader::attach(words).unwrap();
            let killed = committed.then_some(next_seq);
            let expected: Vec<u64> = [Some(waiting), killed, Some(seq)].into_iter().flatten().collect();
            assert_eq!(read_all(&mut reader), (expected, 0), "{stores} stores");
            reader.confirm(reader.position());
            let found = account(words);
            assert_eq!((found.in_ring, found.torn), (0, u64::from(claimed && !committed)));
            if exit != Exit::Signal(Signal::SIGKILL) {
                assert_eq!((exit, committed), (Exit::Code(0), true));
                assert!(stores > SIZE / 8, "every word of the record was a store");
                break;
            }
        }
    }
}

#[test]
fn worker_killed_with_its_stores_in_any_order_before_the_commit_costs_no_other() {
    // The hardware may show plain stores out of order; the commit comes last.
    let before = ring(512);
    push(&mut Writer::attach(&before).unwrap(), 30).unwrap();
    let after = copy(&before);
    let stores = stores_of(|| {
        let mut writer = Writer::attach(&after).unwrap();
        push(&mut writer, 45).unwrap();
    });
    let (commit, others) = stores.split_last().unwrap();
    assert_eq!(commit.0, AT_TAIL);
    for subset in 0u32..1 << others.len().min(12) {
        let words = copy(&before);
        for (bit, (index, value)) in others.iter().enumerate() {
            if subset & (1 << bit) != 0 {
                words[*index].store(*value, Relaxed);
            }
        }
        let mut successor = Writer::attach(&words).unwrap();
        let seq = push(&mut successor, 20).unwrap();
        let mut reader = Reader::attach(words.as_slice()).unwrap();
        assert_eq!(read_all(&mut reader), (vec![0, seq], 0));
        account(&words);
    }
}

#[test]
fn logger_killed_after_any_store_of_a_confirmation_leaves_a_consistent_state() {
    for before in states(512) {
        let mut writer = Writer::attach(&before).unwrap();
        let _ = push(&mut writer, 20);
        let _ = push(&mut writer, 30);
        let books = account(&before);
        let after = copy(&before);
        let mut reader = Reader::attach(after.as_slice()).unwrap();
        let (all, _) = read_all(&mut reader);
        let stores = stores_of(|| reader.confirm(reader.position()));
        for killed_after in 0..=stores.len() {
            let words = copy(&before);
            for (index, value) in &stores[..killed_after] {
                words[*index].store(*value, Relaxed);
            }
            let confirmed = killed_after == stores.len();
            let found = account(&words);
            assert_eq!(found.committed, books.committed);
            assert_eq!(found.consumed, books.consumed + if confirmed { all.len() as u64 } else { 0 });
            let mut successor = Reader::attach(words.as_slice()).unwrap();
            let (again, damage_count) = read_all(&mut successor);
            assert_eq!(damage_count, 0);
            assert_eq!(again, if confirmed { Vec::new() } else { all.clone() });
            successor.confirm(successor.position());
            assert_eq!(account(&words).in_ring, 0);
            // And the worker goes on, whoever died.
            assert!(push(&mut Writer::attach(&words).unwrap(), 100).is_ok());
        }
    }
}

/// Of ten records that are pushed.
fn read_to_the_fourth(words: &[AtomicU64]) -> Reader<&[AtomicU64]> {
    let mut writer = Writer::attach(words).unwrap();
    for _ in 0..10 {
        push(&mut writer, 50).unwrap();
    }
    let mut reader = Reader::attach(words).unwrap();
    let mut out = Vec::new();
    for _ in 0..4 {
        reader.next(&mut out, 4096).unwrap();
    }
    reader
}

#[test]
fn logger_killed_between_write_and_confirmation_sends_the_same_ids_again() {
    let words = ring(4096);
    let mut killed = read_to_the_fourth(&words);
    killed.confirm(killed.position());
    let (unconfirmed, _) = read_all(&mut killed);
    let mut successor = Reader::attach(words.as_slice()).unwrap();
    assert_eq!(read_all(&mut successor), (unconfirmed, 0));
    successor.confirm(successor.position());
    assert_eq!(account(&words).consumed, 10);
}

#[test]
fn a_successor_takes_the_ring_up_where_its_predecessor_had_made_it_safe() {
    let words = ring(4096);
    let mut killed = read_to_the_fourth(&words);
    let safe = Position::from_words(killed.position().to_words());
    let (rest, _) = read_all(&mut killed);
    let mut successor = Reader::attach(words.as_slice()).unwrap();
    successor.resume(safe).unwrap();
    assert_eq!(account(&words).consumed, 4);
    assert_eq!(read_all(&mut successor), (rest, 0));
    // An older position changes nothing; one beyond the tail is refused.
    successor.confirm(successor.position());
    successor.resume(safe).unwrap();
    assert_eq!(account(&words).consumed, 10);
    let mut words_of_it = successor.position().to_words();
    words_of_it[0] += 8;
    assert!(matches!(successor.resume(Position::from_words(words_of_it)), Err(RingFault::Tail { .. })));
}
