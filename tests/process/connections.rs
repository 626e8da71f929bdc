//! Connections in number and of every kind, and what they cost.

use std::io::Write;
use std::sync::Mutex;
use std::time::Duration;

use nix::libc::{self, linger as Linger};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use nix::sys::socket::{setsockopt, sockopt};

use seccompiler::{SeccompAction, SeccompFilter};

use crate::for_each_backend;
use crate::support::{Client, Daemon, Plan, lines, post, signal, wait_until};

/// As many connections as the limit allows, 10,000 at most; our own files aside.
fn connection_count() -> usize {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    usize::try_from(hard).unwrap().saturating_sub(256).min(10_000)
}

/// System calls of the loop for each of so many requests that are all there when it looks.
fn calls_per_request(daemon: &Daemon, clients: &mut [Client], rounds: usize) -> f64 {
    let worker = daemon.child("assign/0").unwrap();
    let before = daemon.metric("splitd_system_calls_total");
    for _ in 0..rounds {
        signal(worker, Signal::SIGSTOP);
        for (user, client) in clients.iter_mut().enumerate() {
            let body = format!("{{\"units\":{{\"user_id\":\"{user}\"}}}}");
            assert!(client.send(post("/v1/assign", &body).as_bytes()));
        }
        signal(worker, Signal::SIGCONT);
        for client in clients.iter_mut() {
            assert_eq!(client.receive().expect("an answer").status, 200);
        }
    }
    let calls = daemon.metric("splitd_system_calls_total") - before;
    calls as f64 / (rounds * clients.len()) as f64
}

/// Sends without reading, behind so many bytes, until nothing is taken for a while;
/// how many requests have gone whole, and how many bytes.
fn flood(client: &Client, mut sent: usize) -> (usize, usize) {
    let mut stream = client.clone_stream();
    setsockopt(&stream, sockopt::RcvBuf, &65536).unwrap();
    stream.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    let request = post("/v1/assign", "{\"units\":{\"user_id\":\"1\"}}");
    let text = request.repeat(100);
    while let Ok(size) = stream.write(&text.as_bytes()[sent % request.len()..]) {
        sent += size;
        assert!(sent < 64 << 20, "somebody takes without end");
    }
    (sent / request.len(), sent)
}

/// Runs `body` where this system call fails so: on a thread of its own, whose
/// children are forked under the filter as it is.
fn where_refused(call: libc::c_long, errno: i32, body: impl FnOnce() + Send) {
    let filter = SeccompFilter::new(
        [(call, Vec::new())].into(),
        SeccompAction::Allow,
        SeccompAction::Errno(errno as u32),
        std::env::consts::ARCH.try_into().unwrap(),
    );
    let program: seccompiler::BpfProgram = filter.unwrap().try_into().unwrap();
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            seccompiler::apply_filter(&program).unwrap();
            body();
        });
        thread.join().unwrap();
    });
}

/// So many connections at once are as many as this process may have.
static ONE_CROWD: Mutex<()> = Mutex::new(());

