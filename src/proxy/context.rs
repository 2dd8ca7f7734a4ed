//! What one request carries from its head to its log line.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Method, Uri};

use super::client_stream::Answer;
use super::connection::Connection;
use super::exchange::Exchange;
use super::steps::{self, Finished};
use super::trace::Trace;
use super::trail::Trail;
use super::{grpc, refusal};
use crate::config::UpstreamProtocol;
use crate::observe::{HeadText, Reason};
use crate::runtime::{Lease, Pool, Route, Runtime, Snapshot, Tiers, UpgradedGuard, Upstream};

/// The state of one request. It ends in `steps::observe`, once, on every path: by the hook that
/// Pingora calls at the end, or else, when the request is cut off in the middle, by `Drop`.
pub struct RequestContext {
    pub(super) runtime: Arc<Runtime>,
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) exchange: Option<Arc<Exchange>>,
    /// When the head had been read; all times count from the runtime's epoch.
    pub(super) started: Duration,
    /// Whom we answer: the peer, or whoever a trusted proxy says it forwards for.
    pub(super) client: Option<IpAddr>,
    pub(super) request_id: HeaderValue,
    /// Index into the snapshot's routes.
    pub(super) route: Option<usize>,
    /// Index into the snapshot's pools.
    pub(super) pool: Option<usize>,
    /// The gRPC call that this request makes, if it makes one.
    pub(super) grpc: Option<grpc::Call>,
    /// What `consistent_hash` goes by.
    pub(super) hash: u64,
    pub(super) tried: Tiers,
    pub(super) attempts: u32,
    /// Attempts among them that made no connection.
    pub(super) connect_failures: u32,
    pub(super) attempt: Option<Attempt>,
    /// An attempt failed on a kept connection, which proves nothing: the next ones open their own.
    pub(super) needs_fresh_connection: bool,
    /// Why we answer, or gave up, instead of an upstream.
    pub(super) refusal: Option<Reason>,
    /// Status of the response head that went to the client; of a gRPC call that we refuse, that of the reason.
    pub(super) status: Option<u16>,
    /// Decoded bytes of the request body so far.
    pub(super) request_bytes: u64,
    pub(super) response_bytes: u64,
    /// The client speaks HTTP/1.0 and understands no 1xx and no chunks.
    pub(super) is_http_1_0: bool,
    /// The trace that the request belongs to, if tracing is on and nobody upstream of us has said not to record it.
    pub(super) trace: Option<Trace>,
    /// What the access log and spans want to know and nobody else; empty while there are none.
    pub(super) told: Option<Box<Told>>,
    /// The same in a fixed size, for those who ask afterwards how the request went.
    pub(super) head: HeadText,
    /// How it went so far.
    pub(super) trail: Trail,
    pub(super) is_finished: bool,
    /// Counts the request among the upgraded connections.
    pub(super) upgraded: Option<UpgradedGuard>,
}

/// Facts of the request head that only the access log and spans need. They share the head's memory.
#[derive(Clone, Debug)]
pub(super) struct Told {
    pub method: Method,
    pub host: Option<HeaderValue>,
    pub uri: Uri,
    pub referer: Option<HeaderValue>,
    pub user_agent: Option<HeaderValue>,
}

/// One request on its way to one upstream.
pub(super) struct Attempt {
    /// Index into the pool's upstreams.
    pub upstream: usize,
    /// Given back when the upstream's last byte is here; the client may read it at its leisure.
    pub lease: Option<Lease>,
    /// When the request began to wait for an answer: connected, and its body sent.
    pub sent_at: Duration,
    /// Whether its outcome has been told to the upstream's state.
    pub is_recorded: bool,
    /// Head sent to first byte of the answer.
    pub response_time: Option<Duration>,
}

impl RequestContext {
    /// The trace of the request, if it is recorded.
    pub(super) fn recorded_trace(&self) -> Option<&Trace> {
        self.trace.as_ref().filter(|trace| trace.is_sampled)
    }

