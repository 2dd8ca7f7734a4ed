//! Picks one upstream out of a pool, for one request.
//!
//! ```text
//!      weights, health, load                one request
//!               │                                │
//!      &[impl Candidate] ──► Strategy::pick ◄── Pick { now, hash, random, tried }
//!               ▲                  │
//!               │                  ▼
//!          Tuner::tick      Option<usize>   an index into the same slice
//!               ▲                  │
//!               │                  ▼
//!             Load ◄── begin · succeeded | failed | progressed | abandoned · end
//! ```
//!
//! Whatever a strategy needs arrives as an argument: the clock, a random number, the upstreams
//! already tried. So a test can replay any choice, and a pick never allocates, locks, or waits.
//!
//! Two time scales. **Fast**, in every pick: the requests in flight and the time since the upstream
//! last answered, both in its [`Load`]. **Slow**, ten times a second, off the request path: the
//! [`Tuner`] folds what the answers told into one multiplier per upstream.
//!
//! **To add a strategy**: write `src/balance/<name>.rs` after the pattern of [`round_robin`], add a
//! variant to [`StrategyKind`] and [`Strategy`], and follow the compiler to the matches that want an
//! arm.
//!
//! **Invariant**: this room uses `std` and nothing else (floor 0; see `tests/architecture.rs`).

pub mod consistent_hash;
pub mod latency_weighted;
pub mod least_connections;
pub mod random_two;
pub mod round_robin;

mod alias_table;
mod cheapest;
mod float;
mod hash;
mod learned;
mod load;
mod randoms;
mod ring;
mod sums;
mod terms;
#[cfg(test)]
mod testing;
mod tried;
mod tuner;
mod turns;

use std::time::Duration;

use consistent_hash::ConsistentHash;
use latency_weighted::LatencyWeighted;
use least_connections::LeastConnections;
use random_two::RandomTwo;
use round_robin::RoundRobin;
use turns::Turns;

pub use hash::hash;
pub use load::{Estimate, Load};
pub use terms::{Scale, Terms};
pub use tried::{ATTEMPTS_MAX, Tried};
pub use tuner::{TICK, Tuner};

/// What was learned, number by name, so that another process, of another version perhaps, can go on with it.
/// Numbers are finite; what is not known is not named.
pub type Memory = Vec<(&'static str, f64)>;

/// `strategy` of a pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum StrategyKind {
    /// Turns in proportion to the weights, well mixed.
    #[default]
    RoundRobin,
    /// Fewest requests in flight.
    LeastConnections,
    /// Fewest requests in flight, times what was learned of each upstream's speed.
    LatencyWeighted,
    /// The better of two.
    RandomTwo,
    /// The same key to the same upstream, as long as that one is not overloaded.
    ConsistentHash,
}

impl StrategyKind {
    /// All of them, in the order of the documentation.
    pub const ALL: [Self; 5] = [
        Self::RoundRobin,
        Self::LeastConnections,
        Self::LatencyWeighted,
        Self::RandomTwo,
        Self::ConsistentHash,
    ];

    /// The word in the configuration, the API and the metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::RoundRobin => "round_robin",
            Self::LeastConnections => "least_connections",
            Self::LatencyWeighted => "latency_weighted",
            Self::RandomTwo => "random_two",
            Self::ConsistentHash => "consistent_hash",
        }
    }
}

/// What a strategy may know about an upstream.
pub trait Candidate {
    /// What it is doing and how well it did.
    fn load(&self) -> &Load;

    /// Whether the upstream may take a request at `now`: not drained, healthy, and not ejected.
    fn is_eligible(&self, now: Duration) -> bool;
}

/// One choice to make.
#[derive(Clone, Copy, Debug)]
pub struct Pick<'a> {
    /// Monotonic time since the process began.
    pub now: Duration,
    /// [`hash`] of the request's key; read by `consistent_hash` only.
    pub hash: u64,
    /// Fresh random bits, all 64 of them.
    pub random: u64,
    /// Who has failed this request already.
    pub tried: &'a Tried,
}

impl Pick<'_> {
    /// The candidate at `index`, when it may take this request.
    fn allowed<'c, C: Candidate>(&self, candidates: &'c [C], index: usize) -> Option<&'c C> {
        let candidate = candidates.get(index)?;
        let allowed = !self.tried.contains(index) && candidate.is_eligible(self.now);
        allowed.then_some(candidate)
    }
}

