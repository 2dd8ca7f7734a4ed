//! An upstream that does as it is told, also when it is told to misbehave.

use std::io::{self, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use super::message::{Head, Headers, read_chunks};
use super::ports::reserve_port;
use super::wire::{Socket, Wire, wrong};

/// No play waits longer for something to reach an origin.
const PATIENCE: Duration = Duration::from_secs(60);

/// Requests for this path are health probes: counted apart, answered by [`Origin::fall_sick`].
pub(crate) const HEALTH_PATH: &str = "/healthz";

/// A request as it reached an origin.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) version: String,
    head: Head,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Headers,
    /// Every byte, from the request line to the end of the body.
    pub(crate) raw: Vec<u8>,
    /// Which connection it came on, counted from 0.
    pub(crate) connection: usize,
}

impl Request {
    /// Name and value of each header, in order, as they came.
    pub(crate) fn headers(&self) -> &Headers {
        &self.head.headers
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.header(name)
    }

    /// Every value of a header, in order.
    pub(crate) fn values(&self, name: &str) -> Vec<&str> {
        self.head.values(name)
    }

    pub(crate) fn is_chunked(&self) -> bool {
        self.head.is_chunked()
    }
}

/// What an origin does with a request: a script, played from first step to last.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reply(Vec<Step>);

#[derive(Clone, Debug)]
enum Step {
    Send(Vec<u8>),
    /// As `Send`, left out when the request was a HEAD.
    Body(Vec<u8>),
    Sleep(Duration),
    Close,
    Reset,
    /// Says nothing until the other end goes.
    Hang,
    EchoWebSocket,
    EchoBytes,
    /// Takes in so many bytes.
    WaitFor(usize),
    /// Sends these bytes again and again, with pauses, until the other end goes.
    Repeat(Vec<u8>, Duration),
}

impl Reply {
    pub(crate) fn ok(body: &str) -> Self {
        Self::status(200, body)
    }

    /// A sized answer.
    pub(crate) fn status(status: u16, body: &str) -> Self {
        Self::with_headers(status, "", body)
    }

    /// A sized answer with further header lines, each ending in CRLF.
    pub(crate) fn with_headers(status: u16, headers: &str, body: &str) -> Self {
        let length = body.len();
        let head = format!("HTTP/1.1 {status} Status\r\n{headers}Content-Length: {length}\r\n\r\n");
        Self::raw(head).and(Step::Body(body.into()))
    }

    /// An answer in chunks, with these trailer lines (each ending in CRLF) behind them.
    pub(crate) fn chunked(chunks: &[&str], trailers: &str) -> Self {
        let mut body = String::new();
        for chunk in chunks {
            body.push_str(&format!("{:x}\r\n{chunk}\r\n", chunk.len()));
        }
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        Self::raw(head).and(Step::Body(format!("{body}0\r\n{trailers}\r\n").into()))
    }

    /// Exactly these bytes.
    pub(crate) fn raw(bytes: impl AsRef<[u8]>) -> Self {
        Self(vec![Step::Send(bytes.as_ref().to_vec())])
    }

    pub(crate) fn reset() -> Self {
        Self(vec![Step::Reset])
    }

    pub(crate) fn close() -> Self {
        Self(vec![Step::Close])
    }

    pub(crate) fn hang() -> Self {
        Self(vec![Step::Hang])
    }

    /// Accepts the upgrade and sends every message back.
    pub(crate) fn echo_web_socket(request: &Request) -> Self {
        Self::accept_web_socket(request).and(Step::EchoWebSocket)
    }

    /// Accepts the upgrade, and says nothing yet.
    pub(crate) fn accept_web_socket(request: &Request) -> Self {
        let key = request.header("sec-websocket-key").unwrap_or_default();
        let accept = tungstenite::handshake::derive_accept_key(key.as_bytes());
        Self::switch_to("websocket", &format!("Sec-WebSocket-Accept: {accept}\r\n"))
    }

    /// Then takes in so many bytes.
    pub(crate) fn then_wait_for(self, bytes: usize) -> Self {
        self.and(Step::WaitFor(bytes))
    }

    /// Then sends these bytes again and again, with pauses, until the other end goes.
    pub(crate) fn then_repeat(self, bytes: impl AsRef<[u8]>, pause: Duration) -> Self {
        self.and(Step::Repeat(bytes.as_ref().to_vec(), pause))
    }

