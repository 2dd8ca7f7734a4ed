//! Programs that no one here wrote, as child processes: where they are, and how they end.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

/// What the plays run, and the package of Debian that has it.
const PROGRAMS: [(&str, &str); 4] =
    [("node", "nodejs"), ("gunicorn", "gunicorn"), ("nginx", "nginx-light"), ("wrk", "wrk")];

/// The folder with scripts and configuration.
pub(super) fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/behaviour/real_servers")
}

/// Whether everything is installed. If not, the play fails with what to do; where `CI_ALLOW_MISSING` is
/// set, it is left out, and says so.
#[track_caller]
pub(super) fn all_are_here() -> bool {
    let missing = PROGRAMS.iter().filter(|(program, _)| find(program).is_none());
    let packages: Vec<&str> = missing.map(|(_, package)| *package).collect();
    if packages.is_empty() {
        return true;
    }
    let advice = format!("apt-get install {} (or `make setup`)", packages.join(" "));
    assert!(env::var_os("CI_ALLOW_MISSING").is_some(), "real servers are missing: {advice}");
    eprintln!("!!! LEFT OUT, real servers are missing: {advice}");
    false
}

/// Debian keeps nginx where only root looks.
fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    folders.map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// The program at low priority, so that a play under full load does not starve those that run beside it.
pub(super) fn command(program: &str) -> Command {
    let mut command = Command::new("nice");
    command.args(["-n", "5"]).arg(find(program).unwrap_or_else(|| program.into()));
    command
}

/// Sends a signal to a process that we started; a group is addressed by its leader, negated.
#[track_caller]
pub(super) fn signal(target: i64, name: &str) {
    assert!(is_sent(target, name), "send {name} to {target}");
}

/// Through the shell, where `kill` is built in: the standard library sends no signals but KILL.
fn is_sent(target: i64, name: &str) -> bool {
    let sent = Command::new("sh").args(["-c", &format!("kill -{name} {target}")]).status();
    sent.is_ok_and(|status| status.success())
}

/// Kills the process and all that it started, and waits for it. Does not fail: it is for drops, too.
pub(super) fn kill_group(process: &mut Child) {
    if process.try_wait().is_ok_and(|ended| ended.is_none()) {
        is_sent(-i64::from(process.id()), "KILL");
        let _ = process.kill();
        let _ = process.wait();
    }
}
