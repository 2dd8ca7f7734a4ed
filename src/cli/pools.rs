//! `evener pools`: the pools with their upstreams, and why one gets no requests.

use std::process::ExitCode;

use clap::Args;
use serde::Deserialize;

use super::client::{Admin, Ask, Client, encoded};
use super::failure::Failure;
use super::output::{Cell, Paint, Table, Tone, milliseconds};

#[derive(Args)]
pub(super) struct Pools {
    /// The pool to show [default: all].
    pool: Option<String>,
    #[command(flatten)]
    admin: Admin,
}

#[derive(Deserialize)]
struct All {
    pools: Vec<Pool>,
}

#[derive(Deserialize)]
struct Pool {
    name: String,
    strategy: String,
    eligible: u64,
    in_flight: u64,
    queue: Queue,
    upstreams: Vec<Upstream>,
}

#[derive(Deserialize)]
struct Queue {
    waiting: u64,
}

/// One upstream, as the API shows it.
#[derive(Deserialize)]
pub(super) struct Upstream {
    address: String,
    pub(super) weight: u64,
    pub(super) state: String,
    pub(super) health: String,
    pub(super) eligible: bool,
    pub(super) why_not_detail: Option<String>,
    in_flight: u64,
    requests: u64,
    errors: u64,
    latency_ms: Latency,
    last_check: Option<Check>,
    backup: bool,
    source: String,
}

#[derive(Deserialize)]
struct Latency {
    p50: Option<f64>,
    p99: Option<f64>,
}

#[derive(Deserialize)]
struct Check {
    error: Option<String>,
}

impl Pools {
    pub(super) fn run(&self) -> Result<ExitCode, Failure> {
        let client = Client::new(&self.admin)?;
        let paint = Paint::for_stdout();
        match &self.pool {
            Some(pool) => {
                let ask = Ask::get(format!("/v1/pools/{}", encoded(pool)));
                client.show(&ask, |pool: &Pool| pool.tell(paint))?;
            }
            None => {
                client.show(&Ask::get("/v1/pools"), |all: &All| all.tell(paint))?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl All {
    fn tell(&self, paint: Paint) -> String {
        let pools: Vec<String> = self.pools.iter().map(|pool| pool.tell(paint)).collect();
        pools.join("\n")
    }
}

impl Pool {
    fn tell(&self, paint: Paint) -> String {
        let Self { name, strategy, eligible, in_flight, upstreams, .. } = self;
        let name = paint.paint(Tone::Heading, name);
        let waiting = match self.queue.waiting {
            0 => String::new(),
            some => format!(", {some} waiting"),
        };
        let mut table = Table::new(&[
            "UPSTREAM",
            "STATE",
            "HEALTH",
            "#WEIGHT",
            "#IN FLIGHT",
            "#REQUESTS",
            "#ERRORS",
            "#P50",
            "#P99",
            "NOTE",
        ]);
        for upstream in upstreams {
            table.row(upstream.cells());
        }
        let count = upstreams.len();
        let rows = if table.is_empty() { "  no upstreams\n".to_owned() } else { table.render("  ", paint) };
        format!("{name}: {strategy}, {eligible} of {count} eligible, {in_flight} in flight{waiting}\n{rows}")
    }
}

impl Upstream {
    fn cells(&self) -> [Cell; 10] {
        let state = if self.state == "ready" { Tone::Plain } else { Tone::Odd };
        let health = match self.health.as_str() {
            "up" => Tone::Good,
            "down" => Tone::Bad,
            _ => Tone::Plain,
        };
        [
            self.address.as_str().into(),
            Cell::toned(&self.state, state),
            Cell::toned(&self.health, health),
            self.weight.to_string().into(),
            self.in_flight.to_string().into(),
            self.requests.to_string().into(),
            self.errors.to_string().into(),
            milliseconds(self.latency_ms.p50).into(),
            milliseconds(self.latency_ms.p99).into(),
            self.note().into(),
        ]
    }

    /// Whatever is not as usual.
    pub(super) fn note(&self) -> String {
        let error = self.last_check.as_ref().and_then(|check| check.error.as_deref());
        let error = error.map(|error| format!("last check: {error}"));
        let parts = [
            self.backup.then(|| "backup".to_owned()),
            (self.source == "override").then(|| "changed at run time".to_owned()),
            self.why_not_detail.clone(),
            error,
        ];
        parts.into_iter().flatten().collect::<Vec<_>>().join("; ")
    }
}
