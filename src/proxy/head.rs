//! Reads the head of a request in the exact bytes that the client sent, and refuses whatever two
//! parsers could read in two ways.
//!
//! Pingora parses the head again afterwards; it is lenient where servers of the past were (bare LF,
//! both lengths, folded lines). Request smuggling lives in such gaps, so a head passes only when RFC
//! 9112 leaves one reading of it, and the body's framing is decided here, once.

use std::net::Ipv6Addr;

use http::uri::Authority;
use memchr::memchr;
use pingora::http::RequestHeader;

use crate::observe::Reason;

/// Header fields in a head, at most: the size of Pingora's parse table (`MAX_HEADERS`).
const HEADER_FIELDS_MAX: usize = 256;

/// Empty lines before a request that are passed over; RFC 9112 §2.2 asks for at least one.
const LEADING_EMPTY_LINES_MAX: usize = 2;

/// How far the bytes at hand get us.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// The head is not complete yet.
    Partial,
    /// A head that can be read in one way only.
    Complete(Head),
    /// Never to reach an upstream.
    Refused(Fault),
}

/// What the connection has to know of a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// Empty lines before the request line, in bytes.
    pub skip: usize,
    /// Bytes of the head, the empty line included, without `skip`.
    pub length: usize,
    /// Where the body ends.
    pub framing: Framing,
    /// Whether no field is meant for this connection alone, but perhaps a `Connection` that says
    /// `keep-alive` or `close`: then there is nothing to look for when the request is sent on.
    pub is_end_to_end: bool,
    /// Whether no name begins like those of forwarding headers, `X-…` and `Forwarded`: then nobody has to
    /// look for claims about who asked.
    pub claims_nothing: bool,
}

/// Where the body of a request ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// There is no body.
    None,
    /// After this many bytes.
    Sized(u64),
    /// After the last chunk.
    Chunked,
    /// A WebSocket handshake: what follows is not HTTP when the upstream agrees.
    Upgrade,
}

/// Why a head is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Malformed or ambiguous; the phrase is for the log.
    Malformed(&'static str),
    /// More bytes or more fields than allowed.
    TooLarge,
}

/// Whether a whole head of HTTP/1.1 would pass, up to the empty line behind it; or why it is refused, and what exactly
/// is wrong with it.
///
/// # Errors
///
/// With [`Reason::BadRequest`] or [`Reason::HeadTooLarge`].
pub fn check_head(head: &[u8], size_max: usize) -> Result<(), (Reason, &'static str)> {
    match HeadReader::default().read(head, size_max) {
        Reading::Complete(_) => Ok(()),
        Reading::Partial => Err((Reason::BadRequest, "it has no end")),
        Reading::Refused(Fault::Malformed(detail)) => Err((Reason::BadRequest, detail)),
        Reading::Refused(Fault::TooLarge) => Err((Reason::HeadTooLarge, Reason::HeadTooLarge.what())),
    }
}

/// Looks for a complete head at the start of a growing buffer.
///
/// Keeps its place between calls, so that a head that trickles in is scanned once, not once per read.
#[derive(Debug, Default)]
pub(super) struct HeadReader {
    /// Bytes of empty lines before the request line.
    skip: usize,
    empty_lines: usize,
    /// Start of the line being read.
    line_start: usize,
    /// Up to here there is no further line feed.
    scanned: usize,
}

impl HeadReader {
    /// Reads on in `bytes`, which begins with what earlier calls were given.
    ///
    /// `size_max` bounds the head without leading empty lines.
    pub(super) fn read(&mut self, bytes: &[u8], size_max: usize) -> Reading {
        loop {
            let Some(found) = bytes.get(self.scanned..).and_then(|rest| memchr(b'\n', rest)) else {
                self.scanned = bytes.len();
                return self.unless_too_large(bytes.len(), size_max, Reading::Partial);
            };
            let line_feed = self.scanned + found;
            self.scanned = line_feed + 1;
            if line_feed == self.line_start || bytes.get(line_feed - 1) != Some(&b'\r') {
                return Reading::Refused(Fault::Malformed("line feed without carriage return"));
            }
            let is_empty = line_feed - 1 == self.line_start;
            self.line_start = self.scanned;
            if !is_empty {
                continue;
            }
            if line_feed - 1 == self.skip {
                self.skip = self.scanned;
                self.empty_lines += 1;
                if self.empty_lines > LEADING_EMPTY_LINES_MAX {
                    return Reading::Refused(Fault::Malformed("empty lines instead of a request"));
                }
                continue;
            }
            let head = bytes.get(self.skip..self.scanned).unwrap_or_default();
            let reading = match inspect(head) {
                Ok(found) => Reading::Complete(Head { skip: self.skip, ..found }),
                Err(fault) => Reading::Refused(fault),
            };
            return self.unless_too_large(self.scanned, size_max, reading);
        }
    }

