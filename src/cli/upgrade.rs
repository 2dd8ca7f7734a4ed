//! `evener upgrade`: another process takes the place of the one that runs, and nobody is refused.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde::Deserialize;

use super::client::{Admin, Ask, Client, Writing};
use super::failure::Failure;

#[derive(Args)]
pub(super) struct Upgrade {
    #[command(flatten)]
    writing: Writing,
    #[command(flatten)]
    admin: Admin,
}

/// As much of `/v1/status` as says what a successor is started from.
#[derive(Deserialize)]
struct Running {
    executable: PathBuf,
}

#[derive(Deserialize)]
struct HandedOver {
    predecessor: Process,
    successor: Process,
    generation: u64,
    seconds: f64,
}

#[derive(Deserialize)]
struct Process {
    pid: u32,
    version: String,
}

/// How much longer we wait for the answer than the process waits for its successor.
const ANSWER_TIME: Duration = Duration::from_secs(15);

impl Upgrade {
    pub(super) fn run(&self) -> Result<ExitCode, Failure> {
        let client = Client::new(&self.admin)?;
        let running: Running = client.ask(&Ask::get("/v1/status"))?.view()?;
        check_is_this(&running.executable)?;
        let path = format!("/v1/upgrade?timeout={}ms", client.timeout().as_millis());
        let ask = Ask::post(path).because(&self.writing).waiting(ANSWER_TIME);
        client.show(&ask, HandedOver::tell)?;
        Ok(ExitCode::SUCCESS)
    }
}

impl HandedOver {
    fn tell(&self) -> String {
        let Self { predecessor: old, successor: new, generation, seconds } = self;
        format!(
            "process {} ({}) handed over to {} ({}) in {seconds:.1} s, generation {generation}\nprocess {} finishes what it has, and ends\n",
            old.pid, old.version, new.pid, new.version, old.pid
        )
    }
}

/// The process starts what lies where it was started from. If that is not this program, whoever typed the
/// command expects something else.
fn check_is_this(running: &Path) -> Result<(), Failure> {
    let identity = |path: &Path| fs::metadata(path).map(|found| (found.dev(), found.ino()));
    let this = std::env::current_exe().unwrap_or_default();
    let refused =
        |wrong: String, help: String| Err(Failure::Refused(format!("error: {wrong}\n  = help: {help}\n")));
    match (identity(running), identity(&this)) {
        (Ok(theirs), Ok(ours)) if theirs == ours => Ok(()),
        (Ok(_), _) => refused(
            format!("the running process would start {}, which is not this program", running.display()),
            format!(
                "install this one there: `install {0} {1}`; then `{1} upgrade`",
                this.display(),
                running.display()
            ),
        ),
        (Err(error), _) => refused(
            format!("the running process would start {}: {error}", running.display()),
            "run this on its machine (and in its container), after the new program was installed there"
                .to_owned(),
        ),
    }
}
