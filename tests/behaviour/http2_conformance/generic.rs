//! What every HTTP/2 server can do.

use super::{
    Case, answered, answered_whole, answers_block, begun, fields, finish_one, flag, frame, get, head,
    integer, kind, pong, post, settings_payload, wanted,
};
use crate::rig::frames::Frames;

pub(super) const CASES: &[Case] = &[
    ("generic/1/1", "sends a connection preface", |address| {
        let mut frames = Frames::connect_with(address, &[]);
        wanted(&mut frames, |frame| frame.kind == kind::SETTINGS)
    }),
    ("generic/2/1", "sends PRIORITY on an idle stream", |address| {
        let mut frames = begun(address);
        frames.send_frame(kind::PRIORITY, flag::NONE, 1, &[0, 0, 0, 0, 255]);
        pong(&mut frames)
    }),
    ("generic/2/2", "sends WINDOW_UPDATE on a half-closed stream", |address| {
        let mut frames = begun(address);
        frames.get(1, "/");
        frames.send_frame(kind::WINDOW_UPDATE, flag::NONE, 1, &[0, 0, 0, 100]);
        answered(&mut frames, 1)
    }),
    ("generic/2/3", "sends PRIORITY on a half-closed stream", |address| {
        let mut frames = begun(address);
        frames.get(1, "/");
        frames.send_frame(kind::PRIORITY, flag::NONE, 1, &[0, 0, 0, 0, 255]);
        answered(&mut frames, 1)
    }),
    ("generic/2/4", "sends RST_STREAM on a half-closed stream", |address| {
        let mut frames = begun(address);
        frames.get(1, "/");
        frames.send_frame(kind::RST_STREAM, flag::NONE, 1, &[0, 0, 0, 8]);
        pong(&mut frames)
    }),
    ("generic/2/5", "sends PRIORITY on a closed stream", |address| {
        let mut frames = begun(address);
        finish_one(&mut frames, 1)?;
        frames.send_frame(kind::PRIORITY, flag::NONE, 1, &[0, 0, 0, 0, 255]);
        pong(&mut frames)
    }),
    ("generic/3.1/1", "sends a DATA frame", |address| {
        let mut frames = begun(address);
        frames.send_frame(kind::HEADERS, flag::END_HEADERS, 1, &post());
        frames.send_frame(kind::DATA, flag::END_STREAM, 1, b"test");
        answered(&mut frames, 1)
    }),
    ("generic/3.1/2", "sends several DATA frames", |address| {
        let mut frames = begun(address);
        frames.send_frame(kind::HEADERS, flag::END_HEADERS, 1, &post());
        frames.send_frame(kind::DATA, flag::NONE, 1, b"test");
        frames.send_frame(kind::DATA, flag::END_STREAM, 1, b"test");
        answered(&mut frames, 1)
    }),
    ("generic/3.1/3", "sends a DATA frame with padding", |address| {
        let mut frames = begun(address);
        frames.send_frame(kind::HEADERS, flag::END_HEADERS, 1, &post());
        frames.send_frame(kind::DATA, flag::END_STREAM | flag::PADDED, 1, b"\x06test\0\0\0\0\0\0");
        answered(&mut frames, 1)
    }),
    ("generic/3.2/1", "sends a HEADERS frame", |address| answers_block(address, &get())),
    ("generic/3.2/2", "sends a HEADERS frame with padding", |address| {
        let mut frames = begun(address);
        let payload = [&[6][..], &get(), &[0; 6]].concat();
        frames.send_frame(kind::HEADERS, flag::WHOLE | flag::PADDED, 1, &payload);
        answered(&mut frames, 1)
    }),
    ("generic/3.2/3", "sends a HEADERS frame with priority", |address| {
        let mut frames = begun(address);
        let payload = [&[0, 0, 0, 0, 255][..], &get()].concat();
        frames.send_frame(kind::HEADERS, flag::WHOLE | flag::PRIORITY, 1, &payload);
        answered(&mut frames, 1)
    }),
    ("generic/3.3/1", "sends PRIORITY with weight 1", |address| prioritised(address, [0, 0, 0, 0, 0])),
    ("generic/3.3/2", "sends PRIORITY with weight 256", |address| prioritised(address, [0, 0, 0, 0, 255])),
    ("generic/3.3/3", "sends PRIORITY with a dependency", |address| prioritised(address, [0, 0, 0, 3, 255])),
    ("generic/3.3/4", "sends PRIORITY, exclusive", |address| prioritised(address, [0x80, 0, 0, 3, 255])),
    ("generic/3.3/5", "sends PRIORITY for an idle stream, then opens a lower one", |address| {
        let mut frames = begun(address);
        frames.send_frame(kind::PRIORITY, flag::NONE, 5, &[0, 0, 0, 0, 255]);
        frames.get(3, "/");
        answered(&mut frames, 3)
    }),
    ("generic/3.4/1", "sends RST_STREAM", |address| {
        let mut frames = begun(address);
        frames.send_frame(kind::HEADERS, flag::END_HEADERS, 1, &post());
        frames.send_frame(kind::RST_STREAM, flag::NONE, 1, &[0, 0, 0, 8]);
        pong(&mut frames)
    }),
    ("generic/3.5/1", "sends SETTINGS", |address| {
        let mut frames = begun(address);
        frames.send_frame(kind::SETTINGS, flag::NONE, 0, &settings_payload(&[(3, 100)]));
        wanted(&mut frames, |frame| frame.kind == kind::SETTINGS && frame.flags & flag::ACK != 0)
    }),
    ("generic/3.7/1", "sends PING", |address| pong(&mut begun(address))),
    ("generic/3.8/1", "sends GOAWAY", |address| {
        let mut frames = begun(address);
        frames.send_frame(kind::GOAWAY, flag::NONE, 0, &[0; 8]);
        // It may close now, or go on until the client does.
        pong(&mut frames).or_else(|_| super::closed(&mut frames))
    }),
    ("generic/3.9/1", "sends WINDOW_UPDATE for the connection", |address| {
        let mut frames = begun(address);
        frames.send_frame(kind::WINDOW_UPDATE, flag::NONE, 0, &[0, 0, 0, 1]);
        pong(&mut frames)
    }),
    ("generic/3.9/2", "sends WINDOW_UPDATE for a stream", |address| {
        let mut frames = begun(address);
        frames.get(1, "/");
        frames.send_frame(kind::WINDOW_UPDATE, flag::NONE, 1, &[0, 0, 0, 1]);
        answered(&mut frames, 1)
    }),
    ("generic/3.10/1", "sends CONTINUATION", |address| continued(address, 1)),
    ("generic/3.10/2", "sends several CONTINUATION frames", |address| continued(address, 3)),
    ("generic/4/1", "sends GET", |address| answers_block(address, &get())),
    ("generic/4/2", "sends HEAD", |address| answers_block(address, &head("HEAD", "/", &[]))),
    ("generic/4/3", "sends POST", |address| {
        let mut frames = begun(address);
        frames.send_frame(kind::HEADERS, flag::END_HEADERS, 1, &post());
        frames.send_frame(kind::DATA, flag::END_STREAM, 1, b"test");
        answered_whole(&mut frames, 1)
    }),
    ("generic/4/4", "sends POST with trailers", |address| {
        let mut frames = begun(address);
        let opening = head("POST", "/", &[("trailer", "x-test")]);
        frames.send_frame(kind::HEADERS, flag::END_HEADERS, 1, &opening);
        frames.send_frame(kind::DATA, flag::NONE, 1, b"test");
        frames.send_frame(kind::HEADERS, flag::WHOLE, 1, &fields(&[("x-test", "ok")]));
        answered_whole(&mut frames, 1)
    }),
    ("generic/5/1", "sends an indexed field", |address| with_field(address, &[0x80 | 16])),
    ("generic/5/2", "sends a literal to be indexed, indexed name", |address| {
        with_field(address, &[&integer(0x40, 6, 58)[..], &plain("test")].concat())
    }),
    ("generic/5/3", "… with Huffman coding", |address| {
        with_field(address, &[&integer(0x40, 6, 58)[..], HUFFMAN_TEST].concat())
    }),
    ("generic/5/4", "sends a literal to be indexed, new name", |address| {
        with_field(address, &[&[0x40][..], &plain("x-test"), &plain("test")].concat())
    }),
    ("generic/5/5", "… with Huffman coding", |address| {
        with_field(address, &[&[0x40][..], HUFFMAN_TEST, HUFFMAN_TEST].concat())
    }),
    ("generic/5/6", "sends a literal not to be indexed, indexed name", |address| {
        with_field(address, &[&integer(0, 4, 58)[..], &plain("test")].concat())
    }),
    ("generic/5/7", "… with Huffman coding", |address| {
        with_field(address, &[&integer(0, 4, 58)[..], HUFFMAN_TEST].concat())
    }),
    ("generic/5/8", "sends a literal not to be indexed, new name", |address| {
        with_field(address, &fields(&[("x-test", "test")]))
    }),
    ("generic/5/9", "… with Huffman coding", |address| {
        with_field(address, &[&[0][..], HUFFMAN_TEST, HUFFMAN_TEST].concat())
    }),
    ("generic/5/10", "sends a literal never to be indexed, indexed name", |address| {
        with_field(address, &[&integer(0x10, 4, 58)[..], &plain("test")].concat())
    }),
    ("generic/5/11", "… with Huffman coding", |address| {
        with_field(address, &[&integer(0x10, 4, 58)[..], HUFFMAN_TEST].concat())
    }),
    ("generic/5/12", "sends a literal never to be indexed, new name", |address| {
        with_field(address, &[&[0x10][..], &plain("x-test"), &plain("test")].concat())
    }),
    ("generic/5/13", "… with Huffman coding", |address| {
        with_field(address, &[&[0x10][..], HUFFMAN_TEST, HUFFMAN_TEST].concat())
    }),
    ("generic/5/14", "sends an update of the table's size", |address| {
        answers_block(address, &[&integer(0x20, 5, 4096)[..], &get()].concat())
    }),
    ("generic/5/15", "sends two updates of the table's size", |address| {
        answers_block(address, &[&integer(0x20, 5, 128)[..], &integer(0x20, 5, 4096), &get()].concat())
    }),
];

