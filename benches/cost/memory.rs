//! Resident memory: at start, per idle connection, and after many requests.

use std::time::Duration;

use super::candidate::{Candidate, Place};
use super::connections;
use super::load::Tool;
use super::options::Options;
use super::process::{Failure, pause};

/// After a change of load: until the process has done what it does afterwards.
const SETTLING: Duration = Duration::from_secs(2);

/// Memory of one candidate without load.
pub(crate) struct Memory {
    pub candidate: Candidate,
    pub at_start_kib: f64,
    pub per_connection_kib: f64,
}

/// Memory of one candidate under load.
pub(crate) struct Growth {
    /// Requests by the first look and by the last.
    pub requests: [u64; 2],
    pub resident_kib: [f64; 2],
}

/// Memory at start, and how much each idle connection adds.
pub(crate) fn measure(
    candidates: &[Candidate],
    at: &Place<'_>,
    options: &Options,
) -> Result<Vec<Memory>, Failure> {
    candidates.iter().map(|&candidate| measure_one(candidate, at, options)).collect()
}

fn measure_one(candidate: Candidate, at: &Place<'_>, options: &Options) -> Result<Memory, Failure> {
    eprintln!("{}: {} idle connections", candidate.name(), options.connections());
    let proxy = candidate.start(at)?;
    pause(SETTLING)?;
    let at_start_kib = proxy.process.resident_kib()?;
    let mut held = connections::hold(proxy.address, options.connections())?;
    pause(SETTLING)?;
    let holding_kib = proxy.process.resident_kib()?;
    connections::check_alive(&mut held)?;
    let per_connection_kib = (holding_kib - at_start_kib) / options.connections() as f64;
    Ok(Memory { candidate, at_start_kib, per_connection_kib })
}

/// Memory after the first tenth of the requests, and after all of them.
pub(crate) fn growth(
    candidate: Candidate,
    at: &Place<'_>,
    load: &Tool,
    options: &Options,
) -> Result<Growth, Failure> {
    let proxy = candidate.start(at)?;
    let mut growth = Growth { requests: [0; 2], resident_kib: [0.0; 2] };
    let mut done = 0;
    for (look, goal) in [options.requests() / 10, options.requests()].into_iter().enumerate() {
        eprintln!("{}: memory after {goal} requests", candidate.name());
        while done < goal {
            done += load.run(proxy.address, options.turn())?.requests;
        }
        pause(SETTLING)?;
        growth.requests[look] = done;
        growth.resident_kib[look] = proxy.process.resident_kib()?;
    }
    Ok(growth)
}

impl Growth {
    /// Memory at the end in relation to that at the first look.
    pub(crate) fn ratio(&self) -> f64 {
        self.resident_kib[1] / self.resident_kib[0]
    }
}
