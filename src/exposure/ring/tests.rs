//! The ring: what it promises on a good day here, and held against a model, a
//! killer and a vandal in files of their own.

mod damage;
mod kills;
mod model;

use std::cell::RefCell;
use std::ops::Range;
use std::rc::Rc;
use std::sync::atomic::AtomicBool;

use super::super::atomic::listen;
use super::*;

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