    /// Accepts an upgrade to a protocol that sends every byte back.
    pub(crate) fn echo_bytes(protocol: &str) -> Self {
        Self::switch_to(protocol, "").and(Step::EchoBytes)
    }

    fn switch_to(protocol: &str, headers: &str) -> Self {
        let head = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: ";
        Self::raw(format!("{head}{protocol}\r\n{headers}\r\n"))
    }

    pub(crate) fn then(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    pub(crate) fn then_send(self, bytes: impl AsRef<[u8]>) -> Self {
        self.and(Step::Send(bytes.as_ref().to_vec()))
    }

    pub(crate) fn then_sleep(self, time: Duration) -> Self {
        self.and(Step::Sleep(time))
    }

    pub(crate) fn then_close(self) -> Self {
        self.and(Step::Close)
    }

    pub(crate) fn then_reset(self) -> Self {
        self.and(Step::Reset)
    }

    pub(crate) fn then_hang(self) -> Self {
        self.and(Step::Hang)
    }

    fn and(mut self, step: Step) -> Self {
        self.0.push(step);
        self
    }
}

type Handler = Arc<dyn Fn(&Request) -> Reply + Send + Sync>;

/// An upstream of the plays. Dropping it closes everything.
pub(crate) struct Origin {
    shared: Arc<Shared>,
}

struct Shared {
    place: Place,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Clone, Debug)]
enum Place {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

#[allow(clippy::struct_excessive_bools, reason = "independent switches, each with a method of its own")]
struct State {
    handler: Handler,
    /// Whether connections are to be accepted.
    listening: bool,
    /// Whether a listener is open; it closes a moment after `listening` turns false.
    is_open: bool,
    sick: bool,
    held: bool,
    delay: Duration,
    idle_limit: Option<Duration>,
    /// Answers after the head, before the body has come.
    early: bool,
    /// Whether each connection begins with a PROXY header.
    is_announced_to: bool,
    connections: Vec<Connection>,
    requests: Vec<Request>,
    probes: Vec<Request>,
    tcp_probes: usize,
    under_way: usize,
    most_under_way: usize,
}

#[derive(Default)]
struct Connection {
    socket: Option<Socket>,
    /// Whether our end of it is closed.
    is_closed: bool,
    /// Received, without what turned out to be health probes.
    bytes: Vec<u8>,
    /// What came before, if that is expected.
    proxy_header: Vec<u8>,
}

impl Origin {
    /// Answers everything with 200 and this text.
    pub(crate) fn answering(text: &str) -> Self {
        let text = text.to_owned();
        Self::serving(move |_| Reply::ok(&text))
    }

    /// Answers each request by a script of its own.
    pub(crate) fn serving(handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        Self::at(Place::Tcp(SocketAddr::from(([127, 0, 0, 1], reserve_port()))), Arc::new(handler))
    }

