//! What holds where the file is silent. The contract names these values; a test compares.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::balance::StrategyKind;
use crate::health::EjectionPolicy;
use crate::retry::{Conditions, Policy};

use super::{
    AccessFilter, AccessLog, AdminConfig, HealthCheckConfig, Http2Config, KeepaliveConfig, ListenerConfig,
    LogConfig, LogFormat, LogLevel, ProbeConfig, QueueConfig, ServerConfig, TimeoutsConfig,
};

/// Long enough for ordinary requests, and well below the 90 s after which systemd kills.
pub(super) const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

/// Nobody waits unless a platform needs time to notice.
pub(super) const PRE_STOP_DELAY: Duration = Duration::ZERO;

/// The side port, for this machine only.
pub(super) const ADMIN: AdminConfig =
    AdminConfig { address: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9900), tokens: Vec::new() };

/// Changes and trouble; no line per request.
pub(super) const LOG: LogConfig = LogConfig {
    level: LogLevel::Info,
    format: LogFormat::Text,
    access: AccessLog::Off,
    access_filter: ACCESS_FILTER,
};

/// A line for every request. Who asks for a sample of them wants the failed and the slow ones all the same; a second
/// is what people call slow.
pub(super) const ACCESS_FILTER: AccessFilter =
    AccessFilter { sample: 1.0, errors: true, slower_than: Duration::from_secs(1) };

/// One trace in a hundred: enough to see where time goes, and too few to cost any.
pub(super) const TRACING_SAMPLE: f32 = 0.01;

/// As what spans are filed.
pub(super) const SERVICE_NAME: &str = "evener";

/// A head that takes longer than ten seconds is an attack or a broken client.
pub(super) const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// Longer than the pauses of a person who clicks, shorter than most NAT tables.
pub(super) const CLIENT_KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(60);

/// A handshake is two or three packets each way; ten seconds are enough for a slow phone, too.
pub(super) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// At 12 KiB of memory each, about 120 MiB when all are idle.
pub(super) const MAX_CONNECTIONS: usize = 10_000;

/// Eight times what Node and nginx accept by default, so the upstream decides first.
pub(super) const MAX_HEADER_SIZE: usize = 64 * 1024;

/// Streams: the least that RFC 9113 §6.5.2 recommends. A client that is gone without a word is found within three
/// times the interval.
pub(super) const HTTP2: Http2Config =
    Http2Config { max_streams: 100, ping_interval: Duration::from_secs(30) };

/// Request head to complete response.
pub(super) const ROUTE_TIMEOUT: Duration = Duration::from_secs(60);

/// Where browsers look for https.
pub(super) const HTTPS_PORT: u16 = 443;

/// All weights are relative; without one, upstreams are equal.
pub(super) const WEIGHT: u16 = 1;

/// Turns are right until something is known about load.
pub(super) const STRATEGY: StrategyKind = StrategyKind::RoundRobin;

/// A connection is quick or it fails; an answer may take as long as a route's; a WebSocket without as much as
/// a ping for an hour has nobody at its other end.
pub(super) const TIMEOUTS: TimeoutsConfig = TimeoutsConfig {
    connect: Duration::from_secs(1),
    read: Duration::from_secs(60),
    write: Duration::from_secs(60),
    tunnel: Duration::from_secs(3600),
};

/// Idle connections to upstreams.
pub(super) const UPSTREAM_KEEPALIVE: KeepaliveConfig =
    KeepaliveConfig { idle: Duration::from_secs(60), max_idle: 512 };

/// No ramp.
pub(super) const SLOW_START: Duration = Duration::ZERO;

/// Five failures in a row are no accident; half of a pool always stays.
pub(super) const EJECTION: EjectionPolicy =
    EjectionPolicy { consecutive_failures: 5, base_duration: Duration::from_secs(10), max_ejected: 0.5 };

/// Nobody waits: a full pool says so at once.
pub(super) const QUEUE: QueueConfig = QueueConfig { max: 0, timeout: Duration::from_secs(1) };

/// Between probes in a steady state.
pub(super) const PROBE_INTERVAL: Duration = Duration::from_secs(30);

/// Between probes while in doubt or down.
pub(super) const PROBE_FAST_INTERVAL: Duration = Duration::from_secs(2);

/// For one whole probe.
pub(super) const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// Successes in a row that turn down into up.
pub(super) const PROBE_RISE: u32 = 2;

/// Failures in a row that turn up into down.
pub(super) const PROBE_FALL: u32 = 3;

/// The one answer that means healthy.
pub(super) const PROBE_STATUS: u16 = 200;

/// What is safe for any request: nothing sent, or nothing answered and the request repeatable.
pub(super) const RETRY: Policy = Policy {
    max_retries: 2,
    on: Conditions { connect_failure: true, reset: true, timeout: false, statuses: Vec::new() },
    budget: 0.2,
};

/// As many workers as the process may use CPUs (its affinity and cgroup limit count).
pub(super) fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            threads: threads(),
            drain_timeout: DRAIN_TIMEOUT,
            pre_stop_delay: PRE_STOP_DELAY,
            state_file: None,
        }
    }
}

impl Default for AdminConfig {
    fn default() -> Self {
        ADMIN
    }
}

impl Default for LogConfig {
    fn default() -> Self {
        LOG
    }
}

impl Default for HealthCheckConfig {
    fn default() -> Self {
        Self {
            probe: ProbeConfig::Tcp,
            interval: PROBE_INTERVAL,
            fast_interval: PROBE_FAST_INTERVAL,
            timeout: PROBE_TIMEOUT,
            rise: PROBE_RISE,
            fall: PROBE_FALL,
        }
    }
}

impl ListenerConfig {
    /// A listener at this address with every default.
    pub fn at(name: String, address: SocketAddr) -> Self {
        Self {
            name,
            address,
            trusted_proxies: Vec::new(),
            header_timeout: HEADER_TIMEOUT,
            keepalive_timeout: CLIENT_KEEPALIVE_TIMEOUT,
            max_connections: MAX_CONNECTIONS,
            max_header_size: MAX_HEADER_SIZE,
            max_body_size: None,
            http2_cleartext: false,
            http2: HTTP2,
            tls: None,
            proxy_protocol: false,
        }
    }
}
