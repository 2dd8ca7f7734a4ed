//! Turns the text of a configuration file into checked, typed values.
//!
//! ```text
//!   source.rs ──► file.rs: ConfigFile ──► check/: Config ──► (floor 2) Snapshot
//!     text         as written, spans      typed, complete       running
//!                          └───────┬────────┘
//!                              report.rs: every mistake at once, with line, column and help
//! ```
//!
//! `fields.rs` reads a table key by key, `values.rs` single values, `words.rs` guesses what was meant;
//! `defaults.rs` and `limits.rs` hold the numbers; `pem.rs` and `pair.rs` read certificates and keys, and say what
//! is wrong with them. `without_file.rs` makes a [`Config`] from a few addresses.
//!
//! **To add a key**: a field below, one line where its table is read (`check/<table>.rs`), a default in
//! `defaults.rs`, and its entry in `config/evener.toml`; a test fails while the entry is missing.
//!
//! This room uses floor 0, and asks the world for four things only: files, host names, environment, and
//! today's date, which certificates are compared with.
//!
//! Parse, don't validate: reading and checking can fail, and say everything that is wrong in one go;
//! what comes out is complete, so that building the running state cannot fail.

mod check;
mod defaults;
mod describe;
mod edit;
mod fields;
mod file;
mod files;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
pub mod limits;
mod pair;
mod pem;
mod report;
mod source;
#[cfg(test)]
mod tests;
mod tls;
mod token;
mod upstream_tls;
mod values;
mod without_file;
mod words;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::header::{HeaderName, HeaderValue};
use ipnet::IpNet;

pub use check::{parse, parse_with_warnings};
pub use describe::{Description, SECRET, Setting, differences};
pub use edit::{
    CannotEdit, NewUpstream, PoolEdit, check_circle, check_members, edit, read_address, read_duration,
    read_size, resolved_address,
};
pub use files::Files;
pub use report::{Mistake, Report};
pub use source::{LoadError, Loaded, Source, Unreadable};
pub use tls::{
    AlpnProtocol, CertificateConfig, ClientAuth, ClientCaConfig, EXPIRES_SOON, ListenerTlsConfig, TlsVersion,
};
pub use token::{Scope, TokenConfig, TokenSecret};
pub use upstream_tls::{Certificates, ClientCertificate, PrivateKey, UpstreamTls, has_system_roots};
pub use without_file::{addresses_in, from_addresses, text_of_addresses};

/// Reads and checks a file, with the environment of this process.
///
/// # Errors
///
/// Fails when the file cannot be read, or with every mistake in it.
pub fn load(path: &Path) -> Result<Loaded, LoadError> {
    let source = Source::read(path)?;
    let environment = |name: &str| std::env::var(name).ok();
    let (config, warnings) = parse_with_warnings(&source, &environment).map_err(LoadError::Invalid)?;
    Ok(Loaded { source, config, warnings })
}

/// A checked configuration: every reference resolves, every number is in range, every default is filled in.
///
/// Routes and pools are shared: who changes one of them copies that one, and who compares two
/// configurations sees by the pointer what is the same.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The process.
    pub server: ServerConfig,
    /// The side port.
    pub admin: AdminConfig,
    /// What is written where.
    pub log: LogConfig,
    /// Where spans go; `None`: requests are not traced.
    pub tracing: Option<Arc<TracingConfig>>,
    /// Accepting sockets, by name.
    pub listeners: Vec<ListenerConfig>,
    /// Requests to pools, by name. Never empty: a file without routes has one route for everything.
    pub routes: Vec<Arc<RouteConfig>>,
    /// Groups of equal upstreams, by name.
    pub pools: Vec<Arc<PoolConfig>>,
}

impl Config {
    /// `2 listeners, 3 routes, 3 pools`; the route that stands in for none counts.
    pub fn summary(&self) -> String {
        let listeners = report::counted(self.listeners.len(), "listener");
        let routes = report::counted(self.routes.len(), "route");
        format!("{listeners}, {routes}, {}", report::counted(self.pools.len(), "pool"))
    }
}

/// `[server]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerConfig {
    /// Worker threads that carry traffic. Default: the number of CPUs.
    pub threads: usize,
    /// How long a stopping process waits for requests in flight.
    pub drain_timeout: Duration,
    /// How long readiness fails before listeners close.
    pub pre_stop_delay: Duration,
    /// Where the history and the time lines of upstreams are kept over restarts; `None`: nowhere.
    pub state_file: Option<PathBuf>,
}

/// `[admin]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminConfig {
    /// Where the side port listens; on loopback unless tokens guard it.
    pub address: SocketAddr,
    /// Who may use it, in file order; empty: whoever is on this machine. A reload replaces them.
    pub tokens: Vec<TokenConfig>,
}

