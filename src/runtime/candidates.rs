//! How everybody stood at one choice, for those who ask why it went as it did.

use std::time::Duration;

use super::{Pool, Tiers, Upstream};
use crate::balance::{Scale, Terms};
use crate::health::WhyNot;
use crate::observe::{CANDIDATES_MAX, CandidateRecord, Moment, PickRecord};

/// Upstreams that are looked at one after another for a request that failed; a larger pool is not counted.
const COUNTED_MAX: usize = 4_096;

impl Pool {
    /// What the next request would cost the upstream at `index`, factor by factor.
    pub fn terms_of(&self, index: usize, now: Duration) -> Option<Terms> {
        let tier = self.tiers.iter().find(|tier| tier.range.contains(&index))?;
        let upstream = self.upstreams.get(index)?;
        Some(Scale::of(&tier.weights).terms(&upstream.state.load, upstream.config.weight, now))
    }

    /// How everybody stands as of `now` for a request that has `tried` some, at a choice, or after it.
    ///
    /// Allocates, so it is for requests that somebody will ask about. Of a large pool only `chosen` is
    /// looked at when nothing has failed: strategies look at a few themselves.
    pub fn candidates(
        &self,
        attempt: u32,
        moment: Moment,
        chosen: Option<usize>,
        now: Duration,
        tried: &Tiers,
    ) -> PickRecord {
        let size = self.upstreams.len();
        let is_counted = size <= if moment == Moment::Pick { CANDIDATES_MAX } else { COUNTED_MAX };
        let mut pick = PickRecord {
            attempt,
            moment,
            at: now,
            strategy: self.config.strategy,
            upstreams: u32::try_from(size).unwrap_or(u32::MAX),
            eligible: None,
            excluded: [0; WhyNot::ALL.len()],
            candidates: Box::default(),
        };
        if !is_counted {
            pick.candidates = chosen.and_then(|index| self.candidate(index, None, now)).into_iter().collect();
            return pick;
        }
        let verdicts: Vec<Option<WhyNot>> = self.verdicts(now, tried);
        pick.eligible = u32::try_from(verdicts.iter().filter(|why_not| why_not.is_none()).count()).ok();
        for (count, reason) in pick.excluded.iter_mut().zip(WhyNot::ALL) {
            let of_it = verdicts.iter().filter(|why_not| **why_not == Some(reason)).count();
            *count = u32::try_from(of_it).unwrap_or(u32::MAX);
        }
        pick.candidates = shown(chosen, size)
            .filter_map(|index| self.candidate(index, verdicts.get(index).copied().flatten(), now))
            .collect();
        pick
    }

    fn candidate(&self, index: usize, why_not: Option<WhyNot>, now: Duration) -> Option<CandidateRecord> {
        let Upstream { config, label, .. } = self.upstreams.get(index)?;
        Some(CandidateRecord {
            place: u32::try_from(index).ok()?,
            upstream: label.clone(),
            weight: config.weight,
            is_backup: config.backup,
            why_not,
            terms: self.terms_of(index, now)?,
        })
    }

    /// Why each may not be chosen, by what speaks against it, by what this request has tried, and by the
    /// rule that backups wait until no primary is left.
    fn verdicts(&self, now: Duration, tried: &Tiers) -> Vec<Option<WhyNot>> {
        let mut has_primary = false;
        let mut all = Vec::with_capacity(self.upstreams.len());
        for (number, (tier, tried)) in self.tiers.iter().zip(tried).enumerate() {
            let members = self.upstreams.get(tier.range.clone()).unwrap_or_default();
            for (offset, upstream) in members.iter().enumerate() {
                let was_tried = || tried.contains(offset).then_some(WhyNot::AlreadyTried);
                let backup = || (number > 0 && has_primary).then_some(WhyNot::Backup);
                all.push(was_tried().or_else(|| upstream.eligibility(now).err()).or_else(backup));
            }
            has_primary |= all.iter().any(Option::is_none);
        }
        all
    }
}