    fn unless_too_large(&self, end: usize, size_max: usize, reading: Reading) -> Reading {
        if end - self.skip > size_max { Reading::Refused(Fault::TooLarge) } else { reading }
    }
}

/// What the fields that decide about framing and authority said.
#[derive(Default)]
struct Fields<'a> {
    count: usize,
    host: Option<&'a [u8]>,
    content_length: Option<u64>,
    chunked: bool,
    upgrade_websocket: bool,
    connection_upgrade: bool,
    /// Fields that are for this connection alone.
    hop_by_hop: usize,
    /// Fields that may claim something about who asked.
    claims: usize,
}

/// Checks a complete head, and tells what the connection has to know of it.
fn inspect(head: &[u8]) -> Result<Head, Fault> {
    let mut lines = Lines(head);
    let request_line = lines.next().unwrap_or_default();
    let line = RequestLine::parse(request_line)?;
    let mut fields = Fields::default();
    for field in lines {
        fields.add(field)?;
    }
    line.check_authority(fields.host)?;
    Ok(Head {
        skip: 0,
        length: head.len(),
        framing: fields.framing(&line)?,
        is_end_to_end: fields.hop_by_hop == 0,
        claims_nothing: fields.claims == 0,
    })
}

/// The lines of a head without their CRLF, up to the empty one.
struct Lines<'a>(&'a [u8]);

impl<'a> Iterator for Lines<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let end = memchr(b'\n', self.0)?;
        let (line, rest) = self.0.split_at_checked(end + 1)?;
        self.0 = rest;
        line.strip_suffix(b"\r\n").filter(|line| !line.is_empty())
    }
}

struct RequestLine<'a> {
    method: &'a [u8],
    target: &'a [u8],
    is_http_1_0: bool,
}

impl<'a> RequestLine<'a> {
    fn parse(line: &'a [u8]) -> Result<Self, Fault> {
        let mut parts = line.split(|&byte| byte == b' ');
        let (Some(method), Some(target), Some(version), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Fault::Malformed("request line is not `METHOD TARGET HTTP/1.1`"));
        };
        if method.is_empty() || !method.iter().all(|&byte| is_token(byte)) {
            return Err(Fault::Malformed("method is not a token"));
        }
        if method == b"CONNECT" {
            return Err(Fault::Malformed("CONNECT is not served"));
        }
        if target.is_empty() || target.iter().any(|&byte| byte <= b' ' || byte == 0x7f) {
            return Err(Fault::Malformed("control byte in the request target"));
        }
        if memchr(b'#', target).is_some() {
            // It is the client's own business; some cut it off, others take it for a part of the path.
            return Err(Fault::Malformed("fragment in the request target"));
        }
        if !target.iter().all(|&byte| is_everyday(byte)) && !is_readable(target) {
            return Err(Fault::Malformed("request target is not a URL"));
        }
        let is_http_1_0 = match version {
            b"HTTP/1.1" => false,
            b"HTTP/1.0" => true,
            _ => return Err(Fault::Malformed("version is neither HTTP/1.1 nor HTTP/1.0")),
        };
        Ok(Self { method, target, is_http_1_0 })
    }

    /// The target names at most one authority, and it is the one of `Host`.
    fn check_authority(&self, host: Option<&[u8]>) -> Result<(), Fault> {
        if host.is_none() && !self.is_http_1_0 {
            return Err(Fault::Malformed("HTTP/1.1 request without Host"));
        }
        if host.is_some_and(|host| !host.is_empty() && !is_host_and_port(host)) {
            return Err(Fault::Malformed("Host is not a host and port"));
        }
        if self.target.starts_with(b"/") || (self.target == b"*" && self.method == b"OPTIONS") {
            return Ok(());
        }
        let authority = absolute_form_authority(self.target)
            .ok_or(Fault::Malformed("request target is neither a path nor an http URL"))?;
        match host {
            // To the letter, because Pingora compares so, and would refuse unlogged and uncounted.
            Some(host) if host != authority => Err(Fault::Malformed("request target contradicts Host")),
            _ => Ok(()),
        }
    }
}

