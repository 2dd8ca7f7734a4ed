//! One ring of records, each place with a lock of its own.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use super::{LATEST, Record};

/// Why a request is kept. Each has its own ring, so that many of one do not push out the few of another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Kept {
    /// It is one of the last.
    #[default]
    Latest,
    /// It ended with 500 or above.
    Failed,
    /// It got another answer of ours, or none because the client left.
    Refused,
    /// It took as long as [`SLOW`](super::SLOW), or longer.
    Slow,
    /// It took several attempts, or longer than nearly all of its route.
    Unusual,
}

impl Kept {
    /// All of them, in the order of their rings.
    pub const ALL: [Self; 5] = [Self::Latest, Self::Failed, Self::Refused, Self::Slow, Self::Unusual];

    /// The word in the API.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Latest => "latest",
            Self::Failed => "failed",
            Self::Refused => "refused",
            Self::Slow => "slow",
            Self::Unusual => "unusual",
        }
    }

    /// How many are kept.
    pub const fn places(self) -> usize {
        match self {
            Self::Latest => LATEST,
            Self::Failed => 1_000,
            Self::Slow => 500,
            Self::Refused | Self::Unusual => 250,
        }
    }
}

/// The last so many records.
#[derive(Debug)]
pub(super) struct Ring {
    /// Counts those who took a place. All threads write it, so nothing else is in its cache line.
    next: Apart,
    /// Filled as they are first taken, and written over from then on.
    places: Box<[Mutex<Option<Box<Record>>>]>,
}

#[derive(Debug, Default)]
#[repr(align(64))]
struct Apart(AtomicU64);

impl Ring {
    pub(super) fn new(places: usize) -> Self {
        Self { next: Apart::default(), places: (0..places).map(|_| Mutex::default()).collect() }
    }

    /// The number of a record to be written.
    pub(super) fn next(&self) -> u64 {
        self.next.0.fetch_add(1, Relaxed)
    }

    /// Numbers that were given out.
    pub(super) fn taken(&self) -> u64 {
        self.next.0.load(Relaxed)
    }

    /// Writes into the place of this number; `false`, and nothing is written, when somebody is there.
    pub(super) fn write(&self, number: u64, write: impl FnOnce(&mut Record)) -> bool {
        let index = usize::try_from(number).unwrap_or(usize::MAX) % self.places.len().max(1);
        let Some(Ok(mut place)) = self.places.get(index).map(Mutex::try_lock) else { return false };
        write(place.get_or_insert_default());
        true
    }

    pub(super) fn matching<'a>(
        &'a self,
        wanted: &'a impl Fn(&Record) -> bool,
    ) -> impl Iterator<Item = Record> {
        self.places.iter().filter_map(|place| {
            let place = place.lock().unwrap_or_else(PoisonError::into_inner);
            place.as_ref().filter(|record| wanted(record)).map(|record| Record::clone(record))
        })
    }
}
