//! A call that is on record: its open record together with its metrics, closed once.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Response, StatusCode};

use super::AnswerBody;
use crate::body::Received;
use crate::metrics::{Metrics, OpenStream};
use crate::mint::{Minted, audit_header};
use crate::record::{AuditId, Closing, OpenCall, outcome};
use crate::refusal::Refusal;
use crate::status;

/// An open call. Dropped, it closes as `aborted`.
pub(super) struct Entry {
    record: Option<OpenCall>,
    audit_id: AuditId,
    verb: &'static str,
    metrics: Arc<Metrics>,
    stream: Option<OpenStream>,
}

/// What was passed on, for the closing line.
pub(super) struct Passed {
    /// Status of the API server's answer.
    pub(super) code: StatusCode,
    /// Bytes of the agent's body.
    pub(super) received: u64,
    /// Bytes of the API server's body.
    pub(super) sent: u64,
    /// From forwarding to the head of the answer.
    pub(super) took: Duration,
}

impl Entry {
    pub(super) fn new(record: OpenCall, verb: &'static str, metrics: Arc<Metrics>) -> Self {
        Self {
            audit_id: record.audit_id(),
            record: Some(record),
            verb,
            metrics,
            stream: None,
        }
    }

    pub(super) fn audit_id(&self) -> HeaderValue {
        audit_header(self.audit_id)
    }

    pub(super) fn mint_audit_id(&self) -> AuditId {
        self.audit_id.for_mint()
    }

    pub(super) fn minted(&mut self, minted: &Minted, took: Duration) {
        self.metrics.minted(took);
        if let Some(record) = &mut self.record {
            record.minted(minted.credential_id.clone(), took);
        }
    }

    /// The call uses a token of the stock.
    pub(super) fn stocked(&mut self, minted: &Minted, mint: AuditId) {
        if let Some(record) = &mut self.record {
            record.from_stock(minted.credential_id.clone(), mint);
        }
    }

    /// The call is a stream, and the API server began to answer it.
    pub(super) fn stream_started(&mut self, code: StatusCode) {
        self.stream = Some(self.metrics.stream());
        if let Some(record) = &mut self.record {
            record.response_started(code.as_u16());
        }
    }

    /// The API server's answer was passed on, to its end or to where the outcome says.
    pub(super) fn passed(self, outcome: &'static str, passed: &Passed) {
        self.metrics.answered(passed.took);
        self.close(Closing {
            code: Some(passed.code.as_u16()),
            outcome,
            request_bytes: Some(passed.received),
            response_bytes: Some(passed.sent),
            upstream: Some(passed.took),
            ..Closing::default()
        });
    }

    /// The sidecar answers by itself.
    pub(super) fn refuse(
        self,
        refusal: &Refusal,
        received: Option<&Received>,
    ) -> Response<AnswerBody> {
        let mut response = status::response(refusal);
        response.headers_mut().insert("audit-id", self.audit_id());
        self.close(Closing {
            code: Some(response.status().as_u16()),
            outcome: outcome::REFUSED,
            reason: Some(refusal.reason.code().to_owned()),
            message: Some(refusal.message.clone()),
            request_bytes: received.map(|received| received.count.get()),
            response_bytes: Some(response.body().len() as u64),
            upstream: None,
        });
        response.map(|body| AnswerBody::Own(Some(body)))
    }

    fn close(mut self, closing: Closing) {
        if let Some(record) = self.record.take() {
            let reason = closing
                .reason
                .as_deref()
                .and_then(crate::refusal::Reason::of_code);
            self.metrics.ended(
                self.verb,
                closing.outcome,
                reason.map_or("", crate::refusal::Reason::code),
            );
            record.close(closing);
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if self.record.is_some() {
            self.metrics.ended(self.verb, outcome::ABORTED, "");
        }
    }
}
