//! What is running now: one immutable snapshot, and the live state of upstreams that outlives it.
//!
//! ```text
//!   Runtime ──► Snapshot ──► Pool ──► Upstream ──► Arc<UpstreamState>   load, verdict, ejection, counters
//!    (one swap)    │          (one request holds one snapshot)             ▲
//!                  └► RouteTable, Route                 Lease (in flight) ─┘
//! ```
//!
//! `build.rs` is the only place where a [`Config`] becomes a [`Snapshot`].
//! State is found again by (pool, address), so a reload forgets neither that an upstream is down nor
//! that it is busy. A [`Lease`] points at the state, never at a snapshot.

mod alarms;
mod build;
mod candidates;
mod ejections;
mod history;
mod lease;
mod leaving;
mod legacy;
mod listener;
mod noted;
mod pool;
mod queue;
mod readiness;
mod recent;
mod seldom;
mod timelines;
mod upstream;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::{ArcSwap, Guard};
use tokio::sync::watch;

pub use alarms::AlarmTurn;
pub use ejections::EjectionTurn;
pub use lease::Lease;
pub use legacy::Legacy;
pub use listener::{ConnectionGuard, Listener, ListenerLimits, UpgradedGuard};
pub use noted::Readmission;
pub use pool::{Chosen, NoPick, Pool, PoolState, Tiers, identity_of};
pub use queue::{Place, Queue};
pub use readiness::{Phase, Readiness};
pub use timelines::TIMELINES_BYTES_MAX;
pub use upstream::{LastCheck, Upstream, UpstreamState};

use leaving::Leaving;

use crate::config::{Config, ListenerTlsConfig, RouteConfig, UpstreamAddress};
use crate::observe::history::History;
use crate::observe::{AccessLog, ProcessMetrics, Records, RouteMetrics, SpanQueue};
use crate::route::{RequestHead, RouteTable};

/// The running state, replaced whole.
pub struct Runtime {
    current: ArcSwap<Snapshot>,
    /// Snapshots that requests may still hold. Freeing a large one takes milliseconds, so it is not left to
    /// whichever request happens to be the last.
    retired: Mutex<Vec<Arc<Snapshot>>>,
    /// Listeners are fixed when the process starts, in the order of the configuration.
    listeners: Vec<Arc<Listener>>,
    /// Time is counted from here; floors below take it as an argument.
    epoch: Instant,
    /// When this process began, which may be later: it may go on where another one was.
    started: Instant,
    /// Counters of the process as a whole.
    pub metrics: Arc<ProcessMetrics>,
    /// Whether the process wants traffic.
    pub readiness: Readiness,
    /// One line per request, if wanted.
    pub access_log: Option<AccessLog>,
    /// How the last requests went.
    pub records: Records,
    /// What happened in the last hour and month.
    pub history: History,
    /// Traced requests on their way to the collector.
    pub spans: SpanQueue,
    leaving: Leaving,
    /// Turns true when no request may go on.
    cut: watch::Sender<bool>,
}

impl Runtime {
    /// Starts with the first configuration, as this generation. `random` places the cursors of round
    /// robin.
    pub fn new(config: Config, generation: u64, random: u64, access_log: Option<AccessLog>) -> Self {
        Self::since(Instant::now(), config, generation, random, access_log)
    }

    /// As [`Runtime::new`], with the epoch of a predecessor, so that its times are ours.
    pub fn since(
        epoch: Instant,
        config: Config,
        generation: u64,
        random: u64,
        access_log: Option<AccessLog>,
    ) -> Self {
        let listeners = config
            .listeners
            .iter()
            .enumerate()
            .map(|(index, config)| Arc::new(Listener::new(config, index)))
            .collect();
        let first = Snapshot::build(config, generation, None, epoch.elapsed(), random);
        set_modes(first.pools());
        for upstream in first.pools().flat_map(Pool::upstreams) {
            upstream.state.note_presence("the process began with it", epoch.elapsed());
        }
        let runtime = Self {
            current: ArcSwap::from_pointee(first),
            retired: Mutex::default(),
            listeners,
            epoch,
            started: Instant::now(),
            metrics: Arc::default(),
            readiness: Readiness::default(),
            access_log,
            records: Records::default(),
            history: History::default(),
            spans: SpanQueue::default(),
            leaving: Leaving::default(),
            cut: watch::Sender::new(false),
        };
        runtime.read_clocks();
        runtime
    }

    /// Looks what the wall clock says, for those who write down the time of a request; every tick.
    pub fn read_clocks(&self) {
        self.records.note_clocks(SystemTime::now(), self.now());
    }

    /// Opens the access log's file again, after it was rotated.
    pub fn reopen_access_log(&self) {
        if let Some(log) = &self.access_log {
            log.reopen();
        }
    }

