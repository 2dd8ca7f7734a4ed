//! From an accepted socket to the first request on it.
//!
//! ```text
//!   Pingora accepts ──► welcome ──► which protocol? ──► http1: requests one after another
//!                                                  └──► http2: many at a time
//! ```

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use async_trait::async_trait;
use pingora::apps::{HttpServerApp, ServerApp};
use pingora::protocols::{ALPN, Stream};
use pingora::proxy::HttpProxy;
use pingora::server::ShutdownWatch;

use super::Proxy;
use super::connection::Connection;
use super::http1::Conversation;
use super::http2;
use crate::observe::Reason;
use crate::runtime::{ConnectionGuard, Runtime};

/// The application behind every listener; Pingora accepts, and calls it for each connection.
pub struct TrafficApp {
    pub(super) runtime: Arc<Runtime>,
    pub(super) proxy: Arc<HttpProxy<Proxy>>,
}

impl TrafficApp {
    /// Serves connections of `runtime`'s listeners through `proxy`.
    pub fn new(runtime: Arc<Runtime>, proxy: HttpProxy<Proxy>) -> Self {
        Self { runtime, proxy: Arc::new(proxy) }
    }

    /// Finds out what the client speaks, and speaks it until the connection ends.
    async fn welcome(
        self: Arc<Self>,
        socket: Stream,
        peer: SocketAddr,
        counted: ConnectionGuard,
        shutdown: ShutdownWatch,
    ) {
        let connection = Arc::new(Connection::new(peer, counted));
        if socket.selected_alpn_proto() == Some(ALPN::H2) {
            let open = connection.listener.metrics.open_connections();
            if open > self.runtime.limits_of(&connection.listener).max_connections as u64 {
                return http2::turn_away(Reason::TooManyConnections, &connection, &self.runtime);
            }
            return http2::serve(self, socket, connection, shutdown).await;
        }
        Conversation::new(self, connection).run(socket, shutdown).await;
    }
}

#[async_trait]
impl ServerApp for TrafficApp {
    async fn process_new(self: &Arc<Self>, socket: Stream, shutdown: &ShutdownWatch) -> Option<Stream> {
        let digest = socket.get_socket_digest();
        let address = |address: Option<&pingora::protocols::l4::socket::SocketAddr>| {
            address.and_then(|address| address.as_inet().copied())
        };
        let local = address(digest.as_ref().and_then(|digest| digest.local_addr()));
        // Both are unknown only when the client is gone already.
        let peer = address(digest.as_ref().and_then(|digest| digest.peer_addr()))
            .unwrap_or_else(|| SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0));
        let counted = self.runtime.listener_at(local?)?.count_connection();
        // A task of its own: the one we are called in has room for a TLS handshake, about 10 KiB
        // (measured), and would hold it for as long as the connection lives.
        tokio::spawn(self.clone().welcome(socket, peer, counted, shutdown.clone()));
        None
    }

    async fn cleanup(&self) {
        self.proxy.http_cleanup().await;
    }
}
