//! RFC 9113 and RFC 7541, case by case, in frames made by hand.
//!
//! The list of cases, and their numbers, are those of h2spec 2.6, so that the results can be compared; the
//! cases are written anew, since h2spec itself comes from nowhere that `make test` can install from. As there,
//! a connection error may show as GOAWAY or as the end of the connection, and a stream error as
//! `RST_STREAM` or as an error of the whole connection.

mod generic;
mod hpack;
mod http2;

use std::net::SocketAddr;
use std::time::Duration;

use crate::rig::frames::{Frame, Frames, fields, flag, frame, head, integer, kind, settings_payload};
use crate::rig::{Evener, Origin, Reply};

/// Its number, what the client does, and what to see then.
type Case = (&'static str, &'static str, fn(SocketAddr) -> Seen);

/// `Err`: what was seen instead.
type Seen = Result<(), String>;

/// What is not as the list wants it, and why that is right or harmless.
const EXCEPTIONS: &[(&str, &str)] = &[
    // The h2 crate forgets a stream once it is closed, and tells a late frame from one that crossed our reset
    // by nothing; so it answers with an error of that stream, STREAM_CLOSED, of which a connection has 128.
    ("http2/5.1/11", "DATA on a closed stream ends the stream, not the connection"),
    // The h2 crate drops it, and request trailers go no further than here in any case.
    ("http2/8.1.2.1/3", "a pseudo-header among trailers is passed over, with the trailers"),
];

/// Longer than any answer takes on a busy machine; only a failing case waits for it.
const PATIENCE: Duration = Duration::from_secs(10);

const PROTOCOL_ERROR: u32 = 1;
const FLOW_CONTROL_ERROR: u32 = 3;
const STREAM_CLOSED: u32 = 5;
const FRAME_SIZE_ERROR: u32 = 6;
const REFUSED_STREAM: u32 = 7;
const COMPRESSION_ERROR: u32 = 9;

/// `SETTINGS_HEADER_TABLE_SIZE` and its siblings (RFC 9113 §6.5.2).
mod setting {
    pub(super) const ENABLE_PUSH: u16 = 2;
    pub(super) const MAX_CONCURRENT_STREAMS: u16 = 3;
    pub(super) const INITIAL_WINDOW_SIZE: u16 = 4;
    pub(super) const MAX_FRAME_SIZE: u16 = 5;
}

#[test]
fn every_case_of_h2spec_is_as_it_should_be() {
    let origin = Origin::serving(|_| Reply::ok("a body of some bytes"));
    let evener = Evener::start(&format!(
        "[listeners.http]\nhttp2_cleartext = true\n[pools.app]\nupstreams = [\"{}\"]",
        origin.address()
    ));
    let cases = || generic::CASES.iter().chain(http2::CASES).chain(hpack::CASES);
    let failed: Vec<(&str, String)> = cases()
        .filter_map(|(number, what, play)| {
            let seen = play(evener.address()).err()?;
            Some((*number, format!("{number} {what}: {seen}")))
        })
        .collect();
    let unexpected: Vec<_> = failed.iter().filter(|(number, _)| !is_excepted(number)).collect();
    assert!(unexpected.is_empty(), "of {} cases, these: {unexpected:#?}", cases().count());
    let outdated: Vec<_> =
        EXCEPTIONS.iter().filter(|(number, _)| failed.iter().all(|(other, _)| other != number)).collect();
    assert!(outdated.is_empty(), "exceptions that are none: {outdated:?}");
    // And nobody else was harmed.
    evener.get("/").expect_status(200);
}

fn is_excepted(number: &str) -> bool {
    EXCEPTIONS.iter().any(|(other, _)| *other == number)
}

/// Begun, and the settings agreed.
fn begun(address: SocketAddr) -> Frames {
    Frames::connect(address).with_patience(PATIENCE)
}

fn get() -> Vec<u8> {
    head("GET", "/", &[])
}

fn post() -> Vec<u8> {
    head("POST", "/", &[])
}

/// The head of a POST that announces so many bytes.
fn sized_post(length: &str) -> Vec<u8> {
    head("POST", "/", &[("content-length", length)])
}

fn connection_error(frames: &mut Frames, codes: &[u32]) -> Seen {
    error(frames, codes, |frame| frame.kind == kind::GOAWAY)
}

fn stream_error(frames: &mut Frames, codes: &[u32]) -> Seen {
    error(frames, codes, |frame| matches!(frame.kind, kind::GOAWAY | kind::RST_STREAM))
}

/// An error with one of these codes, or the end of the connection. A frame that is no such error, or has
/// another code, is passed over: an answer to what came before may be on its way.
fn error(frames: &mut Frames, codes: &[u32], is_error: fn(&Frame) -> bool) -> Seen {
    let mut last = None;
    loop {
        match frames.try_read() {
            Ok(Some(frame)) if is_error(&frame) && codes.contains(&frame.error_code()) => return Ok(()),
            Ok(Some(frame)) => last = Some(frame),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                return Err(format!("no error with a code of {codes:?}; last {last:?}"));
            }
            Ok(None) | Err(_) => return Ok(()),
        }
    }
}

/// The end of the connection, whether announced or not.
fn closed(frames: &mut Frames) -> Seen {
    let any: Vec<u32> = (0..14).collect();
    connection_error(frames, &any)
}

/// The connection works as before.
fn pong(frames: &mut Frames) -> Seen {
    frames.send_frame(kind::PING, flag::NONE, 0, b"are you?");
    wanted(frames, |frame| {
        frame.kind == kind::PING && frame.flags & flag::ACK != 0 && frame.payload == b"are you?"
    })
}

/// An answer on this stream.
fn answered(frames: &mut Frames, stream: u32) -> Seen {
    wanted(frames, |frame| frame.kind == kind::HEADERS && frame.stream == stream)
}

fn answered_whole(frames: &mut Frames, stream: u32) -> Seen {
    wanted(frames, |frame| frame.stream == stream && frame.ends_stream())
}

fn wanted(frames: &mut Frames, is_wanted: impl Fn(&Frame) -> bool) -> Seen {
    let mut seen = Vec::new();
    let found = frames.find(|frame| {
        seen.push((frame.kind, frame.stream, frame.flags));
        is_wanted(frame)
    });
    found.map(|_| ()).ok_or_else(|| format!("only (kind, stream, flags) {seen:?}"))
}

/// A request without a body, and its answer's end.
fn finish_one(frames: &mut Frames, stream: u32) -> Seen {
    frames.send_frame(kind::HEADERS, flag::WHOLE, stream, &get());
    answered_whole(frames, stream)
}

/// Sends a request whose header block is this, and expects an answer.
fn answers_block(address: SocketAddr, block: &[u8]) -> Seen {
    let mut frames = begun(address);
    frames.send_frame(kind::HEADERS, flag::WHOLE, 1, block);
    answered(&mut frames, 1)
}

/// Sends a request whose header block is this, and expects an error of the stream.
fn refuses_block(address: SocketAddr, block: &[u8]) -> Seen {
    let mut frames = begun(address);
    frames.send_frame(kind::HEADERS, flag::WHOLE, 1, block);
    stream_error(&mut frames, &[PROTOCOL_ERROR])
}
