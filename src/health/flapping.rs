//! Damping of an upstream that goes down again and again.
//!
//! As routers damp routes (RFC 2439): each time that it goes down is a penalty of 1, which halves every five
//! minutes. While it is 2 or more, so from the third time within seven minutes, the upstream needs more passes in a
//! row than `rise` before it is up again: twice as many, four times, eight times. One restart, or two, change
//! nothing; and whoever stays up is forgiven.
//!
//! Routers shut a route out until its penalty has faded, and RFC 7196 found that too harsh. Here it is never out for
//! longer than its passes take. That the rest of the pool can do without it is for the caller to see to.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How often an upstream went down of late. Lock-free.
#[derive(Debug, Default)]
pub struct Flapping {
    /// Penalty in thousandths in the lower [`PENALTY_BITS`], above them when that was, in milliseconds. Written
    /// by probes of one upstream, which come one after another or nearly so.
    word: AtomicU64,
}

impl Flapping {
    /// It was up, and is down.
    pub fn went_down(&self, now: Duration) {
        let penalty = (self.penalty(now) + 1.0).min(PENALTY_MAX);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to PENALTY_MAX")]
        let thousandths = (penalty * 1e3) as u64;
        self.store(thousandths, u64::try_from(now.as_millis()).unwrap_or(u64::MAX));
    }

    /// How often it went down of late, number by name, for another process that goes on with it.
    pub fn memory(&self) -> [(&'static str, u64); 2] {
        let word = self.word.load(Ordering::Relaxed);
        [("thousandths", word & THOUSANDTHS_MASK), ("at_ms", word >> PENALTY_BITS)]
    }

    /// Goes on with the [`memory`](Self::memory) of another process, whose times count from the same moment as
    /// ours. A memory without a number in it says nothing.
    pub fn go_on(&self, recall: &dyn Fn(&str) -> Option<u64>) {
        let (Some(thousandths), Some(at_ms)) = (recall("thousandths"), recall("at_ms")) else { return };
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a small positive number"
        )]
        let most = (PENALTY_MAX * 1e3) as u64;
        self.store(thousandths.min(most), at_ms);
    }

    fn store(&self, thousandths: u64, at_ms: u64) {
        let at_ms = at_ms & (u64::MAX >> PENALTY_BITS);
        self.word.store(at_ms << PENALTY_BITS | thousandths, Ordering::Relaxed);
    }

    /// Passes in a row that it needs, where `rise` are usual.
    pub fn passes_needed(&self, rise: u32, now: Duration) -> u32 {
        rise.max(1).saturating_mul(self.factor(now))
    }

    /// By how much more than usual it has to prove: 1, 2, 4 or 8.
    pub fn factor(&self, now: Duration) -> u32 {
        match self.penalty(now) {
            penalty if penalty < DAMPED_FROM => 1,
            penalty if penalty < DAMPED_FROM + 1.0 => 2,
            penalty if penalty < DAMPED_FROM + 2.0 => 4,
            _ => 8,
        }
    }

    fn penalty(&self, now: Duration) -> f64 {
        let word = self.word.load(Ordering::Relaxed);
        let thousandths = word & THOUSANDTHS_MASK;
        let age = now.saturating_sub(Duration::from_millis(word >> PENALTY_BITS));
        thousandths as f64 / 1e3 * (-age.as_secs_f64() / HALF_LIFE.as_secs_f64()).exp2()
    }
}

const PENALTY_BITS: u32 = 16;

const THOUSANDTHS_MASK: u64 = (1 << PENALTY_BITS) - 1;

/// A third of what routers take by default: a process restarts faster than a network converges.
const HALF_LIFE: Duration = Duration::from_secs(300);

/// RFC 2439 and its implementations suppress at 2 withdrawals, counted in thousands.
const DAMPED_FROM: f64 = 2.0;

/// Forgotten in twenty minutes at the latest, a third of what routers take.
const PENALTY_MAX: f64 = 16.0;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::{Health, Verdict};

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_third_time_within_minutes_counts() {
        let flapping = Flapping::default();
        let needed: Vec<u32> = (0..6)
            .map(|time| {
                flapping.went_down(seconds(1000 + time * 20));
                flapping.passes_needed(2, seconds(1000 + time * 20))
            })
            .collect();
        assert_eq!(needed, [2, 2, 4, 8, 16, 16]);
        assert_eq!(flapping.passes_needed(2, seconds(2000)), 2, "and is forgiven");
    }

    #[test]
    fn another_process_forgives_no_sooner() {
        let (old, new) = (Flapping::default(), Flapping::default());
        (0..4).for_each(|time| old.went_down(seconds(1000 + time * 20)));
        let memory = old.memory();
        new.go_on(&|name| memory.iter().find(|(known, _)| *known == name).map(|&(_, number)| number));
        for second in [1060, 1300, 1600, 2000] {
            let passes = |flapping: &Flapping| flapping.passes_needed(2, seconds(second));
            assert_eq!(passes(&new), passes(&old), "{second}");
        }
        assert_eq!(new.passes_needed(2, seconds(1060)), 8);
        new.go_on(&|name| (name == "at_ms").then_some(5));
        assert_eq!(new.memory(), memory, "half a memory is none");
        new.go_on(&|_| Some(u64::MAX));
        assert_eq!(new.factor(seconds(1060)), 8, "bounded, whatever the other one says");
    }

    #[test]
    fn one_that_goes_down_rarely_is_like_any_other() {
        let flapping = Flapping::default();
        for time in 0..100 {
            flapping.went_down(seconds(time * 360));
            assert_eq!(flapping.factor(seconds(time * 360)), 1, "{time}");
        }
    }

    /// Seconds of twenty minutes in which an upstream took traffic, and was not there, with a probe every two
    /// seconds, three failures for down and two passes for up. It is there for `there` seconds of every `period`.
    fn sim(period: u64, there: u64, is_damped: bool) -> (u64, u64) {
        let (verdict, flapping) = (Verdict::default(), Flapping::default());
        let (mut served, mut failed) = (0, 0);
        for second in (0..1200).step_by(2) {
            let (now, ok) = (seconds(second), second % period < there);
            let rise = if is_damped { flapping.passes_needed(2, now) } else { 2 };
            if verdict.observe(ok, rise, 3).is_some_and(|turn| turn.from == Health::Up) {
                flapping.went_down(now);
            }
            if verdict.health() == Health::Up {
                *(if ok { &mut served } else { &mut failed }) += 2;
            }
        }
        (served, failed)
    }

    #[test]
    fn a_crash_loop_fails_less_than_half_as_long_and_a_restart_no_longer() {
        // There for twenty seconds, gone for ten, and so on.
        let ((_, undamped), (_, damped)) = (sim(30, 20, false), sim(30, 20, true));
        assert!(undamped > 100 && damped * 2 < undamped, "{undamped} s, {damped} s");
        // Three restarts in twenty minutes.
        assert_eq!(sim(400, 390, true), sim(400, 390, false));
    }
}
