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

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn scenario(arrivals: Arrivals, work: Work, balancers: usize) -> Scenario {
        Scenario {
            name: "test".to_owned(),
            what: String::new(),
            expected: String::new(),
            is_short: false,
            servers: 2,
            workers: 1,
            balancers,
            threads: 1,
            load: Load::Rate { per_second: 1_000.0, arrivals, work },
            request: super::super::scenario::Request { answer: 0, ..Default::default() },
            script: Vec::new(),
            reload_every: None,
            duration: Duration::from_secs(50),
            warmup: Duration::from_secs(1),
            timeout: Duration::from_secs(2),
            candidates: Vec::new(),
            expectations: Vec::new(),
        }
    }

    fn assert_near(figure: f64, expected: f64) {
        assert!((figure / expected - 1.0).abs() < 0.05, "{figure}, and {expected} was asked for");
    }

    fn mean_work(all: &[Arrival]) -> f64 {
        all.iter().map(|arrival| arrival.work.as_secs_f64()).sum::<f64>() / all.len() as f64
    }

    #[test]
    fn rate_and_mean_work_are_those_asked_for() {
        let mean = 10 * MS;
        let works = [
            (Work::Exponential { mean }, 0.010),
            (Work::LogNormal { mean, sigma: 0.5 }, 0.010),
            (Work::LogNormal { mean, sigma: 1.0 }, 0.010),
            (Work::TwoClasses { short: 2 * MS, long: 200 * MS, long_share: 0.05 }, 0.0119),
        ];
        for (work, expected) in works {
            for arrivals in [Arrivals::Poisson, Arrivals::Even] {
                let all = schedule(&scenario(arrivals, work, 1), 1);
                assert_near(all.len() as f64, 50_000.0);
                assert_near(mean_work(&all), expected);
            }
        }
        assert!(mean_work(&schedule(&scenario(Arrivals::Even, Work::None, 1), 1)).abs() < f64::EPSILON);
    }

    /// For exponential gaps the standard deviation is the mean; for equal gaps there is none.
    #[test]
    fn poisson_arrivals_are_independent_and_even_ones_are_even() {
        let gaps = |arrivals| -> Vec<f64> {
            let all = schedule(&scenario(arrivals, Work::None, 1), 5);
            assert!(all.is_sorted_by_key(|arrival| arrival.at));
            all.windows(2).map(|pair| pair[1].at.as_secs_f64() - pair[0].at.as_secs_f64()).collect()
        };
        let poisson = gaps(Arrivals::Poisson);
        let squares = poisson.iter().map(|gap| (gap - 0.001).powi(2)).sum::<f64>();
        assert_near((squares / poisson.len() as f64).sqrt(), 0.001);
        for gap in gaps(Arrivals::Even) {
            assert!((gap - 0.001).abs() < 1e-7, "{gap}");
        }
    }

    #[test]
    fn one_in_twenty_is_long() {
        let work = Work::TwoClasses { short: 2 * MS, long: 200 * MS, long_share: 0.05 };
        let all = schedule(&scenario(Arrivals::Poisson, work, 1), 3);
        let long = all.iter().filter(|arrival| arrival.work > 20 * MS).count();
        assert!((2_250..2_750).contains(&long), "{long} of {}", all.len());
    }

    #[test]
    fn the_same_seed_gives_the_same_schedule_and_another_one_does_not() {
        let scenario = scenario(Arrivals::Poisson, Work::Exponential { mean: 10 * MS }, 3);
        assert_eq!(schedule(&scenario, 9), schedule(&scenario, 9));
        assert_ne!(schedule(&scenario, 9), schedule(&scenario, 10));
    }

    #[test]
    fn arrivals_lie_within_the_turn_and_meet_every_balancer_alike() {
        let scenario = scenario(Arrivals::Poisson, Work::None, 4);
        let all = schedule(&scenario, 2);
        assert!(all.iter().all(|arrival| arrival.at < scenario.duration));
        for balancer in 0..4 {
            let met = all.iter().filter(|arrival| arrival.balancer == balancer).count();
            assert_near(met as f64, all.len() as f64 / 4.0);
        }
    }

    #[test]
    fn a_load_that_is_no_open_loop_has_no_schedule() {
        let mut closed = scenario(Arrivals::Even, Work::None, 1);
        closed.load = Load::Clients(4);
        assert_eq!(schedule(&closed, 1), []);
    }
}
