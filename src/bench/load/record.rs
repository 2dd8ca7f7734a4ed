//! What the clients saw, as it comes in.

use std::time::Duration;

use hdrhistogram::Histogram;

use super::super::turn::{Failure, SLICE, Seen, Slice, latencies};

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// Answered as it should be, by this server.
    Well(Option<usize>),
    Badly(Failure),
}

/// What the clients have seen so far.
pub(super) struct Record {
    seen: Seen,
    warmup: Duration,
    /// One for each second that is still going on.
    seconds: Vec<Option<Histogram<u64>>>,
    /// Those before have their percentiles.
    settled: usize,
    /// How much later than intended requests began, in µs.
    late: Histogram<u64>,
}

impl Record {
    /// For a turn of this length, its warm-up included.
    pub(super) fn new(servers: usize, duration: Duration, warmup: Duration) -> Self {
        let slice =
            Slice { answers: vec![0; servers], failures: 0, p50: Duration::ZERO, p99: Duration::ZERO };
        let count = duration.as_nanos().div_ceil(SLICE.as_nanos());
        let mut seen = Seen::none(servers);
        seen.time = duration.saturating_sub(warmup);
        seen.slices = (0..count).map(|_| slice.clone()).collect();
        let seconds = (0..count).map(|_| None).collect();
        Self { seen, warmup, seconds, settled: 0, late: latencies() }
    }

    /// A request that should have begun at `at` began so much later.
    pub(super) fn began(&mut self, at: Duration, late: Duration) {
        if at >= self.warmup {
            self.late.saturating_record(micros(late));
        }
    }

    /// A request that should have begun at `at` has ended, `latency` after that.
    pub(super) fn ended(&mut self, at: Duration, latency: Duration, ended: Ended) {
        self.note_second(at, latency, ended);
        if at < self.warmup {
            return;
        }
        match ended {
            Ended::Well(server) => {
                self.seen.succeeded.saturating_record(micros(latency));
                if let Some(answers) = server.and_then(|server| self.seen.answers.get_mut(server)) {
                    *answers += 1;
                }
            }
            Ended::Badly(failure) => {
                self.seen.failed.saturating_record(micros(latency));
                *self.seen.failures.entry(failure).or_default() += 1;
            }
        }
    }

    fn note_second(&mut self, at: Duration, latency: Duration, ended: Ended) {
        let second = second_of(at);
        let Some(slice) = self.seen.slices.get_mut(second) else { return };
        let Ended::Well(server) = ended else {
            slice.failures += 1;
            return;
        };
        if let Some(answers) = server.and_then(|server| slice.answers.get_mut(server)) {
            *answers += 1;
        }
        // Nobody is patient enough to succeed in a second that is settled.
        if second >= self.settled
            && let Some(histogram) = self.seconds.get_mut(second)
        {
            histogram.get_or_insert_with(latencies).saturating_record(micros(latency));
        }
    }

    /// No success will come any more from before `until`: those seconds get their percentiles, and their
    /// histograms are given back.
    pub(super) fn settle(&mut self, until: Duration) {
        let until = second_of(until).min(self.seconds.len());
        while self.settled < until {
            let histogram = self.seconds.get_mut(self.settled).and_then(Option::take);
            if let (Some(histogram), Some(slice)) = (histogram, self.seen.slices.get_mut(self.settled)) {
                slice.p50 = Duration::from_micros(histogram.value_at_quantile(0.5));
                slice.p99 = Duration::from_micros(histogram.value_at_quantile(0.99));
            }
            self.settled += 1;
        }
    }

    /// All of it, and by how much requests began late (99th percentile).
    pub(super) fn done(&mut self) -> (Seen, Duration) {
        self.settle(Duration::MAX);
        let nothing = Seen::none(0);
        let late = Duration::from_micros(self.late.value_at_quantile(0.99));
        (std::mem::replace(&mut self.seen, nothing), late)
    }
}

fn second_of(at: Duration) -> usize {
    usize::try_from(at.as_nanos() / SLICE.as_nanos()).unwrap_or(usize::MAX)
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn record() -> Record {
        Record::new(2, 2_500 * MS, 1_000 * MS)
    }

    #[test]
    fn the_warm_up_is_in_the_seconds_only() {
        let mut record = record();
        record.ended(999 * MS, 5 * MS, Ended::Well(Some(1)));
        record.ended(999 * MS, 5 * MS, Ended::Badly(Failure::Connect));
        record.ended(1_000 * MS, 7 * MS, Ended::Well(Some(0)));
        record.ended(2_499 * MS, 9 * MS, Ended::Badly(Failure::Timeout));

        let (seen, _) = record.done();
        assert_eq!(seen.time, 1_500 * MS);
        assert_eq!((seen.succeeded.len(), seen.failed.len()), (1, 1));
        assert_eq!(seen.answers, [1, 0]);
        assert_eq!(seen.failures.into_iter().collect::<Vec<_>>(), [(Failure::Timeout, 1)]);
        let answers: Vec<Vec<u32>> = seen.slices.iter().map(|slice| slice.answers.clone()).collect();
        assert_eq!(answers, [[0, 1], [1, 0], [0, 0]]);
        let failures: Vec<u32> = seen.slices.iter().map(|slice| slice.failures).collect();
        assert_eq!(failures, [1, 0, 1]);
    }

    #[test]
    fn a_second_has_its_own_percentiles() {
        let mut record = record();
        for count in 1..=100 {
            record.ended(Duration::ZERO, count * MS, Ended::Well(None));
        }
        record.ended(1_500 * MS, 3 * MS, Ended::Well(None));
        record.settle(1_000 * MS);
        assert!(record.seconds[0].is_none() && record.seconds[1].is_some());

        let (seen, _) = record.done();
        let near = |time: Duration, ms: f64| (time.as_secs_f64() * 1_000.0 / ms - 1.0).abs() < 0.01;
        assert!(near(seen.slices[0].p50, 50.0) && near(seen.slices[0].p99, 99.0), "{:?}", seen.slices);
        assert!(near(seen.slices[1].p99, 3.0));
        assert_eq!(seen.slices[2].p99, Duration::ZERO);
    }

    #[test]
    fn what_lies_beyond_the_bounds_does_no_harm() {
        let mut record = record();
        record.ended(9_000 * MS, Duration::MAX, Ended::Well(Some(7)));
        record.began(9_000 * MS, Duration::MAX);
        let (seen, late) = record.done();
        assert_eq!(seen.succeeded.len(), 1);
        assert!(late >= Duration::from_secs(300));
    }
}
