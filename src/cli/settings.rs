//! Where the settings of a subcommand come from, alike for all of them: the
//! command line, the environment and a file, in this order of precedence.

use std::path::{Path, PathBuf};

use super::{Exit, say};
use crate::config::settings::{self, Directories, Settings, Sources, Surroundings};

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
        let file = match &self.config {
            None => None,
            Some(path) => Some(std::fs::read_to_string(path).map_err(|error| {
                say(&format!("{}: {error}", path.display()));
                Exit::System
            })?),
        };
        let environment: Vec<(String, String)> = std::env::vars_os()
            .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
            .collect();
        let sources = Sources { file: file.as_deref(), environment: &environment, command_line: &self.set };
        settings::load(&sources).map_err(|faults| {
            let place = self.config.as_deref().unwrap_or(Path::new("settings")).display();
            for fault in faults {
                let has_place = fault.pointer.starts_with("--set ") || fault.pointer.starts_with("SPLITD_");
                match has_place {
                    true => say(&fault.to_string()),
                    false => say(&format!("{place}: {fault}")),
                }
            }
            Exit::Fault
        })
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
