//! The one writer: every change of what is running goes through [`Control::apply`].
//!
//! ```text
//!   SIGHUP, …  ──►  Change  ──►  Control::apply  ──►  check ──► build ──► publish ──► tell the watchers
//!                                 (one at a time)       └─► Rejected: nothing has changed
//! ```

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use tokio::sync::{mpsc, oneshot, watch};

use crate::config::{self, Config};
use crate::observe::{ChangeOrigin, ChangeResult};
use crate::runtime::{Runtime, Snapshot};

/// Where the running configuration came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A file, which a reload reads again.
    File(PathBuf),
    /// The command line or the environment; there is nothing to read again.
    Arguments,
}

/// Everything that can change the running state.
#[derive(Debug)]
pub enum Change {
    /// Read the configuration file again.
    Reload,
}

/// A change that took effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The generation that runs now.
    pub generation: u64,
    /// Upstreams that kept what was known of them.
    pub carried: usize,
    /// Upstreams that are new.
    pub added: usize,
    /// Upstreams that get no more requests.
    pub removed: usize,
}

/// A change that did not; nothing is different from before.
#[derive(Debug)]
pub enum Rejected {
    /// The process was started without a file.
    NoFile,
    /// The file cannot be read or is wrong; the text says where, and what to do.
    Invalid(String),
    /// This setting is fixed when the process starts.
    RestartRequired {
        /// As the file spells it.
        setting: &'static str,
    },
}

impl std::fmt::Display for Rejected {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoFile => formatter
                .write_str("there is no file to reload; start with `evener run --config FILE` to have one"),
            Self::Invalid(report) => formatter.write_str(report),
            Self::RestartRequired { setting } => {
                write!(formatter, "`{setting}` cannot change while running; restart to apply it")
            }
        }
    }
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
    applying: Mutex<()>,
    generation: watch::Sender<u64>,
    probe_now: mpsc::UnboundedSender<ProbeNow>,
    probe_requests: Mutex<Option<mpsc::UnboundedReceiver<ProbeNow>>>,
}

impl Control {
    /// Controls `runtime`, which runs what was read from `source`.
    pub fn new(runtime: Arc<Runtime>, source: Source) -> Self {
        let first = runtime.peek().generation;
        runtime.metrics.config_changed(ChangeOrigin::Start, ChangeResult::Applied);
        runtime.metrics.config_applied(first, SystemTime::now());
        let generation = watch::Sender::new(first);
        let (probe_now, requests) = mpsc::unbounded_channel();
        let probe_requests = Mutex::new(Some(requests));
        Self { runtime, source, applying: Mutex::new(()), generation, probe_now, probe_requests }
    }

    /// What is running.
    pub fn runtime(&self) -> &Arc<Runtime> {
        &self.runtime
    }

    /// Where the configuration came from.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// Changes with every generation; for those who follow the snapshot.
    pub fn generations(&self) -> watch::Receiver<u64> {
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

    /// Applies a change in full or not at all.
    ///
    /// # Errors
    ///
    /// See [`Rejected`]; the running state is then as before.
    pub fn apply(&self, change: &Change) -> Result<Applied, Rejected> {
        let _one_at_a_time = lock(&self.applying);
        let result = match change {
            Change::Reload => self.reload(),
        };
        self.tell(&result);
        result
    }

    fn tell(&self, result: &Result<Applied, Rejected>) {
        let metrics = &self.runtime.metrics;
        match result {
            Ok(applied) => {
                metrics.config_changed(ChangeOrigin::File, ChangeResult::Applied);
                metrics.config_applied(applied.generation, SystemTime::now());
                tracing::info!(
                    generation = applied.generation,
                    carried = applied.carried,
                    added = applied.added,
                    removed = applied.removed,
                    "configuration applied"
                );
            }
            Err(rejected) => {
                metrics.config_changed(ChangeOrigin::File, ChangeResult::Refused);
                tracing::error!(reason = %rejected, "configuration refused, nothing was changed");
            }
        }
    }

    fn reload(&self) -> Result<Applied, Rejected> {
        let Source::File(path) = &self.source else { return Err(Rejected::NoFile) };
        let loaded = config::load(path).map_err(|error| Rejected::Invalid(error.to_string()))?;
        self.replace(loaded.config)
    }

    fn replace(&self, next: Config) -> Result<Applied, Rejected> {
        let running = self.runtime.snapshot();
        if let Some(setting) = fixed_at_start(&running.config, &next) {
            return Err(Rejected::RestartRequired { setting });
        }
        let snapshot = Snapshot::build(next, Some(&running), self.runtime.now(), fastrand::u64(..));
        let applied = compare(&running, &snapshot);
        self.runtime.publish(snapshot);
        self.generation.send_replace(applied.generation);
        Ok(applied)
    }
}

/// The first setting that differs and that Pingora, or the log, fixes when the process starts.
fn fixed_at_start(running: &Config, next: &Config) -> Option<&'static str> {
    let addresses = |config: &Config| -> Vec<(String, std::net::SocketAddr)> {
        config.listeners.iter().map(|listener| (listener.name.clone(), listener.address)).collect()
    };
    if running.server.threads != next.server.threads {
        return Some("server.threads");
    }
    if running.admin.address != next.admin.address {
        return Some("admin.address");
    }
    if running.log != next.log {
        return Some("log");
    }
    (addresses(running) != addresses(next)).then_some("listeners")
}

fn compare(before: &Snapshot, after: &Snapshot) -> Applied {
    let states = |snapshot: &Snapshot| -> Vec<*const crate::runtime::UpstreamState> {
        let upstreams = snapshot.pools().iter().flat_map(crate::runtime::Pool::upstreams);
        upstreams.map(|upstream| Arc::as_ptr(&upstream.state)).collect()
    };
    let (old, new) = (states(before), states(after));
    let known: std::collections::HashSet<_> = old.iter().collect();
    let carried = new.iter().filter(|state| known.contains(state)).count();
    Applied {
        generation: after.generation,
        carried,
        added: new.len() - carried,
        removed: old.len() - carried,
    }
}

/// A panic while holding one of these locks leaves nothing half done, so a poisoned lock is usable.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
