//! The client's side of a connection, cut into requests.
//!
//! ```text
//!   socket ──► ahead ──► read_head ──► one head ──► Pingora's session (as its prefix)
//!                 └────► poll_read ──► this request's body, and not one byte more
//! ```
//!
//! Pingora sees exactly one request at a time: what a client sends ahead (pipelining) stays here until
//! the response is out, a half-read body can never be taken for a request, and an idle connection
//! holds no buffer at all.

use std::fmt;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use pingora::protocols::{IO, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::by_socket::answer_by_socket;
use super::chunked::ChunkScanner;
use super::exchange::Exchange;
use super::head::Framing;
use super::tunnel::{self, Tunnel};

/// Bytes taken from the socket at a time while no request is under way: most heads come in one read.
const READ_BYTES: usize = 8 * 1024;

/// Bytes a client may send ahead of the response to its last request; further ones wait in the kernel.
const AHEAD_BYTES_MAX: usize = 64 * 1024;

/// See the module documentation.
pub(super) struct ClientStream {
    socket: Stream,
    exchange: Arc<Exchange>,
    /// Received, and not yet handed on.
    ahead: BytesMut,
    body: Body,
    /// The client has sent all that it will send.
    is_closed: bool,
    /// Since the upstream agreed to a WebSocket.
    tunnel: Option<Box<Tunnel>>,
    /// The client takes nothing at the moment, for the so-manieth time.
    stalls: u32,
    is_stalled: bool,
}

/// What is left of the body of the request under way.
#[derive(Debug)]
enum Body {
    Done,
    Sized(u64),
    Chunked(ChunkScanner),
    /// A WebSocket handshake: nothing, until the upstream has answered it.
    Handshake,
    /// Until the connection ends.
    Open,
}

/// What an upstream said to a WebSocket handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Bytes go through from here on.
    Accepted,
    /// It is an ordinary request, and ends with its head.
    Refused,
}

/// Tells Pingora that a handshake has a body which is not here yet.
///
/// For a request without one it passes the end of the body on to its upstream half, and when the
/// upstream is faster than that message, takes it for the end of the tunnel (0.9.1,
/// `proxy_handle_upstream`). So it gets a body without end, which [`Answer::Refused`] ends.
const PRETENDED_BODY: &[u8] = b"Transfer-Encoding: chunked\r\n\r\n";
const END_OF_PRETENDED_BODY: &[u8] = b"0\r\n\r\n";

impl ClientStream {
    pub(super) fn new(socket: Stream, exchange: Arc<Exchange>) -> Self {
        Self {
            socket,
            exchange,
            ahead: BytesMut::new(),
            body: Body::Done,
            is_closed: false,
            tunnel: None,
            stalls: 0,
            is_stalled: false,
        }
    }

    /// Takes the stream back from Pingora; `None` if it never was one of ours.
    pub(super) fn from_stream(stream: Stream) -> Option<Box<Self>> {
        stream.into_any().downcast::<Self>().ok()
    }

    /// What the loop around a session of Pingora knows of its requests.
    pub(super) fn exchange_of(stream: &Stream) -> Option<&Arc<Exchange>> {
        let io: &dyn IO = stream.as_ref();
        io.as_any().downcast_ref::<Self>().map(|stream| &stream.exchange)
    }

    /// Lets all bytes through from here on, those that were read ahead first.
    pub(super) fn into_raw(mut self: Box<Self>) -> Stream {
        self.body = Body::Open;
        self
    }

    /// What has arrived and belongs to no request yet.
    pub(super) fn ahead(&self) -> &[u8] {
        &self.ahead
    }

    /// Drops what has arrived, when nobody will read it any more.
    pub(super) fn forget_ahead(&mut self) {
        self.ahead.clear();
    }

    /// Hands out the head at the front, and lets the body that follows it through.
    pub(super) fn begin_request(&mut self, skip: usize, length: usize, framing: Framing) -> BytesMut {
        self.ahead.advance(skip.min(self.ahead.len()));
        self.body = match framing {
            Framing::None => Body::Done,
            Framing::Sized(length) => Body::Sized(length),
            Framing::Chunked => Body::Chunked(ChunkScanner::new()),
            Framing::Upgrade => Body::Handshake,
        };
        let mut head = if length >= self.ahead.len() {
            // The usual case: the buffer goes along whole, and the idle connection keeps none.
            std::mem::take(&mut self.ahead)
        } else {
            self.ahead.split_to(length)
        };
        if framing == Framing::Upgrade {
            head.truncate(head.len() - b"\r\n".len());
            head.extend_from_slice(PRETENDED_BODY);
        }
        head
    }

