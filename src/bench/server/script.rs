//! The script as one server lives it: how fast it is, and what it does to whoever comes.
//!
//! Where acts of one kind overlap, the one that began later wins (of two that begin together, the later in
//! the file): factors do not multiply, shares do not add up. A pause is a pause at any speed. Of several
//! kinds the worse wins: down, then hanging, then failing, then resetting; refusing only concerns new
//! connections.

use std::time::Duration;

use crate::bench::scenario::{Act, Fate, Scenario};
use crate::bench::schedule::exponential;

/// The speeds of one server: the acts `Speed` and `Pauses` as steps in the order of time, for a
/// [`Station`](super::station::Station). Pauses are drawn from `seed` and `server`.
pub fn speeds_of(scenario: &Scenario, server: usize, seed: u64) -> Vec<(Duration, f64)> {
    let speeds: Vec<(&Act, f64)> = acts_of(scenario, server)
        .filter_map(|act| match act.fate {
            Fate::Speed(factor) => Some((act, factor)),
            _ => None,
        })
        .collect();
    let pauses = pauses_of(scenario, server, seed);
    let speed_at = |at: Duration| {
        if pauses.iter().any(|&(from, until)| (from..until).contains(&at)) {
            return 0.0;
        }
        latest(speeds.iter().filter(|(act, _)| is_on(act, at)), |(act, _)| act)
            .map_or(1.0, |&(_, factor)| factor)
    };
    let mut moments: Vec<Duration> = speeds.iter().flat_map(|(act, _)| [act.from, act.until]).collect();
    moments.extend(pauses.iter().flat_map(|&(from, until)| [from, until]));
    moments.sort_unstable();
    moments.dedup();
    let steps = moments.into_iter().filter(|&at| at < Duration::MAX).map(|at| (at, speed_at(at)));
    let mut steps: Vec<(Duration, f64)> = steps.collect();
    steps.dedup_by(|next, last| next.1.total_cmp(&last.1).is_eq());
    steps
}

/// All pauses of one server, from when until when.
fn pauses_of(scenario: &Scenario, server: usize, seed: u64) -> Vec<(Duration, Duration)> {
    // Work may go on as long as somebody still waits for it.
    let end = scenario.duration + scenario.timeout;
    let mut pauses = Vec::new();
    for (number, act) in acts_of(scenario, server).enumerate() {
        let Fate::Pauses { length, every } = act.fate else { continue };
        let mut random = random_of(seed, server, number + 1);
        let mut now = act.from;
        loop {
            now += Duration::from_secs_f64(exponential(&mut random, every.as_secs_f64()));
            if now >= act.until.min(end) {
                break;
            }
            pauses.push((now, now + length));
            now += length.max(STEP_MIN);
        }
    }
    pauses
}

/// Pauses of no length at no distance would never come to the end of the turn.
const STEP_MIN: Duration = Duration::from_micros(1);

/// Randomness of one purpose, of one server: adding a server changes nothing for the others.
pub(super) fn random_of(seed: u64, server: usize, purpose: usize) -> fastrand::Rng {
    let mut random = fastrand::Rng::with_seed(seed);
    for part in [server, purpose] {
        random = fastrand::Rng::with_seed(random.u64(..) ^ part as u64);
    }
    // Seeds that differ in few bits give first numbers that resemble each other.
    random.u64(..);
    random
}

fn acts_of(scenario: &Scenario, server: usize) -> impl Iterator<Item = &Act> {
    scenario.script.iter().filter(move |act| act.server == server)
}

fn is_on(act: &Act, at: Duration) -> bool {
    (act.from..act.until).contains(&at)
}

/// The one that began last; of equals the last, as `max_by_key` has it.
fn latest<T>(all: impl Iterator<Item = T>, act: impl Fn(&T) -> &Act) -> Option<T> {
    all.max_by_key(|one| act(one).from)
}

/// What happens to one server but for its speed.
#[derive(Clone, Debug)]
pub struct Life {
    acts: Vec<Act>,
}

/// Whether new connections are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// As usual.
    Open,
    /// Refused; those that are open go on.
    Refusing,
    /// The server is down: refused, and those that were open are reset.
    Down,
}

/// A share of requests is answered at once, and not well.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Failing {
    /// 400 to 599.
    pub status: u16,
    /// Of requests, 0 to 1.
    pub share: f64,
    /// Until it is answered.
    pub latency: Duration,
}

impl Life {
    /// Of this server; an index without acts has a quiet one.
    pub fn of(scenario: &Scenario, server: usize) -> Self {
        let counts = |act: &&Act| !matches!(act.fate, Fate::Speed(_) | Fate::Pauses { .. });
        Self { acts: acts_of(scenario, server).filter(counts).cloned().collect() }
    }

