//! The one writer: every change of what is running goes through [`Control::apply`].
//!
//! ```text
//!   SIGHUP, file watch, admin ──► Change ──► Control::apply ──► check ──► build ──► persist ──► publish
//!                                             (one at a time)      └─────────┴─► Rejected: nothing has changed
//! ```
//!
//! `change.rs` says what can be asked for and answered, `prepare.rs` turns a change into what would run,
//! `overrides.rs` decides between file and operator, `store.rs` and `history.rs` keep both on the disk.
//! `events.rs` tells those who listen what came of it, and what else happens. `plan.rs` tells what a change
//! would do, `guard.rs` takes one back that does harm, as `judge.rs` sees it. `start.rs` is the same for the
//! first configuration; `watch.rs` asks for a reload when the file is saved, `expiry.rs` tells of certificates that
//! should be renewed, and `succession.rs` holds everything back while another process takes our place.

mod change;
mod events;
mod expiry;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod guard;
mod history;
mod judge;
mod overrides;
mod plan;
mod prepare;
mod start;
mod state;
mod store;
mod succession;
#[cfg(test)]
mod testing;
mod timelines;
mod watch;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, oneshot};

pub use change::{Applied, Author, Change, Condition, Dropped, Rejected, Reset};
pub use events::{
    AlarmEvent, ConfigEvent, Counts, EVENTS_MAX, EjectionEvent, Event, Events, Happening, HealthEvent,
    StateEvent, Subscription, Told,
};
pub use expiry::tell_of_expiry;
pub use guard::{Bounds, Guard, Outcome, Why};
pub use history::{ENTRIES_MAX as HISTORY_ENTRIES_MAX, Entry as HistoryEntry};
pub use judge::Figures;
pub use overrides::{Override, Setting};
pub use plan::Plan;
pub use start::Start;
pub use succession::{
    CannotUpgrade, HandedOver, Hindrance, ProcessView, Succession, UPGRADE_TIMEOUT, UPGRADE_TIMEOUT_MAX,
    UpgradeEvent, UpgradeRequest, Visitor,
};
pub use watch::{follow_file, may_follow_file};

use crate::config::{Config, Files};
use crate::observe::{ChangeOrigin, ChangeResult, utc};
use crate::runtime::{Pool, Runtime, Snapshot};
use guard::Guarded;
use history::{History, NewEntry};
use prepare::Next;
use state::StateFile;
use store::Store;

/// Where the running configuration came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A file, which a reload reads again.
    File(PathBuf),
    /// The command line or the environment; there is nothing to read again.
    Arguments,
}

/// What the running snapshot was made from.
#[derive(Debug)]
pub struct Running {
    /// Its number.
    pub generation: u64,
    /// The configuration file's text; without a file, what a file would have said.
    pub text: Arc<str>,
    /// What the file says, without overrides.
    pub file: Arc<Config>,
    /// What was changed at run time and differs from the file.
    pub overrides: Arc<[Override]>,
    /// Files that the text names, as they were when they were read.
    pub files: Files,
}

/// The latest text that was refused for what it says, if none was applied since.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// When, RFC 3339.
    pub at: String,
    /// Who asked for it.
    pub who: String,
    /// What is wrong, with line and help.
    pub reason: String,
    /// It is the file's: a restart would not come up. What was only sent to the side port changed no file.
    pub is_of_file: bool,
}

/// A request to probe all upstreams of a pool now; answered when all verdicts are in.
#[derive(Debug)]
pub struct ProbeNow {
    /// Name of the pool.
    pub pool: String,
    /// Told when every probe is done.
    pub done: oneshot::Sender<()>,
}

/// See the module documentation.
pub struct Control {
    runtime: Arc<Runtime>,
    source: Source,
    /// Tells entity tags of this process from those of its predecessors.
    instance: u32,
    running: ArcSwap<Running>,
    refusal: ArcSwap<Option<Refusal>>,
    events: Events,
    writer: Mutex<Writer>,
    generation: tokio::sync::watch::Sender<u64>,
    /// The guard under way, or the last one.
    guard: tokio::sync::watch::Sender<Option<Guard>>,
    probe_now: mpsc::UnboundedSender<ProbeNow>,
    probe_requests: Mutex<Option<mpsc::UnboundedReceiver<ProbeNow>>>,
    succession: Succession,
    /// `None`: nothing outlives the process but the configuration.
    state: Option<StateFile>,
}

