//! Which configurations ran, since when and by whose hand; the last [`ENTRIES_MAX`] of them.
//!
//! In memory, and in a folder beside the configuration file, so that a rollback works after a restart:
//!
//! ```text
//!   evener.toml.history/
//!   ├── journal.jsonl      one line per generation; a torn last line is ignored
//!   └── 1f3a…c2.toml       one file per distinct text, named by its SHA-256
//! ```
//!
//! The folder is made with the first change. Where it cannot be written, the history is kept in memory
//! alone, and the log says so once: a reload must not fail for that.

use std::collections::{HashSet, VecDeque};
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::overrides::Override;
use super::store::replace;

/// Generations that are remembered: a day of busy operators, and then some. At most 200 texts of 4 MiB.
pub const ENTRIES_MAX: usize = 200;

/// Distinct texts that are remembered at least, however many small changes come between them.
const TEXTS_MIN: usize = 20;

/// Lines of the journal before it is written anew without the forgotten ones.
const LINES_MAX: usize = 4 * ENTRIES_MAX;

/// One configuration that ran.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its number.
    pub generation: u64,
    /// Since when, RFC 3339.
    pub at: String,
    /// `start`, `file`, `admin`.
    pub origin: String,
    /// A token's name, `SIGHUP` …
    pub who: String,
    /// In the author's own words, if there were any.
    pub why: Option<String>,
    /// What was done: `reload`, `replace`, `edit pool app: …`.
    pub what: String,
    /// What was changed at run time.
    pub overrides: Arc<[Override]>,
    /// Name of the text.
    text_hash: String,
    /// The configuration file's text.
    #[serde(skip)]
    pub text: Arc<str>,
}

/// A new [`Entry`], before it has a place.
#[derive(Clone, Debug)]
pub(super) struct NewEntry {
    pub(super) generation: u64,
    pub(super) at: String,
    pub(super) origin: &'static str,
    pub(super) who: String,
    pub(super) why: Option<String>,
    pub(super) what: String,
    pub(super) overrides: Arc<[Override]>,
    pub(super) text: Arc<str>,
}

/// See the module documentation.
#[derive(Debug, Default)]
pub(super) struct History {
    folder: Option<PathBuf>,
    entries: VecDeque<Entry>,
    /// Entries that are in the journal; the first change writes those before it, too.
    written: usize,
    /// Lines of the journal on the disk.
    lines: usize,
    has_failed: bool,
}

impl History {
    /// What `folder` holds; nothing is made there yet. `None`: in memory only.
    pub(super) fn open(folder: Option<PathBuf>) -> Self {
        let mut history = Self { folder, ..Self::default() };
        let Some(journal) = history.journal() else { return history };
        let text = fs::read_to_string(journal).unwrap_or_default();
        history.lines = text.lines().count();
        let entries = text.lines().filter_map(|line| serde_json::from_str::<Entry>(line).ok());
        let mut texts = std::collections::HashMap::new();
        for mut entry in entries {
            let read = || history.read_text(&entry.text_hash).map(Arc::<str>::from);
            let Some(text) = texts.entry(entry.text_hash.clone()).or_insert_with(read) else { continue };
            entry.text = text.clone();
            history.entries.push_back(entry);
        }
        history.written = history.entries.len();
        history.forget_old();
        history
    }

    /// All that is remembered, oldest first.
    pub(super) fn entries(&self) -> impl DoubleEndedIterator<Item = &Entry> {
        self.entries.iter()
    }

    /// The configuration of this generation.
    pub(super) fn find(&self, generation: u64) -> Option<&Entry> {
        self.entries.iter().rev().find(|entry| entry.generation == generation)
    }

    /// The latest one.
    pub(super) fn last(&self) -> Option<&Entry> {
        self.entries.back()
    }

    /// Remembers one more, in memory; [`History::save`] writes it.
    pub(super) fn push(&mut self, new: NewEntry) {
        let NewEntry { generation, at, origin, who, why, what, overrides, text } = new;
        // One text in memory, however many generations have it.
        let same = self.entries.iter().rev().find(|entry| entry.text == text);
        let text_hash = same.map_or_else(|| hash_of(&text), |same| same.text_hash.clone());
        let text = same.map_or(text, |same| same.text.clone());
        let origin = origin.to_owned();
        self.entries.push_back(Entry { generation, at, origin, who, why, what, overrides, text_hash, text });
        self.forget_old();
    }

