//! One process behind us that answers requests, and what we know of it.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering, fence};
use std::time::{Duration, SystemTime};

use super::alarms::Alarms;
use super::ejections::Telling;
use crate::balance::{Candidate, Load};
use crate::config::{UpstreamAddress, UpstreamConfig, resolved_address};
use crate::health::{Ejection, Facts, Flapping, Health, Mode, Verdict, WhyNot, eligibility};
use crate::observe::UpstreamMetrics;
use crate::observe::timeline::{Entry, Moment, Timeline, Track};

/// A member of a pool in one snapshot: what is configured, and the state that outlives it.
pub struct Upstream {
    /// As configured.
    pub config: UpstreamConfig,
    /// Its address, as it is told.
    pub label: Arc<str>,
    /// Whether traffic waits for a health check to pass first.
    pub is_checked: bool,
    /// Shared with every snapshot that has this upstream in this pool.
    pub state: Arc<UpstreamState>,
}

/// What is known of one upstream; found again by (pool, address) in every reload.
pub struct UpstreamState {
    /// Name of the pool, for logs.
    pub pool: String,
    /// Where it listens.
    pub address: UpstreamAddress,
    /// The same as text, for those who write it with each request.
    pub name: Box<str>,
    /// Requests in flight and what was learned of its speed.
    pub load: Load,
    /// What health checks say.
    pub verdict: Verdict,
    /// How often it went down of late.
    pub flapping: Flapping,
    /// What traffic says.
    pub ejection: Ejection,
    /// Counters.
    pub metrics: UpstreamMetrics,
    /// What became of it, and why.
    pub timeline: Timeline,
    /// What is odd about it, though it is neither down nor ejected.
    pub alarms: Alarms,
    pub(super) telling: Telling,
    /// See [`UpstreamState::passes_needed`].
    passes_needed: AtomicU32,
    mode: AtomicU8,
    last_check: Mutex<Option<LastCheck>>,
    /// See [`UpstreamState::times_forgotten`].
    forgotten: AtomicU32,
    trouble: Mutex<Option<Trouble>>,
    /// See [`UpstreamState::demand_http1`].
    http1_with: AtomicU64,
}

/// Why no secure connection came about, as it was last told.
#[derive(Debug)]
struct Trouble {
    /// Which settings it was met with.
    key: u64,
    reason: String,
    told_at: Duration,
    /// A connection came about since.
    is_over: bool,
}

/// Two tellings of trouble with one upstream are at least so far apart, unless its settings change: one that
/// comes and goes should not fill the log.
const TROUBLE_PAUSE: Duration = Duration::from_secs(60);

/// The latest health check of an upstream.
#[derive(Clone, Debug)]
pub struct LastCheck {
    /// When it ended.
    pub at: SystemTime,
    /// From the first byte of the connect to the verdict.
    pub latency: Duration,
    /// Why it failed; `None`: it passed.
    pub error: Option<String>,
}

impl UpstreamState {
    pub(super) fn new(pool: &str, address: &UpstreamAddress, now: Duration) -> Self {
        Self {
            pool: pool.to_owned(),
            address: address.clone(),
            name: address.to_string().into(),
            load: Load::new(now),
            verdict: Verdict::default(),
            ejection: Ejection::default(),
            metrics: UpstreamMetrics::default(),
            timeline: Timeline::default(),
            flapping: Flapping::default(),
            alarms: Alarms::default(),
            passes_needed: AtomicU32::new(0),
            telling: Telling::default(),
            mode: AtomicU8::new(Mode::Ready as u8),
            last_check: Mutex::new(None),
            forgotten: AtomicU32::new(0),
            trouble: Mutex::new(None),
            http1_with: AtomicU64::new(0),
        }
    }

    /// It was not there before, and is now.
    pub fn note_presence(&self, cause: impl Into<Cow<'static, str>>, now: Duration) {
        self.timeline.push(Entry::new(Moment::now(now), Track::Presence, "absent", "present", cause));
    }

    /// Passes in a row that it needs to be up again, when that is more than `rise` because it flaps.
    pub fn passes_needed(&self) -> Option<u32> {
        let needed = self.passes_needed.load(Ordering::Relaxed);
        (needed > 0 && self.verdict.health() == Health::Down).then_some(needed)
    }

    /// Tells those who look; `None`: no more than usual.
    pub fn set_passes_needed(&self, needed: Option<u32>) {
        self.passes_needed.store(needed.unwrap_or(0), Ordering::Relaxed);
    }

    /// What an operator set by hand.
    pub fn mode(&self) -> Mode {
        match self.mode.load(Ordering::Relaxed) {
            mode if mode == Mode::Drain as u8 => Mode::Drain,
            mode if mode == Mode::Maintenance as u8 => Mode::Maintenance,
            _ => Mode::Ready,
        }
    }

    /// Sets what an operator wants; takes effect for the next request.
    pub fn set_mode(&self, mode: Mode) {
        self.mode.store(mode as u8, Ordering::Relaxed);
    }

