//! What `top` shows: pure drawing of snapshots.
//!
//! ```text
//! splitd 0.1.0  ready  experiments 2026-11-22.3 …                        title
//! ! assign/1 (pid 815) has not turned for 7.1 s                          complaints
//! pool     workers  requests/s  p50  p99  p99.9  queue  stall  …         pools
//! process  pid  state  up  turned  restarts  connections  requests/s     processes
//! ring     …                                                             rings and sink
//! experiment  assigned/s  assigned  control 50.1 of 50.0 % …             those with most
//! …                                                                      log
//! q quit  p pause  s sort …                                              keys
//! ```

use std::collections::VecDeque;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize};
use ratatui::text::{Line, Span as Words};
use ratatui::widgets::{Cell, Paragraph, Row, Sparkline, Table};

use crate::metrics::{Family, Process, ROUTES, STATUSES};
use crate::status::assignments::Experiment;
use crate::status::text::{Chance, Count, Sink, Size, Span};
use crate::status::{Health, Pool, ProcessView, Rates, RingView, Snapshot};

/// Looks that the curve of requests remembers.
const HISTORY_COUNT: usize = 240;

/// Experiments that are shown.
const EXPERIMENT_COUNT: usize = 5;

/// By what the workers are sorted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sort {
    Place,
    Requests,
    Connections,
    Turn,
}

impl Sort {
    pub(super) fn next(self) -> Sort {
        match self {
            Sort::Place => Sort::Requests,
            Sort::Requests => Sort::Connections,
            Sort::Connections => Sort::Turn,
            Sort::Turn => Sort::Place,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Sort::Place => "place",
            Sort::Requests => "requests",
            Sort::Connections => "connections",
            Sort::Turn => "last turn",
        }
    }
}

/// The last two looks, and how they are shown.
pub(super) struct View {
    now: Snapshot,
    before: Option<Snapshot>,
    /// Requests a second, oldest first.
    history: VecDeque<u64>,
    pub(super) sort: Sort,
    pub(super) paused: bool,
    /// Why the last look failed.
    pub(super) lost: Option<String>,
}

impl View {
    pub(super) fn new(now: Snapshot) -> View {
        View { now, before: None, history: VecDeque::new(), sort: Sort::Place, paused: false, lost: None }
    }

    pub(super) fn take(&mut self, now: Snapshot) {
        self.lost = None;
        self.before = Some(std::mem::replace(&mut self.now, now));
        if let Some(rates) = self.rates() {
            let requests: f64 = self.now.pools.iter().map(|pool| rates.pool(pool, Family::Requests)).sum();
            self.history.push_back(requests.round() as u64);
        }
        while self.history.len() > HISTORY_COUNT {
            self.history.pop_front();
        }
    }

