//! The logger end to end, with real files and threads. Its master is a queue of
//! what it would hear.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};

use super::*;
use crate::exposure::record::{self, Exposure};
use crate::exposure::ring::{self, Account, ExposureId, Identity, Writer};
use crate::exposure::stream::Messages;
use crate::metrics::{self, Family, Table};
use crate::sys::region::Region;

const RING_SIZE: usize = 1 << 20;

impl Orders for Receiver<Order> {
    fn wait(&mut self, timeout: Duration) -> Heard {
        match self.recv_timeout(timeout) {
            Ok(order) => Heard::Order(order),
            Err(RecvTimeoutError::Timeout) => Heard::Nothing,
            Err(RecvTimeoutError::Disconnected) => {
                std::thread::sleep(timeout);
                Heard::Closed
            }
        }
    }
}

/// A house with rings, a directory for files, and a table of metrics.
struct House {
    directory: tempfile::TempDir,
    words: Arc<Vec<AtomicU64>>,
}

impl House {
    fn new() -> House {
        let words: Vec<AtomicU64> = (0..metrics::region_size(1) / 8).map(|_| AtomicU64::new(0)).collect();
        Table::format(&words, 1).block(0).born(1, 0, 0);
        House { directory: tempfile::tempdir().unwrap(), words: Arc::new(words) }
    }

    fn files(&self) -> PathBuf {
        self.directory.path().join("exposures")
    }

    fn options(&self, instance: u64) -> Options {
        let file = FileOptions {
            directory: self.files(),
            file_size_max: 1 << 22,
            file_age_max: Duration::from_secs(600),
            size_max: 1 << 30,
            age_max: Duration::from_secs(u32::MAX.into()),
            sync_interval: Duration::from_millis(50),
        };
        Options {
            runtime_dir: self.directory.path().to_owned(),
            instance,
            master: None,
            nice: 0,
            sink: SinkOptions::File(file, Layout::Request),
            traces: None,
        }
    }

    fn ring_path(&self, instance: u64, ring: u16) -> PathBuf {
        self.directory.path().join(format!("rings/{instance:016x}/{ring:05}"))
    }

    fn make_ring(&self, instance: u64, ring: u16) {
        let path = self.ring_path(instance, ring);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let region = Region::create_file(&path, ring::region_size(RING_SIZE)).unwrap();
        ring::format(region.words(), Identity { instance, ring, slot: ring / 2 });
    }

    fn account(&self, instance: u64, ring: u16) -> Account {
        Account::read(Region::open_file(&self.ring_path(instance, ring)).unwrap().words()).unwrap()
    }

    /// Until a logger has taken the instance's rings.
    fn wait_for_logger(&self, instance: u64) {
        let directory = File::open(self.ring_path(instance, 0).parent().unwrap()).unwrap();
        wait_until("a logger", || match directory.try_lock() {
            Ok(()) => directory.unlock().is_err(),
            Err(_) => true,
        });
    }

    fn metric(&self, family: Family, cell: usize) -> u64 {
        Table::attach(&self.words).unwrap().block(0).get(family, cell)
    }

    /// When the logger last turned.
    fn turned(&self) -> Now {
        let life = Table::attach(&self.words).unwrap().block(0).life().expect("it was born");
        Now { mono_ns: life.turn_mono_ns, unix_us: 0 }
    }

    fn start(&self, options: Options) -> Logger {
        let (orders, mut heard) = unbounded();
        let words = Arc::clone(&self.words);
        let thread = std::thread::spawn(move || {
            let block = Table::attach(&words).unwrap().block(0);
            serve(&options, &mut heard, block)
        });
        Logger { orders, thread }
    }
}

struct Logger {
    orders: Sender<Order>,
    thread: std::thread::JoinHandle<i32>,
}

impl Logger {
    fn stop(self) -> (i32, Duration) {
        let begin = Instant::now();
        self.orders.send(Order::Stop).unwrap();
        (self.thread.join().unwrap(), begin.elapsed())
    }

    fn master_dies(self) -> (i32, Duration) {
        let begin = Instant::now();
        drop(self.orders);
        (self.thread.join().unwrap(), begin.elapsed())
    }
}

