//! One server's workers and queue, in virtual time.
//!
//! Service is first come, first served, so the end of a request is known when it arrives. Whoever tells the
//! clients that it has come may be late: the next request begins when the one before it should have ended,
//! so a late wake-up costs no capacity.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

/// Some workers in front of one queue, at a speed that may change. Time counts from the beginning of a turn.
#[derive(Clone, Debug)]
pub struct Station {
    /// When each worker will be free, the earliest on top. One that works for ever is free at [`NEVER`].
    free: BinaryHeap<Reverse<Duration>>,
    /// From when on, at which speed; in the order of time.
    speeds: Vec<(Duration, f64)>,
}

const NEVER: Duration = Duration::MAX;

impl Station {
    /// `workers`, at least one, are free. Each of the `speeds`, in the order of time, holds until the next
    /// one; before the first it is 1, which is nominal; 0 is paused.
    pub fn new(workers: usize, speeds: Vec<(Duration, f64)>) -> Self {
        let free = std::iter::repeat_n(Reverse(Duration::ZERO), workers.max(1)).collect();
        Self { free, speeds }
    }

    /// When `work`, counted at nominal speed, would be done if it arrived `now`; `None`: never.
    pub fn peek(&self, now: Duration, work: Duration) -> Option<Duration> {
        let &Reverse(free) = self.free.peek()?;
        self.finish(free.max(now), work)
    }

    /// The same, and takes it. A worker whose work is never done takes no more.
    pub fn take(&mut self, now: Duration, work: Duration) -> Option<Duration> {
        let Reverse(free) = self.free.pop()?;
        let done = self.finish(free.max(now), work);
        self.free.push(Reverse(done.unwrap_or(NEVER)));
        done
    }

    /// Killed: all work is lost, and all workers are free `now`.
    pub fn forget(&mut self, now: Duration) {
        let workers = self.free.len();
        self.free.clear();
        self.free.extend(std::iter::repeat_n(Reverse(now), workers));
    }

