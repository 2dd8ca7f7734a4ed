//! An accepting socket and the connections it has open.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::UpstreamState;
use crate::config::ListenerConfig;
use crate::observe::ListenerMetrics;

/// One listener; lives as long as the process.
#[derive(Debug)]
pub struct Listener {
    /// The name in the configuration.
    pub name: String,
    /// Where it accepts.
    pub address: SocketAddr,
    /// Its place in `Config::listeners`, in every generation.
    pub index: usize,
    /// Counters.
    pub metrics: ListenerMetrics,
}

/// What bounds a connection before its request has a snapshot.
#[derive(Clone, Copy, Debug)]
pub struct ListenerLimits {
    /// First byte of a request to the end of its head.
    pub header_timeout: Duration,
    /// How long a connection may idle.
    pub keepalive_timeout: Duration,
    /// Connections at a time.
    pub max_connections: usize,
    /// Bytes of a head.
    pub max_header_size: usize,
    /// Whether HTTP/2 in clear is understood.
    pub http2_cleartext: bool,
    /// Requests under way at a time on one HTTP/2 connection.
    pub http2_streams: u32,
    /// How long an HTTP/2 client with requests under way may be silent.
    pub http2_ping_interval: Duration,
}

impl ListenerLimits {
    /// Lets nothing through; for a listener that no configuration knows, which cannot be.
    pub const NONE: Self = Self {
        header_timeout: Duration::ZERO,
        keepalive_timeout: Duration::ZERO,
        max_connections: 0,
        max_header_size: 0,
        http2_cleartext: false,
        http2_streams: 0,
        http2_ping_interval: Duration::ZERO,
    };

    /// The limits among a listener's settings.
    pub const fn of(config: &ListenerConfig) -> Self {
        Self {
            header_timeout: config.header_timeout,
            keepalive_timeout: config.keepalive_timeout,
            max_connections: config.max_connections,
            max_header_size: config.max_header_size,
            http2_cleartext: config.http2_cleartext,
            http2_streams: config.http2.max_streams,
            http2_ping_interval: config.http2.ping_interval,
        }
    }
}

impl Listener {
    pub(super) fn new(config: &ListenerConfig, index: usize) -> Self {
        let (name, address) = (config.name.clone(), config.address);
        Self { name, address, index, metrics: ListenerMetrics::default() }
    }

    /// Counts one connection until the guard drops.
    pub fn count_connection(self: &Arc<Self>) -> ConnectionGuard {
        self.metrics.connection_opened();
        ConnectionGuard { listener: self.clone() }
    }
}

/// One open connection; gives the count back when dropped, however the connection ends.
#[derive(Debug)]
pub struct ConnectionGuard {
    listener: Arc<Listener>,
}

impl ConnectionGuard {
    /// Who accepted the connection.
    pub fn listener(&self) -> &Arc<Listener> {
        &self.listener
    }
}

/// One upgraded connection; gives the count back when dropped, however it ends.
pub struct UpgradedGuard {
    listener: Arc<Listener>,
    upstream: Arc<UpstreamState>,
}

impl UpgradedGuard {
    /// Counts one more at both.
    pub fn new(listener: &Arc<Listener>, upstream: &Arc<UpstreamState>) -> Self {
        listener.metrics.connection_upgraded();
        upstream.metrics.connection_upgraded();
        Self { listener: listener.clone(), upstream: upstream.clone() }
    }
}

impl Drop for UpgradedGuard {
    fn drop(&mut self) {
        self.listener.metrics.upgraded_closed();
        self.upstream.metrics.upgraded_closed();
    }
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.listener.metrics.connection_closed();
    }
}
