//! Principals who can get round Tollgate in the namespace, by the bindings that give it to them. Only RBAC is seen: another authorizer
//! of the API server may give more.

use k8s_openapi::api::rbac::v1::Subject;
use tollgate_shared::contract::{GROUP, Injection, ROLE_BINDING, SYSTEM_NAMESPACE};

use super::finding::{Finding, Level};
use super::install::{POLICIES, stands};
use super::rules::{Asked, Given, Names, allows, given, is_everything};
use super::snapshot::{Snapshot, Wanted};

/// A way round.
struct Way {
    code: &'static str,
    verbs: &'static [&'static str],
    groups: &'static [&'static str],
    resources: &'static [&'static str],
    reach: Reach,
    when: When,
    text: &'static str,
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
const WAYS: [Way; 14] = [
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
    fn is_open(&self, snapshot: &Snapshot, injection: Injection) -> bool {
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
    fn is_given(&self, given: &Given, namespace: &str) -> bool {
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

/// Judges every binding.
pub(crate) fn check(
    snapshot: &Snapshot,
    injection: Injection,
    wanted: &Wanted,
    findings: &mut Vec<Finding>,
) {
    let open = |way: &&Way| way.is_open(snapshot, injection);
    let ways: Vec<&Way> = WAYS.iter().filter(open).collect();
    for given in given(snapshot) {
        for subject in &given.subjects {
            let Some(principal) = Principal::new(subject, &given.home) else {
                continue;
            };
            let is_left_out = !wanted.all && principal.is_control_plane();
            if !is_left_out && !wanted.trust.contains(&principal.name) {
                judge(&principal, &given, &ways, snapshot.name(), findings);
            }
        }
    }
}

fn judge(
    principal: &Principal,
    given: &Given,
    ways: &[&Way],
    namespace: &str,
    findings: &mut Vec<Finding>,
) {
    let mut push = |level, code, text: &str| {
        let text = format!("{text} (by {})", given.by);
        findings.push(Finding::new(level, code, principal.name.as_str(), text));
    };
    if given.rules.iter().any(is_everything) {
        let level = match principal.kind {
            _ if principal.is_everybody() => Level::Error,
            PrincipalKind::ServiceAccount => Level::Warn,
            // Administrators, above all this by design.
            PrincipalKind::User | PrincipalKind::Group => Level::Info,
        };
        let text = "may do everything here, all ways round included";
        return push(level, "can-do-everything", text);
    }
    for way in ways {
        let is_grant = way.code == "can-mint"
            && given.role_binding.as_deref() == Some(ROLE_BINDING)
            && principal.name == format!("group/system:serviceaccounts:{namespace}");
        if !is_grant && way.is_given(given, namespace) {
            let level = match principal.is_everybody() {
                true => Level::Error,
                false => Level::Warn,
            };
            push(level, way.code, way.text);
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PrincipalKind {
    User,
    Group,
    ServiceAccount,
}

/// Who holds something: `user/…`, `group/…` or `serviceaccount/<namespace>/<name>`.
#[derive(Debug)]
struct Principal {
    kind: PrincipalKind,
    name: String,
}

impl Principal {
    /// `home`: the namespace of a service account that names none.
    fn new(subject: &Subject, home: &str) -> Option<Self> {
        let (kind, name) = match subject.kind.as_str() {
            "User" => match subject.name.strip_prefix("system:serviceaccount:") {
                Some(account) => {
                    let name = format!("serviceaccount/{}", account.replacen(':', "/", 1));
                    (PrincipalKind::ServiceAccount, name)
                }
                None => (PrincipalKind::User, format!("user/{}", subject.name)),
            },
            "Group" => (PrincipalKind::Group, format!("group/{}", subject.name)),
            "ServiceAccount" => {
                let own = subject.namespace.as_deref().filter(|own| !own.is_empty());
                let name = format!("serviceaccount/{}/{}", own.unwrap_or(home), subject.name);
                (PrincipalKind::ServiceAccount, name)
            }
            _ => return None,
        };
        Some(Self { kind, name })
    }

    /// Components of Kubernetes and of Tollgate.
    fn is_control_plane(&self) -> bool {
        const GROUPS: [&str; 3] = [
            "group/system:masters",
            "group/system:nodes",
            "group/system:serviceaccounts:kube-system",
        ];
        let in_namespace = |namespace: &str| {
            self.name
                .starts_with(&format!("serviceaccount/{namespace}/"))
        };
        match self.kind {
            PrincipalKind::Group => GROUPS.contains(&self.name.as_str()),
            // The second is what kubeadm calls the API server where it asks kubelets.
            PrincipalKind::User => {
                self.name.starts_with("user/system:") && !self.is_everybody()
                    || self.name == "user/kube-apiserver-kubelet-client"
            }
            PrincipalKind::ServiceAccount => {
                in_namespace("kube-system") || in_namespace(SYSTEM_NAMESPACE)
            }
        }
    }

    fn is_everybody(&self) -> bool {
        const EVERYBODY: [&str; 4] = [
            "group/system:authenticated",
            "group/system:unauthenticated",
            "group/system:serviceaccounts",
            "user/system:anonymous",
        ];
        EVERYBODY.contains(&self.name.as_str())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn principals_have_one_name_each() {
        for (subject, wanted, is_control_plane) in [
            (json!({"kind": "User", "name": "jane"}), "user/jane", false),
            (
                json!({"kind": "User", "name": "system:serviceaccount:a:b"}),
                "serviceaccount/a/b",
                false,
            ),
            (
                json!({"kind": "User", "name": "system:kube-scheduler"}),
                "user/system:kube-scheduler",
                true,
            ),
            (
                json!({"kind": "User", "name": "system:anonymous"}),
                "user/system:anonymous",
                false,
            ),
            (
                json!({"kind": "Group", "name": "system:masters"}),
                "group/system:masters",
                true,
            ),
            (
                json!({"kind": "ServiceAccount", "name": "b", "namespace": "a"}),
                "serviceaccount/a/b",
                false,
            ),
            (
                json!({"kind": "ServiceAccount", "name": "b"}),
                "serviceaccount/home/b",
                false,
            ),
            (
                json!({"kind": "ServiceAccount", "name": "b", "namespace": "kube-system"}),
                "serviceaccount/kube-system/b",
                true,
            ),
            (
                json!({"kind": "ServiceAccount", "name": "b", "namespace": "kube-system-2"}),
                "serviceaccount/kube-system-2/b",
                false,
            ),
        ] {
            let subject: Subject = serde_json::from_value(subject).unwrap();
            let principal = Principal::new(&subject, "home").unwrap();
            assert_eq!(principal.name, wanted);
            assert_eq!(principal.is_control_plane(), is_control_plane, "{wanted}");
        }
        let odd: Subject = serde_json::from_value(json!({"kind": "Robot", "name": "x"})).unwrap();
        assert!(Principal::new(&odd, "").is_none());
    }
}
