//! `splitd events PATH…`: exposures as NDJSON, from complete and current files
//! of the file sink, and from the spool. What is torn at a file's end is said on standard error, or
//! left alone where the file is still being written.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use prost::Message;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::exposure::proto::{Assignment, ExperimentParticipation, Exposure};
use crate::exposure::stream::{End, Messages};
use crate::logger::sink::file::{FILE_PREFIX, FILE_SUFFIX, PART_SUFFIX, civil};
use crate::logger::spool;

/// Between two looks for more with `--follow`.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(200);
/// The files' directory in a state directory.
const DIRECTORY_NAME: &str = "exposures";
/// The spool's.
const SPOOL_NAME: &str = "spool";

/// What exit codes say: the file is at fault.
const EXIT_FAULT: u8 = 1;
/// The system refused.
const EXIT_REFUSED: u8 = 3;

/// Prints exposures as NDJSON, oldest file first.
#[derive(Debug, Args)]
pub struct EventsArgs {
    /// Exposure files, directories of them, or state directories (their spool, too).
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// Goes on with what is written from now on.
    #[arg(long)]
    pub follow: bool,
    /// Accepted for the sake of scripts: the output is always NDJSON.
    #[arg(long, hide = true)]
    pub json: bool,
}

/// Runs the subcommand.
#[must_use]
pub fn run(args: EventsArgs) -> ExitCode {
    let mut out = BufWriter::with_capacity(1 << 16, io::stdout().lock());
    let mut reading = Reading::default();
    let outcome = loop {
        let round = reading.round(&args, &mut out).and_then(|()| out.flush().map_err(Stop::Output));
        match round {
            Ok(()) if args.follow => std::thread::sleep(FOLLOW_INTERVAL),
            ended => break ended,
        }
    };
    match outcome {
        Ok(()) if reading.is_faulty => ExitCode::from(EXIT_FAULT),
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read us has had enough (`| head`).
        Err(Stop::Output(fault)) if fault.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(stop) => {
            eprintln!("splitd events: {stop}");
            ExitCode::from(EXIT_REFUSED)
        }
    }
}

/// Why the printing can't go on.
#[derive(Debug, thiserror::Error)]
enum Stop {
    #[error("{path}: {fault}", path = path.display())]
    Input { path: PathBuf, fault: io::Error },
    #[error("standard output: {0}")]
    Output(io::Error),
}

impl Stop {
    fn input(path: &Path) -> impl FnOnce(io::Error) -> Stop {
        |fault| Stop::Input { path: path.to_owned(), fault }
    }
}

/// A file by what stays when it is renamed into place.
type FileKey = (u64, u64);

#[derive(Debug, Default)]
struct Reading {
    open: BTreeMap<FileKey, Messages<File>>,
    done: BTreeSet<FileKey>,
    /// How far each spool was read.
    spools: BTreeMap<PathBuf, u64>,
    is_faulty: bool,
}

impl Reading {
    /// Prints what all files have more than in the round before.
    fn round(&mut self, args: &EventsArgs, out: &mut impl Write) -> Result<(), Stop> {
        for path in &args.paths {
            for file_path in files_of(path)? {
                self.read_file(&file_path, args.follow, out)?;
            }
            let spool = path.join(SPOOL_NAME);
            if spool.is_dir() {
                self.read_spool(&spool, out)?;
            }
        }
        Ok(())
    }

    /// What waits in a spool, as far as it can be read.
    fn read_spool(&mut self, directory: &Path, out: &mut impl Write) -> Result<(), Stop> {
        let from = self.spools.get(directory).copied().unwrap_or(0);
        let mut stop = None;
        let read = spool::peek(directory, from, |chunk| {
            let mut messages = Messages::new(chunk);
            while let Some(message) = messages.next_message()? {
                if let Ok(exposure) = Exposure::decode(message) {
                    print(&exposure, out).map_err(|fault| {
                        stop = Some(Stop::Output(fault));
                        io::Error::other("standard output")
                    })?;
                }
            }
            Ok(())
        });
        match (read, stop) {
            (_, Some(stop)) => Err(stop),
            (read, None) => {
                self.spools.insert(directory.to_owned(), read.map_err(Stop::input(directory))?);
                Ok(())
            }
        }
    }

