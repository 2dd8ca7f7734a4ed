//! The operator's door: what is running, and why, in JSON and for Prometheus.
//!
//! ```text
//!   connection.rs ──► guard.rs ──► routes.rs ──► one file per resource ──► views/
//!   (bounded, hyper)  │(who asks?)   (the index)    (a few lines each)       (the JSON)
//!                     └► auth.rs, audit.rs
//! ```
//!
//! - `GET /livez`, `/readyz`, and with a body `/health`, `/health/ready`
//! - `GET /metrics` for Prometheus
//! - `GET /v1/status`, `/v1/stats`
//! - `GET`, `PUT /v1/config`, `POST /v1/config/check`, `/v1/config/rollback`, `GET /v1/config/history`
//! - `POST /v1/config/confirm`, `GET /v1/config/guard`
//! - `POST /v1/upgrade?timeout=`
//! - `POST /v1/reload`, `GET`, `DELETE /v1/overrides`, `GET /v1/events`
//! - `GET /v1/pools`, `/v1/pools/{pool}`, `/v1/pools/{pool}/upstreams`, `…/upstreams/{address}`
//! - `PATCH /v1/pools/{pool}`, `POST` and `PUT …/upstreams`, `PATCH` and `DELETE …/upstreams/{address}`
//! - `POST /v1/pools/{pool}/upstreams/{address}/drain?wait=`
//! - `GET /v1/pools/{pool}/next`, `POST /v1/pools/{pool}/health-check`
//! - `GET /v1/explain?host=&method=&path=&header=`
//! - `GET /openapi.json`: all of this, machine-readable
//! - `GET /api/infrastructure/…`, `/api/monitoring/…`: the same in the platform's words
//!
//! It has a thread of its own, so it answers while traffic is saturated. Without tokens it listens on
//! loopback only; with tokens, each path says in `routes.rs` what it wants of those who ask. What a
//! browser sends on behalf of a stranger's page is turned away. Every refusal is a `Problem`, and every
//! write leaves a line in the audit log.
//!
//! **To add a resource**: its file after the pattern of `status.rs`, its line in `routes.rs` with the scope
//! that writing there needs, its entry in `openapi.json`; tests compare the three.

mod accept;
mod answer;
mod audit;
mod auth;
mod brake;
mod config;
mod connection;
mod drain;
mod events;
mod explain;
mod extract;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod guard;
mod guarded;
mod health_check;
mod history;
mod impatient;
mod infrastructure;
mod lifecycle;
mod member;
mod metrics;
mod monitoring;
mod next;
mod openapi;
mod overrides;
mod pieces;
mod places;
mod plan;
mod pool_edit;
mod pools;
mod problem;
mod reload;
mod routes;
mod stats;
mod status;
#[cfg(test)]
mod tests;
mod upgrade;
mod upstream_edit;
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
