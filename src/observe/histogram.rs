//! A distribution of durations: recorded by anyone, without a lock, at a fixed size.
//!
//! Microseconds fall into buckets that double in width with every octave, sixteen to the octave: so
//! every figure is right within 1/16 (6.25 %), from one microsecond to almost five hours. The shape is
//! that of `HdrHistogram` (G. Tene) with four bits of precision.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A distribution of durations. Recording is a few relaxed atomic adds.
#[derive(Debug)]
pub struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    /// In microseconds. 2^64 of them are half a million years of requests.
    sum: AtomicU64,
    /// In microseconds; `u64::MAX` while there is none.
    min: AtomicU64,
    max: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            buckets: [const { AtomicU64::new(0) }; BUCKETS],
            sum: AtomicU64::new(0),
            min: AtomicU64::new(u64::MAX),
            max: AtomicU64::new(0),
        }
    }
}

impl Histogram {
    /// Counts one duration. One beyond 4 h 46 min counts as that long.
    pub fn record(&self, duration: Duration) {
        let micros = to_micros(duration);
        self.sum.fetch_add(micros, Relaxed);
        // Both are rarely beaten: a look is cheaper than a write that all other cores have to notice.
        if micros < self.min.load(Relaxed) {
            self.min.fetch_min(micros, Relaxed);
        }
        if micros > self.max.load(Relaxed) {
            self.max.fetch_max(micros, Relaxed);
        }
        if let Some(bucket) = self.buckets.get(bucket_of(micros)) {
            bucket.fetch_add(1, Relaxed);
        }
    }

    /// Counts what another histogram, of another process perhaps, has recorded.
    pub fn add(&self, other: &HistogramSnapshot) {
        if other.count == 0 {
            return;
        }
        self.sum.fetch_add(u64::try_from(other.sum.as_micros()).unwrap_or(u64::MAX), Relaxed);
        self.min.fetch_min(to_micros(other.min), Relaxed);
        self.max.fetch_max(to_micros(other.max), Relaxed);
        for (bucket, count) in self.buckets.iter().zip(&other.buckets) {
            bucket.fetch_add(*count, Relaxed);
        }
    }

    /// The distribution as of now. What is recorded meanwhile may be in it in part.
    pub fn snapshot(&self) -> HistogramSnapshot {
        let buckets: Box<[u64]> = self.buckets.iter().map(|bucket| bucket.load(Relaxed)).collect();
        let count = buckets.iter().sum();
        let (min, max) = (self.min.load(Relaxed), self.max.load(Relaxed));
        HistogramSnapshot {
            count,
            sum: Duration::from_micros(self.sum.load(Relaxed)),
            min: Duration::from_micros(min.min(max)),
            max: Duration::from_micros(max),
            buckets,
        }
    }
}

/// A [`Histogram`] at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Written", into = "Written")]
pub struct HistogramSnapshot {
    /// Durations recorded.
    pub count: u64,
    /// All of them added up.
    pub sum: Duration,
    /// The shortest, exact; zero when there is none.
    pub min: Duration,
    /// The longest, exact; zero when there is none.
    pub max: Duration,
    buckets: Box<[u64]>,
}

impl HistogramSnapshot {
    /// All durations of these together, at the same resolution.
    pub fn merged(snapshots: impl IntoIterator<Item = Self>) -> Self {
        snapshots.into_iter().fold(Histogram::default().snapshot(), |all, one| all.and(&one))
    }

    /// All durations of both.
    #[must_use]
    pub(super) fn and(mut self, other: &Self) -> Self {
        self.min = match (self.count, other.count) {
            (0, _) => other.min,
            (_, 0) => self.min,
            _ => self.min.min(other.min),
        };
        self.max = self.max.max(other.max);
        self.count += other.count;
        self.sum = self.sum.saturating_add(other.sum);
        for (bucket, count) in self.buckets.iter_mut().zip(&other.buckets) {
            *bucket += count;
        }
        self
    }

    /// What was recorded after `earlier`, a snapshot of the same histogram; `min` and `max` remain those of
    /// all. `None` when `earlier` holds what is not in this one, so that it is of another.
    pub fn since(&self, earlier: &Self) -> Option<Self> {
        let pairs = self.buckets.iter().zip(&earlier.buckets);
        let buckets: Box<[u64]> = pairs.map(|(now, then)| now.checked_sub(*then)).collect::<Option<_>>()?;
        let count = buckets.iter().sum();
        let sum = self.sum.saturating_sub(earlier.sum);
        Some(Self { count, sum, min: self.min, max: self.max, buckets })
    }

