//! What happened in one step, in 32 bytes; and what happened in many of them.

use std::time::Duration;

use super::Growth;
use super::quantiles::{Quantiles, mixed};

/// One step of one subject. All zero: nothing happened.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Point {
    pub(super) requests: u32,
    pub(super) errors: u32,
    /// Of the requests, those whose time is known.
    pub(super) timed: u32,
    /// All their times, in milliseconds. Seven digits are enough for sums of what was measured.
    pub(super) time_ms: f32,
    pub(super) request_bytes: f32,
    pub(super) response_bytes: f32,
    pub(super) quantiles: Quantiles,
    /// At 65 535, as many or more.
    pub(super) in_flight_max: u16,
}

impl Point {
    pub(super) fn of(growth: &Growth, in_flight_max: u32) -> Self {
        let times = growth.times.as_ref();
        Self {
            requests: clamped(growth.requests),
            errors: clamped(growth.errors),
            timed: times.map_or(0, |times| clamped(times.count)),
            time_ms: times.map_or(0.0, |times| times.sum.as_secs_f32() * 1e3),
            request_bytes: growth.request_bytes as f32,
            response_bytes: growth.response_bytes as f32,
            quantiles: times.map_or_else(Quantiles::default, Quantiles::of),
            in_flight_max: u16::try_from(in_flight_max).unwrap_or(u16::MAX),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Puts what happened in another part of the same step beside this.
    pub(super) fn and(&mut self, other: &Self) {
        self.quantiles =
            mixed(&[(self.quantiles, u64::from(self.timed)), (other.quantiles, u64::from(other.timed))]);
        self.count(other);
    }

    /// The same, without its quantiles.
    pub(super) fn count(&mut self, other: &Self) {
        self.requests = self.requests.saturating_add(other.requests);
        self.errors = self.errors.saturating_add(other.errors);
        self.timed = self.timed.saturating_add(other.timed);
        self.time_ms += other.time_ms;
        self.request_bytes += other.request_bytes;
        self.response_bytes += other.response_bytes;
        self.in_flight_max = self.in_flight_max.max(other.in_flight_max);
    }
}

fn clamped(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// What happened in a while.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Happened {
    /// That ended then; at upstreams and pools, attempts.
    pub requests: u64,
    /// Those with a status of 500 or more, or none at all.
    pub errors: u64,
    /// Of request bodies; right to seven digits.
    pub request_bytes: u64,
    /// Of response bodies; right to seven digits.
    pub response_bytes: u64,
    /// `None`: no time is known.
    pub times: Option<Times>,
    /// Most requests at a time, as far as that was seen.
    pub in_flight_max: u32,
}

/// How long requests took. What covers several steps is estimated from their quantiles.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Times {
    /// Arithmetic mean.
    pub mean: Duration,
    /// Half of the requests took no longer.
    pub p50: Duration,
    /// Nine in ten took no longer.
    pub p90: Duration,
    /// Ninety-nine in a hundred took no longer.
    pub p99: Duration,
}

/// Points on their way to [`Happened`].
#[derive(Clone, Debug, Default)]
pub(super) struct Sum {
    requests: u64,
    errors: u64,
    request_bytes: f64,
    response_bytes: f64,
    timed: u64,
    time_ms: f64,
    parts: Vec<(Quantiles, u64)>,
    in_flight_max: u32,
}

impl Sum {
    pub(super) fn add(&mut self, point: &Point) {
        self.requests += u64::from(point.requests);
        self.errors += u64::from(point.errors);
        self.request_bytes += f64::from(point.request_bytes);
        self.response_bytes += f64::from(point.response_bytes);
        self.timed += u64::from(point.timed);
        self.time_ms += f64::from(point.time_ms);
        self.in_flight_max = self.in_flight_max.max(point.in_flight_max.into());
        if point.timed > 0 {
            self.parts.push((point.quantiles, point.timed.into()));
        }
    }

    pub(super) fn happened(&self) -> Happened {
        let times = (self.timed > 0).then(|| {
            let [p50, p90, p99] = mixed(&self.parts).durations();
            let mean = Duration::try_from_secs_f64(self.time_ms / self.timed as f64 / 1e3);
            Times { mean: mean.unwrap_or_default(), p50, p90, p99 }
        });
        Happened {
            requests: self.requests,
            errors: self.errors,
            request_bytes: whole(self.request_bytes),
            response_bytes: whole(self.response_bytes),
            times,
            in_flight_max: self.in_flight_max,
        }
    }
}

/// A sum of what was whole, and is not negative.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "`as` clamps, which is what is wanted"
)]
pub(super) fn whole(sum: f64) -> u64 {
    sum.round() as u64
}
