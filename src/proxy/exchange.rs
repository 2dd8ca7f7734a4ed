//! What the hooks, and the loop that carries a request, tell each other about it.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;
use std::time::Duration;

use http::HeaderValue;
use pingora::protocols::Stream;

use super::CLIENT_STALL;
use super::client_stream::Answer;
use super::connection::Connection;
use super::head::{Framing, Head};

/// A deadline that never comes: upgraded connections have none.
const NEVER: u64 = u64::MAX;

/// A head up to here is taken by the kernel at once, whatever the upstream does: an idle socket has room for
/// at least one page (`net.ipv4.tcp_wmem`).
const SMALL_HEAD_BYTES: usize = 2048;

/// One request of a client, as far as the hooks and the loop around them have to agree about it.
///
/// HTTP/1.1 has one for all requests of a connection, one after another; HTTP/2 has one for each stream.
#[derive(Debug)]
pub(super) struct Exchange {
    /// What it came on.
    pub connection: Arc<Connection>,
    /// Whether the client of a stream wants server-sent events, and says so.
    wants_events: AtomicBool,
    /// Whether it is a stream of HTTP/2, which shares its connection with others.
    pub is_stream: bool,
    /// Microseconds since the runtime's epoch; see [`NEVER`].
    deadline: AtomicU64,
    /// Microseconds that nothing may be heard of the upstream, or in a tunnel of either side; see [`NEVER`].
    patience: AtomicU64,
    /// When something was heard last, in microseconds since the runtime's epoch.
    heard: AtomicU64,
    /// Which time in a row it is that the client takes nothing of what we have for it; 0: it does.
    stall: AtomicU32,
    is_tunnel: AtomicBool,
    says_farewell: AtomicBool,
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
}

/// What a request that was cut off unanswered leaves behind, so that its client can be told.
#[derive(Debug, Default)]
pub(super) struct Left {
    pub socket: Option<Stream>,
    pub request_id: Option<HeaderValue>,
}

/// A WebSocket handshake under way: its answer, and who waits for it.
#[derive(Debug, Default)]
struct Handshake {
    answer: Option<Answer>,
    waiting: Option<Waker>,
}

impl Exchange {
    /// For the requests of an HTTP/1.1 connection.
    pub(super) fn new(connection: Arc<Connection>) -> Self {
        Self {
            connection,
            is_stream: false,
            wants_events: AtomicBool::new(false),
            deadline: AtomicU64::new(NEVER),
            patience: AtomicU64::new(NEVER),
            heard: AtomicU64::new(0),
            stall: AtomicU32::new(0),
            is_tunnel: AtomicBool::new(false),
            says_farewell: AtomicBool::new(false),
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
        }
    }

    /// For one stream of an HTTP/2 connection.
    pub(super) fn of_stream(connection: Arc<Connection>) -> Self {
        Self { is_stream: true, ..Self::new(connection) }
    }

    /// The request under way is given up at this time, and cut off soon after.
    pub(super) fn set_deadline(&self, deadline: Option<Duration>) {
        self.deadline.store(deadline.map_or(NEVER, micros), Ordering::Relaxed);
    }

    /// From `now` on, nothing may be silent for longer than this; `None`: for as long as it likes.
    pub(super) fn set_patience(&self, patience: Option<Duration>, now: Duration) {
        self.heard.store(micros(now), Ordering::Relaxed);
        self.patience.store(patience.map_or(NEVER, micros), Ordering::Relaxed);
    }

    /// Whether anybody wants to know when something was heard.
    pub(super) fn listens(&self) -> bool {
        self.patience.load(Ordering::Relaxed) != NEVER
    }

    /// Something was heard.
    pub(super) fn note_heard(&self, now: Duration) {
        self.heard.store(micros(now), Ordering::Relaxed);
    }

    /// The client takes nothing of what we have for it, for the so-manieth time; 0: it has taken some.
    pub(super) fn note_stall(&self, number: u32) {
        self.stall.store(number, Ordering::Relaxed);
    }

    /// What [`note_stall`](Self::note_stall) was told last.
    pub(super) fn stall(&self) -> u32 {
        self.stall.load(Ordering::Relaxed)
    }

    /// How long the client may take nothing.
    pub(super) fn stall_max(&self) -> Duration {
        match self.patience.load(Ordering::Relaxed) {
            // Who sleeps in a tunnel is as silent as one who does not send.
            patience if self.is_tunnel() => Duration::from_micros(patience),
            _ => CLIENT_STALL,
        }
    }

    /// From here on bytes go both ways, and are no HTTP.
    pub(super) fn become_tunnel(&self) {
        self.is_tunnel.store(true, Ordering::Relaxed);
    }

    /// Whether the request under way has become a tunnel.
    pub(super) fn is_tunnel(&self) -> bool {
        self.is_tunnel.load(Ordering::Relaxed)
    }

    /// The process ends soon: both sides of the tunnel are to be told.
    pub(super) fn say_farewell(&self) {
        self.says_farewell.store(true, Ordering::Relaxed);
    }

    /// Whether [`say_farewell`](Self::say_farewell) was called.
    pub(super) fn says_farewell(&self) -> bool {
        self.says_farewell.load(Ordering::Relaxed)
    }

    /// The request says that it wants server-sent events.
    pub(super) fn note_wants_events(&self) {
        self.wants_events.store(true, Ordering::Relaxed);
    }

    /// Whether Pingora watches how long the upstream is silent. For HTTP/2 it has to, since it alone can give a
    /// stream up with an answer; but it does not stop at the head of an event stream. So that is left to
    /// clients who say beforehand what they want, as browsers do.
    pub(super) fn is_timed_by_pingora(&self) -> bool {
        self.is_stream && !self.wants_events.load(Ordering::Relaxed)
    }

    /// Another attempt: what came of the one before does not hold for it.
    pub(super) fn begin_attempt(&self) {
        self.patience.store(NEVER, Ordering::Relaxed);
        self.was_given_up.store(false, Ordering::Relaxed);
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
    pub(super) fn begin_request(&self, head: &Head) {
        self.set_deadline(None);
        self.patience.store(NEVER, Ordering::Relaxed);
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

    /// What was left, if anything.
    pub(super) fn take_left(&self) -> Left {
        std::mem::take(&mut *self.left.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether the request under way is past its time; see [`gives_up`](Self::gives_up).
    pub(super) fn set_late(&self, is_late: bool) {
        self.is_late.store(is_late, Ordering::Relaxed);
    }

    /// The request under way is cut off.
    pub(super) fn note_cut(&self) {
        self.cut.store(true, Ordering::Relaxed);
    }

    /// When the request under way is given up. Silence does not count while the client takes nothing: then
    /// nobody listens to the upstream.
    pub(super) fn due(&self) -> Option<Duration> {
        let silent_until = match self.patience.load(Ordering::Relaxed) {
            patience if patience != NEVER && self.stall() == 0 => {
                self.heard.load(Ordering::Relaxed).saturating_add(patience)
            }
            _ => NEVER,
        };
        match self.deadline.load(Ordering::Relaxed).min(silent_until) {
            NEVER => None,
            micros => Some(Duration::from_micros(micros)),
        }
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(NEVER)
}
