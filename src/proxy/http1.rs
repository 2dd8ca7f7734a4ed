//! Requests of one HTTP/1.1 connection: waits for each at no cost, hands it to Pingora, and ends what takes
//! too long.
//!
//! ```text
//!   welcome ──► idle ──► first byte ──► head ──► Pingora's HttpProxy ──┐
//!                ▲    keepalive_timeout   header_timeout    route timeout │
//!                └──────────────────────────────────────────────────────┘
//! ```
//!
//! Between requests a connection is this future and a socket: no read buffer, no proxy state.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::BytesMut;
use pingora::apps::HttpServerApp;
use pingora::protocols::Stream;
use pingora::protocols::http::ServerSession;
use pingora::server::ShutdownWatch;
use tokio::io::AsyncWriteExt;
use tokio::time::Instant;

use super::accept::TrafficApp;
use super::client_stream::ClientStream;
use super::connection::Connection;
use super::deadline::{self, Alarm};
use super::exchange::{Exchange, Left};
use super::head::{Fault, Head, HeadReader, Reading};
use super::http2;
use super::refusal::{self, Early};
use crate::observe::Reason;
use crate::runtime::ListenerLimits;

/// How long, and how many bytes, we read on after refusing, so that the refusal is read before the
/// reset that unread bytes would cause.
const LINGER_TIME: Duration = Duration::from_secs(1);
const LINGER_BYTES_MAX: usize = 256 * 1024;

/// The requests of one connection, one after another.
pub(super) struct Conversation {
    app: Arc<TrafficApp>,
    connection: Arc<Connection>,
    exchange: Arc<Exchange>,
    alarm: Alarm,
}

impl Conversation {
    /// Nothing has been read yet.
    pub(super) fn new(app: Arc<TrafficApp>, connection: Arc<Connection>) -> Self {
        let idle_until = Instant::now() + app.runtime.limits_of(&connection.listener).keepalive_timeout;
        let exchange = Arc::new(Exchange::new(connection.clone()));
        Self { app, connection, exchange, alarm: Alarm::new(idle_until) }
    }

