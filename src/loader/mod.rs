//! The loader: a short-lived child of the master, one for the start and one for
//! every reload. It reads the experiments, checks and compiles them, hands the
//! plan over as a sealed memfd (or every fault of the file), and leaves. A file
//! that hangs, crashes or fills it touches nothing else.
//!
//! ```text
//! source ([`mod@file`]) ─ check, compile ─┬─ Report::Plan    + sealed memfd: the plan's image
//!                                     └─ Report::Refused + sealed memfd: the faults, a line each
//! ```
//! To add a source: a file beside [`mod@file`] and an arm in [`run`].

pub mod file;

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use crate::config::check;
use crate::limits::EXPERIMENTS_FILE_SIZE_MAX;
use crate::sys::channel::Channel;
use crate::sys::region::{Region, seal};

/// The plan was handed over.
pub const EXIT_DONE: i32 = 0;
/// The experiments are at fault; the faults were handed over.
pub const EXIT_FAULTY: i32 = 1;
/// The system refused: nothing to read, no memory, or nobody to hand it to.
pub const EXIT_REFUSED: i32 = 3;

/// What the loader is given.
#[derive(Debug, Clone)]
pub struct Options {
    /// The experiments file.
    pub path: PathBuf,
}

/// What the loader hands over, in the one packet it sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// A plan; its image is the memfd beside.
    Plan {
        /// Experiments of the file, all states.
        experiment_count: u64,
        /// The file's version.
        version: String,
    },
    /// None; the faults are the memfd beside.
    Refused,
}

/// The longest packet: a version and a few bytes.
pub const REPORT_SIZE_MAX: usize = 4096;

impl Report {
    /// The packet's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Report::Plan { experiment_count, version } => {
                let mut packet = vec![b'P'];
                packet.extend_from_slice(&experiment_count.to_le_bytes());
                packet.extend_from_slice(version.as_bytes());
                packet.truncate(REPORT_SIZE_MAX);
                packet
            }
            Report::Refused => vec![b'R'],
        }
    }

    /// Reads a packet; `None` if it is no report.
    #[must_use]
    pub fn decode(packet: &[u8]) -> Option<Report> {
        match packet.split_first()? {
            (b'P', rest) => {
                let (count, version) = rest.split_first_chunk::<8>()?;
                Some(Report::Plan {
                    experiment_count: u64::from_le_bytes(*count),
                    version: String::from_utf8_lossy(version).into_owned(),
                })
            }
            (b'R', []) => Some(Report::Refused),
            _ => None,
        }
    }
}

/// The faults that came beside [`Report::Refused`], a line each.
///
/// # Errors
/// If the memory is not sealed.
pub fn read_faults(faults: &OwnedFd) -> std::io::Result<Vec<String>> {
    let region = Region::map_sealed(faults)?;
    let text = String::from_utf8_lossy(region.bytes());
    Ok(text.lines().map(str::to_owned).collect())
}

/// The loader's whole life; returns its exit code.
#[must_use]
pub fn run(options: &Options, channel: &Channel) -> i32 {
    let path = options.path.display();
    let source = match file::read(&options.path, EXPERIMENTS_FILE_SIZE_MAX as u64) {
        Ok(source) => source,
        Err(fault) => return refuse(channel, &format!("{path}: {fault}"), EXIT_REFUSED),
    };
    match check::load(&source) {
        Ok((catalog, image)) => {
            let report = Report::Plan {
                experiment_count: catalog.experiments.len() as u64,
                version: catalog.version.clone(),
            };
            match seal(image.bytes()).and_then(|plan| channel.send(&report.encode(), Some(plan.as_fd()))) {
                Ok(()) => EXIT_DONE,
                Err(fault) => {
                    let text = format!("{path}: the plan can't be handed over: {fault}");
                    refuse(channel, &text, EXIT_REFUSED)
                }
            }
        }
        Err(faults) => {
            let lines: Vec<String> =
                faults.iter().map(|fault| fault.to_string().replace('\n', " ")).collect();
            refuse(channel, &lines.join("\n"), EXIT_FAULTY)
        }
    }
}

fn refuse(channel: &Channel, faults: &str, code: i32) -> i32 {
    let sent = seal(faults.as_bytes())
        .and_then(|faults| channel.send(&Report::Refused.encode(), Some(faults.as_fd())));
    match sent {
        Ok(()) => code,
        // The master says that there was no word; the code says the rest.
        Err(_) => EXIT_REFUSED,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> (i32, Report, OwnedFd) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("experiments.json");
        std::fs::write(&path, text).unwrap();
        hand_over(path)
    }

    fn hand_over(path: PathBuf) -> (i32, Report, OwnedFd) {
        let (ours, theirs) = Channel::pair().unwrap();
        let code = run(&Options { path }, &theirs);
        let mut packet = [0; REPORT_SIZE_MAX];
        let (size, memory) = ours.recv(&mut packet).unwrap().unwrap();
        (code, Report::decode(&packet[..size]).unwrap(), memory.unwrap())
    }

    #[test]
    fn a_good_file_is_handed_over_as_a_sealed_plan() {
        let (code, report, plan) = load(r#"{"version": "7", "experiments": []}"#);
        assert_eq!(code, EXIT_DONE, "{report:?}");
        assert_eq!(report, Report::Plan { experiment_count: 0, version: "7".into() });
        assert!(!Region::map_sealed(&plan).unwrap().bytes().is_empty());
    }

    #[test]
    fn a_bad_file_hands_over_every_fault_on_a_line_of_its_own() {
        let text = r#"{"version": "7", "experiments": [{"id": 1}, {"id": 2}]}"#;
        let (code, report, faults) = load(text);
        assert_eq!((code, report), (EXIT_FAULTY, Report::Refused));
        let faults = read_faults(&faults).unwrap();
        assert!(faults.iter().any(|fault| fault.starts_with("/experiments/0")), "{faults:?}");
        assert!(faults.iter().any(|fault| fault.starts_with("/experiments/1")), "{faults:?}");
    }

    #[test]
    fn a_missing_file_is_the_systems_refusal() {
        let (code, report, faults) = hand_over("/nonexistent/experiments.json".into());
        assert_eq!((code, report), (EXIT_REFUSED, Report::Refused));
        let faults = read_faults(&faults).unwrap();
        assert!(faults[0].contains("/nonexistent/experiments.json: can't be read"), "{faults:?}");
    }

    #[test]
    fn a_packet_that_is_no_report_is_told() {
        for packet in [&b""[..], b"P123", b"Rx", b"Q"] {
            assert_eq!(Report::decode(packet), None);
        }
    }
}
