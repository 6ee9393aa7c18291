//! The writing thread: takes lines from the queue, chains them, and brings them to the sink in whole. It alone knows the head
//! of the chain. What it was doing when the sink failed it finishes or takes back before anything else.

use std::io;
use std::mem;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tollgate_shared::record::{AuditId, Chain, outcome};

use super::Identity;
use super::call::{Closing, OpenCall};
use super::facts::Facts;
use super::journal::{Found, Journal};
use super::queue::{Ending, Job, Later, Queue};
use super::sink::Sink;

/// Pause after the sink failed, and the longest wait for it at a time.
const RETRY: Duration = Duration::from_millis(100);

pub(super) struct Writer {
    queue: Arc<Queue>,
    sink: Box<dyn Sink>,
    journal: Option<Journal>,
    who: Identity,
    deadline: Duration,
    chain: Chain,
    batch: Batch,
    /// The last attempt did not go through.
    troubled: bool,
}

/// Lines on their way.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    /// How much of `bytes` the sink took.
    written: usize,
    lines: Vec<Line>,
    /// Head of the chain before this batch.
    before: Chain,
    /// From a predecessor: part of the chain already, so it cannot be taken back.
    repeated: bool,
}

struct Line {
    bytes: Range<usize>,
    job: Job,
    audit_id: AuditId,
    sequence: u64,
}

impl Batch {
    const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    fn rest(&self) -> Option<&[u8]> {
        self.bytes
            .get(self.written..)
            .filter(|rest| !rest.is_empty())
    }
}

/// Why a batch is not through yet.
enum Stopped {
    /// The sink takes nothing for now.
    Stuck,
    /// The sink failed.
    Failed(io::Error),
}

impl From<io::Error> for Stopped {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::WouldBlock => Self::Stuck,
            _ => Self::Failed(error),
        }
    }
}

impl Writer {
    pub(super) fn new(
        queue: Arc<Queue>,
        sink: Box<dyn Sink>,
        journal: Option<(Journal, Found)>,
        who: Identity,
        deadline: Duration,
    ) -> Self {
        let (journal, found) = journal.unzip();
        let found = found.unwrap_or_default();
        let mut batch = Batch::default();
        if !found.repeat.is_empty() {
            // On a line of its own, whatever the predecessor left half.
            batch.bytes.push(b'\n');
            batch.bytes.extend_from_slice(&found.repeat);
            batch.repeated = true;
        }
        for (audit_id, facts) in found.open {
            queue.count_open(1);
            queue.later(aborted(audit_id, facts));
        }
        Self {
            queue,
            sink,
            journal,
            who: who.bounded(),
            deadline,
            chain: found.chain,
            batch,
            troubled: false,
        }
    }

    /// Writes until nobody can have more to write.
    pub(super) fn run(mut self) {
        while !self.batch.is_empty() || self.queue.wait().is_some() {
            self.turn();
        }
        self.queue.end();
    }

    /// One batch, or one attempt at it.
    pub(super) fn turn(&mut self) {
        match self.advance() {
            Ok(()) => self.recovered(),
            Err(stopped) => self.stopped(&stopped),
        }
    }

    fn advance(&mut self) -> Result<(), Stopped> {
        self.await_room()?;
        if self.batch.is_empty() {
            self.sink.begin()?;
            self.compose()?;
        }
        while let Some(rest) = self.batch.rest() {
            match self.sink.write(rest) {
                Ok(0) => return Err(io::Error::from(io::ErrorKind::WriteZero).into()),
                Ok(taken) => self.batch.written += taken,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
            if self.batch.rest().is_some() {
                self.await_room()?;
            }
        }
        if !self.batch.is_empty() {
            self.sink.sync()?;
            self.finish();
        }
        Ok(())
    }

    fn await_room(&mut self) -> Result<(), Stopped> {
        if self.sink.ready(self.deadline)? {
            Ok(())
        } else {
            Err(Stopped::Stuck)
        }
    }

    /// Takes lines from the queue into the batch: from here on they are written, unless nothing of them can be.
    fn compose(&mut self) -> Result<(), Stopped> {
        self.batch.before = self.chain;
        while self.batch.lines.len() < self.sink.batch()
            && let Some(job) = self.queue.take()
        {
            let start = self.batch.bytes.len();
            let sealed = seal(self.chain, &job, &self.who, &mut self.batch.bytes);
            let (chain, audit_id) = sealed.map_err(io::Error::other)?;
            self.chain = chain;
            self.batch.lines.push(Line {
                bytes: start..self.batch.bytes.len(),
                job,
                audit_id,
                sequence: chain.sequence,
            });
        }
        match &mut self.journal {
            Some(journal) if !self.batch.is_empty() => Ok(journal.ahead(&self.batch.bytes)?),
            _ => Ok(()),
        }
    }

    /// The whole batch is with the sink: callers go on.
    fn finish(&mut self) {
        let batch = mem::take(&mut self.batch);
        self.queue.count_written(batch.lines.len() as u64);
        for line in batch.lines {
            let bytes = batch.bytes.get(line.bytes).unwrap_or_default();
            let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
            if let Some(journal) = &mut self.journal {
                journal.wrote(line.job.stage(), line.audit_id, line.sequence, bytes);
            }
            match line.job {
                Job::Open { facts, ack, .. } => {
                    let call = OpenCall::new(line.audit_id, facts, Arc::clone(&self.queue));
                    // A caller that has gone leaves the call to its `Drop`, which closes it.
                    drop(ack.send(call));
                }
                Job::Later(later) => later.written(&self.queue),
            }
        }
    }

    fn recovered(&mut self) {
        if mem::take(&mut self.troubled) {
            self.queue.flowing();
            tracing::info!("the record is written again");
        }
    }

    fn stopped(&mut self, stopped: &Stopped) {
        self.queue.refuse_all();
        if !mem::replace(&mut self.troubled, true) {
            match stopped {
                Stopped::Stuck => tracing::error!("nobody reads the record: calls are refused"),
                Stopped::Failed(error) => {
                    tracing::error!(%error, "the record cannot be written: calls are refused");
                }
            }
        }
        if !self.batch.repeated && self.sink.undo(self.batch.written) {
            self.take_back();
        }
        match stopped {
            // Calls are refused without waiting until the sink moves again.
            Stopped::Stuck => while matches!(self.sink.ready(RETRY), Ok(false)) {},
            Stopped::Failed(_) => self.queue.pause(RETRY),
        }
    }

    fn take_back(&mut self) {
        let batch = mem::take(&mut self.batch);
        if !batch.is_empty() {
            self.chain = batch.before;
            if let Some(journal) = &mut self.journal {
                journal.undo();
            }
            self.queue
                .put_back(batch.lines.into_iter().map(|line| line.job));
        }
    }
}

fn seal(
    chain: Chain,
    job: &Job,
    who: &Identity,
    out: &mut Vec<u8>,
) -> Result<(Chain, AuditId), serde_json::Error> {
    match job {
        Job::Open { facts, .. } => {
            let chain = chain.seal(&mut facts.opening(who, SystemTime::now()), out)?;
            Ok((chain, AuditId::of_opening(&chain.hash)))
        }
        Job::Later(later) => Ok((chain.seal(&mut later.event(who), out)?, later.audit_id)),
    }
}

fn aborted(audit_id: AuditId, facts: Facts) -> Later {
    Later {
        audit_id,
        facts: Arc::new(facts),
        minted: None,
        ending: Ending::Closed(Box::new(Closing {
            outcome: outcome::ABORTED,
            ..Closing::default()
        })),
        at: SystemTime::now(),
    }
}
