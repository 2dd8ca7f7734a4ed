//! What an upstream is doing now, and how fast and how well it answered.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::float::Float;
use super::learned::Cells;
use super::sums::{Sample, Sums};
use super::{Memory, Terms, micros};

/// Live load of one upstream in one pool.
///
/// Each request that goes to the upstream calls [`begin`](Self::begin), then **one** of
/// [`succeeded`](Self::succeeded), [`failed`](Self::failed), [`progressed`](Self::progressed) and
/// [`abandoned`](Self::abandoned) when it is known, then [`end`](Self::end) when the last byte has
/// passed or the client is gone.
///
/// It belongs to the upstream and not to a snapshot: it survives every reload, so it knows no weight.
/// All of it is atomics; nobody ever waits. Three cache lines: the first is all that a pick reads, the
/// second takes what each answer tells, the third is the [`Tuner`](super::Tuner)'s.
#[derive(Debug)]
pub struct Load {
    hot: Hot,
    sums: Sums,
    pub(super) learned: Cells,
}

/// How far the estimate of an upstream's speed is to be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Estimate {
    /// Time since the last answer that told something.
    pub age: Duration,
    /// It was unused for so long that it is taken for like the pool, and to be tried again.
    pub is_relaxed: bool,
}

/// Read by every pick, written by every request; one cache line.
#[derive(Debug)]
#[repr(align(64))]
struct Hot {
    /// Requests in flight in the lower half; how many of them still wait for an answer in the upper.
    flights: AtomicU64,
    /// When the upstream last answered, or had somebody to answer again.
    progress_us: AtomicU64,
    multiplier: Float,
    multiplier_idle: Float,
    /// From 0 when cold to 1 when warm, relative to the warmest of the pool.
    ramp: Float,
    /// Microseconds without progress from which it counts as stalled; infinite when nothing is known.
    stall_after_us: Float,
    /// `ln` of the latency in nanoseconds at one request in flight; NaN when not known.
    expected: Float,
    beta: Float,
    clip_low: Float,
    clip_high: Float,
    deviation_max: Float,
    unit: Float,
    /// Requests that ever began.
    begun: AtomicU64,
}

/// What the tuner concludes about an upstream, for the picks and the answers to come.
#[derive(Clone, Copy, Debug)]
pub(super) struct Verdict {
    /// Factor on the cost while it has requests in flight; finite and positive.
    pub multiplier: f64,
    /// The same while it has none.
    pub multiplier_idle: f64,
    /// From 0 when cold to 1 when warm, relative to the warmest of the pool.
    pub ramp: f64,
    /// Time without an answer from which it counts as stalled, in seconds; infinite when not known.
    pub stall_after_s: f64,
    /// How the next answers are to be read.
    pub reading: Reading,
}

/// How the latency of an answer is turned into a sample of the upstream's own speed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reading {
    /// `ln` of the latency in nanoseconds at one request in flight; NaN when not known, then nothing
    /// is clipped.
    pub expected: f32,
    /// How strongly latency follows the requests in flight, 0 to 1.
    pub beta: f32,
    /// A sample this far below what was expected counts as no further below; at most 0.
    pub clip_low: f32,
    /// The same above; at least 0.
    pub clip_high: f32,
    /// A deviation counts as no larger than this.
    pub deviation_max: f32,
    /// What one request weighs here, the lightest upstream of the pool counting as 1.
    pub unit: f32,
}

impl Load {
    /// An upstream of which nothing is known, and which nobody has sent anything to.
    pub fn new(now: Duration) -> Self {
        Self { hot: Hot::new(), sums: Sums::default(), learned: Cells::new(micros(now)) }
    }

