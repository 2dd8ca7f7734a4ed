//! The health-check door: asks upstreams how they are.
//!
//! ```text
//!   Prober ── follows the snapshot ──► one task per checked upstream ──► probe ──► Verdict
//!      ▲                                      └── sleeps: interval, or fast_interval in doubt
//!      └── Control::probe_now
//! ```
//!
//! The first round goes out at once; when all its answers are in, the process is ready. **To add a
//! kind of probe**: write its file after the pattern of `tcp.rs`, add a variant to
//! [`ProbeConfig`], and follow the compiler to the match in `Asker::ask`.

mod grpc;
mod http;
mod question;
mod tcp;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;
use pingora::connectors::ConnectorOptions;
use pingora::connectors::http::Connector;
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;
use pingora::upstreams::peer::HttpPeer;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;

use crate::config::{HealthCheckConfig, ProbeConfig, has_system_roots};
use crate::control::{Control, Happening, ProbeNow};
use crate::health::{Health, Mode, Transition, next_probe_in};
use crate::observe::timeline::{Entry, Moment, Track};
use crate::proxy_header::Version;
use crate::runtime::{LastCheck, Pool, Readmission, Runtime, Snapshot, Upstream, UpstreamState};
use question::Call;

/// Probes under way at a time: enough for a first round of thousands, few enough not to use up the
/// process's file descriptors (the usual limit is 1 024).
const PROBES_MAX: usize = 256;

/// How requests reach an upstream of a pool, with a limit on every wait: health checks go the same way.
pub type Dial = fn(&Pool, &Upstream, Duration) -> pingora::Result<Box<HttpPeer>>;

/// Asks every upstream whose pool has a health check, for as long as the process runs.
pub struct Prober {
    control: Arc<Control>,
    asker: Arc<Asker>,
    dial: Dial,
}

/// What every probe needs.
struct Asker {
    control: Arc<Control>,
    runtime: Arc<Runtime>,
    connector: Connector<()>,
    permits: Semaphore,
}

/// What came of one probe.
enum Answer {
    Well,
    Sick(String),
    /// We could not ask: out of descriptors or ports.
    NotAsked(String),
}

/// Whom to ask, how, and what to do with the answer.
struct Subject {
    state: Arc<UpstreamState>,
    peer: Box<HttpPeer>,
    check: Arc<HealthCheckConfig>,
    /// The PROXY header that connections begin with.
    proxy_protocol: Option<Version>,
    /// Whether the pool lets whoever comes up start slowly.
    starts_slowly: bool,
    /// What [`UpstreamState::times_forgotten`] was.
    forgotten: u32,
    /// Nobody wants to know any more; the probe under way is the last one.
    is_left: AtomicBool,
}

/// The probing of one upstream; ends when dropped.
struct Watch {
    subject: Arc<Subject>,
    task: JoinHandle<()>,
}

impl Drop for Watch {
    /// Requests on an older snapshot may wait for the first answer of an upstream that is gone by now, so
    /// that probe is still made.
    fn drop(&mut self) {
        if self.subject.state.verdict.health() == Health::Unknown {
            self.subject.is_left.store(true, Ordering::Relaxed);
        } else {
            self.task.abort();
        }
    }
}

/// Of one pool, by the address of the state, which each watch keeps alive; states are told apart by
/// identity.
type Watches = HashMap<usize, Watch>;

/// The watches of one pool, as it is since a generation.
struct PoolWatches {
    since: u64,
    upstreams: Watches,
}

/// By the pool's name.
type WatchList = HashMap<String, PoolWatches>;

/// Held by every probe of the first round; when the last one lets go, the round is done.
struct FirstRound(Arc<Runtime>);

impl Drop for FirstRound {
    fn drop(&mut self) {
        self.0.readiness.set_probed();
    }
}

impl Prober {
    /// Probes what `control` runs, by way of `dial`.
    pub fn new(control: Arc<Control>, dial: Dial) -> Self {
        let runtime = control.runtime().clone();
        let (connector, permits) = (Connector::new(Some(connector_options())), Semaphore::new(PROBES_MAX));
        let asker = Arc::new(Asker { control: control.clone(), runtime, connector, permits });
        Self { control, asker, dial }
    }

