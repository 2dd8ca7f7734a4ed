use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::testing::scenario;
use super::*;
use crate::bench::scenario::{Act, Fate};

/// Far more than anything here takes, on any machine.
const PATIENCE: Duration = Duration::from_secs(60);

const fn ms(number: u64) -> Duration {
    Duration::from_millis(number)
}

fn always(server: usize, fate: Fate) -> Act {
    Act { server, from: Duration::ZERO, until: Duration::MAX, fate }
}

/// Servers whose turn has begun.
fn playing(servers: usize, workers: usize, script: Vec<Act>) -> Fleet {
    let fleet = Fleet::start(&scenario(servers, workers, script), 1).expect("it starts");
    fleet.begin(Instant::now());
    fleet
}

struct Client(TcpStream);

#[derive(Debug)]
struct Reply {
    status: u16,
    server: String,
    body: usize,
}

impl Client {
    fn of(fleet: &Fleet, server: usize) -> Self {
        Self::try_of(fleet, server).expect("connect")
    }

    fn try_of(fleet: &Fleet, server: usize) -> io::Result<Self> {
        let stream = TcpStream::connect(fleet.addresses()[server])?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self(stream))
    }

    fn send(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).expect("send");
    }

    fn ask(&mut self, work: Duration) {
        self.send(&format!("GET / HTTP/1.1\r\nhost: bench\r\nx-bench-work: {}\r\n\r\n", work.as_micros()));
    }

    fn get(&mut self, work: Duration) -> Reply {
        self.ask(work);
        self.read().expect("an answer")
    }

    /// The next answer; an error when the connection ends before it does.
    fn read(&mut self) -> io::Result<Reply> {
        let head = self.read_head()?;
        let header = |name: &str| {
            let line = head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            line.unwrap_or_default().to_owned()
        };
        let status = head.split(' ').nth(1).expect("a status").parse().expect("a number");
        let mut body = vec![0; header("content-length").parse().expect("a length")];
        self.0.read_exact(&mut body)?;
        Ok(Reply { status, server: header("x-bench-server"), body: body.len() })
    }

    fn read_head(&mut self) -> io::Result<String> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            self.0.read_exact(&mut byte)?;
            head.push(byte[0]);
        }
        Ok(String::from_utf8(head).expect("text"))
    }

    /// What ends the connection, after so many bytes.
    fn end(mut self) -> (usize, Option<io::ErrorKind>) {
        let mut bytes = Vec::new();
        let end = self.0.read_to_end(&mut bytes);
        (bytes.len(), end.err().map(|error| error.kind()))
    }

    /// Whether nothing comes for a while: the one thing that cannot be waited for.
    fn is_left_alone(&mut self) -> bool {
        self.0.set_read_timeout(Some(ms(200))).expect("a timeout");
        let silence = self.0.read(&mut [0]);
        self.0.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        silence
            .is_err_and(|error| matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut))
    }
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < PATIENCE, "not in time: {what}");
        std::thread::sleep(ms(5));
    }
}

#[test]
fn each_server_says_who_it_is_on_a_kept_connection() {
    let fleet = playing(3, 1, Vec::new());
    for server in 0..3 {
        let mut client = Client::of(&fleet, server);
        for work in [ms(0), ms(1), ms(0)] {
            let reply = client.get(work);
            assert_eq!((reply.status, reply.server, reply.body), (200, server.to_string(), 100));
        }
    }
}

#[test]
fn any_method_is_answered_and_nonsense_is_refused() {
    let fleet = playing(1, 1, Vec::new());
    let mut client = Client::of(&fleet, 0);
    for method in ["GET", "PUT", "DELETE", "OPTIONS"] {
        client.send(&format!("{method} /any/path HTTP/1.1\r\nhost: h\r\n\r\n"));
        assert_eq!(client.read().expect("an answer").status, 200, "{method}");
    }
    client.send("GET / HTTP/1.1\r\nhost: h\r\nx-bench-work: much\r\n\r\n");
    assert_eq!(client.read().expect("an answer").status, 400);
    client.send("GET / HTTP/1.0\r\n\r\n");
    assert_eq!(client.read().expect("an answer").status, 200);
    assert_eq!(client.end(), (0, None), "HTTP/1.0 is not kept");
}

#[test]
fn answers_do_not_come_before_the_work_is_done() {
    let fleet = playing(1, 1, vec![always(0, Fate::Speed(0.5))]);
    let mut client = Client::of(&fleet, 0);
    let asked = Instant::now();
    client.get(ms(20));
    assert!(asked.elapsed() >= ms(40), "at half the speed");
}