    /// Counts a request in and returns how many are in flight, this one included.
    pub fn begin(&self, now: Duration) -> u32 {
        if waiting(self.hot.flights.load(Ordering::Relaxed)) == 0 {
            self.hot.progress_us.store(micros(now), Ordering::Relaxed);
        }
        self.hot.begun.fetch_add(1, Ordering::Relaxed);
        // Whoever begins looks afterwards whether it still may, and whoever forbids it looks at this count
        // afterwards (`runtime`): in one order for all, so that one of the two sees the other.
        in_flight(self.hot.flights.fetch_add(ONE_WAITING | ONE_IN_FLIGHT, Ordering::SeqCst)).saturating_add(1)
    }

    /// The upstream answered well; `latency` is the time to the first byte, `in_flight_at_begin` what
    /// [`begin`](Self::begin) returned.
    ///
    /// For answers whose latency says something: not for upgrades, event streams and long polls, which
    /// are [`progressed`](Self::progressed).
    pub fn succeeded(&self, now: Duration, latency: Duration, in_flight_at_begin: u32) {
        self.progressed(now);
        if self.sums.has_room() {
            self.sums.add(&self.hot.sample(latency, in_flight_at_begin));
        }
    }

    /// The attempt failed: no connection, reset, timeout, garbage, or an answer of 500 and above.
    pub fn failed(&self, now: Duration) {
        self.progressed(now);
        self.sums.add_failure();
    }

    /// The upstream answered, and nothing is to be learned from how long it took.
    pub fn progressed(&self, now: Duration) {
        self.hot.progress_us.store(micros(now), Ordering::Relaxed);
        self.abandoned();
    }

    /// The request was given up before an answer, and not for the upstream's fault: the client left.
    pub fn abandoned(&self) {
        self.update_flights(|flights| waiting(flights).checked_sub(1).map(|_| flights - ONE_WAITING));
    }

    /// Gives the in-flight count back. Never falls below zero, however often it is called.
    pub fn end(&self) {
        self.update_flights(|flights| {
            let left = in_flight(flights).checked_sub(1)?;
            Some(u64::from(waiting(flights).min(left)) << HALF | u64::from(left))
        });
    }

    /// Starts a slow start at `now`: the upstream is new to a pool that runs already.
    ///
    /// Without a `slow_start` in the pool the next tick ends it.
    pub fn warm_up(&self, now: Duration) {
        self.learned.warm_up(micros(now));
        self.hot.ramp.store(RAMP_MIN);
    }

    /// The upstream comes back after an ejection: its failures are forgiven, and it starts half warm,
    /// whatever `slow_start` says.
    pub fn readmitted(&self, now: Duration) {
        self.learned.readmit(micros(now));
        self.hot.ramp.store(RAMP_READMITTED);
    }

    /// What was learned of the upstream, for another process that goes on with it. Requests in flight are
    /// not among it: they stay where they are.
    pub fn memory(&self) -> Memory {
        self.learned.peek().memory()
    }

    /// Goes on with the [`memory`](Self::memory) of another process, whose times count from the same moment
    /// as ours. What it does not name, as one of another version may not, stays as it is. Picks go by it
    /// after the next tick.
    pub fn remember(&self, recall: &dyn Fn(&str) -> Option<f64>) {
        self.learned.go_on(&self.learned.peek().with(recall));
    }

    /// Requests sent to the upstream whose last byte has not passed yet.
    pub fn in_flight(&self) -> u32 {
        in_flight(self.hot.flights.load(Ordering::Relaxed))
    }

    /// Requests that ever began, here or where another process [counted](Self::count_begun) them.
    pub fn begun(&self) -> u64 {
        self.hot.begun.load(Ordering::Relaxed)
    }

    /// So many requests began, and ended, in another process.
    pub fn count_begun(&self, requests: u64) {
        self.hot.begun.fetch_add(requests, Ordering::Relaxed);
    }

    /// Requests in flight that the upstream has not answered at all yet.
    pub fn waiting(&self) -> u32 {
        waiting(self.hot.flights.load(Ordering::Relaxed))
    }

