//! A 32-bit float that threads may read and write without a lock.

use std::sync::atomic::{AtomicU32, Ordering};

/// Relaxed throughout: each value stands for itself and orders nothing else.
#[derive(Debug)]
pub(super) struct Float(AtomicU32);

impl Float {
    pub(super) const fn new(value: f32) -> Self {
        Self(AtomicU32::new(value.to_bits()))
    }

    pub(super) fn load(&self) -> f32 {
        f32::from_bits(self.0.load(Ordering::Relaxed))
    }

    pub(super) fn store(&self, value: f64) {
        self.0.store(narrow(value).to_bits(), Ordering::Relaxed);
    }
}

/// The nearest float of half the size: seven digits, more than any estimate here deserves.
#[expect(clippy::cast_possible_truncation, reason = "rounding is what is wanted")]
pub(super) const fn narrow(value: f64) -> f32 {
    value as f32
}
