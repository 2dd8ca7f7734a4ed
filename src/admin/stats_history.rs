//! Figures over time: the last hour in short steps, the last thirty days in long ones.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::extract::State;
use serde::Serialize;

use super::answer::Json;
use super::extract::{Parameters, suggest};
use super::problem::Problem;
use super::views::{milliseconds, rate, utc};
use crate::config::read_duration;
use crate::control::Control;
use crate::observe::history::{HOUR, Happened, History, LONG_STEP, MONTH, STEP, Step, Subject, Window};
use crate::runtime::{Pool, Runtime, Snapshot};

const DAY: Duration = Duration::from_secs(86_400);

const MINUTE: Duration = Duration::from_secs(60);

/// Steps for those who do not say which they want, by the longest window that has them: enough for a chart
/// that is as wide as a screen, and not more than a page of JSON.
const STEPS: [(Duration, Duration); 4] = [
    (HOUR, STEP),
    (DAY, LONG_STEP),
    (Duration::from_secs(7 * 86_400), HOUR),
    (MONTH, Duration::from_secs(21_600)),
];

/// `GET /v1/stats/history?window=&step=&of=`
pub(super) async fn show(
    State(control): State<Arc<Control>>,
    mut parameters: Parameters,
) -> Result<Json<HistoryView>, Problem> {
    let window = take_span(&mut parameters, "window")?.unwrap_or(HOUR);
    let step = take_span(&mut parameters, "step")?;
    let of = parameters.take("of")?;
    parameters.finish()?;
    let step = checked_step(window, step)?;
    let runtime = control.runtime();
    let subject = read_subject(of.as_deref().unwrap_or("total"), runtime)?;
    let history = &runtime.history;
    Ok(Json(HistoryView::of(history, &subject, &Window::ending(end_of(history), window, step))))
}

/// A duration that may be in days, such as `30d`; at most what is kept.
fn take_span(parameters: &mut Parameters, name: &'static str) -> Result<Option<Duration>, Problem> {
    let Some(text) = parameters.take(name)? else { return Ok(None) };
    // Where the configuration ends at a day, a window goes on.
    let units = [("d", DAY), ("h", HOUR), ("m", MINUTE), ("s", Duration::from_secs(1))];
    let in_one_unit = units.into_iter().find_map(|(suffix, unit)| {
        let number = text.strip_suffix(suffix)?.parse::<u32>().ok()?;
        Some(unit.saturating_mul(number))
    });
    let span = match in_one_unit {
        Some(span) if span <= MONTH => Ok(span),
        Some(_) => Err((
            format!("`{text}` is too long"),
            "write at most 30d: what is longer ago is forgotten".to_owned(),
        )),
        None => read_duration(&text, MONTH),
    };
    let wrong = |(detail, help)| Problem::bad_parameter(format!("`{name}`: {detail}"), help);
    let span = span.map_err(wrong)?;
    if span < STEP {
        let detail = format!("`{name}`: `{text}` is less than a step");
        return Err(Problem::bad_parameter(detail, "write at least 10s"));
    }
    Ok(Some(span))
}

fn checked_step(window: Duration, step: Option<Duration>) -> Result<Duration, Problem> {
    let Some(step) = step else {
        let fits = STEPS.into_iter().find(|(longest, _)| window <= *longest);
        return Ok(fits.map_or(LONG_STEP, |(_, step)| step));
    };
    let unit = if window <= HOUR { STEP } else { LONG_STEP };
    if !step.as_millis().is_multiple_of(unit.as_millis()) {
        let (detail, help) = if unit == STEP {
            ("`step` is not a multiple of 10s", "write 10s, 30s, 1m …")
        } else {
            (
                "`step` is not a multiple of 10m, as it has to be in a window of more than 1h",
                "write 10m, 1h, 1d …, or ask for a window of 1h",
            )
        };
        return Err(Problem::bad_parameter(detail, help));
    }
    if step > window {
        return Err(Problem::bad_parameter(
            "`step` is longer than `window`",
            "ask for a longer window, or leave `step` out",
        ));
    }
    Ok(step)
}

/// `total`, `listener:NAME`, `route:NAME`, `pool:NAME`, `upstream:POOL/ADDRESS`.
///
/// What is not there any more is found by the name that it had, until the last of its history is forgotten.
fn read_subject(text: &str, runtime: &Runtime) -> Result<Subject, Problem> {
    const KINDS: [&str; 5] = ["total", "listener", "route", "pool", "upstream"];
    let (kind, name) = text.split_once(':').unwrap_or((text, ""));
    let snapshot = runtime.snapshot();
    let subject = match kind {
        "total" if name.is_empty() => Subject::Total,
        "listener" => Subject::Listener(name.to_owned()),
        "route" => Subject::Route(name.to_owned()),
        "pool" => Subject::Pool(name.to_owned()),
        "upstream" => upstream(name, &snapshot)?,
        _ => return Err(no_subject(text, kind, &KINDS)),
    };
    if is_there(&subject, runtime, &snapshot) || runtime.history.knows(&subject) {
        return Ok(subject);
    }
    Err(Problem::new(404, "unknown_subject", "there is no history of this")
        .detail(format!("there is no {kind} `{name}`, and there was none in the last 30 days"))
        .help("GET /v1/stats lists all listeners, routes, pools and upstreams"))
}

