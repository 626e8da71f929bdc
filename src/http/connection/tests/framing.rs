//! What is refused with the connection closed.

use super::*;

/// Refused with `status` wherever it is cut; nothing behind it is answered.
fn refused(request: impl AsRef<[u8]>, status: u16) {
    let request = request.as_ref();
    let shown = String::from_utf8_lossy(request);
    let mut bytes = request.to_vec();
    bytes.extend_from_slice(PROBE.as_bytes());
    let splits: Vec<usize> = if bytes.len() < 200 { (0..=bytes.len()).collect() } else { vec![0, 1, 100] };
    let mut wire = Wire::new();
    for split in splits {
        wire = Wire {
            connection: Connection::new(),
            service: Echo::default(),
            output: Vec::new(),
            closed: false,
            ..wire
        };
        wire.feed(&bytes[..split]).feed(&bytes[split..]);
        assert!(wire.closed, "{shown:?} split at {split}");
        let replies = wire.replies();
        assert_eq!(wire.statuses(), [status], "{shown:?} split at {split}");
        assert_eq!(replies[0].header("Connection"), Some("close"));
        assert_eq!(replies[0].header("Content-Type"), Some("application/problem+json"));
        assert_eq!(wire.refusals(), [status]);
        assert!(wire.service.answered.is_empty());
        assert!(!wire.connection.holds_carry() && !wire.connection.wants_input());
        assert!(wire.connection.wants_linger(), "the client shall read why");
        assert_eq!(wire.workspace.carry_free(), 4);
    }
}

/// A GET with these header lines.
fn get(headers: &str) -> String {
    format!("GET /echo HTTP/1.1\r\nHost: a\r\n{headers}\r\n")
}

#[test]
fn a_request_line_must_be_exactly_as_the_grammar_has_it() {
    for line in [
        "GET /echo",
        "GET  /echo HTTP/1.1",
        "GET /echo  HTTP/1.1",
        "GET /echo HTTP/1.1 ",
        " GET /echo HTTP/1.1",
        "GET\t/echo HTTP/1.1",
        "GET /echo HTTP/1.1x",
        "GET /echo http/1.1",
        "GET /echo HTTP/1",
        "GET /echo HTTP/11",
        "GET /echo HTTP/01.1",
        "GET /echo HTTX/1.1",
        "GET /echo /x HTTP/1.1",
        "G(T /echo HTTP/1.1",
        "/echo HTTP/1.1",
        "GET HTTP/1.1",
        "GET",
    ] {
        refused(format!("{line}\r\nHost: a\r\n\r\n"), 400);
    }
}

