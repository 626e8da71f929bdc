//! A snapshot for people: `splitd status`.

use std::fmt::{self, Display, Write};
use std::time::Duration;

use super::snapshot::{Health, ProcessView, Snapshot, SpoolView};
use crate::metrics::{Family, Process};

/// Writes the whole of it.
///
/// # Errors
/// If `out` refuses.
pub fn write(snapshot: &Snapshot, out: &mut impl Write) -> fmt::Result {
    let up = snapshot.processes.first().map_or(Duration::ZERO, |master| master.age);
    writeln!(out, "splitd {}: {}, up {}", env!("CARGO_PKG_VERSION"), snapshot.state, Span(up))?;
    let version = match snapshot.version.as_deref() {
        None => "changing at this moment",
        Some("") => "none yet",
        Some(version) => version,
    };
    write!(out, "experiments {version}")?;
    match snapshot.plan_age() {
        Some(age) => writeln!(out, ": {} of them, in force for {}", snapshot.experiment_count(), Span(age))?,
        None => writeln!(out)?,
    }
    for complaint in snapshot.complaints() {
        writeln!(out, "! {complaint}")?;
    }

    writeln!(
        out,
        "\n{:<16}{:>8}  {:<9}{:>10}{:>12}{:>10}{:>13}{:>14}",
        "process", "pid", "", "up", "turned", "restarts", "connections", "requests"
    )?;
    for process in &snapshot.processes {
        write_process(process, out)?;
    }

    write_assignments(snapshot, out)?;
    write_exposures(snapshot, out)?;
    if !snapshot.log.is_empty() {
        writeln!(out, "\nlast lines of the log")?;
        for line in snapshot.log.iter().rev().take(LOG_LINE_COUNT).rev() {
            let age =
                Duration::from_micros(u64::try_from(snapshot.taken.unix_us - line.unix_us).unwrap_or(0));
            writeln!(
                out,
                "  {:>8} ago  {:<5} {:>7}  {}",
                Span(age).to_string(),
                line.level,
                line.pid,
                line.text
            )?;
        }
    }
    Ok(())
}

/// Lines of the log that are shown.
const LOG_LINE_COUNT: usize = 8;

fn write_process(process: &ProcessView, out: &mut impl Write) -> fmt::Result {
    let health = match process.health {
        Health::Running => "running",
        Health::Draining => "draining",
        Health::Stuck => "STUCK",
        Health::Dead => "DEAD",
        Health::Ended => "ended",
    };
    let turned = match process.process {
        // It turns when something happens.
        Process::Master => String::new(),
        Process::Logger | Process::Worker => format!("{} ago", Span(process.turn_age)),
    };
    write!(
        out,
        "{:<16}{:>8}  {:<9}{:>10}{turned:>12}{:>10}",
        process.name,
        process.pid,
        health,
        Span(process.age).to_string(),
        process.restarts,
    )?;
    if process.name.contains('/') {
        write!(out, "{:>13}{:>14}", process.connections, Count(process.requests).to_string())?;
    }
    writeln!(out)
}

/// Experiments that are shown.
const EXPERIMENT_COUNT: usize = 10;

fn write_assignments(snapshot: &Snapshot, out: &mut impl Write) -> fmt::Result {
    let foremost = snapshot.assignments.foremost();
    let shown: Vec<_> = foremost.iter().filter(|experiment| experiment.count() > 0).collect();
    if shown.is_empty() {
        return Ok(());
    }
    writeln!(
        out,
        "\n{:<28}{:<20}{:>14}{:>10}{:>10}",
        "experiment", "group", "assigned", "share", "expected"
    )?;
    for experiment in shown.iter().take(EXPERIMENT_COUNT) {
        let mut name = experiment.name.as_str();
        for group in &experiment.groups {
            writeln!(
                out,
                "{name:<28}{:<20}{:>14}{:>9.2}%{:>9.2}%",
                group.name,
                Count(group.count).to_string(),
                100.0 * experiment.share(group),
                100.0 * group.expected,
            )?;
            name = "";
        }
        if experiment.is_mismatched() {
            writeln!(out, "! shares of {} are not as expected, {}", experiment.name, Chance(experiment.p()))?;
        }
    }
    if shown.len() > EXPERIMENT_COUNT {
        writeln!(out, "{} more with --json", shown.len() - EXPERIMENT_COUNT)?;
    }
    Ok(())
}

