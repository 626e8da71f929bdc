//! Each command as it is called, without a process.

use std::fs;

use super::*;

/// What it ends with and what it writes.
fn called(words: &[&str]) -> (Exit, String) {
    let cli = Cli::try_parse_from(std::iter::once(&"splitd").chain(words)).expect("usage");
    let mut out = Vec::new();
    let Command::Printing(command) = cli.command else { panic!("not one that prints") };
    let exit = match run(&command, &mut out) {
        Ok(exit) => exit,
        Err(failure) => failure.exit(),
    };
    (exit, String::from_utf8(out).expect("UTF-8"))
}

fn usage_fault(words: &[&str]) -> bool {
    match Cli::try_parse_from(std::iter::once(&"splitd").chain(words)) {
        Err(fault) => fault.exit_code() == 2,
        Ok(_) => called(words).0 == Exit::Usage,
    }
}

fn example() -> String {
    format!("{}/systemd/experiments.json", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_definitions_hold_together() {
    use clap::CommandFactory;
    Cli::command().debug_assert();
}

#[test]
fn exit_codes_are_those_of_the_manual() {
    let codes =
        [Exit::Done, Exit::Fault, Exit::Usage, Exit::System, Exit::WorkersCrash].map(|exit| exit as u8);
    assert_eq!(codes, [0, 1, 2, 3, 4]);
}

#[test]
fn check_says_every_fault_and_ends_with_1() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("bad.json");
    fs::write(&file, r#"{"version": 1, "experiments": [5], "x": 0}"#).expect("a file");
    let file = file.to_str().expect("UTF-8");

    let (exit, text) = called(&["check", file, &example()]);
    assert_eq!(exit, Exit::Fault);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 5, "{text}");
    assert!(lines[0].starts_with(&format!("{file}: /version: ")), "{text}");
    assert!(lines[1].starts_with(&format!("{file}: /experiments/0: ")), "{text}");
    assert!(lines[2].starts_with(&format!("{file}: /x: unknown key")), "{text}");
    assert_eq!(lines[3], format!("{file}: 3 faults"));
    assert!(
        lines[4].contains("in order; version 2026-11-22.3: 22 experiments (19 running) in 9 layers"),
        "{text}"
    );

    let (exit, text) = called(&["check", "--json", file]);
    assert_eq!(exit, Exit::Fault);
    let object: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(object["ok"], false);
    assert_eq!(object["faults"][1]["pointer"], "/experiments/0");
    assert_eq!(object["faults"].as_array().map(Vec::len), Some(3));
}

#[test]
fn check_reads_settings_too() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("splitd.toml");
    fs::write(&file, "experimants = \"x\"\n").expect("a file");
    let (exit, text) = called(&["check", file.to_str().expect("UTF-8")]);
    assert_eq!(exit, Exit::Fault);
    assert!(text.contains("experimants") && text.contains("`experiments`"), "{text}");
    fs::write(&file, "").expect("a file");
    assert_eq!(called(&["check", file.to_str().expect("UTF-8")]).0, Exit::Done);
}

#[test]
fn a_file_that_cannot_be_read_is_the_systems_refusal_and_keeps_no_other_from_being_checked() {
    let (exit, text) = called(&["check", "/nonexistent/x.json", &example()]);
    assert_eq!(exit, Exit::System);
    assert!(text.contains("in order"), "{text}");
    assert_eq!(called(&["explain", "/nonexistent/x.json"]).0, Exit::System);
    assert_eq!(called(&["export", "/nonexistent/x.json"]).0, Exit::System);
}

#[test]
fn check_prints_the_schema() {
    let (exit, text) = called(&["check", "--schema"]);
    assert_eq!(exit, Exit::Done);
    assert_eq!(text, crate::config::check::SCHEMA);
    assert!(usage_fault(&["check"]));
}

#[test]
fn bucket_prints_the_bucket() {
    // Row of src/engine/reference/buckets.txt.
    assert_eq!(called(&["bucket", "--salt", "home-7f3a", "--unit", "42"]), (Exit::Done, "3902\n".into()));
    let (_, json) = called(&["bucket", "--salt=", "--unit", "-5", "--buckets", "65536", "--json"]);
    let object: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(
        (&object["salt"], &object["unit"], &object["buckets"]),
        (&"".into(), &"-5".into(), &65536.into())
    );
    for words in [
        &["bucket", "--salt", "s"][..],
        &["bucket", "--salt", "s", "--unit", ""],
        &["bucket", "--salt", "s", "--unit", "u", "--buckets", "0"],
        &["bucket", "--salt", "s", "--unit", "u", "--buckets", "65537"],
    ] {
        assert!(usage_fault(words), "{words:?}");
    }
}

