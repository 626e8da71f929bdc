//! The ring held against a model, a killer and a vandal.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::ops::Range;
use std::path::Path;
use std::rc::Rc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, raise};
use proptest::prelude::*;

use super::super::atomic::listen;
use super::*;
use crate::sys::fork::{Exit, fork};
use crate::sys::region::Region;

/// The stores that `work` makes in shared words, in their order.
fn stores_of(work: impl FnOnce()) -> Vec<(usize, u64)> {
    let stores = Rc::new(RefCell::new(Vec::new()));
    let heard = Rc::clone(&stores);
    listen(Some(Box::new(move |index, value| heard.borrow_mut().push((index, value)))));
    work();
    listen(None);
    stores.take()
}

const IDENTITY: Identity = Identity { instance: 0xfeed, ring: 5, slot: 2 };

fn ring(capacity: usize) -> Vec<AtomicU64> {
    let words: Vec<AtomicU64> = (0..region_size(capacity) / 8).map(|_| AtomicU64::new(0)).collect();
    format(&words, IDENTITY);
    words
}

fn copy(words: &[AtomicU64]) -> Vec<AtomicU64> {
    words.iter().map(|word| AtomicU64::new(word.load(Relaxed))).collect()
}

/// A payload that says which record it is, of at least 8 bytes.
fn payload(seq: u64, size: usize) -> Vec<u8> {
    let mut bytes = seq.to_le_bytes().to_vec();
    bytes.extend((8..size).map(|index| (seq as usize * 31 + index) as u8));
    bytes
}

fn push(writer: &mut Writer<'_>, size: usize) -> Result<u64, Refused> {
    let id = writer.claim();
    writer.commit(&payload(id.seq, size)).map(|()| id.seq)
}

/// Reads to the end; checks that each payload is the one its number says.
fn read_all(reader: &mut Reader<&[AtomicU64]>) -> (Vec<u64>, usize) {
    let (mut seqs, mut damage_count) = (Vec::new(), 0);
    loop {
        let mut out = Vec::new();
        match reader.next(&mut out, EXPOSURE_SIZE_MAX).unwrap() {
            Step::Empty => return (seqs, damage_count),
            Step::Record { seq, size } => {
                assert_eq!(out.len(), size);
                assert_eq!(out, payload(seq, size));
                seqs.push(seq);
            }
            Step::Damaged { .. } => damage_count += 1,
            Step::NoRoom => panic!("there was room for any record"),
        }
    }
}

fn account(words: &[AtomicU64]) -> Account {
    let account = Account::read(words).unwrap();
    assert!(account.settled, "nobody moves it");
    assert_eq!(account.attempted, account.committed + account.lost, "{account:?}");
    assert_eq!(account.lost, account.refused_full + account.refused_oversize + account.torn, "{account:?}");
    assert_eq!(account.committed, account.consumed + account.corrupt + account.in_ring, "{account:?}");
    account
}

thread_local! {
    /// The words that a writer of this thread said it would write.
    static FORESEEN: RefCell<Range<*const AtomicU64>> = const { RefCell::new(std::ptr::null()..std::ptr::null()) };
}

#[test]
fn a_record_of_the_last_ones_size_is_written_where_it_was_foreseen() {
    let words = ring(4096);
    let mut reader = Reader::attach(&words[..]).unwrap();
    let mut writer = Writer::attach(&words).unwrap().hinting(|words| FORESEEN.set(words.as_ptr_range()));
    writer.foresee();
    assert!(FORESEEN.with_borrow(Range::is_empty), "of what size is not known yet");
    for lap in 0..40 {
        push(&mut writer, 200).unwrap();
        writer.foresee();
        let foreseen = FORESEEN.take();
        let stores = stores_of(|| assert!(push(&mut writer, 200).is_ok()));
        let record = stores.iter().filter(|(index, _)| *index >= HEADER_WORDS);
        let in_place = record.filter(|(index, _)| foreseen.contains(&(&raw const words[*index]))).count();
        // Its two words of head, and those of the payload; none at the end of a lap, where it does not fit.
        assert!(in_place == 27 || foreseen.end == words.as_ptr_range().end, "lap {lap}: {in_place} words");
        read_all(&mut reader);
        reader.confirm(reader.position());
    }
}

