//! Learns from the answers of a pool what each upstream is worth, ten times a second.
//!
//! ```text
//!   Load of each upstream                                        Load of each upstream
//!   sums since the last tick ──► collect ──► fold ──► level ──► judge ──► multiplier, stall_after
//!                                           each     the pool   each      ramp, how to read answers
//! ```
//!
//! `collect` takes the sums, `fold` puts them into what was learned of each upstream, `level` finds what
//! is usual in the pool, `judge` compares. Formulas and constants: `ALGORITHMS.md` §3 and §5.

use std::time::Duration;

use super::float::narrow;
use super::learned::Learned;
use super::load::{RAMP_MIN, RAMP_READMITTED, Reading, Verdict};
use super::sums::Batch;
use super::{Candidate, Memory, StrategyKind, lightest, micros, unit};

/// How often [`Tuner::tick`] is due (`ALGORITHMS.md` §3).
pub const TICK: Duration = Duration::from_millis(100);

/// What one pool has learned as a whole.
///
/// One per pool, behind the caller's lock and off the request path. Ticks cost O(N log N).
#[derive(Debug, Default)]
pub struct Tuner {
    ticked_us: Option<u64>,
    slope: Slope,
    spread: Spread,
    level: Level,
    members: Vec<Member>,
    /// Scratch of [`median`], kept so that ticks do not allocate.
    ranked: Vec<(f64, f64)>,
}

/// How latency follows load: one regression for the pool, within upstreams.
#[derive(Debug)]
struct Slope {
    covariance: f64,
    load_variance: f64,
    /// 0: latency does not depend on our load; 1: it is all queue.
    beta: f64,
}

/// How far answers of one upstream lie apart, in `ln`.
#[derive(Debug)]
struct Spread {
    deviation: f64,
    count: f64,
    sigma: f64,
}

/// What is usual in the pool: medians by traffic, what most requests meet.
#[derive(Debug)]
struct Level {
    /// `ln` of the latency in nanoseconds at one request in flight; NaN before the first answer.
    speed: f64,
    /// Mean latency in seconds; 0 before the first answer.
    latency_s: f64,
    /// Requests in flight per unit of weight.
    in_flight: f64,
    /// Share of failed attempts.
    failure_share: f64,
}

/// One upstream during a tick.
#[derive(Debug)]
struct Member {
    unit: f32,
    in_flight: f64,
    /// Nobody waits for an answer.
    unused: bool,
    /// It may be picked at all.
    open: bool,
    /// It was notably dearer than its like.
    avoided: bool,
    batch: Batch,
    learned: Learned,
}

/// What a tick brings to every upstream alike.
#[derive(Clone, Copy)]
struct Span {
    now_us: u64,
    seconds: f64,
    /// What an unused upstream's estimate relaxes by, as [`Learned::idle`].
    relaxation: f64,
}

impl Tuner {
    /// Folds in what was answered since the last tick; due every [`TICK`] for every strategy, so that
    /// knowledge is there when the strategy changes.
    ///
    /// `candidates` are all upstreams of the pool, `weights` theirs, in the same order. `slow_start` is
    /// how long a new upstream takes to warm up; zero, not at all. Late and missed ticks do no harm.
    pub fn tick<C: Candidate>(
        &mut self,
        candidates: &[C],
        weights: &[u16],
        kind: StrategyKind,
        slow_start: Duration,
        now: Duration,
    ) {
        let seconds = self.seconds_since_last(micros(now));
        self.collect(candidates, weights, now);
        let relaxation = self.relaxation(seconds);
        let span = Span { now_us: micros(now), seconds, relaxation };
        self.fold(span);
        self.find_level(span);
        self.judge(candidates, kind, slow_start, span.now_us);
    }

    /// What was learned of the pool, for another process that goes on with it.
    pub fn memory(&self) -> Memory {
        let all = [
            ("covariance", self.slope.covariance),
            ("load_variance", self.slope.load_variance),
            ("beta", self.slope.beta),
            ("deviation", self.spread.deviation),
            ("count", self.spread.count),
            ("sigma", self.spread.sigma),
            ("speed", self.level.speed),
            ("latency_s", self.level.latency_s),
            ("in_flight", self.level.in_flight),
            ("failure_share", self.level.failure_share),
        ];
        all.into_iter().filter(|(_, number)| number.is_finite()).collect()
    }

