//! The counters: one handle per listener, route, pool, upstream, and one for the process.
//!
//! A handle lives in what it counts, behind the same `Arc`: so counting is a few relaxed atomic adds
//! without a look-up, a reload keeps the figures, and what is removed takes its figures along. The
//! names of the series stand in [`exposition`](super::exposition).

mod tally;

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub use tally::Tally;

use super::{Histogram, HistogramSnapshot, Reason, Recent, RecentTimes, UNUSUAL_MIN};

/// Status class of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Class {
    Informational,
    Success,
    Redirection,
    ClientError,
    ServerError,
}

impl Class {
    /// All of them, from `1xx` to `5xx`.
    pub const ALL: [Self; 5] =
        [Self::Informational, Self::Success, Self::Redirection, Self::ClientError, Self::ServerError];

    /// The class of a status. What is no HTTP status (zero: none was sent) is a server error.
    pub const fn of(status: u16) -> Self {
        match status {
            100..=199 => Self::Informational,
            200..=299 => Self::Success,
            300..=399 => Self::Redirection,
            400..=499 => Self::ClientError,
            _ => Self::ServerError,
        }
    }

    /// Value of the `class` label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Informational => "1xx",
            Self::Success => "2xx",
            Self::Redirection => "3xx",
            Self::ClientError => "4xx",
            Self::ServerError => "5xx",
        }
    }
}

/// How an attempt to open a connection to an upstream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConnectResult {
    /// Open, TLS included.
    Ok,
    /// Refused, unreachable, or TLS did not come about.
    Failed,
    /// Not open within `timeouts.connect`.
    TimedOut,
}

impl ConnectResult {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Ok, Self::Failed, Self::TimedOut];

    /// Value of the `result` label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
        }
    }
}

/// Why a request was sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RetryReason {
    /// No connection came about, so nothing was sent.
    ConnectFailure,
    /// The connection broke before a response.
    Reset,
    /// No response in time.
    Timeout,
    /// A response with a status that the route retries.
    Status,
    /// A kept connection that the upstream had closed in the same moment.
    StaleConnection,
}

impl RetryReason {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::ConnectFailure, Self::Reset, Self::Timeout, Self::Status, Self::StaleConnection];

    /// Value of the `reason` label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::ConnectFailure => "connect_failure",
            Self::Reset => "reset",
            Self::Timeout => "timeout",
            Self::Status => "status",
            Self::StaleConnection => "stale_connection",
        }
    }
}

/// Where a change of the configuration came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChangeOrigin {
    /// The file (or the arguments) at start.
    Start,
    /// The file, read again.
    File,
    /// The admin API.
    Admin,
    /// An upstream list that changed in the outside world.
    Discovery,
}

impl ChangeOrigin {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Start, Self::File, Self::Admin, Self::Discovery];

    /// Value of the `origin` label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::File => "file",
            Self::Admin => "admin",
            Self::Discovery => "discovery",
        }
    }
}

/// What became of a change of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChangeResult {
    /// In full.
    Applied,
    /// Nothing was changed.
    Refused,
}

impl ChangeResult {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Applied, Self::Refused];

    /// Value of the `result` label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Refused => "refused",
        }
    }
}

/// Why the side port did not do what it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AdminRefusal {
    /// No token, or a wrong one.
    Unauthorized,
    /// The token does not allow it.
    Forbidden,
    /// Too many wrong tokens came from there before.
    TooManyFailures,
    /// The request named a host that is not this machine.
    ForeignHost,
    /// A browser sent a write on behalf of another site.
    CrossSite,
    /// Too many connections were open.
    TooManyConnections,
}

impl AdminRefusal {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Unauthorized,
        Self::Forbidden,
        Self::TooManyFailures,
        Self::ForeignHost,
        Self::CrossSite,
        Self::TooManyConnections,
    ];

    /// Value of the `reason` label, and the word in the log.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::TooManyFailures => "too_many_failures",
            Self::ForeignHost => "foreign_host",
            Self::CrossSite => "cross_site",
            Self::TooManyConnections => "too_many_connections",
        }
    }
}

/// How a TLS handshake with a client ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HandshakeResult {
    /// In full.
    Ok,
    /// With the keys of an earlier session.
    Resumed,
    /// Not within `handshake_timeout`.
    TimedOut,
    /// No TLS, no common ground, a client certificate that is missing or wrong, or the client went away.
    Failed,
}

impl HandshakeResult {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Ok, Self::Resumed, Self::TimedOut, Self::Failed];

    /// Value of the `result` label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Resumed => "resumed",
            Self::TimedOut => "timeout",
            Self::Failed => "failed",
        }
    }
}

