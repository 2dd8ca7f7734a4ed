//! A real Prometheus, as a child process, and what it is asked.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::rig::{Client, reserve_port, wait_until};

/// A shared machine under load may take its time.
const START_DEADLINE: Duration = Duration::from_secs(60);

/// The folder of what we ship for Prometheus.
pub(super) fn shipped() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config/prometheus")
}

/// Whether Debian's package is installed. If not, the play fails with what to do; where `CI_ALLOW_MISSING` is
/// set, it is left out, and says so.
#[track_caller]
pub(super) fn is_here() -> bool {
    let runs = |program| Command::new(program).arg("--version").stdout(Stdio::null()).status().is_ok();
    if runs("prometheus") && runs("promtool") {
        return true;
    }
    let advice = "Prometheus is missing: apt-get install prometheus (or `make setup`)";
    assert!(std::env::var_os("CI_ALLOW_MISSING").is_some(), "{advice}");
    eprintln!("!!! LEFT OUT, {advice}");
    false
}

/// Prometheus with our rules, scraping one Evener each second. Killed on drop.
pub(super) struct Prometheus {
    process: Child,
    address: SocketAddr,
    _folder: TempDir,
}

impl Prometheus {
    /// Scrapes this side port with this token, as the example that we ship says; rules do not wait for their
    /// `for`, which the tests of the rules look at.
    pub(super) fn scraping(side_port: SocketAddr, token: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = |name: &str| folder.path().join(name);
        let token_file = file("evener.token");
        fs::write(&token_file, token).expect("write");
        let rules = fs::read_to_string(shipped().join("alerts.yml")).expect("our rules");
        fs::write(file("alerts.yml"), without_patience(&rules)).expect("write");
        let example = fs::read_to_string(shipped().join("prometheus.yml")).expect("our example");
        let changes = [
            ("/etc/prometheus/evener.token", token_file.to_str().expect("a path")),
            ("127.0.0.1:9900", &side_port.to_string()),
            ("interval: 15s", "interval: 1s"),
        ];
        let config = changes.iter().fold(example, |text, (shipped, here)| {
            assert!(text.contains(shipped), "`{shipped}` is not in the example");
            text.replace(shipped, here)
        });
        fs::write(file("prometheus.yml"), config).expect("write");

        let address = SocketAddr::from(([127, 0, 0, 1], reserve_port()));
        let process = Command::new("prometheus")
            .arg(format!("--config.file={}", file("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", file("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .arg("--log.level=warn")
            .env("GOMAXPROCS", "1")
            .stdin(Stdio::null())
            .spawn()
            .expect("Prometheus starts");
        let prometheus = Self { process, address, _folder: folder };
        wait_until(START_DEADLINE, || {
            let answer = Client::try_connect(address).ok().and_then(|mut client| client.try_get("/-/ready"));
            answer.is_some_and(|answer| answer.status() == 200)
        });
        prometheus
    }

    /// `data` of what the API answers; an error of its is a failure.
    #[track_caller]
    fn ask(&self, path: &str, parameters: &[(&str, &str)]) -> Value {
        let pairs = parameters.iter().map(|(name, value)| format!("{name}={}", encoded(value)));
        let query = pairs.collect::<Vec<_>>().join("&");
        let answer = Client::connect(self.address).get(&format!("/api/v1/{path}?{query}"));
        assert_eq!(answer.status(), 200, "{parameters:?}: {answer}");
        answer.json()["data"].clone()
    }

    /// The series of this expression as of now.
    #[track_caller]
    pub(super) fn query(&self, expression: &str) -> Vec<Value> {
        series(&self.ask("query", &[("query", expression)]))
    }

    /// The one number of this expression as of now, if there is one.
    #[track_caller]
    pub(super) fn number(&self, expression: &str) -> Option<f64> {
        self.query(expression).first()?["value"][1].as_str()?.parse().ok()
    }

    /// The series of this expression in the last `seconds`.
    #[track_caller]
    pub(super) fn query_range(&self, expression: &str, seconds: u64) -> Vec<Value> {
        let end = self.number("vector(time())").expect("a clock");
        let start = end - Duration::from_secs(seconds).as_secs_f64();
        let (start, end) = (start.to_string(), end.to_string());
        let parameters = [("query", expression), ("start", &start), ("end", &end), ("step", "1s")];
        series(&self.ask("query_range", &parameters))
    }

    /// The values of a label among the series that this selector finds.
    #[track_caller]
    pub(super) fn label_values(&self, selector: &str, label: &str) -> Vec<String> {
        let values = self.ask(&format!("label/{label}/values"), &[("match[]", selector)]);
        values.as_array().into_iter().flatten().filter_map(|it| it.as_str().map(str::to_owned)).collect()
    }

    /// Every rule, as it was evaluated last.
    #[track_caller]
    pub(super) fn rules(&self) -> Vec<Value> {
        let groups = self.ask("rules", &[]);
        let groups = groups["groups"].as_array().cloned().unwrap_or_default();
        groups.iter().flat_map(|group| group["rules"].as_array().cloned().unwrap_or_default()).collect()
    }

    /// Names of the alerts that fire.
    #[track_caller]
    pub(super) fn firing(&self) -> Vec<String> {
        let rules = self.rules();
        let firing = rules.iter().filter(|rule| rule["state"] == "firing");
        firing.filter_map(|rule| rule["name"].as_str().map(str::to_owned)).collect()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn without_patience(rules: &str) -> String {
    let lines = rules.lines().filter(|line| !line.trim_start().starts_with("for:"));
    lines.map(|line| format!("{line}\n")).collect()
}

fn series(data: &Value) -> Vec<Value> {
    data["result"].as_array().cloned().unwrap_or_default()
}

fn encoded(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    text.bytes().map(byte).collect()
}
