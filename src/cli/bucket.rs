//! `splitd bucket --salt S --unit U`: the bucket, so that anybody can check one.

use std::io::Write;

use super::{Exit, Failure};
use crate::engine::reference::bucket;
use crate::limits::{BUCKET_COUNT_DEFAULT, BUCKET_COUNT_MAX, UNIT_VALUE_SIZE_MAX};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The layer's salt; may be empty
    #[arg(long, allow_hyphen_values = true)]
    salt: String,
    /// The unit's value, 42 say
    #[arg(long, allow_hyphen_values = true)]
    unit: String,
    /// The layer's number of buckets
    #[arg(long, value_name = "N", default_value_t = BUCKET_COUNT_DEFAULT,
          value_parser = clap::value_parser!(u32).range(1..=i64::from(BUCKET_COUNT_MAX)))]
    buckets: u32,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments, out: &mut dyn Write) -> Result<Exit, Failure> {
    let Arguments { salt, unit, buckets, json } = arguments;
    if unit.is_empty() || unit.len() > UNIT_VALUE_SIZE_MAX {
        return Err(Failure::Usage(format!(
            "--unit is {} bytes long; a unit that is there has 1 to {UNIT_VALUE_SIZE_MAX}",
            unit.len()
        )));
    }
    let bucket = bucket(salt, unit, *buckets);
    if *json {
        let object = serde_json::json!({"salt": salt, "unit": unit, "buckets": buckets, "bucket": bucket});
        writeln!(out, "{object}")?;
    } else {
        writeln!(out, "{bucket}")?;
    }
    Ok(Exit::Done)
}