#[test]
fn what_is_pushed_is_read_in_order_with_its_numbers() {
    let words = ring(4096);
    let mut writer = Writer::attach(&words).unwrap();
    let seqs: Vec<u64> = (8..40).map(|size| push(&mut writer, size).unwrap()).collect();
    let mut reader = Reader::attach(words.as_slice()).unwrap();
    assert_eq!(read_all(&mut reader), (seqs, 0));
    assert_eq!(reader.identity(), IDENTITY);
    assert_eq!(account(&words).in_ring, 32);
    reader.confirm(reader.position());
    let account = account(&words);
    assert_eq!((account.consumed, account.in_ring, account.lost), (32, 0, 0));
}

#[test]
fn a_full_ring_refuses_and_the_gap_is_the_record_of_the_loss() {
    let words = ring(1024);
    let mut writer = Writer::attach(&words).unwrap();
    let mut reader = Reader::attach(words.as_slice()).unwrap();
    for _ in 0..4 {
        push(&mut writer, 240).unwrap();
    }
    assert_eq!(push(&mut writer, 8), Err(Refused::Full).map(|(): ()| 0));
    assert_eq!(read_all(&mut reader).0, [0, 1, 2, 3]);
    assert_eq!(push(&mut writer, 8).unwrap_err(), Refused::Full, "read, but not yet safe");
    reader.confirm(reader.position());
    assert_eq!(push(&mut writer, 8), Ok(6));
    assert_eq!(read_all(&mut reader).0, [6]);
    let account = account(&words);
    assert_eq!((account.refused_full, account.lost, account.torn), (2, 2, 0));
}

#[test]
fn what_no_ring_takes_is_refused_as_oversize() {
    let words = ring(1024);
    let mut writer = Writer::attach(&words).unwrap();
    assert_eq!(push(&mut writer, 497).unwrap_err(), Refused::Oversize);
    assert!(push(&mut writer, 496).is_ok());
    let words = ring(4 * EXPOSURE_SIZE_MAX);
    let mut writer = Writer::attach(&words).unwrap();
    assert_eq!(push(&mut writer, EXPOSURE_SIZE_MAX + 1).unwrap_err(), Refused::Oversize);
    assert!(push(&mut writer, EXPOSURE_SIZE_MAX).is_ok());
    assert_eq!(account(&words).refused_oversize, 1);
}

#[test]
fn a_record_that_does_not_fit_the_room_given_is_kept() {
    let words = ring(4096);
    let mut writer = Writer::attach(&words).unwrap();
    push(&mut writer, 100).unwrap();
    let mut reader = Reader::attach(words.as_slice()).unwrap();
    let mut out = b"others".to_vec();
    assert_eq!(reader.next(&mut out, 99), Ok(Step::NoRoom));
    assert_eq!(out, b"others");
    assert_eq!(reader.next(&mut out, 100), Ok(Step::Record { seq: 0, size: 100 }));
    assert_eq!(out.len(), 106);
}

#[test]
fn a_rejected_record_counts_as_corrupt() {
    let words = ring(4096);
    let mut writer = Writer::attach(&words).unwrap();
    push(&mut writer, 100).unwrap();
    let mut reader = Reader::attach(words.as_slice()).unwrap();
    let mut out = b"others".to_vec();
    reader.next(&mut out, 1000).unwrap();
    reader.reject(&mut out);
    assert_eq!(out, b"others");
    reader.confirm(reader.position());
    let account = account(&words);
    assert_eq!((account.consumed, account.corrupt, reader.corrupt()), (0, 1, 1));
}

