//! The body of an answer: whole, or cut off in the middle.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

/// What is sent after the head.
pub(super) enum Answer {
    /// All of it.
    Whole(Bytes),
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
            Self::Whole(_) => Poll::Ready(None),
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
            Self::Whole(bytes) => bytes.len() as u64,
            Self::Half { promised, .. } => *promised,
        })
    }
}
