//! `evener drain`, `ready`, `maintenance`, `weight`: one upstream of a pool.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde::Deserialize;
use serde_json::{Value, json};

use super::EXIT_REFUSED;
use super::applied::Applied;
use super::client::{Admin, Ask, Client, Writing, duration, encoded};
use super::drained::Drained;
use super::failure::Failure;
use super::member::Member;
use super::output::{Paint, Progress, Tone, counted};
use super::pools::Upstream;

#[derive(Args)]
pub(super) struct Drain {
    /// The upstream.
    #[arg(value_name = "POOL/ADDRESS")]
    upstream: Member,
    /// How long to wait until its requests are done; its state stays `drain` afterwards.
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = wait)]
    wait: Wait,
    #[command(flatten)]
    writing: Writing,
    #[command(flatten)]
    admin: Admin,
}

/// As it was typed, and how long that is.
#[derive(Clone)]
struct Wait {
    text: String,
    time: Duration,
}

fn wait(text: &str) -> Result<Wait, String> {
    Ok(Wait { text: text.to_owned(), time: duration(text)? })
}

impl Drain {
    pub(super) fn run(&self) -> Result<ExitCode, Failure> {
        let client = Client::new(&self.admin)?;
        let path = format!("{}/drain?wait={}", self.upstream.path(), encoded(&self.wait.text));
        let ask = Ask::post(path).accepting("application/x-ndjson, application/json;q=0.9");
        let ask = ask.because(&self.writing).waiting(self.wait.time);
        let mut progress = Progress::default();
        let answer = client.follow(&ask, |line| {
            if let Ok(drained) = line.view::<Drained>()
                && !client.json
            {
                progress.tell(&format!("draining {}: {} in flight", self.upstream, drained.requests()));
            }
        });
        progress.end();
        let drained = client.show_answer(&answer?, |drained: &Drained| self.tell(drained))?;
        Ok(if drained.safe_to_stop { ExitCode::SUCCESS } else { ExitCode::from(EXIT_REFUSED) })
    }

    fn tell(&self, drained: &Drained) -> String {
        let paint = Paint::for_stdout();
        let Drained { safe_to_stop, also_in, .. } = drained;
        if *safe_to_stop {
            return format!("{}: {}\n", self.upstream, paint.paint(Tone::Good, "safe to stop"));
        }
        let requests = counted(drained.requests(), "request");
        let unsafe_now = paint.paint(Tone::Bad, "not safe to stop");
        let mut text = format!("{}: {unsafe_now}, {requests} in flight\n", self.upstream);
        for pool in also_in {
            let address = &self.upstream.address;
            let _ = writeln!(text, "  pool {pool} still sends there: `evener drain {pool}/{address}`");
        }
        if drained.requests() > 0 {
            text.push_str("  it gets no new requests from this pool; the same command with --wait waits for the old ones\n");
        }
        text
    }
}

/// An upstream that was changed.
#[derive(Deserialize)]
struct Patched {
    #[serde(flatten)]
    upstream: Upstream,
    applied: Applied,
}

impl Patched {
    fn tell(&self, member: &Member) -> String {
        let Upstream { state, health, weight, eligible, why_not_detail, .. } = &self.upstream;
        let outlook = match (eligible, why_not_detail) {
            (true, _) => "it gets requests".to_owned(),
            (false, Some(why_not)) => format!("it gets no requests: {why_not}"),
            (false, None) => "it gets no requests".to_owned(),
        };
        format!(
            "{member}: state {state}, weight {weight}, health {health}; {outlook}\n{}",
            self.applied.notes()
        )
    }
}

/// Changes one upstream, and tells how it is then.
fn patch(member: &Member, change: &Value, writing: &Writing, admin: &Admin) -> Result<ExitCode, Failure> {
    let client = Client::new(admin)?;
    let ask = Ask::patch(member.path(), change).because(writing);
    client.show(&ask, |patched: &Patched| patched.tell(member))?;
    Ok(ExitCode::SUCCESS)
}

#[derive(Args)]
pub(super) struct Ready {
    /// The upstream.
    #[arg(value_name = "POOL/ADDRESS")]
    upstream: Member,
    #[command(flatten)]
    writing: Writing,
    #[command(flatten)]
    admin: Admin,
}

impl Ready {
    pub(super) fn run(&self) -> Result<ExitCode, Failure> {
        patch(&self.upstream, &json!({"state": "ready"}), &self.writing, &self.admin)
    }
}

#[derive(Args)]
pub(super) struct Maintenance {
    /// The upstream.
    #[arg(value_name = "POOL/ADDRESS")]
    upstream: Member,
    #[command(flatten)]
    writing: Writing,
    #[command(flatten)]
    admin: Admin,
}

impl Maintenance {
    pub(super) fn run(&self) -> Result<ExitCode, Failure> {
        patch(&self.upstream, &json!({"state": "maintenance"}), &self.writing, &self.admin)
    }
}

#[derive(Args)]
pub(super) struct Weight {
    /// The upstream.
    #[arg(value_name = "POOL/ADDRESS")]
    upstream: Member,
    /// Its share beside the others'; 0 sends it nothing.
    #[arg(value_name = "WEIGHT")]
    share: u16,
    #[command(flatten)]
    writing: Writing,
    #[command(flatten)]
    admin: Admin,
}

impl Weight {
    pub(super) fn run(&self) -> Result<ExitCode, Failure> {
        patch(&self.upstream, &json!({"weight": self.share}), &self.writing, &self.admin)
    }
}