#[test]
fn other_versions_are_not_supported() {
    for version in ["HTTP/0.9", "HTTP/1.2", "HTTP/2.0", "HTTP/3.0", "HTTP/9.9"] {
        refused(format!("GET /echo {version}\r\nHost: a\r\n\r\n"), 505);
    }
    // HTTP/2's preface.
    refused("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505);
}

#[test]
fn targets_hold_neither_bytes_above_7e_nor_controls_nor_fragments() {
    for byte in (0..=0x20).chain([b'#', 0x7F]).chain(0x80..=0xFF) {
        let mut request = b"GET /ec".to_vec();
        request.push(byte);
        request.extend_from_slice(b"ho HTTP/1.1\r\nHost: a\r\n\r\n");
        refused(&request, 400);
    }
}

#[test]
fn targets_are_a_path_or_an_http_uri() {
    for target in [
        "echo",
        "*",
        "?a",
        "ftp://a/echo",
        "http:/echo",
        "http:///echo",
        "http://",
        "http://a@b/echo",
        "a:80",
    ] {
        refused(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"), 400);
    }
    refused("CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n", 400);
}

#[test]
fn empty_lines_before_a_request_are_refused() {
    refused("\r\nGET /echo HTTP/1.1\r\nHost: a\r\n\r\n", 400);
    refused("\nGET /echo HTTP/1.1\r\nHost: a\r\n\r\n", 400);
    refused("\r\n\r\n", 400);
    // Behind a body is before the next request.
    let mut wire = Wire::new();
    wire.feed(post("/echo", "", "{}") + "\r\n" + PROBE);
    assert_eq!(wire.statuses(), [200, 400]);
    assert!(wire.closed);
}

#[test]
fn lines_end_with_cr_lf_alone() {
    for request in [
        "GET /echo HTTP/1.1\nHost: a\r\n\r\n",
        "GET /echo HTTP/1.1\r\nHost: a\n\r\n",
        "GET /echo HTTP/1.1\r\nHost: a\r\n\n",
        "GET /echo HTTP/1.1\r\nHost: a\n\n",
        "GET /echo HTTP/1.1\rHost: a\r\n\r\n",
        "GET /echo HTTP/1.1\r\nHost: a\rX: b\r\n\r\n",
        "GET /echo HTTP/1.1\r\nHost: a\r\nX: b\rc\r\n\r\n",
        "GET /echo HTTP/1.1\r\nHost: a\r\nX: b\r\r\n\r\n",
        "GET /echo HTTP/1.1\r\nHost: a\r\nX: b\nY: c\r\n\r\n",
        "GET /echo HTTP/1.1\r\nHost: a\r\nX:\n b\r\n\r\n",
        "GET /echo HTTP/1.1\r\nHost: a\r\nX:\r b\r\n\r\n",
        "GET /echo HTTP/1.1\r\r\nHost: a\r\n\r\n",
        "GET /echo HTTP/1.1\r\nHost: a\r\n\r\r\n\r\n",
    ] {
        refused(request, 400);
    }
}

#[test]
fn header_lines_are_not_folded_and_names_end_at_their_colon() {
    for headers in [
        "X: a\r\n b\r\n",
        "X: a\r\n\tb\r\n",
        " X: a\r\n",
        "X : a\r\n",
        "X\t: a\r\n",
        ": a\r\n",
        "X\r\n",
        "X y: a\r\n",
        "X(: a\r\n",
        "\u{e9}: a\r\n",
        "X\0: a\r\n",
        "X: a\0b\r\n",
        "X: a\x01b\r\n",
        "X: a\x7fb\r\n",
        "X: a\x0bb\r\n",
    ] {
        refused(get(headers), 400);
    }
    refused("GET /echo HTTP/1.1\r\n Host: a\r\n\r\n", 400);
    refused("GET /echo HTTP/1.1\r\n\0Host: a\r\n\r\n", 400);
}

#[test]
fn host_is_required_once_and_must_be_a_host() {
    refused("GET /echo HTTP/1.1\r\n\r\n", 400);
    refused("GET /echo HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400);
    refused("GET /echo HTTP/1.0\r\nHost: a\r\nhost: a\r\n\r\n", 400);
    refused("GET http://a/echo HTTP/1.1\r\n\r\n", 400);
    for host in [
        "a b", "a/b", "a,b", "a@b", "a:b", "a:80:80", "http://a", "[::1", "[]", "[::1]x", "::1", "a\tb",
        "\u{e9}",
    ] {
        refused(format!("GET /echo HTTP/1.1\r\nHost: {host}\r\n\r\n"), 400);
    }
}

#[test]
fn content_length_is_one_decimal_number() {
    for headers in [
        "Content-Length:\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: -5\r\n",
        "Content-Length: 5.0\r\n",
        "Content-Length: 0x5\r\n",
        "Content-Length: 5 5\r\n",
        "Content-Length: 5,5\r\n",
        "Content-Length: 5, 5\r\n",
        "Content-Length: \u{661}\r\n",
        "Content-Length: 18446744073709551616\r\n",
        "Content-Length: 99999999999999999999999\r\n",
        "Content-Length: 5\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\ncontent-length: 6\r\n",
        "Content-Length: 0\r\nContent-Length: 0\r\n",
    ] {
        refused(get(headers), 400);
    }
}

#[test]
fn transfer_encoding_is_exactly_chunked() {
    for (headers, status) in [
        ("Transfer-Encoding: gzip\r\n", 400),
        ("Transfer-Encoding: identity\r\n", 400),
        ("Transfer-Encoding:\r\n", 400),
        ("Transfer-Encoding: chunked, gzip\r\n", 400),
        ("Transfer-Encoding: chunked, chunked\r\n", 400),
        ("Transfer-Encoding: chunked,\r\n", 400),
        ("Transfer-Encoding: ,chunked\r\n", 400),
        ("Transfer-Encoding: xchunked\r\n", 400),
        ("Transfer-Encoding: chunked;a=b\r\n", 400),
        ("Transfer-Encoding: \"chunked\"\r\n", 400),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", 400),
        ("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n", 400),
        ("Transfer-Encoding: gzip, chunked\r\n", 501),
        ("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", 400),
        ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", 400),
        ("Content-Length: 0\r\nTransfer-Encoding: chunked\r\n", 400),
    ] {
        refused(get(headers), status);
    }
    refused("POST /echo HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400);
}

#[test]
fn chunked_framing_is_exactly_as_the_grammar_has_it() {
    for body in [
        "5\nabcde\r\n0\r\n\r\n",
        "5\r\nabcde0\r\n\r\n",
        "5\r\nabcdef\r\n0\r\n\r\n",
        "5\r\nabcde\n0\r\n\r\n",
        "+5\r\nabcde\r\n0\r\n\r\n",
        "-5\r\nabcde\r\n0\r\n\r\n",
        "0x5\r\nabcde\r\n0\r\n\r\n",
        " 5\r\nabcde\r\n0\r\n\r\n",
        "5 \r\nabcde\r\n0\r\n\r\n",
        "5 ;a\r\nabcde\r\n0\r\n\r\n",
        "\r\n",
        ";\r\n",
        "g\r\n",
        "5;\0\r\nabcde\r\n0\r\n\r\n",
        "5;a\rb\r\nabcde\r\n0\r\n\r\n",
        "00000000000000005\r\nabcde\r\n0\r\n\r\n",
        "10000000000000005\r\nabcde\r\n0\r\n\r\n",
        "0\r\nX : y\r\n\r\n",
        "0\r\n X: y\r\n\r\n",
        "0\r\nX: y\n\r\n",
        "0\r\n\n",
    ] {
        refused(format!("POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}"), 400);
    }
}

#[test]
fn bodies_too_large_are_refused_as_soon_as_it_shows() {
    refused("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 65537\r\n\r\n", 413);
    refused("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551615\r\n\r\n", 413);
    refused("GET /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 101\r\n\r\n", 413);
    let head = "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    refused(format!("{head}10001\r\n"), 413);
    refused(format!("{head}ffffffffffffffff\r\n"), 413);
    let mut wire = Wire::new();
    wire.feed(head).feed("8000\r\n").feed([b'x'; 0x8000]).feed("\r\n7fff\r\n").feed([b'x'; 0x7FFF]);
    assert!(!wire.closed);
    wire.feed("\r\n2\r\n");
    assert!(wire.closed);
    assert_eq!(wire.statuses(), [413]);
}

#[test]
fn heads_are_bounded_in_bytes_and_in_headers() {
    let max = crate::limits::HEAD_SIZE_MAX;
    let filled = |size: usize| {
        let head = get("X: \r\n");
        head.replace("X: ", &format!("X: {}", "x".repeat(size - head.len())))
    };
    let mut wire = Wire::new();
    assert_eq!(filled(max).len(), max);
    wire.feed(filled(max)).feed(PROBE);
    assert_eq!(wire.statuses(), [200, 200]);
    refused(filled(max + 1), 431);
    refused(filled(max + 5000), 431);
    refused(format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(max)), 414);
    refused(format!("GET /{}", "x".repeat(max)), 414);
    refused("x".repeat(max + 10), 414);
    refused(format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(max - 20)), 431);
    let headers: String = (0..64).map(|number| format!("X-{number}: y\r\n")).collect();
    refused(get(&headers), 431);
}

#[test]
fn a_head_that_dribbles_is_searched_once() {
    // What was searched is not looked at again: the bare LF goes unseen here,
    // which is why it is refused when it comes.
    assert_eq!(request::scan_head(b"GET /\nx\r\n", 6, 100), Ok(HeadScan::Partial(9)));
    assert_eq!(request::scan_head(b"GET /\nx\r\n\r\n", 9, 100), Ok(HeadScan::Complete(11)));
    assert!(request::scan_head(b"GET /\nx\r\n", 0, 100).is_err());
    let head = get(&"X: y\r\n".repeat(20));
    let mut scanned = 0;
    for size in 1..head.len() {
        match request::scan_head(&head.as_bytes()[..size], scanned, 8192) {
            Ok(HeadScan::Partial(now)) => {
                assert_eq!(now, size);
                scanned = now;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(request::scan_head(head.as_bytes(), scanned, 8192), Ok(HeadScan::Complete(head.len())));
}

#[test]
fn a_refusal_comes_after_the_answers_before_it() {
    let mut wire = Wire::new();
    wire.feed(format!("{PROBE}{PROBE}BAD\r\n\r\n{PROBE}"));
    assert_eq!(wire.statuses(), [200, 200, 400]);
    assert!(wire.closed);
}

/// A plain twin of the head's reader: by lines, by hand, by no library. For
/// origin-form targets, HTTP/1.1, and hosts of letters and digits.
fn plain_head(head: &str) -> Option<(String, Vec<(String, String)>)> {
    let token = |text: &str| {
        !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c))
    };
    let mut lines = head.strip_suffix("\r\n\r\n")?.split("\r\n");
    let request_line: Vec<&str> = lines.next()?.split(' ').collect();
    let [method, target, version] = request_line[..] else {
        return None;
    };
    let sound = token(method)
        && target.starts_with('/')
        && target.chars().all(|c| ('!'..='~').contains(&c) && c != '#')
        && version == "HTTP/1.1";
    if !sound {
        return None;
    }
    let headers: Vec<(String, String)> = lines
        .map(|line| {
            let (name, value) = line.split_once(':')?;
            let sound = token(name) && value.chars().all(|c| c == '\t' || (c >= ' ' && c != '\x7f'));
            sound.then(|| (name.to_ascii_lowercase(), value.trim_matches([' ', '\t']).to_owned()))
        })
        .collect::<Option<_>>()?;
    let all = |wanted: &str| headers.iter().filter(|(name, _)| name == wanted).collect::<Vec<_>>();
    let (hosts, lengths, codings) = (all("host"), all("content-length"), all("transfer-encoding"));
    let sound = hosts.len() == 1
        && hosts[0].1.chars().all(|c| c.is_ascii_alphanumeric())
        && lengths.len() + codings.len() <= 1
        && lengths.iter().all(|(_, value)| !value.is_empty() && value.chars().all(|c| c.is_ascii_digit()))
        && codings.iter().all(|(_, value)| value.eq_ignore_ascii_case("chunked"));
    sound.then(|| (target.to_owned(), headers))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]
    #[test]
    fn heads_are_read_as_their_plain_twin_reads_them(
        line in prop_oneof![
            4 => Just("GET /echo?x HTTP/1.1\r\n".to_owned()),
            1 => "[ -~]{1,20}\r?\n",
            1 => "(GET|PUT|A B|) ?/[ -\u{80}]{0,5} HTTP/1.1\r\n",
        ],
        headers in proptest::collection::vec(prop_oneof![
            4 => Just("Host: abc\r\n".to_owned()),
            2 => "X-[a-z]{1,3}:[ \t]{0,2}[!-~ \t]{0,6}\r\n",
            1 => "(Content-Length|content-length):[ \t]?[0-9a+, ]{0,3}[ \t]?\r\n",
            1 => "Transfer-Encoding: ?(chunked|Chunked|gzip|chunked,)\r\n",
            1 => "[a-zA-Z :\t]{0,4}:[ -\u{7f}\u{0}\r\n]{0,4}\r\n",
            1 => "[ -~]{0,6}\r?\n?",
        ], 0..5),
    ) {
        let head = format!("{line}{}\r\n", headers.concat());
        let Ok(HeadScan::Complete(size)) = request::scan_head(head.as_bytes(), 0, 8192) else {
            prop_assert!(head.find("\r\n\r\n").is_none_or(|end| plain_head(&head[..end + 4]).is_none()));
            return Ok(());
        };
        let head = &head[..size];
        let (read, plain) = (request::parse_head(head.as_bytes()), plain_head(head));
        prop_assert_eq!(read.is_ok(), plain.is_some(), "{:?}: {:?}", head, read);
        if let (Ok(read), Some((target, headers))) = (read, plain) {
            let (path, query) = match target.split_once('?') {
                Some((path, query)) => (path, Some(query)),
                None => (&target[..], None),
            };
            prop_assert_eq!((read.path, read.query), (path, query));
            let value = |wanted: &str| headers.iter().find(|(name, _)| name == wanted).map(|(_, value)| value);
            let body = match value("content-length") {
                Some(size) => BodyLength::Known(size.parse().unwrap()),
                None if value("transfer-encoding").is_some() => BodyLength::Chunked,
                None => BodyLength::None,
            };
            prop_assert_eq!(read.body, body);
        }
    }
}
