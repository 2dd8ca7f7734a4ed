//! Takes an upstream out of service, and says when it is safe to stop.
//!
//! Whoever waits is answered at once with a head, and with the body when the wait is over: so the wait is
//! not part of the time that a request may take (`guard.rs`), and has bounds of its own.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::HeaderMap;
use http::header::{ACCEPT, CONTENT_TYPE, ETAG};
use serde::Serialize;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};

use super::extract::{Nothing, Parameters, Path, find_pool, find_upstream};
use super::pieces::pieces;
use super::problem::Problem;
use super::write::Writer;
use crate::config::{PoolEdit, UpstreamAddress};
use crate::control::{Change, Control};
use crate::health::Mode;
use crate::runtime::{Phase, UpstreamState};

/// Longest wait: whoever wants more asks again.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(600);

/// How often is looked whether the wait is over.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Between two lines of progress at least, so that a busy upstream does not become a flood.
const PROGRESS_EVERY_MIN: Duration = Duration::from_millis(250);

/// Between two lines of progress at most, so that nobody in between takes the connection for dead.
const PROGRESS_EVERY_MAX: Duration = Duration::from_secs(5);

/// For a client that has stopped reading, when all is said.
const FAREWELL: Duration = Duration::from_secs(5);

/// How a drain stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Report {
    pool: String,
    address: String,
    /// Requests that it still has from this pool.
    in_flight: u64,
    /// Requests that it still has from other pools, or from when it was removed before.
    in_flight_elsewhere: u64,
    /// Nobody sends there, and nothing is in flight.
    safe_to_stop: bool,
    waited_ms: u64,
    /// Pools that still send there: other ones, or this one, if somebody made it ready meanwhile.
    also_in: Vec<String>,
}

/// `POST /v1/pools/{pool}/upstreams/{address}/drain?wait=` — no new requests from this pool; answers when
/// the old ones are done, or at the end of the wait. When the client goes away, the wait ends, and the
/// drain stays.
pub(super) async fn run(
    State(control): State<Arc<Control>>,
    Path((pool, address)): Path<(String, String)>,
    headers: HeaderMap,
    writer: Writer,
    mut parameters: Parameters,
    _: Nothing,
) -> Result<Response, Problem> {
    let wait = parameters.take_duration("wait", WAIT_MAX)?.unwrap_or_default();
    parameters.finish()?;
    let state = find_upstream(&control.runtime().snapshot(), &pool, &address)?;
    let edits = vec![PoolEdit::Drain(state.address.clone())];
    writer.apply(&control, Change::Edit { pool: pool.clone(), edits }).await?;
    let snapshot = control.runtime().snapshot();
    let tag = control.pool_tag(find_pool(&snapshot, &pool)?);
    let form = Form::wanted_in(&headers);
    let drain = Drain::begin(control, pool, state, wait);
    Ok(([(CONTENT_TYPE, form.media_type()), (ETAG, &tag)], drain.answer(form)).into_response())
}

/// How the answer is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// At the end, in one piece.
    Json,
    /// Line by line.
    Lines,
    /// As server-sent events.
    Events,
}

impl Form {
    const ALL: [Self; 3] = [Self::Json, Self::Lines, Self::Events];

    /// The first that `Accept` names.
    fn wanted_in(headers: &HeaderMap) -> Self {
        let accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
        let mut ranges =
            accepted.flat_map(|value| value.split(',')).filter_map(|range| range.split(';').next());
        let named = |name: &str| {
            Self::ALL.into_iter().find(|form| form.media_type().eq_ignore_ascii_case(name.trim()))
        };
        ranges.find_map(named).unwrap_or(Self::Json)
    }

    const fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Lines => "application/x-ndjson",
            Self::Events => "text/event-stream",
        }
    }

    fn write(self, event: &str, report: &Report) -> Bytes {
        // A report has nothing that JSON cannot say.
        let json = serde_json::to_string(report).unwrap_or_default();
        match self {
            Self::Json | Self::Lines => format!("{json}\n"),
            Self::Events => format!("event: {event}\ndata: {json}\n\n"),
        }
        .into()
    }
}

/// A drain that somebody waits for.
struct Drain {
    control: Arc<Control>,
    pool: String,
    state: Arc<UpstreamState>,
    began: Instant,
    until: Instant,
    generations: watch::Receiver<u64>,
    places: Places,
}