    /// Goes on with the [`memory`](Self::memory) of another process; what it does not name stays as it is.
    pub fn remember(&mut self, recall: &dyn Fn(&str) -> Option<f64>) {
        for (name, number) in [
            ("covariance", &mut self.slope.covariance),
            ("load_variance", &mut self.slope.load_variance),
            ("beta", &mut self.slope.beta),
            ("deviation", &mut self.spread.deviation),
            ("count", &mut self.spread.count),
            ("sigma", &mut self.spread.sigma),
            ("speed", &mut self.level.speed),
            ("latency_s", &mut self.level.latency_s),
            ("in_flight", &mut self.level.in_flight),
            ("failure_share", &mut self.level.failure_share),
        ] {
            *number = recall(name).unwrap_or(*number);
        }
    }

    fn seconds_since_last(&mut self, now_us: u64) -> f64 {
        let last = self.ticked_us.replace(now_us);
        last.map_or(TICK.as_secs_f64(), |last| now_us.saturating_sub(last) as f64 / 1e6)
    }

    fn collect<C: Candidate>(&mut self, candidates: &[C], weights: &[u16], now: Duration) {
        let lightest = lightest(weights);
        self.members.clear();
        self.members.extend(
            candidates
                .iter()
                .zip(weights)
                .map(|(candidate, &weight)| Member::of(candidate, weight, lightest, now)),
        );
    }

    /// By how much unused upstreams relax towards the pool: with time, but all of them together no faster
    /// than the price of trying them again allows.
    fn relaxation(&self, seconds: f64) -> f64 {
        let answers: f64 = self.members.iter().map(|member| member.batch.count).sum();
        let wanting = self.members.iter().filter(|member| member.wants_trying()).count();
        let by_time = seconds / IDLE_MEMORY_S;
        let slower = if wanting == 0 { by_time } else { by_time.min(EXPLORATION * answers / wanting as f64) };
        if self.level.in_flight < 1.0 { slower * IDLE_POOL_PACE } else { slower }
    }

    /// Puts the new sums into what is known, with the slope of the tick before: the samples were read with it.
    fn fold(&mut self, span: Span) {
        self.slope.fade(span.seconds);
        self.spread.fade(span.seconds);
        for member in &mut self.members {
            self.slope.add(&member.batch);
            if member.learned.is_settled() {
                self.spread.add(&member.batch);
            }
            member.fold(span);
        }
        self.slope.solve();
        self.spread.solve();
    }

    fn find_level(&mut self, span: Span) {
        if let Some(speed) = self.median_of(Member::is_sampled, |member| member.learned.speed) {
            self.level.speed = speed;
        }
        if let Some(latency_s) = self.median_of(Member::is_sampled, |member| member.learned.latency_s) {
            self.level.latency_s = latency_s;
        }
        if let Some(in_flight) = self.median_of(Member::is_sampled, Member::load) {
            self.level.in_flight +=
                gain(span.seconds, IN_FLIGHT_MEMORY_S) * (in_flight - self.level.in_flight);
        }
        if let Some(share) = self.usual_failure_share() {
            self.level.failure_share = share.min(FAILURE_SHARE_MAX);
        }
    }

    /// What most requests suffer, or what most upstreams do, whichever is less: one that fails fast can
    /// answer most of the requests, and must not become the standard by that.
    fn usual_failure_share(&mut self) -> Option<f64> {
        let of_requests = self.median_of(Member::has_traffic, |member| member.learned.failure_share)?;
        self.ranked.iter_mut().for_each(|(_, traffic)| *traffic = 1.0);
        median(&mut self.ranked).map(|of_upstreams| of_requests.min(of_upstreams))
    }

    fn median_of(&mut self, of: fn(&Member) -> bool, value: fn(&Member) -> f64) -> Option<f64> {
        let members = self.members.iter().filter(|member| of(member));
        self.ranked.clear();
        self.ranked.extend(members.map(|member| (value(member), member.learned.traffic)));
        median(&mut self.ranked)
    }

    fn judge<C: Candidate>(&self, candidates: &[C], kind: StrategyKind, slow_start: Duration, now_us: u64) {
        let ramp_of = |member: &Member| ramp(&member.learned, slow_start, now_us);
        let warmest = self.members.iter().filter(|member| member.open).map(ramp_of).fold(RAMP_MIN, f64::max);
        for (candidate, member) in candidates.iter().zip(&self.members) {
            let ramp = (ramp_of(member) / warmest).min(1.0);
            let load = candidate.load();
            load.judge(&self.verdict(member, kind, ramp));
            load.learned.remember(&member.learned);
        }
    }