for_each_backend! {
    ten_thousand_connections_are_served_and_stay(io) {
        let _crowd = ONE_CROWD.lock();
        let count = connection_count();
        let mut daemon = Plan::new(io, "edge.experiments.json").start();
        let mut clients: Vec<Client> = Vec::with_capacity(count);
        for _ in 0..count {
            let mut client = Client::connect(daemon.assign());
            assert_eq!(client.get("/livez").status, 200);
            clients.push(client);
        }
        assert!(daemon.metric("splitd_connections{") >= count as u64);
        for client in &mut clients {
            assert!(client.send(post("/v1/assign", "{\"units\":{\"user_id\":\"1\"}}").as_bytes()));
        }
        for client in &mut clients {
            assert_eq!(client.receive().expect("an answer").status, 200);
        }
        drop(clients);
        assert_eq!(daemon.metric("splitd_connections_closed_total{pool=\"assign\",reason=\"evicted\"}"), 0);
        assert_eq!(daemon.stop(), Some(0));
    }

    half_closed_and_reset_peers_leave_nothing_behind(io) {
        let mut daemon = Plan::new(io, "edge.experiments.json").start();
        let text = post("/v1/assign", "{\"units\":{\"user_id\":\"1\"}}").repeat(100);
        for round in 0..30 {
            let mut half_closed = Client::connect(daemon.assign());
            assert!(half_closed.send(text.as_bytes()));
            half_closed.clone_stream().shutdown(std::net::Shutdown::Write).unwrap();
            let mut reset = Client::connect(daemon.assign());
            assert!(reset.send(&text.as_bytes()[..[0, 20, text.len()][round % 3]]));
            let linger = Linger { l_onoff: 1, l_linger: 0 };
            setsockopt(&reset.clone_stream(), sockopt::Linger, &linger).unwrap();
            drop(reset);
            for _ in 0..100 {
                assert_eq!(half_closed.receive().expect("an answer").status, 200);
            }
            assert!(half_closed.closed());
        }
        assert_eq!(daemon.stop(), Some(0));
        let log = daemon.log();
        assert!(!log.contains("warn"), "{log}");
    }

    who_is_ready_together_gets_answers_of_ones_own_whatever_the_others_sent(io) {
        let daemon = Plan::new(io, "typical.experiments.json").start();
        let worker = daemon.child("assign/0").unwrap();
        let requests = lines("typical.requests.ndjson");
        let mut alone = Client::connect(daemon.assign());
        let answers: Vec<String> =
            requests.iter().take(100).map(|body| alone.post("/v1/assign", body).body).collect();
        let text = |user: usize| post("/v1/assign", &requests[user % answers.len()]);
        let mut asked = answers.len() as u64;
        // More together than a group has, with more to read and to say than a group's buffers hold.
        for round in 0..5 {
            let mut clients: Vec<Client> = (0..70).map(|_| Client::connect(daemon.assign())).collect();
            for client in &mut clients {
                assert_eq!(client.get("/livez").status, 200);
            }
            signal(worker, Signal::SIGSTOP);
            for (index, client) in clients.iter_mut().enumerate() {
                let user = index + round;
                assert!(match user % 7 {
                    0..3 => client.send(text(user).as_bytes()),
                    3 => client.send(&text(user).as_bytes()[..user % 400]),
                    4 => client.send((0..150).map(|more| text(user + more)).collect::<String>().as_bytes()),
                    5 => client.send(text(user).as_bytes()) && {
                        client.clone_stream().shutdown(std::net::Shutdown::Write).is_ok()
                    },
                    _ => {
                        let linger = Linger { l_onoff: 1, l_linger: 0 };
                        setsockopt(&client.clone_stream(), sockopt::Linger, &linger).unwrap();
                        client.send(b"GET / HTTP/1.1\r\n\r\n")
                    }
                });
                if user % 7 == 6 && user % 2 == 0 {
                    *client = Client::connect(daemon.assign()); // the one before is reset
                    assert!(client.send(b"GET / HTTP/1.1\r\n\r\n"));
                }
            }
            signal(worker, Signal::SIGCONT);
            for (index, client) in clients.iter_mut().enumerate() {
                let user = index + round;
                if user % 7 == 6 {
                    assert_eq!(client.receive().expect("an answer").status, 400, "there is no Host");
                    assert!(client.closed());
                    continue;
                }
                if user % 7 == 3 {
                    assert!(client.send(&text(user).as_bytes()[user % 400..]));
                }
                let count = if user % 7 == 4 { 150 } else { 1 };
                for user in user..user + count {
                    let answer = client.receive().expect("an answer");
                    assert_eq!((answer.status, &answer.body), (200, &answers[user % answers.len()]), "{user}");
                }
                asked += count as u64;
                assert!(user % 7 != 5 || client.closed());
            }
        }
        // Each is timed, once.
        let timed = "splitd_request_service_seconds_count{pool=\"assign\",route=\"assign\"";
        wait_until("every answer's time", || daemon.metric(timed) >= asked);
        assert_eq!(daemon.metric(timed), asked);
    }

    who_sends_and_does_not_read_keeps_nobody_waiting_and_loses_no_answer(io) {
        let mut daemon = Plan::new(io, "edge.experiments.json").start();
        let mut slow = Client::connect(daemon.assign());
        let (count, _) = flood(&slow, 0);
        let mut other = Client::connect(daemon.assign());
        let expected = other.post("/v1/assign", "{\"units\":{\"user_id\":\"1\"}}");
        assert_eq!(expected.status, 200);
        for index in 0..count {
            let answer = slow.receive().unwrap_or_else(|| panic!("answer {index} of {count}"));
            assert_eq!((answer.status, &answer.body), (200, &expected.body), "answer {index} of {count}");
        }
        assert_eq!(daemon.metric("splitd_connections_closed_total{pool=\"assign\""), 0);
        drop((slow, other));
        assert_eq!(daemon.stop(), Some(0));
    }

    who_never_reads_is_closed_when_its_time_is_over(io) {
        let mut daemon = Plan::new(io, "edge.experiments.json").set("pool.assign.write_timeout=300ms").start();
        let slow = Client::connect(daemon.assign());
        let closed = "splitd_connections_closed_total{pool=\"assign\",reason=\"slow\"}";
        // A worker that got no CPU for a while took nothing either.
        let mut sent = 0;
        wait_until("the reader's end", || {
            (_, sent) = flood(&slow, sent);
            daemon.metric(closed) == 1
        });
        drop(slow);
        assert_eq!(daemon.stop(), Some(0));
    }

    system_calls_stay_within_their_budget(io) {
        let daemon = Plan::new(io, "edge.experiments.json").start();
        let mut clients: Vec<Client> = (0..64).map(|_| Client::connect(daemon.assign())).collect();
        for client in &mut clients {
            assert_eq!(client.get("/livez").status, 200);
        }
        let calls = calls_per_request(&daemon, &mut clients, 100);
        println!("{io}: {calls:.3} system calls a request at 64 busy connections");
        // Two, and the waits; one for 20 where the kernel moves the bytes (it
        // completes so many at a time, since Linux 6.13).
        let most = if io == "epoll" { 2.1 } else { 0.1 };
        assert!(calls < most, "{calls}");
    }

    the_log_names_the_backend(io) {
        let mut daemon = Plan::new(io, "edge.experiments.json").start();
        assert!(daemon.log().contains(&format!("event=io pool=assign backend={io}")), "{}", daemon.log());
        assert_eq!(daemon.stop(), Some(0));
    }
}