    fn rates(&self) -> Option<Rates<'_>> {
        self.before.as_ref().map(|before| Rates::between(before, &self.now))
    }

    pub(super) fn draw(&self, frame: &mut Frame<'_>) {
        let complaints = self.complaints();
        let rings: Vec<&RingView> = self.now.rings.iter().filter(|ring| is_used(ring)).collect();
        let mut experiments = self.now.assignments.foremost();
        experiments.retain(|experiment| experiment.count() > 0);
        experiments.truncate(EXPERIMENT_COUNT);
        let height = |rows: usize| rows as u16 + 1;
        let sink = 1 + u16::from(self.now.spool().is_some());
        let heights = [
            1,
            complaints.len() as u16,
            height(self.now.pools.len()),
            3,
            height(self.now.processes.len()),
            sink + if rings.is_empty() { 0 } else { height(rings.len()) },
            if experiments.is_empty() { 0 } else { height(experiments.len()) },
        ];
        let parts = Layout::vertical(
            heights.map(Constraint::Length).into_iter().chain([Constraint::Min(0), Constraint::Length(1)]),
        )
        .spacing(u16::from(frame.area().height > heights.iter().sum::<u16>() + 10))
        .split(frame.area());
        frame.render_widget(self.title(), parts[0]);
        let complaints: Vec<Line<'_>> =
            complaints.into_iter().map(|line| Line::from(line).red().bold()).collect();
        frame.render_widget(Paragraph::new(complaints), parts[1]);
        self.draw_pools(frame, parts[2]);
        self.draw_history(frame, parts[3]);
        self.draw_processes(frame, parts[4]);
        self.draw_rings(&rings, sink, frame, parts[5]);
        self.draw_experiments(&experiments, frame, parts[6]);
        self.draw_log(frame, parts[7]);
        frame.render_widget(self.keys(), parts[8]);
    }

    fn complaints(&self) -> Vec<String> {
        let lost = self.lost.iter().map(|lost| format!("! the last look failed: {lost}"));
        lost.chain(self.now.complaints().into_iter().map(|complaint| format!("! {complaint}"))).collect()
    }

    fn title(&self) -> Line<'_> {
        let state = match self.now.state {
            "ready" => Words::from(" ready ").black().on_green(),
            other => Words::from(format!(" {other} ")).black().on_yellow(),
        };
        let up = self
            .now
            .processes
            .first()
            .map_or_else(String::new, |master| format!(", up {}", Span(master.age)));
        let version = match self.now.version.as_deref() {
            None => "changing",
            Some("") => "none yet",
            Some(version) => version,
        };
        let age = self.now.plan_age().map_or_else(String::new, |age| format!(" for {}", Span(age)));
        Line::from(vec![
            Words::from(concat!("splitd ", env!("CARGO_PKG_VERSION"), " ")).bold(),
            state,
            Words::from(format!("  {} experiments, ", self.now.experiment_count())),
            Words::from(version.to_owned()).bold(),
            Words::from(format!("{age}{up}")),
            Words::from(if self.paused { "  PAUSED" } else { "" }).yellow().bold(),
        ])
    }

    fn draw_pools(&self, frame: &mut Frame<'_>, area: Rect) {
        let head = [
            "pool",
            "workers",
            "requests/s",
            "p50",
            "p99",
            "p99.9",
            "queue p99.9",
            "stall max",
            "connections",
            "busiest",
            "faults/s",
            "in/s",
            "out/s",
        ];
        let rows = self.now.pools.iter().map(|pool| Row::new(self.pool_cells(pool)));
        let widths = [14, 7, 10, 8, 8, 8, 11, 9, 11, 7, 8, 9, 9].map(Constraint::Length);
        frame.render_widget(table(head.as_slice(), rows, &widths), area);
    }

    fn pool_cells(&self, pool: &Pool) -> Vec<Cell<'static>> {
        let rates = self.rates();
        let rate = |family| rates.map_or(0.0, |rates| rates.pool(pool, family));
        let histogram = |family| match rates {
            Some(rates) => rates.histogram(pool, family),
            None => pool.histogram_total(family),
        };
        let service = histogram(Family::ServiceTime);
        let (queue, stall) = (histogram(Family::QueueDelay), histogram(Family::LoopStall));
        let faults = rates.map_or(0.0, |rates| rates.cells(pool, Family::Requests, is_fault));
        let fault_style = if faults > 0.0 { Style::new().yellow() } else { Style::new() };
        vec![
            Cell::from(pool.name.clone()).bold(),
            right(pool.slots.len()),
            right(Count(rate(Family::Requests).round() as u64)),
            right(duration(service.quantile_ns(0.5))),
            right(duration(service.quantile_ns(0.99))),
            right(duration(service.quantile_ns(0.999))),
            right(duration(queue.quantile_ns(0.999))),
            right(duration(stall.quantile_ns(1.0))),
            right(Count(pool.value(Family::Connections, 0))),
            right(format!("{:.2}×", pool.spread())),
            right(Count(faults.round() as u64)).style(fault_style),
            right(Size(rate(Family::BytesReceived) as u64)),
            right(Size(rate(Family::BytesSent) as u64)),
        ]
    }

    fn draw_history(&self, frame: &mut Frame<'_>, area: Rect) {
        let [label, curve] = Layout::horizontal([Constraint::Length(14), Constraint::Min(0)]).areas(area);
        let most = self.history.iter().copied().max().unwrap_or(0);
        let text = vec![Line::from("requests/s").dim(), Line::from(format!("max {}", Count(most))).dim()];
        frame.render_widget(Paragraph::new(text), label);
        let from = self.history.len().saturating_sub(usize::from(curve.width));
        let data: Vec<u64> = self.history.iter().skip(from).copied().collect();
        frame.render_widget(Sparkline::default().data(data).max(most.max(1)).style(Color::Blue), curve);
    }

    fn draw_processes(&self, frame: &mut Frame<'_>, area: Rect) {
        let rates = self.rates();
        let requests = |process: &ProcessView| rates.map_or(0.0, |rates| rates.requests(&process.name));
        let mut sorted: Vec<&ProcessView> = self.now.processes.iter().collect();
        match self.sort {
            Sort::Place => {}
            Sort::Requests => sorted.sort_by(|a, b| requests(b).total_cmp(&requests(a))),
            Sort::Connections => sorted.sort_by_key(|process| std::cmp::Reverse(process.connections)),
            Sort::Turn => sorted.sort_by_key(|process| std::cmp::Reverse(process.turn_age)),
        }
        let rows = sorted.into_iter().map(|process| {
            let (state, style) = match process.health {
                Health::Running => ("running", Style::new().green()),
                Health::Draining => ("draining", Style::new().yellow()),
                Health::Ended => ("ended", Style::new().yellow()),
                Health::Stuck => ("STUCK", Style::new().red().add_modifier(Modifier::BOLD)),
                Health::Dead => ("DEAD", Style::new().red().add_modifier(Modifier::BOLD)),
            };
            let mut cells = vec![
                Cell::from(process.name.clone()),
                right(process.pid),
                Cell::from(state).style(style),
                right(Span(process.age)),
                // The master turns when something happens.
                right(if process.process == Process::Master {
                    String::new()
                } else {
                    Span(process.turn_age).to_string()
                }),
                right(process.restarts),
            ];
            if process.process == Process::Worker {
                cells.push(right(Count(process.connections)));
                cells.push(right(Count(requests(process).round() as u64)));
                cells.push(right(Count(process.requests)));
            }
            Row::new(cells)
        });
        let head =
            ["process", "pid", "state", "up", "turned", "restarts", "connections", "requests/s", "requests"];
        let widths = [14, 8, 9, 8, 8, 8, 11, 10, 14].map(Constraint::Length);
        frame.render_widget(table(&head, rows, &widths), area);
    }

    fn draw_rings(&self, rings: &[&RingView], sink: u16, frame: &mut Frame<'_>, area: Rect) {
        let [rows, sink] = Layout::vertical([Constraint::Min(0), Constraint::Length(sink)]).areas(area);
        if !rings.is_empty() {
            let head = ["ring", "", "full", "waiting", "committed", "lost", "corrupt"];
            let widths = [14, 22, 7, 10, 14, 10, 8].map(Constraint::Length);
            let cells = rings.iter().map(|ring| Row::new(ring_cells(ring)));
            frame.render_widget(table(&head, cells, &widths), rows);
        }
        let rates = self.rates();
        let delivered = rates.map_or(0.0, |rates| {
            rates.instance(Family::ExposuresDelivered) + rates.instance(Family::ExposuresReplayed)
        });
        let away = if self.now.sink_is_away() { Style::new().red().bold() } else { Style::new() };
        let text =
            format!("{}/s; {}", Count(delivered.round() as u64), Sink(&self.now, self.before.as_ref()));
        let mut lines =
            vec![Line::from(vec![Words::from("sink          ").dim(), Words::from(text).style(away)])];
        if let Some(spool) = self.now.spool() {
            let share = spool.size as f64 / spool.size_max as f64;
            let mut words = vec![Words::from("spool         ").dim()];
            words.extend(bar(share));
            words.push(Words::from(format!(" {:5.1} %  {spool}", 100.0 * share)));
            lines.push(Line::from(words));
        }
        frame.render_widget(Paragraph::new(lines), sink);
    }

    fn draw_experiments(&self, experiments: &[&Experiment], frame: &mut Frame<'_>, area: Rect) {
        if experiments.is_empty() {
            return;
        }
        let rates = self.rates();
        let rows = experiments.iter().map(|experiment| {
            let rate = rates.map_or(0.0, |rates| rates.assigned(experiment));
            Row::new([
                Cell::from(experiment.name.clone()),
                right(Count(rate.round() as u64)),
                right(Count(experiment.count())),
                Cell::from(shares(experiment)),
            ])
        });
        let widths =
            [Constraint::Length(24), Constraint::Length(10), Constraint::Length(14), Constraint::Min(0)];
        frame.render_widget(table(&["experiment", "assigned/s", "assigned", ""], rows, &widths), area);
    }

    fn draw_log(&self, frame: &mut Frame<'_>, area: Rect) {
        let from = self.now.log.len().saturating_sub(usize::from(area.height));
        let lines = self.now.log.iter().skip(from).map(|line| {
            let style = match line.level {
                "error" => Style::new().red(),
                "warn" => Style::new().yellow(),
                _ => Style::new().dim(),
            };
            let age_us = u64::try_from(self.now.taken.unix_us - line.unix_us).unwrap_or(0);
            let age = Span(std::time::Duration::from_micros(age_us)).to_string();
            Line::from(vec![
                Words::from(format!("{age:>8} ago  ")).dim(),
                Words::from(line.text.clone()).style(style),
            ])
        });
        frame.render_widget(Paragraph::new(lines.collect::<Vec<_>>()), area);
    }

    fn keys(&self) -> Line<'static> {
        let sort =
            format!(" sorted by {}: n place, r requests, c connections, t last turn", self.sort.name());
        Line::from(vec![
            Words::from(" q").bold(),
            Words::from(" quit ").dim(),
            Words::from(" p").bold(),
            Words::from(if self.paused { " go on " } else { " pause " }).dim(),
            Words::from(" s").bold(),
            Words::from(sort).dim(),
        ])
    }
}

