//! The table as Prometheus text or OpenMetrics: counters, gauges and
//! histograms summed over the blocks of each pool, a cell that was ever touched.

use std::fmt::Write;

use super::histogram::Histogram;
use super::names::{Column, NameKind, Names, Place, label_values};
use super::{Block, FAMILIES, Family, Kind, Process, Row, Table, cell_count};

/// What a scraper reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Prometheus' exposition format 0.0.4.
    Text,
    /// OpenMetrics 1.0: a counter's family goes without `_total`, and there is an end.
    OpenMetrics,
}

/// Writes the whole table, and the version of the experiments in force.
/// Allocates: it runs in the admin pool.
///
/// # Errors
/// If `out` refuses, as a full fixed buffer does.
pub fn render(
    table: Table<'_>,
    plan_version: &str,
    format: Format,
    out: &mut impl Write,
) -> std::fmt::Result {
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
        head(row, format, out)?;
        if row.kind == Kind::Info {
            let version = row.labels[0].1.first().unwrap_or(&plan_version);
            writeln!(out, "{}{{version=\"{}\"}} 1", row.name, Escaped(version))?;
        } else {
            family(row, table.names(), &blocks, out)?;
        }
    }
    if format == Format::OpenMetrics { out.write_str("# EOF\n") } else { Ok(()) }
}

fn head(row: &Row, format: Format, out: &mut impl Write) -> std::fmt::Result {
    let kind = match row.kind {
        Kind::Counter | Kind::Time | Kind::Named(..) => "counter",
        Kind::Gauge | Kind::GaugeMax | Kind::Spread(_) | Kind::Info => "gauge",
        Kind::Histogram => "histogram",
    };
    let name = match format {
        Format::OpenMetrics if kind == "counter" => row.name.trim_end_matches("_total"),
        _ => row.name,
    };
    writeln!(out, "# HELP {name} {}\n# TYPE {name} {kind}", row.help)
}