    fn read_file(&mut self, path: &Path, follow: bool, out: &mut impl Write) -> Result<(), Stop> {
        let file = match File::open(path) {
            // Completed or let go between the listing and now; the next round knows.
            Err(fault) if fault.kind() == io::ErrorKind::NotFound && follow => return Ok(()),
            opened => opened.map_err(Stop::input(path))?,
        };
        let metadata = file.metadata().map_err(Stop::input(path))?;
        let key = (metadata.dev(), metadata.ino());
        if self.done.contains(&key) {
            return Ok(());
        }
        let messages = self.open.entry(key).or_insert_with(|| Messages::new(file));
        loop {
            let begin = messages.whole_size();
            let Some(message) = messages.next_message().map_err(Stop::input(path))? else {
                break;
            };
            // A participation's id is two bytes longer.
            let printed = match message.get(1) {
                Some(18) => {
                    ExperimentParticipation::decode(message).map(|one| print_participation(&one, out))
                }
                _ => Exposure::decode(message).map(|exposure| print(&exposure, out)),
            };
            match printed {
                Ok(printed) => printed.map_err(Stop::Output)?,
                Err(fault) => {
                    self.is_faulty = true;
                    eprintln!("splitd events: {}: byte {begin}: no exposure: {fault}", path.display());
                }
            }
        }
        let is_current = path.to_string_lossy().ends_with(PART_SUFFIX);
        match messages.end() {
            End::Clean => {}
            End::Cut if is_current => {}
            end => {
                self.is_faulty = true;
                let what = if end == End::Cut { "ends within an exposure" } else { "no exposure follows" };
                eprintln!("splitd events: {}: byte {}: {what}", path.display(), messages.whole_size());
            }
        }
        if !is_current || messages.end() == End::Broken {
            self.open.remove(&key);
            self.done.insert(key);
        }
        Ok(())
    }
}

/// A file, or the exposure files of a directory, by age.
fn files_of(path: &Path) -> Result<Vec<PathBuf>, Stop> {
    if !fs::metadata(path).map_err(Stop::input(path))?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let below = path.join(DIRECTORY_NAME);
    let directory = match below.is_dir() {
        true => below,
        false if path.join(SPOOL_NAME).is_dir() => return Ok(Vec::new()),
        false => path.to_owned(),
    };
    let mut found = Vec::new();
    for entry in fs::read_dir(&directory).map_err(Stop::input(&directory))? {
        let name = entry.map_err(Stop::input(&directory))?.file_name();
        let text = name.to_string_lossy();
        let complete = text.strip_suffix(PART_SUFFIX).unwrap_or(&text);
        if complete.starts_with(FILE_PREFIX) && complete.ends_with(FILE_SUFFIX) {
            found.push(directory.join(&name));
        }
    }
    found.sort();
    Ok(found)
}

/// One line.
#[derive(Serialize)]
struct Line<'e> {
    id: String,
    time: String,
    time_us: i64,
    version: &'e str,
    units: &'e BTreeMap<String, String>,
    assignments: Vec<AssignmentLine<'e>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    context: Option<Context<'e>>,
}

#[derive(Serialize)]
struct AssignmentLine<'e> {
    experiment_id: i64,
    run_id: i32,
    experiment: &'e str,
    group: &'e str,
    unit: &'e str,
    #[serde(skip_serializing_if = "is_false")]
    forced: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_false(value: &bool) -> bool {
    !value
}

