//! Where what is changed at run time is kept: the file, the overrides beside it, the history beside that.
//!
//! Every file is replaced whole: written beside the old one, flushed to the disk, renamed over it. So a
//! crash at any moment, or a full disk, leaves either the old file or the new one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Rejected;
use super::overrides::Override;

/// The files of one configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Store {
    /// The configuration, as it was named.
    pub(super) file: PathBuf,
}

/// The text of an overrides file.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct OverridesFile {
    #[serde(default)]
    overrides: Vec<Override>,
}

impl Store {
    /// `evener.toml.overrides.toml`.
    pub(super) fn overrides_file(&self) -> PathBuf {
        with_suffix(&self.file, ".overrides.toml")
    }

    /// `evener.toml.history`.
    pub(super) fn history_folder(&self) -> PathBuf {
        with_suffix(&self.file, ".history")
    }

    /// What the configuration file says now.
    pub(super) fn text(&self) -> io::Result<String> {
        fs::read_to_string(&self.file)
    }

    /// Replaces the configuration file; through a symlink, the file that it points to.
    pub(super) fn write_text(&self, text: &str) -> Result<(), Rejected> {
        let cannot = |error| Rejected::CannotPersist { path: self.file.clone(), error };
        let target = fs::canonicalize(&self.file).map_err(cannot)?;
        replace(&target, text.as_bytes()).map_err(cannot)
    }

    /// Whether the configuration file could be replaced by this text: writes it beside the file, and removes
    /// it again.
    pub(super) fn try_text(&self, text: &str) -> Result<(), Rejected> {
        let cannot = |error| Rejected::CannotPersist { path: self.file.clone(), error };
        let target = fs::canonicalize(&self.file).map_err(cannot)?;
        let new = new_beside(&target);
        let written = write_new(&new, &target, text.as_bytes());
        // It may not exist; the next write overwrites it.
        let _ = fs::remove_file(&new);
        written.map_err(cannot)
    }

    /// What was changed at run time when the process last ended; nothing if there is no such file.
    ///
    /// # Errors
    ///
    /// Says what is wrong with the file and what to do, for a start that must not go on without it.
    pub(super) fn overrides(&self) -> Result<Vec<Override>, String> {
        let path = self.overrides_file();
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(unusable(&path, &error.to_string())),
        };
        toml::from_str(&text)
            .map(|file: OverridesFile| file.overrides)
            .map_err(|error| unusable(&path, error.to_string().trim_end()))
    }

    /// Replaces the overrides file; removes it when there are none.
    pub(super) fn write_overrides(&self, overrides: &[Override]) -> Result<(), Rejected> {
        let path = self.overrides_file();
        let written = if overrides.is_empty() { remove(&path) } else { write_overrides(&path, overrides) };
        written.map_err(|error| Rejected::CannotPersist { path, error })
    }
}

/// What was changed at run time must not be lost silently, so a start with a broken file ends here.
fn unusable(path: &Path, what: &str) -> String {
    let path = path.display();
    format!(
        "error: cannot use {path}, which holds what was changed at run time:\n{what}\n  = help: mend it, or start without those changes: `mv {path} {path}.broken`"
    )
}

fn write_overrides(path: &Path, overrides: &[Override]) -> io::Result<()> {
    let file = OverridesFile { overrides: overrides.to_vec() };
    let text = toml::to_string(&file).map_err(io::Error::other)?;
    replace(path, format!("{OVERRIDES_HEADING}{text}").as_bytes())
}

/// The first lines of an overrides file.
const OVERRIDES_HEADING: &str = "\
# Written by Evener: what was changed at run time and differs from the configuration file, each with the
# value in the file (`file`) that it replaced. It holds until the file says something new there.
# `DELETE /v1/overrides` on the side port ends them all.

";

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Err(_) => Ok(()),
        Ok(()) => sync_folder(path),
    }
}

/// Puts `bytes` in the place of a file, which keeps its mode and owner; or makes the file.
///
/// # Errors
///
/// Fails when the new file cannot be written in full; the old one is then as it was.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = new_beside(path);
    let written = write_new(&new, path, bytes).and_then(|()| fs::rename(&new, path));
    if let Err(error) = written {
        // It may not exist, or not let itself be removed; the next write overwrites it.
        let _ = fs::remove_file(&new);
        return Err(error);
    }
    sync_folder(path)
}

fn write_new(new: &Path, old: &Path, bytes: &[u8]) -> io::Result<()> {
    // One that a crash left behind may have another mode, or be a symlink.
    let _ = fs::remove_file(new);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(MODE_OF_NEW_FILES).open(new)?;
    if let Ok(before) = fs::metadata(old) {
        file.set_permissions(fs::Permissions::from_mode(before.mode() & 0o7777))?;
        let made = file.metadata()?;
        if (made.uid(), made.gid()) != (before.uid(), before.gid()) {
            fchown(&file, Some(before.uid()), Some(before.gid()))?;
        }
    }
    file.write_all(bytes)?;
    file.sync_all()
}

/// For files that nobody made before us: they say what is changed, not secrets, yet are nobody else's
/// business.
const MODE_OF_NEW_FILES: u32 = 0o640;

/// `.evener.toml.new` beside `evener.toml`. There is one writer, so one name is enough, and what a crash
/// leaves behind is overwritten the next time.
fn new_beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.new"))
}

/// A rename is safe on the disk only when its folder is.
fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
