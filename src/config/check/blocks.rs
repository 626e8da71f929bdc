//! Which buckets of each layer are taken, and by whom.

use std::collections::BTreeMap;

use super::json::Node;
use super::report::Report;
use super::words::short;
use crate::engine::catalog::Block;

/// Whose blocks are being read.
pub(super) struct Owner<'w> {
    pub layer: Option<usize>,
    /// Whether its blocks are taken: those of finished experiments are free.
    pub is_taking: bool,
    pub experiment: usize,
    pub group: usize,
    /// "experiment `new_home`"
    pub what: &'w str,
    /// "`test`"
    pub name: &'w str,
}

/// Per layer, the runs of buckets taken so far: first bucket → (one past the last, owner).
pub(super) struct Taken {
    layers: Vec<BTreeMap<u32, (u32, usize)>>,
    owners: Vec<String>,
    /// Experiment and group of the last owner, whose name is not made anew for each block.
    last: Option<(usize, usize)>,
}

impl Taken {
    pub fn new(layer_count: usize) -> Self {
        Taken { layers: vec![BTreeMap::new(); layer_count], owners: Vec::new(), last: None }
    }

    /// Takes a block, as far as it is free, and reports everyone who has some of it already.
    pub fn take<'s>(
        &mut self,
        report: &Report<'s>,
        layer: usize,
        layer_name: &str,
        block: Block,
        owner: &Owner<'_>,
        at: &Node<'s, '_>,
    ) {
        if self.last != Some((owner.experiment, owner.group)) {
            self.last = Some((owner.experiment, owner.group));
            self.owners.push(format!("group {} of {}", owner.name, owner.what));
        }
        let own = self.owners.len() - 1;
        let (first, end) = (block.first, block.first.saturating_add(block.count));
        let runs = &mut self.layers[layer];

        // The run that begins before the block and may reach into it, then those that begin in it.
        let before = runs.range(..first).next_back();
        let overlapping: Vec<(u32, u32, usize)> = before
            .into_iter()
            .chain(runs.range(first..end))
            .filter(|(_, (run_end, _))| *run_end > first)
            .map(|(run, (run_end, run_owner))| (*run, *run_end, *run_owner))
            .collect();
        let mut free = first;
        let mut blamed = Vec::new();
        for (run, run_end, run_owner) in overlapping {
            if run > free {
                runs.insert(free, (run, own));
            }
            free = free.max(run_end);
            if !blamed.contains(&run_owner) && blamed.len() < BLAMED_MAX {
                blamed.push(run_owner);
                let bucket = run.max(first);
                let last = run_end.min(end) - 1;
                report.fault(at, || {
                    let buckets = if bucket == last {
                        format!("bucket {bucket} of layer `{}` is", short(layer_name))
                    } else {
                        format!("buckets {bucket} to {last} of layer `{}` are", short(layer_name))
                    };
                    format!(
                        "block [{first}, {}] of {} overlaps another: {buckets} owned by {} already; a bucket belongs to one group",
                        block.count,
                        self.owners[own],
                        if run_owner == own { "the same group" } else { &self.owners[run_owner] },
                    )
                });
            }
        }
        if free < end {
            runs.insert(free, (end, own));
        }
        if report.is_full() {
            // What follows is counted no more; do not spend on each block what all before have left.
            runs.clear();
        }
    }
}

/// Owners named for one block.
const BLAMED_MAX: usize = 16;
