//! The old process: starts a successor, and gives it what it needs, until it serves. Whatever goes wrong
//! before leaves everything as it was.

use std::fmt::Display;
use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::net::UnixStream as Plain;
use std::process::{Child, Command, ExitStatus};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::net::UnixStream;
use tokio::time::{sleep, timeout};

use super::heir::monotonic_us;
use super::wire::{Hello, Link, MESSAGE_TIME, Message, PROTOCOL, VARIABLE, send_hello};
use super::{SocketTable, systemd};
use crate::control::{Author, CannotUpgrade, Control, HandedOver, Hindrance, ProcessView};
use crate::runtime::Legacy;

/// A process that serves in our place.
pub(crate) struct Successor {
    /// Who we were, who it is, how long it took.
    pub(crate) handed_over: HandedOver,
    pub(super) link: Link,
    /// What it knows of our figures.
    pub(super) told: Legacy,
}

/// Starts a successor and hands over to it, within `time`. When this future is dropped, the successor is ended,
/// and everything is as before.
///
/// # Errors
///
/// See [`CannotUpgrade`]; everything is as before.
pub(crate) async fn attempt(
    control: Arc<Control>,
    table: SocketTable,
    author: Author,
    time: Duration,
) -> Result<Successor, CannotUpgrade> {
    let began = Instant::now();
    let attempt = Attempt { control: &control, table: &table, author: &author };
    let result = match timeout(time, attempt.run(began)).await {
        Ok(result) => result,
        Err(_) => Err(failed(
            format!("the successor did not come to serve within {} s, and was ended", time.as_secs_f64()),
            "its lines in the log say how far it came; it waits for the first health checks, and `evener upgrade --timeout 2m` for longer",
        )),
    };
    attempt.tell(result.as_ref());
    result
}

struct Attempt<'a> {
    control: &'a Arc<Control>,
    table: &'a SocketTable,
    author: &'a Author,
}

