//! One child as the master keeps it: its pidfd, its channel with what is still
//! to be sent, and the page for its last words.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use nix::sys::signal::Signal;

use super::supervisor::Role;
use super::upgrade::ChildState;
use crate::limits::LAST_WORDS_SIZE;
use crate::sys::channel::Channel;
use crate::sys::fork::{self, Child, Exit};
use crate::sys::region::Region;

/// The longest packet a child may send.
const PACKET_SIZE_MAX: usize = 16 * 1024;

/// A packet and the descriptor that goes or came with it.
pub type Packet = (Vec<u8>, Option<OwnedFd>);

/// A living child.
#[derive(Debug)]
pub struct Running {
    /// What it is.
    pub role: Role,
    /// What logs call it: `assign/0`, `logger`, `loader`.
    pub name: String,
    /// When it was started, CLOCK_MONOTONIC.
    pub started_ns: u64,
    /// Which ring and block of metrics of its slot it was given.
    pub which: usize,
    child: Child,
    /// Gone once the child has closed its end.
    channel: Option<Channel>,
    /// What the channel did not take yet. Orders are few; plans replace each other.
    outbox: VecDeque<(Vec<u8>, Option<Rc<OwnedFd>>)>,
    /// Plans that it was sent and has not answered yet.
    plans_owed: usize,
    /// It was told to go, for a successor or for good.
    pub told_to_leave: bool,
    /// Its session is to have this niceness.
    pub session_nice: Option<i32>,
    /// A worker that accepts.
    pub ready: bool,
    /// It was ended for standing still.
    pub stood_still: bool,
    /// None of one that was born before an upgrade.
    last_words: Option<Arc<Region>>,
}

/// What a child is given beside its body.
#[derive(Debug)]
pub struct Birth {
    /// What it is.
    pub role: Role,
    /// Its name in `ps` and in logs.
    pub name: String,
    /// Which ring and block of metrics of its slot.
    pub which: usize,
    /// Its niceness.
    pub nice: i32,
    /// It leads a session of its own.
    pub leads_session: bool,
    /// The clock.
    pub now_ns: u64,
    /// The descriptors that the body uses, beside its channel.
    pub keep: Vec<RawFd>,
}

impl Running {
    /// Forks a child that runs `body` with its end of the channel. It has no
    /// descriptor but standard ones, `keep` and the channel, its own niceness (or
    /// its parent's where that is refused), and a panic hook that writes its last words.
    ///
    /// # Errors
    /// If the system refuses memory, descriptors or a process.
    pub fn start(mut birth: Birth, body: impl FnOnce(Channel) -> i32) -> io::Result<Running> {
        let (channel, childs_channel) = Channel::pair()?;
        let last_words = Arc::new(Region::anonymous(LAST_WORDS_SIZE)?);
        birth.keep.push(childs_channel.as_fd().as_raw_fd());
        let (name, nice, leads_session) = (&birth.name, birth.nice, birth.leads_session);
        let page = Arc::clone(&last_words);
        let child = fork::fork_keeping(&birth.keep, move || {
            fork::set_name(name);
            // Whether it is allowed was found out, and said once, by the master.
            let _ = fork::set_niceness(nice);
            if leads_session {
                // Refused to the leader of a group alone, which no child is.
                let _ = nix::unistd::setsid();
            }
            keep_last_words(page);
            body(childs_channel)
        })?;
        Ok(Running {
            role: birth.role,
            name: birth.name,
            started_ns: birth.now_ns,
            which: birth.which,
            child,
            channel: Some(channel),
            outbox: VecDeque::new(),
            plans_owed: 0,
            told_to_leave: false,
            session_nice: leads_session.then_some(nice),
            ready: false,
            stood_still: false,
            last_words: Some(last_words),
        })
    }

    /// One that was born before an upgrade, by the descriptors that crossed it.
    #[must_use]
    pub fn kept(state: &ChildState, pidfd: OwnedFd, channel: Option<OwnedFd>) -> Running {
        Running {
            role: state.role,
            name: state.name.clone(),
            started_ns: state.started_ns,
            which: state.which,
            child: Child::kept(state.pid, pidfd),
            channel: channel.map(Channel::from),
            outbox: VecDeque::new(),
            plans_owed: 0,
            told_to_leave: state.told_to_leave,
            session_nice: None,
            ready: true,
            stood_still: false,
            last_words: None,
        }
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.child.pid()
    }