/// What may happen to a ring.
#[derive(Debug, Clone)]
enum Event {
    Push(usize),
    /// The worker is killed between claim and commit.
    Tear,
    Read(usize),
    Confirm,
    NewWriter,
    NewReader,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        8 => (8usize..300).prop_map(Event::Push),
        1 => (500usize..600).prop_map(Event::Push),
        1 => Just(Event::Tear),
        4 => (1usize..6).prop_map(Event::Read),
        3 => Just(Event::Confirm),
        1 => Just(Event::NewWriter),
        1 => Just(Event::NewReader),
    ]
}

/// The ring as one would write it down: a queue with a capacity.
#[derive(Default)]
struct Model {
    head: u64,
    tail: u64,
    next_seq: u64,
    /// Number, size and end of each record not yet confirmed.
    queue: VecDeque<(u64, usize, u64)>,
    read: usize,
    consumed: u64,
    torn: u64,
    full: u64,
    oversize: u64,
}

impl Model {
    fn push(&mut self, capacity: u64, size: usize) -> Result<u64, Refused> {
        let seq = self.next_seq;
        self.next_seq += 1;
        let record = 16 + size.div_ceil(8) as u64 * 8;
        if record > capacity / 2 {
            self.oversize += 1;
            return Err(Refused::Oversize);
        }
        let begin = if self.tail % capacity + record > capacity {
            self.tail.next_multiple_of(capacity)
        } else {
            self.tail
        };
        if begin + record - self.head > capacity {
            self.full += 1;
            return Err(Refused::Full);
        }
        self.tail = begin + record;
        self.queue.push_back((seq, size, self.tail));
        Ok(seq)
    }

    fn confirm(&mut self) {
        for (_, _, end) in self.queue.drain(..self.read) {
            self.head = end;
        }
        self.consumed += self.read as u64;
        self.read = 0;
    }
}

proptest! {
    #[test]
    fn the_ring_is_a_bounded_queue_whatever_happens_in_whatever_order(
        events in proptest::collection::vec(event(), 1..400),
    ) {
        const CAPACITY: u64 = 1024;
        let words = ring(CAPACITY as usize);
        let mut model = Model::default();
        let mut writer = Writer::attach(&words).unwrap();
        let mut reader = Reader::attach(words.as_slice()).unwrap();
        for event in events {
            match event {
                Event::Push(size) => {
                    prop_assert_eq!(push(&mut writer, size), model.push(CAPACITY, size));
                }
                Event::Tear => {
                    let _ = writer.claim();
                    writer = Writer::attach(&words).unwrap();
                    model.next_seq += 1;
                    model.torn += 1;
                }
                Event::Read(count) => for _ in 0..count {
                    let mut out = Vec::new();
                    let step = reader.next(&mut out, 1000).unwrap();
                    match model.queue.get(model.read) {
                        None => prop_assert_eq!(step, Step::Empty),
                        Some(&(seq, size, _)) => {
                            prop_assert_eq!(step, Step::Record { seq, size });
                            prop_assert_eq!(out, payload(seq, size));
                            model.read += 1;
                        }
                    }
                },
                Event::Confirm => {
                    reader.confirm(reader.position());
                    model.confirm();
                }
                Event::NewWriter => writer = Writer::attach(&words).unwrap(),
                Event::NewReader => {
                    reader = Reader::attach(words.as_slice()).unwrap();
                    model.read = 0;
                }
            }
            let found = account(&words);
            prop_assert_eq!(
                (found.attempted, found.consumed, found.in_ring, found.torn),
                (model.next_seq, model.consumed, model.queue.len() as u64, model.torn)
            );
            prop_assert_eq!((found.refused_full, found.refused_oversize), (model.full, model.oversize));
        }
    }

    #[test]
    fn any_bytes_in_a_ring_are_survived(data in proptest::collection::vec(any::<u8>(), 0..3000)) {
        crate::exposure::fuzz::fuzz_ring(&data);
    }
}

