//! How long, and how much of everything.

use std::time::Duration;

use clap::Parser;
use clap::builder::FalseyValueParser;

/// Measures what Evener costs beside a bare Pingora proxy, nginx and `HAProxy`.
#[derive(Debug, Parser)]
#[command(name = "cost", max_term_width = 100)]
pub(crate) struct Options {
    /// Turns that every candidate gets.
    #[arg(long, env = "BENCH_ROUNDS", default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Seconds of load in each turn.
    #[arg(long, env = "BENCH_SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
    /// Idle client connections held at a time.
    #[arg(long, env = "BENCH_CONNECTIONS", default_value_t = 4_000, value_parser = clap::value_parser!(u32).range(1..=15_000))]
    connections: u32,
    /// Requests after which memory is compared with that after a tenth of them.
    #[arg(long, env = "BENCH_REQUESTS", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1_000..=100_000_000))]
    requests: u64,
    /// Two turns of one second and a tenth of the requests: to see that it works.
    #[arg(long, env = "BENCH_QUICK", value_parser = FalseyValueParser::new())]
    quick: bool,
    /// Evener and bare Pingora only.
    #[arg(long, env = "BENCH_ONLY_OURS", value_parser = FalseyValueParser::new())]
    only_ours: bool,
    /// What cargo says to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

impl Options {
    pub(crate) fn rounds(&self) -> usize {
        if self.quick { 2 } else { self.rounds as usize }
    }

    pub(crate) fn turn(&self) -> Duration {
        Duration::from_secs(if self.quick { 1 } else { self.seconds })
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections as usize
    }

    pub(crate) fn requests(&self) -> u64 {
        if self.quick { self.requests / 10 } else { self.requests }
    }

    pub(crate) fn is_only_ours(&self) -> bool {
        self.only_ours
    }
}
