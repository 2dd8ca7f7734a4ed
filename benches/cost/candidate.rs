//! The proxies that are measured, each with one worker thread and kept upstream connections.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use super::options::Options;
use super::origin::nginx_command;
use super::process::{Failure, Process, free_address};
use super::{machine, role};

/// The body of every answer.
pub(crate) const ANSWER: &str = "hello from the origin";

/// Idle connections to the origin that a proxy keeps; more than the load ever opens.
pub(crate) const UPSTREAM_IDLE_MAX: usize = 512;

/// A proxy that can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Candidate {
    Evener,
    Bare,
    Nginx,
    Haproxy,
    Caddy,
}

/// Where candidates run, and what they stand in front of.
pub(crate) struct Place<'a> {
    pub folder: &'a Path,
    pub origin: SocketAddr,
}

/// A candidate that has answered its first request.
pub(crate) struct Running {
    pub candidate: Candidate,
    pub address: SocketAddr,
    pub process: Process,
}

impl Candidate {
    /// Ours, and those that the machine has.
    pub(crate) fn installed(options: &Options) -> Vec<Self> {
        let is_there = |candidate: &Self| match candidate {
            Self::Evener | Self::Bare => true,
            Self::Nginx => !options.is_only_ours() && machine::find("nginx").is_some(),
            Self::Haproxy => !options.is_only_ours() && machine::find("haproxy").is_some(),
            Self::Caddy => !options.is_only_ours() && machine::find("caddy").is_some(),
        };
        [Self::Evener, Self::Bare, Self::Nginx, Self::Haproxy, Self::Caddy]
            .into_iter()
            .filter(is_there)
            .collect()
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Evener => "Evener",
            Self::Bare => "bare Pingora",
            Self::Nginx => "nginx",
            Self::Haproxy => "HAProxy",
            Self::Caddy => "Caddy",
        }
    }

    /// Starts it, and waits until it answers.
    pub(crate) fn start(self, at: &Place<'_>) -> Result<Running, Failure> {
        let address = free_address()?;
        let command = match self {
            Self::Evener => evener(at, address)?,
            Self::Bare => role::bare(address, at.origin),
            Self::Nginx => nginx(at, address)?,
            Self::Haproxy => haproxy(at, address)?,
            Self::Caddy => caddy(at, address)?,
        };
        let process = Process::start(self.name(), &command, at.folder)?;
        process.wait_until_it_answers(address)?;
        Ok(Running { candidate: self, address, process })
    }
}

/// As it comes: metrics and health checks on, access log off; one worker thread.
fn evener(at: &Place<'_>, listen: SocketAddr) -> Result<Command, Failure> {
    let (admin, origin) = (free_address()?, at.origin);
    let text = format!(
        "[server]\nthreads = 1\n[admin]\naddress = \"{admin}\"\n[log]\nlevel = \"warn\"\naccess = \"off\"\n\
         [listeners.http]\naddress = \"{listen}\"\nmax_connections = 20000\nkeepalive_timeout = \"600s\"\n\
         [pools.origin]\nupstreams = [\"{origin}\"]\nkeepalive = {{ max_idle = {UPSTREAM_IDLE_MAX} }}\n"
    );
    let file = at.folder.join("evener.toml");
    fs::write(&file, text)?;
    let mut command = Command::new(env!("CARGO_BIN_EXE_evener"));
    command.arg("run").arg("--config").arg(file);
    Ok(command)
}

fn nginx(at: &Place<'_>, listen: SocketAddr) -> Result<Command, Failure> {
    let nginx = machine::find("nginx").unwrap_or_else(|| "nginx".into());
    let origin = at.origin;
    let site = format!(
        "upstream origin {{ server {origin}; keepalive {UPSTREAM_IDLE_MAX}; keepalive_requests 1000000000; }}\n\
         server {{ listen {listen} backlog=4096; keepalive_requests 1000000000;\n\
         location / {{ proxy_pass http://origin; proxy_http_version 1.1; proxy_set_header Connection ''; }} }}"
    );
    nginx_command(&nginx, &at.folder.join("nginx"), &site)
}

fn haproxy(at: &Place<'_>, listen: SocketAddr) -> Result<Command, Failure> {
    let origin = at.origin;
    let text = format!(
        "global\n  nbthread 1\n  maxconn 9000\n\
         defaults\n  mode http\n  http-reuse always\n  timeout connect 1s\n  timeout client 600s\n  timeout server 60s\n\
         frontend in\n  bind {listen} backlog 4096\n  default_backend out\n\
         backend out\n  server origin {origin} pool-max-conn {UPSTREAM_IDLE_MAX}\n"
    );
    let file = at.folder.join("haproxy.cfg");
    fs::write(&file, text)?;
    let mut command = Command::new(machine::find("haproxy").unwrap_or_else(|| "haproxy".into()));
    // In the foreground, as one process.
    command.arg("-db").arg("-f").arg(file);
    Ok(command)
}

fn caddy(at: &Place<'_>, listen: SocketAddr) -> Result<Command, Failure> {
    let (folder, origin) = (at.folder, at.origin);
    let site = format!(
        "{{\n admin off\n auto_https off\n servers {{\n  timeouts {{\n   idle 600s\n  }}\n }}\n}}\n\
         :{} {{\n bind {}\n reverse_proxy {origin} {{\n  transport http {{\n   keepalive_idle_conns_per_host {UPSTREAM_IDLE_MAX}\n  }}\n }}\n}}\n",
        listen.port(),
        listen.ip(),
    );
    let file = folder.join("Caddyfile");
    fs::write(&file, site)?;
    // What it keeps goes to the folder; one processor, as the others have one thread.
    let mut command = Command::new("env");
    command.arg("GOMAXPROCS=1").arg(format!("HOME={}", folder.display()));
    command.arg(machine::find("caddy").unwrap_or_else(|| "caddy".into()));
    command.args(["run", "--adapter", "caddyfile", "--config"]).arg(file);
    Ok(command)
}