/// A text that was refused, with the files that it names as they were then.
#[derive(Debug)]
struct Refused {
    text: String,
    files: Files,
}

impl Refused {
    fn new(text: String, why: &Rejected) -> Self {
        Self { text, files: why.files() }
    }

    /// Whether it would be refused again: it is the same text, and nobody has touched its files.
    fn is_still(&self, text: &str) -> bool {
        self.text == text && !self.files.have_changed()
    }
}

/// What only the writer needs, under the lock that makes changes come one at a time.
struct Writer {
    /// `None`: there is no file, so nothing survives the process.
    store: Option<Store>,
    history: History,
    /// What the overrides file holds, as far as we know.
    stored_overrides: Arc<[Override]>,
    /// What was refused, so that a watcher does not have it refused again and again.
    refused: Option<Refused>,
    /// The guarded change under way. As long as there is one, nothing is written to the disk.
    guarded: Option<Guarded>,
}

impl Writer {
    /// Brings what lies beside the file up to date with what the process began with. A process that changes
    /// nothing, and whose predecessors did not, leaves nothing behind.
    fn settle(&mut self, running: &Running) {
        self.history.save_if_begun();
        let Some(store) = self.store.as_ref().filter(|_| running.overrides != self.stored_overrides) else {
            return;
        };
        match store.write(None, Some(&running.overrides)) {
            Ok(()) => self.stored_overrides = running.overrides.clone(),
            Err(rejected) => tracing::warn!(reason = %rejected, "overrides not updated on the disk"),
        }
    }
}

impl Control {
    /// Controls `runtime`, which runs the configuration of `start`.
    pub fn new(runtime: Arc<Runtime>, start: Start) -> Self {
        let first = runtime.peek().generation;
        runtime.metrics.config_changed(ChangeOrigin::Start, ChangeResult::Applied);
        runtime.metrics.config_applied(first, SystemTime::now());
        let (probe_now, requests) = mpsc::unbounded_channel();
        let Start { source, running, mut writer, executable, predecessor, .. } = start;
        if predecessor.is_none() {
            writer.settle(&running);
        }
        let instance = fastrand::u32(..);
        let state_file = runtime.peek().config.server.state_file.clone();
        let state = state_file.map(|path| StateFile::open(path, &runtime, predecessor.is_some()));
        Self {
            runtime,
            source,
            instance,
            running: ArcSwap::from_pointee(running),
            refusal: ArcSwap::from_pointee(None),
            events: Events::new(instance),
            writer: Mutex::new(writer),
            generation: tokio::sync::watch::Sender::new(first),
            guard: tokio::sync::watch::Sender::new(None),
            probe_now,
            probe_requests: Mutex::new(Some(requests)),
            succession: Succession::new(executable, predecessor),
            state,
        }
    }

    /// What is running.
    pub fn runtime(&self) -> &Arc<Runtime> {
        &self.runtime
    }

    /// Where the configuration came from.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// What the running snapshot was made from.
    pub fn running(&self) -> Arc<Running> {
        self.running.load_full()
    }

    /// The latest text that was refused for what it says, if none was applied since; what is wrong with the file comes
    /// before what was only sent. Whoever was merely too late is not in it.
    pub fn refusal(&self) -> Option<Refusal> {
        (**self.refusal.load()).clone()
    }

    /// What happens, for those who listen.
    pub fn events(&self) -> &Events {
        &self.events
    }

    /// The files of what runs were touched, and hold what they held.
    fn note_files(&self, files: Files) {
        let Running { generation, text, file, overrides, .. } = &*self.running();
        let (text, file, overrides) = (text.clone(), file.clone(), overrides.clone());
        self.running.store(Arc::new(Running { generation: *generation, text, file, overrides, files }));
        self.forget_refusal();
    }

