//! One upstream: in full, and as a candidate of one pick.

use std::borrow::Cow;
use std::collections::HashSet;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::score::ScoreView;
use super::{AlarmView, UpstreamFigures, milliseconds, utc};
use crate::control::{Override, Running, Source};
use crate::health::{EjectionState, Health, Mode, WhyNot};
use crate::observe::timeline::Track;
use crate::observe::{Class, ConnectResult, UpstreamMetrics};
use crate::runtime::{LastCheck, Pool, Upstream};

/// An upstream and whether it may be picked, at one moment.
#[derive(Clone, Copy)]
pub(in crate::admin) struct Standing<'a> {
    pub(in crate::admin) upstream: &'a Upstream,
    /// `None`: it is eligible.
    pub(in crate::admin) why_not: Option<WhyNot>,
}

impl Standing<'_> {
    /// Whether something is wrong with it, rather than wanted so or passing: checks or traffic say so.
    pub(in crate::admin) const fn is_in_trouble(&self) -> bool {
        matches!(self.why_not, Some(WhyNot::Unchecked | WhyNot::Down | WhyNot::Ejected | WhyNot::Probation))
    }

    /// When what speaks against it began, where its time line remembers.
    pub(in crate::admin) fn why_not_since(&self) -> Option<String> {
        let (track, word) = match self.why_not? {
            WhyNot::Down => (Track::Health, Health::Down.word()),
            WhyNot::Ejected => (Track::Ejection, "ejected"),
            WhyNot::Probation => (Track::Ejection, "probation"),
            WhyNot::Draining => (Track::State, Mode::Drain.word()),
            WhyNot::Maintenance => (Track::State, Mode::Maintenance.word()),
            WhyNot::Weight0 => (Track::Weight, "0"),
            WhyNot::Unchecked | WhyNot::Full | WhyNot::AlreadyTried | WhyNot::Backup => return None,
        };
        self.upstream.state.timeline.since(track, word).map(utc)
    }
}

/// All upstreams of a pool, primaries first.
///
/// A backup is eligible only when no primary is: that is the pool's rule, beyond what speaks for or
/// against the upstream itself.
pub(in crate::admin) fn standings(pool: &Pool, now: Duration) -> Vec<Standing<'_>> {
    let alone = |upstream| Standing { upstream, why_not: Upstream::eligibility(upstream, now).err() };
    let mut all: Vec<_> = pool.upstreams().iter().map(alone).collect();
    if all.iter().any(|standing| !standing.upstream.config.backup && standing.why_not.is_none()) {
        for standing in all.iter_mut().filter(|standing| standing.upstream.config.backup) {
            standing.why_not.get_or_insert(WhyNot::Backup);
        }
    }
    all
}

/// The upstream of this address, spelled in any way that means the same.
pub(in crate::admin) fn standing_of<'a>(
    pool: &'a Pool,
    address: &str,
    now: Duration,
) -> Option<Standing<'a>> {
    standings(pool, now).into_iter().find(|standing| standing.upstream.is_at(address))
}

/// Everything about one upstream.
#[derive(Debug, Serialize)]
pub(in crate::admin) struct UpstreamView {
    address: String,
    pool: String,
    weight: u16,
    state: &'static str,
    health: &'static str,
    ejected_until: Option<String>,
    eligible: bool,
    why_not: Option<&'static str>,
    why_not_detail: Option<Cow<'static, str>>,
    why_not_since: Option<String>,
    /// Null: it needs no more passes than usual.
    flapping: Option<FlappingView>,
    /// Those that stand.
    alarms: Vec<AlarmView>,
    in_flight: u32,
    max_connections: Option<u32>,
    requests: u64,
    errors: u64,
    failures: FailuresView,
    latency_ms: UpstreamLatency,
    last_check: Option<CheckView>,
    consecutive_failures: u32,
    backup: bool,
    source: &'static str,
}

/// Time to first byte. `ewma` is the estimate that strategies go by; the quantiles are of all answers
/// since the upstream became known.
#[derive(Debug, Serialize)]
struct UpstreamLatency {
    ewma: Option<f64>,
    p50: Option<f64>,
    p99: Option<f64>,
}

#[derive(Debug, Serialize)]
pub(super) struct CheckView {
    at: String,
    ok: bool,
    latency_ms: f64,
    error: Option<String>,
}

