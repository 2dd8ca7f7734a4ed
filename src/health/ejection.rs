//! Judging an upstream by the traffic it gets.
//!
//! ```text
//!            enough failures in a row, and room          the time is over
//!      In ─────────────────────────────────────► Ejected ────────────────► Probation
//!       ▲                                           ▲                        │    │
//!       │                                           └─────── a failure ──────┘    │
//!       └────────────────────── three successes, one request at a time ───────────┘
//! ```
//!
//! Each attempt takes a [`Ticket`] before it is sent and gives it back with its outcome. So an outcome
//! counts only in the spell in which its attempt began: requests that were in flight when the upstream was
//! ejected may fail minutes later, and that says nothing about how it does now. An attempt that ends
//! without an outcome, because the client left, gives its ticket back and changes nothing.
//!
//! All of it is one atomic word, so two threads can never eject twice for one run of failures.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::EjectionPolicy;

/// Whether traffic speaks against one upstream. Lock-free; lives as long as the upstream, over reloads.
#[derive(Debug, Default)]
pub struct Ejection {
    /// See [`Standing`]. Relaxed everywhere: the word says everything, nothing else is ordered by it.
    word: AtomicU64,
}

/// Where an upstream stands at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EjectionState {
    /// Takes requests like any other.
    In,
    /// Takes none before this time since the epoch of the process.
    Ejected {
        /// End of the ejection.
        until: Duration,
    },
    /// Was ejected, and takes one request at a time.
    Probation {
        /// Successes that are still needed.
        left: u32,
        /// Whether that one request is under way.
        on_trial: bool,
    },
}

/// An ejection that has just begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ejected {
    /// Length of this ejection.
    pub for_how_long: Duration,
    /// Failures in a row that led to it; 1 after a failure in probation.
    pub consecutive_failures: u32,
}

/// Leave to send one attempt. Given back exactly once: the type can be neither copied nor made.
#[derive(Debug)]
#[must_use = "a ticket that is dropped on probation keeps the upstream from being tried again"]
pub struct Ticket {
    spell: u64,
    trial: bool,
}

#[expect(clippy::needless_pass_by_value, reason = "a ticket is given back once, and then gone")]
impl Ejection {
    /// An upstream of which nothing bad is known.
    pub const fn new() -> Self {
        Self { word: AtomicU64::new(0) }
    }

    /// Where the upstream stands at `now`.
    #[inline]
    pub fn state(&self, now: Duration) -> EjectionState {
        self.standing().state(now)
    }

    /// Whether it counts against `max_ejected`: ejected, or on probation.
    pub fn is_out(&self) -> bool {
        self.standing().is_out()
    }

    /// Failures in a row so far.
    pub fn consecutive_failures(&self) -> u32 {
        u32::try_from(self.standing().run).unwrap_or(u32::MAX)
    }

    /// When it last came back, for the ramp after an ejection; `None`: never ejected, or still out.
    pub fn readmitted_at(&self) -> Option<Duration> {
        let standing = self.standing();
        (!standing.is_out() && standing.until_ms > 0).then(|| Duration::from_millis(standing.until_ms))
    }

    /// When the ejection that it was last in ended, or will end, by the clock; `None`: it is in.
    pub fn ended_at(&self) -> Option<Duration> {
        let standing = self.standing();
        standing.is_out().then(|| Duration::from_millis(standing.until_ms))
    }

    /// Begins an attempt; `None` while ejected, or while the one request of a probation is under way.
    ///
    /// `None` can follow an eligible state, when another thread was faster: pick again.
    #[inline]
    pub fn admit(&self, now: Duration) -> Option<Ticket> {
        let standing = self.standing();
        match standing.state(now) {
            EjectionState::In => Some(Ticket { spell: standing.spell, trial: false }),
            EjectionState::Probation { on_trial: false, .. } => self.admit_on_trial(standing),
            EjectionState::Ejected { .. } | EjectionState::Probation { on_trial: true, .. } => None,
        }
    }

    /// The attempt did well; `true` when that ends a probation.
    pub fn succeeded(&self, ticket: Ticket, now: Duration) -> bool {
        let mut readmitted = false;
        self.update(|standing| {
            // A try before this one may have lost to another thread; nothing came of it.
            readmitted = false;
            let next = standing.after_success(&ticket, now)?;
            readmitted = standing.is_out() && !next.is_out();
            Some(next)
        });
        readmitted
    }

