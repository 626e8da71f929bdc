//! The chain behind splitd: what the README tells of ClickHouse, run in its engine
//! over what a real splitd delivered: files, and messages that a client which is
//! not ours consumed from a broker which is not ours.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

#[cfg(feature = "kafka")]
use crate::broker::Tansu;
use crate::support::{Client, Daemon, Plan, golden, lines, splitd, wait_until};

/// Where `scripts/test` installs the engine, a Python package.
fn python() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/clickhouse-venv/bin/python");
    let found = path.exists();
    if !found {
        eprintln!("skipped: ClickHouse's engine is not in target/clickhouse-venv (scripts/test installs it)");
    }
    found.then_some(path)
}

/// Asks, waits until all is delivered, and stops the daemon: who got which answer, a line each.
fn ask(daemon: &mut Daemon) -> Vec<String> {
    let mut client = Client::connect(daemon.assign());
    let mut answers = Vec::new();
    let mut note = |user: String, answer: Value| {
        answers.push(json!({"user": user, "assignments": answer["assignments"]}).to_string());
    };
    for (number, request) in lines("typical.requests.ndjson").iter().enumerate() {
        let user = format!("post-{number}");
        let mut request: Value = serde_json::from_str(request).unwrap();
        request["units"]["user_id"] = json!(user);
        let body = request.to_string();
        note(user, client.post("/v1/assign", &body).json());
        let user = format!("get-{number}");
        let target = format!(
            "/v1/assign?user_id={user}&device_id=d-{number}&platform=ios&country=RS&app_version=28.5.4&age=34"
        );
        note(user, client.get(&target).json());
    }
    wait_until("all delivered", || daemon.metric("splitd_exposures_delivered_total") == answers.len() as u64);
    assert_eq!(daemon.stop(), Some(0));
    answers
}

/// Has ClickHouse read the `*.pb` of a directory, messages of this name, and hold
/// them against the answers.
fn prove(python: &Path, daemon: &Daemon, delivered: &Path, message: &str, answers: &[String]) {
    // One that comes twice, as after a logger's death: the same ids.
    let first = fs::read_dir(delivered).unwrap().next().unwrap().unwrap().path();
    fs::copy(first, delivered.join("doubled")).unwrap();
    let path = |name: &str| daemon.directory.path().join(name);
    fs::write(path("answers.ndjson"), answers.join("\n")).unwrap();
    let export = splitd().arg("export").arg(golden("typical.experiments.json")).output().unwrap();
    fs::write(path("blocks.ndjson"), export.stdout).unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = Command::new(python)
        .arg(root.join("tests/process/clickhouse.py"))
        .arg(root.join("README.md"))
        .arg(root.join("src/exposure/exposure.proto"))
        .arg(message)
        .args([delivered, &path("blocks.ndjson"), &path("answers.ndjson")])
        .current_dir(daemon.directory.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    println!("{said}");
}

#[test]
fn every_assignment_in_clickhouse_is_the_answer_that_was_given_and_its_bucket_s() {
    let Some(python) = python() else { return };
    let mut daemon = Plan::new("auto", "typical.experiments.json").workers(2).start();
    let answers = ask(&mut daemon);
    prove(&python, &daemon, &daemon.state_dir().join("exposures"), "Exposure", &answers);
}

#[cfg(feature = "kafka")]
#[test]
fn what_kafka_hands_to_clickhouse_are_the_same_assignments_in_either_layout() {
    let Some(python) = python() else { return };
    // One exposure a message; many participations a message.
    for (layout, batch, message) in
        [("request", false, "Exposure"), ("assignment", true, "ExperimentParticipation")]
    {
        let Some(broker) = Tansu::start() else { return };
        let mut daemon = Plan::new("auto", "typical.experiments.json")
            .workers(2)
            .set("sink.type=kafka")
            .set(&format!("sink.brokers={}", broker.address()))
            .set(&format!("logger.layout={layout}"))
            .set(&format!("sink.batch={batch}"))
            .start();
        let answers = ask(&mut daemon);
        // The Kafka engine reads each message by itself, as the engine here each file.
        let consumed = daemon.directory.path().join("consumed");
        fs::create_dir(&consumed).unwrap();
        for (number, message) in broker.messages().into_iter().enumerate() {
            fs::write(consumed.join(format!("{number:06}.pb")), message.value).unwrap();
        }
        prove(&python, &daemon, &consumed, message, &answers);
    }
}
