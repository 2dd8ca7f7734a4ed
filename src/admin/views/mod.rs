//! What the side port says, as JSON: built from the running snapshot, shared by all paths.
//!
//! Times are RFC 3339 in UTC, durations end in their unit, ratios are 0 to 1, what is not known is null.

mod alarm;
mod figures;
mod health;
mod live;
mod pick;
mod pool;
mod request;
mod score;
mod upstream;

use std::time::{Duration, SystemTime};

pub(super) use alarm::{AlarmView, NamedAlarmView};
pub(super) use figures::{Figures, ListenerFigures, PoolFigures, RouteFigures, UpstreamFigures, rate};
pub(super) use health::{Condition, HealthView};
pub(super) use live::LiveView;
pub(super) use pick::{PickView, preview};
pub(super) use pool::{PoolView, upstreams};
pub(super) use request::{RequestLine, RequestView, RouteTaken};
pub(super) use upstream::{CandidateView, Sources, Standing, UpstreamView, standing_of, standings};

pub(super) use crate::observe::utc;

/// The time now, RFC 3339.
pub(super) fn now_utc() -> String {
    utc(SystemTime::now())
}

/// Milliseconds with microseconds behind the point.
pub(super) fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}
