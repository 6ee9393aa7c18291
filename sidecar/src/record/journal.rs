//! The state that survives a kill: each batch of lines is appended here before its first byte goes to the sink. A successor
//! finds the head of the chain, the batch that may not have reached the sink, and the calls that are still open.
//!
//! The file lies in a memory volume that only the sidecar mounts, so there is no fsync, and a kill leaves whole what a
//! finished `write` took. A file that is damaged in any other way fails the start: to begin a new chain in silence would be
//! what whoever damaged it wants.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use tollgate_shared::record::{AuditId, BadLine, Chain, Digest, Event, Stage, check, parse};

use super::facts::Facts;

const NAME: &str = "record.journal";
/// Rewritten without closed calls from this size on, or twice the size of what is open.
const COMPACT: u64 = 256 * 1024;

/// Why the state is of no use.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The system refuses.
    #[error("cannot use the record's state {path} (--state-dir): {error}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        error: io::Error,
    },
    /// Damaged.
    #[error(
        "the record's state {path} (--state-dir) is damaged: its line {line} {error}; the pod must be deleted"
    )]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        #[source]
        error: BadLine,
    },
}

/// What a predecessor left.
#[derive(Default)]
pub(super) struct Found {
    /// The head of the chain, `repeat` included.
    pub(super) chain: Chain,
    /// The last batch: to be written again.
    pub(super) repeat: Vec<u8>,
    /// Calls without a closing line.
    pub(super) open: Vec<(AuditId, Facts)>,
}

pub(super) struct Journal {
    path: PathBuf,
    file: File,
    /// End of the last whole batch.
    len: u64,
    /// End of the batch before the one that [`Self::ahead`] took last.
    before: u64,
    /// What `file` holds beyond `len` may be garbage.
    dirty: bool,
    /// Opening lines of open calls, with their numbers.
    open: BTreeMap<(u64, AuditId), Box<[u8]>>,
    /// Numbers of the open calls.
    numbers: BTreeMap<AuditId, u64>,
    /// Bytes of the opening lines of open calls.
    live: usize,
    last: Vec<u8>,
}

impl Journal {
    pub(super) fn load(folder: &Path) -> Result<(Self, Found), StateError> {
        let path = folder.join(NAME);
        let failed = |error| StateError::Io {
            path: path.clone(),
            error,
        };
        let file = create(&path, false).map_err(failed)?;
        let mut bytes = fs::read(&path).map_err(failed)?;
        // A kill in the middle of an append: that batch never reached the sink.
        let whole = bytes
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |at| at + 1);
        bytes.truncate(whole);
        let mut journal = Self {
            path: path.clone(),
            file,
            len: whole as u64,
            before: whole as u64,
            dirty: true,
            open: BTreeMap::new(),
            numbers: BTreeMap::new(),
            live: 0,
            last: Vec::new(),
        };
        let found = journal
            .replay(&bytes)
            .map_err(|(line, error)| StateError::Line { path, line, error })?;
        Ok((journal, found))
    }
}

impl Journal {
    fn replay(&mut self, bytes: &[u8]) -> Result<Found, (usize, BadLine)> {
        let mut found = Found::default();
        let mut scratch = Vec::new();
        let mut repeat = 0;
        let mut at = 0;
        for (number, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
            at += line.len() + 1;
            if line.is_empty() {
                // The last split is the empty rest behind the last line feed.
                repeat = if at <= bytes.len() { at } else { repeat };
                continue;
            }
            let event = read(line, &mut scratch).map_err(|error| (number + 1, error))?;
            found.chain = Chain {
                sequence: event.annotations.sequence.0,
                hash: event.annotations.hash.unwrap_or(Digest::ZERO),
            };
            if let Some(id) = event.audit_id {
                self.wrote(event.stage, id, found.chain.sequence, line);
            }
        }
        found.repeat = bytes.get(repeat..).unwrap_or_default().to_vec();
        for ((_, id), line) in &self.open {
            let event = read(line, &mut scratch).map_err(|error| (0, error))?;
            found.open.push((*id, Facts::of_event(&event)));
        }
        Ok(found)
    }

    /// Appends a batch of whole lines, before any byte of it goes to the sink.
    pub(super) fn ahead(&mut self, batch: &[u8]) -> io::Result<()> {
        self.before = self.len;
        if self.len > COMPACT.max(2 * self.live as u64) && self.compact().is_err() {
            // No room for a second file: the first one just grows.
            self.dirty = true;
        }
        if self.dirty {
            self.file.set_len(self.len)?;
            self.dirty = false;
        }
        let entry = [b"\n", batch].concat();
        self.dirty = true;
        self.file.write_all_at(&entry, self.len)?;
        self.dirty = false;
        self.len += entry.len() as u64;
        Ok(())
    }

    /// Forgets the batch that [`Self::ahead`] appended: its first byte never reached the sink.
    pub(super) fn undo(&mut self) {
        self.len = self.before;
        self.dirty = self.file.set_len(self.len).is_err();
    }

    /// A line has reached the sink.
    pub(super) fn wrote(&mut self, stage: Stage, id: AuditId, number: u64, line: &[u8]) {
        match stage {
            Stage::RequestReceived => {
                self.numbers.insert(id, number);
                self.live += line.len();
                self.open.insert((number, id), line.into());
            }
            Stage::ResponseStarted => {}
            Stage::ResponseComplete => {
                let number = self.numbers.remove(&id);
                let opening = self.open.remove(&(number.unwrap_or_default(), id));
                self.live -= opening.map_or(0, |line| line.len());
            }
        }
        self.last.clear();
        self.last.extend_from_slice(line);
    }

    /// A new file with the open calls and the head of the chain, all of it written.
    pub(super) fn compact(&mut self) -> io::Result<()> {
        let mut bytes = Vec::new();
        let lines = self.open.values().map(|line| &**line);
        for line in lines.filter(|line| *line != self.last).chain([&*self.last]) {
            bytes.extend_from_slice(line);
            bytes.push(b'\n');
        }
        // An empty batch: a kill right here repeats nothing.
        bytes.push(b'\n');
        let path = self.path.with_extension("new");
        let file = create(&path, true)?;
        file.write_all_at(&bytes, 0)?;
        fs::rename(&path, &self.path)?;
        self.file = file;
        self.len = bytes.len() as u64;
        self.before = self.len;
        Ok(())
    }
}

fn create(path: &Path, empty: bool) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(empty).mode(0o600);
    options.open(path)
}

fn read<'a>(line: &'a [u8], scratch: &mut Vec<u8>) -> Result<Event<'a>, BadLine> {
    let text = std::str::from_utf8(line).map_err(|_| BadLine::NotUtf8)?;
    let mut event = parse(text)?;
    check(text, &mut event, scratch)?;
    Ok(event)
}