/// Pushes so many exposures; gives the ids that the ring took.
fn push(region: &Region, count: usize, size: usize) -> Vec<ExposureId> {
    let mut writer = Writer::attach(region.words()).unwrap();
    let mut record = Vec::new();
    let context = vec![b'x'; size];
    let mut taken = Vec::new();
    for _ in 0..count {
        let id = writer.claim();
        let exposure =
            Exposure { id, time_us: 1, version: "v", units: [], assignments: [], context: &context };
        record::encode(&mut record, exposure);
        if writer.commit(&record).is_ok() {
            taken.push(id);
        }
    }
    taken
}

/// How often each id is in the files.
fn delivered(directory: &Path) -> BTreeMap<Vec<u8>, usize> {
    let mut ids = BTreeMap::new();
    let Ok(entries) = fs::read_dir(directory) else { return ids };
    for entry in entries {
        let mut messages = Messages::new(File::open(entry.unwrap().path()).unwrap());
        while let Some(message) = messages.next_message().unwrap() {
            *ids.entry(message[2..18].to_vec()).or_insert(0) += 1;
        }
    }
    ids
}

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < Duration::from_secs(60), "waited for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn every_exposure_of_every_ring_is_delivered_once_and_counted() {
    let house = House::new();
    for ring in 0..4 {
        house.make_ring(1, ring);
    }
    let logger = house.start(house.options(1));
    let mut taken = Vec::new();
    std::thread::scope(|scope| {
        let house = &house;
        let workers: Vec<_> = (0..4)
            .map(|ring| {
                scope.spawn(move || {
                    let region = Region::open_locked(&house.ring_path(1, ring)).unwrap();
                    let mut taken = Vec::new();
                    for _ in 0..40 {
                        wait_until("room in the ring", || {
                            let account = Account::read(region.words()).unwrap();
                            account.in_ring_size < RING_SIZE as u64 / 2
                        });
                        taken.extend(push(&region, 50, 200 + usize::from(ring) * 500));
                    }
                    taken
                })
            })
            .collect();
        for worker in workers {
            taken.extend(worker.join().unwrap());
        }
    });
    wait_until("the files", || delivered(&house.files()).len() == taken.len());
    let (code, time) = logger.stop();
    assert_eq!(code, 0);
    assert!(time < STOP_DRAIN_TIME_MAX, "emptied, not given up: {time:?}");
    let delivered = delivered(&house.files());
    assert!(taken.iter().all(|id| delivered.get(&id.to_bytes()[..]) == Some(&1)));
    assert_eq!(delivered.len(), taken.len());
    assert_eq!(house.metric(Family::ExposuresDelivered, 0), taken.len() as u64);
    for ring in 0..4 {
        let account = house.account(1, ring);
        assert_eq!((account.in_ring, account.lost, account.committed), (0, 0, 2000));
    }
    assert!(fs::read_dir(house.files()).unwrap().all(|entry| {
        let name = entry.unwrap().file_name();
        name.to_string_lossy().ends_with(".pb")
    }));
}

#[test]
fn the_stop_empties_what_was_pushed_just_before() {
    let house = House::new();
    house.make_ring(1, 0);
    let logger = house.start(house.options(1));
    house.wait_for_logger(1);
    let taken = push(&Region::open_locked(&house.ring_path(1, 0)).unwrap(), 500, 1000);
    // A ring that nobody has seen yet counts too.
    house.make_ring(1, 1);
    let more = push(&Region::open_locked(&house.ring_path(1, 1)).unwrap(), 500, 1000);
    assert_eq!(logger.stop().0, 0);
    assert_eq!(delivered(&house.files()).len(), taken.len() + more.len());
    assert_eq!(house.account(1, 0).in_ring + house.account(1, 1).in_ring, 0);
}