impl Attempt<'_> {
    async fn run(&self, began: Instant) -> Result<Successor, CannotUpgrade> {
        check_surroundings()?;
        let held = Held::hold(self.control)?;
        let mut heir = self.spawn()?;
        systemd::notify_reloading();
        let stream = heir.stream.take().ok_or_else(|| failed("it has no stream", HELP))?;
        match self.introduce(stream, &mut heir, began).await {
            Ok(successor) => {
                heir.stay();
                held.keep();
                Ok(successor)
            }
            Err(Trouble::Told(reason)) => {
                Err(failed(format!("the successor (process {}) gave up: {reason}", heir.pid()), HELP))
            }
            Err(Trouble::Gone) => {
                let end = heir.end().await;
                Err(failed(format!("the successor (process {}) {end} before it served", heir.pid()), HELP))
            }
            Err(Trouble::Wire(error)) => {
                let end = heir.end().await;
                Err(failed(
                    format!(
                        "the successor (process {}) does not listen to us ({error}); it {end}",
                        heir.pid()
                    ),
                    HELP,
                ))
            }
        }
    }

    fn spawn(&self) -> Result<Heir, CannotUpgrade> {
        let file = self.control.succession().executable();
        let cannot = |error: &dyn Display| {
            failed(
                format!("cannot start {}: {error}", file.display()),
                "put a program there that this process may run, as it was when it started",
            )
        };
        let (ours, theirs) = Plain::pair().map_err(|error| cannot(&error))?;
        ours.set_nonblocking(true).map_err(|error| cannot(&error))?;
        let stream = UnixStream::from_std(ours).map_err(|error| cannot(&error))?;
        let mut command = Command::new(file);
        command
            .args(std::env::args_os().skip(1))
            .env(VARIABLE, std::process::id().to_string())
            .stdin(OwnedFd::from(theirs));
        // The command holds the other end as long as it lives, and we are to notice when the child lets go of it.
        let child = command.spawn();
        drop(command);
        let child = child.map_err(|error| cannot(&error))?;
        tracing::info!(successor = child.id(), file = %file.display(), who = %self.author.who, "successor started");
        self.control.tell_upgrade(self.author, Some(child.id()), Ok(false));
        Ok(Heir { child: Some(child), stream: Some(stream), may_serve: false })
    }

    async fn introduce(
        &self,
        mut stream: UnixStream,
        heir: &mut Heir,
        began: Instant,
    ) -> Result<Successor, Trouble> {
        let runtime = self.control.runtime();
        let (mut told, history) = runtime.legacy_with_history();
        let (addresses, sockets): (Vec<String>, Vec<RawFd>) =
            self.table.get().map(|table| table.lock().serialize()).unwrap_or_default();
        let age_us = u64::try_from(runtime.now().as_micros()).unwrap_or(u64::MAX);
        let hello = Hello {
            protocol: PROTOCOL,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            sockets: addresses,
            epoch_us: monotonic_us().saturating_sub(age_us),
            legacy: told.clone(),
            history: Some(history).filter(|it| it.len() <= HISTORY_BYTES_MAX).unwrap_or_default(),
        };
        let greeted = send_hello(&mut stream, hello, &sockets).await;
        let mut link = Link::over(stream);
        if let Err(error) = greeted {
            // It may have said why it goes.
            return Err(hear_end(&mut link).await.unwrap_or(Trouble::Wire(error)));
        }
        let (version, generation) = wait_for_ready(&mut link).await?;

        // Whoever looks at our figures from here on is answered when the successor has them too.
        self.control.succession().set_handed_over(true);
        heir.may_serve = true;
        let now = runtime.legacy();
        let counted = Box::new(now.since(&told));
        told = now;
        link.say(&Message::Go { counted }).await.map_err(Trouble::Wire)?;
        timeout(MESSAGE_TIME, wait_for_serving(&mut link))
            .await
            .map_err(|late| Trouble::Wire(late.into()))??;
        let here = ProcessView { pid: std::process::id(), version: env!("CARGO_PKG_VERSION").to_owned() };
        let seconds = began.elapsed().as_secs_f64();
        let successor = ProcessView { pid: heir.pid(), version };
        Ok(Successor {
            handed_over: HandedOver { predecessor: here, successor, generation, seconds },
            link,
            told,
        })
    }

    fn tell(&self, result: Result<&Successor, &CannotUpgrade>) {
        let who = &self.author.who;
        match result {
            Ok(Successor { handed_over, .. }) => {
                let HandedOver { successor, generation, seconds, .. } = handed_over;
                tracing::info!(
                    successor = successor.pid,
                    version = %successor.version,
                    generation,
                    seconds,
                    %who,
                    "handed over"
                );
                self.control.tell_upgrade(self.author, Some(successor.pid), Ok(true));
            }
            Err(cannot) => {
                let CannotUpgrade { detail, help, .. } = cannot;
                tracing::error!(%who, reason = %detail, %help, "not handed over, this process goes on");
                // Perhaps the successor has said that it is the service, just before it came to nothing.
                systemd::notify(&format!("READY=1\nMAINPID={}", std::process::id()));
                self.control.tell_upgrade(self.author, None, Err(cannot));
            }
        }
    }
}

/// Of a history: with two digits to the byte, half of a frame.
const HISTORY_BYTES_MAX: usize = 64 * 1024 * 1024;

const HELP: &str = "nothing has changed here; `evener check` on the configuration file, with the new program, and the log say more";

fn failed(detail: impl Into<String>, help: &str) -> CannotUpgrade {
    CannotUpgrade { kind: Hindrance::Failed, detail: detail.into(), help: help.to_owned() }
}

/// Where a successor would not outlive us.
fn check_surroundings() -> Result<(), CannotUpgrade> {
    let not_here = |detail: &str, help: &str| {
        Err(CannotUpgrade { kind: Hindrance::NotHere, detail: detail.to_owned(), help: help.to_owned() })
    };
    if std::process::id() == 1 {
        return not_here(
            "this is process 1, with whose end its container ends, and the successor in it",
            "start another container, and stop this one: TERM drains it",
        );
    }
    if systemd::would_end_the_successor() {
        return not_here(
            "systemd watches this process and is not told of another one: it would end the successor with it",
            "put `Type=notify` and `NotifyAccess=all` into the unit (config/evener.service has them), and restart once",
        );
    }
    Ok(())
}

