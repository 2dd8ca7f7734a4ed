//! What two processes say to each other: frames of JSON, each behind its length, over a Unix socket pair; and
//! listening sockets, so many at a time, behind the hello.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream as Plain;
use std::time::Duration;

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::runtime::Legacy;

/// Says to the child that its standard input leads to its predecessor, whose process id it holds. A child of
/// somebody else, to whom it came by inheritance, has another parent.
pub(super) const VARIABLE: &str = "EVENER_PREDECESSOR";

/// Goes up when a version cannot hand over to one that knows only lower ones.
pub(super) const PROTOCOL: u32 = 1;

/// Bytes of a frame: ten times what 10 000 upstreams with full histograms take.
const FRAME_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Sockets at a time. Linux takes 253.
const SOCKETS_PER_MESSAGE: usize = 64;

/// For one message. Both sides only wait for each other, so one that takes longer has stopped.
pub(super) const MESSAGE_TIME: Duration = Duration::from_secs(10);

/// Everything that is said.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "snake_case")]
pub(super) enum Message {
    /// Old to new, first of all; behind it come the sockets.
    Hello(Box<Hello>),
    /// New to old: all is set up, except that nobody accepts yet.
    Ready {
        version: String,
        #[serde(default)]
        generation: u64,
    },
    /// New to old: it will not come to anything.
    Failed { reason: String },
    /// Old to new: accept. With what was counted since the hello.
    Go {
        #[serde(default)]
        counted: Box<Legacy>,
    },
    /// New to old: every listener accepts.
    Serving,
    /// Old to new: what was counted since the last time.
    Counted { number: u64, counted: Box<Legacy> },
    /// New to old: it counts here too.
    Noted { number: u64 },
    /// Said by a version that knows more.
    #[serde(other)]
    Unknown,
}

/// What the new process gets.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Hello {
    pub(super) protocol: u32,
    pub(super) version: String,
    /// The addresses of the sockets, in their order.
    pub(super) sockets: Vec<String>,
    /// Where the old process counts its time from: microseconds of the machine's monotonic clock.
    pub(super) epoch_us: u64,
    #[serde(default)]
    pub(super) legacy: Legacy,
    /// Two digits to the byte: a quarter of what JSON makes of bytes.
    #[serde(default, with = "hex", skip_serializing_if = "Vec::is_empty")]
    pub(super) history: Vec<u8>,
}

/// Bytes as a text.
mod hex {
    use serde::{Deserialize, Deserializer, Serializer};

    const DIGITS: &[u8; 16] = b"0123456789abcdef";

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 0xf]);
        let text: String =
            digits.filter_map(|digit| DIGITS.get(usize::from(digit))).map(|&it| char::from(it)).collect();
        serializer.serialize_str(&text)
    }

    /// What is no such text is nothing.
    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(deserializer)?;
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let pairs = text.as_bytes().chunks_exact(2);
        let bytes = pairs.map(|pair| Some(digit(*pair.first()?)? << 4 | digit(*pair.last()?)?));
        Ok(bytes.collect::<Option<_>>().unwrap_or_default())
    }
}

fn to_frame(message: &Message) -> io::Result<Vec<u8>> {
    let mut frame = vec![0; 4];
    serde_json::to_writer(&mut frame, message)?;
    let length = u32::try_from(frame.len() - 4).map_err(|_| too_long())?;
    frame.splice(..4, length.to_be_bytes());
    Ok(frame)
}

/// What nobody can read is passed over, like what nobody knows.
fn from_frame(frame: &[u8]) -> Message {
    serde_json::from_slice(frame).unwrap_or(Message::Unknown)
}

fn length_of(prefix: [u8; 4]) -> io::Result<usize> {
    usize::try_from(u32::from_be_bytes(prefix))
        .ok()
        .filter(|&length| length <= FRAME_BYTES_MAX)
        .ok_or_else(too_long)
}

fn too_long() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a message is too long")
}

/// Reads the hello and its sockets; for a process that has nothing else to do.
pub(super) fn receive_hello(stream: &mut Plain) -> io::Result<(Hello, Vec<OwnedFd>)> {
    let mut prefix = [0; 4];
    stream.read_exact(&mut prefix)?;
    let mut frame = vec![0; length_of(prefix)?];
    stream.read_exact(&mut frame)?;
    let Message::Hello(hello) = from_frame(&frame) else {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it says no hello that we understand"));
    };
    let mut sockets = Vec::new();
    while sockets.len() < hello.sockets.len() {
        receive_sockets(stream, &mut sockets)?;
    }
    Ok((*hello, sockets))
}

fn receive_sockets(stream: &Plain, sockets: &mut Vec<OwnedFd>) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SOCKETS_PER_MESSAGE))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let received = recvmsg(stream, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let before = sockets.len();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(some) = message {
            sockets.extend(some);
        }
    }
    if received.bytes == 0 || sockets.len() == before {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "sockets are missing"));
    }
    Ok(())
}

/// Says hello, and sends these sockets.
pub(super) async fn send_hello(stream: &mut UnixStream, hello: Hello, sockets: &[RawFd]) -> io::Result<()> {
    stream.write_all(&to_frame(&Message::Hello(Box::new(hello)))?).await?;
    for some in sockets.chunks(SOCKETS_PER_MESSAGE) {
        let send = || {
            let rights = [ControlMessage::ScmRights(some)];
            let sent = sendmsg::<()>(
                stream.as_raw_fd(),
                &[IoSlice::new(b"+")],
                &rights,
                MsgFlags::MSG_NOSIGNAL,
                None,
            );
            sent.map_err(io::Error::from)
        };
        stream.async_io(Interest::WRITABLE, send).await?;
    }
    Ok(())
}

