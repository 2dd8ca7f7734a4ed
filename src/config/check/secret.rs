//! Values that may stand elsewhere than in the file: `env:NAME`, `file:PATH`.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;

use crate::config::fields::{Desk, Value};
use crate::config::files::read_ordinary;
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
            return of_environment(name, value.desk, "\"file:PATH\"").map(elsewhere);
        }
        if let Some(path) = text.strip_prefix("file:") {
            return of_file(path, value.desk).map(elsewhere);
        }
        Ok(Secret { text: text.to_owned(), from_elsewhere: false })
    })
}

/// Whether this text is where to find a value, not the value.
pub(super) fn is_reference(text: &str) -> bool {
    text.starts_with("env:") || text.starts_with("file:")
}

/// The value of an environment variable, if it has one; `instead` is another way to write it.
pub(super) fn of_environment(name: &str, desk: &Desk<'_>, instead: &str) -> Result<String, Wrong> {
    let usable = !name.is_empty() && !name.contains(['=', '\0']);
    let text = usable.then(|| (desk.environment)(name)).flatten();
    text.filter(|text| !text.is_empty()).ok_or_else(|| {
        Wrong::new(
            format!("the environment variable `{}` is not set, or empty", shown(name)),
            "nothing there",
            format!("set it where Evener starts (systemd: `EnvironmentFile=`), or write {instead}"),
        )
    })
}

/// The file's text without the line end that editors add; a relative path starts at the desk's folder.
pub(super) fn of_file(path: &str, desk: &Desk<'_>) -> Result<String, Wrong> {
    let path = &desk.folder.join(path);
    let wrong = |what: &str| {
        let message = format!("the secret file `{}` {what}", shown(&path.display().to_string()));
        let help = format!("name a readable text file of at most {SECRET_BYTES_MAX} bytes");
        Wrong::new(message, "no secret there", help)
    };
    let text =
        read_ordinary(path, SECRET_BYTES_MAX).and_then(as_text).map_err(|error| match error.kind() {
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

/// Says so when every user of this machine may read this file with a private key.
pub(super) fn warn_of_open_key(file: &Value<'_>) {
    let Some(path) = file.as_text().filter(|path| is_open_to_all(path, file.desk)) else { return };
    let help = format!("`chmod 600 {}`, and let it belong to the user that runs Evener", shown(path));
    let message = "everybody on this machine can read this private key";
    file.desk.warn(file.span.clone(), Wrong::new(message, "readable by all", help));
}

/// Whether every user of this machine may read the file; no, if there is none.
pub(super) fn is_open_to_all(path: &str, desk: &Desk<'_>) -> bool {
    const READABLE_BY_OTHERS: u32 = 0o004;
    let metadata = fs::metadata(desk.folder.join(path));
    metadata.is_ok_and(|metadata| metadata.permissions().mode() & READABLE_BY_OTHERS != 0)
}

fn as_text(bytes: Vec<u8>) -> io::Result<String> {
    String::from_utf8(bytes).map_err(|_| io::ErrorKind::InvalidData.into())
}
