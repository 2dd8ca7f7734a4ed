//! All that speaks for or against one upstream, put together.

use super::{EjectionState, Health};

/// What an operator wants of an upstream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Serves.
    #[default]
    Ready,
    /// Gets no new requests, finishes the old ones, is still asked how it is.
    Drain,
    /// Gets no requests and is not asked.
    Maintenance,
}

impl Mode {
    /// All of them, as the API's `state` names them.
    pub const ALL: [Self; 3] = [Self::Ready, Self::Drain, Self::Maintenance];

    /// The word in the API.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Drain => "drain",
            Self::Maintenance => "maintenance",
        }
    }

    /// The mode with this word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.word() == word)
    }
}

/// What is known of an upstream at one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Facts {
    /// What an operator wants.
    pub mode: Mode,
    /// Share of the traffic; 0 takes no new requests.
    pub weight: u16,
    /// What probes say; `None`: the pool has no health check, so nobody waits for one.
    pub health: Option<Health>,
    /// What traffic says.
    pub ejection: EjectionState,
    /// Requests sent and not yet answered in full.
    pub in_flight: u32,
    /// How many of them there may be; `None`: no limit.
    pub max_connections: Option<u32>,
}

/// Whether the upstream may take one more request, and if not, the reason that lasts longest: what an
/// operator did before what probes found, and that before what will pass by itself.
///
/// # Errors
///
/// The reason is the error. [`WhyNot::AlreadyTried`] and [`WhyNot::Backup`] are not among them: they depend
/// on the request and on the other upstreams, which the pool knows.
#[inline]
pub fn eligibility(facts: &Facts) -> Result<(), WhyNot> {
    match facts {
        Facts { mode: Mode::Maintenance, .. } => Err(WhyNot::Maintenance),
        Facts { mode: Mode::Drain, .. } => Err(WhyNot::Draining),
        Facts { weight: 0, .. } => Err(WhyNot::Weight0),
        Facts { health: Some(Health::Unknown), .. } => Err(WhyNot::Unchecked),
        Facts { health: Some(Health::Down), .. } => Err(WhyNot::Down),
        Facts { ejection: EjectionState::Ejected { .. }, .. } => Err(WhyNot::Ejected),
        Facts { ejection: EjectionState::Probation { on_trial: true, .. }, .. } => Err(WhyNot::Probation),
        Facts { max_connections: Some(max), in_flight, .. } if in_flight >= max => Err(WhyNot::Full),
        _ => Ok(()),
    }
}

/// Why an upstream may not be picked now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WhyNot {
    /// Its weight is zero.
    Weight0,
    /// An operator drains it.
    Draining,
    /// An operator took it out.
    Maintenance,
    /// No probe has come back yet.
    Unchecked,
    /// Probes failed.
    Down,
    /// Too many requests in a row failed.
    Ejected,
    /// It was ejected, and is tried with one request at a time; one is under way.
    Probation,
    /// As many requests in flight as it may have.
    Full,
    /// This request failed on it before.
    AlreadyTried,
    /// A backup, and others are eligible.
    Backup,
}

impl WhyNot {
    /// All reasons, in the order in which they are looked for.
    pub const ALL: [Self; 10] = [
        Self::Maintenance,
        Self::Draining,
        Self::Weight0,
        Self::Unchecked,
        Self::Down,
        Self::Ejected,
        Self::Probation,
        Self::Full,
        Self::AlreadyTried,
        Self::Backup,
    ];

