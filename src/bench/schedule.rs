//! Who arrives when, with how much work: drawn once from a seed, the same for every candidate.

use std::time::Duration;

use super::scenario::{Arrivals, Load, Scenario, Work};

/// One request of an open loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// When it should begin, since the beginning of the turn.
    pub at: Duration,
    /// What it takes at nominal speed.
    pub work: Duration,
    /// Which balancer it meets.
    pub balancer: usize,
}

/// All requests of a turn, in order; none for a load that is no open loop.
pub fn schedule(scenario: &Scenario, seed: u64) -> Vec<Arrival> {
    let Load::Rate { per_second, arrivals, work } = scenario.load else { return Vec::new() };
    let mut random = fastrand::Rng::with_seed(seed);
    let mut now = 0.0;
    let mut all = Vec::new();
    loop {
        now += match arrivals {
            Arrivals::Poisson => exponential(&mut random, 1.0 / per_second),
            Arrivals::Even => 1.0 / per_second,
        };
        let at = Duration::from_secs_f64(now);
        if at >= scenario.duration {
            return all;
        }
        let work = draw(work, &mut random);
        all.push(Arrival { at, work, balancer: random.usize(..scenario.balancers) });
    }
}

fn draw(work: Work, random: &mut fastrand::Rng) -> Duration {
    match work {
        Work::None => Duration::ZERO,
        Work::Exponential { mean } => mean.mul_f64(exponential(random, 1.0)),
        Work::LogNormal { mean, sigma } => mean.mul_f64(log_normal(random, sigma)),
        Work::TwoClasses { short, long, long_share } => {
            let class = if random.f64() < long_share { long } else { short };
            class.mul_f64(log_normal(random, CLASS_SIGMA))
        }
    }
}

/// How much requests of one class differ, as in the simulation (`mixed`).
const CLASS_SIGMA: f64 = 0.3;

/// Exponentially distributed, with this mean.
pub(super) fn exponential(random: &mut fastrand::Rng, mean: f64) -> f64 {
    -mean * (1.0 - random.f64()).ln()
}

/// Log-normally distributed with mean 1.
fn log_normal(random: &mut fastrand::Rng, sigma: f64) -> f64 {
    (sigma * normal(random) - sigma * sigma / 2.0).exp()
}

/// Box and Muller, 1958.
fn normal(random: &mut fastrand::Rng) -> f64 {
    let radius = (-2.0 * (1.0 - random.f64()).ln()).sqrt();
    radius * (std::f64::consts::TAU * random.f64()).cos()
}