    pub(super) fn new(runtime: &Arc<Runtime>) -> Self {
        Self {
            snapshot: runtime.snapshot(),
            started: runtime.now(),
            runtime: runtime.clone(),
            exchange: None,
            client: None,
            request_id: HeaderValue::from_static(""),
            route: None,
            pool: None,
            grpc: None,
            hash: 0,
            tried: Tiers::default(),
            attempts: 0,
            connect_failures: 0,
            attempt: None,
            needs_fresh_connection: false,
            refusal: None,
            status: None,
            request_bytes: 0,
            response_bytes: 0,
            is_http_1_0: false,
            trace: None,
            told: None,
            head: HeadText::default(),
            trail: Trail::default(),
            is_finished: false,
            upgraded: None,
        }
    }

    /// Goes on with what runs now, on the route and pool of the same names, if it has both: whoever waits
    /// for upstreams that have been replaced meanwhile may wait for ever. For requests that no upstream has
    /// seen; they still hold one snapshot at a time.
    pub(super) fn move_on(&mut self) {
        let now = self.runtime.snapshot();
        let (Some(route), Some(pool)) = (self.route(), self.pool()) else { return };
        if now.generation == self.snapshot.generation {
            return;
        }
        let route = now.routes().position(|other| other.config.name == route.config.name);
        let pool = now.pools().position(|other| other.config.name == pool.config.name);
        if route.is_some() && pool.is_some() {
            (self.snapshot, self.route, self.pool) = (now, route, pool);
            self.tried = Tiers::default();
        }
    }

    pub(super) fn route(&self) -> Option<&Route> {
        self.snapshot.route(self.route?)
    }

    pub(super) fn pool(&self) -> Option<&Pool> {
        self.snapshot.pool(self.pool?)
    }

    /// The client's connection.
    pub(super) fn connection(&self) -> Option<&Connection> {
        self.exchange.as_ref().map(|exchange| exchange.connection.as_ref())
    }

    /// The upstream of the attempt under way.
    pub(super) fn upstream(&self) -> Option<&Upstream> {
        self.upstream_of(self.attempt.as_ref()?)
    }

    /// The upstream of an attempt.
    pub(super) fn upstream_of(&self, attempt: &Attempt) -> Option<&Upstream> {
        self.pool()?.upstreams().get(attempt.upstream)
    }

    /// When the request is given up: when the route's timeout runs out, if it has one, or the client's deadline
    /// if this is a gRPC call. Calls may be streams of any length, so one without a deadline has none.
    pub(super) fn deadline(&self) -> Option<Duration> {
        match &self.grpc {
            Some(call) => call.given_up_at(),
            None => Some(self.started + self.route()?.config.timeout?),
        }
    }

    /// Whether the client's own deadline is over.
    pub(super) fn is_past_the_clients_deadline(&self, now: Duration) -> bool {
        self.grpc.and_then(|call| call.deadline).is_some_and(|deadline| now >= deadline)
    }

    /// Whether the pool's upstreams are to be spoken to in nothing but HTTP/1.1.
    pub(super) fn speaks_only_http1(&self) -> bool {
        self.pool().is_some_and(|pool| pool.config.protocol == UpstreamProtocol::Http1)
    }

    /// Whether this request asks for a WebSocket.
    pub(super) fn is_handshake(&self) -> bool {
        self.exchange.as_ref().is_some_and(|exchange| exchange.is_handshake())
    }

    /// Whether the pool's upstreams are to be spoken to in nothing but HTTP/2.
    pub(super) fn speaks_only_http2(&self) -> bool {
        self.pool().is_some_and(|pool| pool.config.protocol == UpstreamProtocol::Http2)
    }

    /// Whether this is a gRPC call on HTTP/2, whose client understands refusals in the words of gRPC.
    pub(super) fn is_grpc_stream(&self) -> bool {
        self.grpc.is_some() && self.exchange.as_ref().is_some_and(|exchange| exchange.is_stream)
    }

    /// Lets the client's bytes through, or ends the request; nothing unless it is a handshake.
    pub(super) fn answer_handshake(&self, answer: Answer) {
        if let Some(exchange) = &self.exchange {
            exchange.answer_handshake(answer);
        }
    }

