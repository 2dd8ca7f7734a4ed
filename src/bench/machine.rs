//! Where and with what it was measured.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::thread;

/// Where programs are that only root has in its path; Debian keeps nginx there.
const MORE_FOLDERS: [&str; 3] = ["/usr/sbin", "/usr/local/sbin", "/sbin"];

/// The foundation of [`Bare`](super::name::Candidate::Bare) and of ourselves.
pub(super) const PINGORA: &str = "0.9.1";

/// What a reader has to know before comparing figures with those of another machine: names and values, as far
/// as this system tells them.
pub fn facts() -> Vec<(String, String)> {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let facts = [
        ("cpu", cpu_model()),
        ("cores", cores.to_string()),
        ("memory", memory()),
        ("kernel", format!("{} {}", std::env::consts::OS, first_line("/proc/sys/kernel/osrelease"))),
        ("load at start", first_line("/proc/loadavg")),
        ("evener", format!("{} ({})", env!("CARGO_PKG_VERSION"), profile())),
        ("pingora", PINGORA.to_owned()),
    ];
    let known = facts.into_iter().filter(|(_, value)| !value.is_empty());
    known.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect()
}

/// How we were built: figures of anything but a release are no figures.
pub fn profile() -> &'static str {
    if cfg!(debug_assertions) { "debug build: figures mean nothing" } else { "release build" }
}

/// A program of the machine.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(MORE_FOLDERS.map(PathBuf::from));
    folders.map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// What a program says when it is asked like that, on whichever of its outputs.
pub(super) fn ask(program: &str, argument: &str) -> Option<String> {
    let said = Command::new(find(program)?).arg(argument).output().ok()?;
    Some(String::from_utf8_lossy(&[said.stdout, said.stderr].concat()).into_owned())
}

/// The first word of a text that begins with a digit once what stands before a `/` is taken off:
/// `1.22.1` of `nginx version: nginx/1.22.1`. What Debian adds after a `-` is left out.
pub(super) fn version_in(text: &str) -> Option<&str> {
    let numbers = text.split_whitespace().map(|word| word.rsplit('/').next().unwrap_or(word));
    let number = numbers.map(|word| word.trim_start_matches('v')).find(|word| begins_with_digit(word))?;
    number.split('-').next()
}

fn begins_with_digit(word: &str) -> bool {
    word.starts_with(|letter: char| letter.is_ascii_digit())
}

fn first_line(file: &str) -> String {
    fs::read_to_string(file).unwrap_or_default().lines().next().unwrap_or_default().to_owned()
}

fn cpu_model() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    model.map_or(std::env::consts::ARCH, |(_, name)| name).to_owned()
}

fn memory() -> String {
    let line = first_line("/proc/meminfo");
    let kib = line.split_whitespace().nth(1).and_then(|text| text.parse::<u64>().ok());
    kib.map_or("unknown".to_owned(), |kib| format!("{:.1} GiB", kib as f64 / f64::from(1 << 20)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_in_what_programs_say() {
        for (said, version) in [
            ("nginx version: nginx/1.22.1\n", "1.22.1"),
            ("HAProxy version 2.6.12-1+deb12u4 2026/10/17 - https://haproxy.org/\n", "2.6.12"),
            ("2.6.2\n", "2.6.2"),
            ("v2.7.6 h1:w0NymbG2m9PcvKWsrXO6EEkY9Ru4FJK8uQbYcev1p3A=\n", "2.7.6"),
        ] {
            assert_eq!(version_in(said), Some(version));
        }
        assert_eq!(version_in("command not found"), None);
    }

    #[test]
    fn the_version_of_pingora_is_the_one_we_are_built_with() {
        let manifest = include_str!("../../Cargo.toml");
        assert!(manifest.contains(&format!("pingora = {{ version = \"={PINGORA}\"")));
    }

    #[test]
    fn facts_are_complete_and_short() {
        let facts = facts();
        assert!(facts.iter().all(|(_, value)| !value.is_empty() && value.len() < 120), "{facts:?}");
        assert!(find("sh").is_some() && find("no-such-program-anywhere").is_none());
    }
}
