//! What the opening line says of a call, whether it may go on or not.

use std::net::SocketAddr;
use std::time::SystemTime;

use http::header::USER_AGENT;
use http::request::Parts;

use super::check::{Checked, Refused};
use crate::call::Call;
use crate::record::{Decision, ObjectRef, Opening};

/// The verb as a metric label.
pub(super) fn verb(checked: Result<&Checked, &Refused>) -> &'static str {
    match checked {
        Ok(checked) => checked.call.verb.as_str(),
        Err(refused) => refused.call.as_ref().map_or("", |call| call.verb.as_str()),
    }
}

pub(super) fn opening(
    parts: &Parts,
    checked: Result<&Checked, &Refused>,
    peer: SocketAddr,
    received: SystemTime,
) -> Opening {
    let (call, container, refusal) = match checked {
        Ok(checked) => (Some(&checked.call), &checked.container, None),
        Err(refused) => (
            refused.call.as_deref(),
            &refused.container,
            Some(&refused.refusal),
        ),
    };
    Opening {
        verb: call.map_or_else(
            || parts.method.as_str().to_ascii_lowercase(),
            |call| call.verb.to_string(),
        ),
        uri: call.map_or_else(|| parts.uri.to_string(), |call| call.target().to_owned()),
        object: call.filter(|call| call.resource_request).map(object),
        container: container.clone(),
        user_agent: parts
            .headers
            .get(USER_AGENT)
            .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()),
        source_ip: Some(peer.ip()),
        decision: if refusal.is_some() {
            Decision::Deny
        } else {
            Decision::Allow
        },
        reason: refusal.map_or("no-policy", |refusal| refusal.reason.code()),
        tier: refusal.map_or("policy", |refusal| refusal.reason.tier()),
        policy: None,
        received,
    }
}

fn object(call: &Call) -> ObjectRef<'static> {
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned().into());
    ObjectRef {
        resource: text(&call.resource),
        namespace: text(&call.namespace),
        name: text(&call.name),
        api_group: text(&call.group),
        api_version: text(&call.version),
        subresource: text(&call.subresource),
    }
}
