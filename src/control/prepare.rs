//! From a change to what would run: reads, checks and compares, and touches nothing.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::overrides::{self, Override};
use super::store::Store;
use super::{Applied, Author, Change, Control, Dropped, Refused, Rejected, Reset, Running, Writer};
use crate::config::{self, CannotEdit, Config, Files, LoadError, LogConfig, PoolConfig, PoolEdit, Report};
use crate::health::Mode;
use crate::runtime::{Pool, Readmission, Snapshot, Upstream};

/// What would run after a change.
pub(super) struct Next {
    pub(super) text: Arc<str>,
    /// What the text says.
    pub(super) file: Arc<Config>,
    /// What runs: the file's word, and the overrides on top.
    pub(super) config: Config,
    pub(super) overrides: Arc<[Override]>,
    pub(super) files: Files,
    pub(super) dropped: Vec<Dropped>,
    pub(super) warnings: Vec<String>,
    /// For the history.
    pub(super) what: String,
    /// The generation that would run again.
    pub(super) back_to: Option<u64>,
}

impl Control {
    /// What a change leads to; `None`: to nothing new.
    pub(super) fn prepare(
        &self,
        writer: &mut Writer,
        change: &Change,
        author: &Author,
    ) -> Result<Option<Next>, Rejected> {
        let running = self.running();
        match change {
            Change::Reload => {
                let store = writer.store.as_ref().ok_or(Rejected::NoFile)?;
                let text = config::Source::read_again(&store.file).map_err(Rejected::Invalid)?.text;
                self.reload(writer, &running, text).map(Some)
            }
            Change::ReloadIfEdited => {
                let store = writer.store.as_ref().ok_or(Rejected::NoFile)?;
                // A file that is gone for a moment, while an editor replaces it, is no edit.
                let Ok(source) = config::Source::read_again(&store.file) else { return Ok(None) };
                let says_the_same = *source.text == *running.text;
                let runs = says_the_same && !running.files.have_changed();
                if runs || writer.refused.as_ref().is_some_and(|refused| refused.is_still(&source.text)) {
                    return Ok(None);
                }
                let next = self.reload(writer, &running, source.text)?;
                if says_the_same && next.file == running.file {
                    self.note_files(next.files);
                    return Ok(None);
                }
                Ok(Some(next))
            }
            Change::Replace(text) => {
                let store = writer.store.as_ref().ok_or(Rejected::NoFile)?;
                self.with_text(store, text, &running.overrides, "replace".to_owned()).map(Some)
            }
            Change::RollBack(generation) => self.roll_back(writer, &running, *generation).map(Some),
            Change::Edit { pool, edits } => self.edit(&running, pool, edits, author),
            Change::DropOverrides if running.overrides.is_empty() && writer.stored_overrides.is_empty() => {
                Ok(None)
            }
            Change::DropOverrides => Ok(Some(Next {
                text: running.text.clone(),
                file: running.file.clone(),
                config: (*running.file).clone(),
                overrides: Arc::default(),
                files: running.files.clone(),
                dropped: Vec::new(),
                warnings: Vec::new(),
                what: "drop overrides".to_owned(),
                back_to: None,
            })),
        }
    }

    fn reload(&self, writer: &mut Writer, running: &Running, text: String) -> Result<Next, Rejected> {
        let store = writer.store.as_ref().ok_or(Rejected::NoFile)?;
        let next = self.with_text(store, &text, &running.overrides, "reload".to_owned());
        writer.refused = next.as_ref().err().map(|why| Refused::new(text, why));
        next
    }

    /// What runs when the file has this text.
    fn with_text(
        &self,
        store: &Store,
        text: &str,
        known: &[Override],
        what: String,
    ) -> Result<Next, Rejected> {
        let (file, warnings) = parse(&store.file, text)?;
        self.with_file(store, file, text, known, what, &warnings)
    }

    fn with_file(
        &self,
        store: &Store,
        file: Config,
        text: &str,
        known: &[Override],
        what: String,
        warnings: &Report,
    ) -> Result<Next, Rejected> {
        let settings = fixed_at_start(&self.runtime.snapshot().config, &file);
        if !settings.is_empty() {
            return Err(Rejected::RestartRequired { settings, file: store.file.clone() });
        }
        Ok(self.reconciled(file, text, known, what, warnings))
    }

