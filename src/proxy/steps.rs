//! The decisions of a request's life: route, admit, pick, (forward), observe.
//!
//! Nothing here names Pingora, reads a clock or waits, so a second forwarding engine can call the same
//! decisions, and so can a test.

use std::time::Duration;

use http::HeaderMap;

use super::context::{Attempt, RequestContext};
use super::{grpc, headers};
use crate::balance::hash;
use crate::config::HashKey;
use crate::observe::{AttemptOutcome, Class, Reason, RetryReason, Then};
use crate::retry::{ATTEMPTS_MAX, Failure, Progress};
use crate::route::RequestHead;
use crate::runtime::{Lease, NoPick, Pool, Upstream};

/// What came of one attempt, without the success that [`answered`] tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// No connection: refused, unreachable.
    ConnectFailure,
    /// No connection in time.
    ConnectTimeout,
    /// The connection broke before the response was complete.
    Reset,
    /// No byte in time.
    Timeout,
    /// Something that is not HTTP.
    Garbage,
    /// The handshake failed.
    TlsFailure,
    /// A kept connection that the upstream had closed meanwhile: nobody's fault.
    StaleConnection,
    /// The upstream has left a shared connection in good order, before it has begun on this request.
    GoneAway,
    /// The upstream has no room for this request on a shared connection, and has not begun on it.
    Refused,
    /// We are out of descriptors or ports: not the upstream's fault.
    LocalTrouble,
    /// The client went away, or sent something bad: not the upstream's fault.
    ClientTrouble,
}

impl Outcome {
    /// What the client is told when this was the last attempt.
    pub(super) const fn reason(self) -> Reason {
        match self {
            Self::ConnectFailure | Self::LocalTrouble => Reason::ConnectFailure,
            Self::ConnectTimeout => Reason::ConnectTimeout,
            Self::Reset | Self::StaleConnection | Self::GoneAway | Self::Refused => Reason::UpstreamReset,
            Self::Timeout => Reason::UpstreamTimeout,
            Self::Garbage => Reason::BadResponse,
            Self::TlsFailure => Reason::TlsFailure,
            Self::ClientTrouble => Reason::ClientClosed,
        }
    }

    /// The same for those who ask afterwards.
    const fn told(self) -> AttemptOutcome {
        match self {
            Self::ConnectFailure => AttemptOutcome::ConnectFailure,
            Self::ConnectTimeout => AttemptOutcome::ConnectTimeout,
            Self::Reset => AttemptOutcome::Reset,
            Self::Timeout => AttemptOutcome::Timeout,
            Self::Garbage => AttemptOutcome::Garbage,
            Self::TlsFailure => AttemptOutcome::TlsFailure,
            Self::StaleConnection => AttemptOutcome::StaleConnection,
            Self::GoneAway => AttemptOutcome::GoneAway,
            Self::Refused => AttemptOutcome::RefusedStream,
            Self::LocalTrouble => AttemptOutcome::LocalTrouble,
            Self::ClientTrouble => AttemptOutcome::ClientClosed,
        }
    }

    const fn is_the_upstreams_fault(self) -> bool {
        !matches!(
            self,
            Self::StaleConnection | Self::GoneAway | Self::Refused | Self::LocalTrouble | Self::ClientTrouble
        )
    }

    const fn failure(self) -> Option<Failure> {
        match self {
            Self::ConnectFailure | Self::ConnectTimeout | Self::TlsFailure => Some(Failure::Connect),
            Self::Reset | Self::Refused | Self::Garbage => Some(Failure::Reset),
            Self::Timeout => Some(Failure::Timeout),
            Self::StaleConnection | Self::GoneAway | Self::LocalTrouble | Self::ClientTrouble => None,
        }
    }

    /// Whether the upstream is known not to have acted on the request, so that any method may go again,
    /// to the same upstream, too.
    const fn is_unprocessed(self) -> bool {
        matches!(self, Self::GoneAway | Self::Refused)
    }
}

