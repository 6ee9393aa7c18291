//! What a cluster showed: the namespace, and a list of each kind, or why there is none. Objects in, findings out: nothing here
//! asks the cluster.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Namespace;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tollgate_shared::contract::{Injection, NAMESPACE_LABEL};

use super::finding::Finding;
use super::{install, metadata, pods, principals};
use crate::inject::InjectConfig;

/// Kinds that are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Pods,
    /// Metadata of the Secrets of type service-account-token.
    TokenSecrets,
    NetworkPolicies,
    Roles,
    RoleBindings,
    ClusterRoles,
    ClusterRoleBindings,
    Policies,
    PolicyBindings,
    MutatingWebhooks,
    ValidatingWebhooks,
}

impl Kind {
    pub(crate) const ALL: [Self; 11] = [
        Self::Pods,
        Self::TokenSecrets,
        Self::NetworkPolicies,
        Self::Roles,
        Self::RoleBindings,
        Self::ClusterRoles,
        Self::ClusterRoleBindings,
        Self::Policies,
        Self::PolicyBindings,
        Self::MutatingWebhooks,
        Self::ValidatingWebhooks,
    ];

    /// Group and version in paths, the resource, and whether it is in namespaces.
    pub(crate) const fn resource(self) -> (&'static str, &'static str, bool) {
        const RBAC: &str = "apis/rbac.authorization.k8s.io/v1";
        const ADMISSION: &str = "apis/admissionregistration.k8s.io/v1";
        match self {
            Self::Pods => ("api/v1", "pods", true),
            Self::TokenSecrets => ("api/v1", "secrets", true),
            Self::NetworkPolicies => ("apis/networking.k8s.io/v1", "networkpolicies", true),
            Self::Roles => (RBAC, "roles", true),
            Self::RoleBindings => (RBAC, "rolebindings", true),
            Self::ClusterRoles => (RBAC, "clusterroles", false),
            Self::ClusterRoleBindings => (RBAC, "clusterrolebindings", false),
            Self::Policies => (ADMISSION, "validatingadmissionpolicies", false),
            Self::PolicyBindings => (ADMISSION, "validatingadmissionpolicybindings", false),
            Self::MutatingWebhooks => (ADMISSION, "mutatingwebhookconfigurations", false),
            Self::ValidatingWebhooks => (ADMISSION, "validatingwebhookconfigurations", false),
        }
    }
}

/// What was seen.
#[derive(Clone, Debug, Default)]
pub(crate) struct Snapshot {
    pub(crate) namespace: Namespace,
    /// The configuration of the webhook; `Err` says why it is not known.
    pub(crate) config: Option<Result<InjectConfig, String>>,
    pub(crate) lists: BTreeMap<Kind, Result<Vec<Value>, String>>,
}

/// What is reported.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted {
    /// Also what the control plane itself may do.
    pub(crate) all: bool,
    /// Principals that are known and meant.
    pub(crate) trust: Vec<String>,
}

impl Snapshot {
    /// Every finding, worst first.
    pub(crate) fn judge(&self, wanted: &Wanted) -> Vec<Finding> {
        let mut findings = Vec::new();
        install::namespace(self, &mut findings);
        if let Some(injection) = self.injection() {
            self.unseen(&mut findings);
            install::check(self, injection, &mut findings);
            pods::check(self, injection, &mut findings);
            pods::secrets(self, &mut findings);
            metadata::check(self, &mut findings);
            principals::check(self, injection, wanted, &mut findings);
        }
        findings.sort();
        findings.dedup();
        findings
    }

    fn unseen(&self, findings: &mut Vec<Finding>) {
        for (kind, list) in &self.lists {
            if let Err(error) = list {
                let (_, resource, _) = kind.resource();
                let text = format!(
                    "could not be listed ({error}), so nothing is said of them; ask with the right to list them"
                );
                findings.push(Finding::warn("could-not-look", resource, text));
            }
        }
        if let Some(Err(error)) = &self.config {
            let text = format!(
                "the webhook's configuration is not known ({error}), so sidecars are not compared; give it with --config"
            );
            findings.push(Finding::warn(
                "could-not-look",
                "configmap/tollgate-webhook",
                text,
            ));
        }
    }

    /// The namespace's name.
    pub(crate) fn name(&self) -> &str {
        self.namespace.metadata.name.as_deref().unwrap_or_default()
    }

    /// The namespace's label.
    pub(crate) fn label(&self) -> Option<&str> {
        let labels = self.namespace.metadata.labels.as_ref()?;
        labels.get(NAMESPACE_LABEL).map(String::as_str)
    }

    /// What the label asks for.
    pub(crate) fn injection(&self) -> Option<Injection> {
        self.label()?.parse().ok()
    }

    /// Whether a kind could be listed.
    pub(crate) fn has_seen(&self, kind: Kind) -> bool {
        self.lists.get(&kind).is_some_and(Result::is_ok)
    }

    /// The objects of a kind.
    pub(crate) fn list(&self, kind: Kind) -> &[Value] {
        match self.lists.get(&kind) {
            Some(Ok(objects)) => objects,
            _ => &[],
        }
    }

    /// The objects of a kind as what they are.
    pub(crate) fn typed<T: DeserializeOwned>(&self, kind: Kind) -> Vec<T> {
        let objects = self.list(kind).iter();
        objects
            .filter_map(|object| T::deserialize(object).ok())
            .collect()
    }
}

/// The name of an object.
pub(crate) fn name(object: &Value) -> &str {
    let name = object.pointer("/metadata/name").and_then(Value::as_str);
    name.unwrap_or_default()
}

#[cfg(test)]
mod tests;
