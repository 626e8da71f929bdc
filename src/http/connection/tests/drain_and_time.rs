//! How a connection ends: drains, timeouts, the peer's end.

use super::*;

#[test]
fn a_draining_connection_says_close_with_its_next_answer() {
    let mut wire = Wire::new();
    wire.feed(PROBE);
    wire.connection.handle_drain();
    assert!(wire.connection.wants_input(), "an idle one is not cut off");
    assert_eq!(wire.connection.poll_output(&wire.workspace), Output::Receive);
    wire.feed(PROBE);
    assert!(wire.closed);
    assert_eq!(wire.replies()[1].header("Connection"), Some("close"));
    assert!(is_probed(&wire.replies()[1]));
}

#[test]
fn in_a_drain_all_requests_received_are_answered_and_the_last_says_close() {
    let requests = [
        PROBE.to_owned().into_bytes(),
        post("/echo", "", "{}").into(),
        post("/nowhere", "", "{}").into(),
        chunked_post("/nowhere", b"abc", 2),
        chunked_post("/echo", b"abc", 2),
    ];
    for behind in ["", "GET /ec", "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nabc"] {
        for last in 0..requests.len() {
            let mut stream = requests.concat();
            stream.extend_from_slice(&requests[last]);
            stream.extend_from_slice(behind.as_bytes());
            let mut wire = Wire::new();
            wire.connection.handle_drain();
            wire.feed(stream);
            let replies = wire.replies();
            assert_eq!(replies.len(), 6);
            assert!(wire.closed);
            for (number, reply) in replies.iter().enumerate() {
                assert_eq!(reply.header("Connection"), (number == 5).then_some("close"), "{number}");
            }
        }
    }
}

#[test]
fn a_drain_reaches_requests_that_wait_for_output() {
    let mut wire = Wire::with(Limits { output_batch_size: 1, ..limits() }, 4096);
    wire.input(PROBE.repeat(50).as_bytes());
    wire.connection.handle_blocked(&mut wire.workspace).unwrap();
    wire.connection.handle_drain();
    wire.take_all();
    assert!(wire.closed);
    let replies = wire.replies();
    assert_eq!(replies.len(), 50);
    assert_eq!(replies.iter().filter(|reply| reply.header("Connection") == Some("close")).count(), 1);
    assert_eq!(replies[49].header("Connection"), Some("close"));
}

#[test]
fn in_a_drain_an_answer_in_lines_says_close_when_it_begins() {
    let mut wire = Wire::new();
    wire.connection.handle_drain();
    wire.feed(post("/lines", "", "a\nb\n"));
    assert!(wire.closed);
    assert_eq!(wire.replies()[0].header("Connection"), Some("close"));
    assert!(wire.replies()[0].complete);

    // One that has begun is completed, and the next answer says it.
    let mut wire = Wire::new();
    wire.feed("POST /lines HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\na\n");
    wire.connection.handle_drain();
    wire.feed("b\n");
    assert!(!wire.closed && wire.replies()[0].complete);
    wire.feed(PROBE);
    assert!(wire.closed);
}

#[test]
fn what_is_waited_for_decides_which_timeout_runs() {
    let mut wire = Wire::new();
    assert_eq!(wire.connection.wait(), Wait::Idle);
    wire.feed("POST /echo HTTP/1.1\r\n");
    assert_eq!(wire.connection.wait(), Wait::Head);
    let turn = wire.connection.turn();
    wire.feed("Host: a\r\nContent-Length: 2\r\n\r\n");
    assert_eq!(wire.connection.wait(), Wait::Body);
    assert_ne!(wire.connection.turn(), turn);
    wire.input(b"{}");
    assert_eq!(wire.connection.wait(), Wait::Write);
    wire.take_all();
    assert_eq!(wire.connection.wait(), Wait::Idle);
}

#[test]
fn a_head_or_a_body_that_comes_too_slowly_is_a_408() {
    for part in [
        "G",
        "GET /echo HTTP/1.1\r\nHost: a\r\n",
        "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n",
        "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{",
        "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        "POST /lines HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{",
    ] {
        let mut wire = Wire::new();
        wire.feed(part).time_out();
        assert_eq!(wire.statuses(), [408], "{part:?}");
        assert!(wire.closed);
        assert_eq!(wire.replies()[0].header("Connection"), Some("close"));
        assert_eq!(wire.refusals(), [408]);
        assert_eq!(wire.workspace.carry_free(), 4);
        assert!(wire.connection.wants_linger());
        wire.time_out();
        assert_eq!(wire.statuses(), [408], "{part:?}");
    }
}

#[test]
fn an_answer_in_lines_that_waits_too_long_ends_without_end() {
    let mut wire = Wire::new();
    wire.feed("POST /lines HTTP/1.1\r\nHost: a\r\nContent-Length: 20\r\n\r\na\nb").time_out();
    assert!(wire.closed);
    assert!(!wire.replies()[0].complete);
    assert!(wire.replies()[0].body.contains("408"));
}

#[test]
fn a_refused_body_that_does_not_come_closes_without_a_second_answer() {
    let mut wire = Wire::new();
    wire.feed("POST /nowhere HTTP/1.1\r\nHost: a\r\nContent-Length: 20\r\n\r\nab").time_out();
    assert!(wire.closed);
    assert_eq!(wire.statuses(), [404]);
}

#[test]
fn an_idle_timeout_closes_silently() {
    let mut wire = Wire::new();
    wire.feed(PROBE).time_out();
    assert!(wire.closed);
    assert_eq!(wire.statuses(), [200]);
}

#[test]
fn a_write_timeout_drops_the_output_and_gives_its_slots_back() {
    for blocked in [false, true] {
        let mut wire = Wire::with(Limits { output_batch_size: 1, ..limits() }, 4096);
        wire.input(PROBE.repeat(100).as_bytes());
        assert!(wire.connection.holds_carry());
        if blocked {
            wire.connection.handle_blocked(&mut wire.workspace).unwrap();
        }
        wire.time_out();
        assert!(wire.closed && wire.output.is_empty());
        assert!(!wire.connection.wants_linger());
        assert_eq!((wire.workspace.carry_free(), wire.workspace.pending_free()), (4, 2));
    }
}

#[test]
fn after_the_peers_end_what_is_complete_is_answered() {
    let mut wire = Wire::with(Limits { output_batch_size: 1, ..limits() }, 4096);
    wire.input(format!("{}GET /ec", PROBE.repeat(100)).as_bytes());
    wire.connection.handle_blocked(&mut wire.workspace).unwrap();
    wire.eof();
    assert!(wire.closed);
    assert_eq!(wire.statuses(), [200; 100]);
    assert!(!wire.connection.wants_linger());
    assert_eq!((wire.workspace.carry_free(), wire.workspace.pending_free()), (4, 2));
}

#[test]
fn the_date_is_the_times_that_are_given() {
    let mut wire = Wire::new();
    wire.feed(PROBE);
    let later = NOW.plus(Duration::from_secs(61));
    wire.connection.handle_input(b"BAD\r\n\r\n", later, &mut wire.workspace, &mut wire.service);
    wire.take_all();
    assert_eq!(wire.replies()[1].header("Date"), Some("Sun, 06 Nov 1994 08:50:38 GMT"));
}
