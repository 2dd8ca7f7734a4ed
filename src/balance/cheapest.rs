//! Takes the upstream that costs least: what `least_connections` and `latency_weighted` share.
//!
//! Up to 32 upstreams all are looked at, beginning with the one whose turn it is, so that ties rotate.
//! Beyond, four that are drawn by weight and the runner-up of the pick before, which is nearly as good
//! (Mitzenmacher, Prabhakar, Shah 2002) and reads five cache lines instead of thousands.
//! `ALGORITHMS.md` §3; the cost itself is [`Load::cost`](super::Load).

use std::sync::atomic::{AtomicU32, Ordering};

use super::alias_table::AliasTable;
use super::randoms::{Randoms, scale};
use super::turns::Turns;
use super::{Candidate, Pick, lightest, micros, unit};

/// The pool as the two strategies see it.
#[derive(Debug)]
pub(super) struct Cheapest {
    /// Where a scan begins; empty for pools that are drawn from.
    turns: Turns,
    draws: AliasTable,
    /// What a request weighs on each upstream; 0 where nobody is to be sent.
    units: Box<[f32]>,
    runner_up: RunnerUp,
}

/// Index of the second best of the pick before, or [`NOBODY`]. A hint: threads overwrite each other's.
/// Written by many requests, so in a cache line of its own.
#[derive(Debug)]
#[repr(align(64))]
struct RunnerUp(AtomicU32);

/// The two cheapest so far.
#[derive(Default)]
struct Podium {
    best: Option<(usize, f32)>,
    second: Option<(usize, f32)>,
}

impl Cheapest {
    pub(super) fn new(weights: &[u16], start: u64) -> Self {
        let small = weights.len() <= SCAN_MAX;
        Self {
            turns: Turns::new(if small { weights } else { &[] }, start),
            draws: AliasTable::new(if small { &[] } else { weights }),
            units: units(weights),
            runner_up: RunnerUp(AtomicU32::new(NOBODY)),
        }
    }

    pub(super) fn pick<C: Candidate>(&self, candidates: &[C], pick: Pick<'_>) -> Option<usize> {
        if self.units.len() <= SCAN_MAX {
            let start = self.turns.take_owned().unwrap_or(0);
            return self.scan(candidates, pick, start);
        }
        self.draw(candidates, pick).or_else(|| {
            let start = scale(pick.random, self.units.len() as u64);
            self.scan(candidates, pick, usize::try_from(start).unwrap_or(0))
        })
    }

    pub(super) const fn turns(&self) -> &Turns {
        &self.turns
    }

    /// Looks at all of them, from `start` round to the one before it; of equals the first wins.
    fn scan<C: Candidate>(&self, candidates: &[C], pick: Pick<'_>, start: usize) -> Option<usize> {
        let now_us = micros(pick.now);
        let mut best = None;
        let mut least = f32::INFINITY;
        let (before, after) = self.units.split_at(start.min(self.units.len()));
        let order = (start..).zip(after).chain((0..).zip(before));
        for (index, &unit) in order {
            let Some(candidate) = candidates.get(index).filter(|_| unit > 0.0) else { continue };
            let cost = candidate.load().cost(now_us, unit);
            // `best.is_none()`: an upstream of infinite cost is still better than nobody.
            if (cost < least || best.is_none()) && pick.allowed(candidates, index).is_some() {
                (best, least) = (Some(index), cost);
            }
        }
        best
    }

    /// The cheapest of four drawn ones and the runner-up; `None` when none of them may serve.
    fn draw<C: Candidate>(&self, candidates: &[C], pick: Pick<'_>) -> Option<usize> {
        let mut podium = Podium::default();
        let mut randoms = Randoms::new(pick.random);
        let mut looked = 0;
        for draws in 0..DRAWS_MAX {
            if looked == CHOICES || (draws >= DRAWS_FOR_CHOICES && looked > 0) {
                break;
            }
            let index = self.draws.draw(randoms.next())?;
            looked += usize::from(self.enter(&mut podium, candidates, pick, index));
        }
        let remembered = self.runner_up.recall();
        if let Some(index) = remembered {
            self.enter(&mut podium, candidates, pick, index);
        }
        let second = podium.second.map(|(index, _)| index);
        if second != remembered {
            self.runner_up.remember(second);
        }
        podium.best.map(|(index, _)| index)
    }

    /// Puts the upstream where it belongs on the podium; `false` when it may not serve.
    fn enter<C: Candidate>(
        &self,
        podium: &mut Podium,
        candidates: &[C],
        pick: Pick<'_>,
        index: usize,
    ) -> bool {
        let unit = self.units.get(index).copied().filter(|&unit| unit > 0.0);
        let (Some(unit), Some(candidate)) = (unit, pick.allowed(candidates, index)) else { return false };
        podium.enter(index, candidate.load().cost(micros(pick.now), unit));
        true
    }
}

impl Podium {
    fn enter(&mut self, index: usize, cost: f32) {
        if self.holds(index) {
            return;
        }
        if self.best.is_none_or(|(_, least)| cost < least) {
            self.second = self.best.replace((index, cost));
        } else if self.second.is_none_or(|(_, least)| cost < least) {
            self.second = Some((index, cost));
        }
    }

    fn holds(&self, index: usize) -> bool {
        [self.best, self.second].iter().flatten().any(|&(held, _)| held == index)
    }
}

impl RunnerUp {
    fn recall(&self) -> Option<usize> {
        Some(self.0.load(Ordering::Relaxed)).filter(|&index| index != NOBODY).map(|index| index as usize)
    }

    fn remember(&self, index: Option<usize>) {
        let index = index.and_then(|index| u32::try_from(index).ok()).unwrap_or(NOBODY);
        self.0.store(index, Ordering::Relaxed);
    }
}

