//! `health_check` of a pool: how and how often upstreams are asked.

use std::time::Duration;

use http::header::{HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery};

use super::{headers, secret};
use crate::config::fields::{Fields, Value};
use crate::config::limits::{self, DURATION_MIN, PROBE_INTERVAL_MIN};
use crate::config::report::Wrong;
use crate::config::values::{duration_text, shown};
use crate::config::{HealthCheckConfig, ProbeConfig, UpstreamProtocol, defaults};

/// `Some(None)`: turned off. Everything is checked even then, so that turning it on holds no surprise.
/// `protocol` is that of the pool, if it can be read.
#[expect(clippy::option_option, reason = "not given, turned off, and given are three things")]
pub(super) fn read(
    value: &Value<'_>,
    protocol: Option<UpstreamProtocol>,
) -> Option<Option<HealthCheckConfig>> {
    value.table("`health_check`", |fields| {
        let enabled = fields.read("enabled", Value::boolean).unwrap_or(true);
        let times =
            |key, default| fields.read(key, |value| value.count(1, limits::IN_A_ROW_MAX)).unwrap_or(default);
        let probe = probe(fields, protocol);
        let (interval, fast_interval, timeout) = durations(fields);
        let check = HealthCheckConfig {
            probe,
            interval,
            fast_interval,
            timeout,
            rise: times("rise", defaults::PROBE_RISE),
            fall: times("fall", defaults::PROBE_FALL),
        };
        enabled.then_some(check)
    })
}

/// `interval`, `fast_interval` (by default no longer than `interval`) and `timeout`.
fn durations(fields: &Fields<'_>) -> (Duration, Duration, Duration) {
    let before = fields.desk.found_so_far();
    let given = |key, least| fields.read(key, |value| value.duration(least));
    let interval = given("interval", PROBE_INTERVAL_MIN).unwrap_or(defaults::PROBE_INTERVAL);
    let fast = given("fast_interval", PROBE_INTERVAL_MIN);
    let timeout = given("timeout", DURATION_MIN);
    if before == fields.desk.found_so_far() {
        compare_fast(fields, interval, fast);
        compare_timeout(fields, interval, timeout);
    }
    let fast = fast.unwrap_or(defaults::PROBE_FAST_INTERVAL.min(interval));
    (interval, fast, timeout.unwrap_or(defaults::PROBE_TIMEOUT))
}

fn compare_fast(fields: &Fields<'_>, interval: Duration, fast: Option<Duration>) {
    let too_long = fast.is_some_and(|fast| fast > interval);
    if let Some(value) = fields.get("fast_interval").filter(|_| too_long) {
        let interval = duration_text(interval);
        let message = format!("`fast_interval` is longer than `interval` ({interval})");
        let help = format!("write at most \"{interval}\", or raise `interval`");
        value.desk.refuse(value.span, Wrong::new(message, "not fast", help));
    }
}

fn compare_timeout(fields: &Fields<'_>, interval: Duration, timeout: Option<Duration>) {
    let too_long = timeout.is_some_and(|timeout| timeout > interval);
    if let Some(value) = fields.get("timeout").filter(|_| too_long) {
        let interval = duration_text(interval);
        let message = format!("a probe may take longer than the `interval` between probes ({interval})");
        let help = format!("write at most \"{interval}\", or raise `interval`");
        value.desk.warn(value.span, Wrong::new(message, "the next probe waits for this one", help));
    }
}

fn probe(fields: &Fields<'_>, protocol: Option<UpstreamProtocol>) -> ProbeConfig {
    let path = fields.read("path", |value| value.parse(path_and_query));
    let is_grpc = is_grpc(fields, protocol);
    let asks = is_grpc || !fields.is_absent("path");
    let host = only_if(asks, fields, "host", "path", |value| value.parse(authority));
    let status = only_if(!fields.is_absent("path"), fields, "status", "path", statuses);
    let headers = only_if(asks, fields, "headers", "path", probe_headers).unwrap_or_default();
    let service = only_if(is_grpc, fields, "service", "grpc", |value| value.parse(service));
    match path {
        _ if is_grpc => ProbeConfig::Grpc { service: service.unwrap_or_default(), host, headers },
        None => ProbeConfig::Tcp,
        Some(path) => {
            let status = status.unwrap_or_else(|| vec![defaults::PROBE_STATUS]);
            ProbeConfig::Http { path, host, status, headers }
        }
    }
}

