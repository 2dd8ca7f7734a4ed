//! Scripted app servers: some workers, a queue, a speed, and troubles at given times.
//!
//! ```text
//!   Fleet ── begin, doubt ──► thread ─┬─ App ── Port        takes connections, or not
//!                                     │   ├─── Life         what happens to it, by the script
//!                                     │   └─── Station      when a request is done, in virtual time
//!                                     ├─ App …
//!                                     └─ Wakeups            answers at that very moment: one alarm for all
//! ```
//!
//! The work of a request comes in its header `x-bench-work`, in microseconds; without it there is none, and
//! the answer comes at once (a health check, or a scenario that measures costs). A request with a body has
//! arrived when its last byte has. Each answer says in `x-bench-server` who gave it. Servers speak HTTP/1.1, or where
//! the clients call by gRPC, HTTP/2: each message is then answered with a message and `grpc-status: 0`.
//!
//! `script` and `station` are pure: the oracle knows the future from them.

mod answer;
mod app;
mod port;
pub mod script;
pub mod station;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod wakeups;

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::mpsc as std_mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::server::conn::http1;
use rustix::time::{ClockId, clock_gettime};
use tokio::runtime::Builder;
use tokio::sync::mpsc;
use tokio::task::LocalSet;

use self::app::{App, Stage};
use self::port::Port;
use self::script::{Life, speeds_of};
use self::station::Station;
use self::wakeups::Wakeups;
use super::clock::Alarm;
use super::error::BenchError;
use super::scenario::{Protocol, Request, Scenario};
use super::turn::{LATENCY_MAX, latencies};

pub use self::app::{SERVER, WORK};

/// Scripted servers on one thread of their own, ended on drop.
pub struct Fleet {
    addresses: Vec<SocketAddr>,
    orders: Option<mpsc::UnboundedSender<Order>>,
    thread: Option<JoinHandle<()>>,
}

/// How far the servers themselves were in the way.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct FleetDoubt {
    /// 99th percentile of how much later than due answers were.
    pub answered_late: Duration,
    /// Share of one core that the servers used since the beginning of the turn, 0 to 1.
    pub busy: f64,
}

enum Order {
    Begin(Instant, std_mpsc::SyncSender<()>),
    Doubt(std_mpsc::SyncSender<FleetDoubt>),
}

