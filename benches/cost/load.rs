//! Load for one turn: by wrk, or without it by our own generator.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::machine;
use super::process::{Failure, Process};
use super::role;

/// Clients at a time; each waits for its answer before it asks again.
pub(crate) const CONNECTIONS: usize = 64;

/// How much longer than its turn a generator may take to end.
const OVERTIME: Duration = Duration::from_secs(15);

/// Makes wrk say its figures in numbers. It defines nothing that runs per request.
const SCRIPT: &str = "function done(summary, latency)
  local e = summary.errors
  print(string.format('figures %d %d %d %d %d', summary.requests, summary.duration,
    e.connect + e.read + e.write + e.status + e.timeout,
    latency:percentile(50), latency:percentile(99)))
end
";

/// What makes the load.
pub(crate) struct Tool {
    wrk: Option<PathBuf>,
    script: PathBuf,
    folder: PathBuf,
}

/// What came of one turn.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Turn {
    pub requests: u64,
    pub time: Duration,
    /// Answers that were not the one expected, and connections that failed.
    pub errors: u64,
    pub p50: Duration,
    pub p99: Duration,
}

impl Tool {
    pub(crate) fn find(folder: &Path) -> Result<Self, Failure> {
        let script = folder.join("figures.lua");
        fs::write(&script, SCRIPT)?;
        Ok(Self { wrk: machine::find("wrk"), script, folder: folder.to_owned() })
    }

    /// What it is, for the report.
    pub(crate) fn name(&self) -> String {
        self.wrk
            .as_ref()
            .map_or("our own stand-in (wrk is not installed)".into(), |_| machine::version("wrk"))
    }

    /// Loads `address` for so long. An error in any answer fails the run.
    pub(crate) fn run(&self, address: SocketAddr, time: Duration) -> Result<Turn, Failure> {
        let process = Process::start("load generator", &self.command(address, time), &self.folder)?;
        let said = process.finish(time + OVERTIME)?;
        let turn = parse(&said)
            .ok_or_else(|| Failure::Broken(format!("no figures from the load generator:\n{said}")))?;
        if turn.errors > 0 || turn.requests == 0 {
            return Err(Failure::Broken(format!(
                "{} of {} requests to {address} failed:\n{said}",
                turn.errors, turn.requests
            )));
        }
        Ok(turn)
    }

    fn command(&self, address: SocketAddr, time: Duration) -> Command {
        let Some(wrk) = &self.wrk else { return role::load(address, CONNECTIONS, time.as_secs()) };
        let mut command = Command::new(wrk);
        command.args([
            "-t1",
            &format!("-c{CONNECTIONS}"),
            &format!("-d{}s", time.as_secs()),
            "--timeout",
            "10s",
            "-s",
        ]);
        command.arg(&self.script).arg(format!("http://{address}/"));
        command
    }
}

/// `figures REQUESTS MICROSECONDS ERRORS P50 P99`, the last two in microseconds.
fn parse(said: &str) -> Option<Turn> {
    let line = said.lines().find_map(|line| line.strip_prefix("figures "))?;
    let numbers: Vec<u64> = line.split(' ').filter_map(|number| number.parse().ok()).collect();
    let [requests, time, errors, p50, p99] = numbers[..] else { return None };
    let [time, p50, p99] = [time, p50, p99].map(Duration::from_micros);
    Some(Turn { requests, time, errors, p50, p99 })
}
