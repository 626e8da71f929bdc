//! Delivery against a sink and a disk that do what they like.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use proptest::prelude::*;

use super::*;
use crate::exposure::record;
use crate::exposure::ring::ExposureId;
use crate::exposure::stream::Messages;
use crate::logger::spool::tests::BadDisk;
use crate::logger::spool::{self, WhenFull};

/// How the sink is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    /// It delivers.
    Well,
    /// It takes and says nothing.
    Silent,
    /// It takes, has it, and the answer is lost.
    Forgetful,
    /// It refuses everything.
    Failing,
    /// It takes nothing.
    Full,
}

#[derive(Debug)]
struct Behind {
    mood: Mood,
    taken: Vec<(u64, Vec<u64>, u32)>,
    /// How often each exposure is there.
    topic: BTreeMap<u64, u32>,
    /// Exposures that are refused for good.
    poison: Option<u64>,
    /// Sendings at most under way, seen so far.
    under_way_max: usize,
}

#[derive(Debug, Clone)]
struct FakeSink(Rc<RefCell<Behind>>);

fn ids_of(bytes: &[u8]) -> Vec<u64> {
    let mut messages = Messages::new(bytes);
    let mut ids = Vec::new();
    while let Some(message) = messages.next_message().unwrap() {
        ids.push(u64::from_be_bytes(message[10..18].try_into().unwrap()));
    }
    ids
}

impl Courier for FakeSink {
    fn send(&mut self, token: u64, chunk: &[u8], count: u32, _now: Now) -> bool {
        let mut behind = self.0.borrow_mut();
        if behind.mood == Mood::Full {
            return false;
        }
        let ids = ids_of(chunk);
        assert_eq!(ids.len(), count as usize);
        behind.taken.push((token, ids, count));
        behind.under_way_max = behind.under_way_max.max(behind.taken.len());
        true
    }

    fn has_room(&self) -> bool {
        self.0.borrow().mood != Mood::Full
    }

    fn poll(&mut self, _now: Now, outcomes: &mut Vec<(u64, Outcome)>) {
        let mut behind = self.0.borrow_mut();
        let mood = behind.mood;
        if matches!(mood, Mood::Silent | Mood::Full) {
            return;
        }
        for (token, ids, _) in std::mem::take(&mut behind.taken) {
            let mut rejected = 0;
            for id in ids {
                if mood != Mood::Failing && behind.poison == Some(id) {
                    rejected += 1;
                } else if mood != Mood::Failing {
                    *behind.topic.entry(id).or_default() += 1;
                }
            }
            outcomes.push((
                token,
                match mood {
                    Mood::Well => Outcome::Delivered { rejected },
                    _ => Outcome::Failed { may_have_arrived: mood == Mood::Forgetful },
                },
            ));
        }
    }

    fn finish(&mut self) {}
}

struct House {
    disk: BadDisk,
    behind: Rc<RefCell<Behind>>,
    delivery: Delivery<FakeSink, BadDisk>,
    now: Now,
    next: u64,
    confirmed: Vec<Done>,
}

impl House {
    fn new() -> House {
        let disk = BadDisk::default();
        let bounds = spool::Options {
            size_max: 1 << 30,
            free_min: 0,
            age_max: Duration::from_secs(3600),
            when_full: WhenFull::Oldest,
            sync_interval: Duration::from_millis(200),
            segment_size: 4000,
        };
        let spool = Spool::open(disk.clone(), bounds).unwrap();
        let behind = Behind {
            mood: Mood::Well,
            taken: Vec::new(),
            topic: BTreeMap::new(),
            poison: None,
            under_way_max: 0,
        };
        let behind = Rc::new(RefCell::new(behind));
        let now = Now { mono_ns: 1 << 40, unix_us: 1 << 40 };
        let options = Options { chunk_size: 200, replay_rate: 1 << 18 };
        let delivery = Delivery::new(FakeSink(Rc::clone(&behind)), Some(spool), options, now);
        House { disk, behind, delivery, now, next: 0, confirmed: Vec::new() }
    }

