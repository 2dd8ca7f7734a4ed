//! Ends that nobody planned, starts in the same folder, and what lies in it.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Admin, Evener, RUN, START_DEADLINE, addresses_in, spawn, with_addresses};
use crate::rig::message::Response;

impl Evener {
    /// As [`Evener::start`], with further files in its folder. Not yet ready.
    pub(crate) fn start_beside(configuration: &str, files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for (name, text) in files {
            fs::write(folder.path().join(name), text).expect("write");
        }
        let table = with_addresses(configuration);
        let text = toml::to_string(&table).expect("TOML");
        fs::write(folder.path().join("evener.toml"), text).expect("write");
        let (address, admin) = addresses_in(&table);
        let process = spawn(&[], &RUN, &[], folder.path());
        Self { process, folder, address, admin, token: None }
    }

    /// As [`Evener::start`], in a process that may write this many blocks of 512 or 1024 bytes to a file.
    pub(crate) fn start_with_small_files(configuration: &str, blocks: usize) -> Self {
        let limit = format!("ulimit -f {blocks} && exec \"$0\" \"$@\"");
        let evener = Self::launch(configuration, &["sh", "-c", &limit], &[]);
        evener.wait_until_ready();
        evener
    }

    /// Ends it as a power cut does.
    pub(crate) fn kill(&mut self) {
        self.process.kill().expect("kill");
        self.process.wait().expect("wait for a child");
    }

    /// Starts the binary on what lies in the folder, after it ended, and waits until it is ready. The log
    /// begins anew.
    pub(crate) fn start_again(&mut self) {
        self.process = spawn(&[], &RUN, &[], self.folder.path());
        self.wait_until_ready();
    }

    /// Stops it in order, and starts it again.
    pub(crate) fn restart(&mut self) {
        assert_eq!(self.disagreement(), None);
        self.signal("TERM");
        assert!(self.ends_within(START_DEADLINE).is_some(), "it does not end");
        self.start_again();
    }

    /// A file in its folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The text of a file in its folder; `None`: there is none.
    pub(crate) fn file(&self, name: &str) -> Option<String> {
        read(&self.path(name))
    }
}

fn read(path: &Path) -> Option<String> {
    fs::read(path).ok().map(|bytes| String::from_utf8(bytes).expect("text"))
}

impl Admin {
    /// `PATCH path` with a body of JSON.
    #[track_caller]
    pub(crate) fn patch(&self, path: &str, json: &str) -> Response {
        self.write("PATCH", path, "", json)
    }
}
