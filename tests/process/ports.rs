//! A port of its own for each worker, and one for HAProxy's agent.

use std::io::Read;
use std::net::TcpStream;

use crate::for_each_backend;
use crate::support::{Client, Daemon, Plan, signal, wait_until};

for_each_backend! {
    each_worker_answers_on_its_own_port_and_a_neighbour_on_that_of_a_dead_one(io) {
        let mut daemon = Plan::new(io, "edge.experiments.json").workers(3).set("pool.assign.ports=per_worker").start();
        daemon.expect("event=ended process=assign/1");
        daemon.expect("event=restart_waits process=assign/1");
        let ports = [0, 1, 2].map(|index| daemon.assign() + index);
        // Two for each, as a proxy by `leastconn` would have them.
        let mut clients: Vec<Client> = ports.iter().chain(&ports).map(|port| Client::connect(*port)).collect();
        for client in &mut clients {
            assert_eq!(client.get("/v1/assign?user_id=1").status, 200);
        }
        let spread = || {
            let text = Client::connect(daemon.admin()).get("/metrics").body;
            let name = "splitd_connections_busiest_ratio{pool=\"assign\"} ";
            text.lines().find_map(|line| line.strip_prefix(name)).unwrap().to_owned()
        };
        wait_until("an even spread", || spread() == "1.000");
        clients.extend((0..6).map(|_| Client::connect(ports[2])));
        wait_until("eight of twelve at one of three", || spread() == "2.000");
        drop(clients);
        daemon.while_missing("assign/1", || {
            let mut clients: Vec<Client> = (0..64).map(|_| Client::connect(ports[1])).collect();
            for client in &mut clients {
                assert_eq!(client.get("/v1/assign?user_id=1").status, 200);
            }
        });
    }

    whoever_asks_as_the_agent_gets_one_line_and_the_admin_workers_successor_speaks_on(io) {
        let mut daemon = Plan::new(io, "edge.experiments.json").set("drain_idle=1s").set("pool.admin.head_timeout=1h").start();
        daemon.expect("event=ended process=admin/0");
        daemon.expect("event=restart_waits process=admin/0");
        let line = |daemon: &Daemon| {
            let mut text = String::new();
            TcpStream::connect(("127.0.0.1", daemon.agent())).unwrap().read_to_string(&mut text).unwrap();
            text
        };
        let counted = |daemon: &Daemon| daemon.metric("splitd_connections_closed_total{pool=\"admin\"");
        let before = counted(&daemon);
        for _ in 0..100 {
            assert_eq!(line(&daemon), "up ready 100%\n");
        }
        assert!(counted(&daemon) <= before + 10, "they are no HTTP connections");
        daemon.kill_child("admin/0");
        assert_eq!(line(&daemon), "up ready 100%\n");
        // A request that is not whole keeps the drain waiting.
        let mut held = Client::connect(daemon.admin());
        assert!(held.send(b"GET /livez HTTP/1.1\r\n"));
        signal(daemon.master_pid(), nix::sys::signal::Signal::SIGSTOP);
        signal(daemon.master_pid(), nix::sys::signal::Signal::SIGTERM);
        assert_eq!(line(&daemon), "up ready 100%\n", "nobody has told it yet");
        signal(daemon.master_pid(), nix::sys::signal::Signal::SIGCONT);
        wait_until("drain", || line(&daemon) == "drain\n");
        assert!(held.send(b"Host: t\r\n\r\n"));
        assert_eq!(held.receive().expect("its answer").status, 200);
        assert_eq!(daemon.wait(), Some(0));
    }
}
