//! The messages of `exposure.proto`, for whoever reads exposures: the worker
//! writes them without (see [`super::record`]). A test holds the field numbers
//! here and there equal.

use std::collections::BTreeMap;

/// One answered request.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Exposure {
    /// 16 bytes, big-endian: instance, then `ring << 48 | seq`.
    #[prost(bytes = "vec", tag = "1")]
    pub id: Vec<u8>,
    /// Unix microseconds.
    #[prost(int64, tag = "2")]
    pub time_us: i64,
    /// Of the experiments file.
    #[prost(string, tag = "3")]
    pub version: String,
    /// Kind to value.
    #[prost(btree_map = "string, string", tag = "4")]
    pub units: BTreeMap<String, String>,
    /// In the file's order.
    #[prost(message, repeated, tag = "5")]
    pub assignments: Vec<Assignment>,
    /// The request's attributes as they came, JSON; may be empty.
    #[prost(bytes = "vec", tag = "6")]
    pub context: Vec<u8>,
}

/// One experiment's group.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Assignment {
    /// The experiment's id.
    #[prost(int64, tag = "1")]
    pub experiment_id: i64,
    /// The experiment's run.
    #[prost(int32, tag = "2")]
    pub run_id: i32,
    /// The experiment's name.
    #[prost(string, tag = "3")]
    pub experiment: String,
    /// The group's name.
    #[prost(string, tag = "4")]
    pub group: String,
    /// Whether an override decided.
    #[prost(bool, tag = "5")]
    pub forced: bool,
    /// The kind of the unit that was assigned.
    #[prost(string, tag = "6")]
    pub unit: String,
}

/// One unit in one experiment.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ExperimentParticipation {
    /// The exposure's id, and the assignment's number as a big-endian u16.
    #[prost(bytes = "vec", tag = "1")]
    pub id: Vec<u8>,
    /// Unix microseconds.
    #[prost(int64, tag = "2")]
    pub time_us: i64,
    /// Of the experiments file.
    #[prost(string, tag = "3")]
    pub version: String,
    /// `group_assigned`.
    #[prost(string, tag = "4")]
    pub event_name: String,
    /// The request's unit of that kind, if it had one.
    #[prost(string, tag = "5")]
    pub user_id: String,
    /// The request's unit of that kind, if it had one.
    #[prost(string, tag = "6")]
    pub profile_id: String,
    /// The request's unit of that kind, if it had one.
    #[prost(string, tag = "7")]
    pub device_id: String,
    /// The experiment's id.
    #[prost(int64, tag = "8")]
    pub experiment_id: i64,
    /// The experiment's run.
    #[prost(int32, tag = "9")]
    pub run_id: i32,
    /// The experiment's name.
    #[prost(string, tag = "10")]
    pub experiment: String,
    /// The group's name.
    #[prost(string, tag = "11")]
    pub group: String,
    /// Whether an override decided.
    #[prost(bool, tag = "12")]
    pub forced: bool,
    /// The request's attributes as they came, where asked for.
    #[prost(bytes = "vec", tag = "13")]
    pub context: Vec<u8>,
    /// The kind of the unit that was assigned.
    #[prost(string, tag = "14")]
    pub unit: String,
    /// Its value.
    #[prost(string, tag = "15")]
    pub unit_value: String,
}
