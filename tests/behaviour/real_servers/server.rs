//! A real server behind Evener, which can be killed, stopped and started again on the same port.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use super::program::{command, kill_group, scripts, signal};
use crate::rig::{Client, reserve_port, wait_until};

/// To start or to end; Python takes its time on a machine under load.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long Node keeps an idle connection unless told otherwise.
pub(super) const NODE_KEEP_ALIVE: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `http.createServer`; closes connections that are idle for this long.
    Node { keep_alive: Duration },
    /// A worker with four threads; closes connections that are idle for two seconds.
    Gunicorn,
    /// A master and a worker; closes a connection after a thousand requests.
    Nginx,
}

/// One server, alive or not. Its requests are counted in a file, which outlives it.
pub(super) struct Server {
    kind: Kind,
    port: u16,
    folder: TempDir,
    process: Option<Child>,
}

impl Server {
    /// Starts it, and waits until it answers.
    pub(super) fn start(kind: Kind) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut server = Self { kind, port: reserve_port(), folder, process: None };
        server.start_again();
        server
    }

    /// Starts it where it was before.
    pub(super) fn start_again(&mut self) {
        assert!(self.process.is_none(), "{} runs already", self.name());
        let output = File::options().create(true).append(true).open(self.file("output")).expect("open");
        let process = self
            .command()
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("one more handle"))
            .stderr(output)
            .process_group(0)
            .spawn();
        self.process = Some(process.expect("the server starts"));
        wait_until(PATIENCE, || self.answers());
    }

    fn command(&self) -> Command {
        match self.kind {
            Kind::Node { keep_alive } => self.node(keep_alive),
            Kind::Gunicorn => self.gunicorn(),
            Kind::Nginx => self.nginx(),
        }
    }

    fn node(&self, keep_alive: Duration) -> Command {
        let mut node = command("node");
        node.arg(scripts().join("node.js")).arg(self.port.to_string()).arg(self.file("requests"));
        node.arg(keep_alive.as_millis().to_string());
        node
    }

    fn gunicorn(&self) -> Command {
        let mut gunicorn = command("gunicorn");
        gunicorn
            .args(["--bind", &self.address().to_string(), "--workers", "1", "--log-level", "warning"])
            .args(["--worker-class", "gthread", "--threads", "4", "--keep-alive", "2"])
            .arg("--chdir")
            .arg(scripts())
            .arg("wsgi:application")
            .env("REQUEST_LOG", self.file("requests"))
            .env("PYTHONDONTWRITEBYTECODE", "1");
        gunicorn
    }

    fn nginx(&self) -> Command {
        let template = fs::read_to_string(scripts().join("nginx.conf")).expect("read");
        let folder = self.folder.path().to_str().expect("a path in UTF-8");
        let text = template.replace("PORT", &self.port.to_string()).replace("FOLDER", folder);
        fs::write(self.file("nginx.conf"), text).expect("write");
        let mut nginx = command("nginx");
        nginx.arg("-e").arg("stderr").arg("-p").arg(folder).arg("-c").arg(self.file("nginx.conf"));
        nginx
    }

    /// `kill -9` to all of its processes, whatever they are doing.
    pub(super) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            kill_group(&mut process);
        }
        // A worker can outlive its master by a moment.
        wait_until(PATIENCE, || TcpStream::connect(self.address()).is_err());
    }

    /// Asks it to finish what it is doing and end, and waits until it has.
    pub(super) fn end(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        let name = if self.kind == Kind::Nginx { "QUIT" } else { "TERM" };
        signal(process.id().into(), name);
        wait_until(PATIENCE, || process.try_wait().is_ok_and(|ended| ended.is_some()));
    }

    /// `SIGSTOP`: connections are still accepted, by the kernel, and nothing is answered.
    pub(super) fn freeze(&self) {
        self.signal_all("STOP");
    }

    pub(super) fn thaw(&self) {
        self.signal_all("CONT");
    }

    fn signal_all(&self, name: &str) {
        let process = self.process.as_ref().expect("a server that runs");
        signal(-i64::from(process.id()), name);
    }

    pub(super) fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    pub(super) const fn name(&self) -> &'static str {
        match self.kind {
            Kind::Node { .. } => "node",
            Kind::Gunicorn => "gunicorn",
            Kind::Nginx => "nginx",
        }
    }

    /// Requests that it has seen, health checks apart. Node and gunicorn count before they answer, nginx
    /// after.
    pub(super) fn requests(&self) -> u64 {
        let log = fs::read(self.file("requests")).unwrap_or_default();
        log.iter().fold(0, |lines, &byte| lines + u64::from(byte == b'\n'))
    }

    fn answers(&self) -> bool {
        let Ok(mut client) = Client::try_connect(self.address()) else { return false };
        client.send_if_open("GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        client.try_read("GET").is_ok_and(|answer| answer.is_some_and(|answer| answer.status() == 200))
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            kill_group(process);
        }
        if std::thread::panicking() {
            let said = fs::read_to_string(self.file("output")).unwrap_or_default();
            eprintln!("--- {} on port {} said ---\n{said}", self.name(), self.port);
        }
    }
}
