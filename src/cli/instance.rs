//! The shared memory of an instance on this machine, found by its settings and
//! opened to be looked at.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::settings::SettingsArguments;
use super::{Exit, Failure};
use crate::clock;
use crate::metrics::Table;
use crate::status::snapshot::{self, RingWords, Snapshot};
use crate::sys::region::Region;

/// Which instance is meant: the one whose settings these are.
#[derive(Debug, clap::Args)]
pub(super) struct InstanceArguments {
    /// The instance's directory; short for --set runtime_dir=DIRECTORY
    #[arg(long, value_name = "DIRECTORY")]
    runtime_dir: Option<PathBuf>,
    #[command(flatten)]
    settings: SettingsArguments,
}

impl InstanceArguments {
    /// Its runtime directory; or what is wrong with the settings has been said.
    pub(super) fn runtime_dir(&self) -> Result<PathBuf, Exit> {
        match &self.runtime_dir {
            Some(runtime_dir) => Ok(runtime_dir.clone()),
            None => {
                let settings = self.settings.load()?;
                Ok(self.settings.directories(&settings)?.runtime_dir)
            }
        }
    }
}

/// An instance's memory, mapped to be read.
pub(super) struct Instance {
    runtime_dir: PathBuf,
    metrics: Region,
    /// Which file that is: a restart makes another.
    inode: u64,
    /// Slot, which of its two, memory.
    rings: Vec<(usize, usize, Region)>,
}

impl Instance {
    /// Opens the instance of this directory.
    pub(super) fn open(runtime_dir: &Path) -> Result<Instance, Failure> {
        let path = runtime_dir.join("metrics");
        let open = || {
            let inode = fs::metadata(&path)?.ino();
            Ok((Region::view_file(&path)?, inode))
        };
        let (metrics, inode) = open().map_err(|fault| Failure::NoInstance { path: path.clone(), fault })?;
        let table = Table::attach(metrics.words())
            .map_err(|fault| Failure::Foreign { path, reason: fault.to_string() })?;
        let directory = runtime_dir.join("rings").join(format!("{:016x}", table.instance()));
        Ok(Instance { runtime_dir: runtime_dir.to_owned(), rings: open_rings(&directory), metrics, inode })
    }

    /// What it looks like now. After a restart, of the new one.
    pub(super) fn look(&mut self) -> Result<Snapshot, Failure> {
        let path = self.runtime_dir.join("metrics");
        if fs::metadata(&path).is_ok_and(|found| found.ino() != self.inode) {
            *self = Instance::open(&self.runtime_dir)?;
        }
        let table = Table::attach(self.metrics.words())
            .map_err(|fault| Failure::Foreign { path, reason: fault.to_string() })?;
        let rings: Vec<RingWords<'_>> =
            self.rings.iter().map(|(slot, which, region)| (*slot, *which, region.words())).collect();
        Ok(Snapshot::take(table, &rings, clock::now(), snapshot::lives))
    }
}

/// A ring's file is named by its number, which is its slot's and which of two.
fn open_rings(directory: &Path) -> Vec<(usize, usize, Region)> {
    let mut rings: Vec<(usize, usize, Region)> = fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let number: usize = entry.file_name().to_str()?.parse().ok()?;
            Some((number / 2, number % 2, Region::view_file(&entry.path()).ok()?))
        })
        .collect();
    rings.sort_by_key(|(slot, which, _)| (*slot, *which));
    rings
}
