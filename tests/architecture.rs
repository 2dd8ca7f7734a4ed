//! The floors of src/README.md, checked. If this fails, move what both rooms need one floor down.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// Floors 0 to 4, then the roof. A room may use rooms on lower floors only, not its neighbours.
/// The roof assembles the house, so its rooms may use each other too.
const FLOORS: [&[&str]; 6] = [
    &["balance", "route", "health", "retry", "proxy_header"],
    &["config", "observe"],
    &["runtime"],
    &["control"],
    &["proxy", "probe", "discovery", "admin", "dashboard"],
    &["bench", "cli", "descriptors", "otlp", "server", "signals", "upgrade", "main", "lib"],
];

const ROOF: usize = FLOORS.len() - 1;

/// The lowest floor that may name an outside crate; floors 0 to 3 outlive a change of engine.
///
/// What is not listed may be used from floor 1 up. Floor 0 knows `std` and `http`, and nothing else.
const LOWEST_FLOOR_OF: [(&str, usize); 28] = [
    ("http", 0),
    ("serde", 1),
    ("toml", 1),
    ("tracing", 1),
    ("flate2", 4),
    ("arc_swap", 2),
    // Of it, `runtime` uses a channel, which works under any executor.
    ("tokio", 2),
    ("notify", 3),
    ("axum", 4),
    ("hyper", 4),
    ("hyper_util", 4),
    ("tower", 4),
    ("pingora", 4),
    ("tokio_rustls", 4),
    ("clap", 5),
    ("clap_complete", 5),
    ("clap_mangen", 5),
    ("ureq", 5),
    ("mimalloc", 5),
    ("hdrhistogram", 5),
    ("plotters", 5),
    ("indicatif", 5),
    ("comfy_table", 5),
    ("ratatui", 5),
    ("rustix", 5),
    ("nix", 5),
    ("httparse", 5),
    ("prost", 5),
];

#[test]
fn rooms_use_only_what_lies_below_them() {
    let offences = offences_in(&source_files());
    assert!(offences.is_empty(), "dependencies up or sideways:\n{}", offences.join("\n"));
}

#[test]
fn every_room_has_a_floor() {
    let rooms: Vec<String> = source_files().into_iter().map(|file| file.room).collect();
    let homeless: Vec<&String> = rooms.iter().filter(|room| floor_of(room).is_none()).collect();
    assert!(homeless.is_empty(), "name their floor in FLOORS and in src/README.md: {homeless:?}");
}

#[test]
fn a_step_up_or_sideways_is_noticed() {
    let offends = |room: &str, line: &str| {
        let file = SourceFile { path: PathBuf::from(room), room: room.to_owned(), text: line.to_owned() };
        !offences_in(&[file]).is_empty()
    };
    for (room, line) in [
        ("balance", "use crate::config::Config;"),
        ("balance", "use crate::route;"),
        ("balance", "use crate::{retry, balance};"),
        ("health", "    let now = tokio::time::Instant::now();"),
        ("route", "use serde::Deserialize;"),
        ("runtime", "use pingora::proxy::Session;"),
        ("proxy", "fn f(_: &crate::admin::Admin) {}"),
        ("config", "use crate::observe::Metrics;"),
        ("balance", "use crate::{\n    balance::Pick,\n    health,\n};"),
    ] {
        assert!(offends(room, line), "`{line}` in {room} should offend");
    }
    for (room, line) in [
        ("balance", "use std::sync::atomic::AtomicUsize;"),
        ("balance", "use crate::balance::Pick;"),
        ("route", "use http::HeaderMap;"),
        ("balance", "    // as crate::config says"),
        ("balance", "//! [`crate::config`]"),
        ("proxy", "use crate::{runtime::Snapshot, retry};"),
        ("server", "use crate::signals;"),
        ("config", "use crate::retry::Policy;"),
    ] {
        assert!(!offends(room, line), "`{line}` in {room} should pass");
    }
}

/// One file of `src/`, its comments and tests left out: tests may use what they like.
struct SourceFile {
    path: PathBuf,
    room: String,
    text: String,
}

fn source_files() -> Vec<SourceFile> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    collect(&source, &mut paths);
    assert!(paths.len() > 10, "src/ is read");
    paths.into_iter().map(|path| SourceFile::read(&source, path)).collect()
}

fn collect(folder: &Path, paths: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            collect(&path, paths);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            paths.push(path);
        }
    }
}

