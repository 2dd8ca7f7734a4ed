//! The balancers under test, each a process of its own.
//!
//! ```text
//!   Place ──► Plan: what every configuration says ──► evener.rs, nginx.rs, haproxy.rs, caddy.rs, bare.rs:
//!              │                                      the same, in the words of one, and its command
//!              ▼
//!           Process ──► ready.rs: it answers, and knows its servers ──► Running
//! ```
//!
//! All of them get what a careful user would write, and the same of everything that costs or limits: worker
//! threads, connections kept to the servers, `X-Forwarded-For`, 1 s for a connection, an answer's time beyond
//! the clients' patience, no log of requests, no limit that the load would reach. What stays different is what
//! they are: how they choose, retry and judge, each as it comes where its file does not say otherwise. Evener does
//! more for a request even so (`X-Forwarded-Proto`, `-Host`, `X-Request-Id`, metrics); `HAProxy` asks servers how they are every
//! 2 s, Evener every 30 s, the others never. Each lives in a folder of its own.
//!
//! **To add a balancer**: its file after the pattern of `haproxy.rs`, a variant of
//! [`Candidate`], and the matches that the compiler lists.

mod bare;
mod caddy;
mod evener;
mod haproxy;
mod nginx;
mod plan;
mod ports;
mod ready;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};

pub use bare::play_bare;

use self::plan::Plan;
use super::error::BenchError;
use super::machine;
use super::name::Candidate;
use super::process::{Process, Signal, Usage};
use super::scenario::Scenario;
use crate::descriptors::raise_limit;

/// Where candidates run, and what they stand in front of.
pub struct Place<'a> {
    /// For configurations and what the processes say; a folder inside for each of them, emptied first.
    pub folder: &'a Path,
    /// The binary of `evener` itself.
    pub program: &'a Path,
    /// What will happen.
    pub scenario: &'a Scenario,
    /// All servers.
    pub servers: &'a [SocketAddr],
    /// Indexes of those that are in the pool at the start.
    pub admitted: Vec<usize>,
}

/// A candidate that answers. Dropping it ends its processes.
#[derive(Debug)]
pub struct Running {
    addresses: Vec<SocketAddr>,
    /// None for [`Candidate::Direct`].
    balancers: Vec<Balancer>,
}

#[derive(Debug)]
struct Balancer {
    candidate: Candidate,
    plan: Plan,
    process: Process,
    /// What was said no to meanwhile.
    complaint: Complaint,
}

/// Set by whoever changes a configuration in the background.
type Complaint = Arc<Mutex<Option<String>>>;

/// Starts the candidate's processes, `scenario.balancers` of them; returns when each answers requests and
/// knows its servers to be up.
///
/// The calling thread has to outlive what is returned (see [`Process::start`]).
///
/// # Errors
///
/// [`BenchError::Wrong`] when it is not installed or there is no server; [`BenchError::Broken`] when it does
/// not come to answer, with what it said.
pub fn start(candidate: Candidate, place: &Place<'_>) -> Result<Running, BenchError> {
    if !is_installed(candidate) {
        let what = format!("{candidate} is not installed: `make setup-bench` does that, or leave it out");
        return Err(BenchError::Wrong(what));
    }
    let Some(&first) = place.servers.first() else {
        return Err(BenchError::Wrong("there is no server to balance to".to_owned()));
    };
    let count = place.scenario.balancers;
    if candidate == Candidate::Direct {
        return Ok(Running { addresses: vec![first; count], balancers: Vec::new() });
    }
    raise_limit();
    let balancers: Result<Vec<Balancer>, BenchError> =
        (0..count).map(|number| Balancer::start(candidate, Plan::new(candidate, place, number)?)).collect();
    let balancers = balancers?;
    Ok(Running { addresses: balancers.iter().map(|balancer| balancer.plan.listen).collect(), balancers })
}

/// Whether this machine has it; what is ours is always there.
pub fn is_installed(candidate: Candidate) -> bool {
    program(candidate).is_none_or(|program| machine::find(program).is_some())
}

/// Name and version for the report, such as `nginx 1.22.1`.
pub fn version(candidate: Candidate) -> String {
    let (name, argument) = match candidate {
        Candidate::Evener(_) | Candidate::Logged | Candidate::Perfect => {
            return format!("evener {}", env!("CARGO_PKG_VERSION"));
        }
        Candidate::Bare => return format!("pingora {}", machine::PINGORA),
        Candidate::Direct => return "no balancer".to_owned(),
        Candidate::Nginx => ("nginx", "-v"),
        Candidate::Haproxy => ("HAProxy", "-v"),
        Candidate::Caddy => ("Caddy", "version"),
    };
    let said = program(candidate).and_then(|program| machine::ask(program, argument));
    match said.as_deref().map(machine::version_in) {
        Some(Some(version)) => format!("{name} {version}"),
        Some(None) => format!("{name} (unknown version)"),
        None => format!("{name} (not installed)"),
    }
}

