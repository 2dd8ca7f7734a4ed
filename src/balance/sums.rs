//! What the answers since the last tick told, added up.
//!
//! Answers add, the tick takes. Nobody waits: a sample's number and its value stand in one atomic, so
//! the tick never sees the one without the other; what the other sums miss by a hair, the next tick gets.

use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use super::load::Reading;

/// Sums over the answers of one upstream; one cache line.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct Sums {
    /// Samples (upper 24 bits) and the sum of their speeds (lower 40 bits, fixed point, shifted by
    /// [`SPEED_SHIFT`] each, so that it never falls below zero).
    speeds: AtomicU64,
    latency_ns: AtomicU64,
    /// Fixed point, as are the next three.
    deviation: AtomicU64,
    /// Σx, Σx·y and Σx² of the regression; y is counted from what was expected.
    load: AtomicU64,
    load_latency: AtomicI64,
    load_squared: AtomicU64,
    /// Samples clipped from above (upper half) and from below (lower half).
    clipped: AtomicU64,
    failures: AtomicU32,
}

/// One good answer, read against what was expected.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    latency: Duration,
    /// `ln` of the latency in nanoseconds, clipped, less what our own load added to it.
    speed: f32,
    /// `ln` of the load it was dispatched at, at least 0.
    load: f32,
    /// `ln` of the latency, clipped, counted from what was expected.
    offset: f32,
    deviation: f32,
    clipped: Clipped,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Clipped {
    No,
    Low,
    High,
}

/// What [`Sums::take`] found.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Batch {
    /// Good answers that were sampled.
    pub count: f64,
    /// Failed attempts.
    pub failures: f64,
    /// Mean `ln` of the latency in nanoseconds, without the load's part.
    pub speed_mean: f64,
    /// Mean latency in seconds.
    pub latency_mean_s: f64,
    /// Σ of |`ln` latency − expected|; of use only where something was expected.
    pub deviation: f64,
    /// Σ(x − mean x)·(y − mean y): how latency moved with load.
    pub covariance: f64,
    /// Σ(x − mean x)²: how much the load moved.
    pub load_variance: f64,
    /// Most samples were clipped on the same side.
    pub mostly_clipped: bool,
}

impl Sums {
    /// Whether another sample fits. Far more than a tick ever needs; without ticks it stops the sums
    /// long before they overflow.
    pub(super) fn has_room(&self) -> bool {
        self.speeds.load(Ordering::Relaxed) >> COUNT_BIT < SAMPLES_MAX
    }

    pub(super) fn add(&self, sample: &Sample) {
        self.add_load(sample);
        self.add_clipped(sample.clipped);
        self.latency_ns.fetch_add(nanoseconds(sample.latency), Ordering::Relaxed);
        self.deviation.fetch_add(fixed(sample.deviation), Ordering::Relaxed);
        // Last, and with release: who sees the count sees the rest.
        self.speeds.fetch_add(ONE_SAMPLE | fixed(sample.speed + SPEED_SHIFT), Ordering::Release);
    }

