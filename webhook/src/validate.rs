//! Judges the final object. Other webhooks may change a pod after us, so the mutating stage proves nothing: a created pod must be
//! one that [`crate::inject`] would leave as it is, but for conveniences. Pure.

use std::collections::BTreeSet;

use serde_json::Value;
use tollgate_shared::contract::{CONTAINER, Injection, RESERVED_VOLUMES};

use crate::inject::{
    Container, Context, Outcome, Pod, believed, lowered, plan, refuse_capabilities, refuse_uid,
    text,
};
use crate::json::{Json, Tree};
use crate::reason::{Denial, Reason};

/// What is being done to a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// CREATE of `pods`.
    Create,
    /// UPDATE of `pods/ephemeralcontainers`.
    EphemeralContainers,
    /// UPDATE of `pods/resize`.
    Resize,
    /// Anything else, which is none of this stage's business.
    Other,
}

impl Operation {
    /// From the words of an AdmissionRequest.
    #[must_use]
    pub fn new(operation: &str, subresource: &str) -> Self {
        match (operation, subresource) {
            ("CREATE", "") => Self::Create,
            ("UPDATE", "ephemeralcontainers") => Self::EphemeralContainers,
            ("UPDATE", "resize") => Self::Resize,
            _ => Self::Other,
        }
    }
}

/// The result of a judgement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Allowed.
    Allow(Reason),
    /// Refused.
    Deny(Denial),
}

impl Verdict {
    /// The reason, for the metric.
    #[must_use]
    pub const fn reason(&self) -> Reason {
        match self {
            Self::Allow(reason) => *reason,
            Self::Deny(denial) => denial.reason,
        }
    }
}

/// Judges `pod` as the API server is about to store it; `old` is what it was, on an UPDATE.
#[must_use]
pub fn validate(
    operation: Operation,
    pod: &Value,
    old: Option<&Value>,
    context: &Context<'_>,
) -> Verdict {
    let old = match old.map(Tree::of).transpose() {
        Ok(old) => old,
        Err(error) => return Verdict::Deny(error.into()),
    };
    match Tree::of(pod) {
        Ok(pod) => judge(operation, pod.root(), old.as_ref().map(Tree::root), context),
        Err(error) => Verdict::Deny(error.into()),
    }
}

/// As [`validate`], for pods that were read as reviews are.
pub(crate) fn judge(
    operation: Operation,
    pod: Json<'_>,
    old: Option<Json<'_>>,
    context: &Context<'_>,
) -> Verdict {
    let judged = match operation {
        Operation::Create => created(pod, context),
        Operation::EphemeralContainers => debugged(pod, old, context),
        Operation::Resize => resized(pod, old, context),
        Operation::Other => Ok(Reason::NotApplicable),
    };
    judged.map_or_else(Verdict::Deny, Verdict::Allow)
}

/// A pod that is not what we would make may be what another replica makes.
fn created(pod: Json<'_>, context: &Context<'_>) -> Result<Reason, Denial> {
    let ours = Context {
        vouching: None,
        ..*context
    };
    as_made(pod, &ours).or_else(|denial| {
        let config = believed(pod, context);
        let theirs = config.as_ref().map(|config| Context { config, ..ours });
        match theirs.map(|theirs| as_made(pod, &theirs)) {
            Some(Ok(Reason::Valid)) => Ok(Reason::Vouched),
            _ => Err(denial),
        }
    })
}

/// Judges by one configuration.
fn as_made(pod: Json<'_>, context: &Context<'_>) -> Result<Reason, Denial> {
    match plan(pod, context)? {
        Outcome::Leave(reason) => Ok(reason),
        Outcome::Change(changes) => match changes.into_denial() {
            None => Ok(Reason::Valid),
            Some(denial) => Err(denial),
        },
    }
}

