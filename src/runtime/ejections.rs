//! Tells of ejections: what requests noted, and what nobody did but the clock.
//!
//! An ejection ends by itself when its time is over, and no request need come by; so the tick looks. It also
//! notices an ejection that another process began.
//!
//! In a pool of which nobody is well, an upstream is ejected and taken back many times a second. Its time line counts
//! that; listeners are told of the first turns, and then of what lasts.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::noted::{EjectionNote, Noted, Readmission};
use super::seldom::Seldom;
use super::{Pool, Upstream, UpstreamState};
use crate::health::EjectionState;
use crate::observe::timeline::{Entry, Moment, Track};

/// What there is to tell of the ejection of one upstream.
#[derive(Debug, Default)]
pub(super) struct Telling {
    noted: Noted,
    /// The phase that was told last; written by the tick, and when another process's memory is taken over.
    told: AtomicU8,
    /// A turn like one that was told a moment ago: told when it has lasted.
    held_back: Mutex<Option<Box<HeldBack>>>,
    /// Whether there is one, for a look without the lock.
    is_holding_back: AtomicBool,
    /// Of the process log.
    pub(super) ejecting: Seldom,
}

#[derive(Debug)]
struct HeldBack {
    since: Duration,
    turn: EjectionTurn,
}

/// A turn that comes again within this time of the last such is held back. Minutes apart, each is news.
const SOON: Duration = Duration::from_secs(60);

/// A turn that is held back is told when it has lasted for so long: as seldom as the process log tells of it.
const LASTED: Duration = Duration::from_secs(10);

/// Where an upstream stands, as it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Admitted,
    Ejected,
    Probation,
}

impl Phase {
    const ALL: [Self; 3] = [Self::Admitted, Self::Ejected, Self::Probation];

    const fn of(state: EjectionState) -> Self {
        match state {
            EjectionState::In => Self::Admitted,
            EjectionState::Ejected { .. } => Self::Ejected,
            EjectionState::Probation { .. } => Self::Probation,
        }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Admitted => "admitted",
            Self::Ejected => "ejected",
            Self::Probation => "probation",
        }
    }
}

/// A turn in the ejection of one upstream, as it was entered into its time line.
#[derive(Clone, Debug)]
pub struct EjectionTurn {
    /// Of which upstream.
    pub address: String,
    /// As entered.
    pub entry: Entry,
    /// How long an ejection that begins will last.
    pub ejected_for: Option<Duration>,
}

impl Telling {
    pub(super) fn note(&self, note: EjectionNote, now: Duration) {
        self.noted.note(note, now);
    }

    fn told(&self) -> Phase {
        let told = self.told.load(Ordering::Relaxed);
        Phase::ALL.into_iter().find(|phase| *phase as u8 == told).unwrap_or(Phase::Admitted)
    }

    /// What listeners are told now that this turn has come; `again_after` the last like it.
    fn tell(&self, turn: EjectionTurn, again_after: Option<Duration>, at: Duration) -> Vec<EjectionTurn> {
        let mut held_back = self.held_back();
        let comes_again = again_after.is_some_and(|after| after <= SOON);
        let before = held_back.take();
        if comes_again && before.as_ref().is_some_and(|before| before.turn.entry.from == turn.entry.to) {
            // One takes the other back, and all is as it was told.
            return Vec::new();
        }
        let mut turns: Vec<_> = before.map(|before| before.turn).into_iter().collect();
        if comes_again {
            *held_back = Some(Box::new(HeldBack { since: at, turn }));
        } else {
            turns.push(turn);
        }
        turns
    }

    /// What was held back and has lasted.
    fn tell_what_lasted(&self, now: Duration) -> Option<EjectionTurn> {
        let has_lasted = |held_back: &mut Box<HeldBack>| now.saturating_sub(held_back.since) >= LASTED;
        let mut held_back = self.held_back();
        let lasted = held_back.take_if(has_lasted).map(|held_back| held_back.turn);
        self.is_holding_back.store(held_back.is_some(), Ordering::Relaxed);
        lasted
    }

    /// Only the tick holds it.
    fn held_back(&self) -> MutexGuard<'_, Option<Box<HeldBack>>> {
        self.held_back.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It was told of this by somebody else.
    pub(super) fn go_on(&self, state: EjectionState) {
        self.told.store(Phase::of(state) as u8, Ordering::Relaxed);
    }
}

impl UpstreamState {
    /// Takes an ejected upstream back, for this reason; nothing if it is not ejected.
    pub fn readmit(&self, why: Readmission, now: Duration) {
        if self.ejection.readmit(now) {
            self.telling.note(EjectionNote::Readmitted(why), now);
        }
    }
}