/// How far the request has come, for those who would try again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    /// Sending the request twice does the same as sending it once.
    pub is_harmless: bool,
    /// The body can be sent once more in full.
    pub is_replayable: bool,
    /// The client has seen the head of a response.
    pub is_answered: bool,
}

/// The end of a request, as the engine saw it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Finished {
    pub status: u16,
    pub request_bytes: u64,
    pub response_bytes: u64,
}

/// Where a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// To an upstream of the pool that was found.
    ToPool,
    /// Back to the client, who is to come again over TLS, at this port.
    ToHttps(u16),
}

/// ROUTE: finds the route and, by its split, the pool. `is_https`: it came over TLS, to us or to a proxy that
/// we trust.
pub(super) fn route(
    head: &RequestHead<'_>,
    is_https: bool,
    random: u64,
    ctx: &mut RequestContext,
) -> Result<Way, Reason> {
    let found = ctx.snapshot.find_route(head).ok_or(Reason::NoRoute)?;
    ctx.route = Some(found);
    let route = ctx.route().ok_or(Reason::NoRoute)?;
    route.metrics.begin();
    let (redirect, pool) = (route.config.redirect_https.filter(|_| !is_https), route.pool_for(random));
    ctx.cut_at(ctx.deadline());
    if let Some(port) = redirect {
        return Ok(Way::ToHttps(port));
    }
    ctx.pool = pool;
    pool.map(|_| Way::ToPool).ok_or(Reason::NoRoute)
}

/// ADMIT: refuses what no upstream should see.
pub(super) fn admit(head: &RequestHead<'_>, ctx: &mut RequestContext) -> Result<(), Reason> {
    if ctx.is_handshake() && ctx.speaks_only_http2() {
        return Err(Reason::UpgradeUnsupported);
    }
    if let Some(reason) = grpc::obstacle(ctx) {
        return Err(reason);
    }
    if ctx.body_bytes_max().is_some_and(|max| headers::content_length(head.headers) > Some(max)) {
        return Err(Reason::BodyTooLarge);
    }
    ctx.hash = ctx.pool().and_then(|pool| pool.config.hash.as_ref()).map_or(0, |key| hash_of(key, head, ctx));
    if let Some(pool) = ctx.pool() {
        pool.state.budget.earn(ctx.route().map_or(0.0, |route| route.config.retry.budget));
    }
    Ok(())
}

/// ADMIT, again with each piece of the body: not too much, not too late. What a tunnel carries is no
/// body.
pub(super) fn admit_body(bytes: usize, now: Duration, ctx: &mut RequestContext) -> Result<(), Reason> {
    ctx.request_bytes += bytes as u64;
    let refusal = if ctx.status == Some(101) {
        None
    } else if ctx.body_bytes_max().is_some_and(|max| ctx.request_bytes > max) {
        Some(Reason::BodyTooLarge)
    } else {
        ctx.deadline().filter(|deadline| now >= *deadline).map(|_| Reason::RequestTimeout)
    };
    refusal.map_or(Ok(()), |reason| {
        ctx.refusal = Some(reason);
        Err(reason)
    })
}

fn hash_of(key: &HashKey, head: &RequestHead<'_>, ctx: &RequestContext) -> u64 {
    match key {
        HashKey::Header(name) => head.headers.get(name).map_or(0, |value| hash(value.as_bytes())),
        HashKey::Cookie(name) => headers::cookie(head.headers, name).map_or(0, hash),
        HashKey::ClientIp => ctx.client.map_or(0, |client| match client {
            std::net::IpAddr::V4(address) => hash(&address.octets()),
            std::net::IpAddr::V6(address) => hash(&address.octets()),
        }),
        HashKey::Path => hash(head.path.as_bytes()),
    }
}