#[test]
fn export_prints_each_block_of_the_running_experiments() {
    let (exit, text) = called(&["export", &example()]);
    assert_eq!(exit, Exit::Done);
    let first = text.lines().next().expect("a row");
    assert_eq!(
        first,
        r#"{"version":"2026-11-22.3","layer":"home","salt":"home-7f3a","unit":"user_id","buckets":10000,"experiment":"new_home","group":"control","first":0,"count":1500}"#
    );
    assert!(text.contains(r#""experiment":"new_home","group":"test","first":2000,"count":1000}"#));
    for silent in ["home_live_row", "home_dark_rows", "home_big_tiles", "staff_debug_menu"] {
        assert!(!text.contains(silent), "{silent} owns no bucket that assigns");
    }
}

#[test]
fn explain_prints_a_readable_tree() {
    let (exit, text) = called(&[
        "explain",
        &example(),
        "--user_id",
        "42",
        "--platform",
        "android",
        "--app_version=43",
        "--age",
        "nine",
        "--device_id=d1",
    ]);
    assert_eq!(exit, Exit::Done);
    for line in [
        "new_home → test (forced)",
        "  why      an override puts this user_id into `test`",
        "  unit     user_id = \"42\"",
        "  layer    home: salt \"home-7f3a\", 10000 buckets",
        "  override user_id = \"42\": test",
        "    ✓ all",
        "      ✓ segment new_android",
        "            ✓ platform in [\"android\",\"androidtv\"]   (platform is \"android\")",
        "          ✓ app_version gte \"42.24.0.0\"   (app_version is \"43\")",
        "            ✗ age lt 18   (age is \"nine\", no number of f64: counts as missing)",
        "home_live_row → –",
        "  why      its state is killed: it assigns nobody",
        "reco_model → –",
        "  why      layer `recommendations` asks for profile_id, and there is none",
        "  unit     profile_id is missing",
        "  segment  everybody",
    ] {
        assert!(text.lines().any(|written| written == line), "`{line}` is not in\n{text}");
    }
}

#[test]
fn explain_prints_the_same_for_programs() {
    let (exit, text) = called(&["explain", "--json", &example(), "--user_id", "42", "--platfrom", "x"]);
    assert_eq!(exit, Exit::Done);
    let object: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(object["ignored"], serde_json::json!(["platfrom"]));
    let first = &object["experiments"][0];
    assert_eq!(
        (&first["experiment"], &first["group"], &first["outcome"], &first["bucket"]),
        (&"new_home".into(), &"test".into(), &"forced".into(), &3902.into())
    );
    assert_eq!(first["segment"]["is"], "all");
    assert_eq!(called(&["explain", &example(), "--user_id", "42", "--platfrom=x", "--json"]), (exit, text));
}

#[test]
fn explain_reads_names_by_the_rules_of_the_query_string() {
    let (_, text) = called(&[
        "explain",
        &example(),
        "--json",
        "--subscriptions=",
        "--favourite_genres",
        "series,drama",
        "--age",
        "1",
        "--age",
        "-5",
        "--hours_watched_month",
        "01",
        "--push_enabled",
        "true",
        "--is_child",
        "yes",
        "--user_id=",
    ]);
    let object: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let mut leaves = Vec::new();
    fn collect(trace: &serde_json::Value, leaves: &mut Vec<(String, serde_json::Value)>) {
        if trace["is"] == "test" {
            leaves.push((trace["attr"].as_str().expect("a name").into(), trace["value"].clone()));
        }
        for part in trace["parts"].as_array().into_iter().flatten().chain(trace.get("part")) {
            collect(part, leaves);
        }
    }
    for experiment in object["experiments"].as_array().expect("a list") {
        assert_eq!(experiment["group"], serde_json::Value::Null, "no unit came");
        collect(&experiment["segment"], &mut leaves);
    }
    let value_of = |name: &str| leaves.iter().find(|(attr, _)| attr == name).map(|(_, value)| value.clone());
    assert_eq!(value_of("subscriptions"), Some(serde_json::json!([])));
    assert_eq!(value_of("favourite_genres"), Some(serde_json::json!(["series", "drama"])));
    assert_eq!(value_of("age"), Some(serde_json::json!(-5)));
    assert_eq!(value_of("hours_watched_month"), Some(serde_json::json!("01")));
    assert_eq!(value_of("push_enabled"), Some(serde_json::json!(true)));
    assert_eq!(value_of("is_child"), Some(serde_json::json!("yes")));
    for words in [&["--user_id"][..], &["user_id", "42"], &["--user_id", &"x".repeat(257)]] {
        assert!(usage_fault(&[&["explain", &example()], words].concat()), "{words:?}");
    }
}
