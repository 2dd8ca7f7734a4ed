//! HTTP/2 by hand: frames as bytes, for what no library would send.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// What a client sends first.
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Kinds of frames (RFC 9113 §6).
pub(crate) mod kind {
    pub(crate) const DATA: u8 = 0;
    pub(crate) const HEADERS: u8 = 1;
    pub(crate) const PRIORITY: u8 = 2;
    pub(crate) const RST_STREAM: u8 = 3;
    pub(crate) const SETTINGS: u8 = 4;
    pub(crate) const PUSH_PROMISE: u8 = 5;
    pub(crate) const PING: u8 = 6;
    pub(crate) const GOAWAY: u8 = 7;
    pub(crate) const WINDOW_UPDATE: u8 = 8;
    pub(crate) const CONTINUATION: u8 = 9;
}

/// Flags of frames; ACK is the same bit as `END_STREAM`.
pub(crate) mod flag {
    pub(crate) const NONE: u8 = 0;
    pub(crate) const ACK: u8 = 0x1;
    pub(crate) const END_STREAM: u8 = 0x1;
    pub(crate) const END_HEADERS: u8 = 0x4;
    pub(crate) const PADDED: u8 = 0x8;
    pub(crate) const PRIORITY: u8 = 0x20;
    /// A request without a body, in one frame.
    pub(crate) const WHOLE: u8 = END_STREAM | END_HEADERS;
}

/// A connection on which every byte is ours.
pub(crate) struct Frames {
    socket: TcpStream,
    patience: Duration,
}

/// A frame as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Frames {
    /// Connects, and says nothing.
    pub(crate) fn silent(address: SocketAddr) -> Self {
        let socket = TcpStream::connect(address).expect("connect");
        socket.set_nodelay(true).expect("a socket");
        let frames = Self { socket, patience: Duration::from_secs(60) };
        frames.socket.set_write_timeout(Some(frames.patience)).expect("a timeout");
        frames
    }

    /// Connects, and begins with the preface and these settings.
    pub(crate) fn connect_with(address: SocketAddr, settings: &[(u16, u32)]) -> Self {
        let mut frames = Self::silent(address);
        let settings = frame(kind::SETTINGS, flag::NONE, 0, &settings_payload(settings));
        frames.send([PREFACE, &settings].concat());
        frames
    }

    /// Connects, begins, and waits until the settings are agreed.
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let mut frames = Self::connect_with(address, &[]);
        frames.agree();
        frames
    }

    /// Waits for the server's settings and for the acknowledgement of ours.
    pub(crate) fn agree(&mut self) {
        let (mut theirs, mut ours) = (false, false);
        while !(theirs && ours) {
            let frame = self.read().expect("settings");
            if frame.kind == kind::SETTINGS && frame.flags & flag::ACK == 0 {
                theirs = true;
                self.send_frame(kind::SETTINGS, flag::ACK, 0, b"");
            } else if frame.kind == kind::SETTINGS {
                ours = true;
            }
        }
    }

    /// How long to wait for a frame.
    pub(crate) fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    #[track_caller]
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.socket.write_all(bytes.as_ref()).expect("send");
    }

    /// As [`Self::send`], when the server may have hung up.
    pub(crate) fn send_if_open(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.socket.write_all(bytes.as_ref()).is_ok()
    }

    pub(crate) fn send_frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.send_if_open(frame(kind, flags, stream, payload));
    }

    /// A request without a body.
    pub(crate) fn get(&mut self, stream: u32, path: &str) {
        self.send_frame(kind::HEADERS, flag::WHOLE, stream, &head("GET", path, &[]));
    }

    /// The next frame; `None` when the server has closed, or nothing came in time.
    pub(crate) fn read(&mut self) -> Option<Frame> {
        self.try_read().ok().flatten()
    }

    /// As [`Self::read`]; an error when nothing came in time, or the connection was reset.
    pub(crate) fn try_read(&mut self) -> io::Result<Option<Frame>> {
        self.socket.set_read_timeout(Some(self.patience))?;
        let mut head = [0; 9];
        match self.socket.read_exact(&mut head) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            other => other?,
        }
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let mut payload = vec![0; length];
        self.socket.read_exact(&mut payload)?;
        let stream = u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]);
        Ok(Some(Frame { kind: head[3], flags: head[4], stream, payload }))
    }

    /// Reads on until a frame is as wanted; `None` when the server closes before.
    pub(crate) fn find(&mut self, mut is_wanted: impl FnMut(&Frame) -> bool) -> Option<Frame> {
        let started = Instant::now();
        while started.elapsed() < self.patience {
            let frame = self.read()?;
            if is_wanted(&frame) {
                return Some(frame);
            }
        }
        None
    }

    /// Waits for the end of the connection: the error code of its GOAWAY, if it said one.
    #[track_caller]
    pub(crate) fn wait_for_end(&mut self) -> Option<u32> {
        let mut code = None;
        loop {
            match self.try_read() {
                Ok(Some(frame)) if frame.kind == kind::GOAWAY => code = Some(frame.error_code()),
                Ok(Some(_)) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => panic!("still open"),
                Ok(None) | Err(_) => return code,
            }
        }
    }

    /// Everything that comes until the server closes.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        self.socket.set_read_timeout(Some(self.patience)).expect("a timeout");
        let mut all = Vec::new();
        let _ = self.socket.read_to_end(&mut all);
        all
    }

    /// Another handle of the same connection.
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { socket: self.socket.try_clone()?, patience: self.patience })
    }
}