#[test]
fn two_threads_agree_on_every_record_and_every_refusal() {
    const COUNT: u64 = 300_000;
    let words = ring(16 * 1024);
    let writing = AtomicBool::new(true);
    let (mut seen, mut last) = (0u64, None);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut writer = Writer::attach(&words).unwrap();
            for number in 0..COUNT {
                let _ = push(&mut writer, 8 + (number * 37 % 700) as usize);
                if number % 1000 == 0 {
                    std::thread::yield_now();
                }
            }
            writing.store(false, Release);
        });
        let mut reader = Reader::attach(words.as_slice()).unwrap();
        loop {
            let done = !writing.load(Acquire);
            let (seqs, damage_count) = read_all(&mut reader);
            assert_eq!(damage_count, 0);
            assert!(seqs.iter().all(|seq| {
                let follows = last.is_none_or(|last| *seq > last);
                last = Some(*seq);
                follows
            }));
            seen += seqs.len() as u64;
            reader.confirm(reader.position());
            // Anybody may read the books meanwhile.
            let account = Account::read(&words).unwrap();
            assert!(account.committed <= account.attempted && account.consumed == seen);
            if done {
                break;
            }
        }
    });
    let account = account(&words);
    assert_eq!((account.attempted, account.consumed, account.torn), (COUNT, seen, 0));
    assert!(seen > 0);
}

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

