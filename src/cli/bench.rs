//! `evener bench`: scenarios, candidates, rounds; a table, JSON, a page.

use std::fs;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use clap::Args;

use super::failure::Failure;
use super::output;
use crate::bench::candidate;
use crate::bench::catalogue;
use crate::bench::error::BenchError;
use crate::bench::name::Candidate;
use crate::bench::report::{self, Run};
use crate::bench::run::{self, Task};
use crate::bench::scenario::{Load, Scenario};
use crate::config;

/// As shells have it after Ctrl-C.
const EXIT_INTERRUPTED: u8 = 130;

/// Nobody waits longer for one turn.
const DURATION_MAX: Duration = Duration::from_secs(600);

#[derive(Args)]
pub(super) struct Bench {
    /// Names of scenarios, or files of your own; all when none is given.
    #[arg(value_name = "SCENARIO")]
    scenarios: Vec<String>,
    /// Say which scenarios there are, and run none.
    #[arg(long)]
    list: bool,
    /// Only those scenarios that `make bench` runs.
    #[arg(long)]
    short: bool,
    /// Who takes part, in place of what the scenarios say: strategies, `logged`, `perfect`, `direct`, `bare`.
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    strategies: Vec<Candidate>,
    /// Other balancers that take part, too; they must be installed.
    #[arg(long, value_delimiter = ',', value_name = "nginx,haproxy,caddy", value_parser = other)]
    against: Vec<Candidate>,
    /// Turns that everybody gets in each scenario.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    rounds: u16,
    /// How long a turn takes, in place of what the scenarios say; their scripts stretch with it.
    #[arg(long, value_parser = duration)]
    duration: Option<Duration>,
    /// Requests per second, in place of what the scenarios say.
    #[arg(long, value_parser = rate)]
    rate: Option<f64>,
    /// The same seed gives the same load and the same fate.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Write all figures to this file; `-` is standard output, in place of the tables.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write a page with charts to this folder.
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,
}

fn duration(text: &str) -> Result<Duration, String> {
    let duration =
        config::read_duration(text, DURATION_MAX).map_err(|(wrong, help)| format!("{wrong}; {help}"))?;
    if duration < Duration::from_secs(1) { Err("a turn takes at least `1s`".into()) } else { Ok(duration) }
}

fn other(text: &str) -> Result<Candidate, String> {
    let found = Candidate::OTHERS.into_iter().find(|other| other.name() == text);
    found.ok_or_else(|| format!("`{text}` is none of {}", Candidate::OTHERS.map(Candidate::name).join(", ")))
}

fn rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| format!("`{text}` is no number"))?;
    if rate.is_finite() && (0.1..=1e5).contains(&rate) { Ok(rate) } else { Err("write 0.1 to 100000".into()) }
}

impl Bench {
    pub(super) fn run(&self) -> Result<ExitCode, Failure> {
        if self.list {
            return list();
        }
        let stop = stop_on_signals()?;
        let task = self.task(&stop)?;
        self.prepare_output()?;
        warn_of_debug_builds();
        let is_json_only = self.json.as_deref() == Some(Path::new("-"));
        let (run, end) = run::run(&task, |outcome| {
            if !is_json_only {
                let _ = output::print(&report::table(outcome));
            }
        });
        // Who stops a run before anything is done keeps what an earlier one wrote.
        if !run.outcomes.is_empty() {
            self.write(&run)?;
        }
        if !is_json_only && !run.outcomes.is_empty() {
            output::print(&report::summary(&run))?;
        }
        match end {
            Ok(()) if run.outcomes.iter().all(|outcome| outcome.broken.is_empty()) => Ok(ExitCode::SUCCESS),
            Ok(()) => Err(Failure::Refused("error: turns came to nothing, see above".into())),
            Err(BenchError::Interrupted) => {
                output::complain(&BenchError::Interrupted.to_string());
                Ok(ExitCode::from(EXIT_INTERRUPTED))
            }
            Err(error) => Err(Failure::Refused(format!("error: {error}"))),
        }
    }

