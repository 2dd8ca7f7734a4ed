//! nginx: `least_conn`, with a `zone`, without which each worker would count for itself.
//!
//! As it comes: `proxy_next_upstream`, `max_fails` (one failure, ten seconds), buffering. Raised, because the
//! others have no such limits: requests per connection, connections kept to servers, the size of a body. Bodies
//! are buffered in memory: on its way through nginx one of 64 KiB would otherwise touch the disk, here only.

use std::process::Command;

use super::super::machine;
use super::super::scenario::Protocol;
use super::plan::Plan;

/// Room for two thousand servers.
const ZONE: &str = "8m";
/// Requests on one connection: no limit that anybody reaches.
const ENDLESS: u32 = 1_000_000_000;

pub(super) fn text(plan: &Plan) -> String {
    let Plan { edition, threads, listen, idle, .. } = plan;
    let servers = plan.each(|_, address| format!("    server {address};\n"));
    // A connection has a slot on either side, and each slot costs memory from the start.
    let connections = plan.clients + plan.idle + plan.servers.len();
    let (within, keep_idle) = (plan.answer_within.as_secs(), plan.keep_idle().as_secs());
    let (by, forwarding) = match plan.request.protocol {
        Protocol::Grpc => ("grpc", "      grpc_pass grpc://servers;\n"),
        _ => (
            "proxy",
            "      proxy_pass http://servers;\n      proxy_http_version 1.1;\n      proxy_set_header Connection '';\n",
        ),
    };
    format!(
        "# edition {edition}\n\
         user root; # as whoever started it; for all but root this line means nothing\n\
         daemon off;\n\
         master_process on;\n\
         worker_processes {threads};\n\
         pid nginx.pid;\n\
         error_log stderr error;\n\
         events {{ worker_connections {connections}; }}\n\
         http {{\n\
         \x20 access_log off;\n{temporary}\
         \x20 keepalive_timeout 600s;\n\
         \x20 keepalive_requests {ENDLESS};\n\
         \x20 client_max_body_size 0;\n\
         \x20 client_body_buffer_size 1m;\n\
         \x20 proxy_max_temp_file_size 0;\n\
         \x20 upstream servers {{\n\
         \x20   zone servers {ZONE};\n\
         \x20   least_conn;\n{servers}\
         \x20   keepalive {idle};\n\
         \x20   keepalive_requests {ENDLESS};\n\
         \x20   keepalive_timeout {keep_idle}s;\n\
         \x20 }}\n\
         \x20 server {{\n\
         \x20   listen {listen} backlog=4096{spoken};\n{certificate}\
         \x20   location / {{\n{forwarding}\
         \x20     {by}_set_header Host $http_host;\n\
         \x20     {by}_set_header X-Forwarded-For $proxy_add_x_forwarded_for;\n\
         \x20     {by}_connect_timeout 1s;\n\
         \x20     {by}_read_timeout {within}s;\n\
         \x20     {by}_send_timeout {within}s;\n\
         \x20   }}\n\
         \x20 }}\n\
         }}\n",
        temporary = temporary_folders(),
        spoken = spoken(plan.request.protocol),
        certificate = certificate(plan),
    )
}

/// What the listener speaks beside HTTP/1.1 in clear.
const fn spoken(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Http1 => "",
        Protocol::Https => " ssl",
        Protocol::H2 => " ssl http2",
        Protocol::H2c | Protocol::Grpc => " http2",
    }
}

/// What it shows, if it shows any. TLS 1.3 must be named: 1.22 would offer less by default.
fn certificate(plan: &Plan) -> String {
    if !plan.request.protocol.is_encrypted() {
        return String::new();
    }
    let [certificate, key, _] = plan.certificate_files().map(|file| file.display().to_string());
    format!(
        "    ssl_certificate {certificate};\n    ssl_certificate_key {key};\n\
         \x20   ssl_protocols TLSv1.2 TLSv1.3;\n"
    )
}

/// In the foreground, and with nothing outside its folder.
pub(super) fn command(plan: &Plan) -> Command {
    let mut command = Command::new(machine::find("nginx").unwrap_or_else(|| "nginx".into()));
    command.arg("-p").arg(&plan.folder).arg("-c").arg(plan.file()).args(["-e", "stderr"]);
    command
}

fn temporary_folders() -> String {
    let kinds = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    kinds.map(|kind| format!("  {kind}_temp_path {kind};\n")).concat()
}
