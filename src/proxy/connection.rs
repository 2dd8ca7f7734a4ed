//! What is known about one client connection, whatever it speaks.

use std::net::SocketAddr;
use std::sync::Arc;

use http::HeaderValue;

use crate::runtime::{ConnectionGuard, Listener};

/// One socket of a client. It carries requests one after another (HTTP/1.1) or many at a time (HTTP/2); each
/// of them is an [`Exchange`](super::exchange::Exchange).
#[derive(Debug)]
pub(super) struct Connection {
    /// Who accepted it.
    pub listener: Arc<Listener>,
    /// The other end of the socket.
    pub peer: SocketAddr,
    /// The peer's address, ready to be sent as `X-Forwarded-For`.
    pub peer_header: HeaderValue,
    _counted: ConnectionGuard,
}

impl Connection {
    pub(super) fn new(peer: SocketAddr, counted: ConnectionGuard) -> Self {
        Self {
            peer,
            peer_header: HeaderValue::from_str(&peer.ip().to_canonical().to_string())
                .unwrap_or(HeaderValue::from_static("unknown")),
            listener: counted.listener().clone(),
            _counted: counted,
        }
    }
}
