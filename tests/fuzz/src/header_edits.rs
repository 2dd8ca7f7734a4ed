//! `request_headers`, `response_headers` and what is stripped from answers: what they name, and nothing else.

use evener::config::HeaderEdits;
use evener::fuzzing::proxy::{
    RequestHeader, ResponseHeader, edit_request, edit_response, strip_hop_by_hop, without_prefix,
};
use evener::route::PathPrefix;
use http::{HeaderMap, HeaderName, HeaderValue, Uri};

const OF_THE_CONNECTION: [&str; 6] =
    ["connection", "keep-alive", "upgrade", "proxy-connection", "te", "trailer"];

/// Lines: `+name: value` is set, `-name` is removed, `name: value` is there, `/path /prefix` is stripped.
pub fn run(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let mut edits = HeaderEdits::default();
    let mut there = Vec::new();
    for line in text.lines() {
        if let Some(line) = line.strip_prefix('+') {
            let field = field(line);
            edits.set.extend(field.filter(|(name, _)| edits.set.iter().all(|(other, _)| other != name)));
        } else if let Some(name) = line.strip_prefix('-') {
            edits.remove.extend(name.parse::<HeaderName>());
        } else if line.starts_with('/') {
            check_strip(line);
        } else {
            there.extend(field(line));
        }
    }
    check_request(&edits, &there);
    check_response(&edits, &there);
    check_stripped(&there);
}

fn field(line: &str) -> Option<(HeaderName, HeaderValue)> {
    let (name, value) = line.split_once(':')?;
    Some((name.parse().ok()?, HeaderValue::from_str(value.trim()).ok()?))
}

fn check_request(edits: &HeaderEdits, there: &[(HeaderName, HeaderValue)]) {
    let mut request = RequestHeader::build("GET", b"/", None).unwrap();
    for (name, value) in there {
        request.append_header(name, value.clone()).unwrap();
    }
    let before = request.headers.clone();
    assert!(edit_request(edits, &mut request));
    check_edited(edits, &before, &request.headers);
    let mut wire = Vec::new();
    request.header_to_h1_wire(&mut wire);
    check_wire(&wire, &request.headers);
}

fn check_response(edits: &HeaderEdits, there: &[(HeaderName, HeaderValue)]) {
    let mut response = response_with(there);
    let before = response.headers.clone();
    assert!(edit_response(edits, &mut response));
    check_edited(edits, &before, &response.headers);
}

fn response_with(there: &[(HeaderName, HeaderValue)]) -> ResponseHeader {
    let mut response = ResponseHeader::build(200, None).unwrap();
    for (name, value) in there {
        response.append_header(name, value.clone()).unwrap();
    }
    response
}

fn check_edited(edits: &HeaderEdits, before: &HeaderMap, after: &HeaderMap) {
    let values = |map: &HeaderMap, name: &HeaderName| map.get_all(name).iter().cloned().collect::<Vec<_>>();
    for name in before.keys().chain(after.keys()) {
        let set = edits.set.iter().find(|(set, _)| set == name);
        let expected = match set {
            Some((_, value)) => vec![value.clone()],
            None if edits.remove.contains(name) => Vec::new(),
            None => values(before, name),
        };
        assert_eq!(values(after, name), expected, "{name}");
    }
    assert!(edits.set.iter().all(|(name, _)| after.contains_key(name)));
}

/// As many lines go out as the map has, under the same names.
fn check_wire(wire: &[u8], headers: &HeaderMap) {
    let lines = wire.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()).count();
    assert_eq!(lines, headers.len());
}

fn check_stripped(there: &[(HeaderName, HeaderValue)]) {
    let mut response = response_with(there);
    let before = response.headers.clone();
    strip_hop_by_hop(&mut response);
    let nominated: Vec<String> = before
        .get_all("connection")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(',').map(|token| token.trim().to_ascii_lowercase()))
        .collect();
    let is_framing = |name: &str| ["transfer-encoding", "content-length"].contains(&name);
    for name in before.keys().map(HeaderName::as_str) {
        let goes = !is_framing(name)
            && (OF_THE_CONNECTION.contains(&name) || nominated.iter().any(|nominated| nominated == name));
        if name == "connection" {
            // One that says no more than `close` is replaced by Pingora.
            let stays = response.headers.get_all(name).iter();
            assert!(
                stays.map(HeaderValue::as_bytes).all(|value| [&b"keep-alive"[..], b"close"].contains(&value))
            );
        } else if !response.headers.contains_key("connection")
            || !nominated.iter().any(|nominated| nominated == name)
        {
            assert_eq!(response.headers.contains_key(name), !goes, "{name}");
        }
    }
}

fn check_strip(line: &str) {
    let Some((path, prefix)) = line.split_once(' ') else { return };
    let (Ok(uri), Ok(prefix)) = (path.parse::<Uri>(), PathPrefix::parse(prefix)) else { return };
    let stripped = without_prefix(&uri, &prefix);
    assert_eq!(stripped.is_some(), prefix.matches(uri.path()), "who matches can be stripped");
    let Some(target) = stripped else { return };
    assert!(target.starts_with(b"/"));
    assert!(!target.starts_with(b"//") || prefix.as_str() == "/", "it would look like another host");
    let query = target.iter().position(|&byte| byte == b'?').map(|at| target[at + 1..].to_vec());
    assert_eq!(query, uri.query().map(|query| query.as_bytes().to_vec()));
}