/// One listener's connections. Its requests are counted by the routes, see [`RouteMetrics::requests`].
#[derive(Debug, Default)]
pub struct ListenerMetrics {
    connections: Gauge,
    handshakes: Counters<{ HandshakeResult::ALL.len() }>,
    upgraded: Gauge,
    proxy_header_failures: Counter,
}

impl ListenerMetrics {
    /// A client connected.
    pub fn connection_opened(&self) {
        self.connections.up();
    }

    /// A connection that was counted by [`connection_opened`](Self::connection_opened) is gone.
    pub fn connection_closed(&self) {
        self.connections.down();
    }

    /// Client connections open now, idle ones included.
    pub fn open_connections(&self) -> u64 {
        self.connections.now()
    }

    /// Client connections since the start.
    pub fn accepted(&self) -> u64 {
        self.connections.ups()
    }

    /// A TLS handshake ended so.
    pub fn handshake(&self, result: HandshakeResult) {
        self.handshakes.add(result as usize, 1);
    }

    /// TLS handshakes that ended so.
    pub fn handshakes(&self, result: HandshakeResult) -> u64 {
        self.handshakes.get(result as usize)
    }

    /// A connection became a WebSocket.
    pub fn connection_upgraded(&self) {
        self.upgraded.up();
    }

    /// One that was counted by [`connection_upgraded`](Self::connection_upgraded) is over.
    pub fn upgraded_closed(&self) {
        self.upgraded.down();
    }

    /// Upgraded connections open now.
    pub fn upgraded_connections(&self) -> u64 {
        self.upgraded.now()
    }

    /// Whether more connections were closed than ever opened.
    pub fn is_negative(&self) -> bool {
        self.connections.is_negative() || self.upgraded.is_negative()
    }

    /// A proxy that has to announce its clients did not.
    pub fn proxy_header_failed(&self) {
        self.proxy_header_failures.add(1);
    }

    /// Connections that were closed because their PROXY header was missing or malformed.
    pub fn proxy_header_failures(&self) -> u64 {
        self.proxy_header_failures.get()
    }
}

/// How many status codes gRPC has: OK (0) to UNAUTHENTICATED (16).
pub const GRPC_CODES: usize = 17;

/// Requests of the last minutes from which on they tell what is usual: of fewer, one in a hundred is nobody.
const TIMES_TO_JUDGE_BY: u64 = 200;

/// One route's requests.
#[derive(Debug, Default)]
pub struct RouteMetrics {
    by_listener: ByListener,
    in_flight: Gauge,
    /// See [`RouteMetrics::foreign_requests`].
    foreign: Counter,
    duration: Histogram,
    request_bytes: Counter,
    response_bytes: Counter,
    refusals: Counters<{ Reason::ALL.len() }>,
    /// Made with the first call: few routes have any.
    grpc: OnceLock<Box<Counters<{ GRPC_CODES }>>>,
    recent: Recent,
    recent_times: RecentTimes,
    /// In microseconds; 0: not known. See [`RouteMetrics::unusual_after`].
    unusual_after_us: AtomicU64,
    /// Requests in flight, for the history.
    pub peak: Peak,
}

impl RouteMetrics {
    /// With room for this many listeners. More of them cost one allocation at their first request.
    pub fn new(listeners: usize) -> Self {
        let metrics = Self::default();
        metrics.by_listener.classes(listeners.saturating_sub(1));
        metrics
    }

    /// A request was routed here.
    pub fn begin(&self) {
        self.in_flight.up();
    }

    /// A request counted by [`begin`](Self::begin) is over, on whatever path.
    pub fn end(&self) {
        self.in_flight.down();
    }

    /// A request ended with this status: the one that the client got, or ours if nobody was left to get it.
    ///
    /// `duration` is from request head to the last byte of the response; bytes are those of the bodies.
    /// Once per request, beside [`end`](Self::end).
    pub fn finished(
        &self,
        listener: usize,
        status: u16,
        duration: Duration,
        request_bytes: u64,
        response_bytes: u64,
    ) {
        self.by_listener.classes(listener).add(Class::of(status) as usize, 1);
        self.duration.record(duration);
        self.request_bytes.add(request_bytes);
        self.response_bytes.add(response_bytes);
    }

    /// The request that [`finished`](Self::finished) counts got an answer of ours.
    pub fn refused(&self, reason: Reason) {
        self.refusals.add(reason as usize, 1);
    }

    /// The request that [`finished`](Self::finished) counts was a gRPC call, and ended with this code: below
    /// [`GRPC_CODES`].
    pub fn grpc_finished(&self, code: u8) {
        self.grpc.get_or_init(Box::default).add(code.into(), 1);
    }

