//! A client on one connection, which sends the bytes it is told to and reads what comes back.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::message::Response;
use super::wire::{Socket, Wire};

/// No play waits longer for an answer: a machine under load is slow, a hang is for ever.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// One connection to Evener.
pub(crate) struct Client {
    wire: Wire,
    address: SocketAddr,
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address).expect("connect")
    }

    /// As [`Self::connect`], for plays in which nobody may be there.
    pub(crate) fn try_connect(address: SocketAddr) -> io::Result<Self> {
        Self::on(TcpStream::connect_timeout(&address, PATIENCE)?, address)
    }

    /// As [`Self::connect`], from this address of ours.
    pub(crate) fn connect_from(source: Ipv4Addr, address: SocketAddr) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let stream = runtime.block_on(async {
            let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
            socket.bind((source, 0).into()).expect("an address of this machine");
            let connect = tokio::time::timeout(PATIENCE, socket.connect(address));
            connect.await.expect("connect in time").expect("connect").into_std().expect("a plain socket")
        });
        stream.set_nonblocking(false).expect("a socket that waits");
        Self::on(stream, address).expect("connect")
    }

    fn on(stream: TcpStream, address: SocketAddr) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { wire: Wire::new(Socket::Tcp(stream)), address })
    }

    /// On a socket that is connected to this address.
    pub(crate) fn over(socket: Socket, address: SocketAddr) -> Self {
        Self { wire: Wire::new(socket), address }
    }

    /// Our end of the connection.
    pub(crate) fn local_address(&self) -> SocketAddr {
        self.wire.socket.local_address()
    }

    /// Sends these bytes and nothing else.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.wire.socket.write_all(bytes.as_ref()).expect("send");
    }

    /// As [`Self::send`], when Evener may already have hung up.
    pub(crate) fn send_if_open(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.wire.socket.write_all(bytes.as_ref()).is_ok()
    }

    /// `GET path`; `None` when the connection is closed before there is an answer.
    pub(crate) fn try_get(&mut self, path: &str) -> Option<Response> {
        let is_sent = self.send_if_open(self.head_of("GET", path, "", b""));
        is_sent.then(|| self.try_read("GET").ok().flatten()).flatten()
    }

    /// Reads the answer to a request with this method.
    #[track_caller]
    pub(crate) fn read(&mut self, method: &str) -> Response {
        match self.try_read(method) {
            Ok(Some(response)) => response,
            Ok(None) => panic!("the connection was closed instead of an answer"),
            Err(error) => panic!("no answer: {error}"),
        }
    }

    /// As [`Self::read`]; `None` when the connection was closed instead.
    pub(crate) fn try_read(&mut self, method: &str) -> io::Result<Option<Response>> {
        Response::read(&mut self.wire, method)
    }

    /// `GET path` on this connection, and its answer.
    #[track_caller]
    pub(crate) fn get(&mut self, path: &str) -> Response {
        self.request("GET", path, "", b"")
    }

    /// A request with `Host`, these header lines (each ending in CRLF), and a sized body if there is one.
    #[track_caller]
    pub(crate) fn request(&mut self, method: &str, path: &str, headers: &str, body: &[u8]) -> Response {
        self.start(method, path, headers, body);
        self.read(method)
    }

    /// Sends what [`Self::request`] sends, and does not wait.
    pub(crate) fn start(&mut self, method: &str, path: &str, headers: &str, body: &[u8]) {
        let head = self.head_of(method, path, headers, body);
        self.send([head.as_bytes(), body].concat());
    }

    fn head_of(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> String {
        let host = if has_host(headers) { String::new() } else { format!("Host: {}\r\n", self.address) };
        let size =
            if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
        format!("{method} {path} HTTP/1.1\r\n{headers}{host}{size}\r\n")
    }

    /// Exactly `count` bytes of whatever comes.
    pub(crate) fn read_bytes(&mut self, count: usize) -> Vec<u8> {
        self.wire.exactly(count).expect("bytes")
    }

    /// Up to `count` bytes of whatever comes, if something comes at once.
    pub(crate) fn try_read_bytes(&mut self, count: usize) -> Option<Vec<u8>> {
        self.has_bytes_within(Duration::from_millis(1)).then(|| self.wire.exactly(count).ok()).flatten()
    }

    /// Whether Evener has answered, or hung up.
    pub(crate) fn is_over(&mut self) -> bool {
        self.wire.socket.set_read_timeout(Some(Duration::from_millis(1)));
        let is_waiting = self
            .wire
            .has_a_byte()
            .is_err_and(|error| matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut));
        self.wire.socket.set_read_timeout(Some(PATIENCE));
        !is_waiting
    }

    /// The same socket once more, for somebody who sends while this one reads.
    pub(crate) fn another_sender(&self) -> Socket {
        self.wire.socket.try_clone().expect("a socket")
    }

    /// Whether Evener hangs up within `time`. Bytes that come instead are a no.
    pub(crate) fn is_closed_within(&mut self, time: Duration) -> bool {
        self.wire.socket.set_read_timeout(Some(time));
        let answer = self.wire.has_a_byte();
        self.wire.socket.set_read_timeout(Some(PATIENCE));
        match answer {
            Ok(more) => !more,
            Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
        }
    }

    /// Whether something comes within `time`; it stays to be read.
    pub(crate) fn has_bytes_within(&mut self, time: Duration) -> bool {
        self.wire.socket.set_read_timeout(Some(time));
        let answer = self.wire.has_a_byte();
        self.wire.socket.set_read_timeout(Some(PATIENCE));
        answer.unwrap_or(false)
    }

    /// Says that nothing more will be sent; answers can still come.
    pub(crate) fn finish_sending(&self) {
        self.wire.socket.shutdown(Shutdown::Write);
    }

    /// Leaves with a reset.
    pub(crate) fn reset(self) {
        self.wire.into_parts().0.reset();
    }

    /// The socket, for those who speak another protocol on it from here. Nothing may be unread.
    pub(crate) fn into_socket(self) -> Socket {
        let (socket, unread) = self.wire.into_parts();
        assert!(unread.is_empty(), "unread: {unread:?}");
        socket
    }
}

