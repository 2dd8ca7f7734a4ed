//! What a process leaves to its successor: what it learned, and what it counted.
//!
//! ```text
//!   old: legacy() ──► new: inherit()              once, before the new one serves
//!   old: legacy() since the last one ──► count()  for as long as the old one still finishes requests
//! ```
//!
//! Everything is found again by names: of listeners, routes, pools, and by the addresses of upstreams. What the
//! other side does not know, be it of another version or under another configuration, is left out. What goes
//! on in one process (requests in flight, connections, queues) stays there.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};

use super::alarms::AlarmsMemory;
use super::{LastCheck, Pool, Runtime, Upstream};
use crate::balance::Memory;
use crate::health::Health;
use crate::observe::timeline::Entry;
use crate::observe::{RecentTimesMemory, Tally};

/// See the module documentation.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Legacy {
    process: Tally,
    listeners: BTreeMap<String, Tally>,
    routes: BTreeMap<String, Tally>,
    pools: BTreeMap<String, PoolLegacy>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct PoolLegacy {
    counted: Tally,
    recent_times: RecentTimesMemory,
    /// Of the primaries, of the backups.
    learned: Vec<BTreeMap<String, f64>>,
    /// Tells whether what is a fair share there is one here.
    fairness: u64,
    /// By address.
    upstreams: BTreeMap<String, UpstreamLegacy>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct UpstreamLegacy {
    counted: Tally,
    learned: BTreeMap<String, f64>,
    ejection: BTreeMap<String, u64>,
    health: String,
    /// Health checks in a row that spoke against that.
    run: u32,
    /// How often it went down of late.
    flapping: BTreeMap<String, u64>,
    /// What it needs for that to be up again, if it is held back.
    passes_needed: Option<u32>,
    last_check: Option<CheckLegacy>,
    #[serde(deserialize_with = "known")]
    timeline: Vec<Entry>,
    alarms: AlarmsMemory,
}

/// Those of a list that this version understands.
pub(super) fn known<'de, D: Deserializer<'de>, T: DeserializeOwned>(list: D) -> Result<Vec<T>, D::Error> {
    let all = Vec::<serde_json::Value>::deserialize(list)?;
    Ok(all.into_iter().filter_map(|one| serde_json::from_value(one).ok()).collect())
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct CheckLegacy {
    /// Milliseconds since 1970.
    at_ms: u64,
    latency_us: u64,
    error: Option<String>,
}

impl Legacy {
    /// What was counted after `earlier`, a legacy of the same process; nothing of what was learned.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            process: self.process.since(&earlier.process),
            listeners: since(&self.listeners, &earlier.listeners),
            routes: since(&self.routes, &earlier.routes),
            pools: self.pools.iter().filter_map(|(name, pool)| pool.since(name, &earlier.pools)).collect(),
        }
    }

    /// Whether nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.process.is_empty()
            && self.listeners.is_empty()
            && self.routes.is_empty()
            && self.pools.is_empty()
    }
}

impl PoolLegacy {
    fn since(&self, name: &str, earlier: &BTreeMap<String, Self>) -> Option<(String, Self)> {
        let nothing = Self::default();
        let before = earlier.get(name).unwrap_or(&nothing);
        let upstreams = self.upstreams.iter().filter_map(|(address, upstream)| {
            let unknown = Tally::default();
            let before = before.upstreams.get(address).map_or(&unknown, |before| &before.counted);
            let counted = upstream.counted.since(before);
            let upstream = UpstreamLegacy { counted, ..UpstreamLegacy::default() };
            (!upstream.counted.is_empty()).then(|| (address.clone(), upstream))
        });
        let grown = Self {
            counted: self.counted.since(&before.counted),
            upstreams: upstreams.collect(),
            ..Self::default()
        };
        (!grown.counted.is_empty() || !grown.upstreams.is_empty()).then(|| (name.to_owned(), grown))
    }
}

fn since(now: &BTreeMap<String, Tally>, before: &BTreeMap<String, Tally>) -> BTreeMap<String, Tally> {
    let unknown = Tally::default();
    let grown =
        now.iter().map(|(name, tally)| (name.clone(), tally.since(before.get(name).unwrap_or(&unknown))));
    grown.filter(|(_, tally)| !tally.is_empty()).collect()
}

