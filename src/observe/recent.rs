//! What happened in the last few minutes, of counters that only know since when they count.
//!
//! ```text
//!   counter ──every SAMPLE──► Recent          how much it grew, in thirty steps of ten seconds
//!   histograms ──every SAMPLE──► RecentTimes  what they were up to five minutes ago, to be subtracted
//! ```
//!
//! A [`Recent`] has 144 bytes, and there is one per route and upstream, and three per pool: 1.4 MB for ten thousand
//! upstreams, whose histograms have 40 MB. A [`RecentTimes`] has two snapshots of nearly 4 KB each, from the first
//! request on, per route and per pool: so 8 MB for a thousand busy routes, beside the 4 MB of their histograms.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::HistogramSnapshot;

/// How often counters are sampled. A window is wrong by so much at most.
pub const SAMPLE: Duration = Duration::from_secs(10);

/// How far back is remembered.
pub const WINDOW: Duration = Duration::from_secs(300);

const STEPS: u32 = 30;

/// With the one that is under way, a minute at most.
const STEPS_OF_A_MINUTE: u32 = 5;

/// How much a counter grew lately.
#[derive(Debug, Default)]
pub struct Recent(Mutex<Ring>);

/// How much a counter grew lately, as one process tells it to another.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RecentMemory {
    /// The counter when it was last sampled.
    count: u64,
    /// Steps of [`SAMPLE`] since the epoch of the process, and the growth in each.
    steps: Vec<(u32, u32)>,
}

/// Growth per step of [`SAMPLE`]; the place of a step follows from the clock.
#[derive(Debug, Default)]
struct Ring {
    growth: [u32; STEPS as usize],
    /// The step that was sampled last.
    step: u32,
    /// The counter then.
    count: u64,
}

impl Recent {
    /// Takes down what the counter says `now`, once in every [`SAMPLE`] or less often.
    pub fn sample(&self, count: u64, now: Duration) {
        let mut ring = lock(&self.0);
        let growth = u32::try_from(count.saturating_sub(ring.count)).unwrap_or(u32::MAX);
        ring.forget_until(step_at(now));
        ring.count = count;
        if let Some(step) = ring.growth.get_mut((step_at(now) % STEPS) as usize) {
            *step = step.saturating_add(growth);
        }
    }

    /// What is remembered, for another process that goes on with it.
    pub fn memory(&self) -> RecentMemory {
        let ring = lock(&self.0);
        let oldest = (ring.step + 1).saturating_sub(STEPS);
        let steps = (oldest..=ring.step).filter_map(|step| {
            let growth = *ring.growth.get((step % STEPS) as usize)?;
            (growth > 0).then_some((step, growth))
        });
        RecentMemory { count: ring.count, steps: steps.collect() }
    }

    /// Goes on with the [`memory`](Self::memory) of another process, whose times count from the same moment
    /// as ours, and whose counter is added to ours.
    pub fn go_on(&self, memory: &RecentMemory) {
        let mut ring = lock(&self.0);
        let latest = memory.steps.iter().map(|&(step, _)| step).max().unwrap_or(0);
        ring.forget_until(latest);
        let oldest = (ring.step + 1).saturating_sub(STEPS);
        for &(step, growth) in memory.steps.iter().filter(|&&(step, _)| step >= oldest) {
            if let Some(place) = ring.growth.get_mut((step % STEPS) as usize) {
                *place = place.saturating_add(growth);
            }
        }
        ring.count = ring.count.saturating_add(memory.count);
    }

    /// How much the counter, which says `count` now, grew within [`WINDOW`]; less if it is younger.
    pub fn growth(&self, count: u64, now: Duration) -> u64 {
        let mut ring = lock(&self.0);
        ring.forget_until(step_at(now));
        let sampled: u64 = ring.growth.iter().map(|&growth| u64::from(growth)).sum();
        sampled + count.saturating_sub(ring.count)
    }

