//! HTTP/1.1 messages as they stand on the wire: heads, and the three ways a body can end.

use std::io;

use super::wire::{Wire, wrong};

/// Name and value of each header, in order, as sent.
pub(crate) type Headers = Vec<(String, String)>;

/// A start line with its headers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Head {
    pub(crate) start: String,
    pub(crate) headers: Headers,
}

impl Head {
    /// Reads one head; `None` when the stream ends before its first byte.
    pub(crate) fn read(wire: &mut Wire) -> io::Result<Option<Self>> {
        let Some(start) = wire.line()? else { return Ok(None) };
        Ok(Some(Self { start, headers: read_headers(wire)? }))
    }

    /// The first value of a header, its name in any case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.values(name).first().copied()
    }

    /// Every value of a header, in order.
    pub(crate) fn values(&self, name: &str) -> Vec<&str> {
        let named = self.headers.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.as_str()).collect()
    }

    /// Whether the body comes in chunks.
    pub(crate) fn is_chunked(&self) -> bool {
        self.header("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked"))
    }

    /// The announced size of the body; two different ones, or one beside chunks, are an error.
    pub(crate) fn content_length(&self) -> io::Result<Option<usize>> {
        match self.values("content-length")[..] {
            [] => Ok(None),
            [only] if !self.is_chunked() => {
                only.parse().map(Some).map_err(|_| wrong(format!("content-length: {only}")))
            }
            _ => Err(wrong(format!("more than one framing: {:?}", self.headers))),
        }
    }
}

/// What Evener answered, from the status line to the last byte of the body.
#[derive(Clone, Debug, Default)]
pub(crate) struct Response {
    head: Head,
    pub(crate) body: Vec<u8>,
    trailers: Headers,
    /// Status codes of the 1xx answers that came before.
    pub(crate) informational: Vec<u16>,
    /// Whether the body's end is where the connection ended.
    pub(crate) ended_by_close: bool,
}

impl Response {
    /// Reads the answer to a request with this method, and the 1xx answers before it.
    ///
    /// A switch of protocols (101) is an answer with no body; what follows belongs to the tunnel.
    pub(crate) fn read(wire: &mut Wire, method: &str) -> io::Result<Option<Self>> {
        let mut informational = Vec::new();
        loop {
            let Some(head) = Head::read(wire)? else { return Ok(None) };
            let status = status_of(&head)?;
            if status >= 200 || status == 101 {
                let answer = Self { head, informational, ..Self::default() };
                return answer.with_body(wire, method, status).map(Some);
            }
            informational.push(status);
        }
    }

    pub(crate) fn status(&self) -> u16 {
        status_of(&self.head).expect("checked when it was read")
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.header(name)
    }

    /// Every value of a header, in order.
    pub(crate) fn values(&self, name: &str) -> Vec<&str> {
        self.head.values(name)
    }

    pub(crate) fn trailers(&self) -> &Headers {
        &self.trailers
    }

    pub(crate) fn body(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {self}"))
    }

    /// Fails, showing the whole answer, unless it has this status.
    #[track_caller]
    pub(crate) fn expect_status(self, status: u16) -> Self {
        assert_eq!(self.status(), status, "{self}");
        self
    }

    fn with_body(mut self, wire: &mut Wire, method: &str, status: u16) -> io::Result<Self> {
        let length = self.head.content_length()?;
        if method == "HEAD" || matches!(status, 101 | 204 | 304) {
            return Ok(self);
        }
        if self.head.is_chunked() {
            (self.body, self.trailers) = read_chunks(wire)?;
        } else if let Some(length) = length {
            self.body = wire.exactly(length)?;
        } else {
            self.ended_by_close = true;
            self.body = wire.rest()?;
        }
        Ok(self)
    }
}

impl std::fmt::Display for Response {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(formatter, "{}", self.head.start)?;
        for (name, value) in &self.head.headers {
            writeln!(formatter, "{name}: {value}")?;
        }
        write!(formatter, "\n{}", self.body())
    }
}

/// The chunks put together, and the trailers behind them.
pub(crate) fn read_chunks(wire: &mut Wire) -> io::Result<(Vec<u8>, Headers)> {
    let mut body = Vec::new();
    loop {
        let line = wire.line()?.ok_or_else(|| super::wire::cut("between chunks"))?;
        let digits = line.split(';').next().unwrap_or_default();
        let size = usize::from_str_radix(digits, 16).map_err(|_| wrong(format!("chunk size `{line}`")))?;
        if size == 0 {
            return Ok((body, read_headers(wire)?));
        }
        body.extend(wire.exactly(size)?);
        if wire.exactly(2)? != b"\r\n" {
            return Err(wrong("a chunk does not end with CRLF".to_owned()));
        }
    }
}

fn read_headers(wire: &mut Wire) -> io::Result<Headers> {
    let mut headers = Headers::new();
    loop {
        let line = wire.line()?.ok_or_else(|| super::wire::cut("in a head"))?;
        if line.is_empty() {
            return Ok(headers);
        }
        let (name, value) = line.split_once(':').ok_or_else(|| wrong(format!("header `{line}`")))?;
        headers.push((name.to_owned(), value.trim().to_owned()));
    }
}

fn status_of(head: &Head) -> io::Result<u16> {
    let mut words = head.start.split(' ');
    let version = words.next().unwrap_or_default();
    let status = words.next().and_then(|word| word.parse().ok());
    match status {
        Some(status) if version.starts_with("HTTP/1.") && (100..600).contains(&status) => Ok(status),
        _ => Err(wrong(format!("status line `{}`", head.start))),
    }
}
