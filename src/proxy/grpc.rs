//! What gRPC asks of a proxy, beyond carrying HTTP/2: the client's deadline, and refusals that its libraries
//! understand.
//!
//! A call is a POST whose media type says so. Its outcome stands in `grpc-status`, in the trailers, or in the
//! head where there is nothing else ("trailers-only"); the HTTP status is 200 in any case.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, StatusCode};
use pingora::http::{RequestHeader, ResponseHeader};

use super::context::RequestContext;
use crate::observe::Reason;

/// One gRPC call.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Call {
    /// When the client's deadline is over; it takes the place of the route's timeout.
    pub deadline: Option<Duration>,
    /// How it ended, if the upstream said so.
    pub status: Option<u8>,
    /// We have refused it in the words of gRPC, where the HTTP status is 200 in any case.
    pub is_refused: bool,
}

impl Call {
    /// The call that a request makes, if it makes one; `now`: since the runtime's epoch.
    pub(super) fn of(request: &RequestHeader, now: Duration) -> Option<Self> {
        if !is_call(&request.method, &request.headers) {
            return None;
        }
        let given = request.headers.get(TIMEOUT).and_then(|value| parse_timeout(value.as_bytes()));
        Some(Self { deadline: given.map(|given| now.saturating_add(given)), ..Self::default() })
    }

    /// When we give it up: a moment later than the client, which then is the one to say so, and so closes
    /// nothing but its own stream.
    pub(super) fn given_up_at(&self) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.saturating_add(GRACE))
    }

    /// Takes down how the call ended, if these headers or trailers tell. What is no status is UNKNOWN.
    pub(super) fn note_status(&mut self, told: &HeaderMap) {
        if let Some(value) = told.get(STATUS) {
            let code = value.to_str().ok().and_then(|text| text.parse().ok());
            self.status = Some(code.filter(|&code| code <= CODE_MAX).unwrap_or(UNKNOWN));
        }
    }

    /// The HTTP status by which the upstream is judged for a response that began with `status`: who answers
    /// UNAVAILABLE, and nothing else, is not fit to serve.
    pub(super) const fn judged(&self, status: u16) -> u16 {
        match self.status {
            Some(UNAVAILABLE) if status == 200 => 503,
            _ => status,
        }
    }

    /// How the call ended, by the upstream's word or by ours.
    pub(super) fn outcome(&self, refusal: Option<Reason>) -> u8 {
        refusal.map(code).or(self.status).unwrap_or(UNKNOWN)
    }

    /// What the upstream is told: how much of the client's time is left.
    pub(super) fn tell_deadline(&self, now: Duration, request: &mut RequestHeader) -> pingora::Result<()> {
        match self.deadline {
            Some(deadline) => request.insert_header(TIMEOUT, timeout_text(deadline.saturating_sub(now))),
            None => Ok(()),
        }
    }
}

