//! Another process in our place, without a connection refused.
//!
//! ```text
//!   old                                            new, started by the old one
//!   attempt.rs ── hello: sockets, what is known ──► heir.rs     the file is read, new addresses are bound
//!       │      ◄── ready ────────────────────────── │           first health checks are done
//!       │      ─── go: what was counted since ────► │           it accepts, and may write to the disk
//!       │      ◄── serving ──────────────────────── │
//!   farewell.rs ── what is still counted ─────────► │           the old one stops accepting, finishes, ends
//! ```
//!
//! Until *serving* nothing is lost: whatever becomes of the new process, the old one goes on. The new one is
//! a child of the old one, so it has its environment, user, limits, control group, output and folder; the
//! two speak over a socket pair, which the child gets as its standard input (`wire.rs`). Listening sockets
//! go along, so connections that nobody has accepted yet wait for whoever accepts next.
//!
//! **To tell the other side something new**: a member of a `Message` with a default, for the
//! other side may be of another version; or a variant, which older ones pass over.

mod attempt;
mod farewell;
mod heir;
mod systemd;
mod wire;

use std::env;
use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use pingora::server::ListenFds;

pub(crate) use attempt::{Successor, attempt};
pub(crate) use farewell::{leave, pass_on_hangup};
pub use heir::Predecessor;
pub(crate) use heir::{Entrance, Sockets};
pub(crate) use systemd::{notify, notify_reloading};

/// Pingora's table of listening sockets, once it is there.
pub(crate) type SocketTable = Arc<OnceLock<ListenFds>>;

/// Where the predecessor hears why we do not come to serve; empty when there is none, or no need any more.
static REPORT: Mutex<Option<wire::Report>> = Mutex::new(None);

/// Tells the predecessor, if there is one, why this process does not come to serve.
pub fn report_failure(reason: &str) {
    let report = REPORT.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(report) = report {
        report.tell(reason);
    }
}

/// Tells the predecessor, if there is one, that this program does not understand the arguments that it was
/// started with; before [`Predecessor::meet`], and before the end.
pub fn report_misunderstanding(reason: &str) {
    if let Some(stream) = heir::stream_to_predecessor() {
        wire::Report::over(stream).tell(reason);
    }
}

/// A panic that ends the process has a reason too.
fn report_panics() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        before(panic);
        if std::thread::current().name() == Some("main") {
            report_failure(&panic.to_string());
        }
    }));
}

/// The file that this process was started from, by the name it was started by: what lies there at the next
/// upgrade is the successor. Neither `/proc/self/exe`, which names a deleted file once that was replaced, nor
/// the end of a link, which may point to another version by then.
pub fn own_file() -> PathBuf {
    let name = env::args_os().next().unwrap_or_default();
    let found = if Path::new(&name).components().count() > 1 {
        std::path::absolute(&name).ok().filter(|file| is_program(file))
    } else {
        in_path(&name, &env::var_os("PATH").unwrap_or_default())
    };
    found.or_else(|| env::current_exe().ok()).unwrap_or_else(|| name.into())
}

fn in_path(name: &OsStr, path: &OsStr) -> Option<PathBuf> {
    let absolute = |folder: PathBuf| std::path::absolute(folder.join(name)).ok();
    env::split_paths(path).filter_map(absolute).find(|file| is_program(file))
}

fn is_program(file: &Path) -> bool {
    file.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_program_is_found_where_a_shell_finds_it() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(one.path().join("evener"), "no program").unwrap();
        fs::write(two.path().join("evener"), "").unwrap();
        fs::set_permissions(two.path().join("evener"), fs::Permissions::from_mode(0o755)).unwrap();
        let path = env::join_paths([one.path(), two.path()]).unwrap();
        assert_eq!(in_path(OsStr::new("evener"), &path), Some(two.path().join("evener")));
        assert_eq!(in_path(OsStr::new("other"), &path), None);
    }

    #[test]
    fn a_link_to_the_present_version_stays_a_link() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("v1"), "").unwrap();
        fs::set_permissions(folder.path().join("v1"), fs::Permissions::from_mode(0o755)).unwrap();
        std::os::unix::fs::symlink("v1", folder.path().join("evener")).unwrap();
        let found = in_path(OsStr::new("evener"), folder.path().as_os_str());
        assert_eq!(found, Some(folder.path().join("evener")));
    }
}
