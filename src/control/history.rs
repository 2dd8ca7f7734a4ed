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
//! alone, and the log says so once: a reload must not fail for that. Lines are not flushed one by one, so a
//! power cut may cost the latest; texts are, since one may be the only copy of what was overwritten.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Running;
use super::overrides::Override;
use super::store::{NEW_SUFFIX, replace};

/// Generations that are remembered: a day of busy operators, and then some.
pub const ENTRIES_MAX: usize = 200;

/// Bytes of all distinct texts that are remembered, in memory and on the disk; the present one and the one
/// before are kept whatever their size. A configuration has 4 MiB at most, and few have one.
const TEXT_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Distinct texts that are remembered at least, however many small changes come between them, as long as
/// they are within [`TEXT_BYTES_MAX`].
const TEXTS_MIN: usize = 20;

/// No process gets this far, and beyond it readers of JSON take one number for another (2^53). So a larger one
/// in the journal is garbage, and there is always a next one.
const GENERATION_MAX: u64 = 1 << 53;

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
    /// The generation that this one repeats, if somebody went back to it.
    #[serde(default)]
    pub back_to: Option<u64>,
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
    pub(super) back_to: Option<u64>,
    pub(super) overrides: Arc<[Override]>,
    pub(super) text: Arc<str>,
}

/// See the module documentation.
#[derive(Debug, Default)]
pub(super) struct History {
    folder: Option<PathBuf>,
    entries: VecDeque<Entry>,
    /// The highest number that was ever given out, as far as we know.
    latest: u64,
    /// Entries that are in the journal; the first change writes those before it, too.
    written: usize,
    /// Lines of the journal on the disk.
    lines: usize,
    /// Texts that are on the disk and are what their names say.
    stored: HashSet<String>,
    has_failed: bool,
}

impl History {
    /// What `folder` holds; nothing is made there yet. `None`: in memory only.
    pub(super) fn open(folder: Option<PathBuf>) -> Self {
        let mut history = Self { folder, ..Self::default() };
        let journal = history.journal().and_then(|journal| fs::read(journal).ok()).unwrap_or_default();
        // A crash may have torn a line in the middle of a character.
        let journal = String::from_utf8_lossy(&journal);
        history.lines = journal.lines().count();
        let mut texts = HashMap::new();
        let entries = journal.lines().filter_map(|line| serde_json::from_str::<Entry>(line).ok());
        for mut entry in entries.filter(|entry| entry.generation <= GENERATION_MAX) {
            history.latest = history.latest.max(entry.generation);
            let read = || history.read_text(&entry.text_hash).map(Arc::<str>::from);
            let Some(text) = texts.entry(entry.text_hash.clone()).or_insert_with(read) else { continue };
            entry.text = text.clone();
            history.stored.insert(entry.text_hash.clone());
            history.entries.push_back(entry);
        }
        history.written = history.entries.len();
        history.forget_old();
        history
    }

    /// The highest number that was ever given to a generation; 0: none yet.
    pub(super) fn latest_generation(&self) -> u64 {
        self.latest
    }

    /// All that is remembered, oldest first.
    pub(super) fn entries(&self) -> impl DoubleEndedIterator<Item = &Entry> {
        self.entries.iter()
    }

    /// What ran before this, and was different: a reload of the same file is a generation, too. Whoever
    /// went back wants to go further back with the next step, not to what they came from.
    pub(super) fn before(&self, running: &Running) -> Option<&Entry> {
        let mut generation = running.generation;
        while let Some(earlier) = self.find(generation).and_then(|entry| entry.back_to) {
            // They only point backwards; a journal that says something else is not followed for ever.
            if earlier >= generation {
                break;
            }
            generation = earlier;
        }
        // Texts that never ran have the number 0.
        self.entries.iter().rev().find(|entry| {
            (1..generation).contains(&entry.generation)
                && (entry.text != running.text || entry.overrides != running.overrides)
        })
    }

    /// The latest generation that said the same.
    pub(super) fn same_as(&self, text: &str, overrides: &[Override]) -> Option<u64> {
        let is_same =
            |entry: &&Entry| entry.generation > 0 && *entry.text == *text && *entry.overrides == *overrides;
        self.entries.iter().rev().find(is_same).map(|entry| entry.generation)
    }

    /// The configuration of this generation.
    pub(super) fn find(&self, generation: u64) -> Option<&Entry> {
        self.entries.iter().rev().find(|entry| entry.generation == generation)
    }

    /// The latest one, whether it ran or not.
    pub(super) fn last(&self) -> Option<&Entry> {
        self.entries.back()
    }

    /// The latest one that ran.
    pub(super) fn last_that_ran(&self) -> Option<&Entry> {
        self.entries.iter().rev().find(|entry| entry.generation > 0)
    }

    /// Remembers one more, in memory; [`History::save`] writes it.
    pub(super) fn push(&mut self, new: NewEntry) {
        let NewEntry { generation, at, origin, who, why, what, back_to, overrides, text } = new;
        // One text in memory, however many generations have it.
        let same = self.entries.iter().rev().find(|entry| entry.text == text);
        let text_hash = same.map_or_else(|| hash_of(&text), |same| same.text_hash.clone());
        let text = same.map_or(text, |same| same.text.clone());
        let origin = origin.to_owned();
        self.latest = self.latest.max(generation);
        self.entries.push_back(Entry {
            generation,
            at,
            origin,
            who,
            why,
            what,
            back_to,
            overrides,
            text_hash,
            text,
        });
        self.forget_old();
    }