    fn verdict(&self, member: &Member, kind: StrategyKind, ramp: f64) -> Verdict {
        let failures = self.cost_of_failures(member.learned.failure_share);
        let slowness = self.ln_of_slowness(&member.learned, kind);
        Verdict {
            multiplier: sane(failures * slowness.exp()),
            multiplier_idle: forgive_a_trace(sane(
                failures * (slowness * (-member.learned.idle).exp()).exp(),
            )),
            ramp,
            stall_after_s: self.stall_after_s(&member.learned),
            reading: self.reading(member),
        }
    }

    /// What an upstream costs more for failing more often than the pool does.
    fn cost_of_failures(&self, share: f64) -> f64 {
        let usual = self.level.failure_share;
        if share <= usual {
            return 1.0;
        }
        let ratio = (1.0 - usual) / (1.0 - share).max(1.0 - FAILURE_SHARE_TOP);
        ratio.powi(FAILURE_EXPONENT).min(FAILURE_COST * (1.0 + self.level.in_flight))
    }

    /// `ln` of what it costs more for being slower than the pool, beyond what may be noise.
    fn ln_of_slowness(&self, learned: &Learned, kind: StrategyKind) -> f64 {
        if kind != StrategyKind::LatencyWeighted || !learned.is_settled() || self.level.speed.is_nan() {
            return 0.0;
        }
        let dead_band = DEAD_BAND.max(DEAD_BAND_ERRORS * self.spread.sigma * learned.variance.sqrt());
        let slower = shrink(learned.speed - self.level.speed, dead_band);
        (self.slope.exponent() * slower).clamp(-SLOWNESS_LN_DOWN, SLOWNESS_LN_UP)
    }

    fn stall_after_s(&self, learned: &Learned) -> f64 {
        let latency_s = learned.latency_s.max(self.level.latency_s);
        if latency_s > 0.0 { STALL_AFTER_S_MIN.max(STALL_LATENCIES * latency_s) } else { f64::INFINITY }
    }

    /// What the next answers of this upstream are compared with.
    fn reading(&self, member: &Member) -> Reading {
        let learned = &member.learned;
        let usual = CLIP_MIN.max(CLIP_SIGMAS * self.spread.sigma);
        let width = (usual * learned.width).min(usual.max(CLIP_MAX));
        // Long unused: what the pool does is as likely as what the upstream did when last seen.
        let to_pool = self.level.speed - learned.speed;
        let to_pool =
            if learned.is_settled() && learned.idle >= 1.0 && to_pool.is_finite() { to_pool } else { 0.0 };
        Reading {
            expected: narrow(self.expected(learned)),
            beta: narrow(self.slope.beta),
            clip_low: narrow(to_pool.min(0.0) - width),
            clip_high: narrow(to_pool.max(0.0) + width),
            deviation_max: narrow(DEVIATION_CLIPS * usual),
            unit: member.unit,
        }
    }

    /// What an upstream's answers are read against: its own speed, or the pool's as long as that is not
    /// known; NaN, nothing, when it turned out to be unlike the pool.
    fn expected(&self, learned: &Learned) -> f64 {
        if learned.is_settled() {
            learned.speed
        } else if learned.width > 1.0 {
            f64::NAN
        } else {
            self.level.speed
        }
    }
}

impl Member {
    fn of<C: Candidate>(candidate: &C, weight: u16, lightest: u16, now: Duration) -> Self {
        let load = candidate.load();
        Self {
            unit: unit(weight, lightest),
            in_flight: f64::from(load.in_flight()),
            unused: load.waiting() == 0,
            open: weight > 0 && candidate.is_eligible(now),
            avoided: f64::from(load.multiplier()) > AVOIDED,
            batch: load.take_sums(),
            learned: load.learned.recall(),
        }
    }

    fn is_sampled(&self) -> bool {
        self.learned.is_known() && self.has_traffic()
    }

    fn has_traffic(&self) -> bool {
        self.learned.traffic > 0.0
    }

    fn load(&self) -> f64 {
        self.in_flight * f64::from(self.unit)
    }