    fn push(&mut self, count: u64) {
        let mut batch = Batch::new();
        let mut one = Vec::new();
        for _ in 0..count {
            let id = ExposureId { instance: 0, ring: 0, seq: self.next };
            self.next += 1;
            let exposure = record::Exposure {
                id,
                time_us: 1,
                version: "v",
                units: [],
                assignments: [],
                context: &[b'x'; 30],
            };
            record::encode(&mut one, exposure);
            batch.bytes.extend_from_slice(&one);
        }
        batch.count = count;
        self.delivery.take(batch, self.now);
    }

    fn pass(&mut self, millis: u64) {
        for _ in 0..millis.div_ceil(20) {
            self.now = self.now.plus(Duration::from_millis(20));
            let confirmed = &mut self.confirmed;
            self.delivery.turn(self.now, |done| confirmed.push(done));
        }
    }

    fn mood(&self, mood: Mood) {
        self.behind.borrow_mut().mood = mood;
    }

    fn confirmed_ids(&self) -> Vec<u64> {
        self.confirmed.iter().flat_map(|done| ids_of(&done.batch.bytes)).collect()
    }

    fn spooled(&self) -> u64 {
        self.confirmed.iter().map(|done| done.spooled).sum()
    }

    fn in_spool(&self) -> u64 {
        self.delivery.spool.as_ref().unwrap().count()
    }

    fn topic(&self) -> BTreeMap<u64, u32> {
        self.behind.borrow().topic.clone()
    }

    /// All well again: everything arrives, once but for what is doubtful, and is confirmed in order.
    fn end(mut self, rejected: u64) {
        self.mood(Mood::Well);
        self.disk.set_dead(false);
        self.disk.state().troubles.clear();
        self.pass(20_000);
        let all: Vec<u64> = (0..self.next).collect();
        assert_eq!(self.confirmed_ids(), all, "confirmed once, in order");
        assert_eq!(self.in_spool(), 0);
        assert!(self.delivery.is_settled() && self.delivery.holds_nothing() && !self.delivery.is_stalled());
        let topic = self.topic();
        // A disk that could not be read for half a minute counts as damaged.
        let corrupt = self.delivery.spool.as_ref().unwrap().books().corrupt;
        assert_eq!(topic.len() as u64 + rejected + corrupt, self.next);
        let doubles: u64 = topic.values().map(|count| u64::from(count - 1)).sum();
        assert!(doubles <= self.delivery.tally().doubtful, "{doubles} doubles");
        let books = self.delivery.spool.as_ref().unwrap().books();
        let live_rejected: u64 = self.confirmed.iter().map(|done| done.rejected).sum();
        assert_eq!(live_rejected + books.rejected, rejected);
        assert_eq!(books.delivered + books.rejected + books.corrupt, self.spooled(), "the spool's books");
    }
}

#[test]
fn what_a_well_sink_takes_never_touches_the_disk() {
    let mut house = House::new();
    for _ in 0..50 {
        house.push(7);
        house.pass(20);
    }
    house.pass(40);
    assert_eq!(house.topic().len(), 350);
    assert_eq!(house.spooled(), 0);
    house.end(0);
}

#[test]
fn a_silent_sink_stalls_and_what_it_took_is_not_doubled_when_it_comes_back() {
    let mut house = House::new();
    house.mood(Mood::Silent);
    house.push(20);
    house.pass(1_900);
    assert!(!house.delivery.is_stalled());
    assert!(house.confirmed.is_empty());
    house.pass(200);
    assert!(house.delivery.is_stalled());
    house.pass(400);
    assert_eq!((house.spooled(), house.in_spool()), (20, 20));
    house.push(20);
    house.pass(400);
    assert_eq!(house.in_spool(), 40);
    let under_way = house.behind.borrow().taken.len();
    house.pass(5_000);
    assert_eq!(house.behind.borrow().taken.len(), under_way, "nothing is sent while something is under way");
    house.mood(Mood::Well);
    house.pass(2_000);
    assert!(house.topic().values().all(|count| *count == 1) && house.topic().len() == 40);
    house.end(0);
}

#[test]
fn while_a_sink_fails_one_chunk_at_a_time_is_tried_and_ever_more_seldom() {
    let mut house = House::new();
    house.mood(Mood::Failing);
    house.push(40);
    house.pass(3_000);
    assert!(house.delivery.is_stalled());
    house.behind.borrow_mut().under_way_max = 0;
    let errors = house.delivery.tally().errors;
    house.pass(60_000);
    assert_eq!(house.behind.borrow().under_way_max, 1);
    let tries = house.delivery.tally().errors - errors;
    assert!((10..=60).contains(&tries), "{tries} in a minute");
    house.end(0);
}

