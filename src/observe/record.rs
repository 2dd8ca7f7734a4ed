//! The last requests, as they went: what `explain` tells of a request that was made.
//!
//! ```text
//!   one request ──► Facts, Text ──► Records::keep ──► the ring of the last 1 000
//!                   Detail (scores) ─┘      └───────► and, if it failed, was refused, slow or unusual,
//!                                                     a ring in which ordinary ones do not push it out
//! ```
//!
//! Every request is copied into a place that is there already: no allocation once a ring has gone round, no
//! formatting, no clock: what the wall says is looked at by somebody else from time to time, and taken along, so that
//! a record's time stays what it was when that clock is put right. A place is locked for the time of the copy; who finds it locked, by a reader or by
//! a request that is a whole round ahead, takes the next place or leaves the record out, and counts that.
//! Nobody ever waits.
//!
//! **What is not kept**: queries, values of headers, bodies. Every text is cut to its length below.
//!
//! Memory: a record has 1 400 bytes at most, so the 3 000 of all rings 4.2 MB when they have gone round, and
//! nothing before the first request. Scores ([`Detail`]) are kept for few of them; if every
//! request were one that failed three times in a pool of 32, they would come to 18 MB.

mod detail;
mod ring;
mod text;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub use detail::{
    AttemptOutcome, AttemptRecord, CANDIDATES_MAX, CandidateRecord, Detail, Moment, PickRecord, Then,
};
pub use ring::Kept;
use ring::Ring;
use text::Text;
pub use text::{HeadText, Name};

use super::Reason;

/// Everything of fixed size that is known of a request at its end.
#[derive(Clone, Copy, Debug, Default)]
pub struct Facts {
    /// When its head had been read, since the epoch of the process.
    pub began: Duration,
    /// From head to the last byte of the response.
    pub duration: Duration,
    /// Whom it was from; `None`: not on a network.
    pub client: Option<IpAddr>,
    /// The client's protocol.
    pub protocol: &'static str,
    /// Version of TLS; `None`: in clear.
    pub tls: Option<&'static str>,
    /// Of the configuration that it was answered by.
    pub generation: u64,
    /// What the client got; 499 if it did not wait.
    pub status: u16,
    /// Why the answer was ours.
    pub reason: Option<Reason>,
    /// How a gRPC call ended.
    pub grpc_status: Option<u8>,
    /// Bytes of the request's body.
    pub bytes_in: u64,
    /// Bytes of the response's body.
    pub bytes_out: u64,
    /// Attempts in all.
    pub attempts: u32,
    /// The first of them; its upstream is [`Name::Upstream`].
    pub first: Option<AttemptRecord>,
    /// From the head of the request to that of the upstream's answer.
    pub answered: Option<Duration>,
    /// The end was up to somebody else: a WebSocket, an event stream, a gRPC call, which may be a stream. Then
    /// only the head of the answer may be slow.
    pub is_endless: bool,
}

/// One request, as it went.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// Counts the requests that were to be kept, from 0: the same in every ring that has this one.
    pub number: u64,
    /// Why it is kept, if not only as one of the last.
    pub kept: Kept,
    /// What is of fixed size.
    pub facts: Facts,
    /// What the wall clock said of the process's epoch, in microseconds since 1970.
    epoch_at_us: u64,
    /// Names, id and path.
    text: Text,
    /// Scores, and attempts after the first.
    pub detail: Option<Arc<Detail>>,
}

/// Requests that are kept as long as nobody asks for them.
pub const LATEST: usize = 1_000;

/// From here on a request is slow whatever is usual on its route.
pub const SLOW: Duration = Duration::from_secs(1);

/// Beyond what is usual, but too quick for anybody to look for it: not kept as unusual.
pub const UNUSUAL_MIN: Duration = Duration::from_millis(5);

/// For so long after a question the scores of every pick are kept.
pub const ASKED_FOR: Duration = Duration::from_secs(60);

/// Of picks that nobody asks about, one in so many keeps its scores.
pub const SAMPLED_ONE_IN: u64 = 32;

/// Places that a record tries before it is left out.
const TRIES: usize = 3;

