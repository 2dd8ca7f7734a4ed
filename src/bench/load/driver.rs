//! Begins each request at its time, ends those that take too long, and ends the turn.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::iter::Peekable;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::super::clock::Alarm;
use super::super::error::BenchError;
use super::super::scenario::{Load, Request};
use super::super::turn::Failure;
use super::client::{Clients, Way};
use super::record::{Ended, Record};
use super::starts::{self, Start};
use super::wire::Wire;
use super::{LoadReport, Order};

/// The driver looks around that often even when nothing is to begin: for clients whose patience is over, and
/// for Ctrl-C. A client that gives up counts with its patience, however late we notice.
const LOOK: Duration = Duration::from_millis(20);

/// A client of a closed loop that has failed asks again after so long; it would fail as fast as the
/// machine can, otherwise.
const PAUSE: Duration = Duration::from_millis(50);

/// Of the idle connections, every so many-th is asked again at the end.
const ASKED_AGAIN: usize = 10;

/// The turn, with at most so many requests under way.
pub(super) fn run(
    order: &Order<'_>,
    in_flight_max: usize,
    at_warm: impl FnOnce(),
    at_end: impl FnOnce(),
) -> Result<LoadReport, BenchError> {
    check(order)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .event_interval(EVENT_INTERVAL)
        .build_local(tokio::runtime::LocalOptions::default())?;
    let shared = Rc::new(Shared::new(order, in_flight_max)?);
    runtime.block_on(turn(order, &shared, at_warm, at_end))
}

/// Sockets are looked at after so many steps of requests. tokio's 61 would let an arrival wait for half a
/// millisecond when many answers come at once.
const EVENT_INTERVAL: u32 = 16;

fn check(order: &Order<'_>) -> Result<(), BenchError> {
    let scenario = order.scenario;
    if order.balancers.is_empty() {
        return Err(BenchError::Wrong("no balancer to ask".to_owned()));
    }
    if let Load::Idle(count) = scenario.load
        && starts::idle_opening(scenario, count) > scenario.duration
    {
        return Err(BenchError::Wrong(format!(
            "{count} connections cannot be opened within {:?}\n  = help: make the turn longer",
            scenario.duration
        )));
    }
    Ok(())
}

async fn turn(
    order: &Order<'_>,
    shared: &Rc<Shared>,
    at_warm: impl FnOnce(),
    at_end: impl FnOnce(),
) -> Result<LoadReport, BenchError> {
    let mut driver = Driver { order, shared, alarm: Alarm::new()?, starts: starts::starts(order).peekable() };
    let scenario = order.scenario;

    driver.drive(Duration::ZERO).await?;
    let cpu_before = cpu_of_this_thread();
    driver.drive(scenario.warmup).await?;
    at_warm();
    driver.drive(scenario.duration).await?;
    driver.finish().await?;
    let cpu = cpu_of_this_thread().saturating_sub(cpu_before);
    let busy = cpu.as_secs_f64() / order.began.elapsed().as_secs_f64();

    let idle = match scenario.load {
        Load::Idle(_) => shared.clients.take_all_idle(),
        Load::Rate { .. } | Load::Clients(_) => Vec::new(),
    };
    let idle_connections = idle.len() as u64;
    at_end();
    let others = shared.ask_again(idle);
    driver.finish().await?;
    drop(others);

    let (mut seen, sent_late) = shared.record.borrow_mut().done();
    seen.sent_again = shared.clients.sent_again();
    Ok(LoadReport { seen, sent_late, busy, idle_connections })
}

struct Driver<'a> {
    order: &'a Order<'a>,
    shared: &'a Rc<Shared>,
    alarm: Alarm,
    starts: Peekable<Box<dyn Iterator<Item = Start>>>,
}