    /// The arithmetic mean; zero when there is none.
    pub fn mean(&self) -> Duration {
        let micros = self.sum.as_micros().checked_div(u128::from(self.count)).unwrap_or(0);
        Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
    }

    /// The duration that a share `q` (0 to 1) of all did not exceed; zero when there is none.
    ///
    /// Errs upwards, by 1/16 at most: the answer is the upper end of the bucket that holds it.
    pub fn quantile(&self, q: f64) -> Duration {
        longest_in(self.bucket_at(q)).clamp(self.min, self.max)
    }

    /// The bucket of that duration; the first when there is none.
    pub(super) fn bucket_at(&self, q: f64) -> usize {
        let rank = rank_of(q, self.count);
        let mut seen = 0;
        let bucket = self.buckets.iter().position(|&count| {
            seen += count;
            seen >= rank
        });
        bucket.unwrap_or(if self.count == 0 { 0 } else { BUCKETS - 1 })
    }

    /// Buckets that are not empty, with how many are in each.
    pub(super) fn filled(&self) -> impl Iterator<Item = (usize, u64)> {
        self.buckets.iter().copied().enumerate().filter(|&(_, count)| count > 0)
    }

    /// Of such buckets; what is none of ours is left out.
    pub(super) fn of_filled(
        filled: impl Iterator<Item = (usize, u64)>,
        sum: Duration,
        min: Duration,
        max: Duration,
    ) -> Self {
        let mut buckets: Box<[u64]> = [0; BUCKETS].into();
        for (bucket, count) in filled {
            if let Some(bucket) = buckets.get_mut(bucket) {
                *bucket += count;
            }
        }
        Self { count: buckets.iter().sum(), sum, min, max, buckets }
    }

    /// How many lasted no longer than each of these bounds, in seconds and ascending.
    ///
    /// A bucket counts when all of it lies within the bound, so a bound errs towards slow: near one,
    /// up to 1/16 of its length is counted as longer than it was.
    pub fn cumulative(&self, bounds: &[f64]) -> Vec<u64> {
        let mut buckets = self.buckets.iter().enumerate().peekable();
        let mut seen = 0;
        bounds
            .iter()
            .map(|&bound| {
                let is_within = |&(index, _): &(usize, &u64)| highest_in(index) as f64 <= bound * 1e6;
                while let Some((_, count)) = buckets.next_if(is_within) {
                    seen += count;
                }
                seen
            })
            .collect()
    }
}

/// How a distribution is written: what is empty is left out, and a bucket is named by the longest duration in
/// it, so that one who has other buckets can read it.
#[derive(Serialize, Deserialize)]
#[serde(default)]
struct Written {
    sum_us: u64,
    min_us: u64,
    max_us: u64,
    /// Longest duration, in microseconds, and how many.
    buckets: Vec<(u64, u64)>,
}

impl Default for Written {
    fn default() -> Self {
        Histogram::default().snapshot().into()
    }
}

impl From<HistogramSnapshot> for Written {
    fn from(snapshot: HistogramSnapshot) -> Self {
        let micros = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let buckets = snapshot.buckets.iter().enumerate().filter(|&(_, &count)| count > 0);
        Self {
            sum_us: micros(snapshot.sum),
            min_us: micros(snapshot.min),
            max_us: micros(snapshot.max),
            buckets: buckets.map(|(index, &count)| (highest_in(index), count)).collect(),
        }
    }
}

impl From<Written> for HistogramSnapshot {
    fn from(written: Written) -> Self {
        let mut buckets: Box<[u64]> = [0; BUCKETS].into();
        for (highest, count) in written.buckets {
            if let Some(bucket) = buckets.get_mut(bucket_of(highest.min(MICROS_MAX))) {
                *bucket += count;
            }
        }
        Self {
            count: buckets.iter().sum(),
            sum: Duration::from_micros(written.sum_us),
            min: Duration::from_micros(written.min_us),
            max: Duration::from_micros(written.max_us),
            buckets,
        }
    }
}

