//! What a new text of the configuration file would change, and whom: told before anything is done.
//!
//! ```text
//!   text ──► check ──► what would run ──┬── compared with what runs, key by key ──► settings
//!                                       └── with live state ──► in flight, share of traffic, keys that move
//! ```
//!
//! It goes the way of [`Change::Replace`](super::Change::Replace) up to what would run, and ends there:
//! nothing is built, written or counted. What Evener cannot change while it runs is in the plan, too.
//!
//! Traffic is that of the last five minutes ([`WINDOW`]), counted when it ended. What it cannot know:
//! which requests a new route would take from others.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use serde::Serialize;

use super::prepare::{fixed_at_start, parse, resets};
use super::{Control, Dropped, Rejected, lock};
use crate::balance::{Candidate, Load, Pick, Strategy, StrategyKind, Tried, hash};
use crate::config::{
    Config, Description, ListenerConfig, PoolConfig, RouteConfig, Setting, UpstreamAddress, UpstreamConfig,
    differences,
};
use crate::health::Mode;
use crate::observe::{Class, WINDOW};
use crate::runtime::{Pool, Route, Snapshot, Upstream, identity_of};

/// What would change, and what that touches.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Plan {
    /// What runs now, and what the plan is against.
    pub generation: u64,
    /// Its entity tag; with it in `If-Match`, exactly this plan is applied or nothing.
    pub etag: String,
    /// Settings that differ and that are fixed while the process runs; with one of them, nothing applies.
    pub restart_required: Vec<&'static str>,
    /// How many differences there are in all.
    pub changes: usize,
    /// Of `[server]`, `[admin]` and `[log]`, with the names of these tables.
    pub process: Vec<Setting>,
    /// Listeners.
    pub listeners: Differences<Changed>,
    /// Routes.
    pub routes: Differences<ChangedRoute>,
    /// Pools and their upstreams.
    pub pools: PoolDifferences,
    /// Overrides that would end because the file says something new.
    pub overrides_dropped: Vec<Dropped>,
    /// All of it together.
    pub impact: Impact,
    /// `2 listeners, 3 routes, 3 pools`
    #[serde(skip)]
    pub summary: String,
    /// What is odd about the text.
    #[serde(skip)]
    pub warnings: Vec<String>,
}

/// Things with a name that come, go or change.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Differences<T> {
    /// By name.
    pub added: Vec<String>,
    /// By name.
    pub removed: Vec<String>,
    /// Those that are in both and differ.
    pub changed: Vec<T>,
}

/// Something with a name whose settings differ.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Changed {
    /// Its name.
    pub name: String,
    /// Which settings.
    pub settings: Vec<Setting>,
}

/// A route whose settings differ.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ChangedRoute {
    /// Its name.
    pub name: String,
    /// Which settings.
    pub settings: Vec<Setting>,
    /// Its requests under way; they finish as they began.
    pub in_flight: u64,
    /// Its part of all requests, 0 to 1.
    pub traffic_share: f64,
}

/// Pools that come, go or change.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PoolDifferences {
    /// By name.
    pub added: Vec<String>,
    /// Those that get no more requests.
    pub removed: Vec<RemovedPool>,
    /// Those that are in both and differ.
    pub changed: Vec<ChangedPool>,
}

/// A pool that goes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RemovedPool {
    /// Its name.
    pub name: String,
    /// How many upstreams go with it.
    pub upstreams: usize,
    /// Their requests in flight; they finish.
    pub in_flight: u64,
    /// Its part of all requests, 0 to 1.
    pub traffic_share: f64,
}

/// A pool that differs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ChangedPool {
    /// Its name.
    pub name: String,
    /// What differs of the pool itself.
    pub settings: Vec<Setting>,
    /// What differs of its members.
    pub upstreams: UpstreamDifferences,
    /// Requests in flight at all of its upstreams.
    pub in_flight: u64,
    /// Its part of all requests, 0 to 1.
    pub traffic_share: f64,
    /// Which part of the keys goes to another upstream, 0 to 1, were all of them up; `None` unless
    /// `consistent_hash` chooses before and after.
    pub hash_keys_moved: Option<f64>,
    /// What is forgotten: `rotation`, `health`, `ejection`.
    pub resets: Vec<&'static str>,
}

