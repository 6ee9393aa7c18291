//! One line: a strict subset of `audit.k8s.io/v1` `Event` (`apiserver/pkg/apis/audit/v1/types.go`). The order of the fields is
//! the order of RFC 8785, so that serializing gives canonical JSON without sorting. A field that is not here is an error:
//! what could not be hashed again must not pass.

use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize};

use super::annotations::Annotations;
use super::id::AuditId;
use super::text::Text;
use super::value::Timestamp;

/// One line of the record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Event<'a> {
    /// What Kubernetes' schema has no field for.
    #[serde(borrow)]
    pub annotations: Annotations<'a>,
    /// Always `audit.k8s.io/v1`.
    pub api_version: ApiVersion,
    /// The `Audit-ID` of the call; only while a line is hashed it may be missing.
    #[serde(rename = "auditID", default, skip_serializing_if = "Option::is_none")]
    pub audit_id: Option<AuditId>,
    /// Always `Event`.
    pub kind: Kind,
    /// Always `Metadata`.
    pub level: Level,
    /// The object, where the path names a resource.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub object_ref: Option<ObjectRef<'a>>,
    /// When the sidecar had read the request's head.
    pub request_received_timestamp: Timestamp,
    /// Path and query as the agent sent them.
    #[serde(rename = "requestURI", borrow)]
    pub request_uri: Text<'a>,
    /// The answer, once there is one.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub response_status: Option<ResponseStatus<'a>>,
    /// The agent's address.
    #[serde(
        rename = "sourceIPs",
        borrow,
        default,
        skip_serializing_if = "Vec::is_empty"
    )]
    pub source_ips: Vec<Text<'a>>,
    /// What this line marks.
    pub stage: Stage,
    /// When this line was made.
    pub stage_timestamp: Timestamp,
    /// As whom the call is made.
    #[serde(borrow)]
    pub user: User<'a>,
    /// The agent's, cut as the API server cuts it.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub user_agent: Option<Text<'a>>,
    /// Kubernetes' verb, or the HTTP method in lower case for a path that names no resource.
    #[serde(borrow)]
    pub verb: Text<'a>,
}

/// The object of a call, as the API server's RequestInfo reads it from the path.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ObjectRef<'a> {
    /// Empty for the core group.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub api_group: Option<Text<'a>>,
    /// Version of the group.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub api_version: Option<Text<'a>>,
    /// Name of the object.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Text<'a>>,
    /// Its namespace.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<Text<'a>>,
    /// Its resource, in the plural.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<Text<'a>>,
    /// `log`, `exec`, `status`, …
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub subresource: Option<Text<'a>>,
}

impl<'a> ObjectRef<'a> {
    fn map<'b>(&'a self, text: impl Fn(&'a Text<'a>) -> Text<'b>) -> ObjectRef<'b> {
        ObjectRef {
            api_group: self.api_group.as_ref().map(&text),
            api_version: self.api_version.as_ref().map(&text),
            name: self.name.as_ref().map(&text),
            namespace: self.namespace.as_ref().map(&text),
            resource: self.resource.as_ref().map(&text),
            subresource: self.subresource.as_ref().map(&text),
        }
    }

    /// The same, borrowed from here.
    #[must_use]
    pub fn borrowed(&'a self) -> Self {
        self.map(Text::borrowed)
    }

    /// The same, owned.
    #[must_use]
    pub fn to_owned(&'a self) -> ObjectRef<'static> {
        self.map(|text| text.clone().into_owned())
    }
}

/// The part of `metav1.Status` that an audit log needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResponseStatus<'a> {
    /// HTTP status.
    #[serde(
        deserialize_with = "code",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub code: Option<u16>,
    /// For people.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub message: Option<Text<'a>>,
    /// For programs.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Text<'a>>,
}

/// As whom a call is made: the identity that its token is minted for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct User<'a> {
    /// What the token's claims add.
    #[serde(borrow, default, skip_serializing_if = "Extra::is_empty")]
    pub extra: Extra<'a>,
    /// `system:serviceaccount:<namespace>:<name>`.
    #[serde(borrow)]
    pub username: Text<'a>,
}

/// The same keys that the API server puts into `user.extra` of a call with a pod-bound token
/// (`apiserver/pkg/authentication/serviceaccount/util.go`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Extra<'a> {
    /// The node of the pod.
    #[serde(
        rename = "authentication.kubernetes.io/node-name",
        borrow,
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub node_name: Option<[Text<'a>; 1]>,
    /// The pod.
    #[serde(
        rename = "authentication.kubernetes.io/pod-name",
        borrow,
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub pod_name: Option<[Text<'a>; 1]>,
    /// Its UID.
    #[serde(
        rename = "authentication.kubernetes.io/pod-uid",
        borrow,
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub pod_uid: Option<[Text<'a>; 1]>,
}

impl Extra<'_> {
    fn is_empty(&self) -> bool {
        *self == Extra::default()
    }
}

/// What a line marks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// The call was recognised: the opening line.
    RequestReceived,
    /// A stream began to answer.
    ResponseStarted,
    /// The call is over: the closing line.
    ResponseComplete,
}

/// The schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ApiVersion {
    /// `audit.k8s.io/v1`.
    #[serde(rename = "audit.k8s.io/v1")]
    V1,
}

/// The schema's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// `Event`.
    Event,
}

/// How much a line holds: never a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Level {
    /// `Metadata`.
    Metadata,
}

/// Some shippers know only floating-point numbers and write `200.0`; RFC 8785 makes that `200` again.
fn code<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u16>, D::Error> {
    struct Whole;
    impl Visitor<'_> for Whole {
        type Value = Option<u16>;
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an HTTP status")
        }
        fn visit_u64<E: serde::de::Error>(self, code: u64) -> Result<Option<u16>, E> {
            u16::try_from(code)
                .map(Some)
                .map_err(|_| E::custom("is no HTTP status"))
        }
        fn visit_f64<E: serde::de::Error>(self, code: f64) -> Result<Option<u16>, E> {
            let whole = (0..=999).find(|whole| f64::from(*whole) == code);
            whole
                .map(Some)
                .ok_or_else(|| E::custom("is no HTTP status"))
        }
    }
    deserializer.deserialize_any(Whole)
}
