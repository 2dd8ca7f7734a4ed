//! What a request leaves behind as it goes, for those who ask afterwards how it went.
//!
//! One attempt fits into the request's own context. What allocates (further attempts, and the scores of a
//! pick) is for requests that fail, for one in [`SAMPLED_ONE_IN`], and for all while somebody asks.

use std::sync::Arc;
use std::time::Duration;

use super::context::{Attempt, RequestContext};
use crate::observe::{AttemptOutcome, AttemptRecord, Detail, Moment, PickRecord, SAMPLED_ONE_IN, Then};
use crate::runtime::{Chosen, Pool, Tiers};

/// See the [module documentation](self). Times count from the beginning of the request.
#[derive(Debug, Default)]
pub(super) struct Trail {
    pub first: Option<AttemptRecord>,
    pub detail: Option<Box<Detail>>,
    /// How long attempts that were ready to send it have waited for the end of the request's body.
    pub uploads: Duration,
    /// The answer lasts as long as somebody wants it to.
    pub is_endless: bool,
}

impl Trail {
    /// The attempt goes over a connection that was kept.
    pub(super) fn reused(&mut self) {
        if let Some(attempt) = self.current() {
            attempt.is_reused = true;
        }
    }

    /// A new connection stands.
    pub(super) fn connected(&mut self, at: Duration) {
        if let Some(attempt) = self.current() {
            attempt.connected = Some(at);
        }
    }

    /// Whether another attempt follows, or why none.
    pub(super) fn then(&mut self, then: Then) {
        if let Some(attempt) = self.current() {
            attempt.then = then;
        }
    }

    /// What is told of it at the end; nothing is left here.
    pub(super) fn take_detail(&mut self) -> Option<Arc<Detail>> {
        self.detail.take().map(Arc::from)
    }

    /// All attempts, in their order.
    pub(super) fn attempts(&self) -> impl Iterator<Item = &AttemptRecord> {
        let later = self.detail.iter().flat_map(|detail| &detail.attempts);
        self.first.iter().chain(later.map(|(_, attempt)| attempt))
    }

    /// When the head of the last attempt's answer was there.
    pub(super) fn answered(&mut self) -> Option<Duration> {
        self.current()?.answered
    }

    fn current(&mut self) -> Option<&mut AttemptRecord> {
        let later = self.detail.as_mut().and_then(|detail| detail.attempts.last_mut());
        later.map(|(_, attempt)| attempt).or(self.first.as_mut())
    }

    fn detail(&mut self) -> &mut Detail {
        self.detail.get_or_insert_default()
    }
}

impl RequestContext {
    /// How everybody stands before a pick, if this one is among those that are taken down.
    pub(super) fn standing_at_pick(
        &self,
        pool: &Pool,
        now: Duration,
        sample: u64,
        tried: &Tiers,
    ) -> Option<PickRecord> {
        let is_wanted =
            self.attempts > 0 || sample.is_multiple_of(SAMPLED_ONE_IN) || self.runtime.records.is_asked(now);
        is_wanted.then(|| pool.candidates(self.attempts + 1, Moment::Pick, None, now, tried))
    }

    /// Somebody was picked.
    pub(super) fn note_pick(&mut self, chosen: &Chosen, standing: Option<PickRecord>, now: Duration) {
        let at = now.saturating_sub(self.started);
        let Some((label, multiplier)) = self.pool().and_then(|pool| {
            let upstream = pool.upstreams().get(chosen.index)?;
            Some((&upstream.label, upstream.state.load.multiplier()))
        }) else {
            return;
        };
        let attempt = AttemptRecord {
            upstream: u32::try_from(chosen.index).unwrap_or(u32::MAX),
            picked: at,
            in_flight: chosen.lease.in_flight,
            multiplier,
            ..AttemptRecord::default()
        };
        // Only the first needs no name of its own: the record has room for it.
        if self.trail.first.is_none() {
            self.trail.first = Some(attempt);
        } else {
            let label = label.clone();
            self.trail.detail().attempt(label, attempt);
        }
        if let Some(standing) = standing {
            let standing = self.complete(standing, chosen.index, now);
            self.trail.detail().pick(PickRecord { at, ..standing });
        }
    }

