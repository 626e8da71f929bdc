use rdkafka::mocking::MockCluster;

use super::*;

/// Polls, while time stands still for the sink, until it is so.
fn poll_until(
    kafka: &mut Kafka,
    now: Now,
    is_so: impl Fn(&Kafka, &[(u64, Outcome)]) -> bool,
) -> Vec<(u64, Outcome)> {
    let (begin, mut outcomes) = (clock::now(), Vec::new());
    while !is_so(kafka, &outcomes) {
        assert!(clock::now().since(begin) < Duration::from_secs(60), "{kafka:?} {outcomes:?}");
        kafka.poll(now, &mut outcomes);
        std::thread::sleep(Duration::from_millis(1));
    }
    outcomes
}

#[test]
fn connected_and_silent_for_thirty_seconds_it_is_made_anew_and_away_it_is_waited_for() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("exposures", 1, 1).unwrap();
    let start = clock::now();
    let options = Options {
        brokers: cluster.bootstrap_servers(),
        topic: "exposures".to_owned(),
        batch: true,
        message_size: 65_536,
        ..Options::default()
    };
    let is_connected = |kafka: &Kafka| kafka.ear.is_connected.load(Relaxed);
    let mut kafka = Kafka::new(options, Arc::default(), start);
    poll_until(&mut kafka, start, |kafka, _| is_connected(kafka));
    // It takes, and says nothing.
    cluster.broker_round_trip_time(1, Duration::from_secs(3600)).unwrap();
    assert!(kafka.send(1, &events(&[100]), 1, start));
    let mut outcomes = Vec::new();
    kafka.poll(start.plus(STUCK_TIME - Duration::from_millis(1)), &mut outcomes);
    assert!(outcomes.is_empty() && kafka.producer.is_some(), "{outcomes:?}");
    let stuck = start.plus(STUCK_TIME);
    kafka.poll(stuck, &mut outcomes);
    assert!(matches!(outcomes[..], [(1, Outcome::Failed { .. })]), "{outcomes:?}");
    assert!(kafka.producer.is_none() && kafka.pending.is_empty());
    // The new one delivers.
    cluster.broker_round_trip_time(1, Duration::ZERO).unwrap();
    poll_until(&mut kafka, stuck, |kafka, _| kafka.has_room() && is_connected(kafka));
    assert!(kafka.send(2, &events(&[100]), 1, stuck));
    let outcomes = poll_until(&mut kafka, stuck, |_, outcomes| !outcomes.is_empty());
    assert_eq!(outcomes, [(2, Outcome::Delivered { rejected: 0 })]);
    // One that is not there is waited for: another producer would get no further.
    cluster.broker_down(1).unwrap();
    poll_until(&mut kafka, stuck, |kafka, _| !is_connected(kafka));
    assert!(kafka.send(3, &events(&[100]), 1, stuck));
    let mut outcomes = Vec::new();
    kafka.poll(stuck.plus(2 * STUCK_TIME), &mut outcomes);
    assert!(outcomes.is_empty() && kafka.producer.is_some(), "{outcomes:?}");
}

fn events(sizes: &[usize]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for size in sizes {
        let mut message = vec![0x0a, 16];
        message.resize(*size, 0);
        prost::encoding::encode_varint(*size as u64, &mut bytes);
        bytes.extend(message);
    }
    bytes
}

#[test]
fn halves_are_cut_between_events_and_one_event_is_not_cut() {
    for sizes in [&[100, 100][..], &[100, 5000], &[5000, 100], &[50, 60, 70, 80, 90]] {
        let bytes = events(sizes);
        let (first, second) = halve(&bytes).unwrap();
        assert_eq!([first, second].concat(), bytes);
        assert!(matches!(unframe(second), Framed::Whole { .. }), "{sizes:?}");
    }
    assert_eq!(halve(&events(&[100])), None);
    assert_eq!(halve(&[]), None);
}
