//! The operator's door: what is running, and why, in JSON and for Prometheus.
//!
//! ```text
//!   connection.rs ──► guard.rs ──► routes.rs ──► one file per resource ──► views/
//!   (bounded, hyper)   (who asks?)   (the index)    (a few lines each)       (the JSON)
//! ```
//!
//! - `GET /livez`, `/readyz`, and with a body `/health`, `/health/ready`
//! - `GET /metrics` for Prometheus
//! - `GET /v1/status`, `/v1/stats`
//! - `PUT /v1/config`, `POST /v1/config/check`, `POST /v1/config/confirm`, `GET /v1/config/guard`
//! - `GET /v1/pools`, `/v1/pools/{pool}`, `/v1/pools/{pool}/upstreams/{address}`
//! - `GET /v1/pools/{pool}/next`, `POST /v1/pools/{pool}/health-check`
//! - `GET /v1/explain?host=&method=&path=&header=`
//! - `GET /openapi.json`: all of this, machine-readable
//! - `GET /api/infrastructure/…`, `/api/monitoring/…`: the same in the platform's words
//!
//! It has a thread of its own, so it answers while traffic is saturated. There are no tokens in this
//! version, so it listens on loopback only, and turns away what a browser sends on behalf of a
//! stranger's page. Every refusal is a `Problem`.
//!
//! **To add a resource**: its file after the pattern of `status.rs`, its line in `routes.rs`, its entry
//! in `openapi.json`; tests compare the three.

mod answer;
mod connection;
mod explain;
mod extract;
mod guard;
mod guarded;
mod health_check;
mod infrastructure;
mod lifecycle;
mod metrics;
mod monitoring;
mod next;
mod openapi;
mod plan;
mod pools;
mod problem;
mod reload;
mod routes;
mod stats;
mod status;
#[cfg(test)]
mod tests;
mod views;
mod write;

use std::sync::Arc;

use pingora::services::listening::Service;

pub use connection::AdminApp;

use crate::control::Control;

/// Threads of the side port. One answers thousands of questions a second, and takes nothing from
/// traffic.
const THREADS: usize = 1;

/// The side port, as a service that listens on `admin.address`.
pub fn service(control: Arc<Control>) -> Service<AdminApp> {
    let address = control.runtime().peek().config.admin.address.to_string();
    let mut service = Service::new("admin".to_owned(), AdminApp::new(control));
    service.threads = Some(THREADS);
    service.add_tcp(&address);
    service
}