    /// What was refused is not in the file any more.
    fn forget_refusal(&self) {
        self.refusal.store(Arc::new(None));
    }

    /// The configurations that ran, the present one last.
    pub fn history(&self) -> Vec<HistoryEntry> {
        lock(&self.writer).history.entries().cloned().collect()
    }

    /// Entity tag of the configuration as a whole: another one after every change.
    pub fn tag(&self) -> String {
        self.tag_of(self.running.load().generation)
    }

    /// Entity tag of the configuration as it was in a generation of this process.
    pub fn tag_of(&self, generation: u64) -> String {
        format!("\"{:08x}-{generation}\"", self.instance)
    }

    /// Entity tag of one pool and its upstreams: another one after every change of it.
    pub fn pool_tag(&self, pool: &Pool) -> String {
        format!("\"{:08x}-pool-{}\"", self.instance, pool.since)
    }

    /// Changes with every generation; for those who follow the snapshot.
    pub fn generations(&self) -> tokio::sync::watch::Receiver<u64> {
        self.generation.subscribe()
    }

    /// Probes every upstream of `pool` now; `false` when nobody probes (checks are off, or we are
    /// stopping).
    pub async fn probe_now(&self, pool: &str) -> bool {
        let (done, answer) = oneshot::channel();
        let request = ProbeNow { pool: pool.to_owned(), done };
        self.probe_now.send(request).is_ok() && answer.await.is_ok()
    }

    /// The requests that [`Control::probe_now`] makes; whoever probes takes them, once.
    pub fn take_probe_requests(&self) -> Option<mpsc::UnboundedReceiver<ProbeNow>> {
        lock(&self.probe_requests).take()
    }

    /// Applies a change in full or not at all. Writes to the disk, and waits for it.
    ///
    /// # Errors
    ///
    /// See [`Rejected`]; the running state, and what is on the disk, are then as before.
    pub fn apply(
        &self,
        change: &Change,
        condition: Option<&Condition>,
        author: &Author,
    ) -> Result<Applied, Rejected> {
        let mut writer = lock(&self.writer);
        let result = self.try_apply(&mut writer, change, condition, author);
        self.tell(change, &result, author);
        result
    }

    fn try_apply(
        &self,
        writer: &mut Writer,
        change: &Change,
        condition: Option<&Condition>,
        author: &Author,
    ) -> Result<Applied, Rejected> {
        self.check_not_held()?;
        self.check(change, condition)?;
        if let Some(applied) = self.heed_guard(writer, change, author)? {
            return Ok(applied);
        }
        let Some(next) = self.prepare(writer, change, author)? else { return Ok(self.nothing_to_do(writer)) };
        let before = self.runtime.snapshot();
        let generation = before.generation + 1;
        let (now, random) = (self.runtime.now(), fastrand::u64(..));
        let snapshot = Snapshot::build(next.config.clone(), generation, Some(&before), now, random);
        self.persist(writer, change, condition, &next)?;
        Ok(self.publish(writer, &before, snapshot, next, author))
    }

    /// Whether the condition of a change holds, for the configuration or for the pool that it edits.
    fn check(&self, change: &Change, condition: Option<&Condition>) -> Result<(), Rejected> {
        let pool = match change {
            Change::Edit { pool, .. } => Some(pool),
            _ => None,
        };
        let snapshot = self.runtime.snapshot();
        let pool =
            pool.map(|name| snapshot.pool_named(name).ok_or_else(|| Rejected::UnknownPool(name.clone())));
        let pool_tag = pool.transpose()?.map(|pool| self.pool_tag(pool));
        let tag = self.tag();
        match condition {
            Some(Condition::Matches(tags))
                if !tags.iter().any(|it| *it == tag || Some(it) == pool_tag.as_ref()) =>
            {
                Err(Rejected::ChangedMeanwhile { tag: pool_tag.unwrap_or(tag) })
            }
            _ => Ok(()),
        }
    }

    fn nothing_to_do(&self, writer: &Writer) -> Applied {
        let snapshot = self.runtime.snapshot();
        Applied {
            generation: snapshot.generation,
            tag: self.tag(),
            carried: snapshot.pools().map(|pool| pool.upstreams().len()).sum(),
            persisted: writer.store.is_some(),
            ..Applied::default()
        }
    }