    /// Writes what is not on the disk yet. Failing at it is no reason to refuse a change.
    pub(super) fn save(&mut self) {
        let Some(folder) = self.folder.clone() else { return };
        match self.try_save() {
            Ok(()) => self.has_failed = false,
            Err(error) if !self.has_failed => {
                self.has_failed = true;
                tracing::warn!(folder = %folder.display(), %error, "history kept in memory only");
            }
            Err(_) => {}
        }
    }

    fn try_save(&mut self) -> io::Result<()> {
        let (Some(folder), Some(journal)) = (&self.folder, self.journal()) else { return Ok(()) };
        fs::create_dir_all(folder)?;
        let new: Vec<&Entry> = self.entries.iter().skip(self.written).collect();
        for entry in &new {
            let path = folder.join(format!("{}.toml", entry.text_hash));
            if !path.exists() {
                replace(&path, entry.text.as_bytes())?;
            }
        }
        if self.lines + new.len() > LINES_MAX {
            return self.compact();
        }
        let mut lines = String::new();
        // A crash may have torn the last line; an empty line keeps it from spoiling this one.
        lines.push('\n');
        for entry in &new {
            lines.push_str(&serde_json::to_string(entry)?);
            lines.push('\n');
        }
        let mut file = OpenOptions::new().create(true).append(true).open(journal)?;
        file.write_all(lines.as_bytes())?;
        self.lines += new.len() + 1;
        self.written = self.entries.len();
        Ok(())
    }

    /// Writes the journal anew, and removes the texts that nobody names any more.
    fn compact(&mut self) -> io::Result<()> {
        let (Some(folder), Some(journal)) = (&self.folder, self.journal()) else { return Ok(()) };
        let mut lines = String::new();
        for entry in &self.entries {
            lines.push_str(&serde_json::to_string(entry)?);
            lines.push('\n');
        }
        replace(&journal, lines.as_bytes())?;
        let named: HashSet<&str> = self.entries.iter().map(|entry| entry.text_hash.as_str()).collect();
        for file in fs::read_dir(folder)?.flatten() {
            let name = file.file_name();
            let hash = name.to_str().and_then(|name| name.strip_suffix(".toml"));
            if hash.is_some_and(|hash| !named.contains(hash)) {
                fs::remove_file(file.path())?;
            }
        }
        self.written = self.entries.len();
        self.lines = self.entries.len();
        Ok(())
    }

    /// Forgets the oldest small changes first, so that a burst of them does not push out every text.
    fn forget_old(&mut self) {
        while self.entries.len() > ENTRIES_MAX {
            let texts: HashSet<&str> = self.entries.iter().map(|entry| entry.text_hash.as_str()).collect();
            let last_of_its_text = |index: usize| {
                let hash = self.entries.get(index).map(|entry| &entry.text_hash);
                !self.entries.iter().skip(index + 1).any(|later| Some(&later.text_hash) == hash)
            };
            let spare = |&index: &usize| texts.len() > TEXTS_MIN || !last_of_its_text(index);
            let index = (0..self.entries.len()).find(spare).unwrap_or(0);
            self.entries.remove(index);
            if index < self.written {
                self.written -= 1;
            }
        }
    }

    fn journal(&self) -> Option<PathBuf> {
        Some(self.folder.as_ref()?.join("journal.jsonl"))
    }

    /// `None` when the text is missing or is not what its name says.
    fn read_text(&self, hash: &str) -> Option<String> {
        let is_name = hash.bytes().all(|byte| byte.is_ascii_hexdigit());
        let path = self.folder.as_ref().filter(|_| is_name)?.join(format!("{hash}.toml"));
        fs::read_to_string(path).ok().filter(|text| hash_of(text) == hash)
    }
}

/// SHA-256, for names that mean the same in every version of this program.
fn hash_of(text: &str) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    digest.as_ref().iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
}
