//! What became of one upstream, and why: its latest transitions, oldest first.
//!
//! ```text
//!   probe, operator, reload, traffic ──► Entry ──► Timeline, the latest ENTRIES_MAX ──► those who look
//! ```
//!
//! An entry says what it was before, what it is since, when and why. How long that lasted follows from the next
//! entry of the same kind. Written when something changes, never by an ordinary request. A quiet upstream has two
//! entries, some 300 bytes; one that never rests has 64, at most 30 KiB.
//!
//! Some things come in turns: in a pool of which nobody is well, an upstream is ejected and taken back many times a
//! second; a process that crashes is absent and present again. Two turns that are as the two before say nothing new
//! but when and how often, and are folded into those: so the entry of the beginning stays.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// Entries that are kept: sixteen restarts, each of which is down and up for probes and for traffic.
pub const ENTRIES_MAX: usize = 64;

/// Bytes of a cause; what an upstream or a probe says may be longer, and is cut.
pub const CAUSE_BYTES_MAX: usize = 256;

/// What an entry is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Track {
    /// Whether it is there at all: `absent`, `present`.
    Presence,
    /// What health checks say: `unknown`, `up`, `down`.
    Health,
    /// What traffic says: `admitted`, `ejected`, `probation`.
    Ejection,
    /// What an operator wants: `ready`, `drain`, `maintenance`.
    State,
    /// Its weight, a number.
    Weight,
}

impl Track {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Presence, Self::Health, Self::Ejection, Self::State, Self::Weight];

    /// The word in the API.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Presence => "presence",
            Self::Health => "health",
            Self::Ejection => "ejection",
            Self::State => "state",
            Self::Weight => "weight",
        }
    }
}

/// When something happened, on both clocks: one says what people read, the other how long things lasted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moment {
    /// Milliseconds since 1970.
    at_ms: u64,
    /// Milliseconds since the epoch of the process; `None`: another process saw it, whose epoch is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    since_epoch_ms: Option<u64>,
}

impl Moment {
    /// `now` is the time since the epoch of the process.
    pub fn now(now: Duration) -> Self {
        Self::at(SystemTime::now(), now)
    }

    /// As [`Moment::now`], for who has looked at the wall already.
    pub fn at(wall: SystemTime, now: Duration) -> Self {
        let since_1970 = wall.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { at_ms: millis(since_1970), since_epoch_ms: Some(millis(now)) }
    }

    /// So much earlier.
    #[must_use]
    pub fn earlier_by(self, time: Duration) -> Self {
        let earlier = |at_ms: u64| at_ms.saturating_sub(millis(time));
        Self { at_ms: earlier(self.at_ms), since_epoch_ms: self.since_epoch_ms.map(earlier) }
    }

    /// On the wall.
    pub fn wall(self) -> SystemTime {
        UNIX_EPOCH.checked_add(Duration::from_millis(self.at_ms)).unwrap_or(UNIX_EPOCH)
    }

    /// By the clock that nobody sets, where both are known by it.
    fn is_before(self, other: Self) -> bool {
        match (self.since_epoch_ms, other.since_epoch_ms) {
            (Some(this), Some(other)) => this < other,
            _ => self.at_ms < other.at_ms,
        }
    }

    /// From here to there: by the clock that nobody sets, where both are known by it. Never negative.
    pub fn until(self, later: Self) -> Duration {
        let lasted = match (self.since_epoch_ms, later.since_epoch_ms) {
            (Some(from), Some(to)) => to.saturating_sub(from),
            _ => later.at_ms.saturating_sub(self.at_ms),
        };
        Duration::from_millis(lasted)
    }
}

/// One transition.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// When.
    pub at: Moment,
    /// What it is about.
    pub track: Track,
    /// Before; a word of the track, or a number.
    pub from: Cow<'static, str>,
    /// Since.
    pub to: Cow<'static, str>,
    /// Why, in words: what a probe met, who asked for it. At most [`CAUSE_BYTES_MAX`] bytes.
    pub cause: Cow<'static, str>,
    /// Share of the pool's traffic that it had in the minute before, 0 to 1; `None`: there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<f32>,
    /// `None`: it came once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    again: Option<Box<Again>>,
}

