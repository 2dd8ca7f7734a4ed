//! What a choice went by, factor by factor, for those who ask why.

use std::time::Duration;

use super::{Load, lightest, unit};

/// What the next request would cost one upstream, and what that is made of.
///
/// `cost` is `load × multiplier ÷ warmth × stall`; the smallest wins where costs are compared
/// (`ALGORITHMS.md` §3). Which of it a strategy goes by is the strategy's affair.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Terms {
    /// Requests sent to the upstream whose last byte has not passed yet.
    pub in_flight: u32,
    /// Those among them that it has not answered at all yet.
    pub waiting: u32,
    /// 1, and what the requests in flight weigh for an upstream of this weight.
    pub load: f32,
    /// What was learned: above 1 is slower than its like, or fails; 1 is usual.
    pub multiplier: f32,
    /// From 0 when cold to 1 when warm.
    pub warmth: f32,
    /// 1, or from 4 upwards once it has been silent for too long while somebody waits.
    pub stall: f32,
    /// All of it together.
    pub cost: f32,
}

/// What a request weighs on the upstreams of one pool: less on the heavier ones.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    lightest: u16,
}

impl Scale {
    /// For upstreams that are chosen among with these weights.
    pub fn of(weights: &[u16]) -> Self {
        Self { lightest: lightest(weights) }
    }

    /// What the next request would cost an upstream of this weight, as of `now`.
    pub fn terms(self, load: &Load, weight: u16, now: Duration) -> Terms {
        load.terms(now, unit(weight, self.lightest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::Tuner;
    use crate::balance::testing::pool;
    use crate::balance::{Candidate, StrategyKind, micros};

    fn product(terms: &Terms) -> f32 {
        terms.load * terms.multiplier / terms.warmth * terms.stall
    }

    /// In every state in which it can be: idle, busy, cold, slow, silent.
    #[test]
    fn the_terms_make_up_the_cost_that_picks_go_by() {
        let (pool, weights, mut tuner) = (pool(3), [1_u16, 2, 4], Tuner::default());
        pool[1].load().warm_up(Duration::ZERO);
        for tick in 0..40_u64 {
            let now = Duration::from_millis(100 * tick);
            for (index, fake) in pool.iter().enumerate() {
                let in_flight = fake.load().begin(now);
                if index != 2 || tick < 20 {
                    let took = Duration::from_millis(5 * (index as u64 + 1));
                    fake.load().succeeded(now + took, took, in_flight);
                    fake.load().end();
                }
            }
            tuner.tick(&pool, &weights, StrategyKind::LatencyWeighted, Duration::from_secs(2), now);
            for (fake, weight) in pool.iter().zip(weights) {
                let terms = Scale::of(&weights).terms(fake.load(), weight, now);
                let cost = fake.load().cost(micros(now), unit(weight, 1));
                assert!((terms.cost - cost).abs() <= cost * 1e-5, "{terms:?} is not {cost}");
                assert!((product(&terms) - cost).abs() <= cost * 1e-5, "{terms:?} is not {cost}");
            }
        }
        let silent = Scale::of(&weights).terms(pool[2].load(), 4, Duration::from_secs(4));
        assert!(silent.stall >= 4.0 && silent.in_flight == 20, "{silent:?}");
    }
}
