//! Every refusal of HTTP on a real socket, and that nobody else notices.

use crate::for_each_backend;
use crate::support::{Client, Plan};

/// (what is sent, the status, whether the connection stays)
fn refusals() -> Vec<(String, u16, bool)> {
    let head = |lines: &str| format!("{lines}\r\n\r\n");
    let post = |extra: &str, body: &str| {
        format!("POST /v1/assign HTTP/1.1\r\nHost: t\r\n{extra}Content-Length: {}\r\n\r\n{body}", body.len())
    };
    let close = |text: String, status| (text, status, false);
    let keep = |text: String, status| (text, status, true);
    vec![
        close(
            head("POST /v1/assign HTTP/1.1\r\nHost: t\r\nContent-Length: 2\r\nTransfer-Encoding: chunked"),
            400,
        ),
        close(head("POST /v1/assign HTTP/1.1\r\nHost: t\r\nContent-Length: 2\r\nContent-Length: 2"), 400),
        close(head("POST /v1/assign HTTP/1.0\r\nTransfer-Encoding: chunked"), 400),
        close(head("POST /v1/assign HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: gzip, chunked"), 501),
        close(
            head("POST /v1/assign HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n0x2\r\n{}\r\n0"),
            400,
        ),
        close(head("GET /livez HTTP/1.1\r\nHost: t\r\nX: a\r\n b"), 400),
        close(head("GET /livez HTTP/1.1\r\nHost : t"), 400),
        close("GET /livez HTTP/1.1\r\nHost: t\n\r\n\r\n".to_owned(), 400),
        close(head("GET /livez HTTP/1.1\r\nHost: t\r\nX: a\rb"), 400),
        close(head("GET /livez HTTP/1.1\r\nHost: t\r\nX: a\0b"), 400),
        close(format!("\r\n{}", head("GET /livez HTTP/1.1\r\nHost: t")), 400),
        close(head("GET /livez\u{e9} HTTP/1.1\r\nHost: t"), 400),
        close(head("GET /livez HTTP/1.1\r\nX: t"), 400),
        close(head("GET /livez HTTP/1.1\r\nHost: t\r\nHost: t"), 400),
        close(head(&format!("GET /livez HTTP/1.1\r\nHost: t{}", "\r\nX: y".repeat(64))), 431),
        close(head(&format!("GET /{} HTTP/1.1\r\nHost: t", "x".repeat(9000))), 414),
        close(head(&format!("GET /livez HTTP/1.1\r\nHost: t\r\nX: {}", "x".repeat(9000))), 431),
        close(head("POST /v1/assign HTTP/1.1\r\nHost: t\r\nContent-Length: 65537"), 413),
        keep(head("GET /nowhere HTTP/1.1\r\nHost: t"), 404),
        keep(head("DELETE /v1/assign HTTP/1.1\r\nHost: t"), 405),
        keep(post("Content-Type: text/xml\r\n", "{\"units\":{}}"), 415),
        keep(post("Expect: wonders\r\n", "{\"units\":{}}"), 417),
        keep(post("", "{\"units\":{}"), 400),
        keep(post("", "{}"), 400),
        keep(post("", "{\"units\":{\"user_id\":1.0}}"), 400),
        keep(post("", "{\"units\":{\"user_id\":\"\\ud800\"}}"), 400),
        keep(post("", &format!("{{\"units\":{{}},\"x\":{}{}}}", "[".repeat(70), "]".repeat(70))), 400),
    ]
}

for_each_backend! {
    a_refusal_has_its_status_and_harms_nobody_else(io) {
        let daemon = Plan::new(io, "edge.experiments.json").start();
        let mut neighbour = Client::connect(daemon.assign());
        for (text, status, stays) in refusals() {
            let mut client = Client::connect(daemon.assign());
            assert!(client.send(text.as_bytes()));
            let response = client.receive().unwrap_or_else(|| panic!("no answer to {text:?}"));
            assert_eq!(response.status, status, "{text:?}: {response:?}");
            assert_eq!(response.header("content-type"), Some("application/problem+json"), "{response:?}");
            assert_eq!(response.json()["status"], status);
            if stays {
                assert_eq!(response.header("connection"), None, "{text:?}");
                assert_eq!(client.get("/livez").status, 200, "{text:?}");
            } else {
                assert_eq!(response.header("connection"), Some("close"), "{text:?}");
                assert!(client.closed(), "{text:?}");
            }
            assert_eq!(neighbour.get("/v1/assign?user_id=1").status, 200, "after {text:?}");
        }
    }

    strict_pools_refuse_mistyped_values_by_name(io) {
        let daemon = Plan::new(io, "edge.experiments.json").set("pool.assign.validation=strict").start();
        let mut client = Client::connect(daemon.assign());
        let response = client.post("/v1/assign", r#"{"units":{"user_id":"1"},"attributes":{"n":"18"}}"#);
        assert_eq!(response.status, 422);
        assert!(response.body.contains("`n`"), "{response:?}");
        assert_eq!(client.get("/v1/assign?user_id=1&n=18").status, 200);
        assert_eq!(client.get("/v1/assign?user_id=1&n=x").status, 422);
        wait_until_counted(&daemon);
    }

    slow_clients_are_sent_away_and_cost_nobody_else(io) {
        let daemon = Plan::new(io, "edge.experiments.json")
            .set("pool.assign.head_timeout=200ms")
            .set("pool.assign.body_timeout=200ms")
            .set("pool.assign.idle_timeout=300ms")
            .start();
        let mut slow_head = Client::connect(daemon.assign());
        slow_head.send(b"GET /livez HT");
        let mut slow_body = Client::connect(daemon.assign());
        slow_body.send(b"POST /v1/assign HTTP/1.1\r\nHost: t\r\nContent-Length: 10\r\n\r\n{");
        let mut idle = Client::connect(daemon.assign());
        assert_eq!(slow_head.receive().expect("408").status, 408);
        assert_eq!(slow_body.receive().expect("408").status, 408);
        assert!(idle.closed());
        assert_eq!(Client::connect(daemon.assign()).get("/livez").status, 200);
    }

    a_client_that_reads_slowly_gets_everything_and_holds_up_nobody(io) {
        let daemon = Plan::new(io, "typical.experiments.json").start();
        let body = crate::support::lines("typical.requests.ndjson")[0].clone();
        let request = crate::support::post("/v1/assign", &body);
        let mut slow = Client::connect(daemon.assign());
        // Answers of far more than the socket buffers of both sides hold.
        let count = 20_000;
        let sender = {
            let mut stream = slow.clone_stream();
            std::thread::spawn(move || {
                use std::io::Write;
                for _ in 0..count {
                    stream.write_all(request.as_bytes()).unwrap();
                }
            })
        };
        let mut quick = Client::connect(daemon.assign());
        for user in 0..200 {
            assert_eq!(quick.get(&format!("/v1/assign?user_id={user}&exposure=false")).status, 200);
        }
        for _ in 0..count {
            assert_eq!(slow.receive().expect("an answer").status, 200);
        }
        sender.join().unwrap();
    }
}

fn wait_until_counted(daemon: &crate::support::Daemon) {
    crate::support::wait_until("attribute faults counted", || {
        daemon.metric("splitd_attribute_faults_total{pool=\"assign\"") == 2
    });
}
