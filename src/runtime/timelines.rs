//! Time lines over restarts: what is kept of them, and how the next process goes on with them.
//!
//! ```text
//!   Runtime::timelines ──► JSON ──► server.state_file ──► the next process: Runtime::go_on_with_timelines
//! ```
//!
//! Whoever ends says nothing any more: so the next process enters, for the moment at which the last one was heard
//! of, that it was gone, and that nobody knew of health or ejections from then on.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::legacy::known;
use super::{Pool, Runtime, Upstream};
use crate::observe::timeline::{ENTRIES_MAX, Entry, Moment, Track, escaped_length};

/// Bytes of all time lines together: all entries of 1 000 upstreams that never rest, the latest four of each where
/// there are 10 000, and one of most where there are 65 536.
pub const TIMELINES_BYTES_MAX: usize = 16 * 1024 * 1024;

/// All time lines, as they are kept.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    written: Moment,
    /// The process ended right after this.
    is_end: bool,
    /// By name, and by address.
    pools: BTreeMap<String, BTreeMap<String, Entries>>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(transparent)]
struct Entries(#[serde(deserialize_with = "known")] Vec<Entry>);

impl Runtime {
    /// The time lines of all upstreams, in at most [`TIMELINES_BYTES_MAX`] bytes: where that is too little, each
    /// upstream keeps fewer, the latest. `is_end`: nothing comes after this.
    pub fn timelines(&self, at: SystemTime, is_end: bool) -> Vec<u8> {
        self.timelines_within(TIMELINES_BYTES_MAX, at, is_end)
    }

    fn timelines_within(&self, bytes_max: usize, at: SystemTime, is_end: bool) -> Vec<u8> {
        let snapshot = self.snapshot();
        let halves = std::iter::successors(Some(ENTRIES_MAX), |most| (*most > 1).then_some(most / 2));
        let fits = |most: &usize| {
            let mut sizes = snapshot.pools().map(|pool| pool.timelines_bytes(*most));
            sizes
                .try_fold(FRAME_BYTES, |sum, size| Some(sum + size).filter(|&sum| sum <= bytes_max))
                .is_some()
        };
        let most = halves.clone().find(fits).unwrap_or(1);
        let mut left = bytes_max.saturating_sub(FRAME_BYTES);
        let pools = snapshot.pools().map(|pool| {
            left = left.saturating_sub(member_bytes(&pool.config.name));
            (pool.config.name.clone(), pool.timelines(most, &mut left))
        });
        let kept = Kept { written: Moment::at(at, self.now()), is_end, pools: pools.collect() };
        serde_json::to_vec(&kept).unwrap_or_default()
    }

    /// Goes on with the [`timelines`](Self::timelines) of the process before, whose upstreams are found again by
    /// pool and address. Called once, before anything runs.
    ///
    /// # Errors
    ///
    /// Nobody can read that. Then nothing has changed.
    pub fn go_on_with_timelines(&self, bytes: &[u8]) -> Result<(), serde_json::Error> {
        let Kept { written, is_end, mut pools } = serde_json::from_slice(bytes)?;
        let (snapshot, now) = (self.snapshot(), self.now());
        let gap = Gap { begins: written, is_end, ends: Moment::now(now) };
        for pool in snapshot.pools() {
            let Some(mut of_pool) = pools.remove(&pool.config.name) else { continue };
            for upstream in pool.upstreams() {
                if let Some(Entries(entries)) = of_pool.remove(&*upstream.label) {
                    upstream.go_on(entries, &gap);
                }
            }
        }
        Ok(())
    }
}

impl Pool {
    fn timelines_bytes(&self, most: usize) -> usize {
        let all = self.upstreams().iter();
        member_bytes(&self.config.name) + all.map(|it| it.timeline_bytes(&it.latest(most))).sum::<usize>()
    }

    fn timelines(&self, most: usize, left: &mut usize) -> BTreeMap<String, Entries> {
        let entries = self.upstreams().iter().filter_map(|upstream| {
            let latest = upstream.latest(most);
            *left = left.checked_sub(upstream.timeline_bytes(&latest))?;
            Some((upstream.label.to_string(), Entries(latest)))
        });
        entries.collect()
    }
}

impl Upstream {
    fn latest(&self, most: usize) -> Vec<Entry> {
        let mut entries = self.state.timeline.entries();
        entries.split_off(entries.len().saturating_sub(most))
    }

    fn timeline_bytes(&self, entries: &[Entry]) -> usize {
        member_bytes(&self.label) + entries.iter().map(Entry::json_bytes_max).sum::<usize>()
    }

    fn go_on(&self, entries: Vec<Entry>, gap: &Gap) {
        let mut entries = entries;
        let superfluous = entries.len().saturating_sub(ENTRIES_MAX);
        entries.drain(..superfluous);
        let unknown = gap.entries(
            &entries,
            [(Track::Presence, "absent"), (Track::Health, "unknown"), (Track::Ejection, "admitted")],
        );
        let weight = self.config.weight.to_string();
        let changed =
            gap.changes(&entries, [(Track::State, self.config.mode.word()), (Track::Weight, &weight)]);
        entries.extend(unknown);
        self.state.timeline.go_on(entries, false);
        for entry in changed {
            self.state.timeline.push(entry);
        }
    }
}

/// The time in which no process ran.
struct Gap {
    begins: Moment,
    /// Or else it began there at the earliest.
    is_end: bool,
    ends: Moment,
}

impl Gap {
    /// What ended with the process: whatever stood otherwise.
    fn entries(&self, before: &[Entry], at_rest: [(Track, &'static str); 3]) -> Vec<Entry> {
        let cause = if self.is_end { ENDED } else { ENDED_WITHOUT_A_WORD };
        turns(before, at_rest)
            .map(|(track, was, is)| Entry::new(self.begins, track, was, is, cause))
            .collect()
    }

    /// What was decided while no process ran: nobody knows when.
    fn changes(&self, before: &[Entry], now: [(Track, &str); 2]) -> Vec<Entry> {
        turns(before, now)
            .map(|(track, was, is)| Entry::new(self.ends, track, was, is.to_owned(), BEGAN_WITH_IT))
            .collect()
    }
}

/// What differs from how it stood at last, as far as that is known.
fn turns<'a, const N: usize>(
    before: &[Entry],
    now: [(Track, &'a str); N],
) -> impl Iterator<Item = (Track, String, &'a str)> {
    now.into_iter().filter_map(|(track, is)| {
        let last = before.iter().rev().find(|entry| entry.track == track)?;
        (last.to != is).then(|| (track, last.to.to_string(), is))
    })
}

const ENDED: &str = "the process ended";

const ENDED_WITHOUT_A_WORD: &str =
    "the process ended without a word, then or later: this is the last it wrote";

const BEGAN_WITH_IT: &str = "it was changed while no process ran; the process began with it";

/// What stands around all pools.
const FRAME_BYTES: usize = 160;

/// A name, and what stands around it.
fn member_bytes(name: &str) -> usize {
    escaped_length(name) + 8
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::{Source, parse};

    const TWO: &str = "[listeners.http]\naddress = \"127.0.0.1:8080\"\n[pools.app]\nupstreams = [\"127.0.0.1:9001\", \"unix:/run/app.sock\"]\n";

    fn runtime(text: &str) -> Runtime {
        let source = Source { name: String::new(), text: text.to_owned(), folder: ".".into() };
        Runtime::new(parse(&source, &|_| None).unwrap(), 1, 0, None)
    }

    fn enter(runtime: &Runtime, track: Track, from: &'static str, to: &'static str) {
        let snapshot = runtime.snapshot();
        let timeline = &snapshot.pool_named("app").unwrap().upstreams()[0].state.timeline;
        timeline
            .push(Entry::new(Moment::now(runtime.now()), track, from, to, "because").with_share(Some(0.25)));
    }

    /// Of the first upstream.
    fn entries(runtime: &Runtime) -> Vec<Entry> {
        runtime.snapshot().pool_named("app").unwrap().upstreams()[0].state.timeline.entries()
    }

    fn told(entries: &[Entry]) -> Vec<(&str, &str, &str)> {
        entries.iter().map(|entry| (entry.track.word(), entry.from.as_ref(), entry.to.as_ref())).collect()
    }

    #[test]
    fn the_next_process_goes_on_and_says_that_nobody_was_there() {
        let old = runtime(TWO);
        enter(&old, Track::Health, "unknown", "up");
        enter(&old, Track::Ejection, "admitted", "ejected");
        enter(&old, Track::State, "ready", "drain");
        enter(&old, Track::Weight, "1", "5");
        let ended = SystemTime::now() - Duration::from_secs(60);
        let kept = old.timelines(ended, true);
        let new = runtime(TWO);
        new.go_on_with_timelines(&kept).unwrap();
        let all = entries(&new);
        let expected = [
            ("presence", "absent", "present"),
            ("health", "unknown", "up"),
            ("ejection", "admitted", "ejected"),
            ("state", "ready", "drain"),
            ("weight", "1", "5"),
            ("presence", "present", "absent"),
            ("health", "up", "unknown"),
            ("ejection", "ejected", "admitted"),
            ("presence", "absent", "present"),
            ("state", "drain", "ready"),
            ("weight", "5", "1"),
        ];
        assert_eq!(told(&all), expected);
        assert_eq!((all[1].share, all[1].cause.as_ref()), (Some(0.25), "because"));
        assert_eq!((all[5].cause.as_ref(), all[9].cause.as_ref()), (ENDED, BEGAN_WITH_IT));
        let snapshot = new.snapshot();
        let state = &snapshot.pool_named("app").unwrap().upstreams()[0].state;
        let lasted = state.timeline.lasted(Moment::now(new.now()));
        let absent = lasted[5].duration.as_secs();
        assert!((60..120).contains(&absent), "nobody was there for {absent} s");
    }

    #[test]
    fn who_was_cut_off_is_said_to_have_ended_then_or_later() {
        let (old, new) = (runtime(TWO), runtime(TWO));
        new.go_on_with_timelines(&old.timelines(SystemTime::now(), false)).unwrap();
        assert_eq!(entries(&new)[1].cause, ENDED_WITHOUT_A_WORD);
    }

    #[test]
    fn who_is_not_configured_any_more_is_forgotten() {
        let old = runtime(TWO);
        enter(&old, Track::Health, "unknown", "up");
        let new = runtime(&TWO.replace("9001", "9002"));
        new.go_on_with_timelines(&old.timelines(SystemTime::now(), true)).unwrap();
        assert_eq!(told(&entries(&new)), [("presence", "absent", "present")]);
        let again = new.timelines(SystemTime::now(), true);
        assert!(!String::from_utf8(again).unwrap().contains("9001"));
    }

    #[test]
    fn where_there_is_little_room_the_latest_are_kept() {
        let old = runtime(TWO);
        for _ in 0..ENTRIES_MAX {
            enter(&old, Track::Health, "down", "up");
        }
        let all = old.timelines(SystemTime::now(), true).len();
        let mut before = usize::MAX;
        for bytes_max in [all * 3, all, all / 2, 1_000, 400, 100, 0] {
            let kept = old.timelines_within(bytes_max, SystemTime::now(), true);
            assert!(kept.len() <= bytes_max.max(FRAME_BYTES), "{} of {bytes_max}", kept.len());
            let new = runtime(TWO);
            new.go_on_with_timelines(&kept).unwrap();
            let entries = entries(&new);
            assert_eq!(told(&entries).last(), Some(&("presence", "absent", "present")), "{bytes_max}");
            assert!(entries.len() <= before, "{} of {bytes_max}, {before} before", entries.len());
            before = entries.len();
        }
        assert_eq!(before, 1, "at last there is room for nobody");
    }

    #[test]
    fn what_nobody_understands_is_left_out() {
        let new = runtime(TWO);
        for broken in
            ["", "[]", "{\"written\": 1}", "{\"written\": {\"at_ms\": 1}, \"is_end\": true, \"pools\": []}"]
        {
            assert!(new.go_on_with_timelines(broken.as_bytes()).is_err(), "{broken}");
        }
        let strange = r#"{"written": {"at_ms": 18446744073709551615, "luck": 1}, "is_end": true, "pools": {"ghosts": {}, "app": {
            "127.0.0.1:9001": [7, {"at": {"at_ms": 1}, "track": "mood", "from": "a", "to": "b", "cause": ""},
                               {"at": {"at_ms": 1}, "track": "health", "from": "unknown", "to": "up", "cause": "x"}]}}}"#;
        new.go_on_with_timelines(strange.as_bytes()).unwrap();
        let expected =
            [("health", "unknown", "up"), ("health", "up", "unknown"), ("presence", "absent", "present")];
        assert_eq!(told(&entries(&new)), expected);
        assert!(entries(&new).iter().all(|entry| entry.at.wall() <= SystemTime::now()));
    }
}
