//! What the proxies stand in front of: a small answer from memory, as cheap as can be had.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::candidate::ANSWER;
use super::machine;
use super::process::{Failure, Process, free_address};
use super::role;

/// More than any head that the candidates send.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// A running origin, ended on drop.
pub(crate) struct Origin {
    pub address: SocketAddr,
    /// What it is, for the report.
    pub name: String,
    _process: Process,
}

/// Starts Debian's nginx, or without one an origin of our own.
pub(crate) fn start(folder: &Path) -> Result<Origin, Failure> {
    let address = free_address()?;
    let (name, command) = match machine::find("nginx") {
        Some(nginx) => (machine::version("nginx"), by_nginx(&nginx, folder, address)?),
        None => ("our own stand-in (nginx is not installed)".to_owned(), role::origin(address)),
    };
    let process = Process::start("origin", &command, folder)?;
    process.wait_until_it_answers(address)?;
    Ok(Origin { address, name, _process: process })
}

fn by_nginx(nginx: &Path, folder: &Path, address: SocketAddr) -> Result<Command, Failure> {
    let site = format!(
        "server {{ listen {address} backlog=4096; keepalive_requests 1000000000; \
         location / {{ default_type text/plain; return 200 '{ANSWER}'; }} }}"
    );
    nginx_command(nginx, &folder.join("origin"), &site)
}

/// nginx with one process in the foreground, and nothing outside `folder`.
pub(crate) fn nginx_command(nginx: &Path, folder: &Path, site: &str) -> Result<Command, Failure> {
    fs::create_dir_all(folder)?;
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {kind};\n"))
        .concat();
    let text = format!(
        "daemon off; master_process off; pid nginx.pid; error_log stderr error;\n\
         events {{ worker_connections 20000; }}\n\
         http {{ access_log off; keepalive_timeout 600s;\n{temporary}{site}\n}}\n"
    );
    let file = folder.join("nginx.conf");
    fs::write(&file, text)?;
    let mut command = Command::new(nginx);
    command.arg("-p").arg(folder).arg("-c").arg(file).args(["-e", "stderr"]);
    Ok(command)
}

/// Our own origin: serves until it is ended from outside.
pub(crate) fn run(listen: SocketAddr) -> Option<()> {
    let runtime = tokio::runtime::Runtime::new().ok()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(listen).await.ok()?;
        loop {
            if let Ok((client, _)) = listener.accept().await {
                tokio::spawn(answer_all(client));
            }
        }
    })
}

/// One answer for each head; requests have no body here.
async fn answer_all(mut client: TcpStream) -> Option<()> {
    let answer = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {}\r\n\r\n{ANSWER}",
        ANSWER.len()
    );
    client.set_nodelay(true).ok()?;
    let mut head = Vec::with_capacity(HEAD_BYTES_MAX);
    loop {
        if client.read_buf(&mut head).await.ok()? == 0 || head.len() > HEAD_BYTES_MAX {
            return None;
        }
        if head.ends_with(b"\r\n\r\n") {
            head.clear();
            client.write_all(answer.as_bytes()).await.ok()?;
        }
    }
}
