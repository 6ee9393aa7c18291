//! What the tests share: pods that never run, accounts, the namespace label, copies of a policy.

use anyhow::Context as _;
use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, ServiceAccount};
use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt as _};
use serde_json::{Value, json};
use tollgate_e2e::namespace::TestNamespace;
use tollgate_shared::contract::{AGENT_CLUSTER_ROLE, NAMESPACE_LABEL, SYSTEM_NAMESPACE};

/// A pod that no scheduler takes, so that no kubelet has to run it. `spec` adds to it.
pub(crate) fn pod(name: &str, spec: Value) -> anyhow::Result<Pod> {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "schedulerName": "nobody",
            "automountServiceAccountToken": false,
            "containers": [{"name": "agent", "image": "agent"}],
        },
    });
    merge(&mut pod["spec"], spec);
    Ok(serde_json::from_value(pod)?)
}

/// A pod as the webhook leaves it, as far as the policies look.
pub(crate) fn injected_pod(name: &str) -> anyhow::Result<Pod> {
    let mut pod = pod(
        name,
        json!({
            "initContainers": [{
                "name": "tollgate", "image": "tollgate-sidecar:dev", "restartPolicy": "Always",
                "volumeMounts": [{"name": "tollgate-bootstrap", "mountPath": "/var/run/tollgate/bootstrap"}],
            }],
            "volumes": [
                {"name": "tollgate-bootstrap", "projected": {"sources": [
                    {"serviceAccountToken": {"path": "token", "expirationSeconds": 3600}},
                ]}},
                {"name": "tollgate-agent", "emptyDir": {"medium": "Memory"}},
                {"name": "tollgate-state", "emptyDir": {"medium": "Memory"}},
            ],
        }),
    )?;
    pod.annotations_mut()
        .insert("tollgate.dev/injected".to_owned(), "0.1.0".to_owned());
    Ok(pod)
}

/// Puts the members of one object into another, at every depth; a list replaces a list.
pub(crate) fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

/// Makes the service accounts.
pub(crate) async fn accounts(namespace: &TestNamespace, names: &[&str]) -> anyhow::Result<()> {
    for name in names {
        namespace
            .apply::<ServiceAccount>(&json!({
                "apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name},
            }))
            .await?;
    }
    Ok(())
}

/// Sets or removes labels of the namespace, as `client`.
pub(crate) async fn set_labels(
    client: &Client,
    namespace: &str,
    labels: Value,
    dry_run: bool,
) -> kube::Result<Namespace> {
    let params = PatchParams {
        dry_run,
        ..PatchParams::default()
    };
    Api::all(client.clone())
        .patch(
            namespace,
            &params,
            &Patch::Merge(json!({"metadata": {"labels": labels}})),
        )
        .await
}

/// Makes the namespace managed at this level; `None` takes the label away.
pub(crate) async fn manage(namespace: &TestNamespace, level: Option<&str>) -> anyhow::Result<()> {
    set_labels(
        &namespace.client(),
        &namespace.name,
        json!({NAMESPACE_LABEL: level}),
        false,
    )
    .await?;
    Ok(())
}

/// Grants our ClusterRole as the webhook does, but under another name, so that no webhook takes it away or gives it by itself.
pub(crate) async fn grant(namespace: &TestNamespace) -> anyhow::Result<()> {
    namespace
        .apply::<RoleBinding>(&json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "metadata": {"name": "grant-of-the-test"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": AGENT_CLUSTER_ROLE},
            "subjects": [{
                "apiGroup": "rbac.authorization.k8s.io", "kind": "Group",
                "name": format!("system:serviceaccounts:{}", namespace.name),
            }],
        }))
        .await?;
    Ok(())
}

/// A reference to an object that a token is bound to.
pub(crate) fn reference(kind: &str, name: &str, uid: Option<&str>) -> BoundObjectReference {
    BoundObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some(kind.to_owned()),
        name: Some(name.to_owned()),
        uid: uid.map(str::to_owned),
    }
}

