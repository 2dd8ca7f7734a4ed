//! Where and how Pingora connects, for one attempt.

use std::time::Duration;

use pingora::upstreams::peer::{HttpPeer, HttpUpstreamRequestPolicy};

use super::announcing::announce;
use super::exchange::Exchange;
use crate::config::UpstreamAddress;
use crate::proxy_header::Ends;
use crate::runtime::{Pool, Upstream};

/// The peer for one attempt at `upstream`, with no wait longer than what is `left` of the request's
/// time. An upgrade request is exempt, because its connection goes on after the answer.
pub(super) fn for_upstream(
    pool: &Pool,
    upstream: &Upstream,
    left: Duration,
    exchange: &Exchange,
) -> pingora::Result<Box<HttpPeer>> {
    let is_upgrade = exchange.is_handshake();
    let mut peer = match &upstream.config.address {
        UpstreamAddress::Tcp(address) => HttpPeer::new(address, false, String::new()),
        UpstreamAddress::Unix(path) => HttpPeer::new_uds(&path.to_string_lossy(), false, String::new())?,
    };
    let timeouts = &pool.config.timeouts;
    // Pools never share connections: they may differ in what they expect of the other end.
    peer.group_key = pool.key;
    let options = &mut peer.options;
    options.connection_timeout = Some(timeouts.connect.min(left));
    options.total_connection_timeout = Some(timeouts.connect.min(left));
    // Others are timed by `deadline.rs`.
    options.read_timeout = Some(timeouts.read.min(left)).filter(|_| exchange.is_timed_by_pingora());
    options.write_timeout = if is_upgrade {
        Some(timeouts.write)
    } else {
        Some(timeouts.write.min(left)).filter(|_| !exchange.has_small_head_only())
    };
    options.idle_timeout = Some(pool.config.keepalive.idle);
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

/// Asks for a new connection rather than a kept one. Nobody finds it afterwards, so it should be closed
/// with its answer.
pub(super) const fn connect_afresh(peer: &mut HttpPeer) {
    // No connection is ever kept under this key.
    peer.group_key = !peer.group_key;
}