    /// The attempt failed; `Some` when that ejects the upstream.
    ///
    /// `room` is asked at most once, and only when enough failures in a row have come together: whether
    /// one more of the pool may be out ([`may_eject`]; [`EjectionGate`] makes that exact). Without room the
    /// run goes on, and the next failure asks again. A failure in probation needs no room, for the upstream
    /// is out already.
    pub fn failed(
        &self,
        ticket: Ticket,
        now: Duration,
        policy: &EjectionPolicy,
        room: impl FnOnce() -> bool,
    ) -> Option<Ejected> {
        let mut room = AskedOnce { question: Some(room), answer: false };
        let mut ejected = None;
        self.update(|standing| {
            // A try before this one may have lost to another thread; nothing came of it.
            ejected = None;
            let next;
            (next, ejected) = standing.after_failure(&ticket, now, policy, || room.answer())?;
            Some(next)
        });
        ejected
    }

    /// The attempt ended without saying anything about the upstream: the client left, or the trouble was
    /// our own.
    pub fn abandoned(&self, ticket: Ticket) {
        if ticket.trial {
            self.update(|standing| {
                (standing.spell == ticket.spell && standing.on_trial)
                    .then_some(Standing { on_trial: false, ..standing })
            });
        }
    }

    /// Takes an upstream back before its time: nobody else is eligible, or an operator says so. `true` when
    /// it was out.
    ///
    /// An ejection that was taken back does not lengthen the next one: when a whole pool fails, its upstreams are
    /// ejected and taken back many times a second, and the last one ejected would be left out for minutes.
    pub fn readmit(&self, now: Duration) -> bool {
        let taken_back =
            |standing: Standing| Standing { in_a_row: standing.in_a_row.saturating_sub(1), ..standing };
        self.update(|standing| standing.is_out().then(|| taken_back(standing).readmitted(now)))
    }

    /// How the upstream stands, number by name, for another process that goes on with it.
    pub fn memory(&self) -> [(&'static str, u64); 4] {
        let Standing { until_ms, run, in_a_row, left, .. } = self.standing();
        [("until_ms", until_ms), ("run", run), ("in_a_row", in_a_row), ("left", left)]
    }

    /// Goes on with the [`memory`](Self::memory) of another process, whose times count from the same moment
    /// as ours. A request on trial stays with the other one; another may be tried here.
    pub fn go_on(&self, recall: &dyn Fn(&str) -> Option<u64>) {
        self.update(|standing| {
            let most = |name, field: &Field| recall(name).map(|number| number.min(field.max()));
            Some(Standing {
                until_ms: most("until_ms", &UNTIL_MS).unwrap_or(standing.until_ms),
                run: most("run", &RUN).unwrap_or(standing.run),
                in_a_row: most("in_a_row", &IN_A_ROW).unwrap_or(standing.in_a_row),
                left: most("left", &LEFT).unwrap_or(standing.left),
                ..standing
            })
        });
    }

    fn admit_on_trial(&self, standing: Standing) -> Option<Ticket> {
        let taken = Standing { on_trial: true, ..standing }.to_word();
        self.word
            .compare_exchange(standing.to_word(), taken, Ordering::Relaxed, Ordering::Relaxed)
            .ok()
            .map(|_| Ticket { spell: standing.spell, trial: true })
    }

    fn standing(&self) -> Standing {
        Standing::from_word(self.word.load(Ordering::Relaxed))
    }

    /// `false` when `change` had nothing to change. It may be called again when another thread was faster.
    fn update(&self, mut change: impl FnMut(Standing) -> Option<Standing>) -> bool {
        self.word
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
                change(Standing::from_word(word)).map(Standing::to_word)
            })
            .is_ok()
    }
}

/// Whether one more upstream of a pool may be ejected while `out_now` of its `pool_size` are out.
///
/// At most `max_ejected` of the pool, rounded down, but always one of two or more; never the only one;
/// none at all when `max_ejected` is 0.
pub fn may_eject(policy: &EjectionPolicy, pool_size: usize, out_now: usize) -> bool {
    if policy.max_ejected <= 0.0 || pool_size < 2 {
        return false;
    }
    // A third, as an f32, is a little less than a third; 0.001 is more than that error in any pool.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and pool_size")]
    let share = (f64::from(policy.max_ejected.min(1.0)) * pool_size as f64 + 0.001) as usize;
    out_now < share.clamp(1, pool_size - 1)
}