    /// As [`Self::answering`], on IPv6.
    pub(crate) fn answering_on_ipv6(text: &str) -> Self {
        let text = text.to_owned();
        let address = SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, reserve_port()));
        Self::at(Place::Tcp(address), Arc::new(move |_| Reply::ok(&text)))
    }

    /// As [`Self::answering`], on a Unix socket.
    pub(crate) fn answering_on_a_unix_socket(text: &str) -> Self {
        let text = text.to_owned();
        let name = format!("evener-origin-{}-{}.sock", std::process::id(), reserve_port());
        Self::at(Place::Unix(std::env::temp_dir().join(name)), Arc::new(move |_| Reply::ok(&text)))
    }

    /// An origin that is not there: its port is reserved, and nobody listens.
    pub(crate) fn absent() -> Self {
        let origin = Self::answering("back");
        origin.refuse();
        origin
    }

    fn at(place: Place, handler: Handler) -> Self {
        let shared = Shared { place, state: Mutex::new(State::new(handler)), changed: Condvar::new() };
        let origin = Self { shared: Arc::new(shared) };
        origin.listen_again();
        origin
    }

    /// Waits this long before each answer.
    pub(crate) fn after(self, delay: Duration) -> Self {
        self.shared.lock().delay = delay;
        self
    }

    /// Closes a connection on which no further request has come for this long, as Node does after 5 s.
    pub(crate) fn closing_idle_after(self, limit: Duration) -> Self {
        self.shared.lock().idle_limit = Some(limit);
        self
    }

    /// Answers as soon as the head is there, without reading the body.
    pub(crate) fn answering_before_the_body(self) -> Self {
        self.shared.lock().early = true;
        self
    }

    /// Expects a PROXY header at the start of each connection.
    pub(crate) fn expecting_proxy_headers(self) -> Self {
        self.shared.lock().is_announced_to = true;
        self
    }

    /// As it stands in `upstreams`.
    pub(crate) fn address(&self) -> String {
        match &self.shared.place {
            Place::Tcp(address) => address.to_string(),
            Place::Unix(path) => format!("unix:{}", path.display()),
        }
    }

    /// As one segment of a path of the admin API.
    pub(crate) fn address_in_a_path(&self) -> String {
        self.address().replace('/', "%2F").replace('[', "%5B").replace(']', "%5D")
    }

    // What it is told to do.

    pub(crate) fn answer_by(&self, handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) {
        self.shared.lock().handler = Arc::new(handler);
    }

    /// Takes requests but answers none before [`Self::release`].
    pub(crate) fn hold(&self) {
        self.shared.lock().held = true;
    }

    pub(crate) fn release(&self) {
        self.shared.lock().held = false;
        self.shared.changed.notify_all();
    }

    /// Fails health probes, with 503.
    pub(crate) fn fall_sick(&self) {
        self.shared.lock().sick = true;
    }

    /// Passes health probes.
    pub(crate) fn get_well(&self) {
        self.shared.lock().sick = false;
    }

    /// Closes the listener: connections from now on are refused. Open ones go on.
    pub(crate) fn refuse(&self) {
        let was_listening = std::mem::replace(&mut self.shared.lock().listening, false);
        if was_listening {
            self.shared.wake_the_acceptor();
            self.wait_for(|state| !state.is_open);
        }
    }

    /// Ends all open connections at once, as a killed process does.
    pub(crate) fn cut_connections(&self) {
        for socket in self.shared.lock().connections.iter_mut().filter_map(|one| one.socket.take()) {
            socket.shutdown(Shutdown::Both);
        }
    }

    /// Refuses, and ends open connections.
    pub(crate) fn die(&self) {
        self.refuse();
        self.cut_connections();
    }

    /// Listens on the same address as before.
    pub(crate) fn listen_again(&self) {
        let acceptor = Acceptor::bind(&self.shared.place).expect("listen");
        let mut state = self.shared.lock();
        state.listening = true;
        state.is_open = true;
        let shared = Arc::clone(&self.shared);
        thread::spawn(move || accept(&shared, acceptor));
    }

    // What it has seen.

    /// Requests, without health probes.
    pub(crate) fn requests_seen(&self) -> usize {
        self.shared.lock().requests.len()
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.shared.lock().requests.clone()
    }

    /// The one request that came.
    #[track_caller]
    pub(crate) fn only_request(&self) -> Request {
        let mut requests = self.requests();
        assert_eq!(requests.len(), 1, "{requests:?}");
        requests.remove(0)
    }

    /// Connections that carried anything other than health probes.
    pub(crate) fn connections_seen(&self) -> usize {
        self.shared.lock().connections.iter().filter(|one| !one.bytes.is_empty()).count()
    }

    /// The PROXY header of each connection, in the order in which they were accepted.
    pub(crate) fn proxy_headers(&self) -> Vec<Vec<u8>> {
        self.shared.lock().connections.iter().map(|one| one.proxy_header.clone()).collect()
    }

    /// Waits until our ends of all connections are closed.
    #[track_caller]
    pub(crate) fn wait_until_all_are_closed(&self) {
        self.wait_for(|state| state.connections.iter().all(|one| one.is_closed));
    }

    /// Every byte received, health probes left out, connection after connection.
    pub(crate) fn bytes_received(&self) -> Vec<u8> {
        self.shared.lock().connections.iter().flat_map(|one| one.bytes.clone()).collect()
    }

    /// Requests for [`HEALTH_PATH`].
    pub(crate) fn probes_seen(&self) -> usize {
        self.shared.lock().probes.len()
    }

    pub(crate) fn probes(&self) -> Vec<Request> {
        self.shared.lock().probes.clone()
    }

    /// Connections that were opened and closed without a byte.
    pub(crate) fn tcp_probes_seen(&self) -> usize {
        self.shared.lock().tcp_probes
    }

    /// The most requests that were unanswered at a time.
    pub(crate) fn most_under_way(&self) -> usize {
        self.shared.lock().most_under_way
    }

    pub(crate) fn wait_for_request(&self) {
        self.wait_for_requests(1);
    }

    /// Waits until this many requests have come, answered or not.
    #[track_caller]
    pub(crate) fn wait_for_requests(&self, count: usize) {
        self.wait_for(|state| state.requests.len() >= count);
    }

    #[track_caller]
    pub(crate) fn wait_for_probes(&self, count: usize) {
        self.wait_for(|state| state.probes.len() >= count);
    }

    #[track_caller]
    fn wait_for(&self, is_so: impl Fn(&State) -> bool) {
        let waiting = |state: &mut State| !is_so(state);
        let (state, result) = self
            .shared
            .changed
            .wait_timeout_while(self.shared.lock(), PATIENCE, waiting)
            .expect("not poisoned");
        let seen = (state.requests.len(), state.probes.len());
        drop(state);
        assert!(!result.timed_out(), "(requests, probes) seen after {PATIENCE:?}: {seen:?}");
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.release();
        self.die();
        if let Place::Unix(path) = &self.shared.place {
            let _ = std::fs::remove_file(path);
        }
    }
}

