//! Files that a configuration names, and whether they are still what was read.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Certificates, keys and authorities that a check has read, each as it looked just before.
///
/// A file that is replaced, written to, or reached through another link looks different. What it holds may all
/// the same be what it was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files(Vec<(PathBuf, Option<Look>)>);

/// Device, inode, length, and the times of the last change of content and of anything, to the nanosecond.
type Look = (u64, u64, u64, (i64, i64), (i64, i64));

impl Files {
    /// Notes how a file looks now; to be called before it is read.
    pub(super) fn note(&mut self, path: &Path) {
        if !self.paths().any(|known| known == path) {
            self.0.push((path.to_owned(), look(path)));
        }
    }

    /// Where they are.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.0.iter().map(|(path, _)| path.as_path())
    }

    /// The same files as they look now.
    #[must_use]
    pub fn now(&self) -> Self {
        Self(self.paths().map(|path| (path.to_owned(), look(path))).collect())
    }

    /// Whether any of them looks different.
    pub fn have_changed(&self) -> bool {
        self.0.iter().any(|(path, before)| look(path) != *before)
    }
}

/// `None`: there is no such file, or we may not look.
fn look(path: &Path) -> Option<Look> {
    let found = fs::metadata(path).ok()?;
    let (modified, changed) = ((found.mtime(), found.mtime_nsec()), (found.ctime(), found.ctime_nsec()));
    Some((found.dev(), found.ino(), found.len(), modified, changed))
}

/// What is in a file; at most one byte more than `bytes_max`. Opening a pipe would wait for its writer, so only
/// ordinary files are opened.
pub(super) fn read_ordinary(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(bytes_max + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_file_that_comes_changes_is_replaced_or_goes_looks_different() {
        let folder = tempfile::tempdir().unwrap();
        let (link, one, two) =
            (folder.path().join("link"), folder.path().join("one"), folder.path().join("two"));
        let mut files = Files::default();
        files.note(&link);
        assert!(!files.have_changed(), "it is still not there");

        fs::write(&one, "same").unwrap();
        fs::write(&two, "same").unwrap();
        symlink(&one, &link).unwrap();
        assert!(files.have_changed());
        files = files.now();
        assert!(!files.have_changed());

        fs::remove_file(&link).unwrap();
        symlink(&two, &link).unwrap();
        assert!(files.have_changed());
        files = files.now();
        fs::write(&two, "more of it").unwrap();
        assert!(files.have_changed());
        files = files.now();
        fs::remove_file(&two).unwrap();
        assert!(files.have_changed());
    }
}
