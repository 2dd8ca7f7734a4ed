//! `evener apply`: a file becomes the configuration, guarded if asked.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde::Deserialize;

use super::applied::Applied;
use super::client::{Admin, Ask, Client, Writing, duration, encoded};
use super::failure::Failure;
use super::guard::Guard;
use super::output::{self, Paint, percent};
use super::plan;

/// The side port's own bound when none is named.
const ERROR_RATIO_MAX_DEFAULT: f64 = 0.05;

#[derive(Args)]
pub(super) struct Apply {
    /// The file; `-` reads standard input.
    file: PathBuf,
    /// Watch the changed pools for this long, and roll back by itself when it goes wrong.
    #[arg(long, value_name = "DURATION", value_parser = guard_time)]
    guard: Option<GuardTime>,
    /// With --guard: the share of failed requests above which it is rolled back, 0 to 1 [default: 0.05].
    #[arg(long, value_name = "RATIO", requires = "guard", value_parser = ratio)]
    max_error_ratio: Option<f64>,
    /// With --guard: roll back unless somebody says `evener confirm` in time. Does not wait.
    #[arg(long, requires = "guard")]
    confirm: bool,
    /// Replace the file even if somebody edited it and that does not run yet; the history keeps that text.
    #[arg(long)]
    overwrite: bool,
    #[command(flatten)]
    writing: Writing,
    #[command(flatten)]
    admin: Admin,
}

/// As it was typed, and how long that is.
#[derive(Clone)]
struct GuardTime {
    text: String,
    time: Duration,
}

fn guard_time(text: &str) -> Result<GuardTime, String> {
    Ok(GuardTime { text: text.to_owned(), time: duration(text)? })
}

fn ratio(text: &str) -> Result<f64, String> {
    let ratio = text.parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
    ratio.ok_or_else(|| "expected a ratio from 0 to 1, such as 0.05".to_owned())
}

#[derive(Deserialize)]
struct View {
    #[serde(flatten)]
    applied: Applied,
    #[serde(default)]
    guard: Option<Guard>,
}

impl Apply {
    pub(super) fn run(&self) -> Result<ExitCode, Failure> {
        let client = Client::new(&self.admin)?;
        let (name, text) = plan::read(&self.file)?;
        let ask = Ask::put(self.path()).toml(&name, &text).because(&self.writing).waiting(self.patience());
        let ask = if self.overwrite {
            ask.if_match("*")
        } else {
            ask.if_match(client.ask(&Ask::get("/v1/config"))?.tag()?)
        };
        self.announce(&name);
        let tell = |view: &View| self.tell(view, &name, &client);
        client.show(&ask, tell)?;
        Ok(ExitCode::SUCCESS)
    }

    fn path(&self) -> String {
        let Some(guard) = &self.guard else { return "/v1/config".to_owned() };
        let ratio = self.max_error_ratio.map(|ratio| format!("&max_error_ratio={ratio}"));
        let confirm = if self.confirm { "&confirm=true" } else { "" };
        format!("/v1/config?guard={}{}{confirm}", encoded(&guard.text), ratio.unwrap_or_default())
    }

    /// The answer of a guarded change comes when the watch is over.
    fn patience(&self) -> Duration {
        self.guard.as_ref().filter(|_| !self.confirm).map_or(Duration::ZERO, |guard| guard.time)
    }

    fn announce(&self, name: &str) {
        if let Some(GuardTime { text, .. }) = self.guard.as_ref().filter(|_| !self.confirm) {
            let ratio = percent(self.max_error_ratio.unwrap_or(ERROR_RATIO_MAX_DEFAULT));
            output::complain(&format!(
                "watching {name} for {text}: rolled back if more than {ratio} of its requests fail, or if it is much slower"
            ));
        }
    }

    fn tell(&self, view: &View, name: &str, client: &Client) -> String {
        let mut text = view.applied.tell(&format!("applied {name}"), Paint::for_stdout());
        if let Some(guard) = &view.guard {
            text.push_str(&guard.tell());
        }
        if self.confirm && view.guard.is_some() {
            let (confirm, rollback) = (client.command("confirm"), client.command("rollback"));
            let _ = writeln!(text, "to keep it: {confirm}; to end it now: {rollback}");
        }
        text
    }
}
