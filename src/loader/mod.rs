//! The loader: a child of the master that reads the experiments, checks and
//! compiles them, and hands the plan over as a sealed memfd, or every fault of
//! the file. It stays, watches the file, and loads again when it is another. A file that
//! hangs, crashes or fills it touches nothing else; the master starts the next.
//!
//! ```text
//! source ([`mod@file`], [`watch`]) ─ check, compile ─┬─ Report::Plan    + sealed memfd: the plan's image
//!    ▲                                           │     └► last good file ([`last_good`])
//!    └ Order::Reload, a change                   ├─ Report::Refused + sealed memfd: the faults, a line each
//!                                                └─ Report::Unchanged: the text is that of the plan in force
//! ```
//! - At a start whose source is at fault or gone, the last good file is compiled
//!   instead. Without one, the loader leaves with a code that says whose fault it is.
//! - The image carries the text it was compiled from
//!   ([`Plan::source`](crate::engine::plan::Plan::source)), behind all that a
//!   worker looks at, for `explain`.
//!
//! To add a source: a file beside [`mod@file`] and an arm in `Loader`.

pub mod file;
pub mod last_good;
pub mod watch;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;
use serde::{Deserialize, Serialize};

use crate::clock::{self, Now};
use crate::config::check;
use crate::engine::plan::Plan;
use crate::limits::EXPERIMENTS_FILE_SIZE_MAX;
use crate::sys::channel::Channel;
use crate::sys::region::{Region, seal};
use last_good::{LastGood, fingerprint};
use watch::Watch;

/// Left because the master did.
pub const EXIT_DONE: i32 = 0;
/// Nothing to serve: the experiments are at fault.
pub const EXIT_FAULTY: i32 = 1;
/// Nothing to serve: the system refused to read it.
pub const EXIT_REFUSED: i32 = 3;

/// What the loader is given.
#[derive(Debug, Clone)]
pub struct Options {
    /// The experiments file, absolute.
    pub path: PathBuf,
    /// Where the last good file is kept.
    pub state_dir: PathBuf,
    /// The fingerprint of the text whose plan is in force, if one is.
    pub in_force: Option<u64>,
    /// The number of the last reload that was wished for.
    pub ticket: u64,
}

/// What the master tells the loader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// Read the source again.
    Reload {
        /// The wish's number; the outcome carries it.
        ticket: u64,
    },
}

/// Where a plan's text came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Origin {
    /// The experiments file.
    Source,
    /// The copy of the text that was last in force.
    LastGood,
}

/// What the loader tells the master. `ticket` is the last wish to reload that it
/// knew of before it began to read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Report {
    /// It begins to read.
    Begun,
    /// A plan; its image is the memfd beside.
    Plan {
        /// See [`Report`].
        ticket: u64,
        /// Experiments of the file, all states.
        experiment_count: u64,
        /// The file's version.
        version: String,
        /// Of the text it was compiled from.
        fingerprint: u64,
        /// Where that came from.
        origin: Origin,
        /// Since when this text is the last good one, Unix seconds.
        since_s: u64,
    },
    /// The source holds the text whose plan is in force.
    Unchanged {
        /// See [`Report`].
        ticket: u64,
    },
    /// The source is at fault; the faults are the memfd beside.
    Refused {
        /// See [`Report`].
        ticket: u64,
        /// The file that is at fault.
        path: PathBuf,
    },
}

/// The longest packet: a path or a version and a few words.
pub const PACKET_SIZE_MAX: usize = 8 * 1024;

impl Order {
    /// The packet's bytes.
    #[must_use]
    pub fn encode(self) -> Vec<u8> {
        serde_json::to_vec(&self).expect("numbers and names are always JSON")
    }
}

impl Report {
    /// The packet's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        // A path that is no UTF-8 has no JSON.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads a packet; `None` if it is no report.
    #[must_use]
    pub fn decode(packet: &[u8]) -> Option<Report> {
        serde_json::from_slice(packet).ok()
    }
}

/// The faults that came beside [`Report::Refused`], a line each.
///
/// # Errors
/// If the memory is not sealed.
pub fn read_faults(faults: &OwnedFd) -> io::Result<Vec<String>> {
    let region = Region::map_sealed(faults)?;
    let text = String::from_utf8_lossy(region.bytes());
    Ok(text.lines().map(str::to_owned).collect())
}

/// The loader's whole life; returns its exit code.
#[must_use]
pub fn run(options: &Options, channel: &Channel) -> i32 {
    let now = clock::now();
    let mut loader = Loader {
        options,
        channel,
        watch: Watch::new(&options.path, now),
        last_good: LastGood::of(&options.state_dir),
        in_force: options.in_force,
        ticket: options.ticket,
    };
    loader.serve(now).unwrap_or_else(|leave| leave.0)
}

