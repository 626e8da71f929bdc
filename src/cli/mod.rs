//! The command line: one file a subcommand, one row of `Command` each.
//!
//! A subcommand writes what it was asked for to standard output, what it has to
//! say about it to standard error, and ends with an exit code of [`Exit`].

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::check::Fault;
use crate::limits::EXPERIMENTS_FILE_SIZE_MAX;

mod bucket;
mod check;
mod events;
mod explain;
mod export;
mod haproxy_servers;
mod instance;
mod logging;
mod order;
mod serve;
mod settings;
mod status;
mod top;

/// splitd: in which A/B experiments is this user, and in which group of each?
#[derive(Debug, Parser)]
#[command(name = "splitd", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// The subcommands: a new one is a file, a row here or in `Printing`, and an arm.
#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::Arguments),
    #[command(flatten)]
    Printing(Printing),
    Events(events::EventsArgs),
}

/// Those that work something out, print it and end.
#[derive(Debug, Subcommand)]
enum Printing {
    /// Check experiments files and settings: every fault, with its place
    Check(check::Arguments),
    /// Say why a request is in which experiments, and why not in the others
    Explain(explain::Arguments),
    /// Compute a unit's bucket
    Bucket(bucket::Arguments),
    /// Print the blocks of the running experiments, one JSON object a line
    Export(export::Arguments),
    /// Print the `server` lines for HAProxy, one for each address
    HaproxyServers(haproxy_servers::Arguments),
    /// Have a running instance read its experiments again
    Reload(order::ReloadArguments),
    /// Have a running instance finish what it has, and leave
    Drain(order::DrainArguments),
    /// Say how the instance is, from its shared memory: also of one that is stuck or dead
    Status(status::Arguments),
    /// Watch the instance live, from its shared memory
    Top(top::Arguments),
}

fn run(command: &Printing, out: &mut dyn Write) -> Result<Exit, Failure> {
    match command {
        Printing::Check(arguments) => check::run(arguments, out),
        Printing::Explain(arguments) => explain::run(arguments, out),
        Printing::Bucket(arguments) => bucket::run(arguments, out),
        Printing::Export(arguments) => export::run(arguments, out),
        Printing::HaproxyServers(arguments) => haproxy_servers::run(arguments, out),
        Printing::Reload(arguments) => order::reload(arguments, out),
        Printing::Drain(arguments) => order::drain(arguments, out),
        Printing::Status(arguments) => status::run(arguments, out),
        Printing::Top(arguments) => top::run(arguments, out),
    }
}

/// Reads the command line and does what it says.
pub fn main() -> ExitCode {
    // Clap answers --help and wrong usage itself, the latter with exit code 2.
    match Cli::parse().command {
        Command::Serve(arguments) => serve::run(&arguments),
        Command::Printing(command) => print(&command),
        Command::Events(arguments) => events::run(arguments),
    }
}

fn print(command: &Printing) -> ExitCode {
    let mut out = io::BufWriter::new(io::stdout().lock());
    let result = run(command, &mut out).and_then(|exit| {
        out.flush()?;
        Ok(exit)
    });
    match result {
        Ok(exit) => exit.into(),
        // `splitd export FILE | head` has seen enough.
        Err(Failure::Output(fault)) if fault.kind() == io::ErrorKind::BrokenPipe => Exit::Done.into(),
        Err(failure) => {
            say(&failure.to_string());
            failure.exit().into()
        }
    }
}

/// How a command ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It is done.
    Done = 0,
    /// What it was to check or use is at fault.
    Fault = 1,
    /// It was called wrongly.
    Usage = 2,
    /// The system refused it something.
    System = 3,
    /// `serve`: the workers keep crashing.
    WorkersCrash = 4,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

/// Why a command could not do what it was asked for.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}")]
    Usage(String),
    #[error("{}: {fault}", path.display())]
    Read { path: PathBuf, fault: io::Error },
    #[error("{}: {fault}; no instance runs there, or `--set runtime_dir=…` names another's directory", path.display())]
    NoInstance { path: PathBuf, fault: io::Error },
    #[error("{}: {reason}", path.display())]
    Foreign { path: PathBuf, reason: String },
    #[error("standard output: {0}")]
    Output(#[from] io::Error),
}

impl Failure {
    fn exit(&self) -> Exit {
        match self {
            Failure::Usage(_) => Exit::Usage,
            Failure::Read { .. }
            | Failure::NoInstance { .. }
            | Failure::Foreign { .. }
            | Failure::Output(_) => Exit::System,
        }
    }
}

/// A word to whoever called.
fn say(text: &str) {
    eprintln!("splitd: {text}");
}

/// A file's bytes; `-` is standard input. Never more than one too many for an
/// experiments file, so that `/dev/zero` is a fault like another.
fn read_file(path: &Path) -> Result<Vec<u8>, Failure> {
    let failure = |fault| Failure::Read { path: path.to_owned(), fault };
    let size_max = EXPERIMENTS_FILE_SIZE_MAX as u64 + 1;
    let mut bytes = Vec::new();
    if path == Path::new("-") {
        io::stdin().lock().take(size_max).read_to_end(&mut bytes).map_err(failure)?;
    } else {
        let file = File::open(path).map_err(failure)?;
        file.take(size_max).read_to_end(&mut bytes).map_err(failure)?;
    }
    Ok(bytes)
}

/// The faults of a file that a command would have used.
fn say_faults(path: &Path, faults: &[Fault]) -> Exit {
    for fault in faults {
        eprintln!("{}: {fault}", path.display());
    }
    eprintln!("{}: refused, {}", path.display(), counted(faults.len(), "fault"));
    Exit::Fault
}

/// "1 fault", "2 faults"
fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests;
