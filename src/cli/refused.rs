//! What the side port says no with (RFC 9457), as people read it: every mistake, the API's help, and the
//! command that helps here.

use std::fmt::Write as _;

use serde::Deserialize;

use super::guard::Guard;

/// What every `type` of Evener's begins with.
const TYPE_PREFIX: &str = "urn:evener:problem:";

/// One refusal.
#[derive(Deserialize)]
pub(super) struct Problem {
    #[serde(rename = "type", deserialize_with = "kind")]
    kind: String,
    title: String,
    detail: String,
    help: String,
    #[serde(default)]
    errors: Vec<Mistake>,
    /// The guarded change that was rolled back.
    #[serde(default)]
    guard: Option<Guard>,
}

#[derive(Deserialize)]
struct Mistake {
    line: u64,
    column: u64,
    message: String,
    help: String,
}

/// The tail of `type`; a problem of somebody else's is no problem of ours.
fn kind<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let kind = String::deserialize(deserializer)?;
    let tail = kind.strip_prefix(TYPE_PREFIX).map(str::to_owned);
    tail.ok_or_else(|| serde::de::Error::custom("a problem that is not Evener's"))
}

impl Problem {
    /// All of it. `file` is what mistakes name as their place.
    pub(super) fn tell(&self, file: &str) -> String {
        let mut text = String::new();
        for mistake in &self.errors {
            let Mistake { line, column, message, help } = mistake;
            let help = help.replace('\n', "\n          ");
            let _ = writeln!(text, "error: {message}\n --> {file}:{line}:{column}\n  = help: {help}\n");
        }
        let _ = writeln!(text, "error: {}: {}", self.title, self.own_detail());
        if let Some(guard) = &self.guard {
            text.push_str(&guard.figures("  "));
        }
        let _ = writeln!(text, "  = help: {}", self.help);
        if let Some(help) = command_for(&self.kind) {
            let _ = writeln!(text, "  = help: {help}");
        }
        text
    }

    /// Of a file that could not be read, the detail is a message of its own, with the help that follows.
    fn own_detail(&self) -> &str {
        let detail = self.detail.strip_prefix("error: ").unwrap_or(&self.detail);
        detail.split("\n  = help: ").next().unwrap_or(detail)
    }
}

/// The API's help speaks of requests; this is the same in commands.
fn command_for(kind: &str) -> Option<&'static str> {
    Some(match kind {
        "changed_meanwhile" => {
            "somebody was faster: `evener history` shows who; `evener plan FILE` shows what FILE would change now, then apply it again"
        }
        "file_edited" => {
            "`evener reload` runs what the file says; `evener apply FILE --overwrite` replaces it"
        }
        "guarded" => {
            "`evener guard` shows how it stands, `evener confirm` keeps it, `evener rollback` ends it"
        }
        "unauthorized" => {
            "put the token into EVENER_ADMIN_TOKEN, or name a file that holds it with --token-file"
        }
        "unknown_generation" => "`evener history` lists them",
        "unknown_path" | "wrong_method" => {
            "the process may be of another version than this command: compare `evener status` with `evener --version`"
        }
        "unknown_pool" | "unknown_upstream" => "`evener pools` lists them",
        _ => return None,
    })
}
