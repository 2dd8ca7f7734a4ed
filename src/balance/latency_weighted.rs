//! Fewest requests in flight, times what was learned of each upstream's speed.
//!
//! `least_connections` with one more factor, which the [`Tuner`](super::Tuner) learns when it is told that
//! this is the strategy: how much slower than the pool an upstream is, with the part that our own load adds
//! divided out (`ALGORITHMS.md` §5). So a slow upstream gets what it can bear, and the loop does not swing.

use super::cheapest::Cheapest;
use super::turns::Turns;
use super::{Candidate, Pick};

/// See the [module documentation](self).
#[derive(Debug)]
pub struct LatencyWeighted(Cheapest);

impl LatencyWeighted {
    /// For upstreams with these weights, in pool order; ties begin at turn `start`.
    pub fn new(weights: &[u16], start: u64) -> Self {
        Self(Cheapest::new(weights, start))
    }

    /// Returns the cheapest of those looked at: all of a small pool, four and one of a large.
    pub fn pick<C: Candidate>(&self, candidates: &[C], pick: Pick<'_>) -> Option<usize> {
        self.0.pick(candidates, pick)
    }

    pub(super) const fn turns(&self) -> &Turns {
        self.0.turns()
    }
}
