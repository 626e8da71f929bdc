//! `splitd explain FILE --user_id 42 --platform android …`: why a request is in
//! which experiments. Units and attributes go by name, by the rules of the query
//! string (less the percent-encoding).

use std::collections::HashSet;
use std::io::{self, Write};
use std::path::PathBuf;

use serde_json::Value;
use serde_json::value::RawValue;

use super::{Exit, Failure, read_file, say_faults};
use crate::config::check::load;
use crate::engine::catalog::{AttributeKind, Catalog};
use crate::engine::reference::{Explained, Explanation, Leaf, Request, Trace, number_value};
use crate::limits::{UNIT_COUNT_MAX, UNIT_VALUE_SIZE_MAX};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Print a JSON object
    #[arg(long)]
    json: bool,
    /// The experiments file; - is standard input
    file: PathBuf,
    /// Units and attributes: --user_id 42 --platform android --subscriptions=a,b
    #[arg(value_name = "--NAME VALUE", trailing_var_arg = true, allow_hyphen_values = true)]
    request: Vec<String>,
}

pub(super) fn run(arguments: &Arguments, out: &mut dyn Write) -> Result<Exit, Failure> {
    let (given, json) = read_pairs(&arguments.request).map_err(Failure::Usage)?;
    let source = read_file(&arguments.file)?;
    let catalog = match load(&source) {
        Ok((catalog, _)) => catalog,
        Err(faults) => return Ok(say_faults(&arguments.file, &faults)),
    };
    let (request, ignored) = request(&catalog, &given).map_err(Failure::Usage)?;
    let explained = Explained::new(&catalog, &request, &ignored, None);
    if arguments.json || json {
        serde_json::to_writer_pretty(&mut *out, &explained).map_err(io::Error::from)?;
        writeln!(out)?;
    } else {
        for name in &ignored {
            let names =
                catalog.unit_kinds.iter().chain(catalog.attributes.iter().map(|attribute| &attribute.name));
            let nearest = names.min_by_key(|known| strsim::osa_distance(known, name));
            let hint = nearest
                .filter(|known| strsim::osa_distance(known, name) <= 1 + name.len() / 4)
                .map_or_else(String::new, |known| format!("; did you mean --{known}?"));
            eprintln!("splitd: --{name} is ignored: the file has no such unit or attribute{hint}");
        }
        writeln!(out, "experiments {}", catalog.version)?;
        for explanation in &explained.experiments {
            write_explanation(out, explanation)?;
        }
    }
    Ok(Exit::Done)
}

/// A name and its value.
type Pair = (String, String);

/// `--name value` and `--name=value`; a bare `--json` is the option.
fn read_pairs(words: &[String]) -> Result<(Vec<Pair>, bool), String> {
    let (mut pairs, mut json) = (Vec::new(), false);
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let Some(name) = word.strip_prefix("--").filter(|name| !name.is_empty()) else {
            return Err(format!("`{word}` belongs to no name; write --NAME VALUE, --user_id 42 say"));
        };
        if name == "json" {
            json = true;
        } else if let Some((name, value)) = name.split_once('=') {
            pairs.push((name.to_owned(), value.to_owned()));
        } else {
            let value = words.next().ok_or_else(|| format!("--{name} has no value; write --{name} VALUE"))?;
            pairs.push((name.to_owned(), value.clone()));
        }
    }
    Ok((pairs, json))
}

/// A name that a layer or an override uses is a unit, otherwise a declared
/// attribute, otherwise ignored.
fn request(catalog: &Catalog, given: &[Pair]) -> Result<(Request, Vec<String>), String> {
    let (mut request, mut ignored) = (Request::default(), Vec::new());
    for (name, text) in given {
        if catalog.unit_kinds.contains(name) {
            if text.len() > UNIT_VALUE_SIZE_MAX {
                return Err(format!(
                    "--{name} is {} bytes long; a unit has at most {UNIT_VALUE_SIZE_MAX}",
                    text.len()
                ));
            }
            request.units.push((name.clone(), text.clone()));
        } else if let Some(attribute) = catalog.attributes.iter().find(|attribute| attribute.name == *name) {
            request.attributes.push((name.clone(), typed(attribute.kind, text)));
        } else {
            ignored.push(name.clone());
        }
    }
    let kinds: HashSet<&str> = request.units.iter().map(|(kind, _)| kind.as_str()).collect();
    if kinds.len() > UNIT_COUNT_MAX {
        return Err(format!("{} units; a request has at most {UNIT_COUNT_MAX}", kinds.len()));
    }
    Ok((request, ignored))
}

