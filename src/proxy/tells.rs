//! What a response says of how it came to be: `Server-Timing`, `X-Response-Time`, `Proxy-Status`.

use std::fmt::Write;
use std::time::Duration;

use pingora::http::ResponseHeader;

use super::context::RequestContext;
use crate::observe::{AttemptOutcome, Reason};

/// Adds the fields that the route asks for, to an answer of the upstream's or of ours.
pub(super) fn annotate(response: &mut ResponseHeader, ctx: &RequestContext) -> pingora::Result<()> {
    let Some(tells) = ctx.route().map(|route| route.config.tells).filter(|tells| tells.anything()) else {
        return Ok(());
    };
    if response.status.is_informational() && response.status != 101 {
        return Ok(());
    }
    if tells.server_timing || tells.response_time {
        let total = ctx.runtime.now().saturating_sub(ctx.started);
        if tells.response_time {
            response.insert_header("X-Response-Time", response_time(total))?;
        }
        if tells.server_timing {
            response.append_header("Server-Timing", server_timing(total, ctx))?;
        }
    }
    if tells.proxy_status {
        response.append_header("Proxy-Status", proxy_status(ctx))?;
    }
    Ok(())
}

/// In milliseconds, to a tenth.
fn response_time(total: Duration) -> String {
    format!("{:.1}ms", milliseconds(total))
}

/// The times add up to what the client waited for the head of the response, the network left out.
fn server_timing(total: Duration, ctx: &RequestContext) -> String {
    let times = Times::of(total, ctx);
    let parts = [
        ("upstream", times.upstream),
        ("client", times.client),
        ("connect", times.connect),
        ("failed", times.failed),
        ("evener", Some(times.evener)),
    ];
    let mut text = String::with_capacity(96);
    for (name, time) in parts {
        let Some(time) = time else { continue };
        let separator = if text.is_empty() { "" } else { ", " };
        // Memory takes all writes.
        let _ = write!(text, "{separator}{name};dur={:.1}", milliseconds(time));
    }
    text
}

/// Where the time to the head of a response went; `None`: nowhere near.
#[derive(Debug, PartialEq, Eq)]
struct Times {
    /// From the request sent to the first byte of the answer.
    upstream: Option<Duration>,
    /// While the request's body was on its way. Whoever is slow, it is hardly us.
    client: Option<Duration>,
    /// For a new connection to the upstream that answered.
    connect: Option<Duration>,
    /// The rest of attempts that failed.
    failed: Option<Duration>,
    /// Outside of attempts: the decisions, and the wait for a place in the pool.
    evener: Duration,
}

impl Times {
    fn of(total: Duration, ctx: &RequestContext) -> Self {
        let upstream = ctx.attempt.as_ref().and_then(|attempt| attempt.response_time);
        let attempts: Duration = ctx.trail.attempts().map(|attempt| attempt.time(total)).sum();
        let latest = ctx.trail.attempts().last();
        // Neither answered nor failed: what the client sends is refused while it sends it.
        let unfinished = latest.filter(|latest| latest.outcome == AttemptOutcome::Unfinished);
        let latest = latest.filter(|_| upstream.is_some() || unfinished.is_some());
        let connect = latest
            .and_then(|latest| latest.connected.map(|connected| connected.saturating_sub(latest.picked)));
        let sending = unfinished.map_or(Duration::ZERO, |attempt| attempt.time(total));
        let client = ctx.trail.uploads + sending.saturating_sub(connect.unwrap_or_default());
        let known = upstream.unwrap_or_default() + connect.unwrap_or_default() + client;
        Self {
            upstream,
            client: Some(client).filter(|client| !client.is_zero()),
            connect,
            failed: Some(attempts.saturating_sub(known)).filter(|failed| !failed.is_zero()),
            evener: total.saturating_sub(attempts),
        }
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}

/// RFC 9209: what the upstream said, or the type of error for which the answer is ours.
fn proxy_status(ctx: &RequestContext) -> String {
    let latest = ctx.trail.attempts().last();
    let answer = latest.filter(|latest| latest.outcome == AttemptOutcome::Answered);
    let received = answer.and_then(|answer| answer.status);
    let received = received.map_or(String::new(), |status| format!("; received-status={status}"));
    match ctx.refusal {
        None => format!("evener{received}"),
        Some(reason) => {
            let error = match latest.map(|latest| latest.outcome) {
                // Our own want of files or ports is not the upstream's refusal.
                Some(AttemptOutcome::LocalTrouble) => "proxy_internal_error",
                _ => error_type(reason),
            };
            format!("evener; error={error}; details=\"{}\"{received}", reason.word())
        }
    }
}

/// The type of error (RFC 9209 §2.3) that comes nearest to a reason.
const fn error_type(reason: Reason) -> &'static str {
    match reason {
        Reason::NoRoute => "destination_not_found",
        Reason::BadRequest
        | Reason::HeadTooLarge
        | Reason::BodyTooLarge
        | Reason::RequestTimeout
        | Reason::ClientClosed
        | Reason::RateLimited => "http_request_error",
        Reason::NoEligibleUpstream => "destination_unavailable",
        Reason::QueueFull => "connection_limit_reached",
        Reason::Draining | Reason::TooManyConnections => "proxy_internal_response",
        Reason::ConnectFailure => "connection_refused",
        Reason::ConnectTimeout => "connection_timeout",
        Reason::UpstreamReset => "connection_terminated",
        Reason::UpstreamTimeout => "http_response_timeout",
        Reason::TlsFailure => "tls_protocol_error",
        Reason::BadResponse => "http_protocol_error",
        Reason::UpgradeUnsupported => "http_upgrade_failed",
        Reason::GrpcNeedsHttp2 => "proxy_configuration_error",
    }
}
