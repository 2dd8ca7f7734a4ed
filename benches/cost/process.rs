//! A process that we started: what it uses, and its certain end.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::thread;
use std::time::{Duration, Instant};

use super::exchange;
use super::machine;

/// A start on a shared machine may take its time; Evener's includes its first health checks.
const START_DEADLINE: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(20);

/// Length of the unit in which the kernel tells the CPU time of a process, in seconds: `USER_HZ`, which
/// is 100 on every machine that Linux runs on today.
const TICK_S: f64 = 0.01;

static IS_INTERRUPTED: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// From now on these signals end the run in order: every process that we started is ended first.
pub(crate) fn stop_on_signals() -> Result<(), Failure> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    for signal in [SIGHUP, SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, IS_INTERRUPTED.clone())?;
    }
    Ok(())
}

/// Waits, unless the run is to end.
pub(crate) fn pause(time: Duration) -> Result<(), Failure> {
    let until = Instant::now() + time;
    loop {
        if IS_INTERRUPTED.load(Ordering::Relaxed) {
            return Err(Failure::Interrupted);
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        thread::sleep(left.min(POLL));
    }
}

/// An address on loopback that nobody listens on.
pub(crate) fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

/// Why there is no result.
#[derive(Debug)]
pub(crate) enum Failure {
    /// A proxy or the origin did not do what it is there for.
    Broken(String),
    Io(io::Error),
    Interrupted,
}

impl Failure {
    /// 1 when something is broken, 130 after Ctrl-C, as shells have it.
    pub(crate) fn exit_code(&self) -> u8 {
        if matches!(self, Self::Interrupted) { 130 } else { 1 }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broken(what) => formatter.write_str(what),
            Self::Io(error) => error.fmt(formatter),
            Self::Interrupted => formatter.write_str("interrupted, everything that was started has ended"),
        }
    }
}

/// A process of ours. Dropping it ends it.
pub(crate) struct Process {
    name: &'static str,
    child: Child,
    output: PathBuf,
}

impl Process {
    /// Starts `command`; what it says goes to files in `folder`.
    pub(crate) fn start(name: &'static str, command: &Command, folder: &Path) -> Result<Self, Failure> {
        let output = folder.join(format!("{name}.out"));
        let errors = folder.join(format!("{name}.err"));
        let child = ending_with_us(command)
            .stdin(Stdio::null())
            .stdout(File::create(&output)?)
            .stderr(File::create(&errors)?)
            // Ctrl-C reaches us alone, and we end the others when their figures no longer matter.
            .process_group(0)
            .spawn()?;
        Ok(Self { name, child, output })
    }

    /// Waits until a `GET` is answered as it should be.
    pub(crate) fn wait_until_it_answers(&self, address: SocketAddr) -> Result<(), Failure> {
        let started = Instant::now();
        while let Err(error) = exchange::check(address) {
            if started.elapsed() > START_DEADLINE {
                let said = fs::read_to_string(self.output.with_extension("err")).unwrap_or_default();
                return Err(Failure::Broken(format!("{} does not answer: {error}\n{said}", self.name)));
            }
            pause(POLL)?;
        }
        Ok(())
    }

    /// Waits for its own end, at most so long; answers with what it wrote to standard output.
    pub(crate) fn finish(mut self, limit: Duration) -> Result<String, Failure> {
        let started = Instant::now();
        let status: ExitStatus = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            if started.elapsed() > limit {
                return Err(Failure::Broken(format!("{} does not end", self.name)));
            }
            pause(POLL)?;
        };
        if !status.success() {
            return Err(Failure::Broken(format!("{} failed: {status}", self.name)));
        }
        Ok(fs::read_to_string(&self.output)?)
    }

    /// User and system time used so far, in seconds. Every candidate is one process.
    pub(crate) fn cpu_s(&self) -> Result<CpuTime, Failure> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // The name in parentheses may hold anything; the numbers come after it, `state` being field 3.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |field: usize| fields.get(field - 3).and_then(|text| text.parse::<u32>().ok());
        match (ticks(14), ticks(15)) {
            (Some(user), Some(system)) => {
                Ok(CpuTime { user_s: f64::from(user) * TICK_S, system_s: f64::from(system) * TICK_S })
            }
            _ => Err(self.ended()),
        }
    }

    /// Resident memory, in KiB, pages of the program itself included.
    pub(crate) fn resident_kib(&self) -> Result<f64, Failure> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|text| text.split_whitespace().next()?.parse::<f64>().ok());
        kib.ok_or_else(|| self.ended())
    }

    fn ended(&self) -> Failure {
        Failure::Broken(format!("{} ended before its time", self.name))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself; either way nothing is left behind.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// CPU time of one process.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CpuTime {
    pub user_s: f64,
    pub system_s: f64,
}

impl CpuTime {
    pub(crate) fn total_s(self) -> f64 {
        self.user_s + self.system_s
    }

    pub(crate) fn since(self, earlier: Self) -> Self {
        Self { user_s: self.user_s - earlier.user_s, system_s: self.system_s - earlier.system_s }
    }
}

/// The same command, ended by the kernel should we be killed before we can end it ourselves.
fn ending_with_us(command: &Command) -> Command {
    let mut wrapped = match machine::find("setpriv") {
        // It replaces itself by the command, so that the process id stays the one that we know.
        Some(setpriv) => {
            let mut wrapped = Command::new(setpriv);
            wrapped.args(["--pdeathsig", "KILL", "--"]).arg(command.get_program());
            wrapped
        }
        None => Command::new(command.get_program()),
    };
    wrapped.args(command.get_args());
    wrapped
}
