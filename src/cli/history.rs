//! `evener history`, `evener rollback`: which configurations ran, and the way back to one of them.

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::Args;
use serde::Deserialize;
use serde_json::json;

use super::applied::Applied;
use super::client::{Admin, Ask, Client, Writing};
use super::failure::Failure;
use super::output::{self, Cell, Paint, Table, Tone};

#[derive(Args)]
pub(super) struct History {
    /// Print the file of this generation.
    generation: Option<u64>,
    /// How many to list, newest first.
    #[arg(long, value_name = "NUMBER", default_value_t = 20, conflicts_with = "generation")]
    last: usize,
    #[command(flatten)]
    admin: Admin,
}

#[derive(Args)]
pub(super) struct Rollback {
    /// The generation to go back to [default: the one before].
    generation: Option<u64>,
    #[command(flatten)]
    writing: Writing,
    #[command(flatten)]
    admin: Admin,
}

#[derive(Deserialize)]
struct View {
    entries: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    generation: u64,
    at: String,
    who: String,
    why: Option<String>,
    what: String,
    #[serde(default)]
    overrides: u64,
    #[serde(default)]
    current: bool,
}

impl History {
    pub(super) fn run(&self) -> Result<ExitCode, Failure> {
        let client = Client::new(&self.admin)?;
        if let Some(generation) = self.generation {
            let answer = client.ask(&Ask::get(format!("/v1/config/history/{generation}")))?;
            output::print(answer.toml()?)?;
        } else {
            let tell = |view: &View| view.tell(self.last, Paint::for_stdout());
            client.show(&Ask::get("/v1/config/history"), tell)?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl View {
    fn tell(&self, last: usize, paint: Paint) -> String {
        let mut table = Table::new(&["#GENERATION", "AT", "BY", "WHAT", "#OVERRIDES", "WHY"]);
        self.entries.iter().take(last).for_each(|entry| table.row(entry.cells()));
        let mut text = table.render("", paint);
        let older = self.entries.len().saturating_sub(last);
        if older > 0 {
            let _ = writeln!(text, "… and {older} older (--last {})", self.entries.len());
        }
        text
    }
}

impl Entry {
    fn cells(&self) -> [Cell; 6] {
        // A text that somebody wrote into the file and that never ran has no number.
        let number = if self.generation == 0 { "-".to_owned() } else { self.generation.to_string() };
        let tone = if self.current { Tone::Good } else { Tone::Plain };
        let what = if self.current { format!("{} (runs now)", self.what) } else { self.what.clone() };
        [
            Cell::toned(number, tone),
            self.at.as_str().into(),
            self.who.as_str().into(),
            Cell::toned(what, tone),
            self.overrides.to_string().into(),
            self.why.clone().unwrap_or_default().into(),
        ]
    }
}

impl Rollback {
    pub(super) fn run(&self) -> Result<ExitCode, Failure> {
        let client = Client::new(&self.admin)?;
        let body = self.generation.map_or_else(|| json!({}), |generation| json!({"generation": generation}));
        let ask = Ask::post("/v1/config/rollback").json(&body).because(&self.writing);
        let what = self.generation.map_or_else(
            || "rolled back".to_owned(),
            |generation| format!("rolled back to generation {generation}"),
        );
        client.show(&ask, |applied: &Applied| applied.tell(&what, Paint::for_stdout()))?;
        Ok(ExitCode::SUCCESS)
    }
}
