//! Reads scenario files: TOML in, a checked [`Scenario`] out, or every mistake with its place and help.
//!
//! ```text
//!   text ──► shape.rs: FileShape ──► check.rs ──► Scenario
//!             keys, single values     what belongs together, indexes, limits
//! ```
//!
//! What the TOML reader itself refuses (syntax, an unknown key, a value of the wrong kind) is said alone;
//! mistakes in meaning are said all at once.
//!
//! **To add a key**: a field in `shape.rs`, its check and meaning in `check.rs`, its row in
//! `benches/README.md`, section Scenarios.

mod check;
mod shape;
#[cfg(test)]
mod tests;

use std::ops::Range;

use super::error::BenchError;
use super::scenario::Scenario;
use crate::config::Report;

impl Scenario {
    /// Reads a scenario; `name` is that of the file, without `.toml`.
    ///
    /// # Errors
    ///
    /// [`BenchError::Wrong`] with line, column, the line itself and help for each mistake.
    pub fn read(name: &str, text: &str) -> Result<Self, BenchError> {
        let made = match toml::from_str::<shape::FileShape>(text) {
            Ok(file) => check::scenario(name, file),
            Err(error) => Err(vec![said_by_toml(&error, text)]),
        };
        made.map_err(|mistakes| {
            let file = format!("{name}.toml");
            BenchError::Wrong(Report::about(&file, text, mistakes, "nothing was measured").to_string())
        })
    }
}

/// Where something is wrong; what, a few words beside the underline, and help.
type Mistake = (Range<usize>, [String; 3]);

/// A refusal of the TOML reader in our words.
fn said_by_toml(error: &toml::de::Error, text: &str) -> Mistake {
    let span = error.span().filter(|span| span.end <= text.len()).unwrap_or(0..0);
    let message = error.message();
    let (message, help) = match (shape::help_in(message), about_a_value(message)) {
        (Some((message, help)), _) => (message.to_owned(), help.to_owned()),
        (None, Some((message, expected))) => (message.to_owned(), format!("write {expected}")),
        (None, None) => (message.to_owned(), advice(message)),
    };
    (span, [message, "here".to_owned(), help])
}

/// What was found and what was expected; of a syntax error, only the whole message has a meaning.
fn about_a_value(message: &str) -> Option<(&str, &str)> {
    const STARTS: [&str; 3] = ["unknown field", "invalid type", "invalid value"];
    let is_about_a_value = STARTS.iter().any(|start| message.starts_with(start));
    if is_about_a_value { message.split_once(", expected ") } else { None }
}

fn advice(message: &str) -> String {
    let missing = message.strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`'));
    match missing {
        Some(key) => format!("add `{key} = …`; {REFERENCE} has all keys"),
        None => format!(
            "this is TOML: `key = value`, a value after each `=`, text in double quotes; {REFERENCE} has all keys"
        ),
    }
}

const REFERENCE: &str = "benches/README.md, section Scenarios,";
