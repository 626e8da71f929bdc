//! The compiled experiments: typed views over one flat image.

use super::assignment::{Chosen, Decision, ExperimentIndex, UnitKind, Units};
use super::attributes::{AttributeIndex, Facts};
use super::catalog::AttributeKind;

/// Why bytes are no plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PlanFault {
    /// Not begun like a plan.
    #[error("plan: does not begin with the magic of a plan")]
    Magic,
}

/// The experiments in force. Cheap to copy; the bytes are someone else's.
#[derive(Debug, Clone, Copy)]
pub struct Plan<'p> {
    bytes: &'p [u8],
}

#[allow(unused_variables, reason = "signatures first")]
impl<'p> Plan<'p> {
    /// Views of an image, after checking all of it.
    pub fn open(bytes: &'p [u8]) -> Result<Plan<'p>, PlanFault> {
        Ok(Plan { bytes })
    }

    /// Views of an image that `open` accepted before, in this or another process: checks the header alone, in constant time.
    pub fn attach(bytes: &'p [u8]) -> Result<Plan<'p>, PlanFault> {
        Ok(Plan { bytes })
    }

    /// The experiments file's `version`.
    pub fn version(&self) -> &'p str {
        ""
    }

    /// The version as JSON, with its quotes.
    pub fn version_json(&self) -> &'p [u8] {
        b"\"\""
    }

    /// The experiments file.
    pub fn source(&self) -> &'p [u8] {
        &self.bytes[..0]
    }

    /// A declared attribute by its name.
    pub fn attribute(&self, name: &str) -> Option<(AttributeIndex, AttributeKind)> {
        None
    }

    /// An attribute's name.
    pub fn attribute_name(&self, attribute: AttributeIndex) -> &'p str {
        ""
    }

    /// Declared attributes.
    pub fn attribute_count(&self) -> usize {
        0
    }

    /// A name that a layer or an override uses for units.
    pub fn unit_kind(&self, name: &str) -> Option<UnitKind> {
        None
    }

    /// An experiment of any state by its name.
    pub fn experiment(&self, name: &str) -> Option<ExperimentIndex> {
        None
    }

    /// Experiments of all states.
    pub fn experiment_count(&self) -> usize {
        0
    }

    /// Layers of the file.
    pub fn layer_count(&self) -> usize {
        0
    }

    /// Layers in which a running experiment owns a bucket.
    pub(super) fn active_layer_count(&self) -> usize {
        0
    }

    /// No answer of this plan is larger, payloads and head included.
    pub fn answer_size_max(&self) -> usize {
        0
    }

    /// No exposure of this plan is larger.
    pub fn exposure_size_max(&self) -> usize {
        0
    }

    /// Which experiments a request takes part in, and as what.
    pub fn decide(&self, units: &Units<'_>, facts: &Facts, decision: &mut Decision) {
        decision.chosen.clear();
    }

    /// The same for one experiment: none or one is chosen.
    pub fn decide_one(
        &self,
        experiment: ExperimentIndex,
        units: &Units<'_>,
        facts: &Facts,
        decision: &mut Decision,
    ) {
        decision.chosen.clear();
    }

    /// `"new_home":"test"`
    pub fn answer_fragment(&self, chosen: &Chosen) -> &'p [u8] {
        b""
    }

    /// `"new_home":{"rows":5}`, if the group has a payload.
    pub fn payload_fragment(&self, chosen: &Chosen) -> Option<&'p [u8]> {
        None
    }

    /// `"test"`
    pub fn group_json(&self, chosen: &Chosen) -> &'p [u8] {
        b""
    }

    /// `{"rows":5}`, if the group has a payload.
    pub fn payload_json(&self, chosen: &Chosen) -> Option<&'p [u8]> {
        None
    }

    /// `"new_home"`
    pub fn experiment_json(&self, experiment: ExperimentIndex) -> &'p [u8] {
        b""
    }

    /// Field 5 of an `Exposure`: tag, length and the `Assignment`.
    pub fn exposure_fragment(&self, chosen: &Chosen) -> &'p [u8] {
        b""
    }

    /// Whether an override, and not the unit's bucket, chose.
    pub fn is_forced(&self, chosen: &Chosen) -> bool {
        false
    }
}