    fn task<'a>(&self, stop: &'a AtomicBool) -> Result<Task<'a>, Failure> {
        let scenarios = self.scenarios()?;
        let scenarios: Vec<_> = scenarios
            .into_iter()
            .map(|scenario| self.adjusted(scenario))
            .map(|scenario| Ok((self.candidates(&scenario)?, scenario)))
            .map(|both: Result<_, Failure>| both.map(|(candidates, scenario)| (scenario, candidates)))
            .collect::<Result<_, _>>()?;
        let program = std::env::current_exe().map_err(|error| {
            Failure::Refused(format!("error: cannot find this program's own file: {error}"))
        })?;
        Ok(Task {
            scenarios,
            rounds: usize::from(self.rounds),
            seed: self.seed,
            program,
            command: std::env::args().skip(1).fold("evener".into(), |line, word| line + " " + &word),
            stop,
        })
    }

    fn scenarios(&self) -> Result<Vec<Scenario>, Failure> {
        if self.scenarios.is_empty() {
            let all = catalogue::built_in().iter().map(|(name, text)| read(name, text));
            let all: Vec<Scenario> = all.collect::<Result<_, _>>()?;
            return Ok(all.into_iter().filter(|scenario| !self.short || scenario.is_short).collect());
        }
        self.scenarios.iter().map(|name| find(name)).collect()
    }

    fn adjusted(&self, mut scenario: Scenario) -> Scenario {
        if let Some(duration) = self.duration {
            scenario.stretch(duration);
        }
        if let (Some(rate), Load::Rate { per_second, .. }) = (self.rate, &mut scenario.load) {
            *per_second = rate;
        }
        if self.duration.is_some() || self.rate.is_some() {
            // The goals are those of the scenario as it stands; under other conditions they are only orders.
            scenario.expectations.iter_mut().for_each(|expectation| expectation.is_goal = false);
        }
        scenario
    }

    /// Who takes part. Others than ours must be asked for, and must be there.
    fn candidates(&self, scenario: &Scenario) -> Result<Vec<Candidate>, Failure> {
        let is_other = |candidate: &Candidate| Candidate::OTHERS.contains(candidate);
        let mut candidates = if self.strategies.is_empty() {
            scenario.candidates.iter().copied().filter(|one| !is_other(one)).collect()
        } else {
            self.strategies.clone()
        };
        // A scenario that names some of them leaves the rest out on purpose: it would break them.
        let names_others = scenario.candidates.iter().any(is_other);
        for &other in &self.against {
            if names_others && !scenario.candidates.contains(&other) {
                continue;
            }
            if !candidate::is_installed(other) {
                return Err(Failure::usage(
                    &format!("`{other}` is not installed"),
                    "`make setup` installs the balancers that we compare with; or leave it out of --against",
                ));
            }
            candidates.push(other);
        }
        let mut seen = Vec::new();
        candidates.retain(|candidate| {
            let is_new = !seen.contains(candidate);
            seen.push(*candidate);
            is_new && scenario.suits(*candidate)
        });
        if candidates.is_empty() {
            return Err(Failure::usage(
                &format!("nobody takes part in `{}`", scenario.name),
                "`direct` and `bare` know one server only, `perfect` needs a rate, and other protocols than HTTP/1.1 are for \
                 Evener, nginx and HAProxy; name others in --strategies",
            ));
        }
        Ok(candidates)
    }

    /// Wrong places for output are found before the run, not after it.
    fn prepare_output(&self) -> Result<(), Failure> {
        let wrong = |path: &Path, error: &io::Error| {
            Failure::Refused(format!("error: cannot write to {}: {error}", path.display()))
        };
        if let Some(folder) = &self.report {
            fs::create_dir_all(folder).map_err(|error| wrong(folder, &error))?;
        }
        if let Some(file) = self.json.as_deref().filter(|file| *file != Path::new("-")) {
            fs::OpenOptions::new()
                .create(true)
                .append(true)
                .open(file)
                .map_err(|error| wrong(file, &error))?;
        }
        Ok(())
    }

    fn write(&self, run: &Run) -> Result<(), Failure> {
        let failed = |error: &dyn std::fmt::Display| {
            Failure::Refused(format!("error: cannot write the report: {error}"))
        };
        if let Some(file) = &self.json {
            let text = format!("{:#}\n", report::json(run));
            if file == Path::new("-") {
                output::print(&text)?;
            } else {
                fs::write(file, text).map_err(|error| failed(&error))?;
            }
        }
        if let Some(folder) = &self.report {
            let page = report::page(run).map_err(|error| failed(&error))?;
            let file = folder.join("index.html");
            fs::write(&file, page).map_err(|error| failed(&error))?;
            output::complain(&format!("wrote {}", file.display()));
        }
        Ok(())
    }
}

fn list() -> Result<ExitCode, Failure> {
    for (name, text) in catalogue::built_in() {
        let scenario = read(name, text)?;
        let short = if scenario.is_short { "short" } else { "" };
        output::print(&format!("{name:<22} {short:<6} {}\n", scenario.what))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A built-in scenario by its name, or a file.
fn find(name: &str) -> Result<Scenario, Failure> {
    if let Some((name, text)) = catalogue::built_in().iter().find(|(built_in, _)| *built_in == name) {
        return read(name, text);
    }
    let text = fs::read_to_string(name).map_err(|error| {
        Failure::usage(
            &format!("`{name}` is neither a scenario nor a file that can be read: {error}"),
            "`evener bench --list` says which scenarios there are",
        )
    })?;
    let stem = Path::new(name).file_stem().unwrap_or_default().to_string_lossy().into_owned();
    read(&stem, &text)
}

fn read(name: &str, text: &str) -> Result<Scenario, Failure> {
    Scenario::read(name, text).map_err(|error| Failure::Usage(error.to_string()))
}

fn stop_on_signals() -> Result<Arc<AtomicBool>, Failure> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGHUP, SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, stop.clone())
            .map_err(|error| Failure::Refused(format!("error: cannot listen to signals: {error}")))?;
    }
    Ok(stop)
}

fn warn_of_debug_builds() {
    if cfg!(debug_assertions) {
        let text = "this is a debug build: it compares strategies, but says nothing about cost (build with --release)";
        output::complain(&if io::stderr().is_terminal() {
            format!("\x1b[33mwarning\x1b[0m: {text}")
        } else {
            format!("warning: {text}")
        });
    }
}
