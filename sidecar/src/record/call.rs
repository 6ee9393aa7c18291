//! An open call as a guard: it closes once, with what is known or as `aborted`.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tollgate_shared::record::{AuditId, outcome};

use super::facts::Facts;
use super::queue::{Ending, Later, Queue};

/// A call whose opening line is written. Dropped without [`Self::close`], it closes as `aborted`.
#[must_use]
pub struct OpenCall {
    audit_id: AuditId,
    facts: Arc<Facts>,
    queue: Arc<Queue>,
    minted: Option<Minted>,
    /// What the closing line says if nobody closes; `None` once closed.
    otherwise: Option<Closing>,
}

/// The token of a call, as far as the record may know it.
#[derive(Clone, Debug)]
pub(crate) struct Minted {
    /// `JTI=…`.
    pub(crate) credential_id: String,
    pub(crate) mint_audit_id: AuditId,
    pub(crate) took: Option<Duration>,
}

/// How a call ended.
#[derive(Clone, Debug, Default)]
pub struct Closing {
    /// HTTP status that the agent got, where it got one.
    pub code: Option<u16>,
    /// `completed`, `refused`, `client-disconnected`, `upstream-failed`, `max-stream-age`, `shutdown`, …
    pub outcome: &'static str,
    /// For programs: a reason code, where the sidecar answered.
    pub reason: Option<String>,
    /// For people; never a secret.
    pub message: Option<String>,
    /// Bytes of the request's body that went upstream.
    pub request_bytes: Option<u64>,
    /// Bytes of the response's body that went to the agent.
    pub response_bytes: Option<u64>,
    /// From forwarding to the head of the API server's answer. `Some` exactly if there was one: verification then expects the
    /// call in the cluster's audit log.
    pub upstream: Option<Duration>,
}

impl OpenCall {
    /// Not yet in the hands of its caller: if the caller has gone, the call was refused.
    pub(super) fn new(audit_id: AuditId, facts: Arc<Facts>, queue: Arc<Queue>) -> Self {
        queue.count_open(1);
        let refused = Closing {
            code: None,
            outcome: outcome::REFUSED,
            reason: Some("record-unavailable".to_owned()),
            ..Closing::default()
        };
        Self {
            audit_id,
            facts,
            queue,
            minted: None,
            otherwise: Some(refused),
        }
    }

    pub(super) fn picked_up(mut self) -> Self {
        self.otherwise = Some(Closing {
            outcome: outcome::ABORTED,
            ..Closing::default()
        });
        self
    }

    /// The `Audit-ID` to send upstream.
    #[must_use]
    pub const fn audit_id(&self) -> AuditId {
        self.audit_id
    }

    /// The `Audit-ID` to send with the TokenRequest for this call.
    #[must_use]
    pub fn mint_audit_id(&self) -> AuditId {
        self.audit_id.for_mint()
    }

    /// A token was minted for this call: its credential id (`JTI=…`), and how long that took.
    pub fn minted(&mut self, credential_id: String, took: Duration) {
        self.minted = Some(Minted {
            credential_id,
            mint_audit_id: self.mint_audit_id(),
            took: Some(took),
        });
    }

    /// This call uses a token that was minted before it, under another record's `mint_audit_id`.
    pub fn from_stock(&mut self, credential_id: String, mint_audit_id: AuditId) {
        self.minted = Some(Minted {
            credential_id,
            mint_audit_id,
            took: None,
        });
    }

    /// A stream began to answer with this HTTP status: writes the `ResponseStarted` line.
    pub fn response_started(&mut self, code: u16) {
        self.line(Ending::Started(code));
    }

    /// Writes the closing line.
    pub fn close(mut self, closing: Closing) {
        self.otherwise = Some(closing);
    }

    fn line(&self, ending: Ending) {
        self.queue.later(Later {
            audit_id: self.audit_id,
            facts: Arc::clone(&self.facts),
            minted: self.minted.clone(),
            ending,
            at: SystemTime::now(),
        });
    }
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        if let Some(closing) = self.otherwise.take() {
            self.line(Ending::Closed(Box::new(closing)));
        }
    }
}
