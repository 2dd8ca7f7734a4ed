//! What became of one upstream, and why.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use serde::Serialize;

use super::answer::Json;
use super::extract::{Parameters, Path, find_upstream};
use super::problem::Problem;
use super::views::{milliseconds, utc};
use crate::control::Control;
use crate::observe::timeline::{ENTRIES_MAX, Lasted, Moment};
use crate::runtime::UpstreamState;

/// `GET /v1/pools/{pool}/upstreams/{address}/timeline` — its latest transitions, oldest first.
pub(super) async fn show(
    State(control): State<Arc<Control>>,
    Path((pool, address)): Path<(String, String)>,
    parameters: Parameters,
) -> Result<Json<TimelineView>, Problem> {
    parameters.finish()?;
    let runtime = control.runtime();
    let state = find_upstream(&runtime.snapshot(), &pool, &address)?;
    Ok(Json(TimelineView::of(&state, runtime.now())))
}

#[derive(Serialize)]
pub(super) struct TimelineView {
    pool: String,
    address: String,
    /// Older entries than so many are gone.
    entries_max: usize,
    entries: Vec<EntryView>,
}

#[derive(Serialize)]
struct EntryView {
    at: String,
    kind: &'static str,
    from: String,
    to: String,
    cause: String,
    /// How often it came, in turns with its opposite.
    times: u32,
    last_at: String,
    /// Until the next of the same kind, or until now; all times together.
    duration_ms: f64,
    /// It still holds.
    is_current: bool,
    share_before: Option<f64>,
}

impl TimelineView {
    fn of(state: &UpstreamState, now: Duration) -> Self {
        let entries = state.timeline.lasted(Moment::now(now));
        Self {
            pool: state.pool.clone(),
            address: state.address.to_string(),
            entries_max: ENTRIES_MAX,
            entries: entries.into_iter().map(EntryView::from).collect(),
        }
    }
}

impl From<Lasted> for EntryView {
    fn from(Lasted { entry, duration, is_current }: Lasted) -> Self {
        Self {
            at: utc(entry.at.wall()),
            kind: entry.track.word(),
            times: entry.times(),
            last_at: utc(entry.last().wall()),
            from: entry.from.into_owned(),
            to: entry.to.into_owned(),
            cause: entry.cause.into_owned(),
            duration_ms: milliseconds(duration),
            is_current,
            // To the thousandth: more digits say nothing.
            share_before: entry.share.map(|share| (f64::from(share) * 1e3).round() / 1e3),
        }
    }
}
