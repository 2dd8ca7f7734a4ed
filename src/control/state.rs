//! What outlives the process without being part of the configuration, in `server.state_file`: the history, and the
//! time lines of upstreams.
//!
//! ```text
//!   evener state 1
//!   history LENGTH SHA-256      a line, and behind it so many bytes; further parts follow in the same way
//!   timelines LENGTH SHA-256
//! ```
//!
//! The file is replaced whole. One that is broken is put aside, one that we did not write is left alone: whatever
//! it is, it is no reason not to start.
//!
//! **To keep something else**: a name of a part, written and read beside these; parts that are not known are
//! passed over. One that cannot be used costs nothing but itself.

use std::fmt::Write;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use ring::digest::{SHA256, digest};

use super::store;
use super::{Control, lock};
use crate::observe::history::{BYTES_MAX, Unreadable};
use crate::runtime::{Runtime, TIMELINES_BYTES_MAX};

/// What every such file begins with.
const HEADING: &[u8] = b"evener state 1\n";

/// What one of any version begins with.
const OURS: &[u8] = b"evener state ";

const HISTORY: &str = "history";

const TIMELINES: &str = "timelines";

/// All parts that this version knows.
const PARTS: [&str; 2] = [HISTORY, TIMELINES];

/// Of parts that are not known, as they are told: the file may be anybody's.
const STRANGERS_MAX: usize = 8;

/// The same, of the name of each.
const STRANGER_CHARACTERS_MAX: usize = 64;

/// More than a history that takes all of its memory, and whatever else comes.
const FILE_BYTES_MAX: u64 = 2 * BYTES_MAX as u64;

/// How often the file is written, unless that is too much for the disk.
const SAVE_EVERY: Duration = Duration::from_secs(60);

/// When it is first written, and how long until the second time; from then on twice as long each time, up to
/// [`SAVE_EVERY`]. A process that does not live long is the one whose history is asked for, and whoever named a
/// place that cannot be written is told at once.
const FIRST_SAVE_AFTER: Duration = Duration::from_secs(1);

/// Bytes per second on average, at most: 11 GB a day, a hundredth of what the cheapest disks are made for.
const BYTES_PER_SECOND: u64 = 128 * 1024;

/// The file of a process.
#[derive(Debug)]
pub(super) struct StateFile {
    path: PathBuf,
    /// `None`: what is there is somebody else's, and stays.
    written: Mutex<Option<Written>>,
}

#[derive(Debug, Default)]
struct Written {
    bytes: u64,
    /// How often it was written, or tried.
    times: u32,
    /// It was told that it cannot be written.
    is_failing: bool,
}

/// What stands against reading a file.
#[derive(Debug)]
enum Trouble {
    NotOurs,
    Unreadable(io::Error),
    TooLarge,
    Version,
    Broken,
    History(Unreadable),
    Timelines(String),
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotOurs => formatter.write_str("it is not a state file of Evener"),
            Self::Unreadable(error) => error.fmt(formatter),
            Self::TooLarge => write!(formatter, "it is larger than {FILE_BYTES_MAX} bytes"),
            Self::Version => formatter.write_str("it was written by another version"),
            Self::Broken => formatter.write_str("it is not whole"),
            Self::History(unreadable) => unreadable.fmt(formatter),
            Self::Timelines(reason) => formatter.write_str(reason),
        }
    }
}

impl StateFile {
    /// Goes on with what is in the file, unless a predecessor has left us more.
    pub(super) fn open(path: PathBuf, runtime: &Runtime, is_successor: bool) -> Self {
        let is_needed = !is_successor || runtime.history.taken_down_until() == 0;
        let file = Self { path, written: Mutex::new(Some(Written::default())) };
        if let Err(trouble) = file.read(runtime, is_needed, is_successor) {
            file.settle(&trouble, is_successor);
        }
        file
    }

