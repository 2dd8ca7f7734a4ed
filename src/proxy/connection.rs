//! What is known about one client connection, whatever it speaks.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::HeaderValue;

use super::announced::Client;
use super::tls::ClientTls;
use crate::runtime::{ConnectionGuard, Listener};

/// One socket of a client. It carries requests one after another (HTTP/1.1) or many at a time (HTTP/2); each
/// of them is an [`Exchange`](super::exchange::Exchange).
#[derive(Debug)]
pub(super) struct Connection {
    /// Who accepted it.
    pub listener: Arc<Listener>,
    /// Who speaks to us: the other end of the socket, or whom a trusted proxy has announced there.
    pub peer: SocketAddr,
    /// Where the peer connected to: our end of the socket, or the announcing proxy's.
    pub local: SocketAddr,
    /// A proxy speaks for somebody whom it could not name, so that `peer` is the proxy's.
    pub is_peer_unknown: bool,
    /// The peer's address, ready to be sent as `X-Forwarded-For`.
    pub peer_header: HeaderValue,
    /// What is known of it if it is one over TLS; `None`: in clear.
    pub tls: Option<ClientTls>,
    _counted: ConnectionGuard,
}

impl Connection {
    pub(super) fn new(client: Client, tls: Option<ClientTls>, counted: ConnectionGuard) -> Self {
        let peer = client.ends.source;
        Self {
            peer,
            local: client.ends.destination,
            is_peer_unknown: client.is_unknown,
            peer_header: HeaderValue::from_str(&peer.ip().to_canonical().to_string())
                .unwrap_or(HeaderValue::from_static("unknown")),
            tls,
            listener: counted.listener().clone(),
            _counted: counted,
        }
    }

    /// Whom it is from: one of IPv4 is that, also at a listener that hears both families.
    pub(super) fn peer_ip(&self) -> IpAddr {
        self.peer.ip().to_canonical()
    }
}