    /// Nothing ever happens.
    pub fn is_quiet(&self) -> bool {
        self.acts.is_empty()
    }

    /// Whether it is not among the upstreams yet.
    pub fn is_away(&self, at: Duration) -> bool {
        self.is_any(at, |fate| matches!(fate, Fate::Away))
    }

    /// Whether it takes requests and never answers them.
    pub fn is_hanging(&self, at: Duration) -> bool {
        self.is_any(at, |fate| matches!(fate, Fate::Hang))
    }

    /// How it meets new connections.
    pub fn door(&self, at: Duration) -> Door {
        if self.is_any(at, |fate| matches!(fate, Fate::Down)) {
            Door::Down
        } else if self.is_any(at, |fate| matches!(fate, Fate::Refuse)) {
            Door::Refusing
        } else {
            Door::Open
        }
    }

    /// How it fails, if it does.
    pub fn failing(&self, at: Duration) -> Option<Failing> {
        self.latest_of(at, |fate| match *fate {
            Fate::Fail { status, share, latency } => Some(Failing { status, share, latency }),
            _ => None,
        })
    }

    /// Which share of answers, 0 to 1, is cut off in the middle.
    pub fn resetting(&self, at: Duration) -> f64 {
        let share = |fate: &Fate| match *fate {
            Fate::Reset { share } => Some(share),
            _ => None,
        };
        self.latest_of(at, share).unwrap_or(0.0)
    }

    /// The moments at which [`Self::door`] may change, in no order.
    pub fn doors(&self) -> impl Iterator<Item = Duration> {
        let acts = self.acts.iter().filter(|act| matches!(act.fate, Fate::Down | Fate::Refuse));
        acts.flat_map(|act| [act.from, act.until]).filter(|&at| at < Duration::MAX)
    }

    /// When it is killed; all work is lost then.
    pub fn deaths(&self) -> impl Iterator<Item = Duration> {
        self.acts.iter().filter(|act| matches!(act.fate, Fate::Down)).map(|act| act.from)
    }

    /// How likely it is, 0 to 1, that a request that arrives at `at` and would be done at `done` is not
    /// answered well. Whatever happens up to `margin` before or after counts, too.
    pub fn risk(&self, at: Duration, done: Duration, margin: Duration) -> f64 {
        let risks = self.acts.iter().filter_map(|act| {
            let (share, last) = match act.fate {
                Fate::Speed(_) | Fate::Pauses { .. } => return None,
                Fate::Fail { share, .. } => (share, at),
                Fate::Hang | Fate::Refuse | Fate::Away => (1.0, at),
                // These meet whatever is under way.
                Fate::Reset { share } => (share, done),
                Fate::Down => (1.0, done),
            };
            let concerns = act.from <= last.saturating_add(margin) && at < act.until.saturating_add(margin);
            concerns.then_some(share)
        });
        risks.fold(0.0, f64::max)
    }

    fn is_any(&self, at: Duration, is_it: impl Fn(&Fate) -> bool) -> bool {
        self.acts.iter().any(|act| is_on(act, at) && is_it(&act.fate))
    }