    /// gRPC calls that ended with this code.
    pub fn grpc_calls(&self, code: usize) -> u64 {
        self.grpc.get().map_or(0, |codes| codes.get(code))
    }

    /// Requests routed here and not over yet.
    pub fn in_flight(&self) -> u64 {
        self.in_flight.now()
    }

    /// Requests that were ever routed here, over or not.
    pub fn begun(&self) -> u64 {
        self.in_flight.ups()
    }

    /// Requests of another process at listeners that this one does not have: they are not among the
    /// [`finished_requests`](Self::finished_requests), though among all else that is counted here.
    pub fn foreign_requests(&self) -> u64 {
        self.foreign.get()
    }

    /// Requests that are over, by whoever counts those under way. As many as
    /// [`finished_requests`](Self::finished_requests), or somebody has counted wrong.
    pub fn ended(&self) -> u64 {
        self.in_flight.downs()
    }

    /// Whether more requests ended than ever began.
    pub fn is_negative(&self) -> bool {
        self.in_flight.is_negative()
    }

    /// Requests finished, by listener (its index) and class.
    pub fn requests(&self, listener: usize, class: Class) -> u64 {
        self.by_listener.peek(listener).map_or(0, |classes| classes.get(class as usize))
    }

    /// Requests finished with this class, over all listeners.
    pub fn requests_of(&self, class: Class) -> u64 {
        self.by_listener.sum(class as usize)
    }

    /// Requests finished.
    pub fn finished_requests(&self) -> u64 {
        Class::ALL.into_iter().map(|class| self.requests_of(class)).sum()
    }

    /// Requests that ended with a status of 500 or more.
    pub fn errors(&self) -> u64 {
        self.requests_of(Class::ServerError)
    }

    /// Takes down how far the counter of requests is; once in every [`SAMPLE`](super::SAMPLE).
    pub fn sample(&self, now: Duration) {
        self.recent.sample(self.finished_requests(), now);
        // Most routes of a large configuration are quiet, and then cost nothing.
        if self.finished_requests() > 0 {
            self.sample_times(now);
        }
    }

    fn sample_times(&self, now: Duration) {
        let times = self.duration();
        let lately = self.recent_times.growth(&times).filter(|lately| lately.count >= TIMES_TO_JUDGE_BY);
        let unusual_after = lately.map(|lately| lately.quantile(0.99).max(UNUSUAL_MIN));
        let micros = unusual_after.and_then(|after| u64::try_from(after.as_micros()).ok());
        self.unusual_after_us.store(micros.unwrap_or(0), Relaxed);
        if self.recent_times.is_due(now) {
            self.recent_times.sample(times, now);
        }
    }

    /// Longer than this take few requests here: one in a hundred of the last minutes, as of the last sample.
    /// `None` as long as there were too few to tell.
    pub fn unusual_after(&self) -> Option<Duration> {
        Some(self.unusual_after_us.load(Relaxed)).filter(|&micros| micros > 0).map(Duration::from_micros)
    }

    /// Requests that finished within the last [`WINDOW`](super::WINDOW).
    pub fn recent_requests(&self, now: Duration) -> u64 {
        self.recent.growth(self.finished_requests(), now)
    }

    /// From request head to the last byte of the response.
    pub fn duration(&self) -> HistogramSnapshot {
        self.duration.snapshot()
    }

    /// Bytes of request bodies.
    pub fn request_bytes(&self) -> u64 {
        self.request_bytes.get()
    }

    /// Bytes of response bodies.
    pub fn response_bytes(&self) -> u64 {
        self.response_bytes.get()
    }

    /// Requests that got an answer of ours for this reason.
    pub fn refusals(&self, reason: Reason) -> u64 {
        self.refusals.get(reason as usize)
    }
}

/// One upstream's attempts, connections and checks.
#[derive(Debug, Default)]
pub struct UpstreamMetrics {
    attempts: Counters<{ Class::ALL.len() }>,
    failed_attempts: Counter,
    response_time: Histogram,
    connects: Counters<{ ConnectResult::ALL.len() }>,
    reused_connections: Counter,
    ejections: Counter,
    /// Failed, passed.
    health_checks: Counters<2>,
    sent_bytes: Counter,
    received_bytes: Counter,
    recent: Recent,
    upgraded: Gauge,
    given_up: Counter,
    /// Requests in flight, for the history.
    pub peak: Peak,
}

impl UpstreamMetrics {
    /// A connection became a WebSocket.
    pub fn connection_upgraded(&self) {
        self.upgraded.up();
    }

