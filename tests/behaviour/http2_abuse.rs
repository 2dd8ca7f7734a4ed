//! HTTP/2 against clients that mean harm: the connection is bounded or ends, others are served, memory stays
//! where it was, and nothing goes on afterwards. Which limit does it stands in `src/proxy/http2.rs`.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use crate::rig::frames::{Frames, fields, flag, frame, head, integer, kind, settings_payload};
use crate::rig::h2::H2Client;
use crate::rig::{Evener, Origin, Reply, wait_until};

/// Of a GOAWAY.
const NO_ERROR: u32 = 0;
const PROTOCOL_ERROR: u32 = 1;
const ENHANCE_YOUR_CALM: u32 = 11;

/// A hundred answers that nobody reads are about 60 MiB (`max_streams` in config/evener.toml); the rest is the
/// allocator's.
const MEMORY_MAX: usize = 128 << 20;

/// An upstream that answers, and an Evener whose behaviour under attack is to be seen.
struct Target {
    origin: Origin,
    evener: Evener,
    resident: usize,
}

impl Target {
    fn new(listener: &str) -> Self {
        let origin = Origin::serving(|request| match request.target.as_str() {
            "/hang" => Reply::hang(),
            "/large" => Reply::ok(&"x".repeat(1 << 20)),
            _ => Reply::ok("ok"),
        });
        let evener = Evener::start(&format!(
            "[listeners.http]\nhttp2_cleartext = true\n{listener}\n[routes.all]\npool = \"app\"\ntimeout = \"5s\"\n[pools.app]\nupstreams = [\"{}\"]",
            origin.address()
        ));
        // What a first request allocates is not the attack's.
        H2Client::connect(evener.address()).get("/").expect_status(200);
        let resident = resident_bytes(&evener);
        Self { origin, evener, resident }
    }

    fn connect(&self) -> Frames {
        Frames::connect(self.evener.address())
    }

    /// Others are served, and memory is where it was, give or take what an allocator keeps.
    #[track_caller]
    fn is_unharmed(&self) {
        H2Client::connect(self.evener.address()).get("/").expect_status(200);
        self.evener.get("/").expect_status(200);
        let grown = resident_bytes(&self.evener).saturating_sub(self.resident);
        assert!(grown < MEMORY_MAX, "{grown} bytes more");
    }

    /// As [`Self::is_unharmed`], and nothing of the attack goes on.
    #[track_caller]
    fn comes_to_rest(&self) {
        self.is_unharmed();
        self.evener.admin().wait_for_rest();
        let admin = self.evener.admin();
        admin.expect_metric("evener_connections", &["listener=\"http\""], 0.0);
        // Half a processor over a second would be a loop that nobody ended.
        wait_until(Duration::from_secs(20), || {
            let before = processor_ticks(&self.evener);
            thread::sleep(Duration::from_secs(1));
            processor_ticks(&self.evener) - before < 50
        });
        assert!(self.evener.log().len() < 64 * 1024, "the log was flooded: {}", self.evener.log());
    }
}

fn resident_bytes(evener: &Evener) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", evener.process_id())).expect("Linux");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a size");
    line.split_whitespace().nth(1).and_then(|kilobytes| kilobytes.parse::<usize>().ok()).expect("kB") * 1024
}

/// Hundredths of a second of processor time so far.
fn processor_ticks(evener: &Evener) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", evener.process_id())).expect("Linux");
    let behind_name = stat.rsplit_once(')').expect("a name").1;
    behind_name.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum()
}

/// Sends the same bytes until the server has had enough, or `rounds` times; whether it had. What comes back is
/// read all the while, so that the attack is not held up by answers.
fn flood(frames: &mut Frames, rounds: usize, mut bytes: impl FnMut(u32) -> Vec<u8>) -> Option<u32> {
    let mut reader = frames.try_clone().expect("a second handle").with_patience(Duration::from_secs(20));
    let end = thread::spawn(move || {
        let mut code = None;
        while let Ok(Some(frame)) = reader.try_read() {
            if frame.kind == kind::GOAWAY {
                code = Some(frame.error_code());
            }
        }
        code
    });
    let started = Instant::now();
    for round in 0..rounds {
        if !frames.send_if_open(bytes(u32::try_from(round).expect("few")))
            || started.elapsed() > Duration::from_secs(15)
        {
            break;
        }
    }
    end.join().expect("no panic")
}

/// The server may close with bytes unread, which takes the GOAWAY with it.
#[track_caller]
fn assert_calm(code: Option<u32>) {
    assert!(matches!(code, None | Some(ENHANCE_YOUR_CALM)), "GOAWAY {code:?}");
}

/// Whether the server has hung up: nothing comes any more, and nothing that is sent is taken.
fn is_closed(frames: &mut Frames) -> bool {
    let is_silent = |error: &io::Error| error.kind() == io::ErrorKind::WouldBlock;
    let has_ended = loop {
        match frames.try_read() {
            Ok(Some(_)) => {}
            Ok(None) => break true,
            Err(error) => break !is_silent(&error),
        }
    };
    // A socket that nobody has answers the first of them with a reset.
    let ping = frame(kind::PING, flag::NONE, 0, &[0; 8]);
    if has_ended {
        wait_until(Duration::from_secs(20), || !frames.send_if_open(&ping));
    }
    has_ended
}

