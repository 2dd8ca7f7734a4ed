//! A group of equal upstreams: picks one, and learns from what came of it.

use std::any::Any;
use std::ops::Range;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use super::noted::{EjectionNote, Readmission};
use super::queue::Queue;
use super::seldom::Seldom;
use super::{Lease, Upstream, UpstreamState};
use crate::balance::{Pick, Strategy, StrategyKind, Tried, Tuner, hash};
use crate::config::{PoolConfig, UpstreamAddress};
use crate::health::{EjectionGate, WhyNot, may_eject};
use crate::observe::PoolMetrics;
use crate::retry::Budget;

/// How often a pick starts anew because another thread took the trial request of an upstream that
/// comes back; each further one needs another such coincidence.
const PICKS_LOST_MAX: usize = 4;

/// One pool of one snapshot.
pub struct Pool {
    /// As configured.
    pub config: Arc<PoolConfig>,
    /// The generation in which the pool became what it is; a change elsewhere leaves it as it was.
    pub since: u64,
    /// Primaries first, backups after them.
    pub(super) upstreams: Vec<Upstream>,
    /// Primaries, then backups; the second is asked only when the first has nobody.
    pub(super) tiers: [Tier; 2],
    /// Tells connections of this pool from those of others, and from those that it had under another trust,
    /// client certificate or protocol.
    pub key: u64,
    /// See [`Pool::kept`].
    pub(super) kept: OnceLock<Arc<dyn Any + Send + Sync>>,
    /// Shared with every snapshot that has a pool of this name.
    pub state: Arc<PoolState>,
}

/// Upstreams that are chosen among by one strategy.
pub(super) struct Tier {
    pub range: Range<usize>,
    pub weights: Vec<u16>,
    pub strategy: Strategy,
}

/// What an upstream is to `consistent_hash`: the same wherever its address is.
pub fn identity_of(address: &UpstreamAddress) -> u64 {
    hash(address.to_string().as_bytes())
}

/// A strategy for `members`, who are known to it by their addresses.
pub(super) fn lay_out(kind: StrategyKind, weights: &[u16], members: &[Upstream], random: u64) -> Strategy {
    let identities: Vec<u64> = members.iter().map(|upstream| identity_of(&upstream.config.address)).collect();
    Strategy::identified(kind, weights, &identities, random)
}

/// What a pool has learned; found again by name in every reload.
#[derive(Default)]
pub struct PoolState {
    /// Retries that may still be made.
    pub budget: Budget,
    /// Requests that wait for room.
    pub queue: Queue,
    /// Counters.
    pub metrics: PoolMetrics,
    pub(super) tuners: Mutex<[Tuner; 2]>,
    ejecting: EjectionGate,
    readmitting: Seldom,
    minute: Mutex<Option<Minute>>,
}

/// What all upstreams of a pool had to do in the minute before.
#[derive(Clone, Copy)]
struct Minute {
    seen_at: Duration,
    attempts: u64,
}

/// A minute's traffic is added up at most so often: when thousands of upstreams go down together, each asks.
const MINUTE_RENEWED_AFTER: Duration = Duration::from_secs(1);

/// Upstreams that one request has tried, per tier.
pub type Tiers = [Tried; 2];

/// An upstream that was picked; its request counts as in flight from here on.
pub struct Chosen {
    /// Index into [`Pool::upstreams`].
    pub index: usize,
    /// Gives the count back when dropped.
    pub lease: Lease,
}

/// Why nobody was picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoPick {
    /// Somebody would be eligible, were it not for `max_connections`.
    Full,
    /// Nobody is eligible yet, but somebody's first health check is under way.
    Unchecked,
    /// Nobody is eligible who was not tried already.
    Nobody,
}

impl Pool {
    /// All upstreams, primaries first.
    pub fn upstreams(&self) -> &[Upstream] {
        &self.upstreams
    }

    /// What the engine makes of the settings of this pool: made once, and kept as long as they stay. `None`
    /// when something of another type is kept.
    pub fn kept<T: Any + Send + Sync>(&self, make: impl FnOnce() -> T) -> Option<Arc<T>> {
        self.kept.get_or_init(|| Arc::new(make())).clone().downcast().ok()
    }

