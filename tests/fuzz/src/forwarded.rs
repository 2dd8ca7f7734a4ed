//! What an upstream is told about the client: nothing that a stranger said.

use std::net::IpAddr;

use evener::fuzzing::proxy::{
    RequestHeader, Verdict, bare_host, client_behind, cookie, forward, origin_form, read_head,
    request_id_from,
};
use http::HeaderValue;

use crate::cuts;

const PEER: &str = "192.0.2.9";
const NAMES: [&str; 9] = [
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-request-id",
    "forwarded",
    "x-forwarded-port",
    "x-forwarded-server",
    "x-forwarded-prefix",
    "x-real-ip",
];

/// The first byte says whether the peer is trusted; the rest are header lines.
pub fn run(bytes: &[u8]) {
    let Some((&flags, lines)) = bytes.split_first() else { return };
    let Ok(lines) = std::str::from_utf8(lines) else { return };
    let head: String = lines.lines().map(|line| format!("{line}\r\n")).collect();
    let head = format!("GET /path HTTP/1.1\r\n{head}\r\n");
    let Verdict::Complete(read) = read_head(head.as_bytes(), &cuts(head.len(), flags), 1 << 16) else {
        return;
    };
    let Some(request) = parsed(&head) else { return };
    let is_trusted = flags & 1 == 1;
    let told = told(&request, is_trusted, read.claims_nothing);
    assert_eq!(
        fields(&told),
        fields(&self::told(&request, is_trusted, false)),
        "the shortcut changes nothing"
    );
    check_names(&told);
    if is_trusted {
        check_chain(&request, &told);
    } else {
        check_stranger(&request, &told);
    }
    check_wire(&told);
    check_client(&request);
    let _ = (request_id_from(&request.headers), cookie(&request.headers, "session"));
    assert!(origin_form(request.raw_path(), &request.uri).is_none(), "it has that form already");
}

fn parsed(head: &str) -> Option<RequestHeader> {
    let mut fields = [httparse::EMPTY_HEADER; 256];
    let mut parsed = httparse::Request::new(&mut fields);
    parsed.parse(head.as_bytes()).ok()?;
    let mut request = RequestHeader::build("GET", b"/path", None).ok()?;
    for field in parsed.headers.iter() {
        request.append_header(field.name.to_owned(), field.value).ok()?;
    }
    Some(request)
}

fn told(request: &RequestHeader, is_trusted: bool, claims_nothing: bool) -> RequestHeader {
    let mut told = request.clone();
    let (peer, id) = (HeaderValue::from_static(PEER), HeaderValue::from_static("the-id"));
    assert!(forward(&peer, is_trusted, claims_nothing, &id, &mut told));
    told
}

fn fields(request: &RequestHeader) -> Vec<(String, Vec<u8>)> {
    let fields = request.headers.iter();
    fields.map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec())).collect()
}

fn values<'r>(request: &'r RequestHeader, name: &str) -> Vec<&'r [u8]> {
    request.headers.get_all(name).iter().map(HeaderValue::as_bytes).collect()
}

/// Whoever folds `_` into `-` sees nothing but what we said.
fn check_names(told: &RequestHeader) {
    for name in told.headers.keys().map(http::HeaderName::as_str) {
        assert!(!name.contains('_') || !NAMES.contains(&name.replace('_', "-").as_str()), "{name}");
    }
    assert_eq!(values(told, "x-request-id"), [b"the-id"]);
}

fn check_stranger(request: &RequestHeader, told: &RequestHeader) {
    assert_eq!(values(told, "x-forwarded-for"), [PEER.as_bytes()]);
    assert_eq!(values(told, "x-forwarded-proto"), [b"http"]);
    assert_eq!(values(told, "x-forwarded-host"), values(request, "host"));
    for name in &NAMES[4..] {
        assert!(!told.headers.contains_key(*name), "{name} is a stranger's");
    }
}

fn check_chain(request: &RequestHeader, told: &RequestHeader) {
    let chain = values(told, "x-forwarded-for");
    let mut expected = values(request, "x-forwarded-for").join(&b", "[..]);
    if request.headers.contains_key("x-forwarded-for") {
        expected.extend_from_slice(b", ");
    }
    expected.extend_from_slice(PEER.as_bytes());
    assert_eq!(chain, [&expected[..]]);
}

/// What goes out is what the map says: Pingora keeps the names once more, as they were written.
fn check_wire(told: &RequestHeader) {
    let mut wire = Vec::new();
    told.header_to_h1_wire(&mut wire);
    let text = [b"GET / HTTP/1.1\r\n", &wire[..], b"\r\n"].concat();
    let mut parsed = [httparse::EMPTY_HEADER; 300];
    let mut request = httparse::Request::new(&mut parsed);
    assert!(request.parse(&text).is_ok_and(|status| status.is_complete()));
    let mut sent: Vec<_> =
        request.headers.iter().map(|field| (field.name.to_ascii_lowercase(), field.value.to_vec())).collect();
    let mut said: Vec<_> =
        fields(told).into_iter().map(|(name, value)| (name, value.trim_ascii().to_vec())).collect();
    sent.sort();
    said.sort();
    assert_eq!(sent, said);
}

fn check_client(request: &RequestHeader) {
    let peer: IpAddr = PEER.parse().unwrap();
    assert_eq!(client_behind(peer, &request.headers, |_| false), peer, "a stranger speaks for nobody");
    let is_private =
        |address: IpAddr| matches!(address, IpAddr::V4(v4) if v4.is_private()) || address == peer;
    let client = client_behind(peer, &request.headers, is_private);
    let _ = client_behind(peer, &request.headers, |_| true);
    let chain = values(request, "x-forwarded-for").join(&b","[..]);
    if client != peer {
        assert!(!chain.is_empty());
    }
    if let Some(host) = request.headers.get("host").and_then(|host| host.to_str().ok()) {
        let bare = bare_host(host);
        assert!(host.to_ascii_lowercase().starts_with(&bare));
        assert!(!bare.bytes().any(|byte| byte.is_ascii_uppercase()));
    }
}
