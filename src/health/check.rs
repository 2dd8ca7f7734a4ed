//! The verdict of active checks on one upstream.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// What the probes of an upstream say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// No probe has come back yet.
    Unknown,
    /// May serve, as far as probes know.
    Up,
    /// Must not serve.
    Down,
}

impl Health {
    /// What [`word`](Self::word) means; `None` for other words.
    pub fn of_word(word: &str) -> Option<Self> {
        [Self::Unknown, Self::Up, Self::Down].into_iter().find(|health| health.word() == word)
    }

    /// The word in the API.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}

/// A verdict that has just changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    /// Before the probe.
    pub from: Health,
    /// Since the probe; never [`Health::Unknown`].
    pub to: Health,
}

/// Health of one upstream, and how many probes in a row spoke against it. Lock-free.
#[derive(Debug, Default)]
pub struct Verdict {
    /// See [`Judged`]. Relaxed everywhere: the word says everything, nothing else is ordered by it.
    word: AtomicU32,
}

impl Verdict {
    /// Nothing is known yet.
    pub const fn new() -> Self {
        Self { word: AtomicU32::new(0) }
    }

    /// What the probes say now.
    pub fn health(&self) -> Health {
        self.judged().health
    }

    /// Probes in a row that spoke against the present verdict.
    pub fn run(&self) -> u32 {
        self.judged().run
    }

    /// Whether the next probe should come soon: nothing is known, the upstream is down, or a probe has
    /// spoken against the present verdict.
    pub fn in_doubt(&self) -> bool {
        let judged = self.judged();
        judged.health != Health::Up || judged.run > 0
    }

    /// Takes in the result of one probe; `Some` when it changes the verdict.
    ///
    /// The first probe decides at once: a starting process cannot wait for `rise` intervals. Later `rise`
    /// successes in a row turn down into up and `fall` failures in a row up into down (0 counts as 1); a
    /// result to the contrary starts the count anew.
    pub fn observe(&self, ok: bool, rise: u32, fall: u32) -> Option<Transition> {
        let next = |word| Some(Judged::from_word(word).after(ok, rise, fall).to_word());
        let before = match self.word.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next) {
            Ok(word) | Err(word) => Judged::from_word(word),
        };
        let to = before.after(ok, rise, fall).health;
        (to != before.health).then_some(Transition { from: before.health, to })
    }

    /// Goes on with the verdict of another process, and its [`run`](Self::run).
    pub fn go_on(&self, health: Health, run: u32) {
        self.word.store(Judged { health, run }.to_word(), Ordering::Relaxed);
    }

    /// Back to [`Health::Unknown`]: what an old check said does not hold for a new one.
    pub fn forget(&self) {
        self.word.store(0, Ordering::Relaxed);
    }

    fn judged(&self) -> Judged {
        Judged::from_word(self.word.load(Ordering::Relaxed))
    }
}

/// How long to wait after a probe before the next one: `interval` in a steady state, `fast_interval` (when
/// that is shorter) in doubt, each ±10 %, or else upstreams that started together would be asked together
/// for ever. `random`: any number, all 64 bits used.
///
/// The first probe of an upstream is not asked for here: it goes out at once.
pub fn next_probe_in(
    verdict: &Verdict,
    interval: Duration,
    fast_interval: Duration,
    random: u64,
) -> Duration {
    let usual = if verdict.in_doubt() { fast_interval.min(interval) } else { interval };
    let share = random as f64 / u64::MAX as f64;
    (usual / 10 * 9).saturating_add((usual / 5).mul_f64(share))
}

/// A verdict, unpacked: two bits of health, thirty of run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Judged {
    health: Health,
    run: u32,
}

impl Judged {
    const fn after(self, ok: bool, rise: u32, fall: u32) -> Self {
        let (agrees, needed, opposite) = match self.health {
            Health::Unknown if ok => return Self { health: Health::Up, run: 0 },
            Health::Unknown => return Self { health: Health::Down, run: 0 },
            Health::Up => (ok, fall, Health::Down),
            Health::Down => (!ok, rise, Health::Up),
        };
        let run = self.run.saturating_add(1);
        if agrees {
            Self { health: self.health, run: 0 }
        } else if run >= needed {
            Self { health: opposite, run: 0 }
        } else {
            Self { health: self.health, run }
        }
    }

    const fn from_word(word: u32) -> Self {
        let health = match word & 0b11 {
            0 => Health::Unknown,
            1 => Health::Up,
            _ => Health::Down,
        };
        Self { health, run: word >> 2 }
    }

    const fn to_word(self) -> u32 {
        let health = match self.health {
            Health::Unknown => 0,
            Health::Up => 1,
            Health::Down => 2,
        };
        let run = if self.run > RUN_MAX { RUN_MAX } else { self.run };
        run << 2 | health
    }
}

