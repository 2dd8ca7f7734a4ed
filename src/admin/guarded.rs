//! Another configuration in place of the one that runs, under guard.
//!
//! A guard goes on when its client leaves: it belongs to the configuration, not to the connection.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::ETAG;
use serde::Serialize;
use tokio::sync::oneshot;

use super::answer::Json;
use super::extract::{Nothing, Parameters};
use super::problem::Problem;
use super::write::{AppliedView, Writer, off_the_loop};
use crate::config;
use crate::control::{Bounds, Control, Guard, Outcome};

/// The longest guard. Whoever needs to think longer needs a configuration that they trust.
pub(super) const GUARD_MAX: Duration = Duration::from_secs(600);

/// The shortest guard: below, nothing is seen.
const GUARD_MIN: Duration = Duration::from_secs(1);

/// Errors among the requests that are too many, unless something else is asked for: more than a deployment
/// costs that goes well, less than anyone would call working.
const MAX_ERROR_RATIO: f64 = 0.05;

/// `POST /v1/config/confirm` — keeps the change that is under guard.
pub(super) async fn confirm(
    State(control): State<Arc<Control>>,
    writer: Writer,
    _: Nothing,
) -> Result<Json<GuardView>, Problem> {
    let guard =
        off_the_loop(move || control.confirm_guard(writer.condition.as_ref(), &writer.author)).await?;
    guard.map(|guard| Json(GuardView { guard })).ok_or_else(no_guard)
}

/// `GET /v1/config/guard` — the change under guard, or the last one.
pub(super) async fn show(State(control): State<Arc<Control>>) -> Result<Json<Guard>, Problem> {
    control.guard().map(Json).ok_or_else(no_guard)
}

#[derive(Serialize)]
pub(super) struct GuardView {
    guard: Guard,
}

/// `guard`, `max_error_ratio` and `confirm`; `None` when no guard is asked for.
pub(super) fn bounds_in(parameters: &mut Parameters) -> Result<Option<Bounds>, Problem> {
    let time = parameters.take("guard")?;
    let ratio = parameters.take("max_error_ratio")?;
    let confirm = parameters.take("confirm")?;
    let Some(time) = time else {
        let alone = ratio.map(|_| "max_error_ratio").or_else(|| confirm.map(|_| "confirm"));
        return alone.map_or(Ok(None), |name| Err(needs_guard(name)));
    };
    let (time, confirm) = (read_time(&time)?, read_confirm(confirm.as_deref())?);
    let max_error_ratio = ratio.map_or(Ok(MAX_ERROR_RATIO), |text| read_ratio(&text))?;
    Ok(Some(Bounds { time, max_error_ratio, confirm }))
}

/// Applies a change under guard, and answers when that is over; at once if it waits for a confirmation.
pub(super) async fn apply_guarded(
    control: Arc<Control>,
    writer: Writer,
    text: String,
    bounds: Bounds,
) -> Result<Response, Problem> {
    let (told, telling) = oneshot::channel();
    let Writer { condition, author } = writer;
    // A task of its own: it goes on when this one is dropped with its connection.
    let guarding = tokio::spawn(control.clone().run_guarded(text, condition, author, bounds, told));
    let (applied, guard) = telling.await.map_err(|_| ended_early())??;
    if bounds.confirm {
        let tag = applied.tag.clone();
        return Ok(answer(StatusCode::ACCEPTED, AppliedView::guarded(applied, guard), tag));
    }
    let guard = guarding.await.ok().flatten().ok_or_else(ended_early)?;
    match guard.outcome {
        Outcome::Kept => Ok(answer(StatusCode::OK, AppliedView::guarded(applied, guard), control.tag())),
        Outcome::RolledBack | Outcome::Watching => Err(Problem::rolled_back(guard)),
    }
}

fn answer(status: StatusCode, view: AppliedView, tag: String) -> Response {
    (status, [(ETAG, tag)], Json(view)).into_response()
}

fn read_time(text: &str) -> Result<Duration, Problem> {
    let wrong = |(message, help)| Problem::bad_parameter(format!("`guard`: {message}"), help);
    let time = config::read_duration(text, GUARD_MAX).map_err(wrong)?;
    if time < GUARD_MIN {
        return Err(Problem::bad_parameter("`guard` is too short", "watch for 1s to 10m"));
    }
    Ok(time)
}

fn read_ratio(text: &str) -> Result<f64, Problem> {
    text.parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio)).ok_or_else(|| {
        let help = "write a number from 0 to 1; 0.05 is one in twenty";
        Problem::bad_parameter("`max_error_ratio` is no ratio", help)
    })
}

fn read_confirm(text: Option<&str>) -> Result<bool, Problem> {
    match text {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(_) => Err(Problem::bad_parameter(
            "`confirm` is neither true nor false",
            "write `true`, or leave it out",
        )),
    }
}

fn needs_guard(name: &str) -> Problem {
    Problem::bad_parameter(
        format!("`{name}` has no meaning without `guard`"),
        "say how long to watch, such as guard=60s",
    )
}

fn no_guard() -> Problem {
    Problem::new(404, "no_guard", "no change is under guard")
        .detail("there is none under way, or there never was one")
        .help("PUT /v1/config?guard=60s applies a change under guard")
}

fn ended_early() -> Problem {
    Problem::new(500, "internal", "the change ended in the middle")
        .detail("the process may be stopping")
        .help("GET /v1/config/guard and GET /v1/status show what runs")
}