    /// Would be tried again if only it seemed cheaper.
    fn wants_trying(&self) -> bool {
        self.open && self.avoided && self.unused && self.batch.count == 0.0
    }

    fn fold(&mut self, span: Span) {
        self.fold_traffic(span.seconds);
        self.fold_failures(span.seconds);
        if self.batch.count > 0.0 {
            self.learned.fold_speed(&self.batch, span);
            self.learned.idle = 0.0;
            self.learned.width = if self.batch.mostly_clipped { 2.0 * self.learned.width } else { 1.0 };
        } else if self.unused {
            self.learned.idle += span.relaxation;
        }
    }

    fn fold_traffic(&mut self, seconds: f64) {
        let answers = self.batch.count + self.batch.failures;
        let traffic = self.learned.traffic * (-seconds / TRAFFIC_MEMORY_S).exp() + answers;
        self.learned.traffic = if traffic < TRAFFIC_MIN { 0.0 } else { traffic };
    }

    fn fold_failures(&mut self, seconds: f64) {
        let answers = self.batch.count + self.batch.failures;
        let share = &mut self.learned.failure_share;
        if answers > 0.0 {
            *share += gain(answers, FAILURE_SAMPLES) * (self.batch.failures / answers - *share);
        } else if self.unused {
            *share *= (-seconds / FAILURE_MEMORY_S).exp();
        }
    }
}

impl Learned {
    fn is_known(&self) -> bool {
        !self.speed.is_nan()
    }

    /// Rests on more than the first answer alone, which may be slow for reasons of its own (a cold
    /// cache, a connection to set up): with it alone, an upstream would be avoided for long.
    fn is_settled(&self) -> bool {
        self.is_known() && self.variance <= VARIANCE_SETTLED
    }

    fn fold_speed(&mut self, batch: &Batch, span: Span) {
        if self.is_settled() {
            self.follow(batch, span.now_us);
        } else {
            self.settle(batch);
        }
        self.sampled_us = span.now_us;
    }

    fn follow(&mut self, batch: &Batch, now_us: u64) {
        let gain = self.gain(batch, now_us.saturating_sub(self.sampled_us) as f64 / 1e6);
        self.speed += gain * (batch.speed_mean - self.speed);
        self.latency_s += gain * (batch.latency_mean_s - self.latency_s);
        self.variance = (1.0 - gain).powi(2) * self.variance + gain * gain / batch.count;
    }

    /// Takes the first answers as they are, once they are more than one and mostly what is usual in the
    /// pool. If they are not, the next ones decide, which [`Tuner::reading`] then does not clip.
    fn settle(&mut self, batch: &Batch) {
        let alone = !self.is_known() && batch.count <= 1.0;
        if !self.is_known() || !batch.mostly_clipped {
            self.speed = batch.speed_mean;
            self.latency_s = batch.latency_mean_s;
        }
        let unsure = alone || batch.mostly_clipped;
        self.variance = if unsure { 1.0 } else { VARIANCE_SETTLED.min(1.0 / batch.count) };
    }

    /// How much a batch counts: by its samples, by the time since the last one, and never faster than
    /// a limit, which is shorter for bad news.
    fn gain(&self, batch: &Batch, elapsed_s: f64) -> f64 {
        let fastest_s = if batch.speed_mean > self.speed { SPEED_FASTEST_SLOWER_S } else { SPEED_FASTEST_S };
        let weight = batch.count / SPEED_SAMPLES + elapsed_s / SPEED_MEMORY_S;
        gain(weight.min(elapsed_s / fastest_s), 1.0)
    }
}

impl Slope {
    fn fade(&mut self, seconds: f64) {
        let kept = (-seconds / REGRESSION_MEMORY_S).exp();
        self.covariance *= kept;
        self.load_variance *= kept;
    }

    fn add(&mut self, batch: &Batch) {
        self.covariance += batch.covariance;
        self.load_variance += batch.load_variance;
    }

    fn solve(&mut self) {
        let slope =
            (self.covariance + BETA_PRIOR * BETA_PRIOR_WEIGHT) / (self.load_variance + BETA_PRIOR_WEIGHT);
        self.beta = slope.clamp(0.0, 1.0);
    }

    /// How strongly slowness counts: 1 when it is all queue, 2 when load explains nothing of it.
    fn exponent(&self) -> f64 {
        EXPONENT_QUEUE + (EXPONENT_SPEED - EXPONENT_QUEUE) * (1.0 - self.beta)
    }
}

