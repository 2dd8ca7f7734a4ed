//! Where and how Pingora connects, for one attempt or for a health check.

use std::sync::Arc;
use std::time::Duration;

use pingora::protocols::tls::CaType;
use pingora::upstreams::peer::{HttpPeer, HttpUpstreamRequestPolicy, PeerOptions};
use pingora::utils::tls::{CertKey, WrappedX509, parse_x509};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use super::announcing::{announce, announce_own};
use super::exchange::Exchange;
use crate::config::{PoolConfig, UpstreamAddress, UpstreamProtocol, UpstreamTls};
use crate::proxy_header::Ends;
use crate::runtime::{Pool, Upstream};

/// The peer for one attempt at `upstream`, with no wait longer than what is `left` of the request's
/// time. An upgrade request is exempt, because its connection goes on after the answer.
pub(super) fn for_upstream(
    pool: &Pool,
    upstream: &Upstream,
    left: Duration,
    exchange: &Exchange,
    is_grpc: bool,
) -> pingora::Result<Box<HttpPeer>> {
    let is_upgrade = exchange.is_handshake();
    let mut peer = peer_of(pool, upstream)?;
    if is_upgrade && pool.config.protocol == UpstreamProtocol::Auto {
        // Upgrades are HTTP/1.1's.
        peer.options.set_http_version(1, 1);
    }
    let timeouts = &pool.config.timeouts;
    let options = &mut peer.options;
    options.connection_timeout = Some(timeouts.connect.min(left));
    options.total_connection_timeout = Some(timeouts.connect.min(left));
    // Others are timed by `deadline.rs`. A gRPC stream may have nothing to say for long, before its first message, too.
    let patience = if is_grpc { timeouts.tunnel } else { timeouts.read };
    options.read_timeout = Some(patience.min(left)).filter(|_| exchange.is_timed_by_pingora());
    options.write_timeout = if is_upgrade {
        Some(timeouts.write)
    } else {
        Some(timeouts.write.min(left)).filter(|_| !exchange.has_small_head_only())
    };
    // HTTP/1.1 connections that are not to be kept are told so in their requests.
    let keeps_none = pool.config.keepalive.max_idle == 0;
    options.idle_timeout = Some(if keeps_none { AT_ONCE } else { pool.config.keepalive.idle });
    if exchange.is_end_to_end() {
        // Nothing to strip, so Pingora need not look for it: ten names, in two maps.
        options.http_upstream_request_policy = HttpUpstreamRequestPolicy::preserve();
    }
    if let Some(version) = pool.config.proxy_protocol {
        let client = &exchange.connection;
        announce(version, &Ends { source: client.peer, destination: client.local }, &mut peer);
    }
    Ok(Box::new(peer))
}

/// The peer for one health check, with no wait longer than `timeout`. It gets a connection of its own, and
/// nobody else gets that: a kept one would not notice that nobody accepts any more.
///
/// # Errors
///
/// The path of a Unix socket cannot be one.
pub fn for_probe(pool: &Pool, upstream: &Upstream, timeout: Duration) -> pingora::Result<Box<HttpPeer>> {
    let mut peer = peer_of(pool, upstream)?;
    let options = &mut peer.options;
    options.connection_timeout = Some(timeout);
    options.total_connection_timeout = Some(timeout);
    options.read_timeout = Some(timeout);
    options.write_timeout = Some(timeout);
    options.max_h2_streams = 1;
    if let Some(version) = pool.config.proxy_protocol {
        announce_own(version, &mut peer);
    }
    Ok(Box::new(peer))
}

/// Asks for a new connection rather than a kept one. Nobody finds it afterwards, so it should be closed
/// with its answer.
///
/// Only where HTTP/1.1 may be spoken: a shared HTTP/2 connection that has broken is never found again.
pub(super) fn connect_afresh(peer: &mut HttpPeer, pool: &Pool) {
    if pool.config.protocol == UpstreamProtocol::Http2 {
        return;
    }
    // No connection is kept under this key: HTTP/1.1 is told to close it, HTTP/2 does so by itself.
    peer.group_key = !peer.group_key;
    peer.options.max_h2_streams = 1;
    if pool.config.protocol == UpstreamProtocol::Auto {
        peer.options.idle_timeout = Some(AT_ONCE);
    }
}

