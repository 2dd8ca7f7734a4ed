//! What the upstream should know about the client, and what neither side should see of the other's
//! connection.

use std::net::IpAddr;

use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Method, Uri};
use pingora::http::{RequestHeader, ResponseHeader};

use super::head::is_host_and_port;
use super::tls::{ClientCertificate, ClientTls};
use crate::config::HeaderEdits;

/// Whose word on earlier hops is dropped unless the peer is trusted, beside the four that we set.
static CLAIMS: [HeaderName; 5] = [
    header::FORWARDED,
    HeaderName::from_static("x-forwarded-port"),
    HeaderName::from_static("x-forwarded-server"),
    HeaderName::from_static("x-forwarded-prefix"),
    HeaderName::from_static("x-real-ip"),
];
pub(super) const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// What we say of a client's certificate, and what nobody else may say. Not even a proxy whose word counts
/// otherwise: upstreams take these for the outcome of a handshake with us.
static CERTIFICATE: [HeaderName; 3] = [
    HeaderName::from_static("x-client-cert-subject"),
    HeaderName::from_static("x-client-cert-fingerprint"),
    HeaderName::from_static("x-client-cert-verified"),
];
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Fields about one connection, not about the message (RFC 9110 §7.6.1). `Transfer-Encoding` stays:
/// it tells our writer how to frame the body, and is rewritten there.
static HOP_BY_HOP: [HeaderName; 6] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    header::UPGRADE,
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRAILER,
];

/// A request id from elsewhere is believed up to this length.
const REQUEST_ID_BYTES_MAX: usize = 128;

/// Where a request came from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Origin<'a> {
    /// The peer, ready to be set as a header.
    pub peer: &'a HeaderValue,
    /// Whether the peer may speak for others.
    pub is_trusted: bool,
    /// Whether the head was seen to hold no field that [`forward`] would drop.
    pub claims_nothing: bool,
    /// What is known of the connection, if it is one over TLS.
    pub tls: Option<&'a ClientTls>,
    pub request_id: &'a HeaderValue,
}

/// Sets `X-Forwarded-*` and `X-Request-Id`, and drops what an untrusted client said in them.
pub(super) fn forward(origin: &Origin<'_>, request: &mut RequestHeader) -> pingora::Result<()> {
    if !origin.claims_nothing {
        if !origin.is_trusted {
            drop_all(&CLAIMS, request);
        }
        drop_all(&CERTIFICATE, request);
        drop_aliases(request);
    }
    let believed =
        |name: &HeaderName, request: &RequestHeader| origin.is_trusted && request.headers.contains_key(name);
    if believed(&FORWARDED_FOR, request) {
        let chain = chain_with(&request.headers, origin.peer);
        request.insert_header("X-Forwarded-For", chain)?;
    } else {
        request.insert_header("X-Forwarded-For", origin.peer.clone())?;
    }
    if !believed(&FORWARDED_PROTO, request) {
        let scheme = if origin.tls.is_some() { "https" } else { "http" };
        request.insert_header("X-Forwarded-Proto", HeaderValue::from_static(scheme))?;
    }
    if !believed(&FORWARDED_HOST, request) {
        match request.headers.get(header::HOST).cloned() {
            Some(host) => request.insert_header("X-Forwarded-Host", host)?,
            None => drop(request.remove_header(&FORWARDED_HOST)),
        }
    }
    if let Some(tls) = origin.tls.filter(|tls| tls.asks_for_certificates) {
        describe_certificate(tls.certificate.as_ref(), request)?;
    }
    request.insert_header("X-Request-Id", origin.request_id.clone())
}

fn describe_certificate(
    certificate: Option<&ClientCertificate>,
    request: &mut RequestHeader,
) -> pingora::Result<()> {
    let verified = HeaderValue::from_static(if certificate.is_some() { "true" } else { "false" });
    request.insert_header("X-Client-Cert-Verified", verified)?;
    if let Some(ClientCertificate { subject, fingerprint }) = certificate {
        request.insert_header("X-Client-Cert-Subject", subject.clone())?;
        request.insert_header("X-Client-Cert-Fingerprint", fingerprint.clone())?;
    }
    Ok(())
}

