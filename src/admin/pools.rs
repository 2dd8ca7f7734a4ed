//! Pools and their upstreams.

use std::sync::Arc;

use axum::extract::State;
use serde::Serialize;

use super::answer::Tagged;
use super::extract::{Path, find_pool};
use super::problem::Problem;
use super::views::{PoolView, Sources, UpstreamView, standing_of, standings, upstreams};
use crate::control::Control;

#[derive(Serialize)]
pub(super) struct PoolsView {
    pools: Vec<PoolView>,
}

#[derive(Serialize)]
pub(super) struct UpstreamsView {
    upstreams: Vec<UpstreamView>,
}

/// `GET /v1/pools` — all of them, in the order of the configuration, whose entity tag they have together.
pub(super) async fn list(State(control): State<Arc<Control>>) -> Tagged<PoolsView> {
    let (running, snapshot) = (control.running(), control.runtime().snapshot());
    let (sources, now) = (Sources::new(control.source(), &running), control.runtime().now());
    let pools = snapshot.pools().map(|pool| PoolView::of(pool, &sources, now)).collect();
    Tagged::new(control.tag_of(snapshot.generation), PoolsView { pools })
}

/// `GET /v1/pools/{pool}`
pub(super) async fn show_pool(
    State(control): State<Arc<Control>>,
    Path(pool): Path<String>,
) -> Result<Tagged<PoolView>, Problem> {
    tagged_pool(&control, &pool)
}

/// `GET /v1/pools/{pool}/upstreams`
pub(super) async fn list_upstreams(
    State(control): State<Arc<Control>>,
    Path(pool): Path<String>,
) -> Result<Tagged<UpstreamsView>, Problem> {
    let (running, snapshot) = (control.running(), control.runtime().snapshot());
    let (sources, now) = (Sources::new(control.source(), &running), control.runtime().now());
    let pool = find_pool(&snapshot, &pool)?;
    let upstreams = upstreams(&standings(pool, now), &sources, now);
    Ok(Tagged::new(control.pool_tag(pool), UpstreamsView { upstreams }))
}

/// `GET /v1/pools/{pool}/upstreams/{address}` — the address as in the configuration; `unix:/run/app.sock`
/// is written `unix:%2Frun%2Fapp.sock` in a path.
pub(super) async fn show_upstream(
    State(control): State<Arc<Control>>,
    Path((pool, address)): Path<(String, String)>,
) -> Result<Tagged<UpstreamView>, Problem> {
    tagged_upstream(&control, &pool, &address)
}

/// A pool as it is now.
pub(super) fn tagged_pool(control: &Control, pool: &str) -> Result<Tagged<PoolView>, Problem> {
    let (running, snapshot) = (control.running(), control.runtime().snapshot());
    let sources = Sources::new(control.source(), &running);
    let pool = find_pool(&snapshot, pool)?;
    Ok(Tagged::new(control.pool_tag(pool), PoolView::of(pool, &sources, control.runtime().now())))
}

/// An upstream as it is now, with the tag of its pool.
pub(super) fn tagged_upstream(
    control: &Control,
    pool: &str,
    address: &str,
) -> Result<Tagged<UpstreamView>, Problem> {
    let (running, snapshot) = (control.running(), control.runtime().snapshot());
    let (sources, now) = (Sources::new(control.source(), &running), control.runtime().now());
    let found = find_pool(&snapshot, pool)?;
    let standing =
        standing_of(found, address, now).ok_or_else(|| Problem::unknown_upstream(pool, address))?;
    Ok(Tagged::new(control.pool_tag(found), UpstreamView::of(standing, &sources, now)))
}
