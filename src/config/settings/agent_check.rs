//! `[agent_check]`: what HAProxy asks.

use std::net::SocketAddr;

use super::Settings;
use super::row::{Row, fixed, last, live, row};

/// `[agent_check]`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[allow(missing_docs, reason = "the rows below say what each means")]
pub struct AgentCheckSettings {
    pub listen: Option<SocketAddr>,
}

/// Its settings.
pub(super) const ROWS: &[Row<Settings>] = &[fixed!(
    agent_check.listen,
    "",
    "HAProxy's agent-check: a TCP address where every connection gets one line, `up ready 100%` or `drain`.",
    |value| match value.text()? {
        "" => None,
        text => Some(text.parse().map_err(|_| {
            format!("`{text}` is no address; `127.0.0.1:9081` or `[::1]:9081` would be right")
        })?),
    }
)];
