//! gRPC, by clients and servers that no one here wrote: grpcio (the C core) and @grpc/grpc-js.
//!
//! Each play of theirs is a function in `grpc/play.py` or `grpc/play.js`, with both ends in one process and
//! Evener between them; what Evener says of it, its counters and its log, is looked at here.

use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};

use crate::rig::{Evener, Origin, reserve_port, wait_until};

const SOON: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Library {
    Grpcio,
    GrpcJs,
}

/// A play under way.
struct Play {
    process: Child,
    output: BufReader<std::process::ChildStdout>,
    /// Of its servers.
    addresses: Vec<String>,
}

impl Play {
    /// Starts its servers; `None` if the library is not here and need not be.
    #[track_caller]
    fn set_up(library: Library, name: &str, servers: usize) -> Option<Self> {
        let mut process = command(library)?
            .args([name, &servers.to_string()])
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let output = BufReader::new(process.stdout.take().expect("its output"));
        let mut play = Self { process, output, addresses: Vec::new() };
        let ports = play.next_line().expect("its ports");
        let ports = ports.strip_prefix("ports").expect("its ports").split_whitespace();
        play.addresses = ports.map(|port| format!("127.0.0.1:{port}")).collect();
        Some(play)
    }

    fn next_line(&mut self) -> Option<String> {
        let mut line = String::new();
        let bytes = self.output.read_line(&mut line).expect("its output");
        (bytes > 0).then(|| line.trim().to_owned())
    }

    /// In TOML.
    fn upstreams(&self) -> String {
        let quoted: Vec<String> = self.addresses.iter().map(|address| format!("\"{address}\"")).collect();
        quoted.join(", ")
    }

    fn tell(&mut self, line: &str) {
        let input = self.process.stdin.as_mut().expect("its input");
        writeln!(input, "{line}").expect("it listens");
    }

    /// Plays it through Evener, to the end; `pause` is called wherever it stops and waits.
    #[track_caller]
    fn run_with(mut self, evener: &Evener, mut pause: impl FnMut(&str)) {
        self.tell(&evener.address().to_string());
        loop {
            match self.next_line() {
                Some(line) if line == "done" => return,
                Some(line) => pause(line.strip_prefix("pause ").expect("a pause")),
                None => panic!("the play failed, see above"),
            }
            self.tell("on");
        }
    }

    #[track_caller]
    fn run(self, evener: &Evener) {
        self.run_with(evener, |pause| panic!("a pause that nobody expected: {pause}"));
    }
}

impl Drop for Play {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Where `make setup` puts them. If they are not there, the play fails with what to do; where
/// `CI_ALLOW_MISSING` is set, it is left out, and says so.
#[track_caller]
fn command(library: Library) -> Option<Command> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (program, needed, script): (PathBuf, _, _) = match library {
        Library::Grpcio => {
            let python = root.join("target/grpc/bin/python");
            (python.clone(), python, "play.py")
        }
        Library::GrpcJs => {
            ("node".into(), root.join("target/grpc-js/node_modules/@grpc/grpc-js/package.json"), "play.js")
        }
    };
    if needed.is_file() {
        let mut command = Command::new(program);
        command.arg(root.join("tests/behaviour/grpc").join(script));
        return Some(command);
    }
    assert!(env::var_os("CI_ALLOW_MISSING").is_some(), "{library:?} is missing: run `make setup`");
    eprintln!("!!! LEFT OUT, {library:?} is missing: run `make setup`");
    None
}

/// Evener in front of these upstreams, all in clear.
fn in_front_of(upstreams: &str, more: &str) -> Evener {
    Evener::start(&text(upstreams, more))
}

fn text(upstreams: &str, more: &str) -> String {
    format!(
        "[listeners.http]\nhttp2_cleartext = true\n\
         [pools.app]\nprotocol = \"http2\"\nupstreams = [{upstreams}]\n{more}"
    )
}

#[track_caller]
fn play(library: Library, name: &str, servers: usize, more: &str) {
    let Some(play) = Play::set_up(library, name, servers) else { return };
    let evener = in_front_of(&play.upstreams(), more);
    play.run(&evener);
    expect_nothing_in_flight(&evener);
}

