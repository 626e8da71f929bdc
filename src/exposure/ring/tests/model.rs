//! The ring held against a model of it.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

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
    #![proptest_config(ProptestConfig::with_cases(2000))]
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
