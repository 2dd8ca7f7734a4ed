//! The same figures for Prometheus.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use flate2::Compression;
use flate2::write::GzEncoder;
use http::HeaderMap;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, VARY};

use super::views::{Standing, standings};
use crate::config::ListenerConfig;
use crate::control::Control;
use crate::health::{Health, WhyNot};
use crate::observe::AccessLog;
pub(super) use crate::observe::exposition::UNROUTED;
use crate::observe::exposition::{self, CertificateView, PoolView, UpstreamView, View};
use crate::runtime::{Pool, Snapshot};

/// `GET /metrics`
pub(super) async fn show(State(control): State<Arc<Control>>, headers: HeaderMap) -> Response {
    let text = text(&control);
    let named = [(CONTENT_TYPE, exposition::CONTENT_TYPE), (VARY, "accept-encoding")];
    match takes_gzip(&headers).then(|| gzipped(&text)) {
        Some(Ok(bytes)) => (named, [(CONTENT_ENCODING, "gzip")], bytes).into_response(),
        _ => (named, text).into_response(),
    }
}

/// The whole text.
pub(super) fn text(control: &Control) -> String {
    text_of(control, &control.runtime().snapshot())
}

/// The same, of what is configured in this snapshot.
pub(super) fn text_of(control: &Control, snapshot: &Snapshot) -> String {
    exposition::render(&view(control, snapshot))
}

/// Whether somebody who sends these headers reads gzip, as Prometheus does: a scrape repeats its names thousands of
/// times, and shrinks to a few percent.
fn takes_gzip(headers: &HeaderMap) -> bool {
    let values = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|coding| {
        let (name, weight) = coding.split_once(';').unwrap_or((coding, ""));
        let is_refused =
            weight.trim().strip_prefix("q=").is_some_and(|q| q.parse::<f32>().is_ok_and(|q| q <= 0.0));
        name.trim().eq_ignore_ascii_case("gzip") && !is_refused
    })
}

/// At the level that costs least: the rest of the way down saves little more.
fn gzipped(text: &str) -> io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(text.len() / 10), Compression::fast());
    encoder.write_all(text.as_bytes())?;
    encoder.finish()
}

fn view<'a>(control: &'a Control, snapshot: &'a Snapshot) -> View<'a> {
    let runtime = control.runtime();
    let now = runtime.now();
    let listeners = runtime.listeners().iter();
    let routes = snapshot.routes();
    View {
        listeners: listeners.map(|listener| (listener.name.as_str(), &listener.metrics)).collect(),
        certificates: snapshot.config.listeners.iter().flat_map(view_certificates).collect(),
        routes: routes.map(|route| (route.config.name.as_str(), &*route.metrics)).collect(),
        pools: snapshot.pools().map(|pool| view_pool(pool, now)).collect(),
        process: &runtime.metrics,
        last_change_applied: control.refusal().is_none_or(|refusal| !refusal.is_of_file),
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
        queued: pool.state.queue.len(),
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
        weight: upstream.config.weight,
        why_not: standing.why_not.map(WhyNot::text),
        alarms: upstream.state.alarms.raised().iter().map(|alarm| alarm.kind.word()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_for_those_who_ask_for_it() {
        let takes = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.extend(value.parse().ok().map(|value| (ACCEPT_ENCODING, value)));
            takes_gzip(&headers)
        };
        for value in ["gzip", "gzip;q=1.0", "deflate, GZIP ; q=0.5", "br,gzip"] {
            assert!(takes(value), "{value}");
        }
        for value in ["", "identity", "gzip;q=0", "gzip; q=0.0, br", "x-gzipped"] {
            assert!(!takes(value), "{value}");
        }
        assert!(!takes_gzip(&HeaderMap::new()));
    }
}