    /// One that was counted by [`connection_upgraded`](Self::connection_upgraded) is over.
    pub fn upgraded_closed(&self) {
        self.upgraded.down();
    }

    /// Upgraded connections open now.
    pub fn upgraded_connections(&self) -> u64 {
        self.upgraded.now()
    }

    /// Whether more upgraded connections were closed than ever opened.
    pub fn is_negative(&self) -> bool {
        self.upgraded.is_negative()
    }

    /// An attempt was answered with this status, or failed without one.
    pub fn attempt_finished(&self, status: Option<u16>) {
        match status {
            Some(status) => self.attempts.add(Class::of(status) as usize, 1),
            None => self.failed_attempts.add(1),
        }
    }

    /// An attempt ended without saying anything about the upstream: the client left, the trouble was our own,
    /// or the connection had ended before.
    pub fn attempt_given_up(&self) {
        self.given_up.add(1);
    }

    /// Attempts that ended so.
    pub fn given_up_attempts(&self) -> u64 {
        self.given_up.get()
    }

    /// From sending the request to the first byte of the response.
    pub fn response_time(&self, duration: Duration) {
        self.response_time.record(duration);
    }

    /// Opening a connection ended so.
    pub fn connected(&self, result: ConnectResult) {
        self.connects.add(result as usize, 1);
    }

    /// An attempt went over a kept connection.
    pub fn reused(&self) {
        self.reused_connections.add(1);
    }

    /// Traffic showed that the upstream is sick; it is left alone for a while.
    pub fn ejected(&self) {
        self.ejections.add(1);
    }

    /// A health check ended.
    pub fn health_check(&self, ok: bool) {
        self.health_checks.add(usize::from(ok), 1);
    }

    /// Body bytes of one attempt.
    pub fn transferred(&self, sent: u64, received: u64) {
        self.sent_bytes.add(sent);
        self.received_bytes.add(received);
    }

    /// Attempts answered with this class.
    pub fn requests(&self, class: Class) -> u64 {
        self.attempts.get(class as usize)
    }

    /// Attempts that got no status.
    pub fn failed_attempts(&self) -> u64 {
        self.failed_attempts.get()
    }

    /// All attempts that are over.
    pub fn finished_attempts(&self) -> u64 {
        self.attempts.sum() + self.failed_attempts()
    }

    /// Takes down how far the counter of attempts is; once in every [`SAMPLE`](super::SAMPLE).
    pub fn sample(&self, now: Duration) {
        self.recent.sample(self.finished_attempts(), now);
    }

    /// Attempts that finished within the last [`WINDOW`](super::WINDOW).
    pub fn recent_attempts(&self, now: Duration) -> u64 {
        self.recent.growth(self.finished_attempts(), now)
    }

    /// Attempts that finished within the last minute; see [`Recent::growth_in_a_minute`].
    pub fn attempts_in_a_minute(&self, now: Duration) -> u64 {
        self.recent.growth_in_a_minute(self.finished_attempts(), now)
    }

    /// Attempts that got no status, or one of 500 or more.
    pub fn errors(&self) -> u64 {
        self.failed_attempts() + self.requests(Class::ServerError)
    }

    /// From sending the request to the first byte of the response.
    pub fn response_times(&self) -> HistogramSnapshot {
        self.response_time.snapshot()
    }

    /// Connections that were to be opened, by how that ended.
    pub fn connects(&self, result: ConnectResult) -> u64 {
        self.connects.get(result as usize)
    }

    /// Attempts over a kept connection.
    pub fn reused_connections(&self) -> u64 {
        self.reused_connections.get()
    }

    /// How often it was ejected.
    pub fn ejections(&self) -> u64 {
        self.ejections.get()
    }

    /// Health checks, passed or failed.
    pub fn health_checks(&self, ok: bool) -> u64 {
        self.health_checks.get(usize::from(ok))
    }

    /// Bytes of bodies sent to it.
    pub fn sent_bytes(&self) -> u64 {
        self.sent_bytes.get()
    }

    /// Bytes of bodies received from it.
    pub fn received_bytes(&self) -> u64 {
        self.received_bytes.get()
    }
}

