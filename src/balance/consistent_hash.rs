//! The same key to the same upstream, as long as that one is not overloaded.
//!
//! Consistent hashing with bounded loads (Mirrokni, Thorup and others 2016; `hash-balance-factor` elsewhere):
//! nobody takes more than 1.25 times its part of the requests in flight; what is beyond goes to the next
//! upstream in the key's own order. p99 of 28.6 ms where a plain ring times out, with 67 % of the requests
//! at home (`ALGORITHMS.md` §6).

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use super::alias_table::AliasTable;
use super::randoms::{Randoms, falls_below, mix};
use super::ring::Ring;
use super::{Candidate, Pick};

/// See the [module documentation](self).
#[derive(Debug)]
pub struct ConsistentHash {
    ring: Ring,
    draws: AliasTable,
    weights: Box<[u16]>,
    identities: Box<[u64]>,
    census: Census,
}

/// How many requests are in flight, and on how much weight; only their ratio matters.
///
/// Small pools are counted for each pick. In larger ones each pick counts a few upstreams, the next ones
/// round the pool, and when enough are counted the sum replaces the one before. Threads may count in each
/// other's way: then somebody is counted twice or not at all, once, and the ratio hardly moves.
#[derive(Debug)]
#[repr(align(64))]
struct Census {
    /// Where to go on counting.
    next: AtomicUsize,
    /// The sum so far, and the last complete one; see [`Count::packed`].
    sum: AtomicU64,
    complete: AtomicU64,
}

/// Requests in flight, and the weight of the upstreams that may take them.
#[derive(Clone, Copy, Default)]
struct Count {
    in_flight: u64,
    weight: u64,
}

impl ConsistentHash {
    /// Lays out the ring for upstreams with these weights, in pool order, each with a lasting identity.
    pub fn new(weights: &[u16], identities: &[u64]) -> Self {
        Self {
            ring: Ring::new(weights, identities),
            draws: AliasTable::new(weights),
            weights: weights.into(),
            identities: identities.into(),
            census: Census::new(),
        }
    }

    /// Returns the first upstream in the order of the key that may serve and has room. When those next in
    /// order are all full, one with room is drawn; when none is found, the first that may serve takes it:
    /// bounded load spreads, it does not refuse.
    pub fn pick<C: Candidate>(&self, candidates: &[C], pick: Pick<'_>) -> Option<usize> {
        let count = self.census.take(candidates, &self.weights, pick.now);
        let mut home = None;
        for (step, index) in self.ring.from(pick.hash).take(WALK_MAX).enumerate() {
            if step >= WALK_FOR_ROOM && home.is_some() {
                break;
            }
            let Some(candidate) = pick.allowed(candidates, index) else { continue };
            home = home.or(Some(index));
            if self.has_room(candidate, index, count) && self.is_warm(candidate, index, pick.hash) {
                return Some(index);
            }
        }
        match home {
            Some(_) => self.draw_with_room(candidates, pick, count).or(home),
            None => self.nearest(candidates, pick),
        }
    }

    /// A key so hot that it fills everybody it meets in its order is spread over the rest at random.
    fn draw_with_room<C: Candidate>(&self, candidates: &[C], pick: Pick<'_>, count: Count) -> Option<usize> {
        let mut randoms = Randoms::new(pick.random);
        (0..DRAWS_MAX).filter_map(|_| self.draws.draw(randoms.next())).find(|&index| {
            pick.allowed(candidates, index).is_some_and(|candidate| self.has_room(candidate, index, count))
        })
    }

    /// Whether one more stays within [`BOUND`] of the upstream's part.
    fn has_room<C: Candidate>(&self, candidate: &C, index: usize, count: Count) -> bool {
        let in_flight = candidate.load().in_flight();
        let weight = f64::from(self.weights.get(index).copied().unwrap_or(0));
        let part = weight / count.weight.max(1) as f64;
        in_flight == 0 || f64::from(in_flight) < (BOUND * (count.in_flight + 1) as f64 * part).ceil()
    }

    /// An upstream that warms up takes a part of its keys, more and more of them and always the same ones.
    fn is_warm<C: Candidate>(&self, candidate: &C, index: usize, key: u64) -> bool {
        let ramp = candidate.load().ramp();
        ramp >= 1.0 || falls_below(self.affinity(index, key), ramp)
    }

