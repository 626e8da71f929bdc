//! The table as Prometheus text (exposition format 0.0.4): counters and gauges
//! summed over the blocks of each pool, one line a cell that was ever touched.

use std::fmt::Write;

use super::{Block, FAMILIES, Family, Kind, Process, Row, Table, cell_count};

/// Writes the whole table. Allocates: it runs in the admin pool.
///
/// # Errors
/// If `out` refuses, as a full fixed buffer does.
pub fn render(table: Table<'_>, out: &mut impl Write) -> std::fmt::Result {
    let mut blocks: Vec<(String, Vec<Block<'_>>)> = Vec::new();
    for block in table.blocks() {
        let name = match block.process() {
            None => continue,
            Some(Process::Master | Process::Logger) => String::new(),
            Some(Process::Worker) => block.name(),
        };
        match blocks.iter_mut().find(|(pool, _)| *pool == name) {
            Some((_, list)) => list.push(block),
            None => blocks.push((name, vec![block])),
        }
    }
    for row in FAMILIES {
        family(row, &blocks, out)?;
    }
    Ok(())
}

fn family(row: &Row, pools: &[(String, Vec<Block<'_>>)], out: &mut impl Write) -> std::fmt::Result {
    let kind = if row.kind == Kind::Counter {
        "counter"
    } else {
        "gauge"
    };
    writeln!(
        out,
        "# HELP {} {}\n# TYPE {} {kind}",
        row.name, row.help, row.name
    )?;
    for (pool, blocks) in pools {
        for cell in 0..cell_count(row.labels) {
            let values = blocks.iter().map(|block| block.get(row.family, cell));
            let value = match row.kind {
                Kind::GaugeMax => values.max().unwrap_or(0),
                _ => values.fold(0, u64::wrapping_add),
            };
            let workers = writes(row.family, Process::Worker);
            if workers == pool.is_empty() || (value == 0 && !row.labels.is_empty()) {
                continue;
            }
            out.write_str(row.name)?;
            labels(row, pool, cell, out)?;
            writeln!(out, " {value}")?;
        }
    }
    Ok(())
}

fn labels(row: &Row, pool: &str, cell: usize, out: &mut impl Write) -> std::fmt::Result {
    let mut separator = '{';
    if !pool.is_empty() {
        write!(out, "{{pool=\"{}\"", Escaped(pool))?;
        separator = ',';
    }
    let mut stride = cell_count(row.labels);
    let mut rest = cell;
    for (name, values) in row.labels {
        stride /= values.len();
        write!(out, "{separator}{name}=\"{}\"", values[rest / stride])?;
        rest %= stride;
        separator = ',';
    }
    if separator == ',' {
        out.write_char('}')
    } else {
        Ok(())
    }
}

/// A label's value with `\`, `"` and line feeds escaped, as the format asks.
struct Escaped<'a>(&'a str);

impl std::fmt::Display for Escaped<'_> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for character in self.0.chars() {
            match character {
                '\\' => out.write_str("\\\\")?,
                '"' => out.write_str("\\\"")?,
                '\n' => out.write_str("\\n")?,
                other => out.write_char(other)?,
            }
        }
        Ok(())
    }
}

/// Whether a family is written by that kind of process.
fn writes(family: Family, process: Process) -> bool {
    let owner = match family {
        Family::ExposuresDelivered
        | Family::ExposuresCorrupt
        | Family::ExposuresEvicted
        | Family::SinkBytes
        | Family::SinkErrors
        | Family::SinkFiles => Process::Logger,
        Family::Restarts | Family::LoggerRestarts | Family::Reloads | Family::ReloadsFailed => {
            Process::Master
        }
        _ => Process::Worker,
    };
    owner == process
}
