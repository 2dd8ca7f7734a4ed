//! One connection to the side port: HTTP/1.1 by hyper, bounded in every direction.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use http::header;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use pingora::apps::ServerApp;
use pingora::protocols::Stream;
use pingora::server::ShutdownWatch;
use tokio::io::AsyncWriteExt;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::problem::Problem;
use super::routes;
use crate::control::Control;

/// Connections at a time. Operators and scrapers need a handful; the process's file descriptors are
/// for traffic.
pub(super) const CONNECTIONS_MAX: usize = 256;

/// For a request head; also how long a connection may idle between two requests.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes of a request head and of what is read ahead; hyper's default is 400 KiB.
const BUFFER_BYTES_MAX: usize = 16 * 1024;

/// A connection is asked to end after this time, so that one whose client stopped reading does not
/// hold its place for ever. Longer than the longest answer takes, a change under guard (`guarded.rs`).
const CONNECTION_AGE_MAX: Duration = Duration::from_secs(1_200);

/// How long an answer under way may take after the connection was asked to end.
const FAREWELL: Duration = Duration::from_secs(5);

/// The application behind the side port; Pingora accepts, and calls it for each connection.
pub struct AdminApp {
    router: Router,
    connection: http1::Builder,
    places: Semaphore,
}

impl AdminApp {
    /// Answers for what `control` runs.
    pub fn new(control: Arc<Control>) -> Self {
        let mut connection = http1::Builder::new();
        connection.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(BUFFER_BYTES_MAX);
        Self { router: routes::router(control), connection, places: Semaphore::new(CONNECTIONS_MAX) }
    }

    async fn serve(&self, stream: Stream, shutdown: &ShutdownWatch) {
        let service = TowerToHyperService::new(self.router.clone());
        let mut connection = pin!(self.connection.serve_connection(TokioIo::new(stream), service));
        let mut shutdown = shutdown.clone();
        // What goes wrong on a connection is the client's to notice; there is nothing to do here.
        tokio::select! {
            _ = connection.as_mut() => return,
            _ = shutdown.wait_for(|is_stopping| *is_stopping) => {}
            () = sleep(CONNECTION_AGE_MAX) => {}
        }
        connection.as_mut().graceful_shutdown();
        let _ = timeout(FAREWELL, connection).await;
    }
}

#[async_trait]
impl ServerApp for AdminApp {
    async fn process_new(self: &Arc<Self>, stream: Stream, shutdown: &ShutdownWatch) -> Option<Stream> {
        match self.places.try_acquire() {
            Ok(_place) => self.serve(stream, shutdown).await,
            Err(_) => turn_away(stream).await,
        }
        None
    }
}

async fn turn_away(mut stream: Stream) {
    let problem = Problem::new(503, "too_many_connections", "the side port is busy")
        .detail(format!("{CONNECTIONS_MAX} connections to the side port are open"))
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