    /// Until the upstream has answered the handshake there is nothing to hand on.
    fn poll_handshake(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.exchange.handshake_answer(context.waker()) {
            None if self.exchange.gives_up() => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            None => self.poll_closed(context),
            Some(Answer::Accepted) => {
                self.body = Body::Open;
                self.poll_tunnel_read(context, buffer)
            }
            // Whoever reads a body has room for more than its end.
            Some(Answer::Refused) if buffer.remaining() >= END_OF_PRETENDED_BODY.len() => {
                self.body = Body::Done;
                buffer.put_slice(END_OF_PRETENDED_BODY);
                Poll::Ready(Ok(()))
            }
            Some(Answer::Refused) => Poll::Ready(Err(io::ErrorKind::InvalidInput.into())),
        }
    }

    /// Whether the body of the last request was taken in full, so that the next bytes are a head.
    pub(super) fn is_between_requests(&self) -> bool {
        matches!(self.body, Body::Done)
    }

    /// Waits for more bytes; `Ok(false)` when the client has sent all.
    pub(super) fn poll_fill(&mut self, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
        if self.is_closed {
            return Poll::Ready(Ok(false));
        }
        let mut space = [const { MaybeUninit::uninit() }; READ_BYTES];
        let mut buffer = ReadBuf::uninit(&mut space);
        ready!(Pin::new(&mut self.socket).poll_read(context, &mut buffer))?;
        self.is_closed = buffer.filled().is_empty();
        self.ahead.extend_from_slice(buffer.filled());
        Poll::Ready(Ok(!self.is_closed))
    }

