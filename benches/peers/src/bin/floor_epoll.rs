//! The floor: reads a request, looks for its end, writes a constant answer.
//! Level-triggered epoll, one read and one write an event.
//!
//! With `--timed 1` it says, whenever nothing has come for a while, how long
//! requests took from when the wait returned until their answer was sent, as
//! splitd counts its service time: `service P50 P99 P99.9`, in nanoseconds.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::time::Instant;

use anyhow::Result;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use peers::{Floor, READ_SIZE};

struct Connection {
    socket: TcpStream,
    /// The begin of a request whose rest is to come.
    carry: Vec<u8>,
    /// Bytes of answers that the socket did not take.
    unsent: usize,
}

const LISTENER: u64 = u64::MAX;
/// Without a request, before service times are said.
const PAUSE_MS: u16 = 50;
/// Requests between two pauses, for which there is room.
const TIME_COUNT: usize = 1 << 20;

fn main() -> Result<()> {
    let floor = Floor::from_options()?;
    let epoll = Epoll::new(EpollCreateFlags::empty())?;
    epoll.add(&floor.listener, EpollEvent::new(EpollFlags::EPOLLIN, LISTENER))?;
    let mut connections: Vec<Option<Connection>> = Vec::new();
    let mut buffer = vec![0; READ_SIZE];
    let mut events = vec![EpollEvent::empty(); 1024];
    let mut times: Vec<u64> = Vec::with_capacity(if floor.timed { TIME_COUNT } else { 0 });
    loop {
        let timeout = if times.is_empty() { EpollTimeout::NONE } else { EpollTimeout::from(PAUSE_MS) };
        let count = epoll.wait(&mut events, timeout)?;
        let ready = floor.timed.then(Instant::now);
        if count == 0 {
            say(&mut times);
        }
        for event in &events[..count] {
            if event.data() == LISTENER {
                accept(&floor, &epoll, &mut connections)?;
                continue;
            }
            let place = event.data() as usize;
            let Some(connection) = &mut connections[place] else { continue };
            if !serve(&floor, &epoll, connection, place, &mut buffer)? {
                connections[place] = None;
            } else if let Some(ready) = ready
                && times.len() < TIME_COUNT
            {
                times.push(ready.elapsed().as_nanos() as u64);
            }
        }
    }
}

fn say(times: &mut Vec<u64>) {
    times.sort_unstable();
    let at = |thousandths: usize| times[(times.len() * thousandths / 1000).min(times.len() - 1)];
    println!("service {} {} {}", at(500), at(990), at(999));
    times.clear();
}

fn accept(floor: &Floor, epoll: &Epoll, connections: &mut Vec<Option<Connection>>) -> Result<()> {
    loop {
        let socket = match floor.listener.accept() {
            Ok((socket, _)) => socket,
            Err(fault) if fault.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(fault) => return Err(fault.into()),
        };
        socket.set_nonblocking(true)?;
        socket.set_nodelay(true)?;
        let place = connections.iter().position(Option::is_none).unwrap_or(connections.len());
        if place == connections.len() {
            connections.push(None);
        }
        epoll.add(socket.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, place as u64))?;
        connections[place] = Some(Connection { socket, carry: Vec::new(), unsent: 0 });
    }
}

/// False when the connection is over.
fn serve(
    floor: &Floor,
    epoll: &Epoll,
    connection: &mut Connection,
    place: usize,
    buffer: &mut [u8],
) -> Result<bool> {
    let waited_to_write = connection.unsent > 0;
    if !waited_to_write {
        let size = match connection.socket.read(buffer) {
            Ok(0) => return Ok(false),
            Ok(size) => size,
            Err(fault) if fault.kind() == ErrorKind::WouldBlock => return Ok(true),
            Err(_) => return Ok(false),
        };
        connection.unsent = floor.answer_size * count_requests(floor, &mut connection.carry, &buffer[..size]);
    }
    while connection.unsent > 0 {
        match connection.socket.write(floor.to_send(connection.unsent)) {
            Ok(size) => connection.unsent -= size,
            Err(fault) if fault.kind() == ErrorKind::WouldBlock => break,
            Err(_) => return Ok(false),
        }
    }
    if waited_to_write != (connection.unsent > 0) {
        let flags = if waited_to_write { EpollFlags::EPOLLIN } else { EpollFlags::EPOLLOUT };
        epoll.modify(connection.socket.as_fd(), &mut EpollEvent::new(flags, place as u64))?;
    }
    Ok(true)
}

fn count_requests(floor: &Floor, carry: &mut Vec<u8>, input: &[u8]) -> usize {
    if carry.is_empty() {
        let (count, taken) = floor.take(input);
        carry.extend_from_slice(&input[taken..]);
        return count;
    }
    carry.extend_from_slice(input);
    let (count, taken) = floor.take(carry);
    carry.drain(..taken);
    count
}