/// Rounded, for cutting off would lose half a microsecond of every request on average.
fn to_micros(duration: Duration) -> u64 {
    let micros = duration.saturating_add(Duration::from_nanos(500)).as_micros();
    u64::try_from(micros).unwrap_or(u64::MAX).min(MICROS_MAX)
}

/// Position of the value at share `q` among `count` sorted values, counted from one.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and `count`")]
fn rank_of(q: f64, count: u64) -> u64 {
    ((q.clamp(0.0, 1.0) * count as f64).ceil() as u64).clamp(1, count.max(1))
}

/// Below [`STEPS`] every microsecond has its bucket. From there, the highest bit says the octave and
/// the next four bits say the step within.
#[expect(
    clippy::cast_possible_truncation,
    reason = "less than BUCKETS, since `micros` is at most MICROS_MAX"
)]
const fn bucket_of(micros: u64) -> usize {
    if micros < STEPS {
        return micros as usize;
    }
    let octave = micros.ilog2() - STEP_BITS;
    let step = (micros >> octave) & (STEPS - 1);
    ((octave as u64 + 1) * STEPS + step) as usize
}

/// The longest duration that falls into this bucket.
pub(super) const fn longest_in(bucket: usize) -> Duration {
    Duration::from_micros(highest_in(bucket))
}

/// The same in microseconds.
const fn highest_in(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < STEPS {
        return bucket;
    }
    let octave = bucket / STEPS - 1;
    ((STEPS + bucket % STEPS + 1) << octave) - 1
}

/// Precision: 2^4 steps to the octave are 6.25 % at worst, finer than two runs of one test differ.
const STEP_BITS: u32 = 4;
const STEPS: u64 = 1 << STEP_BITS;

/// 31 octaves of 16 buckets of 8 bytes, so that a histogram with its sum fits into 4 KiB.
pub(super) const BUCKETS: usize = 31 * 16;

