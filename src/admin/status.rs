//! What runs.

use std::sync::Arc;

use axum::extract::State;
use serde::Serialize;

use super::answer::Json;
use super::auth::Identity;
use super::config::path_of;
use super::views::{Condition, Figures, HealthView, ListenerFigures, NamedAlarmView};
use crate::config::CertificateConfig;
use crate::control::{Control, Guard, Outcome, Refusal};
use crate::observe::utc;
use crate::runtime::{Listener, Snapshot};

/// `GET /v1/status`
pub(super) async fn show(State(control): State<Arc<Control>>, you: Identity) -> Json<StatusForYou> {
    Json(StatusForYou { status: StatusView::of(&control), you: you.into() })
}

#[derive(Serialize)]
pub(super) struct StatusForYou {
    #[serde(flatten)]
    status: StatusView,
    you: You,
}

/// Who asks, as the side port knows them.
#[derive(Serialize)]
struct You {
    /// The token's name, or `loopback`.
    name: String,
    /// What the token allows.
    scope: &'static str,
}

impl From<Identity> for You {
    fn from(Identity { name, scope, .. }: Identity) -> Self {
        Self { name: name.to_string(), scope: scope.word() }
    }
}

#[derive(Serialize)]
pub(super) struct StatusView {
    version: &'static str,
    status: Condition,
    uptime_seconds: f64,
    /// Counts the configurations that ran, from 1.
    generation: u64,
    /// Entity tag of the configuration.
    etag: String,
    /// The configuration file; null when started without one.
    config: Option<String>,
    /// How many settings were changed at run time and differ from the file.
    overrides: usize,
    /// The latest text that was refused for what it says, if none was applied since.
    last_refusal: Option<RefusalView>,
    pid: u32,
    /// The file that the process was started from, and a successor would be.
    executable: String,
    /// The process that handed over to this one; null when it was started anew.
    predecessor: Option<u32>,
    /// The latest upgrade that failed.
    last_failed_upgrade: Option<RefusalView>,
    listeners: Vec<ListenerView>,
    routes: usize,
    pools: usize,
    upstreams: usize,
    totals: Figures,
    /// Those that stand, the first hundred.
    alarms: Vec<NamedAlarmView>,
    /// The change under guard; null when none is under way.
    guard: Option<Guard>,
    /// Null when there is none.
    access_log: Option<AccessLogView>,
}

#[derive(Serialize)]
struct AccessLogView {
    /// Lines that were lost since the start.
    dropped: u64,
}

#[derive(Serialize)]
struct RefusalView {
    at: String,
    who: String,
    reason: String,
}

impl From<Refusal> for RefusalView {
    fn from(Refusal { at, who, reason, .. }: Refusal) -> Self {
        Self { at, who, reason }
    }
}

#[derive(Serialize)]
struct ListenerView {
    name: String,
    address: String,
    connections: u64,
    /// Those that it shows to clients; empty: it speaks no TLS.
    certificates: Vec<CertificateView>,
    /// Connections that are a WebSocket.
    upgraded_connections: u64,
}

#[derive(Serialize)]
struct CertificateView {
    file: String,
    names: Vec<String>,
    not_after: String,
}

impl From<&CertificateConfig> for CertificateView {
    fn from(certificate: &CertificateConfig) -> Self {
        let CertificateConfig { certificate: file, names, not_after, .. } = certificate;
        Self { file: file.clone(), names: names.clone(), not_after: utc(*not_after) }
    }
}

impl ListenerView {
    fn of(listener: &Listener, snapshot: &Snapshot) -> Self {
        let tls = snapshot.config.listeners.get(listener.index).and_then(|config| config.tls.as_ref());
        let certificates = tls.iter().flat_map(|tls| &tls.certificates);
        Self {
            name: listener.name.clone(),
            address: listener.address.to_string(),
            connections: ListenerFigures::of(listener, snapshot).connections,
            certificates: certificates.map(CertificateView::from).collect(),
            upgraded_connections: listener.metrics.upgraded_connections(),
        }
    }
}

impl StatusView {
    pub(super) fn of(control: &Control) -> Self {
        let runtime = control.runtime();
        let snapshot = runtime.snapshot();
        Self {
            version: env!("CARGO_PKG_VERSION"),
            status: HealthView::of(control).status,
            uptime_seconds: runtime.uptime().as_secs_f64(),
            generation: snapshot.generation,
            etag: control.tag_of(snapshot.generation),
            config: path_of(control),
            overrides: control.running().overrides.len(),
            last_refusal: control.refusal().map(RefusalView::from),
            pid: std::process::id(),
            executable: control.succession().executable().display().to_string(),
            predecessor: control.succession().predecessor(),
            last_failed_upgrade: control.succession().failure().map(RefusalView::from),
            listeners: runtime
                .listeners()
                .iter()
                .map(|listener| ListenerView::of(listener, &snapshot))
                .collect(),
            routes: snapshot.routes().len(),
            pools: snapshot.pools().len(),
            upstreams: snapshot.pools().map(|pool| pool.upstreams().len()).sum(),
            totals: Figures::total(control, &snapshot),
            alarms: NamedAlarmView::all(&snapshot),
            guard: control.guard().filter(|guard| guard.outcome == Outcome::Watching),
            access_log: runtime.access_log.as_ref().map(|log| AccessLogView { dropped: log.dropped() }),
        }
    }
}