/// Whether a cell of `requests` is of an answer that refuses.
fn is_fault(cell: usize) -> bool {
    debug_assert!(cell < ROUTES.len() * STATUSES.len());
    STATUSES[cell % STATUSES.len()] != "200"
}

fn is_used(ring: &RingView) -> bool {
    // The second of two that was never written to tells nothing.
    ring.which == 0 || !matches!(&ring.account, Ok(account) if account.attempted == 0)
}

fn ring_cells(ring: &RingView) -> Vec<Cell<'static>> {
    let name = Cell::from(format!("slot {}{}", ring.slot, if ring.which == 0 { "" } else { " ′" }));
    let account = match &ring.account {
        Ok(account) => account,
        Err(fault) => return vec![name, Cell::from(fault.to_string()).red()],
    };
    let share = account.in_ring_size as f64 / account.capacity.max(1) as f64;
    let lost = right(Count(account.lost));
    vec![
        name,
        Cell::from(Line::from_iter(bar(share))),
        right(format!("{:.1} %", 100.0 * share)),
        right(Count(account.in_ring)),
        right(Count(account.committed)),
        if account.lost > 0 { lost.yellow() } else { lost },
        right(account.corrupt),
    ]
}

/// Each group's share, and what it should be.
fn shares(experiment: &Experiment) -> Line<'static> {
    let mut words = Vec::new();
    if experiment.is_mismatched() {
        words.push(Words::from(format!("MISMATCH {}  ", Chance(experiment.p()))).red().bold());
    }
    for group in &experiment.groups {
        words.push(Words::from(format!("{} ", group.name)));
        words.push(Words::from(format!("{:.1}", 100.0 * experiment.share(group))).bold());
        words.push(Words::from(format!(" of {:.1} %  ", 100.0 * group.expected)).dim());
    }
    Line::from(words)
}

