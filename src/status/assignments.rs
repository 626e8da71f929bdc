//! How the assignments of each experiment in force fall on its groups, beside how
//! they should: a group is as likely as it has buckets of its experiment's.
//!
//! Whether chance explains the difference is judged by a test that may be looked
//! at as often as one likes, as a page is: under the null hypothesis that each
//! assignment is drawn by the expected shares θ, the Bayes factor of all other
//! shares (a uniform Dirichlet prior) against θ,
//!
//! ```text
//!            Γ(k)                       Γ(nᵢ + 1)
//! B  =  ────────────  ·  Π over groups  ─────────        k groups, n = Σ nᵢ assignments
//!        Γ(k + n)                         θᵢ^nᵢ
//! ```
//! ever exceeds 1/α with a probability of at most α (M. Lindon, A. Malek:
//! Anytime-Valid Inference for Multinomial Count Data, NeurIPS 2022), so that 1/B
//! is a p-value at any time and for any count. A chi-square test has that error
//! only for whoever looks once, and needs counts that are large enough.
//!
//! What is counted is answers, not units, and a unit that asks often is drawn only
//! once. With a million units that differ in how often they ask, shares are off by
//! tenths of a percent for good, and the test, rightly, sees it. So a mismatch is
//! told only where a group's share is also off by a tenth of what it should be: a
//! hash or blocks at fault, or few units (a robot, an id that is always the same)
//! that make much of the traffic.

use std::cmp::Reverse;
use std::collections::HashMap;

use crate::metrics::Table;
use crate::metrics::names::{NameKind, Place, label_values};

/// A mismatch is told where chance explains the counts with less than this probability …
pub const P_MAX: f64 = 0.001;
/// … and a group's share is off by more than this part of it.
pub const OFF_MIN: f64 = 0.1;

/// A group of an experiment in force.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// Assigned since its share was expected.
    pub count: u64,
    /// The share of its experiment's assignments that it should have, 0 to 1.
    pub expected: f64,
}

/// An experiment in force.
#[derive(Debug, Clone, PartialEq)]
pub struct Experiment {
    /// Its name.
    pub name: String,
    /// Those that own buckets and have a place among the counters.
    pub groups: Vec<Group>,
}

impl Experiment {
    /// All groups' assignments.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.groups.iter().map(|group| group.count).sum()
    }

    /// The part of its assignments that a group has; 0 where there are none.
    #[must_use]
    pub fn share(&self, group: &Group) -> f64 {
        group.count as f64 / self.count().max(1) as f64
    }

    /// The probability of counts like these, looked at at any time, if the shares
    /// are as expected: 1/B of the module, at most 1. None where a group has no place.
    #[must_use]
    pub fn p(&self) -> Option<f64> {
        let whole: f64 = self.groups.iter().map(|group| group.expected).sum();
        if (whole - 1.0).abs() > 1e-9 {
            return None;
        }
        let (k, n) = (self.groups.len() as f64, self.count() as f64);
        let of_group = |group: &Group| {
            let count = group.count as f64;
            libm::lgamma(count + 1.0) - count * group.expected.ln()
        };
        let ln_b = libm::lgamma(k) - libm::lgamma(k + n) + self.groups.iter().map(of_group).sum::<f64>();
        Some((-ln_b).exp().min(1.0))
    }

    /// Whether the groups are not as large as they should be, beyond chance and by much.
    #[must_use]
    pub fn is_mismatched(&self) -> bool {
        let off = |group: &Group| (self.share(group) / group.expected - 1.0).abs() > OFF_MIN;
        self.p().is_some_and(|p| p < P_MAX) && self.groups.iter().any(off)
    }
}

/// All that is known of assignments.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Assignments {
    /// In the order in which their names were met.
    pub experiments: Vec<Experiment>,
    /// Those of names without a place.
    pub other: u64,
}

impl Assignments {
    /// Reads them.
    #[must_use]
    pub fn read(table: Table<'_>) -> Assignments {
        let mut experiments: Vec<Experiment> = Vec::new();
        let mut known: HashMap<String, usize> = HashMap::new();
        for (place, text) in table.names().of(NameKind::Assignment) {
            let Some((share, since)) = table.shares().get(place) else { continue };
            let [experiment, group] = &label_values(NameKind::Assignment, &text)[..] else { continue };
            let group = Group {
                name: group.clone(),
                count: table.get_named(place).saturating_sub(since),
                expected: f64::from(share.group) / f64::from(share.experiment),
            };
            let index = *known.entry(experiment.clone()).or_insert(experiments.len());
            if index == experiments.len() {
                experiments.push(Experiment { name: experiment.clone(), groups: Vec::new() });
            }
            experiments[index].groups.push(group);
        }
        Assignments { experiments, other: table.get_named(Place::other(NameKind::Assignment)) }
    }