#[test]
fn rings_of_earlier_instances_are_drained_beside_the_new_and_removed() {
    let house = House::new();
    house.make_ring(7, 0);
    house.make_ring(7, 3);
    fs::write(house.ring_path(7, 4), vec![0; 8192]).unwrap();
    let old = push(&Region::open_file(&house.ring_path(7, 0)).unwrap(), 300, 500);
    // An old worker still holds its ring.
    let held = Region::open_locked(&house.ring_path(7, 3)).unwrap();
    house.make_ring(8, 0);
    let logger = house.start(house.options(8));
    let new = push(&Region::open_locked(&house.ring_path(8, 0)).unwrap(), 300, 500);
    let first = old.len() + new.len();
    wait_until("both", || delivered(&house.files()).len() == first);
    wait_until("the free ring's removal", || !house.ring_path(7, 0).exists());
    assert!(house.ring_path(7, 3).exists(), "its worker lives");
    let last = push(&held, 10, 500);
    drop(held);
    wait_until("the removal of the directory", || !house.ring_path(7, 3).parent().unwrap().exists());
    assert_eq!(delivered(&house.files()).len(), first + last.len());
    assert_eq!(logger.stop().0, 0);
    assert!(house.ring_path(8, 0).exists(), "this instance's rings stay for the books");
    assert_eq!(house.metric(Family::ExposuresDelivered, 0), new.len() as u64);
    assert_eq!(house.metric(Family::ExposuresDelivered, 1), (old.len() + last.len()) as u64);
}

#[test]
fn a_sink_that_refuses_loses_nothing_and_does_not_hold_up_the_stop() {
    let house = House::new();
    house.make_ring(1, 0);
    // A file where the directory should be: every write is refused.
    fs::write(house.files(), "in the way").unwrap();
    let logger = house.start(house.options(1));
    let region = Region::open_locked(&house.ring_path(1, 0)).unwrap();
    let taken = push(&region, 2000, 1000);
    assert!(taken.len() < 2000, "the ring is full and refuses");
    wait_until("errors", || house.metric(Family::SinkErrors, 0) > 0);
    assert_eq!(house.account(1, 0).consumed, 0);
    let (code, time) = logger.stop();
    assert_eq!(code, 0);
    assert!(time < STOP_TIME_MAX, "{time:?}");
    assert_eq!(house.account(1, 0).in_ring, taken.len() as u64, "all still there");
    // The next logger finds the disk in order.
    fs::remove_file(house.files()).unwrap();
    let logger = house.start(house.options(1));
    wait_until("the files", || delivered(&house.files()).len() == taken.len());
    assert_eq!(logger.stop().0, 0);
    assert_eq!(house.metric(Family::ExposuresDelivered, 0), taken.len() as u64);
    let account = house.account(1, 0);
    assert_eq!((account.consumed, account.refused_full), (taken.len() as u64, 2000 - taken.len() as u64));
}

#[test]
fn a_sink_that_recovers_goes_on_where_it_stopped() {
    let house = House::new();
    house.make_ring(1, 0);
    fs::write(house.files(), "in the way").unwrap();
    let logger = house.start(house.options(1));
    let taken = push(&Region::open_locked(&house.ring_path(1, 0)).unwrap(), 2000, 1000);
    wait_until("errors", || house.metric(Family::SinkErrors, 0) > 0);
    fs::remove_file(house.files()).unwrap();
    wait_until("the files", || delivered(&house.files()).len() == taken.len());
    assert_eq!(logger.stop().0, 0);
    assert!(delivered(&house.files()).values().all(|count| *count == 1));
}

#[test]
fn without_a_master_it_serves_until_the_last_worker_has_gone() {
    let house = House::new();
    house.make_ring(1, 0);
    let logger = house.start(house.options(1));
    let region = Region::open_locked(&house.ring_path(1, 0)).unwrap();
    let death = clock::now();
    let thread = std::thread::spawn(move || logger.master_dies().0);
    // It turns for longer than it would without a worker.
    wait_until("its turns", || house.turned().since(death) > ORPHAN_WAIT + 3 * ORPHAN_POLL);
    assert!(!thread.is_finished(), "a worker lives");
    let taken = push(&region, 100, 1000);
    let last = Instant::now();
    drop(region);
    assert_eq!(thread.join().unwrap(), 0);
    assert!(last.elapsed() >= ORPHAN_WAIT, "another worker might have come");
    assert_eq!(delivered(&house.files()).len(), taken.len());
}

