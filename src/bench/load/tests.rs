//! Turns against small servers of our own, over real sockets.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use super::super::scenario::{Arrivals, Load, Protocol, Request, Work};
use super::super::schedule::schedule;
use super::super::turn::Failure;
use super::*;

const MS: Duration = Duration::from_millis(1);

/// Answers each request as it was told, a thread per connection, until it is dropped.
struct Server {
    address: SocketAddr,
    seen: Arc<Seens>,
}

/// What a server has met.
#[derive(Default)]
struct Seens {
    connections: AtomicUsize,
    requests: Mutex<Vec<Asked>>,
    /// Connections that the client has closed.
    closed: AtomicUsize,
    is_over: AtomicBool,
}

#[derive(Clone)]
struct Asked {
    /// Which connection it came on, and the how many-th there.
    connection: usize,
    turn: usize,
    head: String,
    body: usize,
}

impl Asked {
    fn has(&self, line: &str) -> bool {
        self.head.lines().any(|own| own.eq_ignore_ascii_case(line))
    }
}

impl Server {
    /// `answer` writes what it likes and says whether the connection goes on.
    fn start(answer: impl Fn(&Asked, &mut TcpStream) -> bool + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let address = listener.local_addr().expect("an address");
        let seen = Arc::new(Seens::default());
        let (shared, answer) = (seen.clone(), Arc::new(answer));
        thread::spawn(move || {
            for stream in listener.incoming() {
                if shared.is_over.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let (shared, answer) = (shared.clone(), answer.clone());
                let connection = shared.connections.fetch_add(1, Ordering::Relaxed);
                thread::spawn(move || serve(stream, connection, &shared, &*answer));
            }
        });
        Self { address, seen }
    }

    /// The same for all: two bytes by this server.
    fn answering(index: usize) -> Self {
        Self::start(move |_, stream| stream.write_all(good(index).as_bytes()).is_ok())
    }

    fn connections(&self) -> usize {
        self.seen.connections.load(Ordering::Relaxed)
    }

    fn requests(&self) -> Vec<Asked> {
        self.seen.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.seen.is_over.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
    }
}

fn serve(
    mut stream: TcpStream,
    connection: usize,
    seen: &Seens,
    answer: &dyn Fn(&Asked, &mut TcpStream) -> bool,
) {
    let _ = stream.set_nodelay(true);
    for turn in 0.. {
        let Some((head, body)) = read_request(&mut stream) else {
            seen.closed.fetch_add(1, Ordering::Relaxed);
            return;
        };
        let asked = Asked { connection, turn, head, body };
        seen.requests.lock().unwrap_or_else(PoisonError::into_inner).push(asked.clone());
        if !answer(&asked, &mut stream) {
            return;
        }
    }
}

/// The head, and the length of the body.
fn read_request(stream: &mut TcpStream) -> Option<(String, usize)> {
    let mut head = Vec::new();
    let mut body = loop {
        let mut piece = [0; 4_096];
        let length = stream.read(&mut piece).ok().filter(|&length| length > 0)?;
        head.extend_from_slice(&piece[..length]);
        if let Some(end) = head.windows(4).position(|window| window == b"\r\n\r\n") {
            break head.split_off(end + 4);
        }
    };
    let head = String::from_utf8(head).ok()?;
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")?.parse().ok());
    // A body that is announced as endless is left unread.
    let length: usize = length.filter(|&length| length <= 1 << 20).unwrap_or(0);
    let left = length.saturating_sub(body.len());
    stream.take(left as u64).read_to_end(&mut body).ok()?;
    Some((head, body.len()))
}

fn good(server: usize) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nx-bench-server: {server}\r\n\r\nok")
}

/// Evenly at a rate, for so long, after a quarter of it as warm-up.
fn scenario(load: Load, duration: Duration) -> Scenario {
    Scenario {
        name: "test".to_owned(),
        what: String::new(),
        expected: String::new(),
        is_short: false,
        servers: 2,
        workers: 1,
        balancers: 1,
        threads: 1,
        load,
        request: Request { answer: 2, ..Request::default() },
        script: Vec::new(),
        reload_every: None,
        duration,
        warmup: duration / 4,
        timeout: Duration::from_secs(20),
        candidates: Vec::new(),
        expectations: Vec::new(),
    }
}

fn at_rate(per_second: f64, duration: Duration) -> Scenario {
    scenario(Load::Rate { per_second, arrivals: Arrivals::Even, work: Work::None }, duration)
}