impl Default for Slope {
    fn default() -> Self {
        Self { covariance: 0.25, load_variance: 0.5, beta: BETA_PRIOR }
    }
}

impl Spread {
    fn fade(&mut self, seconds: f64) {
        let kept = (-seconds / REGRESSION_MEMORY_S).exp();
        self.deviation *= kept;
        self.count *= kept;
    }

    fn add(&mut self, batch: &Batch) {
        self.deviation += batch.deviation;
        self.count += batch.count;
    }

    fn solve(&mut self) {
        if self.count > SIGMA_SAMPLES_MIN {
            self.sigma = SIGMA_MIN.max(SIGMA_PER_DEVIATION * self.deviation / self.count);
        }
    }
}

impl Default for Spread {
    fn default() -> Self {
        Self { deviation: 0.0, count: 0.0, sigma: 1.0 }
    }
}

impl Default for Level {
    fn default() -> Self {
        Self { speed: f64::NAN, latency_s: 0.0, in_flight: 1.0, failure_share: 0.0 }
    }
}

/// How warm an upstream is in itself, [`RAMP_MIN`] to 1.
fn ramp(learned: &Learned, slow_start: Duration, now_us: u64) -> f64 {
    let age_s = |since_us: u64| now_us.saturating_sub(since_us) as f64 / 1e6;
    let new = learned.born_us.map_or(1.0, |born| part(age_s(born), slow_start.as_secs_f64()));
    let back = learned.readmitted_us.map_or(1.0, |since| RAMP_READMITTED + part(age_s(since), RAMP_S));
    new.min(back).clamp(RAMP_MIN, 1.0)
}

/// `age` as a part of `whole`; all of it when there is no whole.
fn part(age_s: f64, whole_s: f64) -> f64 {
    if whole_s > 0.0 { age_s / whole_s } else { 1.0 }
}

/// Lower median of `(value, traffic)` by traffic.
fn median(ranked: &mut [(f64, f64)]) -> Option<f64> {
    ranked.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
    let half = 0.5 * ranked.iter().map(|&(_, traffic)| traffic).sum::<f64>();
    let mut seen = 0.0;
    ranked
        .iter()
        .find(|&&(_, traffic)| {
            seen += traffic;
            seen >= half
        })
        .or(ranked.last())
        .map(|&(value, _)| value)
}

/// What `amount` of something new counts against a memory of `scale`, 0 to 1.
fn gain(amount: f64, scale: f64) -> f64 {
    1.0 - (-amount / scale).exp()
}

/// `value`, brought nearer to 0 by `band`.
fn shrink(value: f64, band: f64) -> f64 {
    value.signum() * (value.abs() - band).max(0.0)
}

/// A multiplier never becomes infinite, zero or NaN, or else an upstream would be lost for good.
fn sane(multiplier: f64) -> f64 {
    if multiplier.is_finite() { multiplier.clamp(1e-3, 1e6) } else { 1.0 }
}

/// Takes a multiplier that has relaxed to nearly 1 for 1. Among idle equals the cheapest always wins, so
/// an upstream that is dearer by a trace would wait for its next try until the trace is rounded away.
fn forgive_a_trace(multiplier_idle: f64) -> f64 {
    if multiplier_idle > 1.0 && multiplier_idle < TRACE { 1.0 } else { multiplier_idle }
}

// ALGORITHMS.md §3: failures.

/// Attempts by which the share of failures is averaged.
const FAILURE_SAMPLES: f64 = 24.0;
/// Seconds by which the share of an unused upstream fades.
const FAILURE_MEMORY_S: f64 = 10.0;
/// Exponent on the share of successes.
const FAILURE_EXPONENT: i32 = 8;
/// A failing upstream is used when the others have this many times the usual in flight.
const FAILURE_COST: f64 = 16.0;
/// What the whole pool suffers counts as no more than this, so that the rest stays a number to divide by.
const FAILURE_SHARE_MAX: f64 = 0.99;
/// The same for one upstream.
const FAILURE_SHARE_TOP: f64 = 0.999;

// ALGORITHMS.md §3: slow start and stall.

