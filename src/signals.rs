//! What signals do: HUP reloads · TERM and INT drain and stop, a second one stops at once · QUIT and
//! USR2 hand over to a new process · XFSZ, a file that may not grow, fails the write and not the process.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use pingora::server::{ShutdownSignal, ShutdownSignalWatch};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};

use crate::control::{
    Author, CannotUpgrade, Change, Control, HandedOver, Hindrance, UPGRADE_TIMEOUT, UpgradeRequest,
};
use crate::runtime::Runtime;
use crate::server::DRAIN_POLL;
use crate::upgrade::{self, SocketTable, Successor};

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

/// Waits for signals on behalf of Pingora, which asks once and then stops; and, since that is the one way to
/// stop, for those who ask for a successor over the side port.
pub struct Signals {
    control: Arc<Control>,
    table: SocketTable,
    /// Set when client connections that idle are to be closed.
    idle_ends: watch::Sender<bool>,
}

/// A successor that was started and does not serve yet, and who wants to know what comes of it.
struct UnderWay {
    attempt: Pin<Box<dyn Future<Output = Result<Successor, CannotUpgrade>> + Send>>,
    answer: Option<oneshot::Sender<Result<HandedOver, CannotUpgrade>>>,
    /// A HUP came meanwhile.
    has_to_reload: bool,
}

impl Signals {
    /// Acts on `control`, whose sockets are in `table`.
    pub(crate) fn new(control: Arc<Control>, table: SocketTable, idle_ends: watch::Sender<bool>) -> Self {
        Self { control, table, idle_ends }
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
        let mut requests = self.control.succession().take_requests();
        let mut under_way: Option<UnderWay> = None;
        loop {
            tokio::select! {
                _ = all.hangup.recv() => match &mut under_way {
                    Some(under_way) => under_way.has_to_reload = true,
                    None => self.reload(),
                },
                _ = all.quit.recv() => self.upgrade(by_signal("SIGQUIT"), &mut under_way),
                _ = all.user2.recv() => self.upgrade(by_signal("SIGUSR2"), &mut under_way),
                request = next(&mut requests) => self.upgrade(request, &mut under_way),
                result = outcome(&mut under_way) => {
                    let Some(UnderWay { answer, has_to_reload, .. }) = under_way.take() else { continue };
                    match result {
                        Ok(successor) => return self.hand_over(successor, answer, has_to_reload, all),
                        Err(cannot) => {
                            // Who asked may be gone.
                            let _ = answer.map(|answer| answer.send(Err(cannot)));
                            if has_to_reload {
                                self.reload();
                            }
                        }
                    }
                }
                _ = all.terminate.recv() => break,
                _ = all.interrupt.recv() => break,
            }
        }
        // A successor that does not serve yet ends with us: who stops the service does not want another one.
        drop(under_way);
        self.begin_to_stop(all).await
    }
}

fn by_signal(who: &str) -> UpgradeRequest {
    UpgradeRequest { author: Author::file(who), timeout: UPGRADE_TIMEOUT, answer: oneshot::channel().0 }
}

async fn next(requests: &mut Option<mpsc::UnboundedReceiver<UpgradeRequest>>) -> UpgradeRequest {
    match requests {
        Some(requests) => match requests.recv().await {
            Some(request) => request,
            // The control lives as long as we do.
            None => std::future::pending().await,
        },
        None => std::future::pending().await,
    }
}

async fn outcome(under_way: &mut Option<UnderWay>) -> Result<Successor, CannotUpgrade> {
    match under_way {
        Some(under_way) => under_way.attempt.as_mut().await,
        None => std::future::pending().await,
    }
}

impl Signals {
    /// On a thread that may wait for the disk; nobody waits for it, so that the next signal is heard.
    fn reload(&self) {
        let control = self.control.clone();
        tokio::spawn(async move {
            // Where we follow another process, it may not have handed over yet.
            control.writes_released().await;
            let reload = move || {
                upgrade::notify_reloading();
                control.runtime().reopen_access_log();
                // Control says what came of it, in the log.
                let _ = control.apply(&Change::Reload, None, &Author::file("SIGHUP"));
                upgrade::notify("READY=1");
            };
            tokio::task::spawn_blocking(reload).await
        });
    }