    /// What runs when the file says this, were it only for what can change while running.
    pub(super) fn reconciled(
        &self,
        mut file: Config,
        text: &str,
        known: &[Override],
        what: String,
        warnings: &Report,
    ) -> Next {
        let snapshot = self.runtime.snapshot();
        let running = self.running.load();
        share_what_is_same(&mut file, &running.file);
        keep_sessions(&mut file, &running.file);
        let (mut config, overrides, dropped) = overrides::reconcile(&file, known);
        share_what_is_same(&mut config, &snapshot.config);
        let text = if *text == *running.text { running.text.clone() } else { Arc::from(text) };
        let (warnings, files) = (said(warnings), warnings.files().clone());
        let (file, overrides) = (Arc::new(file), overrides.into());
        Next { text, file, config, overrides, files, dropped, warnings, what, back_to: None }
    }

    pub(super) fn roll_back(
        &self,
        writer: &Writer,
        running: &Running,
        generation: Option<u64>,
    ) -> Result<Next, Rejected> {
        let unknown = || Rejected::UnknownGeneration(generation);
        let entry = match generation {
            Some(generation) => writer.history.find(generation),
            None => writer.history.before(running),
        };
        let entry = entry.ok_or_else(unknown)?;
        let (what, back_to) =
            (format!("roll back to generation {}", entry.generation), Some(entry.generation));
        if let Some(store) = &writer.store {
            return Ok(Next { back_to, ..self.with_text(store, &entry.text, &entry.overrides, what)? });
        }
        // Without a file the text is always the same.
        let (config, overrides, dropped) = overrides::reconcile(&running.file, &entry.overrides);
        let (text, file, overrides) = (running.text.clone(), running.file.clone(), overrides.into());
        let files = running.files.clone();
        Ok(Next { text, file, config, overrides, files, dropped, warnings: Vec::new(), what, back_to })
    }

    fn edit(
        &self,
        running: &Running,
        name: &str,
        edits: &[PoolEdit],
        author: &Author,
    ) -> Result<Option<Next>, Rejected> {
        let snapshot = self.runtime.snapshot();
        let mut config = (*snapshot.config).clone();
        let unknown = || Rejected::UnknownPool(name.to_owned());
        let listeners = std::mem::take(&mut config.listeners);
        // The file and what runs have the same pools in the same order; overrides are about their members.
        let index = snapshot.pool_index(name).ok_or_else(unknown)?;
        let pool = config.pools.get_mut(index).ok_or_else(unknown)?;
        let in_file = running.file.pools.get(index).filter(|pool| pool.name == name).ok_or_else(unknown)?;
        let edited = config::edit(pool, edits, &listeners)
            .map_err(|why| Rejected::CannotEdit { pool: name.to_owned(), why })?;
        if edited == **pool {
            return Ok(None);
        }
        let what = format!("edit pool {name}: {}", describe(edits));
        let overrides = overrides::difference(in_file, &edited, &running.overrides, author).into();
        let grows = edited.upstreams.len() > pool.upstreams.len();
        *pool = Arc::new(edited);
        if grows && let Some(why) = too_many_upstreams(&config) {
            return Err(Rejected::CannotEdit { pool: name.to_owned(), why });
        }
        config.listeners = listeners;
        let (text, file) = (running.text.clone(), running.file.clone());
        let (dropped, warnings) = (Vec::new(), Vec::new());
        let files = running.files.clone();
        Ok(Some(Next { text, file, config, overrides, files, dropped, warnings, what, back_to: None }))
    }
}

/// The same limit as for a file.
fn too_many_upstreams(config: &Config) -> Option<CannotEdit> {
    let (found, most) =
        (config.pools.iter().map(|pool| pool.upstreams.len()).sum::<usize>(), config::limits::UPSTREAMS_MAX);
    (found > most).then(|| CannotEdit::Wrong {
        message: format!("all pools together would have {found} upstreams, at most {most} are possible"),
        help: "remove some that are not needed first".to_owned(),
    })
}