/// The other process, to speak with.
pub(super) struct Link {
    writer: OwnedWriteHalf,
    messages: mpsc::Receiver<Message>,
}

impl Link {
    /// Over a stream on which the hello is done. Within a runtime.
    pub(super) fn over(stream: UnixStream) -> Self {
        let (reader, writer) = stream.into_split();
        let (sender, messages) = mpsc::channel(8);
        // A task of its own, since half a frame must not be lost when somebody waits for something else too.
        tokio::spawn(read_all(reader, sender));
        Self { writer, messages }
    }

    pub(super) async fn say(&mut self, message: &Message) -> io::Result<()> {
        let frame = to_frame(message)?;
        timeout(MESSAGE_TIME, self.writer.write_all(&frame)).await?
    }

    /// `None`: the other process has ended. May be dropped while waiting.
    pub(super) async fn hear(&mut self) -> Option<Message> {
        self.messages.recv().await
    }
}

async fn read_all(mut reader: OwnedReadHalf, sender: mpsc::Sender<Message>) {
    loop {
        let mut prefix = [0; 4];
        if reader.read_exact(&mut prefix).await.is_err() {
            return;
        }
        let Ok(length) = length_of(prefix) else { return };
        let mut frame = vec![0; length];
        if reader.read_exact(&mut frame).await.is_err() || sender.send(from_frame(&frame)).await.is_err() {
            return;
        }
    }
}

/// The way to say why nothing will come of it, wherever that is found out.
pub(super) struct Report(Plain);

impl Report {
    pub(super) const fn over(stream: Plain) -> Self {
        Self(stream)
    }

    pub(super) fn tell(mut self, reason: &str) {
        // Whoever does not hear it sees that we end.
        let failed = Message::Failed { reason: reason.trim().to_owned() };
        let _ = to_frame(&failed).and_then(|frame| self.0.write_all(&frame));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use std::net::TcpListener;
    use std::os::fd::AsFd;

    use super::*;

    fn hello(sockets: usize) -> Hello {
        Hello {
            protocol: PROTOCOL,
            version: "1".to_owned(),
            sockets: (0..sockets).map(|number| format!("127.0.0.1:{number}")).collect(),
            epoch_us: 7,
            legacy: Legacy::default(),
            history: (0..=255).collect(),
        }
    }

    /// As an older version says it, or none that we know.
    #[test]
    fn a_hello_without_a_history_is_one() {
        for more in ["", ", \"history\": \"0x\""] {
            let text = format!(
                "{{\"say\": \"hello\", \"protocol\": 1, \"version\": \"1\", \"sockets\": [], \"epoch_us\": 7{more}}}"
            );
            let Message::Hello(hello) = from_frame(text.as_bytes()) else { panic!("{text}") };
            assert!(hello.history.is_empty());
        }
    }

    /// Pingora's own way ends at 32.
    #[tokio::test]
    async fn sockets_arrive_in_their_order_however_many_they_are() {
        let listeners: Vec<_> = (0..150).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let (old, mut new) = Plain::pair().unwrap();
        old.set_nonblocking(true).unwrap();
        let mut old = UnixStream::from_std(old).unwrap();
        let reading = tokio::task::spawn_blocking(move || receive_hello(&mut new).unwrap());
        let raw: Vec<RawFd> = listeners.iter().map(AsRawFd::as_raw_fd).collect();
        send_hello(&mut old, hello(150), &raw).await.unwrap();
        let (said, sockets) = reading.await.unwrap();
        assert_eq!((said.sockets.len(), said.epoch_us), (150, 7));
        assert_eq!(said.history, (0..=255).collect::<Vec<u8>>());
        for (listener, socket) in listeners.iter().zip(sockets) {
            assert_eq!(TcpListener::from(socket).local_addr().unwrap(), listener.local_addr().unwrap());
        }
    }

    #[test]
    fn a_newer_version_may_say_more() {
        let said = |text: &str| from_frame(text.as_bytes());
        assert!(matches!(said(r#"{"say": "serving", "since": 5}"#), Message::Serving));
        assert!(matches!(
            said(r#"{"say": "ready", "version": "9", "mood": "good"}"#),
            Message::Ready { generation: 0, .. }
        ));
        assert!(matches!(said(r#"{"say": "farewell"}"#), Message::Unknown));
        assert!(matches!(said("nonsense"), Message::Unknown));
    }

    #[test]
    fn whoever_says_something_else_is_refused() {
        for bytes in [&b""[..], b"GET / HTTP/1.1\r\n\r\n", b"\xff\xff\xff\xff", b"\0\0\0\x02{}"] {
            let (mut old, mut new) = Plain::pair().unwrap();
            old.write_all(bytes).unwrap();
            drop(old);
            assert!(receive_hello(&mut new).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn a_hello_without_its_sockets_is_an_error() {
        let (mut old, mut new) = Plain::pair().unwrap();
        old.write_all(&to_frame(&Message::Hello(Box::new(hello(1)))).unwrap()).unwrap();
        old.write_all(b"+").unwrap();
        assert!(old.as_fd().as_raw_fd() > 0);
        assert!(receive_hello(&mut new).is_err());
    }
}
