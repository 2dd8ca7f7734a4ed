//! Looks at the upstreams of a pool, every [`SAMPLE`](crate::observe::SAMPLE), and raises and clears alarms.

use std::fmt::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::legacy::known;
use super::{Pool, Upstream};
use crate::balance::{StrategyKind, hash};
use crate::observe::alarm::{Alarm, AlarmKind, Sight, judge};
use crate::observe::timeline::Moment;

/// How long an upstream must be eligible, and its pool as it is, before its share says something: what is counted
/// of a minute must lie within.
const SETTLED_AFTER: Duration = Duration::from_secs(60);

/// Alarms of one upstream, and what must hold for one to be raised.
#[derive(Debug, Default)]
pub struct Alarms(Mutex<Watched>);

#[derive(Debug, Default)]
struct Watched {
    /// In every look since then; `None`: it was not in the last one.
    eligible_since: Option<Duration>,
    /// The pool's generation then: another weight, or neighbour, is another fair share.
    pool_since: u64,
    raised: Vec<Alarm>,
}

/// What a process knows of the alarms of one upstream, for its successor.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct AlarmsMemory {
    /// Milliseconds since the epoch, which is the successor's, too.
    eligible_since_ms: Option<u64>,
    #[serde(deserialize_with = "known")]
    raised: Vec<Alarm>,
}

/// An alarm of one upstream that was raised, or cleared.
#[derive(Clone, Debug)]
pub struct AlarmTurn {
    /// Of which upstream.
    pub address: String,
    /// Which.
    pub alarm: Alarm,
    /// Or else cleared.
    pub is_raised: bool,
}

impl Alarms {
    /// Those that stand.
    pub fn raised(&self) -> Vec<Alarm> {
        self.lock().raised.clone()
    }

    pub(super) fn memory(&self) -> AlarmsMemory {
        let watched = self.lock();
        let eligible_since = watched.eligible_since.and_then(|since| u64::try_from(since.as_millis()).ok());
        AlarmsMemory { eligible_since_ms: eligible_since, raised: watched.raised.clone() }
    }

    /// Goes on where another process was: what stands there stands here, until it is judged. `same_since`: the
    /// generation of a pool that is what it was there; in any other one a fair share is another, so that it has
    /// to settle first.
    pub(super) fn go_on(&self, memory: &AlarmsMemory, same_since: Option<u64>) {
        let mut watched = self.lock();
        watched.raised.clone_from(&memory.raised);
        if let Some(since) = same_since {
            watched.pool_since = since;
            watched.eligible_since = memory.eligible_since_ms.map(Duration::from_millis);
        }
    }

    /// How long the upstream has been eligible without an end, in a pool that stayed as it is.
    fn settle(&self, is_eligible: bool, pool_since: u64, now: Duration) -> Duration {
        let mut watched = self.lock();
        if !is_eligible || watched.pool_since != pool_since {
            watched.eligible_since = is_eligible.then_some(now);
            watched.pool_since = pool_since;
        }
        let since = *watched.eligible_since.get_or_insert(now);
        if is_eligible { now.saturating_sub(since) } else { Duration::ZERO }
    }

    /// Raises and clears by what is seen; without a sight, there is nothing to say.
    fn judge(&self, sight: Option<&Sight>, now: Duration) -> Vec<(Alarm, bool)> {
        let mut watched = self.lock();
        if sight.is_none() && watched.raised.is_empty() {
            return Vec::new();
        }
        let mut turns = Vec::new();
        for kind in AlarmKind::ALL {
            let place = watched.raised.iter().position(|alarm| alarm.kind == kind);
            let detail = sight.and_then(|sight| judge(kind, sight, place.is_some()));
            match (place, detail) {
                (None, Some(detail)) => {
                    let alarm = Alarm { kind, since: Moment::now(now), detail };
                    watched.raised.push(alarm.clone());
                    turns.push((alarm, true));
                }
                (Some(place), None) => turns.push((watched.raised.remove(place), false)),
                _ => {}
            }
        }
        turns
    }

    fn lock(&self) -> MutexGuard<'_, Watched> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What all that are compared have together.
#[derive(Default)]
struct Together {
    weight: f64,
    attempts: u64,
    in_flight: f64,
}

impl Pool {
    /// Compares those that were eligible for a minute; answers which alarms were raised and cleared.
    pub fn judge_upstreams(&self, now: Duration) -> Vec<AlarmTurn> {
        let is_eligible = |upstream: &Upstream| upstream.eligibility(now).is_ok();
        let primaries_serve = self.upstreams().iter().any(|it| !it.config.backup && is_eligible(it));
        let settled_after = SETTLED_AFTER + self.config.slow_start;
        let compared: Vec<(&Upstream, bool)> = self
            .upstreams()
            .iter()
            .map(|it| {
                let serves = is_eligible(it) && !(it.config.backup && primaries_serve);
                (it, it.state.alarms.settle(serves, self.since, now) >= settled_after)
            })
            .collect();
        let mut all = Together::default();
        for (upstream, _) in compared.iter().filter(|(_, is_compared)| *is_compared) {
            all.weight += f64::from(upstream.config.weight);
            all.attempts += upstream.state.metrics.attempts_in_a_minute(now);
            all.in_flight += f64::from(upstream.state.load.in_flight());
        }
        let turns = compared.into_iter().flat_map(|(upstream, is_compared)| {
            let sight = is_compared.then(|| self.sight_of(upstream, &all, now));
            let turns = upstream.state.alarms.judge(sight.as_ref(), now);
            let address = &upstream.state.address;
            turns.into_iter().map(|(alarm, is_raised)| AlarmTurn {
                address: address.to_string(),
                alarm,
                is_raised,
            })
        });
        turns.collect()
    }

    /// The same in every process in which fair shares are the same.
    pub(super) fn fairness(&self) -> u64 {
        let (kind, slow_start) = (self.config.strategy, self.config.slow_start);
        let mut text = format!("{} {}", kind.name(), slow_start.as_millis());
        for upstream in self.upstreams() {
            let (config, mode) = (&upstream.config, upstream.config.mode.word());
            // Writing to a text cannot fail.
            let _ = write!(text, "\n{} {} {} {mode}", upstream.label, config.weight, config.backup);
        }
        hash(text.as_bytes())
    }

    fn sight_of(&self, upstream: &Upstream, all: &Together, now: Duration) -> Sight {
        let (load, kind) = (&upstream.state.load, self.config.strategy);
        let fair_share = f64::from(upstream.config.weight) / all.weight.max(1.0);
        let estimate = load.estimate(now).filter(|_| kind == StrategyKind::LatencyWeighted);
        let is_overdue = estimate.is_some_and(|estimate| estimate.is_relaxed) && load.multiplier() > DEARER;
        let is_fresh = estimate.is_none_or(|estimate| estimate.age <= SETTLED_AFTER || !estimate.is_relaxed);
        Sight {
            attempts: upstream.state.metrics.attempts_in_a_minute(now),
            all_attempts: all.attempts,
            fair_share,
            goes_by_load: !matches!(kind, StrategyKind::RoundRobin | StrategyKind::ConsistentHash),
            is_busier: f64::from(load.in_flight()) > all.in_flight * fair_share,
            is_dearer: load.multiplier() > DEARER && is_fresh,
            estimate_age: estimate.map(|estimate| estimate.age),
            is_overdue,
        }
    }
}

/// Dearer than its like by more than the strategies take for noise.
const DEARER: f32 = 1.05;