/// What is begun is ended, whatever its end.
#[track_caller]
fn expect_nothing_in_flight(evener: &Evener) {
    wait_until(SOON, || in_flight(evener) == 0);
}

fn in_flight(evener: &Evener) -> u64 {
    let pool = evener.admin().json("/v1/pools/app");
    let upstreams = pool["upstreams"].as_array().expect("a list");
    upstreams.iter().map(|upstream| upstream["in_flight"].as_u64().expect("a number")).sum()
}

/// Where connections are refused.
fn nobodys_address() -> String {
    format!("127.0.0.1:{}", reserve_port())
}

#[test]
fn calls_of_all_four_kinds_are_carried() {
    play(Library::Grpcio, "every_kind", 1, "health_check = { grpc = true }");
    play(Library::GrpcJs, "every_kind", 1, "");
}

#[test]
fn messages_of_eight_mebibytes_are_carried_both_ways() {
    play(Library::Grpcio, "large", 1, "");
    play(Library::GrpcJs, "large", 1, "");
}

#[test]
fn metadata_is_carried_both_ways_binary_too() {
    play(Library::Grpcio, "metadata", 1, "");
    play(Library::GrpcJs, "metadata", 1, "");
}

#[test]
fn statuses_arrive_as_they_were_sent_and_are_counted() {
    play(Library::GrpcJs, "errors", 1, "");
    let Some(play) = Play::set_up(Library::Grpcio, "errors", 1) else { return };
    let evener = in_front_of(&play.upstreams(), "[log]\naccess = \"stdout\"\nformat = \"json\"");
    play.run(&evener);
    for code in ["5", "7", "12", "15"] {
        let labels = ["route=\"default\"", &format!("code=\"{code}\"")];
        evener.admin().expect_metric("evener_grpc_status_total", &labels, 1.0);
    }
    evener.wait_for_log("\"status\":200,\"reason\":null,\"attempts\":1");
    evener.wait_for_log("\"grpc_status\":15}");
}

#[test]
fn a_message_goes_on_at_once_in_either_direction() {
    play(Library::Grpcio, "ping_pong", 1, "");
    play(Library::GrpcJs, "ping_pong", 1, "");
}

/// Either end may have much to send while the other has not read all yet.
#[test]
fn a_stream_with_far_more_answers_than_questions_does_not_lock_up() {
    play(Library::Grpcio, "uneven", 1, "");
}

#[test]
fn deadlines_reach_the_server_and_are_kept() {
    let more = "[routes.app]\npool = \"app\"\ntimeout = \"10s\"";
    play(Library::Grpcio, "deadlines", 1, more);
    play(Library::GrpcJs, "deadlines", 1, more);
}

#[test]
fn who_cancels_a_call_cancels_it_at_the_server() {
    for library in [Library::Grpcio, Library::GrpcJs] {
        let Some(play) = Play::set_up(library, "cancellation", 1) else { return };
        let evener = in_front_of(&play.upstreams(), "");
        play.run_with(&evener, |pause| {
            let expected = u64::from(pause == "one in flight");
            wait_until(SOON, || in_flight(&evener) == expected);
        });
        let cancelled = ["reason=\"client_closed\""];
        evener.admin().expect_metric("evener_refusals_total", &cancelled, 2.0);
        evener.admin().expect_metric("evener_grpc_status_total", &["code=\"1\""], 2.0);
    }
}

#[test]
fn calls_of_one_connection_are_balanced_one_by_one() {
    play(Library::Grpcio, "balance", 3, "health_check = { grpc = true }");
    play(Library::GrpcJs, "balance", 3, "");
}

#[test]
fn long_streams_are_spread_by_least_connections() {
    play(Library::Grpcio, "spread", 3, "strategy = \"least_connections\"");
}