/// A text as a value of the declared type; what is none of it stays a text, and
/// so counts as missing where a text is not what was declared.
fn typed(kind: AttributeKind, text: &str) -> Value {
    match kind {
        AttributeKind::Number if is_json_number(text) => number_value(text),
        AttributeKind::Bool if text == "true" || text == "false" => Value::Bool(text == "true"),
        AttributeKind::StringList if text.is_empty() => Value::Array(Vec::new()),
        AttributeKind::StringList => text.split(',').map(Value::from).collect(),
        _ => Value::from(text),
    }
}

/// By JSON's grammar: `01`, `.5`, `+1` and `inf` are none.
fn is_json_number(text: &str) -> bool {
    text.starts_with(|first: char| first == '-' || first.is_ascii_digit())
        && serde_json::from_str::<&RawValue>(text).is_ok_and(|json| json.get() == text)
}

fn write_explanation(out: &mut dyn Write, explanation: &Explanation<'_>) -> io::Result<()> {
    let Explanation { experiment, id, run_id, state, reason, layer, salt, buckets, unit, .. } = explanation;
    let group = match (explanation.group, &explanation.forced) {
        (Some(group), Some(_)) => format!("{group} (forced)"),
        (Some(group), None) => group.to_owned(),
        (None, _) => "–".to_owned(),
    };
    writeln!(out, "\n{experiment} → {group}")?;
    writeln!(out, "  why      {reason}")?;
    writeln!(out, "  id       {id}, run {run_id}, {state}")?;
    match unit.value {
        Some(value) => writeln!(out, "  unit     {} = {}", unit.kind, quoted(value))?,
        None => writeln!(out, "  unit     {} is missing", unit.kind)?,
    }
    writeln!(out, "  layer    {layer}: salt {}, {buckets} buckets", quoted(salt))?;
    if let Some(bucket) = explanation.bucket {
        match &explanation.owner {
            Some(owner) => writeln!(out, "  bucket   {bucket}: {} of {}", owner.group, owner.experiment)?,
            None => writeln!(out, "  bucket   {bucket}: nobody's")?,
        }
    }
    if let Some(forced) = &explanation.forced {
        writeln!(out, "  override {} = {}: {}", forced.kind, quoted(forced.value), forced.group)?;
    }
    match &explanation.segment {
        None => writeln!(out, "  segment  everybody"),
        Some(segment) => {
            writeln!(out, "  segment  {}", if segment.holds() { "holds" } else { "does not hold" })?;
            write_trace(out, segment, 2)
        }
    }
}

fn write_trace(out: &mut dyn Write, trace: &Trace<'_>, depth: usize) -> io::Result<()> {
    let mark = if trace.holds() { '✓' } else { '✗' };
    write!(out, "{:width$}{mark} ", "", width = 2 * depth)?;
    match trace {
        Trace::All { parts, .. } | Trace::Any { parts, .. } => {
            let word = if matches!(trace, Trace::All { .. }) { "all" } else { "any" };
            writeln!(out, "{word}{}", if parts.is_empty() { " of nothing" } else { "" })?;
            parts.iter().try_for_each(|part| write_trace(out, part, depth + 1))
        }
        Trace::Not { part, .. } => {
            writeln!(out, "not")?;
            write_trace(out, part, depth + 1)
        }
        Trace::Segment { name, part, .. } => {
            writeln!(out, "segment {name}")?;
            write_trace(out, part, depth + 1)
        }
        Trace::Test(leaf) => write_leaf(out, leaf),
    }
}

fn write_leaf(out: &mut dyn Write, leaf: &Leaf<'_>) -> io::Result<()> {
    let Leaf { attr, op, operand, value, mistyped, .. } = leaf;
    write!(out, "{attr} {op} {operand}   ")?;
    match (value, mistyped) {
        (None, _) => writeln!(out, "({attr} is missing)"),
        (Some(value), None) => writeln!(out, "({attr} is {value})"),
        (Some(value), Some(mistyped)) => writeln!(out, "({attr} is {value}, {mistyped})"),
    }
}

/// As JSON writes a text.
fn quoted(text: &str) -> Value {
    Value::from(text)
}
