//! What happens, told to everyone who listens.
//!
//! ```text
//!   Control, Prober … ──► Events::tell ──► the latest few, numbered ──► one Subscription per listener
//! ```
//!
//! Telling never waits: a listener who is slow misses events, and is told how many. Who comes back names
//! the last event that it saw, and gets those since.
//!
//! **To add a kind**: a struct with what there is to tell, a variant of [`Happening`], its word in
//! [`Happening::kind`]; then `events().tell(…)` where it happens, and its line in `openapi.json`.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use serde::Serialize;
use tokio::sync::broadcast;

use super::{Applied, Author, Change, Guard, Rejected, UpgradeEvent, lock};
use crate::config::LoadError;
use crate::health::Transition;
use crate::observe::alarm::Alarm;
use crate::observe::utc;
use crate::runtime::{EjectionTurn, UpstreamState};

/// Events that are kept for those who are slow or come back: a burst of a hundred refused writes, and a
/// health change of each upstream of a large pool. At most some 100 KiB.
pub const EVENTS_MAX: usize = 256;

/// Something that happened.
#[derive(Clone, Debug, Serialize)]
pub struct Event {
    /// Names it, among those of all processes.
    #[serde(skip)]
    pub id: String,
    #[serde(skip)]
    number: u64,
    /// When, RFC 3339.
    pub at: String,
    /// What.
    #[serde(flatten)]
    pub what: Happening,
}

/// Everything that is told.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum Happening {
    /// A change of the configuration, applied or refused.
    Config(ConfigEvent),
    /// Health checks came to another verdict.
    Health(HealthEvent),
    /// Traffic came to another opinion of an upstream.
    Ejection(EjectionEvent),
    /// An operator, or the file, wants something else of an upstream.
    State(StateEvent),
    /// Something is odd about an upstream, or no longer is.
    Alarm(AlarmEvent),
    /// A guarded change is watched, kept or rolled back; with the figures of before and after.
    Guard(Box<Guard>),
    /// Another process takes, or took, our place.
    Upgrade(UpgradeEvent),
}

impl Happening {
    /// The word for its kind.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Config(_) => "config",
            Self::Health(_) => "health",
            Self::Ejection(_) => "ejection",
            Self::State(_) => "state",
            Self::Alarm(_) => "alarm",
            Self::Guard(_) => "guard",
            Self::Upgrade(_) => "upgrade",
        }
    }

    /// Of one upstream. `error` is what the probe met.
    pub fn health(upstream: &UpstreamState, transition: Transition, error: Option<&str>) -> Self {
        Self::Health(HealthEvent {
            pool: upstream.pool.clone(),
            upstream: upstream.address.to_string(),
            from: transition.from.word(),
            to: transition.to.word(),
            error: error.map(str::to_owned),
        })
    }

    /// Of one upstream of this pool.
    pub fn ejection(pool: &str, turn: &EjectionTurn) -> Self {
        let EjectionTurn { address, entry, ejected_for } = turn;
        Self::Ejection(EjectionEvent {
            pool: pool.to_owned(),
            upstream: address.clone(),
            from: entry.from.to_string(),
            to: entry.to.to_string(),
            cause: entry.cause.to_string(),
            ejected_for_ms: ejected_for.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
        })
    }

    /// Of one upstream of this pool.
    pub fn alarm(pool: &str, upstream: String, alarm: &Alarm, is_raised: bool) -> Self {
        Self::Alarm(AlarmEvent {
            pool: pool.to_owned(),
            upstream,
            alarm: alarm.kind.word(),
            raised: is_raised,
            detail: alarm.detail.clone(),
        })
    }

    pub(super) fn config(
        change: &Change,
        result: Result<&Applied, &Rejected>,
        runs: (u64, String),
        author: &Author,
    ) -> Self {
        let (generation, etag) = runs;
        let counts = result.ok().map(|applied| Counts {
            carried: applied.carried,
            added: applied.added.len(),
            removed: applied.removed.len(),
            reset: applied.reset.len(),
            overrides_dropped: applied.dropped.len(),
        });
        Self::Config(ConfigEvent {
            result: if result.is_ok() { "applied" } else { "refused" },
            generation,
            etag,
            origin: author.origin.label(),
            who: author.who.clone(),
            why: author.why.clone(),
            what: change.what(),
            counts,
            reason: result.err().map(brief),
        })
    }
}