    pub(super) fn add_failure(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes everything and begins anew. `reading` is what the samples were read with.
    pub(super) fn take(&self, reading: Reading) -> Batch {
        let failures = f64::from(self.failures.swap(0, Ordering::Relaxed));
        // Without a sample the other sums are left alone: they may belong to one that is just being added.
        if self.speeds.load(Ordering::Relaxed) == 0 {
            return Batch { failures, ..Batch::default() };
        }
        let speeds = self.speeds.swap(0, Ordering::Acquire);
        let count = (speeds >> COUNT_BIT) as f64;
        let speed_mean = real(speeds & SPEED_MASK) / count - f64::from(SPEED_SHIFT);
        let clipped = self.clipped.swap(0, Ordering::Relaxed);
        let batch = Batch {
            count,
            failures,
            speed_mean,
            latency_mean_s: self.latency_ns.swap(0, Ordering::Relaxed) as f64 / count / 1e9,
            deviation: real(self.deviation.swap(0, Ordering::Relaxed)),
            mostly_clipped: 2.0 * most_of_either(clipped) > count,
            ..Batch::default()
        };
        self.take_regression(batch, reading)
    }

    /// Samples sent into an idle upstream, most of them at low load, spare themselves three additions.
    fn add_load(&self, sample: &Sample) {
        if sample.load > 0.0 {
            self.load.fetch_add(fixed(sample.load), Ordering::Relaxed);
            self.load_squared.fetch_add(fixed(sample.load * sample.load), Ordering::Relaxed);
            self.load_latency.fetch_add(fixed_signed(sample.load * sample.offset), Ordering::Relaxed);
        }
    }

    fn add_clipped(&self, clipped: Clipped) {
        match clipped {
            Clipped::No => 0,
            Clipped::Low => self.clipped.fetch_add(1, Ordering::Relaxed),
            Clipped::High => self.clipped.fetch_add(1 << 32, Ordering::Relaxed),
        };
    }

    fn take_regression(&self, batch: Batch, reading: Reading) -> Batch {
        let load = real(self.load.swap(0, Ordering::Relaxed));
        let load_squared = real(self.load_squared.swap(0, Ordering::Relaxed));
        let load_latency = real_signed(self.load_latency.swap(0, Ordering::Relaxed));
        if batch.count < 2.0 {
            return batch;
        }
        let offsets =
            batch.count * (batch.speed_mean - f64::from(reading.origin())) + f64::from(reading.beta) * load;
        Batch {
            covariance: load_latency - load * offsets / batch.count,
            load_variance: (load_squared - load * load / batch.count).max(0.0),
            ..batch
        }
    }
}

impl Sample {
    /// Reads an answer against what was expected, and clips what is far off, so that one odd request
    /// moves little (`ALGORITHMS.md` §5).
    pub(super) fn read(latency: Duration, in_flight_at_begin: u32, reading: &Reading) -> Self {
        let load = (in_flight_at_begin as f32 * reading.unit).max(1.0).ln();
        let raw = (nanoseconds(latency).max(1) as f32).ln();
        let surprise = raw - reading.expected - reading.beta * load;
        let (kept, clipped) = clip(surprise, reading);
        let y = if surprise.is_nan() { raw } else { raw - surprise + kept };
        Self {
            latency,
            speed: y - reading.beta * load,
            load,
            offset: y - reading.origin(),
            deviation: surprise.abs().min(reading.deviation_max),
            clipped,
        }
    }
}

impl Reading {
    /// From where the regression counts latencies: near the samples, so that sums stay small and exact.
    fn origin(&self) -> f32 {
        if self.expected.is_nan() { LN_TEN_MS } else { self.expected }
    }
}

fn clip(surprise: f32, reading: &Reading) -> (f32, Clipped) {
    if surprise > reading.clip_high {
        (reading.clip_high, Clipped::High)
    } else if surprise < reading.clip_low {
        (reading.clip_low, Clipped::Low)
    } else {
        (surprise, Clipped::No)
    }
}

fn most_of_either(clipped: u64) -> f64 {
    (clipped >> 32).max(clipped & 0xFFFF_FFFF) as f64
}

fn nanoseconds(latency: Duration) -> u64 {
    u64::try_from(latency.as_nanos()).unwrap_or(LATENCY_NS_MAX).min(LATENCY_NS_MAX)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "small, never below zero; casts saturate"
)]
fn fixed(value: f32) -> u64 {
    (value * FIXED) as u64
}

#[expect(clippy::cast_possible_truncation, reason = "small; casts saturate")]
fn fixed_signed(value: f32) -> i64 {
    (value * FIXED) as i64
}

fn real(fixed: u64) -> f64 {
    fixed as f64 / f64::from(FIXED)
}

fn real_signed(fixed: i64) -> f64 {
    fixed as f64 / f64::from(FIXED)
}

/// Fixed point: 1/65 536 of a unit of `ln`, a thousandth of a per cent of the latency.
const FIXED: f32 = 65_536.0;

/// Speeds lie between −22.2 (one nanosecond with four thousand million requests in flight) and 28.
const SPEED_SHIFT: f32 = 32.0;

const COUNT_BIT: u32 = 40;
const ONE_SAMPLE: u64 = 1 << COUNT_BIT;
const SPEED_MASK: u64 = ONE_SAMPLE - 1;

/// 65 536 samples of at most 2²² each fill 38 of the 40 bits; the rest is for threads that add at once.
const SAMPLES_MAX: u64 = 1 << 16;

/// About eleven days, so that even [`SAMPLES_MAX`] of them add up to less than 2⁶⁴.
const LATENCY_NS_MAX: u64 = 1 << 47;

