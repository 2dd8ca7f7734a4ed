//! An origin behind TLS, or one that speaks HTTP/2, or both; each connection as its client wishes.
//!
//! HTTP/1.1 is left to an [`Origin`](super::Origin): its bytes are carried there and back.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use h2::server::{Builder, SendResponse};
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use super::client::wait_until;
use super::ports::reserve_port;

/// No play waits longer for something to reach an origin.
const PATIENCE: Duration = Duration::from_secs(60);

/// What an HTTP/2 origin does with a request.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    /// A status, header fields, and a body.
    Answer(u16, Vec<(String, String)>, Bytes),
    /// An answer whose body ends with these trailers.
    Trailers(Bytes, Vec<(&'static str, &'static str)>),
    Reset(Reason),
    /// Begins an answer that never ends.
    Begin,
    Hang,
}

impl Act {
    pub(crate) fn ok(body: impl Into<Bytes>) -> Self {
        Self::Answer(200, Vec::new(), body.into())
    }
}

/// A request as it reached an HTTP/2 origin.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) method: String,
    pub(crate) uri: http::Uri,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Call {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

type Handler = Arc<dyn Fn(&Call) -> Act + Send + Sync>;

/// What there is at the address.
#[derive(Clone, Default)]
pub(crate) struct Setup {
    /// `None`: in clear.
    pub(crate) tls: Option<Arc<ServerConfig>>,
    /// Where HTTP/1.1 is spoken. Without TLS it has no say beside `http2`.
    pub(crate) http1: Option<String>,
    pub(crate) http2: Option<Handler>,
    /// Streams at a time; `None`: any number.
    pub(crate) streams_max: Option<u32>,
}

impl Setup {
    pub(crate) fn http2(handler: impl Fn(&Call) -> Act + Send + Sync + 'static) -> Self {
        Self { http2: Some(Arc::new(handler)), ..Self::default() }
    }

    pub(crate) fn over(self, tls: Arc<ServerConfig>) -> Self {
        Self { tls: Some(tls), ..self }
    }

    pub(crate) fn start(self) -> Modern {
        let address = SocketAddr::from(([127, 0, 0, 1], reserve_port()));
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let shared = Arc::new(Shared {
            setup: self,
            calls: Mutex::default(),
            connections: AtomicUsize::new(0),
            handshakes: AtomicUsize::new(0),
            names: Mutex::default(),
            under_way: Mutex::default(),
            most: AtomicUsize::new(0),
            order: watch::Sender::new(Order::Serve),
            gate: watch::Sender::new(true),
        });
        let listener = runtime.block_on(TcpListener::bind(address)).expect("a reserved port");
        runtime.spawn(shared.clone().accept(listener));
        Modern { address, shared, runtime: Some(runtime) }
    }
}

/// What happens to the connections that are open.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Order {
    Serve,
    /// GOAWAY: what has begun is finished.
    Leave,
    /// The socket is closed.
    Die,
    /// The socket stays, and nobody reads or writes it; nor new ones.
    Freeze,
}

struct Shared {
    setup: Setup,
    calls: Mutex<Vec<Call>>,
    connections: AtomicUsize,
    handshakes: AtomicUsize,
    names: Mutex<Vec<Option<String>>>,
    /// Streams by connection.
    under_way: Mutex<BTreeMap<usize, usize>>,
    most: AtomicUsize,
    order: watch::Sender<Order>,
    gate: watch::Sender<bool>,
}

/// The running origin; gone when dropped.
pub(crate) struct Modern {
    address: SocketAddr,
    shared: Arc<Shared>,
    runtime: Option<Runtime>,
}

impl Drop for Modern {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Modern {
    pub(crate) fn address(&self) -> String {
        self.address.to_string()
    }

    /// HTTP/2 requests so far.
    pub(crate) fn calls(&self) -> Vec<Call> {
        self.shared.calls.lock().expect("no panic").clone()
    }

