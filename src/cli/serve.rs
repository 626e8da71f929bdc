//! `splitd serve`: runs an instance in the foreground until it is told to stop.
//! Settings come from the command line, the environment and a file, in this
//! order of precedence; none of them is needed but the name of the experiments file.

use std::path::PathBuf;
use std::process::ExitCode;

use super::settings::SettingsArguments;
use super::{Exit, logging, say};
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
    let directories = match arguments.settings.directories(&settings) {
        Ok(directories) => directories,
        Err(exit) => return exit.into(),
    };
    logging::start();
    master::run(settings, directories)
}
