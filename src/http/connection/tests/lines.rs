//! Bodies in lines.

use super::*;

#[test]
fn every_line_is_answered_in_order_as_chunks() {
    let mut wire = Wire::new();
    wire.feed(post("/lines", "Content-Type: application/x-ndjson\r\n", "{}\n[]\r\n\nlast")).feed(PROBE);
    let replies = wire.replies();
    assert_eq!(replies[0].body, "<{}>\n<[]>\n<>\n<last>\n");
    assert_eq!(replies[0].header("Content-Type"), Some("application/x-ndjson"));
    assert_eq!(replies[0].header("X-Version"), Some("1"));
    assert!(is_probed(&replies[1]));
    assert_eq!(wire.service.answered, [Status::Ok, Status::Ok]);
    assert!(!wire.connection.holds_carry());
}

#[test]
fn answers_leave_before_the_body_is_whole() {
    let mut wire = Wire::new();
    wire.feed("POST /lines HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\na\nb");
    assert_eq!(wire.replies()[0].body, "<a>\n");
    assert!(!wire.replies()[0].complete);
    assert_eq!(wire.connection.wait(), Wait::Body);
    wire.feed("b\nccc\n");
    assert_eq!(wire.replies()[0].body, "<a>\n<bb>\n<ccc>\n");
    assert!(wire.replies()[0].complete);
    assert_eq!(wire.connection.wait(), Wait::Idle);
}

#[test]
fn a_trailing_line_end_begins_no_further_line() {
    for (body, answer) in
        [("", ""), ("\n", "<>\n"), ("a\n", "<a>\n"), ("a\n\n", "<a>\n<>\n"), ("\r\n", "<>\n"), ("\r", "<>\n")]
    {
        for request in [post("/lines", "", body).into_bytes(), chunked_post("/lines", body.as_bytes(), 1)] {
            let mut wire = Wire::new();
            wire.feed(request).feed(PROBE);
            assert_eq!(wire.replies()[0].body, answer, "{body:?}");
            assert_eq!(wire.statuses(), [200, 200]);
        }
    }
    let mut wire = Wire::new();
    wire.feed("POST /lines HTTP/1.1\r\nHost: a\r\n\r\n").feed(PROBE);
    assert_eq!(wire.statuses(), [200, 200]);
}

#[test]
fn http_1_0_reads_answers_until_the_connection_closes() {
    let mut wire = Wire::new();
    wire.feed("POST /lines HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\na\nb\nc");
    assert!(wire.closed);
    assert_eq!(wire.replies()[0].body, "<a>\n<b>\n<c>\n");
    assert_eq!(wire.replies()[0].header("Transfer-Encoding"), None);
}

#[test]
fn a_line_that_is_too_long_is_answered_with_an_error_and_the_rest_goes_on() {
    let limit = crate::limits::BODY_SIZE_MAX;
    let fits = "x".repeat(limit);
    let body = format!("a\n{fits}x\nb\n{fits}\nc\n{fits}{fits}");
    for request in [post("/lines", "", &body).into_bytes(), chunked_post("/lines", body.as_bytes(), 50_000)] {
        for size in [1000, 65_536] {
            let mut wire = Wire::with(limits(), 100_000);
            for piece in request.chunks(size) {
                wire.feed(piece);
            }
            wire.feed(PROBE);
            let replies = wire.replies();
            let lines: Vec<&str> = replies[0].body.lines().collect();
            assert_eq!(lines.len(), 6);
            assert_eq!((lines[0], lines[2], lines[4]), ("<a>", "<b>", "<c>"));
            assert_eq!(lines[3].len(), limit + 2);
            for line in [lines[1], lines[5]] {
                assert_eq!(serde_json::from_str::<serde_json::Value>(line).unwrap()["status"], 413);
            }
            assert!(is_probed(&replies[1]));
        }
    }
}

#[test]
fn a_line_without_an_answer_or_with_too_large_a_one_gets_an_error() {
    let mut wire = Wire::new();
    wire.feed(post("/lines", "", "a\nsilent\noverflowing\nb\n")).feed(PROBE);
    let replies = wire.replies();
    let lines: Vec<&str> = replies[0].body.lines().collect();
    assert_eq!((lines[0], lines[3], lines.len()), ("<a>", "<b>", 4));
    for line in &lines[1..3] {
        assert_eq!(serde_json::from_str::<serde_json::Value>(line).unwrap()["status"], 500);
    }
    assert!(is_probed(&replies[1]));
}

#[test]
fn the_sum_of_the_lines_is_bounded() {
    let mut wire = Wire::new();
    wire.feed(format!("POST /lines HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", LINES_SIZE_MAX + 1));
    assert_eq!(wire.statuses(), [413]);
    assert!(wire.closed);

    // Chunked it shows only when the answer has begun: an error line, and no
    // last chunk.
    let body = "aaaaaaaaa\n".repeat(LINES_SIZE_MAX as usize / 10 + 1);
    let mut wire = Wire::new();
    wire.feed(chunked_post("/lines", body.as_bytes(), 1000));
    assert!(wire.closed);
    let replies = wire.replies();
    assert!(!replies[0].complete);
    assert_eq!(replies[0].body.lines().count(), LINES_SIZE_MAX as usize / 10 + 1);
    assert!(replies[0].body.lines().last().unwrap().contains("413"));
    assert_eq!(wire.refusals(), [413]);
}

#[test]
fn framing_that_breaks_before_the_first_answer_is_a_400_and_later_an_end_without_end() {
    let head = "POST /lines HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut wire = Wire::new();
    wire.feed(format!("{head}2\r\nabX"));
    assert_eq!(wire.statuses(), [400]);
    assert!(wire.closed);

    let mut wire = Wire::new();
    wire.feed(format!("{head}2\r\na\nX{PROBE}"));
    assert!(wire.closed);
    assert_eq!(wire.replies().len(), 1);
    assert!(!wire.replies()[0].complete);
    assert_eq!(wire.refusals(), [400]);
}

#[test]
fn many_lines_wait_for_their_output_to_be_sent() {
    let body: String = (0..20_000).map(|number| format!("{number}\n")).collect();
    let expected: String = (0..20_000).map(|number| format!("<{number}>\n")).collect();
    let mut wire = Wire::with(Limits { output_batch_size: 1000, ..limits() }, 2000);
    let request = post("/lines", "", &body) + PROBE;
    let mut paused = 0;
    for piece in request.as_bytes().chunks(60_000) {
        assert!(wire.connection.wants_input());
        wire.input(piece);
        while !wire.connection.wants_input() {
            assert_eq!(wire.connection.wait(), Wait::Write);
            paused += usize::from(wire.connection.holds_carry());
            wire.connection.handle_blocked(&mut wire.workspace).unwrap();
            assert!(wire.take(usize::MAX) > 0);
        }
    }
    assert!(paused > 100, "{paused}");
    assert_eq!(wire.replies()[0].body, expected);
    assert!(is_probed(&wire.replies()[1]));
    assert!(!wire.connection.holds_carry() && !wire.connection.holds_pending());
}

#[test]
fn lines_take_json_and_line_types() {
    for (content_type, status) in [
        ("application/json", 200),
        ("application/x-ndjson; charset=utf-8", 200),
        ("application/ndjson", 200),
        ("application/jsonl", 200),
        ("text/plain", 415),
    ] {
        let mut wire = Wire::new();
        wire.feed(post("/lines", &format!("Content-Type: {content_type}\r\n"), "a"));
        assert_eq!(wire.statuses(), [status], "{content_type}");
    }
}