/// Lets one thread of a pool at a time decide on an ejection. Nobody waits: whoever comes second does not
/// eject now, and the next failure asks again.
///
/// Without it, two upstreams that reach their last failure in the same moment would each see room for one.
///
/// ```
/// # use std::time::Duration;
/// # use evener::health::{Ejection, EjectionGate, EjectionPolicy, may_eject};
/// # let (gate, pool, now) = (EjectionGate::new(), [Ejection::new(), Ejection::new()], Duration::ZERO);
/// # let policy =
/// #     EjectionPolicy { consecutive_failures: 1, base_duration: Duration::from_secs(10), max_ejected: 0.5 };
/// # let ticket = pool[0].admit(now).unwrap();
/// // Declared before the call, so that the turn ends only after the ejection is in force.
/// let mut turn = None;
/// let ejected = pool[0].failed(ticket, now, &policy, || {
///     turn = gate.try_enter();
///     turn.is_some() && may_eject(&policy, pool.len(), pool.iter().filter(|one| one.is_out()).count())
/// });
/// # assert!(ejected.is_some());
/// drop(turn);
/// ```
#[derive(Debug, Default)]
pub struct EjectionGate {
    taken: AtomicBool,
}

impl EjectionGate {
    /// A gate that is free.
    pub const fn new() -> Self {
        Self { taken: AtomicBool::new(false) }
    }

    /// The right to decide, until it is dropped; `None` when another thread has it.
    pub fn try_enter(&self) -> Option<MyTurn<'_>> {
        // Acquire, and release on drop: who enters sees every ejection of those who were in before.
        // A turn is made only for whoever got in: one that is made and thrown away would open the gate.
        (!self.taken.swap(true, Ordering::Acquire)).then(|| MyTurn { gate: self })
    }
}

/// The right to decide on an ejection; given back when dropped.
#[derive(Debug)]
pub struct MyTurn<'a> {
    gate: &'a EjectionGate,
}

impl Drop for MyTurn<'_> {
    fn drop(&mut self) {
        self.gate.taken.store(false, Ordering::Release);
    }
}

/// A question that is asked when the answer is first needed, and not again.
struct AskedOnce<F> {
    question: Option<F>,
    answer: bool,
}

impl<F: FnOnce() -> bool> AskedOnce<F> {
    fn answer(&mut self) -> bool {
        if let Some(question) = self.question.take() {
            self.answer = question();
        }
        self.answer
    }
}

/// Everything about one upstream's ejection, unpacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Standing {
    /// Out: end of the ejection. In: when it last came back; 0: it was never out.
    until_ms: u64,
    /// Failures in a row.
    run: u64,
    /// Goes up with every ejection; tells outcomes that count from those that come too late.
    spell: u64,
    /// Ejections in a row: how often the next one is doubled.
    in_a_row: u64,
    /// Successes needed to come back; 0: it is in.
    left: u64,
    /// The one request of the probation is under way.
    on_trial: bool,
}

impl Standing {
    const fn is_out(self) -> bool {
        self.left > 0
    }

    fn state(self, now: Duration) -> EjectionState {
        if !self.is_out() {
            EjectionState::In
        } else if millis(now) < self.until_ms {
            EjectionState::Ejected { until: Duration::from_millis(self.until_ms) }
        } else {
            let left = u32::try_from(self.left).unwrap_or(PROBATION_SUCCESSES);
            EjectionState::Probation { left, on_trial: self.on_trial }
        }
    }

    fn after_success(self, ticket: &Ticket, now: Duration) -> Option<Self> {
        if self.spell != ticket.spell {
            return None;
        }
        if !self.is_out() {
            return (self.run > 0).then_some(Self { run: 0, ..self });
        }
        let next = Self { left: self.left - 1, on_trial: false, ..self };
        Some(if next.is_out() { next } else { next.readmitted(now) })
    }

