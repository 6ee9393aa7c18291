//! Which grants to give, mend and take away; pure.

use std::collections::BTreeSet;
use std::fmt;

use k8s_openapi::api::rbac::v1::{RoleBinding, RoleRef, Subject};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use tollgate_shared::contract::{AGENT_CLUSTER_ROLE, PART_OF, ROLE_BINDING};

use super::guard::Guard;

const RBAC: &str = "rbac.authorization.k8s.io";

/// One thing to do. Printed, it says what and where.
#[derive(Debug, PartialEq)]
pub(crate) enum Step {
    /// The namespace has no RoleBinding of our name.
    Grant(RoleBinding),
    /// It has ours, but not as it must be.
    Mend(RoleBinding),
    /// It has ours, and must not; namespace and uid.
    Revoke(String, String),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, namespace) = match self {
            Self::Grant(binding) => ("grant", binding.metadata.namespace.as_deref()),
            Self::Mend(binding) => ("mend", binding.metadata.namespace.as_deref()),
            Self::Revoke(namespace, _) => ("revoke", Some(namespace.as_str())),
        };
        write!(f, "{what} {}", namespace.unwrap_or_default())
    }
}

/// What is to be done so that the namespaces in `managed` have their grant and no other one has it. `role` is the uid of the
/// ClusterRole; without it nothing new is granted.
pub(crate) fn plan<'a>(
    managed: &BTreeSet<String>,
    found: impl IntoIterator<Item = &'a RoleBinding>,
    guard: &Guard,
    role: Option<&str>,
) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut settled = BTreeSet::new();
    for binding in found {
        let Some(namespace) = &binding.metadata.namespace else {
            continue;
        };
        if binding.metadata.name.as_deref() != Some(ROLE_BINDING) {
            continue;
        }
        settled.insert(namespace.clone());
        // Another role under our name is somebody else's object.
        if !is_ours(binding) {
            continue;
        }
        let unwanted = !managed.contains(namespace);
        match (guard, role) {
            _ if unwanted => steps.extend(revoke(binding)),
            (Guard::Fallen(_) | Guard::Silent, _) => steps.extend(revoke(binding)),
            (Guard::Stands, Some(role)) => steps.extend(mend(binding, namespace, role)),
            (Guard::Stands, None) | (Guard::Newer | Guard::Unknown, _) => {}
        }
    }
    if let (Guard::Stands, Some(role)) = (guard, role) {
        let missing = managed.difference(&settled);
        steps.extend(missing.map(|namespace| Step::Grant(grant(namespace, role))));
    }
    steps
}

/// Whether a RoleBinding grants our role.
pub(crate) fn is_ours(binding: &RoleBinding) -> bool {
    binding.role_ref.kind == "ClusterRole" && binding.role_ref.name == AGENT_CLUSTER_ROLE
}

fn revoke(binding: &RoleBinding) -> Option<Step> {
    if binding.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let metadata = &binding.metadata;
    Some(Step::Revoke(
        metadata.namespace.clone()?,
        metadata.uid.clone()?,
    ))
}

fn mend(found: &RoleBinding, namespace: &str, role: &str) -> Option<Step> {
    let wanted = grant(namespace, role);
    if found.subjects == wanted.subjects
        && found.metadata.owner_references == wanted.metadata.owner_references
    {
        return None;
    }
    // Theirs but for what matters, so that labels of others stay; the resource version guards against a race.
    let mut mended = found.clone();
    mended.subjects = wanted.subjects;
    mended.metadata.owner_references = wanted.metadata.owner_references;
    Some(Step::Mend(mended))
}

