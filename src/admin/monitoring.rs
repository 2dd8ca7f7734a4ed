//! The process in the words of the platform's monitoring.

use std::sync::Arc;

use axum::extract::State;
use serde::Serialize;

use super::answer::Json;
use super::views::{Figures, HealthView, RouteFigures, now_utc};
use crate::control::Control;

/// `GET /api/monitoring/health`
pub(super) async fn health(State(control): State<Arc<Control>>) -> Json<MonitoringHealth> {
    Json(MonitoringHealth { health: HealthView::of(&control), app: AppView::of(&control) })
}

/// `GET /api/monitoring/metrics` — the same figures in full; an endpoint is a route.
pub(super) async fn metrics(State(control): State<Arc<Control>>) -> Json<MonitoringMetrics> {
    let snapshot = control.runtime().snapshot();
    Json(MonitoringMetrics {
        timestamp: now_utc(),
        app: AppView::of(&control),
        endpoints: snapshot.routes().map(RouteFigures::of).map(EndpointView::from).collect(),
    })
}

#[derive(Serialize)]
pub(super) struct MonitoringHealth {
    #[serde(flatten)]
    health: HealthView,
    app: AppView,
}

#[derive(Serialize)]
pub(super) struct MonitoringMetrics {
    timestamp: String,
    app: AppView,
    endpoints: Vec<EndpointView>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AppView {
    requests: u64,
    errors: u64,
    error_rate: f64,
    /// Milliseconds; null before the first answer.
    avg_response_time: Option<f64>,
    /// Seconds.
    uptime: u64,
}

/// Times are in milliseconds, null before the first answer.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct EndpointView {
    endpoint: String,
    count: u64,
    errors: u64,
    error_rate: f64,
    total: Option<f64>,
    min: Option<f64>,
    max: Option<f64>,
    avg: Option<f64>,
}

impl AppView {
    fn of(control: &Control) -> Self {
        let runtime = control.runtime();
        let total = Figures::total(control, &runtime.snapshot());
        Self {
            requests: total.requests,
            errors: total.errors,
            error_rate: total.error_rate,
            avg_response_time: total.latency_ms.avg,
            uptime: runtime.uptime().as_secs(),
        }
    }
}

impl From<RouteFigures> for EndpointView {
    fn from(RouteFigures { name, figures }: RouteFigures) -> Self {
        let latency = figures.latency_ms;
        Self {
            endpoint: name,
            count: figures.requests,
            errors: figures.errors,
            error_rate: figures.error_rate,
            total: latency.total,
            min: latency.min,
            max: latency.max,
            avg: latency.avg,
        }
    }
}
