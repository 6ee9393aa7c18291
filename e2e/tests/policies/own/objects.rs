//! What switches Tollgate off when it changes: only holders of `unmanage` may change it.

use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
};
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, RoleBinding};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DeleteParams, Patch};
use serde_json::{Value, json};
use tollgate_e2e::namespace::TestNamespace;
use tollgate_shared::contract::{AGENT_CLUSTER_ROLE, ROLE_BINDING, SYSTEM_NAMESPACE, WEBHOOK_NAME};

use super::{absent_owner, binding, dry_patch, dry_run, operator};
use crate::actor::{account, impersonate, may_unmanage};
use crate::fixture::manage;
use crate::want::{Want, want};

/// A CRD of this group that no release ships.
fn definition(group: &str) -> anyhow::Result<CustomResourceDefinition> {
    Ok(serde_json::from_value(json!({
        "metadata": {"name": format!("probes.{group}")},
        "spec": {
            "group": group, "scope": "Cluster",
            "names": {"plural": "probes", "kind": "Probe"},
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object"}},
            }],
        },
    }))?)
}

/// Deletes an object of one of our kinds, on dry run.
async fn delete<K>(api: Api<K>, name: &str) -> kube::Result<()>
where
    K: Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    let params = DeleteParams {
        dry_run: true,
        ..DeleteParams::default()
    };
    api.delete(name, &params).await.map(|_| ())
}

#[tokio::test(flavor = "multi_thread")]
async fn our_objects_change_only_by_holders_of_unmanage() -> anyhow::Result<()> {
    TestNamespace::run(None, async |namespace| {
        let clumsy = operator(namespace, "clumsy", &[]).await?;
        let trusted = operator(namespace, "trusted", &[may_unmanage()]).await?;
        let group = format!("system:serviceaccounts:{}", namespace.name);
        // Managed, or a webhook that runs would take ours away.
        manage(namespace, Some("opt-in")).await?;
        for (name, role) in [(ROLE_BINDING, AGENT_CLUSTER_ROLE), ("users", "view")] {
            let binding = binding(name, role, &group)?;
            let mut binding = serde_json::to_value(binding)?;
            binding["apiVersion"] = json!("rbac.authorization.k8s.io/v1");
            binding["kind"] = json!("RoleBinding");
            namespace.apply::<RoleBinding>(&binding).await?;
        }
        for (client, ours) in [
            (&clumsy, Want::Refused("own-object")),
            (&trusted, Want::Success),
        ] {
            let all = || client.clone();
            let bindings = || Api::<RoleBinding>::namespaced(client.clone(), &namespace.name);
            want("mutating webhooks", ours, async || {
                delete(
                    Api::<MutatingWebhookConfiguration>::all(all()),
                    WEBHOOK_NAME,
                )
                .await
            })
            .await?;
            want("validating webhooks", ours, async || {
                delete(
                    Api::<ValidatingWebhookConfiguration>::all(all()),
                    WEBHOOK_NAME,
                )
                .await
            })
            .await?;
            want("our ClusterRole", ours, async || {
                delete(Api::<ClusterRole>::all(all()), AGENT_CLUSTER_ROLE).await
            })
            .await?;
            want("another ClusterRole", Want::Success, async || {
                delete(Api::<ClusterRole>::all(all()), "view").await
            })
            .await?;
            want("the webhook's ClusterRoleBinding", ours, async || {
                delete(Api::<ClusterRoleBinding>::all(all()), WEBHOOK_NAME).await
            })
            .await?;
            want("our RoleBinding", ours, async || {
                delete(bindings(), ROLE_BINDING).await
            })
            .await?;
            want("another RoleBinding", Want::Success, async || {
                delete(bindings(), "users").await
            })
            .await?;
            for (group, wanted) in [("tollgate.dev", ours), ("tollgate.example", Want::Success)] {
                let crd = definition(group)?;
                want(&format!("a CRD of {group}"), wanted, async || {
                    Api::<CustomResourceDefinition>::all(all())
                        .create(&dry_run(), &crd)
                        .await
                })
                .await?;
            }
            want("our namespace", ours, async || {
                delete(Api::<Namespace>::all(all()), SYSTEM_NAMESPACE).await
            })
            .await?;
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_webhook_changes_nothing_but_its_ca() -> anyhow::Result<()> {
    TestNamespace::run(None, async |namespace| {
        let webhook = account(SYSTEM_NAMESPACE, WEBHOOK_NAME);
        let client = impersonate(&namespace.cluster, &webhook, &[], &[])?;
        let refused = Want::Refused("own-object");
        let at = |path: &str, value: Value| json!({"op": "add", "path": format!("/webhooks/0/{path}"), "value": value});
        for (change, wanted) in [
            (at("clientConfig/caBundle", json!("Zm9v")), Want::Admitted),
            (at("failurePolicy", json!("Ignore")), refused),
            (at("namespaceSelector", json!({})), refused),
            (at("objectSelector", json!({"matchLabels": {"a": "b"}})), refused),
            (at("clientConfig/service/path", json!("/other")), refused),
            (at("matchConditions", json!([{"name": "never", "expression": "false"}])), refused),
            (at("rules", json!([])), refused),
            (at("timeoutSeconds", json!(1)), refused),
            (json!({"op": "remove", "path": "/webhooks/0"}), refused),
            // The garbage collector would delete it.
            (json!({"op": "add", "path": "/metadata/ownerReferences", "value": [absent_owner()]}), refused),
        ] {
            let patch = Patch::Json::<()>(serde_json::from_value(json!([change]))?);
            want(&change.to_string(), wanted, async || {
                Api::<MutatingWebhookConfiguration>::all(client.clone())
                    .patch(WEBHOOK_NAME, &dry_patch(), &patch)
                    .await
            })
            .await?;
            want(&change.to_string(), wanted, async || {
                Api::<ValidatingWebhookConfiguration>::all(client.clone())
                    .patch(WEBHOOK_NAME, &dry_patch(), &patch)
                    .await
            })
            .await?;
        }
        Ok(())
    })
    .await
}