/// The RoleBinding of a namespace.
fn grant(namespace: &str, role: &str) -> RoleBinding {
    RoleBinding {
        metadata: ObjectMeta {
            name: Some(ROLE_BINDING.to_owned()),
            namespace: Some(namespace.to_owned()),
            labels: Some([(PART_OF.0.to_owned(), PART_OF.1.to_owned())].into()),
            // Removing the role, as an uninstall does, removes the grants.
            owner_references: Some(vec![OwnerReference {
                api_version: format!("{RBAC}/v1"),
                kind: "ClusterRole".to_owned(),
                name: AGENT_CLUSTER_ROLE.to_owned(),
                uid: role.to_owned(),
                ..OwnerReference::default()
            }]),
            ..ObjectMeta::default()
        },
        role_ref: RoleRef {
            api_group: RBAC.to_owned(),
            kind: "ClusterRole".to_owned(),
            name: AGENT_CLUSTER_ROLE.to_owned(),
        },
        subjects: Some(vec![Subject {
            api_group: Some(RBAC.to_owned()),
            kind: "Group".to_owned(),
            name: format!("system:serviceaccounts:{namespace}"),
            namespace: None,
        }]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn managed(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    /// A grant as the API server gives it back.
    fn stored(namespace: &str) -> RoleBinding {
        let mut binding = grant(namespace, "role-uid");
        binding.metadata.uid = Some(format!("uid-{namespace}"));
        binding.metadata.resource_version = Some("1".to_owned());
        binding
    }

    fn revoked(namespace: &str) -> Step {
        Step::Revoke(namespace.to_owned(), format!("uid-{namespace}"))
    }

    #[test]
    fn grants_mends_and_revokes() {
        let mut foreign_subject = stored("mend");
        foreign_subject.subjects.as_mut().unwrap()[0].name = "system:authenticated".to_owned();
        let mut other_role = stored("foreign");
        other_role.role_ref.name = "view".to_owned();
        let found = [stored("kept"), foreign_subject, other_role, stored("left")];
        let names = managed(&["kept", "mend", "new", "foreign"]);

        let steps = plan(&names, &found, &Guard::Stands, Some("role-uid"));
        assert_eq!(
            steps,
            [
                Step::Mend(stored("mend")),
                revoked("left"),
                Step::Grant(grant("new", "role-uid")),
            ]
        );
        let Step::Grant(binding) = &steps[2] else {
            panic!()
        };
        let subject = &binding.subjects.as_ref().unwrap()[0];
        assert_eq!(subject.name, "system:serviceaccounts:new");
        assert_eq!(binding.role_ref.name, "tollgate-agent");
    }

    #[test]
    fn without_the_guard_all_grants_go() {
        let found = [stored("kept"), stored("left")];
        for guard in [Guard::Fallen(String::new()), Guard::Silent] {
            let names = managed(&["kept", "new"]);
            let steps = plan(&names, &found, &guard, Some("role-uid"));
            assert_eq!(steps, [revoked("kept"), revoked("left")]);
        }
    }

    #[test]
    fn before_a_newer_or_unknown_guard_nothing_changes_in_managed_namespaces() {
        let found = [stored("kept"), stored("left")];
        for guard in [Guard::Newer, Guard::Unknown] {
            let names = managed(&["kept", "new"]);
            let steps = plan(&names, &found, &guard, Some("role-uid"));
            assert_eq!(steps, [revoked("left")]);
        }
    }

    #[test]
    fn without_the_role_nothing_is_given() {
        let steps = plan(&managed(&["new"]), &[], &Guard::Stands, None);
        assert_eq!(steps, []);
    }

    #[test]
    fn a_new_role_becomes_the_owner() {
        let found = [stored("kept")];
        let steps = plan(
            &managed(&["kept"]),
            &found,
            &Guard::Stands,
            Some("other-uid"),
        );
        let [Step::Mend(mended)] = &steps[..] else {
            panic!("{steps:?}")
        };
        let owners = mended.metadata.owner_references.as_ref().unwrap();
        assert_eq!(owners[0].uid, "other-uid");
        assert_eq!(mended.metadata.resource_version.as_deref(), Some("1"));
    }
}
