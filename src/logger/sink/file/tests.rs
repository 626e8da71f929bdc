//! The file sink on real files.

use std::sync::atomic::Ordering::Relaxed;

use super::*;
use crate::exposure::record::{Exposure, encode};
use crate::exposure::ring::ExposureId;
use crate::exposure::stream::End;

/// 2026-11-22 08:30:38 UTC.
const BEGIN: Now = Now { mono_ns: 1_000_000_000, unix_us: 1_795_336_238_000_000 };

fn options(directory: &Path) -> Options {
    Options {
        directory: directory.to_owned(),
        file_size_max: 10_000,
        file_age_max: Duration::from_secs(600),
        size_max: 1 << 30,
        age_max: Duration::from_secs(u32::MAX.into()),
        sync_interval: Duration::from_millis(200),
    }
}

fn sink(options: &Options) -> FileSink {
    FileSink::new(options.clone(), Arc::default())
}

/// `count` exposures of 1,000 bytes or so, numbered from `first`.
fn exposures(first: u64, count: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut record = Vec::new();
    for seq in first..first + count {
        let id = ExposureId { instance: 1, ring: 0, seq };
        let context = [b'x'; 960];
        encode(
            &mut record,
            Exposure { id, time_us: 1, version: "v", units: [], assignments: [], context: &context },
        );
        bytes.extend_from_slice(&record);
    }
    bytes
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Numbers of all exposures in complete and current files, in order.
fn seqs(directory: &Path) -> Vec<u64> {
    let mut seqs = Vec::new();
    for name in names(directory) {
        let mut messages = Messages::new(File::open(directory.join(name)).unwrap());
        while let Some(message) = messages.next_message().unwrap() {
            seqs.push(u64::from_be_bytes(message[10..18].try_into().unwrap()));
        }
        assert_eq!(messages.end(), End::Clean);
    }
    seqs
}

fn count(counter: &std::sync::atomic::AtomicU64) -> u64 {
    counter.load(Relaxed)
}

#[test]
fn times_are_written_as_they_sort() {
    assert_eq!(utc(0), "19700101T000000Z");
    assert_eq!(utc(951_782_400), "20000229T000000Z");
    assert_eq!(utc(1_795_336_238), "20261122T083038Z");
    assert_eq!(utc(4_107_542_399), "21000228T235959Z");
    assert_eq!(utc(4_107_542_400), "21000301T000000Z");
    assert_eq!(utc(-5), "19700101T000000Z");
}

#[test]
fn a_file_is_completed_before_it_would_grow_over_its_size() {
    let directory = tempfile::tempdir().unwrap();
    let mut sink = sink(&options(directory.path()));
    for batch in 0..5 {
        sink.write(&exposures(batch * 4, 4), 4, BEGIN).unwrap();
    }
    assert_eq!(
        names(directory.path()),
        [
            "exposures-20261122T083038Z-0000.pb",
            "exposures-20261122T083038Z-0001.pb",
            "exposures-20261122T083038Z-0002.pb.part",
        ]
    );
    sink.finish(BEGIN);
    assert_eq!(names(directory.path())[2], "exposures-20261122T083038Z-0002.pb");
    assert_eq!(seqs(directory.path()), (0..20).collect::<Vec<_>>());
    assert_eq!(count(&sink.counts.files), 3);
}

#[test]
fn a_file_is_completed_when_its_first_exposure_is_old() {
    let directory = tempfile::tempdir().unwrap();
    let mut sink = sink(&options(directory.path()));
    sink.write(&exposures(0, 1), 1, BEGIN).unwrap();
    let wait = sink.tick(BEGIN);
    assert_eq!(wait, Duration::from_millis(200), "the sync is due next");
    sink.tick(BEGIN.plus(Duration::from_secs(599)));
    assert!(names(directory.path())[0].ends_with(PART_SUFFIX));
    sink.tick(BEGIN.plus(Duration::from_secs(600)));
    assert_eq!(names(directory.path()), ["exposures-20261122T083038Z-0000.pb"]);
    sink.tick(BEGIN.plus(Duration::from_secs(9000)));
    assert_eq!(names(directory.path()).len(), 1, "no empty files follow");
}

#[test]
fn past_the_bound_the_oldest_file_goes_and_its_exposures_are_counted() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options { size_max: 30_000, ..options(directory.path()) };
    let mut first = sink(&options);
    for batch in 0..3 {
        first.write(&exposures(batch * 8, 8), 8, BEGIN).unwrap();
    }
    first.finish(BEGIN);
    assert_eq!(count(&first.counts.evicted), 0);
    // A successor knows sizes from the disk, and counts what it did not write.
    let mut second = sink(&options);
    let later = BEGIN.plus(Duration::from_secs(5));
    second.write(&exposures(24, 9), 9, later).unwrap();
    second.finish(later);
    assert_eq!(seqs(directory.path()), (8..33).collect::<Vec<_>>());
    assert_eq!(count(&second.counts.evicted), 8);
    assert_eq!(count(&second.counts.files), 3);
}

