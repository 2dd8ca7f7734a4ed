//! An answer as it comes in, piece by piece: its head is read, its body is counted and forgotten.

use httparse::{EMPTY_HEADER, Header, Status};

use super::chunks::Chunks;

/// A head may be that long; balancers themselves refuse heads beyond 8 to 64 KiB.
const HEAD_MAX: usize = 64 * 1_024;

/// Headers of one answer; scripted servers send four, and balancers add a few.
const HEADERS_MAX: usize = 64;

/// The header in which a scripted server says who it is.
const SERVER_HEADER: &str = "x-bench-server";

/// What has come so far.
#[derive(Debug)]
pub(super) struct Answer {
    /// The beginning of a head that did not come in one piece.
    head: Vec<u8>,
    rest: Rest,
    /// Whether anything has come at all.
    pub(super) has_begun: bool,
    /// Meaningful once the head is there.
    pub(super) status: u16,
    /// Which scripted server gave it.
    pub(super) server: Option<usize>,
    /// Bytes of its body so far.
    pub(super) length: u64,
    /// Whether the connection ends with it.
    pub(super) is_last: bool,
}

/// What is still to come.
#[derive(Debug)]
enum Rest {
    Head,
    Bytes(u64),
    Chunks(Chunks),
    /// All until the connection ends.
    UntilClosed,
    Nothing,
}

/// What came is no answer, or it ended before its end.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NoAnswer;

impl Answer {
    pub(super) const fn new() -> Self {
        Self {
            head: Vec::new(),
            rest: Rest::Head,
            has_begun: false,
            status: 0,
            server: None,
            length: 0,
            is_last: false,
        }
    }

    pub(super) const fn is_whole(&self) -> bool {
        matches!(self.rest, Rest::Nothing)
    }

    /// Takes in what has come. More than belongs to the answer is an error: nobody asked for it.
    pub(super) fn feed(&mut self, piece: &[u8]) -> Result<(), NoAnswer> {
        self.has_begun = true;
        match self.rest {
            Rest::Head if self.head.is_empty() => self.read_heads(piece),
            Rest::Head => {
                let mut joined = std::mem::take(&mut self.head);
                joined.extend_from_slice(piece);
                self.read_heads(&joined)
            }
            _ => self.read_body(piece),
        }
    }

    /// The connection has ended: right only for a body that has no other end.
    pub(super) fn end(&mut self) -> Result<(), NoAnswer> {
        if !matches!(self.rest, Rest::UntilClosed | Rest::Nothing) {
            return Err(NoAnswer);
        }
        self.rest = Rest::Nothing;
        Ok(())
    }

    /// More than one when the first are interim answers.
    fn read_heads(&mut self, mut piece: &[u8]) -> Result<(), NoAnswer> {
        while matches!(self.rest, Rest::Head) && !piece.is_empty() {
            let Some(length) = self.read_head(piece)? else {
                self.head = piece.to_vec();
                return if piece.len() > HEAD_MAX { Err(NoAnswer) } else { Ok(()) };
            };
            piece = piece.get(length..).unwrap_or_default();
        }
        self.read_body(piece)
    }

    /// The length of the head, if it is whole.
    fn read_head(&mut self, piece: &[u8]) -> Result<Option<usize>, NoAnswer> {
        let mut headers = [EMPTY_HEADER; HEADERS_MAX];
        let mut head = httparse::Response::new(&mut headers);
        let Status::Complete(length) = head.parse(piece).map_err(|_| NoAnswer)? else { return Ok(None) };
        self.status = head.code.ok_or(NoAnswer)?;
        self.server = None;
        self.is_last = head.version == Some(0);
        self.rest = Rest::UntilClosed;
        for header in &*head.headers {
            self.read_header(header)?;
        }
        match self.status {
            // What comes then is no HTTP any more, and nobody asked for it.
            101 => return Err(NoAnswer),
            100..=199 => self.rest = Rest::Head,
            204 | 304 => self.rest = Rest::Nothing,
            _ if matches!(self.rest, Rest::Bytes(0)) => self.rest = Rest::Nothing,
            _ => {}
        }
        self.is_last |= matches!(self.rest, Rest::UntilClosed);
        Ok(Some(length))
    }

