//! One client connection: waits for a request at no cost, hands it to Pingora, and ends what takes
//! too long.
//!
//! ```text
//!   accepted ──► idle ──► first byte ──► head ──► Pingora's HttpProxy ──┐
//!                 ▲    keepalive_timeout   header_timeout    route timeout │
//!                 └──────────────────────────────────────────────────────┘
//! ```
//!
//! Between requests a connection is this future and a socket: no read buffer, no proxy state.

use std::future::{Future, poll_fn};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use async_trait::async_trait;
use bytes::BytesMut;
use http::HeaderValue;
use pingora::apps::{HttpServerApp, ServerApp};
use pingora::protocols::Stream;
use pingora::protocols::http::ServerSession;
use pingora::proxy::HttpProxy;
use pingora::server::ShutdownWatch;
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, Sleep, sleep_until};

use super::Proxy;
use super::client_stream::{Answer, ClientStream};
use super::head::{Fault, Framing, Head, HeadReader, Reading};
use super::refusal::{self, Early};
use crate::observe::Reason;
use crate::runtime::{ConnectionGuard, Listener, ListenerLimits, Runtime};

/// A deadline that never comes: upgraded connections have none.
const NEVER: u64 = u64::MAX;

/// How much longer than its route's timeout a request lives before its connection is cut. At the timeout
/// itself it is given up, and answered with 504; this is for requests whose response is under way or whose
/// client does not read. It is, too, for an upload that the upstream does not take: Pingora reads nothing then,
/// and finds nothing out, so that it is answered here.
const CUT_GRACE: Duration = Duration::from_millis(250);

/// How long, and how many bytes, we read on after refusing, so that the refusal is read before the
/// reset that unread bytes would cause.
const LINGER_TIME: Duration = Duration::from_secs(1);
const LINGER_BYTES_MAX: usize = 256 * 1024;

/// What the hooks and the loop around them share about one connection.
#[derive(Debug)]
pub(super) struct Connection {
    /// Who accepted it.
    pub listener: Arc<Listener>,
    /// The other end of the socket.
    pub peer: SocketAddr,
    /// Microseconds since the runtime's epoch; see [`NEVER`].
    deadline: AtomicU64,
    bad_body: AtomicBool,
    cut: AtomicBool,
    is_late: AtomicBool,
    is_answered: AtomicBool,
    was_given_up: AtomicBool,
    is_end_to_end: AtomicBool,
    claims_nothing: AtomicBool,
    has_small_head_only: AtomicBool,
    is_handshake: AtomicBool,
    handshake: Mutex<Handshake>,
    left: Mutex<Left>,
    /// The peer's address, ready to be sent as `X-Forwarded-For`.
    pub peer_header: HeaderValue,
    _counted: ConnectionGuard,
}

/// A WebSocket handshake under way: its answer, and who waits for it.
#[derive(Debug, Default)]
struct Handshake {
    answer: Option<Answer>,
    waiting: Option<Waker>,
}

/// What a request that was cut off unanswered leaves behind, so that its client can be told.
#[derive(Debug, Default)]
struct Left {
    socket: Option<Stream>,
    request_id: Option<HeaderValue>,
}

impl Connection {
    fn new(listener: Arc<Listener>, peer: SocketAddr) -> Self {
        Self {
            peer,
            peer_header: HeaderValue::from_str(&peer.ip().to_canonical().to_string())
                .unwrap_or(HeaderValue::from_static("unknown")),
            deadline: AtomicU64::new(NEVER),
            bad_body: AtomicBool::new(false),
            cut: AtomicBool::new(false),
            is_late: AtomicBool::new(false),
            is_answered: AtomicBool::new(false),
            was_given_up: AtomicBool::new(false),
            is_end_to_end: AtomicBool::new(false),
            claims_nothing: AtomicBool::new(false),
            has_small_head_only: AtomicBool::new(false),
            is_handshake: AtomicBool::new(false),
            handshake: Mutex::default(),
            left: Mutex::default(),
            _counted: listener.count_connection(),
            listener,
        }
    }