/// Upstreams of one pool that come, go or change.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct UpstreamDifferences {
    /// By address.
    pub added: Vec<String>,
    /// Those that get no more requests.
    pub removed: Vec<RemovedUpstream>,
    /// Those that are in both and differ.
    pub changed: Vec<ChangedUpstream>,
}

/// An upstream that goes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RemovedUpstream {
    /// Where it listens.
    pub address: String,
    /// Its requests in flight; they finish.
    pub in_flight: u64,
    /// Its part of all attempts, 0 to 1.
    pub traffic_share: f64,
}

/// An upstream that differs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ChangedUpstream {
    /// Where it listens.
    pub address: String,
    /// What differs.
    pub settings: Vec<Setting>,
}

/// How far a plan reaches.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Impact {
    /// Requests in flight at upstreams of pools that change or go.
    pub in_flight: u64,
    /// Which part of the requests met a listener, route or pool that changes or goes, 0 to 1.
    pub traffic_share: f64,
    /// How long the time is of which traffic is told.
    pub window_seconds: u64,
    /// In all pools, new ones included.
    pub upstreams_added: usize,
    /// In all pools, those that go included.
    pub upstreams_removed: usize,
    /// In all pools.
    pub upstreams_changed: usize,
}

impl Control {
    /// What [`Change::Replace`](super::Change::Replace) with this text would do. Changes nothing.
    ///
    /// # Errors
    ///
    /// There is no file to replace, or the text is wrong.
    pub fn plan(&self, text: &str) -> Result<Plan, Rejected> {
        let super::Source::File(path) = &self.source else { return Err(Rejected::NoFile) };
        // Host names are looked up here, so before the lock.
        let (file, warnings) = parse(path, text)?;
        let summary = file.summary();
        let writer = lock(&self.writer);
        let before = self.runtime.snapshot();
        let restart_required = fixed_at_start(&before.config, &file);
        let known = self.running().overrides.clone();
        let next = self.reconciled(file, text, &known, String::new(), &warnings);
        let etag = self.tag();
        drop(writer);
        let sight = Sight { before: &before, after: &next.config, now: self.runtime.now() };
        Ok(Plan {
            restart_required,
            etag,
            overrides_dropped: next.dropped,
            summary,
            warnings: next.warnings,
            ..sight.plan()
        })
    }
}

/// What runs, what would run, and when somebody looks.
struct Sight<'a> {
    before: &'a Snapshot,
    after: &'a Config,
    now: Duration,
}

