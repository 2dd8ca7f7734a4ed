//! Traced requests in the words of OTLP, after OpenTelemetry's conventions for HTTP.

use std::sync::LazyLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prost::Message;

use super::messages::{
    AnyValue, ExportRequest, KeyValue, Resource, ResourceSpans, Scope, ScopeSpans, Span, SpanKind, Status,
    StatusCode, Value,
};
use crate::observe::{AttemptSpan, RequestSpan, TriedOutcome, is_grpc_failure};

/// Another one in each process.
static INSTANCE: LazyLock<String> = LazyLock::new(|| format!("{:032x}", fastrand::u128(..)));

/// Which edition of the conventions the attributes follow.
const SCHEMA: &str = "https://opentelemetry.io/schemas/1.37.0";

/// The methods that stand in spans by name (RFC 9110, RFC 5789); all else may be anything.
const METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];

/// One message for all of these.
pub(super) fn batch(requests: &[Box<RequestSpan>], service_name: &str) -> Vec<u8> {
    let version = env!("CARGO_PKG_VERSION");
    let attributes = vec![
        text("service.name", service_name),
        text("service.version", version),
        text("service.instance.id", &INSTANCE),
        number("process.pid", i64::from(std::process::id())),
    ];
    let spans = requests.iter().flat_map(|request| {
        let attempts = request.attempts.iter().enumerate();
        let attempts = attempts.map(|(index, attempt)| of_attempt(request, index, attempt));
        std::iter::once(of_request(request)).chain(attempts)
    });
    let scope = Scope { name: "evener".to_owned(), version: version.to_owned() };
    let scope_spans =
        vec![ScopeSpans { scope: Some(scope), spans: spans.collect(), schema_url: SCHEMA.to_owned() }];
    let resource = Some(Resource { attributes });
    let all = ResourceSpans { resource, scope_spans, schema_url: SCHEMA.to_owned() };
    ExportRequest { resource_spans: vec![all] }.encode_to_vec()
}

fn of_request(request: &RequestSpan) -> Span {
    let (method, original) = method(request);
    let mut attributes = vec![
        text("http.request.method", method),
        text("url.scheme", if request.is_https { "https" } else { "http" }),
        text("url.path", &request.path),
        text("network.protocol.name", "http"),
        text("network.protocol.version", request.version),
        number("http.response.status_code", request.status.into()),
        size("http.request.body.size", request.bytes_in),
        size("http.response.body.size", request.bytes_out),
        text("evener.request_id", &request.request_id),
        text("evener.listener", &request.listener),
    ];
    let optional = [
        ("http.request.method_original", original),
        ("server.address", Some(request.host.as_str()).filter(|host| !host.is_empty())),
        ("user_agent.original", request.user_agent.as_deref()),
        ("http.route", request.route_path.as_deref()),
        ("evener.route", request.route.as_deref()),
        ("evener.pool", request.pool.as_deref()),
        ("evener.reason", request.reason),
    ];
    attributes.extend(optional.into_iter().filter_map(|(name, value)| Some(text(name, value?))));
    attributes.extend(request.client.map(|client| text("client.address", &client.to_string())));
    attributes.extend(request.grpc_status.map(|code| number("rpc.grpc.status_code", code.into())));
    // What clients do wrong is no error of a server's.
    let is_failed_call = request.grpc_status.is_some_and(is_grpc_failure);
    let is_error = request.status >= 500 || is_failed_call;
    if is_error || request.status == 499 {
        let code = request.grpc_status.filter(|_| is_failed_call).map(u16::from);
        let status = code.unwrap_or(request.status).to_string();
        attributes.push(text("error.type", request.reason.unwrap_or(&status)));
    }
    let verb = if method == OTHER { "HTTP" } else { method };
    Span {
        trace_id: request.trace_id.to_be_bytes().to_vec(),
        span_id: request.span_id.to_be_bytes().to_vec(),
        parent_span_id: request.parent.map(|parent| parent.to_be_bytes().to_vec()).unwrap_or_default(),
        trace_state: request.trace_state.clone(),
        flags: SAMPLED | HAS_IS_REMOTE | if request.parent.is_some() { IS_REMOTE } else { 0 },
        name: request.route_path.as_ref().map_or_else(|| verb.to_owned(), |route| format!("{verb} {route}")),
        kind: SpanKind::Server.into(),
        start_time_unix_nano: nanoseconds(request.started),
        end_time_unix_nano: nanoseconds(request.started + request.duration),
        attributes,
        status: is_error.then(error),
    }
}

fn of_attempt(request: &RequestSpan, index: usize, attempt: &AttemptSpan) -> Span {
    let (method, original) = method(request);
    let (address, port) = match attempt.upstream.parse::<std::net::SocketAddr>() {
        Ok(address) => (address.ip().to_string(), Some(address.port())),
        Err(_) => (attempt.upstream.trim_start_matches("unix:").to_owned(), None),
    };
    let mut attributes = vec![
        text("http.request.method", method),
        text("server.address", &address),
        text("evener.upstream", &attempt.upstream),
    ];
    attributes.extend(original.map(|original| text("http.request.method_original", original)));
    attributes.extend(port.map(|port| number("server.port", port.into())));
    if index > 0 {
        attributes.push(number("http.request.resend_count", i64::try_from(index).unwrap_or(i64::MAX)));
    }
    let is_error = match attempt.outcome {
        TriedOutcome::Answered(status) => {
            attributes.push(number("http.response.status_code", status.into()));
            if status >= 400 {
                attributes.push(text("error.type", &status.to_string()));
            }
            status >= 400
        }
        TriedOutcome::Failed(word) => {
            attributes.push(text("error.type", word));
            true
        }
    };
    let started = request.started + attempt.after;
    Span {
        trace_id: request.trace_id.to_be_bytes().to_vec(),
        span_id: attempt.span_id.to_be_bytes().to_vec(),
        parent_span_id: request.span_id.to_be_bytes().to_vec(),
        trace_state: request.trace_state.clone(),
        flags: SAMPLED | HAS_IS_REMOTE,
        name: if method == OTHER { "HTTP".to_owned() } else { method.to_owned() },
        kind: SpanKind::Client.into(),
        start_time_unix_nano: nanoseconds(started),
        end_time_unix_nano: nanoseconds(started + attempt.time),
        attributes,
        status: is_error.then(error),
    }
}

/// Flags of a span: the W3C's, and whether its parent is in another process.
const SAMPLED: u32 = 0x001;
const HAS_IS_REMOTE: u32 = 0x100;
const IS_REMOTE: u32 = 0x200;

const OTHER: &str = "_OTHER";

/// The method, and what it really is if nobody knows it.
fn method(request: &RequestSpan) -> (&str, Option<&str>) {
    let method = request.method.as_str();
    if METHODS.contains(&method) { (method, None) } else { (OTHER, Some(method)) }
}

fn error() -> Status {
    Status { code: StatusCode::Error.into() }
}

fn text(name: &str, value: &str) -> KeyValue {
    attribute(name, Value::Text(value.to_owned()))
}

fn number(name: &str, value: i64) -> KeyValue {
    attribute(name, Value::Number(value))
}

fn size(name: &str, bytes: u64) -> KeyValue {
    number(name, i64::try_from(bytes).unwrap_or(i64::MAX))
}

fn attribute(name: &str, value: Value) -> KeyValue {
    KeyValue { key: name.to_owned(), value: Some(AnyValue { value: Some(value) }) }
}

fn nanoseconds(time: SystemTime) -> u64 {
    let since_1970 = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since_1970.as_nanos()).unwrap_or(u64::MAX)
}