    /// Mean time to first byte of late, for display; renewed by each tick. `None` before the first answer.
    pub fn latency(&self) -> Option<Duration> {
        let latency = self.learned.latency_s();
        (latency > 0.0).then(|| Duration::try_from_secs_f32(latency).unwrap_or(Duration::MAX))
    }

    /// What is known of the speed of its answers; `None` before the first.
    pub fn estimate(&self, now: Duration) -> Option<Estimate> {
        let learned = self.learned.peek();
        let age = micros(now).saturating_sub(learned.sampled_us);
        let is_relaxed = learned.idle >= RELAXED;
        (!learned.speed.is_nan()).then_some(Estimate { age: Duration::from_micros(age), is_relaxed })
    }

    /// By how much the upstream is dearer than its like, for display: 1 is usual, above is avoided.
    ///
    /// What it costs with one request in flight, for slowness, failures and slow start together.
    pub fn multiplier(&self) -> f32 {
        self.hot.multiplier.load() / self.hot.ramp.load()
    }

    /// How warm the upstream is, relative to the warmest of the pool: 1 when no slow start is on.
    pub(super) fn ramp(&self) -> f32 {
        self.hot.ramp.load()
    }

    /// What the next request would cost here; the smallest wins (`ALGORITHMS.md` §3).
    pub(super) fn cost(&self, now_us: u64, unit: f32) -> f32 {
        let flights = self.hot.flights.load(Ordering::Relaxed);
        let cost = self.hot.cost_of_load(flights, unit);
        if waiting(flights) == 0 { cost } else { cost * self.hot.cost_of_stall(now_us) }
    }

    /// [`Load::cost`], factor by factor, for those who ask why.
    pub(super) fn terms(&self, now: Duration, unit: f32) -> Terms {
        self.hot.terms(micros(now), unit)
    }

    /// The same without regard to stalls, the rule of `random_two` (`ALGORITHMS.md` §6).
    pub(super) fn cost_of_load(&self, unit: f32) -> f32 {
        self.hot.cost_of_load(self.hot.flights.load(Ordering::Relaxed), unit)
    }

    /// Takes what the answers told since the last tick.
    pub(super) fn take_sums(&self) -> super::sums::Batch {
        self.sums.take(self.hot.reading())
    }

    /// Makes a verdict count from the next pick on.
    pub(super) fn judge(&self, verdict: &Verdict) {
        self.hot.judge(verdict);
    }

    fn update_flights(&self, change: impl Fn(u64) -> Option<u64>) {
        // An `Err` says that there was nothing to give back: the count stays at zero.
        let _ = self.hot.flights.fetch_update(Ordering::Relaxed, Ordering::Relaxed, change);
    }
}

impl Hot {
    const fn new() -> Self {
        Self {
            flights: AtomicU64::new(0),
            progress_us: AtomicU64::new(0),
            multiplier: Float::new(1.0),
            multiplier_idle: Float::new(1.0),
            ramp: Float::new(1.0),
            stall_after_us: Float::new(f32::INFINITY),
            expected: Float::new(f32::NAN),
            beta: Float::new(0.5),
            clip_low: Float::new(0.0),
            clip_high: Float::new(0.0),
            deviation_max: Float::new(0.0),
            unit: Float::new(1.0),
            begun: AtomicU64::new(0),
        }
    }

    fn cost_of_load(&self, flights: u64, unit: f32) -> f32 {
        let in_flight = in_flight(flights);
        if in_flight == 0 {
            return self.multiplier_idle.load() / self.ramp.load();
        }
        let load = in_flight as f32 * unit;
        let load = if load >= 1.0 { load } else { 0.0 };
        (1.0 + load) * self.multiplier.load() / self.ramp.load()
    }

