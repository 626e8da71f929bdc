//! What an exposure costs: into the ring, and from the rings into files.
//!
//! `cargo bench --bench ring` prints, for records of 1.25 KB: nanoseconds a
//! push (and for putting the record together and pushing it), and exposures a
//! second of CPU and of the clock from full rings to the file sink (files in
//! `TMPDIR`). A figure on a busy machine says little: look at the least.

use std::hint::black_box;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use splitd::exposure::record::{self, Exposure};
use splitd::exposure::ring::{self, Identity, Reader, Writer};
use splitd::limits::{EXPOSURE_SIZE_MAX, RING_SIZE_DEFAULT};
use splitd::logger::{self, FileOptions, Options, Order, SinkOptions};
use splitd::metrics::{self, Family, Table};
use splitd::sys::channel::Channel;
use splitd::sys::region::Region;

const RING_COUNT: u16 = 8;
const ROUND_COUNT: usize = 15;

/// An exposure of 26 assignments with a context: 1.25 KB.
struct Typical {
    fragments: Vec<Vec<u8>>,
    context: Vec<u8>,
}

impl Typical {
    fn new() -> Typical {
        let fragments = (0..26).map(|n| [&[0x2a, 28][..], &[n; 28]].concat()).collect();
        Typical { fragments, context: vec![b'x'; 380] }
    }

    fn encode(&self, out: &mut Vec<u8>, id: ring::ExposureId, time_us: i64) {
        let exposure = Exposure {
            id,
            time_us,
            version: "2026-11-22.3",
            units: [("user_id", "1234567890"), ("device_id", "0f8fad5b-d9cb-469f-a165-70867728950e")],
            assignments: self.fragments.iter().map(Vec::as_slice),
            context: &self.context,
        };
        record::encode(out, exposure);
    }

    fn push(&self, writer: &mut Writer<'_>, out: &mut Vec<u8>) -> bool {
        let id = writer.claim();
        self.encode(out, id, 1_795_336_238_000_000);
        writer.commit(out).is_ok()
    }
}

fn main() {
    let typical = Typical::new();
    pushes(&typical);
    drains(&typical);
}

fn least_and_median(mut figures: Vec<f64>) -> (f64, f64) {
    figures.sort_by(f64::total_cmp);
    (figures[0], figures[figures.len() / 2])
}

fn pushes(typical: &Typical) {
    let region = Region::anonymous(ring::region_size(RING_SIZE_DEFAULT)).expect("memory for a ring");
    region.prefault();
    ring::format(region.words(), Identity { instance: 1, ring: 0, slot: 0 });
    let mut writer = Writer::attach(region.words()).expect("a fresh ring");
    let mut reader = Reader::attach(region.words()).expect("a fresh ring");
    let mut out = Vec::with_capacity(EXPOSURE_SIZE_MAX);
    let id = writer.claim();
    typical.encode(&mut out, id, 1);
    let payload = out.clone();
    let _ = writer.commit(&payload);
    let count = 10_000;
    let mut drained = Vec::with_capacity(RING_SIZE_DEFAULT);
    let mut measure = |name: &str, push: &mut dyn FnMut(&mut Writer<'_>)| {
        let mut figures = Vec::new();
        for _ in 0..ROUND_COUNT {
            drained.clear();
            while let Ok(ring::Step::Record { .. }) = reader.next(&mut drained, EXPOSURE_SIZE_MAX) {}
            reader.confirm(reader.position());
            let begin = Instant::now();
            for _ in 0..count {
                push(&mut writer);
            }
            figures.push(begin.elapsed().as_nanos() as f64 / f64::from(count));
        }
        let (least, median) = least_and_median(figures);
        println!("{name}: {least:.0} ns least, {median:.0} ns median ({} bytes)", payload.len());
    };
    measure("push", &mut |writer| {
        let _ = writer.claim();
        writer.commit(black_box(&payload)).expect("room for all of them");
    });
    measure("encode and push", &mut |writer| {
        assert!(black_box(typical).push(writer, &mut out), "room for all of them");
    });
    let mut crc = 0;
    measure("of which the checksum", &mut |_| crc ^= crc32c::crc32c(black_box(&payload)));
    black_box(crc);
}

