//! `evener overrides`: what was changed at run time and differs from the file.

use std::process::ExitCode;

use clap::Args;
use serde::Deserialize;
use serde_json::Value;

use super::applied::Applied;
use super::client::{Admin, Ask, Client, Writing};
use super::failure::Failure;
use super::output::{Cell, Paint, Table};

#[derive(Args)]
pub(super) struct Overrides {
    /// Forget all of them: the file alone counts.
    #[arg(long)]
    drop: bool,
    #[command(flatten)]
    writing: Writing,
    #[command(flatten)]
    admin: Admin,
}

#[derive(Deserialize)]
struct View {
    overrides: Vec<Override>,
}

#[derive(Deserialize)]
struct Override {
    pool: String,
    #[serde(default)]
    upstream: Option<String>,
    setting: String,
    value: Value,
    #[serde(default)]
    file: Value,
    by: String,
    at: String,
}

impl Overrides {
    pub(super) fn run(&self) -> Result<ExitCode, Failure> {
        let client = Client::new(&self.admin)?;
        let paint = Paint::for_stdout();
        if self.drop {
            let ask = Ask::delete("/v1/overrides").because(&self.writing);
            client.show(&ask, |applied: &Applied| applied.tell("dropped all overrides", paint))?;
        } else {
            client.show(&Ask::get("/v1/overrides"), |view: &View| view.tell(paint))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl View {
    fn tell(&self, paint: Paint) -> String {
        let mut table = Table::new(&["POOL", "UPSTREAM", "SETTING", "NOW", "FILE", "BY", "AT"]);
        self.overrides.iter().for_each(|one| table.row(one.cells()));
        if table.is_empty() {
            "no overrides: the file alone counts\n".to_owned()
        } else {
            table.render("", paint)
        }
    }
}

impl Override {
    fn cells(&self) -> [Cell; 7] {
        [
            self.pool.as_str().into(),
            self.upstream.as_deref().unwrap_or("-").into(),
            self.setting.as_str().into(),
            plain(&self.value).into(),
            plain(&self.file).into(),
            self.by.as_str().into(),
            self.at.as_str().into(),
        ]
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(word) => word.clone(),
        other => other.to_string(),
    }
}
