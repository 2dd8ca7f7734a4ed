//! May this upstream take a request? Checks, ejection, and what an operator said.
//!
//! ```text
//!   probes ──► Verdict ───┐
//!                         │
//!   traffic ─► Ejection ──┼──► Facts ──► eligibility ──► Ok, or WhyNot
//!                         │
//!   operator ─► Mode ─────┘
//! ```
//!
//! The three judge independently and none overrules another: an upstream is eligible when all agree.
//! [`Verdict`], [`Flapping`] and [`Ejection`] are one atomic word each; they belong to the live state of an upstream, and
//! outlive every reload. What time it is, arrives as an argument.
//!
//! **To add a reason**: a variant of [`WhyNot`], then follow the compiler.
//!
//! **Invariant**: this room uses `std` and nothing else (floor 0); nothing here locks, waits or allocates.

mod check;
mod ejection;
mod eligibility;
mod flapping;

use std::time::Duration;

pub use check::{Health, Transition, Verdict, next_probe_in};
pub use ejection::{
    CONSECUTIVE_FAILURES_MAX, EJECTION_MAX, Ejected, Ejection, EjectionGate, EjectionState, FORGIVEN_EVERY,
    MyTurn, PROBATION_SUCCESSES, Ticket, may_eject,
};
pub use eligibility::{Facts, Mode, WhyNot, eligibility};
pub use flapping::Flapping;

/// `ejection` of a pool: when traffic shows that an upstream is sick, it is left alone for a while.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EjectionPolicy {
    /// Failures in a row that eject, 1 to [`CONSECUTIVE_FAILURES_MAX`].
    pub consecutive_failures: u32,
    /// The first ejection lasts this long; each further one in a row twice the one before.
    pub base_duration: Duration,
    /// Largest share of the pool that may be out at a time, 0 to 1.
    pub max_ejected: f32,
}