/// A change of the configuration.
#[derive(Clone, Debug, Serialize)]
pub struct ConfigEvent {
    /// `applied` or `refused`.
    pub result: &'static str,
    /// What runs now.
    pub generation: u64,
    /// Entity tag of the configuration now.
    pub etag: String,
    /// `file`, `admin`, `discovery`.
    pub origin: &'static str,
    /// A token's name, `SIGHUP` …
    pub who: String,
    /// In the author's own words, if there were any.
    pub why: Option<String>,
    /// What was asked for: `reload`, `replace`, `edit pool app: …`.
    pub what: String,
    /// What an applied one did to upstreams.
    #[serde(flatten)]
    pub counts: Option<Counts>,
    /// Why it was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// How many upstreams, and overrides, a change touched; see [`Applied`].
#[derive(Clone, Copy, Debug, Serialize)]
#[allow(missing_docs)]
pub struct Counts {
    pub carried: usize,
    pub added: usize,
    pub removed: usize,
    pub reset: usize,
    pub overrides_dropped: usize,
}

/// Health checks came to another verdict.
#[derive(Clone, Debug, Serialize)]
pub struct HealthEvent {
    /// The pool.
    pub pool: String,
    /// Address of the upstream.
    pub upstream: String,
    /// `unknown`, `up` or `down`.
    pub from: &'static str,
    /// `up` or `down`.
    pub to: &'static str,
    /// What the probe met, when it is down.
    pub error: Option<String>,
}

/// Traffic came to another opinion of an upstream.
#[derive(Clone, Debug, Serialize)]
pub struct EjectionEvent {
    /// The pool.
    pub pool: String,
    /// Address of the upstream.
    pub upstream: String,
    /// `admitted`, `ejected` or `probation`.
    pub from: String,
    /// The same, since.
    pub to: String,
    /// In words.
    pub cause: String,
    /// How long an ejection that begins will last.
    pub ejected_for_ms: Option<u64>,
}

/// An operator, or the file, wants something else of an upstream.
#[derive(Clone, Debug, Serialize)]
pub struct StateEvent {
    /// The pool.
    pub pool: String,
    /// Address of the upstream.
    pub upstream: String,
    /// `state` or `weight`.
    pub what: &'static str,
    /// `ready`, `drain`, `maintenance`, or a number.
    pub from: String,
    /// The same, since.
    pub to: String,
    /// A token's name, `SIGHUP` …
    pub who: String,
    /// In the author's own words, if there were any.
    pub why: Option<String>,
}

/// Something is odd about an upstream, or no longer is.
#[derive(Clone, Debug, Serialize)]
pub struct AlarmEvent {
    /// The pool.
    pub pool: String,
    /// Address of the upstream.
    pub upstream: String,
    /// `starved`, `imbalance` or `stale_estimate`.
    pub alarm: &'static str,
    /// Or else cleared.
    pub raised: bool,
    /// The figures when it was raised, in words.
    pub detail: String,
}

/// A wrong configuration may have a thousand mistakes; here the first will do.
fn brief(rejected: &Rejected) -> String {
    let Rejected::Invalid(LoadError::Invalid(report)) = rejected else { return rejected.to_string() };
    let mistakes = report.len();
    let first = report.mistakes().next();
    let first = first.map_or(String::new(), |first| format!(", line {}: {}", first.line, first.message));
    format!("{mistakes} mistake{} in the configuration{first}", if mistakes == 1 { "" } else { "s" })
}

/// See the module documentation.
#[derive(Debug)]
pub struct Events {
    /// Tells ids of this process from those of others.
    instance: u32,
    log: Mutex<Log>,
}

/// The latest events, and the way to those who listen.
#[derive(Debug)]
struct Log {
    last: u64,
    recent: VecDeque<Arc<Event>>,
    /// `None`: nothing more will be told.
    sender: Option<broadcast::Sender<Arc<Event>>>,
}

impl Events {
    /// Nothing has happened yet.
    pub(super) fn new(instance: u32) -> Self {
        let (sender, _) = broadcast::channel(EVENTS_MAX);
        let log = Log { last: 0, recent: VecDeque::with_capacity(EVENTS_MAX), sender: Some(sender) };
        Self { instance, log: Mutex::new(log) }
    }

    /// Tells everyone who listens. Never waits.
    pub fn tell(&self, what: Happening) {
        let mut log = lock(&self.log);
        log.last += 1;
        let number = log.last;
        let id = format!("{:08x}-{number}", self.instance);
        let event = Arc::new(Event { id, number, at: utc(SystemTime::now()), what });
        if log.recent.len() == EVENTS_MAX {
            log.recent.pop_front();
        }
        log.recent.push_back(event.clone());
        if let Some(sender) = &log.sender {
            // Nobody may be listening.
            let _ = sender.send(event);
        }
    }

    /// Listens from now on, or from behind the event with this id. An id of another process says nothing.
    pub fn subscribe(&self, seen: Option<&str>) -> Subscription {
        let log = lock(&self.log);
        let seen = seen.and_then(|id| self.number_of(id)).map_or(log.last, |seen| seen.min(log.last));
        let since: VecDeque<_> = log.recent.iter().filter(|event| event.number > seen).cloned().collect();
        let missed = log.last - seen - since.len() as u64;
        let receiver = log.sender.as_ref().map(broadcast::Sender::subscribe);
        Subscription { missed, since, receiver }
    }

