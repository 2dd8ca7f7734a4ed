//! A terminal that can be looked at: a tmux of our own, apart from any other on this machine.

use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use std::{process, thread};

const PATIENCE: Duration = Duration::from_secs(60);

/// One window of one tmux; both end on drop.
pub(super) struct Screen {
    /// The name of its socket.
    name: String,
}

impl Screen {
    /// Runs the binary with these arguments and variables, and a shell's prompt `after CODE` behind it.
    pub(super) fn open(columns: u16, lines: u16, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let words: Vec<String> = arguments.iter().map(|word| format!("'{word}'")).collect();
        let command = format!("'{}' {}", env!("CARGO_BIN_EXE_evener"), words.join(" "));
        Self::run(
            columns,
            lines,
            &format!("printf 'before\\n'; {command}; echo after $?; stty -a"),
            environment,
        )
    }

    /// Runs a command of the shell; the window stays when it ends.
    pub(super) fn run(columns: u16, lines: u16, command: &str, environment: &[(&str, &str)]) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("evener-{}-{}", process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let screen = Self { name };
        let (columns, lines) = (columns.to_string(), lines.to_string());
        let variables: Vec<String> =
            environment.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let mut words = vec![
            "-f",
            "/dev/null",
            "new-session",
            "-d",
            "-x",
            &columns,
            "-y",
            &lines,
            "-e",
            "LC_ALL=C.UTF-8",
        ];
        variables.iter().for_each(|variable| words.extend(["-e", variable]));
        // What comes behind keeps the window open.
        let command = format!("{command}; exec sleep 600");
        words.push(&command);
        let begun = screen.tmux(&words);
        assert!(begun.status.success(), "tmux: {}", String::from_utf8_lossy(&begun.stderr));
        screen
    }

    fn tmux(&self, words: &[&str]) -> Output {
        let mut tmux = Command::new("tmux");
        // UTF-8 whatever the locale of this machine, and no session of somebody else's.
        tmux.args(["-u", "-L", &self.name]).args(words).env_remove("TMUX").env_remove("NO_COLOR");
        tmux.env_remove("EVENER_ADMIN").env_remove("EVENER_ADMIN_TOKEN");
        tmux.output().expect("tmux runs: `.ci/setup test` installs it")
    }

    /// What is to be seen.
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.tmux(&["capture-pane", "-p"]).stdout).into_owned()
    }

    /// The same with its colours and other attributes.
    pub(super) fn styled(&self) -> String {
        String::from_utf8_lossy(&self.tmux(&["capture-pane", "-p", "-e"]).stdout).into_owned()
    }

    /// Presses keys, by the names that tmux has for them.
    pub(super) fn keys(&self, keys: &[&str]) {
        let sent = self.tmux(&[&["send-keys"], keys].concat());
        assert!(sent.status.success(), "tmux: {}", String::from_utf8_lossy(&sent.stderr));
    }

    /// Sends a signal to the binary, by its short name.
    pub(super) fn signal(&self, name: &str) {
        let shell = self.value("pane_pid");
        let sent =
            Command::new("sh").args(["-c", &format!("kill -{name} $(pgrep -P {shell} -x evener)")]).status();
        assert!(sent.is_ok_and(|status| status.success()), "send {name}");
    }

    pub(super) fn resize(&self, columns: u16, lines: u16) {
        let (columns, lines) = (columns.to_string(), lines.to_string());
        self.tmux(&["resize-window", "-x", &columns, "-y", &lines]);
    }

    /// A value of tmux about the window, such as `alternate_on`.
    pub(super) fn value(&self, name: &str) -> String {
        let told = self.tmux(&["display-message", "-p", &format!("#{{{name}}}")]);
        String::from_utf8_lossy(&told.stdout).trim().to_owned()
    }

    /// Waits until all of these are to be seen.
    #[track_caller]
    pub(super) fn wait_for(&self, words: &[&str]) {
        self.wait_until(&format!("{words:?}"), |text| words.iter().all(|word| text.contains(word)));
    }

    #[track_caller]
    pub(super) fn wait_until(&self, what: &str, mut is_so: impl FnMut(&str) -> bool) {
        let started = Instant::now();
        loop {
            let text = self.text();
            if is_so(&text) {
                return;
            }
            assert!(started.elapsed() < PATIENCE, "not so on the screen: {what}\n{text}");
            thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.tmux(&["kill-server"]);
    }
}
