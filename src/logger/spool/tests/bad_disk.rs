//! A disk that fails, cuts writes short, and loses its power or its process
//! between any two calls.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use super::*;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::logger) enum Trouble {
    /// EIO.
    Broken,
    /// ENOSPC.
    Full,
    /// Half of a write, and then ENOSPC.
    Short,
    /// The process is killed before the call.
    Killed,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Inode {
    pub(super) now: Vec<u8>,
    synced: Vec<u8>,
    /// What a failed sync could not write and the kernel has forgotten: a later
    /// one says nothing of it.
    forgotten: std::ops::Range<usize>,
}

#[derive(Debug, Default)]
pub(in crate::logger) struct State {
    pub(super) inodes: Vec<Inode>,
    pub(super) names: BTreeMap<String, usize>,
    synced_names: BTreeMap<String, usize>,
    /// Calls until the trouble.
    pub(in crate::logger) troubles: Vec<(usize, Trouble)>,
    pub(super) is_dead: bool,
    pub(super) free: u64,
}

impl State {
    fn call(&mut self) -> io::Result<Option<Trouble>> {
        if self.is_dead {
            return Err(io::Error::other("killed"));
        }
        for trouble in &mut self.troubles {
            trouble.0 = trouble.0.saturating_sub(1);
        }
        let Some(index) = self.troubles.iter().position(|trouble| trouble.0 == 0) else {
            return Ok(None);
        };
        match self.troubles.remove(index).1 {
            Trouble::Killed => {
                self.is_dead = true;
                Err(io::Error::other("killed"))
            }
            Trouble::Broken => Err(io::Error::other("EIO")),
            trouble => Ok(Some(trouble)),
        }
    }

    fn call_that_needs_no_space(&mut self) -> io::Result<()> {
        self.call().map(|_| ())
    }
}

#[derive(Debug, Clone, Default)]
pub(in crate::logger) struct BadDisk(Rc<RefCell<State>>);

impl BadDisk {
    pub(in crate::logger) fn state(&self) -> std::cell::RefMut<'_, State> {
        self.0.borrow_mut()
    }

    /// Every call is refused from now on, or no longer.
    pub(in crate::logger) fn set_dead(&self, is_dead: bool) {
        self.state().is_dead = is_dead;
    }

    /// A new process finds it: after a kill with all that was written, after a loss
    /// of power with what was synced, and of the rest some.
    pub(super) fn revive(&self, power_lost: bool, kept: usize) {
        let mut state = self.state();
        state.is_dead = false;
        state.troubles.clear();
        if !power_lost {
            return;
        }
        state.names = state.synced_names.clone();
        for inode in &mut state.inodes {
            let more = inode.now.len().saturating_sub(inode.synced.len());
            let end = inode.synced.len() + if more == 0 { 0 } else { kept % (more + 1) };
            let rest = inode.now.get(inode.synced.len()..end).unwrap_or_default().to_vec();
            inode.synced.extend(rest);
            inode.now = inode.synced.clone();
        }
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.state().names.keys().cloned().collect()
    }
}

impl Disk for BadDisk {
    type File = usize;

    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        let mut state = self.state();
        state.call_that_needs_no_space()?;
        let size = |inode: &usize| state.inodes[*inode].now.len() as u64;
        Ok(state.names.iter().map(|(name, inode)| (name.clone(), size(inode))).collect())
    }

    fn create(&self, name: &str) -> io::Result<usize> {
        let mut state = self.state();
        if state.call()?.is_some() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let inode = match state.names.get(name) {
            Some(inode) => *inode,
            None => {
                state.inodes.push(Inode::default());
                state.inodes.len() - 1
            }
        };
        state.inodes[inode].now.clear();
        state.inodes[inode].forgotten = 0..0;
        state.names.insert(name.to_owned(), inode);
        Ok(inode)
    }

    fn open(&self, name: &str) -> io::Result<usize> {
        let mut state = self.state();
        state.call_that_needs_no_space()?;
        state.names.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn write_at(&self, file: &usize, bytes: &[u8], at: u64) -> io::Result<usize> {
        let mut state = self.state();
        let size = match state.call()? {
            None => bytes.len(),
            Some(Trouble::Short) if bytes.len() > 1 => {
                state.troubles.push((1, Trouble::Full));
                bytes.len() / 2
            }
            Some(_) => return Err(io::ErrorKind::StorageFull.into()),
        };
        let content = &mut state.inodes[*file].now;
        let end = at as usize + size;
        content.resize(content.len().max(end), 0);
        content[at as usize..end].copy_from_slice(&bytes[..size]);
        let forgotten = &mut state.inodes[*file].forgotten;
        if at as usize <= forgotten.start && forgotten.end <= end {
            *forgotten = 0..0;
        }
        Ok(size)
    }

    fn read_at(&self, file: &usize, bytes: &mut [u8], at: u64) -> io::Result<usize> {
        let mut state = self.state();
        state.call_that_needs_no_space()?;
        let rest = state.inodes[*file].now.get(at as usize..).unwrap_or_default();
        let size = rest.len().min(bytes.len());
        bytes[..size].copy_from_slice(&rest[..size]);
        Ok(size)
    }

    fn sync(&self, file: &usize) -> io::Result<()> {
        let mut state = self.state();
        let called = state.call();
        let is_killed = state.is_dead;
        let inode = &mut state.inodes[*file];
        match called {
            Ok(None) => {
                inode.synced = inode.now.clone();
                let forgotten = inode.forgotten.start..inode.forgotten.end.min(inode.synced.len());
                inode.synced[forgotten].fill(0);
                Ok(())
            }
            refused => {
                if !is_killed {
                    inode.forgotten = inode.synced.len().min(inode.now.len())..inode.now.len();
                }
                refused.and_then(|_| Err(io::ErrorKind::StorageFull.into()))
            }
        }
    }

    fn sync_names(&self) -> io::Result<()> {
        let mut state = self.state();
        if state.call()?.is_some() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        state.synced_names = state.names.clone();
        Ok(())
    }

    fn cut(&self, file: &usize, size: u64) -> io::Result<()> {
        let mut state = self.state();
        state.call_that_needs_no_space()?;
        let inode = &mut state.inodes[*file];
        inode.now.truncate(size as usize);
        inode.forgotten = inode.forgotten.start.min(size as usize)..inode.forgotten.end.min(size as usize);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        state.call_that_needs_no_space()?;
        // It may be durable at once, or not before the names are synced: the worse is the former.
        state.synced_names.remove(name);
        state.names.remove(name).map(|_| ()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn free_size(&self) -> io::Result<u64> {
        Ok(self.state().free)
    }
}
