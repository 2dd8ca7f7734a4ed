//! A change under guard: it runs, is watched, and is taken back when it does harm.
//!
//! ```text
//!   Control::run_guarded ──► runs, not on the disk ──► looked at four times a second
//!        │                                                   │
//!        │   the time is over, or somebody confirms ─────────┼──► written to the disk: kept
//!        └── too many errors, too slow, nobody confirms, ────┴──► what ran before runs again: rolled back
//!            somebody asks
//! ```
//!
//! **While a guard watches, the disk holds what was before**: the file and the overrides are written when
//! the change is kept. So going back needs no disk and cannot fail, and a process that ends in the middle
//! starts with what was before. For the same reason, a file that somebody edits meanwhile is not lost: then
//! the change cannot be kept, and is rolled back.
//!
//! What is changed of pools meanwhile runs at once. It is kept with the change, or goes with it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::Serialize;
use tokio::sync::{oneshot, watch};
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};

use super::judge::{Breach, Figures, Watch};
use super::prepare::Next;
use super::{
    Applied, Author, Change, Condition, Control, Happening, Rejected, Running, Writer, keep_edited_text, lock,
};
use crate::observe::{ChangeOrigin, utc};
use crate::runtime::Snapshot;

/// How often the figures are looked at: a disaster is to end within a second or two.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// What a guard is to watch for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bounds {
    /// How long.
    pub time: Duration,
    /// Errors among the requests, 0 to 1, beyond which the change is rolled back.
    pub max_error_ratio: f64,
    /// Whether the change is rolled back unless somebody confirms it in this time.
    pub confirm: bool,
}

/// One change under guard, as of some moment.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Guard {
    /// What became of it.
    pub outcome: Outcome,
    /// Why it was rolled back.
    pub why: Option<Why>,
    /// The same in words, with the figures, and what else there is to know.
    pub detail: Option<String>,
    /// The configuration that is watched.
    pub generation: u64,
    /// The one before, which a rollback returns to.
    pub previous_generation: u64,
    /// What runs now.
    pub now_generation: u64,
    /// Names of the pools that are watched.
    pub pools: Vec<String>,
    /// When it was applied, RFC 3339.
    pub started: String,
    /// When the guard ends by itself, RFC 3339.
    pub until: String,
    /// The bound as it was asked for.
    pub max_error_ratio: f64,
    /// Whether it needs a confirmation.
    pub confirm: bool,
    /// What was seen of the pools before.
    pub before: Figures,
    /// What was seen of them since.
    pub after: Figures,
}

/// How a guard stands or ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It has not ended.
    Watching,
    /// The change runs, and survives the process.
    Kept,
    /// What ran before runs again.
    RolledBack,
}

/// Why a change was rolled back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// Too many requests failed.
    ErrorRatio,
    /// The p99 rose too far.
    Latency,
    /// Nobody confirmed it in time.
    NotConfirmed,
    /// Somebody asked for a rollback.
    Asked,
    /// It did well, and could not be written to the disk.
    CannotPersist,
    /// It did well, and somebody had edited the file meanwhile.
    FileEdited,
}

/// What the writer knows of a guarded change, for as long as one is under way.
pub(super) struct Guarded {
    generation: u64,
    /// What ran before, and what was known of its upstreams.
    previous: Arc<Running>,
    previous_snapshot: Arc<Snapshot>,
    /// What the file held then; `None`: it could not be read.
    disk_text: Option<String>,
    ended: oneshot::Sender<Guard>,
}

impl Control {
    /// The guarded change under way, or else the last one.
    pub fn guard(&self) -> Option<Guard> {
        let mut guard = self.guard.borrow().clone()?;
        if guard.outcome == Outcome::Watching {
            guard.now_generation = self.runtime.peek().generation;
        }
        Some(guard)
    }

    /// Changes with every look and at the end of a guard; for those who follow it.
    pub fn guards(&self) -> watch::Receiver<Option<Guard>> {
        self.guard.subscribe()
    }

