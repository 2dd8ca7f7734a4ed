//! `evener guard`, `evener confirm`: a configuration on probation, and what its figures say.

use std::process::ExitCode;

use clap::Args;
use serde::Deserialize;

use super::client::{Admin, Ask, Client, Writing};
use super::failure::Failure;
use super::output::{Paint, Table, milliseconds, percent};

/// A guarded change: under way, or how it ended.
#[derive(Deserialize)]
pub(super) struct Guard {
    outcome: String,
    why: Option<String>,
    generation: u64,
    previous_generation: u64,
    #[serde(default)]
    now_generation: Option<u64>,
    #[serde(default)]
    pools: Vec<String>,
    #[serde(default)]
    until: Option<String>,
    max_error_ratio: f64,
    confirm: bool,
    #[serde(default)]
    before: Option<Figures>,
    #[serde(default)]
    after: Option<Figures>,
}

/// Of the changed pools. What is not known is null.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Figures {
    seconds: Option<f64>,
    requests: Option<u64>,
    errors: Option<u64>,
    error_ratio: Option<f64>,
    p99_ms: Option<f64>,
}

/// The answer of everything that ends a guard.
#[derive(Deserialize)]
struct Ended {
    guard: Guard,
}

#[derive(Args)]
pub(super) struct Confirm {
    #[command(flatten)]
    writing: Writing,
    #[command(flatten)]
    admin: Admin,
}

#[derive(Args)]
pub(super) struct Show {
    #[command(flatten)]
    admin: Admin,
}

impl Confirm {
    pub(super) fn run(&self) -> Result<ExitCode, Failure> {
        let client = Client::new(&self.admin)?;
        let ask = Ask::post("/v1/config/confirm").because(&self.writing);
        client.show(&ask, |ended: &Ended| ended.guard.tell())?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Show {
    pub(super) fn run(&self) -> Result<ExitCode, Failure> {
        let client = Client::new(&self.admin)?;
        client.show(&Ask::get("/v1/config/guard"), Guard::tell)?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Guard {
    /// How it stands, with the figures of both generations.
    pub(super) fn tell(&self) -> String {
        format!("{}\n{}", self.headline(), self.figures("  "))
    }

    pub(super) fn headline(&self) -> String {
        let Self { generation, previous_generation, max_error_ratio, .. } = self;
        match self.outcome.as_str() {
            "watching" => {
                let until = self.until.as_deref().unwrap_or("its time is over");
                let condition = if self.confirm { " nobody confirms, or" } else { "" };
                format!(
                    "watching generation {generation} until {until}: rolled back to {previous_generation} if{condition} more than {} of its requests fail, or if it is much slower",
                    percent(*max_error_ratio)
                )
            }
            "kept" => format!("kept generation {generation}"),
            "rolled_back" => {
                let now = self.now_generation.map(|now| format!(", which runs as {now}")).unwrap_or_default();
                format!(
                    "rolled back generation {generation} to {previous_generation}{now}: {}",
                    self.reason()
                )
            }
            other => format!("generation {generation}: {other}"),
        }
    }

    fn reason(&self) -> String {
        match self.why.as_deref() {
            Some("error_ratio") => {
                format!("more than {} of its requests failed", percent(self.max_error_ratio))
            }
            Some("latency") => "it was much slower than before".to_owned(),
            Some("not_confirmed") => "nobody confirmed it".to_owned(),
            Some("asked") => "somebody asked for it".to_owned(),
            Some(other) => other.to_owned(),
            None => "no reason given".to_owned(),
        }
    }

    /// Before and after, side by side.
    pub(super) fn figures(&self, indent: &str) -> String {
        let (Some(before), Some(after)) = (&self.before, &self.after) else { return String::new() };
        let mut table = Table::new(&["", "#BEFORE", "#AFTER"]);
        let mut row = |name: &str, figure: fn(&Figures) -> String| {
            table.row([name.into(), figure(before).into(), figure(after).into()]);
        };
        row("watched for", |it| it.seconds.map_or_else(unknown, |seconds| format!("{seconds:.0} s")));
        row("requests", |it| it.requests.map_or_else(unknown, |requests| requests.to_string()));
        row("errors", |it| it.errors.map_or_else(unknown, |errors| errors.to_string()));
        row("error ratio", |it| it.error_ratio.map_or_else(unknown, percent));
        row("p99", |it| milliseconds(it.p99_ms));
        let pools = if self.pools.is_empty() {
            String::new()
        } else {
            format!("{indent}watched pools: {}\n", self.pools.join(", "))
        };
        // Colours would be those of the wrong stream in an error.
        pools + &table.render(indent, Paint::none())
    }
}

fn unknown() -> String {
    "-".to_owned()
}
