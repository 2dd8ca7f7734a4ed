//! A process that we started: what it uses, and its certain end.
//!
//! ```text
//!   start ──► check, signal, usage ──► drop: TERM, and KILL for whatever is left after two seconds
//!              │              │
//!              │              └── ledger.rs: CPU time and memory of the tree, by the kernel's accounting
//!              └── ended before its time: what it said
//!   tree.rs: who belongs to it: its children, their children, and its process group
//! ```

#[cfg(target_os = "linux")]
mod ledger;
#[cfg(target_os = "linux")]
mod tree;

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{kill, killpg};
use nix::unistd::Pid;

pub use nix::sys::signal::Signal;

use super::error::BenchError;
use super::machine;

/// Between `TERM` and `KILL`: nobody has to drain when the figures have been taken.
const PATIENCE: Duration = Duration::from_secs(2);
/// For the kernel to do what `KILL` says.
const KILLING: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(5);
/// Bytes of what a process said that an error repeats: its last words, not its life.
const LAST_WORDS: usize = 2_000;

/// What processes took since they were started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// CPU time in user mode. `user + system` is exact to the microsecond; how it is shared between the two
    /// is the kernel's estimate, which it draws from samples.
    pub user: Duration,
    /// CPU time in the kernel.
    pub system: Duration,
    /// Memory now. Of a single process all pages that are mapped in, its program's included (`Rss`); of a
    /// tree each process's proportional part (`Pss`), since workers share most pages with their master.
    pub resident_kib: u64,
    /// `resident_kib`, and what each living process once had beyond that; the most that any reading found.
    pub peak_kib: u64,
}

impl std::ops::AddAssign for Usage {
    fn add_assign(&mut self, other: Self) {
        self.user += other.user;
        self.system += other.system;
        self.resident_kib += other.resident_kib;
        self.peak_kib += other.peak_kib;
    }
}

/// A process of ours with all that it starts. Dropping it ends them.
#[derive(Debug)]
pub struct Process {
    name: String,
    id: u32,
    child: Mutex<Child>,
    output: PathBuf,
    #[cfg(target_os = "linux")]
    ledger: Mutex<ledger::Ledger>,
}

impl Process {
    /// Starts `command` without input; what it says goes to `NAME.out` and `NAME.err` in `folder`.
    ///
    /// Should *we* be killed, the kernel sends it `orphaned`, where util-linux is installed. It does so as
    /// well when the calling thread ends: start processes from one that stays.
    ///
    /// # Errors
    ///
    /// When the program cannot be started, or the files cannot be written.
    pub fn start(name: &str, command: &Command, folder: &Path, orphaned: Signal) -> Result<Self, BenchError> {
        let output = folder.join(format!("{name}.out"));
        let child = ending_with_us(command, orphaned)
            .stdin(Stdio::null())
            .stdout(File::create(&output)?)
            .stderr(File::create(output.with_extension("err"))?)
            // Ctrl-C reaches us alone, and we end the others in order.
            .process_group(0)
            .spawn()
            .map_err(|error| {
                let program = command.get_program().to_string_lossy();
                BenchError::Broken(format!("{name}: cannot start {program}: {error}"))
            })?;
        Ok(Self {
            name: name.to_owned(),
            id: child.id(),
            child: Mutex::new(child),
            output,
            #[cfg(target_os = "linux")]
            ledger: Mutex::default(),
        })
    }

    /// Its process id, which is also that of its process group.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Whether it still runs.
    ///
    /// # Errors
    ///
    /// [`BenchError::Broken`] with its last words when it has ended.
    pub fn check(&self) -> Result<(), BenchError> {
        match self.child.lock().unwrap_or_else(PoisonError::into_inner).try_wait()? {
            None => Ok(()),
            Some(status) => Err(self.broken(&format!("ended before its time ({status})"))),
        }
    }

