//! Whether Tollgate stands: the namespace's label, the grant, the webhooks, the policies.

use k8s_openapi::api::rbac::v1::RoleBinding;
use serde_json::Value;
use tollgate_shared::contract::{
    AGENT_CLUSTER_ROLE, Injection, NAMESPACE_LABEL, ROLE_BINDING, WEBHOOK_NAME,
};

use super::finding::Finding;
use super::snapshot::{Kind, Snapshot, name};
use crate::enable::NEVER;
use crate::enable::guard::{self, Guard, Shipped, Stored};

/// Labels of a namespace that the webhooks' selectors skip.
const SKIPPED: [(&str, Option<&str>); 2] = [
    ("control-plane", None),
    ("kubernetes.azure.com/managedby", Some("aks")),
];

/// The policies.
pub(crate) const POLICIES: [&str; 13] = [
    "tollgate-audience-guard",
    "tollgate-debug-guard",
    "tollgate-enforced-pods",
    "tollgate-enforced-root-ca",
    "tollgate-enforced-secrets",
    "tollgate-exec-guard",
    "tollgate-grant-guard",
    "tollgate-label-guard",
    "tollgate-own-objects",
    "tollgate-system-namespace",
    "tollgate-token-guard",
    "tollgate-unmanaged-pods",
    "tollgate-update-guard",
];

const APPLY: &str = "apply the install.yaml of the running release again";

/// Judges the namespace itself.
pub(crate) fn namespace(snapshot: &Snapshot, findings: &mut Vec<Finding>) {
    let namespace = snapshot.name();
    let object = format!("namespace/{namespace}");
    match (snapshot.label(), snapshot.injection()) {
        (None, _) if NEVER.contains(&namespace) => {
            let text = "is never managed: an outage of Tollgate must not reach it";
            findings.push(Finding::error("not-managed", object.as_str(), text));
        }
        (None, _) => {
            let text = format!(
                "is not managed, so its pods hold ordinary tokens; run: kubectl label namespace {namespace} {NAMESPACE_LABEL}=enabled"
            );
            findings.push(Finding::error("not-managed", object.as_str(), text));
        }
        (Some(label), None) => {
            let known = Injection::WORDS.join(", ");
            let text = format!(
                "its label {NAMESPACE_LABEL} is {label:?}, so it is not managed; set one of {known}"
            );
            findings.push(Finding::error("bad-label", object.as_str(), text));
        }
        (Some(_), Some(_)) => {}
    }
    let labels = snapshot.namespace.metadata.labels.iter().flatten();
    for (key, value) in labels {
        let skips = |(label, only): &(&str, Option<&str>)| {
            key == label && only.is_none_or(|only| only == value)
        };
        if SKIPPED.iter().any(skips) {
            let text =
                format!("the webhooks skip namespaces with the label {key}={value}; remove it");
            findings.push(Finding::error("webhooks-skip", object.as_str(), text));
        }
    }
}

/// Judges what Tollgate needs to work in the namespace.
pub(crate) fn check(snapshot: &Snapshot, injection: Injection, findings: &mut Vec<Finding>) {
    grant(snapshot, findings);
    for (kind, stage) in [
        (Kind::MutatingWebhooks, "mutate"),
        (Kind::ValidatingWebhooks, "validate"),
    ] {
        webhook(
            snapshot,
            kind,
            &format!("{injection}.{stage}.tollgate.dev"),
            findings,
        );
    }
    if snapshot.has_seen(Kind::Policies) && snapshot.has_seen(Kind::PolicyBindings) {
        for policy in POLICIES {
            if let Some(text) = fault(snapshot, policy) {
                let object = format!("validatingadmissionpolicy/{policy}");
                findings.push(Finding::error(
                    "policy-missing",
                    object,
                    format!("{text}; {APPLY}"),
                ));
            }
        }
        token_guard(snapshot, findings);
    }
}

