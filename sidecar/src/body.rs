//! Bodies as they pass through, frame by frame: counted, never copied, never buffered.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

/// A count of bytes, shared between a body and the record of its call.
#[derive(Clone, Debug, Default)]
pub struct Count(Arc<AtomicU64>);

/// What became of the agent's body, shared between the body and its call.
#[derive(Clone, Debug, Default)]
pub struct Received {
    /// Bytes that were passed on.
    pub count: Count,
    broken: Arc<AtomicBool>,
}

impl Received {
    /// Whether the agent broke off, or its framing broke.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }
}

impl Count {
    /// Bytes so far.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Adds bytes.
    pub fn add(&self, bytes: usize) {
        self.0.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// The body of a request to the API server.
pub enum CallBody {
    /// One of ours: a mint, or nothing.
    Own(Option<Bytes>),
    /// The agent's.
    Agent(Incoming, Received),
}

impl Body for CallBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.get_mut() {
            Self::Own(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Agent(body, received) => {
                let polled = Pin::new(body).poll_frame(cx);
                match &polled {
                    Poll::Ready(Some(Ok(frame))) => {
                        received.count.add(frame.data_ref().map_or(0, Bytes::len))
                    }
                    Poll::Ready(Some(Err(_))) => received.broken.store(true, Ordering::Relaxed),
                    _ => {}
                }
                polled
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own(bytes) => bytes.is_none(),
            Self::Agent(body, _) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Self::Agent(body, _) => body.size_hint(),
        }
    }
}