fn has_host(headers: &str) -> bool {
    headers.lines().any(|line| line.to_ascii_lowercase().starts_with("host:"))
}

/// Something under way in another thread.
pub(crate) struct Background<T>(JoinHandle<T>);

impl<T: Send + 'static> Background<T> {
    pub(crate) fn run(work: impl FnOnce() -> T + Send + 'static) -> Self {
        Self(thread::spawn(work))
    }

    /// Waits for it; its panic is ours.
    pub(crate) fn join(self) -> T {
        self.0.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

/// Clients that send one GET after another until they are stopped.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<Background<BTreeMap<u16, usize>>>,
}

impl Load {
    /// So many clients, each on one connection.
    pub(crate) fn on(address: SocketAddr, clients: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let clients = (0..clients).map(|_| {
            let stop = Arc::clone(&stop);
            Background::run(move || send_until(&stop, address))
        });
        Self { clients: clients.collect(), stop }
    }

    /// How often each status was answered.
    pub(crate) fn stop(self) -> BTreeMap<u16, usize> {
        self.stop.store(true, Ordering::Relaxed);
        let mut answers = BTreeMap::new();
        for (status, count) in self.clients.into_iter().flat_map(Background::join) {
            *answers.entry(status).or_default() += count;
        }
        answers
    }
}

fn send_until(stop: &AtomicBool, address: SocketAddr) -> BTreeMap<u16, usize> {
    let mut client = Client::connect(address);
    let mut answers = BTreeMap::new();
    while !stop.load(Ordering::Relaxed) {
        *answers.entry(client.get("/").status()).or_default() += 1;
    }
    answers
}

/// Asks again and again until it is so; fails when it is not within `deadline`.
#[track_caller]
pub(crate) fn wait_until(deadline: Duration, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < deadline, "still not so after {deadline:?}");
        thread::sleep(Duration::from_millis(10));
    }
}
