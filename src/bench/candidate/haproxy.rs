//! `HAProxy`: `leastconn`, with the checks that its users turn on, at their default of 2 s.
//!
//! Three retries as it comes, each of them elsewhere (`option redispatch 1`; as it comes only the last is, a second
//! after the other), after a refused connection or one that ended without an answer, as the others retry. `http-reuse always`, so that
//! connections to servers are shared by all clients, as they are with the others. It takes the places of its
//! processes from `maxconn`; where the system grants fewer files than that could need, it does with them.

use std::process::Command;

use super::super::machine;
use super::super::scenario::Protocol;
use super::plan::Plan;

pub(super) fn text(plan: &Plan) -> String {
    let Plan { edition, threads, listen, clients, .. } = plan;
    let asked = if plan.request.protocol == Protocol::Grpc { " proto h2" } else { "" };
    let servers = plan.each(|index, address| format!("  server s{index} {address}{asked}\n"));
    let within = plan.answer_within.as_secs();
    format!(
        "# edition {edition}\n\
         global\n\
         \x20 nbthread {threads}\n\
         \x20 maxconn {clients}\n\
         \x20 no strict-limits\n\
         defaults\n\
         \x20 mode http\n\
         \x20 timeout connect 1s\n\
         \x20 timeout client 600s\n\
         \x20 timeout server {within}s\n\
         \x20 option forwardfor\n\
         \x20 option redispatch 1\n\
         \x20 retry-on conn-failure empty-response\n\
         frontend in\n\
         \x20 bind {listen} backlog 4096{spoken}\n\
         \x20 default_backend out\n\
         backend out\n\
         \x20 balance leastconn\n\
         \x20 http-reuse always\n\
         \x20 default-server check\n{servers}",
        spoken = spoken(plan),
    )
}

/// What the frontend speaks beside HTTP/1.1 in clear.
fn spoken(plan: &Plan) -> String {
    let [.., both] = plan.certificate_files().map(|file| file.display().to_string());
    match plan.request.protocol {
        Protocol::Http1 => String::new(),
        Protocol::Https => format!(" ssl crt {both} alpn http/1.1"),
        Protocol::H2 => format!(" ssl crt {both} alpn h2,http/1.1"),
        Protocol::H2c | Protocol::Grpc => " proto h2".to_owned(),
    }
}

/// In the foreground; with a master, which reads the configuration again on USR2.
pub(super) fn command(plan: &Plan) -> Command {
    let mut command = Command::new(machine::find("haproxy").unwrap_or_else(|| "haproxy".into()));
    command.arg("-W").arg("-f").arg(plan.file());
    command
}
