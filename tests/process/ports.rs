//! A port of its own for each worker.

use crate::for_each_backend;
use crate::support::{Client, Plan, signal, wait_until};

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
        // Each death doubles the wait before the next successor.
        for _ in 0..5 {
            daemon.kill_child("assign/1");
        }
        signal(daemon.child("assign/1").unwrap(), nix::sys::signal::Signal::SIGKILL);
        wait_until("its socket to be adopted", || daemon.log().contains("event=socket_adopted")
            && daemon.child("assign/1").is_none());
        let mut clients: Vec<Client> = (0..64).map(|_| Client::connect(ports[1])).collect();
        for client in &mut clients {
            assert_eq!(client.get("/v1/assign?user_id=1").status, 200);
        }
        assert!(daemon.child("assign/1").is_none(), "all were answered before a successor was there");
    }
}
