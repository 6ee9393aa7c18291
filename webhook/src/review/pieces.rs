//! The body of an answer, handed over in pieces: hyper copies what it is given before it is written, and a patch of many containers
//! has megabytes.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

/// Bytes of a piece.
const PIECE: usize = 64 * 1024;

/// The rest of a body.
#[derive(Debug)]
pub struct Pieces(Bytes);

impl From<Vec<u8>> for Pieces {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let size = self.0.len().min(PIECE);
        let piece = self.0.split_to(size);
        Poll::Ready((size > 0).then(|| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    #[tokio::test]
    async fn the_pieces_are_the_whole() {
        for size in [0, 1, PIECE, PIECE + 1, 3 * PIECE] {
            let whole: Vec<u8> = (0..=u8::MAX).cycle().take(size).collect();
            let mut body = Pieces::from(whole.clone());
            let mut got = Vec::new();
            while let Some(frame) = body.frame().await {
                assert!(!body.is_end_stream() || body.size_hint().exact() == Some(0));
                let piece = frame.unwrap().into_data().unwrap();
                assert!((1..=PIECE).contains(&piece.len()));
                got.extend_from_slice(&piece);
            }
            assert_eq!(got, whole);
            assert!(body.is_end_stream());
        }
    }
}