impl Fleet {
    /// Binds one port of 127.0.0.1 per server; serves until dropped. The script is drawn from `seed`, and
    /// stands still until [`Self::begin`]: until then, every server is well and answers at once.
    ///
    /// # Errors
    ///
    /// When there are not enough ports or file descriptors.
    pub fn start(scenario: &Scenario, seed: u64) -> Result<Self, BenchError> {
        let lives: Vec<Life> = (0..scenario.servers).map(|server| Life::of(scenario, server)).collect();
        let ports = lives.iter().enumerate().map(|(index, life)| {
            let is_shut_at_times = life.doors().next().is_some();
            Port::take(is_shut_at_times).map_err(|error| no_port(index, scenario.servers, &error))
        });
        let ports: Vec<Port> = ports.collect::<Result<_, _>>()?;
        let addresses = ports.iter().map(|port| port.address).collect();

        let cast: Vec<(Port, Station, Life)> = ports
            .into_iter()
            .zip(lives)
            .enumerate()
            .map(|(index, (port, life))| {
                let station = Station::new(scenario.workers, speeds_of(scenario, index, seed));
                (port, station, life)
            })
            .collect();
        let request = scenario.request;
        let (orders, orders_taken) = mpsc::unbounded_channel();
        let (say, heard) = std_mpsc::sync_channel(1);
        let thread = thread::Builder::new().name("bench-servers".to_owned()).spawn(move || {
            match Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => {
                    LocalSet::new().block_on(&runtime, play(cast, seed, request, orders_taken, &say));
                }
                Err(error) => drop(say.send(Err(error))),
            }
        })?;
        let fleet = Self { addresses, orders: Some(orders), thread: Some(thread) };
        heard.recv().unwrap_or_else(|_| Err(io::Error::other("the servers' thread ended")))?;
        Ok(fleet)
    }

    /// Where the servers listen, in the order of their indices.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The turn's clock begins at `at`: every request that is sent after this call meets the script. Once: a
    /// second call is ignored.
    pub fn begin(&self, at: Instant) {
        let (say, heard) = std_mpsc::sync_channel(1);
        self.order(Order::Begin(at, say));
        // A thread that ended serves nobody, which the clients will see.
        let _ = heard.recv();
    }

    /// How late answers were, and how busy the thread was since [`Self::begin`].
    pub fn doubt(&self) -> FleetDoubt {
        let (say, heard) = std_mpsc::sync_channel(1);
        self.order(Order::Doubt(say));
        // A thread that ended answers nobody: its figures are worth nothing.
        heard.recv().unwrap_or(FleetDoubt { answered_late: LATENCY_MAX, busy: 1.0 })
    }

    fn order(&self, order: Order) {
        if let Some(orders) = &self.orders {
            let _ = orders.send(order);
        }
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn no_port(index: usize, servers: usize, error: &io::Error) -> BenchError {
    BenchError::Broken(format!(
        "server {index} of {servers} got no port of 127.0.0.1: {error}; \
         it needs two file descriptors and one for each connection, `ulimit -n` may be too low"
    ))
}

/// The life of the thread: opens all doors, says so, and serves as long as somebody may give orders.
async fn play(
    cast: Vec<(Port, Station, Life)>,
    seed: u64,
    request: Request,
    mut orders: mpsc::UnboundedReceiver<Order>,
    say: &std_mpsc::SyncSender<io::Result<()>>,
) {
    let stage = Rc::new(Stage {
        began: Cell::new(None),
        wakeups: Wakeups::default(),
        late: RefCell::new(latencies()),
        body: body(request),
        length: request.answer as u64,
        http: http(request.answer),
        is_called: request.protocol == Protocol::Grpc,
    });
    let apps = match raise(cast, seed, &stage) {
        Ok(apps) => apps,
        Err(error) => return drop(say.send(Err(error))),
    };
    let _ = say.send(Ok(()));
    let mut busy_before = Duration::ZERO;
    while let Some(order) = orders.recv().await {
        match order {
            Order::Begin(at, heard) => {
                if stage.began.get().is_none() {
                    stage.began.set(Some(at));
                    busy_before = time_used();
                    for app in &apps {
                        Rc::clone(app).keep_door(at);
                    }
                }
                let _ = heard.send(());
            }
            Order::Doubt(reply) => drop(reply.send(stage.doubt(busy_before))),
        }
    }
}

fn raise(cast: Vec<(Port, Station, Life)>, seed: u64, stage: &Rc<Stage>) -> io::Result<Vec<Rc<App>>> {
    let alarm = Alarm::new()?;
    let waking = Rc::clone(stage);
    tokio::task::spawn_local(async move { waking.wakeups.run(alarm).await });
    let apps = cast.into_iter().enumerate();
    apps.map(|(index, (port, station, life))| App::open(index, seed, port, station, life, Rc::clone(stage)))
        .collect()
}

/// What a good answer holds, or a piece of it if it is long.
fn body(request: Request) -> Bytes {
    match request.protocol {
        Protocol::Grpc => message(request.answer),
        _ => vec![b'x'; request.answer.min(PIECE)].into(),
    }
}

/// Longer answers are sent in pieces of that size.
const PIECE: usize = 16 << 20;

/// A gRPC message: not compressed, its length, and so many bytes.
pub(in crate::bench) fn message(length: usize) -> Bytes {
    let mut message = vec![0];
    message.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    message.resize(message.len() + length, b'x');
    message.into()
}

/// How servers speak: as cheaply as can be, with whoever comes.
fn http(answer: usize) -> http1::Builder {
    let mut http = http1::Builder::new();
    http.header_read_timeout(None).auto_date_header(false).writev(answer > COPIED_MAX);
    http
}

/// Answers up to here are copied behind their head, which is cheaper than to send two pieces.
const COPIED_MAX: usize = 16 * 1_024;

impl Stage {
    fn doubt(&self, busy_before: Duration) -> FleetDoubt {
        let answered_late = Duration::from_micros(self.late.borrow().value_at_quantile(0.99));
        let time = self.began.get().map_or(Duration::ZERO, |began| began.elapsed());
        let used = time_used().saturating_sub(busy_before);
        let busy = if time.is_zero() { 0.0 } else { used.as_secs_f64() / time.as_secs_f64() };
        FleetDoubt { answered_late, busy: busy.min(1.0) }
    }
}

/// CPU time of the calling thread.
fn time_used() -> Duration {
    clock_gettime(ClockId::ThreadCPUTime).try_into().unwrap_or_default()
}
