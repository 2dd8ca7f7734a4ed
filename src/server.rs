//! Puts everything together and runs it on Pingora's server.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use pingora::listeners::{L4BufferSettings, ListenerConfig};
use pingora::proxy::http_proxy;
use pingora::server::configuration::{Opt, ServerConf};
use pingora::server::{RunArgs, Server, ShutdownWatch};
use pingora::services::background::{BackgroundService, background_service};
use pingora::services::listening::Service;
use tokio::sync::watch;

use crate::admin::SidePort;
use crate::balance::TICK;
use crate::config::limits::DURATION_MAX;
use crate::config::{Config, has_system_roots};
use crate::control::{self, Control, Start};
use crate::descriptors;
use crate::observe::history::STEP;
use crate::observe::{AccessLog, SAMPLE};
use crate::otlp::Exporter;
use crate::probe::Prober;
use crate::proxy::{Proxy, TrafficApp, check_head, for_probe};
use crate::retry::ATTEMPTS_MAX;
use crate::runtime::{Listener, Phase, Runtime};
use crate::signals::Signals;
use crate::upgrade::{self, Entrance, Predecessor, SocketTable, Sockets};

/// An address that we cannot listen on.
#[derive(Debug)]
pub struct CannotBind {
    address: SocketAddr,
    error: io::Error,
}

impl std::fmt::Display for CannotBind {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { address, error } = self;
        write!(formatter, "cannot listen on {address}: {error}")?;
        match error.kind() {
            io::ErrorKind::AddrInUse => match who_listens_on(address.port()) {
                Some(holder) => write!(formatter, "\n  = help: {holder} listens there; stop it, or choose another address"),
                None => write!(
                    formatter,
                    "\n  = help: another process listens there (`ss -ltnp 'sport = :{}'` shows which); stop it, or choose another address",
                    address.port()
                ),
            },
            io::ErrorKind::PermissionDenied => formatter.write_str(
                "\n  = help: ports below 1024 need the right to bind them: run as root, or grant CAP_NET_BIND_SERVICE",
            ),
            io::ErrorKind::AddrNotAvailable => {
                formatter.write_str("\n  = help: no interface of this machine has this address")
            }
            _ => Ok(()),
        }
    }
}

/// Runs until a signal ends it. `follows_file`: whatever is saved to the configuration file runs. `predecessor`:
/// who serves until we can.
///
/// # Errors
///
/// An address is taken or may not be bound.
pub fn run(
    start: Start,
    access_log: Option<AccessLog>,
    follows_file: bool,
    mut predecessor: Option<Predecessor>,
) -> Result<(), CannotBind> {
    let config = start.config.clone();
    let addresses: Vec<SocketAddr> =
        config.listeners.iter().map(|listener| listener.address).chain([config.admin.address]).collect();
    let sockets = predecessor.as_mut().map(|predecessor| Sockets::take_over(predecessor, &addresses));
    let sockets = sockets.transpose().map_err(|(address, error)| CannotBind { address, error })?;
    if sockets.is_none() {
        addresses.into_iter().try_for_each(can_bind)?;
    }
    die_when_a_listener_fails();
    look_at_the_limit_of_descriptors(&config);
    let conf = server_conf(&config);
    let mut server = Server::new_with_opt_and_conf(Opt::default(), conf);
    server.bootstrap();

    let runtime = Arc::new(runtime(config, start.generation, access_log, predecessor.as_mut()));
    let control = Arc::new(Control::new(runtime.clone(), start));
    let (table, (idle_ends, idle_end)) = (SocketTable::default(), watch::channel(false));
    let entrance = Entrance::new(control.clone(), table.clone(), predecessor.zip(sockets));
    let entrance = server.add_service(entrance);
    for listens in [
        server.add_service(traffic(&server, &runtime, idle_end)),
        server.add_service(SidePort::new(control.clone(), check_head)),
        server.add_service(background_service("listening", Greeter(runtime.clone()))),
    ] {
        listens.add_dependency(&entrance);
    }
    server.add_service(background_service("health checks", Prober::new(control.clone(), for_probe)));
    server.add_service(background_service("learning", Learner(runtime.clone(), control.clone())));
    server.add_service(background_service("state", StateKeeper(control.clone())));
    server.add_service(background_service("certificates", ExpiryTeller(runtime.clone())));
    server.add_service(background_service("spans", Exporter::new(runtime.clone())));
    if follows_file && control::may_follow_file(&control) {
        server.add_service(background_service("file watch", FileFollower(control.clone())));
    }
    server.run(RunArgs { shutdown_signal: Box::new(Signals::new(control, table, idle_ends)) });
    runtime.flush_access_log();
    runtime.spans.flush();
    Ok(())
}

