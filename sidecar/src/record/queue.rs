//! What waits for the writing thread. Bounded: opening lines by a fixed number and by failing fast while the sink is stuck,
//! the others by the number of open calls.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::{oneshot, watch};
use tollgate_shared::record::{AuditId, Stage};

use super::Stats;
use super::call::{Closing, Minted, OpenCall};
use super::facts::Facts;

/// Opening lines that may wait at once; more are refused.
const MAX_WAITING: usize = 4096;

/// Work of the writing thread.
pub(super) enum Job {
    /// An opening line, and who waits for it. Dropping `ack` refuses the call.
    Open {
        facts: Arc<Facts>,
        ticket: Ticket,
        ack: oneshot::Sender<OpenCall>,
    },
    /// Any other line; nobody waits.
    Later(Later),
}

/// A later line of an open call.
pub(crate) struct Later {
    pub(crate) audit_id: AuditId,
    pub(crate) facts: Arc<Facts>,
    pub(crate) minted: Option<Minted>,
    pub(crate) ending: Ending,
    pub(crate) at: SystemTime,
}

impl Job {
    pub(super) fn stage(&self) -> Stage {
        match self {
            Self::Open { .. } => Stage::RequestReceived,
            Self::Later(later) => match later.ending {
                Ending::Started(_) => Stage::ResponseStarted,
                Ending::Closed(_) => Stage::ResponseComplete,
            },
        }
    }
}

impl Later {
    pub(super) fn written(self, queue: &Queue) {
        if let Ending::Closed(_) = self.ending {
            queue.count_closed();
        }
    }
}

/// What a later line says.
pub(crate) enum Ending {
    /// A stream began to answer, with this HTTP status.
    Started(u16),
    /// The call is over.
    Closed(Box<Closing>),
}

#[derive(Default)]
pub(super) struct Queue {
    inner: Mutex<Inner>,
    wake: Condvar,
    ended: watch::Sender<bool>,
    written: AtomicU64,
    refused: AtomicU64,
    open: AtomicU64,
}

#[derive(Default)]
struct Inner {
    jobs: VecDeque<Job>,
    waiting: usize,
    /// The sink takes nothing, or failed: opening lines are refused at once.
    stuck: bool,
    draining: bool,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic elsewhere leaves a queue that is still whole: each change is a single step.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn later(&self, later: Later) {
        self.lock().jobs.push_back(Job::Later(later));
        self.wake.notify_one();
    }

    /// Waits for work. `None` once the end was asked for and nothing can come any more.
    pub(super) fn wait(&self) -> Option<()> {
        let mut inner = self.lock();
        while inner.jobs.is_empty() {
            inner.stuck = false;
            if inner.draining && self.open.load(Ordering::SeqCst) == 0 {
                return None;
            }
            inner = self
                .wake
                .wait(inner)
                .unwrap_or_else(PoisonError::into_inner);
        }
        Some(())
    }

    /// The next line whose caller still waits; from here on it will be written.
    pub(super) fn take(&self) -> Option<Job> {
        let mut inner = self.lock();
        while let Some(job) = inner.jobs.pop_front() {
            let Job::Open { ticket, .. } = &job else {
                return Some(job);
            };
            inner.waiting = inner.waiting.saturating_sub(1);
            if ticket.take() {
                return Some(job);
            }
        }
        None
    }

    /// Lines that could not be begun: opening lines are refused, others wait at the front again.
    pub(super) fn put_back(&self, jobs: impl DoubleEndedIterator<Item = Job>) {
        let (refused, later): (Vec<Job>, Vec<Job>) =
            jobs.rev().partition(|job| matches!(job, Job::Open { .. }));
        let mut inner = self.lock();
        for job in later {
            inner.jobs.push_front(job);
        }
        drop(inner);
        drop(refused);
    }

    /// The sink takes nothing, or failed: refuses every waiting opening line, and new ones until [`Self::flowing`].
    pub(super) fn refuse_all(&self) {
        let mut inner = self.lock();
        inner.stuck = true;
        inner.waiting = 0;
        let jobs = std::mem::take(&mut inner.jobs);
        let (refused, later): (VecDeque<Job>, VecDeque<Job>) = jobs
            .into_iter()
            .partition(|job| matches!(job, Job::Open { .. }));
        inner.jobs = later;
        drop(inner);
        drop(refused);
    }

    pub(super) fn flowing(&self) {
        self.lock().stuck = false;
    }

    /// Waits before the next attempt.
    pub(super) fn pause(&self, duration: Duration) {
        let paused = self
            .wake
            .wait_timeout_while(self.lock(), duration, |_| true);
        drop(paused.unwrap_or_else(PoisonError::into_inner));
    }

    pub(super) fn end(&self) {
        self.ended.send_replace(true);
    }

    pub(super) fn count_written(&self, lines: u64) {
        self.written.fetch_add(lines, Ordering::Relaxed);
    }

    pub(super) fn count_open(&self, calls: u64) {
        self.open.fetch_add(calls, Ordering::SeqCst);
    }

    /// A call is over once its closing line is written.
    pub(super) fn count_closed(&self) {
        self.open.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The callers' side of the queue; ends the thread when the last caller is gone.
pub(super) struct Opener(Arc<Queue>);

impl Opener {
    pub(super) const fn new(queue: Arc<Queue>) -> Self {
        Self(queue)
    }

    /// Queues an opening line; `None` where that is known to be in vain.
    pub(super) fn open(
        &self,
        facts: Arc<Facts>,
        ticket: Ticket,
        ack: oneshot::Sender<OpenCall>,
    ) -> Option<()> {
        let mut inner = self.0.lock();
        if inner.stuck || inner.draining || inner.waiting >= MAX_WAITING {
            return None;
        }
        inner.waiting += 1;
        inner.jobs.push_back(Job::Open { facts, ticket, ack });
        drop(inner);
        self.0.wake.notify_one();
        Some(())
    }

    /// A caller waited in vain: others need not.
    pub(super) fn stuck(&self) {
        self.0.lock().stuck = true;
        // If the thread finished that very line just now it says so again.
        self.0.wake.notify_one();
    }

    pub(super) fn drain(&self) -> watch::Receiver<bool> {
        self.0.lock().draining = true;
        self.0.wake.notify_one();
        self.0.ended.subscribe()
    }

    pub(super) fn count_refused(&self) {
        self.0.refused.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn stats(&self) -> Stats {
        Stats {
            written: self.0.written.load(Ordering::Relaxed),
            refused: self.0.refused.load(Ordering::Relaxed),
            open: self.0.open.load(Ordering::SeqCst),
        }
    }
}

impl Drop for Opener {
    fn drop(&mut self) {
        drop(self.drain());
    }
}

/// Decides the race between a caller that gives up and the thread that begins the line.
#[derive(Clone, Default)]
pub(super) struct Ticket(Arc<AtomicU8>);

const WAITING: u8 = 0;
const DECIDED: u8 = 1;

impl Ticket {
    fn take(&self) -> bool {
        let order = Ordering::SeqCst;
        self.0
            .compare_exchange(WAITING, DECIDED, order, order)
            .is_ok()
    }

    pub(super) const fn give_up_on_drop(self) -> GiveUp {
        GiveUp(self)
    }
}

/// Held by the caller while it waits.
pub(super) struct GiveUp(Ticket);

impl Drop for GiveUp {
    fn drop(&mut self) {
        // If the line was begun, it is closed by whoever drops its `OpenCall`.
        let _: bool = self.0.take();
    }
}
