//! Figures since the start: per listener, route, pool and upstream.

use std::sync::Arc;

use axum::extract::State;
use serde::Serialize;

use super::answer::Json;
use super::views::{Figures, ListenerFigures, PoolFigures, RouteFigures};
use crate::control::Control;

/// `GET /v1/stats`
pub(super) async fn show(State(control): State<Arc<Control>>) -> Json<StatsView> {
    Json(StatsView::of(&control))
}

#[derive(Serialize)]
pub(super) struct StatsView {
    uptime_seconds: f64,
    totals: Figures,
    listeners: Vec<ListenerFigures>,
    routes: Vec<RouteFigures>,
    pools: Vec<PoolFigures>,
}

impl StatsView {
    fn of(control: &Control) -> Self {
        let runtime = control.runtime();
        let snapshot = runtime.snapshot();
        Self {
            uptime_seconds: runtime.uptime().as_secs_f64(),
            totals: Figures::total(control, &snapshot),
            listeners: runtime
                .listeners()
                .iter()
                .map(|listener| ListenerFigures::of(listener, &snapshot))
                .collect(),
            routes: snapshot.routes().map(RouteFigures::of).collect(),
            pools: snapshot.pools().map(PoolFigures::of).collect(),
        }
    }
}