/// What has to be installed for it.
const fn program(candidate: Candidate) -> Option<&'static str> {
    match candidate {
        Candidate::Evener(_)
        | Candidate::Logged
        | Candidate::Perfect
        | Candidate::Direct
        | Candidate::Bare => None,
        Candidate::Nginx => Some("nginx"),
        Candidate::Haproxy => Some("haproxy"),
        Candidate::Caddy => Some("caddy"),
    }
}

impl Running {
    /// Where to ask, one address per balancer; for [`Candidate::Direct`] the first server's.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The process id of each balancer; what they start is not among them.
    pub fn processes(&self) -> Vec<u32> {
        self.balancers.iter().map(|balancer| balancer.process.id()).collect()
    }

    /// Adds server `index` to the pool of each balancer, by a changed configuration. Does not wait for it to
    /// be in force. Nothing happens where there is no pool (`direct`, `bare`), or where every server is known
    /// from the start (`perfect`).
    ///
    /// # Errors
    ///
    /// When the configuration cannot be written, or the process has ended.
    pub fn admit(&mut self, index: usize) -> Result<(), BenchError> {
        self.balancers.iter_mut().try_for_each(|balancer| {
            balancer.plan.admit(index);
            balancer.change()
        })
    }

    /// Makes each balancer read a configuration in which something changed that moves no request: how long
    /// idle connections to servers are kept, or a comment. Does not wait for it to be in force.
    ///
    /// # Errors
    ///
    /// When the configuration cannot be written, or the process has ended.
    pub fn reload(&mut self) -> Result<(), BenchError> {
        self.balancers.iter_mut().try_for_each(Balancer::change)
    }

    /// What all processes took since they were started, see [`Process::usage`]; nothing where there is none.
    ///
    /// # Errors
    ///
    /// When a process has ended, or the system does not tell.
    pub fn usage(&self) -> Result<Usage, BenchError> {
        self.balancers.iter().try_fold(Usage::default(), |mut sum, balancer| {
            sum += balancer.process.usage()?;
            Ok(sum)
        })
    }

    /// Whether all is as it should be.
    ///
    /// # Errors
    ///
    /// [`BenchError::Broken`] when a process ended before its time, or refused a configuration.
    pub fn check(&self) -> Result<(), BenchError> {
        self.balancers.iter().try_for_each(|balancer| {
            balancer.process.check()?;
            match balancer.complaint.lock().unwrap_or_else(PoisonError::into_inner).as_deref() {
                Some(complaint) => Err(balancer.process.broken(complaint)),
                None => Ok(()),
            }
        })
    }
}

impl Balancer {
    fn start(candidate: Candidate, plan: Plan) -> Result<Self, BenchError> {
        if let Some(text) = text(candidate, &plan) {
            plan.write(&text)?;
        }
        let command = command(candidate, &plan);
        let process = Process::start(candidate.name(), &command, &plan.folder, orphaned(candidate))?;
        ready::until_it_answers(&process, &plan)?;
        match candidate {
            Candidate::Evener(_) | Candidate::Logged | Candidate::Perfect => {
                ready::until_all_are_up(&process, plan.admin)?;
            }
            Candidate::Nginx | Candidate::Haproxy | Candidate::Caddy => {
                ready::until_all_were_reached(&plan);
            }
            Candidate::Direct | Candidate::Bare => {}
        }
        Ok(Self { candidate, plan, process, complaint: Complaint::default() })
    }

    /// Writes the next edition of the configuration, and has it read.
    fn change(&mut self) -> Result<(), BenchError> {
        self.plan.edition += 1;
        let Some(text) = text(self.candidate, &self.plan) else { return Ok(()) };
        self.plan.write(&text)?;
        match self.candidate {
            Candidate::Haproxy => self.process.signal(Signal::SIGUSR2),
            Candidate::Caddy => {
                caddy::load(self.plan.admin, text, self.complaint.clone());
                self.process.check()
            }
            _ => self.process.signal(Signal::SIGHUP),
        }
    }
}

/// The configuration; `None`: it takes none.
fn text(candidate: Candidate, plan: &Plan) -> Option<String> {
    match candidate {
        Candidate::Evener(kind) => Some(evener::one_pool(plan, kind)),
        Candidate::Logged => Some(evener::one_pool_with_access_log(plan)),
        Candidate::Perfect => Some(evener::pool_per_server(plan)),
        Candidate::Nginx => Some(nginx::text(plan)),
        Candidate::Haproxy => Some(haproxy::text(plan)),
        Candidate::Caddy => Some(caddy::text(plan)),
        Candidate::Direct | Candidate::Bare => None,
    }
}

fn command(candidate: Candidate, plan: &Plan) -> Command {
    match candidate {
        Candidate::Evener(_) | Candidate::Logged | Candidate::Perfect | Candidate::Direct => {
            evener::command(plan)
        }
        Candidate::Bare => bare::command(plan),
        Candidate::Nginx => nginx::command(plan),
        Candidate::Haproxy => haproxy::command(plan),
        Candidate::Caddy => caddy::command(plan),
    }
}

/// What it is sent should we be killed. A master has to be asked, so that it ends its workers.
const fn orphaned(candidate: Candidate) -> Signal {
    match candidate {
        Candidate::Nginx | Candidate::Haproxy => Signal::SIGTERM,
        _ => Signal::SIGKILL,
    }
}