/// Tells when the system allows fewer descriptors than the connections that the file allows need.
fn look_at_the_limit_of_descriptors(config: &Config) {
    let limit = descriptors::raise_limit();
    let connections: usize = config.listeners.iter().map(|listener| listener.max_connections).sum();
    // One to the client, and one to an upstream.
    let needed = connections.saturating_mul(2);
    if limit < needed as u64 {
        tracing::warn!(
            limit,
            needed,
            "fewer file descriptors than max_connections may need; raise the limit (LimitNOFILE, `ulimit -Hn`) or lower max_connections"
        );
    }
}

/// What runs first; where a predecessor runs it, with what that learned and counted.
fn runtime(
    config: Config,
    generation: u64,
    access_log: Option<AccessLog>,
    predecessor: Option<&mut Predecessor>,
) -> Runtime {
    let random = fastrand::u64(..);
    let Some(predecessor) = predecessor else { return Runtime::new(config, generation, random, access_log) };
    let runtime = Runtime::since(predecessor.epoch(), config, generation, random, access_log);
    let history = predecessor.take_history();
    if runtime.inherit(predecessor.take_legacy(), &history) {
        runtime.readiness.set_probed();
    }
    runtime
}

fn traffic(server: &Server, runtime: &Arc<Runtime>, idle_end: watch::Receiver<bool>) -> Service<TrafficApp> {
    let proxy = http_proxy(&server.configuration, Proxy::new(runtime.clone()));
    let mut service = Service::new("traffic".to_owned(), TrafficApp::new(runtime.clone(), proxy, idle_end));
    for listener in runtime.listeners() {
        // Reads go straight into the buffer of whoever parses, so idle connections have none.
        let buffers = L4BufferSettings::default().read(0);
        service.add_listener(ListenerConfig::tcp(listener.address.to_string()).l4_buffer(buffers));
    }
    service
}

fn server_conf(config: &Config) -> ServerConf {
    let idle: usize = config.pools.iter().map(|pool| pool.keepalive.max_idle).sum();
    ServerConf {
        threads: config.server.threads,
        // Nobody can steal from a single thread, and a scheduler that need not expect it is cheaper.
        work_stealing: config.server.threads > 1,
        // Pingora multiplies this by the number of threads.
        upstream_keepalive_pool_size: idle.div_ceil(config.server.threads.max(1)).max(1),
        // Attempts, the first one included, never 0: each request's `retry` decides within it.
        max_retries: ATTEMPTS_MAX as usize,
        ca_file: ca_file(),
        // `signals.rs` ends the process in time; this is only the net below it. Pingora takes it once, at the
        // start, so it has to do for every `drain_timeout` that a reload may bring.
        grace_period_seconds: Some(DURATION_MAX.as_secs() + 5),
        graceful_shutdown_timeout_seconds: Some(1),
        ..ServerConf::default()
    }
}

/// Where Pingora finds whom it trusts by default; `None`: where this machine keeps it.
///
/// It takes that in hand at the start, whether or not anybody needs it, and panics at a certificate that it
/// cannot read. A machine without any is a good one, too: pools may name their own CA.
fn ca_file() -> Option<String> {
    (!has_system_roots()).then(|| "/dev/null".to_owned())
}