#[test]
fn a_refused_connection_is_no_failed_call() {
    let Some(play) = Play::set_up(Library::Grpcio, "all_well", 2) else { return };
    let upstreams = format!("{}, \"{}\"", play.upstreams(), nobodys_address());
    let evener = in_front_of(&upstreams, "health_check = { enabled = false }");
    play.run(&evener);
}

/// grpcio's own server answers some calls CANCELLED when it stops, with or without a proxy; that of grpc-js
/// keeps the rules of GOAWAY.
#[test]
fn a_server_that_stops_in_good_order_loses_no_call() {
    play(Library::GrpcJs, "stops", 2, "");
}

#[test]
fn a_server_that_dies_in_mid_stream_is_unavailable() {
    let Some(play) = Play::set_up(Library::Grpcio, "is_killed", 1) else { return };
    let evener = in_front_of(&play.upstreams(), "health_check = { enabled = false }");
    play.run(&evener);
    evener.admin().expect_metric("evener_refusals_total", &["reason=\"upstream_reset\""], 1.0);
    evener.admin().expect_metric("evener_grpc_status_total", &["code=\"14\""], 1.0);
    expect_nothing_in_flight(&evener);
}

#[test]
fn a_stream_outlives_a_reload() {
    let Some(play) = Play::set_up(Library::Grpcio, "survives", 1) else { return };
    let upstreams = play.upstreams();
    let evener = in_front_of(&upstreams, "");
    play.run_with(&evener, |_| evener.reload(&text(&upstreams, "strategy = \"least_connections\"")));
    assert_eq!(evener.generation(), 2);
}

#[test]
fn a_stream_outlives_an_upgrade() {
    let Some(play) = Play::set_up(Library::Grpcio, "survives", 1) else { return };
    let evener = in_front_of(&play.upstreams(), "[server]\ndrain_timeout = \"120s\"");
    let before = evener.process_id();
    play.run_with(&evener, |_| drop(evener.upgrade().expect_status(200)));
    assert_ne!(evener.serving_process(), before);
}

#[test]
fn a_stream_is_finished_before_a_process_that_stops_ends() {
    for library in [Library::Grpcio, Library::GrpcJs] {
        let Some(play) = Play::set_up(library, "survives", 1) else { return };
        let mut evener = in_front_of(&play.upstreams(), "[server]\ndrain_timeout = \"60s\"");
        let process = evener.process_id();
        play.run_with(&evener, |_| {
            let sent = Command::new("sh").args(["-c", &format!("kill -TERM {process}")]).status();
            assert!(sent.is_ok_and(|status| status.success()));
            evener.wait_for_log("draining");
        });
        assert!(evener.ends_within(SOON).is_some(), "it ends with its last stream");
    }
}

/// Neither the route's timeout nor the pool's read timeout is about streams.
#[test]
fn a_silent_stream_outlives_the_timeouts_of_requests() {
    let more = "timeouts = { connect = \"1s\", read = \"1s\", write = \"1s\" }\n\
                [routes.app]\npool = \"app\"\ntimeout = \"1s\"";
    play(Library::Grpcio, "silence", 1, more);
}

#[test]
fn refusals_are_told_in_the_words_of_grpc() {
    let Some(play) = Play::set_up(Library::Grpcio, "refusals", 1) else { return };
    let evener = Evener::start(&refusing(&play.upstreams()));
    play.run(&evener);
    // The call that it ends with.
    evener.wait_for_log("grpc_status=0");
    let log = evener.log();
    for (reason, code, kept) in [
        ("no_route", 12, "refused"),
        ("no_eligible_upstream", 14, "failed"),
        ("connect_failure", 14, "failed"),
        ("grpc_needs_http2", 12, "failed"),
        ("body_too_large", 8, "refused"),
    ] {
        let line = log.lines().find(|line| line.contains(&format!("reason={reason}")));
        let line = line.unwrap_or_else(|| panic!("no {reason} in {log}"));
        // What the client saw, and what it was told.
        assert!(line.contains("HTTP/2\" 200 "), "{line}");
        assert!(line.ends_with(&format!("grpc_status={code}")), "{line}");

        let requests = evener.admin().json("/v1/requests?failed=true&limit=1000");
        let told = requests["requests"].as_array().into_iter().flatten();
        let told: Vec<_> = told.filter(|request| request["reason"] == reason).collect();
        assert!(!told.is_empty(), "{requests}");
        for request in told {
            assert_eq!(
                (&request["status"], &request["grpc_status"]),
                (&200.into(), &code.into()),
                "{request}"
            );
            assert_eq!(request["kept"], kept, "{request}");
        }
    }
    let classes = ["class=\"5xx\"", "route=\"empty\""];
    assert!(evener.admin().metric("evener_requests_total", &classes) > 0.0);
    assert!(log.contains("gRPC call refused") && log.contains("protocol = \\\"http2\\\""), "{log}");
    evener.admin().expect_metric("evener_refusals_total", &["reason=\"body_too_large\""], 1.0);
}

