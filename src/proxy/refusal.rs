//! Answers that we give instead of an upstream.
//!
//! The client learns what happened and the request's id, never internals; what to do about it is for
//! the log and the admin API.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{HeaderMap, StatusCode};
use pingora::http::ResponseHeader;

use super::connection::Connection;
use super::headers;
use crate::observe::{Facts, Reason};
use crate::runtime::Runtime;

/// Seconds after which trying again makes sense when nobody can answer now: health checks of a sick
/// pool come every two seconds.
const RETRY_AFTER: &str = "2";

/// A refusal before Pingora has seen the request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Early {
    reason: Reason,
    /// What exactly was wrong, for the log.
    detail: &'static str,
    /// What the client speaks.
    protocol: &'static str,
    /// What the client is told beyond the reason's own words.
    hint: &'static str,
    /// How long it was on its way, as far as anybody measured: a head that comes in one piece is not timed.
    took: Duration,
}

impl Early {
    pub(super) const fn of(reason: Reason) -> Self {
        Self { reason, detail: "", hint: "", protocol: "HTTP/1.1", took: Duration::ZERO }
    }

    pub(super) const fn malformed(detail: &'static str) -> Self {
        Self { detail, ..Self::of(Reason::BadRequest) }
    }

    /// The same, of a client that speaks HTTP/2.
    pub(super) const fn on_http2(self) -> Self {
        Self { protocol: "HTTP/2", ..self }
    }

    /// The same, after the client has taken so long.
    pub(super) const fn after(self, took: Duration) -> Self {
        Self { took, ..self }
    }

    /// HTTP in clear where TLS is spoken.
    pub(super) const fn in_clear() -> Self {
        let hint = "this port speaks TLS; ask with https:// instead of http://\n";
        Self { hint, ..Self::malformed("HTTP in clear on a port that speaks TLS") }
    }
}

/// Counts and logs an early refusal whose answer has a body of so many bytes: none, if others answer it, or nobody.
pub(super) fn note_early(
    early: &Early,
    body_bytes: usize,
    request_id: &str,
    connection: &Arc<Connection>,
    runtime: &Runtime,
) {
    runtime.metrics.refused(early.reason);
    tracing::debug!(
        listener = %connection.listener.name,
        client = %connection.peer_ip(),
        reason = early.reason.word(),
        detail = early.detail,
        request_id,
        "request refused"
    );
    let facts = Facts {
        began: runtime.now().saturating_sub(early.took),
        duration: early.took,
        client: Some(connection.peer_ip()),
        protocol: early.protocol,
        tls: connection.tls.as_ref().map(|tls| tls.version),
        generation: runtime.peek().generation,
        status: early.reason.status(),
        reason: Some(early.reason),
        bytes_out: body_bytes as u64,
        ..Facts::default()
    };
    super::log::write_early(&facts, request_id, connection, runtime);
    super::record::keep_early(&facts, request_id, connection, runtime);
}

/// Counts an early refusal, and renders its answer as raw bytes.
pub(super) fn refuse_early(early: &Early, connection: &Arc<Connection>, runtime: &Runtime) -> Vec<u8> {
    let id = headers::new_request_id();
    let id_text = id.to_str().unwrap_or_default();
    let body = text_body(early.reason, id_text) + early.hint;
    note_early(early, body.len(), id_text, connection, runtime);
    raw_answer(early.reason, id_text, &body)
}

/// The answer to a request that Pingora does not answer, as raw bytes; its body is [`text_body`], and perhaps more.
pub(super) fn raw_answer(reason: Reason, request_id: &str, body: &str) -> Vec<u8> {
    let status = StatusCode::from_u16(reason.status()).unwrap_or(StatusCode::BAD_REQUEST);
    let retry_after =
        if wants_retry_after(reason) { format!("Retry-After: {RETRY_AFTER}\r\n") } else { String::new() };
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n{retry_after}X-Request-Id: {request_id}\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// The answer to a request that Pingora has read.
pub(super) fn answer(
    reason: Reason,
    request: &HeaderMap,
    request_id: &HeaderValue,
) -> pingora::Result<(ResponseHeader, Bytes)> {
    let id = request_id.to_str().unwrap_or_default();
    let (media_type, body) = if wants_json(request) {
        ("application/json", json_body(reason, id))
    } else {
        ("text/plain; charset=utf-8", text_body(reason, id))
    };
    let mut response = ResponseHeader::build(reason.status(), Some(8))?;
    response.insert_header(header::CONTENT_TYPE, media_type)?;
    response.insert_header(header::CONTENT_LENGTH, body.len().to_string())?;
    response.insert_header("X-Request-Id", request_id.clone())?;
    response.insert_header(header::CACHE_CONTROL, "no-store")?;
    if wants_retry_after(reason) {
        response.insert_header(header::RETRY_AFTER, RETRY_AFTER)?;
    }
    Ok((response, body.into()))
}

/// The status of [`redirect`]: for good, and with the same method.
pub(super) const REDIRECT: u16 = 308;

/// The answer to a request that is to come again elsewhere.
pub(super) fn redirect(
    location: HeaderValue,
    request_id: &HeaderValue,
) -> pingora::Result<(ResponseHeader, Bytes)> {
    let mut response = ResponseHeader::build(REDIRECT, Some(3))?;
    response.insert_header(header::LOCATION, location)?;
    response.insert_header(header::CONTENT_LENGTH, "0")?;
    response.insert_header("X-Request-Id", request_id.clone())?;
    Ok((response, Bytes::new()))
}

fn wants_retry_after(reason: Reason) -> bool {
    matches!(reason.status(), 429 | 503)
}

/// JSON for those who name it; browsers and command lines get a line of text.
fn wants_json(request: &HeaderMap) -> bool {
    request
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.contains("application/json") || value.contains("+json"))
}

fn json_body(reason: Reason, id: &str) -> String {
    let body = serde_json::json!({
        "status": reason.status(),
        "reason": reason.word(),
        "detail": reason.what(),
        "request_id": id,
    });
    format!("{body}\n")
}

/// What happened, in a line of text, and under which id.
pub(super) fn text_body(reason: Reason, id: &str) -> String {
    format!("{} {}: {}\nrequest id: {id}\n", reason.status(), reason.word(), reason.what())
}
