//! Whether the process wants traffic.

use std::sync::atomic::{AtomicU8, Ordering};

/// What the process is doing, as `/readyz` tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Listeners do not accept yet, signals are not heard, or the first round of health checks is not done.
    Starting,
    /// Traffic is welcome.
    Ready,
    /// Requests in flight finish; new connections belong elsewhere.
    Draining,
}

const LISTENING: u8 = 1;
const PROBED: u8 = 2;
const HEARING: u8 = 4;
const DRAINING: u8 = 8;
const TAKING_OVER: u8 = 16;

/// The phase, readable from everywhere. It only moves forward.
#[derive(Debug, Default)]
pub struct Readiness(AtomicU8);

impl Readiness {
    /// The phase as of now.
    pub fn phase(&self) -> Phase {
        match self.0.load(Ordering::Acquire) & !TAKING_OVER {
            reached if reached & DRAINING != 0 => Phase::Draining,
            reached if reached == LISTENING | PROBED | HEARING => Phase::Ready,
            _ => Phase::Starting,
        }
    }

    /// The phase for those who ask over the side port. While this process takes over, traffic is as welcome as
    /// before: its predecessor accepts on the same sockets until this one does.
    pub fn seen(&self) -> Phase {
        let is_taking_over = self.0.load(Ordering::Acquire) & TAKING_OVER != 0;
        match self.phase() {
            Phase::Starting if is_taking_over && self.could_listen() => Phase::Ready,
            phase => phase,
        }
    }

    /// Whether nothing is missing but listeners that accept.
    pub fn could_listen(&self) -> bool {
        (self.0.load(Ordering::Acquire) | LISTENING) & !TAKING_OVER == LISTENING | PROBED | HEARING
    }

    /// Somebody else's listeners become those of this process.
    pub fn set_taking_over(&self) {
        self.0.fetch_or(TAKING_OVER, Ordering::AcqRel);
    }

    /// Every listener accepts connections.
    pub fn set_listening(&self) {
        self.0.fetch_or(LISTENING, Ordering::AcqRel);
    }

    /// The first round of health checks is done.
    pub fn set_probed(&self) {
        self.0.fetch_or(PROBED, Ordering::AcqRel);
    }

    /// Signals are heard: before that, the one that asks for an orderly end would kill.
    pub fn set_hearing(&self) {
        self.0.fetch_or(HEARING, Ordering::AcqRel);
    }

    /// The process is about to stop.
    pub fn set_draining(&self) {
        self.0.fetch_or(DRAINING, Ordering::AcqRel);
    }
}
