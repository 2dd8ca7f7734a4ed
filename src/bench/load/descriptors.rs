//! File descriptors: one for each connection, and there are limits.

use super::super::error::BenchError;
use super::super::scenario::{Load, Scenario};
use crate::descriptors::raise_limit;

/// Requests under way at most; more than that is no load any more but a queue of our own.
pub(super) const IN_FLIGHT_MAX: usize = 20_000;

/// Fewer than that under way, and an open loop is none.
const IN_FLIGHT_LEAST: usize = 256;

/// For files, timers and pipes of the rest of the process.
const SPARE: usize = 64;

/// How many requests may be under way at a time, as far as file descriptors go.
///
/// Raises the soft limit to the hard one: what that is for (programs that use `select`) does not concern us.
///
/// # Errors
///
/// When the load needs more than the hard limit allows.
pub(super) fn in_flight_max(scenario: &Scenario) -> Result<usize, BenchError> {
    let free = free_after_raising();
    let needed = match scenario.load {
        Load::Rate { .. } => IN_FLIGHT_LEAST * 2,
        // The servers live in this process, too, and get a connection for each request under way.
        Load::Clients(count) => count.saturating_mul(2),
        // Asked a few at a time, so that the servers see few connections.
        Load::Idle(count) => count,
    };
    let enough = needed.saturating_add(scenario.servers).saturating_add(SPARE);
    if free < enough {
        return Err(BenchError::Wrong(format!(
            "{} needs {enough} file descriptors, and {free} are free\n  = help: raise the hard limit \
             (`ulimit -Hn`), or ask for less load",
            scenario.name
        )));
    }
    let left = free - scenario.servers - SPARE;
    Ok(match scenario.load {
        Load::Rate { .. } => (left / 2).min(IN_FLIGHT_MAX),
        Load::Clients(_) | Load::Idle(_) => left,
    })
}

fn free_after_raising() -> usize {
    usize::try_from(raise_limit()).unwrap_or(usize::MAX).saturating_sub(used())
}

/// Those of this process, and a guess where nobody tells.
fn used() -> usize {
    std::fs::read_dir("/proc/self/fd").map_or(SPARE, Iterator::count)
}