    /// Whether the peer may speak for others.
    pub(super) fn trusts_peer(&self) -> bool {
        self.connection()
            .is_some_and(|connection| !connection.is_peer_unknown && self.is_trusted(connection.peer_ip()))
    }

    /// Whether this address may speak for others.
    pub(super) fn is_trusted(&self, address: IpAddr) -> bool {
        let Some(connection) = self.connection() else { return false };
        self.snapshot
            .config
            .listeners
            .get(connection.listener.index)
            .is_some_and(|listener| listener.trusted_proxies.iter().any(|network| network.contains(&address)))
    }

    /// The request is on its way to an upstream, which may be silent for as long as `timeouts.read`, if that is
    /// shorter than the time left; no timer of Pingora's, since nobody knows yet whether the answer has an end.
    pub(super) fn begin_to_listen(&self) {
        let (Some(exchange), Some(pool), Some(attempt)) = (&self.exchange, self.pool(), &self.attempt) else {
            return;
        };
        if exchange.is_timed_by_pingora() {
            return;
        }
        let left = self.deadline().map(|deadline| deadline.saturating_sub(attempt.sent_at));
        let patience = Some(pool.config.timeouts.read).filter(|&read| left.is_none_or(|left| read < left));
        if patience.is_some() {
            exchange.set_patience(patience, self.runtime.now());
        }
    }

    /// The answer goes on until somebody ends it, or until nobody has said anything for long enough.
    pub(super) fn become_endless(&mut self, now: Duration) {
        self.trail.is_endless = true;
        if let (Some(exchange), Some(pool)) = (&self.exchange, self.pool()) {
            exchange.set_deadline(None);
            exchange.set_patience(Some(pool.config.timeouts.tunnel), now);
        }
    }

    /// A WebSocket begins.
    pub(super) fn become_tunnel(&mut self) {
        let (Some(exchange), Some(upstream)) = (&self.exchange, self.upstream()) else { return };
        exchange.become_tunnel();
        self.upgraded = Some(UpgradedGuard::new(&exchange.connection.listener, &upstream.state));
    }

    /// Something came from the upstream, or went there.
    pub(super) fn note_heard(&self, now: Duration) {
        if let Some(exchange) = self.exchange.as_ref().filter(|exchange| exchange.listens()) {
            exchange.note_heard(now);
        }
    }

    /// Moves the point at which the connection is cut; `None`: never.
    pub(super) fn cut_at(&self, deadline: Option<Duration>) {
        if let Some(exchange) = &self.exchange {
            exchange.set_deadline(deadline);
        }
    }
}

impl Drop for RequestContext {
    fn drop(&mut self) {
        if self.is_finished {
            return;
        }
        let was_cut = self.exchange.as_ref().is_some_and(|exchange| exchange.was_cut());
        let reason = match was_cut {
            true => Reason::UpstreamTimeout,
            false if self.runtime.is_cut() => Reason::Draining,
            false => Reason::ClientClosed,
        };
        let unanswered = self.exchange.as_ref().filter(|exchange| exchange.was_cut_unanswered());
        if let Some(exchange) = unanswered {
            exchange.leave_request_id(self.request_id.clone());
            if !exchange.is_stream {
                // Whoever carries it says so.
                let id = self.request_id.to_str().unwrap_or_default();
                self.response_bytes = refusal::text_body(reason, id).len() as u64;
            }
            // It was the upstream that took nothing more.
            steps::failed(steps::Outcome::Timeout, self.runtime.now(), self);
        }
        // A tunnel that was cut is one that had fallen silent: nobody was refused anything.
        if self.status != Some(101) {
            self.refusal.get_or_insert(reason);
        }
        let finished = Finished {
            status: self.status.unwrap_or(reason.status()),
            request_bytes: self.request_bytes,
            response_bytes: self.response_bytes,
        };
        let now = self.runtime.now();
        steps::observe(&finished, now, self);
    }
}