fn drains(typical: &Typical) {
    let words: Vec<AtomicU64> = (0..metrics::region_size(1) / 8).map(|_| AtomicU64::new(0)).collect();
    for sink in ["file", "none"] {
        let (mut wall, mut cpu) = (Vec::new(), Vec::new());
        let mut bytes = 0;
        for _ in 0..5 {
            let directory = std::env::temp_dir().join(format!("splitd-bench-{}", std::process::id()));
            let table = Table::format(&words, 1);
            let filled = fill(&directory, typical);
            bytes = filled.1;
            let (seconds, cpu_seconds) = drain(&directory, table, filled.0, sink);
            wall.push(seconds / filled.0 as f64 * 1e9);
            cpu.push(cpu_seconds / filled.0 as f64 * 1e9);
            for word in &words {
                word.store(0, std::sync::atomic::Ordering::Relaxed);
            }
            let _ = std::fs::remove_dir_all(&directory);
        }
        let ((wall, _), (cpu, _)) = (least_and_median(wall), least_and_median(cpu));
        println!(
            "{RING_COUNT} full rings ({} MB) to sink {sink}: {:.0} exposures/s by the clock, {:.0} a second of CPU",
            bytes / 1_000_000,
            1e9 / wall,
            1e9 / cpu
        );
    }
}

/// Fills the rings; gives how many exposures and bytes are in them.
fn fill(directory: &Path, typical: &Typical) -> (u64, usize) {
    let rings = directory.join("rings/0000000000000001");
    std::fs::create_dir_all(&rings).expect("a directory for rings");
    let (mut count, mut bytes) = (0, 0);
    let mut out = Vec::with_capacity(EXPOSURE_SIZE_MAX);
    for number in 0..RING_COUNT {
        let path = rings.join(format!("{number:05}"));
        let region = Region::create_file(&path, ring::region_size(RING_SIZE_DEFAULT)).expect("a ring");
        ring::format(region.words(), Identity { instance: 1, ring: number, slot: number / 2 });
        let mut writer = Writer::attach(region.words()).expect("a fresh ring");
        while typical.push(&mut writer, &mut out) {
            count += 1;
            bytes += out.len();
        }
    }
    (count, bytes)
}

fn cpu_time() -> f64 {
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("usage of ourselves");
    (usage.user_time().num_microseconds() + usage.system_time().num_microseconds()) as f64 / 1e6
}

fn drain(directory: &Path, table: Table<'_>, count: u64, sink: &str) -> (f64, f64) {
    let (master, channel) = Channel::pair().expect("a channel");
    let file = FileOptions {
        directory: directory.join("exposures"),
        file_size_max: 64 << 20,
        file_age_max: Duration::from_secs(600),
        size_max: 8 << 30,
        age_max: Duration::from_secs(1 << 30),
        sync_interval: Duration::from_millis(200),
    };
    let options = Options {
        runtime_dir: directory.to_owned(),
        instance: 1,
        nice: 0,
        sink: if sink == "file" { SinkOptions::File(file) } else { SinkOptions::None },
    };
    std::thread::scope(|scope| {
        let (begin, cpu_begin) = (Instant::now(), cpu_time());
        let logger = scope.spawn(move || logger::run(options, channel, table.block(0)));
        while table.block(0).get(Family::ExposuresDelivered, 0) < count {
            std::thread::sleep(Duration::from_micros(200));
        }
        let took = (begin.elapsed().as_secs_f64(), cpu_time() - cpu_begin);
        master.send(Order::Stop.encode(), None).expect("a logger");
        assert_eq!(logger.join().expect("a logger"), 0);
        took
    })
}
