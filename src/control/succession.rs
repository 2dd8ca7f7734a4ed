//! One process hands over to another: who may ask for it, what is held back meanwhile, what came of it.
//!
//! ```text
//!   admin, signals ──► Succession::ask ──► the roof starts a successor ──┬─► failed: nothing has changed
//!                         │                                             └─► handed over: we only finish
//!                         └── Control::hold_writes: of two processes, one writes at a time
//! ```

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use serde::Serialize;
use tokio::sync::{mpsc, oneshot, watch};

use super::{Author, Control, Happening, Refusal, Rejected, lock};
use crate::observe::utc;

/// How long a successor may take until it serves, unless something else is asked for. The first round of
/// health checks takes 5 s where an upstream does not answer.
pub const UPGRADE_TIMEOUT: Duration = Duration::from_secs(30);

/// The longest that may be asked for: nobody changes anything meanwhile.
pub const UPGRADE_TIMEOUT_MAX: Duration = Duration::from_secs(600);

/// Somebody wants another process in our place.
#[derive(Debug)]
pub struct UpgradeRequest {
    /// Who.
    pub author: Author,
    /// How long the successor may take until it serves.
    pub timeout: Duration,
    /// Told what came of it.
    pub answer: oneshot::Sender<Result<HandedOver, CannotUpgrade>>,
}

/// How we handed over.
#[derive(Clone, Debug, Serialize)]
pub struct HandedOver {
    /// The process that finishes what it has, and ends.
    pub predecessor: ProcessView,
    /// The process that serves now.
    pub successor: ProcessView,
    /// Generation of the configuration that runs there.
    pub generation: u64,
    /// From starting it to its serving.
    pub seconds: f64,
}

/// One of the two.
#[derive(Clone, Debug, Serialize)]
pub struct ProcessView {
    /// Its number.
    pub pid: u32,
    /// Of Evener.
    pub version: String,
}

/// Why we did not hand over; everything goes on as before.
#[derive(Clone, Debug)]
pub struct CannotUpgrade {
    /// At which point.
    pub kind: Hindrance,
    /// What is the matter.
    pub detail: String,
    /// What to do next.
    pub help: String,
}

/// At which point an upgrade came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hindrance {
    /// Another one is under way, or done.
    UnderWay,
    /// As this process runs, it cannot have a successor.
    NotHere,
    /// The successor did not come to serve.
    Failed,
}

