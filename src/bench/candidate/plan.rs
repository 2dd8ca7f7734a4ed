//! What every configuration says, before it is put in anybody's words.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::super::certificate;
use super::super::error::BenchError;
use super::super::name::Candidate;
use super::super::scenario::{Load, Request, Scenario};
use super::{Place, ports};

/// Client connections beyond those that the load needs: probes of ours, connections that are just closing.
const SPARE_CONNECTIONS: usize = 1_000;
/// Client connections of an open loop at most; there are no more ports.
const CLIENTS_MAX: usize = 60_000;
/// Idle connections to servers: Evener's default at least.
const IDLE_MIN: usize = 512;
/// More than this nobody needs, and each costs nginx memory before it is used.
const IDLE_MAX: usize = 16_384;
/// How long a server may take for its answer: everybody's default, or else twice the clients' patience.
const ANSWER_WITHIN_MIN: Duration = Duration::from_secs(60);

/// One balancer to be.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// Its own.
    pub(super) folder: PathBuf,
    /// The binary of `evener`.
    pub(super) program: PathBuf,
    pub(super) listen: SocketAddr,
    pub(super) admin: SocketAddr,
    /// All servers.
    pub(super) servers: Vec<SocketAddr>,
    /// Indexes of those in the pool.
    pub(super) admitted: Vec<usize>,
    pub(super) threads: usize,
    /// What clients ask for, and in which protocol.
    pub(super) request: Request,
    /// Client connections at a time that must not meet a limit.
    pub(super) clients: usize,
    /// Connections to servers that must not be closed for being idle.
    pub(super) idle: usize,
    pub(super) answer_within: Duration,
    /// Counts the changes of the configuration.
    pub(super) edition: u32,
}

impl Plan {
    /// For balancer `number` of its kind; its folder is made anew.
    pub(super) fn new(candidate: Candidate, place: &Place<'_>, number: usize) -> Result<Self, BenchError> {
        let folder = std::path::absolute(place.folder.join(format!("{candidate}-{number}")))?;
        make_anew(&folder)?;
        let scenario = place.scenario;
        let mut plan = Self {
            folder,
            program: place.program.to_owned(),
            listen: ports::free()?,
            admin: ports::free()?,
            servers: place.servers.to_vec(),
            admitted: Vec::new(),
            threads: scenario.threads,
            request: scenario.request,
            clients: clients(scenario),
            idle: in_flight(scenario).clamp(IDLE_MIN, IDLE_MAX),
            answer_within: ANSWER_WITHIN_MIN.max(scenario.timeout * 2),
            edition: 0,
        };
        plan.write_certificate()?;
        place.admitted.iter().for_each(|&index| plan.admit(index));
        Ok(plan)
    }

    /// Where the certificate is, where its key is, and where both are in one file.
    pub(super) fn certificate_files(&self) -> [PathBuf; 3] {
        ["certificate.pem", "key.pem", "both.pem"].map(|name| self.folder.join(name))
    }

    fn write_certificate(&self) -> Result<(), BenchError> {
        if self.request.protocol.is_encrypted() {
            let pair = certificate::pair()?;
            let both = pair.certificate.clone() + &pair.key;
            for (file, text) in self.certificate_files().iter().zip([&pair.certificate, &pair.key, &both]) {
                fs::write(file, text)?;
            }
        }
        Ok(())
    }

    /// Puts a server into the pool; one that does not exist, or is there, changes nothing.
    pub(super) fn admit(&mut self, index: usize) {
        if index < self.servers.len() && !self.admitted.contains(&index) {
            self.admitted.push(index);
        }
    }

    /// Those in the pool, each with its index.
    fn pool(&self) -> impl Iterator<Item = (usize, SocketAddr)> + '_ {
        self.admitted.iter().filter_map(|&index| Some((index, *self.servers.get(index)?)))
    }

    /// What `line` writes for each server in the pool.
    pub(super) fn each(&self, line: impl Fn(usize, SocketAddr) -> String) -> String {
        self.pool().map(|(index, address)| line(index, address)).collect::<Vec<String>>().concat()
    }

    /// How long idle connections to servers are kept; another time in each edition, which moves no request.
    pub(super) fn keep_idle(&self) -> Duration {
        Duration::from_secs(60 + u64::from(self.edition % 2))
    }

    /// Where its configuration is.
    pub(super) fn file(&self) -> PathBuf {
        self.folder.join("config")
    }

    /// Replaces the configuration in one step: whoever is still reading the last edition reads all of it.
    pub(super) fn write(&self, text: &str) -> Result<(), BenchError> {
        let beside = self.folder.join("config.new");
        fs::write(&beside, text)?;
        Ok(fs::rename(&beside, self.file())?)
    }
}

/// Nothing of an earlier turn may count.
fn make_anew(folder: &PathBuf) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => fs::create_dir_all(folder),
    }
}

fn clients(scenario: &Scenario) -> usize {
    let needed = match scenario.load {
        Load::Idle(connections) => connections,
        _ => in_flight(scenario).min(CLIENTS_MAX),
    };
    needed + SPARE_CONNECTIONS
}

/// Requests under way at a time, at worst.
fn in_flight(scenario: &Scenario) -> usize {
    match scenario.load {
        Load::Clients(clients) => clients,
        // Idle connections ask once, and few at a time.
        Load::Idle(_) => 0,
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "positive; `as` saturates"
        )]
        Load::Rate { per_second, .. } => (per_second * scenario.timeout.as_secs_f64()).ceil() as usize,
    }
}