/// `[log]`
#[derive(Clone, Debug, PartialEq)]
pub struct LogConfig {
    /// Least severe level that is written.
    pub level: LogLevel,
    /// How the process log looks.
    pub format: LogFormat,
    /// Where one line per request goes.
    pub access: AccessLog,
    /// Which requests have a line; a reload replaces it.
    pub access_filter: AccessFilter,
}

/// `log.access_filter`
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AccessFilter {
    /// Share of the requests that have a line although nothing below asks for it, 0 to 1.
    pub sample: f32,
    /// Whether failed requests always have one: a status of 500 and above, or a reason.
    pub errors: bool,
    /// Requests that took as long always have one.
    pub slower_than: Duration,
}

/// `[tracing]`
#[derive(Clone, Debug, PartialEq)]
pub struct TracingConfig {
    /// The collector, `http://HOST:PORT` with or without a path; `/v1/traces` is added.
    pub endpoint: String,
    /// Share of the traces that begin here and are recorded, 0 to 1.
    pub sample: f32,
    /// `service.name` of the spans.
    pub service_name: String,
}

/// `log.level`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// `log.format`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum LogFormat {
    Text,
    Json,
}

/// `log.access`
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessLog {
    /// No access log.
    Off,
    /// Standard output.
    Stdout,
    /// Appended to this file.
    File(PathBuf),
}

/// `[listeners.<name>]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerConfig {
    /// The name in the file, in metrics and in logs.
    pub name: String,
    /// Where it accepts connections.
    pub address: SocketAddr,
    /// Peers whose `X-Forwarded-*` and `X-Request-Id` are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// First byte of a request to the last byte of its head.
    pub header_timeout: Duration,
    /// How long an idle client connection is kept.
    pub keepalive_timeout: Duration,
    /// Client connections at a time.
    pub max_connections: usize,
    /// Bytes of a request head, request line included.
    pub max_header_size: usize,
    /// Bytes of a request body; `None`: no limit.
    pub max_body_size: Option<u64>,
    /// Whether `trusted_proxies` begin each connection with a PROXY header.
    pub proxy_protocol: bool,
    /// Whether clients may begin with HTTP/2 in clear, without asking (prior knowledge).
    pub http2_cleartext: bool,
    /// What bounds HTTP/2 connections.
    pub http2: Http2Config,
    /// How it speaks TLS; `None`: it speaks none.
    pub tls: Option<Arc<ListenerTlsConfig>>,
}

/// `http2` of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Http2Config {
    /// Requests under way at a time on one connection.
    pub max_streams: u32,
    /// How long a client with requests under way may be silent before it is asked whether it is there.
    pub ping_interval: Duration,
}

/// `[routes.<name>]`
#[derive(Clone, Debug, PartialEq)]
pub struct RouteConfig {
    /// The name in the file, in metrics and in logs.
    pub name: String,
    /// Which requests it takes (floor 0 decides).
    pub matcher: crate::route::Matcher,
    /// Where they go: indexes into `Config::pools` with their weights; one entry for `pool = "…"`. Empty only
    /// beside `redirect_https`.
    pub split: Vec<SplitConfig>,
    /// Those that came without TLS are told to come again with it, at this port; `None`: they are not.
    pub redirect_https: Option<u16>,
    /// Request head received to response complete; `None`: no limit. Upgraded connections are exempt, and
    /// event streams from the end of the response's head on.
    pub timeout: Option<Duration>,
    /// Whether the matched `path_prefix` is cut off before forwarding.
    pub strip_prefix: bool,
    /// What is set and removed on the way to the upstream.
    pub request_headers: HeaderEdits,
    /// What is set and removed on the way to the client.
    pub response_headers: HeaderEdits,
    /// When and how often a failed attempt is repeated elsewhere.
    pub retry: crate::retry::Policy,
    /// What responses say of how they came to be.
    pub tells: RouteTells,
}

/// Header fields in which the responses of a route tell how they came to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RouteTells {
    /// `Server-Timing`: how long the upstream took, how long the client, and how long we.
    pub server_timing: bool,
    /// `X-Response-Time`: request head to response head.
    pub response_time: bool,
    /// `Proxy-Status` (RFC 9209): what came from the upstream, or why it did not.
    pub proxy_status: bool,
}

impl RouteTells {
    /// Whether there is anything to tell.
    pub const fn anything(self) -> bool {
        self.server_timing || self.response_time || self.proxy_status
    }
}

/// One entry of `split`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SplitConfig {
    /// Index into [`Config::pools`].
    pub pool: usize,
    /// Share relative to the other entries.
    pub weight: u16,
}

/// `request_headers` or `response_headers` of a route: removals first, then sets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderEdits {
    /// Replaces every value of the name.
    pub set: Vec<(HeaderName, HeaderValue)>,
    /// Removes every value of the name.
    pub remove: Vec<HeaderName>,
}