/// The rule by which a pool chooses, laid out for its weights.
///
/// Knows the pool's weights and nothing else that lasts: what is known of an upstream is in its
/// [`Load`], which outlives every strategy.
#[derive(Debug)]
pub enum Strategy {
    /// See [`round_robin`].
    RoundRobin(RoundRobin),
    /// See [`least_connections`].
    LeastConnections(LeastConnections),
    /// See [`latency_weighted`].
    LatencyWeighted(LatencyWeighted),
    /// See [`random_two`].
    RandomTwo(RandomTwo),
    /// See [`consistent_hash`].
    ConsistentHash(ConsistentHash),
}

impl Strategy {
    /// Lays out a strategy for upstreams with these weights, in pool order. A weight of 0 is never
    /// picked.
    ///
    /// `start` is where turns begin, drawn at random, or else fifty fresh processes would all send
    /// their first request to the same upstream (ingress-nginx#4023).
    ///
    /// `consistent_hash` then takes an upstream's position for its identity; where positions change
    /// from one build to the next, use [`Strategy::identified`].
    pub fn new(kind: StrategyKind, weights: &[u16], start: u64) -> Self {
        let positions: Vec<u64> = (0_u64..).take(weights.len()).collect();
        Self::identified(kind, weights, &positions, start)
    }

    /// As [`Strategy::new`], with one lasting number per upstream: the [`hash`] of its address.
    ///
    /// With it `consistent_hash` keeps the keys where they are when upstreams come, go, or are
    /// written in another order, and several processes agree on who serves a key.
    pub fn identified(kind: StrategyKind, weights: &[u16], identities: &[u64], start: u64) -> Self {
        match kind {
            StrategyKind::RoundRobin => Self::RoundRobin(RoundRobin::new(weights, start)),
            StrategyKind::LeastConnections => Self::LeastConnections(LeastConnections::new(weights, start)),
            StrategyKind::LatencyWeighted => Self::LatencyWeighted(LatencyWeighted::new(weights, start)),
            StrategyKind::RandomTwo => Self::RandomTwo(RandomTwo::new(weights)),
            StrategyKind::ConsistentHash => Self::ConsistentHash(ConsistentHash::new(weights, identities)),
        }
    }

    /// Which rule this is.
    pub const fn kind(&self) -> StrategyKind {
        match self {
            Self::RoundRobin(_) => StrategyKind::RoundRobin,
            Self::LeastConnections(_) => StrategyKind::LeastConnections,
            Self::LatencyWeighted(_) => StrategyKind::LatencyWeighted,
            Self::RandomTwo(_) => StrategyKind::RandomTwo,
            Self::ConsistentHash(_) => StrategyKind::ConsistentHash,
        }
    }

    /// Chooses one of `candidates`, which stand in the order of the weights given to `new`.
    ///
    /// `None` when nobody with a weight above 0 is eligible and untried; otherwise always somebody.
    /// Takes bounded time whoever is down: a scan of the pool at worst.
    pub fn pick<C: Candidate>(&self, candidates: &[C], pick: Pick<'_>) -> Option<usize> {
        match self {
            Self::RoundRobin(strategy) => strategy.pick(candidates, pick),
            Self::LeastConnections(strategy) => strategy.pick(candidates, pick),
            Self::LatencyWeighted(strategy) => strategy.pick(candidates, pick),
            Self::RandomTwo(strategy) => strategy.pick(candidates, pick),
            Self::ConsistentHash(strategy) => strategy.pick(candidates, pick),
        }
    }

    /// Takes turns from where `previous` stood, so that a rebuild does not begin again with the same
    /// upstream each time (traefik#8787). Call it before the first pick.
    pub fn carry_over(&self, previous: &Self) {
        if let (Some(turns), Some(before)) = (self.turns(), previous.turns()) {
            turns.resume(before);
        }
    }

    fn turns(&self) -> Option<&Turns> {
        match self {
            Self::RoundRobin(strategy) => Some(strategy.turns()),
            Self::LeastConnections(strategy) => Some(strategy.turns()),
            Self::LatencyWeighted(strategy) => Some(strategy.turns()),
            Self::RandomTwo(_) | Self::ConsistentHash(_) => None,
        }
    }
}

/// Microseconds since the process began, the clock of all atomics here: 584 000 years until it wraps.
fn micros(time: Duration) -> u64 {
    time.as_secs().wrapping_mul(1_000_000).wrapping_add(u64::from(time.subsec_micros()))
}

/// Weight of the lightest upstream that takes requests at all.
fn lightest(weights: &[u16]) -> u16 {
    weights.iter().copied().filter(|&weight| weight > 0).min().unwrap_or(1)
}