impl State {
    fn new(handler: Handler) -> Self {
        Self {
            handler,
            listening: false,
            is_open: false,
            sick: false,
            held: false,
            delay: Duration::ZERO,
            idle_limit: None,
            early: false,
            is_announced_to: false,
            connections: Vec::new(),
            requests: Vec::new(),
            probes: Vec::new(),
            tcp_probes: 0,
            under_way: 0,
            most_under_way: 0,
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("not poisoned")
    }

    /// A blocked `accept` returns only for a connection; so it gets one.
    fn wake_the_acceptor(&self) {
        let _ = match &self.place {
            Place::Tcp(address) => TcpStream::connect(address).map(drop),
            Place::Unix(path) => UnixStream::connect(path).map(drop),
        };
    }
}

enum Acceptor {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// A child process that another play starts at this moment holds a listener that we have just closed, until it
/// runs its program.
fn bind_patiently(address: SocketAddr) -> io::Result<TcpListener> {
    let started = Instant::now();
    loop {
        match TcpListener::bind(address) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && started.elapsed() < HELD_AT_MOST => {
                thread::sleep(Duration::from_millis(5));
            }
            bound => return bound,
        }
    }
}

/// The longest that a start of a process may take between fork and exec.
const HELD_AT_MOST: Duration = Duration::from_secs(20);

impl Acceptor {
    fn bind(place: &Place) -> io::Result<Self> {
        match place {
            Place::Tcp(address) => bind_patiently(*address).map(Self::Tcp),
            Place::Unix(path) => {
                let _ = std::fs::remove_file(path);
                UnixListener::bind(path).map(Self::Unix)
            }
        }
    }

    fn accept(&self) -> io::Result<Socket> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept()?;
                stream.set_nodelay(true)?;
                Ok(Socket::Tcp(stream))
            }
            Self::Unix(listener) => Ok(Socket::Unix(listener.accept()?.0)),
        }
    }
}

/// One thread per connection, until the listener is to close.
fn accept(shared: &Arc<Shared>, acceptor: Acceptor) {
    loop {
        let accepted = acceptor.accept();
        let mut state = shared.lock();
        if !state.listening {
            break;
        }
        let Ok(socket) = accepted else {
            // Gone before it was accepted, or no file descriptor is free; the next one may do better.
            drop(state);
            thread::sleep(Duration::from_millis(5));
            continue;
        };
        let index = state.connections.len();
        let socket_to_cut = socket.try_clone().ok();
        state.connections.push(Connection { socket: socket_to_cut, ..Connection::default() });
        drop(state);
        let shared = Arc::clone(shared);
        thread::spawn(move || Conversation::new(shared, socket, index).hold());
    }
    drop(acceptor);
    shared.lock().is_open = false;
    shared.changed.notify_all();
}

/// One accepted connection.
struct Conversation {
    shared: Arc<Shared>,
    wire: Wire,
    index: usize,
    /// Whether a request is counted as under way.
    is_answering: bool,
    /// Where the first request begins.
    start: usize,
}

/// What becomes of a connection after a reply.
#[derive(PartialEq, Eq)]
enum Next {
    Keep,
    Close,
    Reset,
}

