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
    pub fn clear(&mut self) -> Account {
        for bound in self.bound.iter().flatten().filter(|bound| bound.keeper == Keeper::Nobody) {
            if let Some(path) = &bound.path {
                let _ = fs::remove_file(path);
            }
        }
        let mut books = Vec::new();
        for slot in 0..self.places.len() {
            for path in self.ring_paths(slot) {
                // No worker of ours lives; a lock would be a stranger's.
                let Ok(region) = Region::open_locked(&path) else { continue };
                let Ok(account) = Account::read(region.words()) else { continue };
                books.push(account);
                if account.in_ring == 0 {
                    let _ = fs::remove_file(&path);
                }
            }
        }
        // Only if it is empty.
        let _ = fs::remove_dir(self.ring_directory());
        self.clear_traces();
        let _ = self.lock.set_len(0);
        books.into_iter().sum()
    }
}