/// Whether this is one host, perhaps with one port: what two readers could cut in two places is none.
pub(super) fn is_host_and_port(authority: &[u8]) -> bool {
    if !authority.iter().all(|&byte| is_authority(byte)) {
        return false;
    }
    let end = match authority.first() {
        Some(b'[') => memchr(b']', authority).map(|end| end + 1),
        _ => Some(memchr(b':', authority).unwrap_or(authority.len())),
    };
    let Some((host, rest)) = end.and_then(|end| authority.split_at_checked(end)) else { return false };
    let address = host.strip_prefix(b"[").and_then(|host| host.strip_suffix(b"]"));
    let is_host = match address.map(std::str::from_utf8) {
        Some(address) => address.is_ok_and(|address| address.parse::<Ipv6Addr>().is_ok()),
        None => !host.is_empty() && !host.iter().any(|byte| b"[]".contains(byte)),
    };
    is_host && rest.strip_prefix(b":").map_or(rest.is_empty(), is_port)
}

/// Digits of a port, or none, as RFC 3986 lets it.
fn is_port(digits: &[u8]) -> bool {
    let port = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse::<u16>().ok());
    digits.is_empty() || (digits.iter().all(u8::is_ascii_digit) && port.is_some())
}

/// The authority of `http://authority/…`; `None` unless it is a plain host and port.
fn absolute_form_authority(target: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = target.split_at_checked(b"http://".len())?;
    if !scheme.eq_ignore_ascii_case(b"http://") {
        return None;
    }
    let end = rest.iter().position(|byte| b"/?".contains(byte)).unwrap_or(rest.len());
    let authority = rest.get(..end)?;
    (is_host_and_port(authority) && Authority::try_from(authority).is_ok()).then_some(authority)
}

impl<'a> Fields<'a> {
    fn add(&mut self, line: &'a [u8]) -> Result<(), Fault> {
        self.count += 1;
        if self.count > HEADER_FIELDS_MAX {
            return Err(Fault::TooLarge);
        }
        if line.first().is_some_and(|&byte| byte == b' ' || byte == b'\t') {
            return Err(Fault::Malformed("folded header line"));
        }
        let colon = memchr(b':', line).ok_or(Fault::Malformed("header line without a colon"))?;
        let (name, value) = line.split_at_checked(colon).unwrap_or_default();
        if name.is_empty() || !name.iter().all(|&byte| is_token(byte)) {
            return Err(Fault::Malformed("header name is not a token"));
        }
        let value = value.get(1..).unwrap_or_default();
        // To the end, whatever it finds: so it is done many bytes at a time.
        if value.iter().fold(false, |found, &byte| found | is_control(byte)) {
            return Err(Fault::Malformed("control byte in a header value"));
        }
        // Only blanks and tabs are left to trim.
        let value = value.trim_ascii();
        self.hop_by_hop += usize::from(is_hop_by_hop(name, value));
        self.claims += usize::from(matches!(name.first(), Some(b'x' | b'X' | b'f' | b'F')));
        self.note(name, value)
    }

