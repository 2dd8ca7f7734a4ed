//! One request that was made: in short, and in full.

use std::net::IpAddr;

use serde::Serialize;

use super::score::{ScoreView, rounded, rule};
use super::{milliseconds, utc};
use crate::health::WhyNot;
use crate::observe::{
    ASKED_FOR, AttemptOutcome, AttemptRecord, Moment, Name, PickRecord, Reason, Record, SAMPLED_ONE_IN, Then,
};

/// A request in a list.
#[derive(Debug, Serialize)]
pub(in crate::admin) struct RequestLine {
    request_id: String,
    /// When its head had been read.
    time: String,
    method: String,
    host: String,
    path: String,
    route: Option<String>,
    pool: Option<String>,
    /// Address of the last attempt.
    upstream: Option<String>,
    status: u16,
    reason: Option<&'static str>,
    /// How a gRPC call ended.
    grpc_status: Option<u8>,
    attempts: u32,
    duration_ms: f64,
    kept: &'static str,
    /// Whether scores of a pick were taken down.
    scores: bool,
}

impl RequestLine {
    pub(in crate::admin) fn of(record: &Record) -> Self {
        let facts = &record.facts;
        Self {
            request_id: record.name(Name::RequestId).to_owned(),
            time: utc(record.began_at()),
            method: record.name(Name::Method).to_owned(),
            host: record.name(Name::Host).to_owned(),
            path: record.name(Name::Path).to_owned(),
            route: named(record, Name::Route),
            pool: named(record, Name::Pool),
            upstream: record.attempts().last().map(|(upstream, _)| upstream.to_owned()),
            status: facts.status,
            reason: facts.reason.map(Reason::word),
            grpc_status: facts.grpc_status,
            attempts: facts.attempts,
            duration_ms: milliseconds(facts.duration),
            kept: record.kept.word(),
            scores: record.detail.as_ref().is_some_and(|detail| !detail.picks.is_empty()),
        }
    }
}

/// A request in full.
#[derive(Debug, Serialize)]
pub(in crate::admin) struct RequestView {
    request_id: String,
    time: String,
    kept: &'static str,
    listener: String,
    client: Option<IpAddr>,
    protocol: &'static str,
    tls: Option<&'static str>,
    generation: u64,
    request: HeadView,
    route: Option<RouteTaken>,
    pool: Option<String>,
    attempts: Vec<AttemptView>,
    /// Attempts that are not listed.
    attempts_omitted: u32,
    /// How everybody stood when nobody could be picked; null: somebody was.
    nobody: Option<StandingView>,
    status: u16,
    reason: Option<&'static str>,
    help: Option<&'static str>,
    grpc_status: Option<u8>,
    bytes_in: u64,
    bytes_out: u64,
    timings: Timings,
    /// Other requests of the same id, newest first.
    same_id: Vec<RequestLine>,
}

#[derive(Debug, Serialize)]
struct HeadView {
    method: String,
    host: String,
    /// Without its query.
    path: String,
    /// Host or path were longer than what is kept of them.
    is_cut: bool,
}

/// The route, and why it was taken.
#[derive(Debug, Serialize)]
pub(in crate::admin) struct RouteTaken {
    pub(in crate::admin) name: String,
    /// Null: the route has changed since, so that this is not known any more.
    pub(in crate::admin) why: Option<Vec<String>>,
    pub(in crate::admin) note: Option<&'static str>,
}

/// Milliseconds from the head of the request.
#[derive(Debug, Serialize)]
#[allow(clippy::struct_field_names)]
struct Timings {
    duration_ms: f64,
    /// Until an upstream was picked for the first time; null: none was.
    picked_ms: Option<f64>,
    /// Until the head of the answer, the upstream's, was there.
    answered_ms: Option<f64>,
}

