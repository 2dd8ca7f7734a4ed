//! Whose turn it is: weights laid out in time, well mixed.
//!
//! The order is nginx's smooth weighted round robin: 5:1:1 gives `a a b a c a a`, never `a a a a a b c`,
//! which would send five requests in a row to one upstream (median 108 ms against 8.7 with weights of
//! 100, `ALGORITHMS.md` §6). One full cycle is laid out when the pool is built, so a turn is one atomic add.
//!
//! Where a cycle would be too long, gRPC's static stride scheduler gives the same shares without one:
//! in each round every upstream is asked once, and serves in as many rounds as its weight says.

use std::sync::atomic::{AtomicU64, Ordering};

/// An endless order of turns, shared by all threads.
#[derive(Debug)]
pub(super) struct Turns {
    order: Order,
    next: Cursor,
}

#[derive(Debug)]
enum Order {
    /// Upstream indexes in the order of their turns.
    Cycle(Box<[u32]>),
    /// Upstream index and weight, the heaviest counting as [`STRIDE`].
    Stride(Box<[(u32, u64)]>),
}

/// Written by every request, so in a cache line of its own.
#[derive(Debug)]
#[repr(align(64))]
struct Cursor(AtomicU64);

impl Turns {
    /// Lays out the turns of upstreams with these weights, beginning at turn `start`.
    pub(super) fn new(weights: &[u16], start: u64) -> Self {
        let order = Order::of(weights);
        // Small enough never to wrap around in the middle of a cycle.
        let next = Cursor(AtomicU64::new(start >> 1));
        Self { order, next }
    }

    /// Takes a turn: the upstream whose it is, or `None` when it is nobody's. A turn that its owner
    /// cannot use is used up, so that the neighbour of a dead upstream does not serve double.
    pub(super) fn take(&self) -> Option<usize> {
        // Relaxed: turns need to be distinct, not ordered with anything else.
        self.order.owner(self.next.0.fetch_add(1, Ordering::Relaxed))
    }

    /// Takes turns until one is somebody's.
    pub(super) fn take_owned(&self) -> Option<usize> {
        (0..self.round()).find_map(|_| self.take())
    }

    /// Turns within which everybody has one, or as many as a pick may spend.
    pub(super) fn round(&self) -> usize {
        match &self.order {
            Order::Cycle(cycle) => cycle.len().min(WALK_MAX),
            Order::Stride(weights) => weights.len().min(WALK_MAX),
        }
    }

    /// Turns taken so far, a number that changes with every pick.
    pub(super) fn taken(&self) -> u64 {
        self.next.0.load(Ordering::Relaxed)
    }

    /// Goes on where `before` stands.
    pub(super) fn resume(&self, before: &Self) {
        self.next.0.store(before.taken(), Ordering::Relaxed);
    }
}

impl Order {
    fn of(weights: &[u16]) -> Self {
        let divisor = weights.iter().fold(0, |divisor, &weight| gcd(divisor, weight)).max(1);
        let reduced: Vec<u32> = weights.iter().map(|weight| u32::from(weight / divisor)).collect();
        let length: u64 = reduced.iter().map(|&weight| u64::from(weight)).sum();
        if reduced.iter().all(|&weight| weight <= 1) {
            Self::Cycle(positive(&reduced).map(|(index, _)| index).collect())
        } else if length <= CYCLE_MAX && length * weights.len() as u64 <= LAYOUT_STEPS_MAX {
            Self::Cycle(smooth(&reduced, length))
        } else {
            Self::Stride(stride(&reduced))
        }
    }

    fn owner(&self, turn: u64) -> Option<usize> {
        match self {
            Self::Cycle(cycle) => {
                let (_, place) = split(turn, cycle.len())?;
                cycle.get(place).map(|&index| index as usize)
            }
            Self::Stride(weights) => {
                let (round, place) = split(turn, weights.len())?;
                let &(index, weight) = weights.get(place)?;
                serves(round, place as u64, weight).then_some(index as usize)
            }
        }
    }
}

/// Plays smooth weighted round robin for one cycle: each turn everybody earns their weight, the richest
/// serves and pays the total.
fn smooth(weights: &[u32], length: u64) -> Box<[u32]> {
    let mut credit = vec![0_i64; weights.len()];
    (0..length)
        .map(|_| {
            for (credit, &weight) in credit.iter_mut().zip(weights) {
                *credit += i64::from(weight);
            }
            richest(&mut credit, length)
        })
        .collect()
}

