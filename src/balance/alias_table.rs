//! Draws upstreams by weight, in constant time however many there are.
//!
//! Walker's alias method (1977) in Vose's form (1991): every upstream has a slot of equal size, and what
//! a light one leaves free of its slot belongs to one heavy upstream, its alias. A draw takes a slot and
//! tosses one coin.

use super::randoms::scale;
use super::{Candidate, Pick};

/// The slots; empty when nobody has any weight.
#[derive(Debug)]
pub(super) struct AliasTable {
    slots: Box<[Slot]>,
    /// All weights are equal, so that no slot has to be looked up.
    uniform: bool,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    /// The slot's own part of it, of 2³².
    own: u32,
    alias: u32,
}

impl AliasTable {
    pub(super) fn new(weights: &[u16]) -> Self {
        let total: u64 = weights.iter().map(|&weight| u64::from(weight)).sum();
        let slots = if total == 0 { Box::default() } else { Filling::of(weights, total).finish() };
        Self { slots, uniform: weights.windows(2).all(|pair| pair[0] == pair[1]) }
    }

    /// Draws an upstream with `bits`, 64 fresh random ones; never one of weight 0.
    pub(super) fn draw(&self, bits: u64) -> Option<usize> {
        // The slot is of the upper bits, the coin of the lower ones.
        let index = usize::try_from(scale(bits, self.slots.len() as u64)).ok()?;
        if self.uniform {
            return (index < self.slots.len()).then_some(index);
        }
        let slot = self.slots.get(index)?;
        let keeps = slot.own == u32::MAX || bits & 0xFFFF_FFFF < u64::from(slot.own);
        Some(if keeps { index } else { slot.alias as usize })
    }
}

/// Slots on their way to being full.
struct Filling {
    slots: Vec<Slot>,
    /// Weight times the number of upstreams, less what was given away.
    left: Vec<u64>,
    total: u64,
    light: Vec<usize>,
    heavy: Vec<usize>,
}

impl Filling {
    fn of(weights: &[u16], total: u64) -> Self {
        let left: Vec<u64> = weights.iter().map(|&weight| u64::from(weight) * weights.len() as u64).collect();
        let (light, heavy) = (0..left.len()).partition(|&index| left[index] < total);
        let slots = (0..left.len()).map(|_| Slot { own: u32::MAX, alias: 0 }).collect();
        Self { slots, left, total, light, heavy }
    }

    /// Fills the slot of each light upstream with a piece of a heavy one.
    fn finish(mut self) -> Box<[Slot]> {
        while let (Some(light), Some(heavy)) = (self.light.pop(), self.heavy.last().copied()) {
            let own = self.left[light];
            self.slots[light] =
                Slot { own: part_of(own, self.total), alias: u32::try_from(heavy).unwrap_or(0) };
            self.left[heavy] -= self.total - own;
            if self.left[heavy] < self.total {
                self.heavy.pop();
                self.light.push(heavy);
            }
        }
        self.slots.into_boxed_slice()
    }
}

/// `own / total` of 2³², short of all of it.
fn part_of(own: u64, total: u64) -> u32 {
    let part = (u128::from(own) << 32) / u128::from(total);
    u32::try_from(part).unwrap_or(u32::MAX).min(u32::MAX - 1)
}

/// Draws one of all that may take the request, by weight: the long way, for when turns and lucky draws
/// found nobody. `point` says where, as a fraction of 2⁶⁴. Two passes, no memory.
pub(super) fn draw_allowed<C: Candidate>(
    weights: &[u16],
    candidates: &[C],
    pick: Pick<'_>,
    point: u64,
) -> Option<usize> {
    let allowed = || {
        weights
            .iter()
            .enumerate()
            .filter(|&(index, &weight)| weight > 0 && pick.allowed(candidates, index).is_some())
    };
    let total: u64 = allowed().map(|(_, &weight)| u64::from(weight)).sum();
    let mut left = scale(point, total);
    let mut last = None;
    for (index, &weight) in allowed() {
        last = Some(index);
        match left.checked_sub(u64::from(weight)) {
            Some(rest) => left = rest,
            None => break,
        }
    }
    last
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::balance::randoms::Randoms;
    use crate::balance::testing::{Fake, attempt, pool};

    fn shares(weights: &[u16], draws: u32) -> Vec<f64> {
        let table = AliasTable::new(weights);
        let mut randoms = Randoms::new(11);
        let mut served = vec![0.0; weights.len()];
        for _ in 0..draws {
            if let Some(index) = table.draw(randoms.next()) {
                served[index] += 1.0 / f64::from(draws);
            }
        }
        served
    }

    #[test]
    fn nobody_has_weight_nobody_is_drawn() {
        assert_eq!(AliasTable::new(&[]).draw(5), None);
        assert_eq!(AliasTable::new(&[0, 0]).draw(5), None);
    }

    #[test]
    fn a_lone_weight_is_always_drawn() {
        let table = AliasTable::new(&[0, 9, 0]);
        let mut randoms = Randoms::new(3);
        assert!((0..1_000).all(|_| table.draw(randoms.next()) == Some(1)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        #[test]
        fn shares_follow_weights(weights in prop::collection::vec(0_u16..50, 1..20)) {
            let total: f64 = weights.iter().map(|&weight| f64::from(weight)).sum();
            for (share, weight) in shares(&weights, 40_000).into_iter().zip(&weights) {
                let due = if total > 0.0 { f64::from(*weight) / total } else { 0.0 };
                prop_assert!((share - due).abs() < 0.02, "{share} instead of {due}");
                prop_assert!(*weight > 0 || share == 0.0);
            }
        }
    }

    #[test]
    fn the_long_way_draws_by_weight_among_the_allowed() {
        let pool = [Fake::eligible(), Fake::down(), Fake::eligible(), Fake::eligible()];
        let mut served = [0; 4];
        for number in 0..6_000_u64 {
            let point = number.wrapping_mul(super::super::randoms::GOLDEN);
            let index = draw_allowed(&[2, 5, 1, 0], &pool, attempt(0), point);
            served[index.unwrap_or(3)] += 1;
        }
        assert!(served[1] == 0 && served[3] == 0);
        assert!((3_995..=4_005).contains(&served[0]), "{served:?}");
    }

    #[test]
    fn the_long_way_ends_when_nobody_is_left() {
        assert_eq!(draw_allowed(&[1], &[Fake::down()], attempt(0), u64::MAX), None);
        assert_eq!(draw_allowed(&[0; 3], &pool(3), attempt(0), 0), None);
        assert_eq!(draw_allowed(&[1; 3], &pool(1), attempt(0), u64::MAX), Some(0));
    }
}
