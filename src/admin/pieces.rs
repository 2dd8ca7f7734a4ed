//! An answer that comes in pieces, as they are told.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::Frame;
use tokio::sync::mpsc;

/// The other end of the channel into which the answer is told.
struct Pieces(mpsc::Receiver<Bytes>);

/// A body, and where its pieces are told. It ends when the sender is dropped; the sender is closed when
/// the client has gone.
pub(super) fn pieces() -> (mpsc::Sender<Bytes>, Body) {
    let (sender, receiver) = mpsc::channel(1);
    (sender, Body::new(Pieces(receiver)))
}

impl HttpBody for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(task).map(|piece| piece.map(|bytes| Ok(Frame::data(bytes))))
    }
}