    fn after_failure(
        self,
        ticket: &Ticket,
        now: Duration,
        policy: &EjectionPolicy,
        mut room: impl FnMut() -> bool,
    ) -> Option<(Self, Option<Ejected>)> {
        if self.spell != ticket.spell {
            return None;
        }
        let next = Self { run: (self.run + 1).min(RUN.max()), ..self };
        let enough = u64::from(policy.consecutive_failures.clamp(1, CONSECUTIVE_FAILURES_MAX));
        if self.is_out() || (next.run >= enough && room()) {
            let (next, ejected) = next.ejected(now, policy);
            return Some((next, Some(ejected)));
        }
        Some((next, None))
    }

    fn ejected(self, now: Duration, policy: &EjectionPolicy) -> (Self, Ejected) {
        let before = self.in_a_row.saturating_sub(self.forgiven(now));
        let for_how_long = ejection_time(policy.base_duration, before);
        let next = Self {
            until_ms: millis(now).saturating_add(millis(for_how_long).max(1)).min(UNTIL_MS.max()),
            run: 0,
            spell: (self.spell + 1) & SPELL.max(),
            in_a_row: (before + 1).min(IN_A_ROW.max()),
            left: u64::from(PROBATION_SUCCESSES),
            on_trial: false,
        };
        (next, Ejected { for_how_long, consecutive_failures: u32::try_from(self.run).unwrap_or(u32::MAX) })
    }

    fn readmitted(self, now: Duration) -> Self {
        let until_ms = millis(now).clamp(1, UNTIL_MS.max());
        Self { until_ms, run: 0, left: 0, on_trial: false, ..self }
    }

    /// Doublings that good time since the last return has earned back.
    fn forgiven(self, now: Duration) -> u64 {
        let good_ms = if self.is_out() { 0 } else { millis(now).saturating_sub(self.until_ms) };
        good_ms / millis(FORGIVEN_EVERY)
    }

    const fn from_word(word: u64) -> Self {
        Self {
            until_ms: UNTIL_MS.read(word),
            run: RUN.read(word),
            spell: SPELL.read(word),
            in_a_row: IN_A_ROW.read(word),
            left: LEFT.read(word),
            on_trial: ON_TRIAL.read(word) == 1,
        }
    }

    const fn to_word(self) -> u64 {
        UNTIL_MS.place(self.until_ms)
            | RUN.place(self.run)
            | SPELL.place(self.spell)
            | IN_A_ROW.place(self.in_a_row)
            | LEFT.place(self.left)
            | ON_TRIAL.place(self.on_trial as u64)
    }
}

/// Some bits of the word.
struct Field {
    shift: u32,
    bits: u32,
}

impl Field {
    const fn max(&self) -> u64 {
        (1 << self.bits) - 1
    }

    const fn read(&self, word: u64) -> u64 {
        (word >> self.shift) & self.max()
    }

    const fn place(&self, value: u64) -> u64 {
        (value & self.max()) << self.shift
    }
}

/// 2^38 ms: more than eight years of uptime.
const UNTIL_MS: Field = Field { shift: 26, bits: 38 };
const RUN: Field = Field { shift: 15, bits: 11 };
/// Comes round after 256 ejections, each with its probation: no attempt lasts that long.
const SPELL: Field = Field { shift: 7, bits: 8 };
/// Fifteen doublings take any duration in use beyond [`EJECTION_MAX`].
const IN_A_ROW: Field = Field { shift: 3, bits: 4 };
const LEFT: Field = Field { shift: 1, bits: 2 };
const ON_TRIAL: Field = Field { shift: 0, bits: 1 };

