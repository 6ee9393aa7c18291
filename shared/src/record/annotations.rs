//! What a line says beyond Kubernetes' schema. Kubernetes' annotations are strings, so numbers are strings here.

use serde::{Deserialize, Serialize};

use super::id::{AuditId, Digest};
use super::text::Text;
use super::value::{Count, Decision, Micros};

/// Keys of our annotations.
pub mod key {
    /// The agent container that made the call.
    pub const CONTAINER: &str = "tollgate.dev/container";
    /// `JTI=…` of the minted token.
    pub const CREDENTIAL_ID: &str = "tollgate.dev/credential-id";
    /// `allow` or `deny`.
    pub const DECISION: &str = "tollgate.dev/decision";
    /// SHA-256 of this line without this annotation.
    pub const HASH: &str = "tollgate.dev/hash";
    /// `Audit-ID` of the TokenRequest.
    pub const MINT_AUDIT_ID: &str = "tollgate.dev/mint-audit-id";
    /// How long the mint took.
    pub const MINT_SECONDS: &str = "tollgate.dev/mint-seconds";
    /// Namespace of the pod.
    pub const NAMESPACE: &str = "tollgate.dev/namespace";
    /// How the call ended, on closing lines.
    pub const OUTCOME: &str = "tollgate.dev/outcome";
    /// Name of the pod.
    pub const POD: &str = "tollgate.dev/pod";
    /// UID of the pod: one chain each.
    pub const POD_UID: &str = "tollgate.dev/pod-uid";
    /// The policy that decided.
    pub const POLICY: &str = "tollgate.dev/policy";
    /// Hash of the line before this one.
    pub const PREVIOUS_HASH: &str = "tollgate.dev/previous-hash";
    /// Code of the reason for the decision.
    pub const REASON: &str = "tollgate.dev/reason";
    /// Bytes of the request's body.
    pub const REQUEST_BYTES: &str = "tollgate.dev/request-bytes";
    /// Bytes of the response's body.
    pub const RESPONSE_BYTES: &str = "tollgate.dev/response-bytes";
    /// The rule of the policy that decided.
    pub const RULE: &str = "tollgate.dev/rule";
    /// Number of this line in its chain, from 1.
    pub const SEQUENCE: &str = "tollgate.dev/sequence";
    /// What kind of rule decided.
    pub const TIER: &str = "tollgate.dev/tier";
    /// Names of the fields that were cut to fit.
    pub const TRUNCATED: &str = "tollgate.dev/truncated";
    /// From forwarding to the head of the API server's answer.
    pub const UPSTREAM_SECONDS: &str = "tollgate.dev/upstream-seconds";
    /// All of them, in the order of the line.
    pub const ALL: [&str; 20] = [
        CONTAINER,
        CREDENTIAL_ID,
        DECISION,
        HASH,
        MINT_AUDIT_ID,
        MINT_SECONDS,
        NAMESPACE,
        OUTCOME,
        POD,
        POD_UID,
        POLICY,
        PREVIOUS_HASH,
        REASON,
        REQUEST_BYTES,
        RESPONSE_BYTES,
        RULE,
        SEQUENCE,
        TIER,
        TRUNCATED,
        UPSTREAM_SECONDS,
    ];
}

/// Our annotations; see [`key`] for their names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Annotations<'a> {
    /// [`key::CONTAINER`].
    #[serde(
        rename = "tollgate.dev/container",
        borrow,
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub container: Option<Text<'a>>,
    /// [`key::CREDENTIAL_ID`].
    #[serde(
        rename = "tollgate.dev/credential-id",
        borrow,
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub credential_id: Option<Text<'a>>,
    /// [`key::DECISION`].
    #[serde(rename = "tollgate.dev/decision")]
    pub decision: Decision,
    /// [`key::HASH`]; only while a line is hashed it may be missing.
    #[serde(
        rename = "tollgate.dev/hash",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub hash: Option<Digest>,
    /// [`key::MINT_AUDIT_ID`].
    #[serde(
        rename = "tollgate.dev/mint-audit-id",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub mint_audit_id: Option<AuditId>,
    /// [`key::MINT_SECONDS`].
    #[serde(
        rename = "tollgate.dev/mint-seconds",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub mint_seconds: Option<Micros>,
    /// [`key::NAMESPACE`].
    #[serde(rename = "tollgate.dev/namespace", borrow)]
    pub namespace: Text<'a>,
    /// [`key::OUTCOME`].
    #[serde(
        rename = "tollgate.dev/outcome",
        borrow,
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub outcome: Option<Text<'a>>,
    /// [`key::POD`].
    #[serde(rename = "tollgate.dev/pod", borrow)]
    pub pod: Text<'a>,
    /// [`key::POD_UID`].
    #[serde(rename = "tollgate.dev/pod-uid", borrow)]
    pub pod_uid: Text<'a>,
    /// [`key::POLICY`].
    #[serde(
        rename = "tollgate.dev/policy",
        borrow,
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub policy: Option<Text<'a>>,
    /// [`key::PREVIOUS_HASH`].
    #[serde(rename = "tollgate.dev/previous-hash")]
    pub previous_hash: Digest,
    /// [`key::REASON`].
    #[serde(rename = "tollgate.dev/reason", borrow)]
    pub reason: Text<'a>,
    /// [`key::REQUEST_BYTES`].
    #[serde(
        rename = "tollgate.dev/request-bytes",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub request_bytes: Option<Count>,
    /// [`key::RESPONSE_BYTES`].
    #[serde(
        rename = "tollgate.dev/response-bytes",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub response_bytes: Option<Count>,
    /// [`key::RULE`].
    #[serde(
        rename = "tollgate.dev/rule",
        borrow,
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub rule: Option<Text<'a>>,
    /// [`key::SEQUENCE`].
    #[serde(rename = "tollgate.dev/sequence")]
    pub sequence: Count,
    /// [`key::TIER`].
    #[serde(rename = "tollgate.dev/tier", borrow)]
    pub tier: Text<'a>,
    /// [`key::TRUNCATED`].
    #[serde(
        rename = "tollgate.dev/truncated",
        borrow,
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub truncated: Option<Text<'a>>,
    /// [`key::UPSTREAM_SECONDS`].
    #[serde(
        rename = "tollgate.dev/upstream-seconds",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub upstream_seconds: Option<Micros>,
}