/// One pool's requests, as their clients saw them, and its retries.
#[derive(Debug, Default)]
pub struct PoolMetrics {
    /// Fine, failed.
    finished: Counters<2>,
    /// The same of requests that began in a generation from [`watched_from`](Self::watched_from) on and
    /// before [`watched_until`](Self::watched_until).
    watched: Counters<2>,
    /// Zero: nobody ever watched, or what was watched was kept.
    watched_from: AtomicU64,
    watched_until: AtomicU64,
    retries: Counters<{ RetryReason::ALL.len() }>,
    budget_exhausted: Counter,
    recent_requests: Recent,
    recent_unwatched: Recent,
    recent_errors: Recent,
    /// Response times of all its upstreams.
    pub recent_times: RecentTimes,
    /// Requests in flight at all its upstreams, for the history.
    pub peak: Peak,
}

impl PoolMetrics {
    /// A request for this pool ended with this status, whoever answered, or nobody; it began in this
    /// generation of the configuration.
    ///
    /// Other than the attempts of the upstreams, this counts requests that found nobody to go to, and
    /// counts one that succeeded at the second attempt as fine.
    pub fn finished(&self, status: u16, generation: u64) {
        let kind = usize::from(Class::of(status) == Class::ServerError);
        self.finished.add(kind, 1);
        let from = self.watched_from.load(Relaxed);
        if from > 0 && (from..self.watched_until.load(Relaxed)).contains(&generation) {
            self.watched.add(kind, 1);
        }
    }

    /// From now on, counts apart what began in this generation or later: what an earlier configuration did
    /// to its requests says nothing about this one.
    pub fn watch_from(&self, generation: u64) {
        self.watched_until.store(u64::MAX, Relaxed);
        self.watched_from.store(generation, Relaxed);
    }

    /// What was watched was taken back in this generation; what began before, and is not over, is still
    /// counted apart, for it says nothing about what runs now.
    pub fn watch_until(&self, generation: u64) {
        self.watched_until.store(generation, Relaxed);
    }

    /// What was watched was kept: from now on it is like any other.
    pub fn end_watch(&self) {
        self.watched_from.store(0, Relaxed);
    }

    /// Requests that were counted apart, and errors among them; see [`watch_from`](Self::watch_from).
    pub fn watched(&self) -> (u64, u64) {
        let errors = self.watched.get(1);
        (self.watched.sum(), errors)
    }

    /// Requests for this pool that are over.
    pub fn requests(&self) -> u64 {
        self.finished.sum()
    }

    /// Those of them that ended with a status of 500 or more, or none at all.
    pub fn errors(&self) -> u64 {
        self.finished.get(1)
    }

    /// Takes down how far the counters are; once in every [`SAMPLE`](super::SAMPLE).
    pub fn sample(&self, now: Duration) {
        let (requests, errors) = self.unwatched();
        self.recent_requests.sample(self.requests(), now);
        self.recent_unwatched.sample(requests, now);
        self.recent_errors.sample(errors, now);
    }

    /// Requests that ended within the last [`WINDOW`](super::WINDOW).
    pub fn recent_requests(&self, now: Duration) -> u64 {
        self.recent_requests.growth(self.requests(), now)
    }

    /// The same, and errors among them, without those that were counted apart: a trial that went wrong a
    /// minute ago is no measure for the next one.
    pub fn recent_unwatched(&self, now: Duration) -> (u64, u64) {
        let (requests, errors) = self.unwatched();
        (self.recent_unwatched.growth(requests, now), self.recent_errors.growth(errors, now))
    }

    fn unwatched(&self) -> (u64, u64) {
        // Errors first: who ends between the two reads is then no error without a request.
        let (watched, watched_errors) = self.watched();
        let errors = self.errors().saturating_sub(watched_errors);
        (self.requests().saturating_sub(watched), errors)
    }

    /// A request is sent again.
    pub fn retried(&self, reason: RetryReason) {
        self.retries.add(reason as usize, 1);
    }

    /// A request would have been sent again, had the budget allowed it.
    pub fn budget_exhausted(&self) {
        self.budget_exhausted.add(1);
    }

    /// Attempts that repeated an earlier one.
    pub fn retries(&self, reason: RetryReason) -> u64 {
        self.retries.get(reason as usize)
    }

    /// Retries that the budget forbade.
    pub fn budget_exhaustions(&self) -> u64 {
        self.budget_exhausted.get()
    }
}

/// What belongs to no listener, route or pool.
///
/// Every request is counted once: by the route that it found ([`RouteMetrics::finished`]), or here
/// when it found none. So all requests are the sum of both.
#[derive(Debug, Default)]
pub struct ProcessMetrics {
    refusals: Counters<{ Reason::ALL.len() }>,
    admin_refusals: Counters<{ AdminRefusal::ALL.len() }>,
    changes: [Counters<{ ChangeResult::ALL.len() }>; ChangeOrigin::ALL.len()],
    generation: AtomicU64,
    /// Milliseconds since 1970; zero: never.
    last_applied: AtomicU64,
    /// Requests in flight on all routes, for the history.
    pub peak: Peak,
}