fn write_exposures(snapshot: &Snapshot, out: &mut impl Write) -> fmt::Result {
    if snapshot.rings.is_empty() {
        return Ok(());
    }
    writeln!(
        out,
        "\n{:<16}{:>8}{:>14}{:>14}{:>12}{:>12}{:>9}",
        "ring", "full", "attempted", "committed", "waiting", "lost", "corrupt"
    )?;
    for ring in &snapshot.rings {
        let name = format!("slot {} / {}", ring.slot, ring.which);
        match &ring.account {
            Err(fault) => writeln!(out, "{name:<16}{fault}")?,
            // One that was never written to tells nothing.
            Ok(account) if account.attempted == 0 => {}
            Ok(account) => writeln!(
                out,
                "{name:<16}{:>7.1}%{:>14}{:>14}{:>12}{:>12}{:>9}",
                100.0 * account.in_ring_size as f64 / account.capacity.max(1) as f64,
                Count(account.attempted).to_string(),
                Count(account.committed).to_string(),
                Count(account.in_ring).to_string(),
                Count(account.lost).to_string(),
                account.corrupt,
            )?,
        }
    }
    let audit = &snapshot.audit;
    writeln!(
        out,
        "exposures       {} attempted = {} committed + {} lost; {} unaccounted",
        Count(audit.attempted),
        Count(audit.committed()),
        Count(audit.lost()),
        Count(audit.unaccounted()),
    )?;
    writeln!(out, "sink            {}", Sink(snapshot, None))?;
    match snapshot.spool() {
        Some(spool) => writeln!(out, "spool           {spool}"),
        None => Ok(()),
    }
}

/// What the sink has done, and how long it took to answer since the earlier look.
pub struct Sink<'s>(pub &'s Snapshot, pub Option<&'s Snapshot>);

impl Display for Sink<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Sink(snapshot, earlier) = self;
        let of = |family| snapshot.instance.total(family);
        write!(
            f,
            "{} delivered, {}, {} errors, {} rejected, {} evicted",
            Count(of(Family::ExposuresDelivered) + of(Family::ExposuresReplayed)),
            Size(of(Family::SinkBytes)),
            Count(of(Family::SinkErrors)),
            Count(of(Family::ExposuresRejected)),
            Count(of(Family::ExposuresEvicted)),
        )?;
        if let Some(delay) = snapshot.sink_delay(*earlier) {
            write!(f, ", answers after {}", Span(delay))?;
        }
        f.write_str(if snapshot.sink_is_away() { ", AWAY" } else { "" })
    }
}

impl Display for SpoolView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}, {} exposures", Size(self.size), Size(self.size_max), Count(self.waiting))?;
        if let Some(age) = self.oldest_age {
            write!(f, ", the oldest for {}", Span(age))?;
        }
        write!(f, ", {} evicted", Count(self.evicted))
    }
}

/// Bytes as one says them: `999 B`, `1.2 kB`, `3.4 GB`.
pub struct Size(pub u64);

impl Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = self.0 as f64;
        let text = match self.0 {
            0..1_000 => format!("{size} B"),
            1_000..1_000_000 => format!("{:.1} kB", size / 1e3),
            1_000_000..1_000_000_000 => format!("{:.1} MB", size / 1e6),
            _ => format!("{:.1} GB", size / 1e9),
        };
        f.pad(&text)
    }
}

/// A duration as one says it: `12 ms`, `0.2 s`, `12 s`, `5 min`, `3 h`, `9 d`.
pub struct Span(pub Duration);

impl Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self.0.as_secs() {
            0 if self.0.as_millis() < 100 => format!("{} ms", self.0.as_millis()),
            0..10 => format!("{:.1} s", self.0.as_secs_f64()),
            seconds @ 10..120 => format!("{seconds} s"),
            seconds @ 120..7_200 => format!("{} min", seconds / 60),
            seconds @ 7_200..172_800 => format!("{} h", seconds / 3_600),
            seconds => format!("{} d", seconds / 86_400),
        };
        f.pad(&text)
    }
}

/// How probable something is by chance.
pub struct Chance(pub Option<f64>);

impl Display for Chance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => f.pad(""),
            Some(p) if p < 1e-9 => f.pad("p < 1e-9"),
            Some(p) if p < 1e-3 => f.pad(&format!("p = {p:.0e}")),
            Some(p) => f.pad(&format!("p = {p:.3}")),
        }
    }
}

/// A whole number with its thousands apart.
pub struct Count(pub u64);

impl Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.to_string();
        let mut text = String::with_capacity(digits.len() * 4 / 3);
        for (index, digit) in digits.chars().enumerate() {
            if index > 0 && (digits.len() - index).is_multiple_of(3) {
                text.push(',');
            }
            text.push(digit);
        }
        f.pad(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_counts_are_as_one_says_them() {
        let span = |seconds: f64| Span(Duration::from_secs_f64(seconds)).to_string();
        assert_eq!(
            [span(0.012), span(0.25), span(12.0), span(150.0), span(7_200.0), span(900_000.0)],
            ["12 ms", "0.2 s", "12 s", "2 min", "2 h", "10 d"]
        );
        assert_eq!(
            [999, 1_000, 34_560_000, 8_600_000_000].map(|size| Size(size).to_string()),
            ["999 B", "1.0 kB", "34.6 MB", "8.6 GB"]
        );
        assert_eq!(
            [0, 999, 1_000, 1_234_567].map(|n| Count(n).to_string()),
            ["0", "999", "1,000", "1,234,567"]
        );
    }
}