#[derive(Debug, Serialize)]
struct AttemptView {
    number: u32,
    upstream: String,
    outcome: &'static str,
    detail: &'static str,
    status: Option<u16>,
    connection: &'static str,
    picked_ms: f64,
    connected_ms: Option<f64>,
    answered_ms: Option<f64>,
    failed_ms: Option<f64>,
    /// From pick to answer or failure.
    took_ms: Option<f64>,
    /// At the upstream when this one began, itself included.
    in_flight: u32,
    multiplier: f64,
    /// How everybody stood; null: not recorded.
    candidates: Option<StandingView>,
    /// Whether another attempt followed a failure, or why none.
    then: Option<&'static str>,
    note: Option<String>,
}

/// How everybody stood at one choice.
#[derive(Debug, Serialize)]
struct StandingView {
    moment: &'static str,
    at_ms: f64,
    strategy: &'static str,
    rule: &'static str,
    upstreams: u32,
    /// Null: not counted.
    eligible: Option<u32>,
    excluded: Vec<ExcludedView>,
    candidates: Vec<StoodView>,
    candidates_omitted: u32,
}

/// How many were out for one reason.
#[derive(Debug, Serialize)]
pub(in crate::admin) struct ExcludedView {
    why_not: &'static str,
    why_not_detail: &'static str,
    upstreams: u32,
}

#[derive(Debug, Serialize)]
struct StoodView {
    address: String,
    chosen: bool,
    eligible: bool,
    why_not: Option<&'static str>,
    why_not_detail: Option<&'static str>,
    weight: u16,
    backup: bool,
    score: ScoreView,
}

impl RequestView {
    /// `route` is what is still known of the route that was taken; `others` have the same id.
    pub(in crate::admin) fn of(record: &Record, route: Option<RouteTaken>, others: &[Record]) -> Self {
        let facts = &record.facts;
        let attempts: Vec<AttemptView> = attempts(record);
        let listed = u32::try_from(attempts.len()).unwrap_or(u32::MAX);
        Self {
            request_id: record.name(Name::RequestId).to_owned(),
            time: utc(record.began_at()),
            kept: record.kept.word(),
            listener: record.name(Name::Listener).to_owned(),
            client: facts.client,
            protocol: facts.protocol,
            tls: facts.tls,
            generation: facts.generation,
            request: HeadView {
                method: record.name(Name::Method).to_owned(),
                host: record.name(Name::Host).to_owned(),
                path: record.name(Name::Path).to_owned(),
                is_cut: [Name::Method, Name::Host, Name::Path].iter().any(|name| record.is_cut(*name)),
            },
            route,
            pool: named(record, Name::Pool),
            attempts_omitted: facts.attempts.saturating_sub(listed),
            attempts,
            nobody: standings(record)
                .find(|pick| pick.moment == Moment::Refusal)
                .map(|pick| StandingView::of(pick, None)),
            status: facts.status,
            reason: facts.reason.map(Reason::word),
            help: facts.reason.map(Reason::next),
            grpc_status: facts.grpc_status,
            bytes_in: facts.bytes_in,
            bytes_out: facts.bytes_out,
            timings: Timings {
                duration_ms: milliseconds(facts.duration),
                picked_ms: facts.first.map(|first| milliseconds(first.picked)),
                answered_ms: facts.answered.map(milliseconds),
            },
            same_id: others.iter().map(RequestLine::of).collect(),
        }
    }
}

fn attempts(record: &Record) -> Vec<AttemptView> {
    let numbered = (1_u32..).zip(record.attempts());
    numbered.map(|(number, (upstream, attempt))| AttemptView::of(number, upstream, attempt, record)).collect()
}

fn standings(record: &Record) -> impl Iterator<Item = &PickRecord> {
    record.detail.iter().flat_map(|detail| &detail.picks)
}

