//! The ways round Tollgate that RBAC can give, and when each is open.

use tollgate_shared::contract::{GROUP, Injection};

use super::install::{POLICIES, stands};
use super::rules::{Asked, Given, Names, allows};
use super::snapshot::Snapshot;

/// A way round.
pub(crate) struct Way {
    pub(crate) code: &'static str,
    verbs: &'static [&'static str],
    groups: &'static [&'static str],
    resources: &'static [&'static str],
    reach: Reach,
    when: When,
    pub(crate) text: &'static str,
}

/// What a request is about.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// An object of the namespace.
    Object,
    /// A new object of the namespace, which has no name yet.
    New,
    /// The namespace.
    Namespace,
    /// An object of the cluster: no RoleBinding gives it.
    Cluster,
    /// Our policies, as `Cluster`.
    Policies,
}

/// When the way is open.
#[derive(Clone, Copy, PartialEq, Eq)]
enum When {
    Always,
    /// In an enforced namespace every pod is injected or token-free.
    NotEnforced,
    /// In an enforced namespace the token guard lets only holders of `mint`.
    NotEnforcedOrNoTokenGuard,
    ExecGuard,
    NoExecGuard,
}

const CORE: &[&str] = &[""];
const IMPERSONATION: &[&str] = &["", "authentication.k8s.io"];
const NO_SIDECAR: &str = "may run a pod without a sidecar, as any service account of the namespace; label the namespace enforced";

#[rustfmt::skip]
pub(crate) const WAYS: [Way; 14] = [
    Way { code: "can-mint", verbs: &["create"], groups: CORE, resources: &["serviceaccounts/token"],
        reach: Reach::Object, when: When::NotEnforcedOrNoTokenGuard,
        text: "may request tokens of the namespace's service accounts; take create on serviceaccounts/token away, or label the namespace enforced" },
    Way { code: "can-mint-for-others", verbs: &["mint"], groups: &[GROUP], resources: &["serviceaccounts"],
        reach: Reach::Object, when: When::Always,
        text: "may mint for other service accounts (verb mint); take it away where it is not meant" },
    Way { code: "can-unmanage", verbs: &["unmanage"], groups: &[GROUP], resources: &["namespaces"],
        reach: Reach::Namespace, when: When::Always,
        text: "may weaken the label and change what Tollgate is made of (verb unmanage); take it away where it is not meant" },
    Way { code: "can-exec", verbs: &["create", "get"], groups: CORE, resources: &["pods/exec", "pods/attach"],
        reach: Reach::Object, when: When::ExecGuard,
        text: "may enter agent containers, and call as the agent does; take pods/exec and pods/attach away" },
    Way { code: "can-exec", verbs: &["create", "get"], groups: CORE, resources: &["pods/exec", "pods/attach"],
        reach: Reach::Object, when: When::NoExecGuard,
        text: "may enter the sidecar, where the token is, since the policy tollgate-exec-guard is missing; take pods/exec and pods/attach away" },
    Way { code: "can-debug", verbs: &["update", "patch"], groups: CORE, resources: &["pods/ephemeralcontainers"],
        reach: Reach::Object, when: When::Always,
        text: "may put containers into running pods, which call as the agent does; take pods/ephemeralcontainers away" },
    Way { code: "can-create-pods", verbs: &["create"], groups: CORE, resources: &["pods", "replicationcontrollers"],
        reach: Reach::New, when: When::NotEnforced, text: NO_SIDECAR },
    Way { code: "can-create-pods", verbs: &["create"], groups: &["apps"],
        resources: &["daemonsets", "deployments", "replicasets", "statefulsets"],
        reach: Reach::New, when: When::NotEnforced, text: NO_SIDECAR },
    Way { code: "can-create-pods", verbs: &["create"], groups: &["batch"], resources: &["cronjobs", "jobs"],
        reach: Reach::New, when: When::NotEnforced, text: NO_SIDECAR },
    Way { code: "can-make-token-secrets", verbs: &["create"], groups: CORE, resources: &["secrets"],
        reach: Reach::New, when: When::NotEnforced,
        text: "may have a Secret filled with a token of any service account of the namespace; label the namespace enforced" },
    Way { code: "can-impersonate", verbs: &["impersonate*"], groups: IMPERSONATION, resources: &["serviceaccounts"],
        reach: Reach::Object, when: When::Always,
        text: "may impersonate service accounts of the namespace, without a sidecar and a record; take the verb away" },
    Way { code: "can-impersonate", verbs: &["impersonate*"], groups: IMPERSONATION, resources: &["users", "groups"],
        reach: Reach::Cluster, when: When::Always,
        text: "may impersonate users and groups, without a sidecar and a record; take the verb away" },
    Way { code: "can-reach-kubelet", verbs: &["create", "get"], groups: CORE, resources: &["nodes/proxy"],
        reach: Reach::Cluster, when: When::Always,
        text: "may enter every container through its kubelet, which asks no admission; take nodes/proxy away" },
    Way { code: "can-unguard", verbs: &["update", "patch", "delete", "deletecollection"],
        groups: &["admissionregistration.k8s.io"],
        resources: &["validatingadmissionpolicies", "validatingadmissionpolicybindings"],
        reach: Reach::Policies, when: When::Always,
        text: "may change the policies, which no policy can guard; take it away" },
];

impl Way {
    pub(crate) fn is_open(&self, snapshot: &Snapshot, injection: Injection) -> bool {
        let is_enforced = injection == Injection::Enforced;
        match self.when {
            When::Always => true,
            When::NotEnforced => !is_enforced,
            When::NotEnforcedOrNoTokenGuard => {
                !is_enforced || !stands(snapshot, "tollgate-token-guard")
            }
            When::ExecGuard => stands(snapshot, "tollgate-exec-guard"),
            When::NoExecGuard => !stands(snapshot, "tollgate-exec-guard"),
        }
    }

    /// Whether a binding gives it in `namespace`.
    pub(crate) fn is_given(&self, given: &Given, namespace: &str) -> bool {
        let own = [namespace];
        let asked = Asked {
            verbs: self.verbs,
            groups: self.groups,
            resources: self.resources,
            names: match self.reach {
                Reach::Object | Reach::Cluster => Names::Any,
                Reach::New => Names::None,
                Reach::Namespace => Names::Of(&own),
                Reach::Policies => Names::Of(&POLICIES),
            },
        };
        let is_of_cluster = matches!(self.reach, Reach::Cluster | Reach::Policies);
        (!is_of_cluster || given.role_binding.is_none())
            && given.rules.iter().any(|rule| allows(rule, &asked))
    }
}
