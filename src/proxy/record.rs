//! The record of a request, for those who ask afterwards how it went.

use std::time::Duration;

use super::connection::Connection;
use super::context::RequestContext;
use super::log::{protocol, status_seen};
use super::steps::Finished;
use crate::observe::{Facts, Name, SLOW};
use crate::runtime::Runtime;

/// Keeps the record of a request that is over.
pub(super) fn keep(finished: &Finished, duration: Duration, ctx: &mut RequestContext) {
    let facts = Facts {
        began: ctx.started,
        duration,
        client: ctx.client,
        protocol: protocol(ctx),
        tls: ctx.connection().and_then(|connection| connection.tls.as_ref()).map(|tls| tls.version),
        generation: ctx.snapshot.generation,
        status: status_seen(finished, ctx),
        reason: ctx.refusal,
        grpc_status: ctx.grpc.map(|call| call.outcome(ctx.refusal)),
        bytes_in: finished.request_bytes,
        bytes_out: finished.response_bytes,
        attempts: ctx.attempts,
        first: ctx.trail.first,
        answered: ctx.trail.answered(),
        is_endless: ctx.trail.is_endless || ctx.grpc.is_some(),
    };
    let unusual_after = ctx.route().and_then(|route| route.metrics.unusual_after()).unwrap_or(SLOW);
    let detail = ctx.trail.take_detail();
    let ctx = &*ctx;
    ctx.runtime.records.keep(facts.kept(unusual_after), &facts, detail, |names| {
        names.put(Name::RequestId, ctx.request_id.to_str().unwrap_or_default());
        names.put(Name::Listener, ctx.connection().map_or("", |connection| &connection.listener.name));
        names.put(Name::Route, ctx.route().map_or("", |route| &route.config.name));
        names.put(Name::Pool, ctx.pool().map_or("", |pool| &pool.config.name));
        names.put(Name::Upstream, first_upstream(ctx).unwrap_or_default());
        names.put_head(&ctx.head);
    });
}

fn first_upstream(ctx: &RequestContext) -> Option<&str> {
    let upstream = ctx.trail.first?.upstream as usize;
    Some(&ctx.pool()?.upstreams().get(upstream)?.label)
}

/// Keeps the record of a request that was refused before it had a context.
pub(super) fn keep_early(facts: &Facts, request_id: &str, connection: &Connection, runtime: &Runtime) {
    runtime.records.keep(facts.kept(SLOW), facts, None, |names| {
        names.put(Name::RequestId, request_id);
        names.put(Name::Listener, &connection.listener.name);
    });
}
