//! Who would be picked next, and why each other would not.

use std::time::Duration;

use serde::Serialize;

use super::request::ExcludedView;
use super::score::{ScoreView, rule};
use super::{CandidateView, Standing, standings};
use crate::balance::StrategyKind;
use crate::health::WhyNot;
use crate::observe::Reason;
use crate::runtime::{Pool, Upstream};

/// One choice that is not made.
#[derive(Debug, Serialize)]
pub(in crate::admin) struct PickView {
    pool: String,
    strategy: &'static str,
    /// How it chooses, in a sentence.
    rule: &'static str,
    /// Address of the upstream; null when a request would be refused, or would have to wait.
    next: Option<String>,
    /// The word of the refusal.
    reason: Option<&'static str>,
    /// What else there is to know about this choice.
    note: Option<&'static str>,
    /// Upstreams that could be picked.
    eligible: usize,
    /// Those that could not, by reason.
    excluded: Vec<ExcludedView>,
    candidates: Vec<CandidateView>,
    /// Further ones that are not listed.
    candidates_omitted: usize,
}

impl PickView {
    /// The next choice by the pool's own strategy, or by another one, with at most so many candidates: whoever
    /// is next, and the first.
    pub(in crate::admin) fn of(
        pool: &Pool,
        strategy: Option<StrategyKind>,
        candidates_max: usize,
        now: Duration,
    ) -> Self {
        let kind = strategy.unwrap_or(pool.config.strategy);
        let standings = standings(pool, now);
        let next = pool.preview(kind, now, fastrand::u64(..), fastrand::u64(..));
        let shown = shown(next, standings.len(), candidates_max);
        Self {
            pool: pool.config.name.clone(),
            strategy: kind.name(),
            rule: rule(kind),
            reason: next.is_none().then(|| why_nobody(&standings, pool)).flatten(),
            note: note(&standings, kind, next.is_some()),
            next: next.and_then(|next| pool.upstreams().get(next)).map(|next| next.label.to_string()),
            eligible: standings.iter().filter(|standing| standing.why_not.is_none()).count(),
            excluded: excluded(&standings),
            candidates_omitted: standings.len().saturating_sub(shown.len()),
            candidates: shown
                .into_iter()
                .filter_map(|index| {
                    let score = ScoreView::of(&pool.terms_of(index, now)?, kind);
                    Some(CandidateView::of(*standings.get(index)?, score))
                })
                .collect(),
        }
    }
}

/// All in their order, or whoever is next and the first of the others.
fn shown(next: Option<usize>, size: usize, max: usize) -> Vec<usize> {
    let next = next.filter(|_| size > max);
    next.into_iter().chain((0..size).filter(|index| Some(*index) != next)).take(max).collect()
}

fn excluded(standings: &[Standing<'_>]) -> Vec<ExcludedView> {
    let of = |reason| standings.iter().filter(|standing| standing.why_not == Some(reason)).count();
    ExcludedView::all(&WhyNot::ALL.map(|reason| u32::try_from(of(reason)).unwrap_or(u32::MAX)))
}

/// The upstream that `kind` would pick, with all that the pool has learned.
pub(in crate::admin) fn preview(pool: &Pool, kind: StrategyKind, now: Duration) -> Option<&Upstream> {
    pool.upstreams().get(pool.preview(kind, now, fastrand::u64(..), fastrand::u64(..))?)
}

/// `None` when the request would not be refused: it waits, or ejected upstreams are readmitted.
fn why_nobody(standings: &[Standing<'_>], pool: &Pool) -> Option<&'static str> {
    let any =
        |reasons: &[WhyNot]| standings.iter().any(|it| it.why_not.is_some_and(|why| reasons.contains(&why)));
    if any(&[WhyNot::Ejected, WhyNot::Probation]) {
        return None;
    }
    if any(&[WhyNot::Full]) && pool.config.queue.max > 0 {
        let is_full = pool.state.queue.len() >= pool.config.queue.max;
        return is_full.then_some(Reason::QueueFull.word());
    }
    Some(Reason::NoEligibleUpstream.word())
}

fn note(standings: &[Standing<'_>], kind: StrategyKind, is_picked: bool) -> Option<&'static str> {
    let any = |why_not| standings.iter().any(|standing| standing.why_not == Some(why_not));
    match is_picked {
        true if kind == StrategyKind::ConsistentHash => {
            Some("each hash key has its own upstream; this is the one of a key drawn at random")
        }
        true if kind == StrategyKind::RoundRobin => None,
        true => Some("ties and draws are by chance, so the next request may go elsewhere"),
        false if any(WhyNot::Ejected) || any(WhyNot::Probation) => {
            Some("nobody else is eligible, so the next request readmits the ejected upstreams")
        }
        false if any(WhyNot::Full) => Some("every upstream that could serve is at its `max_connections`"),
        false if standings.is_empty() => Some("the pool has no upstreams"),
        false => None,
    }
}