pub(super) fn parse(path: &Path, text: &str) -> Result<(Config, Report), Rejected> {
    let folder = path.parent().unwrap_or(Path::new(".")).to_owned();
    let source = config::Source { name: path.display().to_string(), text: text.to_owned(), folder };
    let environment = |name: &str| std::env::var(name).ok();
    config::parse_with_warnings(&source, &environment)
        .map_err(|report| Rejected::Invalid(LoadError::Invalid(report)))
}

/// One line for each warning.
pub(super) fn said(warnings: &Report) -> Vec<String> {
    let say = |warning: config::Mistake<'_>| {
        format!("line {}: {}; {}", warning.line, warning.message, warning.help)
    };
    warnings.warnings().map(say).collect()
}

/// The settings that differ and that Pingora, or the log, fixes when the process starts.
pub(super) fn fixed_at_start(running: &Config, next: &Config) -> Vec<&'static str> {
    let addresses = |config: &Config| -> Vec<(String, std::net::SocketAddr)> {
        config.listeners.iter().map(|listener| (listener.name.clone(), listener.address)).collect()
    };
    let fixed = [
        ("server.threads", running.server.threads != next.server.threads),
        ("server.state_file", running.server.state_file != next.server.state_file),
        ("admin.address", running.admin.address != next.admin.address),
        ("log", running.log != LogConfig { access_filter: running.log.access_filter, ..next.log.clone() }),
        ("listeners", addresses(running) != addresses(next)),
    ];
    fixed.into_iter().filter_map(|(setting, differs)| differs.then_some(setting)).collect()
}

/// Routes and pools that say the same as before become the same, so that building takes them over.
fn share_what_is_same(next: &mut Config, before: &Config) {
    share(&mut next.pools, &before.pools, |pool| &pool.name);
    share(&mut next.routes, &before.routes, |route| &route.name);
}

/// A listener whose TLS says the same as before goes on with it, so that clients can resume their sessions.
fn keep_sessions(next: &mut Config, before: &Config) {
    for listener in &mut next.listeners {
        let old = before.listeners.iter().find(|old| old.name == listener.name);
        if let Some(same) = old.filter(|old| old.tls == listener.tls) {
            listener.tls.clone_from(&same.tls);
        }
    }
}

fn share<T: PartialEq>(next: &mut [Arc<T>], before: &[Arc<T>], name: impl Fn(&T) -> &str) {
    // Made when one is not in the place that it had.
    let known = std::cell::OnceCell::new();
    let by_name = || before.iter().map(|one| (name(one), one)).collect::<HashMap<&str, &Arc<T>>>();
    for (index, one) in next.iter_mut().enumerate() {
        let in_place = before.get(index).filter(|old| Arc::ptr_eq(old, one) || name(old) == name(one));
        let old = in_place.or_else(|| known.get_or_init(by_name).get(name(one)).copied());
        if let Some(same) = old.filter(|old| !Arc::ptr_eq(old, one) && ***old == **one) {
            *one = same.clone();
        }
    }
}

/// One line for the history and the log.
pub(super) fn describe(edits: &[PoolEdit]) -> String {
    let describe = |edit: &PoolEdit| match edit {
        PoolEdit::Strategy { kind, .. } => format!("strategy {}", kind.name()),
        PoolEdit::Replace(upstreams) => format!("{} upstreams in place of all", upstreams.len()),
        PoolEdit::Add(upstreams) => {
            let addresses: Vec<&str> = upstreams.iter().take(8).map(|new| new.address.as_str()).collect();
            format!("add {}", addresses.join(", "))
        }
        PoolEdit::Remove(address) => format!("remove {address}"),
        PoolEdit::Weight(address, weight) => format!("weight of {address} {weight}"),
        PoolEdit::Mode(address, mode) => format!("state of {address} {}", mode.word()),
        PoolEdit::Drain(address) => format!("drain {address}"),
    };
    edits.iter().map(describe).collect::<Vec<_>>().join("; ")
}