impl Frame {
    /// The error code of a GOAWAY or `RST_STREAM`.
    pub(crate) fn error_code(&self) -> u32 {
        let at = if self.kind == kind::GOAWAY { 4 } else { 0 };
        self.payload
            .get(at..at + 4)
            .map_or(u32::MAX, |code| u32::from_be_bytes(code.try_into().expect("four bytes")))
    }

    /// The last stream that a GOAWAY lets finish.
    pub(crate) fn last_stream(&self) -> u32 {
        u32::from_be_bytes(self.payload[..4].try_into().expect("four bytes")) & 0x7fff_ffff
    }

    /// The value of one setting.
    pub(crate) fn setting(&self, id: u16) -> Option<u32> {
        self.payload
            .chunks_exact(6)
            .find(|entry| entry[..2] == id.to_be_bytes())
            .map(|entry| u32::from_be_bytes(entry[2..].try_into().expect("four bytes")))
    }

    pub(crate) fn ends_stream(&self) -> bool {
        matches!(self.kind, kind::DATA | kind::HEADERS) && self.flags & flag::END_STREAM != 0
    }
}

/// The bytes of one frame.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a frame").to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// The payload of a SETTINGS frame.
pub(crate) fn settings_payload(settings: &[(u16, u32)]) -> Vec<u8> {
    settings.iter().flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat()).collect()
}

/// The header block of a request, every field a literal that nobody keeps.
pub(crate) fn head(method: &str, path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let pseudo = [(":method", method), (":scheme", "http"), (":path", path), (":authority", "play.example")];
    fields(&[&pseudo[..], more].concat())
}

/// A header block.
pub(crate) fn fields(fields: &[(&str, &str)]) -> Vec<u8> {
    let text = |text: &str| [integer(0, 7, text.len()), text.as_bytes().to_vec()].concat();
    fields.iter().flat_map(|(name, value)| [vec![0], text(name), text(value)].concat()).collect()
}

/// An integer of HPACK (RFC 7541 §5.1) behind these first bits.
pub(crate) fn integer(first: u8, prefix_bits: u32, value: usize) -> Vec<u8> {
    let most = (1_usize << prefix_bits) - 1;
    if value < most {
        return vec![first | u8::try_from(value).expect("small")];
    }
    let mut bytes = vec![first | u8::try_from(most).expect("small")];
    let mut rest = value - most;
    while rest >= 128 {
        bytes.push(u8::try_from(rest % 128).expect("small") | 128);
        rest /= 128;
    }
    bytes.push(u8::try_from(rest).expect("small"));
    bytes
}