    /// Starts what is new or changed, ends what is gone. Pools that are as they were keep their watches.
    fn follow(&self, snapshot: &Snapshot, watches: &mut WatchList, round: Option<&Arc<FirstRound>>) {
        for pool in snapshot.pools() {
            let name = pool.config.name.as_str();
            let before = watches.get_mut(name);
            if before.as_ref().is_some_and(|watched| watched.since == pool.since) {
                continue;
            }
            let known = before.map(|watched| std::mem::take(&mut watched.upstreams)).unwrap_or_default();
            let upstreams = self.follow_pool(pool, known, round);
            watches.insert(name.to_owned(), PoolWatches { since: pool.since, upstreams });
        }
        if watches.len() > snapshot.pools().len() {
            let names: HashSet<&str> = snapshot.pools().map(|pool| pool.config.name.as_str()).collect();
            watches.retain(|name, _| names.contains(name.as_str()));
        }
    }

    /// The watches of a pool that is new or changed; what is left of `before` ends.
    fn follow_pool(&self, pool: &Pool, mut before: Watches, round: Option<&Arc<FirstRound>>) -> Watches {
        let mut watches = Watches::default();
        let Some(check) = pool.config.health_check.clone().map(Arc::new) else { return watches };
        let starts_slowly = !pool.config.slow_start.is_zero();
        // Who comes back from maintenance is new here, and asked at once.
        let asked = |upstream: &&Upstream| upstream.config.mode != Mode::Maintenance;
        for upstream in pool.upstreams().iter().filter(asked) {
            let peer = match (self.dial)(pool, upstream, check.timeout) {
                Ok(peer) => peer,
                Err(error) => {
                    tracing::warn!(pool = %pool.config.name, upstream = %upstream.state.address, %error, "health check not possible");
                    continue;
                }
            };
            let subject = Subject {
                state: upstream.state.clone(),
                peer,
                check: check.clone(),
                proxy_protocol: pool.config.proxy_protocol,
                starts_slowly,
                forgotten: upstream.state.times_forgotten(),
                is_left: AtomicBool::new(false),
            };
            let key = Arc::as_ptr(&upstream.state).addr();
            let same = before.remove(&key).filter(|watch| watch.subject.is_asked_like(&subject));
            // Asked in another way, it is asked at once; until then the verdict stands.
            watches.insert(key, same.unwrap_or_else(|| self.watch(subject, round.cloned())));
        }
        watches
    }

    fn watch(&self, subject: Subject, round: Option<Arc<FirstRound>>) -> Watch {
        let subject = Arc::new(subject);
        let task = tokio::spawn(self.asker.clone().keep_asking(subject.clone(), round));
        Watch { subject, task }
    }

    /// Probes a whole pool and tells when it is done.
    fn probe_pool(&self, request: ProbeNow, watches: &WatchList) {
        let of_pool = watches.get(&request.pool);
        let members = of_pool.map(|of_pool| of_pool.upstreams.values()).into_iter().flatten();
        let members: Vec<_> = members.map(|watch| watch.subject.clone()).collect();
        let asker = self.asker.clone();
        tokio::spawn(async move {
            let probes: Vec<_> = members
                .into_iter()
                .map(|subject| {
                    let asker = asker.clone();
                    tokio::spawn(async move { asker.probe(&subject).await })
                })
                .collect();
            for probe in probes {
                let _ = probe.await;
            }
            // Nobody waits any more if the operator has gone away.
            let _ = request.done.send(());
        });
    }
}

#[async_trait]
impl BackgroundService for Prober {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let mut generations = self.control.generations();
        let Some(mut requests) = self.control.take_probe_requests() else { return };
        let mut watches = WatchList::default();
        {
            let round = Arc::new(FirstRound(self.control.runtime().clone()));
            self.follow(&self.control.runtime().snapshot(), &mut watches, Some(&round));
        }
        loop {
            tokio::select! {
                changed = generations.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.follow(&self.control.runtime().snapshot(), &mut watches, None);
                }
                request = next(&mut requests) => self.probe_pool(request, &watches),
                _ = shutdown.wait_for(|is_stopping| *is_stopping) => return,
            }
        }
    }
}

