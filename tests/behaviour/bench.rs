//! `evener bench`: from the command line to the report, with real balancers in between.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use evener::bench::candidate;
use evener::bench::name::Candidate;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::rig::{run_to_end, wait_until};

/// For whatever must come about, on a machine with other things to do.
const SOON: Duration = Duration::from_secs(60);

/// Four servers, of which the first is twenty times slower.
const MINE: &str = r#"
what = "one of four is very slow"
expected = "whoever knows leaves it alone"
servers = 4
workers = 2
rate = 150
work = { exponential = "5ms" }
duration = "4s"
warmup = "1s"
timeout = "2s"
candidates = ["round_robin", "perfect"]

[[act]]
server = 0
speed = 0.05

[[expect]]
measure = "errors"
of = "perfect"
at_most = 0.5
goal = true
"#;

/// A bench under way, in a folder of its own.
struct Bench {
    process: Child,
    folder: TempDir,
}

impl Bench {
    fn start(arguments: &[&str]) -> Self {
        Self::start_with(arguments, &[("mine.toml", MINE.to_owned())])
    }

    fn start_with(arguments: &[&str], scenarios: &[(&str, String)]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, text) in scenarios {
            fs::write(folder.path().join(name), text).expect("write");
        }
        fs::write(folder.path().join("figures.json"), "of before").expect("write");
        let output = |name| File::create(folder.path().join(name)).expect("a file");
        let process = Command::new(env!("CARGO_BIN_EXE_evener"))
            .arg("bench")
            .args(arguments)
            .current_dir(folder.path())
            // What is left behind would be found here.
            .env("TMPDIR", folder.path())
            .stdin(Stdio::null())
            .stdout(output("stdout"))
            .stderr(output("stderr"))
            .spawn()
            .expect("the binary starts");
        Self { process, folder }
    }

    fn wait(&mut self) -> Option<i32> {
        self.wait_for(SOON)
    }

    fn wait_for(&mut self, patience: Duration) -> Option<i32> {
        let mut code = None;
        wait_until(patience, || {
            code = self.process.try_wait().expect("a child");
            code.is_some()
        });
        code.and_then(|status| status.code())
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.folder.path().join(name)).unwrap_or_default()
    }

    /// What it started and has not ended.
    fn children(&self) -> Vec<u32> {
        let id = self.process.id();
        let tasks = fs::read_dir(format!("/proc/{id}/task")).into_iter().flatten().flatten();
        let lists = tasks.map(|task| fs::read_to_string(task.path().join("children")).unwrap_or_default());
        lists
            .flat_map(|list| list.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
            .filter_map(|id| id.parse().ok())
            .collect()
    }

    fn leftovers(&self) -> Vec<String> {
        let entries = fs::read_dir(self.folder.path()).expect("the folder").flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        names.filter(|name| name.starts_with("evener-bench")).collect()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn strategies_are_compared_and_everything_is_reported() {
    let mut bench =
        Bench::start(&["mine.toml", "--rounds", "2", "--json", "figures.json", "--report", "report"]);
    assert_eq!(bench.wait(), Some(0), "{}", bench.read("stderr"));

    let figures: Value = serde_json::from_str(&bench.read("figures.json")).expect("JSON");
    let scenario = &figures["scenarios"][0];
    assert_eq!(scenario["scenario"]["name"], "mine");
    assert_eq!(scenario["verdicts"][0]["is_met"], true, "{}", scenario["verdicts"]);
    let [all_round_robin, all_perfect] = ["round_robin", "perfect"].map(|name| answers_of(scenario, name));
    // The slow server gets its turns from one, and next to nothing from the other.
    assert!(all_round_robin[0] > 10, "{all_round_robin:?}");
    assert!(all_perfect[0] * 5 < all_round_robin[0], "{all_perfect:?} {all_round_robin:?}");
    assert!(all_perfect[1..].iter().all(|answers| *answers > 20), "{all_perfect:?}");

    let table = bench.read("stdout");
    for words in ["round_robin", "perfect", "one of four is very slow", "met", "1 of 1 goal met"] {
        assert!(table.contains(words), "{words} is not in\n{table}");
    }
    let page = bench.read("report/index.html");
    assert!(page.contains("<svg") && page.contains("round_robin"), "{page}");
    assert_eq!(bench.leftovers(), Vec::<String>::new());
}

#[test]
fn what_is_typed_stands_above_what_the_scenario_says() {
    let arguments = ["mine.toml", "--strategies", "least_connections", "--rounds", "1", "--rate", "40"];
    let mut bench =
        Bench::start(&[&arguments[..], &["--duration", "2s", "--seed", "7", "--json", "-"]].concat());
    assert_eq!(bench.wait(), Some(0), "{}", bench.read("stderr"));

    let figures: Value = serde_json::from_str(&bench.read("stdout")).expect("JSON and nothing else");
    let outcome = &figures["scenarios"][0];
    assert_eq!(outcome["scenario"]["load"]["requests_per_second"], 40.0);
    assert_eq!(outcome["scenario"]["duration_s"], 2.0);
    assert_eq!(outcome["scenario"]["warmup_s"], 0.5, "it stretches with the turn");
    assert_eq!(outcome["seed"], 7);
    assert_eq!(outcome["candidates"].as_array().map(Vec::len), Some(1));
    assert_eq!(outcome["candidates"][0]["name"], "least_connections");
    // 60 of them are expected after the warm-up; 150 a second would be 225.
    let requests = outcome["candidates"][0]["requests"].as_u64().expect("a number");
    assert!((20..120).contains(&requests), "{requests}");
    assert_eq!(outcome["verdicts"][0]["is_goal"], false, "goals are those of the scenario as it stands");
}

/// Whoever is installed takes part, so that each one's configuration is tried.
#[test]
fn clients_speak_what_the_scenario_says_and_every_balancer_understands() {
    let others =
        [Candidate::Nginx, Candidate::Haproxy].into_iter().filter(|one| candidate::is_installed(*one));
    let against = others.map(Candidate::name).collect::<Vec<_>>().join(",");
    let scenarios = [
        ("handshakes.toml", spoken("protocol = \"https\"\nkeep_alive = false")),
        ("kept.toml", spoken("protocol = \"https\"")),
        ("clear.toml", spoken("protocol = \"h2c\"\nstreams = 4")),
        ("encrypted.toml", spoken("protocol = \"h2\"\nstreams = 4\nbody = \"100KiB\"")),
        ("calls.toml", spoken("protocol = \"grpc\"\nstreams = 4\nbody = \"128B\"")),
    ];
    let files = scenarios.each_ref().map(|(name, _)| *name);
    let mut arguments = [&files[..], &["--rounds", "1", "--json", "-"]].concat();
    if !against.is_empty() {
        arguments.extend(["--against", &against]);
    }
    let mut bench = Bench::start_with(&arguments, &scenarios);
    assert_eq!(bench.wait_for(SOON * 3), Some(0), "{}", bench.read("stderr"));

    let figures: Value = serde_json::from_str(&bench.read("stdout")).expect("JSON and nothing else");
    let outcomes = figures["scenarios"].as_array().expect("scenarios");
    let spoken: Vec<&Value> = outcomes.iter().map(|one| &one["scenario"]["request"]["protocol"]).collect();
    assert_eq!(spoken, ["https", "https", "h2c", "h2", "grpc"]);
    for outcome in outcomes {
        assert_eq!(outcome["broken"], json!([]), "{outcome}");
        for candidate in outcome["candidates"].as_array().expect("candidates") {
            let turn = &candidate["turns"][0];
            let answers: Vec<u64> =
                (0..2).map(|server| turn["answers_by_server"][server].as_u64().expect("a number")).collect();
            assert!(
                answers.iter().all(|&answers| answers > 0),
                "{} {candidate}",
                outcome["scenario"]["name"]
            );
        }
    }
}

/// Eight clients of two servers, who speak something else than plain HTTP/1.1.
fn spoken(how: &str) -> String {
    format!(
        r#"
what = "small requests in another protocol"
expected = "all are answered"
servers = 2
clients = 8
{how}
duration = "2s"
warmup = "500ms"
timeout = "30s"
candidates = ["round_robin", "nginx", "haproxy"]
"#
    )
}

/// Over all rounds, by server.
fn answers_of(scenario: &Value, name: &str) -> Vec<u64> {
    let candidates = scenario["candidates"].as_array().expect("candidates");
    let candidate = candidates.iter().find(|one| one["name"] == name).expect("took part");
    let turns = candidate["turns"].as_array().expect("turns");
    assert_eq!(turns.len(), 2, "{name}");
    let of_turn = |turn: &Value, server: usize| turn["answers_by_server"][server].as_u64().expect("a number");
    (0..4).map(|server| turns.iter().map(|turn| of_turn(turn, server)).sum()).collect()
}

#[test]
fn ctrl_c_ends_everything_that_was_started() {
    let mut bench = Bench::start(&["mine.toml", "--duration", "300s", "--json", "figures.json"]);
    wait_until(SOON, || !bench.children().is_empty());
    let children = bench.children();
    let id = i32::try_from(bench.process.id()).expect("an id");
    kill(Pid::from_raw(id), Signal::SIGINT).expect("it is there");

    assert_eq!(bench.wait(), Some(130), "{}", bench.read("stderr"));
    let is_gone = |id: &u32| !Path::new(&format!("/proc/{id}")).exists();
    wait_until(SOON, || children.iter().all(is_gone));
    assert_eq!(bench.leftovers(), Vec::<String>::new());
    assert_eq!(bench.read("figures.json"), "of before", "nothing was done, so nothing is overwritten");
}

#[test]
fn every_scenario_is_listed() {
    let finished = run_to_end(&["bench", "--list"], &[]);
    assert_eq!(finished.code, Some(0), "{finished:?}");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/scenarios");
    for file in fs::read_dir(folder).expect("the scenarios").flatten() {
        let name = file.path().file_stem().expect("a name").to_string_lossy().into_owned();
        assert!(finished.stdout.lines().any(|line| line.starts_with(&format!("{name} "))), "{name}");
    }
}

#[test]
fn what_is_wrong_is_said_before_anything_runs() {
    let broken = MINE.replace("servers = 4", "servers = 4\nserver = 5");
    let files = [("mine.toml", MINE), ("broken.toml", &broken)];
    for (arguments, code, words) in [
        (&["nowhere"][..], 2, "`evener bench --list`"),
        (&["broken.toml"], 2, "broken.toml:5"),
        (&["mine.toml", "--strategies", "least_conn"], 2, "least_connections"),
        (&["mine.toml", "--against", "round_robin"], 2, "nginx"),
        (&["mine.toml", "--duration", "5"], 2, "5s"),
        (&["mine.toml", "--rate", "many"], 2, "many"),
        (&["mine.toml", "--strategies", "bare"], 2, "nobody"),
        (&["mine.toml", "--json", "no/where.json"], 1, "no/where.json"),
    ] {
        let finished = run_to_end(&[&["bench"], arguments].concat(), &files);
        assert_eq!(finished.code, Some(code), "{arguments:?}: {finished:?}");
        assert!(finished.stderr.contains(words), "{words} is not in {finished:?}");
    }
}
