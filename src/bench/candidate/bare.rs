//! The yardstick: the smallest proxy that Pingora can be, built and linked as we are, in front of one server.

use std::net::SocketAddr;
use std::process::Command;

use async_trait::async_trait;
use pingora::Result;
use pingora::modules::http::HttpModules;
use pingora::proxy::{ProxyHttp, Session, http_proxy_service};
use pingora::server::configuration::{Opt, ServerConf};
use pingora::server::{RunArgs, Server};
use pingora::upstreams::peer::HttpPeer;

use super::plan::Plan;

/// The hidden subcommand that plays it.
const SUBCOMMAND: &str = "bench-bare";

/// Idle connections kept to the server, per thread; more than any load opens.
const IDLE_MAX: usize = 16_384;

struct Bare(SocketAddr);

#[async_trait]
impl ProxyHttp for Bare {
    type CTX = ();

    fn new_ctx(&self) {}

    /// None, as in ours: Pingora's own would cost every request an allocation.
    fn init_downstream_modules(&self, _: &mut HttpModules) {}

    async fn upstream_peer(&self, _: &mut Session, (): &mut ()) -> Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(self.0, false, String::new())))
    }
}

/// Takes requests at `listen` and hands them to `to`, until a signal ends it. It does nothing else: no route,
/// no choice, no header, no metric, no health check. What ours asks of Pingora and of the kernel to be cheap, it asks, too.
pub fn play_bare(listen: SocketAddr, to: SocketAddr, threads: usize) {
    #[cfg(target_os = "linux")]
    let _ = nix::sys::prctl::set_thp_disable(true);
    let conf = ServerConf {
        threads,
        // As ours: one thread has nobody to steal from.
        work_stealing: threads > 1,
        upstream_keepalive_pool_size: IDLE_MAX,
        // Whoever ends it waits for nothing any more.
        grace_period_seconds: Some(0),
        graceful_shutdown_timeout_seconds: Some(0),
        ..ServerConf::default()
    };
    let mut server = Server::new_with_opt_and_conf(Opt::default(), conf);
    server.bootstrap();
    let mut service = http_proxy_service(&server.configuration, Bare(to));
    service.add_tcp(&listen.to_string());
    server.add_service(service);
    server.run(RunArgs::default());
}

pub(super) fn command(plan: &Plan) -> Command {
    let to = plan.servers.first().copied().unwrap_or(plan.listen);
    let mut command = Command::new(&plan.program);
    command.arg(SUBCOMMAND).args([plan.listen, to].map(|address| address.to_string()));
    command.arg(plan.threads.to_string());
    command
}