#[test]
fn damaged_and_foreign_rings_are_passed_over_and_cost_no_other() {
    let house = House::new();
    for ring in 0..3 {
        house.make_ring(1, ring);
    }
    fs::write(house.ring_path(1, 4), vec![0xff; 8192]).unwrap();
    fs::write(house.ring_path(1, 5), vec![0; 8192]).unwrap();
    fs::write(house.ring_path(1, 6), b"").unwrap();
    fs::copy(house.ring_path(1, 2), house.ring_path(1, 7)).unwrap();
    let first = Region::open_file(&house.ring_path(1, 0)).unwrap();
    let taken = push(&first, 3, 500);
    // One record's payload is damaged; one record is whole, but no exposure.
    first.words()[512 + 10].fetch_xor(1, Relaxed);
    let mut writer = Writer::attach(first.words()).unwrap();
    let _ = writer.claim();
    writer.commit(b"no exposure at all, though whole").unwrap();
    // A ring whose tail is damaged is mended: nothing is in it.
    let second = Region::open_file(&house.ring_path(1, 1)).unwrap();
    second.words()[16].store(1 << 40, Relaxed);
    let third = push(&Region::open_file(&house.ring_path(1, 2)).unwrap(), 5, 500);
    let logger = house.start(house.options(1));
    wait_until("the rest", || delivered(&house.files()).len() == taken.len() - 1 + third.len());
    let (code, time) = logger.stop();
    assert_eq!(code, 0);
    assert!(time < STOP_DRAIN_TIME_MAX, "what can't be read is not waited for: {time:?}");
    assert_eq!(house.metric(Family::ExposuresCorrupt, 0), 2);
    assert_eq!(house.metric(Family::ExposuresDelivered, 0), 7);
    let account = house.account(1, 0);
    assert_eq!((account.committed, account.consumed, account.corrupt, account.lost), (4, 2, 2, 0));
}

#[test]
fn a_ring_of_another_layout_is_left_as_it_is_for_whoever_knows_it() {
    let house = House::new();
    house.make_ring(7, 0);
    house.make_ring(7, 1);
    let path = house.ring_path(7, 0);
    let taken = push(&Region::open_file(&path).unwrap(), 50, 500).len();
    let other = push(&Region::open_file(&house.ring_path(7, 1)).unwrap(), 20, 500).len();
    let layout = |number: u64| {
        let region = Region::open_file(&path).unwrap();
        region.words()[0].store(u64::from_le_bytes(*b"splitdR\0") | number << 56, Relaxed);
        region.words()[1].store(number, Relaxed);
    };
    layout(2);
    let before = fs::read(&path).unwrap();
    for instance in [8, 9] {
        let logger = house.start(house.options(instance));
        wait_until("it to be counted", || house.metric(Family::RingsRefused, 0) == 1);
        wait_until("the other ring's", || delivered(&house.files()).len() == other);
        assert_eq!(logger.stop().0, 0);
        assert_eq!(fs::read(&path).unwrap(), before, "not a byte is written");
    }
    // By a program that knows it, as it were.
    layout(1);
    let logger = house.start(house.options(10));
    wait_until("all of it", || delivered(&house.files()).len() == taken + other);
    wait_until("the removal of the directory", || !path.parent().unwrap().exists());
    assert_eq!(house.metric(Family::RingsRefused, 0), 0);
    assert_eq!(logger.stop().0, 0);
}

#[test]
fn rings_with_damaged_headers_are_mended_and_delivered() {
    let house = House::new();
    for ring in 0..4 {
        house.make_ring(7, ring);
    }
    let regions: Vec<Region> =
        (0..4).map(|ring| Region::open_file(&house.ring_path(7, ring)).unwrap()).collect();
    let taken: usize = regions.iter().map(|region| push(region, 50, 500).len()).sum();
    // The magic, the tail, the reader's state, the capacity.
    for (region, word) in regions.iter().zip([0, 16, 32, 2]) {
        region.words()[word].store(if word == 0 { 0 } else { u64::MAX - 7 }, Relaxed);
    }
    drop(regions);
    let logger = house.start(house.options(8));
    wait_until("all of them", || delivered(&house.files()).len() == taken);
    wait_until("the removal of the directory", || !house.ring_path(7, 0).parent().unwrap().exists());
    assert_eq!(logger.stop().0, 0);
}

