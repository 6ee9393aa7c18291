//! Which pods are injected: the namespace's label decides, the pod's label adds or excepts.

use tollgate_shared::contract::{Injection, POD_LABEL, SYSTEM_NAMESPACE};

use super::Context;
use super::pod::{Pod, text};
use crate::reason::{Denial, Reason};

/// Set by the kubelet on the pod that mirrors a static one (`pkg/kubelet/types/types.go`).
const MIRROR_ANNOTATION: &str = "kubernetes.io/config.mirror";
/// Namespaces that our webhooks never match; here too, should a selector be edited.
const SYSTEM_NAMESPACES: [&str; 2] = ["kube-system", SYSTEM_NAMESPACE];

/// What becomes of a pod.
#[derive(Debug)]
pub(crate) enum Selection {
    /// It is injected.
    Inject,
    /// None of our business at all.
    Ignore(Reason),
    /// In our namespaces, but not injected.
    Leave(Reason),
    /// In an enforced namespace and excepted: allowed if it is token-free.
    LeaveIfTokenFree,
}

/// Decides for one pod.
pub(crate) fn select(pod: &Pod<'_>, context: &Context<'_>) -> Result<Selection, Denial> {
    let Some(injection) = context.injection else {
        return Ok(Selection::Ignore(Reason::NotManaged));
    };
    if SYSTEM_NAMESPACES.contains(&context.namespace) {
        return Ok(Selection::Ignore(Reason::SystemNamespace));
    }
    same_namespace(pod, context.namespace)?;
    // Anybody may write the annotation; only a kubelet shows static pods, and the API server gives those no token.
    if context.from_node && pod.annotation(MIRROR_ANNOTATION)?.is_some() {
        return Ok(Selection::Ignore(Reason::MirrorPod));
    }
    Ok(match (injection, asked(pod)?) {
        (Injection::OptIn, None) => Selection::Leave(Reason::NotSelected),
        (Injection::OptIn | Injection::Enabled, Some(false)) => Selection::Leave(Reason::OptedOut),
        (Injection::Enforced, Some(false)) => Selection::LeaveIfTokenFree,
        (Injection::OptIn, Some(true)) | (Injection::Enabled | Injection::Enforced, _) => {
            Selection::Inject
        }
    })
}

/// The object's namespace may be empty, but it never contradicts the request's.
fn same_namespace(pod: &Pod<'_>, namespace: &str) -> Result<(), Denial> {
    match text(pod.metadata, "namespace")? {
        Some(own) if !own.is_empty() && own != namespace => {
            let message = format!(
                "the pod says namespace {own:?}, the request {namespace:?}; correct the pod"
            );
            Err(Denial::new(Reason::BadRequest, message))
        }
        _ => Ok(()),
    }
}

fn asked(pod: &Pod<'_>) -> Result<Option<bool>, Denial> {
    match pod.label(POD_LABEL)? {
        None => Ok(None),
        Some("true") => Ok(Some(true)),
        Some("false") => Ok(Some(false)),
        Some(other) => {
            let message = format!("label {POD_LABEL} is {other:?}; use \"true\" or \"false\"");
            Err(Denial::new(Reason::BadLabel, message))
        }
    }
}