fn drop_all(names: &[HeaderName], request: &mut RequestHeader) {
    for name in names {
        request.remove_header(name);
    }
}

/// Where headers become variables (CGI, WSGI, PHP, Rack), `X_Forwarded_For` is `X-Forwarded-For`: a name
/// that would pass for one of ours is dropped, whoever sent it.
fn drop_aliases(request: &mut RequestHeader) {
    let aliases: Vec<HeaderName> = request.headers.keys().filter(|name| is_alias(name)).cloned().collect();
    for alias in &aliases {
        request.remove_header(alias);
    }
}

fn is_alias(name: &HeaderName) -> bool {
    let name = name.as_str();
    let is_same = |ours: &HeaderName| {
        let folded = name.bytes().map(|byte| if byte == b'_' { b'-' } else { byte });
        ours.as_str().len() == name.len() && folded.eq(ours.as_str().bytes())
    };
    let set_by_us = [FORWARDED_FOR, FORWARDED_PROTO, FORWARDED_HOST, REQUEST_ID];
    name.starts_with('x')
        && name.contains('_')
        && CLAIMS.iter().chain(&CERTIFICATE).chain(&set_by_us).any(is_same)
}

/// The chain of addresses so far, then the peer's.
fn chain_with(headers: &HeaderMap, peer: &HeaderValue) -> HeaderValue {
    let mut chain = Vec::with_capacity(64);
    for value in headers.get_all(FORWARDED_FOR) {
        chain.extend_from_slice(value.as_bytes());
        chain.extend_from_slice(b", ");
    }
    chain.extend_from_slice(peer.as_bytes());
    HeaderValue::from_bytes(&chain).unwrap_or_else(|_| peer.clone())
}

/// The client behind trusted proxies: the rightmost address of `X-Forwarded-For` that is not trusted.
pub(super) fn client_behind(
    peer: IpAddr,
    headers: &HeaderMap,
    is_trusted: impl Fn(IpAddr) -> bool,
) -> IpAddr {
    let mut client = peer;
    let lines: Vec<&str> =
        headers.get_all(FORWARDED_FOR).iter().filter_map(|value| value.to_str().ok()).collect();
    for entry in lines.iter().rev().flat_map(|line| line.rsplit(',')) {
        if !is_trusted(client) {
            break;
        }
        let Some(address) = parse_address(entry.trim()) else { break };
        client = address;
    }
    client
}

/// An address as people write it in `X-Forwarded-For`: bare, bracketed, or with a port.
fn parse_address(entry: &str) -> Option<IpAddr> {
    let bare = entry.trim_start_matches('[').trim_end_matches(']');
    bare.parse().ok().or_else(|| entry.parse::<std::net::SocketAddr>().ok().map(|address| address.ip()))
}

/// The id that a trusted proxy gave the request, if it is one that can be logged.
pub(super) fn request_id_from(headers: &HeaderMap) -> Option<HeaderValue> {
    let id = headers.get(REQUEST_ID)?;
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:/+=@".contains(byte);
    let is_usable = !id.is_empty() && id.len() <= REQUEST_ID_BYTES_MAX && id.as_bytes().iter().all(is_plain);
    is_usable.then(|| id.clone())
}

/// A new request id: 128 random bits in hexadecimal.
pub(super) fn new_request_id() -> HeaderValue {
    let text = fastrand::u128(..).to_be_bytes().map(in_hexadecimal);
    HeaderValue::from_bytes(text.as_flattened()).unwrap_or(HeaderValue::from_static("-"))
}

pub(super) fn in_hexadecimal(byte: u8) -> [u8; 2] {
    let digit = |value: u8| if value < 10 { b'0' + value } else { b'a' - 10 + value };
    [digit(byte >> 4), digit(byte & 15)]
}

/// Applies a route's `request_headers`.
pub(super) fn edit_request(edits: &HeaderEdits, request: &mut RequestHeader) -> pingora::Result<()> {
    for name in &edits.remove {
        request.remove_header(name);
    }
    edits.set.iter().try_for_each(|(name, value)| request.insert_header(name, value.clone()))
}

