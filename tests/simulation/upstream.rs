//! An upstream as one proxy sees it: its load, and a simple ejection.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use evener::balance::{Candidate, Load};

use crate::server::Seconds;

/// One server in one proxy's pool.
pub(crate) struct Upstream {
    /// Index of the server in the world.
    pub server: usize,
    pub weight: u16,
    pub load: Load,
    pub begun: Cell<u64>,
    pub ended: Cell<u64>,
    /// Set by chaos: health check, drain.
    pub down: Cell<bool>,
    ejection: Ejection,
}

/// A stand-in for the `health` room (`ALGORITHMS.md` §3): five failures in a row are out for 1 s, doubling
/// to 5 s; then three successes, one at a time, or out again.
#[derive(Default)]
struct Ejection {
    failures_in_a_row: Cell<u32>,
    times: Cell<u32>,
    until: Cell<Seconds>,
    wanted: Cell<u32>,
}

/// An upstream in a pool's slice; the upstream itself outlives the pool.
#[derive(Clone)]
pub(crate) struct Member(pub Rc<Upstream>);

impl Upstream {
    pub(crate) fn new(server: usize, weight: u16, now: Duration) -> Self {
        Self {
            server,
            weight,
            load: Load::new(now),
            begun: Cell::new(0),
            ended: Cell::new(0),
            down: Cell::new(false),
            ejection: Ejection::default(),
        }
    }

    pub(crate) fn begin(&self, now: Duration) -> u32 {
        self.begun.set(self.begun.get() + 1);
        self.load.begin(now)
    }

    pub(crate) fn end(&self) {
        self.ended.set(self.ended.get() + 1);
        self.load.end();
    }

    pub(crate) fn succeeded(&self, now: Duration, latency: Duration, in_flight_at_begin: u32) {
        self.load.succeeded(now, latency, in_flight_at_begin);
        self.ejection.failures_in_a_row.set(0);
        let wanted = self.ejection.wanted.get();
        if wanted > 0 && self.ejection.until.get() <= now.as_secs_f64() {
            self.ejection.wanted.set(wanted - 1);
            if wanted == 1 {
                self.ejection.times.set(0);
                self.load.readmitted(now);
            }
        }
    }

    /// `room`: another upstream of the pool may be ejected.
    pub(crate) fn failed(&self, now: Duration, room: bool) {
        self.load.failed(now);
        let failures = self.ejection.failures_in_a_row.get() + 1;
        self.ejection.failures_in_a_row.set(failures);
        let out = self.ejection.until.get() > now.as_secs_f64();
        if !out && (self.is_suspect() || failures >= 5 && room) {
            self.eject(now.as_secs_f64());
        }
    }

    /// Ejected, or on probation.
    pub(crate) fn is_suspect(&self) -> bool {
        self.ejection.wanted.get() > 0
    }

    fn eject(&self, now: Seconds) {
        let times = self.ejection.times.get();
        self.ejection.until.set(now + f64::from(1_u32 << times.min(3)).min(5.0));
        self.ejection.times.set(times + 1);
        self.ejection.wanted.set(3);
        self.ejection.failures_in_a_row.set(0);
    }
}

impl Candidate for Member {
    fn load(&self) -> &Load {
        &self.0.load
    }

    fn is_eligible(&self, now: Duration) -> bool {
        let ejected = self.0.ejection.until.get() > now.as_secs_f64();
        let trial_under_way = self.0.is_suspect() && self.0.load.in_flight() > 0;
        !self.0.down.get() && !ejected && !trial_under_way
    }
}