/// `[pools.<name>]`
#[derive(Clone, Debug, PartialEq)]
pub struct PoolConfig {
    /// The name in the file, in metrics and in logs.
    pub name: String,
    /// Rule of choice.
    pub strategy: crate::balance::StrategyKind,
    /// What `consistent_hash` hashes; set exactly when the strategy is that.
    pub hash: Option<HashKey>,
    /// The members, in file order.
    pub upstreams: Vec<UpstreamConfig>,
    /// What upstreams are spoken to in.
    pub protocol: UpstreamProtocol,
    /// TLS to upstreams, with what was in the files; `None`: in clear.
    pub tls: Option<Arc<UpstreamTls>>,
    /// Connect, read and write.
    pub timeouts: TimeoutsConfig,
    /// Reuse of idle connections to upstreams.
    pub keepalive: KeepaliveConfig,
    /// Length of the ramp of a new or recovered upstream; zero: off.
    pub slow_start: Duration,
    /// Judging by traffic; `None`: off.
    pub ejection: Option<crate::health::EjectionPolicy>,
    /// Waiting for room when every upstream is at its `max_connections`.
    pub queue: QueueConfig,
    /// Asking upstreams how they are; `None`: off.
    pub health_check: Option<HealthCheckConfig>,
    /// The PROXY header that each connection to an upstream begins with; `None`: none.
    pub proxy_protocol: Option<crate::proxy_header::Version>,
}

/// `hash` of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashKey {
    /// Value of this request header.
    Header(HeaderName),
    /// Value of this cookie.
    Cookie(String),
    /// The client's address (after trusted proxies).
    ClientIp,
    /// The request's path, without query.
    Path,
}

/// One member of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamConfig {
    /// Where it listens.
    pub address: UpstreamAddress,
    /// Share of the traffic relative to the others, 0 to [`limits::WEIGHT_MAX`]; 0 takes no new requests.
    pub weight: u16,
    /// Requests in flight at a time; `None`: no limit.
    pub max_connections: Option<u32>,
    /// Only when no other is eligible.
    pub backup: bool,
    /// What an operator wants of it; a file cannot say, so it comes from an override or is
    /// [`Mode::Ready`](crate::health::Mode::Ready).
    pub mode: crate::health::Mode,
}

/// `protocol` of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UpstreamProtocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2: agreed on by ALPN over TLS, by prior knowledge in clear.
    Http2,
    /// Whichever of them the upstream prefers, by ALPN; only with `tls`.
    Auto,
}

impl UpstreamProtocol {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Http1, Self::Http2, Self::Auto];

    /// The word in the file.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Http1 => "http1",
            Self::Http2 => "http2",
            Self::Auto => "auto",
        }
    }
}

/// Where an upstream listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum UpstreamAddress {
    /// `10.0.1.10:8080`, `[::1]:8080`; a host name is resolved when the file is checked.
    Tcp(SocketAddr),
    /// `unix:/run/app.sock`
    Unix(PathBuf),
}

impl std::fmt::Display for UpstreamAddress {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(formatter),
            Self::Unix(path) => write!(formatter, "unix:{}", path.display()),
        }
    }
}

/// `timeouts` of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct TimeoutsConfig {
    pub connect: Duration,
    pub read: Duration,
    pub write: Duration,
    /// Silence in both directions of an upgraded connection or an event stream.
    pub tunnel: Duration,
}

/// `keepalive` of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepaliveConfig {
    /// An idle connection to an upstream is closed after this time.
    pub idle: Duration,
    /// Idle connections kept at a time; 0: connections are not reused.
    pub max_idle: usize,
}

/// `queue` of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueConfig {
    /// Requests that may wait; 0: nobody waits.
    pub max: usize,
    /// Longest wait.
    pub timeout: Duration,
}

/// `health_check` of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheckConfig {
    /// How the upstream is asked.
    pub probe: ProbeConfig,
    /// Between probes in a steady state.
    pub interval: Duration,
    /// Between probes while the verdict is in doubt or the upstream is down.
    pub fast_interval: Duration,
    /// For the whole probe, connect to last needed byte.
    pub timeout: Duration,
    /// Successes in a row that turn down into up.
    pub rise: u32,
    /// Failures in a row that turn up into down.
    pub fall: u32,
}

/// How an upstream is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeConfig {
    /// A connection is opened and closed.
    Tcp,
    /// `GET path`; the status must be one of `status`.
    Http {
        /// Path and query of the request.
        path: String,
        /// `Host` header; `None`: the upstream's address.
        host: Option<String>,
        /// Accepted answers.
        status: Vec<u16>,
        /// Further request headers, secrets already read.
        headers: Vec<(HeaderName, HeaderValue)>,
    },
    /// `grpc.health.v1.Health/Check`; the answer must be `SERVING`.
    Grpc {
        /// The service that is asked about; empty: the server as a whole.
        service: String,
        /// `:authority` of the call; `None`: the upstream's address.
        host: Option<String>,
        /// Further metadata, secrets already read.
        headers: Vec<(HeaderName, HeaderValue)>,
    },
}
