//! An HTTP/2 client with a blocking face: many requests on one connection, each started, fed, read or
//! reset on its own.
//!
//! The frames are the h2 crate's; what it would repair or refuse to send is said byte by byte with
//! [`Frames`](super::Frames).

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::client::{Builder, ResponseFuture, SendRequest};
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use tokio::runtime::Runtime;

/// No play waits longer for an answer: a machine under load is slow, a hang is for ever.
const PATIENCE: Duration = Duration::from_secs(60);

/// One HTTP/2 connection to Evener.
pub(crate) struct H2Client {
    runtime: Arc<Runtime>,
    requests: SendRequest<Bytes>,
    driver: tokio::task::JoinHandle<Result<(), h2::Error>>,
    address: SocketAddr,
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) head: Response<()>,
    pub(crate) bytes: Vec<u8>,
    pub(crate) trailers: Option<HeaderMap>,
}

/// One request under way.
pub(crate) struct Call {
    runtime: Arc<Runtime>,
    answer: Option<ResponseFuture>,
    body: Option<RecvStream>,
    upload: SendStream<Bytes>,
}

impl H2Client {
    /// Connects by prior knowledge.
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self::connect_with(address, &Builder::new())
    }

    /// As [`Self::connect`], with settings of its own.
    pub(crate) fn connect_with(address: SocketAddr, settings: &Builder) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = Arc::new(runtime.expect("a runtime"));
        let (requests, driver) = within(&runtime, async {
            let socket = tokio::net::TcpStream::connect(address).await.expect("connect");
            socket.set_nodelay(true).expect("a socket");
            let (requests, connection) = settings.handshake(socket).await.expect("HTTP/2");
            (requests, tokio::spawn(connection))
        });
        Self { runtime, requests, driver, address }
    }

    /// `GET path`, and its answer.
    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> Answer {
        self.start(self.head("GET", path), true).read().expect("an answer")
    }

    /// A request with a body in one piece, and its answer.
    #[track_caller]
    pub(crate) fn post(&self, path: &str, body: &[u8]) -> Answer {
        let mut call = self.start(self.head("POST", path), false);
        call.send(body, true);
        call.read().expect("an answer")
    }

    /// The head of a request to this address.
    pub(crate) fn head(&self, method: &str, path: &str) -> Request<()> {
        let uri = format!("http://{}{path}", self.address);
        Request::builder().method(method).uri(uri).version(http::Version::HTTP_2).body(()).expect("a request")
    }

    /// Sends a head, as soon as the server lets one more stream be opened, and does not wait for the
    /// answer. `is_whole`: there is no body.
    #[track_caller]
    pub(crate) fn start(&self, head: Request<()>, is_whole: bool) -> Call {
        self.try_start(head, is_whole).expect("a stream")
    }

    /// As [`Self::start`], when the connection may be closed or closing.
    pub(crate) fn try_start(&self, head: Request<()>, is_whole: bool) -> Result<Call, h2::Error> {
        let (answer, upload) = within(&self.runtime, async {
            let mut requests = self.requests.clone().ready().await?;
            requests.send_request(head, is_whole)
        })?;
        Ok(Call { runtime: self.runtime.clone(), answer: Some(answer), body: None, upload })
    }

    /// How many streams the server lets us have at a time.
    pub(crate) fn streams_max(&self) -> usize {
        self.requests.current_max_send_streams()
    }

    /// Whether the server has ended the connection, or is about to.
    pub(crate) fn has_ended(&self) -> bool {
        self.driver.is_finished()
    }

    /// Goes away without a word on any stream.
    pub(crate) fn vanish(self) {
        self.driver.abort();
        let _ = within(&self.runtime, self.driver);
    }
}

impl Call {
    /// A piece of the body, sent as the server makes room for it.
    #[track_caller]
    pub(crate) fn send(&mut self, bytes: &[u8], is_end: bool) {
        self.try_send(bytes, is_end).expect("room for the body");
    }

    /// As [`Self::send`], when the server may have had enough.
    pub(crate) fn try_send(&mut self, bytes: &[u8], is_end: bool) -> Result<(), h2::Error> {
        let mut rest = Bytes::copy_from_slice(bytes);
        let upload = &mut self.upload;
        within(&self.runtime, async {
            while !rest.is_empty() {
                upload.reserve_capacity(rest.len());
                let room = std::future::poll_fn(|context| upload.poll_capacity(context)).await;
                let room = room.unwrap_or_else(|| Err(Reason::CANCEL.into()))?;
                let piece = rest.split_to(room.min(rest.len()));
                upload.send_data(piece, is_end && rest.is_empty())?;
            }
            if is_end && bytes.is_empty() { upload.send_data(Bytes::new(), true) } else { Ok(()) }
        })
    }

    /// Ends the body with trailers.
    pub(crate) fn send_trailers(&mut self, trailers: HeaderMap) {
        self.upload.send_trailers(trailers).expect("an open stream");
    }

    /// Gives the request up.
    pub(crate) fn reset(mut self) {
        self.upload.send_reset(Reason::CANCEL);
    }

    /// Waits for the head of the answer.
    pub(crate) fn read_head(&mut self) -> Result<Response<()>, h2::Error> {
        let answer = self.answer.take().expect("the head is read once");
        let (head, body) = within(&self.runtime, answer)?.into_parts();
        self.body = Some(body);
        Ok(Response::from_parts(head, ()))
    }

    /// Waits for the next piece of the answer's body, and makes room for more; `None` at its end.
    pub(crate) fn read_piece(&mut self) -> Option<Result<Bytes, h2::Error>> {
        let body = self.body.as_mut().expect("the head comes first");
        let piece = within(&self.runtime, body.data())?;
        if let Ok(piece) = &piece {
            let _ = body.flow_control().release_capacity(piece.len());
        }
        Some(piece)
    }

    /// Waits for the whole answer.
    pub(crate) fn read(mut self) -> Result<Answer, h2::Error> {
        let head = self.read_head()?;
        let mut bytes = Vec::new();
        while let Some(piece) = self.read_piece() {
            bytes.extend_from_slice(&piece?);
        }
        let body = self.body.as_mut().expect("after the head");
        let trailers = within(&self.runtime, body.trailers())?;
        Ok(Answer { head, bytes, trailers })
    }
}

impl Answer {
    pub(crate) fn status(&self) -> u16 {
        self.head.status().as_u16()
    }

    #[track_caller]
    pub(crate) fn expect_status(self, status: u16) -> Self {
        assert_eq!(self.status(), status, "{self:?}");
        self
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.headers().get(name)?.to_str().ok()
    }

    pub(crate) fn body(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
}

#[track_caller]
fn within<T>(runtime: &Runtime, work: impl Future<Output = T>) -> T {
    runtime.block_on(async { tokio::time::timeout(PATIENCE, work).await }).expect("in time")
}
