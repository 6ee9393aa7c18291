//! SIGTERM and SIGINT: the first one ends the work in peace, a second one at once.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::drain::Drain;

/// The program was told twice to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a second signal came: what was not finished is lost")]
pub struct Aborted;

/// The handlers, installed.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Installs the handlers. As the first process of a container one gets no signal without a handler, so do this early.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn install() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Signals `drain` on the first signal and returns on the second.
    pub async fn run(mut self, drain: Drain) -> Aborted {
        self.next().await;
        tracing::info!("told to end: draining");
        drain.signal();
        self.next().await;
        Aborted
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