/// All of a small pool in their order; of a large one the chosen, then the first.
fn shown(chosen: Option<usize>, size: usize) -> impl Iterator<Item = usize> {
    let first = chosen.filter(|_| size > CANDIDATES_MAX);
    first.into_iter().chain((0..size).filter(move |index| Some(*index) != first)).take(CANDIDATES_MAX)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use crate::config::{Source, parse};
    use crate::health::Mode;
    use crate::runtime::Snapshot;

    const T0: Duration = Duration::from_secs(1);

    fn snapshot(upstreams: &str) -> Snapshot {
        let text = format!(
            "[listeners.http]\naddress = \"127.0.0.1:8080\"\n[pools.app]\nhealth_check = {{ enabled = false }}\nupstreams = [{upstreams}]"
        );
        let source = Source { name: String::new(), text, folder: ".".into() };
        Snapshot::build(parse(&source, &|_| None).unwrap(), 1, None, T0, 0)
    }

    fn numbered(count: usize) -> Snapshot {
        let all: Vec<String> = (0..count).map(|index| format!("\"127.0.0.1:{}\"", 10_000 + index)).collect();
        snapshot(&all.join(","))
    }

    fn why_nots(pick: &PickRecord) -> Vec<Option<WhyNot>> {
        pick.candidates.iter().map(|candidate| candidate.why_not).collect()
    }

    #[test]
    fn each_exclusion_has_its_reason() {
        let backups =
            r#""127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3", { address = "127.0.0.1:4", backup = true }"#;
        let snapshot = snapshot(backups);
        let pool = snapshot.pool(0).unwrap();
        pool.upstreams()[1].state.set_mode(Mode::Drain);
        let mut tried = Tiers::default();
        let fresh = pool.candidates(1, Moment::Pick, None, T0, &tried);
        assert_eq!(why_nots(&fresh), [None, Some(WhyNot::Draining), None, Some(WhyNot::Backup)]);
        assert_eq!(fresh.eligible, Some(2));
        tried[0].insert(0);
        tried[0].insert(2);
        let again = pool.candidates(2, Moment::Pick, None, T0, &tried);
        let already = Some(WhyNot::AlreadyTried);
        assert_eq!(why_nots(&again), [already, Some(WhyNot::Draining), already, None]);
        assert_eq!((again.eligible, again.excluded.iter().sum::<u32>()), (Some(1), 3));
    }

    /// What is told of a choice is who was chosen: of all strategies, whoever is busy.
    #[test]
    fn the_cheapest_of_what_is_told_is_who_is_picked() {
        let snapshot = numbered(5);
        let pool = snapshot.pool(0).unwrap();
        pool.upstreams().iter().take(4).enumerate().for_each(|(index, upstream)| {
            (0..=index).for_each(|_| {
                upstream.state.load.begin(T0);
            });
        });
        let pick = pool.candidates(1, Moment::Pick, None, T0, &Tiers::default());
        let costs: Vec<f32> = pick.candidates.iter().map(|candidate| candidate.terms.cost).collect();
        let cheapest = (0..5).min_by(|one, other| costs[*one].total_cmp(&costs[*other]));
        let kind = crate::balance::StrategyKind::LeastConnections;
        assert_eq!(cheapest, pool.preview(kind, T0, 0, 7), "{costs:?}");
    }

    #[test]
    fn a_large_pool_is_told_in_part() {
        let snapshot = numbered(1_000);
        let pool = snapshot.pool(0).unwrap();
        pool.upstreams().iter().skip(10).for_each(|upstream| upstream.state.set_mode(Mode::Maintenance));
        let usual = pool.candidates(1, Moment::Pick, Some(700), T0, &Tiers::default());
        assert_eq!((usual.eligible, usual.candidates.len(), usual.candidates[0].place), (None, 1, 700));
        let failed = pool.candidates(1, Moment::Failure, Some(700), T0, &Tiers::default());
        assert_eq!((failed.eligible, failed.candidates.len()), (Some(10), CANDIDATES_MAX));
        assert_eq!((failed.candidates[0].place, failed.candidates[1].place), (700, 0));
        assert_eq!(failed.excluded.iter().sum::<u32>(), 990);
    }
}