    /// Replaces the configuration under guard, and stays until that has ended. Run it as a task of its own:
    /// whoever asked for it may leave.
    ///
    /// `told` hears whether the change was applied, as soon as that is clear; nothing comes of it when
    /// it was not, and the answer is `None`.
    pub async fn run_guarded(
        self: Arc<Self>,
        text: String,
        condition: Option<Condition>,
        author: Author,
        bounds: Bounds,
        told: oneshot::Sender<Result<(Applied, Guard), Rejected>>,
    ) -> Option<Guard> {
        let control = self.clone();
        let applying =
            spawn_blocking(move || control.apply_guarded(text, condition.as_ref(), &author, bounds));
        let (applied, begun) = match applying.await.ok()? {
            Ok(begun) => begun,
            Err(rejected) => {
                // Who does not listen any more does not mind.
                let _ = told.send(Err(rejected));
                return None;
            }
        };
        let generation = applied.generation;
        let _ = told.send(Ok((applied, self.guard()?)));
        self.watch_over(begun, generation).await
    }

    async fn watch_over(self: Arc<Self>, begun: Begun, generation: u64) -> Option<Guard> {
        let Begun { mut watch, until, mut ended } = begun;
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                guard = &mut ended => return guard.ok(),
                _ = looks.tick() => {}
            }
            let now = self.runtime.now();
            let (after, breach) = watch.look(&self.runtime.snapshot(), now, now >= until);
            self.show(generation, after);
            let control = self.clone();
            let deciding = match breach {
                Some(breach) => spawn_blocking(move || control.take_back_because(generation, breach)),
                None if now >= until => spawn_blocking(move || control.end_of_time(generation)),
                None => continue,
            };
            // Whatever was decided arrives by `ended`.
            deciding.await.ok()?;
        }
    }

    /// Keeps the guarded change under way, without waiting any longer; `None` when there is none.
    ///
    /// # Errors
    ///
    /// The condition does not hold, it cannot be written to the disk, or somebody edited the file. The guard
    /// then goes on.
    pub fn confirm_guard(
        &self,
        condition: Option<&Condition>,
        author: &Author,
    ) -> Result<Option<Guard>, Rejected> {
        let mut writer = lock(&self.writer);
        self.check(&Change::Reload, condition)?;
        if writer.guarded.is_none() {
            return Ok(None);
        }
        self.keep(&mut writer, Some(format!("confirmed by {}", author.who)))?;
        Ok(self.guard())
    }

    fn apply_guarded(
        &self,
        text: String,
        condition: Option<&Condition>,
        author: &Author,
        bounds: Bounds,
    ) -> Result<(Applied, Begun), Rejected> {
        let change = Change::Replace(text);
        let mut writer = lock(&self.writer);
        let result = self.try_guarded(&mut writer, &change, condition, author, bounds);
        match &result {
            Ok((applied, _)) => self.tell_applied(&change, applied, author),
            Err(rejected) => self.tell_refused(&change, rejected, author),
        }
        result
    }

    fn try_guarded(
        &self,
        writer: &mut Writer,
        change: &Change,
        condition: Option<&Condition>,
        author: &Author,
        bounds: Bounds,
    ) -> Result<(Applied, Begun), Rejected> {
        self.check_not_held()?;
        self.check(change, condition)?;
        if writer.guarded.is_some() {
            return Err(Rejected::Guarded);
        }
        let Some(mut next) = self.prepare(writer, change, author)? else { return Err(Rejected::NoFile) };
        next.what = format!("{}, guarded for {} s", next.what, bounds.time.as_secs());
        let disk_text = self.check_disk(writer, condition, &next)?;
        let before = self.runtime.snapshot();
        let (now, random) = (self.runtime.now(), fastrand::u64(..));
        let snapshot =
            Snapshot::build(next.config.clone(), before.generation + 1, Some(&before), now, random);
        let watch = Watch::begin(&before, &snapshot, bounds.max_error_ratio, now);
        let (ended, end) = oneshot::channel();
        writer.guarded = Some(Guarded {
            generation: snapshot.generation,
            previous: self.running(),
            previous_snapshot: before.clone(),
            disk_text,
            ended,
        });
        // Whoever sees the new generation finds its guard.
        self.begin(&watch, snapshot.generation, before.generation, bounds);
        let applied = self.publish(writer, &before, snapshot, next, author);
        Ok((applied, Begun { watch, until: now + bounds.time, ended: end }))
    }

    /// Whether the change could be kept as things are now, so that most of what could prevent it is known
    /// before it runs. Answers what the file holds.
    fn check_disk(
        &self,
        writer: &Writer,
        condition: Option<&Condition>,
        next: &Next,
    ) -> Result<Option<String>, Rejected> {
        let store = writer.store.as_ref().ok_or(Rejected::NoFile)?;
        let disk_text = store.text_as_it_is();
        if condition != Some(&Condition::Exists) && disk_text.as_deref() != Some(&self.running().text) {
            return Err(Rejected::FileEdited(store.file.clone()));
        }
        store.try_text(&next.text)?;
        Ok(disk_text)
    }

    fn begin(&self, watch: &Watch, generation: u64, previous_generation: u64, bounds: Bounds) {
        let now = SystemTime::now();
        let guard = Guard {
            outcome: Outcome::Watching,
            why: None,
            detail: None,
            generation,
            previous_generation,
            now_generation: generation,
            pools: watch.names().to_vec(),
            started: utc(now),
            until: utc(now + bounds.time),
            max_error_ratio: bounds.max_error_ratio,
            confirm: bounds.confirm,
            before: watch.before(),
            after: Figures::default(),
        };
        self.announce(&guard);
        self.guard.send_replace(Some(guard));
    }

    /// Tells the world that a guard has begun or ended.
    fn announce(&self, guard: &Guard) {
        log(guard);
        self.events.tell(Happening::Guard(Box::new(guard.clone())));
    }

    /// What a change has to do with the guard under way: most have to wait, some end it. `Some`: all is done.
    pub(super) fn heed_guard(
        &self,
        writer: &mut Writer,
        change: &Change,
        author: &Author,
    ) -> Result<Option<Applied>, Rejected> {
        let Some(guarded) = &writer.guarded else { return Ok(None) };
        match *change {
            Change::Edit { .. } | Change::DropOverrides => Ok(None),
            Change::Reload | Change::Replace(_) => Err(Rejected::Guarded),
            Change::ReloadIfEdited => {
                let text = writer.store.as_ref().and_then(super::store::Store::text_as_it_is);
                let is_edited = text.is_some() && text != guarded.disk_text;
                if is_edited { Err(Rejected::Guarded) } else { Ok(Some(self.nothing_to_do(writer))) }
            }
            Change::RollBack(Some(other)) if other != guarded.previous.generation => {
                writer.history.find(other).ok_or(Rejected::UnknownGeneration(Some(other)))?;
                // All that may refuse it, before the guard is ended for it.
                if let Some(store) = writer.store.as_ref().filter(|_| writer.edited_file(guarded).is_some()) {
                    return Err(Rejected::FileEdited(store.file.clone()));
                }
                self.roll_back(writer, &self.running(), Some(other))?;
                self.take_back(writer, author, Why::Asked, asked_by(author));
                Ok(None)
            }
            Change::RollBack(_) => Ok(self.take_back(writer, author, Why::Asked, asked_by(author))),
        }
    }

    fn take_back_because(&self, generation: u64, breach: Breach) {
        let (why, detail) = match breach {
            Breach::Errors { ratio, allowed } => (
                Why::ErrorRatio,
                format!("{} of the requests failed, more than {}", percent(ratio), percent(allowed)),
            ),
            Breach::Latency { p99, allowed } => (
                Why::Latency,
                format!("the p99 rose to {} ms, beyond {} ms", p99.as_millis(), allowed.as_millis()),
            ),
        };
        let mut writer = lock(&self.writer);
        if writer.guards(generation) {
            self.take_back_by_guard(&mut writer, why, detail);
        }
    }

    fn end_of_time(&self, generation: u64) {
        let mut writer = lock(&self.writer);
        if !writer.guards(generation) {
            return;
        }
        if self.guard.borrow().as_ref().is_some_and(|guard| guard.confirm) {
            let detail = "nobody confirmed it in time".to_owned();
            return self.take_back_by_guard(&mut writer, Why::NotConfirmed, detail);
        }
        if let Err(rejected) = self.keep(&mut writer, None) {
            let why = match rejected {
                Rejected::FileEdited(_) => Why::FileEdited,
                _ => Why::CannotPersist,
            };
            self.take_back_by_guard(&mut writer, why, rejected.to_string());
        }
    }

    fn take_back_by_guard(&self, writer: &mut Writer, why: Why, detail: String) {
        let author =
            Author { origin: ChangeOrigin::Admin, who: "guard".to_owned(), why: Some(detail.clone()) };
        let change = Change::RollBack(writer.guarded.as_ref().map(|guarded| guarded.previous.generation));
        if let Some(applied) = self.take_back(writer, &author, why, detail) {
            self.tell_applied(&change, &applied, &author);
        }
    }

    /// Runs again what ran before, exactly. The disk holds that already, unless somebody edited the file.
    fn take_back(
        &self,
        writer: &mut Writer,
        author: &Author,
        why: Why,
        mut detail: String,
    ) -> Option<Applied> {
        let guarded = writer.guarded.take()?;
        let before = self.runtime.snapshot();
        if before.generation != guarded.generation {
            detail.push_str("; what was changed of pools meanwhile is undone, too");
        }
        let edited = writer.edited_file(&guarded);
        if let Some(file) = &edited {
            detail = format!("{detail}; {file} was edited meanwhile, is left as it is, and does not run");
        }
        let previous = &guarded.previous;
        let next = Next {
            text: previous.text.clone(),
            file: previous.file.clone(),
            config: (*guarded.previous_snapshot.config).clone(),
            overrides: previous.overrides.clone(),
            files: previous.files.clone(),
            dropped: Vec::new(),
            warnings: Vec::new(),
            what: format!("roll back to generation {}", previous.generation),
            back_to: Some(previous.generation),
        };
        let (now, random) = (self.runtime.now(), fastrand::u64(..));
        let (config, generation) = (next.config.clone(), before.generation + 1);
        let older = &guarded.previous_snapshot;
        let snapshot = Snapshot::build_again(config, generation, &before, older, now, random);
        for pool in before.pools() {
            pool.state.metrics.watch_until(snapshot.generation);
        }
        let mut applied = self.publish(writer, &before, snapshot, next, author);
        applied.persisted = edited.is_none();
        self.end(guarded, Outcome::RolledBack, Some(why), Some(detail), applied.generation);
        Some(applied)
    }

    /// Writes what runs to the disk, as it would have been without a guard.
    fn keep(&self, writer: &mut Writer, detail: Option<String>) -> Result<(), Rejected> {
        let (Some(guarded), Some(store)) = (&writer.guarded, &writer.store) else { return Ok(()) };
        if writer.edited_file(guarded).is_some() {
            return Err(Rejected::FileEdited(store.file.clone()));
        }
        let running = self.running();
        let overruled = guarded.disk_text.clone().filter(|text| **text != *guarded.previous.text);
        keep_edited_text(&mut writer.history, &guarded.previous, overruled);
        // Both or neither: what was changed during the guard stands nowhere else.
        let overrides = (running.overrides != writer.stored_overrides).then_some(&*running.overrides);
        store.write(Some(&running.text), overrides)?;
        writer.stored_overrides = running.overrides.clone();
        writer.history.save();
        for pool in self.runtime.snapshot().pools() {
            pool.state.metrics.end_watch();
        }
        if let Some(guarded) = writer.guarded.take() {
            self.end(guarded, Outcome::Kept, None, detail, running.generation);
        }
        Ok(())
    }

    fn show(&self, generation: u64, after: Figures) {
        self.guard.send_if_modified(|guard| match guard {
            Some(guard) if guard.generation == generation && guard.outcome == Outcome::Watching => {
                guard.after = after;
                true
            }
            _ => false,
        });
    }

    fn end(
        &self,
        guarded: Guarded,
        outcome: Outcome,
        why: Option<Why>,
        detail: Option<String>,
        now_generation: u64,
    ) {
        self.guard.send_modify(|guard| {
            if let Some(guard) = guard {
                (guard.outcome, guard.why, guard.detail) = (outcome, why, detail);
                guard.now_generation = now_generation;
            }
        });
        if let Some(guard) = self.guard.borrow().clone() {
            self.announce(&guard);
            // The watch may have ended with the process's last task.
            let _ = guarded.ended.send(guard);
        }
    }
}

