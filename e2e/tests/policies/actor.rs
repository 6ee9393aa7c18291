//! Those who ask: by a real token, or impersonated by the administrator. What they may do is granted by roles that the
//! namespace of the test owns, so that they go with it.

use std::collections::HashMap;

use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use kube::api::{Api, Patch, PatchParams};
use kube::config::AuthInfo;
use kube::{Client, ResourceExt as _};
use serde_json::{Value, json};
use tollgate_e2e::cluster::Cluster;
use tollgate_e2e::namespace::TestNamespace;

const MANAGER: &str = "tollgate-e2e-policies";

/// A client that shows `token` and nothing else.
pub(crate) fn bearer(cluster: &Cluster, token: &str) -> anyhow::Result<Client> {
    let auth_info = AuthInfo {
        token: Some(token.to_owned().into()),
        ..AuthInfo::default()
    };
    let mut config = cluster.connection.clone();
    config.auth_info = auth_info;
    Ok(Client::try_from(config)?)
}

/// A client of the administrator who impersonates `user`, in `groups`, with these entries of `userInfo.extra`.
pub(crate) fn impersonate(
    cluster: &Cluster,
    user: &str,
    groups: &[&str],
    extra: &[(&str, &str)],
) -> anyhow::Result<Client> {
    let mut config = cluster.connection.clone();
    let groups = groups.iter().copied().map(str::to_owned);
    let extra: HashMap<String, Vec<String>> = extra
        .iter()
        .map(|(key, value)| {
            (
                format!("authentication.kubernetes.io/{key}"),
                vec![(*value).to_owned()],
            )
        })
        .collect();
    config.auth_info.impersonate = Some(user.to_owned());
    config.auth_info.impersonate_groups = Some(groups.collect());
    config.auth_info.impersonate_user_extra = Some(extra);
    Ok(Client::try_from(config)?)
}

/// Name of a service account as a user.
pub(crate) fn account(namespace: &str, name: &str) -> String {
    format!("system:serviceaccount:{namespace}:{name}")
}

/// Gives `user` these rules in the namespace.
pub(crate) async fn allow_here(
    namespace: &TestNamespace,
    user: &str,
    rules: Value,
) -> anyhow::Result<()> {
    let name = role_name(user);
    namespace
        .apply::<Role>(&json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
            "metadata": {"name": name}, "rules": rules,
        }))
        .await?;
    namespace
        .apply::<RoleBinding>(&json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
        }))
        .await?;
    Ok(())
}

/// Gives `user` these rules everywhere, for as long as the namespace lives.
pub(crate) async fn allow_everywhere(
    namespace: &TestNamespace,
    user: &str,
    rules: Value,
) -> anyhow::Result<()> {
    let owner = Api::<Namespace>::all(namespace.client())
        .get(&namespace.name)
        .await?;
    let name = format!("{}-{}", namespace.name, role_name(user));
    let metadata = json!({"name": name, "ownerReferences": [{
        "apiVersion": "v1", "kind": "Namespace", "name": namespace.name,
        "uid": owner.uid().unwrap_or_default(),
    }]});
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": metadata, "rules": rules,
    });
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
        "metadata": metadata,
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
    });
    let params = PatchParams::apply(MANAGER).force();
    Api::<ClusterRole>::all(namespace.client())
        .patch(&name, &params, &Patch::Apply(role))
        .await?;
    Api::<ClusterRoleBinding>::all(namespace.client())
        .patch(&name, &params, &Patch::Apply(binding))
        .await?;
    Ok(())
}

/// The rule that lets somebody ask for tokens.
pub(crate) fn may_request_tokens() -> Value {
    json!({"apiGroups": [""], "resources": ["serviceaccounts/token"], "verbs": ["create"]})
}

/// The rule that lets somebody lift our guards.
pub(crate) fn may_unmanage() -> Value {
    json!({"apiGroups": ["tollgate.dev"], "resources": ["namespaces"], "verbs": ["unmanage"]})
}

fn role_name(user: &str) -> String {
    user.replace(':', "-")
}
