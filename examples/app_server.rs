//! The app server that demos and tests stand in front of: small, honest, and sick on request.
//!
//! ```console
//! $ cargo run --example app_server -- --address 127.0.0.1:9001 --name one --delay 20ms
//! ```
//!
//! | path | answer |
//! |---|---|
//! | `/healthz` | 200 `well`, or 503 `sick` |
//! | `POST /sick`, `POST /well` | from now on, `/healthz` and everything else is 503, or no longer |
//! | `/count` | requests answered so far, these paths not counted |
//! | `/slow?ms=250` | as `/`, after that time |
//! | `/status/503` | that status |
//! | `/echo` | method, target, headers and body, as they arrived |
//! | anything else | `hello from NAME` |

use std::fmt::Write as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_TYPE, HeaderName};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use clap::Parser;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;

/// A body that is echoed may be this long; more is more than anyone reads.
const ECHO_BYTES_MAX: usize = 16 * 1024 * 1024;

/// A demo app server.
#[derive(Debug, Parser)]
struct Arguments {
    /// Where to listen.
    #[arg(long, default_value = "127.0.0.1:9001")]
    address: String,

    /// What to be called in answers; the port, unless given.
    #[arg(long)]
    name: Option<String>,

    /// Waits this long before each answer: `20ms`, `1s`.
    #[arg(long, default_value = "0ms", value_parser = duration)]
    delay: Duration,
}

struct App {
    name: String,
    delay: Duration,
    sick: AtomicBool,
    count: AtomicU64,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let listener = match TcpListener::bind(&arguments.address).await {
        Ok(listener) => listener,
        Err(error) => {
            eprintln!("cannot listen on {}: {error}", arguments.address);
            return ExitCode::from(3);
        }
    };
    serve(listener, Arc::new(App::new(arguments))).await;
    ExitCode::SUCCESS
}

impl App {
    fn new(arguments: Arguments) -> Self {
        let port = arguments.address.rsplit(':').next().unwrap_or_default().to_owned();
        Self {
            name: arguments.name.unwrap_or(port),
            delay: arguments.delay,
            sick: AtomicBool::new(false),
            count: AtomicU64::new(0),
        }
    }

    fn status(&self) -> StatusCode {
        let sick = self.sick.load(Ordering::Relaxed);
        if sick { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK }
    }
}

/// Accepts until the process is stopped.
async fn serve(listener: TcpListener, app: Arc<App>) {
    let service = axum::Router::new().fallback(answer).with_state(app);
    while let Ok((stream, _)) = listener.accept().await {
        // Small answers must not wait for an acknowledgement of the ones before.
        let _ = stream.set_nodelay(true);
        let service = TowerToHyperService::new(service.clone());
        tokio::spawn(async move {
            // A client that leaves is nothing to report.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(State(app): State<Arc<App>>, request: Request) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    match (&method, path.as_str()) {
        (_, "/healthz") => health(&app),
        (&Method::POST, "/sick") => become_sick(&app, true),
        (&Method::POST, "/well") => become_sick(&app, false),
        (_, "/count") => app.count.load(Ordering::Relaxed).to_string().into_response(),
        _ => work(&app, &path, request).await,
    }
}

fn health(app: &App) -> Response {
    let status = app.status();
    let text = if status == StatusCode::OK { "well\n" } else { "sick\n" };
    (status, text).into_response()
}

fn become_sick(app: &App, sick: bool) -> Response {
    app.sick.store(sick, Ordering::Relaxed);
    StatusCode::NO_CONTENT.into_response()
}

/// Whatever counts as a request.
async fn work(app: &App, path: &str, request: Request) -> Response {
    app.count.fetch_add(1, Ordering::Relaxed);
    tokio::time::sleep(app.delay).await;
    let body = match path.split_once("/status/") {
        Some(("", code)) => return status(app, code),
        _ if path == "/slow" => slow(app, request.uri().query()).await,
        _ if path == "/echo" => echo(request).await,
        _ => hello(app),
    };
    signed(app, app.status(), body)
}

fn hello(app: &App) -> String {
    format!("hello from {}\n", app.name)
}

async fn slow(app: &App, query: Option<&str>) -> String {
    let milliseconds = query.and_then(|query| query.strip_prefix("ms=")?.parse().ok()).unwrap_or(1000);
    tokio::time::sleep(Duration::from_millis(milliseconds)).await;
    hello(app)
}

fn status(app: &App, code: &str) -> Response {
    match code.parse() {
        Ok(code) => signed(app, code, format!("{code} from {}\n", app.name)),
        Err(_) => signed(app, StatusCode::BAD_REQUEST, "write /status/503\n".to_owned()),
    }
}

async fn echo(request: Request) -> String {
    let (head, body) = request.into_parts();
    let mut text = format!("{} {} {:?}\n", head.method, head.uri, head.version);
    for (name, value) in &head.headers {
        let _ = writeln!(text, "{name}: {}", String::from_utf8_lossy(value.as_bytes()));
    }
    let body = to_bytes(body, ECHO_BYTES_MAX).await.unwrap_or_default();
    let _ = write!(text, "\n{}", String::from_utf8_lossy(&body));
    text
}

/// Every counted answer says who gave it.
fn signed(app: &App, status: StatusCode, body: String) -> Response {
    const SERVED_BY: HeaderName = HeaderName::from_static("x-served-by");
    let headers = [(SERVED_BY, app.name.as_str()), (CONTENT_TYPE, "text/plain; charset=utf-8")];
    (status, headers, Body::from(body)).into_response()
}

fn duration(text: &str) -> Result<Duration, String> {
    let help = || format!("`{text}` is no duration: write 20ms or 1s");
    let number = |digits: &str| digits.parse::<u64>().map_err(|_| help());
    match (text.strip_suffix("ms"), text.strip_suffix('s')) {
        (Some(digits), _) => Ok(Duration::from_millis(number(digits)?)),
        (None, Some(digits)) => Ok(Duration::from_secs(number(digits)?)),
        (None, None) => Err(help()),
    }
}
