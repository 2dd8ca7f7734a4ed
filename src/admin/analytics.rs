//! The last days in the words of the platform's monitoring.

use std::sync::Arc;

use axum::extract::State;
use serde::Serialize;

use super::answer::Json;
use super::extract::Parameters;
use super::problem::Problem;
use super::stats_history::{end_of, time};
use super::views::{milliseconds, now_utc, rate};
use crate::control::Control;
use crate::observe::history::{Happened, History, LONG_STEP, Step, Subject, Window};

/// Days for those who do not say how many; also the most, for what is longer ago is forgotten.
const DAYS_MAX: u64 = 30;

const DAY_S: u64 = 86_400;

/// Who stands at the top: as many as a page shows.
const TOP: usize = 10;

/// Part of this period that must be known of the one before, for the two to be compared: the first day of a new
/// process says nothing about a month.
const COMPARABLE: u64 = 10;

/// `GET /api/monitoring/analytics?days=`
pub(super) async fn show(
    State(control): State<Arc<Control>>,
    mut parameters: Parameters,
) -> Result<Json<Analytics>, Problem> {
    let days = parameters.take("days")?;
    parameters.finish()?;
    let days = days.map_or(Ok(DAYS_MAX), |days| read_days(&days))?;
    Ok(Json(Analytics::of(&control.runtime().history, days)))
}

fn read_days(text: &str) -> Result<u64, Problem> {
    text.parse().ok().filter(|days| (1..=DAYS_MAX).contains(days)).ok_or_else(|| {
        Problem::bad_parameter(
            format!("`days`: `{text}` is not a number from 1 to {DAYS_MAX}"),
            format!("write 1 to {DAYS_MAX}; what is longer ago is forgotten"),
        )
    })
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Analytics {
    timestamp: String,
    period: Period,
    totals: Totals,
    growth: Growth,
    /// A day each, in UTC, the oldest first; the last is today.
    series: Vec<Day>,
    top_routes: Vec<TopRoute>,
    top_upstreams: Vec<TopUpstream>,
}

/// Whole days in UTC; the last is the present one, so far.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Period {
    days: u64,
    from: String,
    to: String,
    /// Seconds in which somebody took things down.
    recorded_seconds: u64,
}

/// Times are in milliseconds, null where none is known.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Totals {
    requests: u64,
    errors: u64,
    error_rate: f64,
    avg_response_time: Option<f64>,
    p50_response_time: Option<f64>,
    p90_response_time: Option<f64>,
    p99_response_time: Option<f64>,
    request_bytes: u64,
    response_bytes: u64,
    max_active_requests: u32,
}

/// This period against the one before, which is as long. Ratios: 0.25 is a quarter more, −0.5 half as much.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Growth {
    /// Of requests per recorded second. Null: too little is known of the period before.
    requests: Option<f64>,
    /// Difference of the two error rates.
    error_rate: Option<f64>,
    /// Of the average response time.
    avg_response_time: Option<f64>,
    previous: Previous,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Previous {
    from: String,
    to: String,
    recorded_seconds: u64,
    requests: u64,
    errors: u64,
}

/// Null: nobody took it down.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Day {
    date: String,
    requests: Option<u64>,
    errors: Option<u64>,
    error_rate: Option<f64>,
    avg_response_time: Option<f64>,
    p99_response_time: Option<f64>,
}

#[derive(Serialize)]
struct TopRoute {
    endpoint: String,
    #[serde(flatten)]
    figures: TopFigures,
}

