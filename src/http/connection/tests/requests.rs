//! What is taken, and what is refused with the connection kept.

use super::*;

#[test]
fn a_get_is_answered_with_date_type_length_and_the_services_headers() {
    let mut wire = Wire::new();
    wire.feed("GET /echo?a=b HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(
        wire.text(),
        "HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nX-Version: 1\r\n\
         Content-Type: text/plain; charset=utf-8\r\nContent-Length:        29\r\n\r\n\
         Get /echo Some(\"a=b\") Http11 "
    );
    assert!(!wire.closed);
    assert_eq!(wire.service.answered, [Status::Ok]);
    assert!(wire.connection.is_idle());
}

#[test]
fn a_body_of_known_length_is_given_whole() {
    for split in [0, 1, 30, 75] {
        let mut wire = Wire::new();
        let request = post("/echo", "Content-Type: application/json\r\n", "{\"units\":{}}");
        wire.feed(&request[..split]).feed(&request[split..]).feed(PROBE);
        assert_eq!(wire.replies()[0].body, "Post /echo None Http11 {\"units\":{}}");
        assert!(is_probed(&wire.replies()[1]));
        assert!(!wire.connection.holds_carry());
    }
}

#[test]
fn a_chunked_body_is_joined_and_its_trailers_and_extensions_dropped() {
    let mut wire = Wire::new();
    wire.feed(
        "POST /echo HTTP/1.1\r\nHost: a\r\ntransfer-encoding: Chunked\r\n\r\n\
         4;ext=\"a b\"\r\nWiki\r\n5\r\npedia\r\n0\r\nX-Sum: 1\r\n\r\n",
    )
    .feed(PROBE);
    assert_eq!(wire.replies()[0].body, "Post /echo None Http11 Wikipedia");
    assert!(is_probed(&wire.replies()[1]));
    assert!(!wire.connection.holds_carry());
}

#[test]
fn an_empty_body_may_be_said_in_three_ways() {
    let mut wire = Wire::new();
    wire.feed("POST /echo HTTP/1.1\r\nHost: a\r\n\r\n")
        .feed("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 000\r\n\r\n")
        .feed("POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n");
    let replies = wire.replies();
    assert_eq!(replies.len(), 3);
    assert!(replies.iter().all(|reply| reply.body == "Post /echo None Http11 "));
}

#[test]
fn a_body_of_the_largest_size_is_taken() {
    let largest = "x".repeat(crate::limits::BODY_SIZE_MAX);
    for chunk_size in [1, 1000, 65_536] {
        let mut wire = Wire::with(limits(), 100_000);
        wire.feed(post("/echo", "", &largest)).feed(chunked_post("/echo", largest.as_bytes(), chunk_size));
        let replies = wire.replies();
        assert_eq!(wire.statuses(), [200, 200]);
        assert!(replies.iter().all(|reply| reply.body.len() == largest.len() + 23));
    }
}

#[test]
fn http_1_0_closes_unless_asked_to_keep_the_connection() {
    let mut wire = Wire::new();
    wire.feed("GET /echo HTTP/1.0\r\n\r\n");
    assert!(wire.closed);
    assert_eq!(wire.replies()[0].header("Connection"), Some("close"));
    assert_eq!(wire.replies()[0].body, "Get /echo None Http10 ");

    let mut wire = Wire::new();
    wire.feed("GET /echo HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n");
    assert!(!wire.closed);
    assert_eq!(wire.replies()[0].header("Connection"), Some("keep-alive"));
    wire.feed("GET /nowhere HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").feed(PROBE);
    assert_eq!(wire.replies()[1].header("Connection"), Some("keep-alive"));
    assert!(is_probed(&wire.replies()[2]));
}