/// One worker: whoever asked first is answered first, though the second asks for less.
#[test]
fn requests_wait_for_a_worker_in_the_order_of_their_arrival() {
    let fleet = playing(1, 1, Vec::new());
    let (mut long, mut short) = (Client::of(&fleet, 0), Client::of(&fleet, 0));
    for client in [&mut long, &mut short] {
        client.get(ms(0));
    }
    let asked = Instant::now();
    long.ask(ms(300));
    // The fleet has read it once it has answered another that came later.
    Client::of(&fleet, 0).get(ms(0));
    short.ask(ms(1));
    short.read().expect("an answer");
    assert!(asked.elapsed() >= ms(301), "it did not wait");
    long.read().expect("an answer");
}

#[test]
fn two_workers_work_at_a_time() {
    let fleet = playing(1, 2, Vec::new());
    let (mut long, mut short) = (Client::of(&fleet, 0), Client::of(&fleet, 0));
    long.ask(PATIENCE);
    Client::of(&fleet, 0).get(ms(0));
    assert_eq!(short.get(ms(1)).status, 200);
    assert!(long.is_left_alone());
}

#[test]
fn the_work_of_a_body_begins_with_its_last_byte() {
    let fleet = playing(1, 1, Vec::new());
    let mut slow = Client::of(&fleet, 0);
    slow.send("POST / HTTP/1.1\r\nhost: h\r\nx-bench-work: 1000\r\ncontent-length: 6\r\n\r\nabc");
    // The one worker is free meanwhile.
    assert_eq!(Client::of(&fleet, 0).get(ms(1)).status, 200);
    assert!(slow.is_left_alone());
    slow.send("def");
    assert_eq!(slow.read().expect("an answer").status, 200);
    let body = "x".repeat(100_000);
    slow.send(&format!("POST / HTTP/1.1\r\nhost: h\r\ncontent-length: {}\r\n\r\n{body}", body.len()));
    assert_eq!(slow.read().expect("an answer").status, 200);
}

#[test]
fn a_large_answer_is_whole() {
    let mut scenario = scenario(1, 1, Vec::new());
    scenario.request.answer = 1 << 20;
    let fleet = Fleet::start(&scenario, 1).expect("it starts");
    let mut client = Client::of(&fleet, 0);
    assert_eq!([(); 3].map(|()| client.get(ms(0)).body), [1 << 20; 3]);
}

#[test]
fn before_the_turn_begins_every_server_is_well() {
    let script = vec![
        always(0, Fate::Down),
        always(1, Fate::Hang),
        always(2, Fate::Refuse),
        always(3, Fate::Speed(0.0)),
    ];
    let fleet = Fleet::start(&scenario(4, 1, script), 1).expect("it starts");
    fleet.begin(Instant::now() + Duration::from_secs(3_600));
    for server in 0..4 {
        assert_eq!(Client::of(&fleet, server).get(ms(1)).status, 200);
    }
}

#[test]
fn a_share_of_requests_fails_without_work() {
    let fail = |server, share| always(server, Fate::Fail { status: 503, share, latency: ms(1) });
    let fleet = playing(2, 1, vec![fail(0, 1.0), fail(1, 0.3)]);
    // A worker would need a minute.
    let reply = Client::of(&fleet, 0).get(PATIENCE);
    assert_eq!((reply.status, reply.server.as_str(), reply.body), (503, "0", 0));
    let mut client = Client::of(&fleet, 1);
    let failed = (0..400).filter(|_| client.get(ms(0)).status == 503).count();
    assert!((60..180).contains(&failed), "{failed} of 400");
}

#[test]
fn the_same_requests_fail_at_each_run() {
    let run = |seed| {
        let fail = always(0, Fate::Fail { status: 500, share: 0.5, latency: ms(0) });
        let fleet = Fleet::start(&scenario(1, 1, vec![fail]), seed).expect("it starts");
        fleet.begin(Instant::now());
        let mut client = Client::of(&fleet, 0);
        (0..64).map(|_| client.get(ms(0)).status).collect::<Vec<u16>>()
    };
    assert_eq!(run(5), run(5));
    assert_ne!(run(5), run(6));
}

#[test]
fn a_server_that_hangs_takes_requests_and_never_answers() {
    let fleet = playing(1, 1, vec![always(0, Fate::Hang)]);
    let mut client = Client::of(&fleet, 0);
    client.ask(ms(0));
    assert!(client.is_left_alone());
}