/// That an entry came more than once, in turns with the one before it or the one behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Again {
    times: u32,
    last: Moment,
    /// How long it held, the last time left out.
    earlier_ms: u64,
}

impl Entry {
    /// A transition, without the share of traffic.
    pub fn new(
        at: Moment,
        track: Track,
        from: impl Into<Cow<'static, str>>,
        to: impl Into<Cow<'static, str>>,
        cause: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            at,
            track,
            from: from.into(),
            to: to.into(),
            cause: cut(cause.into()),
            share: None,
            again: None,
        }
    }

    /// As it may be kept, whoever wrote it.
    fn bounded(self) -> Self {
        let share = self.share.filter(|share| (0.0..=1.0).contains(share));
        let again = self.again.filter(|again| again.times > 1);
        Self { from: cut(self.from), to: cut(self.to), cause: cut(self.cause), share, again, ..self }
    }

    /// Bytes that it takes as JSON, at most.
    pub fn json_bytes_max(&self) -> usize {
        let texts = [&self.from, &self.to, &self.cause];
        let again = self.again.as_ref().map_or(0, |_| AGAIN_BYTES);
        FRAME_BYTES + again + texts.into_iter().map(|text| escaped_length(text)).sum::<usize>()
    }

    /// How often it came.
    pub fn times(&self) -> u32 {
        self.again.as_ref().map_or(1, |again| again.times)
    }

    /// When it came last; at first: [`Entry::at`].
    pub fn last(&self) -> Moment {
        self.again.as_ref().map_or(self.at, |again| again.last)
    }

    /// How long it held until `next` came instead, all times together.
    fn held_until(&self, next: &Self) -> Duration {
        // Two that come in turns begin one after the other, and end so.
        self.held_to(if next.at.is_before(self.last()) { next.last() } else { next.at })
    }

    fn held_to(&self, end: Moment) -> Duration {
        let earlier_ms = self.again.as_ref().map_or(0, |again| again.earlier_ms);
        Duration::from_millis(earlier_ms) + self.last().until(end)
    }

    /// Takes in another like it; `held` so long in all until then.
    fn add(&mut self, other: &Self, held: Duration) {
        let earlier_ms = other.again.as_ref().map_or(0, |again| again.earlier_ms);
        self.again = Some(Box::new(Again {
            times: self.times().saturating_add(other.times()),
            last: other.last(),
            earlier_ms: millis(held).saturating_add(earlier_ms),
        }));
    }

    /// Whether it says the same, but for the time. How many requests failed before an ejection is another number
    /// each time.
    fn is_like(&self, other: &Self) -> bool {
        let is_same = (self.track, &self.from, &self.to) == (other.track, &other.from, &other.to);
        is_same && (self.track == Track::Ejection || self.cause == other.cause)
    }

    /// Whether it takes the other back.
    fn undoes(&self, other: &Self) -> bool {
        (&self.from, &self.to) == (&other.to, &other.from)
    }

    /// How long after the last time of one like it; `None`: it is another, or that was too long ago.
    fn again_after(&self, other: &Self) -> Option<Duration> {
        let after = other.last().until(self.at);
        (self.is_like(other) && after <= AGAIN_WITHIN).then_some(after)
    }

    /// Whether it may be folded, where it comes again. What an operator does, and how health checks turned out, is
    /// worth an entry each time; that they knew nothing because no process ran is not.
    fn folds(&self) -> bool {
        match self.track {
            Track::Presence | Track::Ejection => true,
            Track::Health => [&self.from, &self.to].into_iter().any(|word| *word == "unknown"),
            Track::State | Track::Weight => false,
        }
    }

    /// With the share of the pool's traffic that it had.
    #[must_use]
    pub fn with_share(self, share: Option<f64>) -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "a share of traffic has few digits that matter")]
        let share = share.map(|share| share as f32);
        Self { share, ..self }
    }
}

/// An entry, and how long it held.
#[derive(Clone, Debug, PartialEq)]
pub struct Lasted {
    /// The entry.
    pub entry: Entry,
    /// Until the next of the same track, or until now; all times together.
    pub duration: Duration,
    /// No other of the same track came since.
    pub is_current: bool,
}

