//! Fuzz targets as plain functions: any bytes in, no panic and no endless loop.
//! Stable Rust runs them on seeded input in the tests; cargo-fuzz for longer.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use super::ring::{self, Account, Identity, Reader, Side, Step, Writer};
use super::stream::Messages;

/// Bytes of the record area of the ring that is damaged.
const RING_SIZE: usize = 4096;

/// A ring with some records, then damaged wherever and however `data` says (or
/// nothing but `data`), and then used by everybody who may have to.
///
/// # Panics
/// If damage made the ring panic, read outside, or go on for ever.
pub fn fuzz_ring(data: &[u8]) {
    let Some((&mode, data)) = data.split_first() else {
        return;
    };
    let words: Vec<AtomicU64> = (0..ring::region_size(RING_SIZE) / 8).map(|_| AtomicU64::new(0)).collect();
    let identity = Identity { instance: 7, ring: 3, slot: 1 };
    ring::format(&words, identity);
    let data = if mode & 1 == 0 { prepare(&words, data) } else { data };
    if mode & 2 == 0 {
        // Word by word, where it hurts: three bytes for the place, one for how.
        for damage in data.as_chunks::<12>().0 {
            let place = u32::from_le_bytes([damage[0], damage[1], damage[2], 0]) as usize;
            // Half of the damage in the header's few words in use.
            let index = if damage[3] & 1 == 0 { place % 56 } else { place % words.len() };
            let value = u64::from_le_bytes([
                damage[4], damage[5], damage[6], damage[7], damage[8], damage[9], damage[10], damage[11],
            ]);
            let before = words[index].load(Relaxed);
            let after = match damage[3] >> 1 & 3 {
                0 => value,
                1 => before ^ (1 << (value % 64)),
                2 => before.wrapping_add(value % 64 * 8),
                _ => before.wrapping_sub(value % 64 * 8),
            };
            words[index].store(after, Relaxed);
        }
    } else {
        for (word, bytes) in words.iter().skip(2).zip(data.as_chunks::<8>().0) {
            word.store(u64::from_le_bytes(*bytes), Relaxed);
        }
    }
    let side = [None, Some(Side::Writer), Some(Side::Reader), Some(Side::Both)][usize::from(mode >> 3 & 3)];
    if let Some(side) = side
        && ring::mend(&words, identity, side).is_ok()
    {
        assert!(Reader::attach(words.as_slice()).is_ok(), "what was mended can be read");
    }
    if mode & 4 == 0 {
        read(&words);
        write(&words);
    } else {
        write(&words);
    }
    read(&words);
}

/// Pushes and reads a few records, as `data` says; gives what is left of it.
fn prepare<'d>(words: &[AtomicU64], data: &'d [u8]) -> &'d [u8] {
    let mut writer = Writer::attach(words).expect("a fresh ring is sound");
    let mut reader = Reader::attach(words).expect("a fresh ring is sound");
    let (script, rest) = data.split_at(data.len().min(24));
    let mut out = Vec::new();
    for byte in script {
        if byte % 4 == 0 {
            let _ = reader.next(&mut out, RING_SIZE).expect("nothing is damaged yet");
            reader.confirm(reader.position());
        } else {
            let _ = writer.claim();
            let _ = writer.commit(&[*byte; 600][..usize::from(*byte) * 2 + 1]);
        }
    }
    rest
}

fn read(words: &[AtomicU64]) {
    let _ = Account::read(words);
    let Ok(mut reader) = Reader::attach(words) else {
        return;
    };
    let mut out = Vec::new();
    // Every step but the last takes at least one word off.
    for step_count in 0.. {
        assert!(step_count <= RING_SIZE / 8 + 1, "reading comes to an end");
        let room = if step_count % 3 == 0 { 64 } else { RING_SIZE };
        match reader.next(&mut out, room) {
            Ok(Step::Record { size, .. }) if step_count % 7 == 6 => {
                assert!(size <= out.len());
                reader.reject(&mut out);
            }
            Ok(Step::Record { .. } | Step::NoRoom | Step::Damaged { .. }) => {}
            Ok(Step::Empty) | Err(_) => break,
        }
    }
    assert!(out.len() <= RING_SIZE, "nothing is read twice");
    let _ = (reader.corrupt(), reader.waiting_size());
    reader.confirm(reader.position());
    let _ = reader.beat();
    let _ = Account::read(words);
    assert!(Reader::attach(words).is_ok(), "what was confirmed is sound");
}

fn write(words: &[AtomicU64]) {
    let Ok(mut writer) = Writer::attach(words) else {
        return;
    };
    for size in [1, 8, 100, 1000, 3000, RING_SIZE] {
        let _ = writer.claim();
        let _ = writer.commit(&vec![0xa5; size]);
    }
    writer.beat();
    let _ = Account::read(words);
}

/// Any bytes as a file of exposures.
///
/// # Panics
/// If the file is not read to an end within it.
pub fn fuzz_stream(data: &[u8]) {
    let mut messages = Messages::new(data);
    messages.skip_all().expect("memory can be read");
    assert!(messages.whole_size() <= data.len() as u64);
    assert!(messages.count() * 19 <= messages.whole_size(), "a message has an id and a length");
}