fn run_against(scenario: &Scenario, balancers: &[SocketAddr]) -> LoadReport {
    let schedule = schedule(scenario, 7);
    run_schedule(scenario, &schedule, None, balancers)
}

fn run_schedule(
    scenario: &Scenario,
    schedule: &[Arrival],
    homes: Option<&[usize]>,
    balancers: &[SocketAddr],
) -> LoadReport {
    let (servers, stop) = (scenario.servers, AtomicBool::new(false));
    let began = Instant::now() + 20 * MS;
    let order = Order { scenario, schedule, homes, balancers, servers, began, stop: &stop };
    run(&order, || (), || ()).expect("a turn")
}

fn count(failures: &Seen, failure: Failure) -> u64 {
    failures.failures.get(&failure).copied().unwrap_or(0)
}

/// All of one kind, whatever it is.
fn only_failure(seen: &Seen) -> Failure {
    assert_eq!(seen.succeeded.len(), 0, "{:?}", seen.failures);
    let kinds: Vec<Failure> = seen.failures.keys().copied().collect();
    assert_eq!(kinds.len(), 1, "{kinds:?}");
    kinds[0]
}

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        thread::sleep(5 * MS);
    }
}

#[test]
fn every_arrival_is_asked_once_and_answers_are_counted_by_server() {
    let servers = [Server::answering(0), Server::answering(1)];
    let mut scenario = at_rate(500.0, 1_000 * MS);
    scenario.balancers = 2;
    let addresses = servers.each_ref().map(|server| server.address);
    let schedule = schedule(&scenario, 7);
    let report = run_schedule(&scenario, &schedule, None, &addresses);

    let measured = |index: usize| {
        schedule.iter().filter(|arrival| arrival.balancer == index && arrival.at >= scenario.warmup).count()
    };
    for (index, server) in servers.iter().enumerate() {
        let planned = schedule.iter().filter(|arrival| arrival.balancer == index).count();
        assert_eq!(server.requests().len(), planned);
        assert_eq!(report.seen.answers[index], measured(index) as u64);
    }
    assert_eq!(report.seen.time, 750 * MS);
    assert_eq!(report.seen.succeeded.len(), (measured(0) + measured(1)) as u64);
    assert_eq!(report.seen.failed.len(), 0);
    let in_slices: u32 = report.seen.slices.iter().flat_map(|slice| &slice.answers).sum();
    assert_eq!(in_slices as usize, schedule.len());
    assert!(report.seen.slices[0].p99 > Duration::ZERO);
    assert!(report.busy > 0.0 && report.busy < 1.5, "{}", report.busy);
}

/// One server stands still for a second. Clients that wait for their answers would notice it once.
#[test]
fn requests_go_on_while_the_server_stalls_and_count_from_when_they_should_have_begun() {
    let (gate, stall) = (Mutex::new(()), 1_000 * MS);
    let count = AtomicUsize::new(0);
    let server = Server::start(move |_, stream| {
        let _open = gate.lock().unwrap_or_else(PoisonError::into_inner);
        if count.fetch_add(1, Ordering::Relaxed) == 150 {
            thread::sleep(stall);
        }
        stream.write_all(good(0).as_bytes()).is_ok()
    });
    let report = run_against(&at_rate(200.0, 2_000 * MS), &[server.address]);

    assert_eq!(report.seen.succeeded.len(), 300);
    let late = report.seen.succeeded.count_between(250_000, u64::MAX);
    assert!(late >= 100, "150 were due in the first three quarters of the stall, {late} saw it");
    let very_late = report.seen.succeeded.count_between(700_000, u64::MAX);
    assert!(very_late >= 30, "{very_late} of {late}");
}

#[test]
fn a_client_gives_up_when_its_time_is_over_and_closes_the_connection() {
    let server = Server::start(|_, _| true);
    let mut scenario = at_rate(100.0, 400 * MS);
    scenario.timeout = 300 * MS;
    let report = run_against(&scenario, &[server.address]);

    assert_eq!(only_failure(&report.seen), Failure::Timeout);
    assert_eq!(count(&report.seen, Failure::Timeout), 30);
    let exactly = report.seen.failed.value_at_quantile(0.0)..=report.seen.failed.max();
    assert!(exactly.contains(&300_000) && report.seen.failed.equivalent(*exactly.start(), *exactly.end()));
    let all = server.requests().len();
    wait_until("the connections are closed", || server.seen.closed.load(Ordering::Relaxed) >= all);
}