    /// When `work` that begins at `start` is done, at the speeds of that time: work under way is stretched
    /// when the speed falls.
    fn finish(&self, start: Duration, work: Duration) -> Option<Duration> {
        if self.speeds.is_empty() {
            // Most servers are of this kind, and the oracle asks all of them at each arrival.
            return start.checked_add(work);
        }
        let next = self.speeds.partition_point(|&(from, _)| from <= start);
        let mut speed = next.checked_sub(1).and_then(|at| self.speeds.get(at)).map_or(1.0, |step| step.1);
        let (mut now, mut left) = (start, work.as_secs_f64());
        for &(until, then) in self.speeds.iter().skip(next) {
            let possible = until.saturating_sub(now).as_secs_f64() * speed.max(0.0);
            if left <= possible && speed > 0.0 {
                break;
            }
            left -= possible;
            (now, speed) = (until, then);
        }
        if speed <= 0.0 {
            return None;
        }
        now.checked_add(Duration::try_from_secs_f64(left.max(0.0) / speed).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const fn ms(number: u64) -> Duration {
        Duration::from_millis(number)
    }

    fn assert_near(done: Option<Duration>, expected: Duration) {
        let done = done.expect("it ends");
        assert!(done.abs_diff(expected) < Duration::from_micros(1), "{done:?}, not {expected:?}");
    }

    #[test]
    fn work_waits_for_a_worker_and_is_stretched_with_the_speed() {
        let mut station = Station::new(1, vec![(ms(1_000), 0.0), (ms(2_000), 0.5)]);
        assert_near(station.take(ms(0), ms(500)), ms(500));
        assert_near(station.take(ms(100), ms(400)), ms(900));
        // 100 ms are done before the pause, 100 ms at half the speed after it.
        assert_near(station.take(ms(200), ms(200)), ms(2_200));
    }

    #[test]
    fn work_that_never_ends_holds_its_worker() {
        let mut station = Station::new(2, vec![(ms(100), 0.0)]);
        assert_eq!(station.take(ms(90), ms(50)), None);
        assert_near(station.take(ms(90), ms(5)), ms(95));
        assert_eq!(station.take(ms(96), ms(5)), None);
        station.forget(ms(97));
        assert_near(station.take(ms(97), ms(1)), ms(98));
    }

    #[test]
    fn absurd_speeds_are_no_crash() {
        for speed in [-1.0, 0.0, f64::MIN_POSITIVE, f64::NAN, f64::INFINITY, f64::MAX] {
            let mut station = Station::new(0, vec![(ms(1), speed), (Duration::MAX, 1.0)]);
            for work in [ms(0), ms(1), Duration::MAX] {
                station.take(ms(0), work);
                station.take(ms(2), work);
            }
        }
    }

    /// Steps of speed in the order of time, a second apart at most.
    fn speeds() -> impl Strategy<Value = Vec<(Duration, f64)>> {
        let speed = prop_oneof![Just(0.0), 0.05..4.0];
        let steps = prop::collection::vec((1..1_000_u64, speed), 0..8);
        steps.prop_map(|steps| {
            let mut now = 0;
            let in_order = steps.into_iter().map(|(gap, speed)| {
                now += gap;
                (ms(now), speed)
            });
            in_order.collect()
        })
    }

    /// Gap to the request before, and work, both in µs.
    fn requests() -> impl Strategy<Value = Vec<(u64, u64)>> {
        prop::collection::vec((0..100_000_u64, 0..300_000_u64), 1..40)
    }

    /// Work that this server can do from one moment to another, with all of one worker's time.
    fn capacity(speeds: &[(Duration, f64)], from: Duration, until: Duration) -> f64 {
        let mut moments = vec![from, until];
        moments.extend(speeds.iter().map(|step| step.0).filter(|at| (from..until).contains(at)));
        moments.sort();
        let speed_at = |at| speeds.iter().rev().find(|step| step.0 <= at).map_or(1.0, |step| step.1);
        moments.windows(2).map(|pair| pair[1].saturating_sub(pair[0]).as_secs_f64() * speed_at(pair[0])).sum()
    }

    proptest! {
        /// Whoever looks sees what whoever takes gets, and looking changes nothing.
        #[test]
        fn peek_says_what_take_does(workers in 1..5_usize, speeds in speeds(), requests in requests()) {
            let mut station = Station::new(workers, speeds);
            let mut now = Duration::ZERO;
            for (gap, work) in requests {
                now += Duration::from_micros(gap);
                let work = Duration::from_micros(work);
                let seen = station.peek(now, work);
                prop_assert_eq!(seen, station.take(now, work));
            }
        }

        /// One worker does one thing at a time, in the order of arrival, and exactly as much as it can.
        #[test]
        fn one_worker_works_without_a_gap_and_never_twice_at_once(speeds in speeds(), requests in requests()) {
            let mut station = Station::new(1, speeds.clone());
            let (mut now, mut free) = (Duration::ZERO, Duration::ZERO);
            for (gap, work) in requests {
                now += Duration::from_micros(gap);
                let work = Duration::from_micros(work);
                let Some(done) = station.take(now, work) else {
                    let last = speeds.last().map_or(1.0, |step| step.1);
                    prop_assert!(last <= 0.0, "only a server that stays paused never ends");
                    return Ok(());
                };
                let begun = free.max(now);
                prop_assert!(done >= begun);
                let can = capacity(&speeds, begun, done);
                prop_assert!((can - work.as_secs_f64()).abs() < 1e-6, "{can} s of {work:?}");
                free = done;
            }
        }

        /// At any moment no more requests are in service than there are workers; with enough of them nobody
        /// waits.
        #[test]
        fn there_are_so_many_workers(workers in 1..5_usize, requests in requests()) {
            let mut station = Station::new(workers, Vec::new());
            let mut now = Duration::ZERO;
            let mut served: Vec<(Duration, Duration)> = Vec::new();
            for (gap, work) in requests {
                now += Duration::from_micros(gap);
                let work = Duration::from_micros(work);
                let done = station.take(now, work).expect("it ends");
                let begun = done.saturating_sub(work);
                let waiting_beside = |at: Duration| {
                    served.iter().filter(|(from, until)| *from <= at && at < *until).count()
                };
                prop_assert!(begun >= now && waiting_beside(begun) < workers);
                prop_assert!(begun == now || waiting_beside(begun.saturating_sub(Duration::from_nanos(1))) >= workers);
                served.push((begun, done));
            }
        }
    }
}
