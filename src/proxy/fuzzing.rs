//! The door for `tests/fuzz`: what this room keeps to itself, as plain functions.

use std::net::IpAddr;

use http::header::HeaderValue;
use http::{HeaderMap, Uri};
pub use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::Stream;
use tokio::io::{AsyncRead, AsyncWrite};

use super::chunked::ChunkScanner;
use super::frames::Counted;
use super::head::{Fault, Framing, HeadReader, Reading};
use super::headers;
use crate::config::HeaderEdits;
use crate::route::PathPrefix;

/// What a head tells; see `head.rs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Bytes of empty lines before it.
    pub skip: usize,
    /// Bytes of it.
    pub length: usize,
    /// Where the body ends.
    pub body: Body,
    /// Whether no field is for this connection alone.
    pub is_end_to_end: bool,
    /// Whether no field may claim who asked.
    pub claims_nothing: bool,
}

/// Where a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// There is none.
    None,
    /// After so many bytes.
    Sized(u64),
    /// After the last chunk.
    Chunked,
    /// A WebSocket handshake.
    Upgrade,
}

/// What came of reading a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// More bytes are needed.
    Partial,
    /// It passes.
    Complete(Head),
    /// Malformed or ambiguous.
    Malformed(&'static str),
    /// Too many bytes or fields.
    TooLarge,
}

/// Reads a head that arrives in pieces, each of which ends at one of `ends`.
pub fn read_head(bytes: &[u8], ends: &[usize], size_max: usize) -> Verdict {
    let mut reader = HeadReader::default();
    let pieces = ends.iter().filter_map(|&end| bytes.get(..end));
    pieces
        .map(|piece| match reader.read(piece, size_max) {
            Reading::Partial => Verdict::Partial,
            Reading::Refused(Fault::Malformed(why)) => Verdict::Malformed(why),
            Reading::Refused(Fault::TooLarge) => Verdict::TooLarge,
            Reading::Complete(head) => Verdict::Complete(Head {
                skip: head.skip,
                length: head.length,
                body: match head.framing {
                    Framing::None => Body::None,
                    Framing::Sized(length) => Body::Sized(length),
                    Framing::Chunked => Body::Chunked,
                    Framing::Upgrade => Body::Upgrade,
                },
                is_end_to_end: head.is_end_to_end,
                claims_nothing: head.claims_nothing,
            }),
        })
        .find(|verdict| *verdict != Verdict::Partial)
        .unwrap_or(Verdict::Partial)
}

/// How many leading bytes are a chunked body, and whether it is complete; `None`: it is refused. The bytes
/// arrive in pieces, each of which ends at one of `ends`.
pub fn scan_chunks(bytes: &[u8], ends: &[usize]) -> Option<(usize, bool)> {
    let mut scanner = ChunkScanner::new();
    let mut taken = 0;
    for &end in ends {
        let piece = bytes.get(taken..end).unwrap_or_default();
        let step = scanner.advance(piece).ok()?;
        taken += step;
        if step < piece.len() {
            break;
        }
    }
    Some((taken, scanner.is_done()))
}

/// A client's socket on which the frames of HTTP/2 are counted; how many bytes have come, and whether the
/// client's goodwill is used up.
pub fn count_frames(socket: Stream) -> (impl AsyncRead + AsyncWrite + Unpin, impl Fn() -> (u64, bool)) {
    let (counted, pulse) = Counted::new(socket);
    (counted, move || (pulse.received(), pulse.is_flooded()))
}

/// Sets what the upstream should know of the client. `claims_nothing` as [`read_head`] says it.
pub fn forward(
    peer: &HeaderValue,
    is_trusted: bool,
    claims_nothing: bool,
    request_id: &HeaderValue,
    request: &mut RequestHeader,
) -> bool {
    headers::forward(&headers::Origin { peer, is_trusted, claims_nothing, tls: None, request_id }, request)
        .is_ok()
}

/// The client behind trusted proxies.
pub fn client_behind(peer: IpAddr, headers: &HeaderMap, is_trusted: impl Fn(IpAddr) -> bool) -> IpAddr {
    headers::client_behind(peer, headers, is_trusted)
}

/// The request id that is believed.
pub fn request_id_from(headers: &HeaderMap) -> Option<HeaderValue> {
    headers::request_id_from(headers)
}

/// Takes out of a response what was for our connection.
pub fn strip_hop_by_hop(response: &mut ResponseHeader) {
    headers::strip_hop_by_hop(response);
}

/// Applies a route's `request_headers`.
pub fn edit_request(edits: &HeaderEdits, request: &mut RequestHeader) -> bool {
    headers::edit_request(edits, request).is_ok()
}

/// Applies a route's `response_headers`.
pub fn edit_response(edits: &HeaderEdits, response: &mut ResponseHeader) -> bool {
    headers::edit_response(edits, response).is_ok()
}

/// The target without the route's prefix.
pub fn without_prefix(uri: &Uri, prefix: &PathPrefix) -> Option<Vec<u8>> {
    headers::without_prefix(uri, prefix)
}

/// The target in the form that upstreams know.
pub fn origin_form(raw: &[u8], uri: &Uri) -> Option<Vec<u8>> {
    headers::origin_form(raw, uri)
}

/// The value of a cookie.
pub fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a [u8]> {
    headers::cookie(headers, name)
}

/// A host without its port, in lower case.
pub fn bare_host(host: &str) -> String {
    headers::bare_host(host).into_owned()
}