/// The end, with this code.
struct Leave(i32);

/// Why there is no plan: the lines to be said, and whose fault it is.
struct Faults {
    lines: Vec<String>,
    code: i32,
}

struct Loader<'a> {
    options: &'a Options,
    channel: &'a Channel,
    watch: Watch,
    last_good: LastGood,
    in_force: Option<u64>,
    ticket: u64,
}

impl Loader<'_> {
    fn serve(&mut self, start: Now) -> Result<i32, Leave> {
        let loaded = self.load(start);
        if self.in_force.is_none()
            && let Err(code) = loaded
        {
            self.fall_back(code)?;
        }
        loop {
            self.wait()?;
            let now = clock::now();
            self.watch.take_events(now);
            let ordered = self.take_orders()?;
            if self.watch.is_due(now) || ordered {
                // Whatever is wrong with it was said; the plan in force stays.
                let _ = self.load(now);
            }
        }
    }

    fn wait(&self) -> Result<(), Leave> {
        let left_ns = self.watch.due_ns().saturating_sub(clock::now().mono_ns);
        let timeout = TimeSpec::from_duration(std::time::Duration::from_nanos(left_ns));
        let mut set = vec![PollFd::new(self.channel.as_fd(), PollFlags::POLLIN)];
        set.extend(self.watch.descriptor().map(|watch| PollFd::new(watch, PollFlags::POLLIN)));
        match ppoll(&mut set, Some(timeout), None) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => {
                log::error!("event=poll_failed process=loader error={:?}", errno.to_string());
                Err(Leave(EXIT_REFUSED))
            }
        }
    }

    /// Whether a reload was wished for; the end when the master is gone.
    fn take_orders(&mut self) -> Result<bool, Leave> {
        let mut ordered = false;
        let mut packet = [0; 256];
        loop {
            match self.channel.recv(&mut packet) {
                Ok(Some((size, _))) => match serde_json::from_slice(&packet[..size]) {
                    Ok(Order::Reload { ticket }) => {
                        self.ticket = ticket;
                        ordered = true;
                    }
                    Err(_) => log::warn!("event=order_unknown process=loader bytes={size}"),
                },
                Err(fault) if fault.kind() == io::ErrorKind::WouldBlock => return Ok(ordered),
                // Nobody is left to be handed anything.
                Ok(None) | Err(_) => return Err(Leave(EXIT_DONE)),
            }
        }
    }

    /// Reads the source and says what came of it; the code that tells whose
    /// fault it is that there is no plan.
    fn load(&mut self, now: Now) -> Result<(), i32> {
        self.report(&Report::Begun, None);
        self.watch.look();
        let ticket = self.ticket;
        let text = match file::read(&self.options.path, EXPERIMENTS_FILE_SIZE_MAX as u64) {
            Ok(text) => text,
            Err(fault) => {
                let line = format!("{}: {fault}", self.options.path.display());
                return self.refuse(&Faults { lines: vec![line], code: EXIT_REFUSED });
            }
        };
        if self.in_force == Some(fingerprint(&text)) {
            self.report(&Report::Unchanged { ticket }, None);
            return Ok(());
        }
        let loaded = self.compile(&text, Origin::Source, |last_good| {
            let now_s = now.unix_us.unsigned_abs() / 1_000_000;
            last_good.keep(&text, now_s).unwrap_or_else(|fault| {
                let path = last_good.path();
                log::warn!("event=last_good_not_kept file={path:?} error={:?}", fault.to_string());
                now_s
            })
        });
        loaded.or_else(|faults| self.refuse(&faults))
    }

    /// At a start: the text that was last in force. `code` tells what was wrong
    /// with the source.
    fn fall_back(&mut self, code: i32) -> Result<(), Leave> {
        let path = self.last_good.path().to_owned();
        let (text, since_s) = match self.last_good.read(EXPERIMENTS_FILE_SIZE_MAX as u64) {
            Ok(found) => found,
            Err(file::SourceFault::Unreadable(fault)) if fault.kind() == io::ErrorKind::NotFound => {
                return Err(Leave(code));
            }
            Err(fault) => {
                log::error!("event=last_good_refused file={path:?} reason={:?}", fault.to_string());
                return Err(Leave(code));
            }
        };
        self.compile(&text, Origin::LastGood, |_| since_s).map_err(|faults| {
            log::error!("event=last_good_refused file={path:?} reason={:?}", faults.lines.join("; "));
            Leave(code)
        })
    }

    /// Compiles a text and hands the plan over; `keep` says since when it is the last good one.
    fn compile(
        &mut self,
        text: &[u8],
        origin: Origin,
        keep: impl FnOnce(&mut LastGood) -> u64,
    ) -> Result<(), Faults> {
        let (catalog, image) = check::load(text).map_err(|faults| Faults {
            lines: faults.iter().map(|fault| fault.to_string().replace('\n', " ")).collect(),
            code: EXIT_FAULTY,
        })?;
        let not_handed_over = |fault: String| Faults {
            lines: vec![format!("{}: the plan can't be handed over: {fault}", self.options.path.display())],
            code: EXIT_REFUSED,
        };
        // A running worker looks at the header alone, so as not to stand still
        // for the whole: what it is given is checked through here, once it is sealed.
        let plan = seal(image.bytes()).map_err(|fault| not_handed_over(fault.to_string()))?;
        drop(image);
        let region = Region::map_sealed(&plan).map_err(|fault| not_handed_over(fault.to_string()))?;
        Plan::open(region.bytes()).map_err(|fault| not_handed_over(fault.to_string()))?;
        drop(region);
        let report = Report::Plan {
            ticket: self.ticket,
            experiment_count: catalog.experiments.len() as u64,
            version: catalog.version.clone(),
            fingerprint: fingerprint(text),
            origin,
            since_s: keep(&mut self.last_good),
        };
        self.report(&report, Some(&plan));
        self.in_force = Some(fingerprint(text));
        Ok(())
    }

    fn refuse(&self, faults: &Faults) -> Result<(), i32> {
        let report = Report::Refused { ticket: self.ticket, path: self.options.path.clone() };
        match seal(faults.lines.join("\n").as_bytes()) {
            Ok(text) => self.report(&report, Some(&text)),
            Err(fault) => log::error!("event=faults_not_handed_over error={:?}", fault.to_string()),
        }
        Err(faults.code)
    }

    /// Hands a packet over, waiting for a master that is busy.
    fn report(&self, report: &Report, memory: Option<&OwnedFd>) {
        let packet = report.encode();
        loop {
            match self.channel.send(&packet, memory.map(AsFd::as_fd)) {
                Err(fault) if fault.kind() == io::ErrorKind::WouldBlock => {
                    let mut set = [PollFd::new(self.channel.as_fd(), PollFlags::POLLOUT)];
                    let _ = nix::poll::poll(&mut set, nix::poll::PollTimeout::from(1000u16));
                }
                // One that is gone is noticed where its orders are taken.
                _ => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    /// A loader run in a thread of the test's own, and the master's end of its channel.
    struct Loading {
        master: Channel,
        thread: Option<std::thread::JoinHandle<i32>>,
        directory: tempfile::TempDir,
    }

    impl Loading {
        fn start(directory: tempfile::TempDir, in_force: Option<u64>) -> Loading {
            let (master, theirs) = Channel::pair().unwrap();
            let options = Options {
                path: directory.path().join("experiments.json"),
                state_dir: directory.path().to_owned(),
                in_force,
                ticket: 7,
            };
            let thread = Some(std::thread::spawn(move || run(&options, &theirs)));
            Loading { master, thread, directory }
        }

        fn with(text: &str) -> Loading {
            let directory = tempfile::tempdir().unwrap();
            std::fs::write(directory.path().join("experiments.json"), text).unwrap();
            Loading::start(directory, None)
        }

        fn next(&self) -> Option<(Report, Option<OwnedFd>)> {
            let mut packet = [0; PACKET_SIZE_MAX];
            let mut set = [PollFd::new(self.master.as_fd(), PollFlags::POLLIN)];
            assert_eq!(nix::poll::poll(&mut set, nix::poll::PollTimeout::from(60_000u16)), Ok(1));
            let (size, memory) = self.master.recv(&mut packet).unwrap()?;
            Some((Report::decode(&packet[..size]).unwrap(), memory))
        }

        /// What comes after [`Report::Begun`].
        fn outcome(&self) -> (Report, Option<OwnedFd>) {
            assert_eq!(self.next().unwrap().0, Report::Begun);
            self.next().unwrap()
        }

        fn code(&mut self) -> i32 {
            self.thread.take().unwrap().join().unwrap()
        }

        fn stop(mut self) -> tempfile::TempDir {
            let Loading { master, thread, directory } = &mut self;
            // The other end of a pair dropped is a master gone.
            *master = Channel::pair().unwrap().0;
            assert_eq!(thread.take().unwrap().join().unwrap(), EXIT_DONE);
            std::mem::replace(directory, tempfile::tempdir().unwrap())
        }
    }

    fn text(version: &str) -> String {
        format!(r#"{{"version": "{version}", "experiments": []}}"#)
    }

    fn plan_of(outcome: (Report, Option<OwnedFd>)) -> (String, Origin) {
        let (Report::Plan { ticket: 7, version, origin, fingerprint: of, .. }, Some(plan)) = outcome else {
            panic!("{outcome:?}")
        };
        let region = Region::map_sealed(&plan).unwrap();
        let plan = Plan::open(region.bytes()).unwrap();
        assert_eq!(plan.version(), version);
        assert_eq!(fingerprint(plan.source()), of, "the image carries its text");
        (version, origin)
    }

    fn kept(directory: &Path) -> String {
        std::fs::read_to_string(directory.join(last_good::FILE_NAME)).unwrap()
    }

    #[test]
    fn a_good_file_is_handed_over_as_a_sealed_plan_and_kept() {
        let loading = Loading::with(&text("7"));
        assert_eq!(plan_of(loading.outcome()), ("7".into(), Origin::Source));
        assert_eq!(kept(loading.directory.path()), text("7"));
        loading.stop();
    }

    #[test]
    fn a_change_is_loaded_by_itself_and_the_same_text_is_not() {
        let loading = Loading::with(&text("1"));
        loading.outcome();
        let path = loading.directory.path().join("experiments.json");
        std::fs::write(&path, text("2")).unwrap();
        assert_eq!(plan_of(loading.outcome()).0, "2");
        std::fs::write(&path, text("2")).unwrap();
        assert_eq!(loading.outcome().0, Report::Unchanged { ticket: 7 });
        loading.master.send(&Order::Reload { ticket: 8 }.encode(), None).unwrap();
        assert_eq!(loading.outcome().0, Report::Unchanged { ticket: 8 });
        let directory = loading.stop();
        let again = Loading::start(directory, Some(fingerprint(text("2").as_bytes())));
        assert_eq!(again.outcome().0, Report::Unchanged { ticket: 7 }, "nor by a successor");
        again.stop();
    }

    #[test]
    fn a_bad_file_hands_over_every_fault_on_a_line_of_its_own_and_ends_a_first_start() {
        let mut loading = Loading::with(r#"{"version": "7", "experiments": [{"id": 1}, {"id": 2}]}"#);
        let (report, faults) = loading.outcome();
        assert!(matches!(report, Report::Refused { ticket: 7, .. }), "{report:?}");
        let faults = read_faults(&faults.unwrap()).unwrap();
        assert!(faults.iter().any(|fault| fault.starts_with("/experiments/0")), "{faults:?}");
        assert!(faults.iter().any(|fault| fault.starts_with("/experiments/1")), "{faults:?}");
        assert_eq!(loading.code(), EXIT_FAULTY);
        assert!(!loading.directory.path().join(last_good::FILE_NAME).exists());
    }

    #[test]
    fn a_missing_file_is_the_systems_refusal() {
        let mut loading = Loading::start(tempfile::tempdir().unwrap(), None);
        let (_, faults) = loading.outcome();
        let faults = read_faults(&faults.unwrap()).unwrap();
        assert!(faults[0].contains("/experiments.json: can't be read"), "{faults:?}");
        assert_eq!(loading.code(), EXIT_REFUSED);
    }

    #[test]
    fn what_was_last_good_is_served_until_the_source_is_good_again() {
        let loading = Loading::with(&text("1"));
        loading.outcome();
        let directory = loading.stop();
        let path = directory.path().join("experiments.json");
        std::fs::remove_file(&path).unwrap();
        let again = Loading::start(directory, None);
        assert!(matches!(again.outcome().0, Report::Refused { .. }));
        assert_eq!(plan_of(again.next().unwrap()), ("1".into(), Origin::LastGood));
        std::fs::write(&path, text("1")).unwrap();
        assert_eq!(again.outcome().0, Report::Unchanged { ticket: 7 }, "the source has it again");
        std::fs::write(&path, text("2")).unwrap();
        assert_eq!(plan_of(again.outcome()), ("2".into(), Origin::Source));
        assert_eq!(kept(again.directory.path()), text("2"));
        again.stop();
    }

    #[test]
    fn a_packet_that_is_no_report_is_told() {
        for packet in [&b""[..], b"P123", b"{\"Plan\":{}}", b"\"Ended\""] {
            assert_eq!(Report::decode(packet), None);
        }
    }
}