impl Sight<'_> {
    fn plan(&self) -> Plan {
        let config = &self.before.config;
        let process = differences(&Description::of_process(config), &Description::of_process(self.after));
        let (listeners, routes, pools) = (self.listeners(), self.routes(), self.pools());
        let impact = self.impact(&listeners, &routes, &pools);
        Plan {
            generation: self.before.generation,
            etag: String::new(),
            restart_required: Vec::new(),
            changes: process.len() + listeners.count() + routes.count() + pools.count(),
            process,
            listeners,
            routes,
            pools,
            overrides_dropped: Vec::new(),
            impact,
            summary: String::new(),
            warnings: Vec::new(),
        }
    }

    fn listeners(&self) -> Differences<Changed> {
        let name = |listener: &ListenerConfig| listener.name.clone();
        let (before, after) = (self.before.config.listeners.iter(), self.after.listeners.iter());
        let Parted { added, removed, both } = part(before, after, |listener| &listener.name);
        let changed = both.into_iter().filter_map(|(before, after)| {
            let settings = differences(&Description::of_listener(before), &Description::of_listener(after));
            (!settings.is_empty()).then(|| Changed { name: name(before), settings })
        });
        Differences {
            changed: changed.collect(),
            added: added.into_iter().map(name).collect(),
            removed: removed.into_iter().map(name).collect(),
        }
    }

    /// Two routes may be the same value and lead to pools of different names, so all of them are described.
    fn routes(&self) -> Differences<ChangedRoute> {
        let config = &self.before.config;
        let after: HashMap<&str, &RouteConfig> =
            self.after.routes.iter().map(|route| (route.name.as_str(), &**route)).collect();
        let before: HashSet<&str> = config.routes.iter().map(|route| route.name.as_str()).collect();
        let total = self.before.routes().map(|route| self.requests_of(route)).sum();
        let mut found = Differences { added: Vec::new(), removed: Vec::new(), changed: Vec::new() };
        for route in self.before.routes() {
            let name = route.config.name.clone();
            let Some(next) = after.get(name.as_str()) else {
                found.removed.push(name);
                continue;
            };
            let next = Description::of_route(next, self.after);
            let settings = differences(&Description::of_route(&route.config, config), &next);
            if !settings.is_empty() {
                let traffic_share = share(self.requests_of(route), total);
                let in_flight = route.metrics.in_flight();
                found.changed.push(ChangedRoute { name, settings, in_flight, traffic_share });
            }
        }
        let new = self.after.routes.iter().filter(|route| !before.contains(route.name.as_str()));
        found.added = new.map(|route| route.name.clone()).collect();
        found
    }

    fn pools(&self) -> PoolDifferences {
        let after: HashMap<&str, &PoolConfig> =
            self.after.pools.iter().map(|pool| (pool.name.as_str(), &**pool)).collect();
        let before: HashSet<&str> = self.before.pools().map(|pool| pool.config.name.as_str()).collect();
        let traffic = self.traffic();
        let mut found = PoolDifferences { added: Vec::new(), removed: Vec::new(), changed: Vec::new() };
        for pool in self.before.pools() {
            match after.get(pool.config.name.as_str()) {
                None => found.removed.push(self.removed_pool(pool, &traffic)),
                Some(next) if **next == *pool.config => {}
                Some(next) => found.changed.extend(self.changed_pool(pool, next, &traffic)),
            }
        }
        let new = self.after.pools.iter().filter(|pool| !before.contains(pool.name.as_str()));
        found.added = new.map(|pool| pool.name.clone()).collect();
        found
    }

    fn removed_pool(&self, pool: &Pool, traffic: &Traffic) -> RemovedPool {
        RemovedPool {
            name: pool.config.name.clone(),
            upstreams: pool.upstreams().len(),
            in_flight: pool.in_flight(),
            traffic_share: share(pool.state.metrics.recent_requests(self.now), traffic.requests),
        }
    }

    /// `None` when only the order of its upstreams is another, which means nothing.
    fn changed_pool(&self, pool: &Pool, next: &PoolConfig, traffic: &Traffic) -> Option<ChangedPool> {
        let settings = differences(&Description::of_pool(&pool.config), &Description::of_pool(next));
        let upstreams = self.upstreams(pool, next, traffic);
        if settings.is_empty() && upstreams == UpstreamDifferences::default() {
            return None;
        }
        Some(ChangedPool {
            name: next.name.clone(),
            settings,
            upstreams,
            in_flight: pool.in_flight(),
            traffic_share: share(pool.state.metrics.recent_requests(self.now), traffic.requests),
            hash_keys_moved: keys_moved(&pool.config, next),
            resets: resets(&pool.config, next).into_iter().map(|(what, _)| what).collect(),
        })
    }

    fn upstreams(&self, pool: &Pool, next: &PoolConfig, traffic: &Traffic) -> UpstreamDifferences {
        let after: HashMap<&UpstreamAddress, &UpstreamConfig> =
            next.upstreams.iter().map(|upstream| (&upstream.address, upstream)).collect();
        let before: HashSet<&UpstreamAddress> =
            pool.upstreams().iter().map(|upstream| &upstream.config.address).collect();
        let mut found = UpstreamDifferences::default();
        for upstream in pool.upstreams() {
            match after.get(&upstream.config.address) {
                None => found.removed.push(self.removed_upstream(upstream, traffic)),
                Some(next) if **next == upstream.config => {}
                Some(next) => found.changed.push(ChangedUpstream {
                    address: next.address.to_string(),
                    settings: differences(
                        &Description::of_upstream(&upstream.config),
                        &Description::of_upstream(next),
                    ),
                }),
            }
        }
        let new = next.upstreams.iter().filter(|upstream| !before.contains(&upstream.address));
        found.added = new.map(|upstream| upstream.address.to_string()).collect();
        found
    }

    fn removed_upstream(&self, upstream: &Upstream, traffic: &Traffic) -> RemovedUpstream {
        RemovedUpstream {
            address: upstream.config.address.to_string(),
            in_flight: upstream.state.load.in_flight().into(),
            traffic_share: share(upstream.state.metrics.recent_attempts(self.now), traffic.attempts),
        }
    }

    fn traffic(&self) -> Traffic {
        let pools = self.before.pools();
        let attempts = self.before.pools().flat_map(Pool::upstreams);
        Traffic {
            requests: pools.map(|pool| pool.state.metrics.recent_requests(self.now)).sum(),
            attempts: attempts.map(|upstream| upstream.state.metrics.recent_attempts(self.now)).sum(),
        }
    }

    fn requests_of(&self, route: &Route) -> u64 {
        route.metrics.recent_requests(self.now)
    }

    fn impact(
        &self,
        listeners: &Differences<Changed>,
        routes: &Differences<ChangedRoute>,
        pools: &PoolDifferences,
    ) -> Impact {
        let new_pools: HashSet<&str> = pools.added.iter().map(String::as_str).collect();
        let new_pools = self.after.pools.iter().filter(|pool| new_pools.contains(pool.name.as_str()));
        let in_new_pools: usize = new_pools.map(|pool| pool.upstreams.len()).sum();
        let in_old_pools: usize = pools.removed.iter().map(|pool| pool.upstreams).sum();
        let changed = || pools.changed.iter().map(|pool| &pool.upstreams);
        let in_flight = pools.changed.iter().map(|pool| pool.in_flight);
        let of_listeners = self.share_of_listeners(listeners);
        let of_the_rest = self.share_of_routes_and_pools(routes, pools);
        Impact {
            in_flight: in_flight.chain(pools.removed.iter().map(|pool| pool.in_flight)).sum(),
            traffic_share: rounded(of_listeners + (1.0 - of_listeners) * of_the_rest),
            window_seconds: self.now.min(WINDOW).as_secs(),
            upstreams_added: in_new_pools + changed().map(|all| all.added.len()).sum::<usize>(),
            upstreams_removed: in_old_pools + changed().map(|all| all.removed.len()).sum::<usize>(),
            upstreams_changed: changed().map(|all| all.changed.len()).sum(),
        }
    }

    /// Which part of the requests came in by listeners that differ; since the start, as that is counted.
    fn share_of_listeners(&self, listeners: &Differences<Changed>) -> f64 {
        let changed = listeners.changed.iter().map(|listener| &listener.name);
        let touched: HashSet<&String> = changed.chain(&listeners.removed).collect();
        let requests = |index: usize| -> u64 {
            let of_route = |route: &Route| -> u64 {
                Class::ALL.into_iter().map(|class| route.metrics.requests(index, class)).sum()
            };
            self.before.routes().map(of_route).sum()
        };
        let config = &self.before.config;
        let counts = config.listeners.iter().enumerate();
        let counts: Vec<(bool, u64)> =
            counts.map(|(index, one)| (touched.contains(&one.name), requests(index))).collect();
        let sum = |only_touched: bool| -> u64 {
            counts.iter().filter(|(is, _)| *is || !only_touched).map(|(_, count)| count).sum()
        };
        ratio(sum(true) as f64, sum(false) as f64)
    }

    /// A request is touched when its route is, or the pool that it went to. Of a route with a `split`, as
    /// many went to each pool as its weights say.
    fn share_of_routes_and_pools(&self, routes: &Differences<ChangedRoute>, pools: &PoolDifferences) -> f64 {
        let changed = routes.changed.iter().map(|route| route.name.as_str());
        let of_routes: BTreeSet<&str> = changed.chain(routes.removed.iter().map(String::as_str)).collect();
        let changed = pools.changed.iter().map(|pool| pool.name.as_str());
        let of_pools: BTreeSet<&str> =
            changed.chain(pools.removed.iter().map(|pool| pool.name.as_str())).collect();
        let name = |index| self.before.pool(index).map_or("", |pool| pool.config.name.as_str());
        let (mut touched, mut total) = (0.0, 0.0);
        for route in self.before.routes() {
            let requests = self.requests_of(route) as f64;
            let weight = |only_touched: bool| -> f64 {
                let parts = route.config.split.iter();
                let parts = parts.filter(|part| !only_touched || of_pools.contains(name(part.pool)));
                parts.map(|part| f64::from(part.weight)).sum()
            };
            let is_touched = of_routes.contains(route.config.name.as_str());
            touched += requests * if is_touched { 1.0 } else { ratio(weight(true), weight(false)) };
            total += requests;
        }
        ratio(touched, total)
    }
}