/// Folds what was measured into what the strategies go by, remembers the last five minutes, and clears away
/// what is not needed any more.
struct Learner(Arc<Runtime>, Arc<Control>);

#[async_trait]
impl BackgroundService for Learner {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut sample = tokio::time::interval(SAMPLE);
        sample.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        self.0.take_down_history(SystemTime::now());
        let mut step_ends = tokio::time::Instant::now() + until_next_step();
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(step_ends) => {
                    self.0.take_down_history(SystemTime::now());
                    step_ends = tokio::time::Instant::now() + until_next_step();
                }
                _ = sample.tick() => {
                    self.0.snapshot().sample(self.0.now());
                    self.1.judge_upstreams();
                    give_memory_back();
                }
                _ = tick.tick() => {
                    for pool in self.0.snapshot().pools() {
                        pool.tick(self.0.now());
                    }
                    self.1.tell_of_ejections();
                    self.0.read_clocks();
                    self.0.look();
                    self.0.free_retired();
                }
                _ = shutdown.wait_for(|is_stopping| *is_stopping) => return,
            }
        }
    }
}

/// How long until a step of the history is over, by the wall clock, so that its points are those of whole steps.
fn until_next_step() -> Duration {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let passed = since_1970.as_millis() % STEP.as_millis();
    // A moment later, for a timer may be early by the wall clock.
    STEP.saturating_sub(Duration::from_millis(u64::try_from(passed).unwrap_or(0))) + STEP_MARGIN
}

const STEP_MARGIN: Duration = Duration::from_millis(5);

/// Keeps what outlives the process in its file.
struct StateKeeper(Arc<Control>);

#[async_trait]
impl BackgroundService for StateKeeper {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let keep = async {
            while let Some(pause) = self.0.state_is_due_in() {
                tokio::time::sleep(pause).await;
                let control = self.0.clone();
                // A panic in there is in the log, and the next time is another chance.
                let _ = tokio::task::spawn_blocking(move || control.save_state(false)).await;
            }
        };
        tokio::select! {
            () = keep => {}
            // Whoever ends the process writes it once more.
            _ = shutdown.wait_for(|is_stopping| *is_stopping) => {}
        }
    }
}

/// Lets the allocator give back what was freed a while ago.
///
/// mimalloc does so when somebody frees a page of it. Who has just become quiet frees none, and would keep
/// what its busiest moment took. So one is taken, not touched, and freed.
fn give_memory_back() {
    drop(std::hint::black_box(Vec::<u8>::with_capacity(PAGE_OF_ITS_OWN_BYTES)));
}

/// More than 512 KiB, up to which several blocks share a page of mimalloc.
const PAGE_OF_ITS_OWN_BYTES: usize = 1024 * 1024;

/// Applies what is saved to the configuration file.
struct FileFollower(Arc<Control>);

#[async_trait]
impl BackgroundService for FileFollower {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        tokio::select! {
            () = control::follow_file(self.0.clone()) => {}
            _ = shutdown.wait_for(|is_stopping| *is_stopping) => {}
        }
    }
}

/// Tells of certificates that end soon.
struct ExpiryTeller(Arc<Runtime>);

#[async_trait]
impl BackgroundService for ExpiryTeller {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        tokio::select! {
            () = control::tell_of_expiry(self.0.clone()) => {}
            _ = shutdown.wait_for(|is_stopping| *is_stopping) => {}
        }
    }
}

/// Tells that traffic is welcome once every listener accepts: Pingora binds somewhere in between, and
/// tells nobody. That somebody accepts is not enough: a predecessor does, on the same sockets.
struct Greeter(Arc<Runtime>);