fn grant(snapshot: &Snapshot, findings: &mut Vec<Finding>) {
    let found = snapshot.typed::<RoleBinding>(Kind::RoleBindings);
    let is_grant = |binding: &RoleBinding| {
        binding.metadata.name.as_deref() == Some(ROLE_BINDING)
            && binding.role_ref.name == AGENT_CLUSTER_ROLE
    };
    if snapshot.has_seen(Kind::RoleBindings) && !found.iter().any(is_grant) {
        let text = "there is no grant, so sidecars cannot mint; see the log of tollgate-webhook, which gives it while the token guard stands";
        findings.push(Finding::error(
            "grant-missing",
            format!("rolebinding/{ROLE_BINDING}"),
            text,
        ));
    }
}

fn webhook(snapshot: &Snapshot, kind: Kind, entry: &str, findings: &mut Vec<Finding>) {
    if !snapshot.has_seen(kind) {
        return;
    }
    let mut ours = snapshot
        .list(kind)
        .iter()
        .filter(|object| name(object) == WEBHOOK_NAME);
    let found = ours.next().and_then(|object| {
        let mut entries = object.get("webhooks")?.as_array()?.iter();
        entries.find(|one| one.get("name").and_then(Value::as_str) == Some(entry))
    });
    let text = |pointer| found?.pointer(pointer)?.as_str();
    let wrong = if found.is_none() {
        format!("has no entry {entry}, so pods are not looked at; {APPLY}")
    } else if text("/failurePolicy") != Some("Fail") {
        format!("its entry {entry} does not fail closed; {APPLY}")
    } else if text("/clientConfig/caBundle").is_none_or(str::is_empty) {
        "has no caBundle, so no pod is admitted; is tollgate-webhook running?".to_owned()
    } else {
        return;
    };
    let (_, resource, _) = kind.resource();
    let object = format!("{}/{WEBHOOK_NAME}", resource.trim_end_matches('s'));
    findings.push(Finding::error("webhook-missing", object, wrong));
}

/// Whether a policy is there and denies.
pub(crate) fn stands(snapshot: &Snapshot, policy: &str) -> bool {
    fault(snapshot, policy).is_none()
}

fn fault(snapshot: &Snapshot, policy: &str) -> Option<&'static str> {
    let mut policies = snapshot.list(Kind::Policies).iter();
    if !policies.any(|object| name(object) == policy) {
        return Some("is not there");
    }
    let denies = |binding: &&Value| {
        let actions = binding.pointer("/spec/validationActions");
        let actions = actions.and_then(Value::as_array).into_iter().flatten();
        binding.pointer("/spec/policyName").and_then(Value::as_str) == Some(policy)
            && actions.into_iter().any(|action| action == "Deny")
    };
    let denied = snapshot
        .list(Kind::PolicyBindings)
        .iter()
        .any(|binding| denies(&binding));
    (!denied).then_some("no binding makes it deny")
}

/// The token guard is compared whole: the grant rests on it.
fn token_guard(snapshot: &Snapshot, findings: &mut Vec<Finding>) {
    let Some(Ok(config)) = &snapshot.config else {
        return;
    };
    let Ok(shipped) = Shipped::new(config.defaults.binding) else {
        return;
    };
    let find = |kind| {
        snapshot
            .list(kind)
            .iter()
            .find(|object| name(object) == guard::NAME)
    };
    let (policy, binding) = (find(Kind::Policies), find(Kind::PolicyBindings));
    let judged = shipped.judge(policy.map(stored), binding.map(stored));
    if let (Guard::Fallen(why), true) = (judged, stands(snapshot, guard::NAME)) {
        let object = format!("validatingadmissionpolicy/{}", guard::NAME);
        let text =
            format!("is not as this release ships it ({why}), so grants are withheld; {APPLY}");
        findings.push(Finding::error("policy-drift", object, text));
    }
}

fn stored(object: &Value) -> Stored<'_> {
    Stored {
        spec: object.get("spec"),
        release: object
            .pointer("/metadata/annotations/tollgate.dev~1release")
            .and_then(Value::as_str),
        is_terminating: object.pointer("/metadata/deletionTimestamp").is_some(),
    }
}
