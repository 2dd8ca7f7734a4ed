//! The frames of an HTTP/2 connection, counted as they pass: whether the client is alive, and whether it gives
//! more trouble than the requests that it makes.
//!
//! The h2 crate bounds what a client can make us hold, but not what it can make us do: PING, SETTINGS,
//! PRIORITY and `WINDOW_UPDATE` may come without end, and so may requests that are reset before anybody could
//! answer them. Here each of those costs *goodwill*; requests, their answers, and bytes of bodies earn it. Only
//! the nine bytes at the head of each frame are looked at.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use pingora::protocols::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::by_socket::answer_by_socket;
use super::http2::PREFACE;

/// Goodwill of a new connection, and the most that can be saved: 10 000 PINGs, or 1 000 requests that are reset
/// unanswered (nginx ends a connection after some 500 000 idle frames, Envoy after 500 resets).
const GOODWILL_MAX: i64 = 10_000;

/// Goodwill that comes back with time: 200 idle frames a second, or 20 unanswered resets, cost next to nothing.
const GOODWILL_PER_SECOND: f64 = 200.0;

/// A frame that moves no request forward: PING, SETTINGS, PRIORITY, `WINDOW_UPDATE`, an empty DATA, and what
/// nobody knows.
const IDLE_FRAME_COSTS: i64 = 1;

/// A reset costs what a request and its answer earn: so who waits for answers, then resets, is never cut, and
/// every other request of a client may be reset before its answer.
const RESET_COSTS: i64 = 20;
const REQUEST_EARNS: i64 = 10;
const ANSWER_EARNS: i64 = 10;

/// A piece of an answer: some clients send two `WINDOW_UPDATE`s for each, whatever its size.
const PIECE_EARNS: i64 = 4;

/// Bytes of a body that earn one more: clients may send a `WINDOW_UPDATE` for every page that they read.
const BYTES_PER_GOODWILL: usize = 256;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;

/// Length, kind, flags and stream of a frame (RFC 9113 §4.1).
const FRAME_HEAD_BYTES: usize = 9;

/// What the loop around a connection wants to know about its frames.
#[derive(Debug, Default)]
pub(super) struct Pulse {
    received: AtomicU64,
    is_flooded: AtomicBool,
}

impl Pulse {
    /// Bytes that have come from the client.
    pub(super) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Whether the client's goodwill is used up. From then on nothing more is read.
    pub(super) fn is_flooded(&self) -> bool {
        self.is_flooded.load(Ordering::Relaxed)
    }
}

/// A client's socket whose frames are counted.
pub(super) struct Counted {
    socket: Stream,
    inbound: Scanner,
    outbound: Scanner,
    goodwill: Goodwill,
    pulse: Arc<Pulse>,
}

impl Counted {
    /// The client's preface, and ours, are still to come.
    pub(super) fn new(socket: Stream) -> (Self, Arc<Pulse>) {
        let pulse = Arc::new(Pulse::default());
        let counted = Self {
            socket,
            inbound: Scanner { skip: PREFACE.len(), ..Scanner::default() },
            outbound: Scanner::default(),
            goodwill: Goodwill::new(Instant::now()),
            pulse: pulse.clone(),
        };
        (counted, pulse)
    }

    fn note_sent(&mut self, bytes: &[u8]) {
        let goodwill = &mut self.goodwill;
        self.outbound.scan(bytes, |frame| goodwill.note_sent(frame));
    }
}

/// One direction of a connection, cut into frames.
#[derive(Debug, Default)]
struct Scanner {
    /// Bytes to pass over until the next frame begins.
    skip: usize,
    head: [u8; FRAME_HEAD_BYTES],
    filled: usize,
}

/// The head of a frame, as far as it matters here.
#[derive(Clone, Copy, Debug)]
struct FrameHead {
    kind: u8,
    flags: u8,
    length: usize,
}