    /// When nearly everybody is down: who is nearest to the key of all that may serve (highest random
    /// weight), again always the same one.
    fn nearest<C: Candidate>(&self, candidates: &[C], pick: Pick<'_>) -> Option<usize> {
        (0..self.weights.len())
            .filter(|&index| self.weights.get(index).is_some_and(|&weight| weight > 0))
            .filter(|&index| pick.allowed(candidates, index).is_some())
            .max_by(|&a, &b| self.distance(a, pick.hash).total_cmp(&self.distance(b, pick.hash)).reverse())
    }

    /// Exponentially distributed with the weight as rate: the smallest is each upstream's in proportion.
    fn distance(&self, index: usize, key: u64) -> f64 {
        let fraction = ((self.affinity(index, key) >> 11) as f64 + 0.5) / 9_007_199_254_740_992.0;
        -fraction.ln() / f64::from(self.weights.get(index).copied().unwrap_or(1).max(1))
    }

    fn affinity(&self, index: usize, key: u64) -> u64 {
        mix(key ^ mix(self.identities.get(index).copied().unwrap_or(0)))
    }
}

impl Census {
    const fn new() -> Self {
        Self { next: AtomicUsize::new(0), sum: AtomicU64::new(0), complete: AtomicU64::new(0) }
    }

    fn take<C: Candidate>(&self, candidates: &[C], weights: &[u16], now: Duration) -> Count {
        if candidates.len() <= COUNT_ALL_MAX {
            return Count::of(candidates.iter().zip(weights), now);
        }
        let from = self.next.load(Ordering::Relaxed);
        let some = candidates.iter().zip(weights).skip(from).take(BLOCK);
        let sum = self.sum.load(Ordering::Relaxed).wrapping_add(Count::of(some, now).packed());
        let next = if from + BLOCK < candidates.len() { from + BLOCK } else { 0 };
        self.next.store(next, Ordering::Relaxed);
        self.publish(sum, next % COUNT_MAX == 0)
    }

    /// Plain loads and stores: a locked addition would hold up all loads of the pick.
    fn publish(&self, sum: u64, complete: bool) -> Count {
        self.sum.store(if complete { 0 } else { sum }, Ordering::Relaxed);
        let last = self.complete.load(Ordering::Relaxed);
        if complete {
            self.complete.store(sum, Ordering::Relaxed);
        }
        // Before the first count is complete, what there is of it.
        Count::unpacked(if complete || last == 0 { sum } else { last })
    }
}

impl Count {
    fn of<'a, C: Candidate + 'a>(pairs: impl Iterator<Item = (&'a C, &'a u16)>, now: Duration) -> Self {
        pairs.filter(|(candidate, _)| candidate.is_eligible(now)).fold(
            Self::default(),
            |sum, (candidate, &weight)| Self {
                in_flight: sum.in_flight + u64::from(candidate.load().in_flight()),
                weight: sum.weight + u64::from(weight),
            },
        )
    }

    /// Both in one number, so that they never come apart.
    const fn packed(self) -> u64 {
        (self.in_flight << WEIGHT_BITS).wrapping_add(self.weight)
    }

    const fn unpacked(packed: u64) -> Self {
        Self { in_flight: packed >> WEIGHT_BITS, weight: packed & ((1 << WEIGHT_BITS) - 1) }
    }
}

/// How far above its part of the requests in flight an upstream may be (`ALGORITHMS.md` §6).
const BOUND: f64 = 1.25;

/// Points looked at in the order of the key, for an upstream with room.
const WALK_FOR_ROOM: usize = 32;

/// Points looked at for an upstream that may serve at all, before all are looked at.
const WALK_MAX: usize = 512;

/// Draws for one with room after that. At most 4/5 of the weight is full at this bound, so that 32 in a row
/// are full once in a thousand times.
const DRAWS_MAX: usize = 32;

/// Pools up to here are counted for each pick.
const COUNT_ALL_MAX: usize = 32;

/// Upstreams counted by one pick in larger pools.
const BLOCK: usize = 4;

/// Upstreams after which a count is complete: of a larger pool, enough to know the mean to a few per cent.
const COUNT_MAX: usize = 256;