    /// Writes what must survive a restart, before anybody sees it: if that fails, nothing was changed.
    fn persist(
        &self,
        writer: &mut Writer,
        change: &Change,
        condition: Option<&Condition>,
        next: &Next,
    ) -> Result<(), Rejected> {
        if writer.guarded.is_some() {
            // Written when it is kept; until then a start runs what ran before.
            return Ok(());
        }
        let writes_text = self.may_write_text(writer, change, condition, next)?;
        let Some(store) = &writer.store else { return Ok(()) };
        let text = writes_text.then_some(&*next.text);
        // Somebody may have removed the file; what holds must not be lost with the process.
        let is_lost = !next.overrides.is_empty() && !store.overrides_file().exists();
        let overrides = (is_lost || next.overrides != writer.stored_overrides).then_some(&*next.overrides);
        match change {
            Change::Edit { .. } | Change::DropOverrides | Change::RollBack(_) => {
                store.write(text, overrides)?;
            }
            // The next start comes to the same conclusion from the old overrides and the new file.
            Change::Reload | Change::ReloadIfEdited | Change::Replace(_) => {
                store.write(text, None)?;
                if let Err(rejected) = store.write(None, overrides) {
                    tracing::warn!(reason = %rejected, "overrides not updated on the disk");
                    return Ok(());
                }
            }
        }
        writer.stored_overrides = next.overrides.clone();
        Ok(())
    }

    /// Whether the file gets a new text. One that somebody wrote into it meanwhile is overwritten on demand
    /// only, and then not lost.
    fn may_write_text(
        &self,
        writer: &mut Writer,
        change: &Change,
        condition: Option<&Condition>,
        next: &Next,
    ) -> Result<bool, Rejected> {
        let Some(store) = &writer.store else { return Ok(false) };
        let running = self.running.load();
        let concerns_text = match change {
            Change::Replace(_) => true,
            Change::RollBack(_) => next.text != running.text,
            Change::Reload | Change::ReloadIfEdited | Change::Edit { .. } | Change::DropOverrides => false,
        };
        let on_disk = concerns_text.then(|| store.text_as_it_is()).flatten();
        if !concerns_text || on_disk.as_deref() == Some(&next.text) {
            return Ok(false);
        }
        if on_disk.as_deref() != Some(&running.text) {
            if condition != Some(&Condition::Exists) {
                return Err(Rejected::FileEdited(store.file.clone()));
            }
            keep_edited_text(&mut writer.history, &running, on_disk);
        }
        Ok(true)
    }

    /// Cannot fail: from here on the change is made.
    fn publish(
        &self,
        writer: &mut Writer,
        before: &Snapshot,
        snapshot: Snapshot,
        next: Next,
        author: &Author,
    ) -> Applied {
        let generation = snapshot.generation;
        let mut applied = prepare::compare(before, &snapshot);
        self.runtime.publish(snapshot);
        let (after, now) = (self.runtime.snapshot(), self.runtime.now());
        applied.reset = prepare::forget(before, &after, now);
        self.enter_change((before, &after), &next.what, author, now);
        self.running.store(Arc::new(Running {
            generation,
            text: next.text.clone(),
            file: next.file,
            overrides: next.overrides.clone(),
            files: next.files,
        }));
        self.generation.send_replace(generation);
        writer.history.push(NewEntry {
            generation,
            at: utc(SystemTime::now()),
            origin: author.origin.label(),
            who: author.who.clone(),
            why: author.why.clone(),
            what: next.what,
            back_to: next.back_to,
            overrides: next.overrides,
            text: next.text,
        });
        writer.history.save();
        writer.refused = None;
        applied.tag = self.tag_of(generation);
        applied.dropped = next.dropped;
        applied.warnings = next.warnings;
        applied.persisted = writer.store.is_some() && writer.guarded.is_none();
        applied
    }

