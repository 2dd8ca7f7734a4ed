//! The new process: takes sockets and knowledge over, and serves when it is told to.

use std::env;
use std::fs::File;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, IntoRawFd, OwnedFd};
use std::os::unix::net::UnixStream as Plain;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use pingora::server::{ListenFds, ShutdownWatch};
use pingora::services::{ServiceReadyNotifier, ServiceWithDependents};
use rustix::time::{ClockId, clock_gettime};
use tokio::net::UnixStream;
use tokio::time::sleep;

use super::wire::{Hello, Link, Message, PROTOCOL, Report, VARIABLE, receive_hello};
use super::{REPORT, SocketTable};
use crate::control::{Control, UPGRADE_TIMEOUT_MAX};
use crate::runtime::{Legacy, Phase};

/// The process that this one follows, and what it hands over.
pub struct Predecessor {
    pid: u32,
    stream: Plain,
    hello: Hello,
    sockets: Vec<OwnedFd>,
}

impl Predecessor {
    /// The process that started this one to be followed by it; `None`: nobody did. Standard input, over which
    /// they speak, is empty from here on.
    ///
    /// # Errors
    ///
    /// It cannot be understood, or has gone.
    pub fn meet() -> io::Result<Option<Self>> {
        let Some(mut stream) = stream_to_predecessor() else { return Ok(None) };
        let pid = std::os::unix::process::parent_id();
        rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
        *REPORT.lock().unwrap_or_else(PoisonError::into_inner) = Some(Report::over(stream.try_clone()?));
        super::report_panics();
        stream.set_read_timeout(Some(UPGRADE_TIMEOUT_MAX))?;
        let (hello, sockets) = receive_hello(&mut stream)?;
        if hello.protocol != PROTOCOL {
            let Hello { protocol, version, .. } = hello;
            return Err(io::Error::other(format!(
                "version {version} hands over by protocol {protocol}, this one knows {PROTOCOL}: stop the old process (TERM drains it), and start this one"
            )));
        }
        Ok(Some(Self { pid, stream, hello, sockets }))
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Where it counts its time from.
    pub fn epoch(&self) -> Instant {
        let age = monotonic_us().saturating_sub(self.hello.epoch_us);
        let now = Instant::now();
        now.checked_sub(Duration::from_micros(age)).unwrap_or(now)
    }

    /// What happened in the last hour and month, up to what it counted; once. Empty: it does not know.
    pub(crate) fn take_history(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.hello.history)
    }

    /// What it knows; once.
    pub(crate) fn take_legacy(&mut self) -> Legacy {
        std::mem::take(&mut self.hello.legacy)
    }
}

/// Standard input, where the parent says that it leads to it. A variable that came by inheritance names
/// another parent.
pub(super) fn stream_to_predecessor() -> Option<Plain> {
    let told = env::var(VARIABLE).ok()?.parse::<u32>().ok()?;
    let is_it = told == std::os::unix::process::parent_id();
    is_it.then(|| io::stdin().as_fd().try_clone_to_owned().ok().map(Plain::from))?
}

/// The machine's monotonic clock, which all of its processes read alike, and [`Instant`] too.
pub(super) fn monotonic_us() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let (seconds, nanoseconds) = (u64::try_from(now.tv_sec), u64::try_from(now.tv_nsec));
    seconds.unwrap_or(0).saturating_mul(1_000_000).saturating_add(nanoseconds.unwrap_or(0) / 1_000)
}

/// Listening sockets by their addresses, as Pingora looks for them.
#[derive(Default)]
pub(crate) struct Sockets(Vec<(String, OwnedFd)>);

impl Sockets {
    /// Those of the predecessor that are wanted, and new ones for the other addresses. What nobody wants any
    /// more is closed.
    ///
    /// # Errors
    ///
    /// The first address that cannot be bound.
    pub(crate) fn take_over(
        predecessor: &mut Predecessor,
        wanted: &[SocketAddr],
    ) -> Result<Self, (SocketAddr, io::Error)> {
        let names = predecessor.hello.sockets.drain(..);
        let mut inherited: Vec<(String, OwnedFd)> = names.zip(predecessor.sockets.drain(..)).collect();
        let mut sockets = Vec::new();
        for &address in wanted {
            let name = address.to_string();
            let socket = match inherited.iter().position(|(inherited, _)| *inherited == name) {
                Some(place) => inherited.swap_remove(place).1,
                None => bind(address).map_err(|error| (address, error))?,
            };
            sockets.push((name, socket));
        }
        Ok(Self(sockets))
    }
}

fn bind(address: SocketAddr) -> io::Result<OwnedFd> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(listener.into())
}

/// The service that every listening one waits for. It has nothing to do where a process has no predecessor,
/// except to keep the table of sockets for a successor.
pub(crate) struct Entrance {
    control: Arc<Control>,
    table: SocketTable,
    takeover: Option<(Predecessor, Sockets)>,
}

impl Entrance {
    pub(crate) fn new(
        control: Arc<Control>,
        table: SocketTable,
        takeover: Option<(Predecessor, Sockets)>,
    ) -> Self {
        Self { control, table, takeover }
    }
}

