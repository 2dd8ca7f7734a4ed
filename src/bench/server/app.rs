//! One scripted server: its door, its connections, and what becomes of a request.

use std::cell::{Cell, RefCell};
use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hdrhistogram::Histogram;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;
use tokio::task::AbortHandle;

use super::answer::{Answer, Cut};
use super::port::{self, Port};
use super::script::{Door, Life, random_of};
use super::station::Station;
use super::wakeups::{Bed, Wakeups};

/// Microseconds of work that a request brings.
pub const WORK: HeaderName = HeaderName::from_static("x-bench-work");
/// Which server answered.
pub const SERVER: HeaderName = HeaderName::from_static("x-bench-server");

/// What all servers of a fleet share.
pub(super) struct Stage {
    /// When the turn begins. Before it, every server is well and answers at once.
    pub began: Cell<Option<Instant>>,
    pub wakeups: Wakeups,
    /// How much later than due answers were, in µs.
    pub late: RefCell<Histogram<u64>>,
    /// The body of a good answer, or a piece of it.
    pub body: Bytes,
    /// How long the body is.
    pub length: u64,
    pub http: http1::Builder,
    /// Whether requests are gRPC calls, in HTTP/2.
    pub is_called: bool,
}

/// A server at work.
pub(super) struct App {
    stage: Rc<Stage>,
    /// The value of [`SERVER`].
    name: HeaderValue,
    address: SocketAddr,
    /// Keeps the port while nobody listens there.
    _reserve: Option<socket2::Socket>,
    station: RefCell<Station>,
    life: Life,
    luck: RefCell<fastrand::Rng>,
    /// Takes connections, while the door is open.
    accepting: RefCell<Option<AbortHandle>>,
    /// Ends all connections.
    killed: Arc<Notify>,
}

/// A connection, as its requests see it.
#[derive(Default)]
struct Talk {
    bed: Rc<Bed>,
    /// To be reset instead of closed.
    is_cut: Cell<bool>,
}

/// What becomes of a request.
enum Fate {
    /// Answered well, at this moment of the turn; `None`: at once, before the turn.
    Served(Option<Duration>),
    /// Answered with this status, at this moment of the turn.
    Failed(StatusCode, Duration),
    /// Not answered.
    Hanging,
}

impl App {
    /// A server behind `port` that takes connections.
    ///
    /// # Errors
    ///
    /// When the listener cannot be watched.
    pub(super) fn open(
        index: usize,
        seed: u64,
        port: Port,
        station: Station,
        life: Life,
        stage: Rc<Stage>,
    ) -> io::Result<Rc<Self>> {
        let listener = TcpListener::from_std(port.listener)?;
        let app = Rc::new(Self {
            stage,
            name: HeaderValue::from(index),
            address: port.address,
            _reserve: port.reserve,
            station: RefCell::new(station),
            life,
            luck: RefCell::new(random_of(seed, index, 0)),
            accepting: RefCell::new(None),
            killed: Arc::new(Notify::new()),
        });
        app.accept_from(listener);
        Ok(app)
    }

    /// Opens and shuts the door as the script says, counted from `began`.
    pub(super) fn keep_door(self: Rc<Self>, began: Instant) {
        let mut moments: Vec<Duration> = self.life.doors().collect();
        if moments.is_empty() {
            return;
        }
        moments.sort_unstable();
        tokio::task::spawn_local(async move {
            let bed = Rc::new(Bed::default());
            for moment in moments {
                let Some(when) = began.checked_add(moment) else { return };
                self.stage.wakeups.at(when, &bed).await;
                match self.life.door(moment) {
                    Door::Open => self.open_again(began).await,
                    Door::Refusing => self.shut(),
                    Door::Down => self.die(moment),
                }
            }
        });
    }

    fn shut(&self) {
        if let Some(accepting) = self.accepting.take() {
            accepting.abort();
        }
    }

