//! The recorder: a call may go on only once its opening line is written, and closes with exactly one line. A thread of its own
//! writes, so that a reader who stopped reading stops no other work; it alone numbers and chains the lines.
//!
//! Nothing here decides about a call, and no token comes here.

mod call;
mod facts;
mod file;
mod journal;
mod queue;
mod sink;
mod writer;

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::oneshot;
pub use tollgate_shared::record::{AuditId, Decision, ObjectRef, Text, outcome};

pub use self::call::{Closing, OpenCall};
use self::facts::Facts;
pub use self::file::FileConfig;
use self::journal::Journal;
pub use self::journal::StateError;
use self::queue::{Opener, Queue, Ticket};
use self::sink::{Sink, Stream};
use self::writer::Writer;

/// Who we are; part of every line.
#[derive(Clone, Debug)]
pub struct Identity {
    /// As whom calls are made: `system:serviceaccount:<namespace>:<name>`.
    pub username: String,
    /// Name of the pod; without one, `USER@HOST`.
    pub pod: String,
    /// UID of the pod. One chain each, so a recorder without state needs a fresh one for every start.
    pub pod_uid: String,
    /// Namespace of the pod.
    pub namespace: String,
    /// Node of the pod, where there is one.
    pub node: Option<String>,
    /// Whether there is a pod, so that tokens name it and with them the API server's events.
    pub is_pod: bool,
}

/// Where lines go.
#[derive(Clone, Debug)]
pub enum SinkConfig {
    /// Standard output; the program must write nothing else there.
    Stdout,
    /// Standard error, shared with the program's own log.
    Stderr,
    /// A file, synced to disk before a call goes on.
    File(FileConfig),
}

/// All that a recorder needs.
#[derive(Clone, Debug)]
pub struct RecorderConfig {
    /// Who we are.
    pub identity: Identity,
    /// Where lines go.
    pub sink: SinkConfig,
    /// Folder that survives a restart and only we write to; without it a killed recorder's open calls stay open.
    pub state_dir: Option<PathBuf>,
    /// How long a call waits for its opening line.
    pub deadline: Duration,
    /// Whether the words of `exec` commands are written as they are. They often hold passwords.
    pub keep_commands: bool,
}

/// A call that was recognised.
#[derive(Clone, Debug)]
pub struct Opening {
    /// Kubernetes' verb, or the HTTP method in lower case.
    pub verb: String,
    /// Path and query as the agent sent them.
    pub uri: String,
    /// The object, where the path names a resource.
    pub object: Option<ObjectRef<'static>>,
    /// The agent container, where its local token told it.
    pub container: Option<String>,
    /// The agent's `User-Agent`.
    pub user_agent: Option<String>,
    /// The agent's address.
    pub source_ip: Option<IpAddr>,
    /// What was decided.
    pub decision: Decision,
    /// The code of the reason.
    pub reason: &'static str,
    /// What kind of rule decided.
    pub tier: &'static str,
    /// The policy that decided, and its rule.
    pub policy: Option<(String, String)>,
    /// When the request's head was read.
    pub received: SystemTime,
}

/// The opening line could not be written: the call must be refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the record could not be written")]
pub struct RecordUnavailable;

/// Why the recorder does not start.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The record file.
    #[error("cannot open the record file {path} (--record-file): {error}")]
    File {
        /// Its path.
        path: PathBuf,
        /// What the system says.
        #[source]
        error: io::Error,
    },
    /// The state folder.
    #[error(transparent)]
    State(#[from] StateError),
    /// The writing thread.
    #[error("cannot start the record's thread: {0}")]
    Thread(#[source] io::Error),
}

/// Numbers for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Lines written since the start.
    pub written: u64,
    /// Calls refused because their opening line could not be written.
    pub refused: u64,
    /// Calls that are open.
    pub open: u64,
}

/// Writes the record. Clones share one chain.
#[derive(Clone)]
pub struct Recorder {
    queue: Arc<Opener>,
    deadline: Duration,
    keep_commands: bool,
}

impl Recorder {
    /// Starts the writing thread. With a state folder it continues the chain, writes again what may not have reached the sink,
    /// and closes as `aborted` what a predecessor left open.
    ///
    /// # Errors
    /// [`RecordError`]: an unusable file or state folder fails the start.
    pub fn start(config: RecorderConfig) -> Result<Self, RecordError> {
        let sink: Box<dyn Sink> = match config.sink {
            SinkConfig::Stdout => Box::new(Stream(io::stdout())),
            SinkConfig::Stderr => Box::new(Stream(io::stderr())),
            SinkConfig::File(file) => Box::new(file.open()?),
        };
        let journal = config.state_dir.as_deref().map(Journal::load);
        let journal = journal.transpose()?;
        Self::with(
            sink,
            journal,
            config.identity,
            config.deadline,
            config.keep_commands,
        )
    }

    fn with(
        sink: Box<dyn Sink>,
        journal: Option<(Journal, journal::Found)>,
        identity: Identity,
        deadline: Duration,
        keep_commands: bool,
    ) -> Result<Self, RecordError> {
        let queue = Arc::new(Queue::default());
        let writer = Writer::new(Arc::clone(&queue), sink, journal, identity, deadline);
        std::thread::Builder::new()
            .name("record".to_owned())
            .spawn(move || writer.run())
            .map_err(RecordError::Thread)?;
        Ok(Self {
            queue: Arc::new(Opener::new(queue)),
            deadline,
            keep_commands,
        })
    }

    /// Writes the opening line. Resolves once the whole line is written, and on disk where the sink is a file. A caller that
    /// goes away before the first byte leaves no line.
    ///
    /// # Errors
    /// [`RecordUnavailable`] after the deadline, or at once while the sink is known to be stuck or broken.
    pub async fn open(&self, opening: Opening) -> Result<OpenCall, RecordUnavailable> {
        let facts = Arc::new(Facts::new(opening, self.keep_commands));
        let opened = self.wait(facts).await;
        if opened.is_none() {
            self.queue.count_refused();
        }
        opened.ok_or(RecordUnavailable)
    }

    async fn wait(&self, facts: Arc<Facts>) -> Option<OpenCall> {
        let (ack, opened) = oneshot::channel();
        let ticket = Ticket::default();
        self.queue.open(facts, ticket.clone(), ack)?;
        // Dropped with this future, whatever ends it: a line without a caller is not begun.
        let _give_up = ticket.give_up_on_drop();
        match tokio::time::timeout(self.deadline, opened).await {
            Ok(opened) => opened.ok().map(OpenCall::picked_up),
            Err(_) => {
                self.queue.stuck();
                None
            }
        }
    }

    /// Refuses further calls and waits until every open call is closed and every line written, at most for `limit`. What is
    /// left is closed by the successor. Returns whether nothing is left.
    pub async fn shutdown(&self, limit: Duration) -> bool {
        let mut ended = self.queue.drain();
        let all = ended.wait_for(|ended| *ended);
        matches!(tokio::time::timeout(limit, all).await, Ok(Ok(_)))
    }

    /// Numbers for metrics.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.queue.stats()
    }
}

#[cfg(test)]
mod tests;