    fn read_header(&mut self, header: &Header<'_>) -> Result<(), NoAnswer> {
        let text = || std::str::from_utf8(header.value).map(str::trim).map_err(|_| NoAnswer);
        if header.name.eq_ignore_ascii_case("content-length") {
            // Where both are given, chunks count.
            if !matches!(self.rest, Rest::Chunks(_)) {
                self.rest = Rest::Bytes(text()?.parse().map_err(|_| NoAnswer)?);
            }
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            let is_chunked = text()?.eq_ignore_ascii_case("chunked");
            self.rest = if is_chunked { Rest::Chunks(Chunks::new()) } else { return Err(NoAnswer) };
        } else if header.name.eq_ignore_ascii_case("connection") {
            self.is_last |= text()?.split(',').any(|word| word.trim().eq_ignore_ascii_case("close"));
        } else if header.name.eq_ignore_ascii_case(SERVER_HEADER) {
            self.server = text()?.parse().ok();
        }
        Ok(())
    }

    fn read_body(&mut self, piece: &[u8]) -> Result<(), NoAnswer> {
        let came = piece.len() as u64;
        match &mut self.rest {
            Rest::Bytes(left) => {
                *left = left.checked_sub(came).ok_or(NoAnswer)?;
                self.length += came;
                if *left == 0 {
                    self.rest = Rest::Nothing;
                }
            }
            Rest::Chunks(chunks) => {
                self.length += chunks.feed(piece)?;
                if chunks.is_done() {
                    self.rest = Rest::Nothing;
                }
            }
            Rest::UntilClosed => self.length += came,
            Rest::Head | Rest::Nothing if came > 0 => return Err(NoAnswer),
            Rest::Head | Rest::Nothing => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fed in pieces of so many bytes.
    fn read(text: &str, piece: usize) -> Result<Answer, NoAnswer> {
        let mut answer = Answer::new();
        text.as_bytes().chunks(piece).try_for_each(|piece| answer.feed(piece))?;
        Ok(answer)
    }

    fn in_all_pieces(text: &str, check: impl Fn(&Answer)) {
        for piece in 1..=text.len() {
            check(&read(text, piece).expect("an answer"));
        }
    }

    #[test]
    fn an_answer_is_read_however_it_comes() {
        in_all_pieces("HTTP/1.1 200 OK\r\nX-Bench-Server: 3\r\nContent-Length: 5\r\n\r\nhello", |answer| {
            assert!(answer.is_whole() && !answer.is_last);
            assert_eq!((answer.status, answer.server, answer.length), (200, Some(3), 5));
        });
        in_all_pieces(
            "HTTP/1.1 503 No\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n2\r\nno\r\n0\r\n\r\n",
            |answer| {
                assert!(answer.is_whole() && answer.is_last);
                assert_eq!((answer.status, answer.server, answer.length), (503, None, 2));
            },
        );
        in_all_pieces("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", |answer| assert!(answer.is_whole()));
        in_all_pieces("HTTP/1.1 204 OK\r\n\r\n", |answer| assert!(answer.is_whole() && !answer.is_last));
    }

    #[test]
    fn an_interim_answer_is_not_the_answer() {
        let text = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n!";
        in_all_pieces(text, |answer| assert!(answer.is_whole() && answer.status == 200));
    }

    #[test]
    fn a_body_without_length_ends_with_the_connection() {
        let mut answer = read("HTTP/1.0 200 OK\r\n\r\nall", 7).expect("an answer");
        assert!(!answer.is_whole());
        assert_eq!(answer.end(), Ok(()));
        assert!(answer.is_whole() && answer.is_last);
        assert_eq!(answer.length, 3);
    }

    #[test]
    fn half_an_answer_is_none() {
        for text in [
            "",
            "HTTP/1.1 200 OK\r\nContent-",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        ] {
            let mut answer = read(text, 100).expect("so far");
            assert!(!answer.is_whole());
            assert_eq!(answer.end(), Err(NoAnswer), "{text:?}");
        }
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        let endless = format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(HEAD_MAX));
        for text in [
            "SSH-2.0-OpenSSH\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\ntoo much",
            "HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
            "HTTP/1.1 101 Switching Protocols\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
            &endless,
        ] {
            assert_eq!(read(text, 4_096).map(|_| ()), Err(NoAnswer), "{:?}", &text[..20.min(text.len())]);
        }
    }
}
