//! What an instance says in words, for whoever looks at it: the version in force
//! and the last lines of its log, in the region behind the blocks.
//!
//! ```text
//! version  turn | size | 32 words of text                                     the master alone
//! log      next | 64 lines: turn | unix µs | level, pid, size | 61 words      whoever logs
//! ```
//! Invariants
//! - A `turn` is odd while its text is being written and even when it is whole; a
//!   reader takes a text only if its turn was even and the same before and after.
//! - A line's place is claimed by one addition to `next`, so that no two processes
//!   write the same line unless the log has gone round in the meantime; one killed
//!   in the middle leaves a line that nobody shows. Nobody ever waits.
//!
//! It is the one place that several processes write. They do so when they log,
//! which is a few times in their lives.

use std::sync::OnceLock;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU64, fence};

const VERSION_WORDS: usize = 32;
const VERSION_AT: usize = 0;
const LOG_AT: usize = VERSION_AT + 2 + VERSION_WORDS;
const LINE_COUNT: usize = 64;
const LINE_WORDS: usize = 64;
/// Words of a board, whole cache lines.
pub(super) const BOARD_WORDS: usize = (LOG_AT + 1 + LINE_COUNT * LINE_WORDS).next_multiple_of(8);

/// One line of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// When.
    pub unix_us: i64,
    /// `error`, `warn`, `info`, `debug`.
    pub level: &'static str,
    /// Whose.
    pub pid: u32,
    /// The event, `key=value`; cut where it was too long.
    pub text: String,
}

const LEVELS: [&str; 4] = ["error", "warn", "info", "debug"];

/// A view of the board.
#[derive(Debug, Clone, Copy)]
pub struct Board<'r> {
    words: &'r [AtomicU64],
}

static KEPT: OnceLock<Board<'static>> = OnceLock::new();

/// From here on, what this process and its children log goes to this board, too.
/// A second call changes nothing.
pub fn keep_log(board: Board<'static>) {
    let _ = KEPT.set(board);
}

/// A line was logged: kept on the board, if there is one.
pub fn note(unix_us: i64, level: &str, text: &str) {
    if let Some(board) = KEPT.get() {
        board.write_line(unix_us, level, std::process::id(), text);
    }
}

impl<'r> Board<'r> {
    pub(super) fn new(words: &'r [AtomicU64]) -> Board<'r> {
        assert!(words.len() >= BOARD_WORDS, "room for a board");
        Board { words }
    }

    /// Says which experiments are in force. Only the master may.
    pub fn set_version(&self, version: &str) {
        let [turn, size, text @ ..] = &self.words[VERSION_AT..LOG_AT] else { unreachable!() };
        let before = turn.load(Relaxed) & !1;
        turn.store(before.wrapping_add(1), Relaxed);
        fence(Release);
        size.store(store_text(text, version) as u64, Relaxed);
        turn.store(before.wrapping_add(2), Release);
    }

    /// The version in force; empty before the first, none while it changes.
    #[must_use]
    pub fn version(&self) -> Option<String> {
        let [turn, size, text @ ..] = &self.words[VERSION_AT..LOG_AT] else { unreachable!() };
        let before = turn.load(Acquire);
        let found = load_text(text, size.load(Relaxed) as usize);
        fence(Acquire);
        (before.is_multiple_of(2) && turn.load(Relaxed) == before).then_some(found)
    }

    fn write_line(&self, unix_us: i64, level: &str, pid: u32, text: &str) {
        let number = self.words[LOG_AT].fetch_add(1, Relaxed);
        let line = self.line((number % LINE_COUNT as u64) as usize);
        line[0].store(turn_of(number).wrapping_sub(1), Relaxed);
        fence(Release);
        line[1].store(unix_us as u64, Relaxed);
        let level = LEVELS.iter().position(|known| *known == level).unwrap_or(LEVELS.len() - 1);
        let size = store_text(&line[3..], text);
        line[2].store((level as u64) << 56 | (size as u64) << 32 | u64::from(pid), Relaxed);
        line[0].store(turn_of(number), Release);
    }

    fn line(&self, index: usize) -> &'r [AtomicU64] {
        &self.words[LOG_AT + 1 + index * LINE_WORDS..][..LINE_WORDS]
    }

