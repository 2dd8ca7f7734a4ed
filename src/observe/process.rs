//! What the operating system says about this process, read when somebody asks.
//!
//! From `/proc` (see `man 5 proc`), so on Linux only; elsewhere, and where a file cannot be read, the
//! figure is missing rather than zero.

use std::fs;

use serde::Serialize;

/// Figures of this process, under the names that every Prometheus client library uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct ProcessFigures {
    /// User and system time, in seconds.
    pub cpu_seconds: Option<f64>,
    /// Seconds since 1970.
    pub start_time_seconds: Option<f64>,
    /// How many, all together.
    pub threads: Option<f64>,
    /// Memory in use.
    pub resident_bytes: Option<f64>,
    /// Memory reserved.
    pub virtual_bytes: Option<f64>,
    /// Sockets among them.
    pub open_files: Option<f64>,
    /// The soft limit.
    pub open_files_max: Option<f64>,
}

impl ProcessFigures {
    /// As of now.
    pub fn read() -> Self {
        let stat = read("/proc/self/stat").and_then(|text| Stat::parse(&text)).unwrap_or_default();
        let status = read("/proc/self/status").unwrap_or_default();
        Self {
            cpu_seconds: stat.cpu_ticks.map(|ticks| ticks / TICKS_PER_SECOND),
            start_time_seconds: stat.start_ticks.and_then(start_time),
            threads: stat.threads,
            resident_bytes: kilobytes(&status, "VmRSS:"),
            virtual_bytes: kilobytes(&status, "VmSize:"),
            open_files: fs::read_dir("/proc/self/fd").ok().map(|entries| entries.count() as f64),
            open_files_max: read("/proc/self/limits").and_then(|text| open_files_max(&text)),
        }
    }
}

/// The fields of `/proc/self/stat` that we want.
#[derive(Debug, Default, PartialEq)]
struct Stat {
    cpu_ticks: Option<f64>,
    threads: Option<f64>,
    /// Since the machine was started.
    start_ticks: Option<f64>,
}

impl Stat {
    /// The second field is the program's name in brackets, and may hold spaces and brackets itself; so
    /// fields are counted from the last bracket. The one after it is number 3 of the manual page.
    fn parse(text: &str) -> Option<Self> {
        let (_, after_name) = text.rsplit_once(')')?;
        let fields: Vec<&str> = after_name.split_ascii_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
        Some(Self {
            cpu_ticks: field(14).zip(field(15)).map(|(user, system)| user + system),
            threads: field(20),
            start_ticks: field(22),
        })
    }
}

fn start_time(ticks_since_boot: f64) -> Option<f64> {
    let stat = read("/proc/stat")?;
    let boot: f64 = stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    Some(boot + ticks_since_boot / TICKS_PER_SECOND)
}

/// A line of `/proc/self/status` such as `VmRSS:     10240 kB`, in bytes.
fn kilobytes(status: &str, name: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kilobytes: f64 = line.split_ascii_whitespace().next()?.parse().ok()?;
    Some(kilobytes * 1024.0)
}

/// The soft limit of `Max open files` in `/proc/self/limits`; `None` when there is no limit.
fn open_files_max(limits: &str) -> Option<f64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok()
}

/// `USER_HZ`: Linux counts in hundredths towards user space, whatever the kernel's own tick is.
const TICKS_PER_SECOND: f64 = 100.0;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use super::*;

    #[test]
    fn a_program_name_with_spaces_and_brackets_shifts_no_field() {
        let text = "42 (a) S b) R 1 42 42 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 7 0 12345 1000 200 0";
        assert_eq!(
            Stat::parse(text),
            Some(Stat { cpu_ticks: Some(300.0), threads: Some(7.0), start_ticks: Some(12_345.0) })
        );
    }

    #[test]
    fn a_broken_file_is_a_missing_figure() {
        assert_eq!(Stat::parse(""), None);
        assert_eq!(Stat::parse("42 (evener) R 1"), Some(Stat::default()));
        assert_eq!(kilobytes("VmRSS: many kB", "VmRSS:"), None);
        assert_eq!(
            open_files_max("Max open files            unlimited            unlimited            files"),
            None
        );
    }

    #[test]
    fn limits_and_sizes_are_read_with_their_units() {
        assert_eq!(
            open_files_max("Max open files            1024                 524288               files"),
            Some(1024.0)
        );
        assert_eq!(kilobytes("VmSize:\t   2048 kB\nVmRSS:\t    1024 kB", "VmRSS:"), Some(1_048_576.0));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_has_all_figures_and_they_are_plausible() {
        let figures = ProcessFigures::read();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();

        assert!(figures.cpu_seconds.is_some_and(|seconds| (0.0..3_600.0).contains(&seconds)));
        assert!(figures.start_time_seconds.is_some_and(|start| (now - 3_600.0..now + 2.0).contains(&start)));
        assert!(figures.threads.is_some_and(|threads| threads >= 1.0));
        assert!(figures.open_files.is_some_and(|files| files >= 3.0));
        assert!(figures.open_files_max.is_none_or(|most| most >= figures.open_files.unwrap()));
        assert!(figures.virtual_bytes.unwrap() >= figures.resident_bytes.unwrap());
    }
}
