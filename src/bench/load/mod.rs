//! The load generator: clients that keep to their schedule.
//!
//! ```text
//!   starts ────► driver ──── begins each at its time, however many are under way ────► client
//!   who begins     │  gives up those whose time is over                                  │ one request:
//!   when           │                                                                     │ connection, question,
//!                  └──► record ◄──── latency from the time when it should have begun ────┘ answer
//! ```
//!
//! A client that waits for its answer before it asks again does not ask while the balancer stalls, and so
//! does not see the stall (coordinated omission). Here each request of an open loop begins when its time has come,
//! on a connection of its own if need be, and its latency counts from then even if we ourselves were late.
//!
//! One thread, one task per request, HTTP/1.1 over tokio's sockets with httparse, rustls in between where the
//! scenario says so; HTTP/2 by the h2 crate, whose clients cost several times as much. A client must cost less
//! than what it measures. Small kept GETs in a closed loop of 64 clients, in turns on one machine: 220 000 to 260 000
//! requests per CPU-second, wrk 260 000 to 290 000, and hyper's client, which was weighed instead, 170 000.
//!
//! Linux, as far as it matters how precise it is.

mod answer;
mod chunks;
mod client;
mod descriptors;
mod driver;
mod record;
mod starts;
mod streams;
#[cfg(test)]
mod tests;
mod wire;

use std::net::SocketAddr;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use super::error::BenchError;
use super::scenario::{Request, Scenario};
use super::schedule::Arrival;
use super::turn::Seen;

/// What a turn asks of the clients.
pub struct Order<'a> {
    /// What is asked, for how long, and how patiently.
    pub scenario: &'a Scenario,
    /// When; empty if the load is no open loop.
    pub schedule: &'a [Arrival],
    /// For `perfect`: the server of each arrival, told as `Host: s<INDEX>`; others say `Host: bench`.
    pub homes: Option<&'a [usize]>,
    /// Whom to ask; at least one.
    pub balancers: &'a [SocketAddr],
    /// How many servers there are behind them.
    pub servers: usize,
    /// The turn's time 0, a little ahead.
    pub began: Instant,
    /// Set by Ctrl-C.
    pub stop: &'a AtomicBool,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct LoadReport {
    /// By the clients.
    pub seen: Seen,
    /// How much later than intended requests of an open loop began: 99th percentile, after the warm-up.
    pub sent_late: Duration,
    /// Share of one core that this thread used since the turn began, 0 to 1.
    pub busy: f64,
    /// Idle connections that were open when `at_end` was called; 0 unless the load is [`Load::Idle`].
    ///
    /// [`Load::Idle`]: super::scenario::Load::Idle
    pub idle_connections: u64,
}

/// Runs a turn on the calling thread, which must not be one of a tokio runtime.
///
/// Ends when the turn is over and nothing is under way any more, which takes at most the clients' patience.
/// `at_warm` is called once, when the warm-up ends; it holds requests up, so it should be quick. `at_end` is called
/// once, after the last request and while connections are still open. Idle connections are then asked
/// again, a tenth of them; one that was not kept counts as broken.
///
/// # Errors
///
/// [`BenchError::Wrong`] when there are too few file descriptors or no balancer, [`BenchError::Interrupted`]
/// at most 100 ms after `stop` was set, [`BenchError::Io`] when the system gives no timer. In none of these
/// cases is it promised that the callbacks were called.
pub fn run(
    order: &Order<'_>,
    at_warm: impl FnOnce(),
    at_end: impl FnOnce(),
) -> Result<LoadReport, BenchError> {
    driver::run(order, descriptors::in_flight_max(order.scenario)?, at_warm, at_end)
}

/// Asks once, on a connection of its own; says which server answered, if it told.
///
/// # Errors
///
/// What went wrong, in a few words.
pub fn ask_once(request: Request, address: SocketAddr, patience: Duration) -> Result<Option<usize>, String> {
    driver::ask_once(request, address, patience)
}
