//! What operators should know of an upstream though it is neither down nor ejected.
//!
//! ```text
//!   what a pool's upstreams did in a minute ──► Sight ──► judge ──► Alarm, or none
//! ```
//!
//! - `starved`: it may be picked, and got less than a tenth of its fair share, for no reason that its strategy has.
//! - `imbalance`: it got more than thrice its fair share, or more than half of what belongs to the others, for no
//!   such reason.
//! - `stale_estimate`: `latency_weighted` goes by an estimate of its speed that is older than a minute, though it
//!   gets traffic, or though it would have been its turn to be tried again.
//!
//! Nothing is said of a pool with too little traffic to tell. What was raised is cleared well above the threshold
//! at which it was raised, so that alarms do not flap. Pure: figures in, a judgement out.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::timeline::Moment;

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AlarmKind {
    /// Eligible, and hardly ever picked.
    Starved,
    /// Picked far more often than its like.
    Imbalance,
    /// Judged by what it did long ago.
    StaleEstimate,
}

impl AlarmKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Starved, Self::Imbalance, Self::StaleEstimate];

    /// The word in the API and the metrics.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Starved => "starved",
            Self::Imbalance => "imbalance",
            Self::StaleEstimate => "stale_estimate",
        }
    }
}

/// One that was raised and not cleared.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Alarm {
    /// What is wrong.
    pub kind: AlarmKind,
    /// Since when it is known.
    pub since: Moment,
    /// The figures when it was raised, in words.
    pub detail: String,
}

/// What there is to see of one upstream that was eligible for a whole minute.
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct Sight {
    /// Attempts that it finished in the minute.
    pub attempts: u64,
    /// The same of all that were eligible.
    pub all_attempts: u64,
    /// Its part of the weight of all that were eligible, 0 to 1.
    pub fair_share: f64,
    /// Its strategy goes by load: who is busy gets less, who is quick gets more.
    pub goes_by_load: bool,
    /// It has more requests in flight for its weight than its like.
    pub is_busier: bool,
    /// Its strategy takes it for dearer than its like, by what it knows at present.
    pub is_dearer: bool,
    /// Age of the estimate of its speed; `None`: nothing goes by one.
    pub estimate_age: Option<Duration>,
    /// It should have been tried again by now.
    pub is_overdue: bool,
}

/// Attempts that a fair share would be, from which a tenth of it can be told from chance.
const EXPECTED_MIN: f64 = 50.0;

/// The same for an alarm to stay.
const EXPECTED_MIN_TO_STAY: f64 = 20.0;

/// An estimate older than that is stale.
const ESTIMATE_AGE_MAX: Duration = Duration::from_secs(60);

/// Whether something of this kind is wrong, and what, in words. `is_raised`: it was, when last looked at.
pub fn judge(kind: AlarmKind, sight: &Sight, is_raised: bool) -> Option<String> {
    match kind {
        AlarmKind::Starved => starved(sight, is_raised),
        AlarmKind::Imbalance => imbalance(sight, is_raised),
        AlarmKind::StaleEstimate => stale_estimate(sight, is_raised),
    }
}

fn starved(sight: &Sight, is_raised: bool) -> Option<String> {
    let (least, part) = if is_raised { (EXPECTED_MIN_TO_STAY, 0.25) } else { (EXPECTED_MIN, 0.1) };
    let expected = sight.expected();
    let has_reason = sight.goes_by_load && (sight.is_busier || sight.is_dearer);
    let is_starved = expected >= least && (sight.attempts as f64) < part * expected && !has_reason;
    is_starved.then(|| {
        let requests = if sight.attempts == 1 { "request" } else { "requests" };
        format!(
            "it is eligible and got {} {requests} in a minute, {expected:.0} would be fair",
            sight.attempts
        )
    })
}

fn imbalance(sight: &Sight, is_raised: bool) -> Option<String> {
    let (times, part) = if is_raised { (2.0, 0.3) } else { (3.0, 0.5) };
    let fair = sight.fair_share;
    if sight.attempts < 50 || sight.expected() < 5.0 || fair >= 1.0 {
        return None;
    }
    let share = sight.attempts as f64 / sight.all_attempts as f64;
    let has_reason = sight.goes_by_load && !sight.is_busier;
    let is_too_much = share > times * fair || (share - fair) / (1.0 - fair) > part;
    (is_too_much && !has_reason).then(|| {
        let percent = |share: f64| share * 100.0;
        format!(
            "it got {:.0} % of the requests in a minute, {:.0} % would be fair",
            percent(share),
            percent(fair)
        )
    })
}

