//! Bodies as they pass through, frame by frame: counted, never copied, never buffered.

mod pace;

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

pub use pace::Pace;

use crate::refusal::{Reason, Refusal};

/// A count of bytes, shared between a body and the record of its call.
#[derive(Clone, Debug, Default)]
pub struct Count(Arc<AtomicU64>);

/// What became of the agent's body, shared between the body and its call.
#[derive(Clone, Debug, Default)]
pub struct Received {
    /// Bytes that were passed on.
    pub count: Count,
    fault: Arc<OnceLock<Fault>>,
}

/// Why a body ended before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The agent broke off, or its framing broke.
    #[error("the body broke off")]
    Broken,
    /// The agent took longer than it may.
    #[error("the body came too slowly")]
    Slow,
}

/// A call that failed because of its own body.
impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Broken => Self::new(
                Reason::BadRequest,
                "the body of the request broke off, or its chunks are malformed",
            ),
            Fault::Slow => Self::new(
                Reason::BodyTooSlow,
                "the body of the request came too slowly; have it ready before the request begins",
            ),
        }
    }
}

impl Received {
    /// What went wrong, if anything did.
    #[must_use]
    pub fn fault(&self) -> Option<Fault> {
        self.fault.get().copied()
    }

    fn fail(&self, fault: Fault) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        Poll::Ready(Some(Err(*self.fault.get_or_init(|| fault))))
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
    Agent(AgentBody),
}

/// A body that an agent sends.
pub struct AgentBody {
    body: Incoming,
    received: Received,
    pace: Option<Pace>,
}

impl AgentBody {
    /// `pace` limits how long the agent may take; a stream has no such limit.
    #[must_use]
    pub const fn new(body: Incoming, received: Received, pace: Option<Pace>) -> Self {
        Self {
            body,
            received,
            pace,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        let count = &self.received.count;
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Pending => {
                let pace = self.pace.as_mut();
                match pace.map(|pace| pace.poll_wait(count.get(), cx)) {
                    Some(Poll::Ready(())) => self.received.fail(Fault::Slow),
                    _ => Poll::Pending,
                }
            }
            Poll::Ready(Some(Ok(frame))) => {
                count.add(frame.data_ref().map_or(0, Bytes::len));
                if let Some(pace) = &mut self.pace {
                    pace.arrived();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(_))) => self.received.fail(Fault::Broken),
            Poll::Ready(None) => Poll::Ready(None),
        }
    }
}

impl Body for CallBody {
    type Data = Bytes;
    type Error = Fault;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        match self.get_mut() {
            Self::Own(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Agent(agent) => agent.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own(bytes) => bytes.is_none(),
            Self::Agent(agent) => agent.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Self::Agent(agent) => agent.body.size_hint(),
        }
    }
}