    /// Waits until every line so far is written; for the end of the process.
    pub fn flush_access_log(&self) {
        if let Some(log) = &self.access_log {
            log.flush();
        }
    }

    /// The state as of now. Keep it for one request, from head to log line, and no longer.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// The state as of now, for a look that ends before the next await.
    pub fn peek(&self) -> Guard<Arc<Snapshot>> {
        self.current.load()
    }

    /// Makes `next` the running state. Requests under way finish on the snapshot they hold.
    ///
    /// What operators want of upstreams (drain, maintenance) holds from here on for requests on older
    /// snapshots too.
    ///
    /// Called by [`Control`](crate::control::Control) and nobody else.
    pub(crate) fn publish(&self, next: Snapshot) {
        // Who leaves takes its counters along; what they say until now is history.
        self.take_down_history(SystemTime::now());
        let (before, next) = (self.snapshot(), Arc::new(next));
        // Before the swap: whoever reads all snapshots in between misses none.
        if let Ok(mut retired) = self.retired.lock() {
            retired.push(before.clone());
        }
        self.current.store(next.clone());
        set_modes(next.pools_changed_since(&before).map(|(_, pool)| pool));
        self.leaving.note(&before, &next);
    }

    /// Upstreams of this address that were removed, from any pool, and to which a request may still be
    /// under way.
    pub fn leaving(&self, address: &UpstreamAddress) -> Vec<Arc<UpstreamState>> {
        self.leaving.at(address)
    }

    /// What runs now, and before it the snapshots that requests may still hold.
    pub fn snapshots(&self) -> Vec<Arc<Snapshot>> {
        // The present one first: if it is retired in between, it is among them twice, and not missed.
        let mut all = vec![self.snapshot()];
        all.extend(self.retired.lock().iter().flat_map(|retired| retired.iter().cloned()));
        all
    }

    /// Upstreams that were removed, and to which a request may still be under way.
    pub fn all_leaving(&self) -> Vec<Arc<UpstreamState>> {
        self.leaving.all()
    }

    /// Frees the snapshots that no request holds any more; from time to time, by one thread, and on none of the
    /// traffic's.
    pub fn free_retired(&self) {
        let Ok(mut retired) = self.retired.lock().map(|it| it.clone()) else { return };
        // Ours, and that of the list.
        retired.retain(|snapshot| Arc::strong_count(snapshot) == 2);
        if retired.is_empty() {
            return;
        }
        // What requests on them counted last is history.
        self.take_down_history(SystemTime::now());
        let is_free = |snapshot: &mut Arc<Snapshot>| retired.iter().any(|free| Arc::ptr_eq(free, snapshot));
        let unused = self.retired.lock().map(|mut all| all.extract_if(.., is_free).collect::<Vec<_>>());
        drop(unused);
    }

    /// Requests under way, those on routes that a change removed meanwhile, too.
    pub fn requests_in_flight(&self) -> u64 {
        let snapshots = self.snapshots();
        let routes = snapshots.iter().flat_map(|snapshot| snapshot.routes());
        // A change leaves most routes as they are, and their counters with them.
        let once: HashMap<_, _> = routes.map(|route| (Arc::as_ptr(&route.metrics), &route.metrics)).collect();
        once.values().map(|metrics| metrics.in_flight()).sum()
    }

    /// Ends all requests, those that begin later, too: the process is about to end.
    pub fn cut(&self) {
        self.cut.send_replace(true);
    }

    /// Whether [`Runtime::cut`] was called.
    pub fn is_cut(&self) -> bool {
        *self.cut.borrow()
    }

    /// Returns when [`Runtime::cut`] is called.
    pub async fn until_cut(&self) {
        // The sender lives as long as we do.
        let _ = self.cut.subscribe().wait_for(|is_cut| *is_cut).await;
    }

    /// Time since the runtime's epoch: the `now` of all floors below.
    pub fn now(&self) -> Duration {
        self.epoch.elapsed()
    }

    /// The epoch itself, for whoever goes on where this process was.
    pub fn epoch(&self) -> Instant {
        self.epoch
    }

    /// Age of the process.
    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// The point in time that lies `since_epoch` after the epoch, for timers.
    pub fn instant(&self, since_epoch: Duration) -> Instant {
        self.epoch + since_epoch
    }

    /// All listeners, in the order of the configuration.
    pub fn listeners(&self) -> &[Arc<Listener>] {
        &self.listeners
    }

    /// What bounds a listener's connections in the running configuration.
    pub fn limits_of(&self, listener: &Listener) -> ListenerLimits {
        let snapshot = self.peek();
        snapshot.config.listeners.get(listener.index).map_or(ListenerLimits::NONE, ListenerLimits::of)
    }

