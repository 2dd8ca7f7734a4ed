//! One request, from the choice of a connection to the last byte of the answer.

use std::cell::{Cell, RefCell};
use std::io::{self, ErrorKind, Write as _};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::task::{Poll, ready};

use bytes::Buf;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::super::error::BenchError;
use super::super::scenario::Request;
use super::super::turn::Failure;
use super::answer::{Answer, NoAnswer};
use super::record::Ended;
use super::starts::Start;
use super::streams::Streams;
use super::wire::{Dialer, Wire};

/// So much is read at a time; a body of 1 MiB then takes few calls, and it stays in the second-level cache.
const PIECE: usize = 128 * 1_024;

/// What all clients of a turn share.
pub(super) struct Clients {
    balancers: Vec<SocketAddr>,
    request: Request,
    body: Vec<u8>,
    /// By balancer: open connections without a request, the one used last on top. It is the one that a
    /// balancer is least likely to have closed.
    idle: RefCell<Vec<Vec<Wire>>>,
    dialer: Dialer,
    /// Those of HTTP/2.
    streams: Streams,
    /// Where answers are read to. Nobody keeps it across a wait.
    piece: RefCell<Vec<u8>>,
    /// Requests that had to be sent once more.
    sent_again: Cell<u64>,
}

/// On which connection to ask.
pub(super) enum Way {
    /// An idle one if there is one.
    Any,
    /// A new one.
    New,
    /// This one, and no other.
    This(Wire),
}

/// The connection ended too early.
struct Broken {
    /// Nothing of an answer had come.
    is_silent: bool,
}

impl Clients {
    pub(super) fn new(balancers: &[SocketAddr], request: Request) -> Result<Self, BenchError> {
        Ok(Self {
            balancers: balancers.to_vec(),
            request,
            body: vec![b'x'; request.body],
            idle: RefCell::new(balancers.iter().map(|_| Vec::new()).collect()),
            piece: RefCell::new(vec![0; PIECE]),
            sent_again: Cell::new(0),
            dialer: Dialer::new(request.protocol)?,
            streams: Streams::new(balancers.len(), request),
        })
    }

    /// Asks, and reads the answer to its end. `begun` is called when the first byte, or the wish for a connection, is
    /// about to leave us.
    pub(super) async fn ask(&self, start: &Start, way: Way, begun: impl FnOnce()) -> Ended {
        if self.request.protocol.is_multiplexed() {
            let Some(&address) = self.balancers.get(start.balancer) else {
                return Ended::Badly(Failure::NotSent);
            };
            begun();
            return self.streams.ask(start, address, &self.dialer).await;
        }
        let head = self.head(start);
        let kept = match way {
            Way::Any if self.request.is_kept => self.take_idle(start.balancer),
            Way::Any | Way::New => None,
            Way::This(stream) => {
                begun();
                return self.conclude(self.exchange(start, stream, &head).await);
            }
        };
        begun();
        if let Some(stream) = kept {
            match self.exchange(start, stream, &head).await {
                // The balancer closed it just before: it has not seen the request, or so clients must hope. They do
                // with what may be asked twice.
                Err(Broken { is_silent: true }) if self.request.body == 0 => {
                    self.sent_again.set(self.sent_again.get() + 1);
                }
                outcome => return self.conclude(outcome),
            }
        }
        match self.connect(start.balancer).await {
            Ok(stream) => self.conclude(self.exchange(start, stream, &head).await),
            Err(failure) => Ended::Badly(failure),
        }
    }

    /// Requests that had to be sent once more, since their connection ended without an answer.
    pub(super) fn sent_again(&self) -> u64 {
        self.sent_again.get()
    }

    /// Open connections without a request, out of the hands of all others.
    pub(super) fn take_all_idle(&self) -> Vec<(usize, Wire)> {
        let mut idle = self.idle.borrow_mut();
        let of_all = idle.iter_mut().enumerate();
        let all = of_all.flat_map(|(balancer, of_one)| of_one.drain(..).map(move |wire| (balancer, wire)));
        all.filter_map(|(balancer, mut wire)| wire.is_quiet().then_some((balancer, wire))).collect()
    }