    /// The request under way is given up at this time, and cut off soon after.
    pub(super) fn set_deadline(&self, deadline: Option<Duration>) {
        let micros = deadline.map_or(NEVER, |deadline| u64::try_from(deadline.as_micros()).unwrap_or(NEVER));
        self.deadline.store(micros, Ordering::Relaxed);
    }

    /// An answer of the upstream's is on its way to the client: too late to give up.
    pub(super) fn note_answer(&self) {
        self.is_answered.store(true, Ordering::Relaxed);
    }

    /// Whether the request under way is to be given up now: `true` once, at its deadline. Whoever reads for
    /// it then fails, which ends the attempt whatever the upstream does, without a timer for each attempt.
    pub(super) fn gives_up(&self) -> bool {
        let gives_up = self.is_late.load(Ordering::Relaxed) && !self.is_answered.load(Ordering::Relaxed);
        if gives_up {
            self.is_late.store(false, Ordering::Relaxed);
            self.was_given_up.store(true, Ordering::Relaxed);
        }
        gives_up
    }

    /// Whether [`gives_up`](Self::gives_up) said so.
    pub(super) fn was_given_up(&self) -> bool {
        self.was_given_up.load(Ordering::Relaxed)
    }

    /// Whether the head under way holds nothing that is for this connection alone; see [`Head`].
    pub(super) fn is_end_to_end(&self) -> bool {
        self.is_end_to_end.load(Ordering::Relaxed)
    }

    /// Whether the head under way says nothing about who asked; see [`Head`].
    pub(super) fn claims_nothing(&self) -> bool {
        self.claims_nothing.load(Ordering::Relaxed)
    }

    /// Whether the request under way is a head that fits into any socket's buffer: writing it never waits.
    pub(super) fn has_small_head_only(&self) -> bool {
        self.has_small_head_only.load(Ordering::Relaxed)
    }

    /// The upstream, or we in its place, have answered a WebSocket handshake.
    pub(super) fn answer_handshake(&self, answer: Answer) {
        if !self.is_handshake() {
            return;
        }
        let mut handshake = self.handshake.lock().unwrap_or_else(PoisonError::into_inner);
        handshake.answer = Some(answer);
        if let Some(waiting) = handshake.waiting.take() {
            waiting.wake();
        }
    }

    /// What was answered; `waker` is woken when there is an answer.
    pub(super) fn handshake_answer(&self, waker: &Waker) -> Option<Answer> {
        let mut handshake = self.handshake.lock().unwrap_or_else(PoisonError::into_inner);
        if handshake.answer.is_none() {
            handshake.waiting = Some(waker.clone());
        }
        handshake.answer
    }

    /// Whether the request under way is a WebSocket handshake.
    pub(super) fn is_handshake(&self) -> bool {
        self.is_handshake.load(Ordering::Relaxed)
    }

    /// A new request: what was said about the one before does not hold for it.
    fn begin_request(&self, head: &Head) {
        self.set_deadline(None);
        self.is_late.store(false, Ordering::Relaxed);
        self.is_answered.store(false, Ordering::Relaxed);
        self.was_given_up.store(false, Ordering::Relaxed);
        self.is_end_to_end.store(head.is_end_to_end, Ordering::Relaxed);
        self.claims_nothing.store(head.claims_nothing, Ordering::Relaxed);
        let is_small = head.framing == Framing::None && head.length <= SMALL_HEAD_BYTES;
        self.has_small_head_only.store(is_small, Ordering::Relaxed);
        let is_handshake = head.framing == Framing::Upgrade;
        self.is_handshake.store(is_handshake, Ordering::Relaxed);
        if is_handshake {
            *self.handshake.lock().unwrap_or_else(PoisonError::into_inner) = Handshake::default();
        }
    }

    /// The client sent a body that cannot be read in one way only.
    pub(super) fn note_bad_body(&self) {
        self.bad_body.store(true, Ordering::Relaxed);
    }