    /// How a listener speaks TLS in the running configuration, if it does.
    pub fn tls_of(&self, listener: &Listener) -> Option<Arc<ListenerTlsConfig>> {
        self.peek().config.listeners.get(listener.index)?.tls.clone()
    }

    /// The listener that accepted a connection on this local address: an exact match, or else the
    /// one that listens on every address with this port.
    pub fn listener_at(&self, local: std::net::SocketAddr) -> Option<Arc<Listener>> {
        let exact = self.listeners.iter().find(|listener| listener.address == local);
        let wildcard = || {
            self.listeners.iter().find(|listener| {
                listener.address.ip().is_unspecified() && listener.address.port() == local.port()
            })
        };
        exact.or_else(wildcard).cloned()
    }
}

/// Everything a request needs, as of one moment.
pub struct Snapshot {
    /// Counts the configurations that ran, from 1; goes on where the last process ended, if that is known.
    pub generation: u64,
    /// What it was built from.
    pub config: Arc<Config>,
    table: Arc<RouteTable>,
    routes: Vec<Arc<Route>>,
    pools: Vec<Arc<Pool>>,
    /// Indexes of pools by name.
    places: Arc<HashMap<String, usize>>,
}

/// One route with its counters.
pub struct Route {
    /// As configured.
    pub config: Arc<RouteConfig>,
    /// The generation in which it became what it is; a change elsewhere leaves it as it was.
    pub since: u64,
    /// Resolved when the snapshot was built.
    pub metrics: Arc<RouteMetrics>,
}

impl Route {
    /// The pool for one request, by the route's split; an index into the snapshot's pools. `None`: it has none,
    /// and redirects all it serves.
    pub fn pool_for(&self, random: u64) -> Option<usize> {
        let split = &self.config.split;
        let total: u64 = split.iter().map(|part| u64::from(part.weight)).sum();
        // The high bits times the total: as good as a remainder, and without its division.
        let mut left = u64::try_from((u128::from(random) * u128::from(total)) >> 64).unwrap_or(0);
        for part in split {
            if left < u64::from(part.weight) {
                return Some(part.pool);
            }
            left -= u64::from(part.weight);
        }
        split.first().map(|part| part.pool)
    }
}

/// Hands what operators want of upstreams to their live state.
fn set_modes<'a>(pools: impl Iterator<Item = &'a Pool>) {
    for upstream in pools.flat_map(Pool::upstreams) {
        upstream.state.set_mode(upstream.config.mode);
    }
}

impl Snapshot {
    /// The most specific route that takes this request.
    pub fn find_route(&self, head: &RequestHead<'_>) -> Option<usize> {
        self.table.find(head)
    }

    /// All routes, in the order of the configuration.
    pub fn routes(&self) -> impl ExactSizeIterator<Item = &Route> {
        self.routes.iter().map(AsRef::as_ref)
    }

    /// The route that [`Snapshot::find_route`] names by its index.
    pub fn route(&self, index: usize) -> Option<&Route> {
        self.routes.get(index).map(AsRef::as_ref)
    }

    /// All pools, in the order of the configuration.
    pub fn pools(&self) -> impl ExactSizeIterator<Item = &Pool> {
        self.pools.iter().map(AsRef::as_ref)
    }

    /// The pool that [`Route::pool_for`] names by its index.
    pub fn pool(&self, index: usize) -> Option<&Pool> {
        self.pools.get(index).map(AsRef::as_ref)
    }

    /// The pool of this name.
    pub fn pool_named(&self, name: &str) -> Option<&Pool> {
        self.pool(self.pool_index(name)?)
    }

    /// Its place among [`Snapshot::pools`], and so among the configuration's.
    pub fn pool_index(&self, name: &str) -> Option<usize> {
        self.places.get(name).copied()
    }

    /// Pools that are not what they were in `before`, each with what it was. Those that are cost nothing but
    /// a look at two pointers.
    pub fn pools_changed_since<'a>(
        &'a self,
        before: &'a Self,
    ) -> impl Iterator<Item = (Option<&'a Pool>, &'a Pool)> {
        let in_place =
            |index, pool| before.pools.get(index).is_some_and(|old| std::ptr::eq(Arc::as_ptr(old), pool));
        let moved_or_changed = self.pools().enumerate().filter(move |&(index, pool)| !in_place(index, pool));
        moved_or_changed
            .map(|(_, pool)| (before.pool_named(&pool.config.name), pool))
            .filter(|&(old, pool)| old.is_none_or(|old| !std::ptr::eq(old, pool)))
    }

    /// Pools of `before` that are no more.
    pub fn pools_gone_since<'a>(&'a self, before: &'a Self) -> impl Iterator<Item = &'a Pool> {
        let has_same = Arc::ptr_eq(&self.places, &before.places);
        before.pools().filter(move |pool| !has_same && self.pool_index(&pool.config.name).is_none())
    }
}