    /// Picks an upstream that is eligible and untried, and takes a lease on it.
    ///
    /// When only ejected ones are left, they are readmitted: traffic's suspicion must not turn a
    /// pool that might answer into one that does not.
    ///
    /// # Errors
    ///
    /// See [`NoPick`].
    pub fn pick(&self, now: Duration, hash: u64, random: u64, tried: &mut Tiers) -> Result<Chosen, NoPick> {
        for _ in 0..PICKS_LOST_MAX {
            let found = self.pick_index(now, hash, random, tried).or_else(|| {
                self.readmit_ejected(now, tried).then(|| self.pick_index(now, hash, random, tried)).flatten()
            });
            let Some((tier, offset)) = found else { return Err(self.why_nobody(now, tried)) };
            if let Some(chosen) = self.take(tier, offset, now, tried) {
                return Ok(chosen);
            }
        }
        Err(NoPick::Nobody)
    }

    /// `None` when another thread was faster, an operator's among them.
    fn take(&self, tier: usize, offset: usize, now: Duration, tried: &mut Tiers) -> Option<Chosen> {
        let index = self.tiers.get(tier)?.range.start + offset;
        let state = &self.upstreams.get(index)?.state;
        let lease = Lease::take(state, &self.state, now)?;
        if state.is_closed() {
            return None;
        }
        tried.get_mut(tier)?.insert(offset);
        Some(Chosen { index, lease })
    }

    /// Which upstream [`Pool::pick`] would choose with the strategy `kind`, for those who only look: it
    /// works on a copy, so it takes nobody's turn.
    pub fn preview(&self, kind: StrategyKind, now: Duration, hash: u64, random: u64) -> Option<usize> {
        self.tiers.iter().zip(&Tiers::default()).find_map(|(tier, tried)| {
            let candidates = self.upstreams.get(tier.range.clone())?;
            let copy = lay_out(kind, &tier.weights, candidates, random);
            copy.carry_over(&tier.strategy);
            let offset = copy.pick(candidates, Pick { now, hash, random, tried })?;
            Some(tier.range.start + offset)
        })
    }

    fn pick_index(&self, now: Duration, hash: u64, random: u64, tried: &Tiers) -> Option<(usize, usize)> {
        self.tiers.iter().zip(tried).enumerate().find_map(|(number, (tier, tried))| {
            let candidates = self.upstreams.get(tier.range.clone())?;
            let pick = Pick { now, hash, random, tried };
            tier.strategy.pick(candidates, pick).map(|offset| (number, offset))
        })
    }

    /// The upstreams that this request has not tried, backups included.
    fn untried<'a>(&'a self, tried: &'a Tiers) -> impl Iterator<Item = &'a Upstream> {
        self.tiers.iter().zip(tried).flat_map(|(tier, tried)| {
            let candidates = self.upstreams.get(tier.range.clone()).unwrap_or_default();
            let untried = candidates.iter().enumerate().filter(|(offset, _)| !tried.contains(*offset));
            untried.map(|(_, upstream)| upstream)
        })
    }

    /// Whether somebody who was not tried may take a request.
    pub fn has_untried(&self, now: Duration, tried: &Tiers) -> bool {
        self.untried(tried).any(|upstream| upstream.eligibility(now).is_ok())
    }

    /// Lets a request try this upstream again, because the last attempt never reached it.
    pub fn forget_tried(&self, index: usize, tried: &mut Tiers) {
        for (tier, tried) in self.tiers.iter().zip(tried) {
            if tier.range.contains(&index) {
                tried.remove(index - tier.range.start);
            }
        }
    }

    fn why_nobody(&self, now: Duration, tried: &Tiers) -> NoPick {
        let somebody_is = |why| self.untried(tried).any(|upstream| upstream.eligibility(now) == Err(why));
        if somebody_is(WhyNot::Full) {
            NoPick::Full
        } else if somebody_is(WhyNot::Unchecked) {
            NoPick::Unchecked
        } else {
            NoPick::Nobody
        }
    }

    fn readmit_ejected(&self, now: Duration, tried: &Tiers) -> bool {
        let mut readmitted = 0;
        for upstream in self.untried(tried) {
            let why_not = upstream.eligibility(now).err();
            if matches!(why_not, Some(WhyNot::Ejected | WhyNot::Probation)) {
                upstream.state.readmit(Readmission::NobodyElse, now);
                readmitted += 1;
            }
        }
        if readmitted > 0
            && let Some(withheld) = self.state.readmitting.tell(now)
        {
            tracing::warn!(pool = %self.config.name, readmitted, withheld, "ejected upstreams readmitted, nobody else is eligible");
        }
        readmitted > 0
    }