/// What finished in the window, in all pools.
struct Traffic {
    requests: u64,
    attempts: u64,
}

/// Things of two configurations, told apart by name.
struct Parted<'a, T> {
    added: Vec<&'a T>,
    removed: Vec<&'a T>,
    both: Vec<(&'a T, &'a T)>,
}

fn part<'a, T>(
    before: impl Iterator<Item = &'a T>,
    after: impl Iterator<Item = &'a T>,
    name: impl Fn(&T) -> &str,
) -> Parted<'a, T> {
    let mut left: Vec<&T> = after.collect();
    let (mut removed, mut both) = (Vec::new(), Vec::new());
    for one in before {
        match left.iter().position(|other| name(other) == name(one)) {
            Some(index) => both.push((one, left.remove(index))),
            None => removed.push(one),
        }
    }
    Parted { added: left, removed, both }
}

impl Differences<Changed> {
    fn count(&self) -> usize {
        let settings: usize = self.changed.iter().map(|one| one.settings.len()).sum();
        self.added.len() + self.removed.len() + settings
    }
}

impl Differences<ChangedRoute> {
    fn count(&self) -> usize {
        let settings: usize = self.changed.iter().map(|one| one.settings.len()).sum();
        self.added.len() + self.removed.len() + settings
    }
}