    /// What one looks for first: mismatched ones, then by how many were assigned.
    #[must_use]
    pub fn foremost(&self) -> Vec<&Experiment> {
        let mut sorted: Vec<&Experiment> = self.experiments.iter().collect();
        sorted.sort_by_cached_key(|experiment| Reverse((experiment.is_mismatched(), experiment.count())));
        sorted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::shares::Share;
    use crate::metrics::{Process, worker_block};
    use crate::status::snapshot::tests::Fixture;

    fn experiment(counts: &[(u64, f64)]) -> Experiment {
        let group = |&(count, expected): &(u64, f64)| Group { name: "g".to_owned(), count, expected };
        Experiment { name: "e".to_owned(), groups: counts.iter().map(group).collect() }
    }

    #[test]
    fn the_probability_is_that_of_the_formula() {
        // By hand: B = 1/(n + 1) ÷ (C(n, i) θ^i (1 − θ)^(n − i)) for two groups.
        let p = |counts: &[(u64, f64)]| experiment(counts).p().unwrap();
        assert!((p(&[(10, 0.5), (0, 0.5)]) - 11.0 / 1024.0).abs() < 1e-12);
        assert!((p(&[(0, 0.9), (3, 0.1)]) - 4.0 / 1000.0).abs() < 1e-12);
        // Three: B = 2/((n + 1)(n + 2)) ÷ multinomial.
        let multinomial = 6.0 * 0.5 * 0.25 * 0.25;
        assert!((p(&[(1, 0.5), (1, 0.25), (1, 0.25)]) - 1f64.min(10.0 * multinomial)).abs() < 1e-12);
        assert!((p(&[(4, 0.5), (0, 0.25), (0, 0.25)]) - 15.0 / 16.0).abs() < 1e-12);
        assert_eq!(p(&[(0, 0.5), (0, 0.5)]), 1.0);
        assert_eq!(p(&[(1_000_000, 1.0)]), 1.0, "one group has all");
        assert_eq!(experiment(&[(100, 0.5), (0, 0.3)]).p(), None, "a group without a place");
    }

    #[test]
    fn a_mismatch_is_beyond_chance_and_large() {
        let is_mismatched = |counts: &[(u64, f64)]| experiment(counts).is_mismatched();
        assert!(!is_mismatched(&[(0, 0.5), (0, 0.5)]));
        assert!(!is_mismatched(&[(13, 0.5), (7, 0.5)]), "chance");
        assert!(!is_mismatched(&[(5_000_000, 0.5), (4_900_000, 0.5)]), "beyond chance, but small");
        assert!(is_mismatched(&[(5_600, 0.5), (4_400, 0.5)]));
        assert!(is_mismatched(&[(99_000, 0.99), (1_300, 0.01)]), "the small group is off by a third");
        assert!(is_mismatched(&[(0, 0.1), (200, 0.9)]), "a group that nobody is in");
    }

    /// A chi-square test at 5 %, looked at 2,000 times, calls a third of these false.
    #[test]
    fn who_looks_after_each_draw_is_seldom_misled() {
        let mut state = 42_u64;
        let mut random = || {
            // SplitMix64 (G. Steele and others, 2014).
            state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut mixed = (state ^ state >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
            mixed ^ mixed >> 31
        };
        let misled = (0..400).filter(|_| {
            let mut drawn = experiment(&[(0, 0.5), (0, 0.3), (0, 0.2)]);
            (0..2_000).any(|_| {
                let group = [0, 0, 0, 0, 0, 1, 1, 1, 2, 2][(random() % 10) as usize];
                drawn.groups[group].count += 1;
                drawn.p().unwrap() < 0.05
            })
        });
        let misled = misled.count();
        assert!(misled <= 400 / 20, "{misled} of 400");
    }

    #[test]
    fn counts_are_of_all_workers_since_the_shares_are_expected() {
        let fixture = Fixture::new();
        let table = fixture.table();
        for name in [&b"\"a\":\"x\""[..], b"\"b\":\"z\"", b"\"a\":\"y\"", b"\"gone\":\"x\""] {
            table.names().learn(NameKind::Assignment, name);
        }
        let [first, second] = [0, 1].map(|slot| table.block(worker_block(slot, 0)));
        assert_eq!(first.process(), Some(Process::Worker));
        first.add_named(Place(0), 5);
        for (place, group, experiment) in [(0, 3, 4), (1, 7, 7), (2, 1, 4)] {
            let count = table.get_named(Place(place));
            table.shares().expect(Place(place), Share { group, experiment }, count);
        }
        for (block, place, count) in
            [(first, 0, 2), (second, 0, 4), (second, 2, 3), (second, 1, 50), (first, 3, 9)]
        {
            block.add_named(Place(place), count);
        }
        first.add_named(Place::other(NameKind::Assignment), 8);
        let found = Assignments::read(table);
        let group = |name: &str, count, expected| Group { name: name.to_owned(), count, expected };
        let a = Experiment { name: "a".to_owned(), groups: vec![group("x", 6, 0.75), group("y", 3, 0.25)] };
        let b = Experiment { name: "b".to_owned(), groups: vec![group("z", 50, 1.0)] };
        assert_eq!(found, Assignments { experiments: vec![a.clone(), b.clone()], other: 8 });
        assert_eq!(found.foremost(), [&b, &a]);
        table.shares().withdraw(Place(2));
        assert_eq!(Assignments::read(table).experiments[0].p(), None);
    }
}