/// The latest transitions of one upstream. Nobody waits for long: whoever looks takes a copy.
#[derive(Debug, Default)]
pub struct Timeline(Mutex<VecDeque<Entry>>);

impl Timeline {
    /// Takes one down; the oldest goes when there is no room. One that is told late stands where it belongs, and
    /// one that comes in turns with another is counted only: see the module.
    pub fn push(&self, entry: Entry) {
        let mut entries = self.lock();
        if !fold(&mut entries, &entry) {
            put(&mut entries, entry);
        }
    }

    /// How long ago the last like this one came, with one other of its track since. `None`: there was none within
    /// an hour.
    pub fn again_after(&self, entry: &Entry) -> Option<Duration> {
        let entries = self.lock();
        let [_, same, _] = latest(&entries, entry.track);
        entry.again_after(entries.get(same?)?)
    }

    /// Forgets all of them.
    pub fn clear(&self) {
        self.lock().clear();
    }

    /// All of them, oldest first.
    pub fn entries(&self) -> Vec<Entry> {
        self.lock().iter().cloned().collect()
    }

    /// Since when it is what this word of the track says; `None`: it is something else, or nobody remembers.
    pub fn since(&self, track: Track, word: &str) -> Option<SystemTime> {
        let entries = self.lock();
        let latest = entries.iter().rev().find(|entry| entry.track == track)?;
        (latest.to == word).then(|| latest.at.wall())
    }

    /// All of them, oldest first, with how long each held as of `now`.
    pub fn lasted(&self, now: Moment) -> Vec<Lasted> {
        let entries = self.entries();
        let next = |index: usize, track| {
            let after = entries.get(index + 1..).unwrap_or_default();
            after.iter().find(|entry| entry.track == track)
        };
        let all = entries.iter().enumerate().map(|(index, entry)| {
            let next = next(index, entry.track);
            let duration = next.map_or_else(|| entry.held_to(now), |next| entry.held_until(next));
            Lasted { entry: entry.clone(), duration, is_current: next.is_none() }
        });
        all.collect()
    }

    /// Goes on with the entries of another process, which come before all that happens here. `same_epoch`: its
    /// clock is ours.
    pub fn go_on(&self, memory: Vec<Entry>, same_epoch: bool) {
        let mut entries = self.lock();
        let latest = Moment::now(Duration::ZERO).at_ms;
        let foreign = memory.into_iter().map(|mut entry| {
            if !same_epoch {
                // Nothing of it lies in the future, whatever its clock said.
                let past = |at: Moment| Moment { at_ms: at.at_ms.min(latest), since_epoch_ms: None };
                entry.at = past(entry.at);
                if let Some(again) = &mut entry.again {
                    again.last = past(again.last);
                }
            }
            entry.bounded()
        });
        let all: Vec<Entry> = foreign.chain(entries.drain(..)).collect();
        for entry in all {
            if !fold(&mut entries, &entry) {
                if entries.len() >= ENTRIES_MAX {
                    entries.pop_front();
                }
                entries.push_back(entry);
            }
        }
        entries.shrink_to_fit();
    }

