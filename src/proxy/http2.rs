//! Requests of one HTTP/2 connection: many at a time, each a task of its own.
//!
//! The frames are the h2 crate's affair (0.4.20). Who or what bounds a client that means harm:
//!
//! | attack | bound |
//! |---|---|
//! | rapid reset (CVE-2023-44487) | h2: 20 streams reset before we saw them; `frames.rs`: goodwill |
//! | `MadeYouReset` (CVE-2025-8671) | h2: [`OUR_RESETS_MAX`] streams that we had to reset |
//! | CONTINUATION without end | h2: frames for 5/4 of the header list, 5 at least |
//! | HPACK bomb, large heads | h2: header list of `max_header_size` and a frame, the connection ends at four times that; table of 4 KiB |
//! | PING, SETTINGS, PRIORITY, `WINDOW_UPDATE`, unknown frames | `frames.rs`: goodwill; h2 reads no further while its answers cannot be written |
//! | empty DATA, tiny DATA | h2: 100 empty frames; overhead of half a connection window for those that nobody has read |
//! | windows of zero, drips, a client that does not read | [`SEND_BYTES_MAX`] for each stream; a stall of a minute, or the route's timeout |
//! | requests left half sent | `max_streams`; the time that the pool or the route gives |
//! | malformed requests | h2: [`OUR_RESETS_MAX`]; what h2 lets through: [`MALFORMED_MAX`] |
//!
//! What is left to us is how many streams there may be, how long the connection may idle or be silent, and
//! its end in good order.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use h2::server::Connection as Frames;
use http::Method;
use pingora::apps::HttpServerApp;
use pingora::http::ResponseHeader;
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::v2::server::{self, H2Accept, H2Options, HttpSession};
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::{Digest, Stream};
use pingora::server::ShutdownWatch;
use tokio::time::Instant;

use super::accept::TrafficApp;
use super::connection::Connection;
use super::deadline::{self, Alarm};
use super::exchange::Exchange;
use super::frames::{Counted, Pulse, Silence};
use super::headers;
use super::http1::stopping;
use super::refusal::{self, Early};
use crate::observe::Reason;
use crate::runtime::{ListenerLimits, Runtime};

/// What a client sends first (RFC 9113 §3.4).
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Requests that make no sense, per connection, before no further ones are taken: as many as Pingora allows on its own
/// loop.
const MALFORMED_MAX: usize = 32;

/// Streams of one connection that the h2 crate may reset for a breach of the protocol before it ends the
/// connection; its own default of 1 024 is made for clients that carry many others.
const OUR_RESETS_MAX: usize = 128;

/// Bytes of uploads that one stream, and all streams of a connection, may have on their way to us: what an
/// upstream does not take waits here. Four streams may stall before the others feel it.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// Bytes of an answer that may wait in one stream for the client to read; the h2 crate's default is 400 KiB,
/// and a hundred streams would make 40 MiB of that, beside the half MiB in Pingora's queue for each.
const SEND_BYTES_MAX: usize = 64 * 1024;

/// How much larger a head may be than `max_header_size` for us to see, answer and log it; beyond, the h2 crate
/// answers 431 by itself, or ends the connection.
const HEAD_SLACK: usize = 16 * 1024;

/// How long a client may take to close after our GOAWAY when none of its requests is under way.
const GOODBYE: Duration = Duration::from_secs(2);

/// Serves requests until the connection ends.
pub(super) async fn serve(
    app: Arc<TrafficApp>,
    socket: Stream,
    connection: Arc<Connection>,
    shutdown: ShutdownWatch,
) {
    let limits = app.runtime.limits_of(&connection.listener);
    let (socket, pulse) = Counted::new(socket);
    let greeting = server::handshake(Box::new(socket), Some(options(limits)));
    let mut frames = match tokio::time::timeout(limits.header_timeout, greeting).await {
        Ok(Ok(frames)) => frames,
        // Not HTTP/2 after all, or gone.
        Ok(Err(_)) => return,
        Err(_) => {
            let early = Early::of(Reason::RequestTimeout).after(limits.header_timeout);
            return note(&early, &connection, &app.runtime);
        }
    };
    let Some(pings) = frames.ping_pong() else { return };
    let silence = Silence::begin(limits.http2_ping_interval);
    let streams = Arc::new(Streams::none_yet(app.runtime.clone()));
    let alarm = Alarm::new(Instant::now() + limits.keepalive_timeout);
    let state = Multiplex {
        app,
        connection,
        frames,
        streams,
        alarm,
        pings,
        silence,
        pulse,
        malformed: 0,
        is_leaving: false,
    };
    state.run(shutdown).await;
}

