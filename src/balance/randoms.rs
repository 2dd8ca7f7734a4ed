//! Many random numbers from the one that a pick is given.

/// A stream of well-mixed bits: `SplitMix64` (Steele, Lea, Flood 2014), which passes `BigCrush` from
/// any seed and takes a nanosecond a number.
#[derive(Debug)]
pub(super) struct Randoms(u64);

impl Randoms {
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GOLDEN);
        mix(self.0)
    }

    /// True with the given probability.
    pub(super) fn chance(&mut self, probability: f32) -> bool {
        falls_below(self.next(), probability)
    }
}

/// Scatters the bits of `value`; different values stay different.
pub(super) const fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}

/// Whether `bits`, read as a fraction of 1, is below `probability`.
pub(super) fn falls_below(bits: u64, probability: f32) -> bool {
    ((bits >> 40) as f32) < probability * FRACTIONS
}

/// `bits`, read as a fraction of 1, times `size`: 0 to `size` − 1.
pub(super) fn scale(bits: u64, size: u64) -> u64 {
    u64::try_from((u128::from(bits) * u128::from(size)) >> 64).unwrap_or(0)
}

/// 2⁶⁴ divided by the golden ratio. Its multiples are spread more evenly than those of any other
/// number (Knuth, TAOCP 3, §6.4).
pub(super) const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// 2²⁴: all fractions that an `f32` tells apart.
const FRACTIONS: f32 = 16_777_216.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chances_come_true_as_often_as_they_say() {
        let mut randoms = Randoms::new(7);
        let hits = (0..100_000).filter(|_| randoms.chance(0.3)).count();
        assert!((29_000..31_000).contains(&hits), "{hits}");
        assert!(!(0..1_000).any(|_| randoms.chance(0.0)));
        assert!((0..1_000).all(|_| randoms.chance(1.0)));
    }

    #[test]
    fn scaling_covers_the_range_and_stays_inside() {
        assert_eq!(scale(0, 10), 0);
        assert_eq!(scale(u64::MAX, 10), 9);
        assert_eq!(scale(u64::MAX, 0), 0);
    }
}