/// `base` doubled for each ejection before it, at most [`EJECTION_MAX`] (or `base`, if that is longer).
fn ejection_time(base: Duration, before: u64) -> Duration {
    let doublings = u32::try_from(before).unwrap_or(u32::MAX);
    let doubled = base.saturating_mul(2u32.saturating_pow(doublings));
    doubled.min(EJECTION_MAX.max(base))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Successes in a row that end a probation, as in `ALGORITHMS.md`, section 3.
pub const PROBATION_SUCCESSES: u32 = 3;

/// Longest ejection, Envoy's default as well: long enough to leave a broken upstream alone, short enough
/// that nobody has to remember to readmit it.
pub const EJECTION_MAX: Duration = Duration::from_secs(300);

/// Time in service that takes back one doubling.
pub const FORGIVEN_EVERY: Duration = Duration::from_secs(60);

/// The longest run that is counted; a policy that asks for more gets this.
pub const CONSECUTIVE_FAILURES_MAX: u32 = 2_047;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use proptest::prelude::*;

    use super::*;

    /// pingap #6: a refused connection is an outcome like any other.
    #[test]
    fn refusing_connections_counts_as_failing() {
        let ejection = Ejection::new();
        let outcomes: Vec<_> = (0..5).map(|_| fail(&ejection, at(1))).collect();
        assert_eq!(outcomes[..4], [None; 4]);
        assert_eq!(outcomes[4], Some(Ejected { for_how_long: at(10), consecutive_failures: 5 }));
        assert_eq!(ejection.state(at(1)), EjectionState::Ejected { until: at(11) });
    }

    /// pingap #5.
    #[test]
    fn one_failure_in_ten_does_not_eject() {
        let ejection = Ejection::new();
        for _ in 0..20 {
            (0..9).for_each(|_| assert!(!succeed(&ejection, at(1))));
            assert_eq!(fail(&ejection, at(1)), None);
            assert_eq!(ejection.state(at(1)), EjectionState::In);
        }
    }

    #[test]
    fn a_probation_is_one_request_at_a_time_and_three_successes() {
        let ejection = ejected_at(at(0));
        for left in [3, 2, 1] {
            assert_eq!(ejection.state(at(10)), EjectionState::Probation { left, on_trial: false });
            let trial = ejection.admit(at(10)).unwrap();
            assert!(ejection.admit(at(10)).is_none(), "a second request at the same time");
            assert_eq!(ejection.succeeded(trial, at(10)), left == 1);
        }
        assert_eq!(ejection.state(at(10)), EjectionState::In);
        assert_eq!(ejection.readmitted_at(), Some(at(10)));
    }

    #[test]
    fn a_failure_in_probation_ejects_again_for_twice_as_long_and_needs_no_room() {
        let ejection = ejected_at(at(0));
        let trial = ejection.admit(at(10)).unwrap();
        let again = ejection.failed(trial, at(10), &POLICY, || false);
        assert_eq!(again, Some(Ejected { for_how_long: at(20), consecutive_failures: 1 }));
    }

    /// pingap #7.
    #[test]
    fn an_abandoned_trial_does_not_eject_for_ever() {
        let ejection = ejected_at(at(0));
        let trial = ejection.admit(at(10)).unwrap();
        ejection.abandoned(trial);
        assert_eq!(ejection.state(at(10)), EjectionState::Probation { left: 3, on_trial: false });
        assert!(ejection.admit(at(10)).is_some());
    }

    #[test]
    fn requests_from_before_the_ejection_change_nothing_when_they_end() {
        let ejection = Ejection::new();
        let mut early: Vec<_> = (0..20).map(|_| ejection.admit(at(0)).unwrap()).collect();
        assert_eq!((0..5).filter_map(|_| fail(&ejection, at(0))).count(), 1);
        let until_ten = EjectionState::Ejected { until: at(10) };

        assert_eq!(ejection.failed(early.pop().unwrap(), at(5), &POLICY, || true), None);
        assert!(!ejection.succeeded(early.pop().unwrap(), at(5)));
        assert_eq!(ejection.state(at(5)), until_ten, "neither longer nor shorter");

        let trial = ejection.admit(at(10)).unwrap();
        assert_eq!(ejection.failed(early.pop().unwrap(), at(11), &POLICY, || true), None);
        ejection.abandoned(early.pop().unwrap());
        let on_trial = EjectionState::Probation { left: 3, on_trial: true };
        assert_eq!(ejection.state(at(11)), on_trial, "the trial goes on");
        ejection.abandoned(trial);
    }

    #[test]
    fn ejections_double_up_to_a_limit() {
        let ejection = ejected_at(at(0));
        let mut now = at(0);
        let lengths: Vec<u64> = (0..7)
            .map(|_| {
                now += EJECTION_MAX;
                fail(&ejection, now).unwrap().for_how_long.as_secs()
            })
            .collect();
        assert_eq!(lengths, [20, 40, 80, 160, 300, 300, 300]);
        assert_eq!(ejection_time(at(600), 3), at(600), "a base beyond the limit is taken at its word");
    }

    #[test]
    fn time_in_service_takes_doublings_back() {
        let ejection = ejected_at(at(0));
        assert_eq!(fail(&ejection, at(10)).unwrap().for_how_long, at(20));
        assert_eq!((0..3).filter(|_| succeed(&ejection, at(30))).count(), 1);

        let later = at(30) + FORGIVEN_EVERY;
        let again = (0..5).filter_map(|_| fail(&ejection, later)).next_back();
        assert_eq!(again.unwrap().for_how_long, at(20), "one of two doublings is forgiven");
    }

    #[test]
    fn without_room_the_run_goes_on_and_the_next_failure_asks_again() {
        let ejection = Ejection::new();
        let asked = AtomicUsize::new(0);
        let fail_with = |room| {
            let ticket = ejection.admit(at(0)).unwrap();
            ejection.failed(ticket, at(0), &POLICY, || {
                asked.fetch_add(1, Ordering::Relaxed);
                room
            })
        };
        assert!((0..7).all(|_| fail_with(false).is_none()));
        assert_eq!(asked.load(Ordering::Relaxed), 3, "from the fifth failure on");
        assert_eq!(fail_with(true).unwrap().consecutive_failures, 8);
    }

    #[test]
    fn an_ejection_that_was_taken_back_does_not_lengthen_the_next_one() {
        let ejection = ejected_at(at(0));
        for _ in 0..20 {
            assert!(ejection.readmit(at(1)));
            let ejected = (0..5).find_map(|_| fail(&ejection, at(1)));
            assert_eq!(ejected.map(|ejected| ejected.for_how_long), Some(at(10)));
        }
    }

    #[test]
    fn an_operator_can_readmit_before_the_time() {
        let ejection = ejected_at(at(0));
        assert!(ejection.readmit(at(2)));
        assert_eq!(ejection.state(at(2)), EjectionState::In);
        assert!(!ejection.readmit(at(2)), "it is in already");
    }

    #[test]
    fn at_most_the_share_but_always_one_and_never_the_last() {
        let allowed = |max_ejected, size| {
            let policy = EjectionPolicy { max_ejected, ..POLICY };
            (0..=size).take_while(|&out| may_eject(&policy, size, out)).count()
        };
        assert_eq!([0, 1, 2, 3, 4, 10].map(|size| allowed(0.5, size)), [0, 0, 1, 1, 2, 5]);
        assert_eq!([2, 10].map(|size| allowed(1.0, size)), [1, 9]);
        assert_eq!([2, 10].map(|size| allowed(0.01, size)), [1, 1]);
        assert_eq!([2, 10].map(|size| allowed(0.0, size)), [0, 0]);
        assert_eq!(allowed(0.7, 10), 7, "0.7 is a little less than 0.7 as an f32");
    }

    /// envoy#14968, k3s#10240: every upstream fails every request.
    #[test]
    fn ejection_never_empties_a_pool() {
        let pool: Vec<Ejection> = (0..10).map(|_| Ejection::new()).collect();
        for tenth in 0..600 {
            let now = Duration::from_millis(tenth * 100);
            for ejection in &pool {
                if let Some(ticket) = ejection.admit(now) {
                    ejection.failed(ticket, now, &POLICY, || may_eject(&POLICY, pool.len(), out(&pool)));
                }
            }
            assert!(out(&pool) <= 5, "{} of 10 are out", out(&pool));
        }
        assert_eq!(out(&pool), 5, "those that may be out are out");
    }

    #[test]
    fn threads_that_fail_together_eject_once_for_one_run() {
        for _ in 0..200 {
            let ejection = Ejection::new();
            let tickets: Vec<Vec<Ticket>> =
                (0..4).map(|_| (0..5).map(|_| ejection.admit(at(0)).unwrap()).collect()).collect();
            let ejections: usize = std::thread::scope(|scope| {
                let fail_all = |tickets: Vec<Ticket>| {
                    let outcomes =
                        tickets.into_iter().map(|one| ejection.failed(one, at(0), &POLICY, || true));
                    outcomes.flatten().count()
                };
                let threads: Vec<_> =
                    tickets.into_iter().map(|tickets| scope.spawn(move || fail_all(tickets))).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).sum()
            });
            assert_eq!(ejections, 1);
            assert_eq!(ejection.state(at(0)), EjectionState::Ejected { until: at(10) });
        }
    }

    #[test]
    fn threads_that_eject_different_upstreams_stay_within_the_share() {
        let policy = EjectionPolicy { consecutive_failures: 1, ..POLICY };
        for _ in 0..200 {
            let (gate, pool) = (EjectionGate::new(), [const { Ejection::new() }; 4]);
            std::thread::scope(|scope| {
                for ejection in &pool {
                    let (gate, pool, policy) = (&gate, &pool, &policy);
                    scope.spawn(move || {
                        for _ in 0..20 {
                            let Some(ticket) = ejection.admit(at(0)) else { return };
                            let mut turn = None;
                            ejection.failed(ticket, at(0), policy, || {
                                turn = gate.try_enter();
                                turn.is_some() && may_eject(policy, pool.len(), out(pool))
                            });
                        }
                    });
                }
            });
            assert!(out(&pool) <= 2, "{} of 4 are out", out(&pool));
        }
    }

    proptest! {
        #[test]
        fn a_standing_comes_back_from_its_word(word: u64) {
            prop_assert_eq!(Standing::from_word(word).to_word(), word);
        }

        /// Whole percentages give what whole numbers would, in pools of any size.
        #[test]
        fn the_share_is_exact(percent in 1usize..=100, size in 2usize..=4_096) {
            let policy = EjectionPolicy { max_ejected: percent as f32 / 100.0, ..POLICY };
            let allowed = (percent * size / 100).clamp(1, size - 1);
            prop_assert!(may_eject(&policy, size, allowed - 1));
            prop_assert!(!may_eject(&policy, size, allowed));
        }

        /// Any order of beginnings and ends of attempts, in virtual time.
        #[test]
        fn whatever_happens_an_upstream_is_tried_again_and_one_request_at_a_time(
            steps in prop::collection::vec((0u8..4, any::<prop::sample::Index>(), 0u64..4_000), 1..200),
        ) {
            let ejection = Ejection::new();
            let mut now = Duration::ZERO;
            let mut open: Vec<Ticket> = Vec::new();
            for (what, which, passed_ms) in steps {
                now += Duration::from_millis(passed_ms);
                let before = ejection.state(now);
                if what == 0 || open.is_empty() {
                    let ticket = ejection.admit(now);
                    let was_ejected = matches!(before, EjectionState::Ejected { .. });
                    prop_assert!(ticket.is_none() || !was_ejected);
                    open.extend(ticket);
                } else {
                    let ticket = open.swap_remove(which.index(open.len()));
                    let late = ticket.spell != ejection.standing().spell;
                    end(&ejection, what, ticket, now);
                    prop_assert!(!late || ejection.state(now) == before, "a late outcome counted");
                }
                let spell = ejection.standing().spell;
                let trials = open.iter().filter(|ticket| ticket.trial && ticket.spell == spell).count();
                prop_assert!(trials <= 1);
                prop_assert!(ejection.standing().until_ms <= millis(now + EJECTION_MAX));
            }
            for ticket in open {
                ejection.abandoned(ticket);
            }
            prop_assert!(ejection.admit(now + EJECTION_MAX).is_some(), "left out for ever");
        }
    }

    fn end(ejection: &Ejection, what: u8, ticket: Ticket, now: Duration) {
        match what {
            1 => assert!(!ejection.succeeded(ticket, now) || !ejection.is_out()),
            2 => assert!(ejection.failed(ticket, now, &POLICY, || true).is_none() || ejection.is_out()),
            _ => ejection.abandoned(ticket),
        }
    }

    fn ejected_at(now: Duration) -> Ejection {
        let ejection = Ejection::new();
        assert_eq!((0..5).filter_map(|_| fail(&ejection, now)).count(), 1);
        ejection
    }

    fn fail(ejection: &Ejection, now: Duration) -> Option<Ejected> {
        ejection.failed(ejection.admit(now).unwrap(), now, &POLICY, || true)
    }

    fn succeed(ejection: &Ejection, now: Duration) -> bool {
        ejection.succeeded(ejection.admit(now).unwrap(), now)
    }

    fn out(pool: &[Ejection]) -> usize {
        pool.iter().filter(|ejection| ejection.is_out()).count()
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    const POLICY: EjectionPolicy =
        EjectionPolicy { consecutive_failures: 5, base_duration: Duration::from_secs(10), max_ejected: 0.5 };
}