/// What one request weighs on an upstream, the lightest upstream counting as 1 (`ALGORITHMS.md` §3, `u`).
fn unit(weight: u16, lightest: u16) -> f32 {
    f32::from(lightest) / f32::from(weight.max(1))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::testing::{Fake, attempt, pool};
    use super::{Pick, Strategy, StrategyKind, Tried};

    /// One upstream of a property test: weight, requests in flight, and what speaks against it.
    type Upstream = (u16, u32, bool, bool);

    fn upstreams(sizes: std::ops::Range<usize>) -> impl proptest::strategy::Strategy<Value = Vec<Upstream>> {
        let weight = prop_oneof![Just(0), Just(1), 1_u16..20, Just(u16::MAX)];
        prop::collection::vec((weight, 0_u32..4, any::<bool>(), prop::bool::weighted(0.2)), sizes)
    }

    fn never_wrong_never_late(kind: StrategyKind, upstreams: &[Upstream], seed: u64) {
        let weights: Vec<u16> = upstreams.iter().map(|upstream| upstream.0).collect();
        let pool: Vec<Fake> =
            upstreams.iter().map(|upstream| Fake::that_is(upstream.2).with_in_flight(upstream.1)).collect();
        let mut tried = Tried::new();
        (0..pool.len()).filter(|&index| upstreams[index].3).for_each(|index| tried.insert(index));
        let may = |index: usize| weights[index] > 0 && upstreams[index].2 && !tried.contains(index);

        let strategy = Strategy::new(kind, &weights, seed);
        for number in 0..20 {
            let chosen = strategy.pick(&pool, Pick { tried: &tried, ..attempt(seed.wrapping_add(number)) });
            match chosen {
                Some(index) => assert!(may(index), "{kind:?} chose {index}"),
                None => assert!(!(0..pool.len()).any(may), "{kind:?} found nobody"),
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn somebody_who_may_serve_is_picked_whenever_there_is_one(
            upstreams in upstreams(0..12), seed in any::<u64>(),
        ) {
            for kind in StrategyKind::ALL {
                never_wrong_never_late(kind, &upstreams, seed);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10))]

        #[test]
        fn in_large_pools_too(upstreams in upstreams(33..300), seed in any::<u64>()) {
            for kind in StrategyKind::ALL {
                never_wrong_never_late(kind, &upstreams, seed);
            }
        }
    }

    /// A pool shorter or longer than the weights is a mistake of the caller, but no panic.
    #[test]
    fn weights_that_do_not_match_the_pool_do_no_harm() {
        for kind in StrategyKind::ALL {
            for (weights, candidates) in [(3, 1), (1, 3), (50, 40), (40, 50)] {
                let strategy = Strategy::new(kind, &vec![1; weights], 5);
                let pool = pool(candidates);
                (0..50).filter_map(|number| strategy.pick(&pool, attempt(number))).for_each(|index| {
                    assert!(index < candidates && index < weights, "{kind:?}");
                });
            }
        }
    }

    /// ingress-nginx#4023: after a deployment all proxies sent their first requests to the same upstream.
    #[test]
    fn fifty_fresh_processes_do_not_start_alike() {
        for kind in StrategyKind::ALL {
            let mut firsts = HashMap::new();
            for process in 0..50_u64 {
                let pick = attempt(process);
                let first = Strategy::new(kind, &[1; 5], pick.random).pick(&pool(5), pick);
                *firsts.entry(first).or_insert(0) += 1;
            }
            assert!(firsts.values().all(|&count| count <= 25), "{kind:?}: {firsts:?}");
        }
    }

    /// traefik#8787: with a reload between every two requests all went to the first upstream.
    #[test]
    fn reloading_each_time_still_rotates() {
        let kinds = [StrategyKind::RoundRobin, StrategyKind::LeastConnections, StrategyKind::LatencyWeighted];
        for kind in kinds {
            let pool = pool(4);
            let mut strategy = Strategy::new(kind, &[1; 4], 2);
            let mut served = [0; 4];
            for number in 0..100 {
                served[strategy.pick(&pool, attempt(number)).unwrap_or(0)] += 1;
                let next = Strategy::new(kind, &[1; 4], 0);
                next.carry_over(&strategy);
                strategy = next;
            }
            assert_eq!(served, [25; 4], "{kind:?}");
        }
    }

    #[test]
    fn a_strategy_is_of_the_kind_it_was_made_for() {
        for kind in StrategyKind::ALL {
            assert_eq!(Strategy::new(kind, &[1, 2], 0).kind(), kind);
        }
    }

    #[test]
    fn all_weights_zero_is_nobody() {
        for kind in StrategyKind::ALL {
            assert_eq!(Strategy::new(kind, &[0; 3], 0).pick(&pool(3), attempt(0)), None);
        }
    }
}
