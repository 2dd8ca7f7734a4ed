//! Enters into the time lines of upstreams what a change of the configuration did to them, and tells those who
//! listen what else became of them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::{Author, Control, Happening, StateEvent};
use crate::observe::timeline::{Entry, Moment, Track};
use crate::runtime::{AlarmTurn, Pool, Snapshot, Upstream};

/// Events of one change: whoever changes more at once reads the time lines, and the listeners' other events stay.
const EVENTS_PER_CHANGE_MAX: usize = 64;

impl Control {
    /// What `author` changed by turning `before` into `after`: who came, who went, states and weights.
    pub(super) fn enter_change(
        &self,
        (before, after): (&Snapshot, &Snapshot),
        what: &str,
        author: &Author,
        now: Duration,
    ) {
        let why = author.why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
        let change = Change { cause: format!("{what} by {}{why}", author.who), author, now };
        let changed = after.pools_changed_since(before);
        let events: Vec<Happening> = changed.flat_map(|(old, pool)| change.enter_pool(old, pool)).collect();
        for event in events.into_iter().take(EVENTS_PER_CHANGE_MAX) {
            self.events.tell(event);
        }
        for gone in after.pools_gone_since(before).flat_map(Pool::upstreams) {
            change.enter_absence(gone);
        }
    }

    /// Tells of ejections that began or ended since the last time; every tick, by one thread.
    pub fn tell_of_ejections(&self) {
        let (snapshot, now) = (self.runtime.snapshot(), self.runtime.now());
        for pool in snapshot.pools() {
            for turn in pool.tell_of_ejections(now) {
                self.events.tell(Happening::ejection(&pool.config.name, &turn));
            }
        }
    }
}

impl Control {
    /// Raises and clears alarms; every [`SAMPLE`](crate::observe::SAMPLE), by one thread.
    ///
    /// Not by a process that has handed over: it sees hardly any traffic, and its alarms stand at the successor.
    pub fn judge_upstreams(&self) {
        if self.succession().is_handed_over() {
            return;
        }
        let (snapshot, now) = (self.runtime.snapshot(), self.runtime.now());
        for pool in snapshot.pools() {
            let name = &pool.config.name;
            for AlarmTurn { address, alarm, is_raised } in pool.judge_upstreams(now) {
                let (kind, detail) = (alarm.kind.word(), alarm.detail.as_str());
                if is_raised {
                    tracing::warn!(pool = %name, upstream = %address, alarm = kind, detail, "alarm raised");
                } else {
                    tracing::info!(pool = %name, upstream = %address, alarm = kind, "alarm cleared");
                }
                self.events.tell(Happening::alarm(name, address, &alarm, is_raised));
            }
        }
    }
}

/// One change of the configuration.
struct Change<'a> {
    cause: String,
    author: &'a Author,
    now: Duration,
}

impl Change<'_> {
    /// Answers what there is to tell beside the change itself. All of it is entered, whoever reads the answer.
    fn enter_pool(&self, before: Option<&Pool>, pool: &Pool) -> Vec<Happening> {
        let old = before.map(Pool::upstreams).unwrap_or_default();
        let mut known: HashMap<_, _> = old.iter().map(|old| (Arc::as_ptr(&old.state), old)).collect();
        let mut events = Vec::new();
        for upstream in pool.upstreams() {
            match known.remove(&Arc::as_ptr(&upstream.state)) {
                Some(old) => events.extend(self.enter_difference(pool, old, upstream)),
                None => upstream.state.note_presence(self.cause.clone(), self.now),
            }
        }
        for gone in known.into_values() {
            self.enter_absence(gone);
        }
        events
    }

    fn enter_difference(&self, pool: &Pool, old: &Upstream, new: &Upstream) -> Vec<Happening> {
        let (was, is) = (&old.config, &new.config);
        let mode =
            (was.mode != is.mode).then(|| (Track::State, was.mode.word().into(), is.mode.word().into()));
        let weight =
            (was.weight != is.weight).then(|| (Track::Weight, was.weight.to_string(), is.weight.to_string()));
        let differences: [Option<(Track, String, String)>; 2] = [mode, weight];
        let enter = |(track, from, to): (Track, String, String)| {
            let event = Happening::State(StateEvent {
                pool: new.state.pool.clone(),
                upstream: new.state.address.to_string(),
                what: track.word(),
                from: from.clone(),
                to: to.clone(),
                who: self.author.who.clone(),
                why: self.author.why.clone(),
            });
            let entry = Entry::new(Moment::now(self.now), track, from, to, self.cause.clone());
            new.state.timeline.push(entry.with_share(pool.share_of(&new.state, self.now)));
            event
        };
        differences.into_iter().flatten().map(enter).collect()
    }

    fn enter_absence(&self, gone: &Upstream) {
        let (at, cause) = (Moment::now(self.now), self.cause.clone());
        gone.state.timeline.push(Entry::new(at, Track::Presence, "present", "absent", cause));
    }
}
