//! Upstreams that a change removed, and that finish what they have.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::{Pool, Snapshot, UpstreamState};
use crate::config::UpstreamAddress;

/// Whoever was removed, as long as a request is under way that knows them; nobody is kept alive by this.
#[derive(Default)]
pub(super) struct Leaving(Mutex<Vec<Weak<UpstreamState>>>);

impl Leaving {
    /// Remembers whom `after` does not have any more. Pools that did not change cost a look.
    pub(super) fn note(&self, before: &Snapshot, after: &Snapshot) {
        let kept: HashSet<*const Pool> = after.pools().map(std::ptr::from_ref).collect();
        let changed = after.pools().filter(|pool| pool.since == after.generation);
        let stays: HashSet<_> = changed.flat_map(states).map(Arc::as_ptr).collect();
        let replaced = before.pools().filter(|pool| !kept.contains(&std::ptr::from_ref(*pool)));
        let gone = replaced.flat_map(states).filter(|state| !stays.contains(&Arc::as_ptr(state)));
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Who is there again is not leaving.
        let leaves =
            |state: &Weak<UpstreamState>| state.strong_count() > 0 && !stays.contains(&state.as_ptr());
        all.retain(leaves);
        all.extend(gone.map(Arc::downgrade));
    }

    /// All of them.
    pub(super) fn all(&self) -> Vec<Arc<UpstreamState>> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().filter_map(Weak::upgrade).collect()
    }

    /// Those of this address.
    pub(super) fn at(&self, address: &UpstreamAddress) -> Vec<Arc<UpstreamState>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|state| state.strong_count() > 0);
        all.iter().filter_map(Weak::upgrade).filter(|state| state.address == *address).collect()
    }
}

fn states(pool: &Pool) -> impl Iterator<Item = &Arc<UpstreamState>> {
    pool.upstreams().iter().map(|upstream| &upstream.state)
}
