//! The binary under test, as a child process.

mod again;
mod self_check;
mod successors;

use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use toml::Table;

use super::client::{Background, Client};
use super::message::Response;
use super::ports::reserve_port;

/// Start, first probe round included. A shared machine under load may take its time.
const START_DEADLINE: Duration = Duration::from_secs(60);

/// The arguments of a run on the file of its folder, which is not watched: a save waits for its HUP.
const RUN: [&str; 4] = ["run", "--config", "evener.toml", "--no-watch"];

/// What an upstream says whose first health check is under way.
const UNCHECKED: &str = "\"why_not\":\"unchecked\"";

/// The longest a count may lag behind what it counts.
const COUNTED_WITHIN: Duration = Duration::from_secs(15);

/// A running Evener, stopped on drop. When the play failed, its log is printed.
pub(crate) struct Evener {
    process: Child,
    folder: TempDir,
    address: SocketAddr,
    admin: SocketAddr,
    /// What [`Self::admin`] sends, if there are tokens.
    token: Option<String>,
}

impl Evener {
    /// Starts the binary on a configuration, and waits until it is ready.
    ///
    /// Where the text names no address for `[listeners.http]` or `[admin]`, a reserved port is filled
    /// in (the binary would not tell which port it got behind `:0`).
    pub(crate) fn start(configuration: &str) -> Self {
        let evener = Self::start_unready(configuration);
        evener.wait_until_ready();
        evener
    }

    /// As [`Self::start`], with room for this many open files and sockets.
    pub(crate) fn start_with_few_files(configuration: &str, files: usize) -> Self {
        Self::start_with_file_limits(configuration, files, files)
    }

    /// As [`Self::start`], with room for this many open files at first, and for so many if it asks.
    pub(crate) fn start_with_file_limits(configuration: &str, soft: usize, hard: usize) -> Self {
        let limit = format!("ulimit -Sn {soft} && ulimit -Hn {hard} && exec \"$0\" \"$@\"");
        let evener = Self::launch(configuration, &["sh", "-c", &limit], &[]);
        evener.wait_until_ready();
        evener
    }

    /// As [`Self::start`], without the wait.
    pub(crate) fn start_unready(configuration: &str) -> Self {
        Self::launch(configuration, &[], &[])
    }

    /// As [`Self::start`], with these variables.
    pub(crate) fn start_with_environment(configuration: &str, environment: &[(&str, &str)]) -> Self {
        let evener = Self::launch(configuration, &[], environment);
        evener.wait_until_ready();
        evener
    }

    /// As [`Self::start`], with these variables; [`Self::admin`] sends the token.
    pub(crate) fn start_guarded(configuration: &str, environment: &[(&str, &str)], token: &str) -> Self {
        let mut evener = Self::launch(configuration, &[], environment);
        evener.token = Some(token.to_owned());
        evener.wait_until_ready();
        evener
    }

    /// As [`Self::start`], for plays about watching the file: elsewhere a save waits for its HUP.
    pub(crate) fn start_watching(configuration: &str) -> Self {
        let evener = Self::launch_with(configuration, &[], &["run", "--config", "evener.toml"], &[]);
        evener.wait_until_ready();
        evener
    }

    fn launch(configuration: &str, wrapper: &[&str], environment: &[(&str, &str)]) -> Self {
        Self::launch_with(configuration, wrapper, &RUN, environment)
    }

