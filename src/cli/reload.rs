//! `evener reload`: the file is read again, in full or not at all.

use std::process::ExitCode;

use clap::Args;
use serde::Deserialize;

use super::applied::Applied;
use super::client::{Admin, Ask, Client, Writing};
use super::failure::Failure;
use super::output::Paint;

#[derive(Args)]
pub(super) struct Reload {
    #[command(flatten)]
    writing: Writing,
    #[command(flatten)]
    admin: Admin,
}

/// As much of `/v1/status` as tells where mistakes are.
#[derive(Deserialize)]
struct Place {
    config: Option<String>,
}

impl Reload {
    pub(super) fn run(&self) -> Result<ExitCode, Failure> {
        let client = Client::new(&self.admin)?;
        let place: Place = client.ask(&Ask::get("/v1/status"))?.view()?;
        let file = place.config.as_deref().unwrap_or("the configuration");
        let ask = Ask::post("/v1/reload").because(&self.writing).about(file);
        client
            .show(&ask, |applied: &Applied| applied.tell(&format!("reloaded {file}"), Paint::for_stdout()))?;
        Ok(ExitCode::SUCCESS)
    }
}
