//! Traced requests on their way to a collector.
//!
//! ```text
//!   request, traced ──► SpanQueue, bounded ──► whoever sends them (the roof) ──► collector
//!                        full: dropped and counted
//! ```

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use super::TriedOutcome;

/// One traced request: the span of the request, and one for each attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // The access log has the same facts under the same names.
pub struct RequestSpan {
    pub trace_id: u128,
    pub span_id: u64,
    /// The client's span; `None`: the trace begins here.
    pub parent: Option<u64>,
    /// As the client sent it.
    pub trace_state: String,
    pub started: SystemTime,
    pub duration: Duration,
    pub request_id: String,
    pub client: Option<IpAddr>,
    pub method: String,
    pub is_https: bool,
    pub host: String,
    /// Without its query.
    pub path: String,
    /// `1.0`, `1.1` or `2`.
    pub version: &'static str,
    pub user_agent: Option<String>,
    pub listener: String,
    pub route: Option<String>,
    /// The path that the route matches.
    pub route_path: Option<String>,
    pub pool: Option<String>,
    pub status: u16,
    /// Why the answer is ours.
    pub reason: Option<&'static str>,
    /// How a gRPC call ended.
    pub grpc_status: Option<u8>,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub attempts: Vec<AttemptSpan>,
}

/// One attempt of a traced request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttemptSpan {
    /// What the upstream was told as its parent.
    pub span_id: u64,
    /// Where it went.
    pub upstream: String,
    /// From the start of the request to the pick.
    pub after: Duration,
    /// From the pick to the first byte of the answer, or to the failure.
    pub time: Duration,
    /// What came of it.
    pub outcome: TriedOutcome,
}

impl RequestSpan {
    /// How many spans it makes.
    pub fn spans(&self) -> u64 {
        1 + self.attempts.len() as u64
    }
}

/// What became of spans, as metrics call it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanResult {
    /// The collector has taken them.
    Exported,
    /// The queue was full.
    Dropped,
    /// The collector was not there, or refused them.
    Failed,
}

impl SpanResult {
    /// All of them, in the order of their discriminants.
    pub const ALL: [Self; 3] = [Self::Exported, Self::Dropped, Self::Failed];

    /// The value of the label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Exported => "exported",
            Self::Dropped => "dropped",
            Self::Failed => "failed",
        }
    }
}

/// Traced requests that wait to be sent.
#[derive(Debug, Default)]
pub struct SpanQueue {
    waiting: Mutex<VecDeque<Box<RequestSpan>>>,
    counts: [AtomicU64; SpanResult::ALL.len()],
    /// Some were taken, and are not sent yet.
    is_sending: AtomicBool,
    /// The process is about to end.
    is_urgent: AtomicBool,
}

impl SpanQueue {
    /// Adds a request. Never waits: when the queue is full, it is dropped and counted.
    pub fn push(&self, request: Box<RequestSpan>) {
        let mut waiting = self.lock();
        if waiting.len() < QUEUE_REQUESTS_MAX {
            waiting.push_back(request);
        } else {
            drop(waiting);
            self.count(SpanResult::Dropped, request.spans());
        }
    }

    /// How many requests wait.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// The oldest ones, at most so many; [`SpanQueue::sent`] has to follow.
    pub fn take(&self, most: usize) -> Vec<Box<RequestSpan>> {
        let mut waiting = self.lock();
        self.is_sending.store(true, Relaxed);
        let count = waiting.len().min(most);
        let taken = waiting.drain(..count).collect();
        // An hour of busy tracing should not hold memory for ever.
        if waiting.is_empty() {
            waiting.shrink_to(BATCH_REQUESTS_MAX);
        }
        taken
    }

    /// What was taken is sent, or given up.
    pub fn sent(&self) {
        self.is_sending.store(false, Relaxed);
    }

    /// Notes what became of so many spans.
    pub fn count(&self, result: SpanResult, spans: u64) {
        if let Some(count) = self.counts.get(result as usize) {
            count.fetch_add(spans, Relaxed);
        }
    }

    /// Spans of which this became.
    pub fn counted(&self, result: SpanResult) -> u64 {
        self.counts.get(result as usize).map_or(0, |count| count.load(Relaxed))
    }

    /// Whether nobody should wait for a batch to fill.
    pub fn is_urgent(&self) -> bool {
        self.is_urgent.load(Relaxed)
    }

    /// Waits until what waits is sent, but no longer than two seconds; for the end of the process.
    pub fn flush(&self) {
        self.is_urgent.store(true, Relaxed);
        let is_done = || self.is_empty() && !self.is_sending.load(Relaxed);
        for _ in 0..FLUSH_LOOKS {
            if is_done() {
                return;
            }
            std::thread::sleep(FLUSH_PAUSE);
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Box<RequestSpan>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The default of OpenTelemetry's own batch processors. A request has at most a few KiB, see [`TEXT_BYTES_MAX`].
pub const QUEUE_REQUESTS_MAX: usize = 2_048;

/// Requests in one batch; the default of OpenTelemetry's own batch processors, too.
pub const BATCH_REQUESTS_MAX: usize = 512;

/// What clients choose (path, user agent, host, `tracestate`) is cut here, so that memory is bounded.
pub const TEXT_BYTES_MAX: usize = 1_024;

const FLUSH_PAUSE: Duration = Duration::from_millis(20);
const FLUSH_LOOKS: u32 = 100;

/// A text of a client's, cut to [`TEXT_BYTES_MAX`].
pub fn bounded_text(text: &str) -> String {
    text.get(..text.floor_char_boundary(TEXT_BYTES_MAX)).unwrap_or_default().to_owned()
}
