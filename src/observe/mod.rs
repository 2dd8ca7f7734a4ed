//! Counts what happens, writes down what happened, and shows both.
//!
//! ```text
//!   one request ──► handles (metrics.rs, histogram.rs)      a few relaxed adds, no lock, no label
//!        │                 │
//!        │                 └──► exposition.rs ──► GET /metrics      read at scrape time
//!        ├────────► access_log.rs ──► queue ──► one thread ──► file or standard output
//!        └────────► spans.rs ──► queue ──► (roof) ──► collector
//! ```
//!
//! Handles live in the state that they describe (listener, route, pool, upstream), so counting looks
//! nothing up, a reload keeps the figures, and the series of what was removed vanish by themselves.
//!
//! **To add a metric**: a counter and its reader in `metrics.rs`, then its family in `exposition.rs`.
//! **To add a reason for refusing**: a variant and its row in `reason.rs`.
//!
//! **Invariant**: labels come from the configuration, never from a request (floor 1; no other room).

pub mod access_log;
mod access_record;
pub mod alarm;
pub mod exposition;
mod histogram;
pub mod history;
mod metrics;
mod process;
mod process_log;
mod reason;
mod recent;
mod record;
mod spans;
pub mod timeline;
mod timestamp;
mod tls_failure;
mod trace_context;

pub use access_log::{AccessLog, Target};
pub use access_record::{AccessRecord, Tried, TriedOutcome};
pub use histogram::{Histogram, HistogramSnapshot};
pub use metrics::{
    AdminRefusal, ChangeOrigin, ChangeResult, Class, ConnectResult, GRPC_CODES, HandshakeResult,
    ListenerMetrics, Peak, PoolMetrics, ProcessMetrics, RetryReason, RouteMetrics, Tally, UpstreamMetrics,
};
pub use process::ProcessFigures;
pub use process_log::{Format, init_log};
pub use reason::Reason;
pub use recent::{Recent, RecentMemory, RecentTimes, RecentTimesMemory, SAMPLE, WINDOW};
pub use record::{
    ASKED_FOR, AttemptOutcome, AttemptRecord, CANDIDATES_MAX, CandidateRecord, Detail, Facts, HeadText, Kept,
    LATEST, Moment, Name, Names, PickRecord, Record, Records, SAMPLED_ONE_IN, SLOW, Then, UNUSUAL_MIN,
    is_grpc_failure,
};
pub use spans::{
    AttemptSpan, BATCH_REQUESTS_MAX, QUEUE_REQUESTS_MAX, RequestSpan, SpanQueue, SpanResult, TEXT_BYTES_MAX,
    bounded_text,
};
pub use timestamp::utc;
pub use tls_failure::tls_failure;
pub use trace_context::TraceParent;
