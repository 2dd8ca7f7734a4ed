//! What runs.

use std::sync::Arc;

use axum::extract::State;
use serde::Serialize;

use super::answer::Json;
use super::views::{Condition, Figures, HealthView, ListenerFigures};
use crate::control::{Control, Guard, Outcome, Source};

/// `GET /v1/status`
pub(super) async fn show(State(control): State<Arc<Control>>) -> Json<StatusView> {
    Json(StatusView::of(&control))
}

#[derive(Serialize)]
pub(super) struct StatusView {
    version: &'static str,
    status: Condition,
    uptime_seconds: f64,
    /// Counts the configurations that ran, from 1.
    generation: u64,
    /// The configuration file; null when started without one.
    config: Option<String>,
    pid: u32,
    listeners: Vec<ListenerView>,
    routes: usize,
    pools: usize,
    upstreams: usize,
    totals: Figures,
    /// The change under guard; null when none is under way.
    guard: Option<Guard>,
}

#[derive(Serialize)]
struct ListenerView {
    name: String,
    address: String,
    connections: u64,
}

impl StatusView {
    fn of(control: &Control) -> Self {
        let runtime = control.runtime();
        let snapshot = runtime.snapshot();
        Self {
            version: env!("CARGO_PKG_VERSION"),
            status: HealthView::of(control).status,
            uptime_seconds: runtime.now().as_secs_f64(),
            generation: snapshot.generation,
            config: match control.source() {
                Source::File(path) => Some(path.display().to_string()),
                Source::Arguments => None,
            },
            pid: std::process::id(),
            listeners: runtime
                .listeners()
                .iter()
                .map(|listener| ListenerView {
                    name: listener.name.clone(),
                    address: listener.address.to_string(),
                    connections: ListenerFigures::of(listener, &snapshot).connections,
                })
                .collect(),
            routes: snapshot.routes().len(),
            pools: snapshot.pools().len(),
            upstreams: snapshot.pools().map(|pool| pool.upstreams().len()).sum(),
            totals: Figures::total(control, &snapshot),
            guard: control.guard().filter(|guard| guard.outcome == Outcome::Watching),
        }
    }
}
