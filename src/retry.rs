//! May this request try again? Conditions and budget.
//!
//! ```text
//!   Failure, Progress ──► Policy::allows ──► Budget::pays_for ──► next attempt, elsewhere
//!                              │ no                │ no
//!                              ▼                   ▼
//!                    the last answer goes to the client
//! ```
//!
//! The policy protects one request: what is repeated must be harmless to repeat. The budget protects the
//! upstreams: when all of them fail, retries would multiply the load that makes them fail.
//!
//! **Invariant**: this file uses `std` and `http` and nothing else (floor 0).

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::Method;

/// `retry` of a route.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Further attempts after the first; 0: none at all. Failed connects are not counted, see
    /// [`Policy::allows`].
    pub max_retries: u32,
    /// What may be tried again.
    pub on: Conditions,
    /// Retries as a share of requests, 0 to 1.
    pub budget: f32,
}

/// `retry.on`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conditions {
    /// No connection could be made; nothing was sent, so any method may try again.
    pub connect_failure: bool,
    /// The connection broke before a response, or the response was garbage.
    pub reset: bool,
    /// No response in time.
    pub timeout: bool,
    /// Response statuses that count as a failed attempt, sorted.
    pub statuses: Vec<u16>,
}

impl Policy {
    /// Whether the attempt that just failed may be followed by another one elsewhere.
    ///
    /// Never once a byte of a response went to the client, nor when the body cannot be sent again.
    ///
    /// A failed connect is repeated for any method, and until [`ATTEMPTS_MAX`] rather than `max_retries`:
    /// nothing was sent, so the next untried upstream costs nothing, and one dead upstream after another
    /// must not fail the client while a healthy one is left. All else is repeated only for idempotent
    /// methods: the upstream may have acted before it failed.
    pub fn allows(&self, failure: Failure, progress: &Progress) -> bool {
        if self.max_retries == 0
            || progress.response_started
            || !progress.replayable
            || progress.attempts >= ATTEMPTS_MAX
            || !self.on.include(failure)
        {
            return false;
        }
        failure == Failure::Connect || (progress.idempotent && progress.answerable() <= self.max_retries)
    }
}

impl Conditions {
    fn include(&self, failure: Failure) -> bool {
        match failure {
            Failure::Connect => self.connect_failure,
            Failure::Reset => self.reset,
            Failure::Timeout => self.timeout,
            Failure::Status(status) => self.statuses.binary_search(&status).is_ok(),
        }
    }
}

/// How an attempt failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No connection could be made, in whatever way; nothing was sent.
    Connect,
    /// The connection broke before a response, or the response was garbage.
    Reset,
    /// No response in time.
    Timeout,
    /// A complete response head with this status.
    Status(u16),
}

impl Failure {
    /// Every word that [`Failure::word`] gives.
    pub const WORDS: [&'static str; 4] = ["connect_failure", "reset", "timeout", "status"];

    /// The `reason` of `evener_retries_total`; the words of `retry.on`, one for all statuses.
    pub const fn word(self) -> &'static str {
        Self::WORDS[self.index()]
    }

    /// Place of the word in [`Failure::WORDS`].
    pub const fn index(self) -> usize {
        match self {
            Self::Connect => 0,
            Self::Reset => 1,
            Self::Timeout => 2,
            Self::Status(_) => 3,
        }
    }
}

/// How far a request has come when one of its attempts fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Attempts made so far, the failed one included.
    pub attempts: u32,
    /// Those of them that failed to connect, the failed one included if it did.
    pub connect_failures: u32,
    /// Whether sending the request twice does the same as sending it once ([`is_idempotent`]).
    pub idempotent: bool,
    /// Whether the body can be sent again in full, or none of it was sent.
    pub replayable: bool,
    /// Whether the client has received any byte of a response.
    pub response_started: bool,
}

impl Progress {
    /// Attempts that reached an upstream. The first of them is the request, the others are its retries.
    const fn answerable(&self) -> u32 {
        self.attempts.saturating_sub(self.connect_failures)
    }
}

/// Whether repeating a request with this method is harmless (RFC 9110, section 9.2.2): GET, HEAD, OPTIONS,
/// TRACE, PUT, DELETE.
pub fn is_idempotent(method: &Method) -> bool {
    method.is_idempotent()
}

/// Retries that a pool may still make: each request earns a share of one, each retry spends one.
///
/// Lock-free; one per pool, kept over reloads. What was earned in good times is kept up to [`SAVED_MAX`]:
/// an upstream that is killed breaks all of its requests at once, and all of them want another attempt.
#[derive(Debug)]
pub struct Budget {
    /// Thousandths of a retry.
    saved: AtomicU64,
    /// When the floor was last refilled, ms since the epoch of the process.
    refilled_at_ms: AtomicU64,
}

impl Budget {
    /// A budget with [`FLOOR`] retries.
    pub const fn new() -> Self {
        Self { saved: AtomicU64::new(FLOOR * ONE), refilled_at_ms: AtomicU64::new(0) }
    }