/// Applies a route's `response_headers`.
pub(super) fn edit_response(edits: &HeaderEdits, response: &mut ResponseHeader) -> pingora::Result<()> {
    for name in &edits.remove {
        response.remove_header(name);
    }
    edits.set.iter().try_for_each(|(name, value)| response.insert_header(name, value.clone()))
}

/// Takes out of a response what was meant for our connection to the upstream.
pub(super) fn strip_hop_by_hop(response: &mut ResponseHeader) {
    if response.status == http::StatusCode::SWITCHING_PROTOCOLS {
        return;
    }
    // One pass over what is there costs less than a look-up for each that may be.
    let is_final = !response.status.is_informational();
    if response.headers.iter().all(|(name, value)| is_kept(name, value, is_final)) {
        return;
    }
    for name in nominated(&response.headers) {
        response.remove_header(&name);
    }
    for name in &HOP_BY_HOP {
        response.remove_header(name);
    }
}

/// Whether a field may stay in a response. In a final one, a `Connection` that names no other field may:
/// Pingora replaces it by what holds for the client's connection, which costs less than taking it out and
/// putting one in.
fn is_kept(name: &HeaderName, value: &HeaderValue, is_final: bool) -> bool {
    match name.as_str().len() {
        2 => *name != header::TE,
        7 => *name != header::UPGRADE && *name != header::TRAILER,
        10 if *name == header::CONNECTION => {
            is_final && [&b"keep-alive"[..], b"close"].contains(&value.as_bytes())
        }
        10 => name.as_str() != "keep-alive",
        16 => name.as_str() != "proxy-connection",
        _ => true,
    }
}

/// The names in `Connection`.
fn nominated(headers: &HeaderMap) -> Vec<HeaderName> {
    headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|token| HeaderName::from_bytes(token.trim().as_bytes()).ok())
        .filter(is_strippable)
        .collect()
}

/// Framing is never up to a nomination in `Connection`.
fn is_strippable(name: &HeaderName) -> bool {
    *name != header::TRANSFER_ENCODING && *name != header::CONTENT_LENGTH
}

/// The path without the route's prefix, query kept, in origin form.
pub(super) fn without_prefix(uri: &Uri, prefix: &crate::route::PathPrefix) -> Option<Vec<u8>> {
    let rest = prefix.strip(uri.path())?;
    let mut target = Vec::with_capacity(uri.path().len() + uri.query().map_or(0, |query| query.len() + 1));
    if !rest.starts_with('/') {
        target.push(b'/');
    }
    target.extend_from_slice(rest.as_bytes());
    if let Some(query) = uri.query() {
        target.push(b'?');
        target.extend_from_slice(query.as_bytes());
    }
    Some(target)
}

/// The path and query of a request target in absolute form, which is for proxies; an upstream gets the
/// usual form. `None`: it has that form already.
pub(super) fn origin_form(raw: &[u8], uri: &Uri) -> Option<Vec<u8>> {
    if raw.starts_with(b"/") || raw == b"*" {
        return None;
    }
    Some(uri.path_and_query().map_or_else(|| b"/".to_vec(), |target| target.as_str().as_bytes().to_vec()))
}

/// `Content-Length`, which was checked to be one number when the head was read.
pub(super) fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Whether a proxy says that its client came over TLS; of a chain of proxies, the first one's client counts.
pub(super) fn says_https(headers: &HeaderMap) -> bool {
    let value = headers.get(FORWARDED_PROTO).map_or(&b""[..], HeaderValue::as_bytes);
    let first = value.split(|&byte| byte == b',').next().unwrap_or_default();
    first.trim_ascii().eq_ignore_ascii_case(b"https")
}

/// The same URL with https, at this port. `None` without a host: it is nobody's place to choose one.
///
/// The host is that of `Host`, which `head.rs` has checked to be the one that the request target names, if it
/// names one; HTTP/2 may name it there alone.
pub(super) fn https_location(
    target: &[u8],
    uri: &Uri,
    headers: &HeaderMap,
    port: u16,
) -> Option<HeaderValue> {
    let named = match headers.get(header::HOST) {
        Some(host) => host.to_str().ok()?,
        None => uri.authority()?.as_str(),
    };
    if !is_host_and_port(named.as_bytes()) {
        return None;
    }
    let host = without_port(named);
    let absolute = origin_form(target, uri);
    let path = match absolute.as_deref().unwrap_or(target) {
        b"*" => &b"/"[..],
        path => path,
    };
    let mut location = Vec::with_capacity("https://:65535".len() + host.len() + path.len());
    location.extend_from_slice(b"https://");
    location.extend_from_slice(host.as_bytes());
    if port != 443 {
        location.extend_from_slice(format!(":{port}").as_bytes());
    }
    for &byte in path {
        match byte {
            b'!'..=b'~' => location.push(byte),
            other => location.extend_from_slice(format!("%{other:02X}").as_bytes()),
        }
    }
    HeaderValue::from_bytes(&location).ok()
}