    /// The last lines, oldest first.
    #[must_use]
    pub fn lines(&self) -> Vec<Line> {
        let next = self.words[LOG_AT].load(Acquire);
        (next.saturating_sub(LINE_COUNT as u64)..next).filter_map(|number| self.read_line(number)).collect()
    }

    /// A line by its number, if it is whole and not written over.
    fn read_line(&self, number: u64) -> Option<Line> {
        let line = self.line((number % LINE_COUNT as u64) as usize);
        let whole = turn_of(number);
        if line[0].load(Acquire) != whole {
            return None;
        }
        let (unix_us, about) = (line[1].load(Relaxed) as i64, line[2].load(Relaxed));
        let text = load_text(&line[3..], (about >> 32 & 0xFF_FFFF) as usize);
        fence(Acquire);
        let level = LEVELS[((about >> 56) as usize).min(LEVELS.len() - 1)];
        (line[0].load(Relaxed) == whole).then_some(Line { unix_us, level, pid: about as u32, text })
    }
}

/// The turn of a whole line, by its number.
fn turn_of(number: u64) -> u64 {
    number.wrapping_mul(2).wrapping_add(2)
}

/// As much of a text as there is room for, cut between two characters; its size.
fn store_text(words: &[AtomicU64], text: &str) -> usize {
    let room = words.len() * 8;
    let size = (0..=room.min(text.len())).rev().find(|size| text.is_char_boundary(*size)).unwrap_or(0);
    for (word, bytes) in words.iter().zip(text.as_bytes()[..size].chunks(8)) {
        let mut whole = [0; 8];
        whole[..bytes.len()].copy_from_slice(bytes);
        word.store(u64::from_le_bytes(whole), Relaxed);
    }
    size
}

/// The text of so many bytes; whatever they are, it is a text.
fn load_text(words: &[AtomicU64], size: usize) -> String {
    let size = size.min(words.len() * 8);
    let mut bytes: Vec<u8> =
        words[..size.div_ceil(8)].iter().flat_map(|word| word.load(Relaxed).to_le_bytes()).collect();
    bytes.truncate(size);
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words() -> Vec<AtomicU64> {
        (0..BOARD_WORDS).map(|_| AtomicU64::new(0)).collect()
    }

    #[test]
    fn the_version_is_read_whole_or_not_at_all() {
        let words = words();
        let board = Board::new(&words);
        assert_eq!(board.version().as_deref(), Some(""));
        board.set_version("2026-11-22.3");
        assert_eq!(board.version().as_deref(), Some("2026-11-22.3"));
        board.set_version(&"ü".repeat(200));
        assert_eq!(board.version(), Some("ü".repeat(128)), "cut between two characters");
        words[VERSION_AT].fetch_add(1, Relaxed); // as if its writer had been killed
        assert_eq!(board.version(), None);
    }

    #[test]
    fn the_last_lines_come_oldest_first_and_half_written_ones_not_at_all() {
        let words = words();
        let board = Board::new(&words);
        assert_eq!(board.lines(), []);
        for number in 0..LINE_COUNT as u32 + 10 {
            board.write_line(i64::from(number), "warn", number, &format!("event=number n={number}"));
        }
        let lines = board.lines();
        assert_eq!(lines.len(), LINE_COUNT);
        assert_eq!(
            lines[0],
            Line { unix_us: 10, level: "warn", pid: 10, text: "event=number n=10".to_owned() }
        );
        assert_eq!(lines[LINE_COUNT - 1].unix_us, 73);
        words[LOG_AT].fetch_add(1, Relaxed); // one was claimed and its writer killed
        assert_eq!(board.lines().len(), LINE_COUNT - 1);
        board.write_line(0, "error", 1, &"x".repeat(10_000));
        assert_eq!(board.lines().last().map(|line| (line.level, line.text.len())), Some(("error", 488)));
    }

    #[test]
    fn no_damage_makes_a_reader_panic() {
        let words: Vec<AtomicU64> = (0..BOARD_WORDS).map(|_| AtomicU64::new(u64::MAX)).collect();
        let board = Board::new(&words);
        assert_eq!((board.version(), board.lines().len()), (None, 0));
        words[LOG_AT].store(1, Relaxed);
        words[LOG_AT + 1].store(2, Relaxed);
        words[VERSION_AT].store(2, Relaxed);
        assert_eq!(board.lines().len(), 1);
        assert_eq!(board.version().map(|text| text.chars().count()), Some(256));
    }
}
