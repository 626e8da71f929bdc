//! The plain twin gives every golden answer.

use splitd::config::check::check;
use splitd::engine::reference::{Outcome, Request, assign, explain, members};

fn golden(name: &str) -> String {
    let path = format!("{}/tests/golden/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|fault| panic!("{path}: {fault}"))
}

/// `{"version", "assignments"}`, order kept.
fn read_answer(answer: &str) -> (String, Vec<(String, String)>) {
    let members_of = |json: &str| -> Vec<(String, String)> {
        let members = members(json).expect("a golden answer is JSON");
        members.into_iter().map(|(key, value)| (key.into_owned(), value.get().to_owned())).collect()
    };
    let text = |json: &str| serde_json::from_str::<String>(json).expect("a text");
    let answer = members_of(answer);
    let [(version_key, version), (assignments_key, assignments)] = &answer[..] else { panic!("{answer:?}") };
    assert_eq!((version_key.as_str(), assignments_key.as_str()), ("version", "assignments"));
    let assignments =
        members_of(assignments).iter().map(|(name, group)| (name.clone(), text(group))).collect();
    (text(version), assignments)
}

fn every_golden_answer_is_given(name: &str) {
    let catalog = check(golden(&format!("{name}.experiments.json")).as_bytes())
        .unwrap_or_else(|faults| panic!("{name}: {faults:#?}"));
    let (requests, answers) =
        (golden(&format!("{name}.requests.ndjson")), golden(&format!("{name}.answers.ndjson")));
    assert_eq!(requests.lines().count(), answers.lines().count());
    for (line, (request, answer)) in requests.lines().zip(answers.lines()).enumerate() {
        let request = Request::from_json(request).unwrap_or_else(|fault| panic!("{name} {line}: {fault}"));
        let given: Vec<(String, String)> = assign(&catalog, &request)
            .into_iter()
            .map(|assigned| {
                let experiment = &catalog.experiments[assigned.experiment];
                (experiment.name.clone(), experiment.groups[assigned.group].name.clone())
            })
            .collect();
        let (version, wanted) = read_answer(answer);
        assert_eq!(catalog.version, version);
        assert_eq!(given, wanted, "{name}, line {}: {request:?}", line + 1);

        // The explanation says the same, and its trees the same as the verdicts.
        let explained: Vec<(String, String)> = explain(&catalog, &request)
            .into_iter()
            .inspect(|explanation| {
                let holds = explanation.segment.as_ref().is_none_or(|segment| segment.holds());
                match explanation.outcome {
                    Outcome::Assigned => assert!(holds),
                    Outcome::NotInSegment => assert!(!holds),
                    _ => {}
                }
            })
            .filter_map(|explanation| Some((explanation.experiment.into(), explanation.group?.into())))
            .collect();
        assert_eq!(explained, wanted, "{name}, line {}", line + 1);
    }
}

#[test]
fn reference_gives_every_golden_answer_of_edge() {
    every_golden_answer_is_given("edge");
}

#[test]
fn reference_gives_every_golden_answer_of_typical() {
    every_golden_answer_is_given("typical");
}