/// Length of the ramp after an ejection, of which the second half is used.
const RAMP_S: f64 = 10.0;
/// Mean latencies without an answer after which an upstream counts as stalled …
const STALL_LATENCIES: f64 = 2.5;
/// … but not earlier than this.
const STALL_AFTER_S_MIN: f64 = 0.005;

// ALGORITHMS.md §5: intrinsic speed.

/// Seconds of memory of the regression and of sigma.
const REGRESSION_MEMORY_S: f64 = 5.0;
/// The slope before anything is known: half queue, half speed.
const BETA_PRIOR: f64 = 0.5;
/// What the prior counts, in observations.
const BETA_PRIOR_WEIGHT: f64 = 2.0;
/// Exponent on slowness when latency is all queue (beta = 1) …
const EXPONENT_QUEUE: f64 = 1.0;
/// … and when load has no part in it (beta = 0).
const EXPONENT_SPEED: f64 = 2.0;
/// Differences of `ln` latency below this are noise …
const DEAD_BAND: f64 = 0.15;
/// … or below this many standard errors.
const DEAD_BAND_ERRORS: f64 = 1.5;
/// Samples by which speed is averaged …
const SPEED_SAMPLES: f64 = 16.0;
/// … or seconds, for upstreams with few samples …
const SPEED_MEMORY_S: f64 = 4.0;
/// … but never faster than in this many seconds …
const SPEED_FASTEST_S: f64 = 0.5;
/// … or this many when it became slower.
const SPEED_FASTEST_SLOWER_S: f64 = 0.2;
/// Fewest seconds in which an unused upstream's estimate relaxes to the pool's …
const IDLE_MEMORY_S: f64 = 6.0;
/// … and the share of the pool's traffic that trying again may cost.
const EXPLORATION: f64 = 0.001;
/// An upstream with a larger multiplier is being avoided (`proposals.py`, `nslow`).
const AVOIDED: f64 = 1.5;
/// Largest `ln` of the multiplier from latency, and its largest reduction.
const SLOWNESS_LN_UP: f64 = 4.158_883_083_359_672;
const SLOWNESS_LN_DOWN: f64 = 1.386_294_361_119_890_6;
/// Samples count as no further from the expected than this many sigma …
const CLIP_SIGMAS: f64 = 1.5;
/// … but at least this far, twice as far in each tick in which most were clipped on one side …
const CLIP_MIN: f64 = 0.3;
/// … up to this.
const CLIP_MAX: f64 = 3.0;
/// Deviations count as no larger than this many usual clips.
const DEVIATION_CLIPS: f64 = 4.0;
/// A normal distribution's sigma per mean absolute deviation.
const SIGMA_PER_DEVIATION: f64 = 1.25;
/// Answers are never taken to be more alike than this.
const SIGMA_MIN: f64 = 0.05;
/// Samples below which sigma is left as it was.
const SIGMA_SAMPLES_MIN: f64 = 20.0;

// ALGORITHMS.md does not say; from `proposals.py`.

/// Seconds of memory of traffic.
const TRAFFIC_MEMORY_S: f64 = 1.0;
/// Less traffic than this is none.
const TRAFFIC_MIN: f64 = 0.05;
/// Seconds of memory of the usual in flight.
const IN_FLIGHT_MEMORY_S: f64 = 30.0;

// Ours, found by tests; see the functions that use them.

/// A variance above this says that the estimate rests on a single answer.
const VARIANCE_SETTLED: f64 = 0.75;
/// Among busy upstreams one that has relaxed by about 1 is tried again; among idle ones the cheapest always
/// wins, and only a tie is tried: after `ln(ln 64 / ln TRACE)` = 4.4.
const IDLE_POOL_PACE: f64 = 4.0;
/// A multiplier up to here is as good as 1.
const TRACE: f64 = 1.05;

#[cfg(test)]
#[allow(clippy::float_cmp, reason = "costs of idle upstreams are exactly 1")]
mod tests {
    use super::*;
    use crate::balance::testing::Fake;

    const LATENCY: StrategyKind = StrategyKind::LatencyWeighted;

    /// A pool in virtual time that answers as it is told.
    struct World {
        pool: Vec<Fake>,
        weights: Vec<u16>,
        tuner: Tuner,
        now: Duration,
    }

    impl World {
        fn of(size: usize) -> Self {
            Self {
                pool: (0..size).map(|_| Fake::eligible()).collect(),
                weights: vec![1; size],
                tuner: Tuner::default(),
                now: Duration::ZERO,
            }
        }