    /// Whether the body of the request under way was malformed.
    pub(super) fn has_bad_body(&self) -> bool {
        self.bad_body.load(Ordering::Relaxed)
    }

    /// Whether the request under way was cut off by its deadline.
    pub(super) fn was_cut(&self) -> bool {
        self.cut.load(Ordering::Relaxed)
    }

    /// Whether it was, and its client has not seen anything of an answer.
    pub(super) fn was_cut_unanswered(&self) -> bool {
        self.was_cut() && !self.is_answered.load(Ordering::Relaxed)
    }

    /// The socket of a request that was cut off unanswered.
    pub(super) fn leave_socket(&self, socket: Stream) {
        self.left.lock().unwrap_or_else(PoisonError::into_inner).socket = Some(socket);
    }

    /// The id of a request that was cut off unanswered.
    pub(super) fn leave_request_id(&self, id: HeaderValue) {
        self.left.lock().unwrap_or_else(PoisonError::into_inner).request_id = Some(id);
    }

    fn take_left(&self) -> Left {
        std::mem::take(&mut *self.left.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn deadline(&self) -> Option<Duration> {
        match self.deadline.load(Ordering::Relaxed) {
            NEVER => None,
            micros => Some(Duration::from_micros(micros)),
        }
    }
}

/// The application behind every listener; Pingora accepts, and calls it for each connection.
pub struct TrafficApp {
    runtime: Arc<Runtime>,
    proxy: Arc<HttpProxy<Proxy>>,
}

impl TrafficApp {
    /// Serves connections of `runtime`'s listeners through `proxy`.
    pub fn new(runtime: Arc<Runtime>, proxy: HttpProxy<Proxy>) -> Self {
        Self { runtime, proxy: Arc::new(proxy) }
    }
}

#[async_trait]
impl ServerApp for TrafficApp {
    async fn process_new(self: &Arc<Self>, socket: Stream, shutdown: &ShutdownWatch) -> Option<Stream> {
        let digest = socket.get_socket_digest();
        let address = |address: Option<&pingora::protocols::l4::socket::SocketAddr>| {
            address.and_then(|address| address.as_inet().copied())
        };
        let local = address(digest.as_ref().and_then(|digest| digest.local_addr()));
        // Both are unknown only when the client is gone already.
        let peer = address(digest.as_ref().and_then(|digest| digest.peer_addr()))
            .unwrap_or_else(|| SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0));
        let listener = self.runtime.listener_at(local?)?;
        let connection = Arc::new(Connection::new(listener, peer));
        let stream = Box::new(ClientStream::new(socket, connection.clone()));
        let alarm =
            Alarm::new(Instant::now() + self.runtime.limits_of(&connection.listener).keepalive_timeout);
        let conversation = Conversation { app: self.clone(), connection, alarm };
        // A task of its own: the one we are called in has room for a TLS handshake, about 10 KiB
        // (measured), and would hold it for as long as the connection lives.
        tokio::spawn(conversation.run(stream, shutdown.clone()));
        None
    }

    async fn cleanup(&self) {
        self.proxy.http_cleanup().await;
    }
}

/// The requests of one connection, one after another.
struct Conversation {
    app: Arc<TrafficApp>,
    connection: Arc<Connection>,
    alarm: Alarm,
}

impl Conversation {
    async fn run(mut self, mut stream: Box<ClientStream>, shutdown: ShutdownWatch) {
        let open = self.connection.listener.metrics.open_connections();
        if open > self.limits().max_connections as u64 {
            return self.refuse(stream, Early::of(Reason::TooManyConnections)).await;
        }
        let mut stopping = pin!(stopping(shutdown.clone()));
        loop {
            let limits = self.limits();
            let idle_until = Instant::now() + limits.keepalive_timeout;
            if stream.ahead().is_empty()
                && !self.wait_for_first_byte(&mut stream, idle_until, stopping.as_mut()).await
            {
                return stream.end().await;
            }
            let head = match self.read_head(&mut stream, limits).await {
                Ok(head) => head,
                Err(Some(early)) => return self.refuse(stream, early).await,
                Err(None) => return,
            };
            match self.serve(stream, head, &shutdown).await {
                Some(next) => stream = next,
                None => return,
            }
        }
    }