async fn next(requests: &mut mpsc::UnboundedReceiver<ProbeNow>) -> ProbeNow {
    match requests.recv().await {
        Some(request) => request,
        // The control lives as long as we do; if it were gone, there would be nothing to wait for.
        None => std::future::pending().await,
    }
}

impl Asker {
    async fn keep_asking(self: Arc<Self>, subject: Arc<Subject>, mut round: Option<Arc<FirstRound>>) {
        let Subject { state, check, .. } = &*subject;
        loop {
            // Boxed: what a probe needs, 10 KiB for one over HTTP, is not held from one to the next.
            Box::pin(self.probe(&subject)).await;
            round.take();
            if subject.is_left.load(Ordering::Relaxed) {
                return;
            }
            let wait = next_probe_in(&state.verdict, check.interval, check.fast_interval, fastrand::u64(..));
            tokio::time::sleep(wait).await;
        }
    }

    /// Asks once, and tells the upstream's state.
    async fn probe(&self, subject: &Subject) {
        let Subject { state, check, .. } = subject;
        let Ok(_permit) = self.permits.acquire().await else { return };
        let began = Instant::now();
        let answer = match tokio::time::timeout(check.timeout, self.ask(subject)).await {
            Ok(answer) => answer,
            Err(_) => Answer::Sick(format!("no answer within {:?}", check.timeout)),
        };
        let (is_well, error) = match answer {
            Answer::Well => (true, None),
            Answer::Sick(error) => (false, Some(error)),
            Answer::NotAsked(error) => {
                tracing::warn!(pool = %state.pool, upstream = %state.address, error, "health check not possible");
                return;
            }
        };
        state.metrics.health_check(is_well);
        let latency = began.elapsed();
        state.set_last_check(LastCheck { at: SystemTime::now(), latency, error: error.clone() });
        let passes_needed = self.passes_needed(subject);
        if let Some(transition) = state.verdict.observe(is_well, passes_needed, check.fall) {
            if transition.from == Health::Up {
                state.flapping.went_down(self.runtime.now());
            }
            subject.changed(transition, error.as_deref(), self.runtime.now());
            self.enter(subject, transition, passes_needed, error.as_deref());
            self.control.events().tell(Happening::health(state, transition, error.as_deref()));
        }
    }

    /// Passes in a row that turn down into up: more than usual for one that flaps, as long as the pool can do
    /// without it.
    fn passes_needed(&self, Subject { state, check, .. }: &Subject) -> u32 {
        let now = self.runtime.now();
        let needed = state.flapping.passes_needed(check.rise, now);
        let is_held_back = needed > check.rise
            && state.verdict.health() == Health::Down
            && self
                .runtime
                .peek()
                .pool_named(&state.pool)
                .is_some_and(|pool| pool.can_do_without(state, now));
        state.set_passes_needed(is_held_back.then_some(needed));
        if is_held_back { needed } else { check.rise }
    }

    /// Into the time line.
    fn enter(&self, subject: &Subject, transition: Transition, passes: u32, error: Option<&str>) {
        let Subject { state, check, .. } = subject;
        let Transition { from, to } = transition;
        let now = self.runtime.now();
        let times = |count| {
            if count == 1 { "a health check".to_owned() } else { format!("{count} health checks in a row") }
        };
        let cause = match (from, to, error) {
            (Health::Unknown, Health::Up, _) => "the first health check passed".to_owned(),
            (Health::Unknown, _, error) => {
                format!("the first health check failed: {}", error.unwrap_or_default())
            }
            (_, Health::Up, _) if passes > check.rise => {
                format!("{} passed, so many because it had gone down again and again", times(passes))
            }
            (_, Health::Up, _) => format!("{} passed", times(check.rise)),
            (_, _, error) => format!("{} failed: {}", times(check.fall), error.unwrap_or_default()),
        };
        let entry = Entry::new(Moment::now(now), Track::Health, from.word(), to.word(), cause);
        let share = self.runtime.peek().pool_named(&state.pool).and_then(|pool| pool.share_of(state, now));
        state.timeline.push(entry.with_share(share));
    }