/// Says what a request of HTTP/2 means in the words of HTTP/1.1.
pub(super) fn translate_to_http_1_1(request: &mut RequestHeader, is_body_empty: bool) -> pingora::Result<()> {
    // No 100 can go back to the client, so whoever waits for one upstream would wait in vain.
    request.remove_header(&header::EXPECT);
    let has_meaning = [Method::POST, Method::PUT, Method::PATCH].contains(&request.method);
    if is_body_empty && has_meaning && !request.headers.contains_key(header::CONTENT_LENGTH) {
        // The end of the stream has said so; here the absence of a length would be taken for an oversight (411).
        request.insert_header(header::CONTENT_LENGTH, "0")?;
    }
    join_cookies(request)
}

/// Makes one `Cookie` of many: clients of HTTP/2 may send a field for each cookie, HTTP/1.1 knows one field
/// only (RFC 9113 §8.2.3).
fn join_cookies(request: &mut RequestHeader) -> pingora::Result<()> {
    let crumbs: Vec<&[u8]> =
        request.headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if crumbs.len() < 2 {
        return Ok(());
    }
    let joined = crumbs.join(&b"; "[..]);
    request.insert_header(header::COOKIE, joined)
}

/// The value of a cookie.
pub(super) fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a [u8]> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .flat_map(|value| value.as_bytes().split(|&byte| byte == b';'))
        .map(<[u8]>::trim_ascii)
        .find_map(|pair| pair.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}

/// `Host` without its port, as routes compare it: borrowed unless it has capital letters.
pub(super) fn bare_host(host: &str) -> std::borrow::Cow<'_, str> {
    let bare = without_port(host);
    if bare.bytes().any(|byte| byte.is_ascii_uppercase()) {
        bare.to_ascii_lowercase().into()
    } else {
        bare.into()
    }
}