#[test]
fn a_ring_whose_tail_is_damaged_while_it_is_read_is_mended_when_nobody_writes_it() {
    let house = House::new();
    house.make_ring(1, 0);
    let logger = house.start(house.options(1));
    let region = Region::open_locked(&house.ring_path(1, 0)).unwrap();
    let taken = push(&region, 10, 500).len();
    wait_until("the first", || delivered(&house.files()).len() == taken);
    region.words()[16].store(1 << 40, Relaxed);
    drop(region);
    wait_until("the tail", || {
        let region = Region::open_file(&house.ring_path(1, 0)).unwrap();
        region.words()[16].load(Relaxed) < 1 << 40
    });
    let region = Region::open_locked(&house.ring_path(1, 0)).unwrap();
    let more = push(&region, 10, 500).len();
    wait_until("the others", || delivered(&house.files()).len() == taken + more);
    assert_eq!(logger.stop().0, 0);
    assert_eq!(house.account(1, 0).consumed, (taken + more) as u64);
}

#[test]
fn numbers_that_no_dead_worker_explains_are_unaccounted() {
    let house = House::new();
    house.make_ring(1, 0);
    let region = Region::open_locked(&house.ring_path(1, 0)).unwrap();
    let taken = push(&region, 10, 500).len() as u64;
    let logger = house.start(house.options(1));
    wait_until("the count", || house.metric(Family::ExposuresDelivered, 0) == taken);
    wait_until("the books", || house.metric(Family::ExposuresAttempted, 0) == taken);
    assert_eq!(house.metric(Family::ExposuresUnaccounted, 0), 0);
    // One number more may be a dead worker's; three are records that vanished.
    region.words()[17].fetch_add(3, Relaxed);
    wait_until("the audit", || house.metric(Family::ExposuresUnaccounted, 0) == 2);
    assert_eq!(house.metric(Family::ExposuresLost, 2), 3);
    assert_eq!(logger.stop().0, 0);
}

#[test]
fn an_orphaned_logger_leaves_the_rings_of_a_later_instance_alone() {
    let house = House::new();
    house.make_ring(1, 0);
    // Made by the next master, for a worker that has not taken it yet.
    house.make_ring(2, 0);
    let logger = house.start(Options { master: Some(i32::MAX), ..house.options(1) });
    let taken = push(&Region::open_locked(&house.ring_path(1, 0)).unwrap(), 10, 500).len();
    wait_until("its own rings' exposures", || delivered(&house.files()).len() == taken);
    assert_eq!(logger.stop().0, 0);
    assert!(house.ring_path(2, 0).exists());
}

#[test]
fn a_second_logger_waits_for_the_first_one_s_rings() {
    let house = House::new();
    house.make_ring(1, 0);
    let first = house.start(house.options(1));
    house.wait_for_logger(1);
    let second = house.start(house.options(1));
    let region = Region::open_locked(&house.ring_path(1, 0)).unwrap();
    let taken = push(&region, 200, 1000);
    wait_until("the first one's files", || delivered(&house.files()).len() == taken.len());
    assert_eq!(first.stop().0, 0);
    let more = push(&region, 200, 1000);
    wait_until("the second one's files", || delivered(&house.files()).len() == taken.len() + more.len());
    assert_eq!(second.stop().0, 0);
    assert!(delivered(&house.files()).values().all(|count| *count == 1));
}

#[test]
fn the_sink_that_drops_confirms_everything() {
    let house = House::new();
    house.make_ring(1, 0);
    let logger = house.start(Options { sink: SinkOptions::None, ..house.options(1) });
    let taken = push(&Region::open_locked(&house.ring_path(1, 0)).unwrap(), 400, 1000);
    wait_until("the count", || house.metric(Family::ExposuresDelivered, 0) == taken.len() as u64);
    assert_eq!(logger.stop().0, 0);
    assert!(!house.files().exists());
}

#[test]
fn orders_come_over_a_channel_and_its_end_is_heard() {
    let (master, ours) = Channel::pair().unwrap();
    let mut orders = ChannelOrders { channel: Some(ours) };
    assert_eq!(orders.wait(Duration::from_millis(1)), Heard::Nothing);
    master.send(b"some other word", None).unwrap();
    assert_eq!(orders.wait(Duration::from_secs(1)), Heard::Nothing);
    master.send(Order::Stop.encode(), None).unwrap();
    assert_eq!(orders.wait(Duration::from_secs(1)), Heard::Order(Order::Stop));
    drop(master);
    assert_eq!(orders.wait(Duration::from_secs(1)), Heard::Closed);
    let begin = Instant::now();
    assert_eq!(orders.wait(Duration::from_millis(20)), Heard::Closed);
    assert!(begin.elapsed() >= Duration::from_millis(20), "it does not spin");
}
