//! The end of an instance: what is cleared up, and what the rings' books say.

use std::fs;

use super::Heritage;
use crate::exposure::ring::Account;
use crate::sys::region::Region;
use crate::worker::Keeper;

impl Heritage {
    /// Clears up at the end, when no child lives: the files of sockets that nobody
    /// keeps, rings that are empty (the others stay for the next instance to drain),
    /// and the lock's text, which says that nobody is left behind. Gives the rings'
    /// books, summed.
    pub fn clear(&mut self) -> Books {
        for bound in self.bound.iter().flatten().filter(|bound| bound.keeper == Keeper::Nobody) {
            if let Some(path) = &bound.path {
                let _ = fs::remove_file(path);
            }
        }
        let mut books = Books::default();
        for slot in 0..self.places.len() {
            for path in self.ring_paths(slot) {
                // No worker of ours lives; a lock would be a stranger's.
                let Ok(region) = Region::open_locked(&path) else { continue };
                let Ok(account) = Account::read(region.words()) else { continue };
                books.add(&account);
                if account.in_ring == 0 {
                    let _ = fs::remove_file(&path);
                }
            }
        }
        // Only if it is empty.
        let _ = fs::remove_dir(self.ring_directory());
        self.clear_traces();
        let _ = self.lock.set_len(0);
        books
    }
}

/// What became of all exposures of the instance, as the rings have it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Books {
    /// Wanted.
    pub attempted: u64,
    /// Promised.
    pub committed: u64,
    /// Handed to the sink and confirmed.
    pub consumed: u64,
    /// Damaged.
    pub corrupt: u64,
    /// Refused by a full ring, or too large, or torn by a worker's death.
    pub lost: u64,
    /// Left in rings for the next instance.
    pub waiting: u64,
}

impl Books {
    fn add(&mut self, account: &Account) {
        self.attempted += account.attempted;
        self.committed += account.committed;
        self.consumed += account.consumed;
        self.corrupt += account.corrupt;
        self.lost += account.lost;
        self.waiting += account.in_ring;
    }
}
