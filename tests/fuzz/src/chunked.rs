//! A chunked body: where we see its end, hyper and Pingora see it too, with the same bytes in it.

use evener::fuzzing::proxy::scan_chunks;

use crate::cuts;
use crate::engines::{by_hyper, by_pingora};

const HEAD: &[u8] = b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
const NEXT: &[u8] = b"GET /next HTTP/1.1\r\nhost: a\r\n\r\n";

pub fn run(bytes: &[u8]) {
    let Some((&seed, bytes)) = bytes.split_first() else { return };
    let scanned = scan_chunks(bytes, &[bytes.len()]);
    assert_eq!(scanned, scan_chunks(bytes, &cuts(bytes.len(), seed)), "in pieces");
    let Some((taken, is_done)) = scanned else { return };
    assert!(taken <= bytes.len());
    if !is_done {
        assert_eq!(taken, bytes.len(), "what is not done takes all");
        assert!(by_hyper(&[HEAD, bytes].concat()).iter().all(|read| read.body.is_none()), "hyper is done");
        return;
    }
    let body = &bytes[..taken];
    let pingora = by_pingora(&[HEAD, body].concat()).expect("the head is fine").body;
    let pingora = pingora.expect("Pingora reads what passes");
    let seen = by_hyper(&[HEAD, body, NEXT].concat());
    // hyper knows fewer kinds of trailers, and says so.
    if let Some(hyper) = seen[0].body.as_ref() {
        assert_eq!(*hyper, pingora, "hyper and Pingora see the same");
        assert_eq!(seen.len(), 2, "and the same end");
        assert_eq!(seen[1].target, b"/next");
    }
}
