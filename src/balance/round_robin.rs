//! Weighted round robin: upstreams take turns in proportion to their weights, well mixed.
//!
//! For requests of equal cost on upstreams of equal speed. Turns are nginx's smooth weighted round robin;
//! a pick is one atomic add.

use super::alias_table::draw_allowed;
use super::randoms::{GOLDEN, Randoms};
use super::turns::Turns;
use super::{Candidate, Pick};

/// See the [module documentation](self).
#[derive(Debug)]
pub struct RoundRobin {
    turns: Turns,
    weights: Box<[u16]>,
}

impl RoundRobin {
    /// Lays out the turns of upstreams with these weights, in pool order, beginning at turn `start`.
    pub fn new(weights: &[u16], start: u64) -> Self {
        Self { turns: Turns::new(weights, start), weights: weights.into() }
    }

    /// Returns the upstream whose turn it is, passing over those that may not serve.
    ///
    /// A passed-over turn is used up, so the upstream after a dead one does not serve double. When a whole
    /// round, or as many turns as a pick may spend, went by in vain, one of those that are left is drawn.
    pub fn pick<C: Candidate>(&self, candidates: &[C], pick: Pick<'_>) -> Option<usize> {
        let mut coins = Randoms::new(pick.random);
        (0..self.turns.round())
            .filter_map(|_| self.turns.take())
            .find(|&index| is_ready(candidates, pick, index, &mut coins))
            .or_else(|| self.draw(candidates, pick))
    }

    pub(super) const fn turns(&self) -> &Turns {
        &self.turns
    }

    /// Draws by weight at the next multiple of the golden ratio, which spreads picks as evenly as turns do.
    fn draw<C: Candidate>(&self, candidates: &[C], pick: Pick<'_>) -> Option<usize> {
        let round = (self.turns.taken() / self.turns.round().max(1) as u64).wrapping_mul(GOLDEN);
        draw_allowed(&self.weights, candidates, pick, round)
    }
}