    /// Nobody holds the lock while anything can fail.
    fn lock(&self) -> MutexGuard<'_, VecDeque<Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Puts it where it belongs by its time.
fn put(entries: &mut VecDeque<Entry>, entry: Entry) {
    if entries.len() >= ENTRIES_MAX {
        entries.pop_front();
    } else if entries.capacity() == entries.len() {
        // Most upstreams have two entries for ever; room for four would be wasted on tens of thousands.
        let more = entries.len().max(1);
        entries.reserve_exact(more);
    }
    let is_later = |other: &Entry| match (other.at.since_epoch_ms, entry.at.since_epoch_ms) {
        (Some(other), Some(this)) => other > this,
        _ => false,
    };
    let later = entries.iter().rev().take_while(|other| is_later(other)).count();
    let place = entries.len() - later;
    entries.insert(place, entry);
}

/// The last three of a track: where they stand, the latest first.
fn latest(entries: &VecDeque<Entry>, track: Track) -> [Option<usize>; 3] {
    let mut of_track =
        (0..entries.len()).rev().filter(|&at| entries.get(at).is_some_and(|it| it.track == track));
    [of_track.next(), of_track.next(), of_track.next()]
}

/// Folds it, and the one before it, into the two before those, if they say the same. Whether it did.
fn fold(entries: &mut VecDeque<Entry>, entry: &Entry) -> bool {
    let [Some(third), Some(second), Some(first)] = latest(entries, entry.track) else { return false };
    let of = |place: usize| entries.get(place);
    let (Some(one), Some(other), Some(again)) = (of(first), of(second), of(third)) else { return false };
    let is_again = again.again_after(one).and(entry.again_after(other)).is_some();
    if !is_again || !entry.undoes(again) || entry.at.is_before(again.last()) || !entry.folds() {
        return false;
    }
    let (one_held, other_held) = (one.held_until(other), other.held_until(again));
    let Some(again) = entries.remove(third) else { return false };
    if let Some(other) = entries.get_mut(second) {
        other.add(entry, other_held);
    }
    if let Some(one) = entries.get_mut(first) {
        one.add(&again, one_held);
    }
    true
}

/// What comes again within this time of the last is the same trouble: an upstream that is tried and found failing,
/// every five minutes at the longest, or a process that is started and crashes.
const AGAIN_WITHIN: Duration = Duration::from_secs(3_600);

/// At most [`CAUSE_BYTES_MAX`] bytes, in whole characters.
fn cut(text: Cow<'static, str>) -> Cow<'static, str> {
    if text.len() <= CAUSE_BYTES_MAX {
        return text;
    }
    let end = (0..=CAUSE_BYTES_MAX - ELLIPSIS.len()).rev().find(|&end| text.is_char_boundary(end));
    let start = end.and_then(|end| text.get(..end)).unwrap_or_default();
    format!("{start}{ELLIPSIS}").into()
}

const ELLIPSIS: &str = "…";

/// What stands around the texts of an entry: names of members, two times of 20 digits, a share.
const FRAME_BYTES: usize = 192;

/// What says how often an entry came: four numbers of at most 20 digits and their names.
const AGAIN_BYTES: usize = 160;

/// Bytes that a text takes within the quotation marks of JSON.
pub fn escaped_length(text: &str) -> usize {
    let length = |byte: u8| match byte {
        b'"' | b'\\' => 2,
        0..0x20 => 6,
        _ => 1,
    };
    text.bytes().map(length).sum()
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment { at_ms: 1_000_000 + seconds * 1000, since_epoch_ms: Some(seconds * 1000) }
    }

    fn health(seconds: u64, to: &'static str) -> Entry {
        Entry::new(at(seconds), Track::Health, "unknown", to, "because")
    }

    #[test]
    fn an_entry_lasts_until_the_next_of_its_track() {
        let timeline = Timeline::default();
        timeline.push(health(1, "up"));
        timeline.push(Entry::new(at(3), Track::State, "ready", "drain", "edit by loopback"));
        timeline.push(health(7, "down"));
        let lasted: Vec<_> = timeline
            .lasted(at(20))
            .iter()
            .map(|it| (it.entry.to.to_string(), it.duration.as_secs(), it.is_current))
            .collect();
        let expected = [("up", 6, false), ("drain", 17, true), ("down", 13, true)];
        assert_eq!(lasted, expected.map(|(to, seconds, current)| (to.to_owned(), seconds, current)));
    }

    #[test]
    fn since_when_is_known_of_what_is() {
        let timeline = Timeline::default();
        timeline.push(health(1, "down"));
        timeline.push(Entry::new(at(3), Track::State, "ready", "drain", "edit by loopback"));
        assert_eq!(timeline.since(Track::Health, "down"), Some(at(1).wall()));
        timeline.push(health(7, "up"));
        assert_eq!(timeline.since(Track::Health, "down"), None, "it was");
        assert_eq!(timeline.since(Track::Ejection, "ejected"), None, "nobody remembers");
    }

    #[test]
    fn what_is_told_late_stands_where_it_belongs() {
        let timeline = Timeline::default();
        for second in [1, 5, 9, 4] {
            timeline.push(health(second, "up"));
        }
        let order: Vec<_> = timeline.entries().iter().map(|entry| entry.at).collect();
        assert_eq!(order, [1, 4, 5, 9].map(at));
    }

    #[test]
    fn the_wall_clock_may_jump_and_durations_stay() {
        let back = Moment { at_ms: 500, ..at(10) };
        assert_eq!(at(4).until(back), Duration::from_secs(6));
        let foreign = Moment { since_epoch_ms: None, ..at(4) };
        assert_eq!(foreign.until(at(10)), Duration::from_secs(6), "by the wall, for want of better");
        assert_eq!(foreign.until(back), Duration::ZERO, "and never less than nothing");
    }

    #[test]
    fn a_long_cause_is_cut_between_characters() {
        for text in ["ä".repeat(300), "x".repeat(10_000), "€".repeat(86)] {
            let entry = Entry::new(at(0), Track::Health, "up", "down", text.clone());
            assert!(entry.cause.len() <= CAUSE_BYTES_MAX && entry.cause.ends_with('…'), "{}", entry.cause);
            assert!(text.starts_with(entry.cause.trim_end_matches('…')));
        }
    }

    #[test]
    fn another_process_goes_on_with_it() {
        let (old, new) = (Timeline::default(), Timeline::default());
        (0..60).for_each(|second| old.push(health(second, "up")));
        (0..10).for_each(|second| new.push(health(100 + second, "down")));
        let sent: Vec<Entry> = serde_json::from_str(&serde_json::to_string(&old.entries()).unwrap()).unwrap();
        assert_eq!(sent, old.entries());
        new.go_on(sent, false);
        let all = new.entries();
        assert_eq!((all.len(), all[0].at.at_ms, all[63].to.as_ref()), (64, at(6).at_ms, "down"));
        assert_eq!(all[0].at.since_epoch_ms, None);
    }

    #[test]
    fn what_another_process_says_is_bounded() {
        let timeline = Timeline::default();
        let long = "x".repeat(10_000);
        let at = Moment { at_ms: u64::MAX, since_epoch_ms: None };
        let entry = Entry {
            share: Some(7.0),
            again: Some(Box::new(Again { times: 0, last: at, earlier_ms: u64::MAX })),
            cause: long.clone().into(),
            ..Entry::new(at, Track::State, long.clone(), long, "")
        };
        timeline.go_on(vec![entry], false);
        let kept = timeline.entries().remove(0);
        assert!(kept.at.wall() <= SystemTime::now() && kept.share.is_none(), "{kept:?}");
        assert_eq!((kept.times(), kept.last()), (1, kept.at));
        assert!([&kept.from, &kept.to, &kept.cause].iter().all(|text| text.len() <= CAUSE_BYTES_MAX));
    }

    #[test]
    fn no_entry_takes_more_room_than_it_says() {
        for cause in ["", "\"quoted\" \\ \u{1}\u{1f}\n ä€", &"\0".repeat(CAUSE_BYTES_MAX)] {
            let at = Moment { at_ms: u64::MAX, since_epoch_ms: Some(u64::MAX) };
            let entry =
                Entry::new(at, Track::Ejection, "a\"", "b", cause.to_owned()).with_share(Some(1.0 / 3.0));
            let json = serde_json::to_string(&entry).unwrap();
            assert!(json.len() <= entry.json_bytes_max(), "{} of {json}", entry.json_bytes_max());
            let again = Some(Box::new(Again { times: u32::MAX, last: at, earlier_ms: u64::MAX }));
            let entry = Entry { again, ..entry };
            let json = serde_json::to_string(&entry).unwrap();
            assert!(json.len() <= entry.json_bytes_max(), "{} of {json}", entry.json_bytes_max());
        }
    }

    fn ejection(seconds: u64, from: &'static str, to: &'static str, failures: u64) -> Entry {
        Entry::new(at(seconds), Track::Ejection, from, to, format!("{failures} requests in a row failed"))
    }

    /// What is told of each: where it led to, how often, when first and last, how long in all.
    fn told(timeline: &Timeline, now: u64) -> Vec<(String, u32, u64, u64, u64)> {
        let seconds = |moment: Moment| moment.since_epoch_ms.unwrap() / 1000;
        let told = |it: &Lasted| {
            let (entry, held) = (&it.entry, it.duration.as_secs());
            (entry.to.to_string(), entry.times(), seconds(entry.at), seconds(entry.last()), held)
        };
        timeline.lasted(at(now)).iter().map(told).collect()
    }

    #[test]
    fn what_comes_in_turns_is_folded_and_its_beginning_stays() {
        let timeline = Timeline::default();
        timeline.push(health(1, "up"));
        for turn in 0..1_000 {
            timeline.push(ejection(10 + 5 * turn, "admitted", "ejected", 5 + turn % 3));
            timeline.push(ejection(11 + 5 * turn, "ejected", "admitted", 0));
        }
        // One that is meant, at last.
        let meant = ejection(5_010, "admitted", "ejected", 7);
        assert_eq!(timeline.again_after(&meant), Some(Duration::from_secs(5)), "since the last time");
        timeline.push(meant);
        timeline.push(ejection(5_020, "ejected", "probation", 0));
        let expected = [
            ("up", 1, 1, 1, 5_029),
            ("ejected", 1_000, 10, 5_005, 1_000),
            ("admitted", 1_000, 11, 5_006, 4_000),
            ("ejected", 1, 5_010, 5_010, 10),
            ("probation", 1, 5_020, 5_020, 10),
        ];
        let expected = expected.map(|(to, times, at, last, held)| (to.to_owned(), times, at, last, held));
        assert_eq!(told(&timeline, 5_030), expected);
        assert_eq!(timeline.entries()[1].cause, "5 requests in a row failed", "of the first");
    }

    #[test]
    fn what_comes_again_much_later_is_news() {
        let timeline = Timeline::default();
        for hour in 0..4 {
            timeline.push(ejection(4_000 * hour, "admitted", "ejected", 5));
            timeline.push(ejection(4_000 * hour + 1, "ejected", "admitted", 0));
        }
        assert_eq!(timeline.entries().len(), 8);
    }

    #[test]
    fn what_operators_and_probes_say_is_never_folded() {
        let timeline = Timeline::default();
        for turn in 0..5 {
            for (track, from, to) in [
                (Track::Health, "up", "down"),
                (Track::State, "ready", "drain"),
                (Track::Health, "down", "up"),
                (Track::State, "drain", "ready"),
            ] {
                timeline.push(Entry::new(at(turn), track, from, to, "because"));
            }
        }
        assert_eq!(timeline.entries().len(), 20);
    }

    #[test]
    fn what_was_folded_stays_so_on_the_way_to_another_process() {
        let (old, new) = (Timeline::default(), Timeline::default());
        for turn in 0..10 {
            old.push(ejection(2 * turn, "admitted", "ejected", 5));
            old.push(ejection(2 * turn + 1, "ejected", "admitted", 0));
        }
        let sent: Vec<Entry> = serde_json::from_str(&serde_json::to_string(&old.entries()).unwrap()).unwrap();
        new.go_on(sent, true);
        assert_eq!((new.entries(), told(&new, 30)), (old.entries(), told(&old, 30)));
        new.push(ejection(20, "admitted", "ejected", 5));
        new.push(ejection(21, "ejected", "admitted", 0));
        assert_eq!(told(&new, 30).iter().map(|it| it.1).collect::<Vec<_>>(), [11, 11]);
    }

    #[test]
    fn a_quiet_one_is_as_small_as_promised() {
        let timeline = Timeline::default();
        timeline.push(health(0, "up"));
        timeline.push(health(1, "down"));
        assert!(timeline.lock().capacity() * size_of::<Entry>() <= 300, "{}", size_of::<Entry>());
    }

    proptest! {
        /// Against a list of all that happened.
        #[test]
        fn the_latest_are_kept_in_the_order_of_time(steps in prop::collection::vec(0_u64..3, 0..200)) {
            let (timeline, mut all, mut now) = (Timeline::default(), Vec::new(), 0);
            for step in steps {
                now += step;
                timeline.push(health(now, "up"));
                all.push(health(now, "up"));
            }
            let kept = all.split_off(all.len().saturating_sub(ENTRIES_MAX));
            prop_assert_eq!(timeline.entries(), kept);
        }
    }
}