    /// An error about it, with its last words.
    pub fn broken(&self, what: &str) -> BenchError {
        let said = [self.output.clone(), self.output.with_extension("err")].map(|file| last_words(&file));
        BenchError::Broken(format!("{} {what}\n{}", self.name, said.concat()).trim_end().to_owned())
    }

    /// Sends a signal to this process, not to those that it started.
    ///
    /// # Errors
    ///
    /// [`BenchError::Broken`] when it has ended.
    pub fn signal(&self, signal: Signal) -> Result<(), BenchError> {
        // As long as it was not waited for, its number is nobody else's.
        self.check()?;
        kill(self.pid(), signal).map_err(|error| BenchError::Io(error.into()))
    }

    /// What it and all that it started took so far, those that have ended included.
    ///
    /// The sum is the kernel's own count per process, in nanoseconds (`clock_getcpuclockid`): the ticks of
    /// `/proc/PID/stat` are 10 ms long, and `schedstat` forgets threads that have ended. Of a process that
    /// ended between two readings, the last reading counts or, where that is more, what its parent was told
    /// when it waited for it: nothing but the last 10 ms of it can be missed.
    ///
    /// # Errors
    ///
    /// [`BenchError::Broken`] when it has ended; [`BenchError::Wrong`] where there is no `/proc`.
    #[cfg(target_os = "linux")]
    pub fn usage(&self) -> Result<Usage, BenchError> {
        self.check()?;
        let members = tree::members(self.id);
        let mut ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        ledger.read(self.id, &members).ok_or_else(|| self.broken("ended while it was measured"))
    }

    /// Needs `/proc`.
    ///
    /// # Errors
    ///
    /// [`BenchError::Wrong`], always.
    #[cfg(not(target_os = "linux"))]
    pub fn usage(&self) -> Result<Usage, BenchError> {
        let what = "CPU time and memory of a balancer are read from /proc: run the bench on Linux";
        Err(BenchError::Wrong(what.to_owned()))
    }

    fn pid(&self) -> Pid {
        // Process ids fit: the kernel's own type is an i32.
        Pid::from_raw(i32::try_from(self.id).unwrap_or(i32::MAX))
    }

    /// Whether it, or something that it started, still runs.
    fn lives(&self) -> bool {
        #[cfg(target_os = "linux")]
        return tree::members(self.id).iter().any(|member| !member.is_zombie);
        #[cfg(not(target_os = "linux"))]
        return self.check().is_ok();
    }

    fn ends_within(&self, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        while self.lives() {
            if Instant::now() > until {
                return false;
            }
            thread::sleep(POLL);
        }
        true
    }

