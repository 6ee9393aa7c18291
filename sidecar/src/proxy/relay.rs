//! The body of an answer on its way to the agent: each frame as it comes, the record closed when the last one has gone, or when
//! either side breaks off.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::entry::{Entry, Passed};
use super::how;
use crate::body::Received;
use crate::record::outcome;

/// What an agent reads.
pub enum AnswerBody {
    /// An answer of the sidecar's own.
    Own(Option<Bytes>),
    /// The API server's.
    Relay(Box<Relay>),
}

/// Ends a stream before its own end.
pub(super) struct Cut {
    when: Pin<Box<dyn Future<Output = &'static str> + Send>>,
    clean: bool,
}

impl Cut {
    /// `clean` ends the body as the API server ends a watch that is due; otherwise the connection breaks, because half a log
    /// must not look like a whole one.
    pub(super) fn new(
        when: impl Future<Output = &'static str> + Send + 'static,
        clean: bool,
    ) -> Self {
        Self {
            when: Box::pin(when),
            clean,
        }
    }
}

/// The API server's body, and the record that waits for its end.
pub struct Relay {
    body: Incoming,
    cut: Option<Cut>,
    sent: u64,
    pending: Option<Pending>,
}

/// What the closing line needs besides the bytes sent.
pub(super) struct Pending {
    pub(super) entry: Entry,
    pub(super) code: StatusCode,
    pub(super) received: Received,
    pub(super) took: Duration,
}

impl Relay {
    pub(super) fn new(body: Incoming, pending: Pending, cut: Option<Cut>) -> Self {
        Self {
            body,
            cut,
            sent: 0,
            pending: Some(pending),
        }
    }

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

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if let Some(cut) = &mut self.cut
            && let Poll::Ready(outcome) = cut.when.as_mut().poll(cx)
        {
            let clean = cut.clean;
            self.cut = None;
            self.close(outcome);
            let error = || io::Error::other("the stream was cut by the sidecar");
            return Poll::Ready(if clean { None } else { Some(Err(error())) });
        }
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Pending => Poll::Pending,
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
}

impl Drop for Relay {
    fn drop(&mut self) {
        // hyper does not ask for the end of a body whose length it knows.
        let outcome = if self.body.is_end_stream() {
            outcome::COMPLETED
        } else {
            how::CLIENT_DISCONNECTED
        };
        self.close(outcome);
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
            Self::Relay(relay) => relay.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own(bytes) => bytes.is_none(),
            Self::Relay(relay) => relay.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Self::Relay(relay) => relay.body.size_hint(),
        }
    }
}
