//! Events of the cluster's audit log (`audit.k8s.io/v1`), as little of them as the join needs. Unknown fields are skipped.

use serde::Deserialize;
use serde::de::IgnoredAny;
use tollgate_shared::record::{Text, Timestamp};

use super::request::Request;

/// One event.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Logged<'a> {
    #[serde(rename = "auditID", borrow)]
    pub(super) audit_id: Text<'a>,
    #[serde(rename = "requestURI", borrow, default)]
    uri: Text<'a>,
    #[serde(borrow, default)]
    verb: Text<'a>,
    #[serde(borrow, default)]
    user: User<'a>,
    #[serde(borrow, default)]
    object_ref: Option<ObjectRef<'a>>,
    #[serde(default)]
    response_status: Option<ResponseStatus>,
    #[serde(borrow, default)]
    annotations: Option<Annotations<'a>>,
    #[serde(borrow, default)]
    request_received_timestamp: Text<'a>,
    #[serde(borrow, default)]
    stage_timestamp: Text<'a>,
}

#[derive(Debug, Default, Deserialize)]
struct User<'a> {
    #[serde(borrow, default)]
    username: Text<'a>,
    #[serde(borrow, default)]
    extra: Option<Extra<'a>>,
}

#[derive(Debug, Default, Deserialize)]
struct Extra<'a> {
    #[serde(rename = "authentication.kubernetes.io/credential-id", borrow, default)]
    credential_id: Vec<Text<'a>>,
    #[serde(rename = "authentication.kubernetes.io/pod-name", borrow, default)]
    pod_name: Vec<Text<'a>>,
    #[serde(rename = "authentication.kubernetes.io/pod-uid", borrow, default)]
    pod_uid: Vec<Text<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ObjectRef<'a> {
    #[serde(borrow, default)]
    resource: Option<Text<'a>>,
    #[serde(borrow, default)]
    subresource: Option<Text<'a>>,
    #[serde(borrow, default)]
    namespace: Option<Text<'a>>,
    #[serde(borrow, default)]
    name: Option<Text<'a>>,
    #[serde(borrow, default)]
    api_group: Option<Text<'a>>,
}

#[derive(Debug, Deserialize)]
struct ResponseStatus {
    #[serde(default)]
    code: u16,
}

#[derive(Debug, Deserialize)]
struct Annotations<'a> {
    #[serde(
        rename = "authentication.kubernetes.io/issued-credential-id",
        borrow,
        default
    )]
    issued: Option<Text<'a>>,
    #[serde(rename = "tollgate.dev/hash", default)]
    hash: Option<IgnoredAny>,
}

impl<'a> Logged<'a> {
    /// `None` for a line that is no event.
    pub(super) fn parse(line: &'a [u8]) -> Option<Self> {
        serde_json::from_str(std::str::from_utf8(line).ok()?).ok()
    }

    pub(super) fn credential_id(&self) -> Option<&str> {
        first(&self.user.extra.as_ref()?.credential_id)
    }

    pub(super) fn pod_uid(&self) -> Option<&str> {
        first(&self.user.extra.as_ref()?.pod_uid)
    }

    pub(super) fn pod_name(&self) -> Option<&str> {
        first(&self.user.extra.as_ref()?.pod_name)
    }

    /// Whether this is a line of a record: some logs hold both.
    pub(super) fn is_record(&self) -> bool {
        self.annotations
            .as_ref()
            .is_some_and(|notes| notes.hash.is_some())
    }

    /// Credential id of the token that this request got.
    pub(super) fn issued(&self) -> Option<&str> {
        self.annotations.as_ref()?.issued.as_deref()
    }

    pub(super) fn code(&self) -> Option<u16> {
        self.response_status.as_ref().map(|status| status.code)
    }

    /// When the request came, in microseconds since 1970.
    pub(super) fn time(&self) -> Option<u64> {
        micros(&self.request_received_timestamp)
    }

    /// When the event was made.
    pub(super) fn until(&self) -> Option<u64> {
        micros(&self.stage_timestamp)
    }

    pub(super) fn request(&self) -> Request<'_> {
        fn part<'b>(text: Option<&'b Text<'_>>) -> Option<&'b str> {
            text.map(|text| &**text)
        }
        let object = self.object_ref.as_ref();
        Request {
            user: &self.user.username,
            verb: &self.verb,
            uri: &self.uri,
            group: object.and_then(|object| part(object.api_group.as_ref())),
            resource: object.and_then(|object| part(object.resource.as_ref())),
            subresource: object.and_then(|object| part(object.subresource.as_ref())),
            namespace: object.and_then(|object| part(object.namespace.as_ref())),
            name: object.and_then(|object| part(object.name.as_ref())),
        }
    }

    /// What a sidecar does with its bootstrap token: it mints, and reads our own objects.
    pub(super) fn is_bootstrap(&self) -> bool {
        let request = self.request();
        let reads = matches!(request.verb, "get" | "list" | "watch");
        request.is_token_request()
            || (reads && request.group == Some(tollgate_shared::contract::GROUP))
    }
}

fn first<'b>(texts: &'b [Text<'_>]) -> Option<&'b str> {
    texts.first().map(|text| &**text)
}

fn micros(time: &str) -> Option<u64> {
    time.parse().ok().map(Timestamp::micros)
}