impl Runtime {
    /// What there is to leave to a successor as of now.
    pub fn legacy(&self) -> Legacy {
        let snapshot = self.snapshot();
        let listeners = self.listener_names();
        Legacy {
            process: self.metrics.tally(),
            listeners: self.listeners.iter().map(|it| (it.name.clone(), it.metrics.tally())).collect(),
            routes: snapshot
                .routes()
                .map(|route| (route.config.name.clone(), route.metrics.tally(&listeners)))
                .collect(),
            pools: snapshot.pools().map(|pool| (pool.config.name.clone(), pool.legacy())).collect(),
        }
    }

    /// Goes on where a predecessor was, whose epoch is ours, and whose history ends with what it counted. Called
    /// once, before anything runs. Answers whether every upstream that has health checks has a verdict now, so that nobody need wait for the first.
    pub fn inherit(&self, legacy: Legacy, history: &[u8]) -> bool {
        self.count(&legacy);
        self.inherit_history(history);
        let (snapshot, now) = (self.snapshot(), self.now());
        let mut pools = legacy.pools;
        for pool in snapshot.pools() {
            if let Some(legacy) = pools.remove(&pool.config.name) {
                pool.inherit(legacy, now);
            }
        }
        let mut checked = snapshot.pools().flat_map(Pool::upstreams).filter(|upstream| upstream.is_checked);
        checked.all(|upstream| upstream.state.verdict.health() != Health::Unknown)
    }

    fn inherit_history(&self, history: &[u8]) {
        let at = SystemTime::now();
        if !history.is_empty()
            && let Err(unreadable) = self.history.go_on(history, at)
        {
            tracing::warn!(reason = %unreadable, "history of the predecessor not used");
        }
        self.begin_history(at);
    }

    /// What there is to leave to a successor as of now, and the history up to that. Where requests end at every
    /// moment, those of the last few milliseconds may be in the first and not in the second.
    pub fn legacy_with_history(&self) -> (Legacy, Vec<u8>) {
        let at = SystemTime::now();
        let mut legacy = self.legacy();
        for _ in 0..LOOKS_MAX {
            self.take_down_history(at);
            let before = std::mem::replace(&mut legacy, self.legacy());
            if legacy.since(&before).is_empty() {
                break;
            }
        }
        (legacy, self.history.to_bytes(at))
    }

    /// Counts what a predecessor counted.
    pub fn count(&self, counted: &Legacy) {
        let snapshot = self.snapshot();
        let listeners = self.listener_names();
        self.metrics.add(&counted.process);
        for listener in &self.listeners {
            if let Some(tally) = counted.listeners.get(&listener.name) {
                listener.metrics.add(tally);
            }
        }
        for route in snapshot.routes() {
            if let Some(tally) = counted.routes.get(&route.config.name) {
                route.metrics.add(tally, &listeners);
            }
        }
        for pool in snapshot.pools() {
            if let Some(legacy) = counted.pools.get(&pool.config.name) {
                pool.count(legacy);
            }
        }
    }

    fn listener_names(&self) -> Vec<&str> {
        self.listeners.iter().map(|listener| listener.name.as_str()).collect()
    }
}

impl Pool {
    fn legacy(&self) -> PoolLegacy {
        let tuners = self.state.tuners.lock();
        PoolLegacy {
            counted: self.state.metrics.tally(),
            recent_times: self.state.metrics.recent_times.memory(),
            fairness: self.fairness(),
            learned: tuners
                .map(|all| all.iter().map(|tuner| named(tuner.memory())).collect())
                .unwrap_or_default(),
            upstreams: self
                .upstreams()
                .iter()
                .map(|upstream| (upstream.config.address.to_string(), upstream.legacy()))
                .collect(),
        }
    }

    fn inherit(&self, legacy: PoolLegacy, now: Duration) {
        if let Ok(mut tuners) = self.state.tuners.lock() {
            for (tuner, learned) in tuners.iter_mut().zip(&legacy.learned) {
                tuner.remember(&|name| learned.get(name).copied());
            }
        }
        self.state.metrics.recent_times.go_on(legacy.recent_times);
        let same_since = (legacy.fairness == self.fairness()).then_some(self.since);
        for upstream in self.upstreams() {
            if let Some(legacy) = legacy.upstreams.get(&upstream.config.address.to_string()) {
                upstream.inherit(legacy, now);
                upstream.state.alarms.go_on(&legacy.alarms, same_since);
            }
        }
        // Picks go by what was learned from the first one on.
        self.tick(now);
    }

    fn count(&self, legacy: &PoolLegacy) {
        self.state.metrics.add(&legacy.counted);
        for upstream in self.upstreams() {
            if let Some(legacy) = legacy.upstreams.get(&upstream.config.address.to_string()) {
                let attempts = upstream.state.metrics.add(&legacy.counted);
                upstream.state.load.count_begun(attempts);
            }
        }
    }
}

