//! The access-log line of a request, and its spans.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use http::HeaderValue;

use super::connection::Connection;
use super::context::RequestContext;
use super::headers::bare_host;
use super::steps::Finished;
use super::trace::Trace;
use crate::config::AccessFilter;
use crate::observe::{
    AccessLog, AccessRecord, AttemptSpan, Facts, Reason, RequestSpan, Tried, TriedOutcome, bounded_text,
    is_grpc_failure,
};
use crate::retry::ATTEMPTS_MAX;
use crate::runtime::{Pool, Runtime};

/// Writes the access-log line of a request, if it is to have one, and its spans, if it is traced.
pub(super) fn write(finished: &Finished, duration: Duration, ctx: &RequestContext) {
    let Some(told) = &ctx.told else { return };
    let status = status_seen(finished, ctx);
    let grpc_status = ctx.grpc.map(|call| call.outcome(ctx.refusal));
    let has_failed = status >= 500 || ctx.refusal.is_some() || grpc_status.is_some_and(is_grpc_failure);
    let filter = &ctx.snapshot.config.log.access_filter;
    let log = ctx.runtime.access_log.as_ref().filter(|_| is_wanted(filter, has_failed, duration));
    let trace = ctx.recorded_trace();
    if log.is_none() && trace.is_none() {
        return;
    }
    let nothing = Tried { upstream: "", outcome: TriedOutcome::Failed(""), time: Duration::ZERO };
    let mut tried = [nothing; ATTEMPTS_MAX as usize];
    let upstreams = ctx.pool().map_or(&[][..], Pool::upstreams);
    let mut count = 0;
    for (one, attempt) in tried.iter_mut().zip(ctx.trail.attempts()) {
        let upstream = upstreams.get(attempt.upstream as usize).map_or("", |upstream| &upstream.label);
        *one =
            Tried { upstream, outcome: TriedOutcome::of(attempt, ctx.refusal), time: attempt.time(duration) };
        count += 1;
    }
    let host = told.host.as_ref().and_then(|host| host.to_str().ok()).or_else(|| told.uri.host());
    let referer = told.referer.as_ref().map(|referer| text_of(referer));
    let referer = referer.as_deref().map(without_secrets);
    let user_agent = told.user_agent.as_ref().map(|agent| text_of(agent));
    let record = AccessRecord {
        time: SystemTime::now(),
        request_id: ctx.request_id.to_str().unwrap_or_default(),
        client: ctx.client,
        listener: ctx.connection().map_or("", |connection| &connection.listener.name),
        method: told.method.as_str(),
        host: &host.map_or(Cow::Borrowed(""), bare_host),
        path: told.uri.path(),
        route: ctx.route().map(|route| route.config.name.as_str()),
        pool: ctx.pool().map(|pool| pool.config.name.as_str()),
        upstream: ctx.upstream().map(|upstream| &*upstream.label),
        status,
        reason: ctx.refusal,
        attempts: ctx.attempts,
        tried: tried.get(..count).unwrap_or_default(),
        duration,
        upstream_time: ctx.attempt.as_ref().and_then(|attempt| attempt.response_time),
        bytes_in: finished.request_bytes,
        bytes_out: finished.response_bytes,
        protocol: protocol(ctx),
        tls: ctx.connection().and_then(|connection| connection.tls.as_ref()).map(|tls| tls.version),
        generation: ctx.snapshot.generation,
        referer: referer.as_deref(),
        user_agent: user_agent.as_deref(),
        trace_id: trace.map(|trace| trace.id),
        grpc_status,
    };
    if let Some(log) = log {
        log.write(&record);
    }
    if let Some(trace) = trace {
        ctx.runtime.spans.push(Box::new(span_of(&record, trace, ctx)));
    }
}