    fn launch_with(
        configuration: &str,
        wrapper: &[&str],
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Self {
        let table = with_addresses(configuration);
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::write(folder.path().join("evener.toml"), toml::to_string(&table).expect("TOML")).expect("write");
        let process = spawn(wrapper, arguments, environment, folder.path());
        let (address, admin) = addresses_in(&table);
        Self { process, folder, address, admin, token: None }
    }

    /// Starts the binary on exactly this text, which names the addresses of the listener and of `[admin]`,
    /// and waits until it is ready.
    pub(crate) fn start_on_text(text: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::write(folder.path().join("evener.toml"), text).expect("write");
        let process = spawn(&[], &RUN, &[], folder.path());
        let (address, admin) = addresses_in(&with_addresses(text));
        let evener = Self { process, folder, address, admin, token: None };
        evener.wait_until_ready();
        evener
    }

    /// Starts the binary without a file, on these arguments and variables.
    pub(crate) fn start_without_a_file(
        address: SocketAddr,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let process = spawn(&[], arguments, environment, folder.path());
        let admin = SocketAddr::from(([127, 0, 0, 1], 9900));
        Self { process, folder, address, admin, token: None }
    }

    fn wait_until_ready(&self) {
        let started = Instant::now();
        while self.admin().try_get("/readyz").is_none_or(|answer| answer.status() != 200) {
            assert!(is_running(self.process.id()), "Evener ended:\n{}", self.log());
            assert!(started.elapsed() < START_DEADLINE, "not ready after {START_DEADLINE:?}");
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Where traffic goes in.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn process_id(&self) -> u32 {
        self.process.id()
    }

    /// A new connection.
    pub(crate) fn connect(&self) -> Client {
        Client::connect(self.address)
    }

    /// `GET path` on a connection of its own.
    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> Response {
        self.connect().get(path)
    }

    #[track_caller]
    pub(crate) fn get_with(&self, path: &str, headers: &str) -> Response {
        self.connect().request("GET", path, headers, b"")
    }

    #[track_caller]
    pub(crate) fn post(&self, path: &str, body: &[u8]) -> Response {
        self.connect().request("POST", path, "", body)
    }

    /// Exactly these bytes on a connection of its own, and the answer.
    #[track_caller]
    pub(crate) fn request(&self, bytes: impl AsRef<[u8]>) -> Response {
        let mut client = self.connect();
        client.send(bytes);
        client.read("GET")
    }

    pub(crate) fn get_in_background(&self, path: &str) -> Background<Response> {
        let (address, path) = (self.address, path.to_owned());
        Background::run(move || Client::connect(address).get(&path))
    }

    /// Where the side port is.
    pub(crate) fn admin_address(&self) -> SocketAddr {
        self.admin
    }

    /// The text of the configuration file.
    pub(crate) fn configuration(&self) -> String {
        fs::read_to_string(self.folder.path().join("evener.toml")).expect("a file")
    }

    pub(crate) fn admin(&self) -> Admin {
        // One that listens everywhere is reached on loopback.
        let admin = self.admin.ip();
        let host = if admin.is_unspecified() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { admin };
        Admin { address: SocketAddr::new(host, self.admin.port()), token: self.token.clone(), source: None }
    }

    /// Waits until the log says this: a line comes a moment after what it tells of.
    #[track_caller]
    pub(crate) fn wait_for_log(&self, phrase: &str) {
        let started = Instant::now();
        while !self.log().contains(phrase) {
            assert!(started.elapsed() < START_DEADLINE, "`{phrase}` is not in the log");
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Everything it has written to standard output and standard error.
    pub(crate) fn log(&self) -> String {
        self.output("stdout") + &self.output("stderr")
    }

    /// What it has written to standard output, the access log among it.
    pub(crate) fn standard_output(&self) -> String {
        self.output("stdout")
    }

    fn output(&self, name: &str) -> String {
        String::from_utf8_lossy(&fs::read(self.folder.path().join(name)).unwrap_or_default()).into_owned()
    }

    /// Sends a signal by its short name, such as `TERM`.
    pub(crate) fn signal(&self, name: &str) {
        signal(self.process.id(), name);
    }

    /// Counts the configurations that ran, from 1.
    pub(crate) fn generation(&self) -> u64 {
        self.admin().json("/v1/status")["generation"].as_u64().expect("a generation")
    }

    /// Replaces the configuration file, on the same addresses, and waits until it runs and the first
    /// health checks of new upstreams are done.
    pub(crate) fn reload(&self, configuration: &str) {
        let before = self.generation();
        self.rewrite(configuration);
        self.signal("HUP");
        super::wait_until(Duration::from_secs(20), || self.generation() == before + 1);
        super::wait_until(Duration::from_secs(20), || {
            !self.admin().get("/v1/pools").body().contains(UNCHECKED)
        });
    }

    /// Replaces the configuration file with one that is to be refused, and waits until it is.
    pub(crate) fn reload_in_vain(&self, configuration: &str) {
        let refusals = || self.log().matches("configuration refused").count();
        let before = refusals();
        self.rewrite(configuration);
        self.signal("HUP");
        super::wait_until(Duration::from_secs(20), || refusals() > before);
    }

    /// Replaces the configuration file, on the same addresses; nobody is told.
    pub(crate) fn rewrite(&self, configuration: &str) {
        fs::write(self.config_file(), self.text(configuration)).expect("write");
    }

    /// The configuration file.
    pub(crate) fn config_file(&self) -> PathBuf {
        self.folder.path().join("evener.toml")
    }

    /// A configuration on the addresses of this process, as its file would say it.
    pub(crate) fn text(&self, configuration: &str) -> String {
        let mut table = with_addresses(configuration);
        table["listeners"]["http"]["address"] = self.address.to_string().into();
        table["admin"]["address"] = self.admin.to_string().into();
        toml::to_string(&table).expect("TOML")
    }

    /// How it ended, if it did within `time`.
    pub(crate) fn ends_within(&mut self, time: Duration) -> Option<ExitStatus> {
        let started = Instant::now();
        while started.elapsed() < time {
            if let Some(status) = self.process.try_wait().expect("wait for a child") {
                return Some(status);
            }
            thread::sleep(Duration::from_millis(5));
        }
        None
    }
}

impl Drop for Evener {
    /// Fails the play when the figures of the process do not agree with each other.
    fn drop(&mut self) {
        let disagreement = self.disagreement();
        if self.process.try_wait().is_ok_and(|status| status.is_none()) {
            self.signal("TERM");
            if self.ends_within(Duration::from_secs(1)).is_none() {
                let _ = self.process.kill();
                let _ = self.process.wait();
            }
        }
        self.end_successors();
        if thread::panicking() {
            eprintln!("--- log of Evener {} ---\n{}", self.process.id(), self.log());
        } else if let Some(disagreement) = disagreement {
            panic!("{disagreement}\n--- log of Evener {} ---\n{}", self.process.id(), self.log());
        }
    }
}

/// The side port.
#[derive(Clone)]
pub(crate) struct Admin {
    address: SocketAddr,
    token: Option<String>,
    /// Where requests come from; `None`: as the system likes.
    source: Option<Ipv4Addr>,
}

impl Admin {
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// With this token instead.
    pub(crate) fn bearing(self, token: &str) -> Self {
        Self { token: Some(token.to_owned()), ..self }
    }

    /// Without a token.
    pub(crate) fn anonymous(self) -> Self {
        Self { token: None, ..self }
    }

    /// From another address of this machine: all of 127.0.0.0/8 are, on Linux.
    pub(crate) fn asked_from(self, source: Ipv4Addr) -> Self {
        Self { source: Some(source), ..self }
    }

    /// A new connection, on which the token is the caller's to send.
    pub(crate) fn connect(&self) -> Client {
        match self.source {
            None => Client::connect(self.address),
            Some(source) => Client::connect_from(source, self.address),
        }
    }

    /// `GET path`, for any status.
    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> Response {
        self.send_with("GET", path, "")
    }

    /// As [`Self::get`], with further header lines, each ending in CRLF.
    #[track_caller]
    pub(crate) fn get_with(&self, path: &str, headers: &str) -> Response {
        self.send_with("GET", path, headers)
    }

    /// A request without a body, with these header lines, each ending in CRLF.
    #[track_caller]
    pub(crate) fn send_with(&self, method: &str, path: &str, headers: &str) -> Response {
        self.connect().request(method, path, &self.with_token(headers), b"")
    }

    fn with_token(&self, headers: &str) -> String {
        let token = self.token.as_ref().map(|token| format!("Authorization: Bearer {token}\r\n"));
        token.unwrap_or_default() + headers
    }

    /// As [`Self::send_with`], with a body.
    #[track_caller]
    pub(crate) fn send_body_with(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> Response {
        self.connect().request(method, path, &self.with_token(headers), body)
    }

    /// Any request, with these header lines, each ending in CRLF.
    #[track_caller]
    pub(crate) fn request(&self, method: &str, path: &str, headers: &str, body: &str) -> Response {
        self.send_body_with(method, path, headers, body.as_bytes())
    }

    pub(crate) fn try_get(&self, path: &str) -> Option<Response> {
        Client::try_connect(self.address).ok()?.try_get(path)
    }

    /// `POST path` with a body of JSON, or none when it is empty.
    #[track_caller]
    pub(crate) fn post(&self, path: &str, json: &str) -> Response {
        let headers =
            if json.is_empty() { "Content-Length: 0\r\n" } else { "Content-Type: application/json\r\n" };
        self.connect().request("POST", path, &self.with_token(headers), json.as_bytes())
    }

    /// Any method, with these header lines (each ending in CRLF) and a body of JSON.
    #[track_caller]
    pub(crate) fn write(&self, method: &str, path: &str, headers: &str, json: &str) -> Response {
        let headers = self.with_token(&format!("{headers}Content-Type: application/json\r\n"));
        self.connect().request(method, path, &headers, json.as_bytes())
    }

    /// `GET path`, which must be 200 with JSON.
    #[track_caller]
    pub(crate) fn json(&self, path: &str) -> serde_json::Value {
        self.get(path).expect_status(200).json()
    }

    /// One upstream as the API shows it.
    #[track_caller]
    pub(crate) fn upstream(&self, pool: &str, origin: &super::Origin) -> serde_json::Value {
        self.json(&format!("/v1/pools/{pool}/upstreams/{}", origin.address_in_a_path()))
    }

    /// The sum of the samples of one metric whose labels include all of these (`name="value"`).
    #[track_caller]
    pub(crate) fn metric(&self, family: &str, labels: &[&str]) -> f64 {
        let text = self.get("/metrics").expect_status(200).body();
        text.lines().filter_map(|line| sample(line, family, labels)).fold(0.0, |sum, value| sum + value)
    }

    /// Waits until no request is in flight at any upstream: a lease ends a moment after the last byte.
    #[track_caller]
    pub(crate) fn wait_for_rest(&self) {
        self.expect_metric("evener_upstream_in_flight", &[], 0.0);
    }

    /// Waits until [`Self::metric`] is this number: a request is counted a moment after its last byte.
    #[track_caller]
    pub(crate) fn expect_metric(&self, family: &str, labels: &[&str], expected: f64) {
        let started = Instant::now();
        let mut seen = self.metric(family, labels);
        while (seen - expected).abs() > f64::EPSILON {
            assert!(started.elapsed() < COUNTED_WITHIN, "{family}{labels:?} is {seen}, not {expected}");
            thread::sleep(Duration::from_millis(20));
            seen = self.metric(family, labels);
        }
    }
}

/// The value of a line of the Prometheus text format, if it is of this family and has these labels.
fn sample(line: &str, family: &str, labels: &[&str]) -> Option<f64> {
    let rest = line.strip_prefix(family)?;
    let (names, value) = rest.rsplit_once(' ')?;
    let is_family = names.is_empty() || names.starts_with('{');
    (is_family && labels.iter().all(|label| names.contains(label))).then(|| value.parse().ok())?
}

/// How a run of the binary ended, and what it said.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs the binary in a folder that holds these files, until it ends.
pub(crate) fn run_to_end(arguments: &[&str], files: &[(&str, &str)]) -> Finished {
    run_to_end_with_environment(arguments, files, &[])
}

pub(crate) fn run_to_end_with_environment(
    arguments: &[&str],
    files: &[(&str, &str)],
    environment: &[(&str, &str)],
) -> Finished {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (name, text) in files {
        fs::write(folder.path().join(name), text).expect("write");
    }
    let mut process = spawn(&[], arguments, environment, folder.path());
    let status = wait_for_end(&mut process);
    let read = |name| fs::read_to_string(folder.path().join(name)).unwrap_or_default();
    let (stdout, stderr) = (read("stdout"), read("stderr"));
    let Some(status) = status else { panic!("`evener {arguments:?}` does not end: {stdout}{stderr}") };
    Finished { code: status.code(), stdout, stderr }
}

/// `None`, and the process killed, when it does not end by itself.
fn wait_for_end(process: &mut Child) -> Option<ExitStatus> {
    let started = Instant::now();
    while started.elapsed() < START_DEADLINE {
        if let Some(status) = process.try_wait().expect("wait for a child") {
            return Some(status);
        }
        thread::sleep(Duration::from_millis(5));
    }
    let _ = process.kill();
    let _ = process.wait();
    None
}

/// Starts the binary in `folder`, its output going to the files `stdout` and `stderr` there.
///
/// A `wrapper` is a command that takes the binary and its arguments as further arguments of its own.
fn spawn(wrapper: &[&str], arguments: &[&str], environment: &[(&str, &str)], folder: &Path) -> Child {
    let file = |name| -> PathBuf { folder.join(name) };
    let words = [wrapper, &[env!("CARGO_BIN_EXE_evener")], arguments].concat();
    Command::new(words[0])
        .args(&words[1..])
        .current_dir(folder)
        .env_remove("LOAD_BALANCER_SERVERS")
        .env_remove("EVENER_ADMIN")
        .env_remove("EVENER_ADMIN_TOKEN")
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .stdout(File::create(file("stdout")).expect("create"))
        .stderr(File::create(file("stderr")).expect("create"))
        .spawn()
        .expect("the binary starts")
}

/// Fills in what the play left open.
fn with_addresses(configuration: &str) -> Table {
    let mut table: Table = configuration.parse().unwrap_or_else(|error| panic!("{error}"));
    let listeners = section(&mut table, "listeners");
    if listeners.is_empty() || listeners.contains_key("http") {
        fill_in_address(section(listeners, "http"));
    }
    fill_in_address(section(&mut table, "admin"));
    table
}

fn section<'a>(table: &'a mut Table, name: &str) -> &'a mut Table {
    let entry = table.entry(name).or_insert_with(|| Table::new().into());
    entry.as_table_mut().unwrap_or_else(|| panic!("`{name}` is a table"))
}

fn fill_in_address(section: &mut Table) {
    section.entry("address").or_insert_with(|| format!("127.0.0.1:{}", reserve_port()).into());
}

/// The traffic address (of the listener `http`, or the first there is) and that of the side port.
fn addresses_in(table: &Table) -> (SocketAddr, SocketAddr) {
    let listeners = table["listeners"].as_table().expect("a table");
    let listener = listeners.get("http").or_else(|| listeners.values().next()).expect("a listener");
    (address_in(listener), address_in(&table["admin"]))
}

fn address_in(section: &toml::Value) -> SocketAddr {
    section["address"].as_str().and_then(|text| text.parse().ok()).expect("an address")
}

/// Through the shell, where `kill` is built in: the standard library sends no signals but KILL.
fn signal(process_id: u32, name: &str) {
    let sent = Command::new("sh").args(["-c", &format!("kill -{name} {process_id}")]).status();
    assert!(sent.is_ok_and(|status| status.success()), "send {name} to {process_id}");
}

/// A zombie, ended and not yet waited for, is not running.
fn is_running(process_id: u32) -> bool {
    fs::read_to_string(format!("/proc/{process_id}/stat"))
        .is_ok_and(|stat| stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z')))
}