impl Conversation {
    fn new(shared: Arc<Shared>, socket: Socket, index: usize) -> Self {
        let tap_to = Arc::clone(&shared);
        let tap = move |bytes: &[u8]| tap_to.lock().connections[index].bytes.extend_from_slice(bytes);
        Self { shared, wire: Wire::tapped(socket, Box::new(tap)), index, is_answering: false, start: 0 }
    }

    /// Request after request, until one end closes.
    fn hold(mut self) {
        let is_announced_to = self.shared.lock().is_announced_to;
        let mut next = if is_announced_to { self.read_proxy_header() } else { Ok(Next::Keep) };
        while matches!(next, Ok(Next::Keep)) {
            next = self.exchange();
        }
        let mut state = self.shared.lock();
        state.connections[self.index].socket = None;
        if self.wire.position() == self.start && !self.wire.has_more() {
            state.tcp_probes += 1;
        }
        drop(state);
        let Self { shared, wire, index, .. } = self;
        match next {
            Ok(Next::Reset) => wire.into_parts().0.reset(),
            _ => drop(wire),
        }
        shared.lock().connections[index].is_closed = true;
        shared.changed.notify_all();
    }

    fn read_proxy_header(&mut self) -> io::Result<Next> {
        if !self.wire.has_a_byte()? {
            return Ok(Next::Close);
        }
        let header = if self.wire.exactly(1)? == b"P" {
            let line = self.wire.line()?.unwrap_or_default();
            format!("P{line}\r\n").into_bytes()
        } else {
            let fixed = self.wire.exactly(15)?;
            let length = usize::from(u16::from_be_bytes([fixed[13], fixed[14]]));
            [b"\r".to_vec(), fixed, self.wire.exactly(length)?].concat()
        };
        self.start = self.wire.position();
        let mut state = self.shared.lock();
        let connection = &mut state.connections[self.index];
        connection.bytes.drain(..header.len());
        connection.proxy_header = header;
        Ok(Next::Keep)
    }

    fn exchange(&mut self) -> io::Result<Next> {
        // It is idle between requests; one that is new may wait for its first as long as it takes.
        let idle_limit = self.shared.lock().idle_limit.filter(|_| self.wire.position() > self.start);
        self.wire.socket.set_read_timeout(idle_limit);
        if !self.wire.has_a_byte()? {
            return Ok(Next::Close);
        }
        self.wire.socket.set_read_timeout(None);
        match self.read_request() {
            Ok(Some(request)) => self.answer(&request),
            Ok(None) => Ok(Next::Close),
            Err(error) => {
                self.write(format!(
                    "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nX-Origin-Says: {error}\r\n\r\n"
                ))?;
                Ok(Next::Close)
            }
        }
    }

    fn read_request(&mut self) -> io::Result<Option<Request>> {
        let mark = self.wire.position();
        let Some(head) = Head::read(&mut self.wire)? else { return Ok(None) };
        let mut request = Request::with_head(head, self.index)?;
        if !self.shared.lock().early {
            self.read_body(&mut request)?;
        }
        request.raw = self.wire.since(mark).to_vec();
        Ok(Some(request))
    }