/// The string `test`, Huffman-coded (RFC 7541 Appendix B: 01001 00101 01000 01001, padded with ones).
const HUFFMAN_TEST: &[u8] = &[0x83, 0x49, 0x50, 0x9f];

fn plain(text: &str) -> Vec<u8> {
    [integer(0, 7, text.len()), text.as_bytes().to_vec()].concat()
}

fn with_field(address: std::net::SocketAddr, field: &[u8]) -> super::Seen {
    answers_block(address, &[&get(), field].concat())
}

fn prioritised(address: std::net::SocketAddr, payload: [u8; 5]) -> super::Seen {
    let mut frames = begun(address);
    frames.send_frame(kind::PRIORITY, flag::NONE, 1, &payload);
    frames.get(1, "/");
    answered(&mut frames, 1)
}

/// A head in so many frames more.
fn continued(address: std::net::SocketAddr, more: usize) -> super::Seen {
    let mut frames = begun(address);
    let mut bytes = frame(kind::HEADERS, flag::END_STREAM, 1, &get());
    for nth in 1..=more {
        let flags = if nth == more { flag::END_HEADERS } else { flag::NONE };
        bytes.extend(frame(kind::CONTINUATION, flags, 1, &fields(&[("x-more", "test")])));
    }
    frames.send(bytes);
    answered(&mut frames, 1)
}