/// 2²⁸ is the weight of 4 096 upstreams of 65 535, far more than a count has; 36 bits are left for requests.
const WEIGHT_BITS: u32 = 28;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::testing::{Fake, attempt, pool};

    fn strategy(size: usize) -> ConsistentHash {
        let identities: Vec<u64> = (0_u64..).take(size).map(mix).collect();
        ConsistentHash::new(&vec![1; size], &identities)
    }

    fn homes(strategy: &ConsistentHash, pool: &[Fake]) -> Vec<Option<usize>> {
        (0..10_000).map(|key| strategy.pick(pool, attempt(key))).collect()
    }

    fn count(homes: &[Option<usize>], index: usize) -> usize {
        homes.iter().filter(|&&home| home == Some(index)).count()
    }

    #[test]
    fn a_key_stays_where_it_is() {
        let pool = pool(10);
        let (one, other) = (strategy(10), strategy(10));
        assert_eq!(homes(&one, &pool), homes(&other, &pool));
    }

    #[test]
    fn one_of_ten_down_moves_a_tenth_of_the_keys() {
        let (strategy, pool) = (strategy(10), pool(10));
        let before = homes(&strategy, &pool);
        pool[4].become_eligible(false);
        let after = homes(&strategy, &pool);

        let moved = before.iter().zip(&after).filter(|(before, after)| before != after).count();
        assert_eq!(moved, count(&before, 4), "keys moved that were not at the dead upstream");
        assert!((750..1_300).contains(&moved), "{moved}");
        assert_eq!(count(&after, 4), 0);
        let heirs = (0..10).filter(|&index| count(&after, index) > count(&before, index)).count();
        assert_eq!(heirs, 9, "all others inherit");
    }

    #[test]
    fn nobody_takes_more_than_a_quarter_above_its_part() {
        for size in [3_usize, 20, 64] {
            let (strategy, pool) = (strategy(size), pool(size));
            for number in (0_u64..).take(30 * size) {
                let same_key = Pick { hash: 77, ..attempt(number) };
                let chosen = strategy.pick(&pool, same_key).unwrap_or(0);
                pool[chosen].load().begin(Duration::ZERO);
            }
            let most = pool.iter().map(|fake| fake.load().in_flight()).max().unwrap_or(0);
            // In a large pool the count lags by a block's turn.
            assert!(most <= 39, "{most} of 30 on average among {size}");
        }
    }

    #[test]
    fn a_free_upstream_keeps_its_key_however_busy_the_pool() {
        let strategy = strategy(40);
        let pool: Vec<Fake> = (0..40).map(|_| Fake::eligible().with_in_flight(3)).collect();
        let (first, second) = (homes(&strategy, &pool), homes(&strategy, &pool));
        assert_eq!(first, second);
    }

    #[test]
    fn who_warms_up_takes_some_keys_and_always_the_same() {
        let (strategy, pool) = (strategy(4), pool(4));
        let warm = homes(&strategy, &pool);
        pool[2].load().warm_up(Duration::ZERO);
        let cold = homes(&strategy, &pool);
        let part = count(&cold, 2) as f64 / count(&warm, 2) as f64;
        assert!((0.06..0.14).contains(&part), "{part}");
        assert_eq!(homes(&strategy, &pool), cold);
    }

    #[test]
    fn the_last_ones_alive_share_the_keys_for_good() {
        let pool: Vec<Fake> = (0..5_000).map(|index| Fake::that_is(index == 17 || index == 4_000)).collect();
        let strategy = strategy(5_000);
        let keys = || (0..200).map(|key| strategy.pick(&pool, attempt(key))).collect::<Vec<_>>();
        let chosen = keys();
        assert_eq!(chosen, keys());
        assert!((60..140).contains(&count(&chosen, 17)) && count(&chosen, 17) + count(&chosen, 4_000) == 200);
    }

    #[test]
    fn the_census_of_a_large_pool_comes_round() {
        let pool: Vec<Fake> = (0..100).map(|_| Fake::eligible().with_in_flight(2)).collect();
        let census = Census::new();
        let last = (0..25).map(|_| census.take(&pool, &[3; 100], Duration::ZERO)).last().unwrap_or_default();
        assert_eq!((last.in_flight, last.weight), (200, 300));
        pool[99].become_eligible(false);
        pool[0].load().end();
        let last = (0..25).map(|_| census.take(&pool, &[3; 100], Duration::ZERO)).last().unwrap_or_default();
        assert_eq!((last.in_flight, last.weight), (197, 297));
    }
}