impl Driver<'_> {
    /// Begins what is due, until that time of the turn has come.
    async fn drive(&mut self, until: Duration) -> Result<(), BenchError> {
        let until = self.order.began + until;
        loop {
            self.look_around()?;
            let now = Instant::now();
            self.begin_due(now.min(until));
            if now >= until {
                return Ok(());
            }
            let next = self.starts.peek().map_or(until, |start| self.order.began + start.at);
            self.alarm.at(next.min(until).min(now + LOOK)).await?;
        }
    }

    /// Waits for what is under way; nobody waits for longer than a client's patience.
    async fn finish(&mut self) -> Result<(), BenchError> {
        while !self.shared.under_way.borrow().is_empty() {
            self.look_around()?;
            let soon = Instant::now() + LOOK;
            tokio::select! {
                () = self.shared.is_quiet.notified() => {}
                rang = self.alarm.at(soon) => rang?,
            }
        }
        Ok(())
    }

    fn look_around(&self) -> Result<(), BenchError> {
        if self.order.stop.load(Ordering::Relaxed) {
            return Err(BenchError::Interrupted);
        }
        self.shared.give_up(Instant::now());
        Ok(())
    }

    fn begin_due(&mut self, now: Instant) {
        let began = self.order.began;
        while let Some(start) = self.starts.next_if(|start| began + start.at <= now) {
            let way = if matches!(self.shared.load, Load::Idle(_)) { Way::New } else { Way::Any };
            self.shared.begin(start, way);
        }
        self.shared.begin_again(now);
    }
}

/// What driver and requests share; all on one thread.
struct Shared {
    clients: Clients,
    record: RefCell<Record>,
    /// By number, hence the oldest first, and first whose time is over.
    under_way: RefCell<BTreeMap<u64, UnderWay>>,
    next_number: Cell<u64>,
    in_flight_max: usize,
    /// Clients of a closed loop that have failed, and when they ask again.
    pausing: RefCell<VecDeque<(Instant, Start)>>,
    /// Told when nothing is under way any more.
    is_quiet: Notify,
    load: Load,
    began: Instant,
    duration: Duration,
    timeout: Duration,
}

struct UnderWay {
    start: Start,
    task: JoinHandle<()>,
}

impl Shared {
    fn new(order: &Order<'_>, in_flight_max: usize) -> Result<Self, BenchError> {
        let scenario = order.scenario;
        Ok(Self {
            clients: Clients::new(order.balancers, scenario.request)?,
            record: RefCell::new(Record::new(order.servers, scenario.duration, scenario.warmup)),
            under_way: RefCell::default(),
            next_number: Cell::new(0),
            in_flight_max,
            pausing: RefCell::default(),
            is_quiet: Notify::new(),
            load: scenario.load,
            began: order.began,
            duration: scenario.duration,
            timeout: scenario.timeout,
        })
    }

    /// A task of its own, so that nothing waits for it.
    fn begin(self: &Rc<Self>, start: Start, way: Way) {
        if self.under_way.borrow().len() >= self.in_flight_max {
            self.ended(start, Ended::Badly(Failure::NotSent));
            return;
        }
        let number = self.next_number.get();
        self.next_number.set(number + 1);
        let task = tokio::task::spawn_local(self.clone().ask(number, start, way));
        self.under_way.borrow_mut().insert(number, UnderWay { start, task });
    }

    async fn ask(self: Rc<Self>, number: u64, start: Start, way: Way) {
        let ended = self.clients.ask(&start, way, || self.begun(start)).await;
        self.under_way.borrow_mut().remove(&number);
        self.ended(start, ended);
    }

    fn begun(&self, start: Start) {
        // The others have no schedule to be late for.
        if matches!(self.load, Load::Rate { .. }) {
            self.record.borrow_mut().began(start.at, self.since(start));
        }
    }

