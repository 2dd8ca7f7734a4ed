//! From an accepted socket to the first request on it.
//!
//! ```text
//!   Pingora accepts ──► welcome ──► PROXY header? ──► TLS? ──► which protocol? ──► http1: requests one after another
//!                                                                              └──► http2: many at a time
//! ```

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use async_trait::async_trait;
use pingora::apps::{HttpServerApp, ServerApp};
use pingora::protocols::{ALPN, Stream};
use pingora::proxy::HttpProxy;
use pingora::server::ShutdownWatch;

use super::Proxy;
use super::announced;
use super::connection::Connection;
use super::http1::Conversation;
use super::http2;
use super::refusal::Early;
use super::tls::{self, NoTls};
use crate::observe::Reason;
use crate::proxy_header::Ends;
use crate::runtime::{ConnectionGuard, Listener, Runtime};

/// The application behind every listener; Pingora accepts, and calls it for each connection.
pub struct TrafficApp {
    pub(super) runtime: Arc<Runtime>,
    pub(super) proxy: Arc<HttpProxy<Proxy>>,
    /// Turns true when connections without a request are to be closed, those of HTTP/2 apart. That may be long after the shutdown begins:
    /// while a successor serves, they are left to their clients, whose next request is answered and ends them.
    /// HTTP/2 needs no such patience, it has GOAWAY.
    pub(super) idle_end: ShutdownWatch,
}

impl TrafficApp {
    /// Serves connections of `runtime`'s listeners through `proxy`; closes idle ones at `idle_end`.
    pub fn new(runtime: Arc<Runtime>, proxy: HttpProxy<Proxy>, idle_end: ShutdownWatch) -> Self {
        Self { runtime, proxy: Arc::new(proxy), idle_end }
    }

    /// Finds out what the client speaks, and speaks it until the connection ends.
    async fn welcome(
        self: Arc<Self>,
        socket: Stream,
        ends: Ends,
        counted: ConnectionGuard,
        shutdown: ShutdownWatch,
    ) {
        let announced =
            announced::client_of(socket, ends, counted.listener(), &self.runtime, &self.idle_end).await;
        let Some((socket, client)) = announced else { return };
        let (socket, tls) = match self.runtime.tls_of(counted.listener()) {
            None => (socket, None),
            // Nobody can be told anything before the handshake, and a handshake costs the most.
            Some(_) if self.is_full(counted.listener()) => {
                return self.runtime.metrics.refused(Reason::TooManyConnections);
            }
            // Boxed, so that the connection does not hold its room for as long as it lives.
            Some(config) => match Box::pin(tls::handshake(socket, config, counted.listener())).await {
                Ok((socket, tls)) => (socket, Some(tls)),
                Err(NoTls::Over) => return,
                Err(NoTls::InClear(socket)) => {
                    let connection = Arc::new(Connection::new(client, None, counted));
                    return Conversation::new(self, connection).turn_away(socket, Early::in_clear()).await;
                }
            },
        };
        let connection = Arc::new(Connection::new(client, tls, counted));
        if socket.selected_alpn_proto() == Some(ALPN::H2) {
            return http2::serve(self, socket, connection, shutdown).await;
        }
        Conversation::new(self, connection).run(socket, shutdown).await;
    }
}

impl TrafficApp {
    fn is_full(&self, listener: &Listener) -> bool {
        listener.metrics.open_connections() > self.runtime.limits_of(listener).max_connections as u64
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
        let ends = Ends { source: peer, destination: local? };
        let counted = self.runtime.listener_at(ends.destination)?.count_connection();
        // A task of its own: the one we are called in has room for a TLS handshake, about 10 KiB
        // (measured), and would hold it for as long as the connection lives.
        tokio::spawn(self.clone().welcome(socket, ends, counted, shutdown.clone()));
        None
    }

    async fn cleanup(&self) {
        self.proxy.http_cleanup().await;
    }
}
