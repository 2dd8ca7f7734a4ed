//! What came of a change, for people.

use std::fmt::Write as _;

use serde::Deserialize;

use super::output::{Paint, Tone, counted, listed};

/// What every write answers with.
#[derive(Deserialize)]
pub(super) struct Applied {
    pub(super) generation: u64,
    changed: bool,
    carried: u64,
    added: Vec<Upstream>,
    removed: Vec<Upstream>,
    reset: Vec<Reset>,
    pub(super) overrides_dropped: Vec<Dropped>,
    warnings: Vec<String>,
    persisted: bool,
}

#[derive(Deserialize)]
struct Upstream {
    pool: String,
    address: String,
}

#[derive(Deserialize)]
struct Reset {
    pool: String,
    what: String,
    why: String,
}

/// An override that a change ended.
#[derive(Deserialize)]
pub(super) struct Dropped {
    pool: String,
    upstream: Option<String>,
    setting: String,
    value: String,
    why: String,
}

impl Dropped {
    /// `app/10.0.0.1:80 weight 5: why`
    pub(super) fn tell(&self) -> String {
        let Self { pool, upstream, setting, value, why } = self;
        let upstream = upstream.as_ref().map(|address| format!("/{address}")).unwrap_or_default();
        format!("{pool}{upstream} {setting} {value}: {why}")
    }
}

impl Applied {
    /// `what` was done, and what that meant.
    pub(super) fn tell(&self, what: &str, paint: Paint) -> String {
        if !self.changed {
            return format!(
                "nothing to change: generation {} is the same\n{}",
                self.generation,
                self.notes()
            );
        }
        let mut text = format!("{what}: generation {}\n", self.generation);
        let _ = writeln!(text, "  carried   {}", counted(self.carried, "upstream"));
        let member = |upstream: &Upstream| format!("{}/{}", upstream.pool, upstream.address);
        for line in listed(self.added.iter().map(member)) {
            let _ = writeln!(text, "  {}     {line}", paint.paint(Tone::Good, "added"));
        }
        for line in listed(self.removed.iter().map(member)) {
            let _ = writeln!(text, "  {}   {line}", paint.paint(Tone::Bad, "removed"));
        }
        for line in listed(self.reset.iter().map(|it| format!("{} {}: {}", it.pool, it.what, it.why))) {
            let _ = writeln!(text, "  {}     {line}", paint.paint(Tone::Odd, "reset"));
        }
        for line in listed(self.overrides_dropped.iter().map(Dropped::tell)) {
            let _ = writeln!(text, "  {}   override of {line}", paint.paint(Tone::Odd, "dropped"));
        }
        text + &self.notes()
    }

    /// What is odd about it.
    pub(super) fn notes(&self) -> String {
        let mut text = String::new();
        for warning in &self.warnings {
            let _ = writeln!(text, "  warning   {warning}");
        }
        if !self.persisted {
            text.push_str("  note      not on the disk: there is no file, or a guard has yet to keep it\n");
        }
        text
    }
}
