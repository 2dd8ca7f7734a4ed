//! What can change the running state, who asks for it, and what comes of it.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

use super::prepare::describe;
use crate::config::{CannotEdit, Files, LoadError, PoolEdit, UpstreamAddress};
use crate::observe::ChangeOrigin;

/// Everything that can change the running state.
#[derive(Clone, Debug)]
pub enum Change {
    /// Read the configuration file again.
    Reload,
    /// The same, if its text, or a certificate that it names, is another than what runs; for those who watch
    /// the files.
    ReloadIfEdited,
    /// Make this the text of the configuration file, and run it.
    Replace(String),
    /// Run what ran in this generation, or, without one, what was last different from what runs.
    RollBack(Option<u64>),
    /// Edit one pool, without touching the file.
    Edit {
        /// Name of the pool.
        pool: String,
        /// In their order; all of them or none.
        edits: Vec<PoolEdit>,
    },
    /// Forget what was changed at run time: the file alone counts.
    DropOverrides,
}

impl Change {
    /// What is asked for, in a few words: `reload`, `roll back to generation 7`, `edit pool app: …`.
    pub fn what(&self) -> String {
        match self {
            Self::Reload | Self::ReloadIfEdited => "reload".to_owned(),
            Self::Replace(_) => "replace".to_owned(),
            Self::RollBack(Some(generation)) => format!("roll back to generation {generation}"),
            Self::RollBack(None) => "roll back".to_owned(),
            Self::Edit { pool, edits } => format!("edit pool {pool}: {}", describe(edits)),
            Self::DropOverrides => "drop overrides".to_owned(),
        }
    }
}

/// Who asks for a change, for the log and the history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Author {
    /// By which door.
    pub origin: ChangeOrigin,
    /// A token's name, `loopback`, `SIGHUP`, `file watch` …
    pub who: String,
    /// In the author's own words, if there are any.
    pub why: Option<String>,
}

impl Author {
    /// The process itself or its surroundings.
    pub fn file(who: &str) -> Self {
        Self { origin: ChangeOrigin::File, who: who.to_owned(), why: None }
    }
}

/// What must still hold for a change to be applied (`If-Match`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// There is something to change; also overrules an edit of the file that does not run yet.
    Exists,
    /// The entity tag is still one of these.
    Matches(Vec<String>),
}

/// A change that took effect.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Applied {
    /// The generation that runs now.
    pub generation: u64,
    /// Entity tag of the configuration now.
    pub tag: String,
    /// Whether anything is different from before; [`Change::ReloadIfEdited`] may find nothing to do.
    pub changed: bool,
    /// Upstreams that kept what was known of them.
    pub carried: usize,
    /// Upstreams that are new, as (pool, address).
    pub added: Vec<(String, UpstreamAddress)>,
    /// Upstreams that get no more requests, as (pool, address).
    pub removed: Vec<(String, UpstreamAddress)>,
    /// What was forgotten all the same.
    pub reset: Vec<Reset>,
    /// Overrides that ended because the file says something new.
    pub dropped: Vec<Dropped>,
    /// What is odd about the configuration.
    pub warnings: Vec<String>,
    /// Whether the change outlives the process.
    pub persisted: bool,
}

/// Something that a change made us forget.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reset {
    /// The pool.
    pub pool: String,
    /// What is known no more: `rotation`, `health`, `ejection`.
    pub what: &'static str,
    /// Why.
    pub why: String,
}

/// An override that a change ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Dropped {
    /// The pool.
    pub pool: String,
    /// The upstream, if it was about one.
    pub upstream: Option<String>,
    /// `strategy`, `weight`, `state`, `added`, `removed` …
    pub setting: &'static str,
    /// The value that holds no more.
    pub value: String,
    /// Why.
    pub why: String,
}

impl fmt::Display for Dropped {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pool, upstream, setting, value, why } = self;
        let upstream = upstream.as_deref().map(|address| format!(", upstream {address}")).unwrap_or_default();
        write!(formatter, "pool `{pool}`{upstream}: `{setting}` {value}: {why}")
    }
}

impl Dropped {
    /// Says so in the log.
    pub fn tell(&self) {
        tracing::warn!(
            pool = %self.pool,
            upstream = self.upstream.as_deref().unwrap_or_default(),
            setting = self.setting,
            value = %self.value,
            why = %self.why,
            "override dropped"
        );
    }
}

/// A change that did not take effect; nothing is different from before.
#[derive(Debug)]
pub enum Rejected {
    /// The process was started without a file.
    NoFile,
    /// The configuration cannot be read or is wrong; says where, and what to do.
    Invalid(LoadError),
    /// These settings are fixed when the process starts.
    RestartRequired {
        /// As the file spells them.
        settings: Vec<&'static str>,
        /// The file, for the command that applies them.
        file: PathBuf,
    },
    /// Somebody else was faster: the condition does not hold (any more).
    ChangedMeanwhile {
        /// The entity tag now.
        tag: String,
    },
    /// The file on disk is not what runs: somebody edited it.
    FileEdited(PathBuf),
    /// There is no such pool.
    UnknownPool(String),
    /// The pool cannot be edited so.
    CannotEdit {
        /// The pool.
        pool: String,
        /// Why.
        why: CannotEdit,
    },
    /// The history does not know this generation.
    UnknownGeneration(Option<u64>),
    /// A guarded change is under way, and decides first.
    Guarded,
    /// Another process takes our place, and is the one to ask then.
    HandingOver,
    /// The change could not be written where it would survive a restart.
    CannotPersist {
        /// What could not be written.
        path: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
}

impl Rejected {
    /// The files that were read to find this out.
    pub(super) fn files(&self) -> Files {
        match self {
            Self::Invalid(LoadError::Invalid(report)) => report.files().clone(),
            _ => Files::default(),
        }
    }

