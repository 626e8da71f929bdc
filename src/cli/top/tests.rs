use std::time::Duration;

use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::*;
use crate::metrics::names::{NameKind, Place};
use crate::metrics::shares::Share;
use crate::metrics::{Family, LOGGER_BLOCK, State, request_cell, worker_block};
use crate::status::snapshot::tests::{Fixture, NOW};

/// The screen as lines of text.
fn screen(view: &View, width: u16, height: u16) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| view.draw(frame)).unwrap();
    let buffer = terminal.backend().buffer();
    let row = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
    (0..height).map(row).collect()
}

/// Two looks, two seconds apart, at a busy instance.
fn busy() -> (Fixture, View) {
    let fixture = Fixture::new();
    let mut view = View::new(fixture.look(NOW));
    for (slot, requests) in [(0, 2_000), (1, 7_000)] {
        let block = fixture.table().block(worker_block(slot, 0));
        block.add_at(Family::Requests, request_cell(0, 200), requests);
        block.record_at(Family::ServiceTime, 0, 20_000, requests);
        block.set(Family::Connections, 5 - slot as u64);
    }
    let table = fixture.table();
    for (place, name, buckets, count) in
        [(0, r#""sizes":"small""#, 1, 300), (1, r#""sizes":"large""#, 9, 700)]
    {
        table.names().learn(NameKind::Assignment, name.as_bytes());
        table.shares().expect(Place(place), Share { group: buckets, experiment: 10 }, 0);
        table.block(worker_block(0, 0)).add_named(Place(place), count);
    }
    let later = NOW.plus(Duration::from_secs(2));
    for index in 0..8 {
        fixture.table().block(index).turns(later.mono_ns - 50_000_000);
    }
    view.take(fixture.look(later));
    (fixture, view)
}

fn key(view: &mut View, code: KeyCode) -> Press {
    press(view, KeyEvent::new(code, KeyModifiers::NONE))
}

#[test]
fn the_screen_shows_pools_processes_rings_and_keys() {
    let (_fixture, view) = busy();
    let screen = screen(&view, 140, 40);
    let line = |part: &str| {
        screen.iter().find(|line| line.contains(part)).unwrap_or_else(|| panic!("no {part} in {screen:#?}"))
    };
    assert!(line("splitd ").contains("ready") && line("splitd ").contains("2026-11-22.3"));
    let fields = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(fields(line("assign  "))[..4], ["assign", "2", "4,500", "19"], "{}", line("assign  "));
    assert_eq!(fields(line("assign/1"))[..3], ["assign/1", "11", "running"]);
    assert!(line("assign/1").contains("3,500") && line("assign/1").ends_with("7,000"));
    assert!(line("slot 0").contains("█"));
    assert!(line("sink").contains("0 errors"));
    let sizes = ["sizes", "500", "1,000", "MISMATCH", "p", "<", "1e-9"];
    assert_eq!(fields(line("sizes"))[..7], sizes);
    assert!(line("sizes").contains("small 30.0 of 10.0 %  large 70.0 of 90.0 %"), "{}", line("sizes"));
    assert!(screen.last().unwrap().contains("q quit"));
}

#[test]
fn the_spool_has_a_line_where_there_is_one() {
    let (fixture, mut view) = busy();
    assert!(!screen(&view, 140, 40).iter().any(|line| line.starts_with("spool")));
    let logger = fixture.table().block(LOGGER_BLOCK);
    logger.set(Family::SpoolSizeMax, 8_000_000_000);
    logger.set(Family::SpoolBytes, 6_000_000_000);
    logger.set(Family::SinkStalled, 1);
    view.take(fixture.look(NOW.plus(Duration::from_secs(4))));
    let screen = screen(&view, 140, 40);
    let line = |name: &str| screen.iter().find(|line| line.starts_with(name)).unwrap();
    assert!(line("sink").ends_with(", AWAY"));
    assert!(
        line("spool").contains("███████████████░░░░░  75.0 %  6.0 GB of 8.0 GB, 0 exposures"),
        "{}",
        line("spool")
    );
}

#[test]
fn keys_sort_pause_and_quit() {
    let (_fixture, mut view) = busy();
    let order = |view: &View| {
        let screen = screen(view, 140, 40);
        let names = screen.iter().filter(|line| line.starts_with("assign/"));
        names.map(|line| line.split(' ').next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(order(&view), ["assign/0", "assign/1"]);
    assert_eq!(key(&mut view, KeyCode::Char('s')), Press::Other);
    assert_eq!(order(&view), ["assign/1", "assign/0"], "by requests");
    key(&mut view, KeyCode::Char('c'));
    assert_eq!(order(&view), ["assign/0", "assign/1"], "by connections");
    key(&mut view, KeyCode::Char('p'));
    assert!(view.paused && screen(&view, 140, 40)[0].contains("PAUSED"));
    key(&mut view, KeyCode::Char(' '));
    assert!(!view.paused);
    assert_eq!(key(&mut view, KeyCode::Char('q')), Press::Quit);
    assert_eq!(press(&mut view, KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL)), Press::Quit);
}

#[test]
fn what_is_wrong_stands_in_the_second_line() {
    let (fixture, mut view) = busy();
    fixture.table().block(worker_block(0, 0)).is(State::Ended);
    view.take(fixture.look(NOW.plus(Duration::from_secs(4))));
    view.lost = Some("cannot be read".to_owned());
    let screen = screen(&view, 100, 30);
    assert!(screen[1..5].iter().any(|line| line.contains("cannot be read")), "{screen:#?}");
    assert!(screen[1..5].iter().any(|line| line.contains("assign/0 has ended")), "{screen:#?}");
}

#[test]
fn a_terminal_too_small_or_of_no_size_is_no_panic() {
    let (_fixture, view) = busy();
    for (width, height) in [(0, 0), (1, 1), (20, 3), (79, 10), (300, 100)] {
        assert_eq!(screen(&view, width, height).len(), usize::from(height));
    }
}