    /// Readable once it has ended.
    #[must_use]
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.child.as_fd()
    }

    /// Its channel, and whether something waits to be sent; none once it was closed.
    #[must_use]
    pub fn channel(&self) -> Option<(BorrowedFd<'_>, bool)> {
        self.channel.as_ref().map(|channel| (channel.as_fd(), !self.outbox.is_empty()))
    }

    /// Reaps it if it has ended.
    ///
    /// # Errors
    /// If it was reaped before.
    pub fn try_wait(&self) -> io::Result<Option<Exit>> {
        self.child.try_wait()
    }

    /// Waits for its end and reaps it.
    ///
    /// # Errors
    /// If it was reaped before.
    pub fn wait(&self) -> io::Result<Exit> {
        self.child.wait()
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// If it was reaped before.
    pub fn kill(&self, signal: Signal) -> io::Result<()> {
        self.child.kill(signal)
    }

    /// Sends a packet, now or as soon as the channel takes it. One with a
    /// descriptor replaces one that still waits: the newer plan is the one to take.
    pub fn send(&mut self, packet: Vec<u8>, descriptor: Option<Rc<OwnedFd>>) {
        if descriptor.is_some() {
            let before = self.outbox.len();
            self.outbox.retain(|(_, waiting)| waiting.is_none());
            self.plans_owed = self.plans_owed + 1 - (before - self.outbox.len());
        }
        self.outbox.push_back((packet, descriptor));
        self.flush();
    }

    /// It has said of a plan that it is in force, or why not.
    pub fn plan_answered(&mut self) {
        self.plans_owed = self.plans_owed.saturating_sub(1);
    }

    /// Whether it has not answered every plan yet.
    #[must_use]
    pub fn owes_plan(&self) -> bool {
        self.plans_owed > 0
    }

    /// Sends what waits, as far as the channel takes it.
    pub fn flush(&mut self) {
        let Some(channel) = &self.channel else {
            self.outbox.clear();
            return;
        };
        while let Some((packet, descriptor)) = self.outbox.front() {
            match channel.send(packet, descriptor.as_ref().map(|descriptor| descriptor.as_fd())) {
                Ok(()) => drop(self.outbox.pop_front()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    if error.kind() != io::ErrorKind::BrokenPipe {
                        log::warn!("event=order_lost process={} error={:?}", self.name, error.to_string());
                    }
                    drop(self.outbox.pop_front());
                }
            }
        }
    }

    /// What it has said since; the channel is dropped once it is closed.
    pub fn receive(&mut self) -> Vec<Packet> {
        let mut packets = Vec::new();
        let mut buffer = vec![0; PACKET_SIZE_MAX];
        while let Some(channel) = &self.channel {
            match channel.recv(&mut buffer) {
                Ok(Some((size, descriptor))) => packets.push((buffer[..size].to_vec(), descriptor)),
                Ok(None) => self.channel = None,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    log::warn!("event=packet_dropped process={} error={:?}", self.name, error.to_string());
                }
                Err(error) => {
                    log::warn!("event=channel_failed process={} error={:?}", self.name, error.to_string());
                    self.channel = None;
                }
            }
        }
        packets
    }

    /// What its panic left, if it panicked.
    #[must_use]
    pub fn last_words(&self) -> Option<String> {
        let words = self.last_words.as_ref()?.words();
        let size = (words[0].load(Acquire) as usize).min(LAST_WORDS_SIZE - 8);
        let bytes: Vec<u8> = words[1..].iter().flat_map(|word| word.load(Relaxed).to_le_bytes()).collect();
        (size > 0).then(|| String::from_utf8_lossy(&bytes[..size]).trim().to_owned())
    }
}