impl AttemptView {
    fn of(number: u32, upstream: &str, attempt: &AttemptRecord, record: &Record) -> Self {
        let of_it = |pick: &&PickRecord| pick.attempt == number && pick.moment != Moment::Refusal;
        let standing = standings(record).find(of_it);
        let is_at_the_end = attempt.outcome == AttemptOutcome::Unfinished;
        let ended = attempt.failed.or(attempt.answered).or(is_at_the_end.then_some(record.facts.duration));
        Self {
            number,
            upstream: upstream.to_owned(),
            outcome: attempt.outcome.word(),
            detail: attempt.outcome.sentence(),
            status: attempt.status,
            connection: match attempt {
                AttemptRecord { is_reused: true, .. } => "kept",
                AttemptRecord { connected: Some(_), .. } => "new",
                AttemptRecord { .. } => "none",
            },
            picked_ms: milliseconds(attempt.picked),
            connected_ms: attempt.connected.map(milliseconds),
            answered_ms: attempt.answered.map(milliseconds),
            failed_ms: attempt.failed.map(milliseconds),
            took_ms: ended.map(|ended| milliseconds(ended.saturating_sub(attempt.picked))),
            in_flight: attempt.in_flight,
            multiplier: rounded(attempt.multiplier),
            candidates: standing.map(|pick| StandingView::of(pick, Some(attempt.upstream))),
            then: has_failed(attempt).then_some(attempt.then).and_then(Then::sentence),
            note: note(standing.map(|pick| pick.moment)),
        }
    }
}

/// In itself, whatever the client got in the end.
fn has_failed(attempt: &AttemptRecord) -> bool {
    attempt.failed.is_some() || attempt.then == Then::Retried || attempt.status >= Some(500)
}

/// What the scores are, or why there are none: they are never made up afterwards.
fn note(moment: Option<Moment>) -> Option<String> {
    match moment {
        Some(Moment::Pick) => None,
        Some(Moment::Failure | Moment::Refusal) => {
            Some("the scores are those of the moment in which the attempt failed; those of the pick were not recorded".to_owned())
        }
        None => Some(format!(
            "the scores of this pick were not recorded: one request in {SAMPLED_ONE_IN} keeps them, those that fail, and all for {} s after somebody has asked",
            ASKED_FOR.as_secs()
        )),
    }
}

impl StandingView {
    fn of(pick: &PickRecord, chosen: Option<u32>) -> Self {
        let listed = u32::try_from(pick.candidates.len()).unwrap_or(u32::MAX);
        Self {
            moment: pick.moment.word(),
            at_ms: milliseconds(pick.at),
            strategy: pick.strategy.name(),
            rule: rule(pick.strategy),
            upstreams: pick.upstreams,
            eligible: pick.eligible,
            excluded: ExcludedView::all(&pick.excluded),
            candidates: pick
                .candidates
                .iter()
                .map(|candidate| StoodView {
                    address: candidate.upstream.to_string(),
                    chosen: chosen == Some(candidate.place),
                    eligible: candidate.why_not.is_none(),
                    why_not: candidate.why_not.map(WhyNot::text),
                    why_not_detail: candidate.why_not.map(WhyNot::sentence),
                    weight: candidate.weight,
                    backup: candidate.is_backup,
                    score: ScoreView::of(&candidate.terms, pick.strategy),
                })
                .collect(),
            candidates_omitted: pick.upstreams.saturating_sub(listed),
        }
    }
}

impl ExcludedView {
    /// Those with anybody in them; counts are in the order of [`WhyNot::ALL`].
    pub(in crate::admin) fn all(counts: &[u32; WhyNot::ALL.len()]) -> Vec<Self> {
        let counted = WhyNot::ALL.into_iter().zip(counts).filter(|&(_, &upstreams)| upstreams > 0);
        counted
            .map(|(why_not, &upstreams)| Self {
                why_not: why_not.text(),
                why_not_detail: why_not.sentence(),
                upstreams,
            })
            .collect()
    }
}

fn named(record: &Record, name: Name) -> Option<String> {
    Some(record.name(name)).filter(|name| !name.is_empty()).map(str::to_owned)
}