/// The records of a process: rings that every request writes into, and that are read when somebody asks.
#[derive(Debug)]
pub struct Records {
    rings: [Ring; Kept::ALL.len()],
    /// Records that found no place.
    left_out: AtomicU64,
    /// In microseconds since the epoch; see [`ASKED_FOR`].
    asked_until_us: AtomicU64,
    /// See [`Records::note_clocks`].
    epoch_at_us: AtomicU64,
}

impl Default for Records {
    fn default() -> Self {
        Self {
            rings: Kept::ALL.map(|kept| Ring::new(kept.places())),
            left_out: AtomicU64::new(0),
            asked_until_us: AtomicU64::new(0),
            epoch_at_us: AtomicU64::new(0),
        }
    }
}

impl Records {
    /// Keeps one request: among the last, and where it belongs besides. `names` puts its names in.
    pub fn keep(
        &self,
        kept: Kept,
        facts: &Facts,
        detail: Option<Arc<Detail>>,
        names: impl Fn(&mut Names<'_>),
    ) {
        let latest = self.ring(Kept::Latest);
        let number = latest.next();
        let write = |record: &mut Record, detail: Option<Arc<Detail>>| {
            (record.number, record.kept, record.facts, record.detail) = (number, kept, *facts, detail);
            record.epoch_at_us = self.epoch_at_us.load(Relaxed);
            names(&mut Names(record.text.clear()));
        };
        if kept != Kept::Latest {
            let ring = self.ring(kept);
            let has_place =
                (0..TRIES).any(|_| ring.write(ring.next(), |record| write(record, detail.clone())));
            self.left_out.fetch_add(u64::from(!has_place), Relaxed);
        }
        if !latest.write(number, |record| write(record, detail)) && kept == Kept::Latest {
            self.left_out.fetch_add(1, Relaxed);
        }
    }

    /// What the wall clock says `now`, which is since the epoch of the process: for requests that end from here on.
    pub fn note_clocks(&self, wall: SystemTime, now: Duration) {
        let since_1970 = wall.duration_since(UNIX_EPOCH).unwrap_or_default();
        self.epoch_at_us.store(micros(since_1970.saturating_sub(now)), Relaxed);
    }

    /// The requests of this id, newest first.
    pub fn find(&self, request_id: &str) -> Vec<Record> {
        self.matching(|record| record.name(Name::RequestId) == request_id)
    }

    /// The requests for which `wanted` says so, newest first.
    pub fn matching(&self, wanted: impl Fn(&Record) -> bool) -> Vec<Record> {
        let mut found: Vec<Record> = self.rings.iter().flat_map(|ring| ring.matching(&wanted)).collect();
        found.sort_by_key(|record| std::cmp::Reverse(record.number));
        found.dedup_by_key(|record| record.number);
        found
    }

    /// Requests so far, kept or not.
    pub fn seen(&self) -> u64 {
        self.ring(Kept::Latest).taken()
    }

    /// Records that found no place, because somebody was reading there.
    pub fn left_out(&self) -> u64 {
        self.left_out.load(Relaxed)
    }

    /// Somebody asks: from now on scores are worth their price, for [`ASKED_FOR`].
    pub fn note_asked(&self, now: Duration) {
        self.asked_until_us.fetch_max(micros(now + ASKED_FOR), Relaxed);
    }

    /// Whether somebody has asked lately.
    pub fn is_asked(&self, now: Duration) -> bool {
        micros(now) < self.asked_until_us.load(Relaxed)
    }

    fn ring(&self, kept: Kept) -> &Ring {
        let [latest, failed, refused, slow, unusual] = &self.rings;
        match kept {
            Kept::Latest => latest,
            Kept::Failed => failed,
            Kept::Refused => refused,
            Kept::Slow => slow,
            Kept::Unusual => unusual,
        }
    }
}

/// Where the names of a record go; each once, in the order of [`Name`].
pub struct Names<'a>(&'a mut Text);

impl Names<'_> {
    /// The next name.
    pub fn put(&mut self, name: Name, text: &str) {
        self.0.put(name, text);
    }

    /// Method, host and path.
    pub fn put_head(&mut self, head: &HeadText) {
        self.0.put_head(head);
    }
}

impl Record {
    /// When its head had been read, by the wall clock as it went when the request ended.
    pub fn began_at(&self) -> SystemTime {
        let since_1970 = Duration::from_micros(self.epoch_at_us).saturating_add(self.facts.began);
        UNIX_EPOCH.checked_add(since_1970).unwrap_or(UNIX_EPOCH)
    }