        /// One tick in which upstream `index` answers `count` requests, sent one at a time, after `latency`.
        fn answer(&self, index: usize, count: usize, latency: Duration) {
            let load = self.pool[index].load();
            for _ in 0..count {
                let in_flight = load.begin(self.now);
                load.succeeded(self.now, latency, in_flight);
                load.end();
            }
        }

        fn fail(&self, index: usize, count: usize) {
            let load = self.pool[index].load();
            for _ in 0..count {
                load.begin(self.now);
                load.failed(self.now);
                load.end();
            }
        }

        fn tick(&mut self, kind: StrategyKind) {
            self.now += TICK;
            self.tuner.tick(&self.pool, &self.weights, kind, Duration::ZERO, self.now);
        }

        fn cost(&self, index: usize) -> f32 {
            self.pool[index].load().cost(micros(self.now), 1.0)
        }
    }

    fn micro(us: u64) -> Duration {
        Duration::from_micros(us)
    }

    fn milli(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Traefik's `leasttime` counts whole milliseconds, where both of these are 0.
    #[test]
    fn sub_millisecond_latencies_are_told_apart() {
        let mut world = World::of(2);
        for _ in 0..50 {
            world.answer(0, 10, micro(200));
            world.answer(1, 10, micro(800));
            world.tick(LATENCY);
        }
        let latencies =
            [0, 1].map(|index| world.pool[index].load().latency().map_or(0, |mean| mean.as_micros()));
        assert_eq!(latencies, [200, 800]);
        let ratio = world.cost(1) / world.cost(0);
        assert!((4.0..12.0).contains(&ratio), "{ratio}");
    }

    #[test]
    fn only_latency_weighted_looks_at_latency() {
        for kind in StrategyKind::ALL {
            let mut world = World::of(3);
            for _ in 0..30 {
                (0..3).for_each(|index| world.answer(index, 10, milli(if index == 0 { 50 } else { 10 })));
                world.tick(kind);
            }
            assert_eq!(world.cost(0) > 1.0, kind == LATENCY, "{kind:?}: {}", world.cost(0));
            assert_eq!(world.cost(1), 1.0);
        }
    }

    #[test]
    fn failing_more_than_the_pool_costs_and_failing_like_the_pool_does_not() {
        let mut world = World::of(3);
        for _ in 0..20 {
            (0..3).for_each(|index| world.answer(index, 9, milli(10)));
            (0..3).for_each(|index| world.fail(index, 1));
            world.tick(StrategyKind::LeastConnections);
        }
        assert_eq!([0, 1, 2].map(|index| world.cost(index)), [1.0; 3]);

        world.fail(0, 24);
        world.tick(StrategyKind::LeastConnections);
        assert!(world.cost(0) > 8.0, "{}", world.cost(0));
    }

    #[test]
    fn a_failing_upstream_costs_no_more_than_the_others_can_bear() {
        let mut world = World::of(2);
        for _ in 0..100 {
            world.answer(1, 50, milli(10));
            world.fail(0, 50);
            world.tick(StrategyKind::LeastConnections);
        }
        assert!(world.cost(0) <= 32.0, "{}", world.cost(0));
    }

    #[test]
    fn a_readmitted_upstream_is_forgiven_and_half_warm() {
        let mut world = World::of(2);
        for _ in 0..20 {
            world.answer(1, 10, milli(10));
            world.fail(0, 10);
            world.tick(StrategyKind::LeastConnections);
        }
        world.pool[0].load().readmitted(world.now);
        world.answer(1, 10, milli(10));
        world.tick(StrategyKind::LeastConnections);
        assert!((1.9..=2.0).contains(&world.cost(0)), "{}", world.cost(0));
        (0..50).for_each(|_| world.tick(StrategyKind::LeastConnections));
        assert_eq!(world.cost(0), 1.0);
    }

    #[test]
    fn a_new_upstream_warms_up_in_the_time_of_the_pool_or_not_at_all() {
        for (slow_start, cost) in [(Duration::from_secs(20), 2.0), (Duration::ZERO, 1.0)] {
            let world = World::of(2);
            world.pool[0].load().warm_up(Duration::ZERO);
            let mut tuner = Tuner::default();
            tuner.tick(&world.pool, &world.weights, LATENCY, slow_start, Duration::from_secs(10));
            assert!((world.cost(0) - cost).abs() < 1e-3, "{}", world.cost(0));
        }
    }

    /// At the start of a process everybody is new: nobody is to be spared at the cost of another.
    #[test]
    fn who_warms_up_alone_is_warm() {
        let world = World::of(3);
        world.pool.iter().for_each(|fake| fake.load().warm_up(Duration::ZERO));
        let mut tuner = Tuner::default();
        tuner.tick(&world.pool, &world.weights, LATENCY, Duration::from_secs(60), Duration::from_secs(1));
        assert!(world.pool.iter().all(|fake| (fake.load().ramp() - 1.0).abs() < 1e-6));
    }

    /// A recovered upstream is tried again, even where requests are few and come one at a time.
    #[test]
    fn an_unused_upstream_relaxes_until_it_ties() {
        let mut world = World::of(3);
        for _ in 0..30 {
            (0..3).for_each(|index| world.answer(index, 10, milli(if index == 0 { 100 } else { 10 })));
            world.tick(LATENCY);
        }
        assert!(world.cost(0) > 10.0);
        let mut ticks = 0;
        while world.cost(0) > 1.0 {
            world.answer(1, 100, milli(10));
            world.answer(2, 100, milli(10));
            world.tick(LATENCY);
            ticks += 1;
        }
        assert!((50..600).contains(&ticks), "{ticks} ticks");

        // What it then answers counts, although it is far from what was last known.
        world.answer(0, 1, milli(10));
        world.tick(LATENCY);
        assert!(world.cost(0) < 2.0, "{}", world.cost(0));
    }

    /// Trying again costs at most a thousandth of the traffic, so little traffic means patience.
    #[test]
    fn little_traffic_relaxes_slowly() {
        let mut world = World::of(3);
        for _ in 0..30 {
            (0..3).for_each(|index| world.answer(index, 1, milli(if index == 0 { 100 } else { 10 })));
            world.tick(LATENCY);
        }
        for _ in 0..500 {
            world.answer(1, 1, milli(10));
            world.tick(LATENCY);
        }
        assert!(world.cost(0) > 1.0, "tried again within 500 requests");
    }

    #[test]
    fn the_first_answer_alone_does_not_count() {
        let mut world = World::of(3);
        world.answer(0, 1, milli(500));
        for _ in 0..20 {
            world.answer(1, 5, milli(5));
            world.answer(2, 5, milli(5));
            world.tick(LATENCY);
        }
        assert_eq!(world.cost(0), 1.0);
        world.answer(0, 1, milli(5));
        world.tick(LATENCY);
        assert_eq!(world.cost(0), 1.0);
    }

    #[test]
    fn of_the_first_two_answers_the_odd_one_does_not_count() {
        for latencies_ms in [[5, 500], [500, 5]] {
            let mut world = World::of(3);
            for latency_ms in latencies_ms {
                world.answer(0, 1, milli(latency_ms));
                (0..20).for_each(|_| {
                    world.answer(1, 5, milli(5));
                    world.answer(2, 5, milli(5));
                    world.tick(LATENCY);
                });
            }
            assert_eq!(world.cost(0), 1.0, "{latencies_ms:?}");
        }
    }

    #[test]
    fn minutes_without_a_tick_do_no_harm() {
        let mut world = World::of(3);
        for _ in 0..3 {
            for index in 0..3 {
                world.answer(index, 100_000, milli(10));
                world.fail(index, 1_000);
            }
            world.now += Duration::from_secs(600);
            world.tick(LATENCY);
            assert!((0..3).all(|index| world.cost(index) == 1.0));
        }
    }

    #[test]
    fn ticks_of_an_empty_or_silent_pool_change_nothing() {
        let mut empty = World::of(0);
        empty.tick(LATENCY);
        let mut silent = World::of(2);
        (0..10).for_each(|_| silent.tick(LATENCY));
        assert_eq!([silent.cost(0), silent.cost(1)], [1.0, 1.0]);
    }

    #[test]
    fn the_median_is_what_most_requests_meet() {
        assert_eq!(median(&mut []), None);
        assert_eq!(median(&mut [(3.0, 1.0), (1.0, 1.0), (2.0, 1.0)]), Some(2.0));
        assert_eq!(median(&mut [(1.0, 1.0), (9.0, 8.0), (5.0, 1.0)]), Some(9.0));
    }
}
