//! The yardstick: the smallest proxy that Pingora can be.

use std::net::SocketAddr;

use async_trait::async_trait;
use pingora::Result;
use pingora::proxy::{ProxyHttp, Session, http_proxy_service};
use pingora::server::Server;
use pingora::server::configuration::{Opt, ServerConf};
use pingora::upstreams::peer::HttpPeer;

use super::candidate::UPSTREAM_IDLE_MAX;

struct Bare(SocketAddr);

#[async_trait]
impl ProxyHttp for Bare {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn upstream_peer(&self, _: &mut Session, (): &mut ()) -> Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(self.0, false, String::new())))
    }
}

/// Serves until it is ended from outside.
pub(crate) fn run(listen: SocketAddr, to: SocketAddr) -> Option<()> {
    let conf =
        ServerConf { threads: 1, upstream_keepalive_pool_size: UPSTREAM_IDLE_MAX, ..ServerConf::default() };
    let mut server = Server::new_with_opt_and_conf(Opt::default(), conf);
    server.bootstrap();
    let mut service = http_proxy_service(&server.configuration, Bare(to));
    service.add_tcp(&listen.to_string());
    server.add_service(service);
    server.run_forever()
}