/// A successor was started, and what came of it.
#[derive(Clone, Debug, Serialize)]
pub struct UpgradeEvent {
    /// `started`, `handed_over` or `failed`.
    pub result: &'static str,
    /// A token's name, `SIGUSR2` …
    pub who: String,
    /// In the author's own words, if there were any.
    pub why: Option<String>,
    /// The process that tells this.
    pub predecessor: u32,
    /// The process that it started.
    pub successor: Option<u32>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// See the module documentation.
#[derive(Debug)]
pub struct Succession {
    executable: PathBuf,
    predecessor: Option<u32>,
    requests: Channel<UpgradeRequest>,
    flushes: Channel<oneshot::Sender<()>>,
    is_held: watch::Sender<bool>,
    is_handed_over: AtomicBool,
    failure: ArcSwap<Option<Refusal>>,
    visitors: Arc<()>,
}

/// Connections to the side port, counted by whoever holds one of these.
#[derive(Debug)]
pub struct Visitor(#[allow(dead_code)] Arc<()>);

/// One receiver, who takes it once.
#[derive(Debug)]
struct Channel<T> {
    sender: mpsc::UnboundedSender<T>,
    receiver: Mutex<Option<mpsc::UnboundedReceiver<T>>>,
}

impl<T> Channel<T> {
    fn new() -> Self {
        let (sender, receiver) = mpsc::unbounded_channel();
        Self { sender, receiver: Mutex::new(Some(receiver)) }
    }

    fn is_taken(&self) -> bool {
        lock(&self.receiver).is_none()
    }

    fn take(&self) -> Option<mpsc::UnboundedReceiver<T>> {
        lock(&self.receiver).take()
    }
}

impl Succession {
    pub(super) fn new(executable: PathBuf, predecessor: Option<u32>) -> Self {
        Self {
            executable,
            predecessor,
            requests: Channel::new(),
            flushes: Channel::new(),
            is_held: watch::Sender::new(predecessor.is_some()),
            is_handed_over: AtomicBool::new(false),
            failure: ArcSwap::from_pointee(None),
            visitors: Arc::default(),
        }
    }

    /// The file that a successor is started from: the one that this process was.
    pub fn executable(&self) -> &Path {
        &self.executable
    }

    /// The process that handed over to this one.
    pub fn predecessor(&self) -> Option<u32> {
        self.predecessor
    }

    /// Hands over to a successor, and answers when that serves.
    ///
    /// # Errors
    ///
    /// See [`CannotUpgrade`]; then everything goes on as before.
    pub async fn ask(&self, author: Author, timeout: Duration) -> Result<HandedOver, CannotUpgrade> {
        let (answer, told) = oneshot::channel();
        let cannot = |detail: &str, help: &str| CannotUpgrade {
            kind: Hindrance::UnderWay,
            detail: detail.to_owned(),
            help: help.to_owned(),
        };
        let stopping = || cannot("the process is stopping", "start another one once it has ended");
        if !self.requests.is_taken() {
            return Err(cannot("the process is still starting", "ask again once GET /readyz says 200"));
        }
        self.requests.sender.send(UpgradeRequest { author, timeout, answer }).map_err(|_| stopping())?;
        told.await.unwrap_or_else(|_| Err(stopping()))
    }

    /// The requests that [`Succession::ask`] makes; whoever sees to them takes them, once.
    pub fn take_requests(&self) -> Option<mpsc::UnboundedReceiver<UpgradeRequest>> {
        self.requests.take()
    }

    /// The latest upgrade that failed.
    pub fn failure(&self) -> Option<Refusal> {
        (**self.failure.load()).clone()
    }

    /// Whether a successor serves, and we only finish what we have.
    pub fn is_handed_over(&self) -> bool {
        self.is_handed_over.load(Ordering::Acquire)
    }

    /// Says so; takes it back if the successor ends before it serves.
    pub fn set_handed_over(&self, is_handed_over: bool) {
        self.is_handed_over.store(is_handed_over, Ordering::Release);
    }

    /// Waits until the successor knows of everything that was counted here so far: who asks here now, and then
    /// there, must not see a counter go back.
    pub async fn flush(&self) {
        let (done, told) = oneshot::channel();
        if self.flushes.sender.send(done).is_ok() {
            // If nobody tells, there is no successor any more.
            let _ = tokio::time::timeout(FLUSH_TIME, told).await;
        }
    }

    /// What [`Succession::flush`] asks for; whoever speaks with the successor takes it, once.
    pub fn take_flushes(&self) -> Option<mpsc::UnboundedReceiver<oneshot::Sender<()>>> {
        self.flushes.take()
    }

    /// Counts a connection to the side port, until it is dropped.
    pub fn visitor(&self) -> Visitor {
        Visitor(self.visitors.clone())
    }

    /// Open connections to the side port.
    pub fn visitors(&self) -> usize {
        Arc::strong_count(&self.visitors) - 1
    }
}

/// A successor that takes longer to count is busy with more than that.
const FLUSH_TIME: Duration = Duration::from_secs(2);

impl Control {
    /// How this process follows another, and is followed.
    pub fn succession(&self) -> &Succession {
        &self.succession
    }

    /// From now on every change is refused, and nothing is written to the disk: another process does.
    ///
    /// # Errors
    ///
    /// A guarded change decides first, or they are held already.
    pub fn hold_writes(&self) -> Result<(), Rejected> {
        let writer = lock(&self.writer);
        if writer.guarded.is_some() {
            return Err(Rejected::Guarded);
        }
        // Under the lock: a change under way is done by now, and on the disk.
        let was_held = self.succession.is_held.send_replace(true);
        if was_held { Err(Rejected::HandingOver) } else { Ok(()) }
    }

    /// Takes [`hold_writes`](Self::hold_writes) back: from now on this process is the one that writes.
    pub fn release_writes(&self) {
        lock(&self.writer).settle(&self.running());
        self.succession.is_held.send_replace(false);
    }

    /// Waits until changes are not held.
    pub async fn writes_released(&self) {
        // The sender lives as long as we do.
        let _ = self.succession.is_held.subscribe().wait_for(|is_held| !is_held).await;
    }

    pub(super) fn check_not_held(&self) -> Result<(), Rejected> {
        if *self.succession.is_held.borrow() { Err(Rejected::HandingOver) } else { Ok(()) }
    }

    /// Tells those who listen of an upgrade, and remembers the latest that failed.
    pub fn tell_upgrade(
        &self,
        author: &Author,
        successor: Option<u32>,
        result: Result<bool, &CannotUpgrade>,
    ) {
        if let Err(cannot) = result {
            self.succession.failure.store(Arc::new(Some(Refusal {
                at: utc(SystemTime::now()),
                who: author.who.clone(),
                reason: cannot.detail.clone(),
                is_of_file: false,
            })));
        }
        self.events.tell(Happening::Upgrade(UpgradeEvent {
            result: match result {
                Ok(false) => "started",
                Ok(true) => "handed_over",
                Err(_) => "failed",
            },
            who: author.who.clone(),
            why: author.why.clone(),
            predecessor: std::process::id(),
            successor,
            reason: result.err().map(|cannot| cannot.detail.clone()),
        }));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use tempfile::tempdir;

    use super::super::Change;
    use super::super::testing::{author, control, weigh};
    use super::*;

    const ONE: &str =
        "[listeners.http]\naddress = \"127.0.0.1:8080\"\n[pools.app]\nupstreams = [\"127.0.0.1:9001\"]\n";

    #[test]
    fn of_two_processes_one_writes() {
        let folder = tempdir().unwrap();
        let control = control(folder.path(), ONE);
        control.hold_writes().unwrap();
        for change in [weigh(2), Change::Reload, Change::DropOverrides] {
            let refused = control.apply(&change, None, &author());
            assert!(matches!(refused, Err(Rejected::HandingOver)), "{refused:?}");
        }
        assert!(matches!(control.hold_writes(), Err(Rejected::HandingOver)));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing beside the file");

        control.release_writes();
        control.apply(&weigh(2), None, &author()).unwrap();
    }

    #[test]
    fn visitors_are_counted_until_they_leave() {
        let folder = tempdir().unwrap();
        let control = control(folder.path(), ONE);
        let visitor = control.succession().visitor();
        assert_eq!(control.succession().visitors(), 1);
        drop(visitor);
        assert_eq!(control.succession().visitors(), 0);
    }
}
