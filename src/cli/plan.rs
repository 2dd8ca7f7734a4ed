//! `evener plan`: what applying a file would change, and whom it would touch.

use std::fmt::Write as _;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use serde::Deserialize;

use super::applied::Dropped;
use super::client::{Admin, Ask, Client};
use super::failure::Failure;
use super::output::{Paint, Tone, counted, listed, percent};
use crate::config;
use crate::config::limits::FILE_BYTES_MAX;

#[derive(Args)]
pub(super) struct Plan {
    /// The file; `-` reads standard input.
    file: PathBuf,
    #[command(flatten)]
    admin: Admin,
}

/// Reads the text of a configuration from a file or, for `-`, from standard input; also tells its name.
pub(super) fn read(file: &Path) -> Result<(String, String), Failure> {
    if file != Path::new("-") {
        if !file.exists() {
            return Err(Failure::Refused(format!(
                "error: cannot read {}: there is no such file\n  = help: name the file to send, or `-` for standard input",
                file.display()
            )));
        }
        let source = config::Source::read(file).map_err(|error| Failure::Refused(error.to_string()))?;
        return Ok((source.name, source.text));
    }
    let mut text = String::new();
    let read = std::io::stdin().lock().take(FILE_BYTES_MAX + 1).read_to_string(&mut text);
    let wrong = match read {
        Err(error) => error.to_string(),
        Ok(bytes) if bytes as u64 > FILE_BYTES_MAX => format!("it has more than {FILE_BYTES_MAX} bytes"),
        Ok(_) => return Ok(("stdin".to_owned(), text)),
    };
    Err(Failure::Refused(format!(
        "error: cannot read standard input: {wrong}\n  = help: send the text of a configuration, in UTF-8"
    )))
}

#[derive(Deserialize)]
struct Checked {
    summary: String,
    #[serde(default)]
    warnings: Vec<String>,
    #[serde(default)]
    plan: Option<View>,
}

