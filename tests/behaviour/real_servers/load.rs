//! Load by a generator that no one here wrote: wrk.

use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::Value;

use super::program::{command, kill_group, scripts, signal};

/// Connections of the load, each with one request in flight.
pub(super) const CONNECTIONS: u64 = 32;

/// wrk at work, with as many GETs as it can make.
pub(super) struct Load {
    process: Option<Child>,
}

/// What wrk counted: complete answers, and what went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Report {
    pub(super) requests: u64,
    pub(super) connect: u64,
    pub(super) read: u64,
    pub(super) write: u64,
    /// Answers of 400 and more.
    pub(super) status: u64,
    /// Answers that took longer than thirty seconds.
    pub(super) timeout: u64,
}

impl Load {
    /// Starts it. It ends when told to; the five minutes are for the case that a play fails.
    pub(super) fn start(target: SocketAddr) -> Self {
        Self::start_for(Duration::from_secs(300), target)
    }

    /// The same, for plays that take longer.
    pub(super) fn start_for(at_most: Duration, target: SocketAddr) -> Self {
        let seconds = format!("-d{}s", at_most.as_secs());
        let process = command("wrk")
            .args(["-t1", &format!("-c{CONNECTIONS}"), &seconds, "--timeout", "30s", "-s"])
            .arg(scripts().join("load.lua"))
            .arg(format!("http://{target}/"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn();
        Self { process: Some(process.expect("wrk starts")) }
    }

    /// Ends it, and reads its report. Up to [`CONNECTIONS`] requests are left behind unanswered.
    #[track_caller]
    pub(super) fn end(mut self) -> Report {
        let process = self.process.take().expect("wrk runs");
        signal(process.id().into(), "INT");
        let output = process.wait_with_output().expect("wrk ends");
        let said = String::from_utf8_lossy(&output.stdout);
        let report = said.lines().rev().find(|line| line.starts_with('{'));
        Report::read(report.unwrap_or_else(|| panic!("no report of wrk: {said}")))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            kill_group(process);
        }
    }
}

impl Report {
    fn read(json: &str) -> Self {
        let report: Value = serde_json::from_str(json).expect("JSON");
        let number = |name: &str| report[name].as_u64().unwrap_or_else(|| panic!("`{name}` in {json}"));
        Self {
            requests: number("requests"),
            connect: number("connect"),
            read: number("read"),
            write: number("write"),
            status: number("status"),
            timeout: number("timeout"),
        }
    }

    /// Requests that got no answer, or not in time.
    pub(super) const fn broken(&self) -> u64 {
        self.connect + self.read + self.write + self.timeout
    }

    pub(super) const fn failed(&self) -> u64 {
        self.broken() + self.status
    }
}