    /// Whether no new request may begin, as of a moment after [`Load::begin`].
    pub(super) fn is_closed(&self) -> bool {
        self.mode.load(Ordering::SeqCst) != Mode::Ready as u8
    }

    /// Requests in flight. When this is 0 after another mode than ready was set, no request follows: one
    /// that was being picked meanwhile is counted here, or notices in time and goes elsewhere (and may be
    /// seen in the count for that moment).
    pub fn in_flight(&self) -> u32 {
        fence(Ordering::SeqCst);
        self.load.in_flight()
    }

    /// The latest health check.
    pub fn last_check(&self) -> Option<LastCheck> {
        self.last_check.lock().ok().and_then(|check| check.clone())
    }

    /// No secure connection came about with the settings of `key`. Whether that is news.
    pub fn note_trouble(&self, key: u64, reason: &str, now: Duration) -> bool {
        let Ok(mut trouble) = self.trouble.lock() else { return false };
        if let Some(last) = trouble.as_mut().filter(|last| last.key == key) {
            let is_same = last.reason == reason && !last.is_over;
            if is_same || now.saturating_sub(last.told_at) < TROUBLE_PAUSE {
                return false;
            }
        }
        *trouble = Some(Trouble { key, reason: reason.to_owned(), told_at: now, is_over: false });
        true
    }

    /// A secure connection came about.
    pub fn note_no_trouble(&self) {
        if let Ok(Some(trouble)) = self.trouble.lock().as_deref_mut().map(Option::as_mut) {
            trouble.is_over = true;
        }
    }

    /// It speaks HTTP/2, and has demanded HTTP/1.1 all the same, under the settings of `key`; it is not asked
    /// again before they change.
    pub fn demand_http1(&self, key: u64) {
        self.http1_with.store(key, Ordering::Relaxed);
    }

    /// Whether it has demanded HTTP/1.1 under these settings.
    pub fn demands_http1(&self, key: u64) -> bool {
        self.http1_with.load(Ordering::Relaxed) == key
    }

    /// Forgets what health checks said, for this reason.
    pub fn forget_checks(&self, cause: &'static str, now: Duration) {
        self.forget_verdict(cause, now);
        if let Ok(mut last) = self.last_check.lock() {
            *last = None;
        }
    }

    /// Forgets what they came to; the latest one may still be looked at.
    pub fn forget_verdict(&self, cause: &'static str, now: Duration) {
        let before = self.verdict.health();
        self.verdict.forget();
        self.forgotten.fetch_add(1, Ordering::Relaxed);
        if before != Health::Unknown {
            let (from, to) = (before.word(), Health::Unknown.word());
            self.timeline.push(Entry::new(Moment::now(now), Track::Health, from, to, cause));
        }
    }

    /// How often a change of the configuration made what checks had said void: whoever checks asks anew then, even
    /// if it saw nothing of the change, which another may have followed at once.
    pub fn times_forgotten(&self) -> u32 {
        self.forgotten.load(Ordering::Relaxed)
    }

    /// Remembers the latest health check, for those who look.
    pub fn set_last_check(&self, check: LastCheck) {
        if let Ok(mut last) = self.last_check.lock() {
            *last = Some(check);
        }
    }
}

impl Upstream {
    /// Whether this is its address, in any spelling that means the same: `127.0.0.1:9001`,
    /// `http://127.0.0.1:9001`, `[0::1]:9001`. A host name is not: its address may be another one by now.
    pub fn is_at(&self, address: &str) -> bool {
        let bare = address.strip_prefix("http://").map_or(address, |rest| rest.trim_end_matches('/'));
        resolved_address(bare).is_some_and(|address| address == self.config.address)
    }

    /// Whether a new request may go here at `now`, and if not, why.
    ///
    /// # Errors
    ///
    /// The first reason that stands against it.
    pub fn eligibility(&self, now: Duration) -> Result<(), WhyNot> {
        eligibility(&Facts {
            weight: self.config.weight,
            mode: self.state.mode(),
            health: self.is_checked.then(|| self.state.verdict.health()),
            ejection: self.state.ejection.state(now),
            in_flight: self.state.load.in_flight(),
            max_connections: self.config.max_connections,
        })
    }
}

impl Candidate for Upstream {
    fn load(&self) -> &Load {
        &self.state.load
    }

    fn is_eligible(&self, now: Duration) -> bool {
        self.eligibility(now).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_is_told_once_until_it_changes() {
        let address = UpstreamAddress::Unix("/run/app.sock".into());
        let state = UpstreamState::new("app", &address, Duration::ZERO);
        let seconds = Duration::from_secs;
        assert!(state.note_trouble(1, "expired", seconds(1)));
        assert!(!state.note_trouble(1, "expired", seconds(2)));
        assert!(!state.note_trouble(1, "expired", seconds(2000)), "it goes on");
        assert!(state.note_trouble(1, "another name", seconds(2001)));
        assert!(state.note_trouble(2, "another name", seconds(2002)), "other settings");
        state.note_no_trouble();
        assert!(!state.note_trouble(2, "another name", seconds(2003)), "it comes and goes");
        assert!(state.note_trouble(2, "another name", seconds(2063)));
    }
}