impl PoolDifferences {
    fn count(&self) -> usize {
        let of_pool = |pool: &ChangedPool| {
            let all = &pool.upstreams;
            let of_upstreams: usize = all.changed.iter().map(|one| one.settings.len()).sum();
            pool.settings.len() + all.added.len() + all.removed.len() + of_upstreams
        };
        self.added.len() + self.removed.len() + self.changed.iter().map(of_pool).sum::<usize>()
    }
}

/// Keys that are tried: enough to be right within two in a hundred.
const SAMPLED_KEYS: u64 = 4_096;

/// Which part of the keys has another home afterwards, with all upstreams up and none busy.
fn keys_moved(before: &PoolConfig, after: &PoolConfig) -> Option<f64> {
    let hashes = |pool: &PoolConfig| pool.strategy == StrategyKind::ConsistentHash;
    if !hashes(before) || !hashes(after) {
        return None;
    }
    let (homes_before, homes_after) = (Homes::of(before), Homes::of(after));
    // Another kind of key is another key, for every request.
    let other_keys = if before.hash == after.hash { 0 } else { SAMPLED_KEYS };
    let moved = (0..SAMPLED_KEYS)
        .filter(|&key| homes_before.home_of(key) != homes_after.home_of(key + other_keys))
        .count();
    Some(rounded(moved as f64 / SAMPLED_KEYS as f64))
}

/// Who serves which key of a pool.
struct Homes<'a> {
    members: Vec<&'a UpstreamConfig>,
    candidates: Vec<Idle>,
    strategy: Strategy,
}

