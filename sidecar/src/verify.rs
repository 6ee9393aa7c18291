//! `tollgate-sidecar verify`: checks records, alone and against the cluster's audit log. Files are read line by line; memory
//! is bounded by the number of pods, open calls, calls that ended without a token and kinds of requests, not by the number of
//! lines (the join of a long log goes through temporary files).
//!
//! **Alone**: every line of the record hashes to what it says; each pod's lines make one chain from number 1, over files given
//! in any order; every call that closes was opened, once. Lines of others between ours are skipped and counted. A recorder that
//! was killed writes its last lines again, identically, because it cannot know whether they got out: such a repetition counts
//! as one line, and a half line before it as none.
//!
//! **With the cluster's audit log**: an event belongs to a record if its `auditID` is the record's, its credential id is that of
//! the token which the record says was minted, and verb and object agree; the stages of one event count once, and so do
//! an API server and the aggregated one behind it that log one request. The counters:
//! - `joined`: recorded calls whose event is in the log (a 401 has no credential id in it: there `auditID` decides).
//! - `aborted`: recorded calls that close as `aborted`: nobody knows how they ended. Their event, if any, is theirs.
//! - `unused-mint`: minted tokens that a record accounts for, by its credential id or by the `Audit-ID` of the mint, and that no
//!   event and no answer shows in use: the call ended between mint and answer, or a stocked token was dropped.
//! - `missing-record`: requests of these pods without a record: a call with a minted token under another `auditID` or object,
//!   a second one under the same, a call with a token that no record knows, a TokenRequest that no record knows; and a second
//!   record that claims the same token, or one that was dropped. The sidecar's own use of its bootstrap token (TokenRequests,
//!   reading `tollgate.dev`) needs none. A call of a killed sidecar has no token in its record; the one minted ahead that it used
//!   is known by `auditID`, verb and object, if no other record has that token.
//! - `missing-call`: recorded calls that the API server answered, without an event, although the log holds events of the same
//!   kind (user, verb, group, resource, subresource and namespace; or user, verb and path) and covers that time.
//! - `not-logged`: the same where the log holds none of the kind, or does not cover the time: the audit policy leaves it out;
//!   or where the answer is one that load balancers and API servers give before they log.
//!
//! Copy the cluster's log first and the records after it, or calls made in between are missing records.

mod calls;
mod chains;
mod cluster;
mod envelope;
mod facts;
mod input;
mod join;
mod judge;
mod lines;
mod lost;
mod request;
mod spill;
mod summary;
mod uncovered;

use std::io::{self, BufRead};
use std::path::{Path, PathBuf};

use tollgate_shared::record::{Timestamp, parse};

use self::chains::Records;
use self::join::Join;
use self::lines::Lines;
pub use self::summary::{Counters, Fault, Summary};

/// What to verify.
#[derive(Clone, Debug, Default)]
pub struct Args {
    /// Files with records, in any order; foreign lines and container log prefixes may be in them.
    pub files: Vec<PathBuf>,
    /// The cluster's audit log, in files.
    pub cluster_audit: Vec<PathBuf>,
    /// Accept that the oldest segments are gone: a chain may begin at any number.
    pub partial: bool,
}

/// Why nothing could be verified.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// A file cannot be read.
    #[error("cannot read {path}: {error}")]
    Read {
        /// Its path.
        path: PathBuf,
        /// What the system says.
        #[source]
        error: io::Error,
    },
    /// The join needs a temporary file and gets none.
    #[error("cannot keep what is to be joined in a temporary file (TMPDIR): {0}")]
    Spill(#[source] io::Error),
    /// Nothing to verify.
    #[error(
        "{0} holds no line of a record; the sidecar writes records to standard output, or to --record-file, one JSON object a line"
    )]
    NoRecord(String),
    /// Nothing to join with.
    #[error(
        "{0} holds no event of the API server's audit log: one JSON object of kind Event a line is needed"
    )]
    NoEvent(String),
}

/// Reads everything and says what it found; [`Summary::is_good`] is the verdict.
///
/// # Errors
/// [`VerifyError`] where no verdict can be given.
pub fn run(args: &Args) -> Result<Summary, VerifyError> {
    let opened = |path: &Path| match input::open(path) {
        Ok(reader) => Ok((path.to_owned(), reader)),
        Err(error) => Err(failed(path, error)),
    };
    let cluster = args.cluster_audit.iter().map(|path| opened(path));
    verify(
        by_time(&args.files)?.into_iter().map(opened),
        (!args.cluster_audit.is_empty()).then_some(cluster),
        args.partial,
    )
}

