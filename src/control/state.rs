//! What outlives the process without being part of the configuration: the history, in `server.state_file`.
//!
//! ```text
//!   evener state 1
//!   history LENGTH SHA-256      a line, and behind it so many bytes; further parts follow in the same way
//! ```
//!
//! The file is replaced whole. One that is broken is put aside, one that we did not write is left alone: whatever
//! it is, it is no reason not to start.
//!
//! **To keep something else**: a name of a part, written and read beside `history`; parts that are not known are
//! passed over.

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
use crate::runtime::Runtime;

/// What every such file begins with.
const HEADING: &[u8] = b"evener state 1\n";

/// What one of any version begins with.
const OURS: &[u8] = b"evener state ";

const HISTORY: &str = "history";

/// More than a history that takes all of its memory, and whatever else comes.
const FILE_BYTES_MAX: u64 = 2 * BYTES_MAX as u64;

/// How often the file is written, unless that is too much for the disk.
const SAVE_EVERY: Duration = Duration::from_secs(60);

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
        }
    }
}

impl StateFile {
    /// Goes on with what is in the file, unless a predecessor has left us more.
    pub(super) fn open(path: PathBuf, runtime: &Runtime, is_successor: bool) -> Self {
        let is_needed = !is_successor || runtime.history.taken_down_until() == 0;
        let file = Self { path, written: Mutex::new(Some(Written::default())) };
        if let Err(trouble) = file.read(runtime, is_needed) {
            file.settle(&trouble, is_successor);
        }
        file
    }

    fn read(&self, runtime: &Runtime, is_needed: bool) -> Result<(), Trouble> {
        let Some(bytes) = read(&self.path)? else { return Ok(()) };
        if let Some(history) = part(&bytes, HISTORY)?.filter(|_| is_needed) {
            runtime.history.go_on(history, SystemTime::now()).map_err(Trouble::History)?;
            tracing::info!(file = %self.path.display(), "history goes on");
        }
        Ok(())
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

    fn save(&self, runtime: &Runtime) {
        let mut written = lock(&self.written);
        let Some(written) = &mut *written else { return };
        let at = SystemTime::now();
        runtime.take_down_history(at);
        let bytes = bytes_of(&[(HISTORY, &runtime.history.to_bytes(at))]);
        match store::real(&self.path).and_then(|place| store::replace(&place, &bytes)) {
            Ok(()) => *written = Written { bytes: bytes.len() as u64, is_failing: false },
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
        let bytes = lock(&self.written).as_ref().map_or(0, |written| written.bytes);
        SAVE_EVERY.max(Duration::from_secs(bytes / BYTES_PER_SECOND))
    }
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
    let mut rest = file.strip_prefix(HEADING).ok_or(Trouble::Version)?;
    while !rest.is_empty() {
        let (name, length, sum, behind) = heading_of_part(rest).ok_or(Trouble::Broken)?;
        let (part, behind) = behind.split_at_checked(length).ok_or(Trouble::Broken)?;
        if name == wanted {
            return if checksum(part) == sum { Ok(Some(part)) } else { Err(Trouble::Broken) };
        }
        rest = behind;
    }
    Ok(None)
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
    /// while another process takes our place, nor after that.
    pub fn save_state(&self) {
        let Some(file) = &self.state else { return };
        if self.check_not_held().is_ok() && !self.succession().is_handed_over() {
            file.save(self.runtime());
        }
    }

    /// When [`Control::save_state`] is due again; `None`: never, since nothing is kept.
    pub fn state_is_due_in(&self) -> Option<Duration> {
        self.state.as_ref().map(StateFile::pause)
    }
}