impl<'a> Homes<'a> {
    /// Backups serve no key while the others are up.
    fn of(pool: &'a PoolConfig) -> Self {
        let members: Vec<&UpstreamConfig> = pool.upstreams.iter().filter(|one| !one.backup).collect();
        let weights: Vec<u16> = members.iter().map(|member| member.weight).collect();
        let identities: Vec<u64> = members.iter().map(|member| identity_of(&member.address)).collect();
        let strategy = Strategy::identified(StrategyKind::ConsistentHash, &weights, &identities, 0);
        let candidates = members
            .iter()
            .map(|member| Idle(Load::new(Duration::ZERO), member.mode == Mode::Ready))
            .collect();
        Self { members, candidates, strategy }
    }

    fn home_of(&self, key: u64) -> Option<&UpstreamAddress> {
        let tried = Tried::default();
        let pick = Pick { now: Duration::ZERO, hash: hash(&key.to_le_bytes()), random: 0, tried: &tried };
        let index = self.strategy.pick(&self.candidates, pick)?;
        self.members.get(index).map(|member| &member.address)
    }
}

/// An upstream with nothing to do, and whether an operator lets it.
struct Idle(Load, bool);

impl Candidate for Idle {
    fn load(&self) -> &Load {
        &self.0
    }

    fn is_eligible(&self, _: Duration) -> bool {
        self.1
    }
}

fn share(part: u64, whole: u64) -> f64 {
    rounded(ratio(part as f64, whole as f64))
}

/// 0 of nothing is 0.
fn ratio(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { (part / whole).min(1.0) } else { 0.0 }
}

/// To four places: nobody acts on a hundredth of a per cent.
fn rounded(share: f64) -> f64 {
    (share * 10_000.0).round() / 10_000.0
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use crate::control::Change;
    use crate::control::testing::{author, control, weigh};

    fn text(upstreams: &str) -> String {
        format!("[listeners.http]\naddress = \"127.0.0.1:8080\"\n[pools.app]\nupstreams = [{upstreams}]\n")
    }

    #[test]
    fn overrides_that_would_end_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let control = control(folder.path(), &text("\"127.0.0.1:9001\""));
        control.apply(&weigh(5), None, &author()).unwrap();
        let plan = control.plan(&text("{ address = \"127.0.0.1:9001\", weight = 7 }")).unwrap();

        let dropped = plan.overrides_dropped.first().unwrap();
        assert_eq!((dropped.setting, dropped.value.as_str()), ("weight", "5"));
        let changed = plan.pools.changed.first().unwrap().upstreams.changed.first().unwrap();
        assert_eq!(json!(changed.settings), json!([{"key": "weight", "from": 5, "to": 7}]));
        let applied = control.apply(
            &Change::Replace(text("{ address = \"127.0.0.1:9001\", weight = 7 }")),
            None,
            &author(),
        );
        assert_eq!(applied.unwrap().dropped, plan.overrides_dropped);
    }

    #[test]
    fn another_order_of_upstreams_is_no_difference() {
        let folder = tempfile::tempdir().unwrap();
        let control = control(folder.path(), &text("\"127.0.0.1:9001\", \"127.0.0.1:9002\""));
        let plan = control.plan(&text("\"127.0.0.1:9002\", \"127.0.0.1:9001\"")).unwrap();
        assert_eq!((plan.changes, plan.pools.changed.len()), (0, 0));
    }

    #[test]
    fn another_kind_of_key_moves_nearly_all_keys() {
        let pool = |hash: &str| {
            let hash = format!("strategy = \"consistent_hash\"\nhash = {{ {hash} = true }}");
            text("\"127.0.0.1:9001\", \"127.0.0.1:9002\", \"127.0.0.1:9003\", \"127.0.0.1:9004\"") + &hash
        };
        let folder = tempfile::tempdir().unwrap();
        let control = control(folder.path(), &pool("client_ip"));
        let plan = control.plan(&pool("path")).unwrap();
        let moved = plan.pools.changed.first().unwrap().hash_keys_moved.unwrap();
        assert!((0.65..0.85).contains(&moved), "{moved}");
    }
}