#[async_trait]
impl BackgroundService for Greeter {
    async fn start(&self, _: ShutdownWatch) {
        for listener in self.0.listeners() {
            let accepted = listener.metrics.accepted();
            while !greet(listener, accepted).await {}
        }
        self.0.readiness.set_listening();
        while self.0.readiness.phase() == Phase::Starting {
            tokio::time::sleep(GREETING_PAUSE).await;
        }
        upgrade::notify(&format!("READY=1\nMAINPID={}", std::process::id()));
    }
}

/// Connects, and looks for a moment whether it was us who accepted.
async fn greet(listener: &Listener, accepted_before: u64) -> bool {
    let _connection = tokio::net::TcpStream::connect(reachable(listener.address)).await;
    for _ in 0..GREETING_LOOKS {
        if listener.metrics.accepted() > accepted_before {
            return true;
        }
        tokio::time::sleep(GREETING_PAUSE).await;
    }
    false
}

/// How to reach a listener from here: one that listens everywhere listens on loopback too.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}

/// How long to wait before trying once more whether a listener accepts.
const GREETING_PAUSE: Duration = Duration::from_millis(2);

/// How often to look before trying once more: on a busy machine a thread may wait that long for its turn.
const GREETING_LOOKS: u32 = 10;

/// Pingora would try a taken address for 30 seconds and then live on without it.
fn can_bind(address: SocketAddr) -> Result<(), CannotBind> {
    TcpListener::bind(address).map(drop).map_err(|error| CannotBind { address, error })
}

/// Pingora panics in a task when an address is lost between our check and its bind; a process that
/// then lives on without its listener is worse than one that ends.
fn die_when_a_listener_fails() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        let message = panic.payload_as_str().unwrap_or_default();
        if message.contains("Failed to build listeners") {
            std::process::exit(i32::from(crate::cli::EXIT_CANNOT_BIND));
        }
    }));
}

/// The process that listens on a TCP port, as `name (pid N)`, if we may see it.
fn who_listens_on(port: u16) -> Option<String> {
    let inode = ["/proc/net/tcp", "/proc/net/tcp6"].iter().find_map(|table| listening_inode(table, port))?;
    let socket = format!("socket:[{inode}]");
    let process = fs::read_dir("/proc").ok()?.flatten().find(|entry| {
        let descriptors = fs::read_dir(entry.path().join("fd"));
        descriptors.is_ok_and(|descriptors| {
            descriptors.flatten().any(|descriptor| {
                fs::read_link(descriptor.path()).is_ok_and(|target| target.as_os_str() == socket.as_str())
            })
        })
    })?;
    let name = fs::read_to_string(process.path().join("comm")).ok()?;
    Some(format!("{} (pid {})", name.trim(), process.file_name().to_string_lossy()))
}

/// The inode of the socket that listens on `port`, from a table as in proc(5).
fn listening_inode(table: &str, port: u16) -> Option<String> {
    const LISTEN: &str = "0A";
    let port = format!(":{port:04X}");
    fs::read_to_string(table).ok()?.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let is_it = fields.get(1)?.ends_with(&port) && *fields.get(3)? == LISTEN;
        is_it.then(|| fields.get(9).map(|inode| (*inode).to_owned())).flatten()
    })
}

/// How long after the last request a draining process looks again.
pub(crate) const DRAIN_POLL: Duration = Duration::from_millis(10);

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::config::{Source, parse};

    /// It is fixed when the process starts, and `drain_timeout` is not.
    #[test]
    fn pingora_does_not_end_a_drain_that_a_reload_made_longer() {
        let text = "[server]\ndrain_timeout = \"1s\"\n[listeners.http]\naddress = \"127.0.0.1:8080\"\n[pools.app]\nupstreams = []\n";
        let source = Source { name: String::new(), text: text.to_owned(), folder: ".".into() };
        let conf = server_conf(&parse(&source, &|_| None).unwrap());
        assert!(conf.grace_period_seconds > Some(DURATION_MAX.as_secs()));
    }
}
