//! The access-log line of a request.

use std::time::{Duration, SystemTime};

use super::connection::Connection;
use super::context::RequestContext;
use super::steps::Finished;
use crate::observe::{AccessLog, AccessRecord, Reason};
use crate::runtime::Runtime;

/// Writes the access-log line of a request.
pub(super) fn write(finished: &Finished, duration: Duration, ctx: &RequestContext) {
    let (Some(log), Some(told)) = (&ctx.runtime.access_log, &ctx.told) else { return };
    let address = ctx.upstream().map(|upstream| upstream.config.address.to_string());
    log.write(&AccessRecord {
        time: SystemTime::now(),
        request_id: ctx.request_id.to_str().unwrap_or_default(),
        client: ctx.client,
        listener: ctx.connection().map_or("", |connection| &connection.listener.name),
        method: &told.method,
        host: &told.host,
        path: &told.path,
        route: ctx.route().map(|route| route.config.name.as_str()),
        pool: ctx.pool().map(|pool| pool.config.name.as_str()),
        upstream: address.as_deref(),
        status: if ctx.refusal == Some(Reason::ClientClosed) { 499 } else { finished.status },
        reason: ctx.refusal,
        attempts: ctx.attempts,
        duration,
        upstream_time: ctx.attempt.as_ref().and_then(|attempt| attempt.response_time),
        bytes_in: finished.request_bytes,
        bytes_out: finished.response_bytes,
        protocol: protocol(ctx),
        tls: ctx.connection().and_then(|connection| connection.tls.as_ref()).map(|tls| tls.version),
        generation: ctx.snapshot.generation,
        grpc_status: ctx.grpc.map(|call| call.outcome(ctx.refusal)),
    });
}

pub(super) fn protocol(ctx: &RequestContext) -> &'static str {
    match &ctx.exchange {
        Some(exchange) if exchange.is_stream => "HTTP/2",
        _ if ctx.is_http_1_0 => "HTTP/1.0",
        _ => "HTTP/1.1",
    }
}

/// Writes the access-log line of a request that was refused before it had a context.
pub(super) fn write_early(
    reason: Reason,
    protocol: &str,
    request_id: &str,
    connection: &Connection,
    runtime: &Runtime,
) {
    let Some(log): &Option<AccessLog> = &runtime.access_log else { return };
    log.write(&AccessRecord {
        time: SystemTime::now(),
        request_id,
        client: Some(connection.peer.ip()),
        listener: &connection.listener.name,
        method: "",
        host: "",
        path: "",
        route: None,
        pool: None,
        upstream: None,
        status: reason.status(),
        reason: Some(reason),
        attempts: 0,
        duration: Duration::ZERO,
        upstream_time: None,
        bytes_in: 0,
        bytes_out: 0,
        protocol,
        tls: connection.tls.as_ref().map(|tls| tls.version),
        generation: runtime.peek().generation,
        grpc_status: None,
    });
}
