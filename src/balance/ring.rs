//! A ring of points: every upstream owns many, and a key belongs to the first point at or after it.
//!
//! When an upstream leaves, only its own keys move, and they spread over all others (Karger et al. 1997).

use super::lightest;
use super::randoms::{GOLDEN, mix};

/// Points in order, and a table of where to begin looking, so that a key takes two or three cache lines.
#[derive(Debug)]
pub(super) struct Ring {
    /// Upper 44 bits of the point's place; index of its upstream below.
    points: Box<[u64]>,
    /// First point of each of many equal parts of the ring, one part for two to four points.
    starts: Box<[u32]>,
    /// What a place is shifted by to tell its part.
    shift: u32,
}

impl Ring {
    /// Gives every upstream points by weight, at places that depend on its identity and nothing else.
    pub(super) fn new(weights: &[u16], identities: &[u64]) -> Self {
        let points = points(weights, identities);
        let parts = (points.len() / 4).next_power_of_two().max(2);
        let shift = u64::BITS - parts.trailing_zeros();
        let starts = starts(&points, parts, shift);
        Self { points, starts, shift }
    }

    /// Upstreams in the order in which they are responsible for a key; they repeat.
    pub(super) fn from(&self, key: u64) -> impl Iterator<Item = usize> {
        let (before, after) = self.points.split_at(self.first_at(key));
        after.iter().chain(before).map(|point| usize::try_from(point & INDEX_MASK).unwrap_or(usize::MAX))
    }

    fn first_at(&self, key: u64) -> usize {
        let part = usize::try_from(key >> self.shift).unwrap_or(0);
        let start = self.starts.get(part).map_or(0, |&start| start as usize);
        let place = key & !INDEX_MASK;
        let rest = self.points.get(start..).unwrap_or_default();
        start + rest.iter().take_while(|&&point| point < place).count()
    }
}

fn points(weights: &[u16], identities: &[u64]) -> Box<[u64]> {
    let per_weight = points_per_weight(weights);
    let mut points: Vec<u64> = (0_u64..)
        .zip(weights.iter().zip(identities))
        .take_while(|&(index, _)| index <= INDEX_MASK)
        .flat_map(|(index, (&weight, &identity))| {
            (0..points_of(weight, per_weight))
                .map(move |number| place(identity, number) & !INDEX_MASK | index)
        })
        .collect();
    points.sort_unstable();
    points.into_boxed_slice()
}

/// Depends on the lightest weight only as long as the ring is not too large, so that an upstream that
/// comes or goes does not change the points of the others.
fn points_per_weight(weights: &[u16]) -> f64 {
    let wanted = POINTS / f64::from(lightest(weights));
    let total: f64 = weights.iter().map(|&weight| f64::from(weight)).sum();
    wanted.min(POINTS_MAX / total.max(1.0))
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most POINTS_MAX")]
fn points_of(weight: u16, per_weight: f64) -> u64 {
    if weight == 0 { 0 } else { (f64::from(weight) * per_weight).round().max(1.0) as u64 }
}

fn place(identity: u64, number: u64) -> u64 {
    mix(mix(identity ^ GOLDEN).wrapping_add(number.wrapping_mul(GOLDEN)))
}

fn starts(points: &[u64], parts: usize, shift: u32) -> Box<[u32]> {
    let mut next = 0_u32;
    (0..parts as u64)
        .map(|part| {
            while points.get(next as usize).is_some_and(|point| point >> shift < part) {
                next += 1;
            }
            next
        })
        .collect()
}

/// 20 bits: a million upstreams.
const INDEX_MASK: u64 = (1 << 20) - 1;

/// Points of the lightest upstream: shares then differ by 1/√160, about 8 %, which the bounded load evens
/// out. (Ketama and nginx take 160 as well.)
const POINTS: f64 = 160.0;

/// Points in all: 2 MiB, which the nearer caches hold. Reached by pools of 1 600 upstreams, or very uneven
/// weights; then shares differ by more, and the bounded load evens that out as well.
const POINTS_MAX: f64 = 262_144.0;

#[cfg(test)]
mod tests {
    use super::*;

    fn home(ring: &Ring, key: u64) -> Option<usize> {
        ring.from(mix(key)).next()
    }

    #[test]
    fn a_key_belongs_to_the_first_point_at_or_after_it() {
        let ring = Ring::new(&[1, 2, 1], &[11, 12, 13]);
        for key in (0..5_000).map(mix) {
            let place = key & !INDEX_MASK;
            let at = ring.points.partition_point(|&point| point < place) % ring.points.len();
            assert_eq!(ring.from(key).next(), usize::try_from(ring.points[at] & INDEX_MASK).ok());
        }
        assert!(ring.from(u64::MAX).next().is_some());
    }

    #[test]
    fn the_whole_ring_is_walked_once() {
        let ring = Ring::new(&[1, 1], &[1, 2]);
        assert_eq!(ring.from(77).count(), 320);
    }

    #[test]
    fn nobody_owns_an_empty_ring() {
        assert_eq!(Ring::new(&[], &[]).from(5).next(), None);
        assert_eq!(Ring::new(&[0, 0], &[1, 2]).from(5).next(), None);
    }

    #[test]
    fn shares_follow_weights() {
        let ring = Ring::new(&[1, 3, 0], &[5, 6, 7]);
        let heavy = (0..20_000).filter(|&key| home(&ring, key) == Some(1)).count();
        assert!((13_500..16_500).contains(&heavy), "{heavy}");
    }

    #[test]
    fn only_the_keys_of_who_leaves_move() {
        let before = Ring::new(&[1; 10], &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
        let after = Ring::new(&[1; 9], &[0, 1, 2, 4, 5, 6, 7, 8, 9]);
        let moved = (0..20_000).filter(|&key| {
            let renumbered = home(&after, key).map(|index| if index >= 3 { index + 1 } else { index });
            let old = home(&before, key);
            assert!(old == Some(3) || old == renumbered, "a key that had nothing to do with it moved");
            old != renumbered
        });
        let moved = moved.count();
        assert!((1_600..2_400).contains(&moved), "about a tenth, not {moved} of 20 000");
    }

    #[test]
    fn extreme_weights_do_not_fill_the_memory() {
        let ring = Ring::new(&[65_535, 1, 65_535], &[1, 2, 3]);
        assert!(ring.points.len() < 270_000);
        assert!((0..3).all(|index| ring.from(0).any(|owner| owner == index)));
    }
}