/// What thirty bits can count.
const RUN_MAX: u32 = u32::MAX >> 2;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_first_probe_decides_at_once() {
        let (good, bad) = (Verdict::new(), Verdict::new());
        let transition = |to| Some(Transition { from: Health::Unknown, to });
        assert_eq!(good.observe(true, 2, 3), transition(Health::Up));
        assert_eq!(bad.observe(false, 2, 3), transition(Health::Down));
    }

    /// caddy#6152, traefik#12390, consul#1208.
    #[test]
    fn one_failed_check_is_not_down() {
        let verdict = up();
        for ok in [false, false, true, false, false] {
            assert_eq!(verdict.observe(ok, 2, 3), None);
            assert_eq!(verdict.health(), Health::Up);
        }
        assert_eq!(verdict.observe(false, 2, 3), Some(Transition { from: Health::Up, to: Health::Down }));
    }

    #[test]
    fn a_failure_while_rising_starts_the_count_anew() {
        let verdict = Verdict::new();
        let changes = [false, true, false, true, true].map(|ok| verdict.observe(ok, 2, 3).is_some());
        assert_eq!(changes, [true, false, false, false, true]);
        assert_eq!(verdict.health(), Health::Up);
    }

    #[test]
    fn probes_come_faster_while_in_doubt() {
        let verdict = Verdict::new();
        assert!(verdict.in_doubt(), "nothing is known");
        verdict.observe(true, 2, 3);
        assert!(!verdict.in_doubt(), "up");
        verdict.observe(false, 2, 3);
        assert!(verdict.in_doubt(), "one failure");
        verdict.observe(true, 2, 3);
        assert!(!verdict.in_doubt(), "and a success");
        assert_eq!((0..3).filter_map(|_| verdict.observe(false, 2, 3)).count(), 1);
        assert!(verdict.in_doubt(), "down");
    }

    #[test]
    fn the_wait_is_the_interval_give_or_take_a_tenth() {
        let wait = |verdict: &Verdict, random| {
            next_probe_in(verdict, Duration::from_secs(30), Duration::from_secs(2), random)
        };
        assert_eq!(wait(&up(), 0), Duration::from_secs(27));
        assert_eq!(wait(&up(), u64::MAX), Duration::from_secs(33));
        assert_eq!(wait(&Verdict::new(), u64::MAX / 2).as_millis(), 2_000);
    }

    #[test]
    fn a_fast_interval_longer_than_the_interval_does_not_slow_probes_down() {
        let wait = next_probe_in(&Verdict::new(), Duration::from_secs(1), Duration::from_secs(2), 0);
        assert_eq!(wait, Duration::from_millis(900));
    }

    #[test]
    fn a_forgotten_verdict_is_unknown_again() {
        let verdict = up();
        verdict.observe(false, 2, 3);
        verdict.forget();
        assert_eq!((verdict.health(), verdict.run()), (Health::Unknown, 0));
    }

    #[test]
    fn threads_that_fail_together_turn_it_down_once() {
        let verdict = up();
        let transitions: usize = std::thread::scope(|scope| {
            let observe = || (0..100).filter(|_| verdict.observe(false, 2, 3).is_some()).count();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(observe)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap_or(usize::MAX)).sum()
        });
        assert_eq!(transitions, 1);
    }

    proptest! {
        /// Against the definition: the last `needed` results all spoke against the verdict.
        #[test]
        fn the_verdict_turns_exactly_when_enough_results_in_a_row_speak_against_it(
            results in prop::collection::vec(any::<bool>(), 1..60),
            rise in 1u32..5,
            fall in 1u32..5,
        ) {
            let verdict = Verdict::new();
            let mut is_up = results[0];
            let mut since = 0;
            for (at, &ok) in results.iter().enumerate() {
                let changed = verdict.observe(ok, rise, fall).is_some();
                let needed = if is_up { fall } else { rise } as usize;
                let against = results[since..=at].iter().rev().take_while(|&&ok| ok != is_up).count();
                let should_turn = at > 0 && against >= needed;
                if should_turn {
                    is_up = !is_up;
                    since = at + 1;
                }
                prop_assert_eq!(changed, at == 0 || should_turn);
                prop_assert_eq!(verdict.health() == Health::Up, is_up);
            }
        }

        #[test]
        fn a_wait_is_never_off_by_more_than_a_tenth(interval_ms in 1u64..86_400_000, random: u64) {
            let interval = Duration::from_millis(interval_ms);
            let wait = next_probe_in(&up(), interval, interval, random);
            prop_assert!(wait >= interval.mul_f64(0.899) && wait <= interval.mul_f64(1.101), "{wait:?}");
        }
    }

    fn up() -> Verdict {
        let verdict = Verdict::new();
        verdict.observe(true, 1, 1);
        verdict
    }
}
