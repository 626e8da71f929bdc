//! Shedding: a request that has waited too long in the loop is answered at
//! once and cheaply, so that those behind it wait less. Health and metrics are
//! never shed.

use std::time::Duration;

use crate::engine::assignment::ExperimentIndex;
use crate::http::{Answer, ContentType, Refusal, Status};
use crate::metrics::Family;

use super::{App, RouteGroup};

/// How a pool sheds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shed {
    /// Nanoseconds of queue delay beyond which a request is shed.
    pub after_ns: u64,
    /// Assign answers without assignments, and not with 503.
    pub empty: bool,
}

impl Shed {
    /// Whatever it is, it is served.
    pub const NEVER: Shed = Shed { after_ns: u64::MAX, empty: false };

    /// As the settings have it.
    #[must_use]
    pub fn after(delay: Option<Duration>, empty: bool) -> Shed {
        let ns = |delay: Duration| u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX);
        Shed { after_ns: delay.map_or(u64::MAX, ns), empty }
    }
}

/// Labels of [`Family::RequestsShed`], by index.
const REFUSED: usize = 0;
const EMPTY: usize = 1;

impl App<'_, '_> {
    /// Whether what is looked at now is to be shed, with an empty answer (true)
    /// or with the refusal. Counts it.
    pub(super) fn shed(&self, group: RouteGroup) -> Result<bool, Refusal> {
        let Shed { after_ns, empty } = self.desk.options.shed;
        if self.desk.pace.delay_ns() <= after_ns || matches!(group, RouteGroup::Health | RouteGroup::Metrics)
        {
            return Ok(false);
        }
        let empty = empty && group == RouteGroup::Assign;
        self.desk.block.add_at(Family::RequestsShed, if empty { EMPTY } else { REFUSED }, 1);
        if empty { Ok(true) } else { Err(Refusal::unavailable("too many requests wait; try again later", 1)) }
    }

    /// Nobody takes part in anything, and nothing is recorded.
    pub(super) fn answer_shed(&self, experiment: Option<ExperimentIndex>, answer: Answer<'_>) {
        let head = answer.start(Status::Ok).header_line(&self.version_line);
        let mut body = head.header("X-Splitd-Shed", "queue").body(ContentType::Json);
        body.push_str("{\"version\":");
        body.push(self.plan.version_json());
        match experiment {
            None => body.push_str(",\"assignments\":{}}"),
            Some(experiment) => {
                body.push_str(",\"experiment\":");
                body.push(self.plan.experiment_json(experiment));
                body.push_str(",\"group\":null}");
            }
        }
        body.finish();
    }
}