    fn upgrade(&self, request: UpgradeRequest, under_way: &mut Option<UnderWay>) {
        let UpgradeRequest { author, timeout, answer } = request;
        if under_way.is_some() {
            tracing::warn!(who = %author.who, "not handed over twice: another upgrade is under way");
            // Who asked may be gone.
            let _ = answer.send(Err(CannotUpgrade {
                kind: Hindrance::UnderWay,
                detail: "another upgrade is under way".to_owned(),
                help:
                    "wait for it: GET /v1/status shows the process that serves, /v1/events what comes of it"
                        .to_owned(),
            }));
            return;
        }
        let attempt = upgrade::attempt(self.control.clone(), self.table.clone(), author, timeout);
        *under_way =
            Some(UnderWay { attempt: Box::pin(attempt), answer: Some(answer), has_to_reload: false });
    }

    fn hand_over(
        &self,
        successor: Successor,
        answer: Option<oneshot::Sender<Result<HandedOver, CannotUpgrade>>>,
        has_to_reload: bool,
        all: AllSignals,
    ) -> ShutdownSignal {
        let _ = answer.map(|answer| answer.send(Ok(successor.handed_over.clone())));
        if has_to_reload {
            upgrade::pass_on_hangup(successor.handed_over.successor.pid);
        }
        self.control.events().close();
        tokio::spawn(upgrade::leave(self.control.clone(), successor, all, self.idle_ends.clone()));
        ShutdownSignal::GracefulTerminate
    }

    /// Readiness fails first, so that traffic is sent elsewhere while we still accept it.
    async fn begin_to_stop(&self, mut all: AllSignals) -> ShutdownSignal {
        let runtime = self.control.runtime();
        let config = runtime.peek().config.clone();
        runtime.readiness.set_draining();
        upgrade::notify("STOPPING=1");
        tracing::info!(
            pre_stop_delay_s = config.server.pre_stop_delay.as_secs_f64(),
            drain_timeout_s = config.server.drain_timeout.as_secs_f64(),
            "draining"
        );
        tokio::select! {
            () = tokio::time::sleep(config.server.pre_stop_delay) => {}
            () = all.stop_now() => end_for_good(&self.control, "stopped by a second signal"),
        }
        self.control.events().close();
        self.idle_ends.send_replace(true);
        // The same signals go on: a second one that came between two sets of them would be lost.
        tokio::spawn(end_in_time(self.control.clone(), config.server.drain_timeout, all));
        ShutdownSignal::GracefulTerminate
    }
}

/// Ends the process as soon as no connection is open, at the end of the drain time, or at a second
/// signal: Pingora would sleep through its whole grace period.
async fn end_in_time(control: Arc<Control>, drain_timeout: Duration, mut all: AllSignals) {
    let drained = async {
        // Accept loops hear of the shutdown a moment after this begins.
        tokio::time::sleep(DRAIN_POLL).await;
        while control.runtime().listeners().iter().any(|listener| listener.metrics.open_connections() > 0) {
            tokio::time::sleep(DRAIN_POLL).await;
        }
    };
    tokio::select! {
        () = drained => end_for_good(&control, "drained"),
        () = tokio::time::sleep(drain_timeout) => end_for_good(&control, "drain timeout reached, closing what is left"),
        () = all.stop_now() => end_for_good(&control, "stopped by a second signal"),
    }
}

/// Nobody goes on in our place, before the next start.
fn end_for_good(control: &Control, why: &'static str) {
    cut_what_is_left(control.runtime());
    control.save_state(true);
    end(control.runtime(), why);
}

/// Ends what is left, so that it leaves its line and is counted as any other request; by [`CUT_PATIENCE`] at the latest.
pub(crate) fn cut_what_is_left(runtime: &Runtime) {
    let requests_cut = runtime.requests_in_flight();
    if requests_cut == 0 {
        return;
    }
    tracing::warn!(requests_cut, "requests cut off, the time to drain is over");
    runtime.cut();
    let begun = Instant::now();
    while runtime.requests_in_flight() > 0 && begun.elapsed() < CUT_PATIENCE {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A request notices at once, but on a busy machine its thread may have to wait for its turn.
const CUT_PATIENCE: Duration = Duration::from_millis(500);

pub(crate) fn end(runtime: &Runtime, why: &'static str) {
    tracing::info!(why, "stopped");
    runtime.flush_access_log();
    runtime.spans.flush();
    std::process::exit(0);
}

/// All signals that we act on. They are never heard by two at a time.
pub(crate) struct AllSignals {
    pub(crate) hangup: Signal,
    quit: Signal,
    user2: Signal,
    pub(crate) terminate: Signal,
    pub(crate) interrupt: Signal,
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