/// The spans of a request say what its line says.
fn span_of(record: &AccessRecord<'_>, trace: &Trace, ctx: &RequestContext) -> RequestSpan {
    let numbers = 1..=u32::MAX;
    let attempts =
        record.tried.iter().zip(ctx.trail.attempts()).zip(numbers).map(|((tried, attempt), number)| {
            AttemptSpan {
                span_id: trace.span_of(number),
                upstream: tried.upstream.to_owned(),
                after: attempt.picked,
                time: tried.time,
                outcome: tried.outcome,
            }
        });
    RequestSpan {
        trace_id: trace.id,
        span_id: trace.span,
        parent: trace.parent,
        trace_state: trace.state.clone(),
        started: record.time.checked_sub(record.duration).unwrap_or(record.time),
        duration: record.duration,
        request_id: record.request_id.to_owned(),
        client: record.client,
        method: bounded_text(record.method),
        is_https: record.tls.is_some(),
        host: bounded_text(record.host),
        path: bounded_text(record.path),
        version: protocol(ctx).trim_start_matches("HTTP/"),
        user_agent: record.user_agent.map(bounded_text),
        listener: record.listener.to_owned(),
        route: record.route.map(str::to_owned),
        route_path: ctx.route().map(|route| route.config.matcher.path_prefix.as_str().to_owned()),
        pool: record.pool.map(str::to_owned),
        status: record.status,
        reason: record.reason.map(Reason::word),
        grpc_status: record.grpc_status,
        bytes_in: record.bytes_in,
        bytes_out: record.bytes_out,
        attempts: attempts.collect(),
    }
}

/// Whether a request is to have a line.
fn is_wanted(filter: &AccessFilter, has_failed: bool, duration: Duration) -> bool {
    filter.sample >= 1.0
        || (filter.errors && has_failed)
        || duration >= filter.slower_than
        || fastrand::f32() < filter.sample
}

fn text_of(value: &HeaderValue) -> Cow<'_, str> {
    String::from_utf8_lossy(value.as_bytes())
}

/// Queries carry secrets, and so may fragments; and what stands before a host is a user with a password.
fn without_secrets(url: &str) -> Cow<'_, str> {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    let bare = url.split_once("//").and_then(|(scheme, rest)| {
        let authority = rest.split('/').next()?;
        let user = authority.rfind('@')?;
        Some(format!("{scheme}//{}", rest.get(user + 1..)?))
    });
    bare.map_or(Cow::Borrowed(url), Cow::Owned)
}

/// What the client has seen; 499 if it did not wait. Metrics count a refused gRPC call by the status of its reason.
pub(super) fn status_seen(finished: &Finished, ctx: &RequestContext) -> u16 {
    match ctx.refusal {
        Some(Reason::ClientClosed) => 499,
        _ if ctx.grpc.is_some_and(|call| call.is_refused) => 200,
        _ => finished.status,
    }
}

pub(super) fn protocol(ctx: &RequestContext) -> &'static str {
    match &ctx.exchange {
        Some(exchange) if exchange.is_stream => "HTTP/2",
        _ if ctx.is_http_1_0 => "HTTP/1.0",
        _ => "HTTP/1.1",
    }
}

/// Writes the access-log line of a request that was refused before it had a context.
pub(super) fn write_early(facts: &Facts, request_id: &str, connection: &Connection, runtime: &Runtime) {
    let Some(log): &Option<AccessLog> = &runtime.access_log else { return };
    if !is_wanted(&runtime.peek().config.log.access_filter, true, facts.duration) {
        return;
    }
    log.write(&AccessRecord {
        time: SystemTime::now(),
        request_id,
        client: facts.client,
        listener: &connection.listener.name,
        method: "",
        host: "",
        path: "",
        route: None,
        pool: None,
        upstream: None,
        status: facts.status,
        reason: facts.reason,
        attempts: 0,
        tried: &[],
        duration: facts.duration,
        upstream_time: None,
        bytes_in: facts.bytes_in,
        bytes_out: facts.bytes_out,
        protocol: facts.protocol,
        tls: facts.tls,
        generation: facts.generation,
        referer: None,
        user_agent: None,
        trace_id: None,
        grpc_status: None,
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_referer_is_told_without_its_secrets() {
        for (said, told) in [
            ("https://a.example/b?token=1", "https://a.example/b"),
            ("https://a.example/b#token", "https://a.example/b"),
            ("https://user:secret@a.example:8443/b@c?d", "https://a.example:8443/b@c"),
            ("https://user:se@cret@a.example", "https://a.example"),
            ("https://a.example/users/@me", "https://a.example/users/@me"),
            ("//user:secret@a.example/", "//a.example/"),
            ("android-app://a.example", "android-app://a.example"),
            ("/b@c", "/b@c"),
            ("", ""),
        ] {
            assert_eq!(without_secrets(said), told, "{said}");
        }
    }
}
