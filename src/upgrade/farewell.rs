//! The old process after it handed over: finishes what it has, tells what it still counts, ends.
//!
//! Connections that idle stay open for their time, and the next request on one is answered with
//! `Connection: close`: a client that sends it in the very moment in which we close would see a reset.

use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::Successor;
use super::wire::{Link, MESSAGE_TIME, Message};
use crate::control::Control;
use crate::runtime::Legacy;
use crate::server::DRAIN_POLL;
use crate::signals::{AllSignals, cut_what_is_left, end};

/// How often the successor is told of what was counted here: as up to date as a scrape can tell.
const TELL_EVERY: Duration = Duration::from_millis(200);

/// Adding up takes no more than one part in so many of the time.
const TELL_COST: u32 = 20;

/// Who waits for an answer that the successor counts, too.
type Flushes = Option<mpsc::UnboundedReceiver<oneshot::Sender<()>>>;

/// Waits until nothing is open any more, or the drain time is over, and ends the process. TERM ends it sooner:
/// a first one closes what is idle (by `idle_ends`), a second one everything.
pub(crate) async fn leave(
    control: Arc<Control>,
    successor: Successor,
    mut signals: AllSignals,
    idle_ends: watch::Sender<bool>,
) {
    let drain_timeout = control.runtime().peek().config.server.drain_timeout;
    let until = Instant::now() + drain_timeout;
    let pid = successor.handed_over.successor.pid;
    let mut last_words = LastWords::new(control.clone(), successor);
    let mut flushes: Flushes = control.succession().take_flushes();
    let mut look = interval(DRAIN_POLL);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // Accept loops hear of the shutdown a moment after this begins.
    look.tick().await;
    let AllSignals { hangup, terminate, interrupt, .. } = &mut signals;
    let why = loop {
        let told_to_end = async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        tokio::select! {
            _ = look.tick() => if is_done(&control, *idle_ends.borrow()) { break "handed over, and drained" },
            () = sleep_until(last_words.due) => last_words.say().await,
            Some(asked) = next(&mut flushes) => {
                last_words.say().await;
                last_words.wait().await;
                // Who asked may be gone.
                let _ = asked.send(());
            }
            () = sleep_until(until) => break "handed over, drain timeout reached, closing what is left",
            _ = hangup.recv() => pass_on_hangup(pid),
            () = told_to_end => {
                if idle_ends.send_replace(true) {
                    break "handed over, stopped by a second signal";
                }
            }
        }
    };
    cut_what_is_left(control.runtime());
    last_words.say().await;
    last_words.wait().await;
    end(control.runtime(), why);
}

fn is_done(control: &Control, was_told: bool) -> bool {
    let is_open = control.runtime().listeners().iter().any(|it| it.metrics.open_connections() > 0);
    // Once we were told to end, nobody waits for an operator's idle connection.
    !is_open && (was_told || control.succession().visitors() == 0)
}

/// Who signals to us means the service.
pub(crate) fn pass_on_hangup(successor: u32) {
    let sent = i32::try_from(successor).map(|pid| kill(Pid::from_raw(pid), Signal::SIGHUP));
    if !matches!(sent, Ok(Ok(()))) {
        tracing::warn!(successor, "cannot pass SIGHUP on");
    }
}

async fn next(flushes: &mut Flushes) -> Option<oneshot::Sender<()>> {
    match flushes {
        Some(flushes) => flushes.recv().await,
        None => None,
    }
}

/// What is still counted here, on its way to the successor.
struct LastWords {
    control: Arc<Control>,
    /// `None`: the successor has ended, or was handed over from in its turn.
    link: Option<Link>,
    told: Legacy,
    said: u64,
    noted: u64,
    /// When to say more.
    due: Instant,
}

impl LastWords {
    fn new(control: Arc<Control>, successor: Successor) -> Self {
        let Successor { link, told, .. } = successor;
        Self { control, link: Some(link), told, said: 0, noted: 0, due: Instant::now() }
    }

    async fn say(&mut self) {
        let began = Instant::now();
        self.due = began + TELL_EVERY;
        let Some(link) = &mut self.link else { return };
        let now = self.control.runtime().legacy();
        let counted = now.since(&self.told);
        // Adding up ten thousand upstreams takes its time, which belongs to the requests that we finish.
        self.due = self.due.max(began + TELL_COST * began.elapsed());
        if counted.is_empty() {
            return;
        }
        let message = Message::Counted { number: self.said + 1, counted: Box::new(counted) };
        if link.say(&message).await.is_err() {
            self.link = None;
            return;
        }
        self.said += 1;
        self.told = now;
    }

    /// Until it is counted there.
    async fn wait(&mut self) {
        let Some(link) = &mut self.link else { return };
        while self.noted < self.said {
            match tokio::time::timeout(MESSAGE_TIME, link.hear()).await {
                Ok(Some(Message::Noted { number })) => self.noted = number,
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => {
                    self.link = None;
                    return;
                }
            }
        }
    }
}
