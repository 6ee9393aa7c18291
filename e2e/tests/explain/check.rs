//! `tollgate-webhook check --namespace`, on a namespace with weaknesses and on one without.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Context as _;
use k8s_openapi::api::core::v1::{Namespace, Secret, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use kube::Resource;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tollgate_e2e::agent::AgentPod;
use tollgate_e2e::namespace::TestNamespace;
use tollgate_e2e::{program, wait};
use tollgate_shared::contract::{
    Injection, NAMESPACE_LABEL, POD_LABEL, ROLE_BINDING, WEBHOOK_NAME,
};

const RBAC: &str = "rbac.authorization.k8s.io";

/// Code and object of each finding, and the exit status.
async fn check(
    namespace: &TestNamespace,
    kubeconfig: &Path,
    more: &[&str],
) -> anyhow::Result<(BTreeSet<(String, String)>, Option<i32>)> {
    let output = tokio::process::Command::new(program::path(WEBHOOK_NAME)?)
        .args(["check", "-o", "json", "--namespace", &namespace.name])
        .arg("--kubeconfig")
        .arg(kubeconfig)
        .args(more)
        .output()
        .await?;
    let findings: Vec<Value> = serde_json::from_slice(&output.stdout)
        .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
    let word = |finding: &Value, key: &str| finding[key].as_str().unwrap_or_default().to_owned();
    let found = findings
        .iter()
        .map(|finding| (word(finding, "code"), word(finding, "object")));
    Ok((found.collect(), output.status.code()))
}

fn pair((code, object): (&str, &str)) -> (String, String) {
    (code.to_owned(), object.to_owned())
}

/// A pod that no node ever runs.
fn pod(name: &str) -> AgentPod {
    AgentPod::new(name, "none").spec("schedulerName", json!("nobody"))
}

fn example_policy() -> anyhow::Result<Value> {
    let text = include_str!("../../../manifests/examples/network-policy.yaml");
    let mut policy: Value = serde_saphyr::from_str(text)?;
    policy["metadata"] = json!({"name": "agent"});
    Ok(policy)
}

/// A rule of a role.
fn rule(verb: &str, group: &str, resource: &str) -> Value {
    json!({"verbs": [verb], "apiGroups": [group], "resources": [resource]})
}

/// Who has all ways round; nobody is called so.
fn jane(namespace: &TestNamespace) -> String {
    format!("jane-of-{}", namespace.name)
}

async fn plant_rights(namespace: &TestNamespace) -> anyhow::Result<()> {
    let role_ref = |kind: &str, name: &str| json!({"apiGroup": RBAC, "kind": kind, "name": name});
    let subjects = json!([{"apiGroup": RBAC, "kind": "User", "name": jane(namespace)}]);
    let rules = json!([
        rule("create", "", "serviceaccounts/token"),
        rule("create", "", "pods/exec"),
        rule("patch", "", "pods/ephemeralcontainers"),
        rule("create", "apps", "deployments"),
        rule("impersonate", "", "serviceaccounts"),
        rule("mint", "tollgate.dev", "serviceaccounts"),
        rule("unmanage", "tollgate.dev", "namespaces"),
    ]);
    let role = json!({"apiVersion": format!("{RBAC}/v1"), "kind": "Role", "metadata": {"name": "ways"}, "rules": rules});
    namespace.apply::<Role>(&role).await?;
    let binding = json!({
        "apiVersion": format!("{RBAC}/v1"), "kind": "RoleBinding", "metadata": {"name": "ways"},
        "roleRef": role_ref("Role", "ways"), "subjects": subjects,
    });
    namespace.apply::<RoleBinding>(&binding).await?;

    // Of the whole cluster, and so owned by the namespace: they go with it.
    let own = Api::<Namespace>::all(namespace.client())
        .get(&namespace.name)
        .await?;
    let owner = json!([{"apiVersion": "v1", "kind": "Namespace", "name": namespace.name, "uid": own.metadata.uid}]);
    let metadata = json!({"name": namespace.name, "ownerReferences": owner});
    let rules = json!([
        rule("get", "", "nodes/proxy"),
        rule(
            "delete",
            "admissionregistration.k8s.io",
            "validatingadmissionpolicies"
        ),
    ]);
    create::<ClusterRole>(namespace, json!({"metadata": metadata, "rules": rules})).await?;
    create::<ClusterRoleBinding>(namespace, json!({
        "metadata": metadata, "roleRef": role_ref("ClusterRole", &namespace.name), "subjects": subjects,
    }))
    .await
}

async fn create<K>(namespace: &TestNamespace, object: Value) -> anyhow::Result<()>
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned + Serialize,
{
    let object: K = serde_json::from_value(object)?;
    let api: Api<K> = Api::all(namespace.client());
    api.create(&PostParams::default(), &object).await?;
    Ok(())
}

/// A configuration with another image and these defaults.
fn next_release(folder: &Path, defaults: &Value) -> anyhow::Result<String> {
    let file = folder.join("release.yaml");
    let config = json!({"image": "tollgate-sidecar:next", "defaults": defaults});
    std::fs::write(&file, config.to_string())?;
    Ok(file.to_string_lossy().into_owned())
}

async fn plant(namespace: &TestNamespace) -> anyhow::Result<()> {
    // From before the label, and excepted from it.
    pod("old").create(namespace).await?;
    pod("excepted")
        .label(POD_LABEL, "false")
        .create(namespace)
        .await?;
    let label = json!({"metadata": {"labels": {NAMESPACE_LABEL: Injection::Enabled.as_str()}}});
    Api::<Namespace>::all(namespace.client())
        .patch(
            &namespace.name,
            &PatchParams::default(),
            &Patch::Merge(label),
        )
        .await?;
    wait::until(
        namespace.api::<RoleBinding>(),
        ROLE_BINDING,
        "the grant",
        |found| found.is_some(),
    )
    .await?;
    pod("agent").create(namespace).await?;
    let annotations = json!({"kubernetes.io/service-account.name": "default"});
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/service-account-token",
        "metadata": {"name": "legacy", "annotations": annotations},
    });
    namespace.apply::<Secret>(&secret).await?;
    plant_rights(namespace).await
}