/// Counts and logs what is refused without an answer of ours.
fn note(early: &Early, connection: &Arc<Connection>, runtime: &Runtime) {
    let id = headers::new_request_id();
    refusal::note_early(&early.on_http2(), 0, id.to_str().unwrap_or_default(), connection, runtime);
}

/// The exchange of the stream that this digest was made for.
pub(super) fn exchange_of(digest: &Digest) -> Option<Arc<Exchange>> {
    digest.proxy_digest.as_ref()?.user_data.as_ref()?.downcast_ref::<Arc<Exchange>>().cloned()
}

/// Where a stream's hooks will find its exchange: the digest is all that Pingora hands from here to there.
fn digest_of(exchange: &Arc<Exchange>) -> pingora::Result<Arc<Digest>> {
    let unused = Box::new(ResponseHeader::build(200, Some(0))?);
    let proxy_digest = Some(Arc::new(ProxyDigest::new(unused, Some(Box::new(exchange.clone())))));
    Ok(Arc::new(Digest { proxy_digest, ..Digest::default() }))
}

fn options(limits: ListenerLimits) -> H2Options {
    let mut options = server::default_h2_options();
    options.max_concurrent_streams(limits.http2_streams);
    let head = limits.max_header_size.saturating_add(HEAD_SLACK);
    options.max_header_list_size(u32::try_from(head).unwrap_or(u32::MAX));
    options.max_local_error_reset_streams(Some(OUR_RESETS_MAX));
    options.initial_window_size(STREAM_WINDOW);
    options.initial_connection_window_size(CONNECTION_WINDOW);
    options.max_send_buffer_size(SEND_BYTES_MAX);
    options
}

/// One connection and its streams.
struct Multiplex {
    app: Arc<TrafficApp>,
    connection: Arc<Connection>,
    frames: Frames<Stream, Bytes>,
    streams: Arc<Streams>,
    alarm: Alarm,
    pings: h2::PingPong,
    silence: Silence,
    pulse: Arc<Pulse>,
    malformed: usize,
    /// We have said that no further stream is welcome.
    is_leaving: bool,
}

impl Multiplex {
    async fn run(mut self, shutdown: ShutdownWatch) {
        let mut stopping = std::pin::pin!(stopping(shutdown.clone()));
        loop {
            let exchange = Arc::new(Exchange::of_stream(self.connection.clone()));
            let Ok(digest) = digest_of(&exchange) else { return };
            let limits = self.limits();
            let patience = if self.is_leaving { GOODBYE } else { limits.keepalive_timeout };
            let accepted = tokio::select! {
                biased;
                () = &mut stopping, if !self.is_leaving => {
                    self.leave();
                    continue;
                }
                accepted = HttpSession::from_h2_conn(&mut self.frames, digest) => accepted,
                () = flooded(&self.pulse), if !self.is_leaving => {
                    tracing::debug!(client = %self.connection.peer_ip(), "too many idle frames or resets");
                    self.end(h2::Reason::ENHANCE_YOUR_CALM);
                    continue;
                }
                () = self.streams.idle_for(patience, &mut self.alarm) => {
                    if self.is_leaving {
                        return;
                    }
                    self.leave();
                    continue;
                }
                () = self.silence.lasts(limits.http2_ping_interval, &self.pulse) => {
                    if self.is_gone() {
                        return;
                    }
                    continue;
                }
            };
            match accepted {
                Ok(Some(H2Accept::Session(session))) if session.req_header().method == Method::CONNECT => {
                    self.refuse_connect(session);
                }
                Ok(Some(H2Accept::Session(session))) => {
                    let stream = self.streams.clone().begin();
                    tokio::spawn(request(self.app.clone(), session, exchange, stream, shutdown.clone()));
                }
                Ok(Some(H2Accept::Rejected)) => self.note_malformed("authority, target or content-length"),
                Ok(None) | Err(_) => return,
            }
        }
    }

