//! An app server: some workers in front of one queue, at a speed that may change.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Seconds of virtual time.
pub(crate) type Seconds = f64;

/// What happens to a server in the course of a run.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub workers: usize,
    /// From when on, at which speed: 1 is nominal, 0 is paused.
    pub speeds: Vec<(Seconds, f64)>,
    pub failures: Vec<Failing>,
    /// When it comes into the pool.
    pub joins: Seconds,
    /// How much further away it is than the others, there and back.
    pub distance: Seconds,
    /// How much longer its first request takes.
    pub first_takes: Seconds,
    pub weight: u16,
}

/// For some time, some requests fail at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Failing {
    pub from: Seconds,
    pub until: Seconds,
    pub probability: f64,
    pub latency: Seconds,
}

/// A server at work. Service is first come, first served, so an answer's time is known on arrival.
pub(crate) struct Server {
    plan: Plan,
    /// When each worker will be free, the earliest on top; in nanoseconds, which have an order.
    free: BinaryHeap<Reverse<u64>>,
}

impl Plan {
    pub(crate) fn usual(workers: usize) -> Self {
        Self {
            workers,
            speeds: vec![(0.0, 1.0)],
            failures: Vec::new(),
            joins: 0.0,
            distance: 0.0,
            first_takes: 0.0,
            weight: 1,
        }
    }

    pub(crate) fn slower(mut self, factor: f64) -> Self {
        self.speeds = vec![(0.0, 1.0 / factor)];
        self
    }

    pub(crate) fn failing(mut self, from: Seconds, until: Seconds, probability: f64) -> Self {
        self.failures.push(Failing { from, until, probability, latency: 0.001 });
        self
    }

    /// Pauses of `length`, one about `every` so many seconds.
    pub(crate) fn pausing(
        mut self,
        length: Seconds,
        every: Seconds,
        until: Seconds,
        random: &mut fastrand::Rng,
    ) -> Self {
        let mut now = 0.0;
        loop {
            now += exponential(random, every);
            if now > until {
                return self;
            }
            self.speeds.extend([(now, 0.0), (now + length, 1.0)]);
            now += length;
        }
    }
}

impl Server {
    pub(crate) fn new(plan: Plan) -> Self {
        let free = (0..plan.workers).map(|_| Reverse(0)).collect();
        Self { plan, free }
    }

    /// Takes a request of `work` seconds at nominal speed; says when it is answered, and how well.
    pub(crate) fn take(
        &mut self,
        now: Seconds,
        work: Seconds,
        random: &mut fastrand::Rng,
    ) -> (Seconds, bool) {
        if let Some(latency) = self.failure_at(now, random) {
            return (now + latency, false);
        }
        let Reverse(free) = self.free.pop().expect("a server has workers");
        let first = std::mem::take(&mut self.plan.first_takes);
        let done = self.finish(now.max(seconds(free)), work + first);
        self.free.push(Reverse(nanoseconds(done)));
        (done + self.plan.distance, true)
    }

    fn failure_at(&self, now: Seconds, random: &mut fastrand::Rng) -> Option<Seconds> {
        let failing =
            self.plan.failures.iter().find(|failing| (failing.from..failing.until).contains(&now))?;
        (failing.probability >= 1.0 || random.f64() < failing.probability).then_some(failing.latency)
    }

    /// When `work` that begins at `start` is done, at the speeds of that time.
    fn finish(&self, start: Seconds, work: Seconds) -> Seconds {
        let speeds = &self.plan.speeds;
        let current = speeds.partition_point(|&(from, _)| from <= start).max(1) - 1;
        let (mut now, mut left) = (start, work);
        for (index, &(_, speed)) in speeds.iter().enumerate().skip(current) {
            let until = speeds.get(index + 1).map_or(FOREVER, |&(from, _)| from);
            if speed > 0.0 && left <= (until - now) * speed {
                return now + left / speed;
            }
            left -= (until - now) * speed;
            now = until;
        }
        FOREVER
    }
}

pub(crate) fn exponential(random: &mut fastrand::Rng, mean: f64) -> f64 {
    -mean * (1.0 - random.f64()).ln()
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "virtual time is short and positive"
)]
fn nanoseconds(time: Seconds) -> u64 {
    (time * 1e9) as u64
}

fn seconds(nanoseconds: u64) -> Seconds {
    nanoseconds as f64 / 1e9
}

const FOREVER: Seconds = 1e9;

#[test]
fn work_waits_for_workers_and_stretches_with_speed() {
    let mut random = fastrand::Rng::with_seed(1);
    let mut server = Server::new(Plan { speeds: vec![(0.0, 1.0), (1.0, 0.0), (2.0, 0.5)], ..Plan::usual(1) });
    let near = |(done, ok): (Seconds, bool), expected: Seconds| ok && (done - expected).abs() < 1e-6;
    assert!(near(server.take(0.0, 0.5, &mut random), 0.5));
    assert!(near(server.take(0.1, 0.4, &mut random), 0.9), "waits for the one before");
    assert!(near(server.take(0.2, 0.2, &mut random), 2.2), "is paused for a second, then half as fast");
}