impl ProcessMetrics {
    /// A request (or a connection) was refused before it had a route.
    pub fn refused(&self, reason: Reason) {
        self.refusals.add(reason as usize, 1);
    }

    /// The side port turned a request (or a connection) away.
    pub fn admin_refused(&self, reason: AdminRefusal) {
        self.admin_refusals.add(reason as usize, 1);
    }

    /// Somebody tried to change the configuration.
    pub fn config_changed(&self, origin: ChangeOrigin, result: ChangeResult) {
        if let Some(results) = self.changes.get(origin as usize) {
            results.add(result as usize, 1);
        }
    }

    /// This generation is running, since `at`. Also once at start.
    pub fn config_applied(&self, generation: u64, at: SystemTime) {
        let since_1970 = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        self.generation.store(generation, Relaxed);
        self.last_applied.store(u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX), Relaxed);
    }

    /// Requests refused before they had a route, for this reason.
    pub fn refusals(&self, reason: Reason) -> u64 {
        self.refusals.get(reason as usize)
    }

    /// Requests refused before they had a route.
    pub fn refusals_total(&self) -> u64 {
        self.refusals.sum()
    }

    /// Requests that the side port turned away, for this reason.
    pub fn admin_refusals(&self, reason: AdminRefusal) -> u64 {
        self.admin_refusals.get(reason as usize)
    }

    /// Attempts to change the configuration.
    pub fn config_changes(&self, origin: ChangeOrigin, result: ChangeResult) -> u64 {
        self.changes.get(origin as usize).map_or(0, |results| results.get(result as usize))
    }

    /// Number of the running configuration, counted from one; zero before the first.
    pub fn generation(&self) -> u64 {
        self.generation.load(Relaxed)
    }

    /// When the running configuration was applied; `None` before the first.
    pub fn last_applied(&self) -> Option<SystemTime> {
        let millis = self.last_applied.load(Relaxed);
        (millis > 0).then(|| UNIX_EPOCH + Duration::from_millis(millis))
    }
}

/// Requests by class, for each listener.
///
/// Counters of the first few listeners stand in place; further blocks are made when first needed, so
/// that a route need not know how many listeners there are.
#[derive(Debug, Default)]
struct ByListener {
    block: [Counters<{ Class::ALL.len() }>; LISTENERS_PER_BLOCK],
    more: OnceLock<Box<Self>>,
}

impl ByListener {
    /// Counters of this listener, made if need be. Beyond [`LISTENERS_MAX`], those of the last one.
    fn classes(&self, listener: usize) -> &Counters<{ Class::ALL.len() }> {
        let mut listener = listener.min(LISTENERS_MAX - 1);
        let mut blocks = self;
        loop {
            match blocks.block.get(listener) {
                Some(classes) => return classes,
                None => blocks = blocks.more.get_or_init(Box::default),
            }
            listener -= LISTENERS_PER_BLOCK;
        }
    }

    /// Counters of this listener, if it ever had a request.
    fn peek(&self, listener: usize) -> Option<&Counters<{ Class::ALL.len() }>> {
        self.blocks().nth(listener / LISTENERS_PER_BLOCK)?.block.get(listener % LISTENERS_PER_BLOCK)
    }

    fn sum(&self, class: usize) -> u64 {
        self.blocks().flat_map(|blocks| &blocks.block).map(|classes| classes.get(class)).sum()
    }

    fn blocks(&self) -> impl Iterator<Item = &Self> {
        std::iter::successors(Some(self), |blocks| blocks.more.get().map(|more| &**more))
    }
}

/// A number that goes up and down, kept as two that only go up: so it is never negative, and audits
/// can compare its history with other counters.
#[derive(Debug, Default)]
struct Gauge {
    ups: Counter,
    downs: Counter,
}

impl Gauge {
    fn up(&self) {
        self.ups.add(1);
    }

    fn down(&self) {
        self.downs.add(1);
    }

    fn ups(&self) -> u64 {
        self.ups.get()
    }

    fn downs(&self) -> u64 {
        self.downs.get()
    }

    fn is_negative(&self) -> bool {
        let downs = self.downs.get();
        downs > self.ups.get()
    }

    fn now(&self) -> u64 {
        // Downs first: whoever goes up and down between the two reads is then counted as present.
        let downs = self.downs.get();
        self.ups.get().saturating_sub(downs)
    }
}

/// The most that was seen of a number since somebody asked.
#[derive(Debug, Default)]
pub struct Peak(AtomicU32);

