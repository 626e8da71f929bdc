//! Files that are shaken.

use serde_json::value::RawValue;

use super::*;

/// xorshift64*: enough to shake a file, and the same everywhere.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % end
    }
}

/// The seed of this run, printed; `SPLITD_SEED` sets another, `SPLITD_ROUNDS` more rounds.
fn seeded(round_count: u64) -> (Random, u64) {
    let variable = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let seed = variable("SPLITD_SEED").unwrap_or(0x5EED).max(1);
    println!("SPLITD_SEED={seed}");
    (Random(seed), variable("SPLITD_ROUNDS").unwrap_or(round_count))
}

const GOLDEN_EDGE: &str = include_str!("../../../../tests/golden/edge.experiments.json");
const EXAMPLE: &str = include_str!("../../../../systemd/experiments.json");

#[test]
fn no_mutation_of_a_files_bytes_panics_or_hangs() {
    let (mut random, round_count) = seeded(1500);
    let words: &[&[u8]] = &[
        b"{", b"}", b"[", b"]", b",", b":", b"\"", b"\\u", b"\\ud800", b"null", b"1e999", b"-", b"0", b"\xFF",
    ];
    for round in 0..round_count {
        let mut mutated = [BASE, GOLDEN_EDGE, EXAMPLE][round as usize % 3].as_bytes().to_vec();
        for _ in 0..random.below(4) + 1 {
            let at = random.below(mutated.len() as u64) as usize;
            let end = (at + random.below(40) as usize).min(mutated.len());
            match random.below(4) {
                0 => mutated[at] = random.below(256) as u8,
                1 => drop(mutated.drain(at..end)),
                2 => {
                    let word = words[random.below(words.len() as u64) as usize];
                    mutated.splice(at..at, word.iter().copied());
                }
                _ => mutated[at] = mutated[at].wrapping_add(1),
            }
            if mutated.is_empty() {
                mutated.push(b'{');
            }
        }
        fuzz_experiments_file(&mutated);
    }
}

/// Every value of a JSON text, by its place in it.
fn value_ranges(text: &str, json: &str, ranges: &mut Vec<std::ops::Range<usize>>) {
    let start = json.as_ptr().addr() - text.as_ptr().addr();
    ranges.push(start..start + json.len());
    if json.starts_with('{') {
        for (_, value) in members(json).expect("an object") {
            value_ranges(text, value.get(), ranges);
        }
    } else if json.starts_with('[') {
        for value in serde_json::from_str::<Vec<&RawValue>>(json).expect("an array") {
            value_ranges(text, value.get(), ranges);
        }
    }
}

#[test]
fn no_value_in_the_place_of_another_panics_or_hangs() {
    let (mut random, round_count) = seeded(600);
    let words = [
        "null",
        "true",
        "0",
        "-1",
        "1",
        "65536",
        "1e999",
        "\"\"",
        "[]",
        "{}",
        "[[0,65536]]",
        "\"(a{1000}){100}\"",
        "\"\\\\b\"",
        "{\"all\":[]}",
        "{\"segment\":\"adults\"}",
        "\"v1.2\"",
        "\"contains\"",
        "\"version\"",
        "\"finished\"",
    ];
    let (mut taken, mut refused) = (0, 0);
    for round in 0..round_count {
        let mut mutated = [BASE, GOLDEN_EDGE, EXAMPLE][round as usize % 3].to_owned();
        for _ in 0..random.below(3) + 1 {
            let mut ranges = Vec::new();
            value_ranges(&mutated, mutated.trim(), &mut ranges);
            // Not the whole file, and not its larger halves time and again.
            let place = ranges[random.below(ranges.len() as u64 - 1) as usize + 1].clone();
            let instead = match random.below(3) {
                0 => words[random.below(words.len() as u64) as usize].to_owned(),
                _ => mutated[ranges[random.below(ranges.len() as u64) as usize].clone()].to_owned(),
            };
            mutated.replace_range(place, &instead);
        }
        fuzz_experiments_file(mutated.as_bytes());
        match check(mutated.as_bytes()) {
            Ok(_) => taken += 1,
            Err(_) => refused += 1,
        }
    }
    assert!(taken > 0 && refused > 0, "{taken} taken, {refused} refused: the mutations say nothing");
}
