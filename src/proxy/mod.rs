//! The traffic door: accepts requests, asks the steps what to do, and lets Pingora carry the bytes.
//!
//! ```text
//!   accept.rs ──► http1.rs ──► Pingora's HttpProxy ──► the hooks below ──► steps.rs
//!             ──► http2.rs     (moves the bytes)        (translate)        (decide)
//!                 (idle, heads, deadlines)
//! ```
//!
//! The hooks translate Pingora's types into ours (`adapt.rs`) and call a step; decisions live in
//! `steps.rs`, which never names Pingora. Why each line stands where it does: Pingora calls the hooks in
//! the order in which they stand here.

mod accept;
mod adapt;
mod announced;
mod announcing;
mod by_socket;
mod chunked;
mod client_stream;
mod connection;
mod context;
mod deadline;
mod exchange;
mod frames;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod grpc;
mod head;
mod headers;
mod http1;
mod http2;
mod log;
mod peer;
mod record;
mod refusal;
mod steps;
mod subject;
mod tells;
mod tls;
mod trace;
mod trail;
mod tunnel;
mod wait;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, Version};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::modules::http::HttpModules;
use pingora::protocols::Digest;
use pingora::proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, Result};

pub use accept::TrafficApp;
pub use context::RequestContext;
pub use head::check_head;
pub use peer::for_probe;

use client_stream::Answer;
use steps::{Finished, Way};

use crate::observe::{ConnectResult, Reason};
use crate::runtime::Runtime;

/// How long a client may take to read or send the next piece of a body.
const CLIENT_STALL: Duration = Duration::from_secs(60);

/// Pingora's hooks, on top of a [`Runtime`].
pub struct Proxy {
    runtime: Arc<Runtime>,
}

impl Proxy {
    /// Proxies by the running snapshot of `runtime`.
    pub fn new(runtime: Arc<Runtime>) -> Self {
        Self { runtime }
    }
}

#[async_trait]
impl ProxyHttp for Proxy {
    /// Boxed, because Pingora moves it from future to future.
    type CTX = Box<RequestContext>;

    /// Without Pingora's compression module, which would cost every request an allocation.
    fn init_downstream_modules(&self, _: &mut HttpModules) {}

    /// PARSE is done: Pingora has read the head. The request holds this snapshot to its end.
    fn new_ctx(&self) -> Box<RequestContext> {
        Box::new(RequestContext::new(&self.runtime))
    }

    /// ROUTE and ADMIT. `true` tells Pingora that we have answered.
    async fn request_filter(&self, session: &mut Session, ctx: &mut Box<RequestContext>) -> Result<bool> {
        session.set_read_timeout(Some(CLIENT_STALL));
        adapt::identify(session, ctx);
        if ctx.exchange.as_ref().is_some_and(|exchange| exchange.is_stream) {
            // Of HTTP/1.1 we see for ourselves what the client takes; see `deadline.rs`.
            session.set_write_timeout(Some(CLIENT_STALL));
        }
        session.set_ignore_info_resp(ctx.is_http_1_0);
        let request = session.req_header();
        let host = adapt::host(request);
        let head = adapt::head(request, &host);
        let is_https = adapt::is_https(request, ctx);
        let verdict = adapt::within_size(request, ctx)
            .and_then(|()| adapt::unambiguous(request, ctx))
            .and_then(|()| steps::route(&head, is_https, fastrand::u64(..), ctx))
            .and_then(|way| steps::admit(&head, ctx).map(|()| way));
        drop(host);
        match verdict {
            Ok(Way::ToPool) => {
                let timeout = ctx.route().and_then(|route| route.config.timeout).unwrap_or(CLIENT_STALL);
                // Behind a handshake the client owes nothing: it waits for the upstream, which has its own time.
                let owes_body = !ctx.is_handshake();
                session.set_read_timeout(owes_body.then(|| CLIENT_STALL.min(timeout)));
                Ok(false)
            }
            Ok(Way::ToHttps(port)) => {
                adapt::redirect(port, session, ctx).await;
                Ok(true)
            }
            Err(reason) => {
                adapt::refuse(reason, session, ctx).await;
                Ok(true)
            }
        }
    }

