//! Where what is changed at run time is kept: the file, the overrides beside it, the history beside that.
//!
//! Every file is replaced whole: written beside the old one, flushed to the disk, renamed over it. So a
//! crash at any moment, or a full disk, leaves either the old file or the new one. Where two files change,
//! both are written before the first is renamed.

use std::ffi::OsString;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Rejected;
use super::overrides::{self, Override};

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

    /// What the configuration file says now, whatever is wrong with it; `None`: there is none that can be
    /// read.
    pub(super) fn text_as_it_is(&self) -> Option<String> {
        // Whoever waits for a pipe here would hold up every other change.
        fs::metadata(&self.file).ok().filter(Metadata::is_file)?;
        fs::read(&self.file).ok().map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Whether the configuration file could be replaced by this text: writes it beside the file, and removes
    /// it again.
    pub(super) fn try_text(&self, text: &str) -> Result<(), Rejected> {
        self.stage_text(text).map(drop)
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
            // A symlink to nowhere is no absence: what it pointed to is missing.
            Err(error) if error.kind() == io::ErrorKind::NotFound && !is_there(&path) => {
                return Ok(Vec::new());
            }
            Err(error) => return Err(unusable(&path, &error.to_string())),
        };
        let file: OverridesFile =
            toml::from_str(&text).map_err(|error| unusable(&path, error.to_string().trim_end()))?;
        overrides::checked(file.overrides).map_err(|mistake| unusable(&path, &mistake))
    }

    /// Replaces the configuration file, the overrides, or both; `None` leaves one as it is. Overrides that
    /// are none have no file.
    ///
    /// Both are on the disk, under other names, before the first takes its place. A crash between the two
    /// renames leaves the new text beside the old overrides: those that do not fit it end at the next start,
    /// as after an edit of the file.
    ///
    /// # Errors
    ///
    /// Fails when either cannot be written in full; both are then as they were.
    pub(super) fn write(&self, text: Option<&str>, overrides: Option<&[Override]>) -> Result<(), Rejected> {
        let text = text.map(|text| self.stage_text(text)).transpose()?;
        let overrides = overrides.map(|overrides| self.stage_overrides(overrides)).transpose()?;
        let before =
            text.as_ref().filter(|_| overrides.is_some()).and_then(|text| fs::read(&text.place).ok());
        let place = text.as_ref().map(|text| text.place.clone());
        text.map_or(Ok(()), put_in_place)?;
        let written = overrides.map_or(Ok(()), put_in_place);
        if let (Err(_), Some(place), Some(before)) = (&written, place, before) {
            // It fitted a moment ago. If it does not now, the error says that something is wrong with the disk.
            let _ = replace(&place, &before);
        }
        written
    }

    fn stage_text(&self, text: &str) -> Result<Staged, Rejected> {
        let place = real(&self.file);
        place
            .and_then(|place| Staged::write(&place, text.as_bytes()))
            .map_err(|error| Rejected::CannotPersist { path: self.file.clone(), error })
    }

    fn stage_overrides(&self, overrides: &[Override]) -> Result<Staged, Rejected> {
        let path = self.overrides_file();
        let staged = real(&path).and_then(|place| match overrides {
            [] => Ok(Staged { place, new: None }),
            some => Staged::write(&place, text_of(some)?.as_bytes()),
        });
        staged.map_err(|error| Rejected::CannotPersist { path, error })
    }
}

fn put_in_place(staged: Staged) -> Result<(), Rejected> {
    let path = staged.place.clone();
    staged.take_place().map_err(|error| Rejected::CannotPersist { path, error })
}

/// What was changed at run time must not be lost silently, so a start with a broken file ends here.
fn unusable(path: &Path, what: &str) -> String {
    let path = path.display();
    format!(
        "error: cannot use {path}, which holds what was changed at run time:\n{what}\n  = help: mend it, or start without those changes: `mv {path} {path}.broken`"
    )
}

/// The text of an overrides file.
fn text_of(overrides: &[Override]) -> io::Result<String> {
    let file = OverridesFile { overrides: overrides.to_vec() };
    let text = toml::to_string(&file).map_err(io::Error::other)?;
    Ok(format!("{OVERRIDES_HEADING}{text}"))
}

