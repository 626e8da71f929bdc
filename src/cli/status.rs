//! `splitd status`: one look at the instance, out of its shared memory, so that
//! it tells of one that is stuck or dead, too. Exit code 0 where all is in order,
//! 1 where something is not (which it says), 3 where there is no instance.

use std::io::{self, Write};
use std::time::Duration;

use super::instance::{Instance, InstanceArguments};
use super::{Exit, Failure};
use crate::status;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Print a JSON object, the one of /v1/status
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    instance: InstanceArguments,
}

/// Longer than the logger takes to bring its part of the books up to date.
const BOOKS_PAUSE: Duration = Duration::from_millis(500);

pub(super) fn run(arguments: &Arguments, out: &mut dyn Write) -> Result<Exit, Failure> {
    let runtime_dir = match arguments.instance.runtime_dir() {
        Ok(runtime_dir) => runtime_dir,
        Err(exit) => return Ok(exit),
    };
    let mut instance = Instance::open(&runtime_dir)?;
    let mut snapshot = instance.look()?;
    // While exposures are under way the books may be off for a moment; those
    // that are off and stand still are wrong.
    let mut wrong = false;
    if snapshot.audit.unaccounted() > 0 {
        std::thread::sleep(BOOKS_PAUSE);
        let before = std::mem::replace(&mut snapshot, instance.look()?);
        wrong = snapshot.audit == before.audit;
    }
    let in_order = snapshot.complaints().is_empty() && !wrong;
    if arguments.json {
        serde_json::to_writer_pretty(&mut *out, &status::json::json(&snapshot)).map_err(io::Error::from)?;
        writeln!(out)?;
    } else {
        let mut text = String::new();
        status::text::write(&snapshot, &mut text).expect("a text takes any text");
        out.write_all(text.as_bytes())?;
    }
    Ok(if in_order { Exit::Done } else { Exit::Fault })
}