    /// How much the counter, which says `count` now, grew within the last minute: in the five steps of
    /// [`SAMPLE`] before this one and in this one so far, so in fifty seconds at least.
    pub fn growth_in_a_minute(&self, count: u64, now: Duration) -> u64 {
        let mut ring = lock(&self.0);
        ring.forget_until(step_at(now));
        let steps = (ring.step + 1).saturating_sub(STEPS_OF_A_MINUTE)..=ring.step;
        let growth = steps.filter_map(|step| ring.growth.get((step % STEPS) as usize));
        growth.map(|&growth| u64::from(growth)).sum::<u64>() + count.saturating_sub(ring.count)
    }
}

impl Ring {
    /// Empties the places of steps that begin a new round.
    fn forget_until(&mut self, step: u32) {
        let passed = step.saturating_sub(self.step).min(STEPS);
        for offset in 0..passed {
            if let Some(place) = self.growth.get_mut((step.wrapping_sub(offset) % STEPS) as usize) {
                *place = 0;
            }
        }
        self.step = self.step.max(step);
    }
}

/// Four hundred years of steps of ten seconds fit into 32 bits three times.
fn step_at(now: Duration) -> u32 {
    u32::try_from(now.as_secs() / SAMPLE.as_secs()).unwrap_or(u32::MAX)
}

/// What a pool's response times were a while ago.
#[derive(Debug, Default)]
pub struct RecentTimes(Mutex<Snapshots>);

#[derive(Debug, Default)]
struct Snapshots {
    older: Option<HistogramSnapshot>,
    /// And when it was taken.
    newer: Option<(Duration, HistogramSnapshot)>,
}

impl RecentTimes {
    /// Whether it is time for [`RecentTimes::sample`].
    pub fn is_due(&self, now: Duration) -> bool {
        lock(&self.0).newer.as_ref().is_none_or(|(at, _)| now.saturating_sub(*at) >= WINDOW / 2)
    }

    /// Takes down what the histograms of a pool say `now`, all together.
    pub fn sample(&self, times: HistogramSnapshot, now: Duration) {
        let mut snapshots = lock(&self.0);
        snapshots.older = snapshots.newer.take().map(|(_, times)| times);
        snapshots.newer = Some((now, times));
    }

    /// What was recorded since the older snapshot, half a window to a window ago, or at all while there is
    /// only one; `times` is what the histograms say now. `None` when nothing is known: they are not comparable any
    /// more, because an upstream has left and took its times along.
    pub fn growth(&self, times: &HistogramSnapshot) -> Option<HistogramSnapshot> {
        let snapshots = lock(&self.0);
        match &snapshots.older {
            None => Some(times.clone()),
            Some(before) => times.since(before),
        }
    }
}

/// What a pool's response times were a while ago, as one process tells it to another.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RecentTimesMemory {
    older: Option<HistogramSnapshot>,
    newer: Option<(Duration, HistogramSnapshot)>,
}

impl RecentTimes {
    /// What is remembered, for another process that goes on with it.
    pub fn memory(&self) -> RecentTimesMemory {
        let snapshots = lock(&self.0);
        RecentTimesMemory { older: snapshots.older.clone(), newer: snapshots.newer.clone() }
    }

    /// Goes on with the [`memory`](Self::memory) of another process, whose times count from the same moment
    /// as ours.
    pub fn go_on(&self, memory: RecentTimesMemory) {
        *lock(&self.0) = Snapshots { older: memory.older, newer: memory.newer };
    }
}

