//! Takes down, every ten seconds, how far the counters are, so that the last five minutes can be told.

use std::time::Duration;

use super::{Pool, Snapshot};
use crate::observe::HistogramSnapshot;

impl Snapshot {
    /// Samples every route, pool and upstream; once in every [`SAMPLE`](crate::observe::SAMPLE).
    pub fn sample(&self, now: Duration) {
        self.routes().for_each(|route| route.metrics.sample(now));
        self.pools().for_each(|pool| pool.sample(now));
    }
}

impl Pool {
    fn sample(&self, now: Duration) {
        let metrics = &self.state.metrics;
        metrics.sample(now);
        self.upstreams().iter().for_each(|upstream| upstream.state.metrics.sample(now));
        // Most pools of a large configuration are quiet, and then cost nothing.
        if metrics.requests() > 0 && metrics.recent_times.is_due(now) {
            metrics.recent_times.sample(self.response_times(), now);
        }
    }

    /// Times to the first byte of all upstreams together, since each of them is known.
    pub fn response_times(&self) -> HistogramSnapshot {
        HistogramSnapshot::merged(
            self.upstreams().iter().map(|upstream| upstream.state.metrics.response_times()),
        )
    }

    /// Requests in flight at its upstreams.
    pub fn in_flight(&self) -> u64 {
        self.upstreams().iter().map(|upstream| u64::from(upstream.state.load.in_flight())).sum()
    }
}