    fn read_body(&mut self, request: &mut Request) -> io::Result<()> {
        let expects =
            request.header("expect").is_some_and(|value| value.eq_ignore_ascii_case("100-continue"));
        if expects {
            self.write("HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        if request.is_chunked() {
            (request.body, request.trailers) = read_chunks(&mut self.wire)?;
        } else if let Some(length) = request.head.content_length()? {
            request.body = self.wire.exactly(length)?;
        }
        Ok(())
    }

    fn answer(&mut self, request: &Request) -> io::Result<Next> {
        if request.target == HEALTH_PATH {
            return self.answer_probe(request);
        }
        let reply = self.begin(request);
        let next = self.play(request, &reply);
        self.end_of_answer();
        match next {
            Ok(Next::Keep) if self.shared.lock().early => self.linger(),
            Ok(Next::Keep) if wants_close(request) => Ok(Next::Close),
            next => next,
        }
    }

    fn answer_probe(&mut self, probe: &Request) -> io::Result<Next> {
        let mut state = self.shared.lock();
        let bytes = &mut state.connections[self.index].bytes;
        let end = bytes.len() - self.wire.unread();
        bytes.drain(end - probe.raw.len()..end);
        state.probes.push(probe.clone());
        let reply = if state.sick { Reply::status(503, "sick") } else { Reply::ok("well") };
        drop(state);
        self.shared.changed.notify_all();
        let next = self.play(probe, &reply)?;
        Ok(if wants_close(probe) { Next::Close } else { next })
    }

    /// Called before the last byte leaves: whoever has read it may send the next request at once, on another
    /// connection, and would meet this one still counted.
    fn end_of_answer(&mut self) {
        if std::mem::take(&mut self.is_answering) {
            self.shared.lock().under_way -= 1;
        }
    }

    /// Records the request, waits as long as it is told to, and asks what to do with it.
    fn begin(&mut self, request: &Request) -> Reply {
        self.is_answering = true;
        let mut state = self.shared.lock();
        state.requests.push(request.clone());
        state.under_way += 1;
        state.most_under_way = state.most_under_way.max(state.under_way);
        let (handler, delay) = (Arc::clone(&state.handler), state.delay);
        self.shared.changed.notify_all();
        drop(self.shared.changed.wait_while(state, |state| state.held).expect("not poisoned"));
        thread::sleep(delay);
        handler(request)
    }

    fn play(&mut self, request: &Request, reply: &Reply) -> io::Result<Next> {
        // Head and body leave in one piece, as most servers send a short answer.
        let mut piece = Vec::new();
        for step in &reply.0 {
            match step {
                Step::Send(bytes) => piece.extend_from_slice(bytes),
                Step::Body(bytes) if request.method != "HEAD" => piece.extend_from_slice(bytes),
                Step::Body(_) => {}
                after => {
                    self.write(std::mem::take(&mut piece))?;
                    if let Some(next) = self.pause_or_end(after)? {
                        return Ok(next);
                    }
                }
            }
        }
        self.end_of_answer();
        self.write(piece)?;
        Ok(Next::Keep)
    }

    /// `None` when the script goes on.
    fn pause_or_end(&mut self, step: &Step) -> io::Result<Option<Next>> {
        match step {
            Step::Send(_) | Step::Body(_) => Ok(None),
            Step::Sleep(time) => {
                thread::sleep(*time);
                Ok(None)
            }
            Step::Close => Ok(Some(Next::Close)),
            Step::Reset => Ok(Some(Next::Reset)),
            Step::Hang => self.linger().map(Some),
            Step::EchoWebSocket => self.echo_web_socket().map(Some),
            Step::EchoBytes => self.echo_bytes().map(Some),
            Step::WaitFor(bytes) => self.wire.exactly(*bytes).map(|_| None),
            Step::Repeat(bytes, pause) => loop {
                self.write(bytes)?;
                thread::sleep(*pause);
            },
        }
    }

    /// Says nothing more, and takes in what comes until the other end goes.
    fn linger(&mut self) -> io::Result<Next> {
        self.wire.rest()?;
        Ok(Next::Close)
    }

    fn echo_web_socket(&mut self) -> io::Result<Next> {
        let socket = self.wire.socket.try_clone()?;
        let mut server =
            tungstenite::WebSocket::from_raw_socket(socket, tungstenite::protocol::Role::Server, None);
        while let Ok(message) = server.read() {
            let echo = message.is_text() || message.is_binary();
            let sent = if echo { server.send(message) } else { server.flush() };
            if sent.is_err() {
                break;
            }
        }
        Ok(Next::Close)
    }

    fn echo_bytes(&mut self) -> io::Result<Next> {
        while self.wire.has_a_byte()? {
            let bytes = self.wire.exactly(self.wire.unread())?;
            self.write(bytes)?;
        }
        Ok(Next::Close)
    }

    fn write(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.wire.socket.write_all(bytes.as_ref())
    }
}

impl Request {
    fn with_head(head: Head, connection: usize) -> io::Result<Self> {
        let words: Vec<&str> = head.start.split(' ').collect();
        let [method, target, version] = words[..] else {
            return Err(wrong(format!("request line `{}`", head.start)));
        };
        Ok(Self {
            method: method.to_owned(),
            target: target.to_owned(),
            version: version.to_owned(),
            body: Vec::new(),
            trailers: Headers::new(),
            raw: Vec::new(),
            connection,
            head,
        })
    }
}

fn wants_close(request: &Request) -> bool {
    request.values("connection").iter().any(|value| value.eq_ignore_ascii_case("close"))
}
