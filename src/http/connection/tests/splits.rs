//! How input is cut, and how output is taken, changes no answer.

use super::*;

/// Requests of every kind but those that wait for `100 Continue`.
fn requests() -> Vec<Vec<u8>> {
    let mut lines = b"POST /lines HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    lines.extend_from_slice(&chunked(b"first\r\nsecond\n\nfourth, \xFF\nlast", 6));
    vec![
        PROBE.into(),
        b"HEAD /echo HTTP/1.1\r\nHost: a\r\n\r\n".into(),
        post("/echo", "Content-Type: application/json\r\n", "{\"a\":1}").into(),
        chunked_post("/echo", b"{\"units\":{\"user_id\":\"42\"}}", 5),
        post("/nowhere", "", "dropped").into(),
        chunked_post("/big", b"dropped too", 3),
        b"GET /big?700 HTTP/1.1\r\nHost: a\r\n\r\n".into(),
        lines,
        post("/lines", "", "a\nb\r\nc\n").into(),
        post("/lines", "", "").into(),
        b"GET /echo HTTP/1.0\r\nConnection: keep-alive\r\n\r\n".into(),
        b"GET /silent HTTP/1.1\r\nHost: a\r\n\r\n".into(),
    ]
}

/// Requests that end a connection.
fn last_requests() -> Vec<Vec<u8>> {
    vec![
        b"GET /echo HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".into(),
        b"GET /echo\r\n\r\n".into(),
        b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd".into(),
        b"POST /lines HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\na\nbX".into(),
        b"POST /lines HTTP/1.0\r\nContent-Length: 4\r\n\r\nx\nyz".into(),
        b"GET /unfinished".into(),
    ]
}

fn fed(stream: &[u8], cuts: &[usize]) -> Wire {
    let mut wire = Wire::new();
    let mut from = 0;
    for &cut in cuts.iter().chain([&stream.len()]) {
        wire.feed(&stream[from..cut]);
        from = cut;
    }
    wire.eof();
    assert_eq!(wire.workspace.carry_free(), 4);
    wire
}

#[test]
fn every_cut_of_a_stream_gives_the_same_answers() {
    for last in last_requests() {
        let mut stream = requests().concat();
        stream.extend_from_slice(&last);
        stream.extend_from_slice(PROBE.as_bytes());
        let whole = fed(&stream, &[]);
        assert!(whole.service.answered.len() >= 10);
        for cut in 0..=stream.len() {
            let wire = fed(&stream, &[cut]);
            assert_eq!(wire.text(), whole.text(), "cut at {cut}");
            assert_eq!(wire.service.refused, whole.service.refused);
            assert_eq!(wire.service.answered, whole.service.answered);
        }
        let all_cuts: Vec<usize> = (0..stream.len()).collect();
        assert_eq!(fed(&stream, &all_cuts).text(), whole.text(), "byte by byte");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn any_pieces_with_any_socket_give_the_same_answers(
        order in proptest::collection::vec(0..12usize, 1..30),
        last in 0..6usize,
        pieces in proptest::collection::vec(1..400usize, 1..40),
        takes in proptest::collection::vec(prop_oneof![Just(0usize), 1..3000usize, Just(usize::MAX)], 1..20),
    ) {
        let mut stream: Vec<u8> = order.iter().flat_map(|&number| requests()[number].clone()).collect();
        stream.extend_from_slice(&last_requests()[last]);
        let whole = fed(&stream, &[]);
        // Small output, slow socket: pauses, own slots, resumptions.
        let limits = Limits { output_batch_size: 1, ..limits() };
        let mut wire = Wire::with(limits, 4096);
        let mut pieces = pieces.iter().cycle();
        let mut takes = takes.iter().cycle();
        let mut rest = &stream[..];
        while !wire.closed && !rest.is_empty() {
            if wire.connection.wants_input() {
                let (piece, behind) = rest.split_at(*pieces.next().unwrap() % (rest.len() + 1));
                let piece = if piece.is_empty() { rest } else { piece };
                rest = if piece.len() == rest.len() { &[] } else { behind };
                wire.input(piece);
            }
            match *takes.next().unwrap() {
                // The socket is full: another connection has its turn.
                0 => {
                    prop_assert!(wire.connection.handle_blocked(&mut wire.workspace).is_ok());
                    let mut other = Connection::new();
                    other.handle_input(PROBE.as_bytes(), NOW, &mut wire.workspace, &mut Echo::default());
                    other.release(&mut wire.workspace);
                    wire.take(7);
                }
                size => drop(wire.take(size)),
            }
            wire.closed = wire.connection.poll_output(&wire.workspace) == Output::Close;
        }
        wire.take_all();
        wire.eof();
        prop_assert_eq!(wire.text(), whole.text());
        prop_assert_eq!(wire.service.answered, whole.service.answered);
        prop_assert_eq!(wire.workspace.carry_free(), 4);
        prop_assert_eq!(wire.workspace.pending_free(), 2);
    }
}
