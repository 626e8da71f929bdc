//! Values of settings as people write them: `16MiB`, `200ms`, `0-3,8`,
//! `unix:/run/splitd/assign.sock`. The file, the environment and the command
//! line share one form, so that a value means the same in all three. Every
//! refusal says what was found and what would be right.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use toml::Value as Toml;

/// A value as it came, before anybody knows what it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    /// A text, a number or a truth value, as text.
    One(String),
    /// A list of such.
    List(Vec<String>),
}

impl Value {
    /// Takes a value of the file; tables and dates are no settings.
    pub(super) fn from_toml(value: &Toml) -> Result<Value, String> {
        let one = |value: &Toml| match value {
            Toml::String(text) => Ok(text.clone()),
            Toml::Integer(number) => Ok(number.to_string()),
            Toml::Float(number) => Ok(number.to_string()),
            Toml::Boolean(truth) => Ok(truth.to_string()),
            other => Err(format!("a {} is no value here", other.type_str())),
        };
        match value {
            Toml::Array(list) => Ok(Value::List(list.iter().map(one).collect::<Result<_, _>>()?)),
            value => one(value).map(Value::One),
        }
    }

    pub(super) fn text(&self) -> Result<&str, String> {
        match self {
            Value::One(text) => Ok(text),
            Value::List(_) => Err("a list; one value would be right".to_owned()),
        }
    }

    /// A list; outside the file it is written with commas, and nothing is the empty list.
    pub(super) fn list(&self) -> Vec<&str> {
        match self {
            Value::One(text) => text.split(',').map(str::trim).filter(|part| !part.is_empty()).collect(),
            Value::List(list) => list.iter().map(String::as_str).collect(),
        }
    }

    pub(super) fn owned_text(&self) -> Result<String, String> {
        self.text().map(str::to_owned)
    }

    /// What `take` makes of it, or nothing where it is this word.
    pub(super) fn unless<T>(
        &self,
        word: &str,
        take: impl FnOnce(&Value) -> Result<T, String>,
    ) -> Result<Option<T>, String> {
        if self.text()? == word { Ok(None) } else { take(self).map(Some) }
    }

    /// A path; the empty text is none.
    pub(super) fn path(&self) -> Result<Option<PathBuf>, String> {
        let text = self.text()?;
        Ok((!text.is_empty()).then(|| PathBuf::from(text)))
    }

    pub(super) fn truth(&self) -> Result<bool, String> {
        match self.text()? {
            "true" => Ok(true),
            "false" => Ok(false),
            other => Err(format!("`{other}` is neither `true` nor `false`")),
        }
    }

    pub(super) fn number<T: TryFrom<i64>>(&self, range: RangeInclusive<i64>) -> Result<T, String> {
        let text = self.text()?;
        text.parse()
            .ok()
            .filter(|number| range.contains(number))
            .and_then(|number| T::try_from(number).ok())
            .ok_or_else(|| format!("`{text}` is no whole number from {} to {}", range.start(), range.end()))
    }