/// Late answers are no successes: the client had gone.
#[test]
fn an_answer_after_the_time_is_over_is_a_timeout() {
    let server = Server::start(|_, stream| {
        thread::sleep(250 * MS);
        stream.write_all(good(0).as_bytes()).is_ok()
    });
    let mut scenario = at_rate(50.0, 400 * MS);
    scenario.timeout = 100 * MS;
    assert_eq!(only_failure(&run_against(&scenario, &[server.address]).seen), Failure::Timeout);
}

#[test]
fn what_goes_wrong_is_told_apart() {
    let cases: [(&'static str, Failure); 7] = [
        ("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 2\r\n\r\nno", Failure::Status(503)),
        ("HTTP/1.1 502 Bad Gateway\r\nConnection: close\r\n\r\nno", Failure::Status(502)),
        ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nyes", Failure::Broken),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no", Failure::Broken),
        ("HTTP/1.1 200 OK\r\nContent-Le", Failure::Broken),
        ("220 mail.example.com ESMTP\r\n", Failure::Broken),
        ("", Failure::Broken),
    ];
    for (text, failure) in cases {
        let server = Server::start(move |_, stream| {
            let _ = stream.write_all(text.as_bytes());
            false
        });
        let report = run_against(&at_rate(100.0, 200 * MS), &[server.address]);
        assert_eq!(only_failure(&report.seen), failure, "{text:?}");
        assert_eq!(report.seen.failed.len(), 15);
        let in_slices: u32 = report.seen.slices.iter().map(|slice| slice.failures).sum();
        assert_eq!(in_slices, 19, "with those of the warm-up");
    }
}

#[test]
fn a_balancer_that_refuses_is_told_apart() {
    // Bound and not listening: nobody else gets the port meanwhile.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).expect("a port");
    let address = socket.local_addr().expect("an address").as_socket().expect("of the internet");
    for load in [at_rate(100.0, 200 * MS), scenario(Load::Clients(3), 200 * MS)] {
        assert_eq!(only_failure(&run_against(&load, &[address]).seen), Failure::Connect);
    }
}

/// Each client keeps its connection, or none does.
#[test]
fn connections_are_kept_if_they_are_to_be() {
    let server = Server::answering(0);
    let report = run_against(&scenario(Load::Clients(5), 500 * MS), &[server.address]);
    assert!(report.seen.succeeded.len() > 10);
    assert_eq!(report.seen.failed.len(), 0, "{:?}", report.seen.failures);
    assert!(server.connections() <= 5, "{}", server.connections());
    assert!(
        server.requests().iter().all(|asked| asked.has("Host: bench") && !asked.has("Connection: close"))
    );

    let server = Server::answering(0);
    let mut scenario = scenario(Load::Clients(5), 500 * MS);
    scenario.request.is_kept = false;
    let report = run_against(&scenario, &[server.address]);
    assert!(report.seen.succeeded.len() > 10);
    assert_eq!(report.seen.failed.len(), 0, "{:?}", report.seen.failures);
    assert_eq!(server.connections(), server.requests().len());
    assert!(server.requests().iter().all(|asked| asked.has("Connection: close")));
}

#[test]
fn clients_of_a_closed_loop_are_spread_over_the_balancers() {
    let servers = [Server::answering(0), Server::answering(1)];
    let addresses = servers.each_ref().map(|server| server.address);
    run_against(&scenario(Load::Clients(6), 300 * MS), &addresses);
    for server in servers {
        let connections: BTreeSet<usize> = server.requests().iter().map(|asked| asked.connection).collect();
        assert!((1..=3).contains(&connections.len()), "{}", connections.len());
    }
}

/// Nobody has seen the request, so it is sent once more.
#[test]
fn a_kept_connection_that_was_closed_meanwhile_costs_no_request() {
    let server =
        Server::start(|asked, stream| asked.turn == 0 && stream.write_all(good(0).as_bytes()).is_ok());
    let report = run_against(&scenario(Load::Clients(2), 300 * MS), &[server.address]);
    assert_eq!(report.seen.failed.len(), 0, "{:?}", report.seen.failures);
    assert!(report.seen.succeeded.len() > 5);
    assert!(server.requests().iter().any(|asked| asked.turn == 1), "a kept connection was met");
}