fn family(
    row: &Row,
    names: Names<'_>,
    pools: &[(String, Vec<Block<'_>>)],
    out: &mut impl Write,
) -> std::fmt::Result {
    for (pool, blocks) in pools {
        if (row.by == Process::Worker) == pool.is_empty() {
            continue;
        }
        if let Kind::Named(kind, column) = row.kind {
            named(row, (kind, column), names, pool, blocks, out)?;
            continue;
        }
        for cell in 0..cell_count(row.labels) {
            let values = blocks.iter().map(|block| block.get(row.family, cell));
            let value = match row.kind {
                Kind::Histogram => {
                    histogram(row, pool, blocks, cell, out)?;
                    continue;
                }
                Kind::Spread(level) => {
                    out.write_str(row.name)?;
                    labels(row, pool, cell, None, out)?;
                    writeln!(out, " {:.3}", spread(level, blocks))?;
                    continue;
                }
                Kind::GaugeMax => values.max().unwrap_or(0),
                Kind::Counter | Kind::Gauge | Kind::Time => values.fold(0, u64::wrapping_add),
                Kind::Named(..) | Kind::Info => unreachable!("it has no cells of its own"),
            };
            if value == 0 && !row.labels.is_empty() {
                continue;
            }
            out.write_str(row.name)?;
            labels(row, pool, cell, None, out)?;
            match row.kind {
                Kind::Time => writeln!(out, " {}", value as f64 / 1e6)?,
                _ => writeln!(out, " {value}")?,
            }
        }
    }
    Ok(())
}

/// The largest level of a worker over the mean; 1 where there is nothing to spread.
fn spread(level: Family, blocks: &[Block<'_>]) -> f64 {
    // A worker's two blocks lie side by side.
    let mut workers: Vec<(usize, u64)> = Vec::new();
    for block in blocks {
        let value = block.get(level, 0);
        match workers.iter_mut().find(|(slot, _)| Some(*slot) == block.slot()) {
            Some((_, sum)) => *sum += value,
            None => workers.extend(block.slot().map(|slot| (slot, value))),
        }
    }
    let (sum, max) = workers.iter().fold((0, 0), |(sum, max), (_, value)| (sum + value, max.max(*value)));
    if sum == 0 { 1.0 } else { max as f64 * workers.len() as f64 / sum as f64 }
}

/// A line for every name that was ever counted.
fn named(
    row: &Row,
    (kind, column): (NameKind, Column),
    names: Names<'_>,
    pool: &str,
    blocks: &[Block<'_>],
    out: &mut impl Write,
) -> std::fmt::Result {
    let known = names.of(kind).map(|(place, text)| (place, label_values(kind, &text)));
    let others = vec!["other".to_owned(); row.labels.len()];
    for (place, values) in known.chain([(Place::other(kind), others)]) {
        let count =
            blocks.iter().fold(0u64, |sum, block| sum.wrapping_add(block.get_named(place.of(column))));
        if count == 0 {
            continue;
        }
        write!(out, "{}{{pool=\"{}\"", row.name, Escaped(pool))?;
        for ((label, _), value) in row.labels.iter().zip(&values) {
            write!(out, ",{label}=\"{}\"", Escaped(value))?;
        }
        writeln!(out, "}} {count}")?;
    }
    Ok(())
}

/// One cell's buckets, sum and count, unless nothing was ever counted there.
fn histogram(
    row: &Row,
    pool: &str,
    blocks: &[Block<'_>],
    cell: usize,
    out: &mut impl Write,
) -> std::fmt::Result {
    let mut sum = Histogram::default();
    for block in blocks {
        sum.add(&block.histogram(row.family, cell));
    }
    let count = sum.count();
    if count == 0 {
        return Ok(());
    }
    for (edge_ns, count) in sum.cumulative() {
        write!(out, "{}_bucket", row.name)?;
        labels(row, pool, cell, Some(Edge::Seconds(edge_ns)), out)?;
        writeln!(out, " {count}")?;
    }
    write!(out, "{}_bucket", row.name)?;
    labels(row, pool, cell, Some(Edge::Infinite), out)?;
    write!(out, " {count}\n{}_sum", row.name)?;
    labels(row, pool, cell, None, out)?;
    write!(out, " {}\n{}_count", Seconds(sum.sum_ns), row.name)?;
    labels(row, pool, cell, None, out)?;
    writeln!(out, " {count}")
}

/// A value of `le`.
enum Edge {
    Seconds(u64),
    Infinite,
}

/// Nanoseconds as seconds, to the last digit.
struct Seconds(u64);

impl std::fmt::Display for Seconds {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = format!("{}.{:09}", self.0 / 1_000_000_000, self.0 % 1_000_000_000);
        let short = text.trim_end_matches('0');
        out.write_str(short)?;
        if short.ends_with('.') { out.write_char('0') } else { Ok(()) }
    }
}

fn labels(row: &Row, pool: &str, cell: usize, edge: Option<Edge>, out: &mut impl Write) -> std::fmt::Result {
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
    match &edge {
        None => {}
        Some(Edge::Seconds(ns)) => write!(out, "{separator}le=\"{}\"", Seconds(*ns))?,
        Some(Edge::Infinite) => write!(out, "{separator}le=\"+Inf\"")?,
    }
    let separator = if edge.is_some() { ',' } else { separator };
    if separator == ',' { out.write_char('}') } else { Ok(()) }
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::super::{
        Family, LOGGER_BLOCK, block_count, instance_state, region_size, request_cell, worker_block,
    };
    use super::*;

    #[test]
    fn blocks_of_a_pool_are_summed_and_labels_are_written() {
        let words: Vec<AtomicU64> = (0..region_size(block_count(4)) / 8).map(|_| AtomicU64::new(0)).collect();
        let table = Table::format(&words, block_count(4));
        table.block(0).claim(Process::Master, "");
        table.block(0).set(Family::InstanceState, instance_state::READY);
        table.block(LOGGER_BLOCK).claim(Process::Logger, "");
        table.block(LOGGER_BLOCK).add(Family::ExposuresDelivered, 5);
        for (slot, which, pool) in [(0, 0, "assign"), (0, 1, "assign"), (1, 0, "a\"b")] {
            let block = table.block(worker_block(slot, which));
            block.claim(Process::Worker, pool);
            block.add_at(Family::Requests, request_cell(0, 200), 2);
            block.record_at(Family::ServiceTime, 1, 1500, 1);
            block.record_at(Family::ServiceTime, 1, 1_000_000_000 << slot, 2);
        }
        // A slot's two blocks are one worker's; the other worker has none of 6.
        for (slot, which, count) in [(2, 0, 0), (3, 0, 4), (3, 1, 2)] {
            let block = table.block(worker_block(slot, which));
            block.claim(Process::Worker, "bulk");
            block.set(Family::Connections, count);
        }
        let mut text = String::new();
        render(table, "v1", Format::Text, &mut text).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        for line in [
            "splitd_instance_state 1",
            "splitd_exposures_delivered_total{rings=\"own\"} 5",
            "# TYPE splitd_requests_total counter",
            "splitd_requests_total{pool=\"assign\",route=\"assign\",status=\"200\"} 4",
            "splitd_requests_total{pool=\"a\\\"b\",route=\"assign\",status=\"200\"} 2",
            "splitd_connections{pool=\"assign\"} 0",
            "splitd_connections_busiest_ratio{pool=\"assign\"} 1.000",
            "splitd_connections_busiest_ratio{pool=\"bulk\"} 2.000",
        ] {
            assert!(lines.contains(&line), "{line} is not in\n{text}");
        }
    }
}
