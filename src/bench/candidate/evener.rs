//! Evener, by the ordinary binary and with its defaults: health checks, ejection, retries, metrics.
//!
//! Set are only what the bench has to know (addresses, threads, strategy), what the load would otherwise meet
//! as a limit (client connections, idle connections, time), and a quiet log. `--no-watch`, because a change is
//! told by a signal, as it is to the others.

use std::fmt::Write;
use std::process::Command;
use std::time::Duration;

use super::super::scenario::Protocol;
use super::plan::Plan;
use crate::balance::StrategyKind;
use crate::config::limits::{CONNECTIONS_MAX, DURATION_MAX, IDLE_CONNECTIONS_MAX};

/// The default; a load that needs fewer gets as many.
const CLIENTS: usize = 10_000;

/// One pool of all servers, for all requests.
pub(super) fn one_pool(plan: &Plan, strategy: StrategyKind) -> String {
    one_pool_after(head(plan, ""), plan, strategy)
}

/// The same by turns, and every request has its line.
pub(super) fn one_pool_with_access_log(plan: &Plan) -> String {
    let log = "format = \"json\"\naccess = \"./access.log\"\n";
    one_pool_after(head(plan, log), plan, StrategyKind::RoundRobin)
}

fn one_pool_after(mut text: String, plan: &Plan, strategy: StrategyKind) -> String {
    let addresses = plan.each(|_, address| format!("  \"{address}\",\n"));
    let _ = write!(
        text,
        "\n[routes.all]\npool = \"servers\"\ntimeout = \"{}\"\n\
         \n[pools.servers]\nstrategy = \"{}\"\n{}{}{}upstreams = [\n{}]\n",
        written(plan.answer_within),
        strategy.name(),
        hash_of(strategy),
        asked_in(plan),
        kept(plan, plan.idle),
        addresses,
    );
    text
}

/// For a load that says by `Host: s<INDEX>` which server it wants: a pool for each, and nothing that could
/// send a request elsewhere or keep it from there.
pub(super) fn pool_per_server(plan: &Plan) -> String {
    let mut text = head(plan, "");
    let within = written(plan.answer_within);
    // Of the idle connections each has its part, and some more: the load is never spread that evenly.
    let idle = (plan.idle * 4 / plan.servers.len().max(1)).max(16);
    let _ = write!(text, "\n[routes.others]\npool = \"s0\"\ntimeout = \"{within}\"\n");
    for (index, address) in plan.servers.iter().enumerate() {
        let _ = write!(
            text,
            "\n[routes.s{index}]\nhosts = [\"s{index}\"]\npool = \"s{index}\"\ntimeout = \"{within}\"\n\
             [pools.s{index}]\n{}upstreams = [\"{address}\"]\n\
             health_check = {{ enabled = false }}\nejection = {{ enabled = false }}\n",
            kept(plan, idle),
        );
    }
    text
}

pub(super) fn command(plan: &Plan) -> Command {
    let mut command = Command::new(&plan.program);
    command.arg("run").arg("--no-watch").arg("--config").arg(plan.file());
    command
}

/// `log` is what the log has besides.
fn head(plan: &Plan, log: &str) -> String {
    let Plan { edition, threads, admin, listen, .. } = plan;
    // For as long as a turn may last, nobody's connection is closed for being idle.
    let clients = plan.clients.clamp(CLIENTS, usize::try_from(CONNECTIONS_MAX).unwrap_or(usize::MAX));
    format!(
        "# edition {edition}\n[server]\nthreads = {threads}\n\n[admin]\naddress = \"{admin}\"\n\
         \n[log]\nlevel = \"warn\"\n{log}\
         \n[listeners.http]\naddress = \"{listen}\"\nmax_connections = {clients}\nkeepalive_timeout = \"600s\"\n{}",
        spoken(plan)
    )
}

/// What the listener speaks beside HTTP/1.1 in clear.
fn spoken(plan: &Plan) -> String {
    let [certificate, key, _] = plan.certificate_files().map(|file| file.display().to_string());
    let certificates = format!("certificates = [{{ certificate = \"{certificate}\", key = \"{key}\" }}]");
    match plan.request.protocol {
        Protocol::Http1 => String::new(),
        Protocol::Https => format!("tls = {{ {certificates}, protocols = [\"http/1.1\"] }}\n"),
        Protocol::H2 => format!("tls = {{ {certificates} }}\n"),
        Protocol::H2c | Protocol::Grpc => "http2_cleartext = true\n".to_owned(),
    }
}

/// What the pool speaks with servers.
fn asked_in(plan: &Plan) -> &'static str {
    if plan.request.protocol == Protocol::Grpc { "protocol = \"http2\"\n" } else { "" }
}

/// Timeouts and kept connections of a pool.
fn kept(plan: &Plan, idle: usize) -> String {
    let idle = idle.min(usize::try_from(IDLE_CONNECTIONS_MAX).unwrap_or(usize::MAX));
    format!(
        "timeouts = {{ connect = \"1s\", read = \"{}\" }}\nkeepalive = {{ idle = \"{}\", max_idle = {idle} }}\n",
        written(plan.answer_within),
        written(plan.keep_idle()),
    )
}

/// The load tells requests apart by nothing but their work.
const fn hash_of(strategy: StrategyKind) -> &'static str {
    match strategy {
        StrategyKind::ConsistentHash => "hash = { header = \"x-bench-work\" }\n",
        _ => "",
    }
}

fn written(time: Duration) -> String {
    format!("{}ms", time.min(DURATION_MAX).as_millis())
}
