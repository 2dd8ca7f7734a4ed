//! RFC 9113, by the section numbers of RFC 7540, as h2spec counts.

use super::{
    COMPRESSION_ERROR, Case, FLOW_CONTROL_ERROR, FRAME_SIZE_ERROR, PROTOCOL_ERROR, REFUSED_STREAM,
    STREAM_CLOSED, Seen, answered, begun, closed, connection_error, fields, finish_one, flag, frame, get,
    head, kind, pong, post, refuses_block, setting, settings_payload, sized_post, stream_error, wanted,
};
use crate::rig::frames::Frames;
use std::net::SocketAddr;

/// One byte more than a frame may have here.
const TOO_LARGE: usize = 16_385;

pub(super) const CASES: &[Case] = &[
    ("http2/3.5/1", "sends the preface", |address| {
        let mut frames = Frames::connect_with(address, &[]);
        wanted(&mut frames, |frame| frame.kind == kind::SETTINGS)
    }),
    ("http2/3.5/2", "sends something like a preface", |address| {
        let mut frames = Frames::silent(address).with_patience(super::PATIENCE);
        frames.send("INVALID CONNECTION PREFACE\r\n\r\n");
        // HTTP/1.1 on the same port answers that it does not understand, and hangs up.
        if frames.rest().starts_with(b"HTTP/1.1 400") { Ok(()) } else { Err("no 400".to_owned()) }
    }),
    ("http2/4.1/1", "sends a frame of unknown type", |address| {
        let mut frames = begun(address);
        frames.send_frame(0x16, flag::NONE, 0, &[0; 8]);
        pong(&mut frames)
    }),
    ("http2/4.1/2", "sends a frame with an undefined flag", |address| {
        let mut frames = begun(address);
        frames.send_frame(kind::PING, 0x16, 0, &[1; 8]);
        wanted(&mut frames, |frame| frame.kind == kind::PING && frame.flags & flag::ACK != 0)
    }),
    ("http2/4.1/3", "sends a frame with the reserved bit", |address| {
        let mut frames = begun(address);
        frames.send_frame(kind::PING, flag::NONE, 0x8000_0000, &[1; 8]);
        wanted(&mut frames, |frame| frame.kind == kind::PING && frame.flags & flag::ACK != 0)
    }),
    ("http2/4.2/1", "sends DATA of 2^14 bytes", |address| {
        let mut frames = begun(address);
        frames.send_frame(kind::HEADERS, flag::END_HEADERS, 1, &post());
        frames.send_frame(kind::DATA, flag::END_STREAM, 1, &[0; 16_384]);
        answered(&mut frames, 1)
    }),
    ("http2/4.2/2", "sends DATA beyond SETTINGS_MAX_FRAME_SIZE", |address| {
        let mut frames = begun(address);
        frames.send_frame(kind::HEADERS, flag::END_HEADERS, 1, &post());
        frames.send_frame(kind::DATA, flag::END_STREAM, 1, &[0; TOO_LARGE]);
        stream_error(&mut frames, &[FRAME_SIZE_ERROR])
    }),
    ("http2/4.2/3", "sends HEADERS beyond SETTINGS_MAX_FRAME_SIZE", |address| {
        let mut frames = begun(address);
        let long = "x".repeat(TOO_LARGE);
        frames.send_frame(kind::HEADERS, flag::WHOLE, 1, &head("GET", "/", &[("x-long", &long)]));
        stream_error(&mut frames, &[FRAME_SIZE_ERROR])
    }),
    ("http2/4.3/1", "sends a block that cannot be decoded", |address| {
        let mut frames = begun(address);
        // A name that is longer than the frame.
        frames.send_frame(kind::HEADERS, flag::WHOLE, 1, b"\x00\x7f\x80\x01abc");
        connection_error(&mut frames, &[COMPRESSION_ERROR])
    }),
    ("http2/4.3/2", "sends PRIORITY in a block", |address| {
        in_a_block(address, &frame(kind::PRIORITY, flag::NONE, 1, &[0, 0, 0, 0, 255]))
    }),
    ("http2/4.3/3", "sends HEADERS of another stream in a block", |address| {
        in_a_block(address, &frame(kind::HEADERS, flag::WHOLE, 3, &get()))
    }),
    ("http2/5.1/1", "idle: sends DATA", |address| {
        let mut frames = begun(address);
        frames.send_frame(kind::DATA, flag::END_STREAM, 1, b"test");
        connection_error(&mut frames, &[PROTOCOL_ERROR])
    }),
    ("http2/5.1/2", "idle: sends RST_STREAM", |address| {
        let mut frames = begun(address);
        frames.send_frame(kind::RST_STREAM, flag::NONE, 1, &[0, 0, 0, 8]);
        connection_error(&mut frames, &[PROTOCOL_ERROR])
    }),
    ("http2/5.1/3", "idle: sends WINDOW_UPDATE", |address| {
        let mut frames = begun(address);
        frames.send_frame(kind::WINDOW_UPDATE, flag::NONE, 1, &[0, 0, 0, 100]);
        connection_error(&mut frames, &[PROTOCOL_ERROR])
    }),
    ("http2/5.1/4", "idle: sends CONTINUATION", |address| {
        let mut frames = begun(address);
        frames.send_frame(kind::CONTINUATION, flag::END_HEADERS, 1, &get());
        connection_error(&mut frames, &[PROTOCOL_ERROR])
    }),
    ("http2/5.1/5", "half closed: sends DATA", |address| {
        let mut frames = begun(address);
        frames.get(1, "/");
        frames.send_frame(kind::DATA, flag::END_STREAM, 1, b"test");
        stream_error(&mut frames, &[STREAM_CLOSED])
    }),
    ("http2/5.1/6", "half closed: sends HEADERS", |address| {
        let mut frames = begun(address);
        frames.get(1, "/");
        frames.get(1, "/");
        stream_error(&mut frames, &[STREAM_CLOSED])
    }),
    ("http2/5.1/7", "half closed: sends CONTINUATION", |address| {
        let mut frames = begun(address);
        frames.get(1, "/");
        frames.send_frame(kind::CONTINUATION, flag::END_HEADERS, 1, &get());
        stream_error(&mut frames, &[STREAM_CLOSED, PROTOCOL_ERROR])
    }),
    ("http2/5.1/8", "closed by RST_STREAM: sends DATA", |address| {
        after_reset(address, &frame(kind::DATA, flag::END_STREAM, 1, b"test"), &[STREAM_CLOSED])
    }),
    ("http2/5.1/9", "closed by RST_STREAM: sends HEADERS", |address| {
        after_reset(address, &frame(kind::HEADERS, flag::WHOLE, 1, &get()), &[STREAM_CLOSED])
    }),
    ("http2/5.1/10", "closed by RST_STREAM: sends CONTINUATION", |address| {
        let more = frame(kind::CONTINUATION, flag::END_HEADERS, 1, &get());
        after_reset(address, &more, &[STREAM_CLOSED, PROTOCOL_ERROR])
    }),
    ("http2/5.1/11", "closed: sends DATA", |address| {
        after_answer(address, &frame(kind::DATA, flag::END_STREAM, 1, b"test"), &[STREAM_CLOSED])
    }),
    ("http2/5.1/12", "closed: sends HEADERS", |address| {
        after_answer(address, &frame(kind::HEADERS, flag::WHOLE, 1, &get()), &[STREAM_CLOSED])
    }),
    ("http2/5.1/13", "closed: sends CONTINUATION", |address| {
        let more = frame(kind::CONTINUATION, flag::END_HEADERS, 1, &get());
        after_answer(address, &more, &[STREAM_CLOSED, PROTOCOL_ERROR])
    }),
    ("http2/5.1.1/1", "opens a stream with an even number", |address| {
        let mut frames = begun(address);
        frames.get(2, "/");
        connection_error(&mut frames, &[PROTOCOL_ERROR])
    }),
    ("http2/5.1.1/2", "opens a stream with a lower number than before", |address| {
        let mut frames = begun(address);
        finish_one(&mut frames, 5)?;
        frames.get(3, "/");
        connection_error(&mut frames, &[PROTOCOL_ERROR])
    }),
    ("http2/5.1.2/1", "opens more streams than it may", |address| {
        let mut frames = Frames::connect_with(address, &[]).with_patience(super::PATIENCE);
        let settings = frames.find(|frame| frame.kind == kind::SETTINGS).ok_or("no settings")?;
        let most = settings.setting(setting::MAX_CONCURRENT_STREAMS).ok_or("no limit on streams")?;
        for nth in 0..=most {
            frames.send_frame(kind::HEADERS, flag::END_HEADERS, 2 * nth + 1, &post());
        }
        stream_error(&mut frames, &[PROTOCOL_ERROR, REFUSED_STREAM])
    }),
    ("http2/5.3.1/1", "sends HEADERS that depend on themselves", |address| {
        let mut frames = begun(address);
        let payload = [&[0, 0, 0, 1, 255][..], &get()].concat();
        frames.send_frame(kind::HEADERS, flag::WHOLE | flag::PRIORITY, 1, &payload);
        stream_error(&mut frames, &[PROTOCOL_ERROR])
    }),
    ("http2/5.3.1/2", "sends PRIORITY that depends on itself", |address| {
        let mut frames = begun(address);
        frames.send_frame(kind::PRIORITY, flag::NONE, 2, &[0, 0, 0, 2, 255]);
        stream_error(&mut frames, &[PROTOCOL_ERROR])
    }),
    ("http2/5.4.1/1", "sends a bad PING, for the connection to be closed", |address| {
        let mut frames = begun(address);
        frames.send_frame(kind::PING, flag::NONE, 3, &[0; 8]);
        // Closed indeed, not only said to be.
        frames.wait_for_end();
        Ok(())
    }),
    ("http2/5.4.1/2", "sends a bad PING, for a GOAWAY", |address| {
        let mut frames = begun(address);
        frames.send_frame(kind::PING, flag::NONE, 3, &[0; 8]);
        wanted(&mut frames, |frame| frame.kind == kind::GOAWAY && frame.error_code() == PROTOCOL_ERROR)
    }),
    ("http2/5.5/1", "sends a frame of an extension", |address| {
        let mut frames = begun(address);
        frames.send_frame(0x16, flag::NONE, 0, b"test");
        pong(&mut frames)
    }),
    ("http2/5.5/2", "sends a frame of an extension in a block", |address| {
        in_a_block(address, &frame(0x16, flag::NONE, 0, b"test"))
    }),
    ("http2/6.1/1", "sends DATA on stream 0", |address| {
        let mut frames = begun(address);
        frames.send_frame(kind::DATA, flag::END_STREAM, 0, b"test");
        connection_error(&mut frames, &[PROTOCOL_ERROR])
    }),
    ("http2/6.1/2", "sends DATA on a stream that takes none", |address| {
        let mut frames = begun(address);
        frames.get(1, "/");
        frames.send_frame(kind::DATA, flag::END_STREAM, 1, b"test");
        stream_error(&mut frames, &[STREAM_CLOSED])
    }),
    ("http2/6.1/3", "sends DATA with more padding than payload", |address| {
        let mut frames = begun(address);
        frames.send_frame(kind::HEADERS, flag::END_HEADERS, 1, &post());
        frames.send_frame(kind::DATA, flag::END_STREAM | flag::PADDED, 1, b"\x06test");
        connection_error(&mut frames, &[PROTOCOL_ERROR])
    }),
    ("http2/6.2/1", "sends PRIORITY where a CONTINUATION is due", |address| {
        in_a_block(address, &frame(kind::PRIORITY, flag::NONE, 1, &[0, 0, 0, 0, 255]))
    }),
    ("http2/6.2/2", "sends HEADERS of another stream where a CONTINUATION is due", |address| {
        in_a_block(address, &frame(kind::HEADERS, flag::WHOLE, 3, &get()))
    }),
    ("http2/6.2/3", "sends HEADERS on stream 0", |address| {
        let mut frames = begun(address);
        frames.get(0, "/");
        connection_error(&mut frames, &[PROTOCOL_ERROR])
    }),
    ("http2/6.2/4", "sends HEADERS with more padding than payload", |address| {
        let mut frames = begun(address);
        let payload = [&[255][..], &fields(&[(":method", "GET")])].concat();
        frames.send_frame(kind::HEADERS, flag::WHOLE | flag::PADDED, 1, &payload);
        connection_error(&mut frames, &[PROTOCOL_ERROR])
    }),
    ("http2/6.3/1", "sends PRIORITY on stream 0", |address| {
        let mut frames = begun(address);
        frames.send_frame(kind::PRIORITY, flag::NONE, 0, &[0, 0, 0, 1, 255]);
        connection_error(&mut frames, &[PROTOCOL_ERROR])
    }),
    ("http2/6.3/2", "sends PRIORITY of another length than 5", |address| {
        let mut frames = begun(address);
        frames.send_frame(kind::HEADERS, flag::END_HEADERS, 1, &post());
        frames.send_frame(kind::PRIORITY, flag::NONE, 1, &[0x80, 0, 0, 1]);
        stream_error(&mut frames, &[FRAME_SIZE_ERROR])
    }),
    ("http2/6.4/1", "sends RST_STREAM on stream 0", |address| {
        let mut frames = begun(address);
        frames.send_frame(kind::RST_STREAM, flag::NONE, 0, &[0, 0, 0, 8]);
        connection_error(&mut frames, &[PROTOCOL_ERROR])
    }),
    ("http2/6.4/2", "sends RST_STREAM on an idle stream", |address| {
        let mut frames = begun(address);
        frames.send_frame(kind::RST_STREAM, flag::NONE, 1, &[0, 0, 0, 8]);
        connection_error(&mut frames, &[PROTOCOL_ERROR])
    }),
    ("http2/6.4/3", "sends RST_STREAM of another length than 4", |address| {
        let mut frames = begun(address);
        frames.send_frame(kind::HEADERS, flag::END_HEADERS, 1, &post());
        frames.send_frame(kind::RST_STREAM, flag::NONE, 1, &[0, 0, 0]);
        connection_error(&mut frames, &[FRAME_SIZE_ERROR])
    }),
    ("http2/6.5/1", "acknowledges settings with a payload", |address| {
        let mut frames = begun(address);
        frames.send_frame(kind::SETTINGS, flag::ACK, 0, &[0]);
        connection_error(&mut frames, &[FRAME_SIZE_ERROR])
    }),
    ("http2/6.5/2", "sends SETTINGS on a stream", |address| {
        let mut frames = begun(address);
        frames.send_frame(kind::SETTINGS, flag::NONE, 1, &settings_payload(&[(3, 100)]));
        connection_error(&mut frames, &[PROTOCOL_ERROR])
    }),
    ("http2/6.5/3", "sends SETTINGS of a length that six does not divide", |address| {
        let mut frames = begun(address);
        frames.send_frame(kind::SETTINGS, flag::NONE, 0, &[0, 3, 0]);
        connection_error(&mut frames, &[FRAME_SIZE_ERROR])
    }),
    ("http2/6.5.2/1", "sets ENABLE_PUSH to 2", |address| {
        set(address, (setting::ENABLE_PUSH, 2), PROTOCOL_ERROR)
    }),
    ("http2/6.5.2/2", "sets INITIAL_WINDOW_SIZE to 2^31", |address| {
        set(address, (setting::INITIAL_WINDOW_SIZE, 0x8000_0000), FLOW_CONTROL_ERROR)
    }),
    ("http2/6.5.2/3", "sets MAX_FRAME_SIZE below 2^14", |address| {
        set(address, (setting::MAX_FRAME_SIZE, 16_383), PROTOCOL_ERROR)
    }),
    ("http2/6.5.2/4", "sets MAX_FRAME_SIZE to 2^24", |address| {
        set(address, (setting::MAX_FRAME_SIZE, 0x0100_0000), PROTOCOL_ERROR)
    }),
    ("http2/6.5.2/5", "sets what nobody knows", |address| {
        let mut frames = begun(address);
        frames.send_frame(kind::SETTINGS, flag::NONE, 0, &settings_payload(&[(0xff, 1)]));
        pong(&mut frames)
    }),
    ("http2/6.5.3/1", "sets INITIAL_WINDOW_SIZE twice in one frame", |address| {
        let mut frames = begun(address);
        let twice = [(setting::INITIAL_WINDOW_SIZE, 100), (setting::INITIAL_WINDOW_SIZE, 1)];
        frames.send_frame(kind::SETTINGS, flag::NONE, 0, &settings_payload(&twice));
        frames.get(1, "/");
        wanted(&mut frames, |frame| frame.kind == kind::DATA && frame.payload.len() == 1)
    }),
    ("http2/6.5.3/2", "sends SETTINGS, for them to be acknowledged", |address| {
        let mut frames = begun(address);
        frames.send_frame(kind::SETTINGS, flag::NONE, 0, b"");
        wanted(&mut frames, |frame| frame.kind == kind::SETTINGS && frame.flags & flag::ACK != 0)
    }),
    ("http2/6.7/1", "sends PING", |address| pong(&mut begun(address))),
    ("http2/6.7/2", "sends an answer to a PING that nobody sent", |address| {
        let mut frames = begun(address);
        frames.send_frame(kind::PING, flag::ACK, 0, b"invalid\0");
        pong(&mut frames)
    }),
    ("http2/6.7/3", "sends PING on a stream", |address| {
        let mut frames = begun(address);
        frames.send_frame(kind::PING, flag::NONE, 1, &[0; 8]);
        connection_error(&mut frames, &[PROTOCOL_ERROR])
    }),
    ("http2/6.7/4", "sends PING of another length than 8", |address| {
        let mut frames = begun(address);
        frames.send_frame(kind::PING, flag::NONE, 0, &[0; 6]);
        connection_error(&mut frames, &[FRAME_SIZE_ERROR])
    }),
    ("http2/6.8/1", "sends GOAWAY on a stream", |address| {
        let mut frames = begun(address);
        frames.send_frame(kind::GOAWAY, flag::NONE, 1, &[0; 8]);
        connection_error(&mut frames, &[PROTOCOL_ERROR])
    }),
    ("http2/6.9/1", "opens the connection's window by nothing", |address| {
        let mut frames = begun(address);
        frames.send_frame(kind::WINDOW_UPDATE, flag::NONE, 0, &[0; 4]);
        connection_error(&mut frames, &[PROTOCOL_ERROR])
    }),
    ("http2/6.9/2", "opens a stream's window by nothing", |address| {
        let mut frames = begun(address);
        frames.send_frame(kind::HEADERS, flag::END_HEADERS, 1, &post());
        frames.send_frame(kind::WINDOW_UPDATE, flag::NONE, 1, &[0; 4]);
        stream_error(&mut frames, &[PROTOCOL_ERROR])
    }),
    ("http2/6.9/3", "sends WINDOW_UPDATE of another length than 4", |address| {
        let mut frames = begun(address);
        frames.send_frame(kind::WINDOW_UPDATE, flag::NONE, 0, &[0, 0, 1]);
        connection_error(&mut frames, &[FRAME_SIZE_ERROR])
    }),
    ("http2/6.9.1/1", "sets windows of one byte, and asks for a body", |address| {
        let mut frames = begun(address);
        let small = settings_payload(&[(setting::INITIAL_WINDOW_SIZE, 1)]);
        frames.send_frame(kind::SETTINGS, flag::NONE, 0, &small);
        frames.get(1, "/");
        wanted(&mut frames, |frame| frame.kind == kind::DATA && frame.payload.len() == 1)
    }),
    ("http2/6.9.1/2", "opens the connection's window beyond 2^31-1", |address| {
        let mut frames = begun(address);
        let most = 0x7fff_ffff_u32.to_be_bytes();
        frames.send_frame(kind::WINDOW_UPDATE, flag::NONE, 0, &most);
        frames.send_frame(kind::WINDOW_UPDATE, flag::NONE, 0, &most);
        connection_error(&mut frames, &[FLOW_CONTROL_ERROR])
    }),
    ("http2/6.9.1/3", "opens a stream's window beyond 2^31-1", |address| {
        let mut frames = begun(address);
        let most = 0x7fff_ffff_u32.to_be_bytes();
        frames.send_frame(kind::HEADERS, flag::END_HEADERS, 1, &post());
        frames.send_frame(kind::WINDOW_UPDATE, flag::NONE, 1, &most);
        frames.send_frame(kind::WINDOW_UPDATE, flag::NONE, 1, &most);
        stream_error(&mut frames, &[FLOW_CONTROL_ERROR])
    }),
    ("http2/6.9.2/1", "changes INITIAL_WINDOW_SIZE after the head", |address| {
        let mut frames = begun(address);
        let window = |size| settings_payload(&[(setting::INITIAL_WINDOW_SIZE, size)]);
        frames.send_frame(kind::SETTINGS, flag::NONE, 0, &window(0));
        frames.get(1, "/");
        answered(&mut frames, 1)?;
        frames.send_frame(kind::SETTINGS, flag::NONE, 0, &window(1));
        wanted(&mut frames, |frame| frame.kind == kind::DATA && frame.payload.len() == 1)
    }),
    ("http2/6.9.2/2", "makes a window negative, and opens it again", |address| {
        let mut frames = begun(address);
        let window = |size| settings_payload(&[(setting::INITIAL_WINDOW_SIZE, size)]);
        frames.send_frame(kind::SETTINGS, flag::NONE, 0, &window(3));
        frames.get(1, "/");
        wanted(&mut frames, |frame| frame.kind == kind::DATA && frame.payload.len() == 3)?;
        // 3 - 3 + (2 - 3) = -1, and two more make 1.
        frames.send_frame(kind::SETTINGS, flag::NONE, 0, &window(2));
        frames.send_frame(kind::WINDOW_UPDATE, flag::NONE, 1, &[0, 0, 0, 2]);
        wanted(&mut frames, |frame| frame.kind == kind::DATA && frame.payload.len() == 1)
    }),
    ("http2/6.9.2/3", "makes a window too large by INITIAL_WINDOW_SIZE", |address| {
        set(address, (setting::INITIAL_WINDOW_SIZE, 0xffff_ffff), FLOW_CONTROL_ERROR)
    }),
    ("http2/6.10/1", "sends CONTINUATION frames behind HEADERS", |address| {
        let mut frames = begun(address);
        frames.send_frame(kind::HEADERS, flag::END_STREAM, 1, &get());
        frames.send_frame(kind::CONTINUATION, flag::NONE, 1, &fields(&[("x-a", "1")]));
        frames.send_frame(kind::CONTINUATION, flag::END_HEADERS, 1, &fields(&[("x-b", "2")]));
        answered(&mut frames, 1)
    }),
    ("http2/6.10/2", "sends DATA behind CONTINUATION", |address| {
        let mut frames = begun(address);
        frames.send_frame(kind::HEADERS, flag::NONE, 1, &post());
        frames.send_frame(kind::CONTINUATION, flag::NONE, 1, &fields(&[("x-a", "1")]));
        frames.send_frame(kind::DATA, flag::END_STREAM, 1, b"test");
        connection_error(&mut frames, &[PROTOCOL_ERROR])
    }),
    ("http2/6.10/3", "sends CONTINUATION on stream 0", |address| {
        let mut frames = begun(address);
        frames.send_frame(kind::HEADERS, flag::END_STREAM, 1, &get());
        frames.send_frame(kind::CONTINUATION, flag::END_HEADERS, 0, &fields(&[("x-a", "1")]));
        connection_error(&mut frames, &[PROTOCOL_ERROR])
    }),
    ("http2/6.10/4", "sends CONTINUATION behind whole HEADERS", |address| {
        let mut frames = begun(address);
        frames.send_frame(kind::HEADERS, flag::END_HEADERS, 1, &post());
        frames.send_frame(kind::CONTINUATION, flag::END_HEADERS, 1, &fields(&[("x-a", "1")]));
        connection_error(&mut frames, &[PROTOCOL_ERROR])
    }),
    ("http2/6.10/5", "sends CONTINUATION behind the last CONTINUATION", |address| {
        let mut frames = begun(address);
        frames.send_frame(kind::HEADERS, flag::NONE, 1, &post());
        frames.send_frame(kind::CONTINUATION, flag::END_HEADERS, 1, &fields(&[("x-a", "1")]));
        frames.send_frame(kind::CONTINUATION, flag::END_HEADERS, 1, &fields(&[("x-b", "2")]));
        connection_error(&mut frames, &[PROTOCOL_ERROR])
    }),
    ("http2/6.10/6", "sends CONTINUATION behind DATA", |address| {
        let mut frames = begun(address);
        frames.send_frame(kind::HEADERS, flag::END_HEADERS, 1, &post());
        frames.send_frame(kind::DATA, flag::NONE, 1, b"test");
        frames.send_frame(kind::CONTINUATION, flag::END_HEADERS, 1, &fields(&[("x-a", "1")]));
        connection_error(&mut frames, &[PROTOCOL_ERROR])
    }),
    ("http2/7/1", "sends GOAWAY with an unknown code", |address| {
        let mut frames = begun(address);
        frames.send_frame(kind::GOAWAY, flag::NONE, 0, &[0, 0, 0, 0, 0, 0, 0, 0xff]);
        pong(&mut frames).or_else(|_| closed(&mut frames))
    }),
    ("http2/7/2", "sends RST_STREAM with an unknown code", |address| {
        let mut frames = begun(address);
        frames.send_frame(kind::HEADERS, flag::END_HEADERS, 1, &post());
        frames.send_frame(kind::RST_STREAM, flag::NONE, 1, &[0, 0, 0, 0xff]);
        pong(&mut frames)
    }),
    ("http2/8.1/1", "sends a second HEADERS that does not end the stream", |address| {
        let mut frames = begun(address);
        frames.send_frame(kind::HEADERS, flag::END_HEADERS, 1, &post());
        frames.send_frame(kind::HEADERS, flag::END_HEADERS, 1, &fields(&[("x-a", "1")]));
        stream_error(&mut frames, &[PROTOCOL_ERROR])
    }),
    ("http2/8.1.2/1", "sends a name in capitals", |address| refuses_field(address, ("X-TEST", "ok"))),
    ("http2/8.1.2.1/1", "sends an unknown pseudo-header", |address| refuses_field(address, (":test", "ok"))),
    ("http2/8.1.2.1/2", "sends the pseudo-header of responses", |address| {
        refuses_field(address, (":status", "200"))
    }),
    ("http2/8.1.2.1/3", "sends a pseudo-header as trailer", |address| {
        let mut frames = begun(address);
        frames.send_frame(kind::HEADERS, flag::END_HEADERS, 1, &post());
        frames.send_frame(kind::DATA, flag::NONE, 1, b"test");
        frames.send_frame(kind::HEADERS, flag::WHOLE, 1, &fields(&[(":method", "200")]));
        stream_error(&mut frames, &[PROTOCOL_ERROR])
    }),
    ("http2/8.1.2.1/4", "sends a pseudo-header behind a regular one", |address| {
        let block = fields(&[
            (":method", "GET"),
            (":scheme", "http"),
            (":authority", "play.example"),
            ("x-test", "ok"),
            (":path", "/"),
        ]);
        refuses_block(address, &block)
    }),
    ("http2/8.1.2.2/1", "sends `connection`", |address| refuses_field(address, ("connection", "keep-alive"))),
    ("http2/8.1.2.2/2", "sends `te` that is not `trailers`", |address| {
        refuses_field(address, ("te", "trailers, deflate"))
    }),
    ("http2/8.1.2.3/1", "sends an empty :path", |address| refuses_block(address, &head("GET", "", &[]))),
    ("http2/8.1.2.3/2", "leaves :method out", |address| without(address, ":method")),
    ("http2/8.1.2.3/3", "leaves :scheme out", |address| without(address, ":scheme")),
    ("http2/8.1.2.3/4", "leaves :path out", |address| without(address, ":path")),
    ("http2/8.1.2.3/5", "sends :method twice", |address| twice(address, (":method", "GET"))),
    ("http2/8.1.2.3/6", "sends :scheme twice", |address| twice(address, (":scheme", "http"))),
    ("http2/8.1.2.3/7", "sends :path twice", |address| twice(address, (":path", "/"))),
    ("http2/8.1.2.6/1", "sends one byte, and says there are more", |address| {
        let mut frames = begun(address);
        frames.send_frame(kind::HEADERS, flag::END_HEADERS, 1, &sized_post("1"));
        frames.send_frame(kind::DATA, flag::END_STREAM, 1, b"test");
        stream_error(&mut frames, &[PROTOCOL_ERROR])
    }),
    ("http2/8.1.2.6/2", "sends two frames, and says there is one byte", |address| {
        let mut frames = begun(address);
        frames.send_frame(kind::HEADERS, flag::END_HEADERS, 1, &sized_post("1"));
        frames.send_frame(kind::DATA, flag::NONE, 1, b"test");
        frames.send_frame(kind::DATA, flag::END_STREAM, 1, b"test");
        stream_error(&mut frames, &[PROTOCOL_ERROR])
    }),
    ("http2/8.2/1", "sends PUSH_PROMISE", |address| {
        let mut frames = begun(address);
        let payload = [&[0, 0, 0, 3][..], &get()].concat();
        frames.send_frame(kind::HEADERS, flag::END_HEADERS, 1, &post());
        frames.send_frame(kind::PUSH_PROMISE, flag::END_HEADERS, 1, &payload);
        connection_error(&mut frames, &[PROTOCOL_ERROR])
    }),
];

