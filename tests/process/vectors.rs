//! The vectors, answered over real HTTP.

use serde_json::Value;

use crate::for_each_backend;
use crate::support::{Client, Daemon, Plan, lines, post};

fn answers_equal(daemon: &Daemon, name: &str) {
    let requests = lines(&format!("{name}.requests.ndjson"));
    let answers = lines(&format!("{name}.answers.ndjson"));
    assert_eq!(requests.len(), answers.len());
    // Several connections, so that the kernel's hash gives every worker some.
    let mut clients: Vec<Client> = (0..8).map(|_| Client::connect(daemon.assign())).collect();
    for (index, (request, answer)) in requests.iter().zip(&answers).enumerate() {
        let response = clients[index % 8].post("/v1/assign", request);
        assert_eq!(response.status, 200, "{request}: {response:?}");
        // As text, so that the order of the assignments counts.
        assert_eq!(normal(&response.body), normal(answer), "{request}");
        let version = answer.parse::<Value>().unwrap()["version"].as_str().unwrap().to_owned();
        assert_eq!(response.header("X-Splitd-Version"), Some(version.as_str()));
    }
}

/// Less insignificant white space, with strings unescaped; order kept.
fn normal(json: &str) -> String {
    struct Members(Vec<(String, Value)>);
    impl<'de> serde::Deserialize<'de> for Members {
        fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
            struct Visitor;
            impl<'de> serde::de::Visitor<'de> for Visitor {
                type Value = Members;
                fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    f.write_str("an object")
                }
                fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                    let mut members = Vec::new();
                    while let Some(member) = map.next_entry()? {
                        members.push(member);
                    }
                    Ok(Members(members))
                }
            }
            from.deserialize_map(Visitor)
        }
    }
    #[derive(serde::Deserialize)]
    struct Answer {
        version: String,
        assignments: Members,
    }
    let answer: Answer = serde_json::from_str(json).unwrap_or_else(|error| panic!("{error}: {json}"));
    format!("{:?} {:?}", answer.version, answer.assignments.0)
}

for_each_backend! {
    one_worker_gives_every_answer_of_the_vectors(io) {
        for name in ["edge", "typical"] {
            let daemon = Plan::new(io, &format!("{name}.experiments.json")).start();
            answers_equal(&daemon, name);
        }
    }

    two_workers_give_every_answer_of_the_vectors(io) {
        for name in ["edge", "typical"] {
            let daemon = Plan::new(io, &format!("{name}.experiments.json")).workers(2).start();
            answers_equal(&daemon, name);
        }
    }

    pipelined_vectors_are_answered_in_order(io) {
        let daemon = Plan::new(io, "edge.experiments.json").start();
        let requests = lines("edge.requests.ndjson");
        let stream: String = requests.iter().map(|body| post("/v1/assign", body)).collect();
        let mut client = Client::connect(daemon.assign());
        assert!(client.send(stream.as_bytes()));
        for answer in lines("edge.answers.ndjson") {
            assert_eq!(normal(&client.receive().expect("an answer").body), normal(&answer));
        }
    }

    a_batch_answers_every_line_in_order(io) {
        let daemon = Plan::new(io, "edge.experiments.json").start();
        let mut requests = lines("edge.requests.ndjson");
        requests.insert(3, "{\"units\":".to_owned());
        let response = Client::connect(daemon.bulk()).post("/v1/batch", &(requests.join("\n") + "\n"));
        assert_eq!(response.status, 200);
        let mut answered: Vec<&str> = response.body.lines().collect();
        let bad: Value = answered.remove(3).parse().unwrap();
        assert_eq!(bad["status"], 400, "{bad}");
        let answers = lines("edge.answers.ndjson");
        assert_eq!(answered.len(), answers.len());
        for (answered, answer) in answered.iter().zip(&answers) {
            assert_eq!(normal(answered), normal(answer));
        }
    }

    get_payloads_and_single_experiments_answer_as_documented(io) {
        let daemon = Plan::new(io, "edge.experiments.json").start();
        let mut client = Client::connect(daemon.assign());
        let by_get = client.get("/v1/assign?user_id=42").body;
        assert_eq!(normal(&by_get), normal(&lines("edge.answers.ndjson")[0]));
        let with_list = client.get("/v1/assign?user_id=u33&device_id=dev33&l=kids,sport").json();
        assert_eq!(with_list["assignments"]["l_all"], "in");
        let payloads = client.get("/v1/assign?user_id=42&payloads=true").json();
        assert_eq!(payloads["payloads"]["first"].to_string(), r#"{"k":[1,"два",null]}"#);
        assert_eq!(payloads["payloads"].as_object().unwrap().len(), 1);
        let single = client.get("/v1/assign/first?user_id=42").json();
        assert_eq!((single["experiment"].as_str(), single["group"].as_str()), (Some("first"), Some("test")));
        let single = client.post("/v1/assign/second", r#"{"units":{"user_id":"u0"},"attributes":{"s":"Москва"}}"#);
        assert_eq!(single.json()["group"], "a \"quoted\"");
        assert_eq!(client.get("/v1/assign/killed?user_id=42").json()["group"], Value::Null);
        assert_eq!(client.get("/v1/assign/unheard_of?user_id=42").status, 404);
    }

    explain_gives_every_answer_of_the_vectors_and_records_nothing(io) {
        let daemon = Plan::new(io, "edge.experiments.json").start();
        let mut client = Client::connect(daemon.bulk());
        for (request, answer) in lines("edge.requests.ndjson").iter().zip(&lines("edge.answers.ndjson")) {
            let explained = client.post("/v1/explain", request).json();
            let one = |one: &Value| Some((one["experiment"].as_str()?.to_owned(), one["group"].as_str()?.to_owned()));
            let groups: Vec<_> = explained["experiments"].as_array().unwrap().iter().filter_map(one).collect();
            let answer: Value = answer.parse().unwrap();
            let wanted = answer["assignments"].as_object().unwrap();
            assert_eq!(groups.len(), wanted.len(), "{request}");
            assert!(groups.iter().all(|(name, group)| wanted[name] == group.as_str()), "{request}: {groups:?}");
            assert_eq!(explained["version"], answer["version"]);
        }
        assert_eq!(Client::connect(daemon.assign()).get("/v1/explain?user_id=42").status, 404, "not in this pool");
        let mut daemon = daemon;
        assert_eq!(daemon.stop(), Some(0));
        assert!(daemon.events().is_empty());
    }
}