#[test]
fn a_reset_is_a_reset_in_the_middle_of_the_answer() {
    let fleet = playing(1, 1, vec![always(0, Fate::Reset { share: 1.0 })]);
    for work in [ms(0), ms(2)] {
        let mut client = Client::of(&fleet, 0);
        client.ask(work);
        let head = client.read_head().expect("a head");
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.contains("content-length: 100"), "{head}");
        assert_eq!(client.end(), (50, Some(io::ErrorKind::ConnectionReset)));
    }
}

#[test]
fn an_answer_without_a_body_is_reset_before_it_begins() {
    let mut scenario = scenario(1, 1, vec![always(0, Fate::Reset { share: 1.0 })]);
    scenario.request.answer = 0;
    let fleet = Fleet::start(&scenario, 1).expect("it starts");
    fleet.begin(Instant::now());
    let mut client = Client::of(&fleet, 0);
    client.ask(ms(0));
    assert_eq!(client.end(), (0, Some(io::ErrorKind::ConnectionReset)));
}

#[test]
fn a_server_that_refuses_keeps_what_is_open_and_comes_back() {
    let refuse = |from, until| Act { server: 0, from, until, fate: Fate::Refuse };
    let fleet = Fleet::start(&scenario(1, 1, vec![refuse(ms(0), ms(5_000))]), 1).expect("it starts");
    let mut open = Client::of(&fleet, 0);
    assert_eq!(open.get(ms(0)).status, 200);
    fleet.begin(Instant::now());
    wait_until("it refuses", || {
        Client::try_of(&fleet, 0).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
    });
    assert_eq!(open.get(ms(1)).status, 200, "on the open connection");
    wait_until("it comes back at the same port", || Client::try_of(&fleet, 0).is_ok());
    assert_eq!(Client::of(&fleet, 0).get(ms(1)).status, 200);
    assert_eq!(open.get(ms(1)).status, 200, "still open");
}

#[test]
fn a_killed_server_loses_all_work_and_starts_again() {
    let down = Act { server: 0, from: ms(3_000), until: ms(4_000), fate: Fate::Down };
    let fleet = Fleet::start(&scenario(2, 1, vec![down]), 1).expect("it starts");
    let (mut idle, mut busy, mut other) =
        (Client::of(&fleet, 0), Client::of(&fleet, 0), Client::of(&fleet, 1));
    fleet.begin(Instant::now());
    busy.ask(PATIENCE);
    assert_eq!(busy.end(), (0, Some(io::ErrorKind::ConnectionReset)), "a request under way");
    assert!(idle.0.read(&mut [0]).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionReset));
    wait_until("it comes back at the same port", || Client::try_of(&fleet, 0).is_ok());
    // Its one worker would be busy for a minute if the work were not lost.
    assert_eq!(Client::of(&fleet, 0).get(ms(1)).status, 200);
    assert_eq!(other.get(ms(1)).status, 200, "nobody else is concerned");
}

#[test]
fn a_server_that_is_away_serves_as_usual() {
    let fleet = playing(1, 1, vec![always(0, Fate::Away)]);
    assert_eq!(Client::of(&fleet, 0).get(ms(1)).status, 200);
}

/// The client went away; what it asked for is worked on as if it had not.
#[test]
fn work_goes_on_when_the_client_gives_up() {
    let fleet = playing(1, 1, Vec::new());
    let mut impatient = Client::of(&fleet, 0);
    impatient.get(ms(0));
    let asked = Instant::now();
    impatient.ask(ms(300));
    Client::of(&fleet, 0).get(ms(0));
    drop(impatient);
    Client::of(&fleet, 0).get(ms(1));
    assert!(asked.elapsed() >= ms(301));
}

#[test]
fn a_fleet_of_hundreds_ends_when_it_is_dropped() {
    let fleet = playing(300, 1, Vec::new());
    assert_eq!(Client::of(&fleet, 299).get(ms(0)).server, "299");
    let address = fleet.addresses()[299];
    drop(fleet);
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn doubt_is_told() {
    let fleet = playing(1, 4, Vec::new());
    let mut client = Client::of(&fleet, 0);
    (0..20).for_each(|_| drop(client.get(ms(1))));
    let doubt = fleet.doubt();
    assert!(doubt.busy > 0.0 && doubt.busy <= 1.0, "{doubt:?}");
    assert!(doubt.answered_late > Duration::ZERO && doubt.answered_late < PATIENCE, "{doubt:?}");
}
