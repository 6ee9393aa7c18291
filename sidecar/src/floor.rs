//! The floor: a short list of calls that no policy can open, decided by path, query and headers alone. Pure.
//!
//! Left to the admission policies, which see what is not visible here: the name of an object that a POST creates (a
//! `kube-root-ca.crt`, one of our CRDs), the container that an exec without `container` ends in (the API server's default is
//! never an init container, so never the sidecar), a Secret's type, an ephemeral container's target.

#[cfg(test)]
mod tests;

use http::HeaderMap;
use tollgate_shared::contract::{CONTAINER, GROUP};

use crate::call::{Call, Verb};
use crate::headers::impersonates;
use crate::refusal::{Reason, Refusal};

/// One rule: whether it forbids a call, its reason, and what to do instead.
struct Rule {
    forbids: fn(&Call) -> bool,
    reason: Reason,
    message: &'static str,
}

const RULES: &[Rule] = &[
    Rule {
        forbids: mints,
        reason: Reason::FloorTokenRequest,
        message: "tokens cannot be requested through the sidecar; it mints one for each call, so call the API directly",
    },
    Rule {
        forbids: reaches_a_kubelet,
        reason: Reason::FloorNodeProxy,
        message: "nodes/proxy is closed, as it is root on the node; use pods/log, pods/exec or metrics.k8s.io instead",
    },
    Rule {
        forbids: gets_a_certificate,
        reason: Reason::FloorCertificate,
        message: "client certificates cannot be requested or approved through the sidecar; ask a cluster administrator",
    },
    Rule {
        forbids: changes_admission,
        reason: Reason::FloorAdmission,
        message: "admission webhooks, admission policies and tollgate.dev objects cannot be changed through the sidecar; ask a \
                  cluster administrator",
    },
    Rule {
        forbids: changes_grants,
        reason: Reason::FloorAdmission,
        message: "cluster roles and role bindings cannot be changed through the sidecar, as they could grant this pod's rights to anybody; \
                  ask a cluster administrator",
    },
    Rule {
        forbids: changes_the_cluster_ca,
        reason: Reason::FloorClusterCa,
        message: "the config map kube-root-ca.crt cannot be changed through the sidecar; delete other config maps by name",
    },
];

/// Checks a call against the floor.
///
/// # Errors
/// The reason of the rule that forbids it, with what to do instead.
pub fn check(call: &Call, headers: &HeaderMap) -> Result<(), Refusal> {
    if headers.keys().any(impersonates) {
        return Err(Refusal::new(
            Reason::FloorImpersonation,
            "impersonation headers are refused; drop --as and --as-group, calls are made as the pod's service account",
        ));
    }
    executes_in_the_sidecar(call)?;
    RULES
        .iter()
        .find(|rule| (rule.forbids)(call))
        .map_or(Ok(()), |rule| Err(Refusal::new(rule.reason, rule.message)))
}

/// Any method: GET and POST both execute (`pods/exec` over WebSocket and over SPDY), the others are never routed.
fn executes_in_the_sidecar(call: &Call) -> Result<(), Refusal> {
    if !call.is("", "pods") || !matches!(call.subresource.as_str(), "exec" | "attach") {
        return Ok(());
    }
    let mut containers = call.containers();
    let first = containers.next();
    // Two values that differ are two containers to two parsers, and one of them could be ours.
    if call.containers().any(names_the_sidecar) || containers.any(|other| Some(other) != first) {
        return Err(Refusal::new(
            Reason::FloorSidecarExec,
            "exec and attach into the container tollgate are closed; name one other container with -c",
        ));
    }
    Ok(())
}

/// The kubelet compares exactly. Spellings that it would not find are refused too, at no cost.
fn names_the_sidecar(container: &str) -> bool {
    container.trim().eq_ignore_ascii_case(CONTAINER)
}

fn mints(call: &Call) -> bool {
    call.is("", "serviceaccounts") && call.subresource == "token"
}

fn reaches_a_kubelet(call: &Call) -> bool {
    call.is("", "nodes") && call.subresource == "proxy"
}

/// Creating (a PATCH can create), approving and signing. Also the pods' own certificate requests: both kinds end in a
/// client certificate that outlives the call.
fn gets_a_certificate(call: &Call) -> bool {
    (call.is("certificates.k8s.io", "certificatesigningrequests")
        || call.is("certificates.k8s.io", "podcertificaterequests"))
        && matches!(call.verb, Verb::Create | Verb::Update | Verb::Patch)
}

fn changes_admission(call: &Call) -> bool {
    if !call.resource_request || !call.verb.writes() {
        return false;
    }
    match (call.group.as_str(), call.resource.as_str()) {
        ("admissionregistration.k8s.io", _) => true,
        // What serves our group: named objects by their name, and collections because they hold ours.
        ("apiextensions.k8s.io", "customresourcedefinitions")
        | ("apiregistration.k8s.io", "apiservices") => {
            call.verb == Verb::DeleteCollection || in_our_group(&call.name)
        }
        (group, _) => group == GROUP || in_our_group(group),
    }
}

/// `policies.tollgate.dev`, `v1alpha1.tollgate.dev`.
fn in_our_group(name: &str) -> bool {
    name.strip_suffix(GROUP)
        .is_some_and(|start| start.ends_with('.'))
}

/// Every one, not only ours: whoever binds the agent's own role to `system:unauthenticated`, or adds its rules to a role that is
/// bound to it (`system:public-info-viewer`), needs no credential any more, and RBAC's escalation check allows it. OpenShift serves
/// the same objects under a group of its own.
fn changes_grants(call: &Call) -> bool {
    call.resource_request
        && call.verb.writes()
        && matches!(
            call.group.as_str(),
            "rbac.authorization.k8s.io" | "authorization.openshift.io"
        )
        && matches!(
            call.resource.as_str(),
            "clusterroles" | "rolebindings" | "clusterrolebindings"
        )
}

/// Deleting a collection deletes this one, too; its name is not in the path.
fn changes_the_cluster_ca(call: &Call) -> bool {
    call.is("", "configmaps")
        && call.verb.writes()
        && (call.name == "kube-root-ca.crt" || call.verb == Verb::DeleteCollection)
}