impl SourceFile {
    fn read(source: &Path, path: PathBuf) -> Self {
        let inside = path.strip_prefix(source).expect("in src/");
        let first = inside.components().next().expect("a name").as_os_str().to_string_lossy();
        let room = first.trim_end_matches(".rs").to_owned();
        let text = fs::read_to_string(&path).expect("text");
        Self { path, room, text: without_tests(&text) }
    }
}

/// Cuts a file at its test module, which by the order of our files is its end.
fn without_tests(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let begins_tests = |index: usize| {
        let after = lines[index..].iter().find(|line| !line.starts_with("#["));
        lines[index] == "#[cfg(test)]"
            && after.is_some_and(|line| line.contains("mod ") && line.ends_with('{'))
    };
    let end = (0..lines.len()).find(|&index| begins_tests(index)).unwrap_or(lines.len());
    lines[..end].join("\n")
}

fn offences_in(files: &[SourceFile]) -> Vec<String> {
    let code = files.iter().filter(|file| !is_test_code(&file.path));
    code.flat_map(|file| {
        let forbidden = file.names_used().into_iter().filter(|(_, used)| !may_use(&file.room, used));
        forbidden.map(|(line, used)| format!("{}:{line}: may not use `{used}`", file.path.display()))
    })
    .collect()
}

/// `testing.rs` and `tests.rs` are compiled for tests alone.
fn is_test_code(path: &Path) -> bool {
    path.file_stem().is_some_and(|stem| stem == "tests" || stem == "testing")
}

fn may_use(room: &str, used: &str) -> bool {
    let Some(floor) = floor_of(room) else { return true };
    match used.strip_prefix("crate::") {
        Some(other) if other == room => true,
        Some(other) => floor_of(other).is_none_or(|below| below < floor || floor == ROOF),
        None => floor >= lowest_floor_of(used),
    }
}

fn floor_of(room: &str) -> Option<usize> {
    FLOORS.iter().position(|rooms| rooms.contains(&room))
}

fn lowest_floor_of(name: &str) -> usize {
    LOWEST_FLOOR_OF.iter().find(|(listed, _)| *listed == name).map_or(1, |(_, floor)| *floor)
}

impl SourceFile {
    /// Rooms (`crate::name`) and outside crates, each with the line that names it.
    fn names_used(&self) -> Vec<(usize, String)> {
        let code: String = self.text.lines().map(|line| without_comment(line).to_owned() + "\n").collect();
        let line_of = |at: usize| code[..at].matches('\n').count() + 1;
        let rooms = code.match_indices("crate::").flat_map(|(at, found)| {
            let names = first_segments(&code[at + found.len()..]);
            names.into_iter().map(move |name| (at, format!("crate::{name}")))
        });
        let crates = code.match_indices("::").filter_map(|(at, _)| Some((at, crate_before(&code[..at])?)));
        rooms.chain(crates).map(|(at, name)| (line_of(at), name)).collect()
    }
}

/// `a` of `a::b`, or `a` and `c` of `{a::b, c}`.
fn first_segments(path: &str) -> Vec<String> {
    let Some(list) = path.strip_prefix('{') else { return vec![word(path)] };
    let mut depth = 0;
    let mut names = vec![String::new()];
    for letter in list.chars() {
        match letter {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => names.push(String::new()),
            _ if depth == 0 => names.last_mut().expect("one at least").push(letter),
            _ => {}
        }
    }
    names.iter().map(|name| word(name.trim_start())).filter(|name| !name.is_empty()).collect()
}

/// The outside crate whose name ends here, in front of a `::`.
fn crate_before(code: &str) -> Option<String> {
    let start = code.rfind(|letter: char| !is_of_a_word(letter)).map_or(0, |index| index + 1);
    let is_first = !code[..start].ends_with("::");
    let name = &code[start..];
    (is_first && DEPENDENCIES.iter().any(|known| known == name)).then(|| name.to_owned())
}

/// The names under `[dependencies]`, as Rust spells them.
static DEPENDENCIES: LazyLock<Vec<String>> = LazyLock::new(|| {
    let manifest: toml::Table = include_str!("../Cargo.toml").parse().expect("TOML");
    let names = manifest["dependencies"].as_table().expect("a table").keys();
    names.map(|name| name.replace('-', "_")).collect()
});

fn without_comment(line: &str) -> &str {
    line.find("//").map_or(line, |start| &line[..start])
}

fn word(text: &str) -> String {
    text.chars().take_while(|&letter| is_of_a_word(letter)).collect()
}

fn is_of_a_word(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}
