//! `splitd reload` and `splitd drain`: an order for a running instance, over its
//! control socket.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use super::instance::InstanceArguments;
use super::{Exit, Failure, counted, say};
use crate::master::control::{Reply, Request, SOCKET_NAME, Wish};

/// A master that lives takes a request at once.
const SEND_TIME_MAX: Duration = Duration::from_secs(10);

#[derive(Debug, clap::Args)]
pub(super) struct ReloadArguments {
    /// Wait until it is in force everywhere, or say every fault (exit code 1)
    #[arg(long)]
    wait: bool,
    /// Replace every worker by a successor, one after the other, instead
    #[arg(long)]
    workers: bool,
    #[command(flatten)]
    instance: InstanceArguments,
}

#[derive(Debug, clap::Args)]
pub(super) struct DrainArguments {
    /// Wait until the instance has left
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    instance: InstanceArguments,
}

/// How often an order is given that a master took with it.
const ASK_COUNT_MAX: usize = 3;

pub(super) fn reload(arguments: &ReloadArguments, out: &mut dyn Write) -> Result<Exit, Failure> {
    let order = if arguments.workers { Wish::Workers } else { Wish::Reload };
    let reply = match give(&arguments.instance, Request { order, wait: arguments.wait })? {
        Ok(Some(reply)) => reply,
        Ok(None) => {
            say("the instance left before it answered");
            return Ok(Exit::System);
        }
        Err(exit) => return Ok(exit),
    };
    let version = reply.version.as_deref().unwrap_or("none");
    match (reply.ok, arguments.wait) {
        (true, true) => writeln!(out, "done: experiments {version} in force everywhere")?,
        (true, false) => writeln!(out, "begun: experiments {version} in force now")?,
        (false, _) => {
            reply.faults.iter().for_each(|fault| say(fault));
            say(&format!(
                "refused, {}; experiments {version} in force",
                counted(reply.faults.len(), "fault")
            ));
            return Ok(Exit::Fault);
        }
    }
    Ok(Exit::Done)
}

pub(super) fn drain(arguments: &DrainArguments, out: &mut dyn Write) -> Result<Exit, Failure> {
    match give(&arguments.instance, Request { order: Wish::Drain, wait: arguments.wait })? {
        Ok(Some(reply)) if !reply.ok => {
            reply.faults.iter().for_each(|fault| say(fault));
            Ok(Exit::Fault)
        }
        Ok(reply) => {
            writeln!(out, "{}", if reply.is_some() { "begun" } else { "done: the instance has left" })?;
            Ok(Exit::Done)
        }
        Err(exit) => Ok(exit),
    }
}

/// Gives an order; the answer, or none if the instance left first.
fn give(instance: &InstanceArguments, request: Request) -> Result<Result<Option<Reply>, Exit>, Failure> {
    let path = match instance.runtime_dir() {
        Ok(runtime_dir) => runtime_dir.join(SOCKET_NAME),
        Err(exit) => return Ok(Err(exit)),
    };
    match exchange(&path, request) {
        Ok(reply) => Ok(Ok(reply)),
        Err(fault) => {
            let hint = match fault.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                    "; no instance runs there. --config FILE or --runtime-dir DIRECTORY says which is meant"
                }
                io::ErrorKind::PermissionDenied => "; its owner and root may give orders",
                _ => "",
            };
            say(&format!("{}: {fault}{hint}", path.display()));
            Ok(Err(Exit::System))
        }
    }
}

fn exchange(path: &Path, request: Request) -> io::Result<Option<Reply>> {
    for _ in 1..ASK_COUNT_MAX {
        match exchange_once(path, request)? {
            // New settings put another master in its place, which is asked again.
            None if request.wait && request.order == Wish::Reload && UnixStream::connect(path).is_ok() => {}
            answer => return Ok(answer),
        }
    }
    exchange_once(path, request)
}

fn exchange_once(path: &Path, request: Request) -> io::Result<Option<Reply>> {
    let mut stream = UnixStream::connect(path)?;
    stream.set_write_timeout(Some(SEND_TIME_MAX))?;
    let mut line = serde_json::to_vec(&request)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let mut answer = String::new();
    match BufReader::new(stream).read_line(&mut answer) {
        Ok(0) => Ok(None),
        // A master that is killed does not say good-bye.
        Err(fault) if fault.kind() == io::ErrorKind::ConnectionReset => Ok(None),
        Ok(_) => Ok(Some(serde_json::from_str(&answer)?)),
        Err(fault) => Err(fault),
    }
}