impl Pool {
    /// Enters into the time lines what became of ejections since the last time, and answers what listeners should
    /// know of it. Called by one thread at a time, every tick; looks at three words per upstream when nothing
    /// happened.
    pub fn tell_of_ejections(&self, now: Duration) -> Vec<EjectionTurn> {
        let worth_a_look = |upstream: &&Upstream| {
            let state = &upstream.state;
            state.telling.noted.is_any()
                || state.ejection.is_out()
                || state.telling.told() != Phase::Admitted
                || state.telling.is_holding_back.load(Ordering::Relaxed)
        };
        let upstreams = self.upstreams().iter().filter(worth_a_look);
        upstreams.flat_map(|upstream| self.turns_of(&upstream.state, now)).collect()
    }

    fn turns_of(&self, state: &UpstreamState, now: Duration) -> Vec<EjectionTurn> {
        let (telling, moment) = (&state.telling, Moment::now(now));
        let mut turns = Vec::new();
        let mut enter = |at: Duration, from: Phase, to: Phase, cause: String, ejected_for| {
            let then = moment.earlier_by(now.saturating_sub(at));
            let entry = Entry::new(then, Track::Ejection, from.word(), to.word(), cause);
            let entry = entry.with_share(self.share_of(state, now));
            let again_after = state.timeline.again_after(&entry);
            state.timeline.push(entry.clone());
            let turn = EjectionTurn { address: state.address.to_string(), entry, ejected_for };
            turns.extend(telling.tell(turn, again_after, at));
            to
        };
        let mut phase = telling.told();
        let mut ends = None;
        for (at, note) in telling.noted.take().into_iter().flatten() {
            if let Some(end) = ends.filter(|&end| end <= at && phase == Phase::Ejected) {
                phase = enter(end, phase, Phase::Probation, TIME_IS_OVER.to_owned(), None);
            }
            phase = match note {
                EjectionNote::Ejected(ejected) => {
                    ends = Some(at + ejected.for_how_long);
                    let cause = cause_of(ejected.consecutive_failures, phase);
                    enter(at, phase, Phase::Ejected, cause, Some(ejected.for_how_long))
                }
                EjectionNote::Readmitted(why) => {
                    enter(at, phase, Phase::Admitted, why.sentence().to_owned(), None)
                }
            };
        }
        let is = Phase::of(state.ejection.state(now));
        if is == Phase::Probation && phase == Phase::Ejected {
            let end = state.ejection.ended_at().unwrap_or(now).min(now);
            phase = enter(end, phase, is, TIME_IS_OVER.to_owned(), None);
        } else if is != phase && !telling.noted.is_any() {
            phase = enter(now, phase, is, "seen by the clock; nobody noted why".to_owned(), None);
        }
        telling.told.store(phase as u8, Ordering::Relaxed);
        turns.extend(telling.tell_what_lasted(now));
        turns
    }
}

const TIME_IS_OVER: &str = "the time of the ejection is over; it is tried with one request at a time";

