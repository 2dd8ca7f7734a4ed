//! Pools and their upstreams.

use std::sync::Arc;

use axum::extract::State;
use serde::Serialize;

use super::answer::Json;
use super::extract::{Path, find_pool};
use super::problem::Problem;
use super::views::{PoolView, UpstreamView, standing_of};
use crate::control::Control;

#[derive(Serialize)]
pub(super) struct PoolsView {
    pools: Vec<PoolView>,
}

/// `GET /v1/pools` — all of them, in the order of the configuration.
pub(super) async fn list(State(control): State<Arc<Control>>) -> Json<PoolsView> {
    let snapshot = control.runtime().snapshot();
    Json(PoolsView { pools: snapshot.pools().map(|pool| PoolView::of(pool, &control)).collect() })
}

/// `GET /v1/pools/{pool}`
pub(super) async fn show_pool(
    State(control): State<Arc<Control>>,
    Path(pool): Path<String>,
) -> Result<Json<PoolView>, Problem> {
    let snapshot = control.runtime().snapshot();
    Ok(Json(PoolView::of(find_pool(&snapshot, &pool)?, &control)))
}

/// `GET /v1/pools/{pool}/upstreams/{address}` — the address as in the configuration; `unix:/run/app.sock`
/// is written `unix:%2Frun%2Fapp.sock` in a path.
pub(super) async fn show_upstream(
    State(control): State<Arc<Control>>,
    Path((pool, address)): Path<(String, String)>,
) -> Result<Json<UpstreamView>, Problem> {
    let snapshot = control.runtime().snapshot();
    let now = control.runtime().now();
    let standing = standing_of(find_pool(&snapshot, &pool)?, &address, now)
        .ok_or_else(|| Problem::unknown_upstream(&pool, &address))?;
    Ok(Json(UpstreamView::of(standing, &control, now)))
}
