//! Sends spans to an OpenTelemetry collector: OTLP over HTTP, protobuf.
//!
//! ```text
//!   Runtime::spans ──► batches ──► encode.rs ──► post.rs ──► collector
//!                         ▲                        │
//!                         └── again, later ◄───────┘ down, slow, busy
//! ```
//!
//! One batch is under way at a time; while the collector does not take it, further spans wait in the queue, which is
//! bounded, and then are lost. Queue, batches and counts are ours, since those of OpenTelemetry's SDK count losses
//! nowhere that a metric could read; the encoding is that of `prost`.

mod encode;
mod messages;
mod post;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;
use tokio::time::{Instant, sleep};

use crate::config::TracingConfig;
use crate::observe::{BATCH_REQUESTS_MAX, RequestSpan, SpanResult};
use crate::runtime::Runtime;
use post::{Answer, Rejected};

/// Sends what is traced, as long as the process lives.
pub(crate) struct Exporter {
    runtime: Arc<Runtime>,
}

/// How often to look whether there is something to send, while requests are traced: before what a core serves
/// in the meantime has filled the queue.
const LOOK: Duration = Duration::from_millis(20);

/// The same while they are not.
const LOOK_IDLE: Duration = Duration::from_millis(200);

/// A batch that does not fill waits this long.
const BATCH_WAIT: Duration = Duration::from_secs(2);

/// Attempts at one batch; with the pauses between them, half a minute on average.
const ATTEMPTS: u32 = 6;

/// On average, before the second attempt; doubled before each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

impl Exporter {
    pub(crate) fn new(runtime: Arc<Runtime>) -> Self {
        Self { runtime }
    }

    /// Until there is a batch that is worth sending, or old enough.
    async fn wait_for_batch(&self) {
        let spans = &self.runtime.spans;
        let mut since = None;
        loop {
            let waiting = spans.len();
            if waiting > 0 {
                let since = since.get_or_insert_with(Instant::now);
                if waiting >= BATCH_REQUESTS_MAX || since.elapsed() >= BATCH_WAIT || spans.is_urgent() {
                    return;
                }
            }
            let is_idle = waiting == 0 && self.runtime.peek().config.tracing.is_none();
            sleep(if is_idle { LOOK_IDLE } else { LOOK }).await;
        }
    }

    /// Whether the collector has taken all of it; says so when that is news.
    async fn send(&self, batch: &[Box<RequestSpan>], was_well: bool) -> bool {
        let all: u64 = batch.iter().map(|request| request.spans()).sum();
        let Some(config) = self.runtime.peek().config.tracing.clone() else {
            // Switched off meanwhile.
            self.runtime.spans.count(SpanResult::Failed, all);
            return was_well;
        };
        let message = encode::batch(batch, &config.service_name);
        let (taken, problem) = match self.deliver(&config, &message).await {
            Ok(Rejected { spans: 0, .. }) => (all, None),
            Ok(Rejected { spans, why }) => {
                (all.saturating_sub(spans), Some(format!("it rejects {spans} of {all} spans: {why}")))
            }
            Err(problem) => (0, Some(problem)),
        };
        self.runtime.spans.count(SpanResult::Exported, taken);
        self.runtime.spans.count(SpanResult::Failed, all - taken);
        let endpoint = config.endpoint.as_str();
        match &problem {
            Some(error) if was_well => {
                tracing::warn!(endpoint, error, "spans lost, the collector does not take them");
            }
            None if !was_well => tracing::info!(endpoint, "spans taken again"),
            _ => {}
        }
        problem.is_none()
    }

    /// Tries again where that may help. Answers which spans were rejected, or why all were.
    async fn deliver(&self, config: &TracingConfig, message: &[u8]) -> Result<Rejected, String> {
        let mut pause = FIRST_PAUSE;
        for attempt in 1.. {
            let (problem, wait) = match post::post(&config.endpoint, message).await {
                Answer::Taken(rejected) => return Ok(rejected),
                Answer::Refused(problem) => return Err(problem),
                Answer::NotNow(problem, wait) => (problem, wait_before(wait, pause, fastrand::f64())),
            };
            if attempt == ATTEMPTS || self.runtime.spans.is_urgent() {
                return Err(problem);
            }
            self.rest(wait).await;
            pause *= 2;
        }
        Err(String::new())
    }

    /// Shorter when the process is about to end.
    async fn rest(&self, time: Duration) {
        let until = Instant::now() + time;
        while Instant::now() < until && !self.runtime.spans.is_urgent() {
            sleep(LOOK.min(time)).await;
        }
    }
}

/// Anything up to twice the pause, or else all whom a collector's end cut off at once would come back at once, too
/// ("full jitter", Brooker, AWS 2015). If the collector asks for a time, that much later, and never earlier; nor at
/// once, whatever it asks for: six attempts within a moment would be one. `random`: 0 to 1.
fn wait_before(asked: Option<Duration>, pause: Duration, random: f64) -> Duration {
    match asked {
        None => (2 * pause).mul_f64(random),
        Some(asked) => asked.max(FIRST_PAUSE) + pause.mul_f64(random),
    }
}

#[async_trait]
impl BackgroundService for Exporter {
    /// Also while the process drains: requests go on until its end, which `Runtime::flush_spans` waits for.
    async fn start(&self, _: ShutdownWatch) {
        let mut is_well = true;
        loop {
            self.wait_for_batch().await;
            let batch = self.runtime.spans.take(BATCH_REQUESTS_MAX);
            is_well = self.send(&batch, is_well).await;
            self.runtime.spans.sent();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::QUEUE_REQUESTS_MAX;

    #[test]
    fn a_collector_may_ask_for_patience_and_not_for_haste() {
        let seconds = Duration::from_secs;
        for (asked, least) in [(0, FIRST_PAUSE), (2, seconds(2)), (20, seconds(20))] {
            for (random, more) in [(0.0, 0), (0.5, 2), (1.0, 4)] {
                let wait = wait_before(Some(seconds(asked)), seconds(4), random);
                assert_eq!(wait, least + seconds(more), "{asked} s, {random}");
            }
        }
    }

    /// Many of us lose one collector in the same moment.
    #[test]
    fn attempts_after_a_failure_are_spread_over_all_of_the_pause() {
        let seconds = Duration::from_secs;
        let waits = [0.0, 0.25, 0.5, 1.0].map(|random| wait_before(None, seconds(4), random));
        assert_eq!(waits, [0, 2, 4, 8].map(seconds));
    }

    /// Forty thousand requests per second are what one core serves.
    #[test]
    fn the_queue_lasts_from_one_look_to_the_next() {
        let come = 40_000 * LOOK.as_millis() / 1_000;
        assert!(2 * come <= QUEUE_REQUESTS_MAX as u128, "{come}");
    }
}