    fn limits(&self) -> ListenerLimits {
        self.app.runtime.limits_of(&self.connection.listener)
    }

    /// GOAWAY, in the two steps of RFC 9113 §6.8: streams that are on their way are still served.
    fn leave(&mut self) {
        self.is_leaving = true;
        self.frames.graceful_shutdown();
    }

    /// GOAWAY at once: the streams under way are lost.
    fn end(&mut self, reason: h2::Reason) {
        self.is_leaving = true;
        self.frames.abrupt_shutdown(reason);
    }

    /// Nothing has come from the client for a while. With requests under way, it is asked whether it is still
    /// there; `true` when it was asked before, and did not answer.
    fn is_gone(&mut self) -> bool {
        if self.streams.are_none() {
            self.silence.is_asked = false;
            return false;
        }
        if self.silence.is_asked {
            return true;
        }
        self.silence.is_asked = true;
        // The answer to the last one has to be taken before the next can be sent.
        let _: Poll<_> = self.pings.poll_pong(&mut Context::from_waker(Waker::noop()));
        let _ = self.pings.send_ping(h2::Ping::opaque());
        false
    }

    /// As in HTTP/1.1; Pingora would refuse it unlogged and uncounted.
    fn refuse_connect(&mut self, mut session: HttpSession) {
        let answer = ResponseHeader::build(Reason::BadRequest.status(), Some(1));
        // The client may be gone.
        let _ = answer.and_then(|head| session.write_response_header(Box::new(head), true));
        self.note_malformed("CONNECT is not served");
    }

    fn note_malformed(&mut self, detail: &'static str) {
        note(&Early::malformed(detail), &self.connection, &self.app.runtime);
        self.malformed += 1;
        if self.malformed == MALFORMED_MAX {
            // Streams under way may be those of other clients of a proxy in front.
            self.leave();
        }
    }
}

/// Ready when the client has used up its goodwill. To be polled after the frames, which it is noticed with.
async fn flooded(pulse: &Pulse) {
    std::future::poll_fn(|_| if pulse.is_flooded() { Poll::Ready(()) } else { Poll::Pending }).await;
}

/// Lets Pingora proxy one request.
async fn request(
    app: Arc<TrafficApp>,
    session: HttpSession,
    exchange: Arc<Exchange>,
    _stream: OpenStream,
    shutdown: ShutdownWatch,
) {
    let mut alarm = Alarm::new(Instant::now() + UNKNOWN_DEADLINE);
    let request = app.proxy.process_new_http(ServerSession::new_http2(session), &shutdown);
    let _ = deadline::carry(request, &exchange, &mut alarm, &app.runtime, &shutdown).await;
}

/// Where the alarm of a stream stands until its route is known.
const UNKNOWN_DEADLINE: Duration = Duration::from_secs(3600);

/// How many streams are under way, and since when there is none.
struct Streams {
    open: AtomicUsize,
    /// Microseconds since the runtime's epoch.
    last_ended: AtomicU64,
    runtime: Arc<Runtime>,
}

impl Streams {
    fn none_yet(runtime: Arc<Runtime>) -> Self {
        Self { open: AtomicUsize::new(0), last_ended: AtomicU64::new(micros(runtime.now())), runtime }
    }

    fn begin(self: Arc<Self>) -> OpenStream {
        self.open.fetch_add(1, Ordering::Relaxed);
        OpenStream(self)
    }

    fn are_none(&self) -> bool {
        self.open.load(Ordering::Relaxed) == 0
    }

    /// Ready when there has been no stream for `time`.
    async fn idle_for(&self, time: Duration, alarm: &mut Alarm) {
        loop {
            let now = self.runtime.now();
            let is_busy = !self.are_none();
            let last = Duration::from_micros(self.last_ended.load(Ordering::Relaxed));
            let until = if is_busy { now } else { last } + time;
            if until <= now {
                return;
            }
            let until = Instant::from_std(self.runtime.instant(until));
            std::future::poll_fn(|context| alarm.poll_until(context, until)).await;
        }
    }
}

/// One stream under way, until this is dropped.
struct OpenStream(Arc<Streams>);

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.last_ended.store(micros(self.0.runtime.now()), Ordering::Relaxed);
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
