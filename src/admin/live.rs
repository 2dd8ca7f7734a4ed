//! What a dashboard draws, as it changes: server-sent events.
//!
//! ```text
//!   counters ──once per tick──► Feed (one text) ──► every viewer of that tick
//!   Events ─────────────────────────────────────► each viewer, as it happens
//! ```
//!
//! One stream carries both, since a browser opens six connections to one port at most, and each page that is
//! open holds one. Nothing is computed while nobody looks.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until};

use super::extract::Parameters;
use super::problem::Problem;
use super::views::LiveView;
use crate::control::{Control, Subscription, Told};
use crate::observe::HistogramSnapshot;
use crate::runtime::Snapshot;

/// Viewers at a time: every operator of a large team, and few enough that each of them costs the side port
/// nothing worth a thought, with a thousand upstreams too (a quarter of a megabyte per tick and viewer).
pub(super) const VIEWERS_MAX: usize = 32;

/// Figures are taken together at most so often, for all viewers.
const TICK: Duration = Duration::from_secs(1);

/// Longest time between two figures that may be asked for; the stream is never silent for longer.
const EVERY_MAX: Duration = Duration::from_secs(60);

/// A stream ends in order after this time, shortly before its connection is ended for its age.
const AGE_MAX: Duration = Duration::from_secs(9 * 60);

/// Latencies are told of so many seconds before now.
const WINDOW: u64 = 10;

/// `GET /v1/live?every=1s` — figures at once and then at each tick, and events since `Last-Event-ID`, or those
/// that are remembered.
pub(super) async fn follow(
    State(control): State<Arc<Control>>,
    Extension(feed): Extension<Arc<Feed>>,
    mut parameters: Parameters,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let every = parameters.take_duration("every", EVERY_MAX)?.unwrap_or(TICK).max(TICK);
    parameters.finish()?;
    let seat = feed.seats.clone().try_acquire_owned().map_err(|_| too_many_viewers())?;
    let seen = headers.get("last-event-id").and_then(|id| id.to_str().ok());
    let subscription = match seen {
        Some(_) => control.events().subscribe(seen),
        None => control.events().subscribe_to_remembered(),
    };
    let now = Instant::now();
    let viewer = Viewer { control, feed, subscription, every, next: now, end: now + AGE_MAX, _seat: seat };
    let body = Body::from_stream(stream::unfold(viewer, Viewer::next));
    Ok(([(CONTENT_TYPE, "text/event-stream")], body).into_response())
}

fn too_many_viewers() -> Problem {
    Problem::new(503, "too_many_viewers", "enough others are looking")
        .detail(format!("{VIEWERS_MAX} streams of figures are open"))
        .help("close a dashboard that nobody looks at; GET /v1/pools and /v1/stats answer meanwhile")
}

/// What all viewers share.
#[derive(Debug)]
pub(super) struct Feed {
    seats: Arc<Semaphore>,
    latest: Mutex<Latest>,
}

/// The figures of the latest tick, and what is needed for the next.
#[derive(Debug, Default)]
struct Latest {
    /// Seconds since the epoch of the process; `None`: nobody has looked yet.
    tick: Option<u64>,
    text: Bytes,
    /// How long requests took, all routes together, as of earlier ticks; oldest first.
    durations: VecDeque<(u64, HistogramSnapshot)>,
}

impl Default for Feed {
    fn default() -> Self {
        Self { seats: Arc::new(Semaphore::new(VIEWERS_MAX)), latest: Mutex::default() }
    }
}

impl Feed {
    /// The event with the figures of this tick; whoever comes first in a tick makes it.
    fn figures(&self, control: &Control) -> Bytes {
        let tick = control.runtime().now().as_secs();
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        if latest.tick != Some(tick) {
            let snapshot = control.runtime().snapshot();
            let lately = latest.lately(tick, &snapshot);
            let view = LiveView::of(control, &snapshot, lately.as_ref());
            latest.text = event("figures", None, &serde_json::to_string(&view).unwrap_or_default());
            latest.tick = Some(tick);
        }
        latest.text.clone()
    }
}

impl Latest {
    /// How long requests took within [`WINDOW`], or as much of it as somebody looked. `None` at the first look,
    /// and when what is running is not comparable with what ran.
    fn lately(&mut self, tick: u64, snapshot: &Snapshot) -> Option<HistogramSnapshot> {
        let now = HistogramSnapshot::merged(snapshot.routes().map(|route| route.metrics.duration()));
        self.durations.retain(|(then, _)| then + WINDOW >= tick);
        let lately = self.durations.front().and_then(|(_, then)| now.since(then));
        if lately.is_none() {
            self.durations.clear();
        }
        self.durations.push_back((tick, now));
        lately
    }
}

/// One who looks.
struct Viewer {
    control: Arc<Control>,
    feed: Arc<Feed>,
    subscription: Subscription,
    every: Duration,
    /// When figures are due.
    next: Instant,
    end: Instant,
    _seat: OwnedSemaphorePermit,
}

impl Viewer {
    async fn next(mut self) -> Option<(Result<Bytes, Infallible>, Self)> {
        let piece = tokio::select! {
            biased;
            () = sleep_until(self.end) => return None,
            () = sleep_until(self.next) => self.figures(),
            // None: the process stops.
            told = self.subscription.next() => write(&told?),
        };
        Some((Ok(piece), self))
    }

    /// A client that is slow to take them gets fewer, never old ones.
    fn figures(&mut self) -> Bytes {
        self.next = Instant::now() + until_tick(self.control.runtime().now(), self.every);
        self.feed.figures(&self.control)
    }
}

/// From `now` to the next multiple of `every`, so that all viewers look at the same moments.
fn until_tick(now: Duration, every: Duration) -> Duration {
    let every = every.as_millis().max(1);
    let left = every - now.as_millis() % every;
    Duration::from_millis(u64::try_from(left).unwrap_or(1_000))
}

fn write(told: &Told) -> Bytes {
    match told {
        Told::Event(one) => {
            event(one.what.kind(), Some(&one.id), &serde_json::to_string(&**one).unwrap_or_default())
        }
        Told::Missed(missed) => event("missed", None, &json!({ "missed": missed }).to_string()),
    }
}

/// One event; `data` is JSON, so it has no line ends.
fn event(kind: &str, id: Option<&str>, data: &str) -> Bytes {
    let mut text = String::with_capacity(data.len() + 64);
    if let Some(id) = id {
        // A text takes whatever is written to it.
        let _ = writeln!(text, "id: {id}");
    }
    let _ = write!(text, "event: {kind}\ndata: {data}\n\n");
    text.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_viewers_look_at_the_same_moments() {
        let (second, five) = (Duration::from_secs(1), Duration::from_secs(5));
        let milliseconds = Duration::from_millis;
        assert_eq!(until_tick(milliseconds(12_300), second), milliseconds(700));
        assert_eq!(until_tick(milliseconds(12_300), five), milliseconds(2_700));
        assert_eq!(until_tick(milliseconds(15_000), five), five, "never at once again");
    }

    #[test]
    fn an_event_is_what_the_standard_says() {
        assert_eq!(event("health", Some("7-1"), "{}"), "id: 7-1\nevent: health\ndata: {}\n\n");
        assert_eq!(event("figures", None, "{}"), "event: figures\ndata: {}\n\n");
    }
}