/// Has panics write to the page: a size, stored last, and text. The first one
/// counts. Standard error gets nothing: the master logs the page with the death.
fn keep_last_words(page: Arc<Region>) {
    std::panic::set_hook(Box::new(move |info| {
        let words = page.words();
        if words[0].load(Relaxed) != 0 {
            return;
        }
        let text = info.to_string();
        let bytes = &text.as_bytes()[..text.len().min(LAST_WORDS_SIZE - 8)];
        for (word, part) in words[1..].iter().zip(bytes.chunks(8)) {
            let mut padded = [0; 8];
            padded[..part.len()].copy_from_slice(part);
            word.store(u64::from_le_bytes(padded), Relaxed);
        }
        words[0].store(bytes.len() as u64, Release);
    }));
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    fn birth() -> Birth {
        Birth {
            role: Role::Worker { slot: 0 },
            name: "assign/0".to_owned(),
            which: 0,
            nice: 0,
            leads_session: false,
            now_ns: 0,
            keep: Vec::new(),
        }
    }

    fn ended(running: &Running) -> Exit {
        let mut set = [PollFd::new(running.pidfd(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut set, PollTimeout::from(10_000u16)), Ok(1));
        running.try_wait().unwrap().unwrap()
    }

    #[test]
    fn a_panicking_child_leaves_its_last_words() {
        let _alone = crate::sys::alone();
        let running = Running::start(birth(), |_| panic!("bucket {} has no owner", 7)).unwrap();
        assert_eq!(ended(&running), Exit::Signal(Signal::SIGABRT));
        let words = running.last_words().unwrap();
        assert!(words.contains("bucket 7 has no owner") && words.contains("process.rs"), "{words}");
    }

    #[test]
    fn last_words_longer_than_their_page_are_cut_and_a_killed_child_has_none() {
        let _alone = crate::sys::alone();
        let running = Running::start(birth(), |_| panic!("{}", "x".repeat(10_000))).unwrap();
        ended(&running);
        assert_eq!(running.last_words().unwrap().len(), LAST_WORDS_SIZE - 8);
        let running = Running::start(birth(), |_| {
            loop {
                nix::unistd::pause();
            }
        })
        .unwrap();
        running.kill(Signal::SIGKILL).unwrap();
        assert_eq!(ended(&running), Exit::Signal(Signal::SIGKILL));
        assert_eq!(running.last_words(), None);
    }

    #[test]
    fn what_a_child_said_before_it_died_is_still_read() {
        let _alone = crate::sys::alone();
        let mut running = Running::start(birth(), |channel| {
            let said = channel.send(b"ready", None).and_then(|()| channel.send(b"done", None));
            i32::from(said.is_err())
        })
        .unwrap();
        assert_eq!(ended(&running), Exit::Code(0));
        let packets: Vec<_> = running.receive().into_iter().map(|(packet, _)| packet).collect();
        assert_eq!(packets, [b"ready".to_vec(), b"done".to_vec()]);
        assert!(running.channel().is_none(), "and then the channel is closed");
        running.send(b"late".to_vec(), None);
        assert!(running.outbox.is_empty());
    }

    #[test]
    fn orders_wait_for_a_child_that_is_busy_and_only_the_newest_plan_does() {
        let _alone = crate::sys::alone();
        let mut running = Running::start(birth(), |_channel| {
            loop {
                nix::unistd::pause();
            }
        })
        .unwrap();
        while running.channel().is_some_and(|(_, waits)| !waits) {
            running.send(vec![0; 1024], None);
        }
        let plan = Rc::new(crate::sys::region::seal(b"plan").unwrap());
        for number in 0..5 {
            running.send(vec![number], Some(Rc::clone(&plan)));
        }
        let waiting: Vec<_> = running.outbox.iter().filter(|(_, plan)| plan.is_some()).collect();
        assert_eq!(waiting.len(), 1);
        assert_eq!(waiting[0].0, [4]);
        assert_eq!(running.plans_owed, 1, "one answer is due for one plan sent");
        running.kill(Signal::SIGKILL).unwrap();
        ended(&running);
        running.flush();
        assert!(running.outbox.is_empty(), "the dead get no orders");
    }
}
