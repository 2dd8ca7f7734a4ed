//! What happens, as it happens: server-sent events.
//!
//! ```text
//!   id: 3fa94c1e-17
//!   event: config
//!   data: {"at":"…","result":"applied","generation":8,…}
//! ```
//!
//! A browser's `EventSource` comes back by itself, and says by `Last-Event-ID` what it has seen.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use http::HeaderMap;
use serde_json::json;
use tokio::time::{Instant, timeout_at};

use super::extract::Parameters;
use super::problem::Problem;
use crate::control::{Control, Subscription, Told};

/// A comment is sent when nothing happened for so long: it shows both ends that the other is there, and
/// proxies on the way close what is silent for a minute.
const SILENCE_MAX: Duration = Duration::from_secs(15);

/// A stream ends in order after this time, shortly before its connection is ended for its age.
const AGE_MAX: Duration = Duration::from_secs(9 * 60);

/// `GET /v1/events` — what happens from now on, or since the event that `Last-Event-ID` names.
pub(super) async fn follow(
    State(control): State<Arc<Control>>,
    parameters: Parameters,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    parameters.finish()?;
    let seen = headers.get("last-event-id").and_then(|id| id.to_str().ok());
    let subscription = control.events().subscribe(seen);
    let (end, keep_alive) = (Instant::now() + AGE_MAX, KeepAlive::new().interval(SILENCE_MAX));
    Ok(Sse::new(stream::unfold((subscription, end), next)).keep_alive(keep_alive).into_response())
}

type Listener = (Subscription, Instant);

async fn next((mut subscription, end): Listener) -> Option<(Result<sse::Event, Infallible>, Listener)> {
    let told = timeout_at(end, subscription.next()).await.ok()??;
    Some((Ok(write(&told)), (subscription, end)))
}

fn write(told: &Told) -> sse::Event {
    match told {
        Told::Event(event) => sse::Event::default()
            .id(&event.id)
            .event(event.what.kind())
            // One line: JSON has no line ends outside of text, and escapes them there.
            .data(serde_json::to_string(&**event).unwrap_or_default()),
        Told::Missed(missed) => {
            sse::Event::default().event("missed").data(json!({ "missed": missed }).to_string())
        }
    }
}
