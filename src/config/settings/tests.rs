use super::sources::{dotted_names, variable_name};
use super::*;
use crate::limits;

fn owned(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn load_from(
    file: &str,
    environment: &[(&str, &str)],
    sets: &[(&str, &str)],
) -> Result<Settings, Vec<Fault>> {
    load(&Sources { file: Some(file), environment: &owned(environment), command_line: &owned(sets) })
}

fn fault_texts(result: Result<Settings, Vec<Fault>>) -> Vec<String> {
    result.unwrap_err().iter().map(ToString::to_string).collect()
}

#[test]
fn what_a_running_instance_can_not_change_is_told_and_all_of_it() {
    let old = check_settings("").unwrap();
    let live = check_settings("drain_timeout = \"5s\"\n[sink]\ntype = \"none\"\n[logger]\nnice = 7").unwrap();
    assert_eq!(fixed_changes(&old, &live), []);
    let text = "state_dir = \"/x\"\n[logger]\nring_size = \"8MiB\"\n[[pool]]\nname = \"assign\"\nbacklog = 7\n\
        workers = 3\nio = \"epoll\"\n[[pool]]\nname = \"bulk\"\n[[pool]]\nname = \"admin\"";
    let changes = fixed_changes(&old, &check_settings(text).unwrap());
    let pointers: Vec<&str> = changes.iter().map(|fault| fault.pointer.as_str()).collect();
    assert_eq!(pointers, ["state_dir", "logger.ring_size", "pool.assign.workers", "pool.assign.backlog"]);
    let fewer = fixed_changes(&old, &check_settings("[[pool]]\nname = \"assign\"").unwrap());
    assert!(fewer[0].to_string().contains("there are assign, bulk, admin, and not assign"), "{fewer:?}");
}

#[test]
fn nothing_at_all_gives_the_three_pools_on_loopback() {
    let settings = load(&Sources::default()).unwrap();
    let listens: Vec<_> =
        settings.pools.iter().map(|pool| (pool.name.as_str(), pool.listen[0].to_string())).collect();
    assert_eq!(
        listens,
        [
            ("assign", "127.0.0.1:8080".to_owned()),
            ("bulk", "127.0.0.1:8081".to_owned()),
            ("admin", "127.0.0.1:9080".to_owned())
        ]
    );
    assert_eq!(settings.pools[0].worker_cpus(&[0, 1]).unwrap(), [Some(0), Some(1)]);
    assert_eq!(settings.pools[1].worker_cpus(&[0, 1]).unwrap(), [None]);
    assert_eq!(settings.pools[0].idle_timeout, Duration::from_secs(75));
    assert_eq!(settings.logger.ring_size, limits::RING_SIZE_DEFAULT);
    assert_eq!(settings.pools[0].body_size_max, limits::BODY_SIZE_MAX);
    assert_eq!(settings.pools[0].head_size_max, limits::HEAD_SIZE_MAX);
    assert_eq!(settings.pools[0].batch_body_size_max, limits::BATCH_BODY_SIZE_MAX);
    assert_eq!(settings.drain_timeout, Duration::from_secs(30));
    assert_eq!(settings.sink.kind, SinkKind::File);
    assert_eq!(settings, check_settings("").unwrap());
}

#[test]
fn the_documented_file_is_taken() {
    let settings = check_settings(
        r#"
        experiments = "/etc/splitd/experiments.json"
        state_dir   = "/var/lib/splitd"
        runtime_dir = "/run/splitd"
        [[pool]]
        name = "assign"
        listen = ["0.0.0.0:8080", "unix:/run/splitd/assign.sock"]
        cpus = "0-3"
        io = "auto"
        nice = -5
        routes = ["assign", "health"]
        [[pool]]
        name = "bulk"
        listen = ["127.0.0.1:8081"]
        workers = 1
        nice = 10
        routes = ["batch", "explain", "health"]
        [[pool]]
        name = "admin"
        listen = ["127.0.0.1:9080"]
        workers = 1
        nice = 10
        routes = ["metrics", "health", "status"]
        [logger]
        nice = 5
        ring_size = "16MiB"
        layout = "request"
        spool_size_max = "8GiB"
        [sink]
        type = "file"
        size_max = "8GiB"
        "#,
    )
    .unwrap();
    assert_eq!(settings.pools.len(), 3);
    assert_eq!(settings.pools[0].cpus, Cpus::List(vec![0, 1, 2, 3]));
    assert_eq!(settings.pools[0].listen[1], Listen::Unix("/run/splitd/assign.sock".into()));
    assert_eq!(settings.pools[0].routes, [Route::Assign, Route::Health]);
    assert_eq!(settings.experiments, Some("/etc/splitd/experiments.json".into()));
}

#[test]
fn the_file_that_is_shipped_says_the_defaults_and_has_an_agent() {
    let shipped = check_settings(include_str!("../../../systemd/splitd.toml")).unwrap();
    let mut defaults = load(&Sources::default()).unwrap();
    defaults.experiments = Some("/etc/splitd/experiments.json".into());
    defaults.agent_check.listen = Some("127.0.0.1:9081".parse().unwrap());
    assert_eq!(shipped, defaults);
}

#[test]
fn command_line_beats_environment_beats_file_beats_default() {
    let file = "drain_timeout = \"1s\"\n[[pool]]\nname = \"assign\"\nnice = 1";
    let settings = load_from(file, &[], &[]).unwrap();
    assert_eq!(settings.pools[0].nice, 1);
    let environment = [("SPLITD_POOL_ASSIGN_NICE", "2"), ("PATH", "/bin"), ("SPLITD_DRAIN_TIMEOUT", "2s")];
    let settings = load_from(file, &environment, &[]).unwrap();
    assert_eq!((settings.pools[0].nice, settings.drain_timeout), (2, Duration::from_secs(2)));
    let settings = load_from(file, &environment, &[("pool.assign.nice", "3")]).unwrap();
    assert_eq!((settings.pools[0].nice, settings.drain_timeout), (3, Duration::from_secs(2)));
    assert_eq!(settings.pools[0].listen[0].to_string(), "127.0.0.1:8080", "the pool's own default");
}

#[test]
fn the_last_of_two_sets_counts() {
    let settings = load_from("", &[], &[("logger.nice", "1"), ("logger.nice", "2")]).unwrap();
    assert_eq!(settings.logger.nice, 2);
}

#[test]
fn a_list_outside_the_file_is_written_with_commas() {
    let sets = [
        ("pool.assign.listen", "127.0.0.1:1, [::1]:2"),
        ("pool.assign.cpus", "0,2-3"),
        ("pool.assign.routes", "assign,batch"),
    ];
    let pool = &load_from("", &[], &sets).unwrap().pools[0];
    assert_eq!(pool.listen.len(), 2);
    assert_eq!(pool.cpus, Cpus::List(vec![0, 2, 3]));
    assert_eq!(pool.routes, [Route::Assign, Route::Batch]);
}

#[test]
fn a_pool_with_a_dash_is_reached_by_its_variable() {
    let file = "[[pool]]\nname = \"front-1\"\nlisten = \"127.0.0.1:1\"\nroutes = [\"assign\"]";
    let settings = load_from(file, &[("SPLITD_POOL_FRONT_1_BACKLOG", "7")], &[]).unwrap();
    assert_eq!(settings.pools[0].backlog, 7);
}

#[test]
fn every_fault_of_every_source_is_reported_in_one_run() {
    let file = r#"
        experimants = "x.json"
        drain_timeout = 30
        [[pool]]
        name = "assign"
        listen = ["localhost:8080"]
        io = "iouring"
        routs = ["assign"]
        nice = -40
        [[pool]]
        workers = 0
        [logger]
        ring_size = "17MiB"
        [sink]
        type = "kafka"
        [loger]
        nice = 1
    "#;
    let texts = fault_texts(load_from(
        file,
        &[("SPLITD_POOL_ASSIGN_BACKLOK", "1"), ("SPLITD_LOGGER_NICE", "much")],
        &[("pool.asign.io", "epoll"), ("pool.assign.cpus", "3-1"), ("sink.x.y.z", "1")],
    ));
    let all = texts.join("\n");
    for part in [
        "experimants: no setting `experimants`; the nearest is `experiments`",
        "drain_timeout: `30` is no duration",
        "pool.assign.listen: `localhost:8080` is no address; `127.0.0.1:8080`",
        "pool.assign.io: `iouring`",
        "pool.assign.routs: no setting `routs`; the nearest is `routes`",
        "pool.assign.nice: `-40` is no whole number from -20 to 19",
        "pool[1]: has no name",
        "pool[1].workers: `0` is no whole number from 1",
        "logger.ring_size: `17MiB` is no power of two",
        "sink.brokers: no broker; `brokers = [\"kafka-1:9092\"]` would be right",
        "loger: no section `loger`; the nearest is `logger`",
        "SPLITD_POOL_ASSIGN_BACKLOK: no setting `SPLITD_POOL_ASSIGN_BACKLOK`; the nearest is `SPLITD_POOL_ASSIGN_BACKLOG`",
        "SPLITD_LOGGER_NICE: `much` is no whole number",
        "--set pool.asign.io: no pool `asign`; the nearest is `assign`",
        "--set pool.assign.cpus: `3-1` is no list of CPUs",
        "--set sink.x.y.z: no setting `sink.x.y.z`",
    ] {
        assert!(all.contains(part), "missing {part:?} in:\n{all}");
    }
}

#[test]
fn a_setting_without_its_section_is_told_where_it_is() {
    let texts = fault_texts(load_from("", &[], &[("ring_size", "16MiB")]));
    assert_eq!(
        texts,
        ["--set ring_size: no setting `ring_size`; there are `logger.ring_size`, `tracing.ring_size`"]
    );
}

#[test]
fn malformed_toml_is_one_fault_with_line_and_column() {
    let texts = fault_texts(check_settings("state_dir = \"/x\"\nnice = = 1\n"));
    assert_eq!(texts.len(), 1);
    assert!(texts[0].starts_with("line 2, column "), "{texts:?}");
}

#[test]
fn two_pools_never_share_a_name_or_an_address() {
    let file = r#"
        [[pool]]
        name = "a"
        listen = "127.0.0.1:1"
        routes = ["assign"]
        [[pool]]
        name = "a"
        listen = ["127.0.0.1:1", "127.0.0.1:0", "127.0.0.1:2"]
        routes = ["assign"]
        [[pool]]
        name = "c"
        listen = ["127.0.0.1:0"]
        routes = ["assign"]
    "#;
    let texts = fault_texts(check_settings(file));
    assert_eq!(texts.len(), 2, "{texts:?}");
    assert!(texts.iter().any(|text| text.contains("`a` is an earlier pool's name")));
    assert!(texts.iter().any(|text| text.contains("`127.0.0.1:1` is pool `a`'s address too")));
}

#[test]
fn a_new_pool_must_say_where_it_listens_and_what_it_answers() {
    let texts = fault_texts(check_settings("[[pool]]\nname = \"extra\""));
    assert_eq!(texts.len(), 2, "{texts:?}");
    assert!(texts[0].starts_with("pool.extra.listen: listens nowhere"));
    assert!(texts[1].starts_with("pool.extra.routes: answers nothing"));
}

#[test]
fn sizes_and_durations_carry_their_units() {
    let parsed = |size: &str| Value::One(size.to_owned()).size::<u64>(0..=u64::MAX);
    assert_eq!(parsed("65536"), Ok(65_536));
    assert_eq!(parsed("64KiB"), Ok(65_536));
    assert_eq!(parsed("16 MiB"), Ok(16 << 20));
    assert_eq!(parsed("8GiB"), Ok(8 << 30));
    for wrong in ["", "MiB", "1.5MiB", "-1", "1kb", "99999999999999999999", "99999999999TiB"] {
        assert!(parsed(wrong).is_err(), "{wrong}");
    }
    let parsed = |text: &str| Value::One(text.to_owned()).duration(Duration::ZERO..=Duration::MAX);
    assert_eq!(parsed("200ms"), Ok(Duration::from_millis(200)));
    assert_eq!(parsed("75s"), Ok(Duration::from_secs(75)));
    assert_eq!(parsed("5m"), Ok(Duration::from_secs(300)));
    assert_eq!(parsed("7d"), Ok(Duration::from_secs(604_800)));
    for wrong in ["", "75", "s", "1.5s", "-1s", "1w", "99999999999999999d"] {
        assert!(parsed(wrong).is_err(), "{wrong}");
    }
    let small = Value::One("1ms".to_owned()).duration(Duration::from_millis(100)..=Duration::from_secs(1));
    assert_eq!(small.unwrap_err(), "`1ms` is out of range; 100ms to 1s would be right");
    let small = Value::One("1".to_owned()).size::<u64>(1024..=1 << 30);
    assert_eq!(small.unwrap_err(), "`1` is out of range; 1KiB to 1GiB would be right");
}

#[test]
fn cpus_are_cycled_or_cut_to_the_number_of_workers() {
    let pool = |cpus: &str, workers: &str| {
        let sets = [("pool.bulk.cpus", cpus), ("pool.bulk.workers", workers)];
        load_from("", &[], &sets).unwrap().pools[1].clone()
    };
    assert_eq!(pool("0-1", "auto").worker_cpus(&[0, 1, 2]).unwrap(), [Some(0), Some(1)]);
    assert_eq!(pool("0-1", "3").worker_cpus(&[0, 1, 2]).unwrap(), [Some(0), Some(1), Some(0)]);
    assert_eq!(pool("2", "1").worker_cpus(&[0, 1, 2]).unwrap(), [Some(2)]);
    assert_eq!(pool("", "2").worker_cpus(&[0, 1, 2]).unwrap(), [None, None]);
    assert_eq!(pool("all", "auto").worker_cpus(&[5, 7]).unwrap(), [Some(5), Some(7)]);
    let fault = pool("0,9", "auto").worker_cpus(&[0, 1]).unwrap_err();
    assert_eq!(fault.to_string(), "pool.bulk.cpus: CPU 9 is none of those this process may run on ([0, 1])");
}

#[test]
fn directories_come_from_settings_then_systemd_then_root_then_here() {
    let settings = load(&Sources::default()).unwrap();
    let here = Surroundings { current_dir: "/home/u".into(), ..Surroundings::default() };
    let show = |settings: &Settings, of: &Surroundings| {
        let found = settings.directories(of);
        format!("{} {}", found.state_dir.display(), found.runtime_dir.display())
    };
    assert_eq!(show(&settings, &here), "/home/u/splitd-data /home/u/splitd-data/run");
    let mut of = here;
    of.xdg_runtime_dir = Some("/run/user/1000".into());
    assert_eq!(show(&settings, &of), "/home/u/splitd-data /run/user/1000/splitd");
    of.root = true;
    assert_eq!(show(&settings, &of), "/var/lib/splitd /run/splitd");
    of.state_directory = Some("/var/lib/a:/var/lib/b".into());
    of.runtime_directory = Some("/run/a".into());
    assert_eq!(show(&settings, &of), "/var/lib/a /run/a");
    let settings = load_from("state_dir = \"data\"", &[], &[("runtime_dir", "/tmp/r")]).unwrap();
    assert_eq!(show(&settings, &of), "/home/u/data /tmp/r");
}

#[test]
fn a_unix_socket_gets_its_workers_number() {
    let path = |text: &str| Listen::unix_path(Path::new(text), 3);
    assert_eq!(path("/run/splitd/assign.sock"), Path::new("/run/splitd/assign.3.sock"));
    assert_eq!(path("/run/splitd/assign"), Path::new("/run/splitd/assign.3"));
}

#[test]
fn every_setting_has_a_meaning_and_a_default_that_is_a_value() {
    let _ = defaults();
    assert!(described().all(|row| !row.doc.is_empty()));
    let names = dotted_names(&defaults());
    let mut variables: Vec<_> = names.iter().map(|name| variable_name(name)).collect();
    variables.sort();
    variables.dedup();
    assert_eq!(variables.len(), names.len(), "no two settings share a variable");
}

#[test]
fn a_port_for_each_worker_is_no_other_pools() {
    let settings = |bulk: &str| {
        check_settings(&format!(
            "[[pool]]\nname = \"assign\"\nports = \"per_worker\"\nworkers = 4\n[[pool]]\nname = \"bulk\"\nlisten = \"{bulk}\""
        ))
        .unwrap()
    };
    assert_eq!(settings("127.0.0.1:8084").worker_counts(&[0, 1]), Ok(vec![4, 1]));
    let fault = settings("127.0.0.1:8083").worker_counts(&[0, 1]).unwrap_err().to_string();
    assert!(fault.starts_with("pool.bulk.listen: `127.0.0.1:8083` would be its worker 0's"), "{fault}");
}

#[test]
fn tracing_is_off_until_it_has_a_place_to_go() {
    let off = check_settings("").unwrap().tracing;
    assert_eq!(
        (off.endpoint, off.rate, off.header, off.slowest),
        (None, 0.001, true, Some(Duration::from_secs(1)))
    );
    let text = "[tracing]\nendpoint = \"http://[::1]:4318/v1/traces\"\nrate = 1\nheader = false\nslowest = \"never\"";
    let on = check_settings(text).unwrap().tracing;
    assert_eq!(on.endpoint.as_deref(), Some("http://[::1]:4318/v1/traces"));
    assert_eq!((on.rate, on.header, on.slowest), (1.0, false, None));
    let faults = fault_texts(load_from(
        "[tracing]\nendpoint = \"localhost:4318\"\nrate = 1.5\nslowest = \"1ms\"\nring_size = \"100KiB\"",
        &[],
        &[
            ("tracing.endpoint", "https://a/v1/traces"),
            ("tracing.rate", "nan"),
            ("tracing.endpoint", "http://a:0/"),
        ],
    ));
    assert_eq!(faults.len(), 7, "{faults:?}");
    assert!(faults.iter().all(|fault| fault.contains("would be right")), "{faults:?}");
}