#[test]
fn files_older_than_the_bound_go() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options { age_max: Duration::from_secs(3600), ..options(directory.path()) };
    let mut sink = sink(&options);
    let now = crate::clock::now();
    sink.write(&exposures(0, 3), 3, now).unwrap();
    sink.finish(now);
    sink.tick(now.plus(Duration::from_secs(3599)));
    assert_eq!(names(directory.path()).len(), 1);
    sink.tick(now.plus(Duration::from_secs(3620)));
    assert!(names(directory.path()).is_empty());
    assert_eq!(count(&sink.counts.evicted), 3);
}

#[test]
fn what_others_remove_is_not_counted() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options { size_max: 12_000, ..options(directory.path()) };
    let mut sink = sink(&options);
    sink.write(&exposures(0, 8), 8, BEGIN).unwrap();
    sink.complete(BEGIN);
    fs::remove_file(directory.path().join(&names(directory.path())[0])).unwrap();
    sink.write(&exposures(8, 8), 8, BEGIN).unwrap();
    sink.finish(BEGIN);
    assert_eq!((count(&sink.counts.evicted), count(&sink.counts.files)), (0, 1));
}

#[test]
fn a_torn_file_of_a_dead_logger_is_cut_and_put_in_place() {
    let directory = tempfile::tempdir().unwrap();
    let bytes = exposures(0, 3);
    let whole = exposures(0, 2).len();
    let part = directory.path().join("exposures-20261122T083038Z-0000.pb.part");
    for size in [whole, whole + 1, bytes.len() - 1] {
        fs::write(&part, &bytes[..size]).unwrap();
        let mut sink = sink(&options(directory.path()));
        sink.tick(BEGIN);
        assert_eq!(names(directory.path()), ["exposures-20261122T083038Z-0000.pb"]);
        assert_eq!(seqs(directory.path()), [0, 1]);
        assert_eq!(count(&sink.counts.files), 1);
        fs::remove_file(directory.path().join(&names(directory.path())[0])).unwrap();
    }
    // Of one without a whole exposure nothing is left.
    fs::write(&part, &bytes[..100]).unwrap();
    sink(&options(directory.path())).tick(BEGIN);
    assert!(names(directory.path()).is_empty());
}

#[test]
fn a_living_logger_s_file_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let mut orphan = sink(&options(directory.path()));
    orphan.write(&exposures(0, 2), 2, BEGIN).unwrap();
    let mut successor = sink(&options(directory.path()));
    successor.write(&exposures(2, 2), 2, BEGIN).unwrap();
    orphan.write(&exposures(4, 2), 2, BEGIN).unwrap();
    assert_eq!(names(directory.path()).len(), 2);
    orphan.finish(BEGIN);
    successor.finish(BEGIN);
    assert_eq!(seqs(directory.path()), [0, 1, 4, 5, 2, 3]);
}

#[test]
fn a_complete_file_s_name_is_never_taken_again() {
    let directory = tempfile::tempdir().unwrap();
    for first in [0, 2] {
        let mut sink = sink(&options(directory.path()));
        sink.write(&exposures(first, 2), 2, BEGIN).unwrap();
        sink.finish(BEGIN);
    }
    assert_eq!(names(directory.path()).len(), 2);
    assert_eq!(seqs(directory.path()), [0, 1, 2, 3]);
}

#[test]
fn a_write_refused_half_way_is_taken_up_where_it_stopped() {
    let directory = tempfile::tempdir().unwrap();
    let mut sink = sink(&options(directory.path()));
    sink.write(&exposures(0, 1), 1, BEGIN).unwrap();
    // As if the disk had taken 1,500 bytes and then no more.
    let bytes = exposures(1, 3);
    let current = sink.current.as_mut().unwrap();
    current.file.write_all_at(&bytes[..1500], current.size).unwrap();
    current.partial = 1500;
    sink.write(&bytes, 3, BEGIN).unwrap();
    assert_eq!(seqs(directory.path()), [0, 1, 2, 3]);
    // And what is given up half way is cut before the file is put in place.
    let bytes = exposures(4, 2);
    let current = sink.current.as_mut().unwrap();
    current.file.write_all_at(&bytes[..1500], current.size).unwrap();
    current.partial = 1500;
    sink.finish(BEGIN);
    assert_eq!(seqs(directory.path()), [0, 1, 2, 3]);
}