    fn tell(&self, change: &Change, result: &Result<Applied, Rejected>, author: &Author) {
        match result {
            Ok(applied) if !applied.changed => {}
            // The file is looked at again when that is over.
            Err(Rejected::HandingOver) if author.origin == ChangeOrigin::File => {}
            Ok(applied) => self.tell_applied(change, applied, author),
            Err(rejected) => self.tell_refused(change, rejected, author),
        }
    }

    fn tell_applied(&self, change: &Change, applied: &Applied, author: &Author) {
        self.tell_event(change, Ok(applied), author);
        let metrics = &self.runtime.metrics;
        metrics.config_changed(author.origin, ChangeResult::Applied);
        metrics.config_applied(applied.generation, SystemTime::now());
        // An edit of a pool does not mend a file that is wrong.
        if !matches!(change, Change::Edit { .. } | Change::DropOverrides) {
            self.refusal.store(Arc::new(None));
        }
        tell_applied(change, applied, author);
    }

    fn tell_event(&self, change: &Change, result: Result<&Applied, &Rejected>, author: &Author) {
        let runs = (self.running.load().generation, self.tag());
        self.events.tell(Happening::config(change, result, runs, author));
    }

    fn tell_refused(&self, change: &Change, rejected: &Rejected, author: &Author) {
        self.tell_event(change, Err(rejected), author);
        self.runtime.metrics.config_changed(author.origin, ChangeResult::Refused);
        // A wrong file says itself what to do, mistake by mistake.
        let help = if matches!(rejected, Rejected::Invalid(_)) { String::new() } else { rejected.help() };
        if author.origin == ChangeOrigin::Admin {
            // Whoever asked has the answer, and often it says only that somebody else was faster.
            tracing::warn!(who = %author.who, reason = %rejected, help, "configuration refused, nothing was changed");
        } else {
            tracing::error!(who = %author.who, reason = %rejected, help, "configuration refused, nothing was changed");
        }
        self.remember_refused(change, rejected, author);
    }

    /// For operators who ask later what is not as it should be. Who was only too late has the answer, and nobody else
    /// need know.
    fn remember_refused(&self, change: &Change, rejected: &Rejected, author: &Author) {
        let is_of_file = match change {
            Change::Reload | Change::ReloadIfEdited => true,
            Change::Replace(_) => false,
            Change::RollBack(_) | Change::Edit { .. } | Change::DropOverrides => return,
        };
        // What is wrong with the file stays so, whatever else is sent and refused.
        let hides_worse = !is_of_file && self.refusal().is_some_and(|before| before.is_of_file);
        if rejected.is_no_verdict() || hides_worse {
            return;
        }
        self.refusal.store(Arc::new(Some(Refusal {
            at: utc(SystemTime::now()),
            who: author.who.clone(),
            reason: rejected.to_string(),
            is_of_file,
        })));
    }
}

/// A text that never ran, on the disk before it is overwritten in the file.
fn keep_edited_text(history: &mut History, running: &Running, on_disk: Option<String>) {
    let Some(text) = on_disk else { return };
    let is_kept = history.last().is_some_and(|last| last.generation == 0 && *last.text == *text);
    if !is_kept {
        history.push(NewEntry {
            generation: 0,
            at: utc(SystemTime::now()),
            origin: "file",
            who: "unknown".to_owned(),
            why: None,
            what: "edit of the file that never ran".to_owned(),
            back_to: None,
            overrides: running.overrides.clone(),
            text: text.into(),
        });
    }
    history.save();
}

fn tell_applied(change: &Change, applied: &Applied, author: &Author) {
    tracing::info!(
        generation = applied.generation,
        who = %author.who,
        why = author.why.as_deref().unwrap_or_default(),
        what = %change.what(),
        carried = applied.carried,
        added = applied.added.len(),
        removed = applied.removed.len(),
        reset = applied.reset.len(),
        "configuration applied"
    );
    applied.dropped.iter().for_each(Dropped::tell);
    // Whoever asks over the side port has them in the answer.
    if author.origin == ChangeOrigin::File {
        for warning in &applied.warnings {
            tracing::warn!(warning, "configuration is odd");
        }
    }
}

/// A panic while holding one of these locks leaves nothing half done, so a poisoned lock is usable.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
