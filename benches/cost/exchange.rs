//! One request and its answer, checked to the last byte.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::candidate::ANSWER;

/// What every client here asks.
pub(crate) const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: origin.test\r\n\r\n";

/// Longer than any answer takes that is not lost.
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);

/// Opens a connection, asks once, checks the answer, and leaves the connection open.
pub(crate) fn connection_after_one_request(address: SocketAddr) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(ANSWER_DEADLINE))?;
    ask(&mut stream)?;
    Ok(stream)
}

/// Whether a `GET` is answered with the origin's body.
pub(crate) fn check(address: SocketAddr) -> io::Result<()> {
    connection_after_one_request(address).map(drop)
}

/// Asks once more on a connection.
pub(crate) fn ask(stream: &mut TcpStream) -> io::Result<()> {
    stream.write_all(REQUEST)?;
    let mut answer = Vec::new();
    while !is_whole(&answer) {
        let mut piece = [0; 4096];
        let length = stream.read(&mut piece)?;
        answer.extend_from_slice(piece.get(..length).unwrap_or_default());
        if length == 0 || answer.len() > piece.len() {
            let text = String::from_utf8_lossy(&answer).into_owned();
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("unexpected answer: {text:?}")));
        }
    }
    Ok(())
}

/// Whether the answer is there in full, and right. The head has a length, so that it ends in the body.
pub(crate) fn is_whole(answer: &[u8]) -> bool {
    answer.starts_with(b"HTTP/1.1 200") && answer.ends_with(format!("\r\n\r\n{ANSWER}").as_bytes())
}
