//! The better of two, drawn by weight.
//!
//! For pools that very many proxies share: where each sees little of the whole, the least busy of all is
//! the least busy for all of them, and they would rush there together (Mitzenmacher 2001).

use super::alias_table::{AliasTable, draw_allowed};
use super::cheapest::units;
use super::randoms::Randoms;
use super::{Candidate, Pick};

/// See the [module documentation](self).
#[derive(Debug)]
pub struct RandomTwo {
    draws: AliasTable,
    /// What a request weighs on each upstream.
    units: Box<[f32]>,
    weights: Box<[u16]>,
}

impl RandomTwo {
    /// For upstreams with these weights, in pool order.
    pub fn new(weights: &[u16]) -> Self {
        Self { draws: AliasTable::new(weights), units: units(weights), weights: weights.into() }
    }

    /// Draws two different upstreams that may serve and returns the one with the smaller load, the first
    /// drawn when they are equal. Takes one when there is only one.
    pub fn pick<C: Candidate>(&self, candidates: &[C], pick: Pick<'_>) -> Option<usize> {
        let mut randoms = Randoms::new(pick.random);
        let mut first = None;
        for draws in 0..DRAWS_MAX {
            if draws >= DRAWS_FOR_TWO && first.is_some() {
                break;
            }
            let drawn = self.draws.draw(randoms.next())?;
            if first == Some(drawn) || pick.allowed(candidates, drawn).is_none() {
                continue;
            }
            match first {
                None => first = Some(drawn),
                Some(first) => return Some(self.better(candidates, first, drawn)),
            }
        }
        first.or_else(|| draw_allowed(&self.weights, candidates, pick, randoms.next()))
    }

    fn better<C: Candidate>(&self, candidates: &[C], first: usize, second: usize) -> usize {
        if self.cost(candidates, second) < self.cost(candidates, first) { second } else { first }
    }

    /// Load, failures and slow start; neither latency nor stalls (`ALGORITHMS.md` §6).
    fn cost<C: Candidate>(&self, candidates: &[C], index: usize) -> f32 {
        match (candidates.get(index), self.units.get(index)) {
            (Some(candidate), Some(&unit)) => candidate.load().cost_of_load(unit),
            _ => f32::INFINITY,
        }
    }
}

/// Draws in search of two that may serve. With half the pool down sixteen find two but once in 4 000.
const DRAWS_FOR_TWO: usize = 16;

/// Draws in search of one, before all are looked at. With nine of ten down that is once in 1 000.
const DRAWS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::testing::{Fake, attempt, pool};

    fn share_of(index: usize, strategy: &RandomTwo, pool: &[Fake]) -> f64 {
        let hits = (0..10_000).filter(|&number| strategy.pick(pool, attempt(number)) == Some(index));
        hits.count() as f64 / 10_000.0
    }

    #[test]
    fn two_choices_look_at_two() {
        let pool = pool(1_000);
        let strategy = RandomTwo::new(&[1; 1_000]);
        for picks in 1..=100 {
            strategy.pick(&pool, attempt(u64::from(picks)));
            assert_eq!(pool.iter().map(Fake::loads_read).sum::<u32>(), 2 * picks);
        }
    }

    #[test]
    fn the_better_of_two_is_really_compared() {
        let pool = [Fake::eligible().with_in_flight(50), Fake::eligible()];
        assert!(share_of(0, &RandomTwo::new(&[1, 1]), &pool) < 0.05);
    }

    #[test]
    fn idle_upstreams_share_by_weight() {
        let share = share_of(0, &RandomTwo::new(&[3, 1, 1, 1]), &pool(4));
        assert!((0.48..0.52).contains(&share), "{share}");
    }

    #[test]
    fn a_lone_upstream_takes_all() {
        let strategy = RandomTwo::new(&[1, 1]);
        let pool = [Fake::down(), Fake::eligible()];
        assert!((0..1_000).all(|number| strategy.pick(&pool, attempt(number)) == Some(1)));
    }

    #[test]
    fn the_last_one_alive_is_found_among_ten_thousand() {
        let pool: Vec<Fake> = (0..10_000).map(|index| Fake::that_is(index == 9_999)).collect();
        let strategy = RandomTwo::new(&vec![1; 10_000]);
        assert!((0..50).all(|number| strategy.pick(&pool, attempt(number)) == Some(9_999)));
    }
}