    /// PICK. Called again after each failed attempt that may be retried.
    async fn upstream_peer(&self, _: &mut Session, ctx: &mut Box<RequestContext>) -> Result<Box<HttpPeer>> {
        if let Err(reason) = wait::pick(&self.runtime, ctx).await {
            ctx.refusal = Some(reason);
            ctx.note_nobody(self.runtime.now());
            return Err(adapt::error(reason));
        }
        let picked_at = ctx.attempt.as_ref().map_or(ctx.started, |attempt| attempt.sent_at);
        let left = ctx.deadline().unwrap_or(Duration::MAX).saturating_sub(picked_at);
        match (ctx.pool(), ctx.upstream(), &ctx.exchange) {
            // Zero would mean no timeout at all.
            (Some(pool), Some(upstream), Some(client)) => {
                let left = left.max(Duration::from_millis(1));
                client.begin_attempt();
                let mut peer = peer::for_upstream(pool, upstream, left, client, ctx.grpc.is_some())?;
                if ctx.needs_fresh_connection {
                    peer::connect_afresh(&mut peer, pool);
                }
                Ok(peer)
            }
            _ => Err(adapt::error(Reason::NoEligibleUpstream)),
        }
    }

    /// FORWARD, connected: the wait for an answer begins here.
    async fn connected_to_upstream(
        &self,
        _: &mut Session,
        is_reused: bool,
        _: &HttpPeer,
        _: std::os::fd::RawFd,
        _: Option<&Digest>,
        ctx: &mut Box<RequestContext>,
    ) -> Result<()> {
        let Some(upstream) = ctx.upstream() else { return Ok(()) };
        if is_reused {
            upstream.state.metrics.reused();
            ctx.trail.reused();
        } else {
            upstream.state.metrics.connected(ConnectResult::Ok);
            if ctx.pool().is_some_and(|pool| pool.config.tls.is_some()) {
                upstream.state.note_no_trouble();
            }
            let now = self.runtime.now();
            if let Some(attempt) = &mut ctx.attempt {
                attempt.sent_at = now;
            }
            ctx.trail.connected(now.saturating_sub(ctx.started));
        }
        ctx.begin_to_listen();
        Ok(())
    }

    /// This attempt sent nothing, so the method does not matter; a body already spent does.
    fn fail_to_connect(
        &self,
        session: &mut Session,
        _: &HttpPeer,
        ctx: &mut Box<RequestContext>,
        mut error: Box<Error>,
    ) -> Box<Error> {
        let (outcome, now) = (adapt::connect_outcome(&error), self.runtime.now());
        if let Some(upstream) = ctx.upstream().filter(|_| outcome != steps::Outcome::GoneAway) {
            let is_timeout = outcome == steps::Outcome::ConnectTimeout;
            let result = if is_timeout { ConnectResult::TimedOut } else { ConnectResult::Failed };
            upstream.state.metrics.connected(result);
        }
        adapt::tell_tls_failure(outcome, &error, now, ctx);
        steps::failed(outcome, now, ctx);
        error.set_retry(steps::may_try_another(outcome, adapt::sent(session), now, ctx));
        error
    }