/// Some of the answer has come: whatever is wrong then is for the client to see.
#[test]
fn a_kept_connection_that_breaks_in_mid_answer_is_a_failure() {
    let server = Server::start(|asked, stream| {
        let answer = if asked.turn == 0 { good(0) } else { "HTTP/1.1 200 OK\r\n".to_owned() };
        stream.write_all(answer.as_bytes()).is_ok() && asked.turn == 0
    });
    let report = run_against(&scenario(Load::Clients(2), 1_000 * MS), &[server.address]);
    let (well, badly) = (report.seen.succeeded.len(), count(&report.seen, Failure::Broken));
    assert!(well > 0 && badly > 0, "{well} and {badly}");
    assert_eq!(report.seen.failed.len(), badly);
}

#[test]
fn bodies_are_sent_whole_and_work_and_home_are_told() {
    let server = Server::answering(0);
    let mut scenario = at_rate(50.0, 400 * MS);
    scenario.load = Load::Rate {
        per_second: 50.0,
        arrivals: Arrivals::Even,
        work: Work::LogNormal { mean: 3 * MS, sigma: 0.0 },
    };
    scenario.request.body = 300_000;
    let schedule = schedule(&scenario, 7);
    let homes: Vec<usize> = (0..schedule.len()).map(|index| index % 2).collect();
    let report = run_schedule(&scenario, &schedule, Some(&homes), &[server.address]);

    assert_eq!(report.seen.failed.len(), 0, "{:?}", report.seen.failures);
    let requests = server.requests();
    assert_eq!(requests.len(), schedule.len());
    for asked in &requests {
        assert!(
            asked.head.starts_with("POST / HTTP/1.1\r\n") && asked.has("x-bench-work: 3000"),
            "{}",
            asked.head
        );
        assert_eq!(asked.body, 300_000);
    }
    let at_home = |host: &str| requests.iter().filter(|asked| asked.has(host)).count();
    assert_eq!((at_home("Host: s0"), at_home("Host: s1")), (schedule.len().div_ceil(2), schedule.len() / 2));
}

/// A body that nobody reads blocks the client, which must hear the answer nevertheless.
#[test]
fn a_body_may_be_refused_before_it_was_read() {
    let held = Mutex::new(Vec::new());
    let server = Server::start(move |_, stream| {
        let _ = stream.write_all(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n");
        // Open, and never read from.
        held.lock().unwrap_or_else(PoisonError::into_inner).extend(stream.try_clone());
        false
    });
    let mut scenario = at_rate(50.0, 200 * MS);
    scenario.request.body = 16 << 20;
    let report = run_against(&scenario, &[server.address]);
    assert_eq!(only_failure(&report.seen), Failure::Status(413));
}

#[test]
fn idle_connections_are_held_and_asked_again() {
    let server = Server::answering(0);
    let open = Arc::new(AtomicUsize::new(0));
    let scenario = scenario(Load::Idle(50), 400 * MS);
    let (stop, warm) = (AtomicBool::new(false), AtomicUsize::new(0));
    let order = Order {
        scenario: &scenario,
        schedule: &[],
        homes: None,
        balancers: &[server.address],
        servers: 2,
        began: Instant::now(),
        stop: &stop,
    };
    let at_end = || {
        let closed = server.seen.closed.load(Ordering::Relaxed);
        open.store(server.connections() - closed, Ordering::Relaxed);
    };
    let report = run(&order, || _ = warm.fetch_add(1, Ordering::Relaxed), at_end).expect("a turn");

    assert_eq!(report.idle_connections, 50);
    assert_eq!(open.load(Ordering::Relaxed), 50);
    assert_eq!(warm.load(Ordering::Relaxed), 1);
    assert_eq!(report.seen.failed.len(), 0, "{:?}", report.seen.failures);
    let again = server.requests().iter().filter(|asked| asked.turn == 1).count();
    assert_eq!(again, 5);
    assert_eq!(server.connections(), 50);
}

#[test]
fn an_idle_connection_that_was_not_kept_is_no_idle_connection() {
    let server = Server::start(|asked, stream| {
        stream.write_all(good(0).as_bytes()).is_ok() && !asked.connection.is_multiple_of(2)
    });
    let report = run_against(&scenario(Load::Idle(40), 2_000 * MS), &[server.address]);
    assert_eq!(report.idle_connections, 20);

    // Open, and yet of no use.
    let server =
        Server::start(|asked, stream| asked.turn == 0 && stream.write_all(good(0).as_bytes()).is_ok());
    let report = run_against(&scenario(Load::Idle(40), 2_000 * MS), &[server.address]);
    assert_eq!((report.idle_connections, count(&report.seen, Failure::Broken)), (40, 4));
}

#[test]
fn more_than_may_be_under_way_is_not_sent() {
    let server = Server::start(|_, _| true);
    let mut scenario = at_rate(100.0, 400 * MS);
    scenario.timeout = 3_000 * MS;
    let schedule = schedule(&scenario, 7);
    let stop = AtomicBool::new(false);
    let (began, balancers) = (Instant::now(), [server.address]);
    let order = Order {
        scenario: &scenario,
        schedule: &schedule,
        homes: None,
        balancers: &balancers,
        servers: 2,
        began,
        stop: &stop,
    };
    let report = driver::run(&order, 15, || (), || ()).expect("a turn");
    let (not_sent, timeout) = (count(&report.seen, Failure::NotSent), count(&report.seen, Failure::Timeout));
    assert!(not_sent > 0 && timeout > 0 && not_sent + timeout == 30, "{:?}", report.seen.failures);
    assert!(server.requests().len() < schedule.len());
    assert!(report.seen.failed.value_at_quantile(0.0) >= 2_990_000, "it counts with its client's patience");
}

#[test]
fn a_load_beyond_the_limits_of_the_system_is_refused() {
    let stop = AtomicBool::new(false);
    let refused = |scenario: &Scenario, balancers: &[SocketAddr]| {
        let began = Instant::now();
        let order = Order { scenario, schedule: &[], homes: None, balancers, servers: 2, began, stop: &stop };
        match run(&order, || (), || ()) {
            Err(BenchError::Wrong(why)) => why,
            other => panic!("{other:?}"),
        }
    };
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 9));
    let why = refused(&scenario(Load::Clients(1 << 40), 100 * MS), &[address]);
    assert!(why.contains("file descriptors") && why.contains("ulimit"), "{why}");
    assert!(refused(&at_rate(1.0, 100 * MS), &[]).contains("no balancer"));
    assert!(refused(&scenario(Load::Idle(2_000), 100 * MS), &[address]).contains("longer"));
}