    /// Of a large pool nobody was taken down before the pick, so the chosen is looked at now, without itself.
    fn complete(&self, standing: PickRecord, chosen: usize, now: Duration) -> PickRecord {
        match self.pool().filter(|_| standing.candidates.is_empty()) {
            Some(pool) => {
                pool.candidates(standing.attempt, Moment::Pick, Some(chosen), now, &Tiers::default())
            }
            None => standing,
        }
    }

    /// Nobody could be picked.
    pub(super) fn note_nobody(&mut self, now: Duration) {
        self.note_standing(self.attempts + 1, Moment::Refusal, None, now);
    }

    /// The attempt failed, before its answer or within it.
    pub(super) fn note_failure(&mut self, outcome: AttemptOutcome, now: Duration) {
        let at = now.saturating_sub(self.started);
        let Some(attempt) = self.trail.current().filter(|attempt| attempt.failed.is_none()) else { return };
        (attempt.outcome, attempt.failed) = (outcome, Some(at));
        let chosen = attempt.upstream as usize;
        self.note_standing_unless_known(chosen, now);
    }

    /// The upstream answered.
    pub(super) fn note_answer(&mut self, under_way: &Attempt, status: u16, now: Duration) {
        let at = now.saturating_sub(self.started);
        if let Some(attempt) = self.trail.current() {
            (attempt.outcome, attempt.answered) = (AttemptOutcome::Answered, Some(at));
            attempt.status = Some(status);
        }
        if status >= 500 {
            self.note_standing_unless_known(under_way.upstream, now);
        }
    }

    fn note_standing_unless_known(&mut self, chosen: usize, now: Duration) {
        let attempts = self.attempts;
        if self.trail.detail.as_ref().is_none_or(|detail| !detail.has_pick(attempts)) {
            self.note_standing(attempts, Moment::Failure, Some(chosen), now);
        }
    }

    fn note_standing(&mut self, attempt: u32, moment: Moment, chosen: Option<usize>, now: Duration) {
        let at = now.saturating_sub(self.started);
        let Some(pool) = self.pool() else { return };
        let standing = pool.candidates(attempt, moment, chosen, now, &self.tried);
        self.trail.detail().pick(PickRecord { at, ..standing });
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::super::steps::{self, Draw};
    use super::*;
    use crate::config::{Source, parse};
    use crate::runtime::Runtime;

    const TEXT: &str = "[listeners.http]\naddress = \"127.0.0.1:8080\"\n[pools.app]\nstrategy = \"random_two\"\nhealth_check = { enabled = false }\nupstreams = [\"127.0.0.1:9001\", \"127.0.0.1:9002\", \"127.0.0.1:9003\", \"127.0.0.1:9004\"]\n";

    fn runtime() -> Arc<Runtime> {
        let source = Source { name: String::new(), text: TEXT.to_owned(), folder: ".".into() };
        Arc::new(Runtime::new(parse(&source, &|_| None).unwrap(), 1, 0, None))
    }

    /// Who was picked, and whether the scores were kept.
    fn picked(strategy: u64, sample: u64, runtime: &Arc<Runtime>) -> (usize, bool) {
        let mut ctx = RequestContext::new(runtime);
        (ctx.route, ctx.pool) = (Some(0), Some(0));
        steps::pick(Duration::ZERO, Draw { strategy, sample }, &mut ctx).unwrap();
        (ctx.attempt.as_ref().unwrap().upstream, ctx.trail.detail.is_some())
    }

    #[test]
    fn whether_scores_are_kept_does_not_depend_on_what_the_strategy_goes_by() {
        let runtime = runtime();
        for strategy in [0, 1, 31, SAMPLED_ONE_IN, u64::MAX] {
            assert!(picked(strategy, SAMPLED_ONE_IN, &runtime).1);
            assert!(!picked(strategy, SAMPLED_ONE_IN + 1, &runtime).1);
        }
    }

    /// A third off is more than five deviations.
    #[test]
    fn scores_are_kept_of_every_upstream_alike() {
        const PICKS: usize = 4 * 32 * 250;
        let (runtime, mut randoms) = (runtime(), fastrand::Rng::with_seed(7));
        let mut kept = [0; 4];
        for _ in 0..PICKS {
            let (upstream, is_kept) = picked(randoms.u64(..), randoms.u64(..), &runtime);
            kept[upstream] += usize::from(is_kept);
        }
        assert!(kept.iter().all(|kept| (167..=333).contains(kept)), "{kept:?}");
    }
}