/// Random numbers of one pick. Two, since a strategy uses every bit of its own: scores that are kept by the same bits
/// would be those of some choices rather than others.
#[derive(Clone, Copy, Debug)]
pub(super) struct Draw {
    /// What the strategy goes by.
    pub strategy: u64,
    /// What decides whether the scores are kept.
    pub sample: u64,
}

/// Why there is no pick yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotYet {
    /// Every upstream is at its `max_connections`; the pool's queue may help.
    Full,
    /// Nobody's first health check is done: the process has just started, or the pool is new.
    Unchecked,
    /// Final.
    Refused(Reason),
}

/// PICK: takes an eligible upstream that this request has not tried, and counts it in flight.
pub(super) fn pick(now: Duration, draw: Draw, ctx: &mut RequestContext) -> Result<(), NotYet> {
    // The count of the attempt before goes back before the next one is taken; its body is sent anew.
    ctx.attempt = None;
    ctx.request_bytes = 0;
    let mut tried = std::mem::take(&mut ctx.tried);
    let pool = ctx.pool().ok_or(NotYet::Refused(Reason::NoRoute))?;
    // Before the choice, so that it is what the choice goes by.
    let standing = ctx.standing_at_pick(pool, now, draw.sample, &tried);
    let picked = pool.pick(now, ctx.hash, draw.strategy, &mut tried);
    ctx.tried = tried;
    let chosen = picked.map_err(|why| not_yet(why, ctx))?;
    ctx.attempts += 1;
    ctx.note_pick(&chosen, standing, now);
    ctx.attempt = Some(Attempt {
        upstream: chosen.index,
        lease: Some(chosen.lease),
        sent_at: now,
        is_recorded: false,
        response_time: None,
    });
    Ok(())
}

fn not_yet(why: NoPick, ctx: &RequestContext) -> NotYet {
    match why {
        NoPick::Full => NotYet::Full,
        NoPick::Nobody | NoPick::Unchecked if ctx.attempts > 0 => {
            NotYet::Refused(ctx.refusal.unwrap_or(Reason::NoEligibleUpstream))
        }
        NoPick::Unchecked => NotYet::Unchecked,
        NoPick::Nobody => NotYet::Refused(Reason::NoEligibleUpstream),
    }
}

/// FORWARD, outcome: an attempt failed. Told to the upstream's state once.
pub(super) fn failed(outcome: Outcome, now: Duration, ctx: &mut RequestContext) {
    ctx.refusal = Some(outcome.reason());
    ctx.note_failure(outcome.told(), now);
    if outcome.failure() == Some(Failure::Connect) {
        ctx.connect_failures += 1;
    }
    let Some(mut attempt) = ctx.attempt.take_if(|attempt| !attempt.is_recorded) else { return };
    attempt.is_recorded = true;
    // A client that gives its calls no time says nothing about the upstream.
    let was_in_time = outcome != Outcome::Timeout || !ctx.is_past_the_clients_deadline(now);
    if outcome.is_the_upstreams_fault() && was_in_time {
        record(&mut attempt, ctx, |pool, upstream, lease| {
            upstream.state.metrics.attempt_finished(None);
            pool.record_failure(upstream, lease, now);
        });
    }
    if outcome == Outcome::StaleConnection {
        // It was never really tried: the same upstream may have it on a fresh connection. On another kept
        // one it could fail in the same way, again and again, without the upstream being blamed for it.
        ctx.needs_fresh_connection = true;
        ctx.forget_tried(attempt.upstream);
    }
    if outcome.is_unprocessed() {
        ctx.forget_tried(attempt.upstream);
    }
    ctx.attempt = Some(attempt);
}

