//! What signals do: HUP reloads · TERM and INT drain and stop, a second one stops at once · QUIT and
//! USR2 are for upgrades, which this version does not have, and are ignored · XFSZ, a file that may not grow,
//! fails the write and not the process.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use pingora::server::{ShutdownSignal, ShutdownSignalWatch};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::control::{Author, Change, Control};
use crate::runtime::Runtime;
use crate::server::DRAIN_POLL;

/// A HUP that came before anybody waited for it. Without a handler it would end the process.
static EARLY_HUP: std::sync::LazyLock<Arc<AtomicBool>> = std::sync::LazyLock::new(Arc::default);

/// Installs the handler for HUP, and one for XFSZ; called first thing in `main`.
pub fn survive_hangup() {
    if let Err(error) = signal_hook::flag::register(signal_hook::consts::SIGHUP, EARLY_HUP.clone()) {
        tracing::warn!(%error, "cannot handle SIGHUP, it will end the process");
    }
    survive_full_files();
}

/// A write beyond the largest file size of the process (`ulimit -f`) ends it, unless somebody handles the
/// signal; then the write fails, and whoever made it says so.
fn survive_full_files() {
    if let Err(error) = signal_hook::flag::register(libc::SIGXFSZ, Arc::default()) {
        tracing::warn!(%error, "cannot handle SIGXFSZ, a write beyond `ulimit -f` will end the process");
    }
}

/// Takes [`survive_hangup`] back, for commands that should end with their terminal.
pub fn end_by_hangup() {
    let always = Arc::new(AtomicBool::new(true));
    if let Err(error) = signal_hook::flag::register_conditional_default(signal_hook::consts::SIGHUP, always) {
        tracing::warn!(%error, "cannot handle SIGHUP");
    }
}

/// Waits for signals on behalf of Pingora, which asks once and then stops.
pub struct Signals {
    control: Arc<Control>,
}

impl Signals {
    /// Acts on `control`.
    pub fn new(control: Arc<Control>) -> Self {
        Self { control }
    }
}

#[async_trait]
impl ShutdownSignalWatch for Signals {
    async fn recv(&self) -> ShutdownSignal {
        let Ok(mut all) = AllSignals::install() else {
            tracing::error!("cannot install signal handlers, stopping");
            return ShutdownSignal::FastShutdown;
        };
        self.control.runtime().readiness.set_hearing();
        if EARLY_HUP.swap(false, Ordering::Relaxed) {
            self.reload();
        }
        loop {
            tokio::select! {
                _ = all.hangup.recv() => self.reload(),
                _ = all.quit.recv() => ignore_upgrade("SIGQUIT"),
                _ = all.user2.recv() => ignore_upgrade("SIGUSR2"),
                _ = all.terminate.recv() => break,
                _ = all.interrupt.recv() => break,
            }
        }
        self.begin_to_stop(all).await
    }
}

impl Signals {
    /// On a thread that may wait for the disk; nobody waits for it, so that the next signal is heard.
    fn reload(&self) {
        let control = self.control.clone();
        tokio::task::spawn_blocking(move || {
            control.runtime().reopen_access_log();
            // Control says what came of it, in the log.
            let _ = control.apply(&Change::Reload, None, &Author::file("SIGHUP"));
        });
    }

    /// Readiness fails first, so that traffic is sent elsewhere while we still accept it.
    async fn begin_to_stop(&self, mut all: AllSignals) -> ShutdownSignal {
        let runtime = self.control.runtime();
        let config = runtime.peek().config.clone();
        runtime.readiness.set_draining();
        tracing::info!(
            pre_stop_delay_s = config.server.pre_stop_delay.as_secs_f64(),
            drain_timeout_s = config.server.drain_timeout.as_secs_f64(),
            "draining"
        );
        tokio::select! {
            () = tokio::time::sleep(config.server.pre_stop_delay) => {}
            () = all.stop_now() => end(runtime, "stopped by a second signal"),
        }
        self.control.events().close();
        // The same signals go on: a second one that came between two sets of them would be lost.
        tokio::spawn(end_in_time(runtime.clone(), config.server.drain_timeout, all));
        ShutdownSignal::GracefulTerminate
    }
}

/// Ends the process as soon as no connection is open, at the end of the drain time, or at a second
/// signal: Pingora would sleep through its whole grace period.
async fn end_in_time(runtime: Arc<Runtime>, drain_timeout: Duration, mut all: AllSignals) {
    let drained = async {
        // Accept loops hear of the shutdown a moment after this begins.
        tokio::time::sleep(DRAIN_POLL).await;
        while runtime.listeners().iter().any(|listener| listener.metrics.open_connections() > 0) {
            tokio::time::sleep(DRAIN_POLL).await;
        }
    };
    tokio::select! {
        () = drained => end(&runtime, "drained"),
        () = tokio::time::sleep(drain_timeout) => end(&runtime, "drain timeout reached, closing what is left"),
        () = all.stop_now() => end(&runtime, "stopped by a second signal"),
    }
}

fn end(runtime: &Runtime, why: &'static str) {
    tracing::info!(why, "stopped");
    runtime.flush_access_log();
    std::process::exit(0);
}

fn ignore_upgrade(signal: &'static str) {
    tracing::warn!(signal, "signal ignored: this version cannot hand over to a new process");
}

struct AllSignals {
    hangup: Signal,
    quit: Signal,
    user2: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl AllSignals {
    fn install() -> std::io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            quit: signal(SignalKind::quit())?,
            user2: signal(SignalKind::user_defined2())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn stop_now(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
