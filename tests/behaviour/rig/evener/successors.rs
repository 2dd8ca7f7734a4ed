//! Processes that took over from the one that the play started: they are nobody's children, so that the rig
//! finds them by their folder.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::{Evener, RUN, START_DEADLINE, addresses_in, is_running, signal, with_addresses};
use crate::rig::message::Response;
use crate::rig::wait_until;

/// What a successor's predecessor writes into the log.
const STARTED: &str = "successor started";

impl Evener {
    /// As [`Evener::start`], from a file of its own in its folder, `evener`, which the play may replace, and
    /// with these variables.
    pub(crate) fn start_from_own_file(configuration: &str, environment: &[(&str, &str)]) -> Self {
        let table = with_addresses(configuration);
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::write(folder.path().join("evener.toml"), toml::to_string(&table).expect("TOML")).expect("write");
        let file = folder.path().join("evener");
        symlink(env!("CARGO_BIN_EXE_evener"), &file).expect("a link");
        let process = spawn_file(&file, folder.path(), environment);
        let (address, admin) = addresses_in(&table);
        let evener = Self { process, folder, address, admin, token: None };
        evener.wait_until_ready();
        evener
    }

    /// Puts this script in the place of the program.
    pub(crate) fn replace_own_file_by(&self, script: &str) {
        use std::os::unix::fs::PermissionsExt;
        let (file, new) = (self.path("evener"), self.path("evener.new"));
        fs::write(&new, script).expect("write");
        fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).expect("a mode");
        fs::rename(new, file).expect("rename");
    }

    /// Removes the program.
    pub(crate) fn remove_own_file(&self) {
        fs::remove_file(self.path("evener")).expect("remove");
    }

    /// The program is there again.
    pub(crate) fn restore_own_file(&self) {
        let _ = fs::remove_file(self.path("evener"));
        symlink(env!("CARGO_BIN_EXE_evener"), self.path("evener")).expect("a link");
    }

    /// Asks for another process, and answers when it serves, or why not.
    #[track_caller]
    pub(crate) fn upgrade(&self) -> Response {
        self.admin().post("/v1/upgrade", "")
    }

    /// The process that answers at the side port.
    #[track_caller]
    pub(crate) fn serving_process(&self) -> u32 {
        let status = self.admin().json("/v1/status");
        status["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok()).expect("a process id")
    }

    /// Sends a signal to the process that serves.
    #[track_caller]
    pub(crate) fn signal_serving(&self, name: &str) {
        signal(self.serving_process(), name);
    }

    /// Waits until this process has ended, whose child it may be.
    #[track_caller]
    pub(crate) fn wait_for_end_of(process_id: u32) {
        wait_until(START_DEADLINE, || !is_running(process_id));
    }

    /// Whether this process is there.
    pub(crate) fn is_there(process_id: u32) -> bool {
        is_running(process_id)
    }

    /// As [`Evener::start`], by a command of the shell that ends in `exec "$0" "$@"`.
    pub(crate) fn start_through_shell(configuration: &str, command: &str) -> Self {
        let evener = Self::launch(configuration, &["sh", "-c", command], &[]);
        evener.wait_until_ready();
        evener
    }

    /// Processes that the one that serves has started, and that are still there.
    pub(crate) fn children_of_serving(&self) -> usize {
        let parent = self.serving_process().to_string();
        let is_child = |id: &u32| {
            let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
            let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
            after_name.split_whitespace().nth(1) == Some(&parent)
        };
        self.processes().iter().filter(|id| is_child(id)).count()
    }

    pub(super) fn end_successors(&self) {
        if !self.log().contains(STARTED) {
            return;
        }
        for name in ["TERM", "TERM", "KILL"] {
            let left = self.processes();
            left.iter().for_each(|&process_id| signal_if_there(process_id, name));
            let started = Instant::now();
            while left.iter().any(|&process_id| is_running(process_id))
                && started.elapsed() < Duration::from_millis(700)
            {
                thread::sleep(Duration::from_millis(5));
            }
        }
    }

    /// Everything that runs in our folder.
    pub(crate) fn processes(&self) -> Vec<u32> {
        let folder = fs::canonicalize(self.folder.path()).expect("a folder");
        let all = fs::read_dir("/proc").expect("the processes").flatten();
        let numbers = all.filter_map(|entry| entry.file_name().to_string_lossy().parse::<u32>().ok());
        let is_ours = |id: &u32| fs::read_link(format!("/proc/{id}/cwd")).is_ok_and(|at| at == folder);
        numbers.filter(|id| is_ours(id) && is_running(*id)).collect()
    }
}

fn signal_if_there(process_id: u32, name: &str) {
    let _ = Command::new("sh")
        .args(["-c", &format!("kill -{name} {process_id} 2>/dev/null")])
        .current_dir("/")
        .status();
}

fn spawn_file(file: &Path, folder: &Path, environment: &[(&str, &str)]) -> Child {
    let output = |name: &str| fs::File::create(folder.join(name)).expect("create");
    Command::new(file)
        .args(RUN)
        .current_dir(folder)
        .env_remove("LOAD_BALANCER_SERVERS")
        .env_remove("EVENER_ADMIN")
        .env_remove("EVENER_ADMIN_TOKEN")
        .env_remove("NOTIFY_SOCKET")
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .stdout(output("stdout"))
        .stderr(output("stderr"))
        .spawn()
        .expect("the binary starts")
}
