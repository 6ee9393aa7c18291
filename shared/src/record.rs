//! The record of a call: one line when it opens, one when it closes, in the schema of `audit.k8s.io/v1` `Event`, chained by
//! hashes. The schema and the pure maths, for whoever writes lines (the sidecar) and whoever checks them (`verify`, the
//! tests on a cluster). No IO, no clock.
//!
//! A written line is canonical JSON (RFC 8785). Its hash is the SHA-256 of the canonical form without the hash itself, and
//! for an opening line without `auditID`, which is made from that hash. So a shipper may write the line differently.

mod annotations;
mod chain;
mod event;
mod id;
mod text;
mod value;

pub use annotations::{Annotations, key};
pub use chain::{BadLine, Chain, check, parse};
pub use event::{ApiVersion, Event, Extra, Kind, Level, ObjectRef, ResponseStatus, Stage, User};
pub use id::{AuditId, Digest, NotHex};
pub use text::{Text, fit};
pub use value::{Count, Decision, Micros, Timestamp};

/// Longest line in bytes, line feed included: container runtimes split lines at 16 KiB.
pub const MAX_LINE: usize = 12 * 1024;

/// Most lines that a restarted recorder writes again because it cannot know whether they were written.
pub const MAX_REPEATED: usize = 64;

/// How calls end; `docs/audit.md` explains each.
pub mod outcome {
    /// Nobody knows how the call ended: the sidecar was killed, or the call was dropped without a word.
    pub const ABORTED: &str = "aborted";
    /// The agent went away before the end.
    pub const CLIENT_DISCONNECTED: &str = "client-disconnected";
    /// The answer was passed on to its end.
    pub const COMPLETED: &str = "completed";
    /// The stream became as old as a stream may.
    pub const MAX_STREAM_AGE: &str = "max-stream-age";
    /// The sidecar answered by itself.
    pub const REFUSED: &str = "refused";
    /// The sidecar ended.
    pub const SHUTDOWN: &str = "shutdown";
    /// A token that the sidecar minted outside of a call, and no call used.
    pub const UNUSED: &str = "unused";
    /// The API server broke off in the middle of its answer.
    pub const UPSTREAM_FAILED: &str = "upstream-failed";
    /// A token that the sidecar minted outside of a call, and a call used.
    pub const USED: &str = "used";
    /// All of them.
    pub const ALL: [&str; 9] = [
        ABORTED,
        CLIENT_DISCONNECTED,
        COMPLETED,
        MAX_STREAM_AGE,
        REFUSED,
        SHUTDOWN,
        UNUSED,
        UPSTREAM_FAILED,
        USED,
    ];
}

#[cfg(test)]
mod tests;
