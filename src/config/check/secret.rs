//! Values that may stand elsewhere than in the file: `env:NAME`, `file:PATH`.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use crate::config::fields::{Desk, Value};
use crate::config::limits::SECRET_BYTES_MAX;
use crate::config::report::Wrong;
use crate::config::values::shown;

/// A value, and whether it came from elsewhere. Has no `Debug`, so that it cannot end in a log.
pub(super) struct Secret {
    pub text: String,
    pub from_elsewhere: bool,
}

/// Reads a value that may be given literally, by environment variable, or by file.
pub(super) fn read(value: &Value<'_>) -> Option<Secret> {
    value.parse(|text| {
        let elsewhere = |text| Secret { text, from_elsewhere: true };
        if let Some(name) = text.strip_prefix("env:") {
            return from_environment(name, value.desk).map(elsewhere);
        }
        if let Some(path) = text.strip_prefix("file:") {
            return from_file(&value.desk.folder.join(path)).map(elsewhere);
        }
        Ok(Secret { text: text.to_owned(), from_elsewhere: false })
    })
}

/// Whether this text is where to find a value, not the value.
pub(super) fn is_reference(text: &str) -> bool {
    text.starts_with("env:") || text.starts_with("file:")
}

fn from_environment(name: &str, desk: &Desk<'_>) -> Result<String, Wrong> {
    let usable = !name.is_empty() && !name.contains(['=', '\0']);
    let text = usable.then(|| (desk.environment)(name)).flatten();
    text.filter(|text| !text.is_empty()).ok_or_else(|| {
        Wrong::new(
            format!("the environment variable `{}` is not set, or empty", shown(name)),
            "nothing there",
            "set it where Evener starts (systemd: `EnvironmentFile=`), or write \"file:PATH\"",
        )
    })
}

/// The file's text without the line end that editors add.
fn from_file(path: &Path) -> Result<String, Wrong> {
    let wrong = |what: &str| {
        let message = format!("the secret file `{}` {what}", shown(&path.display().to_string()));
        let help = format!("name a readable text file of at most {SECRET_BYTES_MAX} bytes");
        Wrong::new(message, "no secret there", help)
    };
    let text = text_of(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => wrong("does not exist"),
        io::ErrorKind::InvalidInput => wrong("is no ordinary file"),
        kind => wrong(&format!("cannot be read: {kind}")),
    })?;
    let trimmed = text.trim_end_matches(['\r', '\n']);
    if trimmed.is_empty() || text.len() as u64 > SECRET_BYTES_MAX {
        return Err(wrong("is empty or too large"));
    }
    Ok(trimmed.to_owned())
}

/// At most one byte more than [`SECRET_BYTES_MAX`]. Opening a pipe would wait for its writer, so only
/// ordinary files are opened.
fn text_of(path: &Path) -> io::Result<String> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut text = String::new();
    File::open(path)?.take(SECRET_BYTES_MAX + 1).read_to_string(&mut text)?;
    Ok(text)
}
