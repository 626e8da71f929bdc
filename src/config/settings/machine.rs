//! What depends on the machine: how many workers, and where things are kept.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::{Fault, Listen, Settings};

/// What is known of the process that wants its directories.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    /// Whether it runs as root.
    pub root: bool,
    /// systemd's STATE_DIRECTORY.
    pub state_directory: Option<OsString>,
    /// systemd's RUNTIME_DIRECTORY.
    pub runtime_directory: Option<OsString>,
    /// XDG_RUNTIME_DIR, where it is a directory.
    pub xdg_runtime_dir: Option<OsString>,
    /// The working directory.
    pub current_dir: PathBuf,
}

/// Where an instance keeps its things; both absolute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directories {
    /// What outlives a reboot.
    pub state_dir: PathBuf,
    /// Rings, metrics, socket files, the lock.
    pub runtime_dir: PathBuf,
}

impl Settings {
    /// How many workers each pool has, given the CPUs that this process may run on.
    ///
    /// # Errors
    /// A CPU that is not among them, and two workers of different pools on one address.
    pub fn worker_counts(&self, available: &[usize]) -> Result<Vec<usize>, Fault> {
        let mut counts = Vec::new();
        let mut taken: HashMap<Listen, &str> = HashMap::new();
        for pool in &self.pools {
            let count = pool.worker_cpus(available)?.len();
            counts.push(count);
            for (listen, index) in
                pool.listen.iter().flat_map(|listen| (0..count).map(move |index| (listen, index)))
            {
                let own = pool.worker_listen(listen, index)?;
                let chosen = matches!(own, Listen::Tcp(address) if address.port() == 0);
                let other =
                    taken.insert(own.clone(), &pool.name).filter(|other| !chosen && *other != pool.name);
                if let Some(other) = other {
                    return Err(Fault {
                        pointer: format!("pool.{}.listen", pool.name),
                        message: format!(
                            "`{own}` would be its worker {index}'s, and is one of pool `{other}`'s; with a port for each \
                             worker a pool takes as many in a row as it has workers"
                        ),
                    });
                }
            }
        }
        Ok(counts)
    }

    /// The instance's directories.
    #[must_use]
    pub fn directories(&self, of: &Surroundings) -> Directories {
        // systemd gives several, separated by colons, where the unit names several.
        let first = |list: &Option<OsString>| {
            let list = list.as_ref()?.to_str()?;
            let first = list.split(':').next().unwrap_or_default();
            (!first.is_empty()).then(|| PathBuf::from(first))
        };
        let local = of.current_dir.join("splitd-data");
        let state_dir = (self.state_dir.clone())
            .or_else(|| first(&of.state_directory))
            .or_else(|| of.root.then(|| PathBuf::from("/var/lib/splitd")))
            .unwrap_or_else(|| local.clone());
        let runtime_dir = (self.runtime_dir.clone())
            .or_else(|| first(&of.runtime_directory))
            .or_else(|| of.root.then(|| PathBuf::from("/run/splitd")))
            .or_else(|| of.xdg_runtime_dir.as_ref().map(|xdg| Path::new(xdg).join("splitd")))
            .unwrap_or_else(|| local.join("run"));
        Directories {
            state_dir: of.current_dir.join(state_dir),
            runtime_dir: of.current_dir.join(runtime_dir),
        }
    }
}
