//! Requests that were made, as far as they are remembered: which there are, and how one of them went.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use http::{HeaderMap, Method};
use serde::Serialize;

use super::answer::Json;
use super::explain::why;
use super::extract::{Parameters, Path};
use super::problem::Problem;
use super::views::{RequestLine, RequestView, RouteTaken};
use crate::control::Control;
use crate::observe::{Kept, LATEST, Name, Record};
use crate::route::RequestHead;
use crate::runtime::Snapshot;

/// Requests in a list, if nobody says how many.
const LIMIT_DEFAULT: usize = 50;

/// Other requests with the same id that are listed: a client that repeats itself uses a few.
const SAME_ID_MAX: usize = 20;

/// Longest time to ask for; no request takes longer than its route's timeout.
const SLOWER_THAN_MAX: Duration = Duration::from_secs(24 * 3_600);

/// Bytes of an id that is not known which are told again.
const TOLD_BYTES_MAX: usize = 128;

#[derive(Serialize)]
#[allow(clippy::struct_field_names)]
pub(super) struct Requests {
    /// Newest first.
    requests: Vec<RequestLine>,
    /// How many were found, listed or not.
    matched: usize,
    /// Requests since the start of the process.
    seen: u64,
    /// Records that found no place.
    left_out: u64,
}

/// `GET /v1/requests?failed=true&slower_than=200ms&kept=unusual&limit=` — the requests that can be asked for.
pub(super) async fn list(
    State(control): State<Arc<Control>>,
    mut parameters: Parameters,
) -> Result<Json<Requests>, Problem> {
    let failed = take_flag(&mut parameters, "failed")?;
    let slower_than = parameters.take_duration("slower_than", SLOWER_THAN_MAX)?.unwrap_or_default();
    let kept = take_kept(&mut parameters)?;
    let limit = take_limit(&mut parameters)?;
    parameters.finish()?;
    let runtime = control.runtime();
    runtime.records.note_asked(runtime.now());
    let found = runtime.records.matching(|record| {
        failed.is_none_or(|failed| failed == record.has_failed())
            && kept.is_none_or(|kept| kept == record.kept)
            && record.facts.duration >= slower_than
    });
    Ok(Json(Requests {
        requests: found.iter().take(limit).map(RequestLine::of).collect(),
        matched: found.len(),
        seen: runtime.records.seen(),
        left_out: runtime.records.left_out(),
    }))
}

/// `GET /v1/explain/{request_id}` — how a request was routed and picked, and what came of each attempt.
pub(super) async fn show(
    State(control): State<Arc<Control>>,
    Path(request_id): Path<String>,
    parameters: Parameters,
) -> Result<Json<RequestView>, Problem> {
    parameters.finish()?;
    let runtime = control.runtime();
    runtime.records.note_asked(runtime.now());
    let found = runtime.records.find(&request_id);
    let Some((record, others)) = found.split_first() else { return Err(unknown(&request_id)) };
    let others = others.get(..others.len().min(SAME_ID_MAX)).unwrap_or_default();
    let route = route_taken(record, &runtime.snapshot());
    Ok(Json(RequestView::of(record, route, others)))
}

/// The route by its name, and its conditions if it is still what it was.
fn route_taken(record: &Record, snapshot: &Snapshot) -> Option<RouteTaken> {
    let name = Some(record.name(Name::Route)).filter(|name| !name.is_empty())?;
    let (host, path) = (record.name(Name::Host), record.name(Name::Path));
    let method: Method = record.name(Name::Method).parse().unwrap_or_default();
    // Values of headers are not kept: that the route was taken proves that they were those it asks for.
    let head = RequestHead { host, method: &method, path, headers: &HeaderMap::new() };
    let same =
        snapshot.routes().find(|route| route.config.name == name && route.since <= record.facts.generation);
    let why = same.map(|route| why(&route.config.matcher, &head));
    let note =
        why.is_none().then_some("the route has changed since, or is gone; its conditions then are not known");
    Some(RouteTaken { name: name.to_owned(), why, note })
}

fn bounded(text: &str) -> String {
    text.chars().take(TOLD_BYTES_MAX).collect()
}

fn unknown(request_id: &str) -> Problem {
    let told = bounded(request_id);
    let [failed, refused, slow, unusual] =
        [Kept::Failed, Kept::Refused, Kept::Slow, Kept::Unusual].map(Kept::places);
    Problem::new(404, "unknown_request", "no request with this id is remembered")
        .detail(format!("there is no record of a request `{told}`"))
        .help(format!(
            "kept are the last {LATEST} requests, and besides {failed} that failed, {refused} that were refused, {slow} slow and {unusual} unusual ones since the process began; GET /v1/requests lists them, the access log has all"
        ))
}

/// Why they are kept: what is beyond the usual is rare, and soon older than all that a list has room for.
fn take_kept(parameters: &mut Parameters) -> Result<Option<Kept>, Problem> {
    let Some(word) = parameters.take("kept")? else { return Ok(None) };
    let known = Kept::ALL.into_iter().find(|kept| kept.word() == word);
    known.map(Some).ok_or_else(|| {
        let words = Kept::ALL.map(Kept::word);
        Problem::bad_parameter(
            format!("`kept` is `{}`, which is nothing that requests are kept as", bounded(&word)),
            format!("write one of {}, or leave it out", words.join(", ")),
        )
    })
}

fn take_flag(parameters: &mut Parameters, name: &'static str) -> Result<Option<bool>, Problem> {
    match parameters.take(name)?.as_deref() {
        None => Ok(None),
        Some("true") => Ok(Some(true)),
        Some("false") => Ok(Some(false)),
        Some(other) => Err(Problem::bad_parameter(
            format!("`{name}` is `{other}`, which is neither true nor false"),
            format!("write {name}=true or {name}=false, or leave it out"),
        )),
    }
}

fn take_limit(parameters: &mut Parameters) -> Result<usize, Problem> {
    let Some(text) = parameters.take("limit")? else { return Ok(LIMIT_DEFAULT) };
    let number = text.parse().ok().filter(|limit| (1..=LATEST).contains(limit));
    number.ok_or_else(|| {
        Problem::bad_parameter(format!("`limit` is `{text}`"), format!("write a number from 1 to {LATEST}"))
    })
}