impl Upstream {
    fn legacy(&self) -> UpstreamLegacy {
        let state = &self.state;
        let ejection = state.ejection.memory().into_iter().map(|(name, number)| (name.to_owned(), number));
        let flapping = state.flapping.memory().into_iter().map(|(name, number)| (name.to_owned(), number));
        UpstreamLegacy {
            counted: state.metrics.tally(),
            learned: named(state.load.memory()),
            ejection: ejection.collect(),
            health: state.verdict.health().word().to_owned(),
            run: state.verdict.run(),
            flapping: flapping.collect(),
            passes_needed: state.passes_needed(),
            last_check: state.last_check().map(CheckLegacy::from),
            timeline: state.timeline.entries(),
            alarms: state.alarms.memory(),
        }
    }

    fn inherit(&self, legacy: &UpstreamLegacy, now: Duration) {
        let state = &self.state;
        state.load.remember(&|name| legacy.learned.get(name).copied());
        state.ejection.go_on(&|name| legacy.ejection.get(name).copied());
        state.telling.go_on(state.ejection.state(now));
        if !legacy.timeline.is_empty() {
            // That it is present is nothing new.
            state.timeline.clear();
            state.timeline.go_on(legacy.timeline.clone(), true);
        }
        if let Some(health) = Health::of_word(&legacy.health) {
            state.verdict.go_on(health, legacy.run);
        }
        state.flapping.go_on(&|name| legacy.flapping.get(name).copied());
        state.set_passes_needed(legacy.passes_needed);
        if let Some(check) = &legacy.last_check {
            state.set_last_check(check.into());
        }
    }
}

/// How often to look whether something was counted while the history was taken down.
const LOOKS_MAX: usize = 4;

fn named(memory: Memory) -> BTreeMap<String, f64> {
    memory.into_iter().map(|(name, number)| (name.to_owned(), number)).collect()
}

impl From<LastCheck> for CheckLegacy {
    fn from(LastCheck { at, latency, error }: LastCheck) -> Self {
        let since_1970 = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            at_ms: u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX),
            latency_us: u64::try_from(latency.as_micros()).unwrap_or(u64::MAX),
            error,
        }
    }
}

