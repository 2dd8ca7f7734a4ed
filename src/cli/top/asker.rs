//! Asks the side port again and again, beside the terminal: a server that hangs keeps nobody from leaving.

use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use super::super::client::{Ask, Client, Writing};
use super::super::drained::Drained;
use super::super::failure::Failure;
use super::super::output::counted;
use super::board::Action;
use super::sample::Sample;

/// What the history shows as the reason.
const WHY: &str = "evener top";

/// What came of asking.
pub(super) enum News {
    Sample(Box<Sample>),
    /// Why there are no figures.
    Lost(String),
    /// What was done, in a line.
    Done(String),
    /// Why it was not done, in the server's words.
    Refused(String),
}

/// Somebody who asks.
pub(super) struct Asker<T> {
    client: Arc<Client>,
    news: Sender<T>,
    /// Ends the wait for the next look.
    nudge: Sender<()>,
}

impl<T: From<News> + Send + 'static> Asker<T> {
    /// Looks `every` so often from now on; times are counted from `started`.
    pub(super) fn start(client: Arc<Client>, started: Instant, every: Duration, news: Sender<T>) -> Self {
        let (nudge, nudges) = mpsc::channel();
        let asker = Self { client: client.clone(), news: news.clone(), nudge };
        thread::spawn(move || {
            loop {
                // A nudge, or the end of the wait: both mean now.
                let _ = nudges.recv_timeout(every);
                while nudges.try_recv().is_ok() {}
                let told = match Sample::take(&client, || started.elapsed()) {
                    Ok(sample) => News::Sample(Box::new(sample)),
                    Err(failure) => News::Lost(headline(&failure)),
                };
                if news.send(told.into()).is_err() {
                    return;
                }
            }
        });
        asker
    }

    pub(super) fn ask_now(&self) {
        let _ = self.nudge.send(());
    }

    /// Beside the figures, which go on.
    pub(super) fn act(&self, action: Action) {
        let (client, news, nudge) = (self.client.clone(), self.news.clone(), self.nudge.clone());
        thread::spawn(move || {
            let told = match action.perform(&client) {
                Ok(done) => News::Done(done),
                Err(failure) => News::Refused(failure.to_string()),
            };
            let _ = news.send(told.into());
            let _ = nudge.send(());
        });
    }
}

/// What happened, without what to do; and without where, which stands above it already.
fn headline(failure: &Failure) -> String {
    let text = failure.to_string();
    let first = text.lines().next().unwrap_or_default();
    let told = first.strip_prefix("error: ").unwrap_or(first);
    match (failure, told.split_once(": ")) {
        (Failure::Unreachable(_), Some((_, what))) => what.to_owned(),
        _ => told.to_owned(),
    }
}

/// What there is to know after a drain was asked for, in a line.
fn outlook(drained: &Drained) -> String {
    if drained.safe_to_stop {
        return "safe to stop".to_owned();
    }
    let in_flight = counted(drained.requests(), "request");
    match drained.also_in.as_slice() {
        [] => format!("{in_flight} in flight, not safe to stop yet"),
        pools => format!("{in_flight} in flight, and pool {} still sends there", pools.join(", ")),
    }
}

impl Action {
    pub(super) fn under_way(&self) -> String {
        match self {
            Self::Drain(member) => format!("draining {member} ..."),
            Self::Ready(member) => format!("making {member} ready ..."),
        }
    }

    fn perform(&self, client: &Client) -> Result<String, Failure> {
        let why = Writing::because(WHY);
        match self {
            Self::Drain(member) => {
                let ask = Ask::post(format!("{}/drain?wait=0s", member.path())).because(&why);
                let drained: Drained = client.ask(&ask)?.view()?;
                Ok(format!("{member} gets no new requests: {}", outlook(&drained)))
            }
            Self::Ready(member) => {
                client.ask(&Ask::patch(member.path(), &json!({"state": "ready"})).because(&why))?;
                Ok(format!("{member} is ready"))
            }
        }
    }
}