impl Peak {
    /// It is so much now.
    pub fn see(&self, now: u64) {
        let now = u32::try_from(now).unwrap_or(u32::MAX);
        // Rarely beaten: a look is cheaper than a write.
        if now > self.0.load(Relaxed) {
            self.0.fetch_max(now, Relaxed);
        }
    }

    /// The most since the last time.
    pub fn take(&self) -> u32 {
        if self.0.load(Relaxed) == 0 { 0 } else { self.0.swap(0, Relaxed) }
    }
}

/// Counts up, from any thread.
#[derive(Debug, Default)]
struct Counter(AtomicU64);

impl Counter {
    // Relaxed here and below: counters order nothing else, and readers want figures, not a cut.
    fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// One counter per value of a label.
#[derive(Debug)]
struct Counters<const N: usize>([Counter; N]);

impl<const N: usize> Default for Counters<N> {
    fn default() -> Self {
        Self([const { Counter(AtomicU64::new(0)) }; N])
    }
}

impl<const N: usize> Counters<N> {
    fn add(&self, index: usize, amount: u64) {
        if let Some(counter) = self.0.get(index) {
            counter.add(amount);
        }
    }

    fn get(&self, index: usize) -> u64 {
        self.0.get(index).map_or(0, Counter::get)
    }

    fn sum(&self) -> u64 {
        self.0.iter().map(Counter::get).sum()
    }
}

/// Most files have one or two listeners (HTTP and HTTPS), few have more than four.
const LISTENERS_PER_BLOCK: usize = 4;

/// Four times what a configuration may name; only a wrong index reaches it.
const LISTENERS_MAX: usize = 1_024;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn classes_follow_the_first_digit_and_no_status_is_our_fault() {
        let labels = [101, 200, 304, 404, 499, 503, 0, 999].map(|status| Class::of(status).label());
        assert_eq!(labels, ["1xx", "2xx", "3xx", "4xx", "4xx", "5xx", "5xx", "5xx"]);
    }

    #[test]
    fn every_label_stands_at_its_own_index() {
        assert!(Class::ALL.iter().enumerate().all(|(index, &class)| class as usize == index));
        assert!(ConnectResult::ALL.iter().enumerate().all(|(index, &result)| result as usize == index));
        assert!(RetryReason::ALL.iter().enumerate().all(|(index, &reason)| reason as usize == index));
        assert!(ChangeOrigin::ALL.iter().enumerate().all(|(index, &origin)| origin as usize == index));
        assert!(AdminRefusal::ALL.iter().enumerate().all(|(index, &reason)| reason as usize == index));
        assert!(ChangeResult::ALL.iter().enumerate().all(|(index, &result)| result as usize == index));
    }

    #[test]
    fn a_listener_tells_open_connections_from_all() {
        let listener = ListenerMetrics::default();
        listener.connection_opened();
        listener.connection_opened();
        listener.connection_closed();
        assert_eq!((listener.open_connections(), listener.accepted()), (1, 2));
    }

    #[test]
    fn a_gauge_that_fell_too_often_is_zero_not_huge() {
        let listener = ListenerMetrics::default();
        listener.connection_closed();
        assert_eq!(listener.open_connections(), 0);
    }

    #[test]
    fn requests_are_counted_by_listener_and_class() {
        let route = RouteMetrics::new(2);
        route.finished(0, 200, Duration::from_millis(5), 10, 1_000);
        route.finished(1, 200, Duration::from_millis(7), 0, 500);
        route.finished(1, 502, Duration::from_millis(9), 0, 0);

        assert_eq!(route.requests(0, Class::Success), 1);
        assert_eq!(route.requests(1, Class::Success), 1);
        assert_eq!(route.requests(1, Class::ServerError), 1);
        assert_eq!((route.finished_requests(), route.errors()), (3, 1));
        assert_eq!((route.request_bytes(), route.response_bytes()), (10, 1_500));
        assert_eq!(route.duration().sum, Duration::from_millis(21));
    }

    #[test]
    fn a_route_counts_for_listeners_that_it_was_not_told_of() {
        let route = RouteMetrics::default();
        for listener in [0, 3, 4, 255] {
            route.finished(listener, 204, Duration::ZERO, 0, 0);
            assert_eq!(route.requests(listener, Class::Success), 1, "listener {listener}");
        }
        assert_eq!(route.requests(5, Class::Success), 0);
        assert_eq!(route.requests(100_000, Class::Success), 0);
        route.finished(usize::MAX, 204, Duration::ZERO, 0, 0);
        assert_eq!(route.finished_requests(), 5);
    }

