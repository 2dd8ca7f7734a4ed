//! Is the process alive, and does it want traffic? For those who start, stop and route to it.

use std::sync::Arc;

use axum::extract::State;
use axum::response::IntoResponse;
use http::StatusCode;

use super::answer::Json;
use super::views::HealthView;
use crate::control::Control;
use crate::runtime::Phase;

/// `GET /livez` — 200 as long as anybody answers at all.
pub(super) async fn livez() -> &'static str {
    "ok\n"
}

/// `GET /readyz` — 200 when traffic is welcome; 503 before the first health checks are done, and from
/// the signal to stop on.
pub(super) async fn readyz(State(control): State<Arc<Control>>) -> impl IntoResponse {
    let text = match control.runtime().readiness.seen() {
        Phase::Starting => "starting: the first health checks are under way\n",
        Phase::Ready => "ready\n",
        Phase::Draining => "draining: requests in flight finish, new ones belong elsewhere\n",
    };
    (readiness(&control), text)
}

/// `GET /health` — as `/livez`, with what is known of the pools and the process.
pub(super) async fn health(State(control): State<Arc<Control>>) -> Json<HealthView> {
    Json(HealthView::of(&control))
}

/// `GET /health/ready` — as `/readyz`, with the same.
pub(super) async fn health_ready(State(control): State<Arc<Control>>) -> impl IntoResponse {
    (readiness(&control), Json(HealthView::of(&control)))
}

fn readiness(control: &Control) -> StatusCode {
    match control.runtime().readiness.seen() {
        Phase::Ready => StatusCode::OK,
        Phase::Starting | Phase::Draining => StatusCode::SERVICE_UNAVAILABLE,
    }
}
