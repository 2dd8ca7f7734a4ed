//! The first configuration: what a process begins with.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use super::history::{History, NewEntry};
use super::overrides;
use super::store::Store;
use super::{Dropped, Running, Source, Writer};
use crate::config::{self, Config, Files, Loaded};
use crate::observe::{ChangeOrigin, utc};

/// A checked configuration with what was changed at run time before, ready to run.
pub struct Start {
    /// What is to run.
    pub config: Config,
    /// The number of its generation: goes on where the last process ended.
    pub generation: u64,
    /// Overrides that ended because the file was changed while nobody ran.
    pub dropped: Vec<Dropped>,
    pub(super) source: Source,
    pub(super) running: Running,
    pub(super) writer: Writer,
    pub(super) executable: PathBuf,
    pub(super) predecessor: Option<u32>,
}

impl Start {
    /// From a file that was read, and what lies beside it.
    ///
    /// # Errors
    ///
    /// Something is wrong with the overrides file; the text says what to do.
    pub fn from_file(path: PathBuf, loaded: Loaded) -> Result<Self, String> {
        let store = Store { file: path.clone() };
        let stored = store.overrides()?;
        let (running, overrides, dropped) = overrides::reconcile(&loaded.config, &stored);
        let history = History::open(Some(store.history_folder()));
        let text = Arc::from(loaded.source.text);
        let files = loaded.warnings.files().clone();
        let mut writer = Writer {
            store: Some(store),
            history,
            stored_overrides: stored.into(),
            refused: None,
            guarded: None,
        };
        let file = Arc::new(loaded.config);
        let running_now = Running { files, ..first(&mut writer, text, file, overrides.into()) };
        let generation = running_now.generation;
        Ok(Self {
            config: running,
            generation,
            dropped,
            source: Source::File(path),
            running: running_now,
            writer,
            executable: PathBuf::new(),
            predecessor: None,
        })
    }

    /// Says which file the process was started from, and which process it follows. One that follows another
    /// writes nothing before [`Control::release_writes`](super::Control::release_writes).
    #[must_use]
    pub fn following(self, predecessor: Option<u32>, executable: PathBuf) -> Self {
        Self { executable, predecessor, ..self }
    }

    /// How many overrides are in force.
    pub fn overrides(&self) -> usize {
        self.running.overrides.len()
    }

    /// From the command line or the environment; nothing that is changed later outlives the process.
    pub fn from_arguments(config: Config) -> Self {
        let history = History::open(None);
        let mut writer =
            Writer { store: None, history, stored_overrides: Arc::default(), refused: None, guarded: None };
        let text = config::text_of_addresses(&config).into();
        let running = first(&mut writer, text, Arc::new(config.clone()), Arc::default());
        let generation = running.generation;
        Self {
            config,
            generation,
            dropped: Vec::new(),
            source: Source::Arguments,
            running,
            writer,
            executable: PathBuf::new(),
            predecessor: None,
        }
    }
}

/// The same as at the end of the last process has the same number.
fn first(
    writer: &mut Writer,
    text: Arc<str>,
    file: Arc<Config>,
    overrides: Arc<[overrides::Override]>,
) -> Running {
    let before = writer.history.latest_generation();
    let last = writer.history.last_that_ran().filter(|last| last.generation == before);
    let is_same = last.is_some_and(|last| last.text == text && last.overrides == overrides);
    let generation = if is_same { before } else { before + 1 };
    if !is_same {
        writer.history.push(NewEntry {
            generation,
            at: utc(SystemTime::now()),
            origin: ChangeOrigin::Start.label(),
            who: "start".to_owned(),
            why: None,
            what: "start".to_owned(),
            // Such as after a crash in the middle of a guard: what was on trial is not what ran before.
            back_to: writer.history.same_as(&text, &overrides),
            overrides: overrides.clone(),
            text: text.clone(),
        });
    }
    Running { generation, text, file, overrides, files: Files::default() }
}