    /// A size in bytes within `range`: `65536`, `64KiB`, `16MiB`, `8GiB`.
    pub(super) fn size<T: TryFrom<u64>>(&self, range: RangeInclusive<u64>) -> Result<T, String> {
        const UNITS: &[(&str, u64)] =
            &[("", 1), ("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40)];
        let text = self.text()?;
        let size = with_unit(text, UNITS).ok_or_else(|| {
            format!("`{text}` is no size; one is written like `65536`, `64KiB`, `16MiB` or `8GiB`")
        })?;
        T::try_from(size).ok().filter(|_| range.contains(&size)).ok_or_else(|| {
            let (least, most) = (show_size(*range.start()), show_size(*range.end()));
            format!("`{text}` is out of range; {least} to {most} would be right")
        })
    }

    /// A size that is a power of two.
    pub(super) fn power_of_two<T: TryFrom<u64>>(&self, range: RangeInclusive<u64>) -> Result<T, String> {
        let size: u64 = self.size(range.clone())?;
        if size.is_power_of_two() {
            return self.size(range);
        }
        let below = 1 << size.max(1).ilog2();
        let (below, above) = (show_size(below), show_size(2 * below));
        Err(format!("`{}` is no power of two; `{below}` or `{above}` would be right", self.text()?))
    }

    /// A duration within `range`, always with its unit: `200ms`, `75s`, `5m`, `1h`, `7d`.
    pub(super) fn duration(&self, range: RangeInclusive<Duration>) -> Result<Duration, String> {
        const UNITS: &[(&str, u64)] =
            &[("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
        let text = self.text()?;
        let millis = with_unit(text, UNITS).ok_or_else(|| {
            format!("`{text}` is no duration; one is written with its unit, like `200ms`, `75s`, `5m`, `1h` or `7d`")
        })?;
        let duration = Duration::from_millis(millis);
        if range.contains(&duration) {
            return Ok(duration);
        }
        Err(format!("`{text}` is out of range; {:?} to {:?} would be right", range.start(), range.end()))
    }

    /// One of a few names.
    pub(super) fn choice<T: Copy>(&self, choices: &[(&str, T)]) -> Result<T, String> {
        let text = self.text()?;
        choose(text, choices)
    }

    /// Several of a few names, none twice.
    pub(super) fn choices<T: Copy>(&self, choices: &[(&str, T)]) -> Result<Vec<T>, String> {
        let list = self.list();
        for (index, name) in list.iter().enumerate() {
            if list[..index].contains(name) {
                return Err(format!("`{name}` stands there twice"));
            }
        }
        list.into_iter().map(|name| choose(name, choices)).collect()
    }
}

fn choose<T: Copy>(text: &str, choices: &[(&str, T)]) -> Result<T, String> {
    if let Some((_, choice)) = choices.iter().find(|(name, _)| *name == text) {
        return Ok(*choice);
    }
    let names: Vec<String> = choices.iter().map(|(name, _)| format!("`{name}`")).collect();
    Err(format!("`{text}` is none of {}", names.join(", ")))
}

fn with_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim_start();
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

fn show_size(size: u64) -> String {
    for (shift, unit) in [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")] {
        if size >= 1 << shift && size.trailing_zeros() >= shift {
            return format!("{}{unit}", size >> shift);
        }
    }
    size.to_string()
}

/// Where a pool listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Listen {
    /// One socket a worker on this address.
    Tcp(SocketAddr),
    /// One socket file a worker: the worker's number is put before `.sock`.
    Unix(PathBuf),
}

impl Listen {
    pub(super) fn parse(text: &str) -> Result<Listen, String> {
        let right = "`127.0.0.1:8080`, `[::1]:8080` or `unix:/run/splitd/assign.sock` would be right";
        if let Some(path) = text.strip_prefix("unix:") {
            if !path.starts_with('/') {
                return Err(format!("`{text}` has no absolute path; {right}"));
            }
            return Ok(Listen::Unix(PathBuf::from(path)));
        }
        text.parse().map(Listen::Tcp).map_err(|_| format!("`{text}` is no address; {right}"))
    }

    /// The file of one worker: `assign.sock` is `assign.0.sock` for the first.
    #[must_use]
    pub fn unix_path(path: &std::path::Path, index: usize) -> PathBuf {
        match path.extension() {
            Some(extension) => path.with_extension(format!("{index}.{}", extension.to_string_lossy())),
            None => path.with_extension(index.to_string()),
        }
    }
}

impl std::fmt::Display for Listen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Listen::Tcp(address) => write!(f, "{address}"),
            Listen::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Which CPUs a pool's workers are pinned to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Cpus {
    /// None: the kernel's scheduler places them.
    #[default]
    Unpinned,
    /// Every CPU that this process may run on.
    All,
    /// These.
    List(Vec<usize>),
}

impl Cpus {
    pub(super) fn parse(text: &str) -> Result<Cpus, String> {
        const CPU_MAX: usize = 4095;
        match text {
            "" => return Ok(Cpus::Unpinned),
            "all" => return Ok(Cpus::All),
            _ => {}
        }
        let wrong =
            || format!("`{text}` is no list of CPUs; `0-3`, `0,2,4-7`, `all` or nothing would be right");
        let mut cpus = Vec::new();
        for part in text.split(',') {
            let (first, last) = part.trim().split_once('-').unwrap_or((part.trim(), part.trim()));
            let first: usize = first.parse().map_err(|_| wrong())?;
            let last: usize = last.parse().map_err(|_| wrong())?;
            if first > last || last > CPU_MAX {
                return Err(wrong());
            }
            for cpu in first..=last {
                if cpus.contains(&cpu) {
                    return Err(format!("CPU {cpu} stands there twice"));
                }
                cpus.push(cpu);
            }
        }
        Ok(Cpus::List(cpus))
    }
}