    fn take_idle(&self, balancer: usize) -> Option<Wire> {
        let mut idle = self.idle.borrow_mut();
        let of_one = idle.get_mut(balancer)?;
        while let Some(mut wire) = of_one.pop() {
            if wire.is_quiet() {
                return Some(wire);
            }
        }
        None
    }

    fn put_idle(&self, balancer: usize, wire: Wire) {
        if let Some(of_one) = self.idle.borrow_mut().get_mut(balancer) {
            of_one.push(wire);
        }
    }

    async fn connect(&self, balancer: usize) -> Result<Wire, Failure> {
        let address = self.balancers.get(balancer).ok_or(Failure::NotSent)?;
        self.dialer.dial(*address).await
    }

    /// The head of a request, ready to be sent.
    fn head(&self, start: &Start) -> Vec<u8> {
        let mut head = Vec::with_capacity(160);
        // Writing to memory does not fail.
        let _ = match self.request.body {
            0 => write!(head, "GET / HTTP/1.1\r\n"),
            length => write!(head, "POST / HTTP/1.1\r\nContent-Length: {length}\r\n"),
        };
        let _ = match start.home {
            Some(server) => write!(head, "Host: s{server}\r\n"),
            None => write!(head, "Host: bench\r\n"),
        };
        if let Some(work) = start.work {
            let _ = write!(head, "x-bench-work: {}\r\n", work.as_micros());
        }
        if !self.request.is_kept {
            head.extend_from_slice(b"Connection: close\r\n");
        }
        head.extend_from_slice(b"\r\n");
        head
    }

    /// One question and its answer; afterwards the connection is idle, or closed.
    async fn exchange(&self, start: &Start, mut wire: Wire, head: &[u8]) -> Result<Answer, Broken> {
        let (answer, was_sent) = match &mut wire {
            Wire::Clear(stream) => {
                let (from, to) = stream.split();
                self.converse(from, to, head).await?
            }
            Wire::Encrypted(stream) => {
                let (from, to) = tokio::io::split(stream);
                self.converse(from, to, head).await?
            }
        };
        if was_sent && !answer.is_last && self.request.is_kept {
            self.put_idle(start.balancer, wire);
        }
        Ok(answer)
    }

    /// Sends the request and listens at the same time: a balancer may refuse a body before it has read it.
    /// Says, too, whether all of it was sent.
    async fn converse(
        &self,
        mut from: impl AsyncRead + Unpin,
        mut to: impl AsyncWrite + Unpin,
        head: &[u8],
    ) -> Result<(Answer, bool), Broken> {
        let mut request = head.chain(self.body.as_slice());
        let mut answer = pin!(self.read_answer(&mut from));
        tokio::select! {
            biased;
            // What cannot be sent was perhaps answered already.
            sent = async { to.write_all_buf(&mut request).await?; to.flush().await } => Ok((answer.await?, sent.is_ok())),
            early = &mut answer => Ok((early?, false)),
        }
    }

    async fn read_answer(&self, from: &mut (impl AsyncRead + Unpin)) -> Result<Answer, Broken> {
        let mut answer = Answer::new();
        while !answer.is_whole() {
            if self.read_piece(from, &mut answer).await.is_err() {
                return Err(Broken { is_silent: !answer.has_begun });
            }
        }
        Ok(answer)
    }

    async fn read_piece(&self, from: &mut (impl AsyncRead + Unpin), answer: &mut Answer) -> io::Result<()> {
        std::future::poll_fn(|context| {
            let mut piece = self.piece.borrow_mut();
            let mut piece = ReadBuf::new(&mut piece);
            ready!(Pin::new(&mut *from).poll_read(context, &mut piece))?;
            let came = piece.filled();
            let taken = if came.is_empty() { answer.end() } else { answer.feed(came) };
            Poll::Ready(taken.map_err(|NoAnswer| io::Error::from(ErrorKind::InvalidData)))
        })
        .await
    }

    fn conclude(&self, outcome: Result<Answer, Broken>) -> Ended {
        match outcome {
            Err(_) => Ended::Badly(Failure::Broken),
            Ok(answer) if answer.status != 200 => Ended::Badly(Failure::Status(answer.status)),
            Ok(answer) if answer.length != self.request.answer as u64 => Ended::Badly(Failure::Broken),
            Ok(answer) => Ended::Well(answer.server),
        }
    }
}
