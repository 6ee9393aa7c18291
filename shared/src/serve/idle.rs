//! Two limits where hyper has one. Its `header_read_timeout` also runs while a kept-alive connection waits for its next
//! request (`State::idle` in `proto/h1/conn.rs` of hyper 1.12), so it would close idle connections under clients that hold
//! them. [`Clock`] gives hyper a timer that takes the long idle limit until the first byte of a head is read, and the short
//! one from there. To know that byte all bytes pass here, so [`Framing`] looks at them here, too.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::rt::{Sleep, Timer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::framing::{Framing, Switched};
use super::metrics::Guard;

/// Whether bytes were read since hyper began to wait for a head.
#[derive(Clone, Debug, Default)]
struct Arrived(Arc<AtomicBool>);

/// The timer of one connection.
#[derive(Clone, Debug)]
pub(super) struct Clock {
    arrived: Arrived,
    head: Duration,
}

/// The byte stream of one connection, and what must live as long as it does.
#[derive(Debug)]
pub(super) struct Watched<T> {
    io: T,
    arrived: Arrived,
    framing: Framing,
    _guard: Guard,
}

/// Joins a byte stream to a timer that knows when its bytes arrive, and to the word that it speaks another protocol now.
pub(super) fn watch<T>(io: T, guard: Guard, head: Duration) -> (Watched<T>, Clock, Switched) {
    let arrived = Arrived::default();
    let clock = Clock {
        arrived: arrived.clone(),
        head,
    };
    let framing = Framing::default();
    let switched = framing.switched();
    let io = Watched {
        io,
        arrived,
        framing,
        _guard: guard,
    };
    (io, clock, switched)
}

impl Timer for Clock {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        self.sleep_until(self.now() + duration)
    }

    fn sleep_until(&self, deadline: std::time::Instant) -> Pin<Box<dyn Sleep>> {
        self.arrived.0.store(false, Ordering::Relaxed);
        Box::pin(HeadSleep {
            sleep: Box::pin(tokio::time::sleep_until(deadline.into())),
            arrived: self.arrived.clone(),
            head: self.head,
            begun: false,
        })
    }

    fn now(&self) -> std::time::Instant {
        Instant::now().into_std()
    }
}

struct HeadSleep {
    sleep: Pin<Box<tokio::time::Sleep>>,
    arrived: Arrived,
    head: Duration,
    begun: bool,
}

impl Sleep for HeadSleep {}

impl Future for HeadSleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if !self.begun && self.arrived.0.load(Ordering::Relaxed) {
            self.begun = true;
            let deadline = self.sleep.deadline().min(Instant::now() + self.head);
            self.sleep.as_mut().reset(deadline);
        }
        self.sleep.as_mut().poll(cx)
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Watched<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.framing.is_broken() {
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(cx, buf);
        let bytes = buf.filled().get(before..).unwrap_or_default();
        if !bytes.is_empty() {
            self.arrived.0.store(true, Ordering::Relaxed);
            if let Err(sound) = self.framing.read(bytes) {
                buf.set_filled(before + sound);
                // No request, no header and no size of a chunk may hold it.
                buf.put_slice(&[0]);
            }
        }
        polled
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Watched<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}
