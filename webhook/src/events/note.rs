//! What an event says, and of which object: computed anew from the workload as the API server gives it, never taken from a
//! review. Pure but for the time of the event.

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tollgate_shared::contract::{Injection, WEBHOOK_NAME};

use super::hint::controller;
use crate::inject::{Context, Decision, InjectConfig, inject};
use crate::json::{Json, Tree};
use crate::reason::{Reason, one_line};
use crate::workload::{self, Made};

/// Longest note that the API server takes, in bytes.
const NOTE: usize = 1024;
/// Longest part of the object's name in the event's.
const NAME: usize = 200;

/// Something that a workload's owner should know.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Note {
    reason: Reason,
    text: String,
}

impl Note {
    /// What becomes of the pods of `workload`; `None` if there is nothing to tell.
    pub(crate) fn about(
        workload: &Value,
        namespace: &str,
        injection: Injection,
        config: &InjectConfig,
    ) -> Option<Self> {
        let context = Context::unvouched(injection, namespace, config);
        let Made::Pod(pod) = workload::made(workload) else {
            return None;
        };
        let decision = inject(&pod, &context);
        let reason = decision.reason();
        let text = match decision {
            Decision::Deny(denial) => denial.to_string(),
            Decision::Patch { warnings, .. } if !warnings.is_empty() => {
                format!("{reason}: {}", warnings.join("; "))
            }
            _ => return None,
        };
        Some(Self {
            reason,
            text: printable(&text),
        })
    }

    /// The event: of what made the workload, if something did, or the user who made a Deployment would have to know of
    /// ReplicaSets. The same trouble of the same object has the same name, so that replicas do not tell it twice.
    pub(crate) fn event(self, workload: &Value, namespace: &str, now: MicroTime) -> Option<Event> {
        let workload = Tree::of(workload).ok()?;
        let workload = workload.root();
        let own = reference(workload, workload.get("metadata")?, namespace)?;
        let (regarding, related) = match controller(workload) {
            Some(owner) => (reference(owner, owner, namespace)?, Some(own)),
            None => (own, None),
        };
        let told = [regarding.uid.as_deref()?, self.reason.code(), &self.text].join("\n");
        let digest = Sha256::digest(told);
        let digest: String = digest.iter().take(8).map(|b| format!("{b:02x}")).collect();
        let name: String = regarding.name.as_deref()?.chars().take(NAME).collect();
        let is_denial = self.reason != Reason::Injected;
        Some(Event {
            metadata: ObjectMeta {
                name: Some(format!("{}.{digest}", name.trim_end_matches(['.', '-']))),
                namespace: Some(namespace.to_owned()),
                ..ObjectMeta::default()
            },
            action: Some("Admission".to_owned()),
            event_time: Some(now),
            note: Some(self.text),
            reason: Some(self.reason.name().to_owned()),
            regarding: Some(regarding),
            related,
            reporting_controller: Some(WEBHOOK_NAME.to_owned()),
            reporting_instance: Some(WEBHOOK_NAME.to_owned()),
            type_: Some(if is_denial { "Warning" } else { "Normal" }.to_owned()),
            ..Event::default()
        })
    }
}

/// Whom an event is about: kind as `object` says, names as `names` says.
fn reference(object: Json<'_>, names: Json<'_>, namespace: &str) -> Option<ObjectReference> {
    let text = |of: Json<'_>, key: &str| of.get(key)?.as_str().map(str::to_owned);
    Some(ObjectReference {
        api_version: Some(text(object, "apiVersion")?),
        kind: Some(text(object, "kind")?),
        name: Some(text(names, "name")?),
        namespace: Some(namespace.to_owned()),
        uid: Some(text(names, "uid")?),
        ..ObjectReference::default()
    })
}

/// As the API server takes it.
fn printable(text: &str) -> String {
    let text = one_line(text);
    let end = text.floor_char_boundary(NOTE);
    text.get(..end).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests;