/// These bytes between a HEADERS frame and the CONTINUATION that should follow.
fn in_a_block(address: SocketAddr, bytes: &[u8]) -> Seen {
    let mut frames = begun(address);
    let opening = frame(kind::HEADERS, flag::NONE, 1, &post());
    let end = frame(kind::CONTINUATION, flag::END_HEADERS, 1, &fields(&[("x-a", "1")]));
    frames.send([&opening, bytes, &end].concat());
    connection_error(&mut frames, &[PROTOCOL_ERROR])
}

fn after_reset(address: SocketAddr, bytes: &[u8], codes: &[u32]) -> Seen {
    let mut frames = begun(address);
    frames.send_frame(kind::HEADERS, flag::END_HEADERS, 1, &post());
    frames.send_frame(kind::RST_STREAM, flag::NONE, 1, &[0, 0, 0, 8]);
    frames.send_if_open(bytes);
    stream_error(&mut frames, codes)
}

fn after_answer(address: SocketAddr, bytes: &[u8], codes: &[u32]) -> Seen {
    let mut frames = begun(address);
    finish_one(&mut frames, 1)?;
    frames.send_if_open(bytes);
    connection_error(&mut frames, codes)
}

fn set(address: SocketAddr, setting: (u16, u32), code: u32) -> Seen {
    let mut frames = begun(address);
    frames.send_frame(kind::SETTINGS, flag::NONE, 0, &settings_payload(&[setting]));
    connection_error(&mut frames, &[code])
}

fn refuses_field(address: SocketAddr, field: (&str, &str)) -> Seen {
    refuses_block(address, &head("GET", "/", &[field]))
}

const PSEUDO: [(&str, &str); 4] =
    [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "play.example")];

fn without(address: SocketAddr, name: &str) -> Seen {
    let rest: Vec<_> = PSEUDO.into_iter().filter(|(other, _)| *other != name).collect();
    refuses_block(address, &fields(&rest))
}

fn twice(address: SocketAddr, field: (&str, &str)) -> Seen {
    refuses_block(address, &fields(&[&PSEUDO[..], &[field]].concat()))
}
