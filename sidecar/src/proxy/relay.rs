//! The body of an answer on its way to the agent: each frame as it comes, the record closed when the last one has gone, or when
//! either side breaks off.
//!
//! A body is asked for its next frame only when the agent has read enough of the ones before. So its end in time is a task of its
//! own: an agent that stops reading keeps no connection to the API server, and no record, open for longer than one that reads.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::task::AbortHandle;

use super::entry::{Entry, Passed};
use super::how;
use crate::body::Received;
use crate::record::outcome;

/// What an agent reads.
pub enum AnswerBody {
    /// An answer of the sidecar's own.
    Own(Option<Bytes>),
    /// The API server's.
    Relay(Relay),
}

/// The API server's body, and the record that waits for its end.
pub struct Relay {
    passage: Arc<Mutex<Passage>>,
    cut: AbortHandle,
}

/// What goes through, until it is over.
struct Passage {
    /// `None` once it was cut.
    body: Option<Incoming>,
    sent: u64,
    pending: Option<Pending>,
    /// Whether a cut looks like an end.
    clean: bool,
    reader: Option<Waker>,
}

/// What the closing line needs besides the bytes sent.
pub(super) struct Pending {
    pub(super) entry: Entry,
    pub(super) code: StatusCode,
    pub(super) received: Received,
    pub(super) took: Duration,
}

impl Relay {
    /// `cut` ends the body before its own end. `clean` does it as the API server ends a watch that is due; otherwise the
    /// connection breaks, because half a log must not look like a whole one.
    pub(super) fn new(
        body: Incoming,
        pending: Pending,
        cut: impl Future<Output = &'static str> + Send + 'static,
        clean: bool,
    ) -> Self {
        let passage = Arc::new(Mutex::new(Passage {
            body: Some(body),
            sent: 0,
            pending: Some(pending),
            clean,
            reader: None,
        }));
        let cutting = Arc::clone(&passage);
        let cut = tokio::spawn(async move {
            let outcome = cut.await;
            lock(&cutting).cut(outcome);
        });
        Self {
            passage,
            cut: cut.abort_handle(),
        }
    }
}

fn lock(passage: &Mutex<Passage>) -> MutexGuard<'_, Passage> {
    passage.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Passage {
    fn close(&mut self, outcome: &'static str) {
        if let Some(Pending {
            entry,
            code,
            received,
            took,
        }) = self.pending.take()
        {
            entry.passed(
                outcome,
                &Passed {
                    code,
                    received: received.count.get(),
                    sent: self.sent,
                    took,
                },
            );
        }
    }

    /// Gives up the API server's side at once; the agent hears of it when it reads.
    fn cut(&mut self, outcome: &'static str) {
        if self.pending.is_none() {
            return;
        }
        self.body = None;
        self.close(outcome);
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let Some(body) = &mut self.body else {
            let error = || io::Error::other("the stream was cut by the sidecar");
            return Poll::Ready((!self.clean).then(|| Err(error())));
        };
        match Pin::new(body).poll_frame(cx) {
            Poll::Pending => {
                if !(self.reader.as_ref()).is_some_and(|reader| reader.will_wake(cx.waker())) {
                    self.reader = Some(cx.waker().clone());
                }
                Poll::Pending
            }
            Poll::Ready(Some(Ok(frame))) => {
                self.sent += frame.data_ref().map_or(0, Bytes::len) as u64;
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                self.close(how::UPSTREAM_FAILED);
                Poll::Ready(Some(Err(io::Error::other(error))))
            }
            Poll::Ready(None) => {
                self.close(outcome::COMPLETED);
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_some_and(Body::is_end_stream)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.cut.abort();
        let mut passage = lock(&self.passage);
        // hyper does not ask for the end of a body whose length it knows.
        let outcome = if passage.is_end_stream() {
            outcome::COMPLETED
        } else {
            how::CLIENT_DISCONNECTED
        };
        passage.close(outcome);
        // The task may hold its share for a moment yet.
        passage.body = None;
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match self.get_mut() {
            Self::Own(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Relay(relay) => lock(&relay.passage).poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own(bytes) => bytes.is_none(),
            Self::Relay(relay) => lock(&relay.passage).is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Self::Relay(relay) => {
                let passage = lock(&relay.passage);
                let body = passage.body.as_ref();
                body.map_or_else(SizeHint::default, Body::size_hint)
            }
        }
    }
}