    #[test]
    fn requests_in_flight_return_to_zero() {
        let route = RouteMetrics::new(1);
        route.begin();
        route.begin();
        assert_eq!(route.in_flight(), 2);
        route.end();
        route.end();
        assert_eq!(route.in_flight(), 0);
    }

    #[test]
    fn an_attempt_without_a_status_is_an_error() {
        let upstream = UpstreamMetrics::default();
        for status in [Some(200), Some(404), Some(503), None] {
            upstream.attempt_finished(status);
        }
        assert_eq!((upstream.finished_attempts(), upstream.failed_attempts(), upstream.errors()), (4, 1, 2));
    }

    #[test]
    fn an_upstream_keeps_its_figures_apart() {
        let upstream = UpstreamMetrics::default();
        upstream.connected(ConnectResult::Ok);
        upstream.connected(ConnectResult::TimedOut);
        upstream.connected(ConnectResult::TimedOut);
        upstream.health_check(true);
        upstream.health_check(false);
        upstream.health_check(false);
        upstream.reused();
        upstream.ejected();
        upstream.transferred(1, 2);
        upstream.response_time(Duration::from_millis(3));

        assert_eq!(ConnectResult::ALL.map(|result| upstream.connects(result)), [1, 0, 2]);
        assert_eq!((upstream.health_checks(true), upstream.health_checks(false)), (1, 2));
        assert_eq!((upstream.reused_connections(), upstream.ejections()), (1, 1));
        assert_eq!((upstream.sent_bytes(), upstream.received_bytes()), (1, 2));
        assert_eq!(upstream.response_times().count, 1);
    }

    #[test]
    fn retries_are_counted_by_reason() {
        let pool = PoolMetrics::default();
        pool.retried(RetryReason::StaleConnection);
        pool.retried(RetryReason::StaleConnection);
        pool.retried(RetryReason::Status);
        pool.budget_exhausted();
        assert_eq!(RetryReason::ALL.map(|reason| pool.retries(reason)), [0, 0, 0, 1, 2]);
        assert_eq!(pool.budget_exhaustions(), 1);
    }

    #[test]
    fn a_pool_tells_what_its_clients_saw() {
        let pool = PoolMetrics::default();
        for status in [200, 404, 499, 503, 0] {
            pool.finished(status, 1);
        }
        assert_eq!((pool.requests(), pool.errors()), (5, 2));
        let at = |seconds| Duration::from_secs(seconds);
        pool.sample(at(10));
        pool.finished(502, 1);
        assert_eq!((pool.recent_unwatched(at(12)), pool.recent_requests(at(12))), ((6, 3), 6));
        assert_eq!((pool.recent_unwatched(at(311)), pool.recent_requests(at(311))), ((1, 1), 1));
    }

    #[test]
    fn a_watched_pool_counts_apart_what_began_since() {
        let pool = PoolMetrics::default();
        pool.finished(500, 6);
        pool.watch_from(7);
        pool.finished(500, 6);
        pool.finished(200, 7);
        pool.finished(503, 8);
        assert_eq!(pool.watched(), (2, 1));
        pool.watch_until(9);
        pool.finished(500, 8);
        pool.finished(200, 9);
        assert_eq!((pool.watched(), pool.requests()), ((3, 2), 6));
        let now = Duration::from_secs(1);
        assert_eq!((pool.recent_unwatched(now), pool.recent_requests(now)), ((3, 2), 6));
        pool.watch_from(10);
        pool.end_watch();
        pool.finished(200, 10);
        assert_eq!(pool.watched(), (3, 2));
    }

    #[test]
    fn a_refused_change_leaves_generation_and_time_alone() {
        let process = ProcessMetrics::default();
        assert_eq!((process.generation(), process.last_applied()), (0, None));

        let at = UNIX_EPOCH + Duration::from_millis(1_700_000_000_123);
        process.config_applied(1, at);
        process.config_changed(ChangeOrigin::File, ChangeResult::Refused);

        assert_eq!((process.generation(), process.last_applied()), (1, Some(at)));
        assert_eq!(process.config_changes(ChangeOrigin::File, ChangeResult::Refused), 1);
        assert_eq!(process.config_changes(ChangeOrigin::File, ChangeResult::Applied), 0);
    }

    #[test]
    fn refusals_without_a_route_are_counted_by_reason() {
        let process = ProcessMetrics::default();
        process.refused(Reason::NoRoute);
        process.refused(Reason::BadRequest);
        process.refused(Reason::BadRequest);
        assert_eq!(process.refusals(Reason::BadRequest), 2);
        assert_eq!(process.refusals_total(), 3);
    }
}
