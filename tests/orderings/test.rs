//! Every interleaving of a worker's pushes with the logger's reading, its
//! confirmation and somebody who reads the books, and every old value that the
//! memory model lets a load see. Each ordering that a run turns out to need is
//! left out once, and the model has to fail then.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use loom::sync::Arc;
use loom::sync::mpsc::channel;
use loom::thread::{self, JoinHandle};
use orderings::exposure::atomic::{AtomicU64, Weak};
use orderings::exposure::ring::{self, Account, Identity, Reader, Refused, Step, Writer};

/// The smallest ring: two records of 8 bytes, and a pad at the end of each lap.
const RING_SIZE: usize = 64;
/// Words that the source of the ring names.
const TAIL: usize = 16;
const STATE: usize = 32;

/// One model at a time: what is weakened is weak for all.
static ALONE: Mutex<()> = Mutex::new(());

/// A ring that threads share, as processes share the mapping.
#[derive(Clone)]
struct Words(Arc<Vec<AtomicU64>>);

impl AsRef<[AtomicU64]> for Words {
    fn as_ref(&self) -> &[AtomicU64] {
        &self.0
    }
}

fn ring() -> Words {
    let words: Vec<AtomicU64> = (0..ring::region_size(RING_SIZE) / 8).map(AtomicU64::at).collect();
    ring::format(&words, Identity { instance: 1, ring: 0, slot: 0 });
    Words(Arc::new(words))
}

/// Runs `model` through every interleaving; gives how many it ran.
fn explore(model: impl Fn() + Sync + Send + 'static) -> usize {
    let count = std::sync::Arc::new(AtomicUsize::new(0));
    let runs = std::sync::Arc::clone(&count);
    let mut builder = loom::model::Builder::new();
    builder.max_branches = 100_000;
    builder.check(move || {
        runs.fetch_add(1, SeqCst);
        model();
    });
    count.load(SeqCst)
}

/// It holds, and without any one of `needed` it does not.
fn holds_by(needed: &[Weak], model: impl Fn() + Sync + Send + Copy + 'static) {
    let _alone = ALONE.lock().unwrap_or_else(|broken| broken.into_inner());
    Weak::Nothing.set();
    let count = explore(model);
    println!("{count} runs");
    assert!(count > 10, "{count} runs are not every interleaving");
    for weak in needed {
        weak.set();
        let explored = catch_unwind(AssertUnwindSafe(|| explore(model)));
        Weak::Nothing.set();
        assert!(explored.is_err(), "without {weak:?} the model holds all the same");
    }
}

fn push(writer: &mut Writer<'_>) -> Result<u64, Refused> {
    let id = writer.claim();
    writer.commit(&(id.seq + 100).to_le_bytes()).map(|()| id.seq)
}

/// Starts a worker that pushes so many, once it has attached. Attaching loads
/// words that a push stores, and the model tells which accesses of two threads
/// are in a race by the last of each kind alone.
fn worker(words: &Words, count: usize) -> JoinHandle<Vec<Result<u64, Refused>>> {
    let (words, (attached, is_attached)) = (words.clone(), channel());
    let worker = thread::spawn(move || {
        let mut writer = Writer::attach(&words.0).unwrap();
        attached.send(()).unwrap();
        (0..count).map(|_| push(&mut writer)).collect()
    });
    is_attached.recv().unwrap();
    worker
}

/// Starts a logger that reads and confirms so often, once it has attached.
fn logger(words: &Words, count: usize) -> JoinHandle<Vec<u64>> {
    let (words, (attached, is_attached)) = (words.clone(), channel());
    let logger = thread::spawn(move || {
        let mut reader = Reader::attach(words).unwrap();
        attached.send(()).unwrap();
        let mut seqs = Vec::new();
        for _ in 0..count {
            seqs.extend(read(&mut reader));
            reader.confirm(reader.position());
        }
        seqs
    });
    is_attached.recv().unwrap();
    logger
}

/// What is there now, each as it was pushed.
fn read(reader: &mut Reader<Words>) -> Vec<u64> {
    let mut seqs = Vec::new();
    loop {
        let mut out = Vec::new();
        match reader.next(&mut out, 64).expect("the tail is sound") {
            Step::Empty => return seqs,
            Step::Record { seq, .. } => {
                assert_eq!(out, (seq + 100).to_le_bytes());
                seqs.push(seq);
            }
            Step::Damaged { .. } | Step::NoRoom => panic!("a committed record is whole"),
        }
    }
}

#[test]
fn what_the_reader_sees_of_the_tail_it_sees_of_the_records() {
    holds_by(&[Weak::Store(TAIL), Weak::Load(TAIL)], || {
        let words = ring();
        let mut reader = Reader::attach(words.clone()).unwrap();
        let worker = worker(&words, 2);
        let mut seqs = read(&mut reader);
        assert_eq!(worker.join().unwrap(), [Ok(0), Ok(1)]);
        seqs.extend(read(&mut reader));
        assert_eq!(seqs, [0, 1]);
    });
}

#[test]
fn a_lap_later_nothing_unread_was_written_over() {
    holds_by(&[], || {
        let words = ring();
        let mut writer = Writer::attach(&words.0).unwrap();
        assert_eq!([push(&mut writer), push(&mut writer)], [Ok(0), Ok(1)]);
        let logger = logger(&words, 2);
        // Needs the room of the first two, and a pad before it.
        let third = push(&mut writer);
        let mut seqs = logger.join().unwrap();
        let mut reader = Reader::attach(words.clone()).unwrap();
        seqs.extend(read(&mut reader));
        reader.confirm(reader.position());
        let expected: &[u64] = if third.is_ok() { &[0, 1, 2] } else { &[0, 1] };
        assert_eq!(seqs, expected);
        let account = Account::read(&words.0).unwrap();
        assert_eq!((account.attempted, account.torn), (3, 0));
        assert_eq!((account.consumed, account.refused_full), (seqs.len() as u64, u64::from(third.is_err())));
    });
}

#[test]
fn head_and_counts_move_as_one_for_whoever_reads_the_books() {
    holds_by(&[Weak::Store(STATE), Weak::Load(STATE)], || {
        let words = ring();
        let mut writer = Writer::attach(&words.0).unwrap();
        let _ = (push(&mut writer), push(&mut writer));
        let logger = logger(&words, 1);
        let account = Account::read(&words.0).expect("a state that was in force for one confirmation");
        assert!([(0, 2), (2, 0)].contains(&(account.consumed, account.in_ring)), "{account:?}");
        logger.join().unwrap();
    });
}

#[test]
fn a_refusal_that_is_seen_is_among_the_attempts_that_are_seen() {
    holds_by(&[Weak::ReleaseFence, Weak::AcquireFence], || {
        let words = ring();
        let mut writer = Writer::attach(&words.0).unwrap();
        let _ = (push(&mut writer), push(&mut writer));
        let worker = worker(&words, 1);
        let account = Account::read(&words.0).unwrap();
        let known = account.committed + account.refused_full;
        assert!(account.attempted >= known, "{account:?}");
        assert_eq!(worker.join().unwrap(), [Err(Refused::Full)]);
    });
}
