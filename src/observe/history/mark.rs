//! What counters said when they were read last.

use std::time::Duration;

use super::bytes::{put, take};
use crate::observe::HistogramSnapshot;

/// A distribution that is kept for later, without its empty buckets: a few hundred bytes instead of 4 KiB.
#[derive(Clone, Debug, Default)]
pub(super) struct Packed {
    sum: Duration,
    min: Duration,
    max: Duration,
    /// Of each bucket that is not empty: how many empty ones are before it, and how many are in it.
    buckets: Box<[u8]>,
}

impl Packed {
    pub(super) fn of(times: &HistogramSnapshot) -> Self {
        let mut buckets = Vec::new();
        let mut next = 0;
        for (bucket, count) in times.filled() {
            put(&mut buckets, (bucket - next) as u64);
            put(&mut buckets, count);
            next = bucket + 1;
        }
        Self { sum: times.sum, min: times.min, max: times.max, buckets: buckets.into() }
    }

    pub(super) fn unpacked(&self) -> HistogramSnapshot {
        let (mut rest, mut next) = (&*self.buckets, 0);
        let pairs = std::iter::from_fn(|| {
            let (gap, count) = (take(&mut rest)?, take(&mut rest)?);
            let bucket = next + usize::try_from(gap).ok()?;
            next = bucket + 1;
            Some((bucket, count))
        });
        HistogramSnapshot::of_filled(pairs, self.sum, self.min, self.max)
    }

    pub(super) fn bytes(&self) -> usize {
        self.buckets.len()
    }
}

/// What counts, found again by its place in memory: so something new under an old name begins anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Counting {
    place: usize,
    part: usize,
}

impl Counting {
    /// Whoever owns these counters.
    pub fn of<T>(owner: &T) -> Self {
        Self { place: std::ptr::from_ref(owner).addr(), part: 0 }
    }

    /// One of several groups of counters of the same owner.
    #[must_use]
    pub fn part(self, part: usize) -> Self {
        Self { part: part + 1, ..self }
    }
}

/// What counters say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// Requests that ended; of upstreams, attempts.
    pub requests: u64,
    /// Those with a status of 500 or more, or none at all.
    pub errors: u64,
    /// Of request bodies.
    pub request_bytes: u64,
    /// Of response bodies.
    pub response_bytes: u64,
}

/// How much counters grew.
#[derive(Clone, Debug, Default)]
pub struct Growth {
    pub(super) requests: u64,
    pub(super) errors: u64,
    pub(super) request_bytes: u64,
    pub(super) response_bytes: u64,
    pub(super) times: Option<HistogramSnapshot>,
}

impl Growth {
    /// Of several together.
    pub fn merge(&mut self, other: &Self) {
        self.requests += other.requests;
        self.errors += other.errors;
        self.request_bytes += other.request_bytes;
        self.response_bytes += other.response_bytes;
        let Some(times) = &other.times else { return };
        self.times = Some(match self.times.take() {
            None => times.clone(),
            Some(all) => all.and(times),
        });
    }

    pub(super) fn is_nothing(&self) -> bool {
        self.requests == 0
            && self.errors == 0
            && self.request_bytes == 0
            && self.response_bytes == 0
            && self.times.as_ref().is_none_or(|times| times.count == 0)
    }
}

/// A [`Reading`] that was taken.
#[derive(Debug, Default)]
pub(super) struct Mark {
    /// In which round.
    pub(super) round: u64,
    pub(super) reading: Reading,
    pub(super) times: Packed,
}

impl Mark {
    /// What was counted after this mark; everything, if these are the counters of something else.
    pub(super) fn growth(&self, reading: Reading, times: Option<HistogramSnapshot>) -> Growth {
        let since = self.since(reading);
        let times = times.map(|times| {
            // Of something else, the times are not comparable either.
            let grown = since.and_then(|_| times.since(&self.times.unpacked()));
            grown.unwrap_or(times)
        });
        let Reading { requests, errors, request_bytes, response_bytes } = since.unwrap_or(reading);
        Growth { requests, errors, request_bytes, response_bytes, times }
    }

    fn since(&self, now: Reading) -> Option<Reading> {
        let then = &self.reading;
        Some(Reading {
            requests: now.requests.checked_sub(then.requests)?,
            errors: now.errors.checked_sub(then.errors)?,
            request_bytes: now.request_bytes.checked_sub(then.request_bytes)?,
            response_bytes: now.response_bytes.checked_sub(then.response_bytes)?,
        })
    }
}