/// Takes `price` from the richest, the first of equals, and returns who it was.
fn richest(credit: &mut [i64], price: u64) -> u32 {
    let mut best = 0;
    let mut most = i64::MIN;
    for (index, &credit) in (0_u32..).zip(&*credit) {
        if credit > most {
            (best, most) = (index, credit);
        }
    }
    if let Some(credit) = credit.get_mut(best as usize) {
        *credit = credit.saturating_sub_unsigned(price);
    }
    best
}

fn stride(weights: &[u32]) -> Box<[(u32, u64)]> {
    let heaviest = u64::from(weights.iter().copied().max().unwrap_or(1)).max(1);
    positive(weights).map(|(index, weight)| (index, (u64::from(weight) * STRIDE / heaviest).max(1))).collect()
}

/// Whether the upstream at `place` serves in this round: in `weight` of every [`STRIDE`] of them, spread
/// out, and neighbours out of step (gRPC's `static_stride_scheduler`).
fn serves(round: u64, place: u64, weight: u64) -> bool {
    let position = (weight * (round % STRIDE) + place.wrapping_mul(STRIDE / 2)) % STRIDE;
    position >= STRIDE - weight
}

fn positive(weights: &[u32]) -> impl Iterator<Item = (u32, u32)> {
    (0_u32..).zip(weights.iter().copied()).filter(|&(_, weight)| weight > 0)
}

/// Which round of `length` turns a turn is in, and where.
fn split(turn: u64, length: usize) -> Option<(u64, usize)> {
    let length = length as u64;
    let place = usize::try_from(turn.checked_rem(length)?).ok()?;
    Some((turn / length, place))
}

const fn gcd(mut a: u16, mut b: u16) -> u16 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// Longest cycle laid out (`ALGORITHMS.md` §6): 256 KiB of turns.
const CYCLE_MAX: u64 = 65_536;

/// Longest time spent on laying one out, in additions: about 30 ms, off the request path.
const LAYOUT_STEPS_MAX: u64 = 1 << 25;

/// Rounds after which the static stride repeats itself; gRPC's number.
const STRIDE: u64 = 65_535;

/// Turns that one pick may pass over, about 5 µs of them.
const WALK_MAX: usize = 1_024;

#[cfg(test)]
mod tests {
    use super::*;

    fn cycle(weights: &[u16]) -> Vec<u32> {
        match Order::of(weights) {
            Order::Cycle(cycle) => cycle.into_vec(),
            Order::Stride(_) => Vec::new(),
        }
    }

    #[test]
    fn weights_are_mixed_not_bursty() {
        assert_eq!(cycle(&[5, 1, 1]), [0, 0, 1, 0, 2, 0, 0]);
    }

    #[test]
    fn weights_are_reduced_to_the_shortest_cycle() {
        assert_eq!(cycle(&[200, 100]), cycle(&[2, 1]));
        assert_eq!(cycle(&[100; 4]), [0, 1, 2, 3]);
    }

    #[test]
    fn a_weight_of_zero_has_no_turn() {
        assert_eq!(cycle(&[0, 3, 0, 3]), [1, 3]);
        let nobody = Turns::new(&[0, 0], 7);
        assert_eq!((nobody.take(), nobody.take_owned(), nobody.round()), (None, None, 0));
    }

    #[test]
    fn a_cycle_too_long_becomes_a_stride_with_the_same_shares() {
        let weights = [60_000_u16, 30_001, 7];
        let turns = Turns::new(&weights, 3);
        assert!(matches!(turns.order, Order::Stride(_)));

        let mut served = [0_u32; 3];
        for _ in 0..90_008 {
            if let Some(index) = turns.take_owned() {
                served[index] += 1;
            }
        }
        for (served, weight) in served.into_iter().zip(weights) {
            assert!(served.abs_diff(u32::from(weight)) <= 4, "{served} for {weight}");
        }
    }

    #[test]
    fn the_stride_is_mixed_too() {
        let turns = Turns::new(&[60_000, 59_999, 1], 0);
        let order: Vec<_> = (0..20).filter_map(|_| turns.take_owned()).collect();
        assert!(order.chunks(2).all(|pair| pair[0] != pair[1]), "{order:?}");
    }

    #[test]
    fn a_successor_goes_on_where_the_old_one_stood() {
        let before = Turns::new(&[1, 1, 1], 0);
        assert_eq!((before.take(), before.take()), (Some(0), Some(1)));
        let after = Turns::new(&[1, 1, 1], 0);
        after.resume(&before);
        assert_eq!(after.take(), Some(2));
    }

    #[test]
    fn the_last_start_does_not_wrap() {
        let turns = Turns::new(&[1, 1], u64::MAX);
        assert_ne!(turns.take(), turns.take());
    }
}