#[test]
fn what_neither_sink_nor_disk_takes_is_not_confirmed_and_the_sink_alone_is_enough() {
    let mut house = House::new();
    house.mood(Mood::Failing);
    house.disk.set_dead(true);
    house.push(20);
    house.pass(10_000);
    assert!(house.delivery.is_stalled() && house.confirmed.is_empty());
    house.mood(Mood::Well);
    house.pass(10_000);
    assert_eq!(house.topic().len(), 20);
    assert_eq!((house.confirmed.len(), house.spooled()), (1, 0));
    house.end(0);
}

#[test]
fn an_exposure_refused_for_good_is_counted_where_it_was_refused() {
    for stalls in [false, true] {
        let mut house = House::new();
        house.behind.borrow_mut().poison = Some(3);
        if stalls {
            house.mood(Mood::Silent);
        }
        house.push(10);
        house.pass(3_000);
        house.end(1);
    }
}

#[test]
fn replay_keeps_to_its_rate_and_lets_live_traffic_first() {
    let mut house = House::new();
    house.mood(Mood::Failing);
    for _ in 0..8 {
        house.push(5_000);
        house.pass(1_000);
    }
    let in_spool = house.in_spool();
    assert!(in_spool > 30_000);
    house.mood(Mood::Well);
    house.pass(3_000);
    // 256 KiB a second of about 60 bytes each, and a quarter of a second at once.
    let before = house.in_spool();
    house.pass(500);
    let replayed = before - house.in_spool();
    assert!((1_000..=3_500).contains(&replayed), "{replayed}");
    house.push(5);
    house.pass(40);
    assert!(house.topic().contains_key(&(house.next - 1)), "live traffic is not behind it");
    house.end(0);
}

#[test]
fn at_the_end_what_is_not_delivered_is_synced_in_the_spool() {
    let mut house = House::new();
    house.mood(Mood::Silent);
    house.push(20);
    house.pass(100);
    let confirmed = &mut house.confirmed;
    house.delivery.finish(house.now, |done| confirmed.push(done));
    assert_eq!(house.confirmed_ids().len(), 20);
    assert_eq!((house.spooled(), house.in_spool()), (20, 20));
}

#[test]
fn a_stall_ends_when_nothing_is_left_to_deliver() {
    let mut house = House::new();
    house.mood(Mood::Full);
    house.push(20);
    house.pass(3_000);
    assert!(house.delivery.is_stalled());
    assert_eq!(house.in_spool(), 20);
    // What can't be read for half a minute counts as damaged.
    house.mood(Mood::Well);
    house.disk.set_dead(true);
    house.pass(60_000);
    house.disk.set_dead(false);
    house.pass(1_000);
    assert_eq!((house.topic().len(), house.in_spool()), (0, 0));
    assert!(!house.delivery.is_stalled(), "nobody waits for the sink");
    house.end(0);
}

#[derive(Debug, Clone)]
enum Move {
    Push(u64),
    Pass(u64),
    Mood(Mood),
    Disk(bool),
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn whatever_sink_and_disk_do_everything_arrives_and_is_confirmed_once(moves in proptest::collection::vec(
        prop_oneof![
            4 => (1..40u64).prop_map(Move::Push),
            4 => (20..3_000u64).prop_map(Move::Pass),
            3 => prop_oneof![
                Just(Mood::Well), Just(Mood::Silent), Just(Mood::Forgetful), Just(Mood::Failing), Just(Mood::Full)
            ].prop_map(Move::Mood),
            1 => any::<bool>().prop_map(Move::Disk),
        ],
        1..60,
    )) {
        let mut house = House::new();
        for one in moves {
            match one {
                Move::Push(count) => house.push(count),
                Move::Pass(millis) => house.pass(millis),
                Move::Mood(mood) => house.mood(mood),
                Move::Disk(is_dead) => house.disk.set_dead(is_dead),
            }
        }
        house.end(0);
    }
}
