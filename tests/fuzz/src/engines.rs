//! How others read a request: hyper, and Pingora as it is below Evener.

use std::convert::Infallible;
use std::io::Cursor;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use pingora::protocols::http::v1::server::HttpSession;
use tokio::io::{join, sink};

/// A request as somebody read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    pub method: String,
    pub target: Vec<u8>,
    /// In their order, names in lower case.
    pub fields: Vec<(String, Vec<u8>)>,
    /// `None`: it was cut off or malformed.
    pub body: Option<Vec<u8>>,
}

/// All requests that hyper sees in these bytes.
pub fn by_hyper(bytes: &[u8]) -> Vec<Read> {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let told = seen.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let told = told.clone();
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.ok().map(|body| body.to_bytes().to_vec());
            let fields = parts.headers.iter();
            let fields = fields.map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec()));
            let target = parts.uri.to_string().into_bytes();
            let method = parts.method.as_str().to_owned();
            told.lock().unwrap().push(Read { method, target, fields: fields.collect(), body });
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        }
    });
    let stream = TokioIo::new(join(Cursor::new(bytes.to_vec()), sink()));
    // How it ends says nothing that `seen` does not.
    let _ = block_on(http1::Builder::new().half_close(true).serve_connection(stream, service));
    Arc::try_unwrap(seen).map_or_else(|seen| seen.lock().unwrap().clone(), |seen| seen.into_inner().unwrap())
}

/// The first request that Pingora sees.
pub fn by_pingora(bytes: &[u8]) -> Option<Read> {
    block_on(async {
        let (mut ours, theirs) = tokio::io::duplex(bytes.len() + 4096);
        tokio::io::AsyncWriteExt::write_all(&mut ours, bytes).await.unwrap();
        tokio::io::AsyncWriteExt::shutdown(&mut ours).await.unwrap();
        let mut session = HttpSession::new(Box::new(theirs));
        session.read_request().await.ok().flatten()?;
        let head = session.req_header();
        let fields = head.headers.iter();
        let fields =
            fields.map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec())).collect();
        let (method, target) = (head.method.as_str().to_owned(), head.raw_path().to_vec());
        let mut body = Vec::new();
        let body = loop {
            match session.read_body_bytes().await {
                Ok(Some(piece)) => body.extend_from_slice(&piece),
                Ok(None) => break Some(body),
                Err(_) => break None,
            }
        };
        Some(Read { method, target, fields, body })
    })
}

/// Runs to the end on this thread, on a clock that jumps over every wait.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    thread_local! {
        static RUNTIME: tokio::runtime::Runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    }
    RUNTIME.with(|runtime| runtime.block_on(future))
}
