//! RBAC as the API server's authorizer reads it: which rules a binding gives, and whether one of them allows a request.

use std::collections::BTreeMap;

use k8s_openapi::api::rbac::v1::{
    ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject,
};

use super::selector::selects;
use super::snapshot::{Kind, Snapshot};

/// A binding that counts in the namespace, with the rules that it gives.
#[derive(Debug)]
pub(crate) struct Given {
    /// `kind/name of the binding -> kind/name of the role`.
    pub(crate) by: String,
    /// Name of a RoleBinding; `None` for the whole cluster.
    pub(crate) role_binding: Option<String>,
    /// Namespace of service accounts that name none.
    pub(crate) home: String,
    pub(crate) subjects: Vec<Subject>,
    pub(crate) rules: Vec<PolicyRule>,
}

/// Everything that is given in the snapshot's namespace.
pub(crate) fn given(snapshot: &Snapshot) -> Vec<Given> {
    let roles = Roles::new(snapshot);
    let here = snapshot.typed::<RoleBinding>(Kind::RoleBindings);
    let here = here.into_iter().map(|binding| {
        let name = binding.metadata.name.unwrap_or_default();
        Given {
            by: by("rolebinding", &name, &binding.role_ref),
            rules: roles.of(&binding.role_ref),
            role_binding: Some(name),
            home: snapshot.name().to_owned(),
            subjects: binding.subjects.unwrap_or_default(),
        }
    });
    let everywhere = snapshot.typed::<ClusterRoleBinding>(Kind::ClusterRoleBindings);
    let everywhere = everywhere.into_iter().map(|binding| Given {
        by: by(
            "clusterrolebinding",
            &binding.metadata.name.unwrap_or_default(),
            &binding.role_ref,
        ),
        rules: match binding.role_ref.kind.as_str() {
            "ClusterRole" => roles.of(&binding.role_ref),
            _ => Vec::new(),
        },
        role_binding: None,
        home: String::new(),
        subjects: binding.subjects.unwrap_or_default(),
    });
    here.chain(everywhere).collect()
}

fn by(kind: &str, name: &str, role: &RoleRef) -> String {
    format!(
        "{kind}/{name} -> {}/{}",
        role.kind.to_ascii_lowercase(),
        role.name
    )
}

/// Rules by the name of their role.
struct Roles {
    here: BTreeMap<String, Vec<PolicyRule>>,
    cluster: BTreeMap<String, Vec<PolicyRule>>,
}

impl Roles {
    fn new(snapshot: &Snapshot) -> Self {
        let here = snapshot.typed::<Role>(Kind::Roles).into_iter();
        let cluster: Vec<ClusterRole> = snapshot.typed(Kind::ClusterRoles);
        let name = |name: &Option<String>| name.clone().unwrap_or_default();
        Self {
            here: here
                .map(|role| (name(&role.metadata.name), role.rules.unwrap_or_default()))
                .collect(),
            cluster: cluster
                .iter()
                .map(|role| (name(&role.metadata.name), aggregated(role, &cluster)))
                .collect(),
        }
    }

    fn of(&self, role: &RoleRef) -> Vec<PolicyRule> {
        let roles = match role.kind.as_str() {
            "Role" => &self.here,
            _ => &self.cluster,
        };
        roles.get(&role.name).cloned().unwrap_or_default()
    }
}

/// A role's rules, with those that its controller adds, or has yet to add.
fn aggregated(role: &ClusterRole, all: &[ClusterRole]) -> Vec<PolicyRule> {
    let mut rules = role.rules.clone().unwrap_or_default();
    let selectors = role.aggregation_rule.iter();
    for selector in selectors.flat_map(|rule| rule.cluster_role_selectors.iter().flatten()) {
        let matching = all.iter().filter(|other| {
            let labels = other.metadata.labels.clone().unwrap_or_default();
            selects(selector, &labels)
        });
        rules.extend(matching.flat_map(|other| other.rules.clone().unwrap_or_default()));
    }
    rules
}

/// Names that a request is about.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Names<'a> {
    /// None: it creates, or is about all.
    None,
    /// Any.
    Any,
    /// These.
    Of(&'a [&'a str]),
}

/// A request, or several that come to the same.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked<'a> {
    /// Any of these; one that ends in `*` stands for all that begin so.
    pub(crate) verbs: &'a [&'a str],
    pub(crate) groups: &'a [&'a str],
    /// With their subresources, as in rules.
    pub(crate) resources: &'a [&'a str],
    pub(crate) names: Names<'a>,
}

