//! The head of a request: what passes is read by httparse, hyper and Pingora as we read it.

use evener::fuzzing::proxy::{Body, Head, Verdict, read_head, scan_chunks};

use crate::cuts;
use crate::engines::{Read, by_hyper, by_pingora};

const SIZE_MAX: usize = 4096;

/// What would be the next request; nobody may take it for a part of the first.
const NEXT: &[u8] = b"GET /next HTTP/1.1\r\nHost: next\r\n\r\n";

pub fn run(bytes: &[u8]) {
    let Some((&seed, bytes)) = bytes.split_first() else { return };
    let verdict = read_head(bytes, &[bytes.len()], SIZE_MAX);
    assert_eq!(verdict, read_head(bytes, &cuts(bytes.len(), seed), SIZE_MAX), "in pieces");
    let Verdict::Complete(head) = verdict else { return };
    assert!(head.length <= SIZE_MAX && head.skip + head.length <= bytes.len());
    let read = as_httparse(&bytes[head.skip..head.skip + head.length], &head);
    if head.body == Body::Upgrade {
        return;
    }
    let Some(end) = end_of(bytes, &head) else { return };
    let request = &bytes[head.skip..end];
    same(&read, &by_pingora(request).expect("Pingora reads what passes"));
    let by_hyper = by_hyper(&[request, NEXT].concat());
    // It may refuse more, and answers an `Expect` it does not know by itself; but it sees nothing else.
    if let Some(first) = by_hyper.first() {
        assert_eq!((&first.method, &first.fields), (&read.method, &read.fields), "hyper");
        // It knows fewer kinds of trailers.
        if first.body.is_some() || head.body != Body::Chunked {
            assert_eq!(first.body, body_of(request, &head), "hyper's body");
        }
    }
    if let Some(second) = by_hyper.get(1) {
        assert_eq!(second.target, b"/next", "hyper sees another request");
    }
    assert!(by_hyper.len() <= 2);
}

/// Where head and body end; `None` when not all of it is there.
fn end_of(bytes: &[u8], head: &Head) -> Option<usize> {
    let start = head.skip + head.length;
    match head.body {
        Body::None | Body::Upgrade => Some(start),
        Body::Sized(length) => Some(start + usize::try_from(length).ok()?).filter(|end| *end <= bytes.len()),
        Body::Chunked => match scan_chunks(&bytes[start..], &[bytes.len() - start]) {
            Some((taken, true)) => Some(start + taken),
            _ => None,
        },
    }
}

/// The decoded body of a whole request; `None` for one in chunks, which `chunked.rs` looks at.
fn body_of(request: &[u8], head: &Head) -> Option<Vec<u8>> {
    match head.body {
        Body::Chunked => by_pingora(request).and_then(|read| read.body),
        _ => Some(request[head.length..].to_vec()),
    }
}

fn as_httparse(bytes: &[u8], head: &Head) -> Read {
    let mut fields = [httparse::EMPTY_HEADER; 256];
    let mut request = httparse::Request::new(&mut fields);
    let status = request.parse(bytes).expect("httparse reads what passes");
    assert_eq!(status, httparse::Status::Complete(head.length), "where the head ends");
    let field = |field: &httparse::Header<'_>| (field.name.to_ascii_lowercase(), field.value.to_vec());
    let mut read = Read {
        method: request.method.unwrap().to_owned(),
        target: request.path.unwrap().as_bytes().to_vec(),
        fields: request.headers.iter().map(field).collect(),
        body: None,
    };
    check_framing(&read, head);
    read.fields = in_map_order(read.fields);
    read
}

/// The framing that the fields say, read once more by plain means.
fn check_framing(read: &Read, head: &Head) {
    let values = |name: &str| -> Vec<String> {
        let named = read.fields.iter().filter(|(other, _)| other == name);
        named.map(|(_, value)| String::from_utf8_lossy(value).to_ascii_lowercase()).collect()
    };
    let (lengths, codings) = (values("content-length"), values("transfer-encoding"));
    match head.body {
        Body::Chunked => assert!(codings == ["chunked"] && lengths.is_empty()),
        Body::Sized(length) => assert!(codings.is_empty() && lengths[0].parse() == Ok(length)),
        Body::None | Body::Upgrade => {
            assert!(codings.is_empty() && lengths.iter().all(|length| length.parse() == Ok(0)));
        }
    }
    assert!(values("host").len() <= 1);
    let forwarded = |name: &str| name.starts_with('x') || name.starts_with('f');
    assert_eq!(head.claims_nothing, !read.fields.iter().any(|(name, _)| forwarded(name)));
    let of_connection = ["te", "upgrade", "trailer", "keep-alive", "proxy-connection", "transfer-encoding"];
    let is_end_to_end = of_connection.iter().all(|name| values(name).is_empty())
        && values("connection").iter().all(|value| value == "keep-alive" || value == "close");
    assert!(!head.is_end_to_end || is_end_to_end, "something is for this connection alone");
}

/// As a header map tells them: values of one name together, at the place of the first.
fn in_map_order(fields: Vec<(String, Vec<u8>)>) -> Vec<(String, Vec<u8>)> {
    let mut names: Vec<&String> = Vec::new();
    for (name, _) in &fields {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let of = |name: &String| fields.iter().filter(|(other, _)| *other == *name).cloned().collect::<Vec<_>>();
    names.into_iter().flat_map(of).collect()
}

fn same(ours: &Read, theirs: &Read) {
    assert_eq!((&ours.method, &ours.target, &ours.fields), (&theirs.method, &theirs.target, &theirs.fields));
    assert!(theirs.body.is_some(), "Pingora does not read the body");
}