/// The pod before an UPDATE. The API server always sends it.
fn before(old: Option<Json<'_>>) -> Result<Pod<'_>, Denial> {
    Pod::read(old.ok_or_else(|| Denial::malformed("oldObject", "there"))?)
}

fn sidecar<'p, 'a>(pod: &'p Pod<'a>) -> Option<&'p Container<'a>> {
    pod.init
        .iter()
        .find(|container| container.name == CONTAINER)
}

/// Judges the ephemeral containers that are new; the others were judged when they came.
fn debugged(pod: Json<'_>, old: Option<Json<'_>>, context: &Context<'_>) -> Result<Reason, Denial> {
    let Some(injection) = context.injection else {
        return Ok(Reason::NotManaged);
    };
    let (pod, old) = (Pod::read(pod)?, before(old)?);
    let injected = sidecar(&pod).is_some();
    if !injected && injection < Injection::Enforced {
        return Ok(Reason::NotApplicable);
    }
    let known: BTreeSet<&str> = old.ephemeral.iter().map(|known| known.name).collect();
    let new = |container: &&Container<'_>| !known.contains(container.name);
    for container in pod.ephemeral.iter().filter(new) {
        judge_name(container)?;
        if injected {
            judge_reach(container, context.config.assign_uid)?;
        }
        // A pod that opted out of an enforced namespace must stay token-free as well: no way to the node.
        refuse_capabilities(container, injection)?;
    }
    Ok(Reason::Valid)
}

fn judge_name(container: &Container<'_>) -> Result<(), Denial> {
    if container.name == CONTAINER {
        let message = format!("the name {CONTAINER} is reserved for the sidecar; use another one");
        return Err(Denial::new(Reason::ReservedName, message));
    }
    Ok(())
}

/// Refuses an ephemeral container that would get at the sidecar.
fn judge_reach(container: &Container<'_>, assign_uid: bool) -> Result<(), Denial> {
    let name = container.name;
    if text(container.value, "targetContainerName")? == Some(CONTAINER) {
        let message = format!(
            "ephemeral container {name} would see the sidecar's processes; target an agent container instead"
        );
        return Err(Denial::new(Reason::DebugSidecar, message));
    }
    let is_reserved = |volume: &&str| RESERVED_VOLUMES.contains(volume);
    let mut found = container.variable_volumes()?.into_iter().find(is_reserved);
    for mount in container.mounts()? {
        found = found.or(Some(mount?.volume).filter(is_reserved));
    }
    if let Some(volume) = found {
        let message = format!(
            "ephemeral container {name} reads {volume}, which is the sidecar's; remove what names it"
        );
        return Err(Denial::new(Reason::ReservedVolume, message));
    }
    if assign_uid {
        refuse_uid(container.value, &format!("ephemeral container {name}"))?;
    }
    Ok(())
}

fn volume<'a>(pod: &Pod<'a>, name: &str) -> Option<Json<'a>> {
    let mut volumes = pod.volumes.iter();
    let found = volumes.find(|volume| volume.name == name);
    found.map(|volume| volume.value)
}

/// The sidecar's resources may grow, not shrink; its volumes stay (a resize may change the size of memory volumes in
/// Kubernetes 1.37, behind a feature gate).
fn resized(pod: Json<'_>, old: Option<Json<'_>>, context: &Context<'_>) -> Result<Reason, Denial> {
    if context.injection.is_none() {
        return Ok(Reason::NotManaged);
    }
    let (pod, old) = (Pod::read(pod)?, before(old)?);
    let (Some(new), Some(was)) = (sidecar(&pod), sidecar(&old)) else {
        return Ok(Reason::NotApplicable);
    };
    if let Some(name) = RESERVED_VOLUMES
        .into_iter()
        .find(|name| volume(&pod, name) != volume(&old, name))
    {
        let message =
            format!("the resize changes volume {name}, which is the sidecar's; leave it as it is");
        return Err(Denial::new(Reason::SidecarResize, message));
    }
    match lowered(new.value.get("resources"), was.value.get("resources"))? {
        None => Ok(Reason::Valid),
        Some(amount) => {
            let message = format!(
                "the resize lowers {amount} of the sidecar; resize the agent's containers alone"
            );
            Err(Denial::new(Reason::SidecarResize, message))
        }
    }
}
