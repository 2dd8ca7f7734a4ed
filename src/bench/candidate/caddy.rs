//! Caddy: `least_conn`, plain HTTP.
//!
//! By default it neither retries nor leaves a failing server alone; the others do. It gets two retries, as
//! Evener has, and ten seconds for a server that could not be reached, as nginx has. It would ask servers for
//! compressed answers on its own; the others pass on what clients ask for, so that is turned off. What it
//! stores goes to its folder.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::PoisonError;
use std::thread;
use std::time::{Duration, Instant};

use super::super::machine;
use super::plan::Plan;
use super::{Complaint, ready};

pub(super) fn text(plan: &Plan) -> String {
    let Plan { edition, admin, idle, .. } = plan;
    let (host, port) = (plan.listen.ip(), plan.listen.port());
    let servers = plan.each(|_, address| format!(" {address}"));
    let (within, keep_idle) = (plan.answer_within.as_secs(), plan.keep_idle().as_secs());
    format!(
        "# edition {edition}\n\
         {{\n\
         \tadmin {admin}\n\
         \tauto_https off\n\
         \tlog {{\n\
         \t\toutput stderr\n\
         \t\tlevel WARN\n\
         \t}}\n\
         \tservers {{\n\
         \t\tprotocols h1\n\
         \t\ttimeouts {{\n\
         \t\t\tidle 600s\n\
         \t\t}}\n\
         \t}}\n\
         }}\n\
         http://:{port} {{\n\
         \tbind {host}\n\
         \treverse_proxy{servers} {{\n\
         \t\tlb_policy least_conn\n\
         \t\tlb_retries 2\n\
         \t\tfail_duration 10s\n\
         \t\ttransport http {{\n\
         \t\t\tcompression off\n\
         \t\t\tdial_timeout 1s\n\
         \t\t\tresponse_header_timeout {within}s\n\
         \t\t\tkeepalive {keep_idle}s\n\
         \t\t\tkeepalive_idle_conns_per_host {idle}\n\
         \t\t}}\n\
         \t}}\n\
         }}\n"
    )
}

pub(super) fn command(plan: &Plan) -> Command {
    let mut command = Command::new(machine::find("caddy").unwrap_or_else(|| "caddy".into()));
    command.args(["run", "--adapter", "caddyfile", "--config"]).arg(plan.file());
    at_home(&mut command, plan);
    command.env("GOMAXPROCS", plan.threads.to_string());
    command
}

/// Whatever it keeps, it keeps in its folder.
fn at_home(command: &mut Command, plan: &Plan) {
    for variable in ["HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME"] {
        command.env(variable, &plan.folder);
    }
}

/// Hands it the configuration as `caddy reload` would, without starting a process for that. It answers when
/// the new one is in force; a thread waits for it, and remembers a no.
pub(super) fn load(admin: SocketAddr, text: String, complaint: Complaint) {
    thread::spawn(move || {
        let until = Instant::now() + LOAD_PATIENCE;
        let refused = loop {
            match post(admin, &text) {
                Ok(answer) if answer.status().is_success() => return,
                Ok(mut answer) => break answer.body_mut().read_to_string().unwrap_or_default(),
                // With each configuration it replaces its admin endpoint too, and cuts off whoever comes just then.
                Err(ureq::Error::Io(_)) if Instant::now() < until => thread::sleep(LOAD_PAUSE),
                Err(error) => break error.to_string(),
            }
        };
        let complaint = &mut *complaint.lock().unwrap_or_else(PoisonError::into_inner);
        *complaint = Some(format!("refused a configuration: {refused}"));
    });
}

/// How long a configuration is offered again when the admin endpoint hangs up, and how often.
const LOAD_PATIENCE: Duration = Duration::from_secs(10);
const LOAD_PAUSE: Duration = Duration::from_millis(50);

fn post(admin: SocketAddr, text: &str) -> Result<ureq::http::Response<ureq::Body>, ureq::Error> {
    ready::agent().post(format!("http://{admin}/load")).header("content-type", "text/caddyfile").send(text)
}
