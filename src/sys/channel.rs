//! A channel between two processes: a pair of sequenced-packet sockets, so a
//! packet arrives whole or not at all, with at most one descriptor beside it.
//!
//! Invariants
//! - Neither end ever blocks: an empty or full channel says `WouldBlock`.
//! - A packet is never cut silently: one larger than the reader's buffer is an error.
//! - Every descriptor that arrives is owned by somebody at once, so none leaks;
//!   it is close-on-exec.
//! - When the other end is gone (closed, or its process dead) `recv` says `None`
//!   once all that it had sent is read, and `send` says `BrokenPipe`; no SIGPIPE.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, sendmsg,
    socketpair,
};

/// One end of a channel.
#[derive(Debug)]
pub struct Channel {
    socket: OwnedFd,
}

impl Channel {
    /// Makes a channel; either end may be carried over a fork, and the process
    /// that does not use it drops it there.
    ///
    /// # Errors
    /// If the process has no descriptors left.
    pub fn pair() -> io::Result<(Channel, Channel)> {
        let (one, other) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC,
        )?;
        Ok((Channel { socket: one }, Channel { socket: other }))
    }

    /// Sends one packet, and a copy of one descriptor with it.
    ///
    /// # Errors
    /// `WouldBlock` when the other end has not read enough, `BrokenPipe` when it
    /// is gone, `InvalidInput` for an empty packet (it would read as a closed channel).
    pub fn send(&self, packet: &[u8], descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
        if packet.is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "an empty packet would read as a closed channel",
            ));
        }
        let descriptors = descriptor.map(|descriptor| [descriptor.as_raw_fd()]);
        let rights = descriptors.as_ref().map(|list| ControlMessage::ScmRights(list));
        let control = rights.as_slice();
        loop {
            let sent = sendmsg::<()>(
                self.socket.as_raw_fd(),
                &[IoSlice::new(packet)],
                control,
                MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT,
                None,
            );
            match sent {
                Ok(_) => return Ok(()),
                Err(Errno::EINTR) => {}
                // The peer closed with packets of ours unread: as gone as can be.
                Err(Errno::ECONNRESET) => return Err(Errno::EPIPE.into()),
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Takes one packet: its size in `buffer` and the descriptor that came with
    /// it. `None` when the other end is gone and everything it sent is read.
    ///
    /// # Errors
    /// `WouldBlock` when there is nothing, `InvalidData` for a packet that is
    /// larger than `buffer` or whose descriptor could not be received.
    pub fn recv(&self, buffer: &mut [u8]) -> io::Result<Option<(usize, Option<OwnedFd>)>> {
        let mut control = nix::cmsg_space!(RawFd);
        let mut parts = [IoSliceMut::new(buffer)];
        let message = loop {
            let received = recvmsg::<()>(
                self.socket.as_raw_fd(),
                &mut parts,
                Some(&mut control),
                MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_DONTWAIT,
            );
            match received {
                Ok(message) => break message,
                // The peer died with packets of ours unread: the kernel says so
                // once and then goes on with what the peer had sent.
                Err(Errno::EINTR | Errno::ECONNRESET) => {}
                Err(errno) => return Err(errno.into()),
            }
        };
        let mut descriptor = None;
        let truncated = message.flags;
        let size = message.bytes;
        if let Ok(messages) = message.cmsgs() {
            for part in messages {
                if let ControlMessageOwned::ScmRights(list) = part {
                    for raw in list {
                        // SAFETY: the kernel has just put this number into our
                        // table for this message; nobody else knows it yet. Any
                        // beyond the first is closed by being dropped here.
                        let owned = unsafe { OwnedFd::from_raw_fd(raw) };
                        descriptor.get_or_insert(owned);
                    }
                }
            }
        }
        if truncated.intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a packet larger than its reader's buffer, or a descriptor for which there was no room",
            ));
        }
        Ok((size > 0).then_some((size, descriptor)))
    }
}

/// One end that was kept over an exec, as the descriptor it is.
impl From<OwnedFd> for Channel {
    fn from(socket: OwnedFd) -> Channel {
        Channel { socket }
    }
}

impl From<Channel> for OwnedFd {
    fn from(channel: Channel) -> OwnedFd {
        channel.socket
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::{Read, Seek, Write};

    #[test]
    fn packets_arrive_whole_and_in_order() {
        let (one, other) = Channel::pair().unwrap();
        one.send(b"first", None).unwrap();
        one.send(b"second", None).unwrap();
        let mut buffer = [0; 16];
        let (size, descriptor) = other.recv(&mut buffer).unwrap().unwrap();
        assert_eq!((&buffer[..size], descriptor.is_none()), (&b"first"[..], true));
        let (size, _) = other.recv(&mut buffer).unwrap().unwrap();
        assert_eq!(&buffer[..size], b"second");
        let empty = other.recv(&mut buffer).unwrap_err();
        assert_eq!(empty.kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn a_descriptor_crosses_with_its_packet() {
        let (one, other) = Channel::pair().unwrap();
        let mut file: File = tempfile::tempfile().unwrap();
        file.write_all(b"a plan").unwrap();
        one.send(b"plan", Some(file.as_fd())).unwrap();
        drop(file);
        let mut buffer = [0; 16];
        let (_, descriptor) = other.recv(&mut buffer).unwrap().unwrap();
        let mut copy = File::from(descriptor.expect("sent with one"));
        copy.rewind().unwrap();
        let mut text = String::new();
        copy.read_to_string(&mut text).unwrap();
        assert_eq!(text, "a plan");
    }

    #[test]
    fn a_closed_end_is_none_after_all_that_it_sent() {
        let _alone = crate::sys::alone();
        let (one, other) = Channel::pair().unwrap();
        // Unread by `one` when it closes: the kernel would say ECONNRESET first.
        other.send(b"never read", None).unwrap();
        one.send(b"last", None).unwrap();
        drop(one);
        let mut buffer = [0; 16];
        let (size, _) = other.recv(&mut buffer).unwrap().unwrap();
        assert_eq!(&buffer[..size], b"last");
        assert!(other.recv(&mut buffer).unwrap().is_none());
        let refused = other.send(b"anybody?", None).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn an_empty_packet_and_one_too_large_for_its_reader_are_errors() {
        let (one, other) = Channel::pair().unwrap();
        assert_eq!(one.send(b"", None).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        one.send(b"12345", None).unwrap();
        let refused = other.recv(&mut [0; 4]).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn a_full_channel_says_so_and_never_blocks() {
        let (one, other) = Channel::pair().unwrap();
        let packet = [7; 1024];
        let mut count = 0;
        let full = loop {
            match one.send(&packet, None) {
                Ok(()) => count += 1,
                Err(error) => break error,
            }
        };
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
        let mut buffer = [0; 1024];
        for _ in 0..count {
            assert!(other.recv(&mut buffer).unwrap().is_some());
        }
        one.send(&packet, None).unwrap();
    }
}