fn refusing(upstreams: &str) -> String {
    let routes: String = ["empty", "dead", "old"]
        .map(|name| format!("[routes.{name}]\npath_prefix = \"/{name}.Pool\"\npool = \"{name}\"\n"))
        .concat();
    format!(
        "[log]\naccess = \"stdout\"\n[listeners.http]\nhttp2_cleartext = true\nmax_body_size = \"50KiB\"\n\
         {routes}[routes.app]\npath_prefix = \"/play.Play\"\npool = \"app\"\n\
         [pools.app]\nprotocol = \"http2\"\nupstreams = [{upstreams}]\n\
         [pools.empty]\nprotocol = \"http2\"\nupstreams = []\n\
         [pools.dead]\nprotocol = \"http2\"\nhealth_check = {{ enabled = false }}\nupstreams = [\"{}\"]\n\
         [pools.old]\nhealth_check = {{ enabled = false }}\nupstreams = [{upstreams}]",
        nobodys_address()
    )
}

/// What stands before us has turned gRPC into HTTP/1.1, where its trailers get lost.
#[test]
fn grpc_in_http_1_1_is_refused_with_a_reason_and_grpc_web_is_not() {
    let origin = Origin::answering("ok");
    let evener = Evener::start(&format!("[pools.app]\nupstreams = [\"{}\"]", origin.address()));
    let ask = |media_type: &str| {
        let headers = format!("Content-Type: {media_type}\r\n");
        evener.connect().request("POST", "/play.Play/Echo", &headers, b"")
    };
    let refused = ask("application/grpc").expect_status(501);
    assert!(refused.body().contains("grpc_needs_http2"), "{}", refused.body());
    evener.wait_for_log("gRPC call refused");
    ask("application/grpc-web+proto").expect_status(200);
    ask("application/json").expect_status(200);
}

/// The example, as it stands, but for its addresses.
#[test]
fn the_example_carries_calls() {
    let Some(play) = Play::set_up(Library::Grpcio, "all_well", 3) else { return };
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/grpc/evener.toml");
    let mut text = fs::read_to_string(file).expect("read");
    for (index, address) in play.addresses.iter().enumerate() {
        let written = format!("127.0.0.1:{}", 50051 + index);
        assert!(text.contains(&written), "{written}");
        text = text.replace(&written, address);
    }
    let text = text.replace("address = \"127.0.0.1:8080\"\n", "");
    let evener = Evener::start(&text);
    play.run(&evener);
    evener.admin().expect_metric("evener_grpc_status_total", &["route=\"play\"", "code=\"0\""], 40.0);
}

// On the wire: what a library would hide. -------------------------------------------------------------------