    /// Remembers the few fields that matter here. Most names differ from all of them in length.
    fn note(&mut self, name: &[u8], value: &'a [u8]) -> Result<(), Fault> {
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") && self.host.replace(value).is_some() => {
                return Err(Fault::Malformed("more than one Host"));
            }
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                let length = parse_length(value).ok_or(Fault::Malformed("bad Content-Length"))?;
                if self.content_length.replace(length).is_some() {
                    return Err(Fault::Malformed("more than one Content-Length"));
                }
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(Fault::Malformed("Transfer-Encoding is not `chunked`, once"));
                }
                self.chunked = true;
            }
            7 if name.eq_ignore_ascii_case(b"upgrade") => {
                self.upgrade_websocket = value.eq_ignore_ascii_case(b"websocket");
            }
            10 if name.eq_ignore_ascii_case(b"connection") => {
                self.connection_upgrade |= value
                    .split(|&byte| byte == b',')
                    .any(|token| token.trim_ascii().eq_ignore_ascii_case(b"upgrade"));
            }
            _ => {}
        }
        Ok(())
    }

    fn framing(&self, line: &RequestLine<'_>) -> Result<Framing, Fault> {
        if self.chunked && self.content_length.is_some() {
            return Err(Fault::Malformed("both Content-Length and Transfer-Encoding"));
        }
        if self.chunked && line.is_http_1_0 {
            return Err(Fault::Malformed("Transfer-Encoding in HTTP/1.0"));
        }
        Ok(match self.content_length {
            _ if self.chunked => Framing::Chunked,
            Some(length) if length > 0 => Framing::Sized(length),
            _ if self.is_websocket_handshake(line) => Framing::Upgrade,
            _ => Framing::None,
        })
    }

    /// RFC 6455 §4.1: only a GET of HTTP/1.1 can be one.
    fn is_websocket_handshake(&self, line: &RequestLine<'_>) -> bool {
        self.upgrade_websocket && self.connection_upgrade && !line.is_http_1_0 && line.method == b"GET"
    }
}

/// Digits only: no sign, no list, no blank inside, no overflow.
fn parse_length(value: &[u8]) -> Option<u64> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(value).ok()?.parse().ok()
}

/// What Pingora strips from a request that it sends on (`HttpUpstreamRequestPolicy::standard`, 0.9.1).
/// Most names differ from all of these in length.
fn is_hop_by_hop(name: &[u8], value: &[u8]) -> bool {
    let is = |other: &str| name.eq_ignore_ascii_case(other.as_bytes());
    match name.len() {
        2 => is("te"),
        7 => is("upgrade") || is("trailer"),
        10 => is("keep-alive") || (is("connection") && !is_plain(value)),
        14 => is("http2-settings"),
        16 => is("proxy-connection"),
        17 => is("transfer-encoding"),
        18 => is("proxy-authenticate"),
        19 => is("proxy-authorization"),
        _ => false,
    }
}

/// The two values of `Connection` that name no other field.
fn is_plain(connection: &[u8]) -> bool {
    connection.eq_ignore_ascii_case(b"keep-alive") || connection.eq_ignore_ascii_case(b"close")
}

/// RFC 9110 §5.6.2.
fn is_token(byte: u8) -> bool {
    TOKEN_BYTES.get(usize::from(byte)).copied().unwrap_or(false)
}

/// A look into a table costs a third of the comparisons.
static TOKEN_BYTES: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < table.len() {
        #[expect(clippy::cast_possible_truncation, reason = "below 256")]
        let is_token = matches!(byte as u8, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'0'..=b'9' | b'A'..=b'Z' | b'^'..=b'z' | b'|' | b'~');
        table[byte] = is_token;
        byte += 1;
    }
    table
};

/// What no header value may hold.
const fn is_control(byte: u8) -> bool {
    (byte < b' ' && byte != b'\t') || byte == 0x7f
}