/// CVE-2023-44487.
#[test]
fn rapid_resets_end_the_connection() {
    let target = Target::new("");
    let mut frames = target.connect();
    let code = flood(&mut frames, 100_000, |round| {
        let stream = 2 * round + 1;
        let reset = frame(kind::RST_STREAM, flag::NONE, stream, &[0, 0, 0, 8]);
        [frame(kind::HEADERS, flag::WHOLE, stream, &head("GET", "/hang", &[])), reset].concat()
    });
    assert_calm(code);
    assert!(is_closed(&mut frames));
    drop(frames);
    target.comes_to_rest();
}

/// The same, slow enough that each request is on its way to an upstream before it is reset.
#[test]
fn resets_of_requests_under_way_end_the_connection_too() {
    let target = Target::new("");
    let mut frames = target.connect();
    let mut rounds = 0;
    let code = flood(&mut frames, 20_000, |round| {
        rounds = round;
        if round % 10 == 0 {
            thread::sleep(Duration::from_micros(500));
        }
        let stream = 2 * round + 1;
        let opening = frame(kind::HEADERS, flag::WHOLE, stream, &head("GET", "/hang", &[]));
        let victim = stream.saturating_sub(8);
        let reset = frame(kind::RST_STREAM, flag::NONE, victim, &[0, 0, 0, 8]);
        if round < 4 { opening } else { [opening, reset].concat() }
    });
    assert_calm(code);
    assert!(rounds < 19_000, "{rounds} resets, and still welcome");
    drop(frames);
    target.comes_to_rest();
}

/// CVE-2025-8671: the server is made to reset.
#[test]
fn made_resets_end_the_connection() {
    let target = Target::new("");
    let mut frames = target.connect();
    let code = flood(&mut frames, 10_000, |round| {
        let stream = 2 * round + 1;
        let opening = frame(kind::HEADERS, flag::WHOLE, stream, &head("GET", "/hang", &[]));
        // A window that no window may be: an error of this stream.
        [opening, frame(kind::WINDOW_UPDATE, flag::NONE, stream, &[0x7f, 0xff, 0xff, 0xff])].concat()
    });
    assert_calm(code);
    assert!(is_closed(&mut frames));
    drop(frames);
    target.comes_to_rest();
}

#[test]
fn a_head_without_end_ends_the_connection() {
    let target = Target::new("");
    let mut frames = target.connect();
    frames.send_frame(kind::HEADERS, flag::END_STREAM, 1, &head("GET", "/", &[]));
    let more = frame(kind::CONTINUATION, flag::NONE, 1, &fields(&[("x-more", &"x".repeat(8000))]));
    assert_calm(flood(&mut frames, 100_000, |_| more.clone()));
    assert!(is_closed(&mut frames));
    // Of empty ones, too.
    let mut frames = target.connect();
    frames.send_frame(kind::HEADERS, flag::END_STREAM, 1, &head("GET", "/", &[]));
    let more = frame(kind::CONTINUATION, flag::NONE, 1, b"");
    assert_calm(flood(&mut frames, 100_000, |_| more.clone()));
    assert!(is_closed(&mut frames));
    drop(frames);
    target.comes_to_rest();
}

#[test]
fn floods_of_frames_that_ask_for_nothing_end_the_connection() {
    let target = Target::new("");
    let floods: [(&str, Vec<u8>); 6] = [
        ("PING", frame(kind::PING, flag::NONE, 0, &[7; 8])),
        ("SETTINGS", frame(kind::SETTINGS, flag::NONE, 0, &settings_payload(&[(3, 100)]))),
        ("PING answers", frame(kind::PING, flag::ACK, 0, &[7; 8])),
        ("WINDOW_UPDATE", frame(kind::WINDOW_UPDATE, flag::NONE, 0, &[0, 0, 0, 1])),
        ("PRIORITY", frame(kind::PRIORITY, flag::NONE, 1, &[0, 0, 0, 0, 1])),
        ("unknown", frame(0x77, flag::NONE, 0, b"?")),
    ];
    for (name, one) in floods {
        let mut frames = target.connect();
        let code = flood(&mut frames, 5_000, |_| one.repeat(20));
        assert!(matches!(code, None | Some(ENHANCE_YOUR_CALM)), "{name}: GOAWAY {code:?}");
        assert!(is_closed(&mut frames), "{name}");
        target.is_unharmed();
    }
    target.comes_to_rest();
}

#[test]
fn empty_data_without_end_ends_the_connection() {
    let target = Target::new("");
    let mut frames = target.connect();
    frames.send_frame(kind::HEADERS, flag::END_HEADERS, 1, &head("POST", "/", &[]));
    let empty = frame(kind::DATA, flag::NONE, 1, b"");
    assert_calm(flood(&mut frames, 10_000, |_| empty.clone()));
    assert!(is_closed(&mut frames));
    drop(frames);
    target.comes_to_rest();
}