    /// Called once per request, with `retry.budget` of its route (0 to 1).
    pub fn earn(&self, ratio: f32) {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 0..=1000")]
        let earned = (ratio.clamp(0.0, 1.0) * ONE as f32).round() as u64;
        // Relaxed: one number, ordered with nothing. A full budget is only read, so that the cache line
        // stays shared; threads that pass the check together exceed the limit by one share each.
        if earned > 0 && self.saved.load(Ordering::Relaxed) < SAVED_MAX * ONE {
            self.saved.fetch_add(earned, Ordering::Relaxed);
        }
    }

    /// Takes the price of one retry out of the budget; `false` when it is used up.
    ///
    /// Up to [`FLOOR`] retries come back with time, [`FLOOR_PER_SECOND`], so that a pool with little
    /// traffic can retry too. `now` is monotonic time since the epoch of the process.
    pub fn spend(&self, now: Duration) -> bool {
        self.refill(now);
        self.saved.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |saved| saved.checked_sub(ONE)).is_ok()
    }

    /// [`Budget::spend`], but a failed connect is free: it put no load on an upstream.
    pub fn pays_for(&self, failure: Failure, now: Duration) -> bool {
        failure == Failure::Connect || self.spend(now)
    }

    /// Whole retries that are left.
    pub fn left(&self) -> u64 {
        self.saved.load(Ordering::Relaxed) / ONE
    }

    fn refill(&self, now: Duration) {
        let now_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        // The maximum, or else a slow thread would set the time back and the same time be paid for twice.
        let before = self.refilled_at_ms.fetch_max(now_ms, Ordering::Relaxed);
        let due = now_ms.saturating_sub(before).saturating_mul(FLOOR_PER_SECOND * ONE / 1_000);
        if due > 0 {
            let refilled =
                |saved: u64| (saved < FLOOR * ONE).then(|| saved.saturating_add(due).min(FLOOR * ONE));
            // Refused means that more than the floor is there, and there is nothing to refill.
            let _ = self.saved.fetch_update(Ordering::Relaxed, Ordering::Relaxed, refilled);
        }
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self::new()
    }
}

/// Attempts of one request in all; more dead upstreams than that in a row is an outage that waiting does
/// not cure.
pub const ATTEMPTS_MAX: u32 = 16;

/// Retries that are there without any traffic: a handful, too few to hurt.
pub const FLOOR: u64 = 10;

/// Retries per second that come back while fewer than [`FLOOR`] are left. Finagle's default is 10; ours is
/// lower because failed connects, the frequent case, cost nothing.
pub const FLOOR_PER_SECOND: u64 = 3;

/// Retries saved up at most: the requests in flight on one busy upstream that dies.
pub const SAVED_MAX: u64 = 1_000;

