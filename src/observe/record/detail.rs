//! What is kept of few requests: the scores of their picks, and attempts after the first.

use std::sync::Arc;
use std::time::Duration;

use crate::balance::{StrategyKind, Terms};
use crate::health::WhyNot;
use crate::retry::ATTEMPTS_MAX;

/// Picks of one request whose scores are kept.
pub(super) const PICKS_MAX: usize = 3;

/// Candidates of one pick that are kept one by one; the others are counted. Up to 32 upstreams strategies
/// look at all of them.
pub const CANDIDATES_MAX: usize = 32;

/// How one attempt went.
#[derive(Clone, Copy, Debug, Default)]
pub struct AttemptRecord {
    /// Place of the upstream in its pool.
    pub upstream: u32,
    /// When it was picked, since the request began, like all times here.
    pub picked: Duration,
    /// When a new connection stood; `None`: there was none, or a kept one was used.
    pub connected: Option<Duration>,
    /// It went over a connection that was kept.
    pub is_reused: bool,
    /// When the head of the answer was there.
    pub answered: Option<Duration>,
    /// When it was known to have failed.
    pub failed: Option<Duration>,
    /// Status of the upstream's answer.
    pub status: Option<u16>,
    /// What came of it.
    pub outcome: AttemptOutcome,
    /// What followed when it failed.
    pub then: Then,
    /// Requests in flight at the upstream when this one began, itself included.
    pub in_flight: u32,
    /// What was learned of it then; see [`Terms::multiplier`].
    pub multiplier: f32,
}

impl AttemptRecord {
    /// From the pick to the first byte of the answer, or to the failure; `now` stands for what has not come.
    pub fn time(&self, now: Duration) -> Duration {
        self.failed.or(self.answered).unwrap_or(now).saturating_sub(self.picked)
    }
}

/// What came of an attempt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // `sentence` says it.
pub enum AttemptOutcome {
    /// The request ended before there was one.
    #[default]
    Unfinished,
    Answered,
    ConnectFailure,
    ConnectTimeout,
    Reset,
    Timeout,
    Garbage,
    TlsFailure,
    StaleConnection,
    GoneAway,
    RefusedStream,
    LocalTrouble,
    ClientClosed,
}

impl AttemptOutcome {
    /// The word in the API; where the client was told of it, the word of that reason.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Unfinished => "unfinished",
            Self::Answered => "answered",
            Self::ConnectFailure => "connect_failure",
            Self::ConnectTimeout => "connect_timeout",
            Self::Reset => "upstream_reset",
            Self::Timeout => "upstream_timeout",
            Self::Garbage => "bad_response",
            Self::TlsFailure => "tls_failure",
            Self::StaleConnection => "stale_connection",
            Self::GoneAway => "gone_away",
            Self::RefusedStream => "refused_stream",
            Self::LocalTrouble => "local_trouble",
            Self::ClientClosed => "client_closed",
        }
    }

    /// The same for people.
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::Unfinished => "the request ended before the upstream had answered",
            Self::Answered => "the upstream answered",
            Self::ConnectFailure => "no connection: refused or unreachable",
            Self::ConnectTimeout => "no connection within `timeouts.connect`",
            Self::Reset => "the upstream closed the connection before its answer was complete",
            Self::Timeout => "no answer within `timeouts.read` or the route's `timeout`",
            Self::Garbage => "what came back is not valid HTTP",
            Self::TlsFailure => "no secure connection came about",
            Self::StaleConnection => "a kept connection had been closed meanwhile, which is nobody's fault",
            Self::GoneAway => "the upstream left a shared connection before it had begun on this request",
            Self::RefusedStream => "the upstream had no room for this request on a shared connection",
            Self::LocalTrouble => "this machine is out of descriptors, ports or buffers",
            Self::ClientClosed => "the client went away, or sent something wrong",
        }
    }
}