    fn die(&self, at: Duration) {
        self.shut();
        self.killed.notify_waiters();
        self.station.borrow_mut().forget(at);
    }

    /// Takes the port again, as soon as it is to be had.
    async fn open_again(self: &Rc<Self>, began: Instant) {
        while self.accepting.borrow().is_none() && self.life.door(began.elapsed()) == Door::Open {
            match port::listen(self.address).and_then(TcpListener::from_std) {
                Ok(listener) => self.accept_from(listener),
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    fn accept_from(self: &Rc<Self>, listener: TcpListener) {
        let accepting = tokio::task::spawn_local(Rc::clone(self).accept(listener));
        *self.accepting.borrow_mut() = Some(accepting.abort_handle());
    }

    async fn accept(self: Rc<Self>, listener: TcpListener) {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let killed = Arc::clone(&self.killed).notified_owned();
                    tokio::task::spawn_local(Rc::clone(&self).converse(stream, killed));
                }
                // No file descriptor is left; one of ours may be closed soon.
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    /// Serves one connection to its end, which may be a bad one.
    async fn converse(self: Rc<Self>, stream: TcpStream, killed: OwnedNotified) {
        let _ = stream.set_nodelay(true);
        if self.stage.is_called {
            return self.take_calls(stream, killed).await;
        }
        let talk = Rc::new(Talk::default());
        let service = service_fn(|request| Rc::clone(&self).answer(request, Rc::clone(&talk)));
        let mut connection = self.stage.http.serve_connection(TokioIo::new(stream), service);
        tokio::select! {
            biased;
            _ = &mut connection => {}
            () = killed => talk.is_cut.set(true),
        }
        if talk.is_cut.get() {
            let stream = connection.into_parts().io.into_inner();
            let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
        }
    }

    /// Serves one connection of HTTP/2. It is never cut in the middle of an answer: a call that should be is failed.
    async fn take_calls(self: Rc<Self>, stream: TcpStream, killed: OwnedNotified) {
        let service = service_fn(|request| Rc::clone(&self).answer(request, Rc::default()));
        let mut http = http2::Builder::new(OnThisThread);
        http.auto_date_header(false).max_concurrent_streams(STREAMS_MAX);
        http.initial_stream_window_size(WINDOW).initial_connection_window_size(WINDOW);
        tokio::select! {
            biased;
            _ = http.serve_connection(TokioIo::new(stream), service) => {}
            () = killed => {}
        }
    }

    async fn answer(
        self: Rc<Self>,
        request: Request<Incoming>,
        talk: Rc<Talk>,
    ) -> Result<Response<Answer>, Cut> {
        let (mut head, body) = request.into_parts();
        read_to_end(body).await?;
        // They come back as those of the answer, so that nothing is allocated for it.
        let headers = std::mem::take(&mut head.headers);
        let Some(work) = work_in(&headers) else { return Ok(self.reply(StatusCode::BAD_REQUEST, headers)) };
        match self.fate(work) {
            Fate::Hanging => pending().await,
            Fate::Failed(status, at) => {
                self.wait(at, &talk.bed).await;
                Ok(self.reply(status, headers))
            }
            Fate::Served(None) => Ok(self.serve(headers)),
            Fate::Served(Some(done)) => {
                self.wait(done, &talk.bed).await;
                if self.is_lucky(self.life.resetting(done)) {
                    talk.is_cut.set(true);
                    return self.break_off(headers);
                }
                Ok(self.serve(headers))
            }
        }
    }

    /// What becomes of a request that arrives now.
    fn fate(&self, work: Duration) -> Fate {
        if work.is_zero() && self.life.is_quiet() {
            return Fate::Served(None);
        }
        let Some(now) = self.stage.now() else { return Fate::Served(None) };
        if self.life.is_hanging(now) {
            return Fate::Hanging;
        }
        if let Some(failing) = self.life.failing(now)
            && self.is_lucky(failing.share)
        {
            // 400 to 599 by its type's promise; whoever broke it sees a status that is none of the script's.
            let status = StatusCode::from_u16(failing.status).unwrap_or(StatusCode::NOT_IMPLEMENTED);
            return Fate::Failed(status, now.saturating_add(failing.latency));
        }
        if work.is_zero() {
            return Fate::Served(Some(now));
        }
        self.station.borrow_mut().take(now, work).map_or(Fate::Hanging, |done| Fate::Served(Some(done)))
    }

    /// Whether this one is of that share; the same ones at each run of the script.
    fn is_lucky(&self, share: f64) -> bool {
        share > 0.0 && self.luck.borrow_mut().f64() < share
    }

    /// Until `due` of the turn; how late it became is noted.
    async fn wait(&self, due: Duration, bed: &Rc<Bed>) {
        let Some(when) = self.stage.began.get().and_then(|began| began.checked_add(due)) else {
            return pending().await;
        };
        if when > Instant::now() {
            self.stage.wakeups.at(when, bed).await;
        }
        self.stage.note_late(when.elapsed());
    }

    fn serve(&self, headers: HeaderMap) -> Response<Answer> {
        if self.stage.is_called {
            let mut response =
                self.respond(StatusCode::OK, headers, Answer::Call(Some(self.stage.body.clone())));
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            return response;
        }
        self.respond(StatusCode::OK, headers, Answer::of_length(self.stage.length, &self.stage.body))
    }

    /// `status`, without a body.
    fn reply(&self, status: StatusCode, headers: HeaderMap) -> Response<Answer> {
        self.respond(status, headers, Answer::Whole(Bytes::new()))
    }

    /// The head and half of the body. An answer without a body has no middle: nothing of it is sent.
    fn break_off(&self, headers: HeaderMap) -> Result<Response<Answer>, Cut> {
        if self.stage.body.is_empty() {
            return Err(Cut);
        }
        Ok(self.respond(StatusCode::OK, headers, Answer::half_of(&self.stage.body)))
    }

    fn respond(&self, status: StatusCode, mut headers: HeaderMap, body: Answer) -> Response<Answer> {
        headers.clear();
        headers.insert(SERVER, self.name.clone());
        let mut response = Response::new(body);
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        response
    }
}

/// What hyper does beside a request of HTTP/2 runs where everything else does.
#[derive(Clone, Copy)]
struct OnThisThread;

impl<F: Future<Output: 'static> + 'static> hyper::rt::Executor<F> for OnThisThread {
    fn execute(&self, work: F) {
        tokio::task::spawn_local(work);
    }
}

impl Stage {
    /// Time of the turn; `None` before it.
    fn now(&self) -> Option<Duration> {
        self.began.get().and_then(|began| Instant::now().checked_duration_since(began))
    }

    fn note_late(&self, late: Duration) {
        let micros = u64::try_from(late.as_micros()).unwrap_or(u64::MAX);
        self.late.borrow_mut().saturating_record(micros);
    }
}

async fn read_to_end(mut body: Incoming) -> Result<(), Cut> {
    while !body.is_end_stream() {
        match body.frame().await {
            None => break,
            Some(frame) => drop(frame.map_err(|_| Cut)?),
        }
    }
    Ok(())
}

/// The work that a request brings; `None` when it is not a number of microseconds.
fn work_in(headers: &HeaderMap) -> Option<Duration> {
    let Some(value) = headers.get(WORK) else { return Some(Duration::ZERO) };
    value.to_str().ok()?.parse().ok().map(Duration::from_micros)
}

/// Calls on one connection at a time: balancers that share connections between clients are not held up.
const STREAMS_MAX: u32 = 10_000;

/// Bytes that a balancer may send ahead; no request is larger by default.
const WINDOW: u32 = 1 << 20;

/// Between two attempts to take a port, or a connection.
const PAUSE: Duration = Duration::from_millis(5);
