//! The runtime directory: its lock, and the file of metrics.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;

use super::{HeritageFault, refused};
use crate::clock;
use crate::metrics::{self, Table};
use crate::sys::region::Region;
use crate::sys::socket::Takeover;

/// A pid's digits, at most: the text that replaces one covers it.
const LOCK_TEXT_WIDTH: usize = 10;

/// How often a lock is tried that a dead process is said to hold: a child that it
/// had just forked has it for a moment, until it closes what is not its own.
const LOCK_ATTEMPT_COUNT: u32 = 500;
const LOCK_ATTEMPT_WAIT: Duration = Duration::from_millis(10);

/// Whether this is the pid of a process that is gone.
fn is_dead(pid: &str) -> bool {
    pid.parse().is_ok_and(|pid| kill(Pid::from_raw(pid), None) == Err(Errno::ESRCH))
}

/// The lock on the directory; and whether the one who had it last was killed, so
/// that its workers may still be serving.
pub(super) fn take_lock(runtime_dir: &Path) -> Result<(File, Takeover), HeritageFault> {
    let path = runtime_dir.join("lock");
    let mut lock = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(refused("can't open", &path))?;
    let mut text = String::new();
    for attempt in 1.. {
        let held = lock.try_lock();
        text.clear();
        // Another's pid is a courtesy to whoever reads the fault.
        let _ = lock.rewind().and_then(|()| lock.read_to_string(&mut text));
        match held {
            Ok(()) => break,
            Err(TryLockError::WouldBlock) if is_dead(text.trim()) && attempt < LOCK_ATTEMPT_COUNT => {
                std::thread::sleep(LOCK_ATTEMPT_WAIT);
            }
            Err(TryLockError::WouldBlock) => {
                let holder = text.trim();
                let holder = if holder.is_empty() { String::new() } else { format!(" (pid {holder})") };
                return Err(HeritageFault::Held { path: runtime_dir.to_owned(), holder });
            }
            Err(TryLockError::Error(error)) => return Err(refused("can't lock", &path)(error)),
        }
    }
    let holder = text.trim();
    let takeover = if holder.is_empty() { Takeover::No } else { Takeover::Yes };
    if takeover == Takeover::Yes {
        // Its workers may serve beside ours until they are followed, or leave.
        log::warn!("event=takeover killed_pid={holder}");
    }
    // In one write and never emptied: killed in between, it would look like a clean
    // end, and the next would be refused the addresses that the orphans still have.
    let text = format!("{:<width$}\n", std::process::id(), width = LOCK_TEXT_WIDTH);
    let written = lock.rewind().and_then(|()| lock.write_all(text.as_bytes()));
    written.map_err(refused("can't write", &path))?;
    Ok((lock, takeover))
}

/// The counters of an instance, all zero, in the place of those that were there.
pub(super) fn make_metrics(
    runtime_dir: &Path,
    slot_count: usize,
    instance: u64,
) -> Result<(File, Region), HeritageFault> {
    let path = runtime_dir.join("metrics");
    // Workers of a killed master go on writing to the file they mapped, unnamed.
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(refused("can't replace", &path)(error));
        }
        _ => {}
    }
    let count = metrics::block_count(slot_count);
    let make = || {
        let region = Region::create_file(&path, metrics::region_size(count))?;
        let file = OpenOptions::new().read(true).write(true).open(&path)?;
        Ok((file, region))
    };
    let (file, region) = make().map_err(refused("can't make", &path))?;
    let table = Table::format(region.words(), count);
    table.set_instance(instance);
    let (block, now) = (table.block(metrics::MASTER_BLOCK), clock::now());
    block.claim(metrics::Process::Master, "");
    block.born(std::process::id(), now.unix_us, now.mono_ns);
    Ok((file, region))
}