    fn latest_of<T>(&self, at: Duration, what: impl Fn(&Fate) -> Option<T>) -> Option<T> {
        let on = self.acts.iter().filter(|act| is_on(act, at) && what(&act.fate).is_some());
        latest(on, |act| act).and_then(|act| what(&act.fate))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::server::testing::scenario;
    use proptest::prelude::*;

    const fn ms(number: u64) -> Duration {
        Duration::from_millis(number)
    }

    fn act(from: u64, until: u64, fate: Fate) -> Act {
        Act { server: 0, from: ms(from), until: ms(until), fate }
    }

    fn speeds(script: Vec<Act>) -> Vec<(u64, f64)> {
        let steps = speeds_of(&scenario(1, 1, script), 0, 1).into_iter();
        steps.map(|(at, speed)| (u64::try_from(at.as_millis()).unwrap(), speed)).collect()
    }

    fn fail(share: f64) -> Fate {
        Fate::Fail { status: 503, share, latency: ms(1) }
    }

    #[test]
    fn the_speed_that_began_later_wins_and_the_earlier_comes_back() {
        let script = vec![
            act(100, 900, Fate::Speed(0.5)),
            act(200, 300, Fate::Speed(0.1)),
            act(850, 1_000, Fate::Speed(2.0)),
        ];
        let expected = [(100, 0.5), (200, 0.1), (300, 0.5), (850, 2.0), (1_000, 1.0)];
        assert_eq!(speeds(script), expected);
        let together = vec![act(0, 10, Fate::Speed(0.5)), act(0, 10, Fate::Speed(0.1))];
        assert_eq!(speeds(together), [(0, 0.1), (10, 1.0)], "of two that begin together the last");
    }

    #[test]
    fn what_lasts_for_ever_has_no_end() {
        let slow = Act { until: Duration::MAX, ..act(0, 0, Fate::Speed(0.2)) };
        assert_eq!(speeds(vec![slow]), [(0, 0.2)]);
        assert_eq!(speeds(vec![act(0, 500, Fate::Hang)]), [], "other acts are no matter of speed");
    }

    #[test]
    fn a_pause_is_a_pause_at_any_speed() {
        let pauses = Fate::Pauses { length: ms(100), every: ms(200) };
        let script = vec![act(0, 5_000, pauses), act(0, 5_000, Fate::Speed(0.5))];
        let steps = speeds_of(&scenario(1, 1, script), 0, 1);
        let still = steps.windows(2).filter(|pair| pair[0].1 == 0.0);
        let lengths: Vec<Duration> = still.map(|pair| pair[1].0.saturating_sub(pair[0].0)).collect();
        assert!(lengths.len() > 5, "{lengths:?}");
        assert!(lengths.iter().all(|&length| length == ms(100)), "{lengths:?}");
        assert!(steps.iter().all(|step| [0.0, 0.5, 1.0].contains(&step.1)), "{steps:?}");
        assert!(steps.last().is_some_and(|step| step.1 > 0.9), "it ends");
    }

    #[test]
    fn pauses_come_from_the_seed_and_the_server() {
        let pauses =
            |server| Act { server, ..act(0, 10_000, Fate::Pauses { length: ms(50), every: ms(500) }) };
        let scenario = scenario(2, 1, vec![pauses(0), pauses(1)]);
        assert_eq!(speeds_of(&scenario, 0, 7), speeds_of(&scenario, 0, 7));
        assert_ne!(speeds_of(&scenario, 0, 7), speeds_of(&scenario, 1, 7));
        assert_ne!(speeds_of(&scenario, 0, 7), speeds_of(&scenario, 0, 8));
    }

    #[test]
    fn a_life_says_what_happens_when() {
        let script = vec![
            act(100, 200, Fate::Away),
            act(200, 300, Fate::Hang),
            act(300, 400, Fate::Refuse),
            act(350, 370, Fate::Down),
            act(400, 500, fail(0.5)),
            act(450, 460, fail(0.1)),
            act(500, 600, Fate::Reset { share: 0.25 }),
        ];
        let life = Life::of(&scenario(1, 1, script), 0);
        assert!(!life.is_quiet());
        assert!([99, 100, 199, 200].map(|at| life.is_away(ms(at))) == [false, true, true, false]);
        assert!([199, 200, 299, 300].map(|at| life.is_hanging(ms(at))) == [false, true, true, false]);
        let doors = [299, 300, 350, 369, 370, 400].map(|at| life.door(ms(at)));
        let [open, refusing, down] = [Door::Open, Door::Refusing, Door::Down];
        assert_eq!(doors, [open, refusing, down, down, refusing, open]);
        let shares = [399, 400, 450, 460, 500].map(|at| life.failing(ms(at)).map(|failing| failing.share));
        assert_eq!(shares, [None, Some(0.5), Some(0.1), Some(0.5), None]);
        assert_eq!([499, 500, 599, 600].map(|at| life.resetting(ms(at)) > 0.2), [false, true, true, false]);
        assert_eq!(life.doors().collect::<Vec<_>>(), [300, 400, 350, 370].map(ms));
        assert!(Life::of(&scenario(2, 1, Vec::new()), 1).is_quiet());
    }

    #[test]
    fn a_quiet_life_is_one_that_is_only_slow() {
        let script = vec![act(0, 100, Fate::Speed(0.1)), Act { server: 1, ..act(0, 100, Fate::Hang) }];
        assert!(Life::of(&scenario(2, 1, script), 0).is_quiet());
    }

    proptest! {
        /// Steps are in the order of time, each moment once, whatever overlaps.
        #[test]
        fn steps_are_in_order(acts in prop::collection::vec((0..9_000_u64, 1..5_000_u64, 0..3_usize), 0..8)) {
            let script = acts.into_iter().map(|(from, length, kind)| {
                let pauses = Fate::Pauses { length: ms(20), every: ms(100) };
                act(from, from + length, [Fate::Speed(0.5), Fate::Speed(0.0), pauses][kind])
            });
            let steps = speeds_of(&scenario(1, 1, script.collect()), 0, 3);
            prop_assert!(steps.windows(2).all(|pair| pair[0].0 < pair[1].0));
        }
    }
}
