//! Why an admission was decided as it was. Each reason has one code, which is the metric label, the head of the denial text
//! and, in the spelling of events, the event's reason. Codes are stable across releases.

use std::fmt;

tollgate_shared::reasons! {
    /// The pod was changed.
    Injected = "injected",
    /// The pod needs no change.
    AlreadyInjected = "already-injected",
    /// The final pod is as it must be.
    Valid = "valid",
    /// The final pod is as a replica of another release or configuration has made it, a moment ago.
    Vouched = "vouched",

    /// The namespace does not carry our label.
    NotManaged = "not-managed",
    /// The namespace is one that we never touch.
    SystemNamespace = "system-namespace",
    /// A kubelet shows the API server a static pod.
    MirrorPod = "mirror-pod",
    /// The namespace is `opt-in` and the pod does not ask.
    NotSelected = "not-selected",
    /// The pod is labelled `"false"`.
    OptedOut = "opted-out",
    /// Another object, operation or subresource than those that we judge.
    NotApplicable = "not-applicable",

    /// The object is not what the API server would send.
    BadRequest = "bad-request",
    /// The pod's label is neither `"true"` nor `"false"`.
    BadLabel = "bad-label",
    /// One of our annotations has a value that it cannot have, or is none of ours.
    BadAnnotation = "bad-annotation",
    /// A container or volume has a name that is reserved for ours.
    ReservedName = "reserved-name",
    /// A container mounts one of our volumes, or reads variables from it.
    ReservedVolume = "reserved-volume",
    /// A container mounts something where the agent's files go.
    ReservedPath = "reserved-path",
    /// A projected token that is not allowed.
    ForeignToken = "foreign-token",
    /// A projected client certificate for the API server.
    PodCertificate = "pod-certificate",
    /// A volume of the node.
    HostPath = "host-path",
    /// The pod uses the node's network.
    HostNetwork = "host-network",
    /// The pod uses the node's processes or IPC.
    HostNamespace = "host-namespace",
    /// The pod's containers see each other's processes.
    SharedPid = "shared-pid",
    /// A container is privileged, or has a capability that reaches the node or the sidecar.
    Capability = "capability",
    /// A container runs as the sidecar's uid.
    UidClash = "uid-clash",
    /// A container declares one of the sidecar's ports.
    PortClash = "port-clash",
    /// Not a Linux pod.
    UnsupportedOs = "unsupported-os",
    /// The pod's own resource limits leave no room for the sidecar.
    PodResources = "pod-resources",
    /// A pod labelled `"false"` in an enforced namespace is not token-free.
    NotTokenFree = "not-token-free",

    /// The final pod lacks the sidecar.
    SidecarMissing = "sidecar-missing",
    /// The final pod's sidecar, or what belongs to it, is not as we made it.
    SidecarDrift = "sidecar-drift",
    /// The final pod still has the API server's own token.
    TokenLeft = "token-left",
    /// An ephemeral container aims at the sidecar.
    DebugSidecar = "debug-sidecar",
    /// A resize takes resources from the sidecar.
    SidecarResize = "sidecar-resize",
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// A refused admission: why, and what the pod's owner can do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {message}")]
pub struct Denial {
    /// The reason.
    pub reason: Reason,
    /// One sentence that names the field and what to do about it.
    pub message: String,
}

impl Denial {
    /// A denial.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
        }
    }

    /// The object is not one that the API server would send.
    pub(crate) fn malformed(what: &str, wanted: &str) -> Self {
        Self::new(
            Reason::BadRequest,
            format!("{what} is not {wanted}; correct the object"),
        )
    }
}

/// What was read as JSON is no object that we can judge.
impl From<serde_json::Error> for Denial {
    fn from(error: serde_json::Error) -> Self {
        let message = format!("the object cannot be read: {error}; correct it");
        Self::new(Reason::BadRequest, message)
    }
}

/// A text from outside on one line that a terminal can be shown.
pub(crate) fn one_line(text: &str) -> String {
    text.replace(char::is_control, " ")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn codes_are_unique_and_fit_a_label() {
        let codes: BTreeSet<&str> = Reason::ALL.iter().map(|reason| reason.code()).collect();
        assert_eq!(codes.len(), Reason::ALL.len());
        for code in codes {
            assert!(
                code.chars().all(|c| c.is_ascii_lowercase() || c == '-'),
                "{code}"
            );
        }
        for reason in Reason::ALL {
            let hyphens = reason.name().replace(|c: char| c.is_ascii_uppercase(), "-");
            let letters = reason.code().replace('-', "");
            assert_eq!(reason.name().to_ascii_lowercase(), letters);
            assert_eq!(
                hyphens.matches('-').count(),
                reason.code().split('-').count()
            );
        }
    }
    #[test]
    fn every_code_is_in_the_documentation_and_no_other() {
        let text = include_str!("../../docs/operations.md");
        let (_, section) = text.split_once("## When a pod is denied\n").unwrap();
        let section = section.split("\n## ").next().unwrap();
        let rows = section.lines().filter(|line| line.starts_with('|'));
        let cells = rows.filter_map(|row| row.split('|').nth(1));
        let documented: Vec<&str> = cells
            .flat_map(|cell| cell.split('`').skip(1).step_by(2))
            .collect();
        let codes: BTreeSet<&str> = Reason::ALL.iter().map(|reason| reason.code()).collect();
        assert_eq!(BTreeSet::from_iter(documented.iter().copied()), codes);
        assert_eq!(documented.len(), codes.len(), "{documented:?}");
    }
}