/// Keeps changes back, until it is dropped.
struct Held<'a>(Option<&'a Control>);

impl<'a> Held<'a> {
    fn hold(control: &'a Control) -> Result<Self, CannotUpgrade> {
        match control.hold_writes() {
            Ok(()) => Ok(Self(Some(control))),
            Err(rejected) => Err(CannotUpgrade {
                kind: Hindrance::UnderWay,
                detail: rejected.to_string(),
                help: rejected.help(),
            }),
        }
    }

    /// For good: another process makes them.
    fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if let Some(control) = self.0 {
            control.succession().set_handed_over(false);
            control.release_writes();
        }
    }
}

/// The child, ended when this is dropped.
struct Heir {
    /// `None`: it stays.
    child: Option<Child>,
    stream: Option<UnixStream>,
    /// It was told to accept, so it may have requests.
    may_serve: bool,
}

impl Heir {
    fn pid(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    fn stay(&mut self) {
        self.child = None;
    }

    /// How it ended, or that it was ended because it does not by itself.
    async fn end(&mut self) -> String {
        for _ in 0..END_LOOKS {
            match self.child.as_mut().map(Child::try_wait) {
                Some(Ok(Some(status))) => return tell_end(status),
                Some(Ok(None)) => sleep(END_PAUSE).await,
                _ => break,
            }
        }
        "did not end by itself, and was ended".to_owned()
    }
}

fn tell_end(status: ExitStatus) -> String {
    // `exit status: 3`, `signal: 9 (SIGKILL)`
    format!("ended ({status})")
}

impl Drop for Heir {
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        if self.may_serve {
            // Of one that has ended, the number may be somebody else's by now.
            if matches!(child.try_wait(), Ok(None)) {
                let pid = i32::try_from(child.id()).map(Pid::from_raw);
                let _ = pid.map(|pid| kill(pid, Signal::SIGTERM));
                // It drains for as long as it has to, and we go on.
                let _ = std::thread::Builder::new().spawn(move || child.wait());
            }
            return;
        }
        // One that has ended is waited for, and one that is killed ends at once.
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// For a child that has closed its end to end itself.
const END_LOOKS: u32 = 40;
const END_PAUSE: Duration = Duration::from_millis(25);

/// Why the other side will not serve.
enum Trouble {
    /// It said so.
    Told(String),
    /// It ended without a word.
    Gone,
    /// We could not speak with it.
    Wire(io::Error),
}

async fn wait_for_ready(link: &mut Link) -> Result<(String, u64), Trouble> {
    loop {
        match link.hear().await {
            Some(Message::Ready { version, generation }) => return Ok((version, generation)),
            Some(Message::Failed { reason }) => return Err(Trouble::Told(reason)),
            Some(_) => {}
            None => return Err(Trouble::Gone),
        }
    }
}

async fn wait_for_serving(link: &mut Link) -> Result<(), Trouble> {
    loop {
        match link.hear().await {
            Some(Message::Serving) => return Ok(()),
            Some(Message::Failed { reason }) => return Err(Trouble::Told(reason)),
            Some(_) => {}
            None => return Err(Trouble::Gone),
        }
    }
}

/// Its last word, if it had one, or that it has gone; `None`: it is still there.
async fn hear_end(link: &mut Link) -> Option<Trouble> {
    timeout(END_PAUSE * END_LOOKS, wait_for_ready(link)).await.ok()?.err()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    /// It drains for as long as it has to; then nothing of it is left, while we go on for months.
    #[test]
    fn a_successor_that_came_too_far_is_told_to_end_and_waited_for() {
        let child = Command::new("sleep").arg("600").spawn().unwrap();
        let process = PathBuf::from(format!("/proc/{}", child.id()));
        drop(Heir { child: Some(child), stream: None, may_serve: true });
        let until = Instant::now() + Duration::from_secs(60);
        while process.exists() {
            assert!(Instant::now() < until, "it is still there");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