#[test]
fn logger_killed_between_write_and_confirmation_sends_the_same_ids_again() {
    let words = ring(4096);
    let mut writer = Writer::attach(&words).unwrap();
    for _ in 0..10 {
        push(&mut writer, 50).unwrap();
    }
    let mut killed = Reader::attach(words.as_slice()).unwrap();
    let mut out = Vec::new();
    for _ in 0..4 {
        killed.next(&mut out, 4096).unwrap();
    }
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
    let mut writer = Writer::attach(&words).unwrap();
    for _ in 0..10 {
        push(&mut writer, 50).unwrap();
    }
    let mut killed = Reader::attach(words.as_slice()).unwrap();
    let mut out = Vec::new();
    for _ in 0..4 {
        killed.next(&mut out, 4096).unwrap();
    }
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

#[test]
fn any_damaged_word_costs_at_most_its_own_record() {
    const CAPACITY: usize = 1024;
    let words = ring(CAPACITY);
    let mut writer = Writer::attach(&words).unwrap();
    let mut reader = Reader::attach(words.as_slice()).unwrap();
    for _ in 0..7 {
        push(&mut writer, 100).unwrap();
    }
    read_all(&mut reader);
    reader.confirm(reader.position());
    // Over the area's end, with a pad, and with gaps of refused numbers in between.
    let mut pushed = Vec::new();
    for size in [60, 61, 200, 9, 9, 130, 25] {
        pushed.push(push(&mut writer, size).unwrap());
        let _ = push(&mut writer, 600).unwrap_err();
    }
    let books = account(&words);
    for index in HEADER_WORDS..words.len() {
        for damage in [1, 0xff, 1 << 31, 1 << 32, 0x20, u64::MAX, 8 << 3, 0x5a5a_5a5a_5a5a_5a5a] {
            let words = copy(&words);
            words[index].store(words[index].load(Relaxed) ^ damage, Relaxed);
            let mut reader = Reader::attach(words.as_slice()).unwrap();
            let mut seqs = Vec::new();
            let mut damage_count = 0;
            let mut out = Vec::new();
            loop {
                match reader.next(&mut out, 4096).unwrap() {
                    Step::Record { seq, .. } => seqs.push(seq),
                    Step::Damaged { .. } => damage_count += 1,
                    Step::Empty => break,
                    Step::NoRoom => unreachable!("there was room"),
                }
            }
            assert!(damage_count <= 1, "word {index}: one place");
            assert!(seqs.len() + 1 >= pushed.len(), "word {index} ^ {damage:#x}: {seqs:?}");
            assert!(seqs.iter().all(|seq| pushed.contains(seq)));
            reader.confirm(reader.position());
            let found = Account::read(&words).unwrap();
            assert_eq!(found.consumed, books.consumed + seqs.len() as u64);
            assert_eq!(found.attempted, found.committed + found.lost);
            let lost = (pushed.len() - seqs.len()) as u64;
            // Where the framing was lost, the refusals on either side may count along.
            let corrupt_max = if damage_count == 0 { 0 } else { 3 };
            assert!((lost..=corrupt_max).contains(&found.corrupt), "word {index}: {found:?}");
            // The next push goes through, and settles what the damage was.
            let mut writer = Writer::attach(&words).unwrap();
            assert!(push(&mut writer, 8).is_ok());
            assert_eq!(read_all(&mut reader).0.len(), 1);
        }
    }
}

#[test]
fn damage_with_sound_framing_is_counted_to_the_number() {
    let words = ring(4096);
    let mut writer = Writer::attach(&words).unwrap();
    for _ in 0..3 {
        push(&mut writer, 40).unwrap();
        let _ = push(&mut writer, 3000).unwrap_err();
    }
    // The middle one's payload.
    words[HEADER_WORDS + 7 + 4].fetch_xor(1, Relaxed);
    let mut reader = Reader::attach(words.as_slice()).unwrap();
    assert_eq!(read_all(&mut reader), (vec![0, 4], 1));
    reader.confirm(reader.position());
    let account = account(&words);
    assert_eq!((account.consumed, account.corrupt, account.lost, account.torn), (2, 1, 3, 0));
    assert_eq!(reader.corrupt(), 1);
}

#[test]
fn a_payload_that_quotes_a_record_is_not_taken_for_one() {
    let words = ring(4096);
    let mut writer = Writer::attach(&words).unwrap();
    push(&mut writer, 40).unwrap();
    // The first record's very words, in the payload of the second.
    let quoted: Vec<u8> = words[HEADER_WORDS..HEADER_WORDS + 7]
        .iter()
        .flat_map(|word| word.load(Relaxed).to_le_bytes())
        .collect();
    let _ = writer.claim();
    writer.commit(&quoted).unwrap();
    push(&mut writer, 40).unwrap();
    // The second's length is damaged, so the reader looks for the next record.
    words[HEADER_WORDS + 7].fetch_xor(u64::from(u32::MAX >> 1), Relaxed);
    let mut reader = Reader::attach(words.as_slice()).unwrap();
    assert_eq!(read_all(&mut reader), (vec![0, 2], 1));
}

#[test]
fn a_foreign_short_or_blank_region_is_refused_by_both_ends() {
    let refuse = |words: &[AtomicU64]| {
        let fault = Writer::attach(words).unwrap_err();
        assert_eq!(Reader::attach(words).unwrap_err(), fault);
        assert_eq!(Account::read(words).unwrap_err(), fault);
        fault
    };
    assert_eq!(refuse(&[]), RingFault::Short { words: 0 });
    let words = ring(64);
    words[AT_MAGIC].store(0, Relaxed);
    assert_eq!(refuse(&words), RingFault::Blank);
    words[AT_MAGIC].store(MAGIC, Relaxed);
    words[AT_LAYOUT].store(2, Relaxed);
    assert!(matches!(refuse(&words), RingFault::Foreign { layout: 2, .. }));
    words[AT_LAYOUT].store(LAYOUT, Relaxed);
    for capacity in [0, 63, 96, 128, 1 << 40, u64::MAX] {
        words[AT_CAPACITY].store(capacity, Relaxed);
        assert!(matches!(refuse(&words), RingFault::Capacity { .. }));
    }
}

#[test]
fn a_ring_of_another_layout_is_said_and_no_word_of_it_is_written() {
    let identity = Identity { instance: 1, ring: 0, slot: 0 };
    let (words, _) = used_ring();
    words[AT_MAGIC].store(magic_of(2), Relaxed);
    words[AT_LAYOUT].store(2, Relaxed);
    let before: Vec<u64> = words.iter().map(|word| word.load(Relaxed)).collect();
    let fault = RingFault::Layout { layout: 2 };
    for side in [Side::Writer, Side::Reader, Side::Both] {
        assert_eq!(mend(&words, identity, side), Err(fault));
    }
    assert_eq!(Writer::check(&words), Err(fault));
    assert_eq!(Reader::attach(words.as_slice()).unwrap_err(), fault);
    assert!(words.iter().zip(before).all(|(word, before)| word.load(Relaxed) == before));
    // Said once and not twice, it is damage, and mended.
    words[AT_MAGIC].store(MAGIC, Relaxed);
    assert_eq!(mend(&words, identity, Side::Reader), Ok(()));
    assert!(Reader::attach(words.as_slice()).is_ok());
}

#[test]
fn a_damaged_head_never_makes_the_writer_overwrite() {
    let words = ring(1024);
    let mut writer = Writer::attach(&words).unwrap();
    while push(&mut writer, 100).is_ok() {}
    let books = account(&words);
    for state in [u64::MAX, 1 << 40, 3, 1025, books.in_ring_size + 8] {
        words[AT_STATE].store(state, Relaxed);
        assert_eq!(push(&mut writer, 100).unwrap_err(), Refused::Full);
    }
    words[AT_STATE].store(0, Relaxed);
    let mut reader = Reader::attach(words.as_slice()).unwrap();
    assert_eq!(read_all(&mut reader).0.len() as u64, books.in_ring);
}

#[test]
fn a_damaged_state_or_tail_is_said_and_not_followed() {
    let words = ring(1024);
    push(&mut Writer::attach(&words).unwrap(), 100).unwrap();
    for word in AT_SLOTS[0]..AT_SLOTS[0] + 6 {
        let words = copy(&words);
        words[word].fetch_xor(8, Relaxed);
        assert!(matches!(Reader::attach(words.as_slice()), Err(RingFault::State { .. })));
    }
    let mut reader = Reader::attach(words.as_slice()).unwrap();
    let mut out = Vec::new();
    let tail = words[AT_TAIL].load(Relaxed);
    for damaged in [u64::MAX, tail + 1, 1 << 20, 2048] {
        words[AT_TAIL].store(damaged, Relaxed);
        assert!(matches!(reader.next(&mut out, 1000), Err(RingFault::Tail { .. })));
    }
    words[AT_TAIL].store(tail, Relaxed);
    assert!(matches!(reader.next(&mut out, 1000), Ok(Step::Record { .. })));
}

/// A ring with a few records confirmed and a few not, over a lap's end.
fn used_ring() -> (Vec<AtomicU64>, Vec<u64>) {
    let words = ring(1024);
    let mut writer = Writer::attach(&words).unwrap();
    let mut reader = Reader::attach(words.as_slice()).unwrap();
    for _ in 0..3 {
        push(&mut writer, 200).unwrap();
        let _ = push(&mut writer, 600).unwrap_err();
        read_all(&mut reader);
        reader.confirm(reader.position());
    }
    let waiting = (0..3).map(|_| push(&mut writer, 200).unwrap()).collect();
    (words, waiting)
}

#[test]
fn a_damaged_header_is_mended_and_no_record_is_lost_nor_a_number_used_twice() {
    let (before, waiting) = used_ring();
    let books = account(&before);
    let header = [AT_MAGIC, AT_LAYOUT, AT_CAPACITY, AT_INSTANCE, AT_PLACE, AT_TAIL, AT_NEXT_SEQ, AT_STATE];
    let slots = AT_SLOTS.into_iter().flat_map(|at| at..at + 6);
    let mut mended_count = 0;
    for index in header.into_iter().chain(slots) {
        for damaged in [0, 1, 7, 1 << 20, 1 << 40, u64::MAX, u64::MAX - 7] {
            let words = copy(&before);
            words[index].store(damaged, Relaxed);
            let is_sound = Writer::check(&words) == Ok(IDENTITY) && Reader::attach(words.as_slice()).is_ok();
            if is_sound {
                continue;
            }
            mended_count += 1;
            assert_eq!(mend(&words, IDENTITY, Side::Both), Ok(()), "word {index} = {damaged:#x}");
            let mut writer = Writer::attach(&words).unwrap();
            assert_eq!(writer.identity(), IDENTITY);
            let new = push(&mut writer, 8);
            let mut reader = Reader::attach(words.as_slice()).unwrap();
            let (seqs, damage_count) = read_all(&mut reader);
            assert_eq!(damage_count, 0);
            // What was confirmed last may come again, with the same number.
            let new: Vec<u64> = new.into_iter().collect();
            assert!(
                seqs.ends_with(&[waiting.as_slice(), &new].concat()),
                "word {index} = {damaged:#x}: {seqs:?}"
            );
            assert!(new.iter().all(|new| !waiting.contains(new)));
            reader.confirm(reader.position());
            let found = account(&words);
            assert!(found.consumed >= books.consumed + waiting.len() as u64);
        }
    }
    assert!(mended_count > 50, "{mended_count}");
}

#[test]
fn a_reader_without_any_state_begins_a_lap_before_the_tail() {
    let (words, waiting) = used_ring();
    for at in AT_SLOTS {
        words[at + 5].fetch_xor(1, Relaxed);
    }
    mend(&words, IDENTITY, Side::Reader).unwrap();
    let (seqs, _) = read_all(&mut Reader::attach(words.as_slice()).unwrap());
    assert!(seqs.ends_with(&waiting), "{seqs:?}");
    assert_eq!(account(&words).torn, 0, "what came before counts as consumed");
}

#[test]
fn each_side_mends_its_own_words_alone() {
    let (words, _) = used_ring();
    words[AT_TAIL].store(u64::MAX, Relaxed);
    words[AT_MAGIC].store(0, Relaxed);
    words[AT_STATE].fetch_xor(1 << 20, Relaxed);
    let part = |words: &[AtomicU64], from: usize, to: usize| {
        words[from..to].iter().map(|word| word.load(Relaxed)).collect::<Vec<_>>()
    };
    let (writers, readers) = (part(&words, 16, 32), part(&words, 32, 64));
    assert!(matches!(mend(&words, IDENTITY, Side::Writer), Err(RingFault::State { .. })));
    assert_eq!(part(&words, 32, 64), readers);
    assert_eq!(mend(&words, IDENTITY, Side::Reader), Ok(()));
    assert_eq!(part(&words, 16, 32), writers);
    assert_eq!(mend(&words, IDENTITY, Side::Writer), Ok(()));
    assert_eq!(Writer::check(&words), Ok(IDENTITY));
}

#[test]
fn a_reader_that_is_there_puts_its_state_back() {
    let (words, waiting) = used_ring();
    let mut reader = Reader::attach(words.as_slice()).unwrap();
    assert!(!reader.beat());
    words[AT_STATE].store(u64::MAX - 7, Relaxed);
    assert!(Writer::check(&words).is_err());
    assert!(reader.beat());
    assert_eq!(Writer::check(&words), Ok(IDENTITY));
    assert_eq!(read_all(&mut reader).0, waiting);
}

#[test]
fn rings_and_files_survive_two_seconds_of_seeded_vandalism() {
    let seed = 0x5eed_0000_2026_1122_u64;
    println!("seed {seed:#x}");
    let mut state = seed;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let begin = Instant::now();
    let mut data = Vec::new();
    while begin.elapsed() < Duration::from_secs(2) {
        let size = random() % 700;
        data.clear();
        data.extend((0..size).map(|_| (random() >> 32) as u8));
        crate::exposure::fuzz::fuzz_ring(&data);
        crate::exposure::fuzz::fuzz_stream(&data);
    }
}