    /// Whether it says nothing of what was asked for: somebody else was first, or decides first, or there is no
    /// file at all. Nothing that runs, or would start, is wrong then.
    pub(super) const fn is_no_verdict(&self) -> bool {
        match self {
            Self::ChangedMeanwhile { .. }
            | Self::FileEdited(_)
            | Self::Guarded
            | Self::HandingOver
            | Self::NoFile => true,
            Self::Invalid(_)
            | Self::RestartRequired { .. }
            | Self::UnknownPool(_)
            | Self::CannotEdit { .. }
            | Self::UnknownGeneration(_)
            | Self::CannotPersist { .. } => false,
        }
    }

    /// What to do next.
    pub fn help(&self) -> String {
        match self {
            Self::NoFile => "start with `evener run --config FILE` to have one; changes of a pool and its upstreams work without".to_owned(),
            Self::Invalid(LoadError::Unreadable(unreadable)) => unreadable.help(),
            Self::Invalid(LoadError::Invalid(_)) => "mend what `errors` lists and try again; nothing was applied".to_owned(),
            Self::RestartRequired { file, .. } => format!(
                "to apply it, put it into {} and hand over to a new process, which reads that: `evener upgrade` refuses no connection; or leave these settings as they are",
                file.display()
            ),
            Self::ChangedMeanwhile { tag } => format!("read it again, and repeat the change with `If-Match: {tag}` if it still makes sense"),
            Self::FileEdited(path) => format!(
                "reload first (`evener reload`) to run what {} says now, or overrule it with `If-Match: *`; its text goes to the history",
                path.display()
            ),
            Self::UnknownPool(_) => "GET /v1/pools lists them".to_owned(),
            Self::CannotEdit { pool, why } => match why {
                CannotEdit::UnknownUpstream(_) => format!("GET /v1/pools/{pool} lists them; the port must match too"),
                CannotEdit::AlreadyThere(_) => "PATCH it to change it, or DELETE it first".to_owned(),
                CannotEdit::Wrong { help, .. } => help.clone(),
            },
            Self::UnknownGeneration(_) => "GET /v1/config/history lists those that can be rolled back to".to_owned(),
            Self::Guarded => "POST /v1/config/confirm to keep it, POST /v1/config/rollback to end it, or wait; GET /v1/config/guard shows how it stands".to_owned(),
            Self::HandingOver => "ask again in a moment: the successor then answers at the same address, or, if it fails, this process does".to_owned(),
            Self::CannotPersist { path, error } => advice(path, error),
        }
    }
}

fn advice(path: &std::path::Path, error: &std::io::Error) -> String {
    use std::io::ErrorKind;
    let folder = path.parent().unwrap_or(path).display();
    match error.kind() {
        ErrorKind::PermissionDenied => {
            format!("let the user that runs Evener write to {folder}, and own what it replaces there; the change was not applied")
        }
        ErrorKind::ReadOnlyFilesystem => format!(
            "{folder} is read-only (a config map?): change the file where it is kept, or run from a folder that can be written; the change was not applied"
        ),
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            format!(
                "make room on the disk that holds {folder}; the change was not applied, and the file is as it was"
            )
        }
        ErrorKind::FileTooLarge => {
            "raise the largest file size of the process (`ulimit -f`); the change was not applied, and the file is as it was".to_owned()
        }
        ErrorKind::ResourceBusy => format!(
            "a file that is mounted by itself cannot be replaced: mount {folder} instead; the change was not applied"
        ),
        ErrorKind::AlreadyExists => {
            format!("remove what stands in the way in {folder}; the change was not applied, and the file is as it was")
        }
        _ => format!("check {folder} and its disk, then try again; the change was not applied"),
    }
}

impl fmt::Display for Rejected {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoFile => formatter.write_str("the process was started without a configuration file"),
            Self::Invalid(error) => error.fmt(formatter),
            Self::RestartRequired { settings, .. } => {
                let settings: Vec<String> = settings.iter().map(|setting| format!("`{setting}`")).collect();
                write!(formatter, "{} cannot change while running", settings.join(", "))
            }
            Self::ChangedMeanwhile { .. } => formatter.write_str("it was changed meanwhile"),
            Self::FileEdited(path) => {
                write!(formatter, "{} was edited, and its new text does not run yet", path.display())
            }
            Self::UnknownPool(pool) => write!(formatter, "there is no pool `{pool}`"),
            Self::CannotEdit { pool, why } => write!(formatter, "pool `{pool}`: {why}"),
            Self::UnknownGeneration(Some(generation)) => {
                write!(formatter, "the history has no generation {generation}")
            }
            Self::UnknownGeneration(None) => formatter.write_str("nothing else ran before this generation"),
            Self::Guarded => formatter.write_str("a guarded change is under way"),
            Self::HandingOver => formatter.write_str("the process hands over to another one"),
            Self::CannotPersist { path, error } => {
                write!(formatter, "cannot write {}: {error}", path.display())
            }
        }
    }
}

impl std::error::Error for Rejected {}
