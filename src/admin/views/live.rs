//! What a dashboard draws: the other views cut down, nulls left out.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::figures::Latency;
use super::upstream::{CheckView, FailuresView, FlappingView, ejected_until};
use super::{AlarmView, Figures, Sources, Standing, UpstreamFigures, milliseconds, now_utc, standings};
use crate::admin::status::StatusView;
use crate::config::ProbeConfig;
use crate::control::Control;
use crate::health::{Health, WhyNot};
use crate::observe::{HistogramSnapshot, ProcessFigures, Reason, RetryReason};
use crate::runtime::{Pool, Snapshot};

/// Everything at one moment.
#[derive(Serialize)]
pub(in crate::admin) struct LiveView {
    at: String,
    status: StatusView,
    /// Of all requests of the last ten seconds; null at the first look.
    latency_ms: Option<Latency>,
    /// Requests that were refused or failed, by reason, since the start; those that never happened are left out.
    reasons: BTreeMap<&'static str, u64>,
    /// What clients got, by the same reasons.
    statuses: BTreeMap<&'static str, u16>,
    process: ProcessFigures,
    pools: Vec<LivePool>,
}

#[derive(Serialize)]
struct LivePool {
    name: String,
    strategy: &'static str,
    eligible: usize,
    waiting: usize,
    waiting_max: usize,
    /// Requests for it that are over, those included that nobody could be found for.
    requests: u64,
    /// Those of them that failed, as clients saw them.
    errors: u64,
    /// Attempts that failed and were made again, at another upstream as a rule.
    retries: u64,
    /// What is asked; null: nobody is asked how they are.
    health_check: Option<String>,
    /// Passes in a row that turn down into up.
    #[serde(skip_serializing_if = "Option::is_none")]
    rise: Option<u32>,
    upstreams: Vec<LiveUpstream>,
}

/// An upstream as `GET /v1/pools` shows it, without what is as usual: no word is "no", "none" or the default.
#[derive(Serialize)]
struct LiveUpstream {
    address: String,
    weight: u16,
    state: &'static str,
    health: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    why_not: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    why_not_detail: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    why_not_since: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ejected_until: Option<String>,
    in_flight: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_connections: Option<u32>,
    requests: u64,
    errors: u64,
    #[serde(skip_serializing_if = "FailuresView::is_none")]
    failures: FailuresView,
    #[serde(skip_serializing_if = "Option::is_none")]
    ewma_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    p50_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    p99_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_check: Option<CheckView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    flapping: Option<FlappingView>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    alarms: Vec<AlarmView>,
    #[serde(skip_serializing_if = "is_zero")]
    consecutive_failures: u32,
    #[serde(skip_serializing_if = "is_false")]
    backup: bool,
    #[serde(skip_serializing_if = "is_false")]
    overridden: bool,
}

impl LiveView {
    /// `lately` is how long the requests of the last seconds took.
    pub(in crate::admin) fn of(
        control: &Control,
        snapshot: &Snapshot,
        lately: Option<&HistogramSnapshot>,
    ) -> Self {
        let (running, now) = (control.running(), control.runtime().now());
        let sources = Sources::new(control.source(), &running);
        let reasons = reasons(control, snapshot);
        Self {
            at: now_utc(),
            status: StatusView::of(control),
            latency_ms: lately.map(Latency::of),
            statuses: reasons.keys().filter_map(|word| Some((*word, status_of(word)?))).collect(),
            reasons,
            process: ProcessFigures::read(),
            pools: snapshot.pools().map(|pool| LivePool::of(pool, &sources, now)).collect(),
        }
    }
}

fn reasons(control: &Control, snapshot: &Snapshot) -> BTreeMap<&'static str, u64> {
    let count = |reason| {
        let routed: u64 = snapshot.routes().map(|route| route.metrics.refusals(reason)).sum();
        routed + control.runtime().metrics.refusals(reason)
    };
    let counts = Reason::ALL.into_iter().map(|reason| (reason.word(), count(reason)));
    counts.filter(|(_, count)| *count > 0).collect()
}

fn status_of(word: &str) -> Option<u16> {
    Reason::ALL.into_iter().find(|reason| reason.word() == word).map(Reason::status)
}

/// As an operator would ask.
fn question(probe: &ProbeConfig) -> String {
    match probe {
        ProbeConfig::Tcp => "connect".to_owned(),
        ProbeConfig::Http { path, .. } => format!("GET {path}"),
        ProbeConfig::Grpc { service, .. } => {
            format!("grpc.health.v1.Health/Check {service}").trim_end().to_owned()
        }
    }
}

impl LivePool {
    fn of(pool: &Pool, sources: &Sources<'_>, now: Duration) -> Self {
        let standings = standings(pool, now);
        let metrics = &pool.state.metrics;
        // Errors first: who ends between the two reads is then no error without a request.
        let (errors, requests) = (metrics.errors(), metrics.requests());
        let again = RetryReason::ALL.into_iter().filter(|reason| *reason != RetryReason::StaleConnection);
        let checks = pool.config.health_check.as_ref();
        Self {
            name: pool.config.name.clone(),
            strategy: pool.config.strategy.name(),
            eligible: standings.iter().filter(|standing| standing.why_not.is_none()).count(),
            waiting: pool.state.queue.len(),
            waiting_max: pool.config.queue.max,
            requests,
            errors,
            retries: again.map(|reason| metrics.retries(reason)).sum(),
            health_check: checks.map(|check| question(&check.probe)),
            rise: checks.map(|check| check.rise),
            upstreams: standings.iter().map(|standing| LiveUpstream::of(*standing, sources, now)).collect(),
        }
    }
}

impl LiveUpstream {
    fn of(standing: Standing<'_>, sources: &Sources<'_>, now: Duration) -> Self {
        let upstream = standing.upstream;
        let (config, state) = (&upstream.config, &upstream.state);
        let Figures { requests, errors, latency_ms, .. } = UpstreamFigures::of(upstream).figures;
        let address = config.address.to_string();
        Self {
            overridden: sources.of(&state.pool, &address) == "override",
            address,
            weight: config.weight,
            state: state.mode().word(),
            health: if upstream.is_checked { state.verdict.health() } else { Health::Unknown }.word(),
            why_not: standing.why_not.map(WhyNot::text),
            why_not_detail: standing.why_not.map(WhyNot::sentence),
            why_not_since: standing.why_not_since(),
            ejected_until: ejected_until(state.ejection.state(now), now),
            in_flight: state.load.in_flight(),
            max_connections: config.max_connections,
            requests,
            errors,
            failures: FailuresView::of(&state.metrics),
            ewma_ms: state.load.latency().map(milliseconds),
            p50_ms: latency_ms.p50,
            p99_ms: latency_ms.p99,
            last_check: state.last_check().filter(|_| upstream.is_checked).map(CheckView::from),
            flapping: FlappingView::of(upstream),
            alarms: state.alarms.raised().into_iter().map(AlarmView::of).collect(),
            consecutive_failures: state.ejection.consecutive_failures(),
            backup: config.backup,
        }
    }
}

// Serde passes references.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(count: &u32) -> bool {
    *count == 0
}

#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_false(flag: &bool) -> bool {
    !*flag
}
