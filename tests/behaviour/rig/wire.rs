//! A socket of either family, and a reader that remembers every byte it was given.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::tls::TlsStream;

/// A connected stream socket.
#[derive(Debug)]
pub(crate) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<TlsStream>),
}

impl Socket {
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        Ok(match self {
            Self::Tcp(stream) => Self::Tcp(stream.try_clone()?),
            Self::Unix(stream) => Self::Unix(stream.try_clone()?),
            Self::Tls(_) => return Err(io::ErrorKind::Unsupported.into()),
        })
    }

    /// Our end of a TCP connection.
    pub(crate) fn local_address(&self) -> SocketAddr {
        match self {
            Self::Tcp(stream) => stream.local_addr().expect("an address"),
            Self::Tls(stream) => stream.sock.local_addr().expect("an address"),
            Self::Unix(_) => panic!("a Unix socket has no such address"),
        }
    }

    /// How long a read may take; `None`: for ever.
    pub(crate) fn set_read_timeout(&self, timeout: Option<Duration>) {
        let set = match self {
            Self::Tcp(stream) => stream.set_read_timeout(timeout),
            Self::Unix(stream) => stream.set_read_timeout(timeout),
            Self::Tls(stream) => stream.sock.set_read_timeout(timeout),
        };
        set.expect("set a read timeout");
    }

    pub(crate) fn shutdown(&self, how: Shutdown) {
        // The other end may have been faster; then there is nothing left to shut.
        let _ = match self {
            Self::Tcp(stream) => stream.shutdown(how),
            Self::Unix(stream) => stream.shutdown(how),
            Self::Tls(stream) => stream.sock.shutdown(how),
        };
    }

    /// Closes with a reset instead of an orderly end, whatever was not yet sent is lost.
    pub(crate) fn reset(self) {
        match self {
            Self::Tcp(stream) => {
                let socket = tokio::net::TcpSocket::from_std_stream(stream);
                socket.set_zero_linger().expect("set a zero linger");
            }
            Self::Unix(stream) => drop(stream),
            Self::Tls(stream) => Self::Tcp(stream.sock).reset(),
        }
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buffer),
            Self::Unix(stream) => stream.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Unix(stream) => stream.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        if let Self::Tls(stream) = self {
            return stream.flush();
        }
        Ok(())
    }
}

/// Told of every piece as it arrives.
type Tap = Box<dyn FnMut(&[u8]) + Send>;

/// Reads a socket in the pieces of HTTP/1.1, and keeps all that was received.
pub(crate) struct Wire {
    pub(crate) socket: Socket,
    received: Vec<u8>,
    /// Bytes of `received` that were handed out.
    position: usize,
    tap: Tap,
}

impl Wire {
    pub(crate) fn new(socket: Socket) -> Self {
        Self::tapped(socket, Box::new(|_| ()))
    }

    pub(crate) fn tapped(socket: Socket, tap: Tap) -> Self {
        Self { socket, received: Vec::new(), position: 0, tap }
    }

    /// Bytes handed out so far; a mark for [`Self::since`].
    pub(crate) fn position(&self) -> usize {
        self.position
    }

    /// The exact bytes handed out after `mark`.
    pub(crate) fn since(&self, mark: usize) -> &[u8] {
        &self.received[mark..self.position]
    }

    /// Whether bytes have arrived that nobody has asked for yet.
    pub(crate) fn has_more(&self) -> bool {
        self.position < self.received.len()
    }

    /// How many bytes have arrived that nobody has asked for yet.
    pub(crate) fn unread(&self) -> usize {
        self.received.len() - self.position
    }

    /// Waits for at least one byte beyond the position; `false` at the end of the stream.
    pub(crate) fn has_a_byte(&mut self) -> io::Result<bool> {
        Ok(self.has_more() || self.fill()? > 0)
    }

    /// One line without its CRLF; `None` when the stream ends before its first byte.
    ///
    /// A bare LF is an error: everything that Evener sends must end its lines with CRLF.
    pub(crate) fn line(&mut self) -> io::Result<Option<String>> {
        let start = self.position;
        let mut looked_at = start;
        loop {
            if let Some(found) = self.received[looked_at..].iter().position(|&byte| byte == b'\n') {
                self.position = looked_at + found + 1;
                return line_text(&self.received[start..self.position]).map(Some);
            }
            looked_at = self.received.len();
            if self.fill()? == 0 {
                return if looked_at == start { Ok(None) } else { Err(cut("in a line")) };
            }
        }
    }

    /// Exactly `count` bytes.
    pub(crate) fn exactly(&mut self, count: usize) -> io::Result<Vec<u8>> {
        while self.received.len() < self.position + count {
            if self.fill()? == 0 {
                return Err(cut("in a sized body"));
            }
        }
        let start = self.position;
        self.position += count;
        Ok(self.received[start..self.position].to_vec())
    }

    /// Everything up to the end of the stream.
    pub(crate) fn rest(&mut self) -> io::Result<Vec<u8>> {
        while self.fill()? > 0 {}
        let start = self.position;
        self.position = self.received.len();
        Ok(self.received[start..].to_vec())
    }

    /// Gives up the reader; bytes beyond the position go with the socket.
    pub(crate) fn into_parts(self) -> (Socket, Vec<u8>) {
        (self.socket, self.received[self.position..].to_vec())
    }

    fn fill(&mut self) -> io::Result<usize> {
        let mut piece = [0; 16 * 1024];
        loop {
            match self.socket.read(&mut piece) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
                Ok(count) => {
                    self.received.extend_from_slice(&piece[..count]);
                    (self.tap)(&piece[..count]);
                    return Ok(count);
                }
            }
        }
    }
}

fn line_text(line: &[u8]) -> io::Result<String> {
    let text = line.strip_suffix(b"\r\n").ok_or_else(|| wrong(format!("a bare LF ends {line:?}")))?;
    String::from_utf8(text.to_vec()).map_err(|_| wrong(format!("not text: {text:?}")))
}

/// The stream ended where more was due.
pub(super) fn cut(place: &str) -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, format!("the connection ended {place}"))
}

/// The bytes break the protocol.
pub(super) fn wrong(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