fn without_port(host: &str) -> &str {
    let end = match host.rfind(':') {
        // A colon inside brackets belongs to an IPv6 address.
        Some(colon) if !host.get(colon..).unwrap_or_default().contains(']') => colon,
        _ => host.len(),
    };
    host.get(..end).unwrap_or(host)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn request(lines: &[(&'static str, &'static str)]) -> RequestHeader {
        let mut request = RequestHeader::build("GET", b"/", None).unwrap();
        for (name, value) in lines {
            request.append_header(*name, *value).unwrap();
        }
        request
    }

    fn forwarded(is_trusted: bool, lines: &[(&'static str, &'static str)]) -> RequestHeader {
        let mut request = request(lines);
        let origin = Origin {
            peer: &HeaderValue::from_static("10.0.0.9"),
            is_trusted,
            claims_nothing: false,
            tls: None,
            request_id: &HeaderValue::from_static("id"),
        };
        forward(&origin, &mut request).unwrap();
        request
    }

    #[test]
    fn an_untrusted_client_cannot_speak_for_others() {
        let request = forwarded(
            false,
            &[
                ("Host", "a"),
                ("X-Forwarded-For", "1.1.1.1"),
                ("X-Forwarded-Proto", "https"),
                ("X-Forwarded-Host", "evil"),
                ("Forwarded", "for=1.1.1.1"),
                ("X-Real-IP", "1.1.1.1"),
            ],
        );
        assert_eq!(request.headers["x-forwarded-for"], "10.0.0.9");
        assert_eq!(request.headers["x-forwarded-proto"], "http");
        assert_eq!(request.headers["x-forwarded-host"], "a");
        assert_eq!(request.headers.get("forwarded"), None);
        assert_eq!(request.headers.get("x-real-ip"), None);
    }

    #[test]
    fn nobody_passes_for_us_by_an_underscore() {
        for is_trusted in [false, true] {
            let request = forwarded(
                is_trusted,
                &[
                    ("X_Forwarded_For", "1.1.1.1"),
                    ("X-Forwarded_Proto", "https"),
                    ("x_real_ip", "1.1.1.1"),
                    ("X_Request-Id", "mine"),
                    ("X_Api_Key", "kept"),
                ],
            );
            let names: Vec<_> = request.headers.keys().filter(|name| name.as_str().contains('_')).collect();
            assert_eq!(names, ["x_api_key"]);
            assert_eq!(request.headers["x-forwarded-for"], "10.0.0.9");
        }
    }

    #[test]
    fn a_trusted_proxy_is_believed_and_added() {
        let request = forwarded(
            true,
            &[
                ("Host", "a"),
                ("X-Forwarded-For", "1.1.1.1"),
                ("X-Forwarded-For", "2.2.2.2"),
                ("X-Forwarded-Proto", "https"),
            ],
        );
        assert_eq!(request.headers["x-forwarded-for"], "1.1.1.1, 2.2.2.2, 10.0.0.9");
        assert_eq!(request.headers.get_all("x-forwarded-for").iter().count(), 1);
        assert_eq!(request.headers["x-forwarded-proto"], "https");
        assert_eq!(request.headers["x-forwarded-host"], "a");
    }

    #[test]
    fn the_client_is_the_rightmost_address_that_is_not_trusted() {
        let trusted = |address: IpAddr| address.to_string().starts_with("10.");
        let client = |peer: &str, chain: &'static str| {
            client_behind(peer.parse().unwrap(), &request(&[("X-Forwarded-For", chain)]).headers, trusted)
                .to_string()
        };
        assert_eq!(client("10.0.0.9", "6.6.6.6, 1.1.1.1, 10.0.0.8"), "1.1.1.1");
        assert_eq!(client("10.0.0.9", "[2001:db8::1]"), "2001:db8::1");
        assert_eq!(client("10.0.0.9", "1.2.3.4:5678"), "1.2.3.4");
        assert_eq!(client("10.0.0.9", "unknown"), "10.0.0.9");
        assert_eq!(client("7.7.7.7", "1.1.1.1"), "7.7.7.7");
    }

    #[test]
    fn hop_by_hop_headers_end_here_and_framing_stays() {
        let mut response = ResponseHeader::build(200, None).unwrap();
        for (name, value) in [
            ("Connection", "close, X-Private, Transfer-Encoding"),
            ("Keep-Alive", "timeout=5"),
            ("X-Private", "1"),
            ("Transfer-Encoding", "chunked"),
            ("X-Public", "1"),
        ] {
            response.append_header(name, value).unwrap();
        }
        strip_hop_by_hop(&mut response);
        let mut left: Vec<&str> = response.headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["transfer-encoding", "x-public"]);
    }

    #[test]
    fn a_plain_connection_field_is_left_to_pingora_where_it_replaces_it() {
        for (status, value, stays) in
            [(200, "close", true), (200, "close, X-Private", false), (103, "keep-alive", false)]
        {
            let mut response = ResponseHeader::build(status, None).unwrap();
            response.append_header("Connection", value).unwrap();
            strip_hop_by_hop(&mut response);
            assert_eq!(response.headers.contains_key("connection"), stays, "{status} {value}");
        }
    }

    #[test]
    fn hosts_lose_port_and_case() {
        assert_eq!(bare_host("Example.com:8080"), "example.com");
        assert_eq!(bare_host("[::1]:8080"), "[::1]");
        assert_eq!(bare_host("[::1]"), "[::1]");
        assert_eq!(bare_host("a"), "a");
    }

    #[test]
    fn cookies_are_found_by_their_whole_name() {
        let request = request(&[("Cookie", "ab=1; a=2;c=3")]);
        assert_eq!(cookie(&request.headers, "a"), Some(&b"2"[..]));
        assert_eq!(cookie(&request.headers, "b"), None);
    }

    #[test]
    fn request_ids_are_distinct() {
        assert_eq!(new_request_id().len(), 32);
        assert_ne!(new_request_id(), new_request_id());
    }
}