/// Whether the upstream may serve, and is warm enough to take this turn: one that warms up takes part of
/// its turns only (`ALGORITHMS.md` §3, slow start).
fn is_ready<C: Candidate>(candidates: &[C], pick: Pick<'_>, index: usize, coins: &mut Randoms) -> bool {
    pick.allowed(candidates, index).is_some_and(|candidate| {
        let ramp = candidate.load().ramp();
        ramp >= 1.0 || coins.chance(ramp)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::Mutex;
    use std::thread;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::balance::Load;
    use crate::balance::testing::{Fake, attempt, pool};

    fn served(strategy: &RoundRobin, pool: &[Fake], picks: u64) -> Vec<u32> {
        let mut served = vec![0; pool.len()];
        for number in 0..picks {
            if let Some(index) = strategy.pick(pool, attempt(number)) {
                served[index] += 1;
            }
        }
        served
    }

    #[test]
    fn the_neighbour_of_a_dead_upstream_does_not_serve_double() {
        let pool = [Fake::eligible(), Fake::down(), Fake::eligible()];
        assert_eq!(served(&RoundRobin::new(&[2, 1, 1], 0), &pool, 300), [200, 0, 100]);
    }

    #[test]
    fn nobody_healthy_is_out_of_reach() {
        let pool: Vec<Fake> = (0..10).map(|index| Fake::that_is(index >= 6)).collect();
        let served = served(&RoundRobin::new(&[1; 10], 3), &pool, 1_000);
        assert_eq!(served, [0, 0, 0, 0, 0, 0, 250, 250, 250, 250]);
    }

    #[test]
    fn nobody_eligible_is_none_not_a_loop() {
        assert_eq!(RoundRobin::new(&[1, 1], 0).pick(&[Fake::down(), Fake::down()], attempt(0)), None);
        assert_eq!(RoundRobin::new(&[0, 0], 0).pick(&pool(2), attempt(0)), None);
        assert_eq!(RoundRobin::new(&[], 0).pick(&pool(0), attempt(0)), None);
    }

    #[test]
    fn two_alive_behind_a_heavy_dead_one_share_evenly() {
        let pool = [Fake::down(), Fake::eligible(), Fake::eligible()];
        let served = served(&RoundRobin::new(&[60_000, 3, 3], 0), &pool, 4_000);
        assert!(served[1].abs_diff(served[2]) < 40, "{served:?}");
    }

    #[test]
    fn an_upstream_that_warms_up_takes_part_of_its_turns() {
        let pool = pool(3);
        pool[0].load().warm_up(Duration::ZERO);
        let served = served(&RoundRobin::new(&[1; 3], 0), &pool, 30_000);
        let share = f64::from(served[0]) / 30_000.0;
        assert!((0.040..0.056).contains(&share), "a tenth of 1 : 1 : 0.1 is 0.048, not {share}");
        assert!(served[1].abs_diff(served[2]) < 600, "{served:?}");
    }

    #[test]
    fn who_warms_up_serves_all_when_nobody_else_can() {
        let pool = [Fake::down(), Fake::eligible()];
        pool[1].load().warm_up(Duration::ZERO);
        assert_eq!(served(&RoundRobin::new(&[1; 2], 0), &pool, 100), [0, 100]);
    }

    /// 10 000 upstreams of which one is alive: a pick ends after a scan, and finds it.
    #[test]
    fn the_last_one_alive_is_found_among_ten_thousand() {
        let pool: Vec<Fake> = (0..10_000).map(|index| Fake::that_is(index == 7_777)).collect();
        let strategy = RoundRobin::new(&vec![1; 10_000], 0);
        assert!((0..100).all(|number| strategy.pick(&pool, attempt(number)) == Some(7_777)));
    }

    proptest! {
        /// Whoever is down, the others keep exactly the shares their weights promise.
        #[test]
        fn shares_follow_weights_exactly_over_any_subset_that_is_down(
            upstreams in prop::collection::vec((0_u16..=20, any::<bool>()), 1..12),
            start in any::<u64>(),
        ) {
            let weights: Vec<u16> = upstreams.iter().map(|&(weight, _)| weight).collect();
            let pool: Vec<Fake> = upstreams.iter().map(|&(_, eligible)| Fake::that_is(eligible)).collect();
            let due: Vec<u32> = upstreams
                .iter()
                .map(|&(weight, eligible)| if eligible { u32::from(weight) } else { 0 })
                .collect();

            let strategy = RoundRobin::new(&weights, start);
            let picks = due.iter().map(|&weight| u64::from(weight)).sum();
            prop_assert_eq!(served(&strategy, &pool, picks), due);
        }
    }

    /// An upstream that the threads can share.
    struct Shared(Load);

    impl Candidate for Shared {
        fn load(&self) -> &Load {
            &self.0
        }
        fn is_eligible(&self, _: Duration) -> bool {
            true
        }
    }

    #[test]
    fn round_robin_is_one_round_robin() {
        let pool: Vec<Shared> = (0..4).map(|_| Shared(Load::new(Duration::ZERO))).collect();
        let strategy = RoundRobin::new(&[1; 4], 9);
        let counts = Mutex::new([0_u32; 4]);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let picks: Vec<_> =
                        (0..1_000).filter_map(|number| strategy.pick(&pool, attempt(number))).collect();
                    if let Ok(mut counts) = counts.lock() {
                        for index in picks {
                            counts[index] += 1;
                        }
                    }
                });
            }
        });
        assert_eq!(counts.into_inner().ok(), Some([1_000; 4]));
    }

    #[test]
    fn a_cycle_serves_everybody_once() {
        let pool = pool(50);
        let strategy = RoundRobin::new(&[7; 50], 13);
        let picks: HashSet<_> = (0..50).filter_map(|number| strategy.pick(&pool, attempt(number))).collect();
        assert_eq!(picks.len(), 50);
    }
}