fn cause_of(consecutive_failures: u32, before: Phase) -> String {
    if before == Phase::Probation {
        "the request that tried it on probation failed".to_owned()
    } else {
        let plural = if consecutive_failures == 1 { "" } else { "s" };
        format!("{consecutive_failures} request{plural} in a row failed")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::config::{Source, parse};
    use crate::runtime::{Runtime, Tiers};

    const TEXT: &str = "[listeners.http]\naddress = \"127.0.0.1:8080\"\n[pools.app]\nupstreams = [\"127.0.0.1:9001\", \"127.0.0.1:9002\"]\nejection = { consecutive_failures = 2, base_duration = \"10s\" }\n";

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn words(turns: &[EjectionTurn]) -> Vec<(&str, &str)> {
        turns.iter().map(|turn| (turn.entry.from.as_ref(), turn.entry.to.as_ref())).collect()
    }

    /// One attempt at every upstream, each of which ends so.
    fn attempts(pool: &Pool, ok: bool, now: Duration) {
        let mut tried = Tiers::default();
        while let Ok(mut chosen) = pool.pick(now, 0, 0, &mut tried) {
            let upstream = &pool.upstreams()[chosen.index];
            if ok || chosen.index == 1 {
                pool.record_success(upstream, &mut chosen.lease, None, now);
            } else {
                pool.record_failure(upstream, &mut chosen.lease, now);
            }
        }
    }

    #[test]
    fn every_turn_is_told_once_with_its_cause() {
        let source = Source { name: String::new(), text: TEXT.to_owned(), folder: ".".into() };
        let runtime = Runtime::new(parse(&source, &|_| None).unwrap(), 1, 0, None);
        let snapshot = runtime.snapshot();
        let pool = snapshot.pool_named("app").unwrap();
        let state = &pool.upstreams()[0].state;
        for upstream in pool.upstreams() {
            upstream.state.verdict.observe(true, 1, 1);
        }
        assert!(pool.tell_of_ejections(seconds(1)).is_empty());
        attempts(pool, false, seconds(2));
        attempts(pool, false, seconds(3));
        let turns = pool.tell_of_ejections(seconds(4));
        assert_eq!(words(&turns), [("admitted", "ejected")]);
        assert_eq!(turns[0].entry.cause, "2 requests in a row failed");
        assert_eq!(turns[0].ejected_for, Some(seconds(10)));
        assert!(pool.tell_of_ejections(seconds(5)).is_empty(), "once");

        let turns = pool.tell_of_ejections(seconds(20));
        assert_eq!(words(&turns), [("ejected", "probation")]);
        attempts(pool, false, seconds(21));
        assert_eq!(words(&pool.tell_of_ejections(seconds(22))), [("probation", "ejected")]);
        // Nobody looked for a while.
        (0..3).for_each(|second| attempts(pool, true, seconds(50 + second)));
        let turns = pool.tell_of_ejections(seconds(60));
        assert_eq!(words(&turns), [("ejected", "admitted")]);
        let lasted: Vec<u64> = state
            .timeline
            .lasted(Moment::now(seconds(60)))
            .iter()
            .filter(|it| it.entry.track == Track::Ejection)
            .map(|it| it.duration.as_secs())
            .collect();
        // From 3 to 13 (its end, not when it was seen), 21, 52, 60.
        assert_eq!(lasted, [10, 8, 31, 8]);
    }

    #[test]
    fn what_comes_and_goes_is_told_at_first_and_when_it_lasts() {
        let source = Source { name: String::new(), text: TEXT.to_owned(), folder: ".".into() };
        let runtime = Runtime::new(parse(&source, &|_| None).unwrap(), 1, 0, None);
        let snapshot = runtime.snapshot();
        let pool = snapshot.pool_named("app").unwrap();
        for upstream in pool.upstreams() {
            upstream.state.verdict.observe(true, 1, 1);
        }
        // The other answers, but to few: a request that has tried it finds nobody else.
        let mut told = Vec::new();
        for round in 0..1_000 {
            let now = Duration::from_millis(1_000 + 70 * round);
            attempts(pool, false, now);
            told.extend(pool.tell_of_ejections(now));
        }
        assert_eq!(words(&told), [("admitted", "ejected"), ("ejected", "admitted")]);
        let entries = pool.upstreams()[0].state.timeline.entries();
        let of_traffic: Vec<_> = entries.iter().filter(|entry| entry.track == Track::Ejection).collect();
        assert!(of_traffic.len() <= 3 && of_traffic[0].times() > 400, "{of_traffic:?}");

        // It was ejected by the last, and now it stays so.
        assert!(pool.tell_of_ejections(seconds(75)).is_empty());
        assert_eq!(
            words(&pool.tell_of_ejections(seconds(81))),
            [("admitted", "ejected"), ("ejected", "probation")]
        );
        assert!(pool.tell_of_ejections(seconds(95)).is_empty(), "once");
    }

    #[test]
    fn one_that_nobody_noted_is_told_all_the_same() {
        let source = Source { name: String::new(), text: TEXT.to_owned(), folder: ".".into() };
        let runtime = Runtime::new(parse(&source, &|_| None).unwrap(), 1, 0, None);
        let snapshot = runtime.snapshot();
        let pool = snapshot.pool_named("app").unwrap();
        let until_ms = |name: &str| match name {
            "until_ms" => Some(10_000),
            "left" => Some(3),
            _ => None,
        };
        pool.upstreams()[0].state.ejection.go_on(&until_ms);
        assert_eq!(words(&pool.tell_of_ejections(seconds(1))), [("admitted", "ejected")]);
        pool.upstreams()[0].state.readmit(Readmission::EjectionOff, seconds(2));
        assert_eq!(words(&pool.tell_of_ejections(seconds(3))), [("ejected", "admitted")]);
        pool.upstreams()[0].state.readmit(Readmission::EjectionOff, seconds(4));
        assert!(pool.tell_of_ejections(seconds(5)).is_empty(), "it was not ejected");
    }
}
