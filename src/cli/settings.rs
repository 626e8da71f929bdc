//! Where the settings of a subcommand come from, alike for all of them: the
//! command line, the environment and a file, in this order of precedence.

use std::path::{Path, PathBuf};

use super::{Exit, say};
use crate::config::settings::{Directories, Origin, Settings, Surroundings};

#[derive(Debug, clap::Args)]
pub(super) struct SettingsArguments {
    /// The settings file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A setting, as in --set pool.assign.io=epoll; lists with commas; beats environment and file
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    set: Vec<(String, String)>,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("`pool.assign.io=epoll` would be right")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

impl SettingsArguments {
    /// The settings; or what is wrong with them has been said, every fault with its source.
    pub(super) fn load(&self) -> Result<Settings, Exit> {
        let origin = self.origin(None).map_err(|reason| {
            say(&reason);
            Exit::System
        })?;
        origin.load().map_err(|faults| {
            faults.iter().for_each(|fault| say(fault));
            Exit::Fault
        })
    }

    /// Where they come from, the file read, or `text` in its place.
    pub(super) fn origin(&self, text: Option<String>) -> Result<Origin, String> {
        let text = match (&self.config, text) {
            (None, text) | (Some(_), text @ Some(_)) => text,
            (Some(path), None) => {
                Some(std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?)
            }
        };
        let environment = std::env::vars_os()
            .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
            .collect();
        Ok(Origin { path: self.config.clone(), text, environment, command_line: self.set.clone() })
    }

    /// Where the instance of these settings keeps its things.
    pub(super) fn directories(&self, settings: &Settings) -> Result<Directories, Exit> {
        match surroundings() {
            Ok(surroundings) => Ok(settings.directories(&surroundings)),
            Err(error) => {
                say(&format!("the working directory can't be found: {error}"));
                Err(Exit::System)
            }
        }
    }
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
