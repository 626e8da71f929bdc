//! What reached the other end of a sink, held against what clients saw.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message as _;
use splitd::exposure::proto::Exposure;

use crate::support::Outcome;

type Id = [u8; 16];

/// Ids of exposures by user: each request of a test is for a user of its own.
#[derive(Default)]
pub struct Arrived {
    ids: BTreeMap<String, Vec<Id>>,
    doubled: usize,
}

impl Arrived {
    /// Takes length-delimited exposures.
    pub fn take(&mut self, mut framed: &[u8]) {
        while !framed.is_empty() {
            let mut exposure = Exposure::decode_length_delimited(&mut framed).expect("whole exposures");
            let user = exposure.units.remove("user_id").expect("a user");
            self.note(user, exposure.id.try_into().expect("an id of 16 bytes"));
        }
    }

    fn note(&mut self, user: String, id: Id) {
        let ids = self.ids.entry(user).or_default();
        match ids.contains(&id) {
            true => self.doubled += 1,
            false => ids.push(id),
        }
    }

    /// Exposures, by their ids.
    pub fn count(&self) -> usize {
        self.ids.values().map(Vec::len).sum()
    }

    /// How many came again, with an id that was there.
    pub fn doubled(&self) -> usize {
        self.doubled
    }

    /// Who was answered and is not here. Nobody is here under two ids, or without
    /// having asked.
    pub fn missing<'o>(&self, outcome: &'o Outcome) -> Vec<&'o str> {
        let asked: BTreeSet<&str> =
            outcome.answered.iter().chain(&outcome.unanswered).map(String::as_str).collect();
        for (user, ids) in &self.ids {
            assert_eq!(ids.len(), 1, "{user} has more than one exposure: {ids:02x?}");
            assert!(asked.contains(user.as_str()), "{user} was never asked for");
        }
        let answered = outcome.answered.iter().map(String::as_str);
        answered.filter(|user| !self.ids.contains_key(*user)).collect()
    }
}

#[test]
fn the_check_sees_what_is_lost_doubled_under_two_ids_or_never_asked_for() {
    let outcome =
        Outcome { answered: vec!["a".to_owned(), "b".to_owned()], unanswered: vec!["c".to_owned()] };
    let judge = |exposures: &[(&str, u8)]| {
        let mut arrived = Arrived::default();
        exposures.iter().for_each(|(user, id)| arrived.note((*user).to_owned(), [*id; 16]));
        (arrived.missing(&outcome).join(" "), arrived.doubled())
    };
    assert_eq!(judge(&[("a", 1), ("b", 2)]), (String::new(), 0));
    assert_eq!(judge(&[("a", 1), ("b", 2), ("c", 3)]), (String::new(), 0));
    assert_eq!(judge(&[("a", 1), ("a", 1), ("b", 2)]), (String::new(), 1));
    assert_eq!(judge(&[("a", 1)]), ("b".to_owned(), 0));
    for bad in [[("a", 1), ("a", 9)], [("a", 1), ("d", 4)]] {
        assert!(std::panic::catch_unwind(|| judge(&bad)).is_err(), "{bad:?}");
    }
}