#[derive(Serialize)]
struct TopUpstream {
    pool: String,
    url: String,
    #[serde(flatten)]
    figures: TopFigures,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TopFigures {
    requests: u64,
    errors: u64,
    error_rate: f64,
    avg_response_time: Option<f64>,
    p99_response_time: Option<f64>,
}

impl Analytics {
    fn of(history: &History, days: u64) -> Self {
        let step_s = LONG_STEP.as_secs();
        let end_s = end_of(history);
        let today_s = end_s.saturating_sub(1) / DAY_S * DAY_S;
        let from_s = today_s.saturating_sub((days - 1) * DAY_S);
        let count = end_s.saturating_sub(from_s).div_ceil(step_s);
        let window = Window { from_s, step_s, steps: usize::try_from(count).unwrap_or(usize::MAX) };
        let by_day = Window { from_s, step_s: DAY_S, steps: usize::try_from(days).unwrap_or(usize::MAX) };
        let before = Window { from_s: from_s.saturating_sub(days * DAY_S), ..window };
        let total = history.total(&Subject::Total, &window);
        let top = |is_wanted: fn(&Subject) -> bool| history.busiest(&window, TOP, is_wanted);
        Self {
            timestamp: now_utc(),
            period: Period {
                days,
                from: time(window.from_s),
                to: time(window.to_s()),
                recorded_seconds: history.recorded_s(&Subject::Total, &window),
            },
            growth: Growth::of(history, &total, &window, &before),
            totals: Totals::of(&total),
            series: history.series(&Subject::Total, &by_day).iter().map(Day::of).collect(),
            top_routes: top(|it| matches!(it, Subject::Route(_)))
                .into_iter()
                .filter_map(TopRoute::of)
                .collect(),
            top_upstreams: top(|it| matches!(it, Subject::Upstream { .. }))
                .into_iter()
                .filter_map(TopUpstream::of)
                .collect(),
        }
    }
}

impl Totals {
    fn of(total: &Happened) -> Self {
        let times = total.times;
        Self {
            requests: total.requests,
            errors: total.errors,
            error_rate: rate(total.errors, total.requests),
            avg_response_time: times.map(|times| milliseconds(times.mean)),
            p50_response_time: times.map(|times| milliseconds(times.p50)),
            p90_response_time: times.map(|times| milliseconds(times.p90)),
            p99_response_time: times.map(|times| milliseconds(times.p99)),
            request_bytes: total.request_bytes,
            response_bytes: total.response_bytes,
            max_active_requests: total.in_flight_max,
        }
    }
}

impl Growth {
    fn of(history: &History, total: &Happened, window: &Window, before: &Window) -> Self {
        let previous = history.total(&Subject::Total, before);
        let recorded = |window| history.recorded_s(&Subject::Total, window);
        let (recorded_s, recorded_before_s) = (recorded(window), recorded(before));
        let is_comparable = recorded_before_s * COMPARABLE >= recorded_s && previous.requests > 0;
        let per_second = |requests: u64, seconds: u64| requests as f64 / seconds.max(1) as f64;
        let mean = |happened: &Happened| happened.times.map(|times| times.mean.as_secs_f64());
        let times = mean(total).zip(mean(&previous)).and_then(|(now, then)| growth(now, then));
        let requests =
            growth(per_second(total.requests, recorded_s), per_second(previous.requests, recorded_before_s));
        let errors = rate(total.errors, total.requests) - rate(previous.errors, previous.requests);
        Self {
            requests: requests.filter(|_| is_comparable),
            error_rate: is_comparable.then_some(errors),
            avg_response_time: times.filter(|_| is_comparable),
            previous: Previous {
                from: time(before.from_s),
                to: time(before.to_s()),
                recorded_seconds: recorded_before_s,
                requests: previous.requests,
                errors: previous.errors,
            },
        }
    }
}

/// As a ratio, to four digits; `None`: there was nothing that could grow.
fn growth(now: f64, then: f64) -> Option<f64> {
    (then > 0.0).then(|| ((now / then - 1.0) * 1e4).round() / 1e4)
}

impl Day {
    fn of(step: &Step) -> Self {
        let happened = step.happened.as_ref();
        let times = happened.and_then(|it| it.times);
        Self {
            date: time(step.from_s).chars().take("2026-11-21".len()).collect(),
            requests: happened.map(|it| it.requests),
            errors: happened.map(|it| it.errors),
            error_rate: happened.map(|it| rate(it.errors, it.requests)),
            avg_response_time: times.map(|times| milliseconds(times.mean)),
            p99_response_time: times.map(|times| milliseconds(times.p99)),
        }
    }
}

impl TopRoute {
    fn of((subject, happened): (Subject, Happened)) -> Option<Self> {
        let Subject::Route(endpoint) = subject else { return None };
        Some(Self { endpoint, figures: TopFigures::of(&happened) })
    }
}

impl TopUpstream {
    fn of((subject, happened): (Subject, Happened)) -> Option<Self> {
        let Subject::Upstream { pool, address } = subject else { return None };
        let url = if address.starts_with("unix:") { address } else { format!("http://{address}") };
        Some(Self { pool, url, figures: TopFigures::of(&happened) })
    }
}

impl TopFigures {
    fn of(happened: &Happened) -> Self {
        Self {
            requests: happened.requests,
            errors: happened.errors,
            error_rate: rate(happened.errors, happened.requests),
            avg_response_time: happened.times.map(|times| milliseconds(times.mean)),
            p99_response_time: happened.times.map(|times| milliseconds(times.p99)),
        }
    }
}
