//! What one candidate did in one round.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;

use super::name::Candidate;

/// Latencies are kept to three figures, from 1 µs to [`LATENCY_MAX`].
pub const LATENCY_FIGURES: u8 = 3;
/// Far beyond every client's patience.
pub const LATENCY_MAX: Duration = Duration::from_secs(300);
/// Length of a [`Slice`].
pub const SLICE: Duration = Duration::from_secs(1);

/// One candidate, one round.
#[derive(Clone, Debug)]
pub struct Turn {
    /// Who.
    pub candidate: Candidate,
    /// By the clients.
    pub seen: Seen,
    /// By the balancer.
    pub used: Used,
    /// Whether the figures can be trusted.
    pub doubt: Doubt,
}

/// What the clients saw, after the warm-up if not said otherwise.
#[derive(Clone, Debug)]
pub struct Seen {
    /// How long was measured.
    pub time: Duration,
    /// From the moment when a request should have begun to its last byte, in µs.
    pub succeeded: Histogram<u64>,
    /// The same of requests that failed; a client that gave up counts with its patience.
    pub failed: Histogram<u64>,
    /// Failed requests by what went wrong.
    pub failures: BTreeMap<Failure, u64>,
    /// Requests that a kept connection took and did not answer before it ended: clients send them once more, on
    /// a new one, as every HTTP client does. Warm-up included.
    pub sent_again: u64,
    /// Successful answers by the server that gave them.
    pub answers: Vec<u64>,
    /// Second by second, warm-up included, by the moment when a request should have begun.
    pub slices: Vec<Slice>,
}

/// One second of a turn.
#[derive(Clone, Debug)]
pub struct Slice {
    /// Successful answers by server.
    pub answers: Vec<u32>,
    /// Failed requests.
    pub failures: u32,
    /// Median latency of the successful ones.
    pub p50: Duration,
    /// 99th percentile of the same.
    pub p99: Duration,
}

/// What went wrong with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Failure {
    /// An answer with another status than 200.
    Status(u16),
    /// The balancer did not take the connection.
    Connect,
    /// The connection ended before the answer did, or what came is no answer.
    Broken,
    /// The client gave up.
    Timeout,
    /// It could not be sent: too many were under way. The figures of such a turn are worthless.
    NotSent,
}

/// What the processes of a balancer took, all together; zero where there is no process (`direct`).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Used {
    /// User time while it was measured.
    pub user: Duration,
    /// System time while it was measured.
    pub system: Duration,
    /// Resident memory before the load, in KiB.
    pub resident_before_kib: u64,
    /// The same at the end, while idle connections are still open.
    pub resident_kib: u64,
    /// The most that it ever was.
    pub peak_kib: u64,
    /// Idle client connections that were open at the end.
    pub idle_connections: u64,
}

/// How far the bench itself may have been in the way.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Doubt {
    /// 99th percentile of how much later than intended requests began.
    pub sent_late: Duration,
    /// 99th percentile of how much later than due servers answered.
    pub answered_late: Duration,
    /// Share of one core that the clients' thread used, 0 to 1.
    pub load_busy: f64,
    /// Share of one core that the servers' thread used, 0 to 1.
    pub servers_busy: f64,
}

impl Seen {
    /// Nothing yet.
    pub fn none(servers: usize) -> Self {
        Self {
            time: Duration::ZERO,
            succeeded: latencies(),
            failed: latencies(),
            failures: BTreeMap::new(),
            sent_again: 0,
            answers: vec![0; servers],
            slices: Vec::new(),
        }
    }
}

/// An empty histogram of latencies in µs.
///
/// # Panics
///
/// Never: the bounds are constants that are in order.
#[expect(clippy::expect_used, reason = "the bounds are constants")]
pub fn latencies() -> Histogram<u64> {
    const MOST: u64 = LATENCY_MAX.as_secs() * 1_000_000;
    Histogram::new_with_bounds(1, MOST, LATENCY_FIGURES).expect("bounds are in order")
}