/// The first lines of an overrides file.
const OVERRIDES_HEADING: &str = "\
# Written by Evener: what was changed at run time and differs from the configuration file, each with the
# value in the file (`file`) that it replaced. It holds until the file says something new there.
# `DELETE /v1/overrides` on the side port ends them all.

";

/// The file that a path leads to, through symlinks; the path itself while there is no such file.
pub(super) fn real(path: &Path) -> io::Result<PathBuf> {
    match fs::canonicalize(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && !is_there(path) => Ok(path.to_owned()),
        real => real,
    }
}

/// Whether there is anything of this name, be it a symlink to nowhere.
fn is_there(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

/// Puts `bytes` in the place of a file, which keeps its mode and owner; or makes the file.
///
/// # Errors
///
/// Fails when the new file cannot be written in full; the old one is then as it was.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    Staged::write(path, bytes)?.take_place()
}

/// What is to take the place of a file: on the disk already, in full, under another name.
struct Staged {
    place: PathBuf,
    /// `None`: nothing is to be there.
    new: Option<PathBuf>,
}

impl Staged {
    fn write(place: &Path, bytes: &[u8]) -> io::Result<Self> {
        if place.is_dir() {
            // A rename would find out too, but too late for whoever writes two files.
            return Err(io::ErrorKind::IsADirectory.into());
        }
        let new = new_beside(place);
        let staged = Self { place: place.to_owned(), new: Some(new.clone()) };
        write_new(&new, place, bytes).map_err(|error| naming(&new, &error))?;
        Ok(staged)
    }

    /// The error leaves everything as it was.
    fn take_place(mut self) -> io::Result<()> {
        match self
            .new
            .as_ref()
            .map_or_else(|| fs::remove_file(&self.place), |new| fs::rename(new, &self.place))
        {
            Err(error) if self.new.is_none() && error.kind() == io::ErrorKind::NotFound => return Ok(()),
            done => done?,
        }
        self.new = None;
        sync_folder(&self.place);
        Ok(())
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if let Some(new) = &self.new {
            // It may not exist, or not let itself be removed; the next write overwrites it.
            let _ = fs::remove_file(new);
        }
    }
}

/// The name that failed is none that whoever asked for the change has heard of.
fn naming(new: &Path, error: &io::Error) -> io::Error {
    let name = new.file_name().unwrap_or_default().display();
    io::Error::new(error.kind(), format!("{name} beside it: {error}"))
}

fn write_new(new: &Path, old: &Path, bytes: &[u8]) -> io::Result<()> {
    // One that a crash left behind may have another mode, or be a symlink.
    let _ = fs::remove_file(new);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(MODE_OF_NEW_FILES).open(new)?;
    if let Ok(before) = fs::metadata(old) {
        keep_owner(&file, &before)?;
        // After the owner: a change of owner takes bits of the mode away.
        file.set_permissions(fs::Permissions::from_mode(before.mode() & 0o7777))?;
    }
    file.write_all(bytes)?;
    file.sync_all()
}

/// A file that changes hands may become unreadable to those it was made for, so that is refused.
fn keep_owner(file: &File, before: &Metadata) -> io::Result<()> {
    let (made, (owner, group)) = (file.metadata()?, (before.uid(), before.gid()));
    if (made.uid(), made.gid()) == (owner, group) {
        return Ok(());
    }
    fchown(file, Some(owner), Some(group)).map_err(|error| {
        io::Error::new(
            error.kind(),
            format!("cannot leave it to its owner (user {owner}, group {group}): {error}"),
        )
    })
}

/// For files that nobody made before us: they say what is changed, not secrets, yet are nobody else's
/// business.
const MODE_OF_NEW_FILES: u32 = 0o640;

/// `.evener.toml.new` beside `evener.toml`. There is one writer, so one name is enough, and what a crash
/// leaves behind is overwritten the next time.
fn new_beside(path: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(NEW_SUFFIX);
    path.with_file_name(name)
}

/// How the name ends under which a file is written before it takes its place.
pub(super) const NEW_SUFFIX: &str = ".new";

/// A rename outlives a power cut only when its folder is flushed. It has been made all the same, so there
/// is nothing to refuse any more; and some network file systems cannot flush a folder at all.
fn sync_folder(path: &Path) {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if let Err(error) = File::open(folder).and_then(|folder| folder.sync_all()) {
        tracing::debug!(folder = %folder.display(), %error, "folder not flushed");
    }
}

pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests;
