//! The body of an answer: whole, in pieces, cut off in the middle, or the message of a gRPC call.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use hyper::body::{Body, Frame, SizeHint};

/// What is sent after the head.
pub(super) enum Answer {
    /// All of it.
    Whole(Bytes),
    /// The same bytes over and over, until so many have been sent.
    Pieces {
        /// Sent again and again.
        piece: Bytes,
        /// How many bytes are still to be sent.
        left: u64,
    },
    /// All of it, and that the call went well; `None`: that is said, too.
    Call(Option<Bytes>),
    /// The first half of so many bytes; then the connection breaks.
    Half {
        /// What is still to be sent.
        left: Bytes,
        /// What the head says.
        promised: u64,
        /// Whether what was sent before has had its chance to leave.
        is_flushed: bool,
    },
}

/// The connection ends without the rest of an answer.
#[derive(Debug)]
pub(super) struct Cut;

impl fmt::Display for Cut {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("cut off")
    }
}

impl std::error::Error for Cut {}

impl Answer {
    /// So many bytes, taken from `piece`.
    pub(super) fn of_length(length: u64, piece: &Bytes) -> Self {
        if length == piece.len() as u64 {
            Self::Whole(piece.clone())
        } else {
            Self::Pieces { piece: piece.clone(), left: length }
        }
    }

    /// The half of `body`.
    pub(super) fn half_of(body: &Bytes) -> Self {
        Self::Half { left: body.slice(..body.len() / 2), promised: body.len() as u64, is_flushed: false }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        match &mut *self {
            Self::Whole(bytes) | Self::Half { left: bytes, .. } if !bytes.is_empty() => {
                Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes)))))
            }
            Self::Whole(_) | Self::Pieces { left: 0, .. } | Self::Call(None) => Poll::Ready(None),
            Self::Pieces { piece, left } => {
                let length = usize::try_from(*left).unwrap_or(usize::MAX).min(piece.len());
                *left -= length as u64;
                Poll::Ready(Some(Ok(Frame::data(piece.slice(..length)))))
            }
            Self::Call(message) => {
                let bytes = message.as_mut().map(std::mem::take).unwrap_or_default();
                if bytes.is_empty() {
                    *message = None;
                    return Poll::Ready(Some(Ok(Frame::trailers(went_well()))));
                }
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Self::Half { is_flushed: true, .. } => Poll::Ready(Some(Err(Cut))),
            Self::Half { is_flushed, .. } => {
                // An error at once would take the half with it, which hyper has not written yet.
                *is_flushed = true;
                context.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(bytes) if bytes.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(match self {
            // Trailers follow: no length is said.
            Self::Call(_) => return SizeHint::default(),
            Self::Whole(bytes) => bytes.len() as u64,
            Self::Pieces { left, .. } => *left,
            Self::Half { promised, .. } => *promised,
        })
    }
}

/// `grpc-status: 0`
fn went_well() -> HeaderMap {
    let status = (HeaderName::from_static("grpc-status"), HeaderValue::from_static("0"));
    HeaderMap::from_iter([status])
}