impl Scanner {
    fn scan(&mut self, mut bytes: &[u8], mut tell: impl FnMut(FrameHead)) {
        loop {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = bytes.get(skipped..).unwrap_or_default();
            if bytes.is_empty() {
                return;
            }
            for byte in self.head.iter_mut().skip(self.filled) {
                let Some((first, rest)) = bytes.split_first() else { return };
                *byte = *first;
                bytes = rest;
                self.filled += 1;
            }
            let [high, middle, low, kind, flags, ..] = self.head;
            let length = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
            tell(FrameHead { kind, flags, length });
            (self.filled, self.skip) = (0, length);
        }
    }
}

/// What is left of a client's goodwill.
#[derive(Debug)]
struct Goodwill {
    left: i64,
    /// Until when time has been paid out.
    paid_at: Instant,
}

impl Goodwill {
    const fn new(now: Instant) -> Self {
        Self { left: GOODWILL_MAX, paid_at: now }
    }

    fn note_received(&mut self, frame: FrameHead) {
        self.add(match frame.kind {
            DATA if frame.length == 0 && frame.flags & END_STREAM == 0 => -IDLE_FRAME_COSTS,
            DATA => bytes_earn(frame.length),
            HEADERS => REQUEST_EARNS,
            // Bounded with the head that it belongs to.
            CONTINUATION => 0,
            RST_STREAM => -RESET_COSTS,
            _ => -IDLE_FRAME_COSTS,
        });
    }

    fn note_sent(&mut self, frame: FrameHead) {
        self.add(match frame.kind {
            DATA => PIECE_EARNS + bytes_earn(frame.length),
            HEADERS => ANSWER_EARNS,
            _ => 0,
        });
    }

    fn add(&mut self, amount: i64) {
        self.left = (self.left + amount).min(GOODWILL_MAX);
    }

    /// Whether it is used up. Time is paid out only then, so that the clock is seldom read.
    fn is_spent(&mut self, now: impl FnOnce() -> Instant) -> bool {
        if self.left >= 0 {
            return false;
        }
        let now = now();
        let earned = now.saturating_duration_since(self.paid_at).as_secs_f64() * GOODWILL_PER_SECOND;
        self.paid_at = now;
        #[expect(clippy::cast_possible_truncation, reason = "at most GOODWILL_MAX, and whole enough")]
        self.add(earned.min(GOODWILL_MAX as f64) as i64);
        self.left < 0
    }
}

fn bytes_earn(bytes: usize) -> i64 {
    i64::try_from(bytes / BYTES_PER_GOODWILL).unwrap_or(GOODWILL_MAX)
}

impl AsyncRead for Counted {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.pulse.is_flooded() {
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.socket).poll_read(context, buffer))?;
        let fresh = buffer.filled().get(before..).unwrap_or_default();
        this.pulse.received.fetch_add(fresh.len() as u64, Ordering::Relaxed);
        let goodwill = &mut this.goodwill;
        this.inbound.scan(fresh, |frame| goodwill.note_received(frame));
        if goodwill.is_spent(Instant::now) {
            this.pulse.is_flooded.store(true, Ordering::Relaxed);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.socket).poll_write(context, bytes))?;
        self.note_sent(bytes.get(..written).unwrap_or_default());
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.socket).poll_write_vectored(context, slices))?;
        let mut rest = written;
        for slice in slices {
            let taken = slice.get(..rest.min(slice.len())).unwrap_or_default();
            self.note_sent(taken);
            rest -= taken.len();
        }
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }
}

impl fmt::Debug for Counted {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Counted").field("goodwill", &self.goodwill).finish_non_exhaustive()
    }
}

answer_by_socket!(Counted);

/// How long a silent client is waited for before it is asked whether it is there, and again before it is
/// given up.
pub(super) struct Silence {
    received: u64,
    /// Whether it has been asked since it last said something.
    pub is_asked: bool,
    until: tokio::time::Instant,
    alarm: super::deadline::Alarm,
}

impl Silence {
    pub(super) fn begin(interval: Duration) -> Self {
        let until = tokio::time::Instant::now() + interval;
        Self { received: 0, is_asked: false, until, alarm: super::deadline::Alarm::new(until) }
    }