/// A guarded change that runs, and what is needed to watch it.
struct Begun {
    watch: Watch,
    /// When the guard ends by itself.
    until: Duration,
    ended: oneshot::Receiver<Guard>,
}

impl Writer {
    /// Whether the change of this generation is still under guard.
    fn guards(&self, generation: u64) -> bool {
        self.guarded.as_ref().is_some_and(|guarded| guarded.generation == generation)
    }

    /// The file's name, if it holds something else than when the guard began.
    fn edited_file(&self, guarded: &Guarded) -> Option<String> {
        let store = self.store.as_ref()?;
        (store.text_as_it_is() != guarded.disk_text).then(|| store.file.display().to_string())
    }
}

/// In the log, that a guard has begun or ended.
fn log(guard: &Guard) {
    let Guard { generation, previous_generation, before, after, .. } = guard;
    let detail = guard.detail.as_deref().unwrap_or_default();
    let pools = guard.pools.join(",");
    match guard.outcome {
        Outcome::Watching => tracing::info!(
            generation, previous_generation, pools, until = %guard.until, confirm = guard.confirm,
            "guarded change under watch"
        ),
        Outcome::Kept => tracing::info!(
            generation,
            detail,
            requests = after.requests,
            errors = after.errors,
            "guarded change kept"
        ),
        Outcome::RolledBack => tracing::warn!(
            generation,
            now_generation = guard.now_generation,
            detail,
            requests_before = before.requests,
            errors_before = before.errors,
            requests = after.requests,
            errors = after.errors,
            "guarded change rolled back"
        ),
    }
}