/// A field of 4 KiB in the table, then a thousand references to it in a frame of 1 KiB, in every stream.
#[test]
fn small_heads_that_unpack_to_large_ones_are_refused() {
    let target = Target::new("");
    let mut frames = target.connect();
    let long = [&[0x40][..], b"\x06x-bomb", &integer(0, 7, 4000), "x".repeat(4000).as_bytes()].concat();
    frames.send_frame(kind::HEADERS, flag::WHOLE, 1, &[head("GET", "/", &[]), long].concat());
    assert!(frames.find(|frame| frame.stream == 1 && frame.ends_stream()).is_some());
    let bomb = [head("GET", "/", &[]), integer(0x80, 7, 62).repeat(1000)].concat();
    let seen = target.origin.requests_seen();
    flood(&mut frames, 2_000, |round| frame(kind::HEADERS, flag::WHOLE, 2 * round + 3, &bomb));
    assert_eq!(target.origin.requests_seen(), seen);
    drop(frames);
    target.comes_to_rest();
}

#[test]
fn readers_that_open_no_window_are_cut_at_the_deadline() {
    let target = Target::new("");
    let mut frames = Frames::connect_with(target.evener.address(), &[(4, 0)]);
    frames.agree();
    (0..100).for_each(|nth| frames.get(2 * nth + 1, "/large"));
    target.origin.wait_for_requests(100);
    target.is_unharmed();
    let mut resets = 0;
    while resets < 100 {
        let frame = frames.find(|frame| frame.kind == kind::RST_STREAM).expect("every stream is reset");
        assert!(frame.stream < 200);
        resets += 1;
    }
    target.evener.admin().wait_for_rest();
    drop(frames);
    target.comes_to_rest();
}

/// As above, though the windows are wide open: it is the socket that is not read.
#[test]
fn readers_that_do_not_read_their_socket_are_bounded_and_end() {
    let target = Target::new("keepalive_timeout = \"2s\"");
    let mut frames = Frames::connect_with(target.evener.address(), &[(4, 0x7fff_ffff)]);
    frames.send_frame(kind::WINDOW_UPDATE, flag::NONE, 0, &[0x7f, 0, 0, 0]);
    (0..100).for_each(|nth| frames.get(2 * nth + 1, "/large"));
    target.origin.wait_for_requests(100);
    target.is_unharmed();
    target.evener.admin().wait_for_rest();
    target.evener.admin().expect_metric("evener_connections", &["listener=\"http\""], 0.0);
    drop(frames);
    target.comes_to_rest();
}

#[test]
fn readers_that_open_one_byte_at_a_time_get_no_more_than_their_deadline() {
    let target = Target::new("");
    let mut frames = Frames::connect_with(target.evener.address(), &[(4, 1)]);
    frames.agree();
    (0..10).for_each(|nth| frames.get(2 * nth + 1, "/large"));
    flood(&mut frames, 3_000, |round| {
        thread::sleep(Duration::from_millis(2));
        frame(kind::WINDOW_UPDATE, flag::NONE, 2 * (round % 10) + 1, &[0, 0, 0, 1])
    });
    target.evener.admin().wait_for_rest();
    drop(frames);
    target.comes_to_rest();
}

#[test]
fn requests_left_half_sent_hold_nothing_past_their_time() {
    let target = Target::new("");
    let mut frames = target.connect();
    for nth in 0..100 {
        frames.send_frame(kind::HEADERS, flag::END_HEADERS, 2 * nth + 1, &head("POST", "/", &[]));
        frames.send_frame(kind::DATA, flag::NONE, 2 * nth + 1, b"some");
    }
    target.is_unharmed();
    target.evener.admin().wait_for_rest();
    frames.get(201, "/");
    assert!(frames.find(|frame| frame.stream == 201 && frame.ends_stream()).is_some());
    drop(frames);
    target.comes_to_rest();
}

#[test]
fn a_connection_of_malformed_requests_ends() {
    let target = Target::new("");
    let malformed: [(&str, Vec<u8>); 4] = [
        ("capitals", head("GET", "/", &[("X-Capitals", "1")])),
        ("connection", head("GET", "/", &[("connection", "close")])),
        ("two hosts", head("GET", "/", &[("host", "other.example")])),
        ("no authority", fields(&[(":method", "GET"), (":scheme", "http"), (":path", "/")])),
    ];
    let seen = target.origin.requests_seen();
    for (name, block) in malformed {
        let mut frames = target.connect();
        let code =
            flood(&mut frames, 5_000, |round| frame(kind::HEADERS, flag::WHOLE, 2 * round + 1, &block));
        // What h2 lets through is Evener's to count, and it says goodbye politely: others may share the connection.
        let is_ours = name == "no authority" && code == Some(NO_ERROR);
        let is_expected = matches!(code, None | Some(PROTOCOL_ERROR | ENHANCE_YOUR_CALM));
        assert!(is_expected || is_ours, "{name}: GOAWAY {code:?}");
        assert!(is_closed(&mut frames), "{name}");
    }
    assert_eq!(target.origin.requests_seen(), seen);
    target.comes_to_rest();
}
