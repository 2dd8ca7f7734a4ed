//! Follows the configuration file: what is saved there runs, without anybody having to say so.
//!
//! ```text
//!   something happened in one of its folders ──┐
//!   every few seconds, whatever happened ──────┴─► look ──► another text ──► settled ──► Control::apply
//! ```
//!
//! Folders are watched, not the file: editors, and those who deploy, put a new file in the place of the old
//! one, and a watch would stay with the old. Where the file is reached through links, the folder of each link
//! is watched too, so that a swapped link (`..data` of a Kubernetes config map) is noticed.
//!
//! Events only say *look now*. What counts is the text: one that says what runs already, or was refused, is
//! not applied again, whoever touched the file. So a missed event delays a change, and cannot lose it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

use super::{Author, Change, Control, Rejected, Source};
use crate::config::{self, LoadError};

/// A text must have been the same for so long before it is applied: some editors empty the file first and
/// write it in several steps.
const SETTLED: Duration = Duration::from_millis(200);

/// Between two looks without an event: network file systems tell nothing of what other machines write.
const LOOK_EVERY: Duration = Duration::from_secs(3);

/// Between an event and the look: one save makes several events, and somebody else may be busy in the folder.
const BURST: Duration = Duration::from_millis(50);

/// A file that is gone for less than this is being replaced; nothing is said.
const GONE_FOR: Duration = Duration::from_secs(2);

/// A guarded change ends by itself; each try before that is a line in the log.
const WHILE_GUARDED: Duration = Duration::from_secs(30);

/// Links on the way to one file; Linux follows as many.
const LINKS_MAX: usize = 40;

/// Whether there is a file to follow, and not one that can be read only once, such as a pipe.
///
/// To be asked when the process has just read it: what stands in its place later may stand there for a moment
/// only.
pub fn may_follow_file(control: &Control) -> bool {
    let Source::File(file) = control.source() else { return false };
    let is_read_once = fs::metadata(file).is_ok_and(|found| !found.is_file());
    if is_read_once {
        tracing::info!(file = %file.display(), "configuration is not a regular file, its changes are not followed");
    }
    !is_read_once
}

/// Applies whatever is saved to the file that `control` was started with; without a file it ends at once.
/// Dropping the future ends it: a change under way is then still applied in full, or not at all.
pub async fn follow_file(control: Arc<Control>) {
    let Source::File(file) = control.source().clone() else { return };
    let touched = Arc::new(Notify::new());
    let mut watch = FileWatch::new(control, file, &touched);
    loop {
        // Reading may hang on a network file system, applying writes to the disk.
        let looked = spawn_blocking(move || {
            let next = watch.look();
            (watch, next)
        });
        let Ok((same, next)) = looked.await else {
            tracing::error!("the configuration file is not followed any more; SIGHUP reloads it");
            return;
        };
        watch = same;
        match next {
            Next::Settle => sleep(SETTLED).await,
            Next::Wait(longest) => {
                if timeout(longest, touched.notified()).await.is_ok() {
                    sleep(BURST).await;
                }
            }
        }
    }
}

/// When to look again.
enum Next {
    /// When the text may have settled, and not before.
    Settle,
    /// When something happens, or after this time.
    Wait(Duration),
}

/// What is known of one file.
struct FileWatch {
    control: Arc<Control>,
    file: PathBuf,
    folders: Folders,
    /// A text that is new, until it is the same at two looks.
    unsettled: Option<String>,
    /// The text of the file, if it was refused.
    refused: Option<String>,
    gone: Option<Gone>,
}

/// The file cannot be read.
struct Gone {
    since: Instant,
    is_told: bool,
}

impl FileWatch {
    fn new(control: Arc<Control>, file: PathBuf, touched: &Arc<Notify>) -> Self {
        Self {
            control,
            file,
            folders: Folders::new(touched.clone()),
            unsettled: None,
            refused: None,
            gone: None,
        }
    }

    fn look(&mut self) -> Next {
        // First, so that whatever happens after the reading is an event.
        self.folders.follow(&self.file);
        match self.read() {
            Ok(text) => self.found(text),
            Err(reason) => self.missed(&reason),
        }
    }

    /// The text, or why there is none. A pipe in the file's place must not hold us up.
    fn read(&self) -> Result<String, String> {
        if fs::metadata(&self.file).is_ok_and(|found| !found.is_file() && !found.is_dir()) {
            return Err("it is not a regular file".to_owned());
        }
        config::Source::read(&self.file).map(|source| source.text).map_err(|error| match error {
            LoadError::Unreadable(unreadable) => unreadable.reason(),
            LoadError::Invalid(report) => report.to_string(),
        })
    }

    fn found(&mut self, text: String) -> Next {
        if self.gone.take().is_some_and(|gone| gone.is_told) {
            tracing::info!(file = %self.file.display(), "configuration file is back");
        }
        let runs = *text == *self.control.running().text;
        if self.refused.as_ref() != Some(&text) && self.refused.take().is_some() && runs {
            self.control.forget_refusal();
        }
        if self.refused.is_some() || runs {
            self.unsettled = None;
            return Next::Wait(LOOK_EVERY);
        }
        if self.unsettled.as_ref() != Some(&text) {
            self.unsettled = Some(text);
            return Next::Settle;
        }
        self.unsettled = None;
        self.apply(text)
    }

    fn apply(&mut self, text: String) -> Next {
        match self.control.apply(&Change::ReloadIfEdited, None, &Author::file("file watch")) {
            Ok(_) => {}
            Err(Rejected::Guarded) => return Next::Wait(WHILE_GUARDED),
            Err(_) => self.refused = Some(text),
        }
        Next::Wait(LOOK_EVERY)
    }