/// A panic while holding one of these leaves nothing half done that matters.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::observe::Histogram;
    use crate::observe::histogram::BUCKETS;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn it_is_as_small_as_promised() {
        assert!(size_of::<Recent>() <= 144, "{}", size_of::<Recent>());
        let snapshot = size_of::<HistogramSnapshot>() + BUCKETS * size_of::<u64>();
        assert!((3_900..=4_096).contains(&snapshot), "{snapshot}");
    }

    #[test]
    fn what_was_not_sampled_yet_counts_too() {
        let recent = Recent::default();
        assert_eq!(recent.growth(7, seconds(3)), 7);
        recent.sample(10, seconds(10));
        assert_eq!(recent.growth(12, seconds(15)), 12);
    }

    #[test]
    fn what_is_older_than_the_window_is_forgotten() {
        let recent = Recent::default();
        recent.sample(100, seconds(10));
        recent.sample(150, seconds(20));
        assert_eq!(recent.growth(150, seconds(305)), 150);
        assert_eq!(recent.growth(150, seconds(310)), 50);
        assert_eq!(recent.growth(150, seconds(320)), 0);
        assert_eq!(recent.growth(151, seconds(100_000)), 1);
    }

    #[test]
    fn a_minute_is_this_step_and_those_before() {
        let recent = Recent::default();
        (1..=10).for_each(|step| recent.sample(step * 10, seconds(step * 10)));
        assert_eq!(recent.growth_in_a_minute(107, seconds(105)), 57);
        assert_eq!(recent.growth_in_a_minute(107, seconds(145)), 17);
        assert_eq!(recent.growth_in_a_minute(107, seconds(200)), 7);
    }

    #[test]
    fn a_sampler_that_slept_forgets_what_it_missed() {
        let recent = Recent::default();
        recent.sample(5, seconds(10));
        recent.sample(9, seconds(10_000));
        assert_eq!(recent.growth(9, seconds(10_005)), 4);
    }

    fn recorded(histogram: &Histogram, millis: &[u64]) -> HistogramSnapshot {
        for &millis in millis {
            histogram.record(Duration::from_millis(millis));
        }
        histogram.snapshot()
    }

    #[test]
    fn times_of_the_window_are_those_since_the_older_snapshot() {
        let (recent, histogram) = (RecentTimes::default(), Histogram::default());
        assert!(recent.is_due(seconds(0)));
        recent.sample(recorded(&histogram, &[1000; 5]), seconds(0));
        assert!(!recent.is_due(seconds(149)) && recent.is_due(seconds(150)));
        recent.sample(recorded(&histogram, &[5; 10]), seconds(150));
        let now = recorded(&histogram, &[5; 10]);
        let window = recent.growth(&now).unwrap();
        assert_eq!(window.count, 20);
        assert!(window.quantile(0.99) < Duration::from_millis(6), "{:?}", window.quantile(0.99));
        recent.sample(now.clone(), seconds(300));
        assert_eq!(recent.growth(&now).unwrap().count, 10);
    }

    #[test]
    fn times_without_one_that_left_are_unknown() {
        let (recent, histogram) = (RecentTimes::default(), Histogram::default());
        recent.sample(recorded(&histogram, &[1; 5]), seconds(0));
        recent.sample(recorded(&histogram, &[1; 5]), seconds(150));
        assert_eq!(recent.growth(&recorded(&Histogram::default(), &[9; 50])), None);
    }

    proptest! {
        /// Against a list of all that happened.
        #[test]
        fn a_window_holds_what_happened_in_it(
            steps in prop::collection::vec((1_u64..40, 0_u32..1000), 1..80),
        ) {
            let (recent, mut now, mut count, mut all) = (Recent::default(), 0, 0_u64, Vec::new());
            for (later, growth) in steps {
                now += later;
                count += u64::from(growth);
                all.push((now, u64::from(growth)));
                recent.sample(count, seconds(now));
            }
            let within = |age: u64| -> u64 {
                all.iter().filter(|(at, _)| now - at <= age).map(|(_, growth)| growth).sum()
            };
            let found = recent.growth(count, seconds(now));
            // What is sampled late is taken for as late as that.
            prop_assert!(found >= within(WINDOW.as_secs() - SAMPLE.as_secs()), "{found}");
            prop_assert!(found <= within(WINDOW.as_secs()), "{found}");
        }
    }
}