    async fn ask(&self, subject: &Subject) -> Answer {
        let Subject { state, check, peer, proxy_protocol, .. } = subject;
        let call = Call { connector: &self.connector, peer, address: &state.address };
        match &check.probe {
            ProbeConfig::Tcp => tcp::ask(&state.address, *proxy_protocol).await,
            ProbeConfig::Http { path, host, status, headers } => {
                http::ask(&call, &http::Question { path, host: host.as_deref(), status, headers }).await
            }
            ProbeConfig::Grpc { service, host, headers } => {
                grpc::ask(&call, &grpc::Question { service, host: host.as_deref(), headers }).await
            }
        }
    }
}

impl Subject {
    fn is_asked_like(&self, other: &Self) -> bool {
        *self.check == *other.check
            && self.starts_slowly == other.starts_slowly
            // Who was in maintenance between two of our looks has to be asked, too.
            && self.forgotten == other.forgotten
            // Another key: another trust, client certificate or protocol.
            && self.peer.group_key == other.peer.group_key
            && self.proxy_protocol == other.proxy_protocol
    }

    fn changed(&self, transition: Transition, error: Option<&str>, now: Duration) {
        let Self { state, starts_slowly, .. } = self;
        if transition.to == Health::Up {
            if *starts_slowly {
                // New, or back from the dead: its caches are cold.
                state.load.warm_up(now);
            }
            if transition.from == Health::Down {
                state.readmit(Readmission::ChecksPass, now);
            }
            tracing::info!(pool = %state.pool, upstream = %state.address, "upstream is up");
        } else {
            let error = error.unwrap_or_default();
            tracing::warn!(pool = %state.pool, upstream = %state.address, error, "upstream is down");
        }
    }
}

/// Pingora would panic at CA certificates that it cannot read, and pools may name their own.
fn connector_options() -> ConnectorOptions {
    // Nothing is kept, so this is the least that Pingora takes.
    let mut options = ConnectorOptions::new(1);
    options.ca_file = (!has_system_roots()).then(|| "/dev/null".to_owned());
    options
}

/// Whether an error is of our own machine: it says nothing about the upstream.
fn is_local(error: &std::io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::EADDRNOTAVAIL | libc::ENOBUFS | libc::ENOMEM)
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::config::{PoolEdit, from_addresses};
    use crate::control::{Author, Change, Start};
    use crate::observe::ChangeOrigin;

    #[allow(clippy::unnecessary_wraps)]
    fn nobody(_: &Pool, _: &Upstream, _: Duration) -> pingora::Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new("127.0.0.1:1", false, String::new())))
    }

    /// Generations that follow each other at once are seen as one.
    #[tokio::test]
    async fn whoever_was_in_maintenance_between_two_looks_is_asked_anew() {
        let to = ["127.0.0.1:1".to_owned(), "127.0.0.1:2".to_owned()];
        let start = Start::from_arguments(from_addresses(([127, 0, 0, 1], 8080).into(), &to, None).unwrap());
        let runtime = Arc::new(Runtime::new(start.config.clone(), start.generation, 0, None));
        let control = Arc::new(Control::new(runtime.clone(), start));
        let prober = Prober::new(control.clone(), nobody);
        let mut watches = WatchList::default();
        prober.follow(&runtime.snapshot(), &mut watches, None);
        let snapshot = runtime.snapshot();
        let pool = snapshot.pools().next().unwrap();
        let [first, second] = [0, 1].map(|nth| pool.upstreams()[nth].state.clone());
        let name = pool.config.name.clone();
        let subject = |watches: &WatchList, state: &Arc<UpstreamState>| {
            watches[&name].upstreams[&Arc::as_ptr(state).addr()].subject.clone()
        };
        let before = [subject(&watches, &first), subject(&watches, &second)];

        let author = Author { origin: ChangeOrigin::Admin, who: "me".to_owned(), why: None };
        for mode in [Mode::Maintenance, Mode::Ready] {
            let edits = vec![PoolEdit::Mode(first.address.clone(), mode)];
            control.apply(&Change::Edit { pool: name.clone(), edits }, None, &author).unwrap();
        }
        prober.follow(&runtime.snapshot(), &mut watches, None);
        assert!(!Arc::ptr_eq(&before[0], &subject(&watches, &first)), "it is asked anew");
        assert!(Arc::ptr_eq(&before[1], &subject(&watches, &second)), "this one was never away");
    }
}
