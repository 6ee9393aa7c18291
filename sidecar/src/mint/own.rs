//! Mints that belong to no call: on record before they are made, like every other.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use tollgate_shared::record::AuditId;

use super::{Mint, Minted};
use crate::config::Target;
use crate::metrics::{Metrics, SpareToken};
use crate::record::{Closing, Decision, ObjectRef, OpenCall, Opening, Recorder, outcome};
use crate::refusal::{Reason, Refusal};
use crate::upstream::Upstream;

/// Why the sidecar mints for itself; the reason code of the record.
pub mod why {
    /// To prove that minting works.
    pub const FIRST_MINT: &str = "first-mint";
    /// For the stock.
    pub const MINT_AHEAD: &str = "mint-ahead";
}

/// Makes such mints.
pub struct OwnMints {
    mint: Arc<Mint>,
    upstream: Arc<Upstream>,
    recorder: Recorder,
    metrics: Arc<Metrics>,
    object: ObjectRef<'static>,
}

/// A token that no call has used. Dropped, its record closes as `unused`.
#[must_use]
pub struct Spare {
    /// `None` once a call has it.
    held: Option<(Minted, OpenCall)>,
    counted: SpareToken,
}

impl OwnMints {
    /// For this target.
    pub fn new(
        mint: Arc<Mint>,
        upstream: Arc<Upstream>,
        recorder: Recorder,
        metrics: Arc<Metrics>,
        target: &Target,
    ) -> Self {
        Self {
            mint,
            upstream,
            recorder,
            metrics,
            object: ObjectRef {
                resource: Some("serviceaccounts".into()),
                namespace: Some(target.namespace.clone().into()),
                name: Some(target.account.clone().into()),
                api_group: None,
                api_version: Some("v1".into()),
                subresource: Some("token".into()),
            },
        }
    }

    /// Mints, on record. Dropped in the middle, the record closes as `aborted`.
    ///
    /// # Errors
    /// There is no record or no token.
    pub async fn mint(&self, why: &'static str) -> Result<Spare, Refusal> {
        let opened = self.recorder.open(self.opening(why)).await;
        let mut record =
            opened.map_err(|error| Refusal::new(Reason::RecordUnavailable, error.to_string()))?;
        let started = Instant::now();
        let mint = self.mint.mint(&self.upstream, record.mint_audit_id());
        match mint.await {
            Ok(minted) => {
                let took = started.elapsed();
                self.metrics.minted(took);
                record.minted(minted.credential_id.clone(), took);
                Ok(Spare {
                    held: Some((minted, record)),
                    counted: self.metrics.spare(),
                })
            }
            Err(refusal) => {
                record.close(Closing {
                    outcome: outcome::REFUSED,
                    reason: Some(refusal.reason.code().to_owned()),
                    message: Some(refusal.message.clone()),
                    ..Closing::default()
                });
                Err(refusal)
            }
        }
    }

    fn opening(&self, why: &'static str) -> Opening {
        Opening {
            verb: "create".to_owned(),
            uri: self.mint.path().to_string(),
            object: Some(self.object.clone()),
            container: None,
            user_agent: None,
            source_ip: None,
            decision: Decision::Allow,
            reason: why,
            tier: "sidecar",
            policy: None,
            received: SystemTime::now(),
        }
    }
}

impl Spare {
    /// For a call: closes the record as `used`, and gives the token and the `Audit-ID` of its mint.
    pub fn into_call(mut self) -> Option<(Minted, AuditId)> {
        let (minted, record) = self.held.take()?;
        let mint = record.mint_audit_id();
        record.close(Closing {
            outcome: outcome::USED,
            ..Closing::default()
        });
        Some((minted, mint))
    }
}

impl Drop for Spare {
    fn drop(&mut self) {
        if let Some((_, record)) = self.held.take() {
            self.counted.unused();
            record.close(Closing {
                outcome: outcome::UNUSED,
                ..Closing::default()
            });
        }
    }
}
