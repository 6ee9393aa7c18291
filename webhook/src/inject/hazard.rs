//! What makes a pod one whose containers could reach the sidecar's credential, or the node's, whatever we mount: host access,
//! shared processes, the sidecar's uid, its ports. Only judges; changes nothing.

use tollgate_shared::contract::{CONTAINER, Injection, Settings, UID};

use super::pod::{Container, Pod, flag, list, number, object, text};
use crate::json::Json;
use crate::reason::{Denial, Reason};

/// Capabilities of Pod Security's `baseline`: they reach neither node nor sidecar.
const HARMLESS: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];
/// Capabilities that reach no credential while the pod shares nothing with the node and no processes inside: what they see of
/// the sidecar is TLS. Service meshes and debuggers need them, so only enforced namespaces refuse them.
const TOLERATED: [&str; 3] = ["NET_ADMIN", "NET_RAW", "SYS_PTRACE"];
/// Labels of nodes that name the operating system.
const OS_LABELS: [&str; 2] = ["kubernetes.io/os", "beta.kubernetes.io/os"];

/// Refuses a pod that shares something with the node. `injection` is the namespace's label.
pub(crate) fn refuse_host_access(pod: &Pod<'_>, injection: Injection) -> Result<(), Denial> {
    if flag(pod.spec, "hostNetwork")? {
        return Err(Denial::new(
            Reason::HostNetwork,
            "spec.hostNetwork is true: the sidecar's ports would open on the node and the node's identity is in reach; remove it",
        ));
    }
    for key in ["hostPID", "hostIPC"] {
        if flag(pod.spec, key)? {
            let message =
                format!("spec.{key} is true: every token on the node would be in reach; remove it");
            return Err(Denial::new(Reason::HostNamespace, message));
        }
    }
    for volume in &pod.volumes {
        if let Some(host) = object(volume.value, "hostPath")? {
            let path = text(host, "path")?.unwrap_or_default();
            let message = format!(
                "volume {} is the node's {path:?}; volumes of the node are refused, since tokens lie in many places there; remove it",
                volume.name
            );
            return Err(Denial::new(Reason::HostPath, message));
        }
    }
    agents(pod).try_for_each(|container| refuse_capabilities(container, injection))
}

/// Every container but ours, which is compared with what it should be.
fn agents<'p, 'a>(pod: &'p Pod<'a>) -> impl Iterator<Item = &'p Container<'a>> {
    let all = pod.all().chain(&pod.ephemeral);
    all.filter(|container| container.name != CONTAINER)
}

/// Refuses a privileged container and capabilities beyond those that are harmless.
pub(crate) fn refuse_capabilities(
    container: &Container<'_>,
    injection: Injection,
) -> Result<(), Denial> {
    let Some(context) = object(container.value, "securityContext")? else {
        return Ok(());
    };
    let deny = |what: &str| {
        let message = format!("container {} {what}", container.name);
        Err(Denial::new(Reason::Capability, message))
    };
    if flag(context, "privileged")? {
        return deny("is privileged, so it reaches every token on the node; remove privileged");
    }
    if text(context, "procMount")?.is_some_and(|mount| mount != "Default") {
        return deny("has an unmasked procMount; remove it");
    }
    let Some(capabilities) = object(context, "capabilities")? else {
        return Ok(());
    };
    for added in list(capabilities, "add")?.items.iter() {
        let Some(added) = added.as_str() else {
            return Err(Denial::malformed("capabilities.add", "a list of texts"));
        };
        let name = added.to_ascii_uppercase();
        let name = name.strip_prefix("CAP_").unwrap_or(&name);
        let tolerated = TOLERATED.contains(&name) && injection < Injection::Enforced;
        if !HARMLESS.contains(&name) && !tolerated {
            return deny(&format!(
                "adds capability {added}, which is refused here; remove it"
            ));
        }
    }
    Ok(())
}

/// Refuses a pod in which agents could reach into the sidecar, or in which the sidecar cannot run.
pub(crate) fn refuse_sharing(
    pod: &Pod<'_>,
    settings: &Settings,
    assign_uid: bool,
) -> Result<(), Denial> {
    refuse_windows(pod)?;
    if flag(pod.spec, "shareProcessNamespace")? {
        return Err(Denial::new(
            Reason::SharedPid,
            "spec.shareProcessNamespace is true: containers could read the sidecar's files through /proc; remove it",
        ));
    }
    if assign_uid {
        refuse_uid(pod.spec, "the pod")?;
        for container in agents(pod) {
            refuse_uid(container.value, &format!("container {}", container.name))?;
        }
    }
    let ours = [settings.port, settings.admin_port];
    agents(pod).try_for_each(|container| refuse_ports(container, ours))
}

fn refuse_windows(pod: &Pod<'_>) -> Result<(), Denial> {
    let os = object(pod.spec, "os")?.map_or(Ok(None), |os| text(os, "name"))?;
    let mut named = os.is_some_and(|os| os != "linux");
    if let Some(selector) = object(pod.spec, "nodeSelector")? {
        for label in OS_LABELS {
            named |= text(selector, label)?.is_some_and(|os| os != "linux");
        }
    }
    if named {
        let message = "the pod is not for Linux, the only system that the sidecar runs on; run it in a namespace without Tollgate";
        return Err(Denial::new(Reason::UnsupportedOs, message));
    }
    Ok(())
}

/// Refuses `holder` (a pod's spec or a container) if it runs as the sidecar's uid.
pub(crate) fn refuse_uid(holder: Json<'_>, whose: &str) -> Result<(), Denial> {
    let Some(context) = object(holder, "securityContext")? else {
        return Ok(());
    };
    if number(context, "runAsUser")? == Some(UID) {
        let message = format!("{whose} runs as uid {UID}, which is the sidecar's; use another one");
        return Err(Denial::new(Reason::UidClash, message));
    }
    Ok(())
}

fn refuse_ports(container: &Container<'_>, ours: [u16; 2]) -> Result<(), Denial> {
    for port in list(container.value, "ports")?.items.iter() {
        for key in ["containerPort", "hostPort"] {
            let Some(number) = number(port, key)? else {
                continue;
            };
            if ours.iter().any(|own| i64::from(*own) == number) {
                let message = format!(
                    "container {} declares {key} {number}, which is the sidecar's; use another port, or change the \
                     proxy's with annotation tollgate.dev/port",
                    container.name
                );
                return Err(Denial::new(Reason::PortClash, message));
            }
        }
    }
    Ok(())
}