    #[track_caller]
    pub(crate) fn wait_for_calls(&self, count: usize) {
        wait_until(PATIENCE, || self.shared.calls.lock().expect("no panic").len() >= count);
    }

    pub(crate) fn connections_seen(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// TLS handshakes that came to an end.
    pub(crate) fn handshakes(&self) -> usize {
        self.shared.handshakes.load(Ordering::SeqCst)
    }

    /// The server names that clients asked for.
    pub(crate) fn names(&self) -> Vec<Option<String>> {
        self.shared.names.lock().expect("no panic").clone()
    }

    /// The most streams that one connection had at a time.
    pub(crate) fn most_streams(&self) -> usize {
        self.shared.most.load(Ordering::SeqCst)
    }

    /// HTTP/2 requests are read, and not answered until [`Self::release`].
    pub(crate) fn hold(&self) {
        self.shared.gate.send_replace(false);
    }

    pub(crate) fn release(&self) {
        self.shared.gate.send_replace(true);
    }

    pub(crate) fn leave(&self) {
        self.shared.order.send_replace(Order::Leave);
    }

    pub(crate) fn cut_connections(&self) {
        self.shared.order.send_replace(Order::Die);
    }

    pub(crate) fn freeze(&self) {
        self.shared.order.send_replace(Order::Freeze);
    }
}

impl Shared {
    async fn accept(self: Arc<Self>, listener: TcpListener) {
        loop {
            let (stream, _) = listener.accept().await.expect("accept");
            stream.set_nodelay(true).expect("no delay");
            let number = self.connections.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(self.clone().serve(stream, number));
        }
    }

    async fn serve(self: Arc<Self>, stream: TcpStream, number: usize) {
        if *self.order.borrow() == Order::Freeze {
            return hold_open(stream).await;
        }
        let Some(tls) = self.setup.tls.clone() else {
            if self.setup.http2.is_some() {
                return self.serve_http2(stream, number).await;
            }
            return self.relay(stream).await;
        };
        let Ok(stream) = TlsAcceptor::from(tls).accept(stream).await else { return };
        self.handshakes.fetch_add(1, Ordering::SeqCst);
        let session = stream.get_ref().1;
        self.names.lock().expect("no panic").push(session.server_name().map(str::to_owned));
        if session.alpn_protocol() == Some(b"h2") {
            self.serve_http2(stream, number).await;
        } else {
            self.relay(stream).await;
        }
    }

    async fn relay(&self, mut client: impl AsyncRead + AsyncWrite + Unpin) {
        let Some(address) = &self.setup.http1 else { return };
        let Ok(mut origin) = TcpStream::connect(address).await else { return };
        let mut order = self.order.subscribe();
        tokio::select! {
            _ = tokio::io::copy_bidirectional(&mut client, &mut origin) => {}
            _ = order.wait_for(|order| *order == Order::Die) => {}
        }
    }

    async fn serve_http2(self: Arc<Self>, stream: impl AsyncRead + AsyncWrite + Unpin, number: usize) {
        let mut order = self.order.subscribe();
        let mut builder = Builder::new();
        if let Some(most) = self.setup.streams_max {
            builder.max_concurrent_streams(most);
        }
        let Ok(mut connection) = builder.handshake(stream).await else { return };
        loop {
            tokio::select! {
                changed = order.changed() => {
                    let now = *order.borrow_and_update();
                    match now {
                        _ if changed.is_err() => return,
                        Order::Die => return,
                        Order::Freeze => return hold_open(connection).await,
                        Order::Leave => connection.graceful_shutdown(),
                        Order::Serve => {}
                    }
                }
                accepted = connection.accept() => match accepted {
                    Some(Ok((request, respond))) => {
                        tokio::spawn(self.clone().answer(request, respond, number));
                    }
                    _ => return,
                },
            }
        }
    }