/// The same over anything that gives lines; the names are for messages. Records are best read in the order of their writing:
/// then only what is open is held.
///
/// # Errors
/// The first error of `records` and `cluster`, or [`VerifyError`].
pub fn verify<R: BufRead, C: BufRead>(
    records: impl Iterator<Item = Result<(PathBuf, R), VerifyError>>,
    cluster: Option<impl Iterator<Item = Result<(PathBuf, C), VerifyError>>>,
    partial: bool,
) -> Result<Summary, VerifyError> {
    let mut chains = Records::new(partial, cluster.is_some().then(Join::new));
    let mut names = Vec::new();
    for record in records {
        let (path, reader) = record?;
        let name = path.display().to_string();
        let read = chains.read(&name, reader);
        read.map_err(|error| error.at(&path))?;
        names.push(name);
    }
    let (mut summary, join) = chains.finish().map_err(VerifyError::Spill)?;
    if summary.lines == 0 && summary.fault_count == 0 {
        return Err(VerifyError::NoRecord(names.join(", ")));
    }
    if let (Some(mut join), Some(cluster)) = (join, cluster) {
        read_cluster(&mut join, cluster, &mut summary)?;
        join.finish(&mut summary).map_err(VerifyError::Spill)?;
    }
    Ok(summary)
}

/// A file that holds something else must not pass for a log that leaves everything out.
fn read_cluster<C: BufRead>(
    join: &mut Join,
    cluster: impl Iterator<Item = Result<(PathBuf, C), VerifyError>>,
    summary: &mut Summary,
) -> Result<(), VerifyError> {
    let (mut names, mut any) = (Vec::new(), false);
    for log in cluster {
        let (path, reader) = log?;
        let (events, odd) = join.read_cluster(reader).map_err(|error| error.at(&path))?;
        let name = path.display().to_string();
        if let Some(first) = odd.first {
            if events == 0 {
                return Err(VerifyError::NoEvent(name));
            }
            let count = odd.count;
            summary.note(|| {
                format!("{name}:{first}: is no event of an audit log; {count} lines of this file are none")
            });
        }
        any |= events > 0;
        names.push(name);
    }
    if any {
        Ok(())
    } else {
        Err(VerifyError::NoEvent(names.join(", ")))
    }
}

/// What can fail while a file is read.
#[derive(Debug)]
enum ReadError {
    Read(io::Error),
    Spill(io::Error),
}

impl ReadError {
    fn at(self, path: &Path) -> VerifyError {
        match self {
            Self::Read(error) => failed(path, error),
            Self::Spill(error) => VerifyError::Spill(error),
        }
    }
}

fn failed(path: &Path, error: io::Error) -> VerifyError {
    VerifyError::Read {
        path: path.to_owned(),
        error,
    }
}

/// The files in the order of their first record, so that a rotated segment comes after the one before it. What can be read
/// only once stays where it is.
fn by_time(files: &[PathBuf]) -> Result<Vec<&Path>, VerifyError> {
    let mut keyed = Vec::new();
    for path in files {
        let first = first_time(path).map_err(|error| failed(path, error))?;
        keyed.push((first, path.as_path()));
    }
    keyed.sort_by_key(|(first, _)| *first);
    Ok(keyed.into_iter().map(|(_, path)| path).collect())
}

fn first_time(path: &Path) -> io::Result<Option<Timestamp>> {
    if !input::is_file(path)? {
        return Ok(None);
    }
    let mut lines = Lines::new(input::open(path)?, lines::RECORD_LIMIT);
    while let Some(line) = lines.next()? {
        let wrapped = || record(envelope::open(line.text)?.as_bytes());
        let time = record(line.text).or_else(wrapped);
        if time.is_some() {
            return Ok(time);
        }
    }
    Ok(None)
}

/// When a line was made, if it is one of ours.
fn record(text: &[u8]) -> Option<Timestamp> {
    let event = parse(std::str::from_utf8(text).ok()?).ok()?;
    Some(event.stage_timestamp)
}

#[cfg(test)]
mod tests;
