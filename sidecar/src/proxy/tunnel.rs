//! Upgraded connections (exec, attach, port-forward, WebSocket watches): bytes both ways, each half closed on its own, until
//! both ends are done or the stream is cut. Every tunnel has an owner, who waits for it at shutdown.

use std::io;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional};
use tokio::task::JoinSet;

use super::entry::Passed;
use super::how;
use super::relay::Pending;
use crate::body::Count;
use crate::record::outcome;

/// Owns the tasks of all tunnels.
#[derive(Default)]
pub struct Tunnels(Mutex<JoinSet<()>>);

impl Tunnels {
    /// Copies between two connections once both have switched protocols.
    pub(super) fn open(
        &self,
        agent: OnUpgrade,
        upstream: OnUpgrade,
        pending: Pending,
        cut: impl Future<Output = &'static str> + Send + 'static,
    ) {
        let mut tasks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(run(agent, upstream, pending, cut));
    }

    /// Waits for the tunnels; they end by themselves once shutdown was signalled.
    pub async fn ended(&self) {
        let mut tasks = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        while tasks.join_next().await.is_some() {}
    }
}

async fn run(
    agent: OnUpgrade,
    upstream: OnUpgrade,
    pending: Pending,
    cut: impl Future<Output = &'static str>,
) {
    let (received, sent) = (Count::default(), Count::default());
    let copy = async {
        let (agent, upstream) =
            tokio::try_join!(agent, upstream).map_err(|_| how::CLIENT_DISCONNECTED)?;
        let mut agent = Counted {
            io: TokioIo::new(agent),
            read: received.clone(),
        };
        let mut upstream = Counted {
            io: TokioIo::new(upstream),
            read: sent.clone(),
        };
        copy_bidirectional(&mut agent, &mut upstream)
            .await
            .map_err(|_| how::CLIENT_DISCONNECTED)
    };
    let outcome = tokio::select! {
        ended = copy => ended.map_or_else(|outcome| outcome, |_| outcome::COMPLETED),
        outcome = cut => outcome,
    };
    let Pending {
        entry, code, took, ..
    } = pending;
    entry.passed(
        outcome,
        &Passed {
            code,
            received: received.get(),
            sent: sent.get(),
            took,
        },
    );
}

/// Counts what is read, also when the copy is cut.
struct Counted<T> {
    io: T,
    read: Count,
}

impl<T: AsyncRead + Unpin> AsyncRead for Counted<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(cx, buffer);
        self.read.add(buffer.filled().len() - before);
        polled
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Counted<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