    fn limits(&self) -> ListenerLimits {
        self.app.runtime.limits_of(&self.connection.listener)
    }

    /// `false` when there is no further request: closed, idle for too long, or we are stopping.
    async fn wait_for_first_byte(
        &mut self,
        stream: &mut ClientStream,
        until: Instant,
        mut stopping: Pin<&mut impl Future<Output = ()>>,
    ) -> bool {
        poll_fn(|context| {
            if let Poll::Ready(filled) = stream.poll_fill(context) {
                return Poll::Ready(filled.unwrap_or(false));
            }
            let is_over = stopping.as_mut().poll(context).is_ready()
                || self.alarm.poll_until(context, until).is_ready();
            if is_over { Poll::Ready(false) } else { Poll::Pending }
        })
        .await
    }

    /// Reads a head under its deadline. `Err(None)`: the client left in the middle of it.
    async fn read_head(
        &mut self,
        stream: &mut ClientStream,
        limits: ListenerLimits,
    ) -> Result<Head, Option<Early>> {
        // Most heads come in one piece and need no deadline.
        let mut until = None;
        let mut reader = HeadReader::default();
        poll_fn(|context| {
            loop {
                match reader.read(stream.ahead(), limits.max_header_size) {
                    Reading::Complete(head) => return Poll::Ready(Ok(head)),
                    Reading::Refused(Fault::TooLarge) => {
                        return Poll::Ready(Err(Some(Early::of(Reason::HeadTooLarge))));
                    }
                    Reading::Refused(Fault::Malformed(detail)) => {
                        return Poll::Ready(Err(Some(Early::malformed(detail))));
                    }
                    Reading::Partial => {}
                }
                match stream.poll_fill(context) {
                    Poll::Ready(Ok(true)) => {}
                    Poll::Ready(_) => return Poll::Ready(Err(None)),
                    Poll::Pending => {
                        let until = *until.get_or_insert_with(|| Instant::now() + limits.header_timeout);
                        let is_late = self.alarm.poll_until(context, until).is_ready();
                        let timeout = || Err(Some(Early::of(Reason::RequestTimeout)));
                        return if is_late { Poll::Ready(timeout()) } else { Poll::Pending };
                    }
                }
            }
        })
        .await
    }

    /// Lets Pingora proxy one request; answers with the stream when another may follow.
    async fn serve(
        &mut self,
        mut stream: Box<ClientStream>,
        head: Head,
        shutdown: &ShutdownWatch,
    ) -> Option<Box<ClientStream>> {
        let prefix: BytesMut = stream.begin_request(head.skip, head.length, head.framing);
        self.connection.begin_request(&head);
        let mut session = ServerSession::new_http1(stream);
        // Pingora must believe in keep-alive; how long a connection idles is decided above.
        session.set_keepalive(if *shutdown.borrow() { None } else { Some(KEEPALIVE_SECONDS) });
        session.set_pipelined_prefix(prefix);

        // Boxed by async_trait: an idle connection does not hold this future.
        let proxy = self.app.proxy.clone();
        let mut request = proxy.process_new_http(session, shutdown);
        let mut is_late = false;
        let reused = poll_fn(|context| {
            loop {
                if let Poll::Ready(reused) = request.as_mut().poll(context) {
                    return Poll::Ready(reused);
                }
                if self.poll_deadline(context, is_late).is_pending() {
                    return Poll::Pending;
                }
                if is_late {
                    self.connection.cut.store(true, Ordering::Relaxed);
                    return Poll::Ready(None);
                }
                // Polled once more, it finds out by itself, and answers.
                is_late = true;
                self.connection.is_late.store(true, Ordering::Relaxed);
            }
        })
        .await;
        drop(request);
        if self.connection.was_cut_unanswered() {
            self.tell_of_cut().await;
        }
        let (stream, _) = reused?.consume();
        ClientStream::from_stream(stream).filter(|stream| stream.is_between_requests())
    }