    fn ended(self: &Rc<Self>, start: Start, ended: Ended) {
        let latency = self.since(start);
        let (latency, ended) = match ended {
            // What was not sent is never answered: its client would have waited in vain.
            Ended::Badly(Failure::NotSent) => (self.timeout, ended),
            // Answered after all, but the client had turned away.
            _ if latency >= self.timeout => (self.timeout, Ended::Badly(Failure::Timeout)),
            _ => (latency, ended),
        };
        self.record.borrow_mut().ended(start.at, latency, ended);
        if matches!(self.load, Load::Clients(_)) {
            self.go_on(start, ended);
        }
        if self.under_way.borrow().is_empty() {
            self.is_quiet.notify_one();
        }
    }

    /// A client of a closed loop asks again.
    fn go_on(self: &Rc<Self>, start: Start, ended: Ended) {
        let now = Instant::now();
        let start = Start { at: now - self.began, ..start };
        if start.at >= self.duration {
            return;
        }
        if matches!(ended, Ended::Well(_)) {
            self.begin(start, Way::Any);
        } else {
            self.pausing.borrow_mut().push_back((now + PAUSE, start));
        }
    }

    fn begin_again(self: &Rc<Self>, now: Instant) {
        while let Some(start) = self.next_paused(now) {
            self.begin(Start { at: now - self.began, ..start }, Way::Any);
        }
    }

    fn next_paused(&self, now: Instant) -> Option<Start> {
        let mut pausing = self.pausing.borrow_mut();
        let is_due = pausing.front().is_some_and(|&(when, _)| when <= now);
        is_due.then(|| pausing.pop_front()).flatten().map(|(_, start)| start)
    }

    /// Ends the requests whose clients have lost patience; their connections are closed.
    fn give_up(self: &Rc<Self>, now: Instant) {
        while let Some(given_up) = self.next_given_up(now) {
            given_up.task.abort();
            self.ended(given_up.start, Ended::Badly(Failure::Timeout));
        }
        self.record.borrow_mut().settle((now - self.began).saturating_sub(self.timeout));
    }

    fn next_given_up(&self, now: Instant) -> Option<UnderWay> {
        let mut under_way = self.under_way.borrow_mut();
        let oldest = under_way.first_entry()?;
        let deadline = self.began + oldest.get().start.at + self.timeout;
        (deadline <= now).then(|| oldest.remove())
    }

    /// Asks once more on a tenth of the idle connections: they must have been kept. Returns the others, which
    /// stay open until that is done; closing thousands takes its time.
    fn ask_again(self: &Rc<Self>, idle: Vec<(usize, Wire)>) -> Vec<Wire> {
        let at = self.began.elapsed();
        let mut others = Vec::new();
        for (index, (balancer, stream)) in idle.into_iter().enumerate() {
            if index.is_multiple_of(ASKED_AGAIN) {
                self.begin(Start { at, balancer, work: None, home: None }, Way::This(stream));
            } else {
                others.push(stream);
            }
        }
        others
    }

    /// Since it should have begun.
    fn since(&self, start: Start) -> Duration {
        self.began.elapsed().saturating_sub(start.at)
    }
}

/// CPU time that the calling thread has used so far.
fn cpu_of_this_thread() -> Duration {
    use rustix::time::{ClockId, clock_gettime};
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

/// One request on a connection of its own, outside of any turn.
pub(super) fn ask_once(
    request: Request,
    address: SocketAddr,
    patience: Duration,
) -> Result<Option<usize>, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(tokio::runtime::LocalOptions::default())
        .map_err(|error| error.to_string())?;
    let clients = Clients::new(&[address], request).map_err(|error| error.to_string())?;
    let start = Start { at: Duration::ZERO, balancer: 0, work: None, home: None };
    let asking = async { tokio::time::timeout(patience, clients.ask(&start, Way::New, || {})).await };
    match runtime.block_on(asking) {
        Ok(Ended::Well(server)) => Ok(server),
        Ok(Ended::Badly(Failure::Status(status))) => Err(format!("it answers {status}")),
        Ok(Ended::Badly(Failure::Connect)) => Err("it takes no connection".to_owned()),
        Ok(Ended::Badly(_)) => Err("it does not answer as it should".to_owned()),
        Err(_) => Err(format!("it has not answered within {patience:?}")),
    }
}
