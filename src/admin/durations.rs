//! How long requests took, so that one who asks twice can say how long they took in between.

use std::sync::Arc;

use axum::extract::State;

use super::answer::Json;
use crate::control::Control;
use crate::observe::HistogramSnapshot;

/// `GET /v1/stats/durations` — all requests that found a route since the start, as a histogram: what was counted
/// at one time, less what was counted before, is what came in between.
pub(super) async fn show(State(control): State<Arc<Control>>) -> Json<HistogramSnapshot> {
    let snapshot = control.runtime().snapshot();
    Json(HistogramSnapshot::merged(snapshot.routes().map(|route| route.metrics.duration())))
}