/// The longest duration that is told from longer ones: 2^34 microseconds, 4 h 46 min.
const MICROS_MAX: u64 = highest_in(BUCKETS - 1);

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn recorded(micros: &[u64]) -> HistogramSnapshot {
        let histogram = Histogram::default();
        for &micros in micros {
            histogram.record(Duration::from_micros(micros));
        }
        histogram.snapshot()
    }

    #[test]
    fn a_histogram_fits_into_a_page() {
        assert!(size_of::<Histogram>() <= 4096);
    }

    #[test]
    fn nothing_recorded_is_all_zero() {
        let empty = Histogram::default().snapshot();
        assert_eq!(
            (empty.count, empty.sum, empty.min, empty.max),
            (0, Duration::ZERO, Duration::ZERO, Duration::ZERO)
        );
        assert_eq!((empty.mean(), empty.quantile(0.99)), (Duration::ZERO, Duration::ZERO));
        assert_eq!(empty.cumulative(&[0.1, 1.0]), [0, 0]);
    }

    #[test]
    fn sum_min_max_and_mean_are_exact() {
        let snapshot = recorded(&[1_000, 3_000, 123_456]);
        assert_eq!(snapshot.count, 3);
        assert_eq!(snapshot.sum, Duration::from_micros(127_456));
        assert_eq!((snapshot.min, snapshot.max), (Duration::from_millis(1), Duration::from_micros(123_456)));
        assert_eq!(snapshot.mean(), Duration::from_micros(42_485));
    }

    #[test]
    fn what_is_written_is_read_again() {
        let all = recorded(&[0, 15, 16, 1_000, 70_000, 70_001, MICROS_MAX]);
        let read: HistogramSnapshot = serde_json::from_str(&serde_json::to_string(&all).unwrap()).unwrap();
        assert_eq!(read, all);
        let nothing: HistogramSnapshot = serde_json::from_str("{}").unwrap();
        assert_eq!(nothing, recorded(&[]));
    }

    #[test]
    fn what_another_histogram_recorded_counts_as_recorded() {
        let histogram = Histogram::default();
        histogram.record(Duration::from_micros(5_000));
        histogram.add(&recorded(&[70_000, 1_000]));
        histogram.add(&recorded(&[]));
        assert_eq!(histogram.snapshot(), recorded(&[5_000, 70_000, 1_000]));
    }

    #[test]
    fn merged_histograms_are_the_histogram_of_all() {
        let all = [5_000, 70_000, 1_000, 1_000_000];
        let merged = HistogramSnapshot::merged([recorded(&all[..2]), recorded(&[]), recorded(&all[2..])]);
        assert_eq!(merged, recorded(&all));
        assert_eq!(HistogramSnapshot::merged([]), recorded(&[]));
    }

    #[test]
    fn the_difference_of_two_moments_is_what_happened_between() {
        let histogram = Histogram::default();
        histogram.record(Duration::from_millis(900));
        let before = histogram.snapshot();
        (0..100).for_each(|_| histogram.record(Duration::from_millis(2)));
        let between = histogram.snapshot().since(&before).unwrap();
        assert_eq!((between.count, between.sum), (100, Duration::from_millis(200)));
        assert!(between.quantile(0.99) < Duration::from_micros(2_200));
        assert_eq!(before.since(&histogram.snapshot()), None);
    }

    #[test]
    fn a_duration_is_rounded_to_the_nearest_microsecond() {
        assert_eq!(to_micros(Duration::from_nanos(1_499)), 1);
        assert_eq!(to_micros(Duration::from_nanos(1_500)), 2);
    }

    #[test]
    fn buckets_follow_each_other_without_gap_or_overlap() {
        for bucket in 0..BUCKETS {
            let highest = highest_in(bucket);
            assert_eq!(bucket_of(highest), bucket);
            if bucket + 1 < BUCKETS {
                assert_eq!(bucket_of(highest + 1), bucket + 1);
            }
        }
    }

    #[test]
    fn what_lasts_for_ever_counts_in_the_last_bucket() {
        let histogram = Histogram::default();
        histogram.record(Duration::MAX);
        let snapshot = histogram.snapshot();
        assert_eq!(snapshot.count, 1);
        assert_eq!(snapshot.max, Duration::from_micros(MICROS_MAX));
        assert_eq!(snapshot.quantile(0.5), snapshot.max);
    }

    #[test]
    fn a_bound_never_claims_that_a_request_was_faster_than_it_was() {
        let snapshot = recorded(&[900, 1_100, 90_000, 110_000]);
        assert_eq!(snapshot.cumulative(&[0.001, 0.0025, 0.1, 0.25]), [1, 2, 3, 4]);
        assert_eq!(recorded(&[1_001]).cumulative(&[0.001]), [0]);
    }

    #[test]
    fn threads_lose_no_count() {
        let histogram = Histogram::default();
        std::thread::scope(|scope| {
            for thread in 1..=4 {
                let histogram = &histogram;
                scope.spawn(move || {
                    for micros in 0..10_000 {
                        histogram.record(Duration::from_micros(micros * thread));
                    }
                });
            }
        });
        let snapshot = histogram.snapshot();
        assert_eq!(snapshot.count, 40_000);
        assert_eq!(snapshot.sum, Duration::from_millis(10 * 9_999 * 10 / 2));
        assert_eq!((snapshot.min, snapshot.max), (Duration::ZERO, Duration::from_micros(39_996)));
    }

    proptest! {
        /// Against the sorted values: never below the true quantile, never 1/16 above it.
        #[test]
        fn a_quantile_is_within_a_sixteenth(
            mut micros in prop::collection::vec(0u64..1_000_000_000, 1..200),
            q in 0.0f64..=1.0,
        ) {
            let found = recorded(&micros).quantile(q).as_micros();
            micros.sort_unstable();
            let rank = usize::try_from(rank_of(q, micros.len() as u64)).unwrap();
            let exact = u128::from(micros[rank - 1]);
            prop_assert!(found >= exact, "{found} < {exact}");
            prop_assert!(found <= exact + exact / 16, "{found} > {exact} by more than 1/16");
        }

        #[test]
        fn cumulative_counts_never_fall_and_never_exceed_the_truth(
            micros in prop::collection::vec(0u64..20_000_000, 0..200),
        ) {
            let bounds = [0.001, 0.01, 0.1, 1.0, 10.0];
            let counts = recorded(&micros).cumulative(&bounds);
            prop_assert!(counts.is_sorted());
            for (bound, count) in bounds.iter().zip(counts) {
                let within = |share: f64| {
                    micros.iter().filter(|&&micros| micros as f64 <= bound * 1e6 * share).count() as u64
                };
                prop_assert!(count <= within(1.0) && count >= within(15.0 / 16.0));
            }
        }
    }
}