/// Whether `grpc` is on, which nothing but HTTP/2 can carry.
fn is_grpc(fields: &Fields<'_>, protocol: Option<UpstreamProtocol>) -> bool {
    let Some(value) = fields.get("grpc") else { return false };
    if value.boolean() != Some(true) {
        return false;
    }
    if protocol.is_some_and(|protocol| protocol != UpstreamProtocol::Http2) {
        let wrong = Wrong::new(
            "a gRPC health check needs `protocol = \"http2\"`",
            "not over HTTP/1.1",
            "add protocol = \"http2\" to the pool, or check with `path`",
        );
        value.desk.miss(Some(value.span), wrong);
    }
    if let Some(path) = fields.get("path") {
        let help = "remove `path`, or `grpc`; the gRPC service is named by `service`";
        let wrong = Wrong::new("a probe asks by `path` or by `grpc`, not both", "the other way to ask", help);
        path.desk.refuse(path.span, wrong);
    }
    true
}

/// Reads a key that only some probes can use, such as those with the key `needed`.
fn only_if<'t, T>(
    has_a_use: bool,
    fields: &Fields<'t>,
    key: &'static str,
    needed: &str,
    read: impl FnOnce(&Value<'t>) -> Option<T>,
) -> Option<T> {
    let value = fields.get(key)?;
    if !has_a_use {
        let message = format!("`{key}` has no meaning without `{needed}`");
        let example = if needed == "grpc" { "grpc = true" } else { "path = \"/healthz\"" };
        let help = format!("add {example}, or remove `{key}`");
        let wrong = Wrong::new(
            message,
            if needed == "grpc" { "for gRPC only" } else { "a TCP connect has no such thing" },
            help,
        );
        value.desk.miss(Some(value.span.clone()), wrong);
    }
    read(&value)
}

/// A name as `package.Service`; the protocol allows any text, of which the empty one is the whole server.
fn service(text: &str) -> Result<String, Wrong> {
    if text.len() <= limits::GRPC_SERVICE_BYTES_MAX && !text.bytes().any(|byte| byte.is_ascii_control()) {
        return Ok(text.to_owned());
    }
    let message = format!("`{}` is no name of a gRPC service", shown(text));
    let help = "write it as its .proto has it: \"orders.v1.Orders\"; \"\" asks about the whole server";
    Err(Wrong::new(message, "too long, or not text", help))
}

fn path_and_query(text: &str) -> Result<String, Wrong> {
    let plain = text.starts_with('/') && !text.contains('#') && text.is_ascii();
    if plain && text.parse::<PathAndQuery>().is_ok() {
        return Ok(text.to_owned());
    }
    Err(Wrong::new(
        format!("`{}` is no path", shown(text)),
        "not a path of a URL",
        "begin with a slash and escape blanks: \"/healthz\", \"/ready?full=1\"",
    ))
}

fn authority(text: &str) -> Result<String, Wrong> {
    match text.parse::<Authority>() {
        Ok(_) if !text.contains('@') => Ok(text.to_owned()),
        _ => Err(Wrong::new(
            format!("`{}` is no host", shown(text)),
            "not a Host header",
            "write a host name, with a port if it needs one: \"app.internal\", \"app.internal:8080\"",
        )),
    }
}

fn statuses(value: &Value<'_>) -> Option<Vec<u16>> {
    let mut statuses = value.list(limits::LIST_ENTRIES_MAX, |status| status.count(200, 599))?;
    if value.is_empty_list() {
        let help = "name what a healthy upstream answers: status = [200]";
        return value.refuse(Wrong::new("no answer would count as healthy", "empty", help));
    }
    statuses.sort_unstable();
    statuses.dedup();
    Some(statuses)
}

/// The headers of a probe; a secret that stands in the file itself is odd.
fn probe_headers(value: &Value<'_>) -> Option<Vec<(HeaderName, HeaderValue)>> {
    let fields = headers::fields(value)?;
    for (key, value) in value.entries(limits::LIST_ENTRIES_MAX)? {
        let literal = value.as_text().is_some_and(|text| !secret::is_reference(text));
        if literal && key.text.parse().is_ok_and(|name| headers::is_sensitive(&name)) {
            let help = "write \"env:NAME\" or \"file:PATH\", so that the file can be shown to others";
            value
                .desk
                .warn(key.span, Wrong::new("a secret stands in the file", "its value is not shown", help));
        }
    }
    Some(fields)
}