    /// Between body and next request: nothing to hand on, but a client that leaves is noticed.
    fn poll_closed(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.ahead.len() < AHEAD_BYTES_MAX && !self.is_closed {
            ready!(self.poll_fill(context))?;
        }
        // Requests sent ahead are answered even if the client has closed its side since.
        if self.is_closed && self.ahead.is_empty() { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    fn poll_body(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let from_ahead = self.ahead.len().min(buffer.remaining());
        if from_ahead > 0 {
            buffer.put_slice(self.ahead.get(..from_ahead).unwrap_or_default());
            self.ahead.advance(from_ahead);
        } else if !self.is_closed {
            ready!(Pin::new(&mut self.socket).poll_read(context, buffer))?;
            self.is_closed = buffer.filled().len() == before;
        }
        self.keep_what_follows(buffer, before)?;
        Poll::Ready(Ok(()))
    }

    /// What the client sends through a tunnel; after the farewell, a Close frame in place of it.
    fn poll_tunnel_read(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let is_over = self.exchange.says_farewell();
        if is_over {
            // If the client cannot take it now, the socket wakes us, or who writes next says it.
            let _ = self.poll_tell_client(context)?;
        }
        let tunnel = self.tunnel.get_or_insert_default();
        if is_over && !tunnel.told_upstream && tunnel.to_upstream.is_between() && buffer.remaining() >= 8 {
            buffer.put_slice(&tunnel::close_to_upstream(fastrand::u32(..).to_ne_bytes()));
            tunnel.told_upstream = true;
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        loop {
            ready!(self.poll_body(context, buffer))?;
            let fresh = buffer.filled().get(before..).unwrap_or_default();
            let tunnel = self.tunnel.get_or_insert_default();
            let passing = match is_over {
                _ if fresh.is_empty() => return Poll::Ready(Ok(())),
                false => fresh.len(),
                true if tunnel.told_upstream => 0,
                true => tunnel.to_upstream.rest_of_frame(fresh),
            };
            tunnel.to_upstream.pass(fresh.get(..passing).unwrap_or_default());
            buffer.set_filled(before + passing);
            if passing > 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// What the upstream sends through a tunnel; after the farewell, nothing beyond the frame under way.
    fn poll_tunnel_write(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let is_over = self.exchange.says_farewell();
        if is_over && ready!(self.poll_tell_client(context))? {
            return Poll::Ready(Ok(bytes.len()));
        }
        let tunnel = self.tunnel.get_or_insert_default();
        let welcome = if is_over { tunnel.welcome_to_client(bytes) } else { bytes.len() };
        let passing = bytes.get(..welcome).unwrap_or_default();
        let written = ready!(Pin::new(&mut self.socket).poll_write(context, passing))?;
        tunnel.passed_to_client(passing.get(..written).unwrap_or_default());
        Poll::Ready(Ok(written))
    }

    /// Sends the Close frame, if this is a place for it; `true` when it is out.
    fn poll_tell_client(&mut self, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let tunnel = self.tunnel.get_or_insert_default();
        if tunnel.told_client == 0 && !tunnel.is_client_ready() {
            return Poll::Ready(Ok(false));
        }
        while let Some(rest) =
            tunnel::CLOSE_TO_CLIENT.get(tunnel.told_client..).filter(|rest| !rest.is_empty())
        {
            tunnel.told_client += ready!(Pin::new(&mut self.socket).poll_write(context, rest))?.max(1);
        }
        ready!(Pin::new(&mut self.socket).poll_flush(context))?;
        Poll::Ready(Ok(true))
    }

    /// Notes whether the client takes what we have for it.
    fn note_stall<T>(&mut self, poll: Poll<T>) -> Poll<T> {
        if poll.is_pending() != self.is_stalled {
            self.is_stalled = poll.is_pending();
            self.stalls = self.stalls.wrapping_add(1).max(1);
            self.exchange.note_stall(if self.is_stalled { self.stalls } else { 0 });
        }
        poll
    }

    /// Puts back what stands in `buffer` behind the end of the body.
    fn keep_what_follows(&mut self, buffer: &mut ReadBuf<'_>, before: usize) -> io::Result<()> {
        let fresh = buffer.filled().get(before..).unwrap_or_default();
        let taken = self.body.take(fresh).inspect_err(|_| self.exchange.note_bad_body())?;
        if taken < fresh.len() {
            let mut ahead = BytesMut::from(fresh.get(taken..).unwrap_or_default());
            ahead.unsplit(std::mem::take(&mut self.ahead));
            self.ahead = ahead;
            buffer.set_filled(before + taken);
        }
        Ok(())
    }
}

impl Body {
    /// How many leading bytes of `fresh` are body.
    fn take(&mut self, fresh: &[u8]) -> io::Result<usize> {
        match self {
            Self::Done | Self::Handshake => Ok(0),
            Self::Open => Ok(fresh.len()),
            Self::Sized(left) => {
                let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(fresh.len());
                *left -= taken as u64;
                if *left == 0 {
                    *self = Self::Done;
                }
                Ok(taken)
            }
            Self::Chunked(scanner) => {
                let taken = scanner
                    .advance(fresh)
                    .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "malformed chunk"))?;
                if scanner.is_done() {
                    *self = Self::Done;
                }
                Ok(taken)
            }
        }
    }
}

impl Drop for ClientStream {
    /// A request that is cut off takes its stream with it; but its client has not been told anything yet.
    fn drop(&mut self) {
        if self.exchange.was_cut_unanswered() {
            let nothing = Box::new(io::Cursor::new(Vec::new()));
            self.exchange.leave_socket(std::mem::replace(&mut self.socket, nothing));
        }
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match this.body {
            Body::Handshake => this.poll_handshake(context, buffer),
            Body::Open if this.exchange.is_tunnel() => this.poll_tunnel_read(context, buffer),
            Body::Open => this.poll_body(context, buffer),
            _ if this.exchange.gives_up() => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Body::Done => this.poll_closed(context),
            Body::Sized(_) | Body::Chunked(_) => this.poll_body(context, buffer),
        }
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = if this.exchange.is_tunnel() {
            this.poll_tunnel_write(context, bytes)
        } else {
            Pin::new(&mut this.socket).poll_write(context, bytes)
        };
        this.note_stall(written)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = Pin::new(&mut this.socket).poll_flush(context);
        this.note_stall(flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = if this.exchange.is_tunnel() {
            let first = slices.iter().find(|slice| !slice.is_empty());
            this.poll_tunnel_write(context, first.map_or(&[], |slice| slice))
        } else {
            Pin::new(&mut this.socket).poll_write_vectored(context, slices)
        };
        this.note_stall(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }
}

impl fmt::Debug for ClientStream {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ClientStream").field("body", &self.body).finish_non_exhaustive()
    }
}

answer_by_socket!(ClientStream);
