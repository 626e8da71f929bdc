use super::*;
use crate::config::settings::{Sources, load};
use std::sync::atomic::Ordering::Relaxed;

fn prepare(directory: &Path, sets: &[(&str, &str)]) -> Result<Heritage, HeritageFault> {
    let mut all = vec![
        ("experiments".to_owned(), "e.json".to_owned()),
        ("pool.assign.listen".to_owned(), "127.0.0.1:0".to_owned()),
        ("pool.bulk.listen".to_owned(), "127.0.0.1:0".to_owned()),
        ("pool.admin.listen".to_owned(), "127.0.0.1:0".to_owned()),
        ("pool.assign.cpus".to_owned(), String::new()),
        ("pool.assign.workers".to_owned(), "2".to_owned()),
        ("logger.ring_size".to_owned(), "4MiB".to_owned()),
    ];
    all.extend(sets.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    let settings = load(&Sources { command_line: &all, ..Sources::default() }).unwrap();
    let directories = Directories { state_dir: directory.join("state"), runtime_dir: directory.join("run") };
    Heritage::prepare(settings, directories, PassedSockets::default())
}

#[test]
fn one_directory_has_one_instance_and_says_whose_it_is() {
    let _alone = crate::sys::alone();
    let directory = tempfile::tempdir().unwrap();
    let mut first = prepare(directory.path(), &[]).unwrap();
    let refused = prepare(directory.path(), &[]).unwrap_err().to_string();
    assert!(refused.contains(&format!("(pid {})", std::process::id())), "{refused}");
    first.clear();
    drop(first);
    prepare(directory.path(), &[]).unwrap();
}

#[test]
fn a_lock_that_a_killed_masters_youngest_child_still_has_is_waited_for() {
    let _alone = crate::sys::alone();
    let directory = tempfile::tempdir().unwrap();
    let mut killed = std::process::Command::new("true").spawn().unwrap();
    killed.wait().unwrap();
    let run = directory.path().join("run");
    fs::create_dir(&run).unwrap();
    fs::write(run.join("lock"), format!("{}\n", killed.id())).unwrap();
    let child = File::open(run.join("lock")).unwrap();
    child.lock().unwrap();
    std::thread::scope(|scope| {
        let next = scope.spawn(|| prepare(directory.path(), &[]).map(drop));
        std::thread::sleep(std::time::Duration::from_millis(50));
        drop(child);
        next.join().unwrap().unwrap();
    });
}

#[test]
fn after_an_unclean_end_the_addresses_are_shared_with_those_left_behind() {
    let _alone = crate::sys::alone();
    let directory = tempfile::tempdir().unwrap();
    let killed = prepare(directory.path(), &[]).unwrap();
    let address = killed.bound()[0][0].address.clone();
    // Its workers keep the sockets; its lock goes with it, the text stays.
    let left_behind = killed.bound()[0][0].fd.try_clone().unwrap();
    drop(killed);
    let mut next = prepare(directory.path(), &[("pool.assign.listen", &address)]).unwrap();
    next.clear();
    drop(next);
    let refused = prepare(directory.path(), &[("pool.assign.listen", &address)]).unwrap_err();
    assert!(matches!(refused, HeritageFault::Listen(_)), "after a clean end, it is a stranger's: {refused}");
    drop(left_behind);
}

#[test]
fn every_worker_gets_all_sockets_of_its_pool_each_with_its_slot() {
    let directory = tempfile::tempdir().unwrap();
    let heritage = prepare(directory.path(), &[]).unwrap();
    let names: Vec<_> = heritage.places.iter().map(|place| place.name.as_str()).collect();
    assert_eq!(names, ["assign/0", "assign/1", "bulk/0", "admin/0"]);
    let plan = crate::sys::region::seal(b"plan").unwrap();
    let slots = |slot: usize| {
        let estate = heritage.worker(slot, 1, &plan).unwrap();
        assert_eq!(estate.keep.len(), estate.listeners.len() + 1);
        estate.listeners.iter().map(|listener| listener.slot).collect::<Vec<_>>()
    };
    assert_eq!([slots(0), slots(1), slots(2), slots(3)], [vec![0, 1], vec![0, 1], vec![2], vec![3]]);
}

#[test]
fn rings_are_for_slots_that_record_and_go_when_they_are_empty() {
    let directory = tempfile::tempdir().unwrap();
    let mut heritage = prepare(directory.path(), &[]).unwrap();
    heritage.make_rings().unwrap();
    let count = || fs::read_dir(heritage.ring_directory()).map_or(0, Iterator::count);
    assert_eq!(count(), 6, "two for assign/0, assign/1 and bulk/0, none for admin/0");
    let [path, _] = heritage.ring_paths(1);
    let region = Region::open_locked(&path).unwrap();
    let mut writer = ring::Writer::attach(region.words()).unwrap();
    writer.claim();
    writer.commit(b"\x03abc").unwrap();
    drop(region);
    let books = heritage.clear();
    assert_eq!((books.attempted, books.committed, books.in_ring), (1, 1, 1));
    assert!(path.exists(), "what is in it is the next instance's to drain");
    assert_eq!(fs::read_dir(heritage.ring_directory()).unwrap().count(), 1);
}

#[test]
fn levels_of_the_dead_are_cleared_and_their_counts_kept() {
    let directory = tempfile::tempdir().unwrap();
    let heritage = prepare(directory.path(), &[]).unwrap();
    let index = metrics::worker_block(0, 0);
    let block = heritage.table().block(index);
    block.set(metrics::Family::Connections, 7);
    block.add(metrics::Family::ConnectionsAccepted, 9);
    heritage.clear_gauges(&[index]);
    assert_eq!(block.get(metrics::Family::Connections, 0), 0);
    assert_eq!(block.get(metrics::Family::ConnectionsAccepted, 0), 9);
    assert!(heritage.metrics.words().iter().any(|word| word.load(Relaxed) == 9));
}

#[test]
fn what_the_machine_contradicts_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let refused = prepare(directory.path(), &[("pool.assign.cpus", "4095")]).unwrap_err();
    assert!(refused.to_string().starts_with("pool.assign.cpus: CPU 4095 is none"), "{refused}");
}
