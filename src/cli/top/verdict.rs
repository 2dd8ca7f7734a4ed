//! How an upstream is, in a word and a sentence: the same kinds as on the dashboard.

use super::super::output::{counted, milliseconds, percent};
use super::sample::{Alarm, Upstream};

/// Worst first: what nobody wanted, before what somebody did, before what is well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Verdict {
    Down,
    Ejected,
    OnTrial,
    Failing,
    Overloaded,
    Slow,
    Alarming,
    Unchecked,
    /// Not eligible, for a reason that is newer than this command.
    LeftOut,
    Draining,
    Maintenance,
    WeightZero,
    Standby,
    /// Nobody asked it how it is, and it had no request.
    Untested,
    Serving,
}

/// How much a verdict matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    Bad,
    Odd,
    /// Somebody wanted it so.
    Off,
    Well,
}

/// What an upstream is judged by, besides what it says of itself.
#[derive(Clone, Copy, Default)]
pub(super) struct Circumstances<'a> {
    /// Requests and errors of the last ten seconds.
    pub(super) lately: Option<(u64, u64)>,
    /// What its eligible neighbours take, in milliseconds.
    pub(super) usual_ms: Option<f64>,
    /// Pools that send requests to its address, or still have some there.
    pub(super) users: &'a [&'a str],
}

/// Slow is who takes so many times as long as the others do, and so many milliseconds more: a fast upstream
/// beside faster ones is nobody's trouble.
const SLOW_TIMES: f64 = 3.0;
const SLOW_MS: f64 = 20.0;

/// Failing is who fails so many of its answers, among so many: one error in the quiet of the night is none.
const FAILING: f64 = 0.1;
const FAILING_AMONG: u64 = 10;

impl Verdict {
    pub(super) fn of(upstream: &Upstream, circumstances: &Circumstances<'_>) -> Self {
        if let Some(why_not) = &upstream.why_not {
            return Self::of_word(why_not);
        }
        if let Some((requests, errors)) = circumstances.lately
            && requests >= FAILING_AMONG
            && errors as f64 >= requests as f64 * FAILING
        {
            return Self::Failing;
        }
        if let (Some(own), Some(usual)) = (upstream.latency_ms.ewma, circumstances.usual_ms)
            && own >= usual * SLOW_TIMES
            && own >= usual + SLOW_MS
        {
            return Self::Slow;
        }
        if !upstream.alarms.is_empty() {
            return Self::Alarming;
        }
        let is_used = upstream.requests > 0 || upstream.in_flight > 0;
        if is_used || upstream.last_check.is_some() { Self::Serving } else { Self::Untested }
    }

    fn of_word(why_not: &str) -> Self {
        match why_not {
            "down" => Self::Down,
            "ejected" => Self::Ejected,
            "probation" => Self::OnTrial,
            "full" => Self::Overloaded,
            "unchecked" => Self::Unchecked,
            "draining" => Self::Draining,
            "maintenance" => Self::Maintenance,
            "weight_0" => Self::WeightZero,
            "backup" => Self::Standby,
            _ => Self::LeftOut,
        }
    }

    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Down => "down",
            Self::Ejected => "ejected",
            Self::OnTrial => "on trial",
            Self::Failing => "failing",
            Self::Overloaded => "overloaded",
            Self::Slow => "slow",
            Self::Alarming => "alarm",
            Self::Unchecked => "unchecked",
            Self::LeftOut => "left out",
            Self::Draining => "draining",
            Self::Maintenance => "maintenance",
            Self::WeightZero => "weight 0",
            Self::Standby => "standby",
            Self::Untested => "not tested",
            Self::Serving => "serving",
        }
    }

    pub(super) const fn level(self) -> Level {
        match self {
            Self::Down | Self::Ejected | Self::Failing => Level::Bad,
            Self::OnTrial
            | Self::Overloaded
            | Self::Slow
            | Self::Alarming
            | Self::Unchecked
            | Self::LeftOut => Level::Odd,
            Self::Draining | Self::Maintenance | Self::WeightZero | Self::Standby => Level::Off,
            Self::Untested | Self::Serving => Level::Well,
        }
    }

    /// The facts, then what ends it, since when, then alarms. Empty when all is well.
    pub(super) fn why(self, upstream: &Upstream, circumstances: &Circumstances<'_>) -> String {
        let own = Some(self.own_why(upstream, circumstances)).filter(|own| !own.is_empty());
        let since = upstream.why_not_since.as_ref().map(|since| format!("since {}", clock(since)));
        let alarms = upstream.alarms.iter().map(Alarm::sentence);
        own.into_iter().chain(since).chain(alarms).collect::<Vec<_>>().join("; ")
    }

    fn own_why(self, upstream: &Upstream, circumstances: &Circumstances<'_>) -> String {
        let detail = upstream.why_not_detail.clone().unwrap_or_default();
        match self {
            Self::Down => match upstream.last_check.as_ref().and_then(|check| check.error.as_ref()) {
                Some(error) => format!("health check: {error}; {detail}"),
                None => detail,
            },
            Self::Ejected => {
                let until = upstream.ejected_until.as_ref();
                let until = until.map_or_else(String::new, |until| format!("; next try at {}", clock(until)));
                format!("too many requests in a row failed{}{until}", causes(upstream))
            }
            Self::Failing => {
                let (requests, errors) = circumstances.lately.unwrap_or_default();
                let share = percent(errors as f64 / requests.max(1) as f64);
                format!("{share} of its requests in the last ten seconds failed{}", causes(upstream))
            }
            Self::Slow => {
                let own = milliseconds(upstream.latency_ms.ewma);
                format!("it takes {own}, the others {}", milliseconds(circumstances.usual_ms))
            }
            Self::Draining if upstream.in_flight == 0 => match circumstances.users {
                [] => "none in flight: safe to stop".to_owned(),
                [one] => format!("none in flight; not safe to stop: pool {one} uses it too"),
                [one, others @ ..] => {
                    let others = counted(others.len() as u64, "other");
                    format!("none in flight; not safe to stop: pool {one} and {others} use it too")
                }
            },
            Self::Untested => "no health check, and no requests so far".to_owned(),
            Self::Draining | Self::Overloaded => {
                format!("{} in flight; {detail}", counted(upstream.in_flight, "request"))
            }
            _ => detail,
        }
    }
}

/// `; since the start 3 with status 5xx`
fn causes(upstream: &Upstream) -> String {
    match upstream.failures.words().as_str() {
        "" => String::new(),
        words => format!("; since the start {words}"),
    }
}

/// The time of day of an RFC 3339 text, in UTC as it stands.
pub(super) fn clock(at: &str) -> String {
    at.get(11..19).map_or_else(|| at.to_owned(), |time| format!("{time}Z"))
}