    /// One of its names; empty when it has none.
    pub fn name(&self, name: Name) -> &str {
        self.text.get(name)
    }

    /// Whether a name was longer than what is kept of it.
    pub fn is_cut(&self, name: Name) -> bool {
        self.text.is_cut(name)
    }

    /// Whether the client got no good answer, or none: 500 and above, any answer of ours, or a gRPC status that
    /// blames the server ([`is_grpc_failure`]).
    pub fn has_failed(&self) -> bool {
        self.facts.has_failed()
    }

    /// Every attempt with its upstream, in order.
    pub fn attempts(&self) -> impl Iterator<Item = (&str, &AttemptRecord)> {
        let first = self.facts.first.as_ref().map(|first| (self.name(Name::Upstream), first));
        let more = self.detail.iter().flat_map(|detail| &detail.attempts);
        first.into_iter().chain(more.map(|(upstream, attempt)| (upstream.as_ref(), attempt)))
    }
}

impl Facts {
    /// See [`Record::has_failed`].
    pub const fn has_failed(&self) -> bool {
        self.status >= 500 || self.reason.is_some() || self.has_failed_as_a_call()
    }

    const fn has_failed_as_a_call(&self) -> bool {
        matches!(self.grpc_status, Some(code) if is_grpc_failure(code))
    }

    /// Where it is kept besides the last; `slow_after` is what is too slow for its route.
    pub fn kept(&self, slow_after: Duration) -> Kept {
        let took = if self.is_endless { self.answered.unwrap_or_default() } else { self.duration };
        // Its client sees 200 whatever happened.
        let is_server_fault = self.reason.is_none_or(|reason| reason.status() >= 500);
        if self.status >= 500 || self.has_failed_as_a_call() && is_server_fault {
            Kept::Failed
        } else if self.reason.is_some() {
            Kept::Refused
        } else if took >= SLOW {
            Kept::Slow
        } else if self.attempts > 1 || took >= slow_after {
            Kept::Unusual
        } else {
            Kept::Latest
        }
    }
}

/// Whether a gRPC status says that the server failed: those that OpenTelemetry takes for errors of servers, from
/// `UNKNOWN` to `DATA_LOSS`. The others are the client's, or ordinary.
pub const fn is_grpc_failure(code: u8) -> bool {
    matches!(code, 2 | 4 | 12 | 13 | 14 | 15)
}