/// What is the same for every connection to `upstream`: address, trust, protocol.
fn peer_of(pool: &Pool, upstream: &Upstream) -> pingora::Result<HttpPeer> {
    let (config, tls) = (&pool.config, pool.config.tls.as_deref());
    let address = &upstream.config.address;
    let name = tls.map_or_else(String::new, |tls| name_of(tls, address));
    let mut peer = match address {
        UpstreamAddress::Tcp(address) => HttpPeer::new(address, tls.is_some(), name),
        UpstreamAddress::Unix(path) => HttpPeer::new_uds(&path.to_string_lossy(), tls.is_some(), name)?,
    };
    // Pools never share connections: they may differ in what they expect of the other end.
    peer.group_key = pool.key;
    if let Some(tls) = tls {
        secure(&mut peer, tls, pool);
    }
    match config.protocol {
        UpstreamProtocol::Http1 => {}
        UpstreamProtocol::Http2 => share_connections(&mut peer.options, 2, config),
        // Pingora remembers a demand for HTTP/1.1 as well, for new connections; the old ones it shares on.
        UpstreamProtocol::Auto if upstream.state.demands_http1(pool.key) => {}
        UpstreamProtocol::Auto => share_connections(&mut peer.options, 1, config),
    }
    Ok(peer)
}

/// The name that is asked for. Pingora needs one, and with an empty one it would believe any certificate; so
/// without verification it is the address, which is not sent.
fn name_of(tls: &UpstreamTls, address: &UpstreamAddress) -> String {
    match (&tls.server_name, address) {
        (Some(name), _) => name.clone(),
        (None, UpstreamAddress::Tcp(address)) => address.ip().to_string(),
        (None, UpstreamAddress::Unix(_)) => "localhost".to_owned(),
    }
}

fn secure(peer: &mut HttpPeer, tls: &UpstreamTls, pool: &Pool) {
    peer.options.verify_cert = tls.verify;
    peer.options.verify_hostname = tls.verify;
    let Some(material) = pool.kept(|| Material::of(tls)) else { return };
    peer.options.ca.clone_from(&material.ca);
    peer.client_cert_key.clone_from(&material.client);
}

/// HTTP/2, or no less than `least`.
fn share_connections(options: &mut PeerOptions, least: u8, config: &PoolConfig) {
    options.set_http_version(2, least);
    options.max_h2_streams = STREAMS_PER_CONNECTION;
    options.h2_stream_window_size = Some(STREAM_WINDOW_BYTES);
    options.h2_connection_window_size = Some(CONNECTION_WINDOW_BYTES);
    options.h2_ping_interval = Some(ping_interval(config.timeouts.read));
}

/// Between two pings of a shared connection. Whoever does not answer one within five seconds (Pingora's
/// number) is dead, which is so noticed before the requests under way would give up.
///
/// Not more often: the servers of gRPC's own libraries hang up on whoever sends more than three pings within
/// minutes while they have nothing to say. At a third of the read timeout, a silent stream has ended by
/// itself before the fourth.
fn ping_interval(read: Duration) -> Duration {
    (read / 3).max(PING_INTERVAL_MIN)
}

/// What Pingora wants of the files of a pool, parsed once.
struct Material {
    ca: Option<Arc<CaType>>,
    client: Option<Arc<CertKey>>,
}

impl Material {
    fn of(tls: &UpstreamTls) -> Self {
        // Pingora makes a verifier even where nothing is verified, and fails if it knows no CA at all.
        let ca = if tls.verify { tls.ca.as_ref().map(|ca| ca.ders.clone()) } else { Some(nobody()) };
        let client = tls.client.as_ref().map(|client| {
            let chain = client.chain.ders.iter().map(|der| der.to_vec()).collect();
            Arc::new(CertKey::new(chain, client.key.secret_der().to_vec()))
        });
        let wrap = |der: CertificateDer<'static>| WrappedX509::new(der.to_vec(), parse_x509);
        Self { ca: ca.map(|ca| ca.into_iter().map(wrap).collect()), client }
    }
}

/// Stands for a CA where none is asked. Its key was thrown away, and it expired a day later.
fn nobody() -> Vec<CertificateDer<'static>> {
    CertificateDer::from_pem_slice(include_bytes!("nobody.pem")).into_iter().collect()
}

/// Requests that share one connection: as many as nginx takes by default; other servers take a hundred, or
/// any number. A server that takes fewer says so, and is obeyed.
const STREAMS_PER_CONNECTION: usize = 128;

/// What an upstream may send ahead of a client that does not read: the memory of one request. It lets through
/// 256 MiB/s at a round trip of 2 ms. Pingora's 8 MiB would let a thousand such clients take 8 GiB.
const STREAM_WINDOW_BYTES: u32 = 512 * 1024;

/// Room for every stream of a connection, so that clients that do not read never hold up the others that
/// share it. With both windows alike, as Pingora has them, a single one would.
const CONNECTION_WINDOW_BYTES: u32 = 128 * STREAM_WINDOW_BYTES;

/// Below, pings are a load of their own.
const PING_INTERVAL_MIN: Duration = Duration::from_secs(1);

/// Zero would mean never.
const AT_ONCE: Duration = Duration::from_millis(1);