    /// Says once that the file is gone, unless it is back soon.
    fn missed(&mut self, reason: &str) -> Next {
        self.unsettled = None;
        let gone = self.gone.get_or_insert_with(|| Gone { since: Instant::now(), is_told: false });
        if gone.is_told {
            return Next::Wait(LOOK_EVERY);
        }
        let left = GONE_FOR.saturating_sub(gone.since.elapsed());
        if !left.is_zero() {
            return Next::Wait(left);
        }
        gone.is_told = true;
        let help = "what runs goes on; put the file back, and it is read again";
        tracing::warn!(file = %self.file.display(), reason, help, "configuration file cannot be read");
        Next::Wait(LOOK_EVERY)
    }
}

/// The folders in which something may happen to the file, watched as far as the system lets us.
struct Folders {
    watcher: Option<RecommendedWatcher>,
    watched: BTreeMap<PathBuf, Identity>,
    /// A folder could not be watched, and the log says so.
    has_failed: bool,
}

/// Tells a folder from another one that has its place, even where numbers of inodes are used again.
type Identity = (u64, u64, Option<SystemTime>);

impl Folders {
    fn new(touched: Arc<Notify>) -> Self {
        let told = move |event: notify::Result<Event>| {
            // Reading is an event too, our own included.
            if !event.is_ok_and(|event| event.kind.is_access()) {
                touched.notify_one();
            }
        };
        let watcher = notify::recommended_watcher(told);
        let mut folders = Self { watcher: None, watched: BTreeMap::new(), has_failed: false };
        match watcher {
            Ok(watcher) => folders.watcher = Some(watcher),
            Err(error) => folders.failed(&error),
        }
        folders
    }

    /// Watches those folders that matter now.
    fn follow(&mut self, file: &Path) {
        let Some(watcher) = &mut self.watcher else { return };
        let wanted = folders_of(file);
        self.watched.retain(|folder, identity| {
            let stays = wanted.get(folder) == Some(identity);
            if !stays {
                // Where the folder is gone, so is its watch.
                let _ = watcher.unwatch(folder);
            }
            stays
        });
        let mut failure = None;
        for (folder, identity) in wanted {
            if self.watched.contains_key(&folder) {
                continue;
            }
            match watcher.watch(&folder, RecursiveMode::NonRecursive) {
                Ok(()) => drop(self.watched.insert(folder, identity)),
                Err(error) => failure = Some(error),
            }
        }
        if let Some(error) = failure {
            self.failed(&error);
        }
    }

    fn failed(&mut self, error: &notify::Error) {
        if !self.has_failed {
            let every_s = LOOK_EVERY.as_secs();
            tracing::warn!(%error, every_s, "changes of the configuration file are noticed by looking");
        }
        self.has_failed = true;
    }
}

/// The folder of the file, and that of each link on the way to it: where a name stands that may come to
/// mean another file. Where the way ends early, the last folder that is there.
fn folders_of(file: &Path) -> BTreeMap<PathBuf, Identity> {
    let (mut folders, mut here, mut links) = (BTreeMap::new(), PathBuf::from("/"), 0);
    let mut steps = steps_backwards(file);
    while let Some(step) = steps.pop() {
        if step == ".." {
            here.pop();
            continue;
        }
        // An absolute step, the first of a way, leads to itself.
        let there = here.join(&step);
        let target = fs::read_link(&there).ok().filter(|_| links < LINKS_MAX);
        let is_end = steps.is_empty() || !there.is_dir();
        if (target.is_some() || is_end)
            && let Some(identity) = identity_of(&here)
        {
            folders.insert(here.clone(), identity);
        }
        match target {
            Some(target) => {
                links += 1;
                steps.extend(steps_backwards(&target));
            }
            None if is_end => break,
            None => here = there,
        }
    }
    folders
}

fn steps_backwards(path: &Path) -> Vec<OsString> {
    path.components().rev().map(|step| step.as_os_str().to_owned()).collect()
}

fn identity_of(folder: &Path) -> Option<Identity> {
    let found = fs::metadata(folder).ok()?;
    Some((found.dev(), found.ino(), found.created().ok()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn names(file: &Path, root: &Path) -> Vec<String> {
        let folders = folders_of(file);
        let inside = folders.keys().filter_map(|folder| folder.strip_prefix(root).ok());
        inside.map(|folder| folder.display().to_string()).collect()
    }

    #[test]
    fn the_folder_of_every_link_counts() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        for name in ["etc", "maps/v1", "other"] {
            fs::create_dir_all(root.join(name)).unwrap();
        }
        let file = root.join("etc/evener.toml");
        fs::write(&file, "").unwrap();
        assert_eq!(names(&file, &root), ["etc"]);

        fs::write(root.join("maps/v1/evener.toml"), "").unwrap();
        fs::remove_file(&file).unwrap();
        symlink("../other/link", &file).unwrap();
        symlink(root.join("maps/..data/evener.toml"), root.join("other/link")).unwrap();
        symlink("v1", root.join("maps/..data")).unwrap();
        assert_eq!(names(&file, &root), ["etc", "maps", "maps/v1", "other"]);
    }

    #[test]
    fn a_broken_way_is_followed_as_far_as_it_goes() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        fs::create_dir(root.join("etc")).unwrap();
        assert_eq!(names(&root.join("etc/evener.toml"), &root), ["etc"]);
        assert_eq!(names(&root.join("etc/gone/evener.toml"), &root), ["etc"]);

        symlink("circle", root.join("etc/circle")).unwrap();
        assert_eq!(names(&root.join("etc/circle"), &root), ["etc"]);
    }
}
