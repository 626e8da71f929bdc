//! `splitd serve`: runs an instance in the foreground until it is told to stop.
//! Settings come from the command line, the environment and a file, in this
//! order of precedence; none of them is needed but the name of the experiments file.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::logging;
use crate::config::settings::{self, Settings, Sources, Surroundings};
use crate::master;

const EXIT_FAULTY: u8 = 1;
const EXIT_USAGE: u8 = 2;
const EXIT_REFUSED: u8 = 3;

/// Run an instance
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The settings file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The experiments file; short for --set experiments=FILE
    #[arg(long, value_name = "FILE")]
    experiments: Option<PathBuf>,
    /// A setting, as in --set pool.assign.io=epoll; lists with commas; beats environment and file
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    set: Vec<(String, String)>,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("`pool.assign.io=epoll` would be right")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

/// Runs an instance; the process's exit code.
#[must_use]
pub fn run(arguments: &Arguments) -> ExitCode {
    let mut settings = match load(arguments) {
        Ok(settings) => settings,
        Err((code, lines)) => {
            for line in lines {
                eprintln!("splitd: {line}");
            }
            return ExitCode::from(code);
        }
    };
    if let Some(experiments) = &arguments.experiments {
        settings.experiments = Some(experiments.clone());
    }
    if settings.experiments.is_none() {
        eprintln!(
            "splitd: which experiments? `splitd serve --experiments FILE`, or `experiments = \"FILE\"` in the file of --config"
        );
        return ExitCode::from(EXIT_USAGE);
    }
    let directories = match surroundings() {
        Ok(surroundings) => settings.directories(&surroundings),
        Err(error) => {
            eprintln!("splitd: the working directory can't be found: {error}");
            return ExitCode::from(EXIT_REFUSED);
        }
    };
    logging::start();
    master::run(settings, directories)
}

fn load(arguments: &Arguments) -> Result<Settings, (u8, Vec<String>)> {
    let file = match &arguments.config {
        None => None,
        Some(path) => match std::fs::read_to_string(path) {
            Ok(text) => Some(text),
            Err(error) => return Err((EXIT_REFUSED, vec![format!("{}: {error}", path.display())])),
        },
    };
    let environment: Vec<(String, String)> = std::env::vars_os()
        .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
        .collect();
    let sources = Sources { file: file.as_deref(), environment: &environment, command_line: &arguments.set };
    settings::load(&sources).map_err(|faults| {
        let place = arguments.config.as_deref().unwrap_or(Path::new("settings")).display();
        let show = |fault: &settings::Fault| match fault.pointer.starts_with("--set ") {
            true => fault.to_string(),
            false if fault.pointer.starts_with("SPLITD_") => fault.to_string(),
            false => format!("{place}: {fault}"),
        };
        (EXIT_FAULTY, faults.iter().map(show).collect())
    })
}

fn surroundings() -> std::io::Result<Surroundings> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    Ok(Surroundings {
        root: nix::unistd::geteuid().is_root(),
        state_directory: variable("STATE_DIRECTORY"),
        runtime_directory: variable("RUNTIME_DIRECTORY"),
        // Set but missing is as good as unset: a shell of `su` has another's.
        xdg_runtime_dir: variable("XDG_RUNTIME_DIR").filter(|path| Path::new(path).is_dir()),
        current_dir: std::env::current_dir()?,
    })
}
