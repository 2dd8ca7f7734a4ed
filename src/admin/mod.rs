//! The operator's door: what is running, and why, in JSON and for Prometheus.
//!
//! ```text
//!   connection.rs ──► guard.rs ──► routes.rs ──► one file per resource ──► views/
//!   (bounded, hyper)  │(who asks?)   (the index)    (a few lines each)       (the JSON)
//!                     └► auth.rs, audit.rs
//! ```
//!
//! - `GET /`: the dashboard, `GET /v1/live`: what it draws
//! - `GET /livez`, `/readyz`, and with a body `/health`, `/health/ready`
//! - `GET /metrics` for Prometheus
//! - `GET /v1/status`, `/v1/stats`, `/v1/stats/durations`, `/v1/stats/history?window=&step=&of=`
//! - `GET`, `PUT /v1/config`, `POST /v1/config/check`, `/v1/config/rollback`, `GET /v1/config/history`
//! - `POST /v1/config/confirm`, `GET /v1/config/guard`
//! - `POST /v1/upgrade?timeout=`
//! - `POST /v1/reload`, `GET`, `DELETE /v1/overrides`, `GET /v1/events`
//! - `GET /v1/pools`, `/v1/pools/{pool}`, `/v1/pools/{pool}/upstreams`, `…/upstreams/{address}`
//! - `PATCH /v1/pools/{pool}`, `POST` and `PUT …/upstreams`, `PATCH` and `DELETE …/upstreams/{address}`
//! - `POST /v1/pools/{pool}/upstreams/{address}/drain?wait=`
//! - `GET /v1/pools/{pool}/upstreams/{address}/timeline`
//! - `GET /v1/pools/{pool}/next`, `POST /v1/pools/{pool}/health-check`
//! - `GET /v1/explain?host=&method=&path=&header=`, `/v1/explain/{request_id}`, `/v1/requests`
//! - `GET /v1/self-check`
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
mod analytics;
mod answer;
mod audit;
mod auth;
mod brake;
mod config;
mod connection;
mod dashboard;
mod drain;
mod durations;
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
mod live;
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
mod requests;
mod routes;
mod self_check;
mod stats;
mod stats_history;
mod status;
#[cfg(test)]
mod tests;
mod timeline;
mod upgrade;
mod upstream_edit;
mod views;
mod write;

use std::future::pending;
use std::sync::Arc;

use async_trait::async_trait;
use pingora::server::{ListenFds, ShutdownWatch};
use pingora::services::Service;
use pingora::services::listening::Service as Listening;
use tokio::sync::watch;

pub use connection::AdminApp;
pub use explain::HeadCheck;

use crate::control::Control;

/// Threads of the side port. One answers thousands of questions a second, and takes nothing from
/// traffic.
const THREADS: usize = 1;

/// The side port, as a service that listens on `admin.address`.
///
/// It outlives the listeners for traffic: while the process drains, this is where one sees what it still waits
/// for. After a handover it stops with them, since the successor answers.
pub struct SidePort {
    listening: Listening<AdminApp>,
    control: Arc<Control>,
}

impl SidePort {
    /// For what `control` runs; `check` is what the traffic's door asks of a head.
    pub fn new(control: Arc<Control>, check: HeadCheck) -> Self {
        let address = control.runtime().peek().config.admin.address.to_string();
        let mut listening = Listening::new("admin".to_owned(), AdminApp::new(control.clone(), check));
        listening.threads = Some(THREADS);
        listening.add_tcp(&address);
        Self { listening, control }
    }
}

#[async_trait]
impl Service for SidePort {
    async fn start_service(
        &mut self,
        sockets: Option<ListenFds>,
        mut shutdown: ShutdownWatch,
        listeners_per_socket: usize,
    ) {
        let (leave, leaving) = watch::channel(false);
        let succession = self.control.succession();
        let successor_serves = async {
            // An error means that the server is gone, and the process with it.
            let _ = shutdown.wait_for(|is_stopping| *is_stopping).await;
            if succession.is_handed_over() {
                leave.send_replace(true);
            }
            pending::<()>().await;
        };
        tokio::select! {
            () = self.listening.start_service(sockets, leaving, listeners_per_socket) => {}
            () = successor_serves => {}
        }
    }

    fn name(&self) -> &str {
        self.listening.name()
    }

    fn threads(&self) -> Option<usize> {
        self.listening.threads()
    }
}