impl UpstreamView {
    pub(in crate::admin) fn of(standing: Standing<'_>, sources: &Sources<'_>, now: Duration) -> Self {
        let Upstream { config, state, is_checked, .. } = standing.upstream;
        let figures = UpstreamFigures::of(standing.upstream);
        let address = config.address.to_string();
        let flapping = FlappingView::of(standing.upstream);
        Self {
            source: sources.of(&state.pool, &address),
            address,
            pool: state.pool.clone(),
            weight: config.weight,
            state: state.mode().word(),
            health: if *is_checked { state.verdict.health() } else { Health::Unknown }.word(),
            ejected_until: ejected_until(state.ejection.state(now), now),
            eligible: standing.why_not.is_none(),
            why_not: standing.why_not.map(WhyNot::text),
            why_not_detail: standing.why_not.map(|why_not| detail_of(why_not, flapping)),
            why_not_since: standing.why_not_since(),
            flapping,
            alarms: state.alarms.raised().into_iter().map(AlarmView::of).collect(),
            in_flight: state.load.in_flight(),
            max_connections: config.max_connections,
            requests: figures.figures.requests,
            errors: figures.figures.errors,
            failures: FailuresView::of(&state.metrics),
            latency_ms: UpstreamLatency {
                ewma: state.load.latency().map(milliseconds),
                p50: figures.figures.latency_ms.p50,
                p99: figures.figures.latency_ms.p99,
            },
            last_check: state.last_check().filter(|_| *is_checked).map(CheckView::from),
            consecutive_failures: state.ejection.consecutive_failures(),
            backup: config.backup,
        }
    }
}

/// How its attempts failed, since it became known: what `errors` are made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct FailuresView {
    status_5xx: u64,
    /// Refused, unreachable, or TLS did not come about.
    connect_failed: u64,
    connect_timed_out: u64,
    /// There was a connection, and no answer to be read from it.
    no_answer: u64,
}

impl FailuresView {
    pub(super) fn of(metrics: &UpstreamMetrics) -> Self {
        let (connect_failed, connect_timed_out) =
            (metrics.connects(ConnectResult::Failed), metrics.connects(ConnectResult::TimedOut));
        Self {
            status_5xx: metrics.requests(Class::ServerError),
            connect_failed,
            connect_timed_out,
            // Counters are read one after another, so their difference may be short of nothing.
            no_answer: metrics.failed_attempts().saturating_sub(connect_failed + connect_timed_out),
        }
    }

    pub(super) fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// It went down again and again, and has to prove more than others.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct FlappingView {
    /// In a row.
    passes_needed: u32,
    passes: u32,
}

impl FlappingView {
    pub(super) fn of(upstream: &Upstream) -> Option<Self> {
        let state = upstream.is_checked.then_some(&upstream.state)?;
        let passes = state.verdict.run();
        state.passes_needed().map(|passes_needed| Self { passes_needed, passes })
    }
}

fn detail_of(why_not: WhyNot, flapping: Option<FlappingView>) -> Cow<'static, str> {
    match (why_not, flapping) {
        (WhyNot::Down, Some(FlappingView { passes_needed, passes })) => format!(
            "it went down again and again within minutes, so it takes traffic after {passes_needed} health checks in a row have passed; {passes} have"
        )
        .into(),
        _ => why_not.sentence().into(),
    }
}

impl From<LastCheck> for CheckView {
    fn from(check: LastCheck) -> Self {
        let LastCheck { at, latency, error } = check;
        Self { at: utc(at), ok: error.is_none(), latency_ms: milliseconds(latency), error }
    }
}

/// Who says what upstreams are like: looked up once for a whole answer.
pub(in crate::admin) struct Sources<'r> {
    start: &'static str,
    /// Pool and address of those that were added or changed at run time.
    overridden: HashSet<(&'r str, &'r str)>,
}

impl<'r> Sources<'r> {
    pub(in crate::admin) fn new(source: &Source, running: &'r Running) -> Self {
        let start = match source {
            Source::File(_) => "file",
            Source::Arguments => "arguments",
        };
        let about = |one: &'r Override| Some((one.pool.as_str(), one.upstream.as_deref()?));
        Self { start, overridden: running.overrides.iter().filter_map(about).collect() }
    }

    pub(super) fn of(&self, pool: &str, address: &str) -> &'static str {
        if self.overridden.contains(&(pool, address)) { "override" } else { self.start }
    }
}

pub(super) fn ejected_until(state: EjectionState, now: Duration) -> Option<String> {
    match state {
        EjectionState::Ejected { until } => Some(utc(SystemTime::now() + until.saturating_sub(now))),
        EjectionState::In | EjectionState::Probation { .. } => None,
    }
}

/// An upstream, with what a pick goes by.
#[derive(Debug, Serialize)]
pub(in crate::admin) struct CandidateView {
    address: String,
    eligible: bool,
    why_not: Option<&'static str>,
    why_not_detail: Option<&'static str>,
    weight: u16,
    in_flight: u32,
    max_connections: Option<u32>,
    latency_ms: Option<f64>,
    backup: bool,
    score: ScoreView,
}

impl CandidateView {
    pub(in crate::admin) fn of(standing: Standing<'_>, score: ScoreView) -> Self {
        let Upstream { config, state, .. } = standing.upstream;
        Self {
            address: config.address.to_string(),
            eligible: standing.why_not.is_none(),
            why_not: standing.why_not.map(WhyNot::text),
            why_not_detail: standing.why_not.map(WhyNot::sentence),
            weight: config.weight,
            in_flight: state.load.in_flight(),
            max_connections: config.max_connections,
            latency_ms: state.load.latency().map(milliseconds),
            backup: config.backup,
            score,
        }
    }
}