impl From<&CheckLegacy> for LastCheck {
    fn from(check: &CheckLegacy) -> Self {
        Self {
            at: UNIX_EPOCH.checked_add(Duration::from_millis(check.at_ms)).unwrap_or_else(SystemTime::now),
            latency: Duration::from_micros(check.latency_us),
            error: check.error.clone(),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::config::{Source, parse};
    use crate::health::EjectionState;
    use crate::observe::Class;

    const TWO: &str = "[listeners.http]\naddress = \"127.0.0.1:8080\"\n[pools.app]\nstrategy = \"latency_weighted\"\nupstreams = [\"127.0.0.1:9001\", \"unix:/run/app.sock\"]\n";

    fn runtime(text: &str, epoch: Instant) -> Runtime {
        let source = Source { name: String::new(), text: text.to_owned(), folder: ".".into() };
        Runtime::since(epoch, parse(&source, &|_| None).unwrap(), 1, 0, None)
    }

    /// As it travels.
    fn sent(legacy: &Legacy) -> Legacy {
        serde_json::from_str(&serde_json::to_string(legacy).unwrap()).unwrap()
    }

    /// Sends requests to both, one of which is ten times slower, and fails there.
    fn learn(runtime: &Runtime) {
        let snapshot = runtime.snapshot();
        let pool = snapshot.pool_named("app").unwrap();
        for round in 0..50 {
            for (upstream, latency_ms) in pool.upstreams().iter().zip([5, 50]) {
                let in_flight = upstream.state.load.begin(runtime.now());
                upstream.state.load.succeeded(runtime.now(), Duration::from_millis(latency_ms), in_flight);
                upstream.state.load.end();
                upstream.state.metrics.attempt_finished(Some(200));
            }
            pool.tick(Duration::from_millis(100 * round));
        }
        let slow = &pool.upstreams()[1].state;
        slow.verdict.observe(false, 2, 3);
        let ticket = slow.ejection.admit(runtime.now()).unwrap();
        let policy = pool.config.ejection.unwrap();
        let policy = crate::health::EjectionPolicy { consecutive_failures: 1, ..policy };
        assert!(slow.ejection.failed(ticket, runtime.now(), &policy, || true).is_some());
        pool.upstreams()[0].state.verdict.observe(true, 2, 3);
    }

    #[test]
    fn a_successor_knows_what_was_learned_at_once() {
        let epoch = Instant::now();
        let (old, new) = (runtime(TWO, epoch), runtime(TWO, epoch));
        learn(&old);
        assert!(new.inherit(sent(&old.legacy()), &[]), "all verdicts are in");

        let (before, after) = (old.snapshot(), new.snapshot());
        for (before, after) in
            before.pools().flat_map(Pool::upstreams).zip(after.pools().flat_map(Pool::upstreams))
        {
            let (before, after) = (&before.state, &after.state);
            assert_eq!(after.load.latency(), before.load.latency());
            assert!((after.load.multiplier() / before.load.multiplier() - 1.0).abs() < 0.01);
            assert_eq!(after.verdict.health(), before.verdict.health());
            let now = new.now();
            assert_eq!(after.ejection.state(now), before.ejection.state(now));
            assert_eq!(after.metrics.requests(Class::Success), 50);
        }
        let slow = &after.pool_named("app").unwrap().upstreams()[1].state;
        assert!(slow.load.multiplier() > 1.5, "{}", slow.load.multiplier());
        assert!(matches!(slow.ejection.state(new.now()), EjectionState::Ejected { .. }));
    }

    /// An upgrade is no reason to forgive, nor to forget what is odd.
    #[test]
    fn a_successor_knows_who_flaps_and_which_alarms_stand() {
        let epoch = Instant::now();
        let old = runtime(TWO, epoch);
        let alarm = r#"{"kind": "starved", "since": {"at_ms": 7}, "detail": "nobody asks it"}"#;
        let memory = format!(r#"{{"eligible_since_ms": 0, "raised": [{alarm}, {{"kind": "moody"}}]}}"#);
        let memory: AlarmsMemory = serde_json::from_str(&memory).unwrap();
        {
            let snapshot = old.snapshot();
            let state = &snapshot.pool_named("app").unwrap().upstreams()[0].state;
            (0..6).for_each(|_| state.flapping.went_down(old.now()));
            state.verdict.observe(false, 1, 1);
            state.set_passes_needed(Some(16));
            state.alarms.go_on(&memory, Some(1));
        }
        let of = |text: &str| {
            let new = runtime(text, epoch);
            new.inherit(sent(&old.legacy()), &[]);
            let snapshot = new.snapshot();
            let pool = snapshot.pool_named("app").unwrap();
            let state = pool.upstreams()[0].state.clone();
            assert_eq!((state.flapping.passes_needed(2, new.now()), state.passes_needed()), (16, Some(16)));
            let raised: Vec<_> = state.alarms.raised().iter().map(|alarm| alarm.kind.word()).collect();
            assert_eq!(raised, ["starved"], "as far as it is understood");
            format!("{:?}", state.alarms.memory())
        };
        assert!(of(TWO).contains("eligible_since_ms: Some(0)"), "{}", of(TWO));
        assert!(of(&TWO.replace("latency_weighted", "random_two")).contains("eligible_since_ms: None"));
    }

    #[test]
    fn what_is_finished_later_is_counted_once() {
        let epoch = Instant::now();
        let (old, new) = (runtime(TWO, epoch), runtime(TWO, epoch));
        learn(&old);
        let first = old.legacy();
        new.inherit(sent(&first), &[]);
        assert!(old.legacy().since(&first).is_empty());

        old.snapshot().pool_named("app").unwrap().upstreams()[0].state.metrics.attempt_finished(Some(502));
        new.count(&sent(&old.legacy().since(&first)));
        let metrics = |runtime: &Runtime| {
            let snapshot = runtime.snapshot();
            let state = &snapshot.pool_named("app").unwrap().upstreams()[0].state;
            (state.metrics.requests(Class::Success), state.metrics.requests(Class::ServerError))
        };
        assert_eq!(metrics(&new), (50, 1));
    }

    /// The other process may be of another version, and run another configuration.
    #[test]
    fn what_is_not_known_is_left_out() {
        let epoch = Instant::now();
        let old = runtime(TWO, epoch);
        learn(&old);
        let other = TWO.replace("127.0.0.1:9001", "127.0.0.1:9002");
        let new = runtime(&other, epoch);
        assert!(!new.inherit(sent(&old.legacy()), &[]), "one was never asked");

        let strange = r#"{"ghosts": {"a": 1}, "pools": {"app": {"upstreams": {"127.0.0.1:9001": {"health": "dizzy", "learned": {"luck": 7}}}}}}"#;
        let new = runtime(TWO, epoch);
        assert!(!new.inherit(serde_json::from_str(strange).unwrap(), &[]));
    }
}