    fn read(&self, runtime: &Runtime, is_needed: bool, is_successor: bool) -> Result<(), Trouble> {
        let Some(bytes) = read(&self.path)? else { return Ok(()) };
        self.tell_of_strangers(&bytes);
        // A predecessor has told what it knows by itself, and it is there still: nobody was absent.
        if !is_successor && let Err(trouble) = go_on_with_timelines(&bytes, runtime) {
            tracing::warn!(file = %self.path.display(), reason = %trouble, "time lines of the state file not used, they begin anew");
        }
        if let Some(history) = part(&bytes, HISTORY)?.filter(|_| is_needed) {
            runtime.history.go_on(history, SystemTime::now()).map_err(Trouble::History)?;
            tracing::info!(file = %self.path.display(), "history goes on");
        }
        Ok(())
    }

    fn tell_of_strangers(&self, bytes: &[u8]) {
        let names = parts(bytes).map_while(Result::ok).map(|part| part.name);
        let strangers = names.filter(|name| !PARTS.contains(name)).take(STRANGERS_MAX);
        let strangers: Vec<String> =
            strangers.map(|name| name.chars().take(STRANGER_CHARACTERS_MAX).collect()).collect();
        if !strangers.is_empty() {
            tracing::warn!(file = %self.path.display(), parts = ?strangers, "parts of the state file are not known here, and will not be kept");
        }
    }

    /// A start without what was kept is better than none.
    fn settle(&self, trouble: &Trouble, is_successor: bool) {
        let file = self.path.display();
        match trouble {
            Trouble::NotOurs | Trouble::Unreadable(_) => {
                *lock(&self.written) = None;
                tracing::warn!(%file, reason = %trouble, "state file not used, and not written: name another one in `server.state_file`, or remove this one");
            }
            // Somebody else may write it still.
            _ if is_successor => tracing::warn!(%file, reason = %trouble, "state file not used"),
            _ => {
                let aside = store::with_suffix(&self.path, ".broken");
                let put_aside = match fs::rename(&self.path, &aside) {
                    Ok(()) => aside.display().to_string(),
                    Err(error) => format!("not possible: {error}"),
                };
                tracing::warn!(%file, reason = %trouble, %put_aside, "state file not used, the history begins anew");
            }
        }
    }

    fn save(&self, runtime: &Runtime, is_end: bool) {
        let mut written = lock(&self.written);
        let Some(written) = &mut *written else { return };
        let at = SystemTime::now();
        runtime.take_down_history(at);
        let (history, timelines) = (runtime.history.to_bytes(at), runtime.timelines(at, is_end));
        let bytes = bytes_of(&[(HISTORY, &history), (TIMELINES, &timelines)]);
        written.times = written.times.saturating_add(1);
        match store::real(&self.path).and_then(|place| store::replace(&place, &bytes)) {
            Ok(()) => (written.bytes, written.is_failing) = (bytes.len() as u64, false),
            Err(error) => {
                // Once, not every minute.
                if !std::mem::replace(&mut written.is_failing, true) {
                    tracing::warn!(file = %self.path.display(), %error, "state file not written");
                }
            }
        }
    }

    /// How long to wait before it is written again.
    fn pause(&self) -> Duration {
        let written = lock(&self.written);
        let Some(written) = &*written else { return SAVE_EVERY };
        let by_age = FIRST_SAVE_AFTER.saturating_mul(2_u32.saturating_pow(written.times.saturating_sub(1)));
        by_age.min(SAVE_EVERY).max(Duration::from_secs(written.bytes / BYTES_PER_SECOND))
    }
}

fn go_on_with_timelines(file: &[u8], runtime: &Runtime) -> Result<(), Trouble> {
    let Some(timelines) = part(file, TIMELINES)? else { return Ok(()) };
    if timelines.len() > TIMELINES_BYTES_MAX {
        return Err(Trouble::Timelines(format!("they are larger than {TIMELINES_BYTES_MAX} bytes")));
    }
    runtime.go_on_with_timelines(timelines).map_err(|error| Trouble::Timelines(error.to_string()))
}