    /// FORWARD, outbound: what the upstream should know about the client.
    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        ctx: &mut Box<RequestContext>,
    ) -> Result<()> {
        let is_http2 = request.version == Version::HTTP_2;
        if !is_http2 && ctx.speaks_only_http2() {
            return Err(adapt::not_http2());
        }
        if !is_http2 && ctx.grpc.is_some() {
            ctx.refusal = Some(Reason::GrpcNeedsHttp2);
            grpc::tell_obstacle(ctx);
            return Err(adapt::error(Reason::GrpcNeedsHttp2));
        }
        if is_http2 {
            adapt::name_host(request)?;
            if request.remove_header(&http::header::EXPECT).is_some() {
                // Pingora does not see the upstream's 100, so the client would wait for it in vain.
                adapt::invite_body(session).await?;
            }
        }
        let Some(exchange) = &ctx.exchange else { return Ok(()) };
        if exchange.is_stream && !is_http2 {
            headers::translate_to_http_1_1(request, session.is_body_empty())?;
        }
        let origin = headers::Origin {
            peer: &exchange.connection.peer_header,
            is_trusted: ctx.trusts_peer(),
            claims_nothing: exchange.claims_nothing(),
            tls: exchange.connection.tls.as_ref(),
            request_id: &ctx.request_id,
        };
        if exchange.is_end_to_end() && !is_http2 {
            // All that Pingora left for us to strip; see `peer.rs`.
            request.remove_header(&http::header::CONNECTION);
        }
        headers::forward(&origin, request)?;
        if let Some(trace) = &ctx.trace {
            trace.tell(ctx.attempts, request)?;
        }
        if let Some(call) = &ctx.grpc {
            call.tell_deadline(self.runtime.now(), request)?;
        }
        if let Some(route) = ctx.route() {
            let prefix = Some(&route.config.matcher.path_prefix).filter(|_| route.config.strip_prefix);
            if let Some(target) = prefix.and_then(|prefix| headers::without_prefix(&request.uri, prefix)) {
                request.set_raw_path(&target)?;
            }
            headers::edit_request(&route.config.request_headers, request)?;
        }
        adapt::prepare_for_upstream(request, ctx)
    }

    /// FORWARD, outbound body: bounded, and the wait for an answer begins with its end.
    async fn request_body_filter(
        &self,
        _: &mut Session,
        body: &mut Option<Bytes>,
        is_end: bool,
        ctx: &mut Box<RequestContext>,
    ) -> Result<()> {
        let bytes = body.as_ref().map_or(0, Bytes::len);
        if bytes == 0 && ctx.request_bytes == 0 {
            return Ok(());
        }
        let now = self.runtime.now();
        ctx.note_heard(now);
        // Of the client's making: with any other blame Pingora would wait on for an answer of an HTTP/2 upstream.
        steps::admit_body(bytes, now, ctx).map_err(|reason| adapt::error(reason).into_down())?;
        // The end of a chunked body comes without bytes.
        let unanswered = ctx.attempt.as_mut().filter(|attempt| is_end && attempt.response_time.is_none());
        if let Some(attempt) = unanswered {
            ctx.trail.uploads += now.saturating_sub(attempt.sent_at);
            attempt.sent_at = now;
        }
        Ok(())
    }

    /// FORWARD, inbound: the first byte is here, so the latency is known. 1xx is not an answer.
    async fn upstream_response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut Box<RequestContext>,
    ) -> Result<()> {
        let status = response.status.as_u16();
        if status == 101 && !ctx.is_handshake() {
            // Nobody asked for it, and to the client all that follows would be the answer.
            return Err(Error::new_up(pingora::ErrorType::InvalidHTTPHeader));
        }
        if response.status.is_informational() && status != 101 {
            return Ok(());
        }
        let now = self.runtime.now();
        let is_latency = steps::tells_speed(status, &response.headers) && !adapt::is_open_call(session, ctx);
        let judged = ctx.grpc.as_mut().map_or(status, |call| {
            call.note_status(&response.headers);
            call.judged(status)
        });
        steps::answered(judged, is_latency, now, ctx);
        if steps::may_retry_status(judged, adapt::sent(session), now, ctx) {
            return Err(adapt::discarded(status));
        }
        if let Some(exchange) = &ctx.exchange {
            exchange.note_answer();
        }
        if adapt::has_no_body(session, response) || ctx.grpc.is_some_and(|call| call.status.is_some()) {
            steps::upstream_is_done(ctx);
        }
        if status == 101 || steps::is_event_stream(response.headers.get(http::header::CONTENT_TYPE)) {
            ctx.become_endless(now);
        }
        if status == 101 {
            ctx.become_tunnel();
            session.set_read_timeout(None);
        }
        ctx.note_heard(now);
        ctx.answer_handshake(if status == 101 { Answer::Accepted } else { Answer::Refused });
        Ok(())
    }

    /// FORWARD, inbound body: with its last byte the upstream is done.
    fn upstream_response_body_filter(
        &self,
        _: &mut Session,
        _: &mut Option<Bytes>,
        is_end: bool,
        ctx: &mut Box<RequestContext>,
    ) -> Result<Option<Duration>> {
        if is_end {
            steps::upstream_is_done(ctx);
        } else if ctx.exchange.as_ref().is_some_and(|exchange| exchange.listens()) {
            ctx.note_heard(self.runtime.now());
        }
        Ok(None)
    }

    /// FORWARD, inbound: trailers are the end, too.
    fn upstream_response_trailer_filter(
        &self,
        _: &mut Session,
        trailers: &mut HeaderMap,
        ctx: &mut Box<RequestContext>,
    ) -> Result<()> {
        if let Some(call) = &mut ctx.grpc {
            call.note_status(trailers);
        }
        steps::upstream_is_done(ctx);
        Ok(())
    }

    /// FORWARD, inbound: what the client should see.
    async fn response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut Box<RequestContext>,
    ) -> Result<()> {
        headers::strip_hop_by_hop(response);
        if let Some(route) = ctx.route() {
            headers::edit_response(&route.config.response_headers, response)?;
        }
        tells::annotate(response, ctx)?;
        if ctx.is_http_1_0 {
            // Such a client knows no chunks: the end of the connection ends the body.
            response.remove_header(&http::header::TRANSFER_ENCODING);
            response.set_version(Version::HTTP_10);
        }
        if session.is_process_shutting_down() {
            session.set_keepalive(None);
        }
        if !response.status.is_informational() || response.status == 101 {
            ctx.status = Some(response.status.as_u16());
        }
        Ok(())
    }

    /// Counts what the client is sent, so that a request cut off in the middle is logged truly.
    fn response_body_filter(
        &self,
        _: &mut Session,
        body: &mut Option<Bytes>,
        _: bool,
        ctx: &mut Box<RequestContext>,
    ) -> Result<Option<Duration>> {
        ctx.response_bytes += body.as_ref().map_or(0, |bytes| bytes.len() as u64);
        Ok(None)
    }

    /// Connected, then failed. An undecided `ReusedOnly` would panic later, so it is settled first.
    fn error_while_proxy(
        &self,
        _: &HttpPeer,
        session: &mut Session,
        mut error: Box<Error>,
        ctx: &mut Box<RequestContext>,
        is_reused: bool,
    ) -> Box<Error> {
        if ctx.exchange.as_ref().is_some_and(|exchange| exchange.was_given_up()) {
            // To Pingora it looks as if the client were gone, but it was the upstream that had its time.
            error = Error::new_up(pingora::ErrorType::ReadTimedout);
        }
        error.retry.decide_reuse(is_reused);
        let is_discarded_answer = error.retry() && matches!(error.etype(), pingora::ErrorType::HTTPStatus(_));
        let is_refused_body = matches!(
            ctx.refusal,
            Some(Reason::BodyTooLarge | Reason::RequestTimeout | Reason::GrpcNeedsHttp2)
        );
        if is_discarded_answer || is_refused_body {
            return error;
        }
        if !ctx.is_handshake() && adapt::waits_for_the_client(&error, session) {
            ctx.refusal = Some(Reason::RequestTimeout);
            error.set_retry(false);
            return error;
        }
        if let (pingora::ErrorType::H2Downgrade, Some(pool), Some(upstream)) =
            (error.etype(), ctx.pool(), ctx.upstream())
        {
            upstream.state.demand_http1(pool.key);
        }
        let now = self.runtime.now();
        let is_stale_possible = is_reused && !adapt::is_answered(session) && !ctx.needs_fresh_connection;
        let outcome = adapt::outcome(&error, is_stale_possible, ctx);
        if outcome == steps::Outcome::ClientTrouble {
            error.set_retry(false);
            return error;
        }
        adapt::tell_tls_failure(outcome, &error, now, ctx);
        steps::failed(outcome, now, ctx);
        let may = steps::may_try_another(outcome, adapt::sent(session), now, ctx);
        error.set_retry(may);
        error
    }

    /// All attempts are spent. Pingora would say 502 to most; we tell 502, 503 and 504 apart.
    async fn fail_to_proxy(
        &self,
        session: &mut Session,
        error: &Error,
        ctx: &mut Box<RequestContext>,
    ) -> FailToProxy {
        if adapt::has_its_answer(error, session, ctx) {
            return FailToProxy { error_code: 0, can_reuse_downstream: false };
        }
        if let Some(code) = adapt::reset_to_pass_on(error, session, ctx) {
            session.shutdown_with_reason(code);
        }
        let reason = adapt::reason(error, ctx);
        tracing::debug!(reason = reason.word(), %error, "request failed");
        // After a failure Pingora closes the client's connection, whatever we answer here: so we say it.
        session.set_keepalive(None);
        adapt::refuse(reason, session, ctx).await
    }

    /// We log ourselves, at a level that a flood of bad clients does not reach.
    fn suppress_error_log(&self, _: &Session, _: &Box<RequestContext>, _: &Error) -> bool {
        true
    }

    fn suppress_proxy_warn_log(
        &self,
        _: &Session,
        _: &Box<RequestContext>,
        _: &Error,
        _: ProxyWarnLogContext,
    ) -> bool {
        true
    }

    /// OBSERVE. Every request that is not cut off ends here, once.
    async fn logging(&self, _: &mut Session, _: Option<&Error>, ctx: &mut Box<RequestContext>) {
        let finished = Finished {
            status: ctx.status.or(ctx.refusal.map(Reason::status)).unwrap_or(0),
            request_bytes: ctx.request_bytes,
            response_bytes: ctx.response_bytes,
        };
        steps::observe(&finished, self.runtime.now(), ctx);
    }
}
