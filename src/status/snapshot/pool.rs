//! What the processes of a pool count, as one.

use crate::metrics::histogram::Histogram;
use crate::metrics::{FAMILIES, Family, Kind, Process, Row, Table, cell_count};

/// The cells of one pool's workers, or of master and logger, summed as
/// `/metrics` does.
#[derive(Debug, Clone, PartialEq)]
pub struct Pool {
    /// Empty for master and logger.
    pub name: String,
    /// Its workers' slots.
    pub slots: Vec<usize>,
    /// Connections of its busiest worker.
    pub connections_max: u64,
    /// Family after family, cell after cell.
    values: Vec<Vec<u64>>,
    histograms: Vec<Vec<Histogram>>,
}

impl Pool {
    /// One cell; 0 of a histogram.
    #[must_use]
    pub fn value(&self, family: Family, cell: usize) -> u64 {
        self.values[family as usize].get(cell).copied().unwrap_or(0)
    }

    /// All cells of a family together.
    #[must_use]
    pub fn total(&self, family: Family) -> u64 {
        self.sum(family, |_| true)
    }

    /// The cells that `wanted` picks by their number, together.
    #[must_use]
    pub fn sum(&self, family: Family, wanted: impl Fn(usize) -> bool) -> u64 {
        let cells = self.values[family as usize].iter().enumerate().filter(|(cell, _)| wanted(*cell));
        cells.fold(0, |sum, (_, value)| sum.wrapping_add(*value))
    }

    /// One cell of a histogram.
    #[must_use]
    pub fn histogram(&self, family: Family, cell: usize) -> Option<&Histogram> {
        self.histograms[family as usize].get(cell)
    }

    /// All cells of a histogram together.
    #[must_use]
    pub fn histogram_total(&self, family: Family) -> Histogram {
        let mut sum = Histogram::default();
        for histogram in &self.histograms[family as usize] {
            sum.add(histogram);
        }
        sum
    }

    /// Connections of the busiest worker over an even share; 1 where there are none.
    #[must_use]
    pub fn spread(&self) -> f64 {
        let sum = self.value(Family::Connections, 0);
        if sum == 0 { 1.0 } else { (self.connections_max as usize * self.slots.len()) as f64 / sum as f64 }
    }
}

/// What master and logger count, and each pool's.
pub(super) fn pools(table: Table<'_>) -> (Pool, Vec<Pool>) {
    let mut all: Vec<(Pool, Vec<(usize, u64)>)> = vec![(empty(String::new()), Vec::new())];
    for block in table.blocks() {
        let (at, slot) = match (block.process(), block.slot()) {
            (None, _) => continue,
            (Some(Process::Worker), slot) => {
                let name = block.name();
                let at = all.iter().position(|(pool, _)| pool.name == name).unwrap_or(all.len());
                if at == all.len() {
                    all.push((empty(name), Vec::new()));
                }
                (at, slot)
            }
            (Some(_), _) => (0, None),
        };
        let (pool, connections) = &mut all[at];
        for row in FAMILIES {
            let family = row.family as usize;
            for cell in 0..cell_count(row.labels) {
                match row.kind {
                    Kind::Histogram => {
                        pool.histograms[family][cell].add(&block.histogram(row.family, cell));
                    }
                    Kind::GaugeMax => {
                        let value = &mut pool.values[family][cell];
                        *value = (*value).max(block.get(row.family, cell));
                    }
                    Kind::Counter | Kind::Time | Kind::Gauge => {
                        let value = &mut pool.values[family][cell];
                        *value = value.wrapping_add(block.get(row.family, cell));
                    }
                    Kind::Spread(_) | Kind::Named(..) | Kind::Info => {}
                }
            }
        }
        if let Some(slot) = slot {
            let count = block.get(Family::Connections, 0);
            match connections.iter_mut().find(|(known, _)| *known == slot) {
                Some((_, sum)) => *sum += count,
                None => connections.push((slot, count)),
            }
        }
    }
    let mut pools = all.into_iter().map(|(mut pool, connections)| {
        pool.connections_max = connections.iter().map(|(_, count)| *count).max().unwrap_or(0);
        pool.slots = connections.into_iter().map(|(slot, _)| slot).collect();
        pool
    });
    let instance = pools.next().expect("the first is the instance's");
    (instance, pools.collect())
}

fn empty(name: String) -> Pool {
    let cells = |row: &Row, wanted: bool| if wanted { cell_count(row.labels) } else { 0 };
    let is_histogram = |row: &Row| matches!(row.kind, Kind::Histogram);
    Pool {
        name,
        slots: Vec::new(),
        connections_max: 0,
        values: FAMILIES.iter().map(|row| vec![0; cells(row, !is_histogram(row))]).collect(),
        histograms: FAMILIES
            .iter()
            .map(|row| vec![Histogram::default(); cells(row, is_histogram(row))])
            .collect(),
    }
}