    /// The word of `why_not` in the API.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Weight0 => "weight_0",
            Self::Draining => "draining",
            Self::Maintenance => "maintenance",
            Self::Unchecked => "unchecked",
            Self::Down => "down",
            Self::Ejected => "ejected",
            Self::Probation => "probation",
            Self::Full => "full",
            Self::AlreadyTried => "already_tried",
            Self::Backup => "backup",
        }
    }

    /// The same for people: what is the case, and what ends it.
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::Weight0 => "its weight is 0; a weight above 0 gives it traffic again",
            Self::Draining => "it is being drained; `evener ready` gives it traffic again",
            Self::Maintenance => "it is in maintenance; `evener ready` gives it traffic again",
            Self::Unchecked => "no health check has passed yet; it takes traffic after the first pass",
            Self::Down => "its health checks fail; it takes traffic when enough of them in a row pass",
            Self::Ejected => "too many requests in a row failed; it is tried again when the ejection ends",
            Self::Probation => "it was ejected and is tried with one request at a time; one is under way",
            Self::Full => "it has `max_connections` requests in flight; it takes the next when one ends",
            Self::AlreadyTried => "this request failed on it before; a retry goes elsewhere",
            Self::Backup => "it is a backup; it takes traffic when no other upstream is eligible",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_healthy_ready_upstream_with_room_is_eligible() {
        assert_eq!(eligibility(&well()), Ok(()));
        assert_eq!(eligibility(&Facts { health: None, ..well() }), Ok(()), "without checks nobody waits");
        assert_eq!(eligibility(&Facts { max_connections: Some(8), ..well() }), Ok(()), "7 of 8");
        let probation = EjectionState::Probation { left: 3, on_trial: false };
        assert_eq!(eligibility(&Facts { ejection: probation, ..well() }), Ok(()), "the trial is free");
    }

    #[test]
    fn each_fact_alone_is_enough_to_be_left_out() {
        let ejected = EjectionState::Ejected { until: Duration::from_secs(1) };
        let on_trial = EjectionState::Probation { left: 3, on_trial: true };
        for (facts, why_not) in [
            (Facts { mode: Mode::Maintenance, ..well() }, WhyNot::Maintenance),
            (Facts { mode: Mode::Drain, ..well() }, WhyNot::Draining),
            (Facts { weight: 0, ..well() }, WhyNot::Weight0),
            (Facts { health: Some(Health::Unknown), ..well() }, WhyNot::Unchecked),
            (Facts { health: Some(Health::Down), ..well() }, WhyNot::Down),
            (Facts { ejection: ejected, ..well() }, WhyNot::Ejected),
            (Facts { ejection: on_trial, ..well() }, WhyNot::Probation),
            (Facts { max_connections: Some(7), ..well() }, WhyNot::Full),
        ] {
            assert_eq!(eligibility(&facts), Err(why_not));
        }
    }

    #[test]
    fn of_many_reasons_the_one_that_lasts_longest_is_told() {
        let mut facts = Facts {
            mode: Mode::Drain,
            weight: 0,
            health: Some(Health::Down),
            ejection: EjectionState::Ejected { until: Duration::from_secs(1) },
            max_connections: Some(1),
            ..well()
        };
        assert_eq!(eligibility(&facts), Err(WhyNot::Draining));
        facts = Facts { mode: Mode::Ready, weight: 1, ..facts };
        assert_eq!(eligibility(&facts), Err(WhyNot::Down));
        facts.health = Some(Health::Up);
        assert_eq!(eligibility(&facts), Err(WhyNot::Ejected));
    }

    #[test]
    fn every_reason_has_its_own_word_and_sentence() {
        let words: HashSet<_> = WhyNot::ALL.map(WhyNot::text).into();
        let sentences: HashSet<_> = WhyNot::ALL.map(WhyNot::sentence).into();
        assert_eq!((words.len(), sentences.len()), (WhyNot::ALL.len(), WhyNot::ALL.len()));
        assert!(words.iter().all(|word| word.bytes().all(|b| matches!(b, b'a'..=b'z' | b'_' | b'0'))));
    }

    #[test]
    fn a_mode_is_read_back_from_its_word() {
        assert!(Mode::ALL.into_iter().all(|mode| Mode::from_word(mode.word()) == Some(mode)));
        assert_eq!(Mode::from_word("Ready"), None);
    }

    fn well() -> Facts {
        Facts {
            mode: Mode::Ready,
            weight: 1,
            health: Some(Health::Up),
            ejection: EjectionState::In,
            in_flight: 7,
            max_connections: None,
        }
    }
}