/// `None`: there is none yet.
fn read(path: &Path) -> Result<Option<Vec<u8>>, Trouble> {
    let metadata = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        metadata => metadata.map_err(Trouble::Unreadable)?,
    };
    // Whoever waits for a pipe here would not start.
    if !metadata.is_file() {
        return Err(Trouble::NotOurs);
    }
    let mut file = File::open(path).map_err(Trouble::Unreadable)?.take(FILE_BYTES_MAX + 1);
    let mut bytes = Vec::new();
    file.by_ref().take(HEADING.len() as u64).read_to_end(&mut bytes).map_err(Trouble::Unreadable)?;
    // An empty one may be prepared for us, by somebody who gives us the right to write it.
    if bytes.is_empty() {
        return Ok(None);
    }
    if !bytes.starts_with(OURS) {
        return Err(Trouble::NotOurs);
    }
    file.read_to_end(&mut bytes).map_err(Trouble::Unreadable)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(Trouble::TooLarge);
    }
    if bytes.starts_with(HEADING) { Ok(Some(bytes)) } else { Err(Trouble::Version) }
}

fn bytes_of(parts: &[(&str, &[u8])]) -> Vec<u8> {
    let mut bytes = HEADING.to_vec();
    for (name, part) in parts {
        bytes.extend_from_slice(format!("{name} {} {}\n", part.len(), checksum(part)).as_bytes());
        bytes.extend_from_slice(part);
    }
    bytes
}

/// The bytes of a part; `None`: the file has no such part.
fn part<'b>(file: &'b [u8], wanted: &str) -> Result<Option<&'b [u8]>, Trouble> {
    for part in parts(file) {
        let Part { name, bytes, sum } = part?;
        if name == wanted {
            return if checksum(bytes) == sum { Ok(Some(bytes)) } else { Err(Trouble::Broken) };
        }
    }
    Ok(None)
}

/// A part as it stands in the file.
struct Part<'b> {
    name: &'b str,
    bytes: &'b [u8],
    sum: &'b str,
}

/// All parts, up to the first that is not whole.
fn parts(file: &[u8]) -> impl Iterator<Item = Result<Part<'_>, Trouble>> {
    let mut rest = file.strip_prefix(HEADING).ok_or(Trouble::Version);
    std::iter::from_fn(move || {
        let bytes = match std::mem::replace(&mut rest, Ok(&[])) {
            Ok([]) => return None,
            Ok(bytes) => bytes,
            Err(trouble) => return Some(Err(trouble)),
        };
        let part = heading_of_part(bytes).and_then(|(name, length, sum, behind)| {
            let (bytes, behind) = behind.split_at_checked(length)?;
            rest = Ok(behind);
            Some(Part { name, bytes, sum })
        });
        Some(part.ok_or(Trouble::Broken))
    })
}

fn heading_of_part(bytes: &[u8]) -> Option<(&str, usize, &str, &[u8])> {
    let end = bytes.iter().position(|&byte| byte == b'\n')?;
    let (line, behind) = bytes.split_at_checked(end)?;
    let mut words = std::str::from_utf8(line).ok()?.split(' ');
    let (name, length, sum) = (words.next()?, words.next()?.parse().ok()?, words.next()?);
    Some((name, length, sum, behind.get(1..)?))
}

fn checksum(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in digest(&SHA256, bytes).as_ref() {
        // Writing to a text cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

impl Control {
    /// Writes what outlives the process into `server.state_file`, if there is one, and if nobody else does: not
    /// while another process takes our place, nor after that. `is_end`: the process ends with this.
    pub fn save_state(&self, is_end: bool) {
        let Some(file) = &self.state else { return };
        if self.check_not_held().is_ok() && !self.succession().is_handed_over() {
            file.save(self.runtime(), is_end);
        }
    }

    /// When [`Control::save_state`] is due again; `None`: never, since nothing is kept.
    pub fn state_is_due_in(&self) -> Option<Duration> {
        self.state.as_ref().map(StateFile::pause)
    }
}