/// What followed an attempt that failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Then {
    /// The request ended, and there was no question of another.
    #[default]
    Ended,
    /// Another attempt was allowed.
    Retried,
    /// Another would not have been safe, or is not wanted.
    NotAllowed,
    /// The time was up.
    TooLate,
    /// There was nobody who could have given a better answer.
    NobodyElse,
    /// The pool has no retries left.
    BudgetSpent,
}

impl Then {
    /// The same for people; `None`: there is nothing to tell.
    pub const fn sentence(self) -> Option<&'static str> {
        match self {
            Self::Ended => None,
            Self::Retried => Some("another attempt was allowed"),
            Self::NotAllowed => Some(
                "no other attempt was allowed: `retry` of the route does not name this failure, its `max_retries` are used up, or the request may not be sent twice, by its method, its body, or since the client has seen part of an answer",
            ),
            Self::TooLate => Some("no other attempt was made: the route's `timeout` was over"),
            Self::NobodyElse => Some("no other attempt was made: nobody else was eligible"),
            Self::BudgetSpent => {
                Some("no other attempt was made: the pool's retry budget was used up, see `retry.budget`")
            }
        }
    }
}

/// When the scores of a pick were taken down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Moment {
    /// Just before the choice: they are what it went by.
    Pick,
    /// When the attempt failed, since those of the choice were not kept.
    Failure,
    /// When nobody could be picked.
    Refusal,
}

impl Moment {
    /// The word in the API.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Pick => "pick",
            Self::Failure => "failure",
            Self::Refusal => "refusal",
        }
    }
}

/// Everybody who could have been chosen, and how each stood.
#[derive(Clone, Debug)]
pub struct PickRecord {
    /// Which attempt it was about, from 1.
    pub attempt: u32,
    /// When this was so.
    pub moment: Moment,
    /// The same in time, since the request began.
    pub at: Duration,
    /// The rule.
    pub strategy: StrategyKind,
    /// Upstreams of the pool.
    pub upstreams: u32,
    /// How many of them could have been chosen; `None`: not counted, the pool is too large for that.
    pub eligible: Option<u32>,
    /// How many could not, by reason, in the order of [`WhyNot::ALL`]; zeros when not counted.
    pub excluded: [u32; WhyNot::ALL.len()],
    /// One by one, [`CANDIDATES_MAX`] at most.
    pub candidates: Box<[CandidateRecord]>,
}

/// How one upstream stood.
#[derive(Clone, Debug)]
pub struct CandidateRecord {
    /// Place in its pool.
    pub place: u32,
    /// Its address.
    pub upstream: Arc<str>,
    /// Its share.
    pub weight: u16,
    /// Used when no other is eligible.
    pub is_backup: bool,
    /// Why it could not be chosen; `None`: it could.
    pub why_not: Option<WhyNot>,
    /// Its score.
    pub terms: Terms,
}

/// What few requests have besides: scores of their picks, and attempts after the first.
#[derive(Clone, Debug, Default)]
pub struct Detail {
    /// Attempts after the first, with the address of the upstream.
    pub attempts: Vec<(Arc<str>, AttemptRecord)>,
    /// Those of which scores were kept.
    pub picks: Vec<PickRecord>,
}

impl Detail {
    /// Adds an attempt, while there is room.
    pub fn attempt(&mut self, upstream: Arc<str>, attempt: AttemptRecord) {
        if self.attempts.len() < ATTEMPTS_MAX as usize {
            self.attempts.push((upstream, attempt));
        }
    }

    /// Adds a pick; the last place is for the last of them.
    pub fn pick(&mut self, pick: PickRecord) {
        if self.picks.len() >= PICKS_MAX {
            self.picks.pop();
        }
        self.picks.push(pick);
    }

    /// Whether scores of this attempt were kept.
    pub fn has_pick(&self, attempt: u32) -> bool {
        self.picks.iter().any(|pick| pick.attempt == attempt)
    }
}
