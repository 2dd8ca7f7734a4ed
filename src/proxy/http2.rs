//! Requests of one HTTP/2 connection: many at a time, each a task of its own.
//!
//! The frames are the h2 crate's affair, which bounds what a client may make us hold: header lists, resets
//! (rapid reset, `MadeYouReset`), CONTINUATION frames. What is left to us is how many streams there may be,
//! how long the connection may idle, and its end in good order.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use h2::server::Connection as Frames;
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
use super::http1::stopping;
use crate::observe::Reason;
use crate::runtime::{ListenerLimits, Runtime};

/// What a client sends first (RFC 9113 §3.4).
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Requests that make no sense, per connection, before we end it: as many as Pingora allows on its own loop.
const MALFORMED_MAX: usize = 32;

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
    let greeting = server::handshake(socket, Some(options(limits)));
    let Ok(Ok(frames)) = tokio::time::timeout(limits.header_timeout, greeting).await else { return };
    let streams = Arc::new(Streams::none_yet(app.runtime.clone()));
    let alarm = Alarm::new(Instant::now() + limits.keepalive_timeout);
    Multiplex { app, connection, frames, streams, alarm, malformed: 0, is_leaving: false }
        .run(shutdown)
        .await;
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
    options.max_header_list_size(u32::try_from(limits.max_header_size).unwrap_or(u32::MAX));
    options.data_frame_budget(SMALL_FRAMES_BYTES);
    options
}

/// What small DATA frames that we have not read yet may cost in memory beside their content, per connection:
/// room for two thousand messages of a gRPC stream, as hyper has it. With what the h2 crate makes of our window,
/// a client that sends a hundred of them in one go would lose its connection, with every call on it.
const SMALL_FRAMES_BYTES: usize = 512 * 1024;

/// One connection and its streams.
struct Multiplex {
    app: Arc<TrafficApp>,
    connection: Arc<Connection>,
    frames: Frames<Stream, Bytes>,
    streams: Arc<Streams>,
    alarm: Alarm,
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
            let patience = if self.is_leaving { GOODBYE } else { self.limits().keepalive_timeout };
            let accepted = tokio::select! {
                biased;
                () = &mut stopping, if !self.is_leaving => {
                    self.leave();
                    continue;
                }
                accepted = HttpSession::from_h2_conn(&mut self.frames, digest) => accepted,
                () = self.streams.idle_for(patience, &mut self.alarm) => {
                    if self.is_leaving {
                        return;
                    }
                    self.leave();
                    continue;
                }
            };
            match accepted {
                Ok(Some(H2Accept::Session(session))) => {
                    let stream = self.streams.clone().begin();
                    tokio::spawn(request(self.app.clone(), session, exchange, stream, shutdown.clone()));
                }
                Ok(Some(H2Accept::Rejected)) => self.note_malformed(),
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

    fn note_malformed(&mut self) {
        self.app.runtime.metrics.refused(Reason::BadRequest);
        self.malformed += 1;
        if self.malformed == MALFORMED_MAX {
            self.is_leaving = true;
            self.frames.abrupt_shutdown(h2::Reason::ENHANCE_YOUR_CALM);
        }
    }
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
    let _ = deadline::carry(request, &exchange, &mut alarm, &app.runtime).await;
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

    /// Ready when there has been no stream for `time`.
    async fn idle_for(&self, time: Duration, alarm: &mut Alarm) {
        loop {
            let now = self.runtime.now();
            let is_busy = self.open.load(Ordering::Relaxed) > 0;
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
