//! `splitd serve`: runs an instance in the foreground until it is told to stop.
//! Settings come from the command line, the environment and a file, in this
//! order of precedence; none of them is needed but the name of the experiments file.

use std::os::fd::RawFd;
use std::path::PathBuf;
use std::process::ExitCode;

use super::settings::SettingsArguments;
use super::{Exit, logging, say};
use crate::config::settings::Origin;
use crate::master::{
    self,
    upgrade::{self, Loaded},
};

/// Run an instance
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The experiments file; short for --set experiments=FILE
    #[arg(long, value_name = "FILE")]
    experiments: Option<PathBuf>,
    #[command(flatten)]
    settings: SettingsArguments,
    /// The state that the program before an upgrade left, by its descriptor
    #[arg(long, hide = true, value_name = "DESCRIPTOR")]
    inherit: Option<RawFd>,
    /// Only say whether that state could be gone on with, and why not over this channel
    #[arg(long, hide = true, requires = "inherit", value_name = "DESCRIPTOR")]
    inherit_check: Option<RawFd>,
    /// It is our own: the upgrade is undone
    #[arg(long, hide = true, requires = "inherit")]
    inherit_back: bool,
}

impl Arguments {
    fn origin(&self, text: Option<String>) -> Result<Origin, String> {
        let mut origin = self.settings.origin(text)?;
        if let Some(experiments) = &self.experiments {
            let experiments = experiments.to_string_lossy().into_owned();
            origin.command_line.push(("experiments".to_owned(), experiments));
        }
        Ok(origin)
    }

    /// All that an image needs to go on in another's place; else what is wrong.
    fn load(&self, text: Option<String>) -> Loaded {
        let origin = self.origin(text).map_err(|reason| vec![reason])?;
        let settings = origin.load()?;
        let directories = self.settings.directories(&settings);
        let directories = directories.map_err(|_| vec!["the working directory can't be found".to_owned()])?;
        Ok((settings, origin, directories))
    }
}

/// Runs an instance; the process's exit code.
#[must_use]
pub fn run(arguments: &Arguments) -> ExitCode {
    match arguments.inherit {
        Some(state) => {
            logging::start();
            go_on(arguments, state)
        }
        None => start(arguments).unwrap_or_else(ExitCode::from),
    }
}

fn go_on(arguments: &Arguments, state: RawFd) -> ExitCode {
    let load = |text| arguments.load(text);
    match arguments.inherit_check {
        Some(channel) => upgrade::check(load, state, channel),
        None => upgrade::resume(load, state, arguments.inherit_back),
    }
}

fn start(arguments: &Arguments) -> Result<ExitCode, Exit> {
    let origin = arguments.origin(None).map_err(|reason| {
        say(&reason);
        Exit::System
    })?;
    let settings = origin.load().map_err(|faults| {
        faults.iter().for_each(|fault| say(fault));
        Exit::Fault
    })?;
    if settings.experiments.is_none() {
        say(
            "which experiments? `splitd serve --experiments FILE`, or `experiments = \"FILE\"` in the file of --config",
        );
        return Err(Exit::Usage);
    }
    let directories = arguments.settings.directories(&settings)?;
    logging::start();
    Ok(master::run(settings, origin, directories))
}