/// A request for a token of 600 s.
pub(crate) fn token_request(bound: Option<BoundObjectReference>) -> TokenRequest {
    TokenRequest {
        spec: TokenRequestSpec {
            audiences: Vec::new(),
            bound_object_ref: bound,
            expiration_seconds: Some(600),
        },
        ..TokenRequest::default()
    }
}

/// Asks as `client` for a token of the account.
pub(crate) async fn mint(
    client: &Client,
    namespace: &str,
    account: &str,
    request: &TokenRequest,
) -> kube::Result<String> {
    let answer = Api::<ServiceAccount>::namespaced(client.clone(), namespace)
        .create_token_request(account, &PostParams::default(), request)
        .await?;
    Ok(answer.status.map(|status| status.token).unwrap_or_default())
}

/// The audiences that the API server fills in where a request names none.
pub(crate) async fn api_audiences(namespace: &TestNamespace) -> anyhow::Result<Vec<String>> {
    let request = token_request(None);
    let answer = namespace
        .api::<ServiceAccount>()
        .create_token_request("default", &PostParams::default(), &request)
        .await?;
    Ok(answer.spec.audiences)
}

/// Does what the webhook does at its first start, where none ever ran: writes down the API server's audiences.
pub(crate) async fn audiences_known(namespace: &TestNamespace) -> anyhow::Result<()> {
    let maps = Api::<ConfigMap>::namespaced(namespace.client(), SYSTEM_NAMESPACE);
    let known = maps.get("tollgate-guard").await?.data.unwrap_or_default();
    if !known.contains_key("audiences") {
        let audiences = api_audiences(namespace).await?.join("\n");
        let patch = Patch::Merge(json!({"data": {"audiences": audiences}}));
        maps.patch("tollgate-guard", &PatchParams::default(), &patch)
            .await?;
    }
    Ok(())
}

/// Applies a copy of a policy and its binding: bound to the test's namespace alone, whatever its label; with the parameter of
/// that namespace, if the policy has one; and owned by the namespace.
pub(crate) async fn copy_policy(
    namespace: &TestNamespace,
    policy: &str,
    binding: &str,
) -> anyhow::Result<()> {
    let owner = Api::<Namespace>::all(namespace.client())
        .get(&namespace.name)
        .await?;
    let mut policy: Value = serde_saphyr::from_str(policy)?;
    let mut binding: Value = serde_saphyr::from_str(binding)?;
    let name = format!(
        "{}-{}",
        policy["metadata"]["name"].as_str().context("no name")?,
        namespace.name
    );
    let metadata = json!({"name": name, "ownerReferences": [{
        "apiVersion": "v1", "kind": "Namespace", "name": namespace.name,
        "uid": owner.uid().unwrap_or_default(),
    }]});
    policy["metadata"] = metadata.clone();
    binding["metadata"] = metadata;
    binding["spec"]["policyName"] = json!(name);
    binding["spec"]["matchResources"] = json!({
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace.name}},
    });
    if !binding["spec"]["paramRef"].is_null() {
        binding["spec"]["paramRef"]["namespace"] = json!(namespace.name);
    }
    let params = PatchParams::apply("tollgate-e2e-policies").force();
    Api::<ValidatingAdmissionPolicy>::all(namespace.client())
        .patch(&name, &params, &Patch::Apply(policy))
        .await?;
    Api::<ValidatingAdmissionPolicyBinding>::all(namespace.client())
        .patch(&name, &params, &Patch::Apply(binding))
        .await?;
    Ok(())
}

/// Writes the parameter of copied policies: the audiences of this API server.
pub(crate) async fn parameter(namespace: &TestNamespace, audiences: &str) -> anyhow::Result<()> {
    namespace
        .apply::<ConfigMap>(&json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "tollgate-guard"},
            "data": {"audiences": audiences},
        }))
        .await?;
    Ok(())
}