/// Who stayed, came and went.
pub(super) fn compare(before: &Snapshot, after: &Snapshot) -> Applied {
    let mut applied = Applied { generation: after.generation, changed: true, ..Applied::default() };
    for (old, pool) in after.pools_changed_since(before) {
        compare_pool(old, pool, &mut applied);
    }
    for gone in after.pools_gone_since(before) {
        applied.removed.extend(gone.upstreams().iter().map(|upstream| named(gone, upstream)));
    }
    let all: usize = after.pools().map(|pool| pool.upstreams().len()).sum();
    applied.carried = all - applied.added.len();
    applied
}

fn compare_pool(before: Option<&Pool>, after: &Pool, applied: &mut Applied) {
    let old = before.map(Pool::upstreams).unwrap_or_default();
    let known: HashSet<_> = old.iter().map(|upstream| Arc::as_ptr(&upstream.state)).collect();
    let stays: HashSet<_> = after.upstreams().iter().map(|upstream| Arc::as_ptr(&upstream.state)).collect();
    let new = after.upstreams().iter().filter(|upstream| !known.contains(&Arc::as_ptr(&upstream.state)));
    applied.added.extend(new.map(|upstream| named(after, upstream)));
    let gone = old.iter().filter(|upstream| !stays.contains(&Arc::as_ptr(&upstream.state)));
    applied.removed.extend(gone.map(|upstream| named(after, upstream)));
}

fn named(pool: &Pool, upstream: &crate::runtime::Upstream) -> (String, config::UpstreamAddress) {
    (pool.config.name.clone(), upstream.config.address.clone())
}

/// Forgets what has lost its meaning, and says so.
pub(super) fn forget(before: &Snapshot, after: &Snapshot, now: Duration) -> Vec<Reset> {
    let mut reset = Vec::new();
    for (old, pool) in after.pools_changed_since(before) {
        let Some(old) = old else { continue };
        let mut note = |what, why: &str| {
            reset.push(Reset { pool: pool.config.name.clone(), what, why: why.to_owned() });
        };
        for (what, why) in resets(&old.config, &pool.config) {
            note(what, why);
        }
        if old.config.health_check.is_some() != pool.config.health_check.is_some() {
            // Also when checks begin: the last probe of an old one may have come in after it ended.
            for upstream in pool.upstreams() {
                upstream.state.forget_checks("health checks were turned on or off", now);
            }
        }
        if old.config.ejection.is_some() && pool.config.ejection.is_none() {
            for upstream in pool.upstreams() {
                upstream.state.readmit(Readmission::EjectionOff, now);
            }
        }
        if forget_old_verdicts(old, pool, now) {
            note("health", "nobody was asked during maintenance");
        }
    }
    reset
}

/// What checks said before a maintenance says nothing about what comes out of it: traffic waits for the
/// first one after it. `false`: nobody came out of one.
fn forget_old_verdicts(before: &Pool, after: &Pool, now: Duration) -> bool {
    let in_maintenance =
        before.upstreams().iter().filter(|upstream| upstream.config.mode == Mode::Maintenance);
    let were: HashSet<_> = in_maintenance.map(|upstream| Arc::as_ptr(&upstream.state)).collect();
    let is_back = |upstream: &&Upstream| {
        upstream.is_checked
            && upstream.config.mode != Mode::Maintenance
            && were.contains(&Arc::as_ptr(&upstream.state))
    };
    let why = "nobody was asked during maintenance";
    after.upstreams().iter().filter(is_back).map(|upstream| upstream.state.forget_verdict(why, now)).count()
        > 0
}

/// What of a pool loses its meaning by a change, and why.
pub(super) fn resets(before: &PoolConfig, after: &PoolConfig) -> Vec<(&'static str, &'static str)> {
    let all = [
        (before.strategy != after.strategy, "rotation", "the strategy is another one"),
        (before.health_check.is_some() && after.health_check.is_none(), "health", "health checks are off"),
        (before.ejection.is_some() && after.ejection.is_none(), "ejection", "ejection is off"),
    ];
    all.into_iter().filter_map(|(holds, what, why)| holds.then_some((what, why))).collect()
}
