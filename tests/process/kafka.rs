//! The Kafka sink against brokers that are well, away, silent, forgetful or
//! strict: answers do not move, and every exposure arrives, once by its id.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::time::Duration;

use prost::Message as _;
use splitd::exposure::proto::{ExperimentParticipation, Exposure};

use crate::arrived::Arrived;
use crate::broker::{Message, MockBroker, Proxy, Tansu, TlsProxy};
use crate::support::{Client, Daemon, Load, Outcome, Plan, wait_until};

fn plan(broker: &str) -> Plan {
    Plan::new("epoll", "edge.experiments.json")
        .workers(2)
        .set("sink.type=kafka")
        .set(&format!("sink.brokers={broker}"))
        .set("logger.spool_free_min=0")
        .set("logger.ring_size=16MiB")
}

/// What is said of a broker that is away.
const TROUBLE: &[&str] = &["event=kafka_client", "event=sink_stalled"];

/// And of a producer that fails for good.
const REMADE: &[&str] = &["event=kafka_client", "event=sink_stalled", "event=kafka_producer_remade"];

/// A daemon under load.
struct Busy {
    daemon: Daemon,
    load: Load,
}

impl Busy {
    /// Of the log's warnings, these belong to the test.
    fn start(plan: Plan, clients: usize, expected: &[&'static str]) -> Busy {
        let mut daemon = plan.start();
        expected.iter().for_each(|text| daemon.expect(text));
        let load = Load::start(daemon.assign(), clients);
        Busy { daemon, load }
    }

    fn more(&self, count: u64) {
        self.load.more(count);
    }

    /// No more load: everything is delivered, the law holds, and the daemon leaves.
    fn end(self) -> Outcome {
        let Busy { mut daemon, load } = self;
        let outcome = load.stop();
        law_holds(&daemon, outcome.answered.len());
        assert_eq!(daemon.stop(), Some(0));
        assert_eq!(daemon.lost(), 0);
        outcome
    }
}

/// Every answered request is there, with one id; gives how many came twice.
fn everything_arrived(messages: &[Message], outcome: &Outcome) -> usize {
    assert!(outcome.unanswered.is_empty(), "answers do not move");
    let mut arrived = Arrived::default();
    messages.iter().for_each(|message| arrived.take(&message.value));
    assert_eq!(arrived.missing(outcome), [""; 0], "of {}", outcome.answered.len());
    arrived.doubled()
}

/// What the metrics say once all is quiet: nothing is lost or unaccounted for.
fn law_holds(daemon: &Daemon, answered: usize) {
    let all = |prefix: &str| daemon.metric(prefix);
    wait_until("everything to be delivered", || {
        // The metrics are a moment behind.
        let is_all = all("splitd_exposures_attempted_total") >= answered as u64;
        is_all
            && all("splitd_exposures_in_rings")
                + all("splitd_exposures_in_flight")
                + all("splitd_exposures_in_spool")
                == 0
            && all("splitd_exposures_attempted_total")
                == all("splitd_exposures_lost_total")
                    + all("splitd_exposures_delivered_total{rings=\"own\"}")
                    + all("splitd_exposures_spooled_total{rings=\"own\"}")
                    + all("splitd_exposures_rejected_total{from=\"own\"}")
                    + all("splitd_exposures_corrupt_total{rings=\"own\"}")
    });
    assert_eq!(
        all("splitd_spool_taken_total"),
        all("splitd_exposures_replayed_total")
            + all("splitd_exposures_rejected_total{from=\"spool\"}")
            + all("splitd_spool_evicted_total")
            + all("splitd_spool_corrupt_total"),
        "the spool's books"
    );
}

fn spools(daemon: &Daemon) {
    wait_until("the spool to grow", || daemon.metric("splitd_exposures_in_spool") > 0);
}

fn empties(daemon: &Daemon) {
    wait_until("the spool to become empty", || {
        daemon.metric("splitd_exposures_in_spool") == 0 && daemon.metric("splitd_sink_stalled") == 0
    });
}

#[test]
fn through_the_mock_broker_everything_answered_arrives_once() {
    let broker = MockBroker::start();
    let busy = Busy::start(plan(&broker.address), 8, &[]);
    busy.more(2_000);
    let outcome = busy.end();
    let messages = broker.messages();
    assert!(messages.iter().all(|message| message.key.is_empty()));
    assert!(messages.len() < outcome.answered.len() / 2, "many events a message: {}", messages.len());
    assert_eq!(everything_arrived(&messages, &outcome), 0);
}

#[test]
fn through_an_independent_broker_everything_answered_arrives_once() {
    let Some(broker) = Tansu::start() else { return };
    let busy = Busy::start(plan(&broker.address()), 8, &[]);
    busy.more(1_000);
    let outcome = busy.end();
    assert_eq!(everything_arrived(&broker.messages(), &outcome), 0);
}

#[test]
fn a_broker_that_is_away_at_the_start_and_again_later_costs_nothing() {
    let mut broker = MockBroker::start();
    broker.down();
    let mut busy = Busy::start(plan(&broker.address), 8, TROUBLE);
    busy.more(500);
    spools(&busy.daemon);
    broker.up();
    empties(&busy.daemon);
    busy.more(500);
    broker.down();
    spools(&busy.daemon);
    busy.more(500);
    // The logger is killed while the sink is away: the spool's marks move the heads.
    busy.daemon.expect("event=ended process=logger");
    busy.daemon.expect("event=restart_waits process=logger");
    busy.daemon.expect("event=spool_tail_cut");
    busy.daemon.kill_child("logger");
    busy.more(500);
    busy.daemon.kill_child("logger");
    spools(&busy.daemon);
    broker.up();
    let outcome = busy.end();
    everything_arrived(&broker.messages(), &outcome);
}

#[test]
fn what_is_in_the_spool_at_the_stop_is_delivered_by_the_next_instance() {
    let mut broker = MockBroker::start();
    broker.down();
    let Busy { mut daemon, load } = Busy::start(plan(&broker.address), 4, TROUBLE);
    load.more(500);
    let outcome = load.stop();
    assert_eq!(daemon.stop(), Some(0));
    let events = daemon.events();
    assert_eq!(events.len(), outcome.answered.len(), "`splitd events` reads the spool");
    broker.up();
    daemon.start();
    wait_until("the spool to be replayed", || {
        daemon.metric("splitd_exposures_replayed_total") >= outcome.answered.len() as u64
    });
    law_holds(&daemon, 0);
    assert_eq!(daemon.stop(), Some(0));
    assert_eq!(everything_arrived(&broker.messages(), &outcome), 0);
}

#[test]
fn a_slow_broker_needs_no_spool() {
    let mut broker = MockBroker::start();
    broker.slow(Duration::from_millis(100));
    let busy = Busy::start(plan(&broker.address), 8, &[]);
    busy.more(1_500);
    // A stall would be said, and nobody expects that here.
    let outcome = busy.end();
    assert_eq!(everything_arrived(&broker.messages(), &outcome), 0);
}

#[test]
fn a_broker_that_hangs_is_waited_for_by_nobody() {
    let broker = MockBroker::start();
    let busy = Busy::start(plan(&broker.address), 8, TROUBLE);
    busy.more(500);
    broker.stop();
    spools(&busy.daemon);
    busy.more(500);
    broker.go_on();
    empties(&busy.daemon);
    let outcome = busy.end();
    everything_arrived(&broker.messages(), &outcome);
}

#[test]
fn a_message_that_times_out_in_the_client_is_sent_again() {
    let mut broker = MockBroker::start();
    let plan = plan(&broker.address).set("sink.properties=message.timeout.ms=1000");
    let busy = Busy::start(plan, 8, TROUBLE);
    busy.more(500);
    broker.down();
    wait_until("a timeout", || busy.daemon.log().contains("kind=delivery_MessageTimedOut"));
    broker.up();
    let outcome = busy.end();
    everything_arrived(&broker.messages(), &outcome);
}

#[test]
fn lost_acknowledgements_lose_nothing_and_double_only_ids() {
    let Some(mut broker) = Tansu::plan() else { return };
    let (listener, port) = Proxy::reserve();
    let proxy = Proxy::start(listener, broker.port());
    broker.begin(port);
    let busy = Busy::start(plan(&format!("127.0.0.1:{port}")), 8, TROUBLE);
    for _ in 0..5 {
        busy.more(200);
        proxy.lose_answers();
        busy.more(50);
        proxy.pass();
    }
    busy.more(200);
    let outcome = busy.end();
    everything_arrived(&broker.messages(), &outcome);
}

#[test]
fn a_broker_that_forgets_its_producers_gets_a_new_one() {
    let mut broker = MockBroker::start();
    let busy = Busy::start(plan(&broker.address), 8, REMADE);
    for error in ["unknown_producer", "out_of_order"] {
        busy.more(300);
        broker.fail("produce", error, 2);
        busy.more(300);
    }
    let outcome = busy.end();
    everything_arrived(&broker.messages(), &outcome);
}

#[test]
fn a_producer_that_fails_for_good_is_made_anew() {
    let mut broker = MockBroker::start();
    broker.fail("init", "not_authorized", 1);
    let busy = Busy::start(plan(&broker.address), 4, REMADE);
    wait_until("a new producer", || busy.daemon.log().contains("event=kafka_producer_remade"));
    busy.more(300);
    let outcome = busy.end();
    everything_arrived(&broker.messages(), &outcome);
}

#[test]
fn a_message_that_is_too_large_goes_alone_then_in_halves_and_only_a_single_event_is_rejected() {
    let mut broker = MockBroker::start();
    let Busy { mut daemon, load } = Busy::start(plan(&broker.address), 8, TROUBLE);
    daemon.expect("event=exposure_rejected");
    load.more(300);
    broker.fail("produce", "too_large", 5);
    load.more(300);
    let before = load.stop();
    law_holds(&daemon, before.answered.len());
    // A single event, refused in company (by the batch), alone, and so for good.
    broker.fail("produce", "too_large", 2);
    assert_eq!(Client::connect(daemon.assign()).get("/v1/assign?user_id=poison").status, 200);
    wait_until("a rejection", || {
        daemon.metric("splitd_exposures_rejected_total") > 0 || daemon.metric("splitd_spool_taken_total") > 0
    });
    assert_eq!(daemon.metric("splitd_exposures_rejected_total"), 1);
    broker.heal();
    law_holds(&daemon, before.answered.len() + 1);
    assert_eq!(daemon.stop(), Some(0));
    // Whom the broker refused is not among those who asked before.
    assert_eq!(everything_arrived(&broker.messages(), &before), 0);
}

#[test]
fn a_topic_that_may_not_be_written_is_said_plainly_and_spooled() {
    let mut broker = MockBroker::start();
    broker.fail("produce", "topic_not_authorized", 1_000);
    let busy = Busy::start(plan(&broker.address), 4, TROUBLE);
    spools(&busy.daemon);
    assert!(busy.daemon.log().contains("kind=delivery_TopicAuthorizationFailed"));
    broker.heal();
    empties(&busy.daemon);
    let outcome = busy.end();
    assert_eq!(everything_arrived(&broker.messages(), &outcome), 0);
}

#[test]
fn one_event_a_message_is_keyed_by_its_unit() {
    let broker = MockBroker::start();
    let busy = Busy::start(plan(&broker.address).set("sink.batch=false"), 4, &[]);
    busy.more(500);
    let outcome = busy.end();
    let messages = broker.messages();
    assert_eq!(messages.len(), outcome.answered.len());
    for Message { key, value } in &messages {
        let exposure = Exposure::decode_length_delimited(value.as_slice()).unwrap();
        assert_eq!(key, exposure.units["user_id"].as_bytes());
    }
    assert_eq!(everything_arrived(&messages, &outcome), 0);
}

#[test]
fn one_message_an_assignment_says_what_the_request_said() {
    let broker = MockBroker::start();
    let sets = |plan: Plan| plan.set("logger.layout=assignment");
    let mut kafka = sets(plan(&broker.address)).start();
    let mut file = sets(Plan::new("epoll", "edge.experiments.json")).start();
    let mut answered = BTreeSet::new();
    for daemon in [&kafka, &file] {
        for user in 0..50 {
            let target = format!("/v1/assign?user_id=u-{user}&device_id=d-{user}");
            let answer = Client::connect(daemon.assign()).get(&target).json();
            for (experiment, group) in answer["assignments"].as_object().unwrap() {
                answered.insert((
                    format!("u-{user}"),
                    experiment.clone(),
                    group.as_str().unwrap().to_owned(),
                ));
            }
        }
    }
    law_holds(&kafka, 50);
    assert_eq!((kafka.stop(), file.stop()), (Some(0), Some(0)));
    let mut delivered = BTreeSet::new();
    for message in broker.messages() {
        let mut rest = message.value.as_slice();
        while !rest.is_empty() {
            let one = ExperimentParticipation::decode_length_delimited(&mut rest).unwrap();
            assert_eq!((one.id.len(), one.event_name.as_str()), (18, "group_assigned"));
            assert!(one.context.is_empty());
            let unit = if one.unit == "user_id" { &one.user_id } else { &one.device_id };
            assert_eq!(&one.unit_value, unit);
            assert!(delivered.insert((one.user_id, one.experiment, one.group)), "once");
        }
    }
    assert_eq!(delivered, answered);
    let in_files: BTreeSet<_> = (file.events().iter())
        .map(|event| {
            let text = |name: &str| event[name].as_str().unwrap().to_owned();
            (text("user_id"), text("experiment"), text("group"))
        })
        .collect();
    assert_eq!(in_files, answered);
}

#[test]
fn a_refused_handshake_is_said_plainly_and_spooled() {
    let broker = MockBroker::start();
    let secrets = tempfile::tempdir().unwrap();
    let password = secrets.path().join("password");
    fs::write(&password, "secret\n").unwrap();
    let sasl = |plan: Plan| {
        plan.set("sink.sasl=SCRAM-SHA-256")
            .set("sink.sasl_username=splitd")
            .set(&format!("sink.sasl_password_file={}", password.display()))
    };
    // A broker that speaks neither TLS nor SASL.
    for (plan, said) in
        [(plan(&broker.address).set("sink.tls=true"), "SSL"), (sasl(plan(&broker.address)), "SASL")]
    {
        let Busy { mut daemon, load } = Busy::start(plan, 2, TROUBLE);
        spools(&daemon);
        wait_until(said, || daemon.log().contains(said));
        assert!(load.stop().unanswered.is_empty());
        assert_eq!(daemon.stop(), Some(0));
        assert!(!daemon.log().contains("secret"), "no password in the log");
    }
}

#[test]
fn tls_with_an_authority_of_our_own_is_spoken() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).display().to_string();
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"])
        .args([
            "-addext",
            "subjectAltName=IP:127.0.0.1",
            "-keyout",
            &path("key.pem"),
            "-out",
            &path("cert.pem"),
        ])
        .output();
    if !made.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: no `openssl` to make a certificate with");
        return;
    }
    let Some(mut broker) = Tansu::plan() else { return };
    let proxy = TlsProxy::start(&path("cert.pem"), &path("key.pem"), broker.port());
    broker.begin(proxy.port);
    let mut daemon = plan(&format!("127.0.0.1:{}", proxy.port))
        .set("sink.tls=true")
        .set(&format!("sink.tls_ca={}", path("cert.pem")))
        .start();
    TROUBLE.iter().for_each(|text| daemon.expect(text));
    assert_eq!(Client::connect(daemon.assign()).get("/v1/assign?user_id=1").status, 200);
    wait_until("a delivery by TLS", || daemon.metric("splitd_exposures_delivered_total") == 1);
    assert_eq!(daemon.stop(), Some(0));
}
