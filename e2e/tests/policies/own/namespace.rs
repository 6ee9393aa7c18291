//! What is in our namespace: only holders of `unmanage` may change it, but for what the cluster itself must.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, Secret};
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, Patch, PostParams};
use serde_json::json;
use tollgate_e2e::namespace::TestNamespace;
use tollgate_shared::contract::{SYSTEM_NAMESPACE, WEBHOOK_NAME};

use super::{dry_patch, dry_run, operator};
use crate::actor::{impersonate, may_unmanage};
use crate::fixture::{mint, token_request};
use crate::want::{Want, want};

#[tokio::test(flavor = "multi_thread")]
async fn our_namespace_changes_only_by_holders_of_unmanage() -> anyhow::Result<()> {
    TestNamespace::run(None, async |namespace| {
        let clumsy = operator(namespace, "clumsy", &[]).await?;
        let trusted = operator(namespace, "trusted", &[may_unmanage()]).await?;
        for (client, ours) in [
            (&clumsy, Want::Refused("own-object")),
            (&trusted, Want::Admitted),
        ] {
            let secret: Secret = serde_json::from_value(json!({"metadata": {"name": "mine"}}))?;
            want("a Secret", ours, async || {
                Api::namespaced(client.clone(), SYSTEM_NAMESPACE)
                    .create(&dry_run(), &secret)
                    .await
            })
            .await?;
            for (name, wanted) in [
                ("tollgate-webhook", ours),
                ("istio-ca-root-cert", Want::Admitted),
            ] {
                let map: ConfigMap = serde_json::from_value(json!({"metadata": {"name": name}}))?;
                want(name, wanted, async || {
                    Api::namespaced(client.clone(), SYSTEM_NAMESPACE)
                        .create(&dry_run(), &map)
                        .await
                })
                .await?;
            }
            want("a token of the webhook", ours, async || {
                mint(client, SYSTEM_NAMESPACE, WEBHOOK_NAME, &token_request(None)).await
            })
            .await?;
            want("no replicas", ours, async || {
                Api::<Deployment>::namespaced(client.clone(), SYSTEM_NAMESPACE)
                    .patch_scale(
                        WEBHOOK_NAME,
                        &dry_patch(),
                        &Patch::Merge(json!({"spec": {"replicas": 0}})),
                    )
                    .await
            })
            .await?;
            for (metadata, wanted) in [
                (
                    json!({"labels": {"pod-security.kubernetes.io/enforce": "privileged"}}),
                    ours,
                ),
                (
                    json!({"annotations": {"example.org/seen": "yes"}}),
                    Want::Admitted,
                ),
            ] {
                let patch = Patch::Merge(json!({"metadata": metadata}));
                want(&metadata.to_string(), wanted, async || {
                    Api::<Namespace>::all(client.clone())
                        .patch(SYSTEM_NAMESPACE, &dry_patch(), &patch)
                        .await
                })
                .await?;
            }
        }
        // The control plane goes on: it publishes, and makes what Deployments need.
        let publisher = "system:serviceaccount:kube-system:root-ca-cert-publisher";
        let publisher = impersonate(&namespace.cluster, publisher, &[], &[])?;
        let map: ConfigMap =
            serde_json::from_value(json!({"metadata": {"name": "kube-root-ca.crt"}}))?;
        want("the publisher", Want::Admitted, async || {
            Api::namespaced(publisher.clone(), SYSTEM_NAMESPACE)
                .create(&dry_run(), &map)
                .await
        })
        .await
    })
    .await
}

/// Network plugins note on every pod what they gave it.
#[tokio::test(flavor = "multi_thread")]
async fn our_pods_may_be_annotated_and_not_labelled() -> anyhow::Result<()> {
    TestNamespace::run(None, async |namespace| {
        let pods: Api<Pod> = Api::namespaced(namespace.client(), SYSTEM_NAMESPACE);
        // Never scheduled; the webhook's own may be away.
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"generateName": "annotated-"},
            "spec": {
                "schedulingGates": [{"name": "tollgate.dev/e2e"}],
                "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
                "containers": [{
                    "name": "none", "image": "agent:none",
                    "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
                }],
            },
        }))?;
        let name = pods.create(&PostParams::default(), &pod).await?.name_any();
        let changed = change_metadata(namespace, &name).await;
        pods.delete(&name, &DeleteParams::default().grace_period(0)).await?;
        changed
    })
    .await
}

async fn change_metadata(namespace: &TestNamespace, pod: &str) -> anyhow::Result<()> {
    let clumsy = operator(namespace, "clumsy", &[]).await?;
    let pods: Api<Pod> = Api::namespaced(clumsy, SYSTEM_NAMESPACE);
    for (metadata, wanted) in [
        (
            json!({"annotations": {"example.org/ip": "10.0.0.1"}}),
            Want::Success,
        ),
        (
            json!({"labels": {"example.org/ip": "x"}}),
            Want::Refused("own-object"),
        ),
    ] {
        let patch = Patch::Merge(json!({"metadata": metadata}));
        want(&metadata.to_string(), wanted, async || {
            pods.patch(pod, &dry_patch(), &patch).await
        })
        .await?;
    }
    Ok(())
}
