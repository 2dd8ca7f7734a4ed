//! A stand-in upstream for the tests of this room.

use std::cell::Cell;
use std::time::Duration;

use super::{Candidate, Load, Pick, Tried};

/// An upstream whose eligibility is set by hand, and that counts how often its load was asked for.
#[derive(Debug)]
pub(super) struct Fake {
    load: Load,
    eligible: Cell<bool>,
    loads_read: Cell<u32>,
}

impl Fake {
    pub(super) fn that_is(eligible: bool) -> Self {
        Self { load: Load::new(Duration::ZERO), eligible: Cell::new(eligible), loads_read: Cell::new(0) }
    }

    pub(super) fn eligible() -> Self {
        Self::that_is(true)
    }

    pub(super) fn down() -> Self {
        Self::that_is(false)
    }

    pub(super) fn become_eligible(&self, eligible: bool) {
        self.eligible.set(eligible);
    }

    pub(super) fn with_in_flight(self, count: u32) -> Self {
        (0..count).for_each(|_| {
            self.load.begin(Duration::ZERO);
        });
        self
    }

    pub(super) fn loads_read(&self) -> u32 {
        self.loads_read.get()
    }
}

impl Candidate for Fake {
    fn load(&self) -> &Load {
        self.loads_read.set(self.loads_read.get() + 1);
        &self.load
    }

    fn is_eligible(&self, _: Duration) -> bool {
        self.eligible.get()
    }
}

/// That many eligible upstreams.
pub(super) fn pool(size: usize) -> Vec<Fake> {
    (0..size).map(|_| Fake::eligible()).collect()
}

/// The `number`-th first attempt of a test, with a random number of its own.
pub(super) fn attempt(number: u64) -> Pick<'static> {
    static NOBODY: Tried = Tried::new();
    let random = super::randoms::mix(number.wrapping_add(1).wrapping_mul(super::randoms::GOLDEN));
    Pick { now: Duration::ZERO, hash: super::randoms::mix(random), random, tried: &NOBODY }
}