/// JSON as it came, or else a text.
#[derive(Serialize)]
#[serde(untagged)]
enum Context<'e> {
    Json(&'e RawValue),
    Text(std::borrow::Cow<'e, str>),
}

impl<'e> Context<'e> {
    fn of(bytes: &'e [u8]) -> Option<Context<'e>> {
        if bytes.is_empty() {
            return None;
        }
        // A line break between JSON's tokens would break the line.
        let is_one_line = !bytes.contains(&b'\n');
        Some(match serde_json::from_slice(bytes) {
            Ok(json) if is_one_line => Context::Json(json),
            _ => Context::Text(String::from_utf8_lossy(bytes)),
        })
    }
}

fn print(exposure: &Exposure, out: &mut impl Write) -> io::Result<()> {
    let line = Line {
        id: hex(&exposure.id),
        time: time(exposure.time_us),
        time_us: exposure.time_us,
        version: &exposure.version,
        units: &exposure.units,
        assignments: exposure.assignments.iter().map(assignment_line).collect(),
        context: Context::of(&exposure.context),
    };
    serde_json::to_writer(&mut *out, &line)?;
    out.write_all(b"\n")
}

fn assignment_line(assignment: &Assignment) -> AssignmentLine<'_> {
    AssignmentLine {
        experiment_id: assignment.experiment_id,
        run_id: assignment.run_id,
        experiment: &assignment.experiment,
        group: &assignment.group,
        unit: &assignment.unit,
        forced: assignment.forced,
    }
}

/// One line of a file that holds one message an assignment.
#[derive(Serialize)]
struct ParticipationLine<'e> {
    id: String,
    time: String,
    time_us: i64,
    version: &'e str,
    event_name: &'e str,
    user_id: &'e str,
    profile_id: &'e str,
    device_id: &'e str,
    experiment_id: i64,
    run_id: i32,
    experiment: &'e str,
    group: &'e str,
    unit: &'e str,
    unit_value: &'e str,
    #[serde(skip_serializing_if = "is_false")]
    forced: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    context: Option<Context<'e>>,
}

