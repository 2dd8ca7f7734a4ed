//! Header compression (RFC 7541).

use super::{COMPRESSION_ERROR, Case, Seen, begun, connection_error, flag, get, integer, kind};

pub(super) const CASES: &[Case] = &[
    ("hpack/2.3.3/1", "sends an indexed field whose index nobody has", |address| {
        undecodable(address, &[&get()[..], &integer(0x80, 7, 70)].concat())
    }),
    ("hpack/2.3.3/2", "sends a literal whose name's index nobody has", |address| {
        undecodable(address, &[&get()[..], &integer(0x40, 6, 70), b"\x04test"].concat())
    }),
    ("hpack/4.2/1", "sends an update of the table's size at the end of a block", |address| {
        undecodable(address, &[&get()[..], &integer(0x20, 5, 1)].concat())
    }),
    ("hpack/5.2/1", "sends Huffman padding of more than seven bits", |address| {
        undecodable(address, &huffman_value(&[0x49, 0x50, 0x9f, 0xff]))
    }),
    ("hpack/5.2/2", "sends Huffman padding of zeros", |address| {
        undecodable(address, &huffman_value(&[0x49, 0x50, 0x90]))
    }),
    ("hpack/5.2/3", "sends the end of a Huffman string in its middle", |address| {
        undecodable(address, &huffman_value(&[0xff, 0xff, 0xff, 0xff]))
    }),
    ("hpack/6.1/1", "sends an indexed field of index 0", |address| {
        undecodable(address, &[&get()[..], &[0x80]].concat())
    }),
    ("hpack/6.3/1", "sends an update of the table's size beyond what was agreed", |address| {
        undecodable(address, &[&integer(0x20, 5, 4097)[..], &get()].concat())
    }),
];

/// A request with a field whose value is coded so.
fn huffman_value(code: &[u8]) -> Vec<u8> {
    let length = u8::try_from(code.len()).expect("short");
    [&get()[..], b"\0\x06x-test", &[0x80 | length], code].concat()
}

fn undecodable(address: std::net::SocketAddr, block: &[u8]) -> Seen {
    let mut frames = begun(address);
    frames.send_frame(kind::HEADERS, flag::WHOLE, 1, block);
    connection_error(&mut frames, &[COMPRESSION_ERROR])
}