#[derive(Deserialize)]
struct View {
    generation: u64,
    restart_required: Vec<String>,
    changes: u64,
    listeners: Things,
    routes: Things,
    pools: Pools,
    overrides_dropped: Vec<Dropped>,
    impact: Impact,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Things {
    added: Vec<String>,
    removed: Vec<String>,
    changed: Vec<Thing>,
}

#[derive(Deserialize)]
struct Thing {
    name: String,
    settings: Vec<Setting>,
}

/// Key and values as the file spells them.
#[derive(Deserialize)]
struct Setting {
    key: String,
    from: serde_json::Value,
    to: serde_json::Value,
}

#[derive(Deserialize)]
struct Pools {
    added: Vec<String>,
    removed: Vec<RemovedPool>,
    changed: Vec<ChangedPool>,
}

#[derive(Deserialize)]
struct RemovedPool {
    name: String,
    upstreams: u64,
    in_flight: u64,
    traffic_share: f64,
}

#[derive(Deserialize)]
struct ChangedPool {
    name: String,
    settings: Vec<Setting>,
    upstreams: Upstreams,
    in_flight: u64,
    traffic_share: f64,
    hash_keys_moved: Option<f64>,
    #[serde(default)]
    resets: Vec<String>,
}

#[derive(Deserialize)]
struct Upstreams {
    added: Vec<String>,
    removed: Vec<RemovedUpstream>,
    changed: Vec<ChangedUpstream>,
}

#[derive(Deserialize)]
struct RemovedUpstream {
    address: String,
    in_flight: u64,
    traffic_share: f64,
}

#[derive(Deserialize)]
struct ChangedUpstream {
    address: String,
    settings: Vec<Setting>,
}

#[derive(Deserialize)]
struct Impact {
    in_flight: u64,
    traffic_share: f64,
    window_seconds: f64,
    upstreams_added: u64,
    upstreams_removed: u64,
    upstreams_changed: u64,
}

impl Plan {
    pub(super) fn run(&self) -> Result<ExitCode, Failure> {
        let client = Client::new(&self.admin)?;
        let (name, text) = read(&self.file)?;
        let ask = Ask::post("/v1/config/check").toml(&name, &text);
        client.show(&ask, |checked: &Checked| checked.tell(&name, Paint::for_stdout()))?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Checked {
    fn tell(&self, name: &str, paint: Paint) -> String {
        let mut text = format!("{name} is valid: {}\n", self.summary);
        for warning in &self.warnings {
            let _ = writeln!(text, "  warning: {warning}");
        }
        match &self.plan {
            Some(plan) => text + &plan.tell(paint),
            None => text + "what it would change is not known: the running process is of an older version\n",
        }
    }
}

impl View {
    fn tell(&self, paint: Paint) -> String {
        let generation = self.generation;
        if self.changes == 0 && self.overrides_dropped.is_empty() && self.restart_required.is_empty() {
            return format!("it changes nothing: generation {generation} is the same\n");
        }
        let mut page = Page { text: String::new(), paint };
        let _ = writeln!(page.text, "{} to generation {generation}\n", counted(self.changes, "change"));
        page.things("listener", &self.listeners);
        page.things("route", &self.routes);
        page.pools(&self.pools);
        for dropped in listed(self.overrides_dropped.iter().map(Dropped::tell)) {
            page.line(0, Mark::Changed, &format!("the override of {dropped}"));
        }
        for key in &self.restart_required {
            page.line(0, Mark::Refused, &format!("{key} cannot change while running: it needs a restart"));
        }
        page.text + &self.impact.tell()
    }
}

impl Impact {
    fn tell(&self) -> String {
        let Self { in_flight, upstreams_added, upstreams_removed, upstreams_changed, .. } = self;
        let window = super::output::time_span(self.window_seconds);
        format!(
            "\ntouches {} in flight and {} of the traffic of the last {window}\nupstreams: {upstreams_added} added, {upstreams_removed} removed, {upstreams_changed} changed\n",
            counted(*in_flight, "request"),
            percent(self.traffic_share)
        )
    }
}

/// What becomes of a thing.
#[derive(Clone, Copy)]
enum Mark {
    Added,
    Removed,
    Changed,
    Refused,
}

/// The diff, line by line.
struct Page {
    text: String,
    paint: Paint,
}

impl Page {
    fn line(&mut self, depth: usize, mark: Mark, text: &str) {
        let (mark, tone) = match mark {
            Mark::Added => ("+", Tone::Good),
            Mark::Removed => ("-", Tone::Bad),
            Mark::Changed => ("~", Tone::Odd),
            Mark::Refused => ("!", Tone::Bad),
        };
        let line = format!("{mark} {text}");
        let _ = writeln!(self.text, "{}{}", "    ".repeat(depth), self.paint.paint(tone, &line));
    }

    fn things(&mut self, kind: &str, things: &Things) {
        things.added.iter().for_each(|name| self.line(0, Mark::Added, &format!("{kind} {name}")));
        things.removed.iter().for_each(|name| self.line(0, Mark::Removed, &format!("{kind} {name}")));
        for Thing { name, settings } in &things.changed {
            self.line(0, Mark::Changed, &format!("{kind} {name}"));
            self.settings(settings);
        }
    }

    fn settings(&mut self, settings: &[Setting]) {
        for setting in settings {
            self.line(1, Mark::Changed, &setting.tell());
        }
    }

    fn pools(&mut self, pools: &Pools) {
        pools.added.iter().for_each(|name| self.line(0, Mark::Added, &format!("pool {name}")));
        for pool in &pools.removed {
            let RemovedPool { name, upstreams, in_flight, traffic_share } = pool;
            let upstreams = counted(*upstreams, "upstream");
            let load = load(*in_flight, *traffic_share);
            self.line(0, Mark::Removed, &format!("pool {name}: {upstreams}, {load}"));
        }
        pools.changed.iter().for_each(|pool| self.pool(pool));
    }

    fn pool(&mut self, pool: &ChangedPool) {
        let load_now = load(pool.in_flight, pool.traffic_share);
        self.line(0, Mark::Changed, &format!("pool {}: {load_now}", pool.name));
        self.settings(&pool.settings);
        let Upstreams { added, removed, changed } = &pool.upstreams;
        for address in listed(added.iter().cloned()) {
            self.line(1, Mark::Added, &address);
        }
        let gone = |it: &RemovedUpstream| format!("{}: {}", it.address, load(it.in_flight, it.traffic_share));
        for upstream in listed(removed.iter().map(gone)) {
            self.line(1, Mark::Removed, &upstream);
        }
        for upstream in listed(changed.iter().map(ChangedUpstream::tell)) {
            self.line(1, Mark::Changed, &upstream);
        }
        if let Some(moved) = pool.hash_keys_moved {
            self.line(1, Mark::Changed, &format!("{} of the hash keys move", percent(moved)));
        }
        if !pool.resets.is_empty() {
            self.line(1, Mark::Changed, &format!("forgets: {}", pool.resets.join(", ")));
        }
    }
}

impl ChangedUpstream {
    fn tell(&self) -> String {
        let settings: Vec<String> = self.settings.iter().map(Setting::tell).collect();
        format!("{}: {}", self.address, settings.join(", "))
    }
}

impl Setting {
    fn tell(&self) -> String {
        format!("{}: {} → {}", self.key, plain(&self.from), plain(&self.to))
    }
}

/// A word without quotes, nothing as what it is, anything else as JSON.
fn plain(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::Null => "(nothing)".to_owned(),
        serde_json::Value::String(word) => word.clone(),
        other => other.to_string(),
    }
}

fn load(in_flight: u64, traffic_share: f64) -> String {
    format!("{in_flight} in flight, {} of the traffic", percent(traffic_share))
}
