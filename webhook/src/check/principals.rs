//! Principals who can get round Tollgate in the namespace, by the bindings that give it to them. Only RBAC is seen: another authorizer
//! of the API server may give more.

use k8s_openapi::api::rbac::v1::Subject;
use tollgate_shared::contract::{Injection, ROLE_BINDING, SYSTEM_NAMESPACE};

use super::finding::{Finding, Level};
use super::rules::{Given, given, is_everything};
use super::snapshot::{Snapshot, Wanted};
use super::ways::{WAYS, Way};

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

    /// Components of Kubernetes and of Tollgate, by name: whoever signs certificates gives any other name that begins with `system:`.
    fn is_control_plane(&self) -> bool {
        const GROUPS: [&str; 3] = [
            "group/system:masters",
            "group/system:nodes",
            "group/system:serviceaccounts:kube-system",
        ];
        const USERS: [&str; 4] = [
            "user/system:kube-controller-manager",
            "user/system:kube-scheduler",
            "user/system:kube-proxy",
            // What kubeadm calls the API server where it asks kubelets.
            "user/kube-apiserver-kubelet-client",
        ];
        let in_namespace = |namespace: &str| {
            self.name
                .starts_with(&format!("serviceaccount/{namespace}/"))
        };
        match self.kind {
            PrincipalKind::Group => GROUPS.contains(&self.name.as_str()),
            PrincipalKind::User => {
                USERS.contains(&self.name.as_str()) || self.name.starts_with("user/system:node:")
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
        let user = |name: &str| json!({"kind": "User", "name": name});
        let account = |name: &str, namespace: &str| json!({"kind": "ServiceAccount", "name": name, "namespace": namespace});
        let group = |name: &str| json!({"kind": "Group", "name": name});
        let homeless = json!({"kind": "ServiceAccount", "name": "b"});
        for (subject, wanted, is_control_plane) in [
            (user("jane"), "user/jane", false),
            (
                user("system:serviceaccount:a:b"),
                "serviceaccount/a/b",
                false,
            ),
            (
                user("system:kube-scheduler"),
                "user/system:kube-scheduler",
                true,
            ),
            (user("system:node:worker"), "user/system:node:worker", true),
            // Whoever signs certificates gives such names.
            (user("system:kube-helper"), "user/system:kube-helper", false),
            (user("system:robot"), "user/system:robot", false),
            (user("system:anonymous"), "user/system:anonymous", false),
            (group("system:masters"), "group/system:masters", true),
            (group("system:robots"), "group/system:robots", false),
            (account("b", "a"), "serviceaccount/a/b", false),
            (homeless, "serviceaccount/home/b", false),
            (
                account("b", "kube-system"),
                "serviceaccount/kube-system/b",
                true,
            ),
            (
                account("b", "kube-system-2"),
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