    /// Serves requests until the connection ends.
    pub(super) async fn run(mut self, socket: Stream, shutdown: ShutdownWatch) {
        let mut stream = Box::new(ClientStream::new(socket, self.exchange.clone()));
        let open = self.connection.listener.metrics.open_connections();
        if open > self.limits().max_connections as u64 {
            return self.refuse(stream, Early::of(Reason::TooManyConnections)).await;
        }
        let mut stopping = pin!(stopping(self.app.idle_end.clone()));
        let mut is_first = true;
        loop {
            let limits = self.limits();
            let idle_until = Instant::now() + limits.keepalive_timeout;
            if stream.ahead().is_empty()
                && !self.wait_for_first_byte(&mut stream, idle_until, stopping.as_mut()).await
            {
                return stream.end().await;
            }
            if std::mem::take(&mut is_first) && limits.http2_cleartext {
                match self.begins_http2(&mut stream, limits.header_timeout).await {
                    Some(false) => {}
                    Some(true) => {
                        let rest =
                            http2::serve(self.app, stream.into_raw(), self.connection, shutdown.clone());
                        // Boxed, so that connections of HTTP/1.1 have no room for it.
                        return Box::pin(rest).await;
                    }
                    None => {
                        let early = Early::of(Reason::RequestTimeout).after(limits.header_timeout);
                        return self.refuse(stream, early).await;
                    }
                }
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

    /// Refuses the connection, whatever its request is.
    pub(super) async fn turn_away(self, socket: Stream, early: Early) {
        let stream = Box::new(ClientStream::new(socket, self.exchange.clone()));
        self.refuse(stream, early).await;
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

    /// Whether the client speaks HTTP/2 and knows that we do: it begins with a preface that is no request.
    /// `None` when it is too slow to tell.
    async fn begins_http2(&mut self, stream: &mut ClientStream, time: Duration) -> Option<bool> {
        let until = Instant::now() + time;
        poll_fn(|context| {
            loop {
                let begun = stream.ahead();
                let length = begun.len().min(http2::PREFACE.len());
                let is_like = begun.get(..length) == http2::PREFACE.get(..length);
                if !is_like || length == http2::PREFACE.len() {
                    return Poll::Ready(Some(is_like));
                }
                match stream.poll_fill(context) {
                    Poll::Ready(Ok(true)) => {}
                    Poll::Ready(_) => return Poll::Ready(Some(false)),
                    Poll::Pending if self.alarm.poll_until(context, until).is_ready() => {
                        return Poll::Ready(None);
                    }
                    Poll::Pending => return Poll::Pending,
                }
            }
        })
        .await
    }

    /// Reads a head under its deadline. `Err(None)`: the client left in the middle of it.
    async fn read_head(
        &mut self,
        stream: &mut ClientStream,
        limits: ListenerLimits,
    ) -> Result<Head, Option<Early>> {
        // Most heads come in one piece, and need neither a deadline nor a look at the clock.
        let mut began: Option<Instant> = None;
        let mut reader = HeadReader::default();
        poll_fn(|context| {
            let took = |began: Option<Instant>| began.map_or(Duration::ZERO, |began| began.elapsed());
            loop {
                match reader.read(stream.ahead(), limits.max_header_size) {
                    Reading::Complete(head) => return Poll::Ready(Ok(head)),
                    Reading::Refused(Fault::TooLarge) => {
                        return Poll::Ready(Err(Some(Early::of(Reason::HeadTooLarge).after(took(began)))));
                    }
                    Reading::Refused(Fault::Malformed(detail)) => {
                        return Poll::Ready(Err(Some(Early::malformed(detail).after(took(began)))));
                    }
                    Reading::Partial => {}
                }
                match stream.poll_fill(context) {
                    Poll::Ready(Ok(true)) => {}
                    Poll::Ready(_) => return Poll::Ready(Err(None)),
                    Poll::Pending => {
                        let until = *began.get_or_insert_with(Instant::now) + limits.header_timeout;
                        let is_late = self.alarm.poll_until(context, until).is_ready();
                        let early = Early::of(Reason::RequestTimeout).after(limits.header_timeout);
                        return if is_late { Poll::Ready(Err(Some(early))) } else { Poll::Pending };
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
        self.exchange.begin_request(&head);
        let mut session = ServerSession::new_http1(stream);
        // Pingora must believe in keep-alive; how long a connection idles is decided above.
        session.set_keepalive(if *shutdown.borrow() { None } else { Some(KEEPALIVE_SECONDS) });
        session.set_pipelined_prefix(prefix);

        // Boxed by async_trait: an idle connection does not hold this future.
        let request = self.app.proxy.process_new_http(session, shutdown);
        let reused =
            deadline::carry(request, &self.exchange, &mut self.alarm, &self.app.runtime, shutdown).await;
        if self.exchange.was_cut_unanswered() {
            self.tell_of_cut().await;
        }
        let (stream, _) = reused?.consume();
        ClientStream::from_stream(stream).filter(|stream| stream.is_between_requests())
    }

    /// Answers a request that was cut off, and is counted and logged already.
    async fn tell_of_cut(&self) {
        const REASON: Reason = Reason::UpstreamTimeout;
        let Left { socket: Some(socket), request_id } = self.exchange.take_left() else { return };
        let id = request_id.as_ref().and_then(|id| id.to_str().ok()).unwrap_or_default();
        let answer = refusal::raw_answer(REASON, id, &refusal::text_body(REASON, id));
        self.part(Box::new(ClientStream::new(socket, self.exchange.clone())), &answer).await;
    }

    /// Answers a request that Pingora never sees, and closes.
    async fn refuse(&self, stream: Box<ClientStream>, early: Early) {
        let answer = refusal::refuse_early(&early, &self.connection, &self.app.runtime);
        self.part(stream, &answer).await;
    }

    /// Says these last words, and closes.
    async fn part(&self, mut stream: Box<ClientStream>, answer: &[u8]) {
        self.exchange.note_answer();
        let farewell = async {
            if stream.write_all(answer).await.is_ok() && stream.flush().await.is_ok() {
                let _ = stream.shutdown().await;
                stream.drain(LINGER_BYTES_MAX).await;
            }
        };
        let _ = tokio::time::timeout(LINGER_TIME, farewell).await;
    }
}

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
pub(super) async fn stopping(mut shutdown: ShutdownWatch) {
    // An error means that the sender is gone, hence the server too.
    let _ = shutdown.wait_for(|is_stopping| *is_stopping).await;
}
