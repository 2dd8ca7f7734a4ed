//! Requests of HTTP/2: many at a time on few connections.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;

use bytes::Bytes;
use h2::client::{Builder, SendRequest};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Method, Request as Head, StatusCode, Version};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::OnceCell;

use super::super::scenario::{Protocol, Request};
use super::super::server::{SERVER, WORK, message};
use super::super::turn::Failure;
use super::record::Ended;
use super::starts::Start;
use super::wire::{Dialer, Wire};

/// What a balancer may send ahead on a stream: windows are not what is measured.
const STREAM_WINDOW: u32 = 1 << 20;
/// And on a connection.
const CONNECTION_WINDOW: u32 = 16 << 20;

/// The connections of all clients.
pub(super) struct Streams {
    request: Request,
    body: Bytes,
    /// By balancer.
    lines: Vec<RefCell<Vec<Rc<Line>>>>,
}

/// One connection, perhaps still to be opened.
#[derive(Default)]
struct Line {
    sender: OnceCell<SendRequest<Bytes>>,
    /// Requests on it.
    under_way: Cell<usize>,
    /// It takes no further request.
    is_over: Rc<Cell<bool>>,
}

/// A place for one request on a connection, given back on drop.
struct Seat(Rc<Line>);

/// An answer without its body.
struct Reply {
    status: StatusCode,
    server: Option<usize>,
    length: u64,
    /// Whether a call was said to have gone well.
    has_gone_well: bool,
}

impl Streams {
    pub(super) fn new(balancers: usize, request: Request) -> Self {
        let body = match request.protocol {
            Protocol::Grpc => message(request.body),
            _ => vec![b'x'; request.body].into(),
        };
        Self { request, body, lines: (0..balancers).map(|_| RefCell::default()).collect() }
    }

    /// Asks on a connection that has room, or on a new one, and reads the answer to its end.
    pub(super) async fn ask(&self, start: &Start, address: SocketAddr, dialer: &Dialer) -> Ended {
        let seat = self.seat(start.balancer);
        let outcome = self.exchange(start, &seat.0, address, dialer).await;
        if outcome.is_err() {
            seat.0.is_over.set(true);
        }
        match outcome {
            Err(failure) => Ended::Badly(failure),
            Ok(reply) if reply.status != StatusCode::OK => {
                Ended::Badly(Failure::Status(reply.status.as_u16()))
            }
            Ok(reply) if !self.is_right(&reply) => Ended::Badly(Failure::Broken),
            Ok(reply) => Ended::Well(reply.server),
        }
    }

    fn is_right(&self, reply: &Reply) -> bool {
        let is_call = self.request.protocol == Protocol::Grpc;
        let length = self.request.answer + if is_call { MESSAGE_HEAD } else { 0 };
        reply.length == length as u64 && (reply.has_gone_well || !is_call)
    }

    fn seat(&self, balancer: usize) -> Seat {
        let line = match self.lines.get(balancer) {
            Some(lines) if self.request.is_kept => {
                let mut lines = lines.borrow_mut();
                lines.retain(|line| !line.is_over.get());
                let free = lines.iter().find(|line| line.under_way.get() < self.request.streams).cloned();
                free.unwrap_or_else(|| {
                    lines.push(Rc::default());
                    lines.last().cloned().unwrap_or_default()
                })
            }
            _ => Rc::default(),
        };
        line.under_way.set(line.under_way.get() + 1);
        Seat(line)
    }

    async fn exchange(
        &self,
        start: &Start,
        line: &Line,
        address: SocketAddr,
        dialer: &Dialer,
    ) -> Result<Reply, Failure> {
        let is_over = Rc::clone(&line.is_over);
        let sender = line.sender.get_or_try_init(|| open(address, dialer, is_over)).await?;
        let mut sender = sender.clone().ready().await.map_err(broken)?;
        let head = self.head(start).map_err(|_| Failure::NotSent)?;
        let (answer, mut to) = sender.send_request(head, self.body.is_empty()).map_err(broken)?;
        if !self.body.is_empty() {
            // It waits in memory for the balancer's window, which is no different from waiting here.
            to.send_data(self.body.clone(), true).map_err(broken)?;
        }
        let (head, mut body) = answer.await.map_err(broken)?.into_parts();
        let mut length = 0;
        while let Some(piece) = body.data().await {
            let piece = piece.map_err(broken)?;
            length += piece.len() as u64;
            body.flow_control().release_capacity(piece.len()).map_err(broken)?;
        }
        let trailers = body.trailers().await.map_err(broken)?;
        let has_gone_well = trailers.as_ref().is_some_and(went_well) || went_well(&head.headers);
        let server = head.headers.get(SERVER).and_then(|value| value.to_str().ok()?.parse().ok());
        Ok(Reply { status: head.status, server, length, has_gone_well })
    }

    fn head(&self, start: &Start) -> Result<Head<()>, http::Error> {
        let is_call = self.request.protocol == Protocol::Grpc;
        let path = if is_call { "/bench.Bench/Call" } else { "/" };
        let scheme = if self.request.protocol.is_encrypted() { "https" } else { "http" };
        let mut head = Head::builder().version(Version::HTTP_2).uri(format!("{scheme}://bench{path}"));
        if !self.body.is_empty() {
            head = head.method(Method::POST);
        }
        if is_call {
            head = head.header(CONTENT_TYPE, "application/grpc").header("te", "trailers");
        }
        if let Some(work) = start.work {
            head = head.header(WORK, work.as_micros().to_string());
        }
        head.body(())
    }
}

/// Whether a message is compressed, and its length.
const MESSAGE_HEAD: usize = 5;

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.under_way.set(self.0.under_way.get() - 1);
    }
}

/// Opens a connection; a task of its own moves its frames until it ends.
async fn open(
    address: SocketAddr,
    dialer: &Dialer,
    is_over: Rc<Cell<bool>>,
) -> Result<SendRequest<Bytes>, Failure> {
    match dialer.dial(address).await? {
        Wire::Clear(stream) => shake_hands(stream, is_over).await,
        Wire::Encrypted(stream) => shake_hands(stream, is_over).await,
    }
}

async fn shake_hands<T>(stream: T, is_over: Rc<Cell<bool>>) -> Result<SendRequest<Bytes>, Failure>
where
    T: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let mut http = Builder::new();
    http.initial_window_size(STREAM_WINDOW).initial_connection_window_size(CONNECTION_WINDOW);
    http.enable_push(false);
    let (sender, connection) = http.handshake(stream).await.map_err(|_| Failure::Connect)?;
    tokio::task::spawn_local(async move {
        // Requests on it hear of an error themselves.
        let _ = connection.await;
        is_over.set(true);
    });
    Ok(sender)
}

fn went_well(headers: &HeaderMap) -> bool {
    headers.get("grpc-status").is_some_and(|status| status == "0")
}

fn broken(_: h2::Error) -> Failure {
    Failure::Broken
}
