//! Output: pipelines, back-pressure, slots, and answers that go wrong.

use super::*;

#[test]
fn a_thousand_pipelined_requests_pass_through_a_small_output() {
    let requests: String =
        (0..1000).map(|number| format!("GET /echo?{number} HTTP/1.1\r\nHost: a\r\n\r\n")).collect();
    let mut wire = Wire::with(Limits { output_batch_size: 500, ..limits() }, 1000);
    wire.input(requests.as_bytes());
    assert!(!wire.connection.wants_input());
    assert!(wire.connection.holds_carry());
    let mut rounds = 0;
    while wire.take(usize::MAX) > 0 {
        rounds += 1;
    }
    assert!(rounds > 200, "{rounds}");
    let replies = wire.replies();
    assert_eq!(replies.len(), 1000);
    for (number, reply) in replies.iter().enumerate() {
        assert_eq!(reply.body, format!("Get /echo Some(\"{number}\") Http11 "));
    }
    assert!(!wire.connection.holds_carry());
    assert!(wire.connection.wants_input());
}

#[test]
fn pipelined_answers_leave_together() {
    let mut wire = Wire::new();
    wire.input(PROBE.repeat(20).as_bytes());
    let Output::Send(bytes) = wire.connection.poll_output(&wire.workspace) else { panic!() };
    assert_eq!(replies(bytes, &[]).len(), 20);
}

#[test]
fn output_the_socket_does_not_take_moves_to_a_slot_of_its_own() {
    let mut wire = Wire::new();
    wire.input(PROBE.as_bytes());
    assert_eq!(wire.take(10), 10);
    wire.connection.handle_blocked(&mut wire.workspace).unwrap();
    wire.connection.handle_blocked(&mut wire.workspace).unwrap();
    assert!(wire.connection.holds_pending() && !wire.connection.wants_input());
    assert_eq!(wire.connection.wait(), Wait::Write);
    assert_eq!(wire.workspace.pending_free(), 1);

    // Another connection uses the worker's output meanwhile.
    let mut other = Connection::new();
    other.handle_input(
        b"GET /big?100 HTTP/1.1\r\nHost: a\r\n\r\n",
        NOW,
        &mut wire.workspace,
        &mut wire.service,
    );
    let Output::Send(bytes) = other.poll_output(&wire.workspace) else { panic!() };
    let size = bytes.len();
    other.handle_sent(size, NOW, &mut wire.workspace, &mut wire.service);

    assert_eq!(wire.take(5), 5);
    wire.take_all();
    assert!(is_probed(&wire.replies()[0]));
    assert!(!wire.connection.holds_pending());
    assert_eq!(wire.workspace.pending_free(), 2);
}

#[test]
fn without_a_free_slot_blocking_fails_until_one_is_given_back() {
    let mut wire = Wire::new();
    let mut holders = Vec::new();
    for _ in 0..2 {
        let mut holder = Connection::new();
        holder.handle_input(PROBE.as_bytes(), NOW, &mut wire.workspace, &mut wire.service);
        holder.handle_blocked(&mut wire.workspace).unwrap();
        holders.push(holder);
    }
    wire.input(PROBE.as_bytes());
    assert_eq!(wire.connection.handle_blocked(&mut wire.workspace), Err(PoolExhausted));
    holders[0].release(&mut wire.workspace);
    assert_eq!(holders[0].poll_output(&wire.workspace), Output::Close);
    wire.connection.handle_blocked(&mut wire.workspace).unwrap();
    wire.take_all();
    assert!(is_probed(&wire.replies()[0]));
}

#[test]
fn a_released_connection_leaves_the_workers_output_to_others() {
    let mut wire = Wire::new();
    wire.input(PROBE.as_bytes());
    wire.connection.release(&mut wire.workspace);
    let mut other = Connection::new();
    other.handle_input(b"GET", NOW, &mut wire.workspace, &mut wire.service);
    other.release(&mut wire.workspace);
    assert_eq!(wire.workspace.carry_free(), 4);
}

#[test]
fn without_a_free_carry_slot_an_unfinished_request_closes_and_is_counted() {
    let mut wire = Wire::with(Limits { carry_count: 1, ..limits() }, 4096);
    let mut holder = Connection::new();
    holder.handle_input(b"GET", NOW, &mut wire.workspace, &mut wire.service);
    wire.feed(format!("{PROBE}GET /"));
    assert!(wire.closed, "what was complete is answered all the same");
    assert_eq!(wire.statuses(), [200]);
    assert_eq!(wire.workspace.carry_refused(), 1);
    holder.handle_input(&PROBE.as_bytes()[3..], NOW, &mut wire.workspace, &mut wire.service);
    assert!(matches!(holder.poll_output(&wire.workspace), Output::Send(_)), "the holder is unharmed");
}

#[test]
fn input_that_was_not_wanted_is_carried_as_far_as_there_is_room() {
    // An unfinished head, and then input while output is still pending.
    let mut wire = Wire::new();
    wire.input(format!("{PROBE}GET /ec").as_bytes());
    wire.connection.handle_blocked(&mut wire.workspace).unwrap();
    wire.input(b"ho?probe HTTP/1.1\r\n");
    wire.input(format!("Host: a\r\n\r\n{}", post("/echo", "", "{}")).as_bytes());
    wire.take_all();
    wire.feed(PROBE);
    assert_eq!(wire.statuses(), [200, 200, 200, 200]);
    assert!(is_probed(&wire.replies()[1]));

    let mut wire = Wire::new();
    wire.input(PROBE.as_bytes());
    wire.connection.handle_blocked(&mut wire.workspace).unwrap();
    wire.input(&[b'x'; 60_000]);
    wire.input(&[b'x'; 60_000]);
    wire.take_all();
    assert!(wire.closed);
    assert_eq!(wire.workspace.carry_refused(), 1);
    assert_eq!(wire.workspace.carry_free(), 4);
}

#[test]
fn an_answer_that_was_not_given_is_a_500() {
    for path in ["/silent", "/unfinished", "/overflowing"] {
        let mut wire = Wire::new();
        wire.feed(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n{PROBE}"));
        assert_eq!(wire.statuses(), [500, 200], "{path}");
        assert_eq!(wire.service.answered[0], Status::InternalServerError);
        assert_eq!(wire.replies()[0].header("X-Version"), None);
    }
    let mut wire = Wire::new();
    wire.feed(format!("HEAD /overflowing HTTP/1.1\r\nHost: a\r\n\r\n{PROBE}"));
    assert_eq!(replies(&wire.output, &[0]).len(), 2);
}

#[test]
fn an_answer_of_the_largest_size_always_has_room() {
    let mut wire = Wire::with(Limits { output_batch_size: 1, ..limits() }, 70_000);
    for _ in 0..3 {
        wire.feed("GET /big?69000 HTTP/1.1\r\nHost: a\r\n\r\n".repeat(3));
    }
    assert_eq!(wire.statuses(), [200; 9]);
}