/// Whether a request is a gRPC call. gRPC-Web is not: it does without trailers, so that any HTTP carries it.
fn is_call(method: &Method, headers: &HeaderMap) -> bool {
    if method != Method::POST {
        return false;
    }
    let media_type = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    media_type
        .and_then(|value| value.strip_prefix(MEDIA_TYPE.as_bytes()))
        .is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

/// `grpc-timeout`: up to eight digits and a unit. What is malformed says nothing.
fn parse_timeout(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    match unit {
        b'H' => Some(Duration::from_secs(number * 3600)),
        b'M' => Some(Duration::from_secs(number * 60)),
        b'S' => Some(Duration::from_secs(number)),
        b'm' => Some(Duration::from_millis(number)),
        b'u' => Some(Duration::from_micros(number)),
        b'n' => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

/// In the smallest unit for which eight digits are enough.
fn timeout_text(left: Duration) -> String {
    match (left.as_micros(), left.as_millis(), left.as_secs()) {
        (micros, _, _) if micros <= NUMBER_MAX.into() => format!("{micros}u"),
        (_, millis, _) if millis <= NUMBER_MAX.into() => format!("{millis}m"),
        (_, _, seconds) => format!("{}S", seconds.min(NUMBER_MAX)),
    }
}

/// The answer to a call that no upstream answers: a head, and nothing else.
pub(super) fn refusal(reason: Reason, request_id: &HeaderValue) -> pingora::Result<ResponseHeader> {
    let mut response = ResponseHeader::build(StatusCode::OK, Some(4))?;
    response.insert_header(header::CONTENT_TYPE, MEDIA_TYPE)?;
    response.insert_header(STATUS, code(reason).to_string())?;
    response.insert_header(MESSAGE, reason.what())?;
    response.insert_header("X-Request-Id", request_id.clone())?;
    Ok(response)
}

/// The end of a call whose answer had begun when it failed.
pub(super) fn trailers(reason: Reason) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert(STATUS, u16::from(code(reason)).into());
    trailers.insert(MESSAGE, HeaderValue::from_static(reason.what()));
    trailers
}

/// Why a call cannot be carried here, if it cannot.
pub(super) fn obstacle(ctx: &RequestContext) -> Option<Reason> {
    ctx.grpc?;
    let is_carried =
        ctx.exchange.as_ref().is_some_and(|exchange| exchange.is_stream) && !ctx.speaks_only_http1();
    if is_carried {
        return None;
    }
    tell_obstacle(ctx);
    Some(Reason::GrpcNeedsHttp2)
}

/// Says so in the log, now and then: it is the configuration that has to change, or whoever stands before us.
pub(super) fn tell_obstacle(ctx: &RequestContext) {
    let now = ctx.started.as_secs() + 1;
    let last = LAST_TOLD.load(Ordering::Relaxed);
    if last != 0 && now < last + TOLD_EVERY_S {
        return;
    }
    LAST_TOLD.store(now, Ordering::Relaxed);
    let is_stream = ctx.exchange.as_ref().is_some_and(|exchange| exchange.is_stream);
    tracing::warn!(
        pool = ctx.pool().map(|pool| pool.config.name.as_str()),
        listener = ctx.connection().map(|connection| connection.listener.name.as_str()),
        client_protocol = if is_stream { "HTTP/2" } else { "HTTP/1.1" },
        help = Reason::GrpcNeedsHttp2.next(),
        "gRPC call refused"
    );
}

/// When that was last said, in seconds since the runtime's epoch and one; 0: never.
static LAST_TOLD: AtomicU64 = AtomicU64::new(0);

/// A log line a minute is seen, and does not fill a disk.
const TOLD_EVERY_S: u64 = 60;

/// Each refusal in the words of gRPC (grpc.io/docs/guides/status-codes). UNAVAILABLE tells clients that the
/// call may be made again.
pub(super) const fn code(reason: Reason) -> u8 {
    match reason {
        Reason::ClientClosed => CANCELLED,
        Reason::RequestTimeout | Reason::ConnectTimeout | Reason::UpstreamTimeout => DEADLINE_EXCEEDED,
        Reason::HeadTooLarge | Reason::BodyTooLarge | Reason::RateLimited => RESOURCE_EXHAUSTED,
        Reason::NoRoute | Reason::UpgradeUnsupported | Reason::GrpcNeedsHttp2 => UNIMPLEMENTED,
        Reason::BadRequest | Reason::BadResponse => INTERNAL,
        Reason::NoEligibleUpstream
        | Reason::QueueFull
        | Reason::Draining
        | Reason::TooManyConnections
        | Reason::ConnectFailure
        | Reason::UpstreamReset
        | Reason::TlsFailure => UNAVAILABLE,
    }
}

const CANCELLED: u8 = 1;
const UNKNOWN: u8 = 2;
const DEADLINE_EXCEEDED: u8 = 4;
const RESOURCE_EXHAUSTED: u8 = 8;
const UNIMPLEMENTED: u8 = 12;
const INTERNAL: u8 = 13;
const UNAVAILABLE: u8 = 14;

/// UNAUTHENTICATED, the last one.
const CODE_MAX: u8 = 16;

const MEDIA_TYPE: &str = "application/grpc";
const TIMEOUT: &str = "grpc-timeout";
const STATUS: &str = "grpc-status";
const MESSAGE: &str = "grpc-message";

/// Eight digits.
const NUMBER_MAX: u64 = 99_999_999;

/// What a client's own word, that its time is over, may be on its way.
const GRACE: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use super::*;

    fn is_call_of(method: &Method, media_type: &'static str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
        is_call(method, &headers)
    }

    #[test]
    fn calls_are_posts_of_the_media_type_and_of_no_other() {
        for media_type in ["application/grpc", "application/grpc+proto", "application/grpc;charset=utf-8"] {
            assert!(is_call_of(&Method::POST, media_type), "{media_type}");
            assert!(!is_call_of(&Method::GET, media_type), "{media_type}");
        }
        for media_type in ["application/grpc-web", "application/grpc-web+proto", "application/json", ""] {
            assert!(!is_call_of(&Method::POST, media_type), "{media_type}");
        }
    }

    #[test]
    fn timeouts_are_read_in_every_unit_and_nothing_else_is_one() {
        let told = [
            ("2H", 7_200_000_000_000),
            ("3M", 180_000_000_000),
            ("4S", 4_000_000_000),
            ("5m", 5_000_000),
            ("6u", 6_000),
            ("7n", 7),
            ("0m", 0),
        ];
        for (text, nanos) in told {
            assert_eq!(parse_timeout(text.as_bytes()), Some(Duration::from_nanos(nanos)), "{text}");
        }
        assert_eq!(parse_timeout(b"99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        for text in ["", "S", "5", "5s", "-5S", "+5S", " 5S", "1.5S", "100000000S", "5SS"] {
            assert_eq!(parse_timeout(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn what_is_told_is_what_was_given_as_far_as_eight_digits_go() {
        for (left, text) in [
            (Duration::ZERO, "0u"),
            (Duration::from_millis(1_500), "1500000u"),
            (Duration::from_secs(100), "100000m"),
            (Duration::from_secs(1_000_000), "1000000S"),
            (Duration::from_secs(99_999_999 * 3600), "99999999S"),
        ] {
            assert_eq!(timeout_text(left), text);
            assert!(parse_timeout(text.as_bytes()).is_some(), "{text}");
        }
    }

    /// So they need no percent-encoding.
    #[test]
    fn messages_are_plain_text() {
        for reason in Reason::ALL {
            assert!(
                reason.what().bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'%'),
                "{reason:?}"
            );
        }
    }

    #[test]
    fn a_status_that_is_none_is_unknown() {
        let status_of = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(STATUS, HeaderValue::from_static(text));
            let mut call = Call::default();
            call.note_status(&headers);
            call.status
        };
        assert_eq!(
            ["0", "16", "17", "-1", "300", "ok", ""].map(status_of),
            [0, 16, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN].map(Some)
        );
    }
}
