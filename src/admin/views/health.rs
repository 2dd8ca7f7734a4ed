//! How the process and its pools are.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::{Standing, now_utc, standings};
use crate::control::Control;
use crate::runtime::{Phase, Pool};

/// A word for a whole: the process, or a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::admin) enum Condition {
    /// Everything that should serve does.
    Ok,
    /// Something that should serve does not, and others do.
    Degraded,
    /// Nobody serves.
    Down,
    /// The first health checks are under way.
    Starting,
    /// Requests in flight finish; new ones belong elsewhere.
    Draining,
}

/// How we are.
#[derive(Debug, Serialize)]
pub(in crate::admin) struct HealthView {
    pub(in crate::admin) status: Condition,
    pub(in crate::admin) timestamp: String,
    pub(in crate::admin) version: &'static str,
    /// Seconds since the start.
    pub(in crate::admin) uptime: u64,
    pub(in crate::admin) checks: Checks,
    pub(in crate::admin) system: SystemView,
}

#[derive(Debug, Serialize)]
pub(in crate::admin) struct Checks {
    pools: BTreeMap<String, PoolCheck>,
}

#[derive(Debug, Serialize)]
struct PoolCheck {
    status: Condition,
    eligible: usize,
    upstreams: usize,
}

#[derive(Debug, Serialize)]
pub(in crate::admin) struct SystemView {
    pid: u32,
    cpus: Option<usize>,
    /// Threads that carry traffic.
    threads: usize,
    memory_bytes: Option<u64>,
    open_files: Option<u64>,
}

impl HealthView {
    pub(in crate::admin) fn of(control: &Control) -> Self {
        let runtime = control.runtime();
        let checks = Checks::of(control);
        Self {
            status: checks.condition(runtime.readiness.seen()),
            timestamp: now_utc(),
            version: env!("CARGO_PKG_VERSION"),
            uptime: runtime.uptime().as_secs(),
            checks,
            system: SystemView::of(control),
        }
    }
}

impl Checks {
    fn of(control: &Control) -> Self {
        let now = control.runtime().now();
        let snapshot = control.runtime().snapshot();
        let check = |pool: &Pool| (pool.config.name.clone(), PoolCheck::of(pool, now));
        Self { pools: snapshot.pools().map(check).collect() }
    }

    /// The phase, or else that of the pools together: one pool that is down degrades the whole.
    fn condition(&self, phase: Phase) -> Condition {
        let mut pools = self.pools.values().map(|pool| pool.status);
        match phase {
            Phase::Starting => Condition::Starting,
            Phase::Draining => Condition::Draining,
            Phase::Ready if pools.clone().all(|status| status == Condition::Ok) => Condition::Ok,
            Phase::Ready if pools.any(|status| status != Condition::Down) => Condition::Degraded,
            Phase::Ready => Condition::Down,
        }
    }
}

impl PoolCheck {
    fn of(pool: &Pool, now: Duration) -> Self {
        let standings = standings(pool, now);
        let eligible = standings.iter().filter(|standing| standing.why_not.is_none()).count();
        let status = match eligible {
            0 => Condition::Down,
            _ if standings.iter().any(Standing::is_in_trouble) => Condition::Degraded,
            _ => Condition::Ok,
        };
        Self { status, eligible, upstreams: standings.len() }
    }
}

impl SystemView {
    fn of(control: &Control) -> Self {
        Self {
            pid: std::process::id(),
            cpus: std::thread::available_parallelism().ok().map(Into::into),
            threads: control.runtime().peek().config.server.threads,
            memory_bytes: resident_bytes(),
            open_files: std::fs::read_dir("/proc/self/fd").ok().map(|entries| entries.count() as u64),
        }
    }
}

/// From proc(5), where there is one.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let kibibytes = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    kibibytes.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kibibytes| kibibytes * 1024)
}