#[test]
fn a_setting_of_auto_takes_a_backend_and_says_which() {
    let mut daemon = Plan::new("auto", "edge.experiments.json").start();
    assert_eq!(Client::connect(daemon.assign()).get("/v1/assign?user_id=1").status, 200);
    assert!(daemon.log().contains("event=io pool=assign backend="), "{}", daemon.log());
    assert_eq!(daemon.stop(), Some(0));
}

/// Containers forbid the first call (EPERM, as Docker's profile does), kernels
/// without io_uring do not know it, and those before 5.19 have no buffer rings.
#[test]
fn auto_falls_back_to_epoll_where_io_uring_is_refused_and_says_why() {
    for (call, errno, reason) in [
        (libc::SYS_io_uring_setup, libc::EPERM, "the kernel refuses a ring: Operation not permitted"),
        (libc::SYS_io_uring_setup, libc::ENOSYS, "the kernel refuses a ring: Function not implemented"),
        (libc::SYS_io_uring_register, libc::EINVAL, "the kernel refuses a ring of buffers"),
    ] {
        where_refused(call, errno, || {
            let mut daemon = Plan::new("auto", "edge.experiments.json").start();
            assert_eq!(Client::connect(daemon.assign()).get("/v1/assign?user_id=1").status, 200);
            let said = format!("event=io pool=assign backend=epoll reason=\"{reason}");
            assert!(daemon.log().contains(&said), "{said}\n{}", daemon.log());
            assert_eq!(daemon.stop(), Some(0));
            // Who asks for io_uring by name gets it or nothing.
            let output = daemon.command().args(["--set", "pool.assign.io=io_uring"]).output().unwrap();
            let text = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{text}");
            assert!(text.contains(&format!("pool.assign.io: {reason}")), "{text}");
        });
    }
}