/// Bytes of a request target that Pingora reads wherever they stand in a path or query.
const fn is_everyday(byte: u8) -> bool {
    matches!(byte, b'/' | b'?' | b'&' | b'=' | b'%' | b'+' | b',' | b'-' | b'.' | b'_' | b'~' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z')
}

/// Whether Pingora can read this target; what it cannot, it would refuse by itself, unlogged and uncounted.
fn is_readable(target: &[u8]) -> bool {
    std::str::from_utf8(target).is_ok() && RequestHeader::build_no_case("GET", target, None).is_ok()
}

/// Bytes of a host name, an IP address in brackets, a port. No user information, no list.
const fn is_authority(byte: u8) -> bool {
    matches!(byte, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'%' | b':' | b'[' | b']')
}

#[cfg(test)]
#[allow(clippy::panic)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_host_may_have_one_port_and_nothing_else() {
        for good in ["a", "a.b:80", "a:", "a_b.c", "1.2.3.4:65535", "[::1]", "[2001:db8::7]:443", "%41", "a."]
        {
            assert!(is_host_and_port(good.as_bytes()), "{good}");
        }
        for bad in [
            "",
            ":80",
            "a:80:80",
            "a:b",
            "a:65536",
            "a:+1",
            "a:-1",
            "::1",
            "[::1",
            "[::1]x",
            "[::1]:x",
            "[zz]",
            "[1.2.3.4]",
            "[]",
            "a]",
            "a[",
            "a,b",
            "u@a",
            "a b",
            "a/b",
            "a;b",
        ] {
            assert!(!is_host_and_port(bad.as_bytes()), "{bad}");
        }
    }

    const LIMIT: usize = 4096;

    fn read(bytes: &[u8]) -> Reading {
        HeadReader::default().read(bytes, LIMIT)
    }

    fn framing_of(bytes: &[u8]) -> Framing {
        match read(bytes) {
            Reading::Complete(head) => head.framing,
            other => panic!("{other:?} for {:?}", bytes.escape_ascii().to_string()),
        }
    }

    fn assert_refused(bytes: &[u8], phrase: &str) {
        match read(bytes) {
            Reading::Refused(Fault::Malformed(said)) => assert!(said.contains(phrase), "{said}"),
            other => panic!("{other:?} for {:?}", bytes.escape_ascii().to_string()),
        }
    }

    #[test]
    fn each_framing_is_told_apart() {
        assert_eq!(framing_of(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"), Framing::None);
        assert_eq!(framing_of(b"GET / HTTP/1.0\r\n\r\n"), Framing::None);
        assert_eq!(framing_of(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"), Framing::None);
        assert_eq!(
            framing_of(b"POST / HTTP/1.1\r\nHost: a\r\ncontent-length: 12\r\n\r\n"),
            Framing::Sized(12)
        );
        assert_eq!(
            framing_of(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n"),
            Framing::Chunked
        );
        assert_eq!(
            framing_of(
                b"GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n"
            ),
            Framing::Upgrade
        );
        assert_eq!(framing_of(b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n"), Framing::None);
    }

    #[test]
    fn what_follows_the_head_is_left_alone() {
        let bytes = b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\nGET /next HTTP/1.1\n";
        let head =
            Head { skip: 2, length: 27, framing: Framing::None, is_end_to_end: true, claims_nothing: true };
        assert_eq!(read(bytes), Reading::Complete(head));
    }

    #[test]
    fn fields_for_this_connection_alone_are_noticed() {
        let is_end_to_end = |lines: &str| {
            let bytes = format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n");
            matches!(read(bytes.as_bytes()), Reading::Complete(Head { is_end_to_end: true, .. }))
        };
        for lines in ["Connection: Keep-Alive", "connection: close", "X-Te: a", "Accept: b", "Upgrades: c"] {
            assert!(is_end_to_end(lines), "{lines}");
        }
        for lines in [
            "Connection: X-Private",
            "Connection: close, X-Private",
            "Connection: close\r\nConnection: X-Private",
            "Connection:",
            "Keep-Alive: timeout=5",
            "TE: trailers",
            "Trailer: X-Sum",
            "Upgrade: h2c",
            "HTTP2-Settings: AAMAAABkAAQ",
            "Proxy-Connection: close",
            "Proxy-Authenticate: Basic",
            "Proxy-Authorization: Basic",
            "Transfer-Encoding: chunked",
        ] {
            assert!(!is_end_to_end(lines), "{lines}");
        }
    }

    #[test]
    fn fields_that_may_claim_something_are_noticed() {
        for (name, claims_nothing) in
            [("Accept", true), ("forwarded", false), ("X_Real_IP", false), ("x-request-id", false)]
        {
            let bytes = format!("GET / HTTP/1.1\r\nHost: a\r\n{name}: b\r\n\r\n");
            match read(bytes.as_bytes()) {
                Reading::Complete(head) => assert_eq!(head.claims_nothing, claims_nothing, "{name}"),
                other => panic!("{other:?} for {name}"),
            }
        }
    }

    #[test]
    fn absolute_form_must_agree_with_host() {
        assert_eq!(framing_of(b"GET HTTP://a:80/x HTTP/1.1\r\nHost: a:80\r\n\r\n"), Framing::None);
        assert_refused(b"GET http://A:80/x HTTP/1.1\r\nHost: a:80\r\n\r\n", "contradicts");
        assert_refused(b"GET http://b/x HTTP/1.1\r\nHost: a\r\n\r\n", "contradicts");
        assert_refused(b"GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n", "neither a path");
        assert_refused(b"GET gopher://a/ HTTP/1.1\r\nHost: a\r\n\r\n", "neither a path");
    }

    #[test]
    fn every_ambiguous_head_is_refused() {
        for (bytes, phrase) in [
            (&b"GET / HTTP/1.1\nHost: a\r\n\r\n"[..], "line feed"),
            (b"GET / HTTP/1.1\r\nHost: a\n\r\n", "line feed"),
            (b"\n", "line feed"),
            (b"\r\n\r\n\r\n", "empty lines"),
            (b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", "request line"),
            (b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n", "request line"),
            (b"GET /\r\nHost: a\r\n\r\n", "request line"),
            (b"G\x01T / HTTP/1.1\r\nHost: a\r\n\r\n", "method"),
            (b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", "CONNECT"),
            (b"GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n", "control byte"),
            (b"GET /\ta HTTP/1.1\r\nHost: a\r\n\r\n", "control byte"),
            (b"GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", "fragment"),
            (b"PRI * HTTP/2.0\r\n\r\n", "version"),
            (b"GET / HTTP/1.10\r\nHost: a\r\n\r\n", "version"),
            (b"GET * HTTP/1.1\r\nHost: a\r\n\r\n", "neither a path"),
            (b"GET / HTTP/1.1\r\n\r\n", "without Host"),
            (b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", "more than one Host"),
            (b"GET / HTTP/1.0\r\nHost: a\r\nhost: b\r\n\r\n", "more than one Host"),
            (b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", "host and port"),
            (b"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", "host and port"),
            (b"GET / HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n", "token"),
            (b"GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n", "without a colon"),
            (b"GET / HTTP/1.1\r\nHost: a\r\n: y\r\n\r\n", "token"),
            (b"GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n folded\r\n\r\n", "folded"),
            (b"GET / HTTP/1.1\r\nHost: a\r\nX: y\0z\r\n\r\n", "control byte"),
            (b"GET / HTTP/1.1\r\nHost: a\r\nX: y\rz\r\n\r\n", "control byte"),
            (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n", "more than one"),
            (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\n", "bad Content-Length"),
            (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\n", "bad Content-Length"),
            (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5 5\r\n\r\n", "bad Content-Length"),
            (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \r\n\r\n", "bad Content-Length"),
            (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n", "bad Content-Length"),
            (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n", "chunked"),
            (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n", "chunked"),
            (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n", "chunked"),
            (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n", "control byte"),
            (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", "chunked"),
            (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n", "both"),
            (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", "HTTP/1.0"),
        ] {
            assert_refused(bytes, phrase);
        }
    }

    #[test]
    fn a_large_head_is_told_apart_from_a_bad_one() {
        let mut bytes = b"GET / HTTP/1.1\r\nHost: a\r\nX: ".to_vec();
        bytes.resize(LIMIT + 1, b'x');
        assert_eq!(read(&bytes), Reading::Refused(Fault::TooLarge));
        let mut many = b"GET / HTTP/1.1\r\nHost: a\r\n".to_vec();
        many.extend(std::iter::repeat_n(*b"a:b\r\n", HEADER_FIELDS_MAX).flatten());
        many.extend(b"\r\n");
        assert_eq!(read(&many), Reading::Refused(Fault::TooLarge));
    }

    proptest! {
        /// However the bytes are cut into reads, the answer is the same.
        #[test]
        fn a_head_in_pieces_reads_like_a_head_at_once(
            text in "[A-Z]{1,3} /[a-z]{0,3} HTTP/1\\.[01]\r\n([a-z]{1,3}: ?[a-z]{0,3}\r?\n){0,3}\r?\n?",
            cuts in prop::collection::vec(0usize..60, 0..6),
        ) {
            let bytes = text.as_bytes();
            let mut ends: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            ends.push(bytes.len());
            ends.sort_unstable();
            let mut reader = HeadReader::default();
            let mut in_pieces = Reading::Partial;
            for end in ends {
                in_pieces = reader.read(&bytes[..end], LIMIT);
                if in_pieces != Reading::Partial {
                    break;
                }
            }
            prop_assert_eq!(in_pieces, read(bytes));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&bytes);
        }
    }
}