/// Everything that is known of one address.
#[derive(Default)]
struct Places {
    states: Vec<Arc<UpstreamState>>,
    also_in: Vec<String>,
}

impl Drain {
    fn begin(control: Arc<Control>, pool: String, state: Arc<UpstreamState>, wait: Duration) -> Self {
        let mut generations = control.generations();
        generations.mark_unchanged();
        let places = Places::of(&state.address, &control);
        let began = Instant::now();
        Self { control, pool, state, began, until: began + wait, generations, places }
    }

    /// In one piece if there is nothing to wait for.
    fn answer(mut self, form: Form) -> axum::body::Body {
        let report = self.look();
        if self.is_over(&report) {
            return form.write("answer", &report).into();
        }
        let (sender, body) = pieces();
        tokio::spawn(async move {
            tokio::select! {
                () = self.tell(&sender, form) => {}
                () = sender.closed() => {}
            }
        });
        body
    }

    async fn tell(&mut self, sender: &mpsc::Sender<Bytes>, form: Form) {
        let mut told: Option<(Instant, u64)> = None;
        loop {
            let report = self.look();
            if self.is_over(&report) {
                let _ = timeout(FAREWELL, sender.send(form.write("answer", &report))).await;
                return;
            }
            let figure = report.in_flight + report.in_flight_elsewhere;
            if form != Form::Json && is_news(told, figure) {
                // One who does not read fast enough misses some.
                let _ = sender.try_send(form.write("progress", &report));
                told = Some((Instant::now(), figure));
            }
            sleep(LOOK_EVERY).await;
        }
    }

    fn look(&mut self) -> Report {
        if self.generations.has_changed().unwrap_or(false) {
            self.generations.mark_unchanged();
            self.places = Places::of(&self.state.address, &self.control);
        }
        let others = self.places.states.iter().filter(|other| !Arc::ptr_eq(other, &self.state));
        let in_flight = self.state.in_flight().into();
        let in_flight_elsewhere = others.map(|other| u64::from(other.in_flight())).sum();
        let also_in = self.places.also_in.clone();
        Report {
            pool: self.pool.clone(),
            address: self.state.address.to_string(),
            in_flight,
            in_flight_elsewhere,
            safe_to_stop: in_flight == 0 && in_flight_elsewhere == 0 && also_in.is_empty(),
            waited_ms: u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX),
            also_in,
        }
    }

    /// Nothing is left to wait for, or no time; while others send there, the rest of this pool's own
    /// requests is all that waiting can bring about.
    fn is_over(&self, report: &Report) -> bool {
        let is_empty =
            report.in_flight == 0 && (report.in_flight_elsewhere == 0 || !report.also_in.is_empty());
        let is_stopping = self.control.runtime().readiness.phase() == Phase::Draining;
        is_empty || is_stopping || report.also_in.contains(&self.pool) || Instant::now() >= self.until
    }
}

impl Places {
    fn of(address: &UpstreamAddress, control: &Control) -> Self {
        let (runtime, mut places) = (control.runtime(), Self::default());
        for pool in runtime.snapshot().pools() {
            let Some(upstream) = pool.upstreams().iter().find(|one| one.config.address == *address) else {
                continue;
            };
            places.states.push(upstream.state.clone());
            if upstream.config.mode == Mode::Ready && upstream.config.weight > 0 {
                places.also_in.push(pool.config.name.clone());
            }
        }
        places.states.extend(runtime.leaving(address));
        places
    }
}

/// Whether the next line of progress is due, after one at that time with that figure.
fn is_news(told: Option<(Instant, u64)>, figure: u64) -> bool {
    told.is_none_or(|(at, last)| {
        let since = at.elapsed();
        since >= PROGRESS_EVERY_MAX || since >= PROGRESS_EVERY_MIN && last != figure
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_form_that_is_known_is_told() {
        for (accept, form) in [
            ("*/*", Form::Json),
            ("text/html, text/event-stream;q=0.9", Form::Events),
            ("Application/X-NDJSON", Form::Lines),
            ("application/json, application/x-ndjson", Form::Json),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, http::HeaderValue::from_static(accept));
            assert_eq!(Form::wanted_in(&headers), form, "{accept}");
        }
        assert_eq!(Form::wanted_in(&HeaderMap::new()), Form::Json);
    }
}
