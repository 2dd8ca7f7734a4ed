//! The in-flight guard of one attempt.

use std::sync::Arc;
use std::time::Duration;

use super::{PoolState, UpstreamState};
use crate::health::Ticket;

/// One request under way to an upstream; counted from creation to drop.
///
/// It points at the state that every snapshot shares, so the count goes back to where it was taken,
/// however many reloads happened in between.
pub struct Lease {
    upstream: Arc<UpstreamState>,
    pool: Arc<PoolState>,
    /// Given back with the outcome, or by `Drop` when there is none.
    ticket: Option<Ticket>,
    /// Requests in flight at the upstream when this one began, itself included.
    pub in_flight: u32,
}

impl Lease {
    /// `None` when the upstream was ejected, or its one trial request taken, in the same moment.
    pub(super) fn take(upstream: &Arc<UpstreamState>, pool: &Arc<PoolState>, now: Duration) -> Option<Self> {
        let ticket = upstream.ejection.admit(now)?;
        let in_flight = upstream.load.begin(now);
        Some(Self { upstream: upstream.clone(), pool: pool.clone(), ticket: Some(ticket), in_flight })
    }

    /// The leave to judge the upstream by this attempt: given once, so an outcome counts once.
    pub(super) fn take_ticket(&mut self) -> Option<Ticket> {
        self.ticket.take()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.upstream.metrics.attempt_given_up();
            self.upstream.load.abandoned();
            self.upstream.ejection.abandoned(ticket);
        }
        self.upstream.load.end();
        self.pool.queue.wake_one();
    }
}
