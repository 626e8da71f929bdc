//! Damaged words, foreign words, and a vandal.

use super::*;

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
fn rings_and_files_survive_seeded_vandalism() {
    let seed = 0x5eed_0000_2026_1122_u64;
    println!("seed {seed:#x}");
    let mut state = seed;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut data = Vec::new();
    for _ in 0..50_000 {
        let size = random() % 700;
        data.clear();
        data.extend((0..size).map(|_| (random() >> 32) as u8));
        crate::exposure::fuzz::fuzz_ring(&data);
        crate::exposure::fuzz::fuzz_stream(&data);
    }
}