/// `ln` of ten milliseconds in nanoseconds, a usual answer.
const LN_TEN_MS: f32 = 16.118_096;

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    const UNKNOWN: Reading = Reading {
        expected: f32::NAN,
        beta: 0.5,
        clip_low: 0.0,
        clip_high: 0.0,
        deviation_max: 0.0,
        unit: 1.0,
    };

    fn known(expected_ms: f32) -> Reading {
        let expected = (expected_ms * 1e6).ln();
        Reading { expected, clip_low: -0.3, clip_high: 0.3, deviation_max: 1.2, ..UNKNOWN }
    }

    fn read(latency_ms: u64, in_flight: u32, reading: &Reading) -> Sample {
        Sample::read(Duration::from_millis(latency_ms), in_flight, reading)
    }

    fn near(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-3
    }

    #[test]
    fn the_load_part_is_divided_out() {
        let alone = read(10, 1, &UNKNOWN);
        let crowded = read(20, 4, &UNKNOWN);
        assert!((alone.speed - crowded.speed).abs() < 1e-4, "{alone:?} {crowded:?}");
    }

    #[test]
    fn an_odd_answer_moves_no_more_than_the_clip() {
        let odd = read(10_000, 1, &known(10.0));
        assert!((odd.speed - 10e6_f32.ln() - 0.3).abs() < 1e-4);
        assert_eq!(odd.clipped, Clipped::High);
        assert_eq!(read(10, 1, &known(10.0)).clipped, Clipped::No);
        assert_eq!(read(1, 1, &known(10.0)).clipped, Clipped::Low);
    }

    #[test]
    fn a_batch_is_what_was_added() {
        let sums = Sums::default();
        sums.add(&read(10, 1, &UNKNOWN));
        sums.add(&read(30, 1, &UNKNOWN));
        sums.add_failure();

        let batch = sums.take(UNKNOWN);
        assert!(near(batch.count, 2.0) && near(batch.failures, 1.0) && near(batch.latency_mean_s, 0.020));
        assert!(near(batch.speed_mean, f64::midpoint(10e6_f64.ln(), 30e6_f64.ln())), "{batch:?}");
        assert!(near(sums.take(UNKNOWN).count, 0.0), "taken twice");
    }

    /// Latency that grows in proportion to the load has slope 1; latency that ignores it has slope 0.
    #[test]
    fn the_regression_finds_the_slope() {
        for (grows, slope) in [(true, 1.0), (false, 0.0)] {
            for reading in [UNKNOWN, Reading { clip_low: -9.0, clip_high: 9.0, ..known(10.0) }] {
                let sums = Sums::default();
                for in_flight in 1..=20_u32 {
                    let latency_ms = if grows { 10 * u64::from(in_flight) } else { 10 };
                    sums.add(&read(latency_ms, in_flight, &reading));
                }
                let batch = sums.take(reading);
                assert!(near(batch.covariance / batch.load_variance, slope), "{batch:?}");
            }
        }
    }

    #[test]
    fn fifty_thousand_answers_between_ticks_add_up() {
        let sums = Sums::default();
        (0..50_000).for_each(|_| sums.add(&read(60_000, 50_000, &UNKNOWN)));
        let batch = sums.take(UNKNOWN);
        assert!(near(batch.count, 50_000.0) && near(batch.latency_mean_s, 60.0), "{batch:?}");
    }

    #[test]
    fn minutes_without_a_tick_lose_samples_not_sense() {
        let sums = Sums::default();
        for _ in 0..200_000 {
            if sums.has_room() {
                sums.add(&read(1_000_000, u32::MAX, &UNKNOWN));
            }
        }
        let batch = sums.take(UNKNOWN);
        assert!(near(batch.count, 65_536.0) && near(batch.latency_mean_s, 1_000.0), "{batch:?}");
        let speed = 1e12_f64.ln() - 0.5 * f64::from(u32::MAX).ln();
        assert!(near(batch.speed_mean, speed), "{} {speed}", batch.speed_mean);
    }

    /// A tick in the midst of additions never finds a count without its value.
    #[test]
    fn a_tick_between_threads_sees_whole_samples() {
        let sums = Sums::default();
        thread::scope(|scope| {
            let adding =
                [(); 2].map(|()| scope.spawn(|| (0..100_000).for_each(|_| sums.add(&read(10, 1, &UNKNOWN)))));
            let mut counted = 0.0;
            while adding.iter().any(|thread| !thread.is_finished()) {
                counted += checked(&sums);
            }
            counted += checked(&sums);
            assert!(near(counted, 200_000.0), "{counted}");
        });
    }

    fn checked(sums: &Sums) -> f64 {
        let batch = sums.take(UNKNOWN);
        assert!(batch.count < 1.0 || near(batch.speed_mean, 10e6_f64.ln()), "{batch:?}");
        batch.count
    }
}