#[async_trait]
impl ServiceWithDependents for Entrance {
    async fn start_service(
        &mut self,
        fds: Option<ListenFds>,
        _: ShutdownWatch,
        _: usize,
        ready: ServiceReadyNotifier,
    ) {
        if let Some(fds) = &fds {
            let _ = self.table.set(fds.clone());
        }
        let Some((predecessor, sockets)) = self.takeover.take() else { return };
        if let Some(fds) = fds {
            let mut table = fds.lock();
            for (address, socket) in sockets.0 {
                table.add(address, socket.into_raw_fd());
            }
        }
        let pid = predecessor.pid;
        let heir = Heir { control: self.control.clone(), pid };
        match heir.take_over(predecessor.stream, ready).await {
            Ok(()) => tracing::info!(predecessor = pid, "predecessor has ended"),
            Err(error) => {
                // It has not handed over, so it goes on, or had its reasons to end.
                tracing::error!(predecessor = pid, %error, "not taken over, stopping");
                self.control.runtime().flush_access_log();
                std::process::exit(1);
            }
        }
    }

    fn name(&self) -> &'static str {
        "succession"
    }

    fn threads(&self) -> Option<usize> {
        Some(1)
    }
}

/// Our side of the conversation.
struct Heir {
    control: Arc<Control>,
    pid: u32,
}

impl Heir {
    /// Until the predecessor ends. An error: it did not hand over.
    async fn take_over(&self, stream: Plain, ready: ServiceReadyNotifier) -> io::Result<()> {
        let runtime = self.control.runtime();
        stream.set_nonblocking(true)?;
        let mut link = Link::over(UnixStream::from_std(stream)?);
        while !runtime.readiness.could_listen() {
            sleep(PAUSE).await;
        }
        let version = env!("CARGO_PKG_VERSION").to_owned();
        link.say(&Message::Ready { version, generation: runtime.peek().generation }).await?;
        runtime.count(&*wait_for_go(&mut link).await?);
        // From here on what fails is ours: the predecessor is told that we serve.
        REPORT.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.control.release_writes();
        // The side port may accept before all of the others do.
        runtime.readiness.set_taking_over();
        ready.notify_ready();
        while runtime.readiness.phase() == Phase::Starting {
            sleep(PAUSE).await;
        }
        tracing::info!(predecessor = self.pid, "took over");
        if link.say(&Message::Serving).await.is_ok() {
            self.count_for(&mut link).await;
        }
        Ok(())
    }

    /// Counts what the predecessor still counts, until it ends.
    async fn count_for(&self, link: &mut Link) {
        // If we hand over meanwhile, we stay until it has said its last.
        let _visitor = self.control.succession().visitor();
        while let Some(message) = link.hear().await {
            if let Message::Counted { number, counted } = message {
                self.control.runtime().count(&counted);
                if link.say(&Message::Noted { number }).await.is_err() {
                    return;
                }
            }
        }
    }
}

async fn wait_for_go(link: &mut Link) -> io::Result<Box<Legacy>> {
    while let Some(message) = link.hear().await {
        if let Message::Go { counted } = message {
            return Ok(counted);
        }
    }
    Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the predecessor ended, or gave us up"))
}

/// Between two looks at how far the process is.
const PAUSE: Duration = Duration::from_millis(2);

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn predecessor(addresses: &[SocketAddr], epoch_us: u64) -> Predecessor {
        let sockets = addresses.iter().map(|_| bind("127.0.0.1:0".parse().unwrap()).unwrap()).collect();
        Predecessor {
            pid: 1,
            stream: Plain::pair().unwrap().0,
            hello: Hello {
                protocol: PROTOCOL,
                version: String::new(),
                sockets: addresses.iter().map(ToString::to_string).collect(),
                epoch_us,
                legacy: Legacy::default(),
                history: Vec::new(),
            },
            sockets,
        }
    }

    #[test]
    fn wanted_sockets_are_taken_over_and_new_ones_bound() {
        let [kept, dropped] = ["127.0.0.1:1", "127.0.0.1:2"].map(|text| text.parse().unwrap());
        let mut predecessor = predecessor(&[kept, dropped], 0);
        let new = "127.0.0.1:0".parse().unwrap();
        let sockets = Sockets::take_over(&mut predecessor, &[new, kept]).unwrap();
        let names: Vec<&str> = sockets.0.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["127.0.0.1:0", "127.0.0.1:1"]);
        let taken = "192.0.2.1:80".parse().unwrap();
        assert_eq!(Sockets::take_over(&mut predecessor, &[taken]).err().unwrap().0, taken);
    }

    #[test]
    fn both_processes_count_time_from_the_same_moment() {
        let began = Instant::now();
        let heir = predecessor(&[], monotonic_us());
        let apart = heir.epoch().saturating_duration_since(began);
        assert!(apart < Duration::from_secs(5), "{apart:?}");
        assert!(heir.epoch() + Duration::from_millis(1) >= began);
    }
}