    async fn answer(
        self: Arc<Self>,
        request: Request<RecvStream>,
        respond: SendResponse<Bytes>,
        number: usize,
    ) {
        let _under_way = UnderWay::new(&self, number);
        let (head, body) = request.into_parts();
        let call = Call {
            method: head.method.to_string(),
            uri: head.uri,
            headers: head.headers,
            body: whole(body).await,
        };
        let Some(handler) = &self.setup.http2 else { return };
        let act = handler(&call);
        self.calls.lock().expect("no panic").push(call);
        let mut gate = self.gate.subscribe();
        let _ = gate.wait_for(|is_open| *is_open).await;
        act.perform(respond).await;
    }
}

/// Keeps it, and does nothing with it.
async fn hold_open<T>(held: T) {
    std::future::pending::<()>().await;
    drop(held);
}

struct UnderWay<'a>(&'a Shared, usize);

impl<'a> UnderWay<'a> {
    fn new(shared: &'a Shared, number: usize) -> Self {
        let mut under_way = shared.under_way.lock().expect("no panic");
        let count = under_way.entry(number).or_default();
        *count += 1;
        shared.most.fetch_max(*count, Ordering::SeqCst);
        Self(shared, number)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        *self.0.under_way.lock().expect("no panic").entry(self.1).or_default() -= 1;
    }
}

impl Act {
    async fn perform(self, mut respond: SendResponse<Bytes>) {
        match self {
            Self::Answer(status, headers, body) => {
                let mut response = Response::builder().status(status);
                for (name, value) in &headers {
                    response = response.header(name, value);
                }
                let response = response.body(()).expect("a response");
                let Ok(stream) = respond.send_response(response, body.is_empty()) else { return };
                if !body.is_empty() {
                    send(stream, body, None).await;
                }
            }
            Self::Trailers(body, trailers) => {
                let Ok(stream) = respond.send_response(Response::new(()), false) else { return };
                let fields = trailers.into_iter().map(|(name, value)| {
                    (name.parse::<http::HeaderName>().expect("a name"), http::HeaderValue::from_static(value))
                });
                send(stream, body, Some(fields.collect())).await;
            }
            Self::Reset(reason) => respond.send_reset(reason),
            Self::Begin => {
                let stream = respond.send_response(Response::new(()), false);
                hold_open((stream, respond)).await;
            }
            Self::Hang => hold_open(respond).await,
        }
    }
}

/// Sends as fast as the other end takes it.
async fn send(mut stream: SendStream<Bytes>, mut body: Bytes, trailers: Option<HeaderMap>) {
    while !body.is_empty() {
        stream.reserve_capacity(body.len().min(64 * 1024));
        let Some(Ok(room)) = poll_fn(|context| stream.poll_capacity(context)).await else { return };
        let piece = body.split_to(room.min(body.len()));
        let is_last = body.is_empty() && trailers.is_none();
        if stream.send_data(piece, is_last).is_err() {
            return;
        }
    }
    if let Some(trailers) = trailers {
        let _ = stream.send_trailers(trailers);
    }
}

async fn whole(mut body: RecvStream) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(Ok(piece)) = body.data().await {
        all.extend_from_slice(&piece);
        let _ = body.flow_control().release_capacity(piece.len());
    }
    all
}

/// A server that accepts, sends these bytes, and leaves it at that.
pub(crate) fn mute_server(greeting: &'static [u8]) -> SocketAddr {
    let address = SocketAddr::from(([127, 0, 0, 1], reserve_port()));
    let (give, take) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().expect("a runtime");
        runtime.block_on(async {
            let listener = TcpListener::bind(address).await.expect("a reserved port");
            give.send(()).expect("somebody asked");
            let mut held = Vec::new();
            loop {
                let (mut stream, _) = listener.accept().await.expect("accept");
                let _ = stream.write_all(greeting).await;
                held.push(stream);
            }
        });
    });
    take.recv().expect("the thread answers");
    address
}
