//! `grpc.health.v1.Health/Check`: the service must be `SERVING`.
//!
//! The two messages have one field each, so they are written and read here; a protobuf library would bring a
//! code generator for them.

use bytes::{BufMut, Bytes, BytesMut};
use http::HeaderMap;
use http::header::{self, HeaderName, HeaderValue};
use pingora::protocols::http::client::HttpSession;
use pingora::{Error, ErrorType};

use super::Answer;
use super::question::{Call, failed};

/// What is asked.
pub(super) struct Question<'a> {
    /// Empty: the server as a whole.
    pub service: &'a str,
    pub host: Option<&'a str>,
    pub headers: &'a [(HeaderName, HeaderValue)],
}

/// Bytes of an answer that are looked at: it has seven.
const ANSWER_BYTES_MAX: usize = 4 * 1024;

const METHOD: &str = "/grpc.health.v1.Health/Check";

/// What the server said.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    /// `grpc-status` and `grpc-message`.
    Status(u32, String),
    /// No call of gRPC at all: the status of HTTP.
    Http(u16),
    /// `HealthCheckResponse.status`.
    Health(u64),
    /// Something else.
    Garbage,
}

/// Asks on a fresh connection: a kept one would not notice that nobody accepts any more.
pub(super) async fn ask(call: &Call<'_>, question: &Question<'_>) -> Answer {
    match said(call, question).await {
        Ok(said) => said.verdict(question.service),
        Err(error) => failed(&error),
    }
}

impl Said {
    fn verdict(self, service: &str) -> Answer {
        const SERVING: u64 = 1;
        Answer::Sick(match self {
            Self::Health(SERVING) => return Answer::Well,
            Self::Health(status) => word(status),
            Self::Status(5, _) => format!("the server knows no service `{service}`"),
            Self::Status(12, _) => {
                "the server does not implement grpc.health.v1.Health; register that service \
                                    with it, or check with a TCP connect"
                    .to_owned()
            }
            Self::Status(code, message) if message.is_empty() => format!("grpc-status {code}"),
            Self::Status(code, message) => format!("grpc-status {code}: {message}"),
            Self::Http(status) => format!("status {status} instead of a gRPC answer"),
            Self::Garbage => "not an answer of grpc.health.v1.Health".to_owned(),
        })
    }
}

/// The words of `HealthCheckResponse.ServingStatus`.
fn word(status: u64) -> String {
    match status {
        0 => "UNKNOWN".to_owned(),
        2 => "NOT_SERVING".to_owned(),
        3 => "SERVICE_UNKNOWN".to_owned(),
        other => format!("serving status {other}"),
    }
}

async fn said(call: &Call<'_>, question: &Question<'_>) -> pingora::Result<Said> {
    let mut request = call.request("POST", METHOD, question.host, question.headers)?;
    request.insert_header(header::CONTENT_TYPE, "application/grpc")?;
    request.insert_header(header::TE, "trailers")?;
    let mut session = call.begin(request).await?;
    session.write_request_body(framed(&request_of(question.service)), true).await?;
    session.read_response_header().await?;
    let Some(head) = session.response_header() else { return Ok(Said::Garbage) };
    if head.status != 200 {
        return Ok(Said::Http(head.status.as_u16()));
    }
    if let Some(status) = status_in(&head.headers) {
        // Without a message, the head is all there is.
        return Ok(status);
    }
    let message = body(&mut session).await?;
    let trailers = match &mut session {
        HttpSession::H2(session) => session.read_trailers().await?,
        _ => None,
    };
    session.shutdown().await;
    Ok(match trailers.as_ref().and_then(status_in) {
        Some(Said::Status(0, _)) => answer_in(&message).map_or(Said::Garbage, Said::Health),
        Some(failure) => failure,
        None => Said::Garbage,
    })
}

async fn body(session: &mut HttpSession) -> pingora::Result<Bytes> {
    let mut all = BytesMut::new();
    while let Some(piece) = session.read_response_body().await? {
        all.put(piece);
        if all.len() > ANSWER_BYTES_MAX {
            return Err(Error::explain(ErrorType::ReadError, "the answer is too long"));
        }
    }
    Ok(all.freeze())
}

fn status_in(headers: &HeaderMap) -> Option<Said> {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let code = text("grpc-status")?.parse().ok()?;
    Some(Said::Status(code, text("grpc-message").unwrap_or_default().to_owned()))
}

/// `HealthCheckRequest { string service = 1; }`
fn request_of(service: &str) -> Vec<u8> {
    const SERVICE_AS_BYTES: u8 = 1 << 3 | 2;
    let mut message = Vec::new();
    if !service.is_empty() {
        message.push(SERVICE_AS_BYTES);
        // Two pieces of seven bits do: names have at most a thousand bytes.
        match service.len().to_le_bytes() {
            [low, 0, ..] if low < 0x80 => message.push(low),
            [low, high, ..] => message.extend([low | 0x80, high << 1 | low >> 7]),
        }
        message.extend_from_slice(service.as_bytes());
    }
    message
}

/// A message as gRPC sends it: not compressed, with its length.
fn framed(message: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(5 + message.len());
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).unwrap_or_default());
    frame.put_slice(message);
    frame.freeze()
}

/// `HealthCheckResponse { ServingStatus status = 1; }` in its frame; other fields are passed over.
fn answer_in(frame: &[u8]) -> Option<u64> {
    let (&[compressed, a, b, c, d], message) = frame.split_first_chunk::<5>()?;
    let is_whole = u32::from_be_bytes([a, b, c, d]) as usize == message.len();
    let mut rest = (compressed == 0 && is_whole).then_some(message)?;
    let mut status = 0;
    while !rest.is_empty() {
        let key = varint(&mut rest)?;
        match (key >> 3, key & 7) {
            (1, 0) => status = varint(&mut rest)?,
            (_, 0) => drop(varint(&mut rest)?),
            (_, 1) => rest = rest.get(8..)?,
            (_, 2) => {
                let length = usize::try_from(varint(&mut rest)?).ok()?;
                rest = rest.get(length..)?;
            }
            (_, 5) => rest = rest.get(4..)?,
            _ => return None,
        }
    }
    Some(status)
}

/// Takes a number off the front.
fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, after) = rest.split_first()?;
        *rest = after;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_request_names_its_service_in_protobuf() {
        assert_eq!(*framed(&request_of("")), [0, 0, 0, 0, 0]);
        assert_eq!(*framed(&request_of("ab")), [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        let long = request_of(&"x".repeat(300));
        assert_eq!((&long[..3], long.len()), (&[0x0a, 0xac, 0x02][..], 303));
    }

    #[test]
    fn an_answer_is_read_whatever_else_it_holds() {
        assert_eq!(answer_in(&framed(&[8, 1])), Some(1));
        assert_eq!(answer_in(&framed(&[])), Some(0), "the default is left out");
        assert_eq!(answer_in(&framed(&[0x12, 1, b'x', 0x1d, 1, 2, 3, 4, 8, 2])), Some(2));
        for broken in [&[][..], &[0, 0, 0, 0, 2, 8], &[1, 0, 0, 0, 2, 8, 1], &[0, 0, 0, 0, 1, 8]] {
            assert_eq!(answer_in(broken), None, "{broken:?}");
        }
    }

    proptest! {
        #[test]
        fn no_answer_makes_it_panic(bytes: Vec<u8>) {
            let _ = answer_in(&bytes);
            let _ = answer_in(&framed(&bytes));
        }
    }
}