fn no_subject(text: &str, kind: &str, kinds: &[&str]) -> Problem {
    let help = format!(
        "{}; `of` is total, listener:NAME, route:NAME, pool:NAME or upstream:POOL/ADDRESS",
        suggest(kind, kinds)
    );
    Problem::bad_parameter(format!("`of`: `{text}` names nothing that has a history"), help)
}

/// `POOL/ADDRESS`, with the address in any spelling that means the same.
fn upstream(name: &str, snapshot: &Snapshot) -> Result<Subject, Problem> {
    let Some((pool, address)) = name.split_once('/') else {
        return Err(Problem::bad_parameter(
            format!("`of`: `upstream:{name}` names no upstream of a pool"),
            "write upstream:POOL/ADDRESS, such as upstream:app/127.0.0.1:9001",
        ));
    };
    let members = snapshot.pool_named(pool).map(Pool::upstreams).unwrap_or_default();
    let known = members.iter().find(|upstream| upstream.is_at(address));
    let address = known.map_or_else(|| address.to_owned(), |upstream| upstream.config.address.to_string());
    Ok(Subject::Upstream { pool: pool.to_owned(), address })
}

fn is_there(subject: &Subject, runtime: &Runtime, snapshot: &Snapshot) -> bool {
    match subject {
        Subject::Total => true,
        Subject::Listener(name) => runtime.listeners().iter().any(|listener| listener.name == *name),
        Subject::Route(name) => snapshot.routes().any(|route| route.config.name == *name),
        Subject::Pool(name) => snapshot.pool_named(name).is_some(),
        Subject::Upstream { pool, address } => snapshot.pool_named(pool).is_some_and(|pool| {
            pool.upstreams().iter().any(|upstream| upstream.config.address.to_string() == *address)
        }),
    }
}

/// Where a window ends: at the last thing that was taken down, which is ten seconds ago at most.
pub(super) fn end_of(history: &History) -> u64 {
    match history.taken_down_until() {
        0 => SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
        end => end,
    }
}

/// RFC 3339.
pub(super) fn time(seconds_since_1970: u64) -> String {
    utc(UNIX_EPOCH.checked_add(Duration::from_secs(seconds_since_1970)).unwrap_or(UNIX_EPOCH))
}

#[derive(Serialize)]
pub(super) struct HistoryView {
    of: String,
    period: PeriodView,
    /// The oldest first.
    series: Vec<StepView>,
    totals: FiguresView,
}

#[derive(Serialize)]
struct PeriodView {
    from: String,
    to: String,
    step_seconds: u64,
    /// Seconds in which somebody took things down that are not forgotten.
    recorded_seconds: u64,
}

#[derive(Serialize)]
struct StepView {
    /// Its beginning.
    at: String,
    #[serde(flatten)]
    figures: FiguresView,
}

/// What is not known is null: nobody took it down, or nobody measures it.
#[derive(Default, Serialize)]
struct FiguresView {
    requests: Option<u64>,
    errors: Option<u64>,
    error_rate: Option<f64>,
    requests_per_second: Option<f64>,
    in_flight_max: Option<u32>,
    latency_ms: LatencyView,
    bytes: BytesView,
}

#[derive(Default, Serialize)]
struct LatencyView {
    avg: Option<f64>,
    p50: Option<f64>,
    p90: Option<f64>,
    p99: Option<f64>,
}

#[derive(Default, Serialize)]
struct BytesView {
    request: Option<u64>,
    response: Option<u64>,
}

impl HistoryView {
    fn of(history: &History, subject: &Subject, window: &Window) -> Self {
        let recorded_s = history.recorded_s(subject, window);
        let series = history.series(subject, window);
        let total = history.total(subject, window);
        Self {
            of: subject.to_string(),
            period: PeriodView {
                from: time(window.from_s),
                to: time(window.to_s()),
                step_seconds: window.step_s,
                recorded_seconds: recorded_s,
            },
            series: series.iter().map(|step| StepView::of(step, subject)).collect(),
            totals: FiguresView::of(&total, recorded_s, subject),
        }
    }
}

impl StepView {
    fn of(step: &Step, subject: &Subject) -> Self {
        let figures = step.happened.as_ref().map(|it| FiguresView::of(it, step.recorded_s, subject));
        Self { at: time(step.from_s), figures: figures.unwrap_or_default() }
    }
}

impl FiguresView {
    fn of(happened: &Happened, recorded_s: u64, subject: &Subject) -> Self {
        let is_listener = matches!(subject, Subject::Listener(_));
        let per_second = happened.requests as f64 / recorded_s.max(1) as f64;
        let times = happened.times;
        Self {
            requests: Some(happened.requests),
            errors: Some(happened.errors),
            error_rate: Some(rate(happened.errors, happened.requests)),
            requests_per_second: Some((per_second * 1e3).round() / 1e3),
            in_flight_max: (!is_listener).then_some(happened.in_flight_max),
            latency_ms: LatencyView {
                avg: times.map(|times| milliseconds(times.mean)),
                p50: times.map(|times| milliseconds(times.p50)),
                p90: times.map(|times| milliseconds(times.p90)),
                p99: times.map(|times| milliseconds(times.p99)),
            },
            bytes: BytesView {
                request: (!is_listener).then_some(happened.request_bytes),
                response: (!is_listener).then_some(happened.response_bytes),
            },
        }
    }
}
