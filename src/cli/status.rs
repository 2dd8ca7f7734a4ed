//! `evener status`: what runs, and how it is.

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::Args;
use serde::Deserialize;

use super::client::{Admin, Ask, Client};
use super::failure::Failure;
use super::guard::Guard;
use super::output::{Paint, Table, Tone, counted, milliseconds, percent, time_span};

#[derive(Args)]
pub(super) struct Status {
    #[command(flatten)]
    admin: Admin,
}

#[derive(Deserialize)]
struct View {
    version: String,
    status: String,
    uptime_seconds: f64,
    generation: u64,
    config: Option<String>,
    pid: u32,
    listeners: Vec<Listener>,
    routes: u64,
    pools: u64,
    upstreams: u64,
    totals: Totals,
    #[serde(default)]
    overrides: u64,
    #[serde(default)]
    last_refusal: Option<Refusal>,
    #[serde(default)]
    last_failed_upgrade: Option<Refusal>,
    #[serde(default)]
    guard: Option<Guard>,
}

#[derive(Deserialize)]
struct Listener {
    name: String,
    address: String,
    connections: u64,
    #[serde(default)]
    upgraded_connections: u64,
}

#[derive(Deserialize)]
struct Totals {
    requests: u64,
    errors: u64,
    error_rate: f64,
    in_flight: u64,
    latency_ms: Latency,
}

#[derive(Deserialize)]
struct Latency {
    p50: Option<f64>,
    p99: Option<f64>,
    max: Option<f64>,
}

#[derive(Deserialize)]
struct Refusal {
    at: String,
    who: String,
    reason: String,
}

impl Status {
    pub(super) fn run(&self) -> Result<ExitCode, Failure> {
        let client = Client::new(&self.admin)?;
        client.show(&Ask::get("/v1/status"), |view: &View| view.tell(Paint::for_stdout()))?;
        Ok(ExitCode::SUCCESS)
    }
}

impl View {
    fn tell(&self, paint: Paint) -> String {
        let Self { version, status, pid, generation, totals, .. } = self;
        let up = time_span(self.uptime_seconds);
        let mut text =
            format!("Evener {version} is {}, up {up}, process {pid}\n", paint.paint(tone(status), status));
        let config = self.config.as_deref().unwrap_or("from arguments, without a file");
        let overrides = match self.overrides {
            0 => String::new(),
            some => format!(", {} (`evener overrides`)", counted(some, "override")),
        };
        let _ = writeln!(text, "  config    {config}, generation {generation}{overrides}");
        let (routes, pools) = (counted(self.routes, "route"), counted(self.pools, "pool"));
        let _ = writeln!(text, "  serves    {routes}, {pools}, {}", counted(self.upstreams, "upstream"));
        let Totals { requests, errors, error_rate, in_flight, latency_ms } = totals;
        let _ = writeln!(
            text,
            "  requests  {requests}, {in_flight} in flight, {} ({})",
            counted(*errors, "error"),
            percent(*error_rate)
        );
        let [p50, p99, max] = [latency_ms.p50, latency_ms.p99, latency_ms.max].map(milliseconds);
        let _ = writeln!(text, "  latency   p50 {p50}, p99 {p99}, max {max}");
        if let Some(guard) = &self.guard {
            let _ = writeln!(text, "  guard     {}", guard.headline());
        }
        for (refusal, word, what) in [
            (&self.last_refusal, "refused", "the last change"),
            (&self.last_failed_upgrade, "failed ", "the last upgrade"),
        ] {
            if let Some(Refusal { at, who, reason }) = refusal {
                let word = paint.paint(Tone::Bad, word);
                let reason = reason.trim_end().replace('\n', "\n            ");
                let _ = writeln!(text, "  {word}   {what}, {at} by {who}:\n            {reason}");
            }
        }
        text + "\n" + &self.listeners(paint)
    }

    fn listeners(&self, paint: Paint) -> String {
        let mut table = Table::new(&["LISTENER", "ADDRESS", "#CONNECTIONS", "#UPGRADED"]);
        for Listener { name, address, connections, upgraded_connections } in &self.listeners {
            let counts = [connections, upgraded_connections].map(|count| count.to_string().into());
            let [connections, upgraded] = counts;
            table.row([name.as_str().into(), address.as_str().into(), connections, upgraded]);
        }
        table.render("", paint)
    }
}

fn tone(status: &str) -> Tone {
    match status {
        "ok" => Tone::Good,
        "down" => Tone::Bad,
        _ => Tone::Odd,
    }
}
