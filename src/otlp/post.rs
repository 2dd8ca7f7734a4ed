//! One batch to the collector, by HTTP, on a connection of its own.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HOST, RETRY_AFTER, USER_AGENT};
use http::{Request, Response, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use prost::Message;
use tokio::net::TcpStream;

use super::messages::ExportResponse;

/// What came of a batch.
pub(super) enum Answer {
    /// The collector has taken it, but for what it says.
    Taken(Rejected),
    /// It will never take it.
    Refused(String),
    /// It may take it later, if it says so after this time.
    NotNow(String, Option<Duration>),
}

/// What a collector did not take of a batch, and why, if it says so.
#[derive(Default)]
pub(super) struct Rejected {
    pub spans: u64,
    pub why: String,
}

/// For all of it; the default of OpenTelemetry.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Longer answers are none of a collector.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Characters of its reason that are told.
const WHY_CHARACTERS_MAX: usize = 256;

/// A collector that asks for more patience than this gets this much.
const RETRY_AFTER_MAX: u64 = 30;

/// Sends one batch to `endpoint` and waits for the answer.
pub(super) async fn post(endpoint: &str, message: &[u8]) -> Answer {
    let exchange = Box::pin(exchange(endpoint, message.to_vec().into()));
    match tokio::time::timeout(TIMEOUT, exchange).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(problem)) => Answer::NotNow(problem.to_string(), None),
        Err(_) => Answer::NotNow("no answer in time".to_owned(), None),
    }
}

type Problem = Box<dyn std::error::Error + Send + Sync>;

async fn exchange(endpoint: &str, message: Bytes) -> Result<Answer, Problem> {
    let uri: Uri = format!("{endpoint}/v1/traces").parse()?;
    let authority = uri.authority().ok_or("no host in the endpoint")?.clone();
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let socket = TcpStream::connect((host, authority.port_u16().unwrap_or(80))).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(socket)).await?;
    let connection = tokio::spawn(connection);
    let request = Request::post(uri.path())
        .header(HOST, authority.as_str())
        .header(CONTENT_TYPE, "application/x-protobuf")
        .header(ACCEPT, "application/x-protobuf")
        .header(USER_AGENT, concat!("evener/", env!("CARGO_PKG_VERSION")))
        .body(Full::new(message))?;
    let answer = read(sender.send_request(request).await?).await;
    connection.abort();
    answer
}

async fn read(response: Response<Incoming>) -> Result<Answer, Problem> {
    let status = response.status();
    let wait = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    let wait = wait.map(|seconds: u64| Duration::from_secs(seconds.min(RETRY_AFTER_MAX)));
    let problem = format!("it answers {status}");
    if matches!(status.as_u16(), 429 | 502 | 503 | 504) {
        return Ok(Answer::NotNow(problem, wait));
    }
    if !status.is_success() {
        return Ok(Answer::Refused(problem));
    }
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await?.to_bytes();
    // A collector that takes all of it may as well say nothing, or say it in another form.
    let partial = ExportResponse::decode(body).ok().and_then(|answer| answer.partial_success);
    let rejected = partial.map(|partial| Rejected {
        spans: u64::try_from(partial.rejected_spans).unwrap_or(0),
        why: partial.error_message.chars().filter(|it| !it.is_control()).take(WHY_CHARACTERS_MAX).collect(),
    });
    Ok(Answer::Taken(rejected.unwrap_or_default()))
}