    /// Listens from the oldest event that is remembered.
    pub fn subscribe_to_remembered(&self) -> Subscription {
        let log = lock(&self.log);
        let receiver = log.sender.as_ref().map(broadcast::Sender::subscribe);
        Subscription { missed: 0, since: log.recent.clone(), receiver }
    }

    /// Ends every subscription, behind what was told before: the process stops.
    pub fn close(&self) {
        lock(&self.log).sender = None;
    }

    fn number_of(&self, id: &str) -> Option<u64> {
        let (instance, number) = id.split_once('-')?;
        (u32::from_str_radix(instance, 16) == Ok(self.instance)).then(|| number.parse().ok())?
    }
}

/// One who listens.
#[derive(Debug)]
pub struct Subscription {
    missed: u64,
    since: VecDeque<Arc<Event>>,
    receiver: Option<broadcast::Receiver<Arc<Event>>>,
}

/// What a [`Subscription`] hears.
#[derive(Clone, Debug)]
pub enum Told {
    /// Something happened.
    Event(Arc<Event>),
    /// So many events came too fast, and are gone.
    Missed(u64),
}

impl Subscription {
    /// Waits for the next thing to hear; `None`: there will be nothing more. May be dropped while waiting.
    pub async fn next(&mut self) -> Option<Told> {
        if self.missed > 0 {
            return Some(Told::Missed(std::mem::take(&mut self.missed)));
        }
        if let Some(event) = self.since.pop_front() {
            return Some(Told::Event(event));
        }
        match self.receiver.as_mut()?.recv().await {
            Ok(event) => Some(Told::Event(event)),
            Err(broadcast::error::RecvError::Lagged(missed)) => Some(Told::Missed(missed)),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn happening(index: usize) -> Happening {
        let (pool, upstream) = ("app".to_owned(), index.to_string());
        Happening::Health(HealthEvent { pool, upstream, from: "up", to: "down", error: None })
    }

    /// Numbers of the events that are heard until nothing comes, and how many were missed.
    async fn heard(subscription: &mut Subscription) -> (Vec<u64>, u64) {
        let (mut numbers, mut missed) = (Vec::new(), 0);
        while let Some(told) = subscription.next().await {
            match told {
                Told::Event(event) => numbers.push(event.number),
                Told::Missed(some) => missed += some,
            }
        }
        (numbers, missed)
    }

    #[tokio::test]
    async fn everyone_hears_everything_in_order() {
        let events = Events::new(7);
        events.tell(happening(0));
        let (mut one, mut two) = (events.subscribe(None), events.subscribe(None));
        (0..20).for_each(|index| events.tell(happening(index)));
        events.close();
        let expected = ((2..=21).collect::<Vec<u64>>(), 0);
        assert_eq!((heard(&mut one).await, heard(&mut two).await), (expected.clone(), expected));
    }

    #[tokio::test]
    async fn a_slow_listener_is_told_how_many_it_missed() {
        let events = Events::new(7);
        let mut slow = events.subscribe(None);
        (0..EVENTS_MAX + 10).for_each(|index| events.tell(happening(index)));
        events.close();
        let (numbers, missed) = heard(&mut slow).await;
        assert_eq!((numbers.len(), missed), (EVENTS_MAX, 10));
        assert_eq!(numbers.last(), Some(&(EVENTS_MAX as u64 + 10)));
    }

    #[tokio::test]
    async fn who_comes_back_hears_what_came_meanwhile() {
        let events = Events::new(7);
        (0..5).for_each(|index| events.tell(happening(index)));
        let mut back = events.subscribe(Some("00000007-3"));
        events.tell(happening(5));
        events.close();
        assert_eq!(heard(&mut back).await, (vec![4, 5, 6], 0));
        // After a long time, of another process, of the future, and nonsense.
        let events = Events::new(7);
        (0..EVENTS_MAX + 4).for_each(|index| events.tell(happening(index)));
        for (seen, heard_of, missed) in [
            ("00000007-1", EVENTS_MAX, 3),
            ("00000008-1", 0, 0),
            ("00000007-99999", 0, 0),
            ("00000007-", 0, 0),
            ("", 0, 0),
        ] {
            let mut back = events.subscribe(Some(seen));
            back.receiver = None;
            let (numbers, gone) = heard(&mut back).await;
            assert_eq!((numbers.len(), gone), (heard_of, missed), "{seen}");
        }
    }

    #[test]
    fn an_event_says_when_and_what() {
        let events = Events::new(7);
        events.tell(happening(9));
        let log = lock(&events.log);
        let event = serde_json::to_value(&**log.recent.front().unwrap()).unwrap();
        let at = event["at"].clone();
        assert!(at.as_str().unwrap().ends_with('Z'));
        assert_eq!(
            event,
            serde_json::json!({"at": at, "pool": "app", "upstream": "9", "from": "up", "to": "down", "error": null})
        );
    }
}
