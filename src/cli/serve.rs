//! `splitd serve`: runs an instance in the foreground until it is told to stop.
//! Settings come from the command line, the environment and a file, in this
//! order of precedence; none of them is needed but the name of the experiments file.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::settings::SettingsArguments;
use super::{Exit, logging, say};
use crate::config::settings::Surroundings;
use crate::master;

/// Run an instance
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The experiments file; short for --set experiments=FILE
    #[arg(long, value_name = "FILE")]
    experiments: Option<PathBuf>,
    #[command(flatten)]
    settings: SettingsArguments,
}

/// Runs an instance; the process's exit code.
#[must_use]
pub fn run(arguments: &Arguments) -> ExitCode {
    let mut settings = match arguments.settings.load() {
        Ok(settings) => settings,
        Err(exit) => return exit.into(),
    };
    if let Some(experiments) = &arguments.experiments {
        settings.experiments = Some(experiments.clone());
    }
    if settings.experiments.is_none() {
        say(
            "which experiments? `splitd serve --experiments FILE`, or `experiments = \"FILE\"` in the file of --config",
        );
        return Exit::Usage.into();
    }
    let directories = match surroundings() {
        Ok(surroundings) => settings.directories(&surroundings),
        Err(error) => {
            say(&format!("the working directory can't be found: {error}"));
            return Exit::System.into();
        }
    };
    logging::start();
    master::run(settings, directories)
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
