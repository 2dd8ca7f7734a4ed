//! What requests note about the ejection of an upstream, until somebody tells of it.
//!
//! ```text
//!   a request that ejects, or readmits ──► Noted ──every tick──► time line, events
//! ```
//!
//! That happens a few times in an upstream's life, but on a thread of the traffic's: so there are places for
//! it from the start, and whoever finds the lock taken tries again for a moment and then leaves it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, TryLockError};
use std::time::Duration;

use crate::health::Ejected;

/// Notes of one upstream between two ticks; each further ejection needs the failures that lead to it.
const NOTES_MAX: usize = 8;

/// How often the lock is tried: its holder copies 256 bytes, unless the system took its processor.
const TRIES_MAX: usize = 1_000;

/// What became of an upstream's ejection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EjectionNote {
    /// It began; from probation, it begins again.
    Ejected(Ejected),
    /// It is over.
    Readmitted(Readmission),
}

/// Why an ejection is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readmission {
    /// Enough requests in a row did well on probation.
    DidWell,
    /// A request found nobody else.
    NobodyElse,
    /// It was down, and its health checks pass again.
    ChecksPass,
    /// The pool ejects nobody any more.
    EjectionOff,
}

impl Readmission {
    /// For people.
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::DidWell => "enough requests in a row did well on probation",
            Self::NobodyElse => "nobody else was eligible",
            Self::ChecksPass => "it was down, and its health checks pass again",
            Self::EjectionOff => "ejection was turned off for the pool",
        }
    }
}

/// See the module documentation.
#[derive(Debug, Default)]
pub(super) struct Noted {
    /// Somebody noted something, in vain perhaps.
    is_any: AtomicBool,
    notes: Mutex<Notes>,
}

/// In their order, each with its time.
pub(super) type Notes = [Option<(Duration, EjectionNote)>; NOTES_MAX];

impl Noted {
    /// Never waits for long, and allocates nothing. What finds no place is not lost: the tick sees how the
    /// upstream stands, though not why.
    pub(super) fn note(&self, note: EjectionNote, now: Duration) {
        for _ in 0..TRIES_MAX {
            match self.notes.try_lock() {
                Ok(mut notes) => {
                    if let Some(free) = notes.iter_mut().find(|note| note.is_none()) {
                        *free = Some((now, note));
                    }
                    break;
                }
                Err(TryLockError::WouldBlock) => std::hint::spin_loop(),
                Err(TryLockError::Poisoned(_)) => break,
            }
        }
        self.is_any.store(true, Ordering::Release);
    }

    /// What was noted since the last time.
    pub(super) fn take(&self) -> Notes {
        if !self.is_any.swap(false, Ordering::Acquire) {
            return Notes::default();
        }
        self.notes.lock().map(|mut notes| std::mem::take(&mut *notes)).unwrap_or_default()
    }

    /// Whether a look is worth while.
    pub(super) fn is_any(&self) -> bool {
        self.is_any.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_noted_is_taken_once_and_in_order() {
        let noted = Noted::default();
        let note = EjectionNote::Readmitted(Readmission::NobodyElse);
        (0..10).for_each(|second| noted.note(note, Duration::from_secs(second)));
        let times: Vec<u64> = noted.take().into_iter().flatten().map(|(at, _)| at.as_secs()).collect();
        assert_eq!(times, (0..8).collect::<Vec<_>>(), "there is an end to it");
        assert!(!noted.is_any() && noted.take().iter().all(Option::is_none));
    }

    #[test]
    fn nobody_waits_for_a_reader() {
        let noted = Noted::default();
        let reader = noted.notes.lock();
        noted.note(EjectionNote::Readmitted(Readmission::DidWell), Duration::ZERO);
        drop(reader);
        assert!(noted.is_any(), "somebody looks all the same");
    }
}