/// How full something is.
fn bar(share: f64) -> [Words<'static>; 2] {
    let color = if share > 0.9 {
        Color::Red
    } else if share > 0.5 {
        Color::Yellow
    } else {
        Color::Blue
    };
    let full = ((share * 20.0).ceil() as usize).min(20);
    [Words::from("█".repeat(full)).fg(color), Words::from("░".repeat(20 - full)).dim()]
}

fn table<'a>(head: &[&'static str], rows: impl Iterator<Item = Row<'a>>, widths: &[Constraint]) -> Table<'a> {
    let cell = |(index, name): (usize, &&'static str)| {
        let line = Line::from(*name);
        // Words to the left, figures to the right.
        let words = index == 0 || *name == "state" || name.is_empty();
        Cell::from(if words { line.left_aligned() } else { line.right_aligned() })
    };
    let head = Row::new(head.iter().enumerate().map(cell)).dim();
    Table::new(rows, widths.iter().copied()).header(head).column_spacing(1)
}

fn right(text: impl ToString) -> Cell<'static> {
    Cell::from(Line::from(text.to_string()).right_aligned())
}

fn duration(ns: Option<u64>) -> String {
    let Some(ns) = ns else { return "–".to_owned() };
    let value = ns as f64;
    match ns {
        0..1_000 => format!("{ns} ns"),
        1_000..10_000 => format!("{:.1} µs", value / 1e3),
        10_000..1_000_000 => format!("{:.0} µs", value / 1e3),
        1_000_000..10_000_000 => format!("{:.1} ms", value / 1e6),
        10_000_000..1_000_000_000 => format!("{:.0} ms", value / 1e6),
        _ => format!("{:.1} s", value / 1e9),
    }
}
