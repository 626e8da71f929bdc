//! `splitd export FILE`: who owns which buckets, as rows (one JSON object a line)
//! to load beside the exposures. Running experiments only: no other assigns.

use std::io::Write;
use std::path::PathBuf;

use serde::Serialize;

use super::{Exit, Failure, read_file, say_faults};
use crate::config::check::load;
use crate::engine::catalog::{Catalog, State};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The experiments file; - is standard input
    file: PathBuf,
}

/// One block of a group of a running experiment.
#[derive(Serialize)]
struct Row<'a> {
    version: &'a str,
    layer: &'a str,
    salt: &'a str,
    unit: &'a str,
    buckets: u32,
    experiment: &'a str,
    group: &'a str,
    first: u32,
    count: u32,
}

pub(super) fn run(arguments: &Arguments, out: &mut dyn Write) -> Result<Exit, Failure> {
    let source = read_file(&arguments.file)?;
    match load(&source) {
        Err(faults) => Ok(say_faults(&arguments.file, &faults)),
        Ok((catalog, _)) => {
            write_rows(&catalog, out)?;
            Ok(Exit::Done)
        }
    }
}

fn write_rows(catalog: &Catalog, out: &mut dyn Write) -> std::io::Result<()> {
    for experiment in catalog.experiments.iter().filter(|experiment| experiment.state == State::Running) {
        let layer = &catalog.layers[experiment.layer];
        for group in &experiment.groups {
            for block in &group.blocks {
                let row = Row {
                    version: &catalog.version,
                    layer: &layer.name,
                    salt: &layer.salt,
                    unit: &catalog.unit_kinds[layer.unit_kind],
                    buckets: layer.bucket_count,
                    experiment: &experiment.name,
                    group: &group.name,
                    first: block.first,
                    count: block.count,
                };
                serde_json::to_writer(&mut *out, &row)?;
                out.write_all(b"\n")?;
            }
        }
    }
    Ok(())
}
