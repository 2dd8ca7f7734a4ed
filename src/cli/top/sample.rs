//! What the side port says at one moment, cut down to what is shown.

use std::time::Duration;

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::super::client::{Ask, Client};
use super::super::failure::Failure;
use super::super::guard::Guard;
use crate::observe::HistogramSnapshot;

/// One look at everything.
#[derive(Clone)]
pub(super) struct Sample {
    /// When the counters were read, on a clock that never steps back.
    pub(super) at: Duration,
    pub(super) status: Status,
    pub(super) pools: Vec<Pool>,
    /// `None`: the process is older than this command, and does not say.
    pub(super) durations: Option<HistogramSnapshot>,
}

#[derive(Clone, Deserialize)]
pub(super) struct Status {
    pub(super) version: String,
    /// `ok`, `degraded`, `down`, `starting` or `draining`.
    #[serde(rename = "status")]
    pub(super) condition: String,
    pub(super) uptime_seconds: f64,
    pub(super) generation: u64,
    pub(super) pid: u32,
    /// Whom the process follows, counters included.
    #[serde(default)]
    pub(super) predecessor: Option<u32>,
    #[serde(default)]
    pub(super) listeners: Vec<Listener>,
    pub(super) totals: Totals,
    #[serde(default)]
    pub(super) overrides: u64,
    #[serde(default, deserialize_with = "present")]
    pub(super) last_refusal: bool,
    #[serde(default, deserialize_with = "headline")]
    pub(super) guard: Option<String>,
}

#[derive(Clone, Deserialize)]
pub(super) struct Listener {
    pub(super) connections: u64,
}

#[derive(Clone, Deserialize)]
pub(super) struct Totals {
    pub(super) requests: u64,
    pub(super) errors: u64,
    pub(super) in_flight: u64,
    pub(super) latency_ms: Latency,
}

/// Milliseconds, where something was measured.
#[derive(Clone, Copy, Default, Deserialize)]
#[serde(default)]
pub(super) struct Latency {
    /// The estimate that strategies go by.
    pub(super) ewma: Option<f64>,
    pub(super) p50: Option<f64>,
    pub(super) p99: Option<f64>,
}

#[derive(Deserialize)]
struct Pools {
    pools: Vec<Pool>,
}

#[derive(Clone, Deserialize)]
pub(super) struct Pool {
    pub(super) name: String,
    pub(super) strategy: String,
    pub(super) eligible: u64,
    pub(super) in_flight: u64,
    pub(super) queue: Queue,
    pub(super) upstreams: Vec<Upstream>,
}

#[derive(Clone, Deserialize)]
pub(super) struct Queue {
    pub(super) waiting: u64,
}

#[derive(Clone, Deserialize)]
pub(super) struct Upstream {
    pub(super) address: String,
    pub(super) weight: u32,
    pub(super) state: String,
    pub(super) health: String,
    #[serde(default)]
    pub(super) ejected_until: Option<String>,
    #[serde(default)]
    pub(super) why_not: Option<String>,
    #[serde(default)]
    pub(super) why_not_detail: Option<String>,
    #[serde(default)]
    pub(super) why_not_since: Option<String>,
    pub(super) in_flight: u64,
    #[serde(default)]
    pub(super) max_connections: Option<u64>,
    pub(super) requests: u64,
    pub(super) errors: u64,
    #[serde(default)]
    pub(super) failures: Failures,
    #[serde(default)]
    pub(super) latency_ms: Latency,
    #[serde(default)]
    pub(super) last_check: Option<Check>,
    #[serde(default)]
    pub(super) alarms: Vec<Alarm>,
    #[serde(default)]
    pub(super) backup: bool,
    #[serde(default)]
    pub(super) source: String,
}

#[derive(Clone, Deserialize)]
pub(super) struct Check {
    pub(super) at: String,
    #[serde(default)]
    pub(super) latency_ms: f64,
    #[serde(default)]
    pub(super) error: Option<String>,
}

/// How its requests failed, since it became known.
#[derive(Clone, Copy, Default, Deserialize)]
#[serde(default)]
pub(super) struct Failures {
    status_5xx: u64,
    connect_failed: u64,
    connect_timed_out: u64,
    no_answer: u64,
}

impl Failures {
    /// `3 with status 5xx`; empty when none is known.
    pub(super) fn words(self) -> String {
        let counts = [
            (self.status_5xx, "with status 5xx"),
            (self.connect_failed, "without a connection (refused or unreachable)"),
            (self.connect_timed_out, "without a connection in time"),
            (self.no_answer, "without an answer (cut off, too late or no HTTP)"),
        ];
        let told = counts.into_iter().filter(|(count, _)| *count > 0);
        told.map(|(count, how)| format!("{count} {how}")).collect::<Vec<_>>().join(", ")
    }
}

/// Something is odd about an upstream though it is neither down nor ejected.
#[derive(Clone, Deserialize)]
pub(super) struct Alarm {
    kind: String,
    detail: String,
}

impl Sample {
    /// Asks the side port. The counters are as of `now`.
    pub(super) fn take(client: &Client, now: impl FnOnce() -> Duration) -> Result<Self, Failure> {
        let status = client.ask(&Ask::get("/v1/status"))?.view()?;
        let durations = client.ask(&Ask::get("/v1/stats/durations")).and_then(|answer| answer.view()).ok();
        let pools = client.ask(&Ask::get("/v1/pools"))?;
        let at = now();
        let Pools { pools } = pools.view()?;
        Ok(Self { at, status, pools, durations })
    }

    /// Whether `earlier` is of a process whose counters this one goes on with.
    pub(super) fn follows(&self, earlier: &Self) -> bool {
        let (now, then) = (&self.status, &earlier.status);
        let is_heir = now.pid == then.pid || now.predecessor == Some(then.pid);
        is_heir && now.totals.requests >= then.totals.requests
    }
}

/// Whether there is one, whatever it is.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    Ok(!Value::deserialize(deserializer)?.is_null())
}

fn headline<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let value = Value::deserialize(deserializer)?;
    // One that we do not understand is not worth losing everything else.
    Ok(serde_json::from_value::<Guard>(value).ok().map(|guard| guard.headline()))
}

impl Alarm {
    /// `stale estimate`
    pub(super) fn word(&self) -> String {
        self.kind.replace('_', " ")
    }

    /// With the figures.
    pub(super) fn sentence(&self) -> String {
        format!("{}: {}", self.word(), self.detail)
    }
}
