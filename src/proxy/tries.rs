//! What came of each attempt of one request, for whoever writes it down.

use std::time::Duration;

use super::steps::Outcome;
use crate::observe::TriedOutcome;
use crate::retry::ATTEMPTS_MAX;

/// All attempts of one request, in their order. As large as it may get, so that noting one allocates nothing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tries {
    all: [Try; ATTEMPTS_MAX as usize],
    count: usize,
}

/// One attempt.
#[derive(Clone, Copy, Debug)]
pub(super) struct Try {
    /// Index into the pool's upstreams.
    pub upstream: u32,
    pub end: End,
    /// When the upstream was picked, counted from the runtime's epoch.
    pub picked_at: Duration,
    /// From the pick to the first byte of the answer, or to the failure.
    pub time: Duration,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// It has not, or the request was over before it.
    Open,
    Answered(u16),
    Failed(Outcome),
}

impl Default for Tries {
    fn default() -> Self {
        let none = Try { upstream: 0, end: End::Open, picked_at: Duration::ZERO, time: Duration::ZERO };
        Self { all: [none; ATTEMPTS_MAX as usize], count: 0 }
    }
}

impl Tries {
    /// An upstream was picked.
    pub(super) fn begin(&mut self, upstream: usize, now: Duration) {
        if let Some(next) = self.all.get_mut(self.count) {
            let upstream = u32::try_from(upstream).unwrap_or(u32::MAX);
            *next = Try { upstream, end: End::Open, picked_at: now, time: Duration::ZERO };
            self.count += 1;
        }
    }

    /// The latest attempt has come to this; what is said last counts, for an answer may break off.
    pub(super) fn end(&mut self, end: End, now: Duration) {
        if let Some(latest) = self.count.checked_sub(1).and_then(|index| self.all.get_mut(index)) {
            latest.end = end;
            latest.time = now.saturating_sub(latest.picked_at);
        }
    }

    /// The latest attempt, if it has come to nothing yet, was of no use any more.
    pub(super) fn abandon(&mut self, now: Duration) {
        if self.all().last().is_some_and(|latest| latest.end == End::Open) {
            self.end(End::Failed(Outcome::ClientTrouble), now);
        }
    }

    pub(super) fn all(&self) -> &[Try] {
        self.all.get(..self.count).unwrap_or_default()
    }

    /// What the attempts before the latest took.
    pub(super) fn time_before_the_latest(&self) -> Duration {
        self.all().split_last().map_or(Duration::ZERO, |(_, before)| before.iter().map(|one| one.time).sum())
    }
}

impl End {
    pub(super) const fn outcome(self) -> TriedOutcome {
        match self {
            Self::Open => TriedOutcome::Failed("unknown"),
            Self::Answered(status) => TriedOutcome::Answered(status),
            Self::Failed(outcome) => TriedOutcome::Failed(outcome.word()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn each_attempt_has_its_own_end_and_time() {
        let mut tries = Tries::default();
        tries.end(End::Answered(200), MS);
        assert!(tries.all().is_empty());

        tries.begin(3, 10 * MS);
        tries.end(End::Failed(Outcome::Reset), 15 * MS);
        tries.begin(1, 16 * MS);
        tries.end(End::Answered(200), 18 * MS);
        let told: Vec<_> =
            tries.all().iter().map(|one| (one.upstream, one.end.outcome(), one.time)).collect();
        assert_eq!(
            told,
            [(3, TriedOutcome::Failed("upstream_reset"), 5 * MS), (1, TriedOutcome::Answered(200), 2 * MS)]
        );
        assert_eq!(tries.time_before_the_latest(), 5 * MS);

        // The answer breaks off; the end of the request changes nothing any more.
        tries.end(End::Failed(Outcome::Reset), 30 * MS);
        tries.abandon(40 * MS);
        assert_eq!(
            tries.all().last().map(|one| (one.end, one.time)),
            Some((End::Failed(Outcome::Reset), 14 * MS))
        );
    }

    #[test]
    fn an_attempt_that_is_under_way_at_the_end_was_the_clients_to_give_up() {
        let mut tries = Tries::default();
        tries.begin(0, MS);
        tries.abandon(3 * MS);
        let told = tries.all().first().map(|one| (one.end.outcome(), one.time));
        assert_eq!(told, Some((TriedOutcome::Failed("client_closed"), 2 * MS)));
    }

    #[test]
    fn more_attempts_than_there_may_be_are_not_noted() {
        let mut tries = Tries::default();
        (0..100).for_each(|index| tries.begin(index, MS));
        assert_eq!(tries.all().len(), ATTEMPTS_MAX as usize);
    }
}