/// Whether `rule` allows it.
pub(crate) fn allows(rule: &PolicyRule, asked: &Asked<'_>) -> bool {
    let has = |given: Option<&Vec<String>>, wanted: &dyn Fn(&str) -> bool| {
        given
            .into_iter()
            .flatten()
            .any(|word| word == "*" || wanted(word))
    };
    let verb = |given: &str| {
        asked.verbs.iter().any(|verb| match verb.strip_suffix('*') {
            Some(head) => given.starts_with(head),
            None => given == *verb,
        })
    };
    let resource = |given: &str| {
        asked.resources.iter().any(|resource| {
            let of_all = resource.split_once('/').map(|(_, sub)| format!("*/{sub}"));
            given == *resource || Some(given) == of_all.as_deref()
        })
    };
    let limits = rule.resource_names.as_deref().unwrap_or_default();
    let names = match asked.names {
        Names::Any => true,
        Names::None => limits.is_empty(),
        Names::Of(names) => {
            limits.is_empty() || limits.iter().any(|name| names.contains(&name.as_str()))
        }
    };
    let verbs = rule.verbs.iter().any(|word| word == "*" || verb(word));
    verbs
        && names
        && has(rule.api_groups.as_ref(), &|group| {
            asked.groups.contains(&group)
        })
        && has(rule.resources.as_ref(), &resource)
}

/// Whether `rule` allows everything.
pub(crate) fn is_everything(rule: &PolicyRule) -> bool {
    let all = |words: &[String]| words.iter().any(|word| word == "*");
    let list = |words: &Option<Vec<String>>| all(words.as_deref().unwrap_or_default());
    let is_limited = rule
        .resource_names
        .as_ref()
        .is_some_and(|names| !names.is_empty());
    all(&rule.verbs) && list(&rule.api_groups) && list(&rule.resources) && !is_limited
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A rule of one word each; without a name it is not limited.
    fn rule(verb: &str, group: &str, resource: &str, name: &str) -> PolicyRule {
        let names: Vec<&str> = Some(name)
            .filter(|name| !name.is_empty())
            .into_iter()
            .collect();
        serde_json::from_value(json!({
            "verbs": [verb], "apiGroups": [group], "resources": [resource], "resourceNames": names,
        }))
        .unwrap()
    }

    const EXEC: Asked<'_> = Asked {
        verbs: &["create", "get"],
        groups: &[""],
        resources: &["pods/exec", "pods/attach"],
        names: Names::Any,
    };
    const CREATE: Asked<'_> = Asked {
        resources: &["pods"],
        names: Names::None,
        ..EXEC
    };
    const NAMED: Asked<'_> = Asked {
        names: Names::Of(&["a", "b"]),
        ..CREATE
    };

    #[test]
    fn rules_allow_what_the_authorizer_allows() {
        for (asked, verb, group, resource, name, wanted) in [
            (EXEC, "*", "*", "*", "", true),
            (EXEC, "create", "", "pods/exec", "", true),
            (EXEC, "get", "", "pods/attach", "", true),
            (EXEC, "create", "", "*/exec", "", true),
            (EXEC, "create", "", "pods/exec", "p", true),
            (EXEC, "create", "", "pods", "", false),
            (EXEC, "create", "", "pods/*", "", false),
            (EXEC, "create", "", "*/scale", "", false),
            (EXEC, "list", "", "pods/exec", "", false),
            (EXEC, "create", "apps", "pods/exec", "", false),
            (CREATE, "create", "", "pods", "", true),
            (CREATE, "create", "", "pods", "p", false),
            (CREATE, "create", "", "*/pods", "", false),
            (NAMED, "get", "", "pods", "", true),
            (NAMED, "get", "", "pods", "b", true),
            (NAMED, "get", "", "pods", "c", false),
        ] {
            let rule = rule(verb, group, resource, name);
            assert_eq!(allows(&rule, &asked), wanted, "{rule:?} {asked:?}");
        }
    }

    #[test]
    fn a_verb_may_stand_for_all_that_begin_so() {
        let asked = Asked {
            verbs: &["impersonate*"],
            resources: &["users"],
            ..EXEC
        };
        for (verb, wanted) in [
            ("impersonate", true),
            ("impersonate:user-info", true),
            ("imp", false),
        ] {
            assert_eq!(
                allows(&rule(verb, "", "users", ""), &asked),
                wanted,
                "{verb}"
            );
        }
    }

    #[test]
    fn everything_is_everything() {
        assert!(is_everything(&rule("*", "*", "*", "")));
        for limited in [
            rule("*", "*", "*", "a"),
            rule("get", "*", "*", ""),
            rule("*", "", "*", ""),
            rule("*", "*", "pods", ""),
        ] {
            assert!(!is_everything(&limited), "{limited:?}");
        }
    }
}