    /// All from one look at the flights, so that the factors belong together.
    fn terms(&self, now_us: u64, unit: f32) -> Terms {
        let flights = self.flights.load(Ordering::Relaxed);
        let (in_flight, waiting) = (in_flight(flights), waiting(flights));
        let weighed = Some(in_flight as f32 * unit).filter(|&load| load >= 1.0);
        let multiplier = if in_flight == 0 { &self.multiplier_idle } else { &self.multiplier };
        let stall = if waiting == 0 { 1.0 } else { self.cost_of_stall(now_us) };
        Terms {
            in_flight,
            waiting,
            load: 1.0 + weighed.unwrap_or(0.0),
            multiplier: multiplier.load(),
            warmth: self.ramp.load(),
            stall,
            cost: self.cost_of_load(flights, unit) * stall,
        }
    }

    /// 1, or from 4 upwards once the upstream has been silent for too long while somebody waits.
    fn cost_of_stall(&self, now_us: u64) -> f32 {
        let silent_us = now_us.saturating_sub(self.progress_us.load(Ordering::Relaxed)) as f32;
        let stall_after_us = self.stall_after_us.load();
        if silent_us <= stall_after_us {
            return 1.0;
        }
        let lateness = silent_us / stall_after_us;
        STALL_COST * lateness * lateness
    }

    fn sample(&self, latency: Duration, in_flight_at_begin: u32) -> Sample {
        Sample::read(latency, in_flight_at_begin, &self.reading())
    }

    fn reading(&self) -> Reading {
        Reading {
            expected: self.expected.load(),
            beta: self.beta.load(),
            clip_low: self.clip_low.load(),
            clip_high: self.clip_high.load(),
            deviation_max: self.deviation_max.load(),
            unit: self.unit.load(),
        }
    }