#[test]
fn connection_close_is_honoured_and_said_back() {
    for value in ["close", "Close", "keep-alive, close", "x,\tclose ,y"] {
        let mut wire = Wire::new();
        wire.feed(format!("GET /echo HTTP/1.1\r\nHost: a\r\nConnection: {value}\r\n\r\n{PROBE}"));
        assert!(wire.closed, "{value}");
        assert_eq!(wire.replies().len(), 1);
        assert_eq!(wire.replies()[0].header("Connection"), Some("close"));
        assert!(wire.connection.wants_linger());
    }
    let mut wire = Wire::new();
    wire.feed("GET /nowhere HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert!(wire.closed);
}

#[test]
fn head_is_answered_like_get_without_the_body() {
    let mut wire = Wire::new();
    wire.feed("HEAD /big?1000 HTTP/1.1\r\nHost: a\r\n\r\nHEAD /nowhere HTTP/1.1\r\nHost: a\r\n\r\n")
        .feed(PROBE);
    let replies = replies(&wire.output, &[0, 1]);
    assert_eq!(replies[0].header("Content-Length"), Some("1000"));
    assert_eq!(replies[1].status, 404);
    assert!(is_probed(&replies[2]));
}

#[test]
fn a_head_request_with_a_body_too_large_gets_no_body_either() {
    let mut wire = Wire::new();
    wire.feed("HEAD /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n70\r\n");
    assert_eq!(replies(&wire.output, &[0])[0].status, 413);
    assert!(wire.text().ends_with("\r\n\r\n"));
}

#[test]
fn absolute_targets_are_routed_by_their_path() {
    for (target, path, query) in [
        ("http://host/echo?a", "/echo", "Some(\"a\")"),
        ("HTTP://host:80/echo", "/echo", "None"),
        ("https://[::1]:8443/echo", "/echo", "None"),
        ("http://host", "/", "None"),
        ("http://host?x=/y", "/", "Some(\"x=/y\")"),
        ("/?", "/", "Some(\"\")"),
        ("/echo?a?b", "/echo", "Some(\"a?b\")"),
    ] {
        let mut wire = Wire::new();
        wire.feed(format!("GET {target} HTTP/1.1\r\nHost: other\r\n\r\n"));
        assert_eq!(wire.replies()[0].body, format!("Get {path} {query} Http11 "), "{target}");
    }
}

#[test]
fn the_server_as_a_whole_is_no_resource_of_ours() {
    let mut wire = Wire::new();
    wire.feed("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n").feed(PROBE);
    assert_eq!(wire.statuses(), [404, 200]);
}

#[test]
fn odd_but_sound_heads_are_taken() {
    for header in [
        "X:\r\n",
        "X:   \t \r\n",
        "X:a\r\n",
        "X: \"\u{e9}\u{65e5}\" \t\r\n",
        "!#$%&'*+-.^_`|~09aZ: x\r\n",
        "Cookie: a; b\r\n",
        "Host2: b\r\n",
        "Content-Lengths: 5\r\n",
        "Expect: 100-Continue\r\n",
        "Content-Type: text/plain\r\n",
    ] {
        let mut wire = Wire::new();
        wire.feed(format!("GET /echo HTTP/1.1\r\nhOSt:a\r\n{header}\r\n{PROBE}"));
        assert_eq!(wire.statuses(), [200, 200], "{header:?}");
    }
    for host in
        ["", "a", "a:", "a:80", "127.0.0.1:8080", "[::1]", "[2001:db8::1]:80", "a_b.c-d~!$&'()*+;=%41"]
    {
        let mut wire = Wire::new();
        wire.feed(format!("GET /echo HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert_eq!(wire.statuses(), [200], "{host:?}");
    }
    let headers: String = (0..63).map(|number| format!("X-{number}: y\r\n")).collect();
    let mut wire = Wire::new();
    wire.feed(format!("GET /echo HTTP/1.1\r\nHost: a\r\n{headers}\r\n"));
    assert_eq!(wire.statuses(), [200]);
}

#[test]
fn refusals_with_sound_framing_keep_the_connection_and_drop_the_body() {
    let json = "Content-Type: application/json\r\n";
    for (request, status) in [
        ("GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 404),
        (post("/nowhere", json, "GET /echo HTTP/1.1\r\n\r\n"), 404),
        (post("/big", json, "{}"), 405),
        ("DELETE /echo HTTP/1.1\r\nHost: a\r\n\r\n".into(), 405),
        ("BREW /echo HTTP/1.1\r\nHost: a\r\n\r\n".into(), 501),
        ("BREW /nowhere HTTP/1.1\r\nHost: a\r\n\r\n".into(), 404),
        ("get /echo HTTP/1.1\r\nHost: a\r\n\r\n".into(), 501),
        (post("/echo", "Content-Type: text/plain\r\n", "{}"), 415),
        (post("/echo", "Content-Type: application/x-www-form-urlencoded\r\n", "a=b"), 415),
        (post("/echo", "Content-Type: application/jsonx\r\n", "{}"), 415),
        (post("/echo", "Content-Type: \r\n", "{}"), 415),
        (post("/echo", "Expect: 200-ok\r\n", "{}"), 417),
        (post("/echo", "Expect: 100-continue, x\r\n", "{}"), 417),
        (post("/echo", "Expect: 100-continue\r\nExpect: x\r\n", "{}"), 417),
        (post("/busy", json, "{}"), 503),
    ] {
        for split in 0..request.len() {
            let mut wire = Wire::new();
            wire.feed(&request[..split]).feed(&request[split..]);
            assert!(!wire.connection.holds_carry(), "a refused body is not kept");
            wire.feed(PROBE);
            assert_eq!(wire.statuses(), [status, 200], "{request:?} split at {split}");
            let reply = &wire.replies()[0];
            assert_eq!(reply.header("Content-Type"), Some("application/problem+json"));
            let problem: serde_json::Value = serde_json::from_str(&reply.body).unwrap();
            assert_eq!(problem["status"], status);
            assert!(problem["title"].is_string() && problem["detail"].is_string());
            assert_eq!(reply.header("Allow").is_some(), status == 405);
            assert_eq!(reply.header("Retry-After"), (status == 503).then_some("7"));
            assert_eq!(wire.refusals(), [status]);
        }
    }
}

#[test]
fn json_is_json_with_parameters_and_suffixes() {
    for content_type in [
        "application/json",
        "Application/JSON; charset=utf-8",
        "application/json ;x",
        "application/vnd.x+json",
    ] {
        let mut wire = Wire::new();
        wire.feed(post("/echo", &format!("Content-Type: {content_type}\r\n"), "{}"));
        assert_eq!(wire.statuses(), [200], "{content_type}");
    }
}

#[test]
fn a_refused_chunked_body_is_dropped_in_any_pieces() {
    let mut request = chunked_post("/nowhere", &[b'x'; 300], 7);
    request.extend_from_slice(PROBE.as_bytes());
    for size in [1, 2, 3, 50, 1000] {
        let mut wire = Wire::new();
        for piece in request.chunks(size) {
            wire.feed(piece);
        }
        assert_eq!(wire.statuses(), [404, 200]);
        assert_eq!(wire.service.admitted, 2);
    }
}

#[test]
fn a_refused_body_that_is_longer_than_a_body_may_be_closes() {
    let mut wire = Wire::new();
    wire.feed("POST /nowhere HTTP/1.1\r\nHost: a\r\nContent-Length: 65537\r\n\r\n");
    assert!(wire.closed);
    assert_eq!(wire.statuses(), [404]);
    assert_eq!(wire.replies()[0].header("Connection"), Some("close"));

    let mut wire = Wire::new();
    wire.feed(chunked_post("/nowhere", &[b'x'; 70_000], 1000));
    assert!(wire.closed);
    assert_eq!(wire.statuses(), [404]);

    let mut wire = Wire::new();
    wire.feed("POST /nowhere HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcdefg");
    assert!(wire.closed, "framing that breaks later closes too");
    assert_eq!(wire.statuses(), [404]);
}

#[test]
fn faults_are_judged_in_their_order() {
    let long = "Content-Length: 99999999\r\n";
    let all = "Host: a\r\nContent-Type: x\r\nExpect: x\r\n";
    for (request, status) in [
        (format!("BREW /nowhere HTTP/1.1\r\n{all}{long}{long}\r\n"), 400),
        (format!("BREW /nowhere HTTP/1.1\r\n{all}{long}\r\n"), 404),
        (format!("PUT /echo HTTP/1.1\r\n{all}{long}\r\n"), 405),
        (format!("POST /echo HTTP/1.1\r\n{all}{long}\r\n"), 413),
        (format!("POST /echo HTTP/1.1\r\n{all}\r\n"), 415),
        ("POST /echo HTTP/1.1\r\nHost: a\r\nExpect: x\r\n\r\n".into(), 417),
    ] {
        let mut wire = Wire::new();
        wire.feed(&request);
        assert_eq!(wire.statuses(), [status], "{request}");
    }
}

#[test]
fn a_client_that_waits_is_told_to_continue() {
    let mut wire = Wire::new();
    let request = post("/echo", "Expect: 100-continue\r\n", "{}");
    let (head, body) = request.split_at(request.len() - 2);
    wire.feed(head);
    assert_eq!(wire.text(), "HTTP/1.1 100 Continue\r\n\r\n");
    assert_eq!(wire.connection.wait(), Wait::Body);
    wire.feed(body);
    assert_eq!(wire.statuses(), [200]);

    for path in ["/echo", "/lines"] {
        let mut wire = Wire::new();
        wire.feed(format!(
            "POST {path} HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n"
        ));
        assert_eq!(wire.text(), "HTTP/1.1 100 Continue\r\n\r\n");
        wire.feed("2\r\n{}\r\n0\r\n\r\n").feed(PROBE);
        assert_eq!(wire.statuses(), [200, 200]);
    }
}

#[test]
fn a_client_that_does_not_wait_is_not_told_to_continue() {
    for request in [
        post("/echo", "Expect: 100-continue\r\n", "{}"),
        post("/echo", "Expect: 100-continue\r\n", ""),
        "GET /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n".into(),
        "GET /echo HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n{}".into(),
        "GET /echo HTTP/1.0\r\nExpect: what\r\n\r\n".into(),
    ] {
        let mut wire = Wire::new();
        wire.feed(&request);
        assert!(wire.text().starts_with("HTTP/1.1 200 OK\r\n"), "{request}");
    }
}

#[test]
fn a_client_that_waits_and_is_refused_is_told_that_the_connection_closes() {
    for (path, headers, status) in
        [("/nowhere", "", 404), ("/big", "", 405), ("/echo", "Content-Type: text/plain\r\n", 415)]
    {
        let mut wire = Wire::new();
        wire.feed(format!(
            "POST {path} HTTP/1.1\r\nHost: a\r\n{headers}Expect: 100-continue\r\nContent-Length: 5\r\n\r\n"
        ));
        assert!(wire.closed);
        assert_eq!(wire.statuses(), [status]);
        assert_eq!(wire.replies()[0].header("Connection"), Some("close"));
    }
}

#[test]
fn an_unmet_expectation_keeps_the_connection_while_its_body_comes() {
    let mut wire = Wire::new();
    wire.feed("POST /echo HTTP/1.1\r\nHost: a\r\nExpect: x\r\nContent-Length: 5\r\n\r\n");
    assert_eq!(wire.statuses(), [417]);
    assert_eq!(wire.connection.wait(), Wait::Body);
    wire.feed("abcde").feed(PROBE);
    assert_eq!(wire.statuses(), [417, 200]);
}

#[test]
fn a_whole_request_needs_no_carry_slot() {
    let mut wire = Wire::with(Limits { carry_count: 1, ..limits() }, 4096);
    let mut other = Connection::new();
    other.handle_input(b"GET /ec", NOW, &mut wire.workspace, &mut wire.service);
    assert!(other.holds_carry());
    assert_eq!(wire.workspace.carry_free(), 0);
    wire.feed(post("/echo", "", "{}") + PROBE);
    assert_eq!(wire.statuses(), [200, 200]);
    other.release(&mut wire.workspace);
    assert_eq!(wire.workspace.carry_free(), 1);
}