/// What the scripted server does with a call.
#[derive(Clone, Copy)]
enum Act {
    /// Never answers.
    Hang,
    /// Ends the stream with this code, before or after the head of an answer.
    Reset(h2::Reason, bool),
    /// Trailers-only, with this status.
    Status(&'static str),
    /// An error page, as a proxy in between would send it.
    Page(u16),
}

/// A server of calls that all go the same way; the headers of each are kept.
struct Scripted {
    address: String,
    seen: Arc<Mutex<Vec<HeaderMap>>>,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Scripted {
    fn start(act: Act) -> Self {
        let runtime = runtime();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).expect("bind");
        let address = listener.local_addr().expect("an address").to_string();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let calls = seen.clone();
        runtime.spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let calls = calls.clone();
                tokio::spawn(async move {
                    let Ok(mut connection) = h2::server::handshake(socket).await else { return };
                    while let Some(Ok((request, respond))) = connection.accept().await {
                        calls.lock().expect("not poisoned").push(request.headers().clone());
                        tokio::spawn(serve(act, request, respond));
                    }
                });
            }
        });
        Self { address, seen, runtime: Some(runtime) }
    }

    fn header(&self, call: usize, name: &str) -> Option<String> {
        let seen = self.seen.lock().expect("not poisoned");
        Some(seen.get(call)?.get(name)?.to_str().expect("text").to_owned())
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn serve(act: Act, request: Request<h2::RecvStream>, mut respond: h2::server::SendResponse<Bytes>) {
    let head = Response::builder().header("content-type", "application/grpc");
    match act {
        Act::Hang => {
            let _ = std::future::poll_fn(|context| respond.poll_reset(context)).await;
            drop(request);
        }
        Act::Reset(reason, false) => respond.send_reset(reason),
        Act::Reset(reason, true) => {
            let mut body = respond.send_response(head.body(()).expect("a head"), false).expect("sent");
            // The head has to be on its way before the stream ends.
            tokio::time::sleep(Duration::from_millis(300)).await;
            body.send_reset(reason);
        }
        Act::Status(status) => {
            let head = head.header("grpc-status", status).header("grpc-message", "not%20now");
            respond.send_response(head.body(()).expect("a head"), true).expect("sent");
        }
        Act::Page(status) => {
            let head = Response::builder().status(status).header("content-type", "text/html");
            let mut body = respond.send_response(head.body(()).expect("a head"), false).expect("sent");
            body.send_data(Bytes::from_static(b"<h1>Oops</h1>"), true).expect("sent");
        }
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime")
}

/// What came of a call.
#[derive(Debug)]
enum Seen {
    /// A head and nothing else.
    Only(StatusCode, HeaderMap),
    /// A head and this body.
    Whole(StatusCode, Bytes),
    /// The stream was ended, after the head or before it.
    Reset(Option<h2::Reason>, bool),
}

/// One call, by a client that keeps no deadline of its own.
fn call(evener: &Evener, headers: &[(&'static str, &str)]) -> Seen {
    let mut request = Request::builder()
        .method("POST")
        .uri(format!("http://{}/play.Play/Call", evener.address()))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(()).expect("a request");
    let address = evener.address();
    runtime().block_on(async move {
        let socket = tokio::net::TcpStream::connect(address).await.expect("connect");
        let (client, connection) = h2::client::handshake(socket).await.expect("HTTP/2");
        tokio::spawn(connection);
        let mut client = client.ready().await.expect("ready");
        let (answer, mut body) = client.send_request(request, false).expect("sent");
        let _ = body.send_data(Bytes::from_static(b"\0\0\0\0\0"), true);
        let exchange = async {
            let answer = match answer.await {
                Ok(answer) => answer,
                Err(error) => return Seen::Reset(error.reason(), false),
            };
            let (head, mut body) = answer.into_parts();
            if body.is_end_stream() {
                return Seen::Only(head.status, head.headers);
            }
            let mut whole = Vec::new();
            while let Some(data) = body.data().await {
                match data {
                    Ok(data) => whole.extend_from_slice(&data),
                    Err(error) => return Seen::Reset(error.reason(), true),
                }
            }
            Seen::Whole(head.status, whole.into())
        };
        tokio::time::timeout(SOON, exchange).await.expect("an end")
    })
}

fn before(server: &Scripted, more: &str) -> Evener {
    in_front_of(&format!("\"{}\"", server.address), more)
}

/// Longer than any client waits: then nobody is left to whom it could be told.
#[test]
fn a_deadline_is_kept_for_clients_that_do_not_and_is_nobodys_fault() {
    let server = Scripted::start(Act::Hang);
    let evener = before(&server, "ejection = { consecutive_failures = 1 }");
    let seen = call(&evener, &[("grpc-timeout", "1S")]);
    let Seen::Only(status, head) = seen else { panic!("{seen:?}") };
    assert_eq!(
        (status, &head["grpc-status"], &head["content-type"]),
        (StatusCode::OK, &"4".parse().unwrap(), &"application/grpc".parse().unwrap())
    );
    assert_eq!(head["grpc-message"], "the service did not answer in time");

    let told = server.header(0, "grpc-timeout").expect("a deadline");
    let micros: u64 = told.strip_suffix('u').expect("microseconds").parse().expect("a number");
    assert!((1..=1_000_000).contains(&micros), "{told}");
    assert_eq!(server.header(0, "te").as_deref(), Some("trailers"));
    evener.admin().expect_metric("evener_upstream_ejections_total", &[], 0.0);
    evener.admin().expect_metric("evener_refusals_total", &["reason=\"upstream_timeout\""], 1.0);
    expect_nothing_in_flight(&evener);
}

#[test]
fn codes_with_which_a_server_ends_a_stream_reach_the_client() {
    for is_late in [false, true] {
        for code in [h2::Reason::INTERNAL_ERROR, h2::Reason::ENHANCE_YOUR_CALM, h2::Reason::CANCEL] {
            let server = Scripted::start(Act::Reset(code, is_late));
            let evener = before(&server, "ejection = { enabled = false }");
            let seen = call(&evener, &[]);
            assert!(
                matches!(seen, Seen::Reset(Some(got), late) if got == code && late == is_late),
                "{code:?}: {seen:?}"
            );
            expect_nothing_in_flight(&evener);
        }
    }
}

/// As Envoy has it. Other statuses are the application's own affair.
#[test]
fn who_answers_unavailable_is_ejected_and_who_answers_not_found_is_not() {
    for (status, ejections) in [("14", 1.0), ("5", 0.0)] {
        let server = Scripted::start(Act::Status(status));
        // Of a pool of one, nobody is ever ejected.
        let upstreams =
            format!("\"{}\", {{ address = \"{}\", backup = true }}", server.address, nobodys_address());
        let more =
            "ejection = { consecutive_failures = 3, max_ejected = 1.0 }\nhealth_check = { enabled = false }";
        let evener = in_front_of(&upstreams, more);
        for _ in 0..3 {
            let Seen::Only(code, head) = call(&evener, &[]) else { panic!("no answer") };
            assert_eq!(
                (code, &head["grpc-status"], &head["grpc-message"]),
                (StatusCode::OK, &status.parse().unwrap(), &"not%20now".parse().unwrap())
            );
        }
        evener.admin().expect_metric("evener_upstream_ejections_total", &[], ejections);
        // The HTTP status is 200 in any case; what counts as failed goes by the call's own.
        let failed = if status == "14" { 3 } else { 0 };
        wait_until(SOON, || evener.admin().json("/v1/requests")["seen"] == 3);
        assert_eq!(evener.admin().json("/v1/requests?failed=true")["matched"], failed, "{status}");
    }
}

#[test]
fn an_error_page_passes_as_it_is() {
    let server = Scripted::start(Act::Page(502));
    let evener = before(&server, "");
    let seen = call(&evener, &[]);
    assert!(
        matches!(&seen, Seen::Whole(StatusCode::BAD_GATEWAY, page) if page == "<h1>Oops</h1>"),
        "{seen:?}"
    );
    evener.admin().expect_metric("evener_grpc_status_total", &["code=\"2\""], 1.0);
}

/// Nobody drops a call for want of a deadline.
#[test]
fn a_malformed_deadline_is_none() {
    let server = Scripted::start(Act::Status("0"));
    let evener = before(&server, "");
    let seen = call(&evener, &[("grpc-timeout", "soon")]);
    assert!(matches!(seen, Seen::Only(StatusCode::OK, _)), "{seen:?}");
    assert_eq!(server.header(0, "grpc-timeout").as_deref(), Some("soon"));
}