    /// Ready when the request under way is past its deadline, which may be moved meanwhile; if it `is_late`
    /// already, when the grace is over too.
    fn poll_deadline(&mut self, context: &mut Context<'_>, is_late: bool) -> Poll<()> {
        let Some(deadline) = self.connection.deadline() else { return Poll::Pending };
        let until = if is_late { deadline + CUT_GRACE } else { deadline };
        self.alarm.poll_until(context, self.app.runtime.instant(until).into())
    }

    /// Answers a request that was cut off, and is counted and logged already.
    async fn tell_of_cut(&self) {
        let Left { socket: Some(socket), request_id } = self.connection.take_left() else { return };
        let id = request_id.as_ref().and_then(|id| id.to_str().ok()).unwrap_or_default();
        let answer = refusal::raw_answer(Reason::UpstreamTimeout, id);
        self.part(Box::new(ClientStream::new(socket, self.connection.clone())), &answer).await;
    }

    /// Answers a request that Pingora never sees, and closes.
    async fn refuse(&self, stream: Box<ClientStream>, early: Early) {
        let answer = refusal::refuse_early(&early, &self.connection, &self.app.runtime);
        self.part(stream, &answer).await;
    }

    /// Says these last words, and closes.
    async fn part(&self, mut stream: Box<ClientStream>, answer: &[u8]) {
        self.connection.note_answer();
        let farewell = async {
            if stream.write_all(answer).await.is_ok() && stream.flush().await.is_ok() {
                let _ = stream.shutdown().await;
                stream.drain(LINGER_BYTES_MAX).await;
            }
        };
        let _ = tokio::time::timeout(LINGER_TIME, farewell).await;
    }
}

/// A head up to here is taken by the kernel at once, whatever the upstream does: an idle socket has room for
/// at least one page (`net.ipv4.tcp_wmem`).
const SMALL_HEAD_BYTES: usize = 2048;

/// What Pingora is told about keep-alive, in seconds; only whether it is on matters.
const KEEPALIVE_SECONDS: u64 = 60;

impl ClientStream {
    /// Closes our side, so that the client sees an orderly end.
    async fn end(mut self: Box<Self>) {
        let _ = self.shutdown().await;
    }

    /// Reads and forgets up to `bytes_max`, until the client closes.
    async fn drain(&mut self, bytes_max: usize) {
        let mut drained = 0;
        while drained < bytes_max {
            let before = self.ahead().len();
            match poll_fn(|context| self.poll_fill(context)).await {
                Ok(true) => drained += self.ahead().len() - before,
                _ => return,
            }
            self.forget_ahead();
        }
    }
}

/// Ready once the process is stopping.
async fn stopping(mut shutdown: ShutdownWatch) {
    // An error means that the sender is gone, hence the server too.
    let _ = shutdown.wait_for(|is_stopping| *is_stopping).await;
}

/// One timer per connection, moved as seldom as possible.
///
/// Deadlines of a busy connection move forward all the time. Setting a timer for each would cost more
/// than the checks: so the timer stays where it is while it is early enough, and when it goes off too
/// early it is set again.
struct Alarm {
    sleep: Pin<Box<Sleep>>,
}

impl Alarm {
    fn new(until: Instant) -> Self {
        Self { sleep: Box::pin(sleep_until(until)) }
    }

    fn poll_until(&mut self, context: &mut Context<'_>, until: Instant) -> Poll<()> {
        if until < self.sleep.deadline() {
            self.sleep.as_mut().reset(until);
        }
        while self.sleep.as_mut().poll(context).is_ready() {
            if Instant::now() >= until {
                return Poll::Ready(());
            }
            self.sleep.as_mut().reset(until);
        }
        Poll::Pending
    }
}