    /// The whole group, and whoever left it.
    fn kill_all(&self) {
        let _ = killpg(self.pid(), Signal::SIGKILL);
        #[cfg(target_os = "linux")]
        for member in tree::members(self.id).iter().filter(|member| !member.is_zombie) {
            let _ = kill(Pid::from_raw(member.id), Signal::SIGKILL);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself, or end in between; either way nothing is left behind.
        let _ = self.signal(Signal::SIGTERM);
        if !self.ends_within(PATIENCE) {
            self.kill_all();
            self.ends_within(KILLING);
        }
        let child = self.child.get_mut().unwrap_or_else(PoisonError::into_inner);
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// The same command, ended by the kernel should we be killed before we can end it ourselves.
fn ending_with_us(command: &Command, orphaned: Signal) -> Command {
    let mut wrapped = match machine::find("setpriv") {
        // It replaces itself by the command, so that the process id stays the one that we know.
        Some(setpriv) if cfg!(target_os = "linux") => {
            let mut wrapped = Command::new(setpriv);
            let signal = orphaned.as_str().trim_start_matches("SIG");
            wrapped.args(["--pdeathsig", signal, "--"]).arg(command.get_program());
            wrapped
        }
        _ => Command::new(command.get_program()),
    };
    wrapped.args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => wrapped.env(name, value),
            None => wrapped.env_remove(name),
        };
    }
    wrapped
}

fn last_words(file: &Path) -> String {
    let bytes = fs::read(file).unwrap_or_default();
    let from = bytes.len().saturating_sub(LAST_WORDS);
    String::from_utf8_lossy(bytes.get(from..).unwrap_or_default()).into_owned()
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn shell(script: &str) -> (tempfile::TempDir, Process) {
        let folder = tempfile::tempdir().expect("a folder");
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        let process = Process::start("shell", &command, folder.path(), Signal::SIGKILL).expect("it starts");
        (folder, process)
    }

    fn wait_until(what: &str, is_so: impl Fn() -> bool) {
        let until = Instant::now() + Duration::from_secs(30);
        while !is_so() {
            assert!(Instant::now() < until, "{what}");
            thread::sleep(POLL);
        }
    }

    fn cpu(process: &Process) -> Duration {
        let usage = process.usage().expect("it runs");
        usage.user + usage.system
    }

    #[test]
    fn dropping_a_process_ends_all_that_it_started_even_those_that_will_not() {
        let (_folder, process) =
            shell("trap '' TERM; sh -c 'trap \"\" TERM; sleep 100 & sleep 100' & sleep 100 & wait; wait");
        wait_until("five processes", || tree::members(process.id()).len() >= 5);
        let members = tree::members(process.id());
        drop(process);
        let left = members.iter().filter(|member| tree::is_alive(member));
        assert_eq!(left.count(), 0, "{members:?}");
    }

    #[test]
    fn a_grandchild_whose_parent_has_ended_still_belongs() {
        let (_folder, process) = shell("(sleep 100 &) ; exec sleep 100");
        wait_until("both sleep", || tree::members(process.id()).len() == 2);
        let members = tree::members(process.id());
        drop(process);
        assert!(!members.iter().any(tree::is_alive));
    }

    #[test]
    fn a_process_that_ended_tells_its_last_words() {
        let (_folder, process) = shell("echo to no avail >&2; exit 3");
        wait_until("it ends", || process.check().is_err());
        let error = process.check().expect_err("it has ended").to_string();
        assert!(error.starts_with("shell ended before its time (exit status: 3)"), "{error}");
        assert!(error.ends_with("to no avail"), "{error}");
        assert!(process.usage().is_err() && process.signal(Signal::SIGHUP).is_err());
    }

    #[test]
    fn a_program_that_is_not_there_is_an_error() {
        let folder = tempfile::tempdir().expect("a folder");
        let command = Command::new("/nowhere/at/all");
        let started = Process::start("nobody", &command, folder.path(), Signal::SIGKILL);
        // With `setpriv` in front, it is that which fails, soon after.
        if let Ok(process) = started {
            wait_until("it ends", || process.check().is_err());
        }
    }

    #[test]
    fn the_time_of_a_child_counts_while_it_runs_and_after_it_has_ended() {
        let busy = "i=0; while [ $i -lt 60000 ]; do i=$((i+1)); done";
        let (folder, process) = shell(&format!("sh -c '{busy}'; echo ended; exec sleep 100"));
        let said = || fs::read_to_string(folder.path().join("shell.out")).unwrap_or_default();
        let least = Cell::new(Duration::ZERO);
        wait_until("the child ends", || {
            let now = cpu(&process);
            assert!(now >= least.get(), "time runs backwards: {now:?} after {least:?}");
            least.set(now);
            said().contains("ended")
        });
        let after = cpu(&process);
        assert!(after >= least.get() && after > Duration::from_millis(1), "{after:?} after {least:?}");
    }

    #[test]
    fn memory_is_that_of_the_process_and_its_peak_is_not_less() {
        let (_folder, process) = shell("exec sleep 100");
        wait_until("it is mapped in", || process.usage().is_ok_and(|usage| usage.resident_kib > 0));
        let usage = process.usage().expect("it runs");
        assert!(usage.peak_kib >= usage.resident_kib, "{usage:?}");
        assert!(usage.resident_kib < 100 * 1024, "{usage:?}");
    }
}