fn stale_estimate(sight: &Sight, is_raised: bool) -> Option<String> {
    let age = sight.estimate_age.filter(|&age| age > ESTIMATE_AGE_MAX)?;
    let enough = if is_raised { 3 } else { 10 };
    let gets_traffic = sight.attempts >= enough;
    let seconds = age.as_secs();
    if gets_traffic {
        Some(format!(
            "its latency was last measured {seconds} s ago, and {} requests since a minute said nothing about it",
            sight.attempts
        ))
    } else if sight.is_overdue {
        Some(format!("it is passed over for a latency that was last measured {seconds} s ago"))
    } else {
        None
    }
}

impl Sight {
    fn expected(&self) -> f64 {
        self.all_attempts as f64 * self.fair_share
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAIR: Sight = Sight {
        attempts: 250,
        all_attempts: 1000,
        fair_share: 0.25,
        goes_by_load: false,
        is_busier: false,
        is_dearer: false,
        estimate_age: None,
        is_overdue: false,
    };

    fn raised(sight: &Sight, before: bool) -> Vec<&'static str> {
        let is = |kind: &AlarmKind| judge(*kind, sight, before).is_some();
        AlarmKind::ALL.into_iter().filter(is).map(AlarmKind::word).collect()
    }

    #[test]
    fn nothing_is_said_when_all_is_well() {
        assert!(raised(&FAIR, false).is_empty() && raised(&FAIR, true).is_empty());
        let alone = Sight { attempts: 1000, fair_share: 1.0, ..FAIR };
        assert!(raised(&alone, false).is_empty());
        let quiet = Sight { attempts: 0, all_attempts: 40, ..FAIR };
        assert!(raised(&quiet, false).is_empty(), "too little to tell");
    }

    #[test]
    fn a_tenth_of_the_fair_share_is_starved_and_a_quarter_is_not() {
        assert_eq!(raised(&Sight { attempts: 24, ..FAIR }, false), ["starved"]);
        assert!(raised(&Sight { attempts: 26, ..FAIR }, false).is_empty());
        assert_eq!(raised(&Sight { attempts: 60, ..FAIR }, true), ["starved"], "it stays");
        assert!(raised(&Sight { attempts: 64, ..FAIR }, true).is_empty());
    }

    #[test]
    fn who_is_slow_or_busy_has_less_for_good_reason() {
        let little = Sight { attempts: 0, goes_by_load: true, ..FAIR };
        assert_eq!(raised(&little, false), ["starved"]);
        assert!(raised(&Sight { is_dearer: true, ..little }, false).is_empty());
        assert!(raised(&Sight { is_busier: true, ..little }, false).is_empty());
        let turns = Sight { goes_by_load: false, is_dearer: true, ..little };
        assert_eq!(raised(&turns, false), ["starved"], "turns know no reason");
    }

    #[test]
    fn most_of_the_traffic_on_one_is_an_imbalance_unless_it_bears_it() {
        let most = Sight { attempts: 700, ..FAIR };
        assert_eq!(raised(&most, false), ["imbalance"]);
        assert!(raised(&Sight { attempts: 600, ..FAIR }, false).is_empty());
        assert_eq!(raised(&Sight { attempts: 600, ..FAIR }, true), ["imbalance"]);
        assert!(raised(&Sight { goes_by_load: true, ..most }, false).is_empty(), "it is quick");
        assert_eq!(raised(&Sight { goes_by_load: true, is_busier: true, ..most }, false), ["imbalance"]);
        let of_many = Sight { attempts: 70, all_attempts: 10_000, fair_share: 0.002, ..FAIR };
        assert_eq!(raised(&of_many, false), ["imbalance"]);
    }

    #[test]
    fn an_old_estimate_is_told_when_it_matters() {
        let age = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!(raised(&Sight { estimate_age: age(61), ..FAIR }, false), ["stale_estimate"]);
        assert!(raised(&Sight { estimate_age: age(59), ..FAIR }, true).is_empty());
        let unused = Sight { attempts: 0, all_attempts: 10, estimate_age: age(600), ..FAIR };
        assert!(raised(&unused, false).is_empty());
        assert_eq!(raised(&Sight { is_overdue: true, ..unused }, false), ["stale_estimate"]);
    }
}