/// FORWARD, outcome: the upstream answered with this status. `is_latency` tells whether the time to
/// its first byte says something about its speed.
pub(super) fn answered(status: u16, is_latency: bool, now: Duration, ctx: &mut RequestContext) {
    ctx.refusal = None;
    let Some(mut attempt) = ctx.attempt.take_if(|attempt| !attempt.is_recorded) else { return };
    attempt.is_recorded = true;
    let latency = now.saturating_sub(attempt.sent_at);
    attempt.response_time = Some(latency);
    ctx.note_answer(&attempt, status, now);
    record(&mut attempt, ctx, |pool, upstream, lease| {
        upstream.state.metrics.attempt_finished(Some(status));
        upstream.state.metrics.response_time(latency);
        if Class::of(status) == Class::ServerError {
            pool.record_failure(upstream, lease, now);
        } else {
            pool.record_success(upstream, lease, is_latency.then_some(latency), now);
        }
    });
    ctx.attempt = Some(attempt);
}

/// FORWARD, end: the upstream has nothing more to do with this request.
pub(super) fn upstream_is_done(ctx: &mut RequestContext) {
    if let Some(attempt) = &mut ctx.attempt {
        attempt.lease = None;
    }
}

fn record(attempt: &mut Attempt, ctx: &RequestContext, tell: impl FnOnce(&Pool, &Upstream, &mut Lease)) {
    let (pool, upstream) = (ctx.pool(), ctx.upstream_of(attempt));
    if let (Some(pool), Some(upstream), Some(lease)) = (pool, upstream, &mut attempt.lease) {
        tell(pool, upstream, lease);
    }
}

/// FORWARD, again: whether this failed attempt may be followed by another one elsewhere.
pub(super) fn may_try_another(outcome: Outcome, sent: Sent, now: Duration, ctx: &mut RequestContext) -> bool {
    let is_harmless = sent.is_harmless || outcome.is_unprocessed();
    let sent = Sent { is_harmless, ..sent };
    if matches!(outcome, Outcome::StaleConnection | Outcome::GoneAway) {
        return may_reconnect(sent, ctx);
    }
    // The upstream has put no work into what it has refused, so that a retry adds none.
    let is_free = outcome.is_unprocessed();
    outcome.failure().is_some_and(|failure| may_retry(failure, is_free, sent, now, ctx))
}

/// A connection that has ended costs the upstream nothing, so neither budget nor `max_retries` counts it;
/// but what was sent on a stale one may have been read, so only idempotent requests go again.
fn may_reconnect(sent: Sent, ctx: &mut RequestContext) -> bool {
    let may = ctx.attempts < ATTEMPTS_MAX && sent.is_harmless && sent.is_replayable && !sent.is_answered;
    if let Some(pool) = ctx.pool().filter(|_| may) {
        pool.state.metrics.retried(RetryReason::StaleConnection);
    }
    ctx.trail.then(if may { Then::Retried } else { Then::NotAllowed });
    may
}

/// Whether this response is to be discarded in favour of another attempt.
pub(super) fn may_retry_status(status: u16, sent: Sent, now: Duration, ctx: &mut RequestContext) -> bool {
    may_retry(Failure::Status(status), false, sent, now, ctx)
}

fn may_retry(failure: Failure, is_free: bool, sent: Sent, now: Duration, ctx: &mut RequestContext) -> bool {
    let then = after(failure, is_free, sent, now, ctx);
    ctx.trail.then(then);
    then == Then::Retried
}

fn after(failure: Failure, is_free: bool, sent: Sent, now: Duration, ctx: &RequestContext) -> Then {
    let (Some(pool), Some(route)) = (ctx.pool(), ctx.route()) else { return Then::Ended };
    let progress = Progress {
        attempts: ctx.attempts,
        connect_failures: ctx.connect_failures,
        idempotent: sent.is_harmless,
        replayable: sent.is_replayable,
        response_started: sent.is_answered,
    };
    if !route.config.retry.allows(failure, &progress) {
        return Then::NotAllowed;
    }
    if ctx.deadline().is_some_and(|deadline| now >= deadline) {
        return Then::TooLate;
    }
    // Before giving up a response there must be somebody who could give a better one.
    if matches!(failure, Failure::Status(_)) && !pool.has_untried(now, &ctx.tried) {
        return Then::NobodyElse;
    }
    if !is_free && !pool.state.budget.pays_for(failure, now) {
        pool.state.metrics.budget_exhausted();
        return Then::BudgetSpent;
    }
    pool.state.metrics.retried(match failure {
        Failure::Connect => RetryReason::ConnectFailure,
        Failure::Reset => RetryReason::Reset,
        Failure::Timeout => RetryReason::Timeout,
        Failure::Status(_) => RetryReason::Status,
    });
    Then::Retried
}

