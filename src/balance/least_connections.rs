//! Fewest requests in flight, by weight.
//!
//! The sensible choice where requests differ in cost, or upstreams in speed. Upstreams that fail more than
//! the pool, have stalled, or are warming up count as busier than they are (`ALGORITHMS.md` §3 and §4): a
//! plain count would send everything to the one that fails at once.

use super::cheapest::Cheapest;
use super::turns::Turns;
use super::{Candidate, Pick};

/// See the [module documentation](self).
#[derive(Debug)]
pub struct LeastConnections(Cheapest);

impl LeastConnections {
    /// For upstreams with these weights, in pool order; ties begin at turn `start`.
    pub fn new(weights: &[u16], start: u64) -> Self {
        Self(Cheapest::new(weights, start))
    }

    /// Returns the least busy of those looked at: all of a small pool, four and one of a large.
    pub fn pick<C: Candidate>(&self, candidates: &[C], pick: Pick<'_>) -> Option<usize> {
        self.0.pick(candidates, pick)
    }

    pub(super) const fn turns(&self) -> &Turns {
        self.0.turns()
    }
}
