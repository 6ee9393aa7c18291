//! The chain: each line carries its number and the hash of the line before it.

use super::event::{Event, Stage};
use super::id::{AuditId, Digest};
use super::value::Count;

/// Where the next line goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Number of the last line; 0 before the first.
    pub sequence: u64,
    /// Hash of the last line; [`Digest::ZERO`] before the first.
    pub hash: Digest,
}

impl Default for Chain {
    fn default() -> Self {
        Self {
            sequence: 0,
            hash: Digest::ZERO,
        }
    }
}

/// Why a line is no good by itself.
#[derive(Debug, thiserror::Error)]
pub enum BadLine {
    /// No JSON, or not our schema.
    #[error("is no line of the record: {0}")]
    Schema(#[source] serde_json::Error),
    /// Not even text.
    #[error("is not in UTF-8")]
    NotUtf8,
    /// No hash.
    #[error("has no hash")]
    NoHash,
    /// It does not hash to what it says.
    #[error("was changed: its hash is {actual}, but it says {claimed}")]
    Changed {
        /// What it says.
        claimed: Digest,
        /// What it is.
        actual: Digest,
    },
    /// `auditID` is missing, or an opening line's is not made from its hash.
    #[error("was changed: its auditID is not the one of its hash")]
    AuditId,
}

impl Chain {
    /// Makes `event` the next line: sets its number, the hashes and an opening line's `auditID`, and appends its canonical
    /// JSON and a line feed to `out`. Returns the chain with that line at its end.
    ///
    /// # Errors
    /// None is known: the schema has nothing that JSON could not hold. `out` is as before then.
    pub fn seal(self, event: &mut Event<'_>, out: &mut Vec<u8>) -> Result<Self, serde_json::Error> {
        let start = out.len();
        event.annotations.sequence = Count(self.sequence.saturating_add(1));
        event.annotations.previous_hash = self.hash;
        let sealed = hash(event, out).and_then(|hash| {
            event.annotations.hash = Some(hash);
            if event.stage == Stage::RequestReceived {
                event.audit_id = Some(AuditId::of_opening(&hash));
            }
            serde_json::to_writer(&mut *out, event)?;
            out.push(b'\n');
            Ok(Self {
                sequence: event.annotations.sequence.0,
                hash,
            })
        });
        if sealed.is_err() {
            out.truncate(start);
        }
        sealed
    }
}

/// Reads a line, strictly; says nothing about its hash.
///
/// # Errors
/// [`BadLine::Schema`].
pub fn parse(line: &str) -> Result<Event<'_>, BadLine> {
    serde_json::from_str(line).map_err(BadLine::Schema)
}

/// Checks that a line hashes to what it says, and returns the hash. `line` is the text that `event` was read from; one that is
/// as the sidecar wrote it is hashed as it is, which is faster, and any other in its canonical form. `scratch` saves an
/// allocation per line.
///
/// # Errors
/// [`BadLine`], but for [`BadLine::Schema`].
pub fn check(line: &str, event: &mut Event<'_>, scratch: &mut Vec<u8>) -> Result<Digest, BadLine> {
    let claimed = event.annotations.hash.ok_or(BadLine::NoHash)?;
    let audit_id = event.audit_id.ok_or(BadLine::AuditId)?;
    let opens = event.stage == Stage::RequestReceived;
    if as_written(line, opens) != Some(claimed) {
        scratch.clear();
        let actual = hash(event, scratch).map_err(BadLine::Schema)?;
        event.annotations.hash = Some(claimed);
        event.audit_id = Some(audit_id);
        if actual != claimed {
            return Err(BadLine::Changed { claimed, actual });
        }
    }
    if opens && audit_id != AuditId::of_opening(&claimed) {
        return Err(BadLine::AuditId);
    }
    Ok(claimed)
}

/// The hash of a line's own bytes without the hash, and without `auditID` if it opens. These keys with their quotes can stand
/// nowhere else in JSON that was read strictly: a quote inside of a string has a backslash before it.
fn as_written(line: &str, opens: bool) -> Option<Digest> {
    const HASH: &str = "\"tollgate.dev/hash\":\"";
    const AUDIT_ID: &str = "\"auditID\":\"";
    let (before, rest) = line.split_once(HASH)?;
    let (_, rest) = rest.split_once("\",")?;
    if !opens {
        return Some(Digest::of_parts([before, rest]));
    }
    let (between, rest) = rest.split_once(AUDIT_ID)?;
    let (_, rest) = rest.split_once("\",")?;
    Some(Digest::of_parts([before, between, rest]))
}

/// Takes the hash, and an opening line's `auditID`, out of the event. Leaves `out` as long as it was.
fn hash(event: &mut Event<'_>, out: &mut Vec<u8>) -> Result<Digest, serde_json::Error> {
    event.annotations.hash = None;
    if event.stage == Stage::RequestReceived {
        event.audit_id = None;
    }
    let start = out.len();
    serde_json::to_writer(&mut *out, event)?;
    let hash = Digest::of(out.get(start..).unwrap_or_default());
    out.truncate(start);
    Ok(hash)
}
