//! What is delivered for an exposure: the `Exposure` as the ring had it, or an
//! `ExperimentParticipation` for each of its assignments.

use std::ops::Range;

use prost::Message;
use prost::encoding::encode_varint;

use crate::exposure::proto::{ExperimentParticipation, Exposure};
use crate::exposure::record::{Framed, unframe};

/// Of every participation.
pub const EVENT_NAME: &str = "group_assigned";

/// Which messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Layout {
    /// One message a request.
    #[default]
    Request,
    /// One message an assignment.
    Assignment {
        /// With the request's attributes in each.
        context: bool,
    },
}

/// One length-delimited message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Where it is.
    pub bytes: Range<usize>,
    /// The value of the unit that was assigned; empty if there was none.
    pub key: String,
}

/// The message's participations. An exposure without assignments has none.
#[must_use]
pub fn participations(exposure: &Exposure, context: bool) -> Vec<ExperimentParticipation> {
    let unit = |kind: &str| exposure.units.get(kind).cloned().unwrap_or_default();
    let one = |(index, assignment): (usize, &crate::exposure::proto::Assignment)| {
        let mut id = exposure.id.clone();
        id.extend((index as u16).to_be_bytes());
        ExperimentParticipation {
            id,
            time_us: exposure.time_us,
            version: exposure.version.clone(),
            event_name: EVENT_NAME.to_owned(),
            user_id: unit("user_id"),
            profile_id: unit("profile_id"),
            device_id: unit("device_id"),
            experiment_id: assignment.experiment_id,
            run_id: assignment.run_id,
            experiment: assignment.experiment.clone(),
            group: assignment.group.clone(),
            forced: assignment.forced,
            context: if context { exposure.context.clone() } else { Vec::new() },
            unit_value: unit(&assignment.unit),
            unit: assignment.unit.clone(),
        }
    };
    exposure.assignments.iter().enumerate().map(one).collect()
}

/// Appends the messages of so many length-delimited exposures to `out`, and says
/// where each is if `events` are wanted. What is whole but no exposure (a ring's
/// writer has made it, so it is a bug) is passed on as it is.
pub fn render(exposures: &[u8], layout: Layout, out: &mut Vec<u8>, mut event: impl FnMut(Event)) {
    let mut rest = exposures;
    while let Framed::Whole { message, size } = unframe(rest) {
        let framed = &rest[..size];
        rest = &rest[size..];
        let begin = out.len();
        let decoded = Exposure::decode(message);
        match (layout, decoded) {
            (Layout::Assignment { context }, Ok(exposure)) => {
                for participation in participations(&exposure, context) {
                    let begin = out.len();
                    encode_varint(participation.encoded_len() as u64, out);
                    participation.encode_raw_to(out);
                    event(Event { bytes: begin..out.len(), key: participation.unit_value });
                }
            }
            (_, decoded) => {
                out.extend_from_slice(framed);
                let key = decoded.map(|exposure| key_of(&exposure)).unwrap_or_default();
                event(Event { bytes: begin..out.len(), key });
            }
        }
    }
}

/// The first assigned unit's value, or else that of any.
fn key_of(exposure: &Exposure) -> String {
    let assigned = exposure.assignments.iter().find_map(|assignment| exposure.units.get(&assignment.unit));
    assigned.or_else(|| exposure.units.values().next()).cloned().unwrap_or_default()
}

/// `Message::encode` into a vector, which always has room.
trait EncodeTo: Message + Sized {
    fn encode_raw_to(&self, out: &mut Vec<u8>) {
        self.encode(out).expect("a vector has room");
    }
}
impl EncodeTo for ExperimentParticipation {}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::exposure::proto::Assignment;

    fn exposure() -> Exposure {
        let assignment = |experiment: &str, unit: &str| Assignment {
            experiment_id: 7,
            run_id: 2,
            experiment: experiment.into(),
            group: "test".into(),
            forced: experiment == "b",
            unit: unit.into(),
        };
        Exposure {
            id: (0..16).collect(),
            time_us: 5,
            version: "v".into(),
            units: BTreeMap::from([("device_id".into(), "d".into()), ("user_id".into(), "42".into())]),
            assignments: vec![assignment("a", "user_id"), assignment("b", "device_id")],
            context: br#"{"age":1}"#.to_vec(),
        }
    }

    fn rendered(exposures: &[u8], layout: Layout) -> (Vec<u8>, Vec<Event>) {
        let (mut out, mut events) = (Vec::new(), Vec::new());
        render(exposures, layout, &mut out, |event| events.push(event));
        (out, events)
    }

    #[test]
    fn a_request_stays_as_it_is_and_its_key_is_the_assigned_unit() {
        let one = exposure().encode_length_delimited_to_vec();
        let (out, events) = rendered(&one.repeat(3), Layout::Request);
        assert_eq!(out, one.repeat(3));
        assert_eq!(events.len(), 3);
        assert_eq!(events[1], Event { bytes: one.len()..2 * one.len(), key: "42".into() });
        let none = Exposure { assignments: Vec::new(), ..exposure() }.encode_length_delimited_to_vec();
        assert_eq!(rendered(&none, Layout::Request).1[0].key, "d");
    }

    #[test]
    fn each_assignment_is_a_participation_of_its_own() {
        let bytes = exposure().encode_length_delimited_to_vec();
        let (out, events) = rendered(&bytes, Layout::Assignment { context: false });
        let keys: Vec<&str> = events.iter().map(|event| event.key.as_str()).collect();
        assert_eq!(keys, ["42", "d"]);
        let second = ExperimentParticipation::decode_length_delimited(&out[events[1].bytes.clone()]).unwrap();
        let mut id: Vec<u8> = (0..16).collect();
        id.extend([0, 1]);
        let expected = ExperimentParticipation {
            id,
            time_us: 5,
            version: "v".into(),
            event_name: "group_assigned".into(),
            user_id: "42".into(),
            device_id: "d".into(),
            experiment_id: 7,
            run_id: 2,
            experiment: "b".into(),
            group: "test".into(),
            forced: true,
            unit: "device_id".into(),
            unit_value: "d".into(),
            ..Default::default()
        };
        assert_eq!(second, expected);
        let (out, events) = rendered(&bytes, Layout::Assignment { context: true });
        let first = ExperimentParticipation::decode_length_delimited(&out[events[0].bytes.clone()]).unwrap();
        assert_eq!(first.context, exposure().context);
    }
}
