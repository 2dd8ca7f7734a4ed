//! An alarm that stands.

use serde::Serialize;

use super::utc;
use crate::observe::alarm::Alarm;
use crate::runtime::{Pool, Snapshot};

/// Alarms that are listed for the whole process; each pool lists all of its own.
const LISTED_MAX: usize = 100;

/// An alarm, where its upstream is known.
#[derive(Clone, Debug, Serialize)]
pub(in crate::admin) struct AlarmView {
    kind: &'static str,
    since: String,
    detail: String,
}

/// An alarm, and whose it is.
#[derive(Clone, Debug, Serialize)]
pub(in crate::admin) struct NamedAlarmView {
    pool: String,
    upstream: String,
    #[serde(flatten)]
    alarm: AlarmView,
}

impl AlarmView {
    pub(in crate::admin) fn of(Alarm { kind, since, detail }: Alarm) -> Self {
        Self { kind: kind.word(), since: utc(since.wall()), detail }
    }
}

impl NamedAlarmView {
    /// The first of all that stand.
    pub(in crate::admin) fn all(snapshot: &Snapshot) -> Vec<Self> {
        let upstreams = snapshot.pools().flat_map(Pool::upstreams);
        let alarms = upstreams.flat_map(|upstream| {
            let state = &upstream.state;
            let named = |alarm| Self {
                pool: state.pool.clone(),
                upstream: state.address.to_string(),
                alarm: AlarmView::of(alarm),
            };
            state.alarms.raised().into_iter().map(named).collect::<Vec<_>>()
        });
        alarms.take(LISTED_MAX).collect()
    }
}