fn print_participation(one: &ExperimentParticipation, out: &mut impl Write) -> io::Result<()> {
    let line = ParticipationLine {
        id: hex(&one.id),
        time: time(one.time_us),
        time_us: one.time_us,
        version: &one.version,
        event_name: &one.event_name,
        user_id: &one.user_id,
        profile_id: &one.profile_id,
        device_id: &one.device_id,
        experiment_id: one.experiment_id,
        run_id: one.run_id,
        experiment: &one.experiment,
        group: &one.group,
        unit: &one.unit,
        unit_value: &one.unit_value,
        forced: one.forced,
        context: Context::of(&one.context),
    };
    serde_json::to_writer(&mut *out, &line)?;
    out.write_all(b"\n")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// RFC 3339, to the microsecond.
fn time(unix_us: i64) -> String {
    let [year, month, day, hour, minute, second] = civil(unix_us.div_euclid(1_000_000));
    let fraction = unix_us.max(0) % 1_000_000;
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{fraction:06}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exposure(context: &[u8]) -> Exposure {
        Exposure {
            id: (1..=16).collect(),
            time_us: 1_795_336_238_000_001,
            version: "2026-11-22.3".into(),
            units: BTreeMap::from([("user_id".into(), "42".into())]),
            assignments: vec![Assignment {
                experiment_id: 1001,
                run_id: 2,
                experiment: "new_home".into(),
                group: "test".into(),
                forced: true,
                unit: "user_id".into(),
            }],
            context: context.to_vec(),
        }
    }

    fn printed(paths: &[&Path]) -> (Vec<String>, bool) {
        let args = EventsArgs {
            paths: paths.iter().map(|path| path.to_path_buf()).collect(),
            follow: false,
            json: false,
        };
        let (mut reading, mut out) = (Reading::default(), Vec::new());
        reading.round(&args, &mut out).unwrap();
        (String::from_utf8(out).unwrap().lines().map(str::to_owned).collect(), reading.is_faulty)
    }

    #[test]
    fn an_exposure_is_one_line_with_its_context_as_json() {
        let mut out = Vec::new();
        print(&exposure(br#"{"age": 18}"#), &mut out).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            concat!(
                r#"{"id":"0102030405060708090a0b0c0d0e0f10","time":"2026-11-22T08:30:38.000001Z","#,
                r#""time_us":1795336238000001,"version":"2026-11-22.3","units":{"user_id":"42"},"#,
                r#""assignments":[{"experiment_id":1001,"run_id":2,"experiment":"new_home","group":"test","#,
                r#""unit":"user_id","forced":true}],"context":{"age": 18}}"#,
                "\n"
            )
        );
    }

    #[test]
    fn a_context_that_is_no_json_or_no_line_is_a_text() {
        for context in [&b"{\"age\":"[..], b"{\"age\":\n18}", b"\xff\xfe"] {
            let mut out = Vec::new();
            print(&exposure(context), &mut out).unwrap();
            let line: serde_json::Value = serde_json::from_slice(&out).unwrap();
            assert!(line["context"].is_string());
            assert_eq!(out.iter().filter(|byte| **byte == b'\n').count(), 1);
        }
        let mut out = Vec::new();
        print(&exposure(b""), &mut out).unwrap();
        assert!(!String::from_utf8(out).unwrap().contains("context"));
    }

    #[test]
    fn state_directories_directories_and_files_are_read_by_age() {
        let state = tempfile::tempdir().unwrap();
        let directory = state.path().join(DIRECTORY_NAME);
        fs::create_dir(&directory).unwrap();
        let one = exposure(b"").encode_length_delimited_to_vec();
        let torn = [one.as_slice(), &one[..20]].concat();
        fs::write(directory.join("exposures-20261122T083038Z-0000.pb"), one.repeat(3)).unwrap();
        fs::write(directory.join("exposures-20261122T084038Z-0000.pb.part"), &torn).unwrap();
        fs::write(directory.join("notes.txt"), "something else").unwrap();
        let (lines, is_faulty) = printed(&[state.path()]);
        assert_eq!((lines.len(), is_faulty), (4, false));
        assert_eq!(printed(&[&directory]).0.len(), 4);
        // A complete file that is torn is a fault, and its whole exposures are printed.
        let path = state.path().join("exposures-20261122T090000Z-0000.pb");
        fs::write(&path, &torn).unwrap();
        assert_eq!(printed(&[&path]), (lines[..1].to_vec(), true));
        fs::write(&path, [one.as_slice(), b"garbage"].concat()).unwrap();
        assert_eq!(printed(&[&path]), (lines[..1].to_vec(), true));
    }

    #[test]
    fn following_prints_what_is_added_once_and_over_a_rename() {
        let directory = tempfile::tempdir().unwrap();
        let name = directory.path().join("exposures-20261122T083038Z-0000.pb");
        let part = directory.path().join("exposures-20261122T083038Z-0000.pb.part");
        let one = exposure(b"").encode_length_delimited_to_vec();
        let args = EventsArgs { paths: vec![directory.path().to_owned()], follow: true, json: false };
        let mut reading = Reading::default();
        let mut round = || {
            let mut out = Vec::new();
            reading.round(&args, &mut out).unwrap();
            out.iter().filter(|byte| **byte == b'\n').count()
        };
        assert_eq!(round(), 0);
        let mut file = File::create(&part).unwrap();
        file.write_all(&one).unwrap();
        file.write_all(&one[..10]).unwrap();
        assert_eq!(round(), 1);
        file.write_all(&one[10..]).unwrap();
        assert_eq!(round(), 1);
        file.write_all(&one).unwrap();
        fs::rename(&part, &name).unwrap();
        assert_eq!(round(), 1);
        assert_eq!(round(), 0);
    }
}
