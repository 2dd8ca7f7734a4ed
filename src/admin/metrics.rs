//! The same figures for Prometheus.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::IntoResponse;
use http::header::CONTENT_TYPE;

use super::views::{Standing, standings};
use crate::config::ListenerConfig;
use crate::control::Control;
use crate::health::Health;
use crate::observe::AccessLog;
use crate::observe::exposition::{self, CertificateView, PoolView, UpstreamView, View};
use crate::runtime::{Pool, Runtime, Snapshot};

/// `GET /metrics`
pub(super) async fn show(State(control): State<Arc<Control>>) -> impl IntoResponse {
    let runtime = control.runtime();
    let text = exposition::render(&view(runtime, &runtime.snapshot()));
    ([(CONTENT_TYPE, exposition::CONTENT_TYPE)], text)
}

fn view<'a>(runtime: &'a Runtime, snapshot: &'a Snapshot) -> View<'a> {
    let now = runtime.now();
    let listeners = runtime.listeners().iter();
    let routes = snapshot.routes();
    View {
        listeners: listeners.map(|listener| (listener.name.as_str(), &listener.metrics)).collect(),
        certificates: snapshot.config.listeners.iter().flat_map(view_certificates).collect(),
        routes: routes.map(|route| (route.config.name.as_str(), &*route.metrics)).collect(),
        pools: snapshot.pools().map(|pool| view_pool(pool, now)).collect(),
        process: &runtime.metrics,
        access_log_dropped: runtime.access_log.as_ref().map_or(0, AccessLog::dropped),
        spans: &runtime.spans,
    }
}

fn view_certificates(listener: &ListenerConfig) -> impl Iterator<Item = CertificateView<'_>> {
    let certificates = listener.tls.iter().flat_map(|tls| &tls.certificates);
    certificates.map(|certificate| CertificateView {
        listener: &listener.name,
        file: &certificate.certificate,
        not_after: certificate.not_after,
    })
}

fn view_pool(pool: &Pool, now: Duration) -> PoolView<'_> {
    PoolView {
        name: &pool.config.name,
        metrics: &pool.state.metrics,
        upstreams: standings(pool, now).into_iter().map(view_upstream).collect(),
    }
}

fn view_upstream(standing: Standing<'_>) -> UpstreamView<'_> {
    let upstream = standing.upstream;
    UpstreamView {
        address: upstream.config.address.to_string(),
        metrics: &upstream.state.metrics,
        in_flight: upstream.state.load.in_flight(),
        is_checked: upstream.is_checked,
        // Whoever is not asked cannot be down.
        up: !upstream.is_checked || upstream.state.verdict.health() == Health::Up,
        eligible: standing.why_not.is_none(),
    }
}
