//! The floor on io_uring: multishot accept and receive, provided buffers,
//! DEFER_TASKRUN, SINGLE_ISSUER; otherwise as `floor_epoll`.

use std::net::TcpStream;
use std::os::fd::AsRawFd;

use anyhow::{Result, bail};
use peers::Floor;
use peers::ring::{Completion, Ring};

struct Connection {
    socket: TcpStream,
    carry: Vec<u8>,
    /// Bytes of answers that are not sent yet, those under way included.
    unsent: usize,
    /// A send is under way.
    sending: bool,
    /// No more input: goes when the send is done.
    ended: bool,
}

const ACCEPT: u64 = 0;
const RECEIVE: u64 = 1;
const SEND: u64 = 2;

fn word(kind: u64, place: usize) -> u64 {
    (place as u64) << 2 | kind
}

struct Server {
    ring: Ring,
    floor: &'static Floor,
    connections: Vec<Option<Connection>>,
}

fn main() -> Result<()> {
    let floor: &'static Floor = Box::leak(Box::new(Floor::from_options()?));
    floor.listener.set_nonblocking(false)?;
    let mut server = Server { ring: Ring::new()?, floor, connections: Vec::new() };
    let mut completions = Vec::new();
    server.ring.accept(floor.listener.as_raw_fd(), word(ACCEPT, 0))?;
    loop {
        server.ring.wait()?;
        server.ring.take(&mut completions);
        for completion in &completions {
            server.complete(completion)?;
        }
    }
}

impl Server {
    fn complete(&mut self, completion: &Completion) -> Result<()> {
        let place = (completion.word >> 2) as usize;
        match completion.word & 3 {
            ACCEPT => self.accepted(completion),
            RECEIVE => self.received(completion, place),
            _ => self.sent(completion, place),
        }
    }

    fn accepted(&mut self, completion: &Completion) -> Result<()> {
        if !completion.goes_on() {
            self.ring.accept(self.floor.listener.as_raw_fd(), word(ACCEPT, 0))?;
        }
        if completion.result < 0 {
            bail!("accept: errno {}", -completion.result);
        }
        let socket = completion.socket();
        socket.set_nodelay(true)?;
        let place = self.connections.iter().position(Option::is_none).unwrap_or(self.connections.len());
        if place == self.connections.len() {
            self.connections.push(None);
        }
        self.ring.receive(socket.as_raw_fd(), word(RECEIVE, place))?;
        self.connections[place] =
            Some(Connection { socket, carry: Vec::new(), unsent: 0, sending: false, ended: false });
        Ok(())
    }

    fn received(&mut self, completion: &Completion, place: usize) -> Result<()> {
        let connection = self.connections[place].as_mut().expect("goes after its last completion");
        let size = completion.result.max(0) as usize;
        if let Some(buffer) = completion.buffer() {
            let input = self.ring.bytes(buffer, size);
            let count = if connection.carry.is_empty() {
                let (count, taken) = self.floor.take(input);
                connection.carry.extend_from_slice(&input[taken..]);
                count
            } else {
                connection.carry.extend_from_slice(input);
                let (count, taken) = self.floor.take(&connection.carry);
                connection.carry.drain(..taken);
                count
            };
            connection.unsent += count * self.floor.answer_size;
            self.ring.give_back(buffer);
        }
        if !completion.goes_on() {
            if size > 0 || completion.result == -(nix::errno::Errno::ENOBUFS as i32) {
                self.ring.receive(connection.socket.as_raw_fd(), word(RECEIVE, place))?;
            } else {
                connection.ended = true;
            }
        }
        self.proceed(place)
    }

    fn sent(&mut self, completion: &Completion, place: usize) -> Result<()> {
        let connection = self.connections[place].as_mut().expect("goes after its last completion");
        connection.sending = false;
        if completion.result < 0 {
            connection.unsent = 0;
        }
        connection.unsent -= completion.result.max(0) as usize;
        self.proceed(place)
    }

    fn proceed(&mut self, place: usize) -> Result<()> {
        let connection = self.connections[place].as_mut().expect("goes after its last completion");
        if connection.sending {
            return Ok(());
        }
        if connection.unsent > 0 {
            connection.sending = true;
            let bytes = self.floor.to_send(connection.unsent);
            self.ring.send(connection.socket.as_raw_fd(), bytes, word(SEND, place))?;
        } else if connection.ended {
            self.connections[place] = None;
        }
        Ok(())
    }
}