#[test]
fn a_stop_ends_the_turn_whatever_is_under_way() {
    let server = Server::start(|_, _| true);
    let scenario = at_rate(100.0, Duration::from_secs(600));
    let schedule = schedule(&scenario, 7);
    let stop = AtomicBool::new(false);
    let balancers = [server.address];
    let order = Order {
        scenario: &scenario,
        schedule: &schedule,
        homes: None,
        balancers: &balancers,
        servers: 2,
        began: Instant::now(),
        stop: &stop,
    };
    thread::scope(|scope| {
        scope.spawn(|| {
            wait_until("requests are under way", || server.requests().len() > 5);
            stop.store(true, Ordering::Relaxed);
        });
        let outcome = run(&order, || (), || ());
        assert!(matches!(outcome, Err(BenchError::Interrupted)), "{outcome:?}");
    });
    let asked = server.requests().len();
    wait_until("the connections are closed", || server.seen.closed.load(Ordering::Relaxed) >= asked);
}

/// What a client sends first, to somebody who only listens.
fn first_words(protocol: Protocol) -> Vec<u8> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = listener.local_addr().expect("an address");
    let listening = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        let mut words = vec![0; 24];
        stream.read_exact(&mut words).expect("some words");
        let mut rest = vec![0; 4_096];
        let length = stream.read(&mut rest).expect("more words");
        words.extend_from_slice(&rest[..length]);
        words
    });
    let request = Request { protocol, ..Request::default() };
    // The listener hangs up without an answer.
    assert!(ask_once(request, address, Duration::from_secs(20)).is_err());
    listening.join().expect("it has listened")
}

#[test]
fn clients_speak_the_protocol_of_the_scenario() {
    let has = |words: &[u8], what: &[u8]| words.windows(what.len()).any(|window| window == what);
    assert!(first_words(Protocol::Http1).starts_with(b"GET / HTTP/1.1\r\n"));
    for protocol in [Protocol::H2c, Protocol::Grpc] {
        assert!(first_words(protocol).starts_with(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"));
    }
    for (protocol, other, alpn) in
        [(Protocol::Https, "\x02h2", "\x08http/1.1"), (Protocol::H2, "http/1.1", "\x02h2")]
    {
        let hello = first_words(protocol);
        // A handshake record of TLS, with one protocol to choose from.
        assert_eq!(hello.first(), Some(&0x16));
        assert!(has(&hello, alpn.as_bytes()) && !has(&hello, other.as_bytes()), "{protocol:?}");
    }
}