    fn judge(&self, verdict: &Verdict) {
        self.multiplier.store(verdict.multiplier);
        self.multiplier_idle.store(verdict.multiplier_idle);
        self.ramp.store(verdict.ramp);
        self.stall_after_us.store(verdict.stall_after_s * 1e6);
        self.expected.store(f64::from(verdict.reading.expected));
        self.beta.store(f64::from(verdict.reading.beta));
        self.clip_low.store(f64::from(verdict.reading.clip_low));
        self.clip_high.store(f64::from(verdict.reading.clip_high));
        self.deviation_max.store(f64::from(verdict.reading.deviation_max));
        self.unit.store(f64::from(verdict.reading.unit));
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the lower half is what is wanted")]
const fn in_flight(flights: u64) -> u32 {
    flights as u32
}

const fn waiting(flights: u64) -> u32 {
    in_flight(flights >> HALF)
}

/// From here on an upstream that was 64 times dearer, the most there is, is 1 % dearer while it is idle: it should
/// have been picked by now.
const RELAXED: f64 = 6.0;

const HALF: u32 = 32;
const ONE_IN_FLIGHT: u64 = 1;
const ONE_WAITING: u64 = 1 << HALF;

/// A stalled upstream costs this much at once, and with the square of its silence (`ALGORITHMS.md` §3).
const STALL_COST: f32 = 4.0;

/// Where a slow start begins: a tenth of the traffic of its like (`ALGORITHMS.md` §3).
pub(super) const RAMP_MIN: f64 = 0.1;

/// Where an upstream starts that comes back from an ejection (`ALGORITHMS.md` §3: half a slow start).
pub(super) const RAMP_READMITTED: f64 = 0.5;

#[cfg(test)]
#[allow(clippy::float_cmp, reason = "costs of idle upstreams are exactly 1")]
mod tests {
    use std::thread;

    use proptest::prelude::*;

    use super::*;

    const T0: Duration = Duration::ZERO;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn judged(stall_after_s: f64) -> Load {
        let load = Load::new(T0);
        load.hot.stall_after_us.store(stall_after_s * 1e6);
        load
    }

    #[test]
    fn the_hot_part_is_one_cache_line() {
        assert_eq!(size_of::<Hot>(), 64);
        assert_eq!(size_of::<Load>(), 3 * 64);
    }

    #[test]
    fn a_request_is_counted_in_and_out() {
        let load = Load::new(T0);
        assert_eq!((load.begin(T0), load.begin(T0)), (1, 2));
        load.end();
        assert_eq!(load.in_flight(), 1);
        load.end();
        load.end();
        assert_eq!((load.in_flight(), load.waiting()), (0, 0));
    }

    #[test]
    fn more_load_costs_more_and_weight_shares_it() {
        let load = Load::new(T0);
        assert_eq!(load.cost(0, 1.0), 1.0);
        load.begin(T0);
        assert_eq!(load.cost(0, 1.0), 2.0);
        // A quarter of what it can take counts as nothing.
        assert_eq!(load.cost(0, 0.25), 1.0);
    }

    #[test]
    fn an_upstream_that_stopped_answering_costs_more_each_moment() {
        let load = judged(0.025);
        load.begin(seconds(10));
        let cost_after = |ms: u64| load.cost(micros(seconds(10) + Duration::from_millis(ms)), 1.0);
        assert_eq!(cost_after(25), 2.0);
        assert_eq!(cost_after(50), 2.0 * 4.0 * 4.0);
        assert!(cost_after(100) > 3.9 * cost_after(50));
    }

    /// A download or a WebSocket that has been answered is no sign of a stall, however long it runs.
    #[test]
    fn who_has_answered_everybody_is_not_stalled() {
        let load = judged(0.025);
        load.begin(T0);
        load.progressed(T0);
        assert_eq!(load.cost(micros(seconds(3_600)), 1.0), 2.0);

        load.begin(seconds(3_600));
        assert_eq!(load.cost(micros(seconds(3_600)), 1.0), 3.0);
        assert!(load.cost(micros(seconds(3_601)), 1.0) > 100.0);
    }

    #[test]
    fn a_client_that_left_waits_no_longer() {
        let load = judged(0.025);
        load.begin(T0);
        load.begin(T0);
        load.progressed(T0);
        load.abandoned();
        load.end();
        assert_eq!((load.in_flight(), load.waiting()), (1, 0));
        assert_eq!(load.cost(micros(seconds(60)), 1.0), 2.0);
    }

    #[test]
    fn a_slow_start_counts_from_the_first_pick() {
        let load = Load::new(T0);
        load.warm_up(T0);
        assert!((load.cost(0, 1.0) - 10.0).abs() < 1e-4);
        load.readmitted(T0);
        assert!((load.cost(0, 1.0) - 2.0).abs() < 1e-4);
    }

    proptest! {
        /// Whatever is called in whatever order, nothing falls below zero or comes out of step.
        #[test]
        fn in_flight_is_begun_minus_ended_and_never_below_zero(
            calls in prop::collection::vec(0_u8..6, 0..200),
        ) {
            let load = Load::new(T0);
            let mut expected = 0_u32;
            for call in calls {
                match call {
                    0 => { load.begin(T0); expected += 1; }
                    1 => { load.end(); expected = expected.saturating_sub(1); }
                    2 => load.succeeded(T0, seconds(1), 1),
                    3 => load.failed(T0),
                    4 => load.progressed(T0),
                    _ => load.abandoned(),
                }
                prop_assert_eq!(load.in_flight(), expected);
                prop_assert!(load.waiting() <= expected);
            }
        }
    }

    #[test]
    fn threads_that_begin_and_end_leave_nothing_behind() {
        let load = Load::new(T0);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| hammer(&load));
            }
        });
        assert_eq!((load.in_flight(), load.waiting()), (0, 0));
    }

    /// Ends more often than it begins, so that a missing guard would wrap around.
    fn hammer(load: &Load) {
        for round in 0..20_000_u64 {
            let in_flight = load.begin(T0);
            assert!(in_flight < 5, "{in_flight} in flight with four threads");
            load.succeeded(T0, Duration::from_micros(round), in_flight);
            load.end();
            load.end();
        }
    }
}