#[test]
fn a_file_that_goes_on_refusing_is_left_for_a_new_one() {
    let directory = tempfile::tempdir().unwrap();
    let mut sink = sink(&options(directory.path()));
    sink.write(&exposures(0, 2), 2, BEGIN).unwrap();
    let current = sink.current.as_mut().unwrap();
    // A descriptor that can't be written: every write is refused.
    current.file = File::open(sink.options.directory.join(format!("{}.part", current.name))).unwrap();
    let bytes = exposures(2, 2);
    for _ in 0..REFUSAL_COUNT_MAX {
        assert!(sink.write(&bytes, 2, BEGIN).is_err());
    }
    sink.write(&bytes, 2, BEGIN).unwrap();
    sink.finish(BEGIN);
    assert_eq!(seqs(directory.path()), [0, 1, 2, 3]);
}

#[test]
fn a_full_disk_is_waited_for_in_the_same_file() {
    let directory = tempfile::tempdir().unwrap();
    let mut sink = sink(&options(directory.path()));
    sink.write(&exposures(0, 2), 2, BEGIN).unwrap();
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let file = std::mem::replace(&mut sink.current.as_mut().unwrap().file, full);
    let bytes = exposures(2, 2);
    for _ in 0..REFUSAL_COUNT_MAX * 3 {
        let fault = sink.write(&bytes, 2, BEGIN).unwrap_err();
        assert_eq!(fault.kind(), io::ErrorKind::StorageFull);
    }
    // Somebody made room.
    sink.current.as_mut().unwrap().file = file;
    sink.write(&bytes, 2, BEGIN).unwrap();
    sink.finish(BEGIN);
    assert_eq!(names(directory.path()).len(), 1);
    assert_eq!(seqs(directory.path()), [0, 1, 2, 3]);
}

#[test]
fn a_directory_that_can_not_be_made_is_tried_again() {
    let directory = tempfile::tempdir().unwrap();
    let below = directory.path().join("not/yet");
    fs::write(directory.path().join("not"), "a file in the way").unwrap();
    let mut sink = sink(&options(&below));
    sink.tick(BEGIN);
    assert!(sink.write(&exposures(0, 1), 1, BEGIN).is_err());
    fs::remove_file(directory.path().join("not")).unwrap();
    sink.write(&exposures(0, 1), 1, BEGIN).unwrap();
    sink.finish(BEGIN);
    assert_eq!(seqs(&below), [0]);
}

#[test]
fn a_directory_removed_while_running_is_made_again() {
    let directory = tempfile::tempdir().unwrap();
    let below = directory.path().join("exposures");
    let mut sink = sink(&options(&below));
    sink.write(&exposures(0, 1), 1, BEGIN).unwrap();
    fs::remove_dir_all(&below).unwrap();
    // The next sync notices that the file is nowhere.
    sink.tick(BEGIN.plus(Duration::from_millis(200)));
    assert_eq!(count(&sink.counts.errors), 1);
    sink.write(&exposures(1, 1), 1, BEGIN).unwrap();
    sink.finish(BEGIN);
    assert_eq!(seqs(&below), [1]);
}

/// Write system calls of this thread (proc(5): `io`).
fn write_calls() -> u64 {
    let counts = fs::read_to_string("/proc/thread-self/io").unwrap();
    let calls = counts.lines().find_map(|line| line.strip_prefix("syscw: "));
    calls.unwrap().parse().unwrap()
}

#[test]
fn a_batch_goes_to_the_kernel_in_pieces_that_others_wait_for() {
    let directory = tempfile::tempdir().unwrap();
    let mut sink = sink(&Options { file_size_max: 1 << 30, ..options(directory.path()) });
    sink.write(&exposures(0, 1), 1, BEGIN).unwrap();
    let batch = exposures(1, 1000);
    let before = write_calls();
    sink.write(&batch, 1000, BEGIN).unwrap();
    assert_eq!(write_calls() - before, batch.len().div_ceil(WRITE_SIZE) as u64);
    assert_eq!(seqs(directory.path()), (0..1001).collect::<Vec<u64>>());
}
