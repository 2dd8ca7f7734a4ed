//! One connection to the side port: HTTP/1.1 by hyper, bounded in every direction.

use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use axum::response::IntoResponse;
use futures_util::future::{Either, TryFutureExt};
use http::{Request, Response, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use pingora::apps::ServerApp;
use pingora::protocols::Stream;
use pingora::server::ShutdownWatch;
use tokio::io::AsyncWriteExt;
use tokio::time::{sleep, timeout};
use tower::ServiceExt;

use super::auth::{Peer, is_look};
use super::explain::HeadCheck;
use super::impatient::Impatient;
use super::places::{Answer, Places, Seat};
use super::problem::Problem;
use super::{drain, routes};
use crate::control::Control;
use crate::observe::AdminRefusal;

/// Connections at a time. Operators and scrapers need a handful; the process's file descriptors are
/// for traffic. One more takes the place of the one that has been idle for the longest time.
pub(super) const CONNECTIONS_MAX: usize = 256;

/// For a request head; also how long a connection may idle between two requests.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes of a request head and of what is read ahead; hyper's default is 400 KiB.
const BUFFER_BYTES_MAX: usize = 16 * 1024;

/// A connection is asked to end after this time, so that one whose client reads a byte now and then does
/// not hold its place for ever. Longer than the longest answer takes, a change under guard (`guarded.rs`).
const CONNECTION_AGE_MAX: Duration = Duration::from_secs(1_200);

/// How long an answer under way may take after the connection was asked to end.
const FAREWELL: Duration = Duration::from_secs(5);

/// The application behind the side port; Pingora accepts, and calls it for each connection.
pub struct AdminApp {
    control: Arc<Control>,
    router: Router,
    connection: http1::Builder,
    places: Places,
}

impl AdminApp {
    /// Answers for what `control` runs; `check` is what the traffic's door asks of a head.
    pub fn new(control: Arc<Control>, check: HeadCheck) -> Self {
        let mut connection = http1::Builder::new();
        connection.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(BUFFER_BYTES_MAX);
        let (router, places) = (routes::router(control.clone(), check), Places::new(CONNECTIONS_MAX));
        Self { control, router, connection, places }
    }

    async fn serve(&self, stream: Stream, seat: &Arc<Seat>, shutdown: &ShutdownWatch) {
        let _visitor = self.control.succession().visitor();
        let peer = peer_of(&stream);
        let answer = service_fn(|request| answer(self.router.clone(), request, peer, seat));
        let stream = TokioIo::new(Impatient::new(stream));
        let connection = self.connection.serve_connection(stream, answer);
        let mut connection = pin!(connection);
        let mut shutdown = shutdown.clone();
        let mut stopping = pin!(async { shutdown.wait_for(|is_stopping| *is_stopping).await.map(drop) });
        // What goes wrong on a connection is the client's to notice; there is nothing to do here.
        tokio::select! {
            _ = connection.as_mut() => return,
            _ = stopping.as_mut() => {}
            () = sleep(CONNECTION_AGE_MAX) => {
                connection.as_mut().graceful_shutdown();
                // The wait that somebody asked for last is not cut short.
                tokio::select! {
                    _ = connection.as_mut() => return,
                    _ = stopping => {}
                    () = sleep(drain::WAIT_MAX) => {}
                }
            }
        }
        // A client that asks on an idle connection in this very moment is still answered: hyper closes it behind
        // that answer (`last_answer`), or when it has idled for its time.
        if self.control.succession().is_handed_over()
            && timeout(HEAD_TIMEOUT, connection.as_mut()).await.is_ok()
        {
            return;
        }
        connection.as_mut().graceful_shutdown();
        let _ = timeout(FAREWELL, connection).await;
    }
}

#[async_trait]
impl ServerApp for AdminApp {
    async fn process_new(self: &Arc<Self>, stream: Stream, shutdown: &ShutdownWatch) -> Option<Stream> {
        let place = self.places.take();
        if place.as_ref().is_none_or(|place| place.was_cleared) {
            self.control.runtime().metrics.admin_refused(AdminRefusal::TooManyConnections);
        }
        match place {
            Some(place) => tokio::select! {
                () = self.serve(stream, &place.seat, shutdown) => {}
                () = place.seat.asked_to_leave() => {}
            },
            None => turn_away(stream).await,
        }
        None
    }
}

/// Passes one request on to the handlers; its connection is busy until the answer has been taken.
///
/// A write is a task of its own from here on: hyper drops what it serves, even before it has looked at it,
/// when the client has closed its side behind the request.
fn answer(
    router: Router,
    mut request: Request<Incoming>,
    peer: Option<Peer>,
    seat: &Arc<Seat>,
) -> impl Future<Output = Result<Response<Body>, Infallible>> + use<> {
    let busy = seat.begin();
    if let Some(peer) = peer {
        request.extensions_mut().insert(peer);
    }
    let answer = if is_look(request.method()) {
        Either::Left(router.oneshot(request))
    } else {
        let write = tokio::spawn(router.oneshot(request));
        Either::Right(write.unwrap_or_else(|error| Ok(Problem::internal(error.to_string()).into_response())))
    };
    answer.map_ok(|answer| answer.map(|body| Body::new(Answer { body, _busy: busy })))
}

fn peer_of(stream: &Stream) -> Option<Peer> {
    stream.get_socket_digest()?.peer_addr()?.as_inet().copied().map(Peer)
}

async fn turn_away(mut stream: Stream) {
    let problem = Problem::new(503, "too_many_connections", "the side port is busy")
        .detail(format!("{CONNECTIONS_MAX} connections to the side port have a request under way"))
        .help("close some; a client that asks often should keep one connection");
    let body = problem.to_json();
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\n{}: {}\r\n{}: {}\r\nConnection: close\r\n\r\n{body}",
        header::CONTENT_TYPE,
        super::problem::MEDIA_TYPE,
        header::CONTENT_LENGTH,
        body.len(),
    );
    // A client that does not read even this has itself to thank.
    let _ = timeout(FAREWELL, stream.write_all(answer.as_bytes())).await;
}