/// [`unit`] of each upstream, and 0 for those that take no requests.
pub(super) fn units(weights: &[u16]) -> Box<[f32]> {
    let lightest = lightest(weights);
    weights.iter().map(|&weight| if weight == 0 { 0.0 } else { unit(weight, lightest) }).collect()
}

/// Upstreams up to which all are looked at: about the price of one cache miss (`ALGORITHMS.md` §1).
const SCAN_MAX: usize = 32;

/// Upstreams that are looked at beyond, with the runner-up besides (`ALGORITHMS.md` §3).
const CHOICES: usize = 4;

/// Draws in search of [`CHOICES`] that may serve. With half the pool down sixteen find them nearly always.
const DRAWS_FOR_CHOICES: usize = 16;

/// Draws in search of one, before all are looked at. With nine of ten down that is once in 1 000.
const DRAWS_MAX: usize = 64;

const NOBODY: u32 = u32::MAX;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::balance::Tried;
    use crate::balance::testing::{Fake, attempt, pool};

    fn pick(cheapest: &Cheapest, pool: &[Fake], number: u64) -> Option<usize> {
        cheapest.pick(pool, attempt(number))
    }

    #[test]
    fn the_least_busy_wins_and_ties_rotate() {
        let mut pool = pool(3);
        let cheapest = Cheapest::new(&[1; 3], 0);
        let order: Vec<_> = (0..3).filter_map(|number| pick(&cheapest, &pool, number)).collect();
        assert_eq!(order, [0, 1, 2]);

        pool[0] = Fake::eligible().with_in_flight(2);
        pool[2] = Fake::eligible().with_in_flight(3);
        assert!((0..10).all(|number| pick(&cheapest, &pool, number) == Some(1)));
    }

    #[test]
    fn four_times_the_weight_carries_four_times_the_load() {
        let pool = [Fake::eligible().with_in_flight(7), Fake::eligible().with_in_flight(2)];
        assert_eq!(pick(&Cheapest::new(&[4, 1], 0), &pool, 0), Some(0));
        let pool = [Fake::eligible().with_in_flight(9), Fake::eligible().with_in_flight(2)];
        assert_eq!(pick(&Cheapest::new(&[4, 1], 0), &pool, 0), Some(1));
    }

    #[test]
    fn a_large_pool_is_looked_at_in_part() {
        let pool = pool(1_000);
        let cheapest = Cheapest::new(&[1; 1_000], 0);
        pick(&cheapest, &pool, 0);
        let looks: u32 = pool.iter().map(Fake::loads_read).sum();
        assert_eq!(looks, 4);
        pick(&cheapest, &pool, 1);
        assert_eq!(pool.iter().map(Fake::loads_read).sum::<u32>() - looks, 5, "with the runner-up");
    }

    #[test]
    fn the_runner_up_is_remembered() {
        let mut pool: Vec<Fake> = (0..100).map(|_| Fake::eligible().with_in_flight(50)).collect();
        let cheapest = Cheapest::new(&[1; 100], 0);
        pool[42] = Fake::eligible();
        cheapest.runner_up.remember(Some(42));
        assert_eq!(pick(&cheapest, &pool, 1), Some(42));
    }

    #[test]
    fn a_runner_up_of_a_pool_that_shrank_is_harmless() {
        let pool = pool(40);
        let cheapest = Cheapest::new(&[1; 40], 0);
        cheapest.runner_up.remember(Some(5_000));
        assert!(pick(&cheapest, &pool, 1).is_some());
    }

    #[test]
    fn the_last_one_alive_of_a_large_pool_is_found() {
        let pool: Vec<Fake> = (0..5_000).map(|index| Fake::that_is(index == 4_321)).collect();
        let cheapest = Cheapest::new(&[1; 5_000], 0);
        assert!((0..50).all(|number| pick(&cheapest, &pool, number) == Some(4_321)));

        let mut tried = Tried::new();
        tried.insert(4_321);
        assert_eq!(cheapest.pick(&pool, Pick { tried: &tried, ..attempt(0) }), None);
    }

    #[test]
    fn weights_shape_the_draws() {
        let pool = pool(100);
        let weights: Vec<u16> = (0..100).map(|index| if index < 10 { 10 } else { 1 }).collect();
        let cheapest = Cheapest::new(&weights, 0);
        let heavy =
            (0..20_000).filter(|&number| pick(&cheapest, &pool, number).is_some_and(|index| index < 10));
        // Idle and equally dear, the first drawn wins: 100 of 190 in weight.
        let share = heavy.count() as f64 / 20_000.0;
        assert!((0.50..0.56).contains(&share), "{share}");
    }

    #[test]
    fn a_stalled_upstream_is_left_alone() {
        let pool = pool(3);
        let mut tuner = crate::balance::Tuner::default();
        for fake in &pool {
            let in_flight = fake.load().begin(Duration::ZERO);
            fake.load().succeeded(Duration::from_millis(10), Duration::from_millis(10), in_flight);
            fake.load().end();
        }
        let kind = crate::balance::StrategyKind::LeastConnections;
        tuner.tick(&pool, &[1; 3], kind, Duration::ZERO, Duration::from_millis(100));

        let cheapest = Cheapest::new(&[1; 3], 0);
        pool[0].load().begin(Duration::from_millis(100));
        let later = Duration::from_millis(200);
        for index in [1, 2] {
            (0..3).for_each(|_| {
                pool[index].load().begin(later);
            });
        }
        let chosen = (0..6).map(|number| cheapest.pick(&pool, Pick { now: later, ..attempt(number) }));
        assert!(chosen.flatten().all(|index| index != 0));
    }
}