#[tokio::test(flavor = "multi_thread")]
async fn each_planted_weakness_is_named() -> anyhow::Result<()> {
    TestNamespace::run(None, async |namespace| {
        let kubeconfig = &namespace.cluster.config.kubeconfig;
        let unmanaged = format!("namespace/{}", namespace.name);
        let (found, code) = check(namespace, kubeconfig, &[]).await?;
        assert_eq!(
            (found, code),
            ([pair(("not-managed", &unmanaged))].into(), Some(1))
        );

        plant(namespace).await?;
        let user = format!("user/{}", jane(namespace));
        let wanted = [
            ("sidecar-missing", "pod/old"),
            ("not-injected", "pod/excepted"),
            ("token-secret", "secret/legacy"),
            ("metadata-reachable", &unmanaged),
            ("can-mint", &user),
            ("can-mint-for-others", &user),
            ("can-exec", &user),
            ("can-debug", &user),
            ("can-create-pods", &user),
            ("can-impersonate", &user),
            ("can-unmanage", &user),
            ("can-reach-kubelet", &user),
            ("can-unguard", &user),
        ];
        let (found, code) = check(namespace, kubeconfig, &[]).await?;
        assert_eq!(code, Some(1));
        let ours: BTreeSet<_> = found
            .into_iter()
            .filter(|(code, object)| !code.starts_with("can-") || *object == user)
            .collect();
        assert_eq!(ours, wanted.map(pair).into());

        let folder = tempfile::tempdir()?;
        for (defaults, code) in [
            (json!({}), "sidecar-outdated"),
            (json!({"port": 7443}), "sidecar-drift"),
        ] {
            let config = next_release(folder.path(), &defaults)?;
            let (found, _) = check(
                namespace,
                kubeconfig,
                &["--config", &config, "--trust", &user],
            )
            .await?;
            assert!(found.contains(&pair((code, "pod/agent"))), "{found:?}");
            assert!(found.iter().all(|(_, object)| *object != user), "{found:?}");
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn where_all_is_well_nothing_is_found() -> anyhow::Result<()> {
    TestNamespace::run(Some(Injection::Enabled), async |namespace| {
        pod("agent").create(namespace).await?;
        namespace.apply::<NetworkPolicy>(&example_policy()?).await?;
        let kubeconfig = &namespace.cluster.config.kubeconfig;
        let (mut found, _) = check(namespace, kubeconfig, &[]).await?;
        // Other tests share the cluster, and give rights in all of it.
        found.retain(|(code, _)| !code.starts_with("can-"));
        assert_eq!(found, BTreeSet::new());
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_not_be_looked_at_is_named() -> anyhow::Result<()> {
    TestNamespace::run(Some(Injection::Enabled), async |namespace| {
        let rules = json!([rule("list", "", "pods"), rule("get", "", "namespaces")]);
        namespace.allow(rules).await?;
        namespace.apply::<ServiceAccount>(&json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "looker"}})).await?;
        let token = namespace.token("looker", None).await?;
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("kubeconfig");
        let text = std::fs::read_to_string(&namespace.cluster.config.kubeconfig)?;
        let mut kubeconfig: Value = serde_saphyr::from_str(&text)?;
        kubeconfig["users"][0]["user"] = json!({"token": token.expose()});
        std::fs::write(&file, kubeconfig.to_string())?;
        let (found, code) = check(namespace, &file, &[]).await?;
        assert_eq!(code, Some(1));
        let unseen: BTreeSet<&str> = found.iter().filter(|(code, _)| code == "could-not-look").map(|(_, object)| object.as_str()).collect();
        let wanted = [
            "clusterrolebindings", "clusterroles", "configmap/tollgate-webhook", "mutatingwebhookconfigurations", "networkpolicies",
            "rolebindings", "roles", "secrets", "validatingadmissionpolicies", "validatingadmissionpolicybindings",
            "validatingwebhookconfigurations",
        ];
        assert_eq!(unseen, wanted.into());
        Ok(())
    })
    .await
}