    /// Ready when nothing has come for `interval`, or for at most twice as long.
    pub(super) async fn lasts(&mut self, interval: Duration, pulse: &Pulse) {
        loop {
            std::future::poll_fn(|context| self.alarm.poll_until(context, self.until)).await;
            self.until = tokio::time::Instant::now() + interval;
            let received = pulse.received();
            if received == self.received {
                return;
            }
            (self.received, self.is_asked) = (received, false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u8::try_from(payload.len()).unwrap_or(0);
        [&[0, 0, length, kind, flags, 0, 0, 0, 1][..], payload].concat()
    }

    fn kinds_in(pieces: &[&[u8]]) -> Vec<(u8, usize)> {
        let mut scanner = Scanner { skip: 3, ..Scanner::default() };
        let mut kinds = Vec::new();
        for piece in pieces {
            scanner.scan(piece, |frame| kinds.push((frame.kind, frame.length)));
        }
        kinds
    }

    #[test]
    fn frames_are_found_however_the_bytes_are_cut() {
        let bytes = [b"PRI".to_vec(), frame(1, 0, b"head"), frame(0, 1, b""), frame(6, 0, &[0; 8])].concat();
        let expected = [(1, 4), (0, 0), (6, 8)];
        assert_eq!(kinds_in(&[&bytes]), expected);
        for at in 0..bytes.len() {
            let (one, other) = bytes.split_at(at);
            assert_eq!(kinds_in(&[one, other]), expected, "cut at {at}");
        }
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(kinds_in(&single), expected);
    }

    fn received(goodwill: &mut Goodwill, kind: u8, length: usize) {
        goodwill.note_received(FrameHead { kind, flags: 0, length });
    }

    fn sent(goodwill: &mut Goodwill, kind: u8, length: usize) {
        goodwill.note_sent(FrameHead { kind, flags: 0, length });
    }

    /// How many rounds it takes until the goodwill is spent; at most a million.
    fn rounds(mut round: impl FnMut(&mut Goodwill)) -> usize {
        let now = Instant::now();
        let mut goodwill = Goodwill::new(now);
        (1..=1_000_000)
            .find(|_| {
                round(&mut goodwill);
                goodwill.is_spent(|| now)
            })
            .unwrap_or(usize::MAX)
    }

    #[test]
    fn floods_use_it_up() {
        let (ping, settings, priority, unknown) = (6, 4, 2, 77);
        for kind in [ping, settings, priority, unknown] {
            assert_eq!(rounds(|goodwill| received(goodwill, kind, 8)), 10_001);
        }
        assert_eq!(rounds(|goodwill| received(goodwill, DATA, 0)), 10_001);
        let rapid_reset = rounds(|goodwill| {
            received(goodwill, HEADERS, 40);
            received(goodwill, RST_STREAM, 4);
        });
        assert_eq!(rapid_reset, 1_000);
    }

    #[test]
    fn requests_with_all_that_belongs_to_them_do_not() {
        let window_update = 8;
        let downloads = rounds(|goodwill| {
            received(goodwill, HEADERS, 40);
            sent(goodwill, HEADERS, 40);
            for _ in 0..10 {
                sent(goodwill, DATA, 1);
                received(goodwill, window_update, 4);
                received(goodwill, window_update, 4);
            }
        });
        assert_eq!(downloads, usize::MAX);
        let given_up_after_the_head = rounds(|goodwill| {
            received(goodwill, HEADERS, 40);
            sent(goodwill, HEADERS, 40);
            received(goodwill, RST_STREAM, 4);
        });
        assert_eq!(given_up_after_the_head, usize::MAX);
        let hedged = rounds(|goodwill| {
            received(goodwill, HEADERS, 40);
            received(goodwill, HEADERS, 40);
            received(goodwill, RST_STREAM, 4);
            sent(goodwill, HEADERS, 40);
        });
        assert_eq!(hedged, usize::MAX);
    }

    #[test]
    fn it_comes_back_with_time() {
        let start = Instant::now();
        let mut goodwill = Goodwill::new(start);
        for second in 0..600 {
            for _ in 0..200 {
                received(&mut goodwill, 6, 8);
            }
            assert!(!goodwill.is_spent(|| start + Duration::from_secs(second + 1)), "after {second} seconds");
        }
    }
}