    /// The attempt of `lease` at `upstream` failed in a way that is the upstream's doing.
    pub fn record_failure(&self, upstream: &Upstream, lease: &mut Lease, now: Duration) {
        let Some(ticket) = lease.take_ticket() else { return };
        let state = &upstream.state;
        state.load.failed(now);
        let Some(policy) = &self.config.ejection else { return state.ejection.abandoned(ticket) };
        let deciding = self.state.ejecting.try_enter();
        let has_room = || deciding.is_some() && self.has_room_to_eject(upstream, now);
        let ejected = state.ejection.failed(ticket, now, policy, has_room);
        if let Some(ejected) = ejected {
            state.metrics.ejected();
            state.telling.note(EjectionNote::Ejected(ejected), now);
            // In a pool of which nobody is well, ejections are taken back and begin anew with every few requests.
            let Some(withheld) = state.telling.ejecting.tell(now) else { return };
            tracing::warn!(
                pool = %self.config.name,
                upstream = %state.address,
                consecutive_failures = ejected.consecutive_failures,
                ejected_for_s = ejected.for_how_long.as_secs_f64(),
                withheld,
                "upstream ejected"
            );
        }
    }

    /// `upstream` answered, and its answer says nothing against it. `latency` is the time to the
    /// first byte, when that says something about its speed.
    pub fn record_success(
        &self,
        upstream: &Upstream,
        lease: &mut Lease,
        latency: Option<Duration>,
        now: Duration,
    ) {
        let Some(ticket) = lease.take_ticket() else { return };
        let state = &upstream.state;
        match latency {
            Some(latency) => state.load.succeeded(now, latency, lease.in_flight),
            None => state.load.progressed(now),
        }
        if state.ejection.succeeded(ticket, now) {
            state.load.readmitted(now);
            state.telling.note(EjectionNote::Readmitted(Readmission::DidWell), now);
            tracing::info!(pool = %self.config.name, upstream = %state.address, "upstream readmitted");
        }
    }

    /// The share of an upstream in the attempts of the minute before, 0 to 1; `None`: there were none.
    pub fn share_of(&self, state: &UpstreamState, now: Duration) -> Option<f64> {
        let own = state.metrics.attempts_in_a_minute(now);
        let all = self.attempts_in_a_minute(own, now);
        (all > 0).then(|| (own as f64 / all as f64).min(1.0))
    }

    /// At least as many as the ones that are known already.
    fn attempts_in_a_minute(&self, known: u64, now: Duration) -> u64 {
        let Ok(mut minute) = self.state.minute.lock() else { return 0 };
        let is_fresh = |minute: &&mut Minute| {
            minute.attempts >= known && now.saturating_sub(minute.seen_at) < MINUTE_RENEWED_AFTER
        };
        if let Some(minute) = minute.as_mut().filter(is_fresh) {
            return minute.attempts;
        }
        let of = |upstream: &Upstream| upstream.state.metrics.attempts_in_a_minute(now);
        let attempts = self.upstreams.iter().map(of).sum();
        *minute = Some(Minute { seen_at: now, attempts });
        attempts
    }

    /// Whether the pool can do without one more: within `max_ejected`, and never the last eligible one.
    fn has_room_to_eject(&self, upstream: &Upstream, now: Duration) -> bool {
        let Some(policy) = &self.config.ejection else { return false };
        let out = self.upstreams.iter().filter(|other| other.state.ejection.is_out()).count();
        let is_other = |other: &&Upstream| !Arc::ptr_eq(&other.state, &upstream.state);
        let mut others = self.upstreams.iter().filter(is_other);
        others.any(|other| other.eligibility(now).is_ok()) && may_eject(policy, self.upstreams.len(), out)
    }

    /// Folds what was measured since the last tick into what the strategies go by; every
    /// [`balance::TICK`](crate::balance::TICK).
    pub fn tick(&self, now: Duration) {
        let Ok(mut tuners) = self.state.tuners.lock() else { return };
        for (tuner, tier) in tuners.iter_mut().zip(&self.tiers) {
            let candidates = self.upstreams.get(tier.range.clone()).unwrap_or_default();
            if !candidates.is_empty() {
                tuner.tick(candidates, &tier.weights, self.config.strategy, self.config.slow_start, now);
            }
        }
    }

    /// Whether half of the others may take requests, so that one that flaps can be held back.
    pub fn can_do_without(&self, state: &UpstreamState, now: Duration) -> bool {
        let is_other = |other: &&Upstream| !std::ptr::eq(&raw const *other.state, state);
        let others = self.upstreams.iter().filter(is_other);
        let (eligible, all) = others.fold((0, 0), |(eligible, all), other| {
            (eligible + usize::from(other.eligibility(now).is_ok()), all + 1)
        });
        eligible > 0 && eligible * 2 >= all
    }

    /// Upstreams that may take a request at `now`.
    pub fn eligible(&self, now: Duration) -> usize {
        self.upstreams.iter().filter(|upstream| upstream.eligibility(now).is_ok()).count()
    }
}
