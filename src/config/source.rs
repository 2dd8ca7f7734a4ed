//! Where a configuration comes from: a file, read whole and within limits.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::limits::FILE_BYTES_MAX;
use super::{Config, Report};

/// A text that is to be read as configuration. `Debug` leaves the text out: it may hold secrets.
#[derive(Clone, PartialEq, Eq)]
pub struct Source {
    /// What mistakes name as the place, usually the path as given.
    pub name: String,
    /// The TOML.
    pub text: String,
    /// Relative paths in the text start here.
    pub folder: PathBuf,
}

impl fmt::Debug for Source {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, text, folder } = self;
        let bytes = text.len();
        formatter
            .debug_struct("Source")
            .field("name", name)
            .field("bytes", &bytes)
            .field("folder", folder)
            .finish()
    }
}

impl Source {
    /// Reads a file of at most [`FILE_BYTES_MAX`].
    ///
    /// # Errors
    ///
    /// Fails when the file is missing, a folder, unreadable, too large or not UTF-8.
    pub fn read(path: &Path) -> Result<Self, LoadError> {
        let unreadable = |error| LoadError::Unreadable(Unreadable::new(path, error));
        if path.is_dir() {
            return Err(unreadable(io::ErrorKind::IsADirectory.into()));
        }
        let mut bytes = Vec::new();
        let file = File::open(path).map_err(unreadable)?;
        file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
        if bytes.len() as u64 > FILE_BYTES_MAX {
            return Err(unreadable(io::ErrorKind::FileTooLarge.into()));
        }
        let text = String::from_utf8(bytes).map_err(|_| unreadable(io::ErrorKind::InvalidData.into()))?;
        Ok(Self { name: path.display().to_string(), text, folder: folder_of(path) })
    }

    /// As [`Source::read`], for a process that runs already: a pipe in the file's place would hold it up.
    ///
    /// # Errors
    ///
    /// Fails as [`Source::read`] does, and for what is no regular file.
    pub fn read_again(path: &Path) -> Result<Self, LoadError> {
        if fs::metadata(path).is_ok_and(|found| !found.is_file() && !found.is_dir()) {
            let error = io::Error::other("it is not a regular file");
            return Err(LoadError::Unreadable(Unreadable::new(path, error)));
        }
        Self::read(path)
    }
}

/// A file that was read and is valid.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The text it came from.
    pub source: Source,
    /// What it says.
    pub config: Config,
    /// What is odd about it; [`Report::is_empty`] holds.
    pub warnings: Report,
}

/// Why a file gives no configuration. `Display` says all of it, with help.
#[derive(Debug)]
pub enum LoadError {
    /// The file could not be read.
    Unreadable(Unreadable),
    /// The file was read, and is wrong.
    Invalid(Report),
}

impl fmt::Display for LoadError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(unreadable) => unreadable.fmt(formatter),
            Self::Invalid(report) => report.fmt(formatter),
        }
    }
}

impl std::error::Error for LoadError {}

/// A file that could not be read, and what to do about it.
#[derive(Debug)]
pub struct Unreadable {
    path: PathBuf,
    error: io::Error,
}

impl Unreadable {
    fn new(path: &Path, error: io::Error) -> Self {
        Self { path: path.to_owned(), error }
    }

    /// What is in the way, in a few words.
    pub fn reason(&self) -> String {
        self.phrase_and_help().0
    }

    /// What to do about it.
    pub fn help(&self) -> String {
        self.phrase_and_help().1
    }

    /// What happened, and the next step.
    fn phrase_and_help(&self) -> (String, String) {
        let path = self.path.display();
        let (phrase, help) = match self.error.kind() {
            io::ErrorKind::NotFound => (
                "there is no such file",
                "name one with `--config FILE`, or start without a file: `evener run --listen 0.0.0.0:8080 --to HOST:PORT`"
                    .to_owned(),
            ),
            io::ErrorKind::IsADirectory => {
                ("it is a folder", format!("name the file in it, such as {path}/evener.toml"))
            }
            io::ErrorKind::PermissionDenied => (
                "permission denied",
                format!("let the user that runs Evener read it: `chmod o+r {path}`, or change its owner"),
            ),
            io::ErrorKind::FileTooLarge => {
                ("it is too large", format!("a configuration has at most {FILE_BYTES_MAX} bytes"))
            }
            io::ErrorKind::InvalidData => ("it is not UTF-8", "save it as UTF-8 text".to_owned()),
            _ => return (self.error.to_string(), "check the file and its disk, then try again".to_owned()),
        };
        (phrase.to_owned(), help)
    }
}

impl fmt::Display for Unreadable {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (phrase, help) = self.phrase_and_help();
        writeln!(formatter, "error: cannot read {}: {phrase}", self.path.display())?;
        write!(formatter, "  = help: {help}")
    }
}

/// The folder of a file; of a bare name, the current one. In full, so that two readings of one file agree on what
/// it names, however they came to the file.
fn folder_of(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}