/// One retry, in the unit that is counted. A multiple of 1 000, because time is counted in ms.
const ONE: u64 = 1_000;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_refused_connection_is_tried_elsewhere_for_any_method_and_beyond_max_retries() {
        let progress = Progress { attempts: 7, connect_failures: 7, idempotent: false, ..first() };
        assert!(policy().allows(Failure::Connect, &progress));
        assert!(!policy().allows(Failure::Connect, &Progress { attempts: ATTEMPTS_MAX, ..progress }));
    }

    #[test]
    fn no_retries_means_none_at_all() {
        let never = Policy { max_retries: 0, ..policy() };
        assert!(every_failure().iter().all(|&failure| !never.allows(failure, &first())));
    }

    #[test]
    fn a_post_that_was_sent_is_not_sent_again() {
        let post = Progress { idempotent: is_idempotent(&Method::POST), ..first() };
        for failure in [Failure::Reset, Failure::Timeout, Failure::Status(503)] {
            assert!(!policy().allows(failure, &post), "{failure:?}");
            assert!(policy().allows(failure, &first()), "{failure:?}");
        }
    }

    #[test]
    fn what_cannot_be_sent_again_is_not_tried_again() {
        for failure in every_failure() {
            assert!(!policy().allows(failure, &Progress { replayable: false, ..first() }), "{failure:?}");
            assert!(
                !policy().allows(failure, &Progress { response_started: true, ..first() }),
                "{failure:?}"
            );
        }
    }

    #[test]
    fn only_what_is_listed_is_tried_again() {
        let nothing =
            Conditions { connect_failure: false, reset: false, timeout: false, statuses: Vec::new() };
        let policy = Policy { on: nothing, ..policy() };
        assert!(every_failure().iter().all(|&failure| !policy.allows(failure, &first())));
        assert!(!self::policy().allows(Failure::Status(500), &first()), "500 is not in the list");
    }

    #[test]
    fn failed_connects_do_not_use_up_the_retries() {
        let reached = |attempts| Progress { attempts, connect_failures: 3, ..first() };
        assert!(policy().allows(Failure::Reset, &reached(4)), "the first that reached an upstream");
        assert!(policy().allows(Failure::Reset, &reached(5)), "one retry made, two allowed");
        assert!(!policy().allows(Failure::Reset, &reached(6)), "two retries made");
    }

    #[test]
    fn idempotent_methods_are_those_of_the_standard() {
        let idempotent =
            [Method::GET, Method::HEAD, Method::OPTIONS, Method::TRACE, Method::PUT, Method::DELETE];
        assert!(idempotent.iter().all(is_idempotent));
        assert!(![Method::POST, Method::PATCH, Method::CONNECT].iter().any(is_idempotent));
    }

    #[test]
    fn every_failure_has_its_own_word() {
        assert_eq!(every_failure().map(Failure::word), Failure::WORDS);
    }

    /// envoy#10869: retries under a total failure must not multiply the load.
    #[test]
    fn retries_stop_at_the_budget() {
        let (budget, policy) = (Budget::new(), policy());
        let mut attempts_in_all: u64 = 0;
        for _ in 0..1_000 {
            attempts_in_all += u64::from(attempts_of_a_failing_request(&policy, &budget, Duration::ZERO));
        }
        assert_eq!(attempts_in_all, 1_000 + 200 + FLOOR);
    }

    #[test]
    fn a_failed_connect_costs_no_budget() {
        let budget = Budget::new();
        assert!((0..100).all(|_| budget.pays_for(Failure::Connect, Duration::ZERO)));
        assert_eq!(budget.left(), FLOOR);
    }

    #[test]
    fn an_upstream_killed_under_load_does_not_exhaust_the_budget() {
        let budget = Budget::new();
        (0..10_000).for_each(|_| budget.earn(0.2));
        assert_eq!(budget.left(), SAVED_MAX);
        assert!((0..500).all(|_| budget.pays_for(Failure::Reset, Duration::ZERO)));
    }

    #[test]
    fn a_quiet_pool_gets_its_floor_back_with_time_and_no_more() {
        let budget = Budget::new();
        let drain = |now| (0..100).filter(|_| budget.spend(now)).count() as u64;
        assert_eq!(drain(Duration::from_secs(5)), FLOOR);
        assert_eq!(drain(Duration::from_secs(6)), FLOOR_PER_SECOND);
        assert_eq!(drain(Duration::from_secs(3_600)), FLOOR);
        assert_eq!(drain(Duration::from_secs(60)), 0, "time does not run backwards");
    }

    #[test]
    fn a_ratio_that_is_no_share_earns_no_more_than_one() {
        let budget = Budget::new();
        for odd in [f32::NAN, -1.0, f32::NEG_INFINITY] {
            budget.earn(odd);
        }
        assert_eq!(budget.left(), FLOOR);
        budget.earn(f32::INFINITY);
        assert_eq!(budget.left(), FLOOR + 1);
    }

    #[test]
    fn threads_do_not_spend_the_same_retry_twice() {
        let budget = Budget::new();
        let spent: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| (0..1_000).filter(|_| budget.spend(Duration::ZERO)).count()))
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap_or(usize::MAX)).sum()
        });
        assert_eq!(spent as u64, FLOOR);
    }

    proptest! {
        /// However requests come and fail, retries stay within what was earned, the floor, and its refill.
        #[test]
        fn retries_never_exceed_what_was_earned(
            gaps_ms in prop::collection::vec(0u64..200, 1..300),
            ratio in 0u16..=1_000,
        ) {
            let budget = Budget::new();
            let (mut now, mut spent) = (Duration::ZERO, 0u64);
            for gap in &gaps_ms {
                now += Duration::from_millis(*gap);
                budget.earn(f32::from(ratio) / 1_000.0);
                spent += (0..3).filter(|_| budget.spend(now)).count() as u64;
            }
            let earned = gaps_ms.len() as u64 * u64::from(ratio);
            let refilled = u64::try_from(now.as_millis()).unwrap_or(u64::MAX) * FLOOR_PER_SECOND;
            prop_assert!(spent * 1_000 <= FLOOR * 1_000 + earned + refilled);
        }
    }

    fn attempts_of_a_failing_request(policy: &Policy, budget: &Budget, now: Duration) -> u32 {
        budget.earn(policy.budget);
        let failure = Failure::Status(503);
        let mut progress = first();
        while policy.allows(failure, &progress) && budget.pays_for(failure, now) {
            progress.attempts += 1;
        }
        progress.attempts
    }

    fn every_failure() -> [Failure; 4] {
        [Failure::Connect, Failure::Reset, Failure::Timeout, Failure::Status(503)]
    }

    /// A GET whose first attempt failed.
    fn first() -> Progress {
        Progress {
            attempts: 1,
            connect_failures: 0,
            idempotent: true,
            replayable: true,
            response_started: false,
        }
    }

    fn policy() -> Policy {
        let on =
            Conditions { connect_failure: true, reset: true, timeout: true, statuses: vec![502, 503, 504] };
        Policy { max_retries: 2, on, budget: 0.2 }
    }
}
