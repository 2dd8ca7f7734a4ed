//! Where and with what this was measured.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use super::load::Tool;
use super::origin::Origin;

/// Where programs are that only root has in its path.
const MORE_FOLDERS: [&str; 2] = ["/usr/sbin", "/usr/local/sbin"];

const LOCK: &str = include_str!("../../Cargo.lock");

/// A program of the machine.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(MORE_FOLDERS.map(PathBuf::from));
    folders.map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// What a program says it is, in a few words.
pub(crate) fn version(program: &str) -> String {
    let Some(file) = find(program) else { return format!("{program} (not installed)") };
    let said = Command::new(file).arg("-v").output().ok();
    let said = said.map(|said| [said.stdout, said.stderr].concat()).unwrap_or_default();
    let text = String::from_utf8_lossy(&said).into_owned();
    let words: Vec<&str> = text.lines().next().unwrap_or_default().split_whitespace().collect();
    words
        .iter()
        .take_while(|word| !word.starts_with("[epoll]") && !word.starts_with("20"))
        .copied()
        .collect::<Vec<_>>()
        .join(" ")
}

/// One fact per line: machine, date, versions.
pub(crate) fn describe(load: &Tool, origin: &Origin) -> Vec<String> {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let mut facts = vec![
        format!("{}, {cores} cores, Linux {}", cpu_model(), read_line("/proc/sys/kernel/osrelease")),
        format!("{}, load average at start: {}", today(), read_line("/proc/loadavg")),
        format!("evener {}, pingora {}, {}", env!("CARGO_PKG_VERSION"), locked("pingora"), rustc()),
        format!("load by {}; origin {}", load.name(), origin.name),
    ];
    facts.extend(find("haproxy").map(|_| version("haproxy")));
    facts
}

fn read_line(file: impl AsRef<Path>) -> String {
    fs::read_to_string(file).unwrap_or_default().trim().to_owned()
}

fn cpu_model() -> String {
    let text = read_line("/proc/cpuinfo");
    let model = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    model.map_or("unknown CPU", |(_, name)| name).to_owned()
}

fn today() -> String {
    let said = Command::new("date").arg("+%Y-%m-%d %H:%M %Z").output();
    said.map(|said| String::from_utf8_lossy(&said.stdout).trim().to_owned()).unwrap_or_default()
}

fn rustc() -> String {
    let said = Command::new("rustc").arg("--version").output();
    said.map(|said| String::from_utf8_lossy(&said.stdout).trim().to_owned()).unwrap_or_default()
}

/// The version of a crate that we are built with.
fn locked(name: &str) -> &'static str {
    let entry = format!("name = \"{name}\"\nversion = \"");
    LOCK.split_once(&entry).and_then(|(_, rest)| rest.split('"').next()).unwrap_or("unknown")
}