/// Half a million years of them fit.
fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use std::thread;

    use super::detail::PICKS_MAX;
    use super::*;

    const PLACES: usize = 3_000;
    const RECORD_BYTES_MAX: usize = 1_400;

    fn keep(records: &Records, id: &str, facts: &Facts) {
        let head = HeadText::of("GET", "a.example", "/users");
        records.keep(facts.kept(SLOW), facts, None, |names| {
            names.put(Name::RequestId, id);
            names.put(Name::Listener, "http");
            names.put_head(&head);
        });
    }

    fn status(status: u16) -> Facts {
        Facts { status, ..Facts::default() }
    }

    #[test]
    fn a_record_is_as_small_as_promised() {
        assert!(size_of::<Record>() <= RECORD_BYTES_MAX, "{}", size_of::<Record>());
        assert_eq!(PLACES, Kept::ALL.map(Kept::places).iter().sum::<usize>());
        let candidates = CANDIDATES_MAX * size_of::<CandidateRecord>();
        assert!(PLACES * PICKS_MAX * candidates <= 18_000_000, "{candidates}");
    }

    #[test]
    fn a_request_is_found_by_its_id_and_has_its_names() {
        let records = Records::default();
        keep(&records, "one", &status(200));
        keep(&records, "two", &status(502));
        let found = records.find("two");
        assert_eq!(found.len(), 1, "it is in two rings, and told once");
        let record = &found[0];
        assert_eq!((record.facts.status, record.kept, record.number), (502, Kept::Failed, 1));
        let names = [Name::RequestId, Name::Listener, Name::Method, Name::Host, Name::Path, Name::Route];
        assert_eq!(names.map(|name| record.name(name)), ["two", "http", "GET", "a.example", "/users", ""]);
        assert!(records.find("three").is_empty());
    }

    #[test]
    fn the_last_thousand_are_there_and_no_more() {
        let records = Records::default();
        (0..2_500).for_each(|number| keep(&records, &number.to_string(), &status(200)));
        let found = records.matching(|_| true);
        assert_eq!(found.len(), LATEST);
        assert_eq!(found[0].name(Name::RequestId), "2499", "newest first");
        assert!(records.find("1499").is_empty() && records.find("1500").len() == 1);
        assert_eq!((records.seen(), records.left_out()), (2_500, 0));
    }

    /// Of all that an outage is made of, what bots ask for in vain is not what anybody wants to see.
    #[test]
    fn what_failed_outlives_what_did_not_and_what_clients_do_wrong() {
        let records = Records::default();
        keep(&records, "failed", &status(502));
        keep(&records, "slow", &Facts { duration: SLOW, ..status(200) });
        keep(&records, "retried", &Facts { attempts: 2, ..status(200) });
        for number in 0..3_000 {
            keep(&records, &format!("bot-{number}"), &Facts { reason: Some(Reason::NoRoute), ..status(404) });
            keep(&records, &format!("usual-{number}"), &status(200));
        }
        for (id, kept) in [("failed", Kept::Failed), ("slow", Kept::Slow), ("retried", Kept::Unusual)] {
            assert_eq!(records.find(id)[0].kept, kept);
        }
        assert_eq!(records.matching(|record| record.kept == Kept::Refused).len(), 500);
    }

    #[test]
    fn what_lasts_for_ever_is_not_slow() {
        let hour = Facts { duration: Duration::from_secs(3_600), is_endless: true, ..status(101) };
        assert_eq!(hour.kept(SLOW), Kept::Latest);
        assert_eq!(Facts { is_endless: false, ..hour }.kept(SLOW), Kept::Slow);
        assert_eq!(Facts { status: 502, ..hour }.kept(SLOW), Kept::Failed);
    }

    /// Its HTTP status is 200 in any case.
    #[test]
    fn a_call_fails_by_its_own_status() {
        let call = |code| Facts { grpc_status: Some(code), ..status(200) };
        assert!(call(14).has_failed() && call(14).kept(SLOW) == Kept::Failed, "UNAVAILABLE");
        assert!(!call(5).has_failed() && call(5).kept(SLOW) == Kept::Latest, "NOT_FOUND");
        assert!(!call(0).has_failed());
        let refused = |code, reason| Facts { reason: Some(reason), ..call(code) };
        assert_eq!(refused(14, Reason::NoEligibleUpstream).kept(SLOW), Kept::Failed);
        assert_eq!(refused(12, Reason::NoRoute).kept(SLOW), Kept::Refused);
    }

    #[test]
    fn a_clock_that_is_put_right_moves_nothing_that_was_before() {
        let (records, second) = (Records::default(), Duration::from_secs);
        let wall = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        records.note_clocks(wall(1_000_000), second(100));
        keep(&records, "before", &Facts { began: second(99), ..status(502) });
        // It was an hour late.
        records.note_clocks(wall(1_003_605), second(105));
        keep(&records, "after", &Facts { began: second(104), ..status(200) });
        let began = ["before", "after"].map(|id| records.find(id)[0].began_at());
        assert_eq!(began, [wall(999_999), wall(1_003_604)]);
    }

    #[test]
    fn a_question_arms_for_a_minute() {
        let records = Records::default();
        assert!(!records.is_asked(Duration::ZERO));
        records.note_asked(Duration::from_secs(10));
        assert!(records.is_asked(Duration::from_secs(69)) && !records.is_asked(Duration::from_secs(70)));
    }

    /// Readers and writers at once: whatever is read is whole.
    #[test]
    fn nobody_sees_half_a_record() {
        let records = Records::default();
        thread::scope(|scope| {
            for writer in 0..3_u16 {
                let records = &records;
                scope.spawn(move || {
                    for number in 0..5_000 {
                        let facts = Facts { bytes_in: number, ..status(200 + writer) };
                        keep(records, &format!("{}-{number}", 200 + writer), &facts);
                    }
                });
            }
            for _ in 0..20 {
                for record in records.matching(|_| true) {
                    let Facts { status, bytes_in, .. } = record.facts;
                    assert_eq!(record.name(Name::RequestId), format!("{status}-{bytes_in}"));
                }
            }
        });
        assert_eq!(records.seen(), 15_000);
    }
}