    /// As [`History::save`], if anything was ever written.
    pub(super) fn save_if_begun(&mut self) {
        if self.lines > 0 {
            self.save();
        }
    }

    /// Writes what is not on the disk yet. Failing at it is no reason to refuse a change.
    pub(super) fn save(&mut self) {
        let Some(folder) = self.folder.clone() else { return };
        match self.try_save(&folder) {
            Ok(()) => self.has_failed = false,
            Err(error) if !self.has_failed => {
                self.has_failed = true;
                tracing::warn!(folder = %folder.display(), %error, "history kept in memory only");
            }
            Err(_) => {}
        }
    }

    fn try_save(&mut self, folder: &Path) -> io::Result<()> {
        let new: Vec<Entry> = self.entries.iter().skip(self.written).cloned().collect();
        if new.is_empty() {
            return Ok(());
        }
        make_folder(folder)?;
        for entry in &new {
            self.save_text(folder, entry)?;
        }
        if self.lines + new.len() > LINES_MAX {
            return self.compact(folder);
        }
        append(&journal_in(folder), &lines_of(&new)?)?;
        self.lines += new.len() + 1;
        self.written = self.entries.len();
        Ok(())
    }

    fn save_text(&mut self, folder: &Path, entry: &Entry) -> io::Result<()> {
        let path = text_in(folder, &entry.text_hash);
        if !self.stored.contains(&entry.text_hash) || !path.exists() {
            replace(&path, entry.text.as_bytes())?;
            self.stored.insert(entry.text_hash.clone());
        }
        Ok(())
    }

    /// Writes the journal anew, and removes the texts that nobody names any more.
    fn compact(&mut self, folder: &Path) -> io::Result<()> {
        replace(&journal_in(folder), lines_of(&self.entries)?.as_bytes())?;
        let named: HashSet<&str> = self.entries.iter().map(|entry| entry.text_hash.as_str()).collect();
        self.stored.retain(|hash| named.contains(hash.as_str()));
        self.written = self.entries.len();
        self.lines = self.entries.len();
        for file in fs::read_dir(folder)?.flatten() {
            if is_left_over(&file.file_name().to_string_lossy(), &named) {
                fs::remove_file(file.path())?;
            }
        }
        Ok(())
    }

    /// Forgets the oldest small changes first, so that a burst of them does not push out every text.
    fn forget_old(&mut self) {
        while self.entries.len() > ENTRIES_MAX {
            self.forget(self.least_needed());
        }
        while self.text_bytes() > TEXT_BYTES_MAX && self.texts().len() > 2 {
            self.forget(0);
        }
    }

    fn forget(&mut self, index: usize) {
        self.entries.remove(index);
        if index < self.written {
            self.written -= 1;
        }
    }

    /// The oldest entry that is not the last of its text, unless there are texts enough.
    fn least_needed(&self) -> usize {
        if self.texts().len() > TEXTS_MIN {
            return 0;
        }
        let mut seen_later = HashSet::new();
        let newest_first = self.entries.iter().enumerate().rev();
        let repeats = newest_first.filter(|(_, entry)| !seen_later.insert(entry.text_hash.as_str()));
        repeats.last().map_or(0, |(index, _)| index)
    }

    /// Every text that is remembered, once, by its name.
    fn texts(&self) -> HashMap<&str, &str> {
        self.entries.iter().map(|entry| (entry.text_hash.as_str(), &*entry.text)).collect()
    }

    fn text_bytes(&self) -> usize {
        self.texts().values().map(|text| text.len()).sum()
    }

    fn journal(&self) -> Option<PathBuf> {
        self.folder.as_deref().map(journal_in)
    }

    /// `None` when the text is missing or is not what its name says.
    fn read_text(&self, hash: &str) -> Option<String> {
        let is_name = hash.bytes().all(|byte| byte.is_ascii_hexdigit());
        let folder = self.folder.as_deref().filter(|_| is_name)?;
        fs::read_to_string(text_in(folder, hash)).ok().filter(|text| hash_of(text) == hash)
    }
}

fn journal_in(folder: &Path) -> PathBuf {
    folder.join("journal.jsonl")
}

fn text_in(folder: &Path, hash: &str) -> PathBuf {
    folder.join(format!("{hash}.toml"))
}

/// For us alone: the configuration file itself may be nobody else's to read.
fn make_folder(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

fn lines_of<'e>(entries: impl IntoIterator<Item = &'e Entry>) -> io::Result<String> {
    let mut lines = String::new();
    for entry in entries {
        lines.push_str(&serde_json::to_string(entry)?);
        lines.push('\n');
    }
    Ok(lines)
}

/// Adds all of it or nothing. A crash may have torn the last line; an empty one keeps it from spoiling these.
fn append(journal: &Path, lines: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().create(true).append(true).open(journal)?;
    let before = file.metadata()?.len();
    let written = file.write_all(format!("\n{lines}").as_bytes());
    if written.is_err() {
        // What is not whole is not read anyway.
        let _ = file.set_len(before);
    }
    written
}

/// A text that no entry names, or what a crash left of a file that was being written.
fn is_left_over(name: &str, named: &HashSet<&str>) -> bool {
    let is_forgotten = name.strip_suffix(".toml").is_some_and(|hash| !named.contains(hash));
    is_forgotten || name.starts_with('.') && name.ends_with(NEW_SUFFIX)
}

/// SHA-256, for names that mean the same in every version of this program.
fn hash_of(text: &str) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    digest.as_ref().iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
}

#[cfg(test)]
mod tests;