fn asked_by(author: &Author) -> String {
    format!("{} asked for it", author.who)
}

/// `12.5 %`
fn percent(ratio: f64) -> String {
    format!("{} %", (ratio * 1_000.0).round() / 10.0)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs;

    use tempfile::TempDir;
    use tokio::task::JoinHandle;

    use super::*;
    use crate::control::testing::{author, control, weigh};

    const OLD: &str =
        "[listeners.http]\naddress = \"127.0.0.1:8080\"\n[pools.app]\nupstreams = [\"127.0.0.1:9001\"]\n";
    const NEW: &str = "[listeners.http]\naddress = \"127.0.0.1:8080\"\n[pools.app]\nupstreams = [{ address = \"127.0.0.1:9001\", weight = 7 }]\n";

    fn weight(control: &Control) -> u16 {
        control.runtime().snapshot().pool_named("app").unwrap().upstreams()[0].config.weight
    }

    async fn guarded(control: &Arc<Control>) -> JoinHandle<Option<Guard>> {
        guarded_by(control, NEW).await
    }

    async fn guarded_by(control: &Arc<Control>, text: &str) -> JoinHandle<Option<Guard>> {
        let bounds = Bounds { time: Duration::from_secs(600), max_error_ratio: 0.05, confirm: true };
        let (told, telling) = oneshot::channel();
        let running = control.clone().run_guarded(text.to_owned(), None, author(), bounds, told);
        let task = tokio::spawn(running);
        let (applied, guard) = telling.await.unwrap().unwrap();
        assert_eq!((applied.persisted, guard.outcome), (false, Outcome::Watching));
        task
    }

    fn on_disk(folder: &TempDir) -> (String, Option<String>) {
        let read = |name| fs::read_to_string(folder.path().join(name));
        (read("evener.toml").unwrap(), read("evener.toml.overrides.toml").ok())
    }

    #[tokio::test]
    async fn asking_for_a_rollback_ends_it_and_what_was_edited_meanwhile() {
        let folder = tempfile::tempdir().unwrap();
        let control = control(folder.path(), OLD);
        let apply = |change: &Change| control.apply(change, None, &author());
        let task = guarded(&control).await;
        let applied = apply(&weigh(3)).unwrap();
        assert_eq!((weight(&control), applied.persisted), (3, false));
        for refused in [Change::Reload, Change::Replace(OLD.to_owned())] {
            assert!(matches!(apply(&refused), Err(Rejected::Guarded)));
        }
        assert!(!apply(&Change::ReloadIfEdited).unwrap().changed, "the disk holds what was before");
        assert!(matches!(apply(&Change::RollBack(Some(99))), Err(Rejected::UnknownGeneration(_))));

        assert_eq!(apply(&Change::RollBack(None)).unwrap().generation, 4);
        let guard = task.await.unwrap().unwrap();
        assert_eq!(
            (guard.outcome, guard.why, guard.now_generation),
            (Outcome::RolledBack, Some(Why::Asked), 4)
        );
        assert!(guard.detail.unwrap().contains("undone"));
        assert_eq!(
            (&*control.running().text, control.running().overrides.len(), weight(&control)),
            (OLD, 0, 1)
        );
        assert_eq!(on_disk(&folder), (OLD.to_owned(), None));
        apply(&Change::Reload).unwrap();
    }

    /// As if the change had never been: the requests in flight at whoever it replaced still count there.
    #[tokio::test]
    async fn whoever_comes_back_by_a_rollback_is_not_new() {
        let folder = tempfile::tempdir().unwrap();
        let control = control(folder.path(), OLD);
        let upstreams = || {
            let snapshot = control.runtime().snapshot();
            let upstreams = snapshot.pool_named("app").unwrap().upstreams();
            upstreams.iter().map(|upstream| Arc::as_ptr(&upstream.state).addr()).collect::<Vec<_>>()
        };
        let before = upstreams();
        let task = guarded_by(&control, &NEW.replace("9001", "9009")).await;
        assert!(upstreams().iter().all(|state| !before.contains(state)));
        control.apply(&Change::RollBack(None), None, &author()).unwrap();
        task.await.unwrap();
        assert_eq!(upstreams(), before);
    }

    #[tokio::test]
    async fn what_was_edited_meanwhile_is_kept_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let control = control(folder.path(), OLD);
        let task = guarded(&control).await;
        control.apply(&weigh(3), None, &author()).unwrap();
        assert_eq!(on_disk(&folder), (OLD.to_owned(), None));
        let guard = control.confirm_guard(None, &author()).unwrap().unwrap();
        assert_eq!((guard.outcome, guard.now_generation), (Outcome::Kept, 3));
        assert_eq!(task.await.unwrap().unwrap(), guard);
        let (text, overrides) = on_disk(&folder);
        assert!(text == NEW && overrides.unwrap().contains("value = 3"));
        assert_eq!(control.confirm_guard(None, &author()).unwrap(), None);
    }

    /// The new text says something else of the weight, so the override ends with it, and comes back.
    #[tokio::test]
    async fn a_rollback_brings_back_the_overrides_that_the_change_ended() {
        let folder = tempfile::tempdir().unwrap();
        let control = control(folder.path(), OLD);
        control.apply(&weigh(5), None, &author()).unwrap();
        let (before, disk) = (control.running(), on_disk(&folder));
        let task = guarded(&control).await;
        assert_eq!((weight(&control), control.running().overrides.len()), (7, 0));
        control.apply(&Change::RollBack(Some(before.generation)), None, &author()).unwrap();
        task.await.unwrap().unwrap();
        assert_eq!((weight(&control), &control.running().overrides), (5, &before.overrides));
        assert_eq!(on_disk(&folder), disk);
    }

    #[tokio::test]
    async fn a_rollback_further_back_ends_it_too() {
        let folder = tempfile::tempdir().unwrap();
        let control = control(folder.path(), OLD);
        control.apply(&weigh(5), None, &author()).unwrap();
        let task = guarded(&control).await;
        control.apply(&Change::RollBack(Some(1)), None, &author()).unwrap();
        assert_eq!(task.await.unwrap().unwrap().why, Some(Why::Asked));
        assert_eq!((weight(&control), on_disk(&folder)), (1, (OLD.to_owned(), None)));
    }

    /// Kept without its overrides, the next start would forget what was changed during the guard.
    #[tokio::test]
    async fn what_cannot_be_written_in_full_is_not_kept() {
        let folder = tempfile::tempdir().unwrap();
        let control = control(folder.path(), OLD);
        let task = guarded(&control).await;
        control.apply(&weigh(3), None, &author()).unwrap();
        fs::create_dir(folder.path().join("evener.toml.overrides.toml")).unwrap();
        assert!(matches!(control.confirm_guard(None, &author()), Err(Rejected::CannotPersist { .. })));
        assert_eq!(on_disk(&folder), (OLD.to_owned(), None));
        fs::remove_dir(folder.path().join("evener.toml.overrides.toml")).unwrap();
        assert_eq!(control.confirm_guard(None, &author()).unwrap().unwrap().outcome, Outcome::Kept);
        task.await.unwrap().unwrap();
    }

    /// Somebody edits the file, and the change is good: nothing of theirs is lost.
    #[tokio::test]
    async fn an_edited_file_prevents_keeping() {
        let folder = tempfile::tempdir().unwrap();
        let control = control(folder.path(), OLD);
        let task = guarded(&control).await;
        fs::write(folder.path().join("evener.toml"), "# mine\n").unwrap();
        assert!(matches!(control.confirm_guard(None, &author()), Err(Rejected::FileEdited(_))));
        assert!(matches!(control.apply(&Change::ReloadIfEdited, None, &author()), Err(Rejected::Guarded)));
        let applied = control.apply(&Change::RollBack(None), None, &author()).unwrap();
        assert!(!applied.persisted);
        assert!(task.await.unwrap().unwrap().detail.unwrap().contains("edited meanwhile"));
        assert_eq!(on_disk(&folder).0, "# mine\n");
    }
}
