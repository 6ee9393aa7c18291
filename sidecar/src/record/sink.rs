//! Where lines go: a sink takes bytes, says when it would not block, and can make them durable.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Most bytes of one write: Linux says that a pipe is writable only if that much fits at once (`PIPE_BUF`), so that a write
/// after `ready` does not block, without making a descriptor non-blocking that other processes share.
const ATOMIC: usize = 4096;

/// A place for lines. Only the writing thread uses it.
pub(super) trait Sink: Send {
    /// How many lines are made durable at once.
    fn batch(&self) -> usize;
    /// Called before the first byte of a batch.
    fn begin(&mut self) -> io::Result<()>;
    /// Waits until a write would take something or fail, at most for `limit`.
    fn ready(&mut self, limit: Duration) -> io::Result<bool>;
    /// Takes some of the bytes.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize>;
    /// Makes what was written durable.
    fn sync(&mut self) -> io::Result<()>;
    /// Takes back the batch that failed after this many bytes; whether that worked.
    fn undo(&mut self, written: usize) -> bool;
}

/// A pipe, a terminal or whatever else the program was given.
pub(super) struct Stream<F>(pub(super) F);

impl<F: AsFd + Send> Sink for Stream<F> {
    fn batch(&self) -> usize {
        1
    }

    fn begin(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn ready(&mut self, limit: Duration) -> io::Result<bool> {
        let mut polled = [PollFd::new(&self.0, PollFlags::OUT)];
        let limit = Timespec::try_from(limit).map_err(io::Error::other)?;
        match poll(&mut polled, Some(&limit)) {
            Ok(events) => Ok(events > 0),
            // Asked again by the caller.
            Err(error) if error == rustix::io::Errno::INTR => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let chunk = bytes.get(..ATOMIC).unwrap_or(bytes);
        Ok(rustix::io::write(&self.0, chunk)?)
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn undo(&mut self, written: usize) -> bool {
        written == 0
    }
}
