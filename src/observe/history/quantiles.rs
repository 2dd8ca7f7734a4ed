//! Three quantiles of a step in six bytes, and those of several steps together.

use std::time::Duration;

use crate::observe::HistogramSnapshot;
use crate::observe::histogram::{BUCKETS, longest_in};

/// Buckets of the histogram, counted from one, that hold the quantiles. Zero: there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Quantiles(pub(super) [u16; 3]);

/// Which quantiles are kept.
const SHARES: [f64; 3] = [0.5, 0.9, 0.99];

/// As many as there are buckets, counted from one.
#[expect(clippy::cast_possible_truncation, reason = "there are 496")]
const CODE_MAX: u16 = BUCKETS as u16;

impl Quantiles {
    pub(super) fn of(times: &HistogramSnapshot) -> Self {
        if times.count == 0 {
            return Self::default();
        }
        Self(SHARES.map(|share| u16::try_from(times.bucket_at(share) + 1).unwrap_or(CODE_MAX)))
    }

    /// As they were kept; what cannot be is put right.
    pub(super) fn read([p50, p90, p99]: [u16; 3]) -> Self {
        let p50 = p50.min(CODE_MAX);
        let p90 = p90.clamp(p50, CODE_MAX);
        Self([p50, p90, p99.clamp(p90, CODE_MAX)])
    }

    /// The longest durations in those buckets.
    pub(super) fn durations(self) -> [Duration; 3] {
        self.0.map(|code| code.checked_sub(1).map_or(Duration::ZERO, |bucket| longest_in(bucket.into())))
    }

    /// Estimate of the share of durations up to this bucket: straight lines between the quantiles, below them
    /// the mirror image of what is above, and nothing beyond the last.
    fn share_within(self, code: u16) -> f64 {
        let [p50, p90, p99] = self.0;
        let lowest = p50.saturating_sub(p90.saturating_sub(p50).max(1));
        let line = |from: u16, to: u16| f64::from(code - from) / f64::from(to - from);
        match code {
            _ if code > p99 => 1.0,
            _ if code == p99 => 0.99,
            _ if code >= p90 => 0.09f64.mul_add(line(p90, p99), 0.9),
            _ if code >= p50 => 0.4f64.mul_add(line(p50, p90), 0.5),
            _ if code > lowest => 0.5 * line(lowest, p50),
            _ => 0.0,
        }
    }
}

/// The quantiles of several steps together, each with how many durations it stands for.
///
/// What they were is not known any more, so this is an estimate. It is exact for steps that are alike, lies
/// between the lowest and the highest of the steps, and gives a busy step the weight that it has: the mean of
/// quantiles would not.
pub(super) fn mixed(parts: &[(Quantiles, u64)]) -> Quantiles {
    let mut some = parts.iter().filter(|(_, count)| *count > 0);
    let total: u64 = parts.iter().map(|(_, count)| count).sum();
    match (some.next(), some.next()) {
        (None, _) => Quantiles::default(),
        (Some((only, _)), None) => *only,
        _ => Quantiles(SHARES.map(|share| {
            let wanted = share.mul_add(total as f64, -TOLERANCE * total as f64);
            let within = |code: u16| -> f64 {
                parts.iter().map(|(part, count)| part.share_within(code) * *count as f64).sum()
            };
            first_code(|code| within(code) >= wanted)
        })),
    }
}

/// Sums of rounded products are wrong by less, and a share by no more than that.
const TOLERANCE: f64 = 1e-9;

/// The first bucket that will do, where all above it do as well.
fn first_code(will_do: impl Fn(u16) -> bool) -> u16 {
    let (mut low, mut high) = (1, CODE_MAX);
    while low < high {
        let middle = u16::midpoint(low, high);
        if will_do(middle) { high = middle } else { low = middle + 1 }
    }
    low
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::needless_for_each,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss
)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::observe::Histogram;

    fn recorded(micros: &[u64]) -> HistogramSnapshot {
        let histogram = Histogram::default();
        micros.iter().for_each(|&micros| histogram.record(Duration::from_micros(micros)));
        histogram.snapshot()
    }

    #[test]
    fn steps_that_are_alike_have_the_quantiles_of_each() {
        let one = Quantiles::of(&recorded(&[1_000, 2_000, 3_000, 50_000]));
        assert_eq!(mixed(&[(one, 4), (one, 400), (Quantiles::default(), 0)]), one);
    }

    #[test]
    fn a_quiet_step_hardly_moves_a_busy_one() {
        let busy = Quantiles::of(&recorded(&[5_000; 100]));
        let slow = Quantiles::of(&recorded(&[1_000_000]));
        let [p50, p90, _] = mixed(&[(busy, 1_000_000), (slow, 1)]).durations();
        assert!(p90 < Duration::from_millis(6) && p50 <= p90, "{p50:?} {p90:?}");
        // With as many of both, half of them are quick.
        let [p50, p90, p99] = mixed(&[(busy, 10), (slow, 10)]).durations();
        assert!(p50 < Duration::from_millis(6), "{p50:?}");
        assert!(p90 > Duration::from_millis(900) && p99 >= p90, "{p90:?} {p99:?}");
    }

    proptest! {
        #[test]
        fn what_is_mixed_lies_between_its_parts(
            steps in prop::collection::vec(prop::collection::vec(1_u64..10_000_000, 1..50), 1..20),
        ) {
            let parts: Vec<_> = steps.iter().map(|step| (Quantiles::of(&recorded(step)), step.len() as u64)).collect();
            let found = mixed(&parts).0;
            for (place, code) in found.into_iter().enumerate() {
                let codes = || parts.iter().map(|(part, _)| part.0[place]);
                let lowest = parts.iter().map(|(part, _)| part.0[0]).min().unwrap();
                prop_assert!(code <= codes().max().unwrap() + 1, "{found:?} of {parts:?}");
                prop_assert!(code + 60 >= lowest.min(codes().min().unwrap()), "{found:?} of {parts:?}");
            }
            prop_assert!(found.is_sorted(), "{found:?}");
        }

        /// Steps of one service differ by chance. What is estimated of them is what one histogram would say.
        #[test]
        fn the_estimate_is_near_the_truth_where_steps_resemble_each_other(
            seed in prop::collection::vec(prop::collection::vec(0.0_f64..1.0, 200..201), 2..10),
        ) {
            // Times of an exponential tail above 2 ms.
            let times = |draws: &Vec<f64>| -> Vec<u64> {
                draws.iter().map(|draw| 2_000 + (-(1.0 - draw).ln() * 3_000.0) as u64).collect()
            };
            let steps: Vec<_> = seed.iter().map(|draws| recorded(&times(draws))).collect();
            let parts: Vec<_> = steps.iter().map(|step| (Quantiles::of(step), step.count)).collect();
            let truth = Quantiles::of(&HistogramSnapshot::merged(steps)).durations();
            for (found, truth) in mixed(&parts).durations().iter().zip(truth) {
                let ratio = found.as_secs_f64() / truth.as_secs_f64();
                prop_assert!((0.7..1.45).contains(&ratio), "{found:?} for {truth:?}");
            }
        }
    }
}