/// OBSERVE: counters and the access log. Called once per request.
pub(super) fn observe(finished: &Finished, now: Duration, ctx: &mut RequestContext) {
    ctx.is_finished = true;
    // Before the request is over: nobody is in flight at an upstream for a request that is not there any more, and
    // whoever waits in the queue need not wait for our log.
    upstream_is_done(ctx);
    let duration = now.saturating_sub(ctx.started);
    let listener = ctx.connection().map_or(0, |connection| connection.listener.index);
    match ctx.route() {
        Some(route) => {
            route.metrics.finished(
                listener,
                finished.status,
                duration,
                finished.request_bytes,
                finished.response_bytes,
            );
            if let Some(reason) = ctx.refusal {
                route.metrics.refused(reason);
            }
            if let Some(call) = &ctx.grpc {
                route.metrics.grpc_finished(call.outcome(ctx.refusal));
            }
        }
        None => ctx.runtime.metrics.refused(ctx.refusal.unwrap_or(Reason::BadRequest)),
    }
    if let Some(pool) = ctx.pool() {
        pool.state.metrics.finished(finished.status, ctx.snapshot.generation);
    }
    if let (Some(upstream), Some(attempt)) = (ctx.upstream(), &ctx.attempt)
        && attempt.response_time.is_some()
    {
        upstream.state.metrics.transferred(finished.request_bytes, finished.response_bytes);
    }
    if ctx.told.is_some() {
        super::log::write(finished, duration, ctx);
    }
    super::record::keep(finished, duration, ctx);
    ctx.attempt = None;
    ctx.upgraded = None;
    // Last, so that a process that waits for the end of its requests has their lines, too.
    if let Some(route) = ctx.route() {
        route.metrics.end();
    }
}

impl RequestContext {
    /// Largest request body of the listener.
    pub(super) fn body_bytes_max(&self) -> Option<u64> {
        let index = self.connection()?.listener.index;
        self.snapshot.config.listeners.get(index)?.max_body_size
    }

    /// Largest request head of the listener.
    pub(super) fn header_bytes_max(&self) -> Option<usize> {
        let index = self.connection()?.listener.index;
        self.snapshot.config.listeners.get(index).map(|listener| listener.max_header_size)
    }

    fn forget_tried(&mut self, upstream: usize) {
        let mut tried = std::mem::take(&mut self.tried);
        if let Some(pool) = self.pool() {
            pool.forget_tried(upstream, &mut tried);
        }
        self.tried = tried;
    }
}

/// Whether a response's time to first byte says something about the upstream's speed: not when it
/// answers in order to keep a stream open.
pub(super) fn tells_speed(status: u16, headers: &HeaderMap) -> bool {
    status != 101 && !is_event_stream(headers.get(http::header::CONTENT_TYPE))
}

/// Whether a media type, or the first that somebody accepts, is that of server-sent events.
pub(super) fn is_event_stream(media_type: Option<&http::HeaderValue>) -> bool {
    const EVENT_STREAM: &[u8] = b"text/event-stream";
    let start = media_type.and_then(|value| value.as_bytes().get(..EVENT_STREAM.len()));
    start.is_some_and(|start| start.eq_ignore_ascii_case(EVENT_STREAM))
}
